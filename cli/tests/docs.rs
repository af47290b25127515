//! Documentation that can be checked is checked: the YAML in it is accepted by `weft lint`, `docs/reasons.md` lists the codes
//! that there are, `docs/metrics.md` the metrics, links lead somewhere, and tests that are named exist.

#![expect(clippy::unwrap_used, reason = "helpers of tests, which clippy does not know as tests")]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use weft_model::Reason;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Files with this ending below these places, without build output.
fn files(places: &[&str], ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open: Vec<PathBuf> = places.iter().map(|place| root().join(place)).collect();
    while let Some(path) = open.pop() {
        if path.is_dir() && path.file_name().is_none_or(|name| name != "target" && name != ".git") {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == ending) {
            found.push(path);
        }
    }
    assert!(!found.is_empty(), "no .{ending} in {places:?}");
    found.sort();
    found
}

fn pages() -> Vec<PathBuf> {
    files(&["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs"], "md")
}

fn sources() -> String {
    let rust = files(&["crates", "node-agent", "xds-server", "cli", "e2e", "fuzz"], "rs");
    rust.iter().map(|path| fs::read_to_string(path).unwrap()).collect()
}

fn lint(path: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_weft")).arg("lint").arg(path).output().unwrap()
}

fn assert_clean(output: &Output, what: &str) {
    assert!(output.status.success(), "{what}:\n{}", String::from_utf8_lossy(&output.stdout));
}

/// The fenced blocks of one language.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let begin = format!("```{language}\n");
    text.split(&begin).skip(1).filter_map(|rest| Some(rest.split_once("```")?.0.to_owned())).collect()
}

#[test]
fn examples_are_accepted_each_alone_and_all_together() {
    for path in files(&["docs/examples"], "yaml") {
        assert_clean(&lint(&path), &path.display().to_string());
    }
    assert_clean(&lint(&root().join("docs/examples")), "all examples");
}

#[test]
fn yaml_in_pages_is_accepted() {
    let directory = tempfile::tempdir().unwrap();
    let mut count = 0;
    for page in pages() {
        for block in blocks(&fs::read_to_string(&page).unwrap(), "yaml") {
            let path = directory.path().join("block.yaml");
            fs::write(&path, &block).unwrap();
            assert_clean(&lint(&path), &format!("{}:\n{block}", page.display()));
            count += 1;
        }
    }
    assert!(count > 0, "no YAML in any page");
}

/// `docs/reasons.md` as it must be.
fn reasons() -> String {
    let mut text = "# Reason codes\n\n\
        Why a connection, a request or a peer was refused or ended. The same word stands in the access log (`reason`), in\n\
        `weft_refusals_total{reason}`, in `weft connections --denied`, in the header `x-weft-reason` of a refused tunnel, and in\n\
        `weft-reason` of a refused call to the control plane. `weft why CODE` prints a row of this table. A code never changes its\n\
        meaning.\n\n\
        Status: what an HBONE server answers. Flag: `response_flags` of Istio's metrics.\n\n\
        <!-- Generated from weft_model::Reason: cargo test -p weft-cli --test docs -- --ignored -->\n\n\
        | code | status | flag | what happened | what to do |\n|---|---|---|---|---|\n"
        .to_owned();
    for reason in Reason::ALL {
        let (why, status, flag) = (reason.explain(), reason.status(), reason.response_flag());
        writeln!(text, "| `{}` | {status} | {flag} | {} | {} |", why.code, why.cause, why.next).unwrap();
    }
    text
}

#[test]
fn the_list_of_reasons_is_up_to_date() {
    let page = fs::read_to_string(root().join("docs/reasons.md")).unwrap();
    assert!(page == reasons(), "docs/reasons.md is old; write it: cargo test -p weft-cli --test docs -- --ignored");
}

#[test]
#[ignore = "writes docs/reasons.md"]
fn write_the_list_of_reasons() {
    fs::write(root().join("docs/reasons.md"), reasons()).unwrap();
}

/// Words between quotes of some kind that begin like a metric of ours.
fn metric_names(text: &str, quote: char) -> BTreeSet<String> {
    let is_metric = |word: &&str| {
        let prefixed = ["weft_", "istio_tcp_", "process_"].iter().any(|prefix| word.starts_with(prefix));
        prefixed && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
    };
    text.split(quote).filter(is_metric).map(str::to_owned).collect()
}

#[test]
fn the_list_of_metrics_is_complete() {
    let page = fs::read_to_string(root().join("docs/metrics.md")).unwrap();
    // The encoder adds these endings to counters and to the build's information.
    let stem = |name: &String| name.trim_end_matches("_total").trim_end_matches("_info").to_owned();
    let listed: BTreeSet<String> = metric_names(&page, '`').iter().map(stem).collect();
    let rust = files(&["crates/runtime/src", "crates/identity/src", "node-agent/src", "xds-server/src"], "rs");
    // The capture half has no metrics, but a table of the packet filter with such a name.
    let counting = rust.iter().filter(|path| !path.components().any(|part| part.as_os_str() == "capture"));
    let code: String = counting.map(|path| fs::read_to_string(path).unwrap()).collect();
    // Names of crates, written with an underscore, are no metrics.
    let registered: BTreeSet<String> =
        metric_names(&code, '"').into_iter().filter(|name| !is_crate(name)).map(|name| stem(&name)).collect();
    assert_eq!(listed, registered, "left: docs/metrics.md, right: the code");
}

fn is_crate(name: &str) -> bool {
    name.strip_prefix("weft_").is_some_and(|rest| root().join("crates").join(rest).is_dir())
}

#[test]
fn links_lead_somewhere() {
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split('#').next().unwrap_or_default();
            if !target.is_empty() && !target.contains("://") {
                let path = page.parent().unwrap().join(target);
                assert!(path.exists(), "{}: {link} leads nowhere", page.display());
            }
        }
    }
}

/// In the page of threats, and in the page of operations after it begins to name tests, every code word with two underscores
/// (but metrics) is the name of a test.
#[test]
fn tests_that_hold_a_threat_or_show_a_fault_exist() {
    let page = |name: &str| fs::read_to_string(root().join(name)).unwrap();
    let operations = page("docs/operations.md");
    let (_, faults) = operations.split_once("The tests that show it").unwrap();
    let pages = page("docs/threats.md") + faults;
    let code = sources();
    let names: BTreeSet<&str> = pages
        .split('`')
        .filter(|word| word.matches('_').count() >= 2 && !word.starts_with("weft_"))
        .filter(|word| word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_'))
        .collect();
    assert!(names.len() > 10, "{names:?}");
    for name in names {
        assert!(
            code.contains(&format!("fn {name}(")),
            "docs/threats.md or docs/operations.md names {name}, which is no test"
        );
    }
}

/// Rust files that a page names by their place, whole or only its end, are there.
#[test]
fn files_that_pages_name_exist() {
    let rust = files(&["crates", "node-agent", "xds-server", "cli", "e2e", "fuzz"], "rs");
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        let is_place = |word: &&str| word.ends_with(".rs") && word.contains('/') && !word.contains(['*', '{', ' ']);
        for word in text.split('`').filter(is_place) {
            assert!(
                rust.iter().any(|path| path.ends_with(word)),
                "{} names {word}, which is not there",
                page.display()
            );
        }
    }
}
