//! How much of each useless thing a peer may do: one budget per attack, earned back by time and by useful work.
//!
//! Every frame costs its sender about what it costs us, so the point is not to count frames but to end, with a word, what can have no
//! good reason. All budgets are far above what a busy honest peer needs.

use super::violation::Violation;

/// An allowance.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Budget {
    left: u32,
    most: u32,
    offence: Violation,
}

impl Budget {
    const fn new(most: u32, offence: Violation) -> Self {
        Self { left: most, most, offence }
    }

    /// Uses one.
    pub(crate) fn spend(&mut self) -> Result<(), Violation> {
        self.left = self.left.checked_sub(1).ok_or(self.offence)?;
        Ok(())
    }

    /// Something useful happened.
    pub(crate) fn earn(&mut self, count: u32) {
        self.left = self.left.saturating_add(count).min(self.most);
    }
}

/// The budgets of one connection. "A while" is the time between two PINGs of ours (5 s between agents), after which all but the first two are full again.
#[derive(Debug)]
pub(crate) struct Limits {
    /// Requests withdrawn before their answer, and streams whose rules the peer broke; each answer earns one back. 1,000: a client whose agent is killed withdraws 100 at once.
    pub(crate) withdrawn: Budget,
    /// Streams beyond MAX_CONCURRENT_STREAMS; each accepted one earns one back. 1,000: a peer does not know the number at first.
    pub(crate) refused: Budget,
    /// PING in a while. 1,000: peers send one in 10 s, those that measure the round trip some in a second.
    pub(crate) pings: Budget,
    /// SETTINGS in a while. 100: peers send one in a connection's life, h2 one more when a window changes.
    pub(crate) settings: Budget,
    /// Frames without content in a while: empty DATA without END_STREAM. 1,000.
    pub(crate) empty: Budget,
    /// WINDOW_UPDATE below [`TINY_INCREMENT`] in a while; each DATA frame of ours earns one back. 10,000: a peer may give window back byte
    /// by byte as its reader takes them.
    pub(crate) tiny_updates: Budget,
    /// Frames for streams that are gone and no longer remembered. 65,536: tunnels of a busy pod are reset in bursts, and a connection
    /// between two busy pods lives for weeks. Each new stream earns some back.
    pub(crate) late: Budget,
    /// PRIORITY and unknown frames in a while. 10,000: some peers send a PRIORITY with each stream.
    pub(crate) ignored: Budget,
}

/// A window update that no sender needs: 256 bytes.
pub(crate) const TINY_INCREMENT: u32 = 256;

/// Late frames that each new stream may cause: a WINDOW_UPDATE or two and a RST_STREAM that crossed our end.
pub(crate) const LATE_PER_STREAM: u32 = 4;

/// CONTINUATION frames of one header block. 32: with frames of the smallest allowed size that is 512 KiB, eight times the largest list.
pub(crate) const MOST_CONTINUATIONS: u32 = 32;

/// Bytes of output that wait while the peer causes more answers. 1 MiB: four times what streams may put there.
pub(crate) const MOST_UNREAD: usize = 1 << 20;

/// Streams that were reset by us, of which the peer may not know yet: their DATA is within its window and costs nothing. 256.
pub(crate) const RESETS_REMEMBERED: usize = 256;

impl Default for Limits {
    fn default() -> Self {
        Self {
            withdrawn: Budget::new(1000, Violation::RAPID_RESET),
            refused: Budget::new(1000, Violation::STREAM_FLOOD),
            pings: Budget::new(1000, Violation::PING_FLOOD),
            settings: Budget::new(100, Violation::SETTINGS_FLOOD),
            empty: Budget::new(1000, Violation::EMPTY_FRAMES),
            tiny_updates: Budget::new(10_000, Violation::WINDOW_FLOOD),
            late: Budget::new(1 << 16, Violation::LATE_FRAMES),
            ignored: Budget::new(10_000, Violation::IGNORED_FRAMES),
        }
    }
}

impl Limits {
    /// A while is over.
    pub(crate) fn refill(&mut self) {
        for budget in [
            &mut self.pings,
            &mut self.settings,
            &mut self.empty,
            &mut self.tiny_updates,
            &mut self.late,
            &mut self.ignored,
        ] {
            budget.left = budget.most;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Limits, Violation};

    #[test]
    fn a_budget_ends_and_comes_back() {
        let mut limits = Limits::default();
        for _ in 0..1000 {
            limits.pings.spend().unwrap();
            limits.withdrawn.spend().unwrap();
        }
        assert_eq!(limits.pings.spend(), Err(Violation::PING_FLOOD));
        assert_eq!(limits.withdrawn.spend(), Err(Violation::RAPID_RESET));
        limits.refill();
        assert_eq!(limits.pings.spend(), Ok(()));
        assert_eq!(limits.withdrawn.spend(), Err(Violation::RAPID_RESET));
        limits.withdrawn.earn(1);
        assert_eq!(limits.withdrawn.spend(), Ok(()));
    }
}
