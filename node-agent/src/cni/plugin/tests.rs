//! Calls as containerd and CRI-O make them.

use rstest::rstest;
use serde_json::Value;

use super::*;

const RESULT: &str =
    r#"{"cniVersion":"0.4.0", "ips":[{"version":"4","address":"10.244.1.5/32"},{"address":"fd00::5/128"}],"odd":1.50}"#;
const ARGUMENTS: &str =
    "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-1;K8S_POD_INFRA_CONTAINER_ID=c1;K8S_POD_UID=u1";

fn call(command: &str, arguments: &str) -> Call {
    Call {
        command: command.to_owned(),
        container: "c1".to_owned(),
        netns: "/var/run/netns/cni-1".to_owned(),
        arguments: arguments.to_owned(),
    }
}

fn input(version: &str, result: Option<&str>) -> String {
    let result = result.map(|result| format!(r#","prevResult":{result}"#)).unwrap_or_default();
    format!(
        r#"{{"cniVersion":"{version}","name":"pods","type":"weft-cni","socket":"/s","exemptNamespaces":["kube-system","weft-system"]{result}}}"#
    )
}

#[test]
fn a_pod_is_asked_for_and_the_result_before_goes_on_unchanged() {
    let pod = NewPod {
        namespace: "shop".to_owned(),
        name: "web-1".to_owned(),
        uid: "u1".to_owned(),
        container: "c1".to_owned(),
        netns: "/var/run/netns/cni-1".to_owned(),
        addresses: vec!["10.244.1.5".parse().unwrap(), "fd00::5".parse().unwrap()],
    };
    for version in VERSIONS {
        let step = step(&call("ADD", ARGUMENTS), &input(version, Some(RESULT)));
        assert_eq!(step, Ok(Step::Ask("/s".into(), Request::Add(pod.clone()), RESULT.to_owned())), "{version}");
    }
}

#[rstest]
#[case::exempt("K8S_POD_NAMESPACE=kube-system;K8S_POD_NAME=dns;K8S_POD_UID=u")]
#[case::own("K8S_POD_NAMESPACE=weft-system;K8S_POD_NAME=agent")]
#[case::no_pod("IgnoreUnknown=1")]
#[case::nothing("")]
fn nobody_is_asked(#[case] arguments: &str) {
    assert_eq!(step(&call("ADD", arguments), &input("1.0.0", Some(RESULT))), Ok(Step::Print(RESULT.to_owned())));
}

#[rstest]
#[case::no_version(ARGUMENTS, input("", Some(RESULT)), 1)]
#[case::before_chains(ARGUMENTS, input("0.2.0", Some(RESULT)), 1)]
#[case::first(ARGUMENTS, input("1.0.0", None), 7)]
#[case::null(ARGUMENTS, input("1.0.0", Some("null")), 7)]
#[case::no_json(ARGUMENTS, "{".to_owned(), 6)]
#[case::odd_address(ARGUMENTS, input("1.0.0", Some(r#"{"ips":[{"address":"x"}]}"#)), 6)]
#[case::no_uid("K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web", input("1.0.0", Some(RESULT)), 4)]
#[case::no_name("K8S_POD_NAMESPACE=shop;K8S_POD_UID=u;K8S_POD_NAME=", input("1.0.0", Some(RESULT)), 4)]
fn what_is_not_understood_starts_nothing(#[case] arguments: &str, #[case] input: String, #[case] code: u32) {
    let error = step(&call("ADD", arguments), &input).unwrap_err();
    assert_eq!(error.code(), code, "{error}");
    let printed: Value = serde_json::from_str(&error.to_json(&version_of(&input))).unwrap();
    assert_eq!((&printed["code"], &printed["msg"]), (&code.into(), &error.to_string().into()));
    assert!(printed["cniVersion"].is_string());
}

#[rstest]
#[case("CHECK")]
#[case("STATUS")]
#[case("GC")]
fn says_nothing(#[case] command: &str) {
    assert_eq!(step(&call(command, ARGUMENTS), "no json"), Ok(Step::Print(String::new())));
}

#[test]
fn a_sandbox_that_goes_is_told_whatever_else_comes_in() {
    let told = Request::Delete { container: "c1".to_owned() };
    assert_eq!(step(&call("DEL", ""), &input("1.0.0", None)), Ok(Step::Tell("/s".into(), told.clone())));
    assert_eq!(step(&call("DEL", ""), "?"), Ok(Step::Tell(SOCKET.into(), told)));
}

#[test]
fn versions_are_named() {
    let Ok(Step::Print(text)) = step(&call("VERSION", ""), r#"{"cniVersion":"0.4.0"}"#) else { panic!() };
    let printed: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(printed["cniVersion"], "0.4.0");
    assert_eq!(printed["supportedVersions"].as_array().unwrap().len(), VERSIONS.len());
}

#[test]
fn an_unknown_command_is_an_error() {
    assert_eq!(step(&call("", ""), "").unwrap_err().code(), 4);
}

#[test]
fn answers() {
    assert_eq!(judge(Answer::Captured), Ok(()));
    assert_eq!(judge(Answer::NotSelected), Ok(()));
    assert_eq!(judge(Answer::Failed { message: "x".to_owned() }).unwrap_err().code(), 11);
    assert!(judge(Answer::Forgotten).is_err());
}
