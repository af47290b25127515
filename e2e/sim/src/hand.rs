//! What somebody with rights in a pod's network namespace does to its rules by hand.

use rand::RngExt;
use rand::rngs::StdRng;
use weft_node_agent::capture::rules::TableName;

/// One command. Numbers choose among what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hand {
    /// `iptables -t TABLE -F`: chains stay, empty.
    Flush(TableName),
    /// `iptables -t TABLE -F` and `-X`: nothing stays.
    Delete(TableName),
    /// The same for every table, by somebody who knows iptables only.
    DeleteTables,
    /// `iptables -t TABLE -D`: one rule.
    Cut(TableName, usize),
    /// `iptables -t TABLE -I CHAIN -j ACCEPT`.
    Accept(TableName, usize),
    /// `ip rule del`.
    Unroute,
    /// `nft delete table inet weft_guard`.
    Unguard,
    /// `nft delete rule inet weft_guard`: one rule.
    CutGuard(usize),
    /// `nft insert rule inet weft_guard CHAIN accept`.
    AcceptInGuard(usize),
    /// `nft flush ruleset`: everything that the kernel filters by, of whomever.
    FlushRuleset,
}

/// More than any table has rules, and a multiple of no count of them.
const WHICH: usize = 10_007;

impl Hand {
    /// Any of them; after those that touch the guard less is promised, so they are rarer.
    pub fn any(dice: &mut StdRng) -> Self {
        let table = if dice.random_bool(0.5) { TableName::Mangle } else { TableName::Filter };
        let n = dice.random_range(0..WHICH);
        match dice.random_range(0..24_u32) {
            0..3 => Self::Flush(table),
            3..6 => Self::Delete(table),
            6..10 => Self::DeleteTables,
            10..13 => Self::Cut(table, n),
            13..16 => Self::Accept(table, n),
            16..19 => Self::Unroute,
            19 => Self::Unguard,
            20 => Self::CutGuard(n),
            21 => Self::AcceptInGuard(n),
            _ => Self::FlushRuleset,
        }
    }
}
