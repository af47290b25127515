//! Values as trees: laid over each other as Helm does it, and held against each other. Pure.

use serde_json::{Map, Value};

/// What is in both as maps is laid over each other key by key, else what comes later is in force, null too.
pub(super) fn lay_over(base: &mut Value, over: Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                lay_over(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (base, over) => *base = over,
    }
}

/// Takes away the keys that are null.
pub(super) fn without_null(tree: &mut Value) {
    if let Value::Object(map) = tree {
        map.retain(|_, value| !value.is_null());
        map.values_mut().for_each(without_null);
    }
}

/// A value at a path of keys.
pub(super) fn at(path: &[String], value: Value) -> Value {
    path.iter().rev().fold(value, |value, key| Value::Object(Map::from_iter([(key.clone(), value)])))
}

/// A path as it is written: dots are between keys, `\.` is a dot within a key.
///
/// # Errors
/// A key is empty.
pub(super) fn path(text: &str) -> Result<Vec<String>, String> {
    let mut keys = vec![String::new()];
    let mut letters = text.trim().chars();
    while let Some(letter) = letters.next() {
        let last = keys.len() - 1;
        match letter {
            '.' => keys.push(String::new()),
            '\\' => keys[last].extend(letters.next()),
            letter => keys[last].push(letter),
        }
    }
    if keys.iter().any(String::is_empty) {
        return Err(format!("{text:?} names no value; expected keys with dots between them, such as cni.programs"));
    }
    Ok(keys)
}

/// Where `new` is not what `old` is, as `path=value`; what is only in `old` is `path=null`.
#[must_use]
pub fn differences(old: &Value, new: &Value) -> Vec<String> {
    let mut found = Vec::new();
    differ(&mut Vec::new(), old, new, &mut found);
    found
}

fn differ<'v>(path: &mut Vec<&'v str>, old: &'v Value, new: &'v Value, found: &mut Vec<String>) {
    if old == new {
        return;
    }
    // A map that says nothing yet is laid over all the same: what is in it is said key by key.
    if let (Value::Object(old), Value::Object(new)) = (old, new)
        && !new.is_empty()
    {
        let gone = old.keys().filter(|key| !new.contains_key(*key)).map(|key| (key, &Value::Null));
        for (key, value) in new.iter().chain(gone) {
            path.push(key);
            differ(path, old.get(key).unwrap_or(&Value::Null), value, found);
            path.pop();
        }
        return;
    }
    let keys = path.iter().map(|key| key.replace('\\', "\\\\").replace('.', "\\.")).collect::<Vec<_>>().join(".");
    let value = new.as_str().map_or_else(|| new.to_string(), str::to_owned);
    found.push(format!("{keys}={value}"));
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::{at, differences, lay_over, path, without_null};

    #[rstest]
    #[case(json!({ "a": 1, "b": { "c": 2 } }), json!({ "b": { "d": 3 } }), json!({ "a": 1, "b": { "c": 2, "d": 3 } }))]
    #[case(json!({ "a": [1, 2] }), json!({ "a": [3] }), json!({ "a": [3] }))]
    #[case(json!({ "a": { "b": 1, "c": 2 } }), json!({ "a": { "b": null } }), json!({ "a": { "b": null, "c": 2 } }))]
    #[case(json!({ "a": 1 }), json!({ "a": { "b": { "c": 1 } } }), json!({ "a": { "b": { "c": 1 } } }))]
    #[case(json!({ "a": 1 }), json!({}), json!({ "a": 1 }))]
    fn one_over_the_other(#[case] mut base: Value, #[case] over: Value, #[case] expected: Value) {
        lay_over(&mut base, over);
        assert_eq!(base, expected);
    }

    #[test]
    fn null_is_nothing() {
        let mut tree = json!({ "a": null, "b": { "c": null, "d": [null] }, "e": 1 });
        without_null(&mut tree);
        assert_eq!(tree, json!({ "b": { "d": [null] }, "e": 1 }));
    }

    #[rstest]
    #[case("a", Ok(&["a"][..]))]
    #[case("cni.programs", Ok(&["cni", "programs"][..]))]
    #[case(r"nodeAgent.nodeSelector.kubernetes\.io/os", Ok(&["nodeAgent", "nodeSelector", "kubernetes.io/os"][..]))]
    #[case("", Err("\"\" names no value"))]
    #[case("a..b", Err("\"a..b\" names no value"))]
    fn paths(#[case] text: &str, #[case] expected: Result<&[&str], &str>) {
        match (path(text), expected) {
            (Ok(keys), Ok(expected)) => assert_eq!(keys, expected),
            (Err(problem), Err(expected)) => assert!(problem.starts_with(expected), "{problem}"),
            (found, expected) => panic!("{found:?}, not {expected:?}"),
        }
    }

    #[test]
    fn what_differs_can_be_given_again() {
        let (old, new) = (
            json!({ "a": 1, "b": { "x.y": "old", "gone": 1 }, "same": { "c": [1] }, "empty": {} }),
            json!({ "a": 2, "b": { "x.y": "new" }, "same": { "c": [1] }, "empty": { "k": { "l": true } } }),
        );
        let differences = differences(&old, &new);
        assert_eq!(differences, ["a=2", r"b.x\.y=new", "b.gone=null", r#"empty.k={"l":true}"#]);
        let mut again = old;
        for one in differences {
            let (keys, value) = one.split_once('=').unwrap();
            lay_over(&mut again, at(&path(keys).unwrap(), weft_manifest::read_plain(value).unwrap()));
        }
        without_null(&mut again);
        assert_eq!(again, new);
    }
}
