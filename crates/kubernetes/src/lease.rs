//! Who of several replicas leads: what to do about a lease, as a pure decision.
//!
//! Times are those of our own clock: a lease counts as renewed when *we* saw that it had changed, so clocks that differ harm nobody (the
//! way of Kubernetes' own controllers, client-go's `leaderelection`).

use std::time::Duration;

/// How long a lease counts after its last renewal. As Kubernetes' own controllers: 15 s.
pub const LIFE: Duration = Duration::from_secs(15);
/// How long its holder believes in a renewal, from before it was sent: well before anybody else may take the lease.
pub const TERM: Duration = Duration::from_secs(10);
/// How often it is renewed: two renewals may fail before the term is over.
pub const RENEWAL: Duration = Duration::from_secs(3);
/// How often those that wait look at it: an orderly end is noticed within this.
pub const LOOK: Duration = Duration::from_secs(2);
/// What another version of the program may say of its lease's life, at most: nobody waits an hour for a typing error.
const LONGEST_LIFE: Duration = Duration::from_secs(60);

/// A lease as it was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Who holds it; empty: it was released.
    pub holder: String,
    /// When we saw its last change, by our clock.
    pub renewed: Duration,
    /// How long it counts after that, as its holder says.
    pub life: Duration,
}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Try to take it.
    Acquire,
    /// It is ours: renew it.
    Renew,
    /// Nothing; look again after this long at the latest.
    Wait(Duration),
}

/// Decides; `None` is a lease that is not there.
#[must_use]
pub fn decide(seen: Option<&Seen>, us: &str, now: Duration) -> Step {
    let Some(seen) = seen else { return Step::Acquire };
    let rest = |life: Duration| (seen.renewed + life).saturating_sub(now);
    if seen.holder.is_empty() {
        return Step::Acquire;
    }
    if seen.holder == us {
        let rest = rest(RENEWAL);
        return if rest.is_zero() { Step::Renew } else { Step::Wait(rest) };
    }
    let rest = rest(seen.life.min(LONGEST_LIFE));
    if rest.is_zero() { Step::Acquire } else { Step::Wait(rest.min(LOOK)) }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[rstest]
    #[case::nobody(None, 0, Step::Acquire)]
    #[case::released(Some(("", 100, 15)), 100, Step::Acquire)]
    #[case::ours_and_fresh(Some(("us", 100, 15)), 101, Step::Wait(s(2)))]
    #[case::ours_and_due(Some(("us", 100, 15)), 103, Step::Renew)]
    #[case::ours_and_long_over(Some(("us", 100, 15)), 300, Step::Renew)]
    #[case::another_and_fresh(Some(("them", 100, 15)), 101, Step::Wait(LOOK))]
    #[case::another_and_nearly_over(Some(("them", 100, 15)), 114, Step::Wait(s(1)))]
    #[case::another_and_over(Some(("them", 100, 15)), 115, Step::Acquire)]
    #[case::another_with_a_shorter_life(Some(("them", 100, 5)), 105, Step::Acquire)]
    #[case::another_with_a_life_without_end(Some(("them", 100, 100_000)), 160, Step::Acquire)]
    #[case::seen_after_now(Some(("them", 100, 15)), 99, Step::Wait(LOOK))]
    fn what_to_do(#[case] seen: Option<(&str, u64, u64)>, #[case] now: u64, #[case] expected: Step) {
        let seen =
            seen.map(|(holder, renewed, life)| Seen { holder: holder.to_owned(), renewed: s(renewed), life: s(life) });
        assert_eq!(decide(seen.as_ref(), "us", s(now)), expected);
    }

    #[test]
    fn a_holder_stops_before_anybody_else_may_begin_and_two_renewals_may_fail() {
        assert!(TERM < LIFE && RENEWAL * 3 < TERM);
    }
}
