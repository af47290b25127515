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

/// Documents, one after the other.
///
/// # Errors
/// None that is known: every JSON value is a YAML value.
pub fn write_plain(documents: &[Value]) -> Result<String, String> {
    let texts: Result<Vec<String>, _> = documents.iter().map(serde_yaml::to_string).collect();
    texts.map(|texts| texts.join("---\n")).map_err(|error| error.to_string())
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
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-z./]{1,8}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(value in any_value()) {
            prop_assert_eq!(read_plain(&write_plain(std::slice::from_ref(&value)).unwrap()).unwrap(), value);
        }
    }
}
