//! What was set is read back, and renders the same objects again.

use std::collections::BTreeMap;

use proptest::prelude::*;
use rstest::rstest;
use serde_json::{Map, Value, json};

use super::super::{Cni, Mtls, Part, PullPolicy, Server, Values, render};
use super::{keeps_plugin, kept, placed};
use crate::cluster::manifests;

fn chart() -> Values {
    Values::chart().unwrap()
}

fn set(values: &Values) -> Vec<Value> {
    render(manifests::base().unwrap(), values, &chart())
}

fn read(live: &[Value]) -> Values {
    placed(live, kept(live, &chart())).unwrap()
}

fn map(value: &Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

fn any_part(containers: &'static [&'static str]) -> impl Strategy<Value = Part> {
    let resources = prop::collection::btree_map(
        prop::sample::select(containers),
        prop::sample::select(vec![json!({ "limits": { "cpu": "1" } }), json!({ "requests": { "memory": "1Gi" } })]),
        0..=containers.len(),
    );
    let tolerations = prop::collection::vec("[a-z]{1,5}", 0..2);
    (resources, prop::collection::btree_map("[a-z]{1,5}", "[a-z0-9]{0,3}", 0..3), tolerations).prop_map(
        |(resources, node_selector, tolerations)| Part {
            resources: resources.into_iter().map(|(name, value)| (name.to_owned(), map(&value))).collect(),
            node_selector,
            tolerations: tolerations.into_iter().map(|key| map(&json!({ "key": key }))).collect(),
        },
    )
}

prop_compose! {
    fn any_values()(
        images in "[a-z.]{1,9}(:[0-9]{1,4})?(/[a-z]{1,5}){0,2}",
        tag in "[a-z0-9][a-z0-9.-]{0,8}",
        (pull_policy, secret, strict, enabled) in (0..4_usize, "[a-z]{0,5}", any::<bool>(), any::<bool>()),
        names in prop::array::uniform4("[a-z]{1,6}(\\.[a-z]{1,6})?"),
        directories in prop::array::uniform2("(/[a-z.]{1,6}){1,3}"),
        replicas in 1..5_u32,
        server in any_part(&["xds-server"]),
        node_agent in any_part(&["watch", "capture", "proxy", "cni"]),
    ) -> Values {
        let policies = [PullPolicy::AsKubernetes, PullPolicy::IfNotPresent, PullPolicy::Always, PullPolicy::Never];
        let [trust_domain, cluster_domain, cluster, network] = names;
        let [configurations, programs] = directories;
        let Part { resources, node_selector, tolerations } = server;
        Values {
            images, tag, pull_policy: policies[pull_policy],
            pull_secrets: if secret.is_empty() { Vec::new() } else { vec![map(&json!({ "name": secret }))] },
            mtls: if strict { Mtls::Strict } else { Mtls::Permissive },
            trust_domain, cluster_domain, cluster, network,
            cni: Cni { enabled, configurations, programs },
            xds_server: Server { replicas, resources, node_selector, tolerations },
            node_agent, unenroll: false,
        }
    }
}

proptest! {
    #[test]
    fn what_was_set_is_kept(values in any_values()) {
        let objects = set(&values);
        let again = read(&objects);
        // What Kubernetes decides by itself counts as not set, and comes out the same.
        let expected = Values { pull_policy: again.pull_policy, ..values.clone() };
        prop_assert_eq!(&again, &expected);
        if again.pull_policy != values.pull_policy {
            prop_assert_eq!(again.pull_policy, PullPolicy::AsKubernetes);
        }
    }
}

#[test]
fn what_was_not_set_is_as_the_chart_says() {
    let read_back = read(&set(&chart()));
    assert_eq!(Values { tag: String::new(), ..read_back }, chart());
    assert_eq!(read(&[]), chart(), "nothing is there");
}

#[rstest]
#[case::kubernetes_says_what_it_decides("localhost/weft/x:1.0", "IfNotPresent", ("localhost/weft", "1.0", PullPolicy::AsKubernetes))]
#[case::set("localhost/weft/x:1.0", "Always", ("localhost/weft", "1.0", PullPolicy::Always))]
#[case::latest("r:5000/x", "Always", ("r:5000", "latest", PullPolicy::AsKubernetes))]
#[case::latest_once("r:5000/a/b/x:latest", "IfNotPresent", ("r:5000/a/b", "latest", PullPolicy::IfNotPresent))]
fn images(#[case] image: &str, #[case] policy: &str, #[case] expected: (&str, &str, PullPolicy)) {
    let mut objects = set(&chart());
    for object in objects.iter_mut().filter(|object| object["kind"] == "Deployment" || object["kind"] == "DaemonSet") {
        let first = &mut object["spec"]["template"]["spec"]["containers"][0];
        (first["image"], first["imagePullPolicy"]) = (image.into(), policy.into());
    }
    let values = read(&objects);
    assert_eq!((&*values.images, &*values.tag, values.pull_policy), expected);
}

#[test]
fn a_control_plane_that_was_stopped_by_hand_is_started_again() {
    let mut objects = set(&chart());
    let server = objects.iter_mut().find(|object| object["kind"] == "Deployment").unwrap();
    server["spec"]["replicas"] = 0.into();
    assert_eq!(read(&objects).xds_server.replicas, chart().xds_server.replicas);
}

#[test]
fn one_replica_has_no_disruption_budget() {
    let one = chart().with(json!({ "xdsServer": { "replicas": 1 } })).unwrap();
    let kinds = |objects: &[Value]| -> BTreeMap<String, usize> {
        let mut count = BTreeMap::new();
        for object in objects {
            *count.entry(object["kind"].as_str().unwrap().to_owned()).or_default() += 1;
        }
        count
    };
    assert_eq!(kinds(&set(&chart())).get("PodDisruptionBudget"), Some(&1));
    assert_eq!(kinds(&set(&one)).get("PodDisruptionBudget"), None);
}

#[test]
fn agents_keep_the_plugin_unless_they_are_told_to_keep_it_away() {
    let without = chart().with(json!({ "cni": { "enabled": false } })).unwrap();
    assert!(keeps_plugin(set(&chart()).last().unwrap()) && !keeps_plugin(set(&without).last().unwrap()));
}
