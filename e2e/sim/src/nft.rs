//! The guard's own nft table as a kernel holds it: the real script of a phase (`capture::guard`), read line by line.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use weft_node_agent::capture::guard::script;
use weft_node_agent::capture::mark::Mark;
use weft_node_agent::capture::rules::{Match, TcpMatch};
use weft_node_agent::capture::ruleset::Phase;

use crate::packet::{Packet, Verdict};

/// A rule: conditions, each with whether it must hold, and what happens then.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    conditions: Vec<(Match, bool)>,
    /// Of the chain: whoever is accepted here goes on to other tables.
    verdict: Verdict,
}

/// The table: rules by the hook of their chain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    hooks: BTreeMap<String, Vec<Rule>>,
}

static PHASES: LazyLock<BTreeMap<Phase, Table>> = LazyLock::new(|| {
    let table = |phase| Table::read(&script(phase)).expect("every line of the guard is one that is understood here");
    Phase::ALL.into_iter().map(|phase| (phase, table(phase))).collect()
});

impl Table {
    /// As `nft -f` puts it in.
    #[must_use]
    pub fn of(phase: Phase) -> Self {
        PHASES.get(&phase).cloned().unwrap_or_default()
    }

    /// Whether it is that of a phase, whole.
    #[must_use]
    pub fn stands(&self, phase: Phase) -> bool {
        PHASES.get(&phase) == Some(self)
    }

    /// `nft delete rule`: the n-th is gone.
    pub fn cut(&mut self, n: usize) {
        let count: usize = self.hooks.values().map(Vec::len).sum();
        let mut left = n.checked_rem(count).unwrap_or_default();
        for rules in self.hooks.values_mut() {
            if left < rules.len() {
                rules.remove(left);
                return;
            }
            left -= rules.len();
        }
    }

    /// `nft insert rule ... accept` at the n-th of its hooks.
    pub fn accept(&mut self, n: usize) {
        let hooks = self.hooks.len().max(1);
        if let Some(rules) = self.hooks.values_mut().nth(n % hooks) {
            rules.insert(0, Rule { conditions: Vec::new(), verdict: Verdict::Pass });
        }
    }

    /// What becomes of a packet at a hook.
    #[must_use]
    pub fn walk(&self, hook: &str, packet: &Packet) -> Verdict {
        let holds = |rule: &&Rule| rule.conditions.iter().all(|(condition, wanted)| packet.fits(condition) == *wanted);
        let rules = self.hooks.get(hook).map_or(&[][..], Vec::as_slice);
        rules.iter().find(holds).map_or(Verdict::Pass, |rule| rule.verdict)
    }

    /// The text that it cannot read is the error.
    fn read(script: &str) -> Result<Self, String> {
        let mut table = Self::default();
        let mut hook = None;
        for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let words: Vec<&str> = line.split(' ').collect();
            match (words.as_slice(), &hook) {
                (["add" | "delete" | "table", ..] | ["chain", ..], _) => {}
                (["type", "filter", "hook", name, ..], _) => hook = Some((*name).to_owned()),
                (["}"], _) => hook = None,
                (_, Some(hook)) => table.hooks.entry(hook.clone()).or_default().push(rule(line)?),
                (_, None) => return Err(line.to_owned()),
            }
        }
        Ok(table)
    }
}

/// Conditions without a number of their own.
fn phrases() -> [(&'static str, Match, bool); 9] {
    let tcp = |condition| Match::Tcp(vec![condition]);
    [
        ("meta l4proto != tcp", Match::Tcp(Vec::new()), false),
        ("iif 1", Match::FromLoopback, true),
        ("oif 1", Match::NotToLoopback, false),
        ("oif != 1", Match::NotToLoopback, true),
        ("tcp flags & (fin | syn | rst | ack) != syn", tcp(TcpMatch::NotSyn), true),
        ("tcp flags & (fin | syn | rst | ack) == (rst | ack)", tcp(TcpMatch::Refusal), true),
        ("socket transparent 1", Match::TransparentSocket, true),
        ("socket wildcard { 0, 1 }", Match::Socket, true),
        ("meta skuid 0-4294967294", Match::NoOwner, false),
    ]
}

fn rule(line: &str) -> Result<Rule, String> {
    let unreadable = || line.to_owned();
    let (mut conditions, mut rest) = (Vec::new(), line);
    loop {
        let verdict = match rest {
            "accept" => Some(Verdict::Pass),
            "drop" => Some(Verdict::Drop),
            "reject with tcp reset" => Some(Verdict::Reset),
            _ => None,
        };
        if let Some(verdict) = verdict {
            return Ok(Rule { conditions, verdict });
        }
        let known = phrases().into_iter().find_map(|(text, condition, wanted)| {
            let behind = rest.strip_prefix(text)?.strip_prefix(' ')?;
            Some((condition, wanted, behind))
        });
        let (condition, wanted, behind) = known.or_else(|| numbered(rest)).ok_or_else(unreadable)?;
        conditions.push((condition, wanted));
        rest = behind;
    }
}

/// A condition with numbers: a mark or a port; and what is behind it.
fn numbered(text: &str) -> Option<(Match, bool, &str)> {
    let words: Vec<&str> = text.splitn(7, ' ').collect();
    match words.as_slice() {
        [whose @ ("meta" | "ct"), "mark", "&", mask, sign @ ("==" | "!="), value, behind] => {
            let mark = Mark { value: number(value)?, mask: number(mask)? };
            let condition = if *whose == "meta" { Match::Mark(mark) } else { Match::Connmark(mark) };
            Some((condition, *sign == "==", behind))
        }
        ["tcp", "dport", port, ..] => {
            let behind = text.splitn(4, ' ').nth(3)?;
            Some((Match::Tcp(vec![TcpMatch::ToPort(port.parse().ok()?)]), true, behind))
        }
        _ => None,
    }
}

fn number(text: &str) -> Option<u32> {
    text.strip_prefix("0x").map_or_else(|| text.parse().ok(), |digits| u32::from_str_radix(digits, 16).ok())
}

#[cfg(test)]
mod tests {
    use weft_node_agent::capture::mark::{LOOP, NONE, OLD, OURS, TAKEN};

    use super::*;
    use crate::truth::PORT;

    #[test]
    fn the_guard_lets_only_what_is_treated_past() {
        let marked = |packet: Packet, mark: Mark| Packet { mark: mark.value, ..packet };
        for phase in Phase::ALL {
            let guard = Table::of(phase);
            assert!(guard.stands(phase) && guard.hooks.len() == 3, "{guard:?}");
            let (out, arriving) = (Packet::leaving(PORT), Packet::arriving(PORT));
            let leaves = |mark| guard.walk("output", &marked(out, mark));
            let enters = |mark| guard.walk("input", &marked(arriving, mark));
            assert_eq!((leaves(NONE), leaves(OURS), leaves(OLD)), (Verdict::Drop, Verdict::Pass, Verdict::Pass));
            assert_eq!((enters(NONE), enters(TAKEN)), (Verdict::Drop, Verdict::Pass));
            assert_eq!(enters(OLD) == Verdict::Drop, phase == Phase::Steady, "{phase:?}");
            let routed = |to_loopback| Packet { to_loopback, mark: LOOP.value, ..out };
            assert_eq!(guard.walk("postrouting", &routed(true)), Verdict::Pass);
            assert_eq!(guard.walk("postrouting", &routed(false)), Verdict::Drop, "no route led it to lo");
            let looped = Packet { from_loopback: true, mark: LOOP.value, ..out };
            assert_eq!(guard.walk("input", &looped), Verdict::Drop, "routed to lo, and no listener took it");
            assert_eq!(guard.walk("input", &Packet { from_loopback: true, ..out }), Verdict::Pass);
            let nobody = Packet { socket: false, ..arriving };
            assert_eq!(guard.walk("input", &nobody), Verdict::Reset, "where nobody listens it is refused, not hidden");
        }
    }

    #[test]
    fn what_is_not_understood_is_no_rule() {
        assert_eq!(
            Table::read("table inet x {\n chain input {\n  type filter hook input priority 0;\n  jump y\n"),
            Err("jump y".into())
        );
        assert!(rule("ct mark & 0x400 == 0x400 accept").is_ok());
        let mut cut = Table::of(Phase::Steady);
        cut.cut(3);
        assert!(!cut.stands(Phase::Steady));
    }
}
