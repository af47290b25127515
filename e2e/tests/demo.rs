//! The part of the demo that needs no mesh, as a test: the shop on two nodes works, and the wire shows it in plain.
//! Also what happens without the programs of the mesh: a clear word and a failure, never a demo that shows nothing.

use std::process::Command;

#[test]
fn the_shop_works_without_a_mesh() {
    weft_testkit::enter_or_skip!();
    let kept = tempfile::tempdir().unwrap();
    let mut demo = Command::new(env!("CARGO_BIN_EXE_weft-demo"));
    let output = demo.args(["--until", "1", "--keep"]).arg(kept.path()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("All 3 claims held") && text.contains("4111-MARKER"), "{text}");
    assert!(kept.path().join("logs/redis.log").is_file(), "logs are kept");
}

#[test]
fn a_missing_program_is_named_and_fails() {
    weft_testkit::enter_or_skip!();
    let empty = tempfile::tempdir().unwrap();
    let mut demo = Command::new(env!("CARGO_BIN_EXE_weft-demo"));
    let output = demo.env("WEFT_BIN_DIR", empty.path()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success() && text.contains("cargo build"), "{text}");
}
