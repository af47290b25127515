//! How a proxy half that is told to end parts from its pods: it goes on accepting until somebody else does, or until it is plain that
//! nobody will.
//!
//! ```text
//! SIGTERM -> a successor has taken every pod                -> Succeeded: finish what is open
//!        '-> the capture half is away, and nobody stands in -> Alone:     empty the queues, close them, finish soon
//!        '-> neither within a while                         -> Left:      the capture half keeps the queues for a successor
//! ```

use std::time::Duration;

use tokio::time::timeout;
use weft_runtime::shared::Reader;

use crate::worker::served::Served;

/// How long it is waited for a successor, or for the end of the capture half. In a pod of Kubernetes both halves are told to end in the same
/// moment, each by a call of its own to the container runtime; a successor that is there has taken every pod before that.
const SKEW: Duration = Duration::from_secs(2);

/// See the [module](self).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parting {
    /// Somebody else serves every pod, or there is none.
    Succeeded,
    /// Nobody serves them until another agent starts, and nobody keeps their queues.
    Alone,
    /// Nobody serves them, but the capture half keeps their queues.
    Left,
}

impl Parting {
    /// How long open connections may go on.
    pub(super) fn patience(self, succeeded: Duration, alone: Option<Duration>) -> Duration {
        match self {
            Self::Succeeded => succeeded,
            Self::Alone | Self::Left => alone.unwrap_or(succeeded),
        }
    }
}

/// Waits until it is plain.
pub(super) async fn part(mut served: Reader<Served>) -> Parting {
    let plain = timeout(SKEW, served.wait_until(|served| judge(served).is_some())).await;
    plain.ok().and_then(Result::ok).and_then(|served| judge(&served)).unwrap_or(Parting::Left)
}

fn judge(served: &Served) -> Option<Parting> {
    if served.is_retired() || served.pods().next().is_none() {
        return Some(Parting::Succeeded);
    }
    (!served.is_in_touch()).then_some(Parting::Alone)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use rstest::rstest;
    use weft_runtime::shared::channel;

    use super::{Parting, SKEW, part};
    use crate::handover::PodInfo;
    use crate::node_info::NodeInfo;
    use crate::worker::served::Served;

    fn of_one_pod() -> Served {
        let (name, namespace, service_account) = ("web".to_owned(), "shop".to_owned(), "web".to_owned());
        let (addresses, node) = (Vec::new(), "one".to_owned());
        let info = PodInfo { uid: "u1".into(), name, namespace, service_account, addresses, node, strict: true };
        let node = NodeInfo {
            name: "one".into(),
            network: "".into(),
            cluster: "Kubernetes".into(),
            trust_domain: "cluster.local".into(),
        };
        Served::default().with(&node, Arc::new(info)).unwrap().in_touch(true)
    }

    #[rstest]
    #[case::no_pod(Served::default().in_touch(true), Parting::Succeeded)]
    #[case::a_successor(of_one_pod().retired(), Parting::Succeeded)]
    #[case::a_successor_and_then_the_capture_half_went(of_one_pod().retired().in_touch(false), Parting::Succeeded)]
    #[case::the_capture_half_goes_as_well(of_one_pod().in_touch(false), Parting::Alone)]
    #[case::the_capture_half_stays(of_one_pod(), Parting::Left)]
    #[tokio::test(start_paused = true)]
    async fn who_stands_in(#[case] later: Served, #[case] expected: Parting) {
        let (mut writer, reader) = channel(of_one_pod());
        let soon = async {
            tokio::time::sleep(SKEW / 2).await;
            writer.publish(later);
            std::future::pending::<()>().await
        };
        tokio::select! {
            parting = part(reader) => assert_eq!(parting, expected),
            () = soon => {}
        }
    }

    #[test]
    fn whoever_stands_alone_ends_soon() {
        let (long, short) = (Duration::from_secs(600), Duration::from_secs(5));
        assert_eq!(Parting::Succeeded.patience(long, Some(short)), long);
        assert_eq!(Parting::Alone.patience(long, Some(short)), short);
        assert_eq!(Parting::Left.patience(long, None), long);
    }
}
