//! A short run of `make soak`: three faults from a fixed seed under checked traffic.

use std::process::Command;

/// Its faults are: the control plane without its state, kill -9 of both halves, an upgrade of the proxy half.
const SEED: &str = "84";
const SECONDS: &str = "12";

#[test]
#[ignore = "make soak: half a minute"]
fn a_short_soak_holds() {
    weft_testkit::enter_or_skip!();
    let mut soak = Command::new(env!("CARGO_BIN_EXE_weft-soak"));
    let output = soak.args(["--seed", SEED, "--seconds", SECONDS, "--bulk", "4", "--transfer", "16"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    for fault in ["without any state", "both halves", "upgrade of the proxy half"] {
        assert!(text.contains(fault), "no {fault} in the schedule of seed {SEED}: {text}");
    }
}
