//! `weft lint` as a person or a script calls it: what it prints and how it exits.

#![expect(clippy::unwrap_used, reason = "helpers of tests, which clippy does not know as tests")]

use std::process::{Command, Output};

fn lint(yaml: &str, options: &[&str]) -> Output {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("x.yaml"), yaml).unwrap();
    Command::new(env!("CARGO_BIN_EXE_weft")).arg("lint").arg(directory.path()).args(options).output().unwrap()
}

#[test]
fn good_files_exit_with_zero() {
    let output = lint("apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n", &[]);
    assert!(output.status.success());
    assert!(String::from_utf8(output.stdout).unwrap().ends_with(": 1 object read, all well\n"));
}

#[test]
fn findings_exit_with_one_and_are_there_as_json() {
    let output = lint("apiVersion: v1\nkind: Namespace\nmetadata: {nam: shop}\n", &["-o", "json"]);
    assert_eq!(output.status.code(), Some(1));
    let shown: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let found = &shown["findings"][0];
    assert_eq!(found["field"], "metadata.nam");
    assert_eq!(found["problem"], "unknown field; did you mean 'name'?");
    assert_eq!((found["severity"].as_str(), found["place"]["document"].as_u64()), (Some("error"), Some(1)));
}

#[test]
fn a_missing_path_exits_with_two_and_says_why() {
    let output = Command::new(env!("CARGO_BIN_EXE_weft")).args(["lint", "/nonexistent"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().starts_with("error: cannot read '/nonexistent': "));
}
