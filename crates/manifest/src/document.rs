//! From the bytes of a file to single documents: multi-document YAML, JSON, and Lists as `kubectl get -o yaml` writes them.
//!
//! Documents are separated before they are parsed, so that a syntax error in one costs only that one. This is exact and
//! not a guess: YAML 1.2.2 rule c-forbidden (section 9.1.2) keeps `---` and `...` at the start of a line out of every
//! scalar, so such a line always is a document marker.

use serde::Deserialize;
use serde_yaml::Value;

use crate::finding::{Finding, Place, Severity};

/// One document, or one item of a List.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// Where it stands.
    pub place: Place,
    /// What it says; always a mapping.
    pub value: Value,
}

/// What a file holds: its documents, each good or refused, in order. Empty documents (comments only) are left out.
#[must_use]
pub fn split(file: &str, bytes: &[u8]) -> Vec<Result<Document, Finding>> {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text.strip_prefix('\u{feff}').unwrap_or(text),
        Err(error) => {
            let line = 1 + bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count();
            let place = Place { line, ..Place::whole_file(file) };
            return vec![Err(refusal(place, format!("is not UTF-8 text (line {line}); expected YAML or JSON")))];
        }
    };
    let mut found = Vec::new();
    for (index, part) in parts(text).into_iter().filter(|part| !is_blank(part.text)).enumerate() {
        let place = Place { file: file.into(), document: index + 1, item: None, line: part.first_content_line() };
        match parse(part.text) {
            Ok(Value::Null) => {}
            Ok(value @ Value::Mapping(_)) => unfold(place, value, &mut found),
            Ok(_) => found.push(Err(refusal(place, "expected a Kubernetes object (a mapping)".to_owned()))),
            Err((line, problem)) => {
                let line = line.map_or(place.line, |line| part.line + line - 1);
                found.push(Err(refusal(Place { line, ..place }, lines_of_file(&problem, part.line - 1))));
            }
        }
    }
    found
}

struct Part<'a> {
    text: &'a str,
    /// The line of the file at which `text` begins, counted from 1.
    line: usize,
}

impl Part<'_> {
    fn first_content_line(&self) -> usize {
        self.line + self.text.lines().position(|line| !is_blank(line)).unwrap_or(0)
    }
}

/// Nothing but white space, comments and directives (`%YAML 1.2`).
fn is_blank(text: &str) -> bool {
    text.lines().all(|line| line.starts_with('%') || line.trim().is_empty() || line.trim_start().starts_with('#'))
}

/// The stretches between the document markers.
fn parts(text: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let (mut start, mut start_line, mut position) = (0, 1, 0);
    for (index, line) in text.split_inclusive('\n').enumerate() {
        if let Some(after) = after_marker(line) {
            parts.push(Part { text: &text[start..position], line: start_line });
            // What follows `--- ` on the same line belongs to the new document.
            (start, start_line) = (position + after, index + 1);
        }
        position += line.len();
    }
    parts.push(Part { text: &text[start..], line: start_line });
    parts
}

/// Where the content begins after a document marker, if the line begins with one.
fn after_marker(line: &str) -> Option<usize> {
    let rest = line.strip_prefix("---").or_else(|| line.strip_prefix("..."))?;
    (rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n'])).then_some(3)
}

/// One document's value, or the line inside it and what is wrong.
fn parse(text: &str) -> Result<Value, (Option<usize>, String)> {
    // JSON has a parser of its own: indented with tabs it is no YAML for libyaml.
    if text.trim_start().starts_with('{')
        && let Ok(value) = serde_json::from_str::<Value>(text)
    {
        return Ok(value);
    }
    let read = |error: &serde_yaml::Error| {
        let line = error.location().map(|location| location.line());
        (line, format!("is not valid YAML: {error}"))
    };
    let mut value = Value::deserialize(serde_yaml::Deserializer::from_str(text)).map_err(|error| read(&error))?;
    value.apply_merge().map_err(|error| read(&error))?;
    Ok(value)
}

/// The parser counts the lines of the document; people count those of the file.
fn lines_of_file(problem: &str, before: usize) -> String {
    let mut parts = problem.split(" line ");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let digits = part.len() - part.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        match part[..digits].parse::<usize>() {
            Ok(line) => text += &format!(" line {}{}", line.saturating_add(before), &part[digits..]),
            Err(_) => text += &format!(" line {part}"),
        }
    }
    text
}

/// A List becomes its items; everything else stays.
fn unfold(place: Place, mut value: Value, found: &mut Vec<Result<Document, Finding>>) {
    let kind = value.get("kind").and_then(Value::as_str).unwrap_or_default();
    let core = value.get("apiVersion").and_then(Value::as_str).is_some_and(|version| {
        version == "v1" || version.starts_with("discovery.k8s.io/") || version.starts_with("weft.dev/")
    });
    // `List` is kubectl's own; `PodList` and the like are what the API server answers.
    let is_list = core && kind.ends_with("List");
    if !is_list {
        found.push(Ok(Document { place, value }));
        return;
    }
    let inherited = kind.strip_suffix("List").filter(|kind| !kind.is_empty()).map(str::to_owned);
    let version = value.get("apiVersion").cloned();
    match value.get_mut("items").map(std::mem::take) {
        Some(Value::Sequence(items)) => {
            for (index, mut item) in items.into_iter().enumerate() {
                let place = Place { item: Some(index + 1), ..place.clone() };
                let Value::Mapping(fields) = &mut item else {
                    found.push(Err(refusal(place, "expected a Kubernetes object (a mapping)".to_owned())));
                    continue;
                };
                // The items of a typed list do not repeat what the list says.
                if let (Some(kind), Some(version)) = (&inherited, &version) {
                    fields.entry("kind".into()).or_insert_with(|| kind.as_str().into());
                    fields.entry("apiVersion".into()).or_insert_with(|| version.clone());
                }
                unfold(place, item, found);
            }
        }
        None | Some(Value::Null) => {}
        Some(_) => {
            found.push(Err(Finding { field: "items".to_owned(), ..refusal(place, "expected a list".to_owned()) }))
        }
    }
}

fn refusal(place: Place, problem: String) -> Finding {
    Finding { place, severity: Severity::Error, object: String::new(), field: String::new(), problem }
}

#[cfg(test)]
mod tests;
