//! YAML as plain values, for those who have values that are no Kubernetes objects, and for those who print objects.

use serde_json::Value;

/// What a text says; nothing but comments is null.
///
/// # Errors
/// It is not YAML, in the parser's words, which name line and column.
pub fn read_plain(text: &str) -> Result<Value, String> {
    if text.trim().is_empty() {
        return Ok(Value::Null);
    }
    let mut value: serde_yaml::Value = serde_yaml::from_str(text).map_err(|error| error.to_string())?;
    value.apply_merge().map_err(|error| error.to_string())?;
    serde_json::to_value(value).map_err(|error| error.to_string())
}

/// Documents, one after the other. `serde_yaml` writes what is a text in YAML 1.2 alone without quotes, such as `on`; kubectl and Helm read YAML
/// 1.1, where that is a truth value.
#[must_use]
pub fn write_plain(documents: &[Value]) -> String {
    let write = |document: &Value| {
        let mut text = String::new();
        block(document, 0, &mut text);
        text
    };
    documents.iter().map(write).collect::<Vec<_>>().join("---\n")
}

/// A value that begins on a line of its own.
fn block(value: &Value, indent: usize, text: &mut String) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                text.push_str(&format!("{:indent$}{}:", "", scalar(&Value::from(key.as_str()))));
                behind(value, indent, text);
            }
        }
        Value::Array(list) if !list.is_empty() => {
            for value in list {
                text.push_str(&format!("{:indent$}-", ""));
                match value {
                    // The first key stands behind the dash.
                    Value::Object(map) if !map.is_empty() => {
                        let mut inner = String::new();
                        block(value, indent + 2, &mut inner);
                        text.push_str(&inner[indent + 1..]);
                    }
                    value => behind(value, indent, text),
                }
            }
        }
        value => text.push_str(&format!("{:indent$}{}\n", "", scalar(value))),
    }
}

/// A value behind a key or a dash.
fn behind(value: &Value, indent: usize, text: &mut String) {
    let is_long =
        value.as_object().is_some_and(|map| !map.is_empty()) || value.as_array().is_some_and(|list| !list.is_empty());
    if is_long {
        text.push('\n');
        block(value, indent + 2, text);
    } else {
        text.push_str(&format!(" {}\n", scalar(value)));
    }
}

/// As JSON writes it, but for texts that nobody takes for anything else.
fn scalar(value: &Value) -> String {
    /// What YAML 1.1 takes for something else, in small letters (yaml.org/type: bool, null).
    const WORDS: [&str; 9] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];
    match value.as_str() {
        Some(text)
            if text.starts_with(|first: char| first.is_ascii_alphabetic())
                && text.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_./".contains(letter))
                && !WORDS.contains(&&*text.to_ascii_lowercase()) =>
        {
            text.to_owned()
        }
        _ => value.to_string().chars().map(printable).collect(),
    }
}

/// JSON leaves more letters as they are than YAML takes (YAML 1.2.2, sections 5.1 and 5.4).
fn printable(letter: char) -> String {
    match letter {
        '\u{feff}' | '\u{2028}' | '\u{2029}' | '\u{fffe}' | '\u{ffff}' => format!("\\u{:04x}", u32::from(letter)),
        letter if letter.is_control() => format!("\\u{:04x}", u32::from(letter)),
        letter => letter.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::{read_plain, write_plain};

    #[rstest]
    #[case("", json!(null))]
    #[case("# nothing\n", json!(null))]
    #[case("3", json!(3))]
    #[case("\"3\"", json!("3"))]
    #[case("[{key: mesh}]", json!([{ "key": "mesh" }]))]
    #[case("a: &x {b: 1}\nc: {<<: *x, d: 2}\n", json!({ "a": { "b": 1 }, "c": { "b": 1, "d": 2 } }))]
    fn a_text(#[case] text: &str, #[case] expected: Value) {
        assert_eq!(read_plain(text), Ok(expected));
    }

    #[test]
    fn what_is_no_yaml_is_said_with_its_line() {
        let problem = read_plain("a: 1\nb: [\n").unwrap_err();
        assert!(problem.contains("line 3"), "{problem}");
        let keys = read_plain("? [a]\n: 1\n").unwrap_err();
        assert!(keys.contains("key"), "{keys}");
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".{0,12}".prop_map(Value::from),
            prop::sample::select(vec![
                "on",
                "No",
                "NULL",
                "~",
                "1e3",
                ".inf",
                "0x1",
                "2001-01-01",
                "a\nb\n",
                "-",
                "=",
                "<<"
            ])
            .prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-zA-Z0-9./]{1,8}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(value in any_value()) {
            let text = write_plain(std::slice::from_ref(&value));
            prop_assert_eq!(read_plain(&text), Ok(value), "{}", text);
        }
    }

    #[test]
    fn objects_look_as_people_write_them() {
        let object = json!({
            "kind": "Pod", "labels": { "on": "Yes", "a/b": "1" },
            "list": [{ "name": "a", "empty": {}, "inner": [1, [true, "x"]] }, "weft.dev/mesh", "a: b"],
        });
        let expected = "kind: Pod\nlabels:\n  a/b: \"1\"\n  \"on\": \"Yes\"\nlist:\n  - empty: {}\n    inner:\n      - 1\n      -\n        - true\n        - x\n    \
                        name: a\n  - weft.dev/mesh\n  - \"a: b\"\n";
        assert_eq!(write_plain(&[object.clone(), object]), format!("{expected}---\n{expected}"));
    }
}
