//! Who may use whom, and where each heavy dependency lives. These two tables are the plan; docs/architecture.md draws it.

use crate::Finding;
use crate::workspace::{Kind, Member};

/// A crate's place.
struct Place {
    name: &'static str,
    /// A crate uses only crates on lower lines.
    line: u8,
    may_use: &'static [&'static str],
    /// Whether its tests may use testkit. What testkit itself stands on may not: it would be built twice.
    tests_with_testkit: bool,
}

const fn place(name: &'static str, line: u8, may_use: &'static [&'static str], tests_with_testkit: bool) -> Place {
    Place { name, line, may_use, tests_with_testkit }
}

const PLACES: &[Place] = &[
    place("weft-model", 0, &[], false),
    place("weft-runtime", 0, &[], false),
    place("weft-wire", 1, &["weft-model", "weft-runtime"], false),
    place("weft-hbone", 1, &["weft-runtime"], true), // knows neither certificates nor policy, so no model
    place("weft-manifest", 1, &["weft-model", "weft-runtime"], true),
    place("weft-image", 1, &[], false), // files in, an archive out: knows nothing of the mesh
    place("weft-kubernetes", 2, &["weft-runtime", "weft-manifest"], false),
    place("weft-identity", 2, &["weft-model", "weft-runtime", "weft-wire"], false),
    place("weft-node-agent", 3, ABOVE_ALL, true),
    place("weft-xds-server", 3, CONTROL_PLANE, true),
    place("weft-cli", 3, &["weft-model", "weft-runtime", "weft-manifest", "weft-kubernetes"], true), // asks programs over HTTP
    place(TESTKIT, 3, &["weft-model", "weft-runtime", "weft-identity"], false),
    place("weft-fuzz", 4, READERS, false), // everything that reads what strangers write, in whichever program
    place("weft-e2e", 4, &["weft-model", TESTKIT], true), // the programs as programs only
    place("weft-sim", 4, SIMULATED, false), // what decides in the programs, as values
    place("weft-cluster", 4, &["weft-image"], false), // Kubernetes for tests, whatever runs in it
];

const SIMULATED: &[&str] = &["weft-model", "weft-wire", "weft-manifest", "weft-node-agent", "weft-xds-server"];
const TESTKIT: &str = "weft-testkit";
const ABOVE_ALL: &[&str] =
    &["weft-model", "weft-runtime", "weft-wire", "weft-hbone", "weft-manifest", "weft-kubernetes", "weft-identity"];
const CONTROL_PLANE: &[&str] =
    &["weft-model", "weft-runtime", "weft-wire", "weft-manifest", "weft-kubernetes", "weft-identity"];

const READERS: &[&str] =
    &["weft-model", "weft-wire", "weft-hbone", "weft-manifest", "weft-identity", "weft-node-agent", "weft-xds-server"];

/// A dependency that shapes what stands on it, and the only crates that may name it. deny.toml says the same of what comes
/// in through other crates.
const HOMES: &[(&[&str], &[&str])] = &[
    (&["rustls", "tokio-rustls", "rustls-webpki", "aws-lc-rs", "x509-parser"], &["weft-identity"]),
    (&["rcgen"], &["weft-identity", TESTKIT, "weft-cluster"]),
    (&["h2"], &["weft-hbone"]),
    (&["prost", "prost-types"], &["weft-wire", "weft-xds-server", "weft-fuzz"]),
    (&["tonic-prost", "tonic-prost-build", "protox"], &["weft-wire"]),
    (&["tonic"], &["weft-wire", "weft-identity", "weft-xds-server"]),
    (&["serde_yaml", "notify"], &["weft-manifest"]),
    (&["axum"], &["weft-runtime", "weft-e2e"]),
    (&["hyper"], &["weft-e2e"]),
    (&["tracing-subscriber"], &["weft-runtime"]),
    (&["nix"], &["weft-node-agent", TESTKIT, "weft-e2e", "weft-cluster"]),
    (&["rtnetlink", "caps", "landlock", "seccompiler"], &["weft-node-agent"]),
    (&["comfy-table"], &["weft-cli"]),
    (&["kube", "k8s-openapi"], &["weft-kubernetes", "weft-e2e"]),
    (
        &["clap"],
        &[
            "weft-node-agent",
            "weft-xds-server",
            "weft-cli",
            "weft-e2e",
            "weft-sim",
            "weft-fuzz",
            "weft-cluster",
            "weft-image",
        ],
    ),
    (
        &["anyhow"],
        &[
            "weft-node-agent",
            "weft-xds-server",
            "weft-cli",
            TESTKIT,
            "weft-e2e",
            "weft-fuzz",
            "weft-cluster",
            "weft-image",
        ],
    ),
    // Never: one TLS provider, and no C library that somebody else must patch.
    (&["ring", "openssl", "openssl-sys", "native-tls", "reqwest"], &[]),
];

/// Edges between our own crates.
pub(crate) fn check(members: &[Member]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for member in members {
        let Some(place) = place_of(&member.name) else {
            findings.push(Finding {
                place: member.name.clone(),
                fault: "this crate has no place in the plan".to_owned(),
                remedy: "give it a line and its edges in crates/testkit/tests/architecture/edges.rs, with a decision record",
            });
            continue;
        };
        for dependency in member.dependencies.iter().filter(|dependency| dependency.name.starts_with("weft-")) {
            let for_tests = dependency.kind == Kind::Dev && dependency.name == TESTKIT && place.tests_with_testkit;
            if !for_tests && !place.may_use.contains(&dependency.name.as_str()) {
                findings.push(Finding {
                    place: member.name.clone(),
                    fault: format!("uses {}, which is not in its row of the table", dependency.name),
                    remedy: "move the code to the line it belongs on; see the layers in docs/architecture.md",
                });
            }
        }
    }
    findings
}

/// Heavy dependencies of others. Tests may use what they like, except what nobody may.
pub(crate) fn check_homes(members: &[Member]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for member in members {
        for dependency in &member.dependencies {
            let Some((_, homes)) = HOMES.iter().find(|(names, _)| names.contains(&dependency.name.as_str())) else {
                continue;
            };
            let tests_only = dependency.kind == Kind::Dev && !homes.is_empty();
            if !tests_only && !homes.contains(&member.name.as_str()) {
                let home = if homes.is_empty() { "nowhere".to_owned() } else { homes.join(", ") };
                findings.push(Finding {
                    place: member.name.clone(),
                    fault: format!("depends on {}, whose home is {home}", dependency.name),
                    remedy: "call the crate at whose home it lives, or move the home with a decision record",
                });
            }
        }
    }
    findings
}

fn place_of(name: &str) -> Option<&'static Place> {
    PLACES.iter().find(|place| place.name == name)
}

mod self_test {
    use serde_json::{Value, json};

    use super::*;
    use crate::workspace::members_of;

    fn one(name: &str, dependency: &str, kind: Value) -> Vec<Member> {
        members_of(&json!({ "packages": [{
            "name": name, "manifest_path": "/w/x/Cargo.toml", "dependencies": [{ "name": dependency, "kind": kind }],
        }]}))
    }

    #[test]
    fn the_table_points_downwards() {
        for place in PLACES {
            for used in place.may_use {
                let used = place_of(used).expect("every used crate has a row");
                assert!(used.line < place.line, "{} (line {}) uses {}", place.name, place.line, used.name);
            }
        }
    }

    #[test]
    fn finds_an_edge_that_is_not_in_the_table() {
        assert_eq!(check(&one("weft-hbone", "weft-runtime", Value::Null)), []);
        let found = check(&one("weft-hbone", "weft-identity", Value::Null));
        assert_eq!((found.len(), found[0].place.as_str()), (1, "weft-hbone"));
        assert!(found[0].fault.contains("weft-identity"), "{}", found[0]);
        assert_eq!(check(&one("weft-cli", "weft-node-agent", Value::Null)).len(), 1, "programs never see each other");
        assert_eq!(check(&one("weft-unheard-of", "tokio", Value::Null)).len(), 1);
    }

    #[test]
    fn testkit_is_for_tests() {
        assert_eq!(check(&one("weft-node-agent", TESTKIT, json!("dev"))), []);
        assert_eq!(check(&one("weft-node-agent", TESTKIT, Value::Null)).len(), 1);
        assert_eq!(check(&one("weft-identity", TESTKIT, json!("dev"))).len(), 1, "testkit stands on identity");
        assert_eq!(check(&one("weft-e2e", TESTKIT, Value::Null)), []);
    }

    #[test]
    fn finds_a_heavy_dependency_away_from_home() {
        assert_eq!(check_homes(&one("weft-identity", "rustls", Value::Null)), []);
        let found = check_homes(&one("weft-hbone", "rustls", Value::Null));
        assert_eq!((found.len(), found[0].fault.contains("whose home is weft-identity")), (1, true));
        assert_eq!(check_homes(&one("weft-hbone", "rustls", json!("dev"))), []);
        assert_eq!(check_homes(&one("weft-hbone", "protox", json!("build"))).len(), 1);
        assert_eq!(check_homes(&one("weft-identity", "ring", json!("dev"))).len(), 1, "nobody may, in tests neither");
    }
}
