//! Comparing and repairing as tables: a small simulator applies the text as iptables-restore would.

use rstest::rstest;

use super::*;
use crate::{
    capture::{
        mark::CapturePorts,
        ruleset::{Phase, Way, tables},
    },
    handover::Family,
};

/// What `iptables-restore --noflush` does with our texts.
fn restore(found: &Found, text: &str) -> Found {
    let mut chains = found.chains.clone();
    for line in text.lines() {
        let words: Vec<_> = line.split(' ').collect();
        match (words[0], words.get(1)) {
            ("-A", Some(chain)) => chains.get_mut(*chain).unwrap().push(line.to_owned()),
            ("-D", Some(chain)) => {
                let rules = chains.get_mut(*chain).unwrap();
                let rule = line.replacen("-D", "-A", 1);
                let at = rules.iter().position(|found| *found == rule).expect("deletes what is there");
                rules.remove(at);
            }
            ("-I", Some(chain)) => {
                let position: usize = words[2].parse().unwrap();
                let rule = format!("-A {chain} {}", words[3..].join(" "));
                chains.get_mut(*chain).unwrap().insert(position - 1, rule);
            }
            ("-X", Some(chain)) => assert!(chains.remove(*chain).unwrap().is_empty()),
            (declared, _) if declared.starts_with(':') => {
                chains.insert(declared[1..].to_owned(), Vec::new());
            }
            _ => assert!(line.starts_with('*') || line == "COMMIT", "{line}"),
        }
    }
    Found { chains }
}

fn empty() -> Found {
    Found::parse(":PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n")
}

fn mangle(phase: Phase) -> Table {
    tables(Family::V4, phase, CapturePorts::default())[0].clone()
}

fn installed(phase: Phase) -> Found {
    restore(&empty(), &repair(&mangle(phase), &empty()).unwrap())
}

#[test]
fn every_change_of_phase_ends_as_wanted() {
    for (from, to) in Phase::ALL.iter().flat_map(|from| Phase::ALL.map(|to| (*from, to))) {
        let found = installed(from);
        match repair(&mangle(to), &found) {
            None => assert_eq!(mangle(from), mangle(to), "{from:?} to {to:?}"),
            Some(text) => assert_eq!(deviations(&mangle(to), &restore(&found, &text)), [], "{from:?} to {to:?}"),
        }
    }
}

#[test]
fn removing_leaves_the_rules_of_others() {
    let mut found = installed(Phase::Enrol(Way::Direct));
    found.chains.get_mut("OUTPUT").unwrap().push("-A OUTPUT -p udp -j ACCEPT".to_owned());
    let found = restore(&found, &repair(&nothing(TableName::Mangle), &found).unwrap());
    assert_eq!(found.count_ours(), 0);
    assert_eq!(found.rules("OUTPUT"), ["-A OUTPUT -p udp -j ACCEPT"]);
    assert_eq!(repair(&nothing(TableName::Mangle), &found), None);
}

#[rstest]
#[case::jump_missing("OUTPUT", "", DeviationKind::WrongJumps)]
#[case::jump_doubled(
    "PREROUTING",
    "-A PREROUTING -p tcp -j WEFT_PRE\n-A PREROUTING -p tcp -j WEFT_PRE",
    DeviationKind::WrongJumps
)]
#[case::somebody_before_us(
    "PREROUTING",
    "-A PREROUTING -j ACCEPT\n-A PREROUTING -p tcp -j WEFT_PRE",
    DeviationKind::WrongJumps
)]
#[case::jump_from_elsewhere("INPUT", "-A INPUT -j WEFT_PRE", DeviationKind::WrongJumps)]
#[case::rules_gone("WEFT_POST", "", DeviationKind::WrongRules)]
#[case::rules_changed("WEFT_POST", "-A WEFT_POST -j ACCEPT", DeviationKind::WrongRules)]
#[case::foreign_chain("WEFT_LAST_YEAR", "-A WEFT_LAST_YEAR -j DROP", DeviationKind::ForeignChain)]
fn a_deviation_is_named_and_repaired(#[case] chain: &str, #[case] rules: &str, #[case] kind: DeviationKind) {
    let mut found = installed(Phase::Steady);
    found.chains.insert(chain.to_owned(), rules.lines().map(str::to_owned).collect());
    let wanted = mangle(Phase::Steady);
    let expected = Deviation { table: TableName::Mangle, chain: chain.to_owned(), kind };
    assert_eq!(deviations(&wanted, &found), [expected]);
    let repaired = restore(&found, &repair(&wanted, &found).unwrap());
    assert_eq!(deviations(&wanted, &repaired), []);
}

#[test]
fn rules_of_others_behind_ours_are_no_deviation() {
    let mut found = installed(Phase::Steady);
    found.chains.get_mut("OUTPUT").unwrap().push("-A OUTPUT -j ACCEPT".to_owned());
    found.chains.insert("KUBE-FORWARD".to_owned(), vec!["-A KUBE-FORWARD -j ACCEPT".to_owned()]);
    assert_eq!(repair(&mangle(Phase::Steady), &found), None);
}

#[test]
fn a_table_that_does_not_exist_is_all_missing() {
    let wanted = mangle(Phase::Steady);
    assert_eq!(deviations(&wanted, &Found::parse("")).len(), 6);
    assert!(repair(&wanted, &Found::parse("")).is_some());
    assert_eq!(repair(&nothing(TableName::Mangle), &Found::parse("")), None);
}
