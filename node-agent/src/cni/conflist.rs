//! Our entry in a node's CNI configuration: in as the last of the plugins, and out. Pure: text in, text out; what is not ours keeps its
//! order and its spelling.

use std::fmt;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;
use thiserror::Error;

use super::plugin::VERSIONS;

/// The type of our entry, and the name of its program.
pub const TYPE: &str = "weft-cni";

/// Why a file cannot have our entry.
#[derive(Debug, Error)]
pub enum Unusable {
    /// The container runtime passes it over, too.
    #[error("it is not read by container runtimes either: {0}")]
    Broken(#[from] serde_json::Error),
    /// The same.
    #[error("it names no plugin")]
    NoPlugins,
    /// It is in use, and has no place for us.
    #[error("its cniVersion {0:?} has no chained plugins: it must be one of 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0")]
    Version(String),
}

/// An object's fields in order, duplicates refused.
struct Fields(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Fields;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }
            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Fields, M::Error> {
                let mut fields = Fields(Vec::new());
                while let Some((name, value)) = map.next_entry::<String, Box<RawValue>>()? {
                    if fields.get(&name).is_some() {
                        return Err(M::Error::custom(format!("{name} stands there twice")));
                    }
                    fields.0.push((name, value));
                }
                Ok(fields)
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

impl Fields {
    fn get(&self, name: &str) -> Option<&RawValue> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| &**value)
    }

    fn text(&self, name: &str) -> Result<String, serde_json::Error> {
        self.get(name).map_or(Ok(String::new()), |value| serde_json::from_str(value.get()))
    }

    fn plugins(&self) -> Result<Vec<Box<RawValue>>, Unusable> {
        let list = self.get("plugins").ok_or(Unusable::NoPlugins)?;
        Ok(serde_json::from_str(list.get())?)
    }

    /// The same with other plugins.
    fn written(&self, plugins: &[Box<RawValue>]) -> String {
        let list = plugins.iter().map(|plugin| format!("    {}", plugin.get())).collect::<Vec<_>>().join(",\n");
        let list = format!("[\n{list}\n  ]");
        let field = |(name, value): &(String, Box<RawValue>)| {
            let value = if name == "plugins" { list.as_str() } else { value.get() };
            format!("  {}: {value}", Value::from(name.as_str()))
        };
        format!("{{\n{}\n}}\n", self.0.iter().map(field).collect::<Vec<_>>().join(",\n"))
    }
}

fn is_ours(plugin: &RawValue) -> bool {
    serde_json::from_str::<Value>(plugin.get()).is_ok_and(|plugin| plugin["type"] == TYPE)
}

fn supported(fields: &Fields) -> Result<(), Unusable> {
    let version = fields.text("cniVersion")?;
    if VERSIONS.contains(&&*version) { Ok(()) } else { Err(Unusable::Version(version)) }
}

/// A list of plugins (`*.conflist`) with `entry` as the last one; `None` when it is that already.
///
/// # Errors
/// [`Unusable`].
pub fn chain(text: &str, entry: &Value) -> Result<Option<String>, Unusable> {
    let fields: Fields = serde_json::from_str(text)?;
    let before = fields.plugins()?;
    let (ours, mut plugins): (Vec<_>, Vec<_>) = before.iter().cloned().partition(|plugin| is_ours(plugin));
    if plugins.is_empty() {
        return Err(Unusable::NoPlugins);
    }
    supported(&fields)?;
    let as_wanted = |plugin: &RawValue| serde_json::from_str::<Value>(plugin.get()).is_ok_and(|found| found == *entry);
    if ours.len() == 1 && before.last().is_some_and(|plugin| as_wanted(plugin)) {
        return Ok(None);
    }
    plugins.push(RawValue::from_string(entry.to_string())?);
    Ok(Some(fields.written(&plugins)))
}

/// One plugin (`*.conf`) as a list that ends with `entry`.
///
/// # Errors
/// [`Unusable`].
pub fn listed(text: &str, entry: &Value) -> Result<String, Unusable> {
    let fields: Fields = serde_json::from_str(text)?;
    if fields.text("type")?.is_empty() {
        return Err(Unusable::NoPlugins);
    }
    supported(&fields)?;
    let head =
        ["cniVersion", "name"].into_iter().filter_map(|name| Some((name.to_owned(), fields.get(name)?.to_owned())));
    let mut list = Fields(head.collect());
    list.0.push(("plugins".to_owned(), RawValue::from_string("[]".to_owned())?));
    let plugin: Box<RawValue> = serde_json::from_str(text)?;
    Ok(list.written(&[plugin, RawValue::from_string(entry.to_string())?]))
}

/// A list without our entry; `None` when there is none.
///
/// # Errors
/// [`Unusable`].
pub fn unchain(text: &str) -> Result<Option<String>, Unusable> {
    let fields: Fields = serde_json::from_str(text)?;
    let before = fields.plugins()?;
    let plugins: Vec<_> = before.iter().filter(|plugin| !is_ours(plugin)).cloned().collect();
    Ok((plugins.len() < before.len()).then(|| fields.written(&plugins)))
}

#[cfg(test)]
mod tests;
