//! Files as common primary plugins write them.

use proptest::prelude::*;
use rstest::rstest;
use serde_json::json;

use super::*;

const PTP: &str = r#"{
  "name": "pods",
  "cniVersion": "0.4.0",
  "unknown": {"z": 1, "a": [1.50, 2]},
  "plugins": [
    {"type": "ptp", "mtu": 1450, "ipam": {"type": "host-local"}},
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ],
  "disableCheck": true
}"#;

fn entry() -> Value {
    json!({ "type": TYPE, "socket": "/run/weft/cni.sock", "exemptNamespaces": ["kube-system"] })
}

#[test]
fn it_comes_last_and_nothing_else_changes() {
    let chained = chain(PTP, &entry()).unwrap().unwrap();
    let expected = format!(
        "{{\n  \"name\": \"pods\",\n  \"cniVersion\": \"0.4.0\",\n  \"unknown\": {{\"z\": 1, \"a\": [1.50, 2]}},\n  \"plugins\": [\n    \
         {{\"type\": \"ptp\", \"mtu\": 1450, \"ipam\": {{\"type\": \"host-local\"}}}},\n    \
         {{\"type\": \"portmap\", \"capabilities\": {{\"portMappings\": true}}}},\n    {}\n  ],\n  \"disableCheck\": true\n}}\n",
        entry()
    );
    assert_eq!(chained, expected);
    assert_eq!(chain(&chained, &entry()).unwrap(), None);
}

#[test]
fn an_older_entry_of_ours_is_replaced_and_one_that_is_not_last_goes_there() {
    let older = json!({ "type": TYPE, "socket": "/old" });
    let chained = chain(PTP, &older).unwrap().unwrap();
    assert_eq!(chain(&chained, &entry()).unwrap(), chain(PTP, &entry()).unwrap());
    let first = format!(r#"{{"cniVersion":"1.0.0","plugins":[{},{{"type":"ptp"}}]}}"#, entry());
    let moved: Value = serde_json::from_str(&chain(&first, &entry()).unwrap().unwrap()).unwrap();
    assert_eq!(moved["plugins"], json!([{ "type": "ptp" }, entry()]));
}

#[test]
fn one_plugin_becomes_a_list() {
    let conf = r#"{"cniVersion":"0.3.1","name":"net","type":"bridge","bridge":"cni0"}"#;
    let list = listed(conf, &entry()).unwrap();
    let value: Value = serde_json::from_str(&list).unwrap();
    let whole: Value = serde_json::from_str(conf).unwrap();
    assert_eq!(value, json!({ "cniVersion": "0.3.1", "name": "net", "plugins": [whole, entry()] }));
    assert_eq!(chain(&list, &entry()).unwrap(), None);
}

#[rstest]
#[case::no_json("{")]
#[case::no_object("[]")]
#[case::twice(r#"{"plugins":[{"type":"a"}],"plugins":[],"cniVersion":"1.0.0"}"#)]
#[case::no_plugins(r#"{"cniVersion":"1.0.0"}"#)]
#[case::none(r#"{"cniVersion":"1.0.0","plugins":[]}"#)]
#[case::only_ours(r#"{"cniVersion":"1.0.0","plugins":[{"type":"weft-cni"}]}"#)]
fn what_no_runtime_reads(#[case] text: &str) {
    assert!(matches!(chain(text, &entry()), Err(Unusable::Broken(_) | Unusable::NoPlugins)));
    assert!(matches!(listed(text, &entry()), Err(Unusable::Broken(_) | Unusable::NoPlugins)));
}

#[rstest]
#[case(r#"{"plugins":[{"type":"a"}]}"#)]
#[case(r#"{"cniVersion":"0.2.0","plugins":[{"type":"a"}]}"#)]
fn what_has_no_place_for_us(#[case] text: &str) {
    assert!(matches!(chain(text, &entry()), Err(Unusable::Version(_))));
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".*".prop_map(Value::from)
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(".*", inner, 0..4).prop_map(|map| map.into_iter().collect()),
        ]
    })
}

proptest! {
    #[test]
    fn out_undoes_in(
        fields in proptest::collection::btree_map("[a-z\"\n]{1,9}", json_value(), 0..4),
        plugins in proptest::collection::vec(proptest::collection::btree_map("[a-z]{1,5}", json_value(), 0..4), 1..4),
        pretty in any::<bool>(),
    ) {
        let mut list: serde_json::Map<String, Value> = fields.into_iter().collect();
        list.insert("cniVersion".to_owned(), "1.0.0".into());
        let plugins: Vec<Value> = plugins.into_iter().map(|plugin| plugin.into_iter().collect()).collect();
        list.insert("plugins".to_owned(), plugins.clone().into());
        let before = Value::from(list);
        let text = if pretty { format!("{before:#}") } else { before.to_string() };
        let chained = chain(&text, &entry()).unwrap().unwrap();
        prop_assert_eq!(chain(&chained, &entry()).unwrap(), None);
        let after: Value = serde_json::from_str(&chained).unwrap();
        prop_assert_eq!(after["plugins"].as_array().unwrap().last().unwrap(), &entry());
        let without: Value = serde_json::from_str(&unchain(&chained).unwrap().unwrap()).unwrap();
        prop_assert_eq!(without, before);
        prop_assert_eq!(unchain(&text).unwrap(), None);
    }

    #[test]
    fn no_text_is_too_odd(text in ".*") {
        let _any = (chain(&text, &entry()), listed(&text, &entry()), unchain(&text));
    }
}
