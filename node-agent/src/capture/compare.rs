//! What `iptables-save` found against what is wanted: the deviations, and the text that repairs them in one commit. Pure.
//!
//! Installing, repairing, changing the phase and removing are the same act: compare, then commit the difference. The
//! text goes to `iptables-restore --noflush`: our chains are declared anew, which replaces their content; jumps are put
//! in or out only where they deviate, since a restore would double them.

use std::{collections::BTreeMap, fmt};

use super::rules::{CHAIN_PREFIX, Table, TableName};

/// One difference between what is wanted and what the kernel has.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Deviation {
    /// Where.
    pub table: TableName,
    /// In which chain.
    pub chain: String,
    /// What is wrong there.
    pub kind: DeviationKind,
}

/// How a chain deviates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviationKind {
    /// A chain of ours does not exist.
    MissingChain,
    /// A chain of ours exists that should not.
    ForeignChain,
    /// The rules of a chain of ours are not the wanted ones.
    WrongRules,
    /// Jumps to our chains are missing, doubled, in another order or not first.
    WrongJumps,
}

impl fmt::Display for Deviation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            DeviationKind::MissingChain => "is missing",
            DeviationKind::ForeignChain => "should not exist",
            DeviationKind::WrongRules => "has other rules than wanted",
            DeviationKind::WrongJumps => "does not lead to our chains as wanted",
        };
        write!(formatter, "{} {} {what}", self.table, self.chain)
    }
}

/// One table as `iptables-save -t TABLE` prints it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    chains: BTreeMap<String, Vec<String>>,
}

impl Found {
    /// Reads the program's output. Lines that are not understood are no rules of ours and are left out.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut chains: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in text.lines() {
            if let Some(declared) = line.strip_prefix(':') {
                chains.entry(first_word(declared).to_owned()).or_default();
            } else if let Some(rule) = line.strip_prefix("-A ") {
                chains.entry(first_word(rule).to_owned()).or_default().push(line.trim_end().to_owned());
            }
        }
        Self { chains }
    }

    /// Rules and chains of ours that exist: 0 after uninstalling.
    #[must_use]
    pub fn count_ours(&self) -> usize {
        let chains = self.chains.keys().filter(|name| is_ours(name)).count();
        let rules = self.chains.iter().flat_map(|(name, rules)| rules.iter().map(move |rule| (name, rule)));
        chains + rules.filter(|(name, rule)| is_ours(name) || leads_to_ours(rule)).count()
    }

    fn rules(&self, chain: &str) -> &[String] {
        self.chains.get(chain).map_or(&[], Vec::as_slice)
    }
}

/// Every way in which `found` is not `wanted`. Rules of other people between and behind ours are none.
#[must_use]
pub fn deviations(wanted: &Table, found: &Found) -> Vec<Deviation> {
    let deviation = |chain: &str, kind| Deviation { table: wanted.name, chain: chain.to_owned(), kind };
    let mut all = Vec::new();
    for chain in &wanted.chains {
        match found.chains.get(chain.name) {
            None => all.push(deviation(chain.name, DeviationKind::MissingChain)),
            Some(rules) if !chain.lines().eq(rules.iter().map(String::as_str)) => {
                all.push(deviation(chain.name, DeviationKind::WrongRules));
            }
            Some(_) => {}
        }
    }
    for (name, rules) in &found.chains {
        if is_ours(name) {
            if !wanted.chains.iter().any(|chain| chain.name == name) {
                all.push(deviation(name, DeviationKind::ForeignChain));
            }
        } else if jumps_deviate(wanted, name, rules) {
            all.push(deviation(name, DeviationKind::WrongJumps));
        }
    }
    for from in kernel_chains(wanted) {
        if !found.chains.contains_key(from) {
            all.push(deviation(from, DeviationKind::WrongJumps));
        }
    }
    all
}

/// Our jumps must be the first rules of the kernel's chain: behind somebody's ACCEPT they would capture nothing.
fn jumps_deviate(wanted: &Table, chain: &str, rules: &[String]) -> bool {
    let want = wanted_jumps(wanted, chain);
    let ours = rules.iter().filter(|rule| leads_to_ours(rule)).count();
    ours != want.len() || !want.iter().eq(rules.iter().take(want.len()))
}

/// The text for `iptables-restore --noflush` that makes `found` into `wanted`, or none if it is that already.
#[must_use]
pub fn repair(wanted: &Table, found: &Found) -> Option<String> {
    let deviations = deviations(wanted, found);
    if deviations.is_empty() {
        return None;
    }
    let mut lines = vec![format!("*{}", wanted.name)];
    let mut declared: Vec<&str> = wanted.chains.iter().map(|chain| chain.name).collect();
    let foreign: Vec<&str> = deviations
        .iter()
        .filter(|deviation| deviation.kind == DeviationKind::ForeignChain)
        .map(|deviation| deviation.chain.as_str())
        .collect();
    declared.extend(&foreign);
    lines.extend(declared.iter().map(|name| format!(":{name} - [0:0]")));
    lines.extend(wanted.chains.iter().flat_map(|chain| chain.lines()));
    for deviation in deviations.iter().filter(|deviation| deviation.kind == DeviationKind::WrongJumps) {
        let stale = found.rules(&deviation.chain).iter().filter(|rule| leads_to_ours(rule));
        lines.extend(stale.map(|rule| rule.replacen("-A ", "-D ", 1)));
        for (position, jump) in wanted_jumps(wanted, &deviation.chain).iter().enumerate() {
            let specification = jump.strip_prefix("-A ").unwrap_or(jump);
            let (chain, rest) = specification.split_once(' ').unwrap_or((specification, ""));
            lines.push(format!("-I {chain} {} {rest}", position + 1));
        }
    }
    lines.extend(foreign.iter().map(|name| format!("-X {name}")));
    lines.push("COMMIT\n".to_owned());
    Some(lines.join("\n"))
}

/// A table of ours in which nothing is wanted: comparing with it removes everything of ours.
#[must_use]
pub fn nothing(name: TableName) -> Table {
    Table { name, chains: Vec::new(), jumps: Vec::new() }
}

fn wanted_jumps(wanted: &Table, chain: &str) -> Vec<String> {
    let jumps = wanted.jumps.iter().filter(|jump| jump.from == chain);
    jumps.map(|jump| format!("-A {}", jump.specification())).collect()
}

fn kernel_chains(wanted: &Table) -> Vec<&'static str> {
    let mut chains: Vec<_> = wanted.jumps.iter().map(|jump| jump.from).collect();
    chains.dedup();
    chains
}

fn is_ours(chain: &str) -> bool {
    chain.starts_with(CHAIN_PREFIX)
}

fn leads_to_ours(rule: &str) -> bool {
    let mut words = rule.split(' ').skip_while(|word| *word != "-j" && *word != "-g");
    words.nth(1).is_some_and(is_ours)
}

fn first_word(text: &str) -> &str {
    text.split(' ').next().unwrap_or_default()
}

#[cfg(test)]
mod tests;
