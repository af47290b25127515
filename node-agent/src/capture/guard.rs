//! The guards once more, in a native nft table of its own: whoever empties every table that iptables knows
//! (`iptables -F` in a pod with NET_ADMIN, another tool's clean-up) does not open the pod
//! (`docs/capture.md`). Only `nft flush ruleset` takes it away; the auditor brings it back.
//!
//! The rules are those of the iptables guard ([`super::ruleset`]), said in nft's words. What the kernel shows for them is
//! learned once, in a private namespace, with the program that is used later: so an audit compares texts of one origin.
//! Works in the network namespace of the calling thread.

use std::sync::Arc;

use super::mark::{HBONE_PORT, LOOP, Mark, OLD, TAKEN};
use super::program::{Nft, ProgramError};
use super::rules::CHAIN_PREFIX;
use super::ruleset::{Phase, Way};

/// Name of the table.
pub const TABLE: &str = "weft_guard";

/// Puts the guard in and compares it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Guard {
    nft: Nft,
    listings: Arc<Listings>,
}

/// What the kernel shows.
#[derive(Debug)]
struct Listings {
    steady: String,
    /// All transitions let past what is marked [`OLD`].
    transition: String,
}

impl Listings {
    fn of(&self, phase: Phase) -> &str {
        if phase == Phase::Steady { &self.steady } else { &self.transition }
    }
}

impl Guard {
    /// Tries the guard in the namespace of the calling thread, which must be a private one.
    ///
    /// # Errors
    /// Why it cannot be used here: no nft, or a kernel without a part that the rules need.
    pub fn learn() -> Result<Self, ProgramError> {
        let nft = Nft::find().ok_or(ProgramError::Absent)?;
        let shown = |phase| -> Result<_, ProgramError> {
            nft.run(&script(phase))?;
            Ok(nft.list(TABLE)?.unwrap_or_default())
        };
        let (steady, transition) = (shown(Phase::Steady)?, shown(Phase::Enrol(Way::Direct))?);
        Ok(Self { nft, listings: Arc::new(Listings { steady, transition }) })
    }

    /// Whether some guard stands, of whatever phase.
    ///
    /// # Errors
    /// When that cannot be read.
    pub fn exists(&self) -> Result<bool, ProgramError> {
        Ok(self.nft.list(TABLE)?.is_some())
    }

    /// Whether some guard stands, or chains of ours that iptables-nft has put in.
    ///
    /// # Errors
    /// When that cannot be read.
    pub fn or_chains_exist(&self) -> Result<bool, ProgramError> {
        Ok(shows_ours(&self.nft.chains()?))
    }

    /// Whether the guard of this phase stands, whole.
    ///
    /// # Errors
    /// When that cannot be read.
    pub fn stands(&self, phase: Phase) -> Result<bool, ProgramError> {
        Ok(self.nft.list(TABLE)?.as_deref() == Some(self.listings.of(phase)))
    }

    /// Puts the guard of this phase in, in one transaction. True: something had to be changed.
    ///
    /// # Errors
    /// [`ProgramError`].
    pub fn apply(&self, phase: Phase) -> Result<bool, ProgramError> {
        if self.stands(phase)? {
            return Ok(false);
        }
        self.nft.run(&script(phase)).map(|()| true)
    }

    /// Takes it out.
    ///
    /// # Errors
    /// [`ProgramError`].
    pub fn remove(&self) -> Result<(), ProgramError> {
        if self.exists()? { self.nft.run(&format!("delete table inet {TABLE}\n")) } else { Ok(()) }
    }
}

fn shows_ours(chains: &str) -> bool {
    let ours = |line: &str| match line.split_whitespace().collect::<Vec<_>>().as_slice() {
        ["table", _, name, ..] => *name == TABLE,
        ["chain", name, ..] => name.starts_with(CHAIN_PREFIX),
        _ => false,
    };
    chains.lines().any(ours)
}

/// The table as nft reads it. What the mangle table has marked for `lo` is let past before it is routed, so the last chain
/// asks where it went: with the policy rule gone and the first guard altered, it would leave.
///
/// Adding before deleting makes the deletion work in either case.
#[must_use]
pub fn script(phase: Phase) -> String {
    let on = |mark: Mark| format!("meta mark & {:#x} == {:#x}", mark.mask, mark.value);
    let old = if phase == Phase::Steady { String::new() } else { format!("{} accept", on(OLD)) };
    let flags = "tcp flags & (fin | syn | rst | ack)";
    let (looped, taken) = (on(LOOP), on(TAKEN));
    format!(
        "add table inet {TABLE}
delete table inet {TABLE}
table inet {TABLE} {{
 chain input {{
  type filter hook input priority filter; policy accept;
  meta l4proto != tcp accept
  iif 1 {looped} drop
  iif 1 accept
  {taken} accept
  {old}
  tcp dport {HBONE_PORT} {flags} != syn accept
  tcp dport {HBONE_PORT} socket transparent 1 accept
  {flags} != syn drop
  socket wildcard {{ 0, 1 }} drop
  reject with tcp reset
 }}
 chain output {{
  type filter hook output priority filter; policy accept;
  meta l4proto != tcp accept
  oif 1 accept
  meta mark & {mask:#x} != 0 accept
  {flags} == (rst | ack) meta skuid 0-4294967294 drop
  {flags} == (rst | ack) accept
  drop
 }}
 chain postrouting {{
  type filter hook postrouting priority filter; policy accept;
  {looped} oif != 1 drop
 }}
}}
",
        mask = LOOP.mask
    )
}

#[cfg(test)]
mod tests {
    use super::{Phase, script, shows_ours};

    #[test]
    fn ours_are_told_from_others_by_their_names() {
        assert!(!shows_ours("table ip mangle {\n\tchain PREROUTING {\n\t}\n}\ntable inet firewalld {\n}\n"));
        assert!(shows_ours("table ip6 mangle {\n\tchain WEFT_PRE {\n\t}\n}\n"));
        assert!(shows_ours("table inet weft_guard {\n}\n"));
    }

    #[test]
    fn only_transitions_let_old_connections_past() {
        for phase in Phase::ALL {
            assert_eq!(script(phase).contains("0x114"), phase != Phase::Steady, "{phase:?}");
        }
    }
}
