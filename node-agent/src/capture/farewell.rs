//! When the capture half that is told to end may do so. It keeps every listener open, and makes the sockets that proxies dial
//! with, so whoever still needs that is waited for, for a moment.
//!
//! ```text
//! SIGTERM -> no proxy is there, or one that stays (a successor's, which has the same listeners) -> end
//!        '-> every proxy drains (the agent goes, and nobody stands in) -> the listeners take no new handshake -> queues are emptied -> end
//!        '-> a proxy serves, and none drains -> it may be told to end any moment: wait -> it stays -> end
//! ```

use std::time::Duration;

use tokio::time::Instant;

use super::closing::LAST_HANDSHAKES;

/// How much later than this half the proxy of the same agent may be told to end: Kubernetes tells each container by a call of its own.
const SKEW: Duration = Duration::from_secs(1);

/// The proxies that are connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Proxies {
    /// One of them serves the pods and has not been told to end.
    pub(super) serving: bool,
    /// One of them has.
    pub(super) draining: bool,
}

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Go on as before.
    Wait,
    /// Let nobody new into the listeners, and go on.
    Close,
    /// End.
    End,
}

/// An end that has begun.
#[derive(Debug)]
pub(super) struct Farewell {
    begun: Instant,
    closed: Option<Instant>,
}

impl Farewell {
    pub(super) fn begin(now: Instant) -> Self {
        Self { begun: now, closed: None }
    }

    /// [`Step::Close`] is said once.
    pub(super) fn step(&mut self, proxies: Proxies, now: Instant) -> Step {
        match (proxies, self.closed) {
            (Proxies { draining: false, serving: false }, _) => Step::End,
            (_, Some(closed)) if now >= closed + LAST_HANDSHAKES => Step::End,
            (_, Some(_)) => Step::Wait,
            (Proxies { draining: true, serving: false }, None) => {
                self.closed = Some(now);
                Step::Close
            }
            (Proxies { draining: true, serving: true }, None) => Step::End,
            (Proxies { draining: false, serving: true }, None) if now >= self.begun + SKEW => Step::End,
            (Proxies { draining: false, serving: true }, None) => Step::Wait,
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{Farewell, Instant, LAST_HANDSHAKES, Proxies, SKEW, Step};

    const NONE: Proxies = Proxies { serving: false, draining: false };
    const SERVES: Proxies = Proxies { serving: true, draining: false };
    const DRAINS: Proxies = Proxies { serving: false, draining: true };
    const SUCCEEDED: Proxies = Proxies { serving: true, draining: true };

    #[rstest]
    #[case::nobody_is_there(&[(NONE, 0, Step::End)])]
    #[case::a_successor_serves(&[(SUCCEEDED, 0, Step::End)])]
    #[case::this_half_alone_is_replaced(&[(SERVES, 0, Step::Wait), (SERVES, 999, Step::Wait), (SERVES, 1000, Step::End)])]
    #[case::the_agent_goes(&[(SERVES, 0, Step::Wait), (DRAINS, 100, Step::Close), (DRAINS, 349, Step::Wait), (DRAINS, 350, Step::End)])]
    #[case::the_agent_goes_proxy_first(&[(DRAINS, 0, Step::Close), (DRAINS, 1, Step::Wait), (NONE, 2, Step::End)])]
    #[case::a_successor_comes_late(&[(DRAINS, 0, Step::Close), (SUCCEEDED, 100, Step::Wait), (SUCCEEDED, 250, Step::End)])]
    fn who_is_waited_for(#[case] course: &[(Proxies, u64, Step)]) {
        assert_eq!((SKEW.as_millis(), LAST_HANDSHAKES.as_millis()), (1000, 250), "the table's times");
        let begin = Instant::now();
        let mut farewell = Farewell::begin(begin);
        for (proxies, at, expected) in course {
            let step = farewell.step(*proxies, begin + std::time::Duration::from_millis(*at));
            assert_eq!(step, *expected, "{proxies:?} after {at} ms");
        }
    }
}
