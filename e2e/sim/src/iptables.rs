//! One table of iptables as a kernel holds it: chains of lines, printed as `iptables-save` does and changed by the text for
//! `iptables-restore --noflush` that the real repair writes (`capture::compare`). Read line by line, as the kernel does.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::LazyLock;

use weft_node_agent::capture::compare::Found;
use weft_node_agent::capture::mark::CapturePorts;
use weft_node_agent::capture::rules::{Match, Target};
use weft_node_agent::capture::ruleset::{Phase, tables};
use weft_node_agent::handover::Family;

use crate::packet::{Packet, Verdict, set};

/// Chains of the kernel that rules of ours, or somebody's, are in.
pub const HOOKS: [&str; 4] = ["INPUT", "OUTPUT", "PREROUTING", "POSTROUTING"];

/// One line of a chain.
struct Line {
    /// As `iptables-save` prints it.
    text: String,
    matches: Vec<Match>,
    action: Action,
}

enum Action {
    Do(Target),
    Jump(&'static str),
    Accept,
}

/// Every line that there can be, by its text: those of every phase, and what somebody puts before them.
static LINES: LazyLock<HashMap<String, Line>> = LazyLock::new(|| {
    let mut lines = HashMap::new();
    let mut add = |text: String, matches: &[Match], action| {
        lines.insert(text.clone(), Line { text, matches: matches.to_vec(), action });
    };
    for table in Phase::ALL.iter().flat_map(|phase| tables(Family::V4, *phase, CapturePorts::default())) {
        for chain in &table.chains {
            for (text, rule) in chain.lines().zip(&chain.rules) {
                add(text, &rule.matches, Action::Do(rule.target.clone()));
            }
        }
        for jump in &table.jumps {
            add(format!("-A {}", jump.specification()), &jump.matches, Action::Jump(jump.to));
        }
    }
    HOOKS.iter().for_each(|hook| add(format!("-A {hook} -j ACCEPT"), &[], Action::Accept));
    lines
});

fn line(text: &str) -> &'static Line {
    LINES.get(text).expect("rules are those of a phase, or put in by crate::hand")
}

/// A table. Nothing of it is printed before something was put in.
#[derive(Clone, Default)]
pub struct Chains {
    chains: BTreeMap<String, Vec<&'static Line>>,
}

impl Chains {
    /// What `iptables-save` shows.
    #[must_use]
    pub fn found(&self) -> Found {
        Found::parse(&format!("{self:?}"))
    }

    /// What `iptables-restore --noflush` makes of a text.
    pub fn restore(&mut self, text: &str) {
        for words in text.lines() {
            let (command, rest) = words.split_once(' ').unwrap_or((words, ""));
            let chain = rest.split(' ').next().unwrap_or_default();
            match command {
                "-A" => self.chain(chain).push(line(words)),
                "-I" => {
                    let mut parts = rest.splitn(3, ' ').skip(1);
                    let position: usize = parts.next().and_then(|text| text.parse().ok()).unwrap_or(1);
                    let one = line(&format!("-A {chain} {}", parts.next().unwrap_or_default()));
                    let lines = self.chain(chain);
                    lines.insert((position - 1).min(lines.len()), one);
                }
                "-D" => {
                    let lines = self.chain(chain);
                    let there = lines.iter().position(|line| line.text.strip_prefix("-A ") == Some(rest));
                    there.map(|position| lines.remove(position));
                }
                "-X" => _ = self.chains.remove(chain),
                declared => {
                    // Declaring a chain empties it.
                    let name = declared.strip_prefix(':');
                    name.into_iter().for_each(|name| self.chain(name).clear());
                }
            }
        }
    }

    fn chain(&mut self, name: &str) -> &mut Vec<&'static Line> {
        self.chains.entry(name.to_owned()).or_default()
    }

    /// `-F`: every chain is empty.
    pub fn flush(&mut self) {
        self.chains.values_mut().for_each(Vec::clear);
    }

    /// `-D`: one of its lines is gone, the n-th.
    pub fn cut(&mut self, n: usize) {
        let count: usize = self.chains.values().map(Vec::len).sum();
        let mut left = n.checked_rem(count).unwrap_or_default();
        for lines in self.chains.values_mut() {
            if left < lines.len() {
                lines.remove(left);
                return;
            }
            left -= lines.len();
        }
    }

    /// `-I CHAIN -j ACCEPT`, before everything else.
    pub fn accept(&mut self, hook: &str) {
        let one = line(&format!("-A {hook} -j ACCEPT"));
        self.chain(hook).insert(0, one);
    }

    /// What becomes of a packet at one of the kernel's chains.
    pub fn walk(&self, hook: &str, packet: &mut Packet) -> Verdict {
        for line in self.lines(hook) {
            if !line.matches.iter().all(|one| packet.fits(one)) {
                continue;
            }
            // An ACCEPT ends the table's word.
            let Action::Jump(to) = line.action else { return Verdict::Pass };
            match self.read(to, packet) {
                Verdict::Pass => {}
                verdict => return verdict,
            }
        }
        Verdict::Pass
    }

    fn lines(&self, chain: &str) -> &[&'static Line] {
        self.chains.get(chain).map_or(&[], Vec::as_slice)
    }

    fn read(&self, chain: &str, packet: &mut Packet) -> Verdict {
        for line in self.lines(chain) {
            let Action::Do(target) = &line.action else { continue };
            if !line.matches.iter().all(|one| packet.fits(one)) {
                continue;
            }
            match target {
                Target::Tproxy { mark, .. } => {
                    set(&mut packet.mark, mark);
                    return Verdict::Captured;
                }
                Target::SetMark(mark) => set(&mut packet.mark, mark),
                Target::SetConnmark(mark) => set(&mut packet.connection, mark),
                Target::Return => return Verdict::Pass,
                Target::Drop => return Verdict::Drop,
                Target::Reset => return Verdict::Reset,
            }
        }
        Verdict::Pass
    }
}

/// As `iptables-save` prints it.
impl fmt::Debug for Chains {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.chains.keys().try_for_each(|name| writeln!(f, ":{name} - [0:0]"))?;
        self.chains.values().flatten().try_for_each(|line| writeln!(f, "{}", line.text))
    }
}
