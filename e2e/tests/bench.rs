//! The benchmark itself, in small: it measures both paths, and what it writes is valid and not absurd. No figure is judged.

use std::process::Command;

use serde_json::Value;

/// A tenth of the usual durations, and one load of each kind.
const SMALL: &str =
    "--quick --seconds 0.1 --held 100 --give-back 0.1 --only requests,rate,connections,echo,bulk4,memory";

#[test]
fn measures_both_paths() {
    weft_testkit::enter_or_skip!();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("bench/l4.json");
    let mut bench = Command::new(env!("CARGO_BIN_EXE_weft-bench"));
    bench.env_remove("WEFT_PEER_ZTUNNEL");
    let output = bench.args(SMALL.split(' ')).args(["-o", "json", "--file"]).arg(&file).output().unwrap();
    let progress = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{progress}");
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    let written: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!(printed, written);
    let figures = written["figures"].as_array().unwrap();
    for (scope, key, sides) in [
        ("two-nodes", "requests", 2),
        ("same-node", "rate-p50", 2),
        ("two-nodes", "connections", 2),
        ("same-node", "echo-p99", 2),
        ("two-nodes", "bulk4", 2),
        ("two-nodes", "requests-cpu", 1),
        ("agent", "rss-held", 1),
    ] {
        let figure =
            figures.iter().find(|it| it["scope"] == scope && it["key"] == key).unwrap_or_else(|| panic!("{key}"));
        let found = figure["sides"].as_array().unwrap();
        assert_eq!(found.len(), sides, "{figure}");
        for side in found {
            let (median, ratio) = (side["median"].as_f64().unwrap(), side["ratio"].as_f64());
            assert!(median >= 0.0 && median.is_finite() && (median > 0.0 || key.ends_with("cpu")), "{figure}");
            assert!(ratio.is_some_and(|ratio| ratio > 0.0) || sides == 1, "{figure}");
        }
    }
    assert!(figures.iter().any(|figure| figure["standing"]["floor_met"].is_boolean()), "goals are looked at");
}
