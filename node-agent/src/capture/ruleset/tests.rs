//! The rule sets as text, against files that a person compares with docs/capture.md.

use super::*;

fn text(family: Family, phase: Phase) -> String {
    let mut lines = Vec::new();
    for table in tables(family, phase, CapturePorts::default()) {
        lines.push(format!("*{}", table.name));
        lines.extend(table.jumps.iter().map(|jump| format!("-I {}", jump.specification())));
        lines.extend(table.chains.iter().flat_map(|chain| chain.lines()));
    }
    lines.join("\n")
}

#[test]
fn golden() {
    for family in [Family::V4, Family::V6] {
        for phase in Phase::ALL {
            let name = format!("{family:?}_{phase:?}").replace('(', "_").replace(')', "").to_lowercase();
            insta::assert_snapshot!(name, text(family, phase));
        }
    }
}

#[test]
fn other_ports_change_only_the_listeners() {
    let ports = CapturePorts { outbound: 15101, inbound: 15106 };
    let [mangle, filter] = tables(Family::V4, Phase::Steady, ports);
    assert_eq!(filter, tables(Family::V4, Phase::Steady, CapturePorts::default())[1]);
    let text: Vec<_> = mangle.chains.iter().flat_map(|chain| chain.lines()).collect();
    assert_eq!(text.iter().filter(|line| line.contains("--on-port 15101")).count(), 1);
    assert_eq!(text.iter().filter(|line| line.contains("--on-port 15106")).count(), 2);
    assert!(!text.iter().any(|line| line.contains("15001") || line.contains("--on-port 15006")));
}

#[test]
fn the_steady_rules_wake_no_conntrack() {
    for family in [Family::V4, Family::V6] {
        assert!(!text(family, Phase::Steady).to_lowercase().contains("connmark"));
    }
}
