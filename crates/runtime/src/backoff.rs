//! How long to wait before trying again: each failure doubles the delay up to a cap, and a random part keeps many agents
//! that lost the same server from coming back in step. Pure: it neither sleeps nor owns a clock, and the caller gives the dice.

use std::time::Duration;

use rand::{Rng, RngExt};

/// The shape of the delays.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// The first delay before jitter.
    pub initial: Duration,
    /// No delay is longer than this.
    pub cap: Duration,
    /// By how much each failure lengthens the delay; less than 1 counts as 1.
    pub factor: f64,
    /// The random share of each delay, 0 to 1: with 0.5 a delay is drawn from its upper half. Never 1 by default, since a
    /// delay near zero is no delay.
    pub jitter: f64,
}

impl Default for Settings {
    /// 100 ms to 15 s, doubling, half of it random: fast enough that a restarted server is found within a blink, slow enough
    /// that thousands of agents do not keep it down (ztunnel caps at 15 s, too).
    fn default() -> Self {
        Self { initial: Duration::from_millis(100), cap: Duration::from_secs(15), factor: 2.0, jitter: 0.5 }
    }
}

/// Counts failures and says how long to wait after each.
#[derive(Debug, Clone)]
pub struct Backoff {
    settings: Settings,
    failures: u32,
}

impl Backoff {
    /// No failure yet.
    pub fn new(settings: Settings) -> Self {
        Self { settings, failures: 0 }
    }

    /// One failure more: how long to wait before the next try.
    pub fn next_delay(&mut self, dice: &mut impl Rng) -> Duration {
        let full = delay_without_jitter(&self.settings, self.failures);
        self.failures = self.failures.saturating_add(1);
        let jitter = self.settings.jitter.clamp(0.0, 1.0);
        full.mul_f64(1.0 - jitter * dice.random_range(0.0..1.0))
    }

    /// A success: the next failure starts again with the first delay.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// Failures since the last success.
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

fn delay_without_jitter(settings: &Settings, failures: u32) -> Duration {
    let exponent = i32::try_from(failures).unwrap_or(i32::MAX);
    let cap = settings.cap.as_secs_f64();
    // A huge power is infinite, and zero times infinite no number at all; `min` takes the cap for both.
    let grown = (settings.initial.as_secs_f64() * settings.factor.max(1.0).powi(exponent)).min(cap);
    Duration::try_from_secs_f64(grown).unwrap_or(settings.cap)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn doubles_up_to_the_cap_and_starts_again() {
        let settings = Settings { jitter: 0.0, ..Settings::default() };
        let (mut backoff, mut dice) = (Backoff::new(settings), StdRng::seed_from_u64(1));
        let delays: Vec<_> = (0..10).map(|_| backoff.next_delay(&mut dice).as_millis()).collect();
        assert_eq!(delays, [100, 200, 400, 800, 1600, 3200, 6400, 12800, 15000, 15000]);
        assert_eq!(backoff.failures(), 10);
        backoff.reset();
        assert_eq!(backoff.next_delay(&mut dice).as_millis(), 100);
    }

    proptest! {
        #[test]
        fn stays_between_the_jittered_floor_and_the_cap(
            initial in 0_u64..10_000, cap in 1_u64..100_000, factor in 0.0..10.0_f64, jitter in 0.0..=1.0_f64,
            failures in prop_oneof![0_u32..64, Just(u32::MAX)], seed: u64,
        ) {
            let settings = Settings {
                initial: Duration::from_millis(initial), cap: Duration::from_millis(cap), factor, jitter,
            };
            let mut backoff = Backoff { settings, failures };
            let full = delay_without_jitter(&settings, failures);
            let delay = backoff.next_delay(&mut StdRng::seed_from_u64(seed));
            prop_assert!(delay <= full && full <= settings.cap);
            let slack = Duration::from_micros(1);
            prop_assert!(delay + slack >= full.mul_f64(1.0 - jitter), "{delay:?} of {full:?}");
        }

        #[test]
        fn never_gets_shorter_before_jitter(failures in 0_u32..200, factor in 0.5..4.0_f64) {
            let settings = Settings { factor, ..Settings::default() };
            prop_assert!(delay_without_jitter(&settings, failures + 1) >= delay_without_jitter(&settings, failures));
        }
    }
}
