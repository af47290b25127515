//! How many dial sockets to make at once: more while the proxy asks quickly, fewer again when it does not. Pure.

use std::time::{Duration, Instant};

use crate::handover::message::MAX_SOCKETS;

/// Asking again within this time means that the last batch was too small.
const QUICK: Duration = Duration::from_millis(100);

/// A quiet second halves the batch: unused sockets are descriptors that somebody else may need.
const DECAY: Duration = Duration::from_secs(1);

/// Batch size of one pod and family.
#[derive(Clone, Copy, Debug)]
pub struct BatchSize {
    size: usize,
    last: Option<Instant>,
}

impl Default for BatchSize {
    fn default() -> Self {
        Self { size: 1, last: None }
    }
}

impl BatchSize {
    /// The answer to a request for `wanted` sockets at `now`: at least those, at most 64.
    pub fn next(&mut self, wanted: usize, now: Instant) -> usize {
        let quiet = self.last.map(|last| now.saturating_duration_since(last));
        self.size = match quiet {
            None => self.size,
            Some(quiet) if quiet <= QUICK => (self.size * 2).min(MAX_SOCKETS),
            Some(quiet) => {
                let halvings = u32::try_from(quiet.as_secs() / DECAY.as_secs()).unwrap_or(u32::MAX);
                self.size.checked_shr(halvings).unwrap_or(0).max(1)
            }
        };
        self.last = Some(now);
        self.size.max(wanted).min(MAX_SOCKETS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_while_asked_quickly_and_decays() {
        let start = Instant::now();
        let mut batch = BatchSize::default();
        let mut at = |milliseconds, wanted| batch.next(wanted, start + Duration::from_millis(milliseconds));
        let quick: Vec<_> = (0..8).map(|step| at(step * 50, 1)).collect();
        assert_eq!(quick, [1, 2, 4, 8, 16, 32, 64, 64]);
        assert_eq!(at(850, 1), 64, "neither quick nor quiet");
        assert_eq!(at(2850, 1), 16);
        assert_eq!(at(3900, 60), 60, "what is wanted is given");
        assert_eq!(at(600_000, 1), 1);
        assert_eq!(at(600_001, 1000), MAX_SOCKETS);
    }
}
