//! What a decision's connection depends on, and what a failure says of the application at its end. Pure.
//!
//! | failure | who is blamed |
//! |---|---|
//! | the dial of a tunnel, its PING | the peer agent's address, and its node when that is silent: the dialler says so itself, once for all who wait |
//! | no answer to CONNECT; 503 of the peer because of the application | the application (a waypoint: its address) |
//! | refused, silent or unreachable without a tunnel | the application |
//! | policy, limits, a drain; what is missing on our own side | nobody |

use std::net::SocketAddr;

use weft_hbone::{OpenError, PoolError, StreamError};
use weft_model::Reason;
use weft_model::ejection::{Fault, Subject};
use weft_model::workload::Workload;

use super::decide::Decision;
use crate::worker::tunnels::TunnelDialError;

/// Everything that must be well for a connection to `workload`, whose application is at `port` and which is reached over a
/// tunnel to `hop`.
pub(super) fn ways(workload: &Workload, port: Option<u16>, hop: Option<SocketAddr>) -> impl Iterator<Item = Subject> {
    let endpoint = port.map(|port| Subject::Endpoint(workload.uid.clone(), port));
    let node = hop.filter(|_| !workload.node.is_empty()).map(|_| Subject::Node(workload.node.clone()));
    [endpoint, hop.map(Subject::Hop), node].into_iter().flatten()
}

impl Decision {
    /// Everything that must be well for its connection.
    pub(super) fn ways(&self) -> impl Iterator<Item = Subject> {
        let (port, hop) = match self {
            Self::Passthrough { .. } | Self::Refuse(_) => (None, None),
            Self::Plain(target) | Self::Local(target) => (Some(target.to.port()), None),
            Self::Tunnel(plan) => ((!plan.waypoint).then_some(plan.authority.port()), Some(plan.next_hop.0)),
        };
        self.workload().map(move |workload| ways(workload, port, hop)).into_iter().flatten()
    }

    /// The application's port there; `None` behind a waypoint, which answers for itself.
    pub(super) fn endpoint_port(&self) -> Option<u16> {
        match self {
            Self::Passthrough { .. } | Self::Refuse(_) => None,
            Self::Plain(target) | Self::Local(target) => Some(target.to.port()),
            Self::Tunnel(plan) => (!plan.waypoint).then_some(plan.authority.port()),
        }
    }
}

/// What the reason of a failed connection says of the application.
pub(super) fn fault_of_reason(reason: Reason) -> Option<Fault> {
    match reason {
        Reason::ConnectRefused => Some(Fault::Refused),
        Reason::ConnectTimeout => Some(Fault::Silent),
        Reason::ConnectFailed | Reason::PeerRefused => Some(Fault::Failed),
        _ => None,
    }
}

/// What the pool's error says of the application.
pub(super) fn fault_of_pool(error: &PoolError<TunnelDialError>) -> Option<Fault> {
    match error {
        PoolError::Unanswered { dialled: true } => Some(Fault::Silent),
        PoolError::Open(OpenError::Stream(StreamError::Reset(_))) => Some(Fault::Failed),
        PoolError::Open(OpenError::Refused { status: 503, .. }) => {
            fault_of_reason(crate::worker::tunnels::reason_of_pool(error))
        }
        PoolError::Dial(_) | PoolError::Open(_) | PoolError::Unanswered { dialled: false } | PoolError::Draining => {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rstest::rstest;
    use weft_hbone::{DialFailure, OpenError, PoolError, ResetCode, StreamError};
    use weft_model::Reason;
    use weft_model::ejection::Fault as F;

    use super::fault_of_pool;
    use crate::worker::tunnels::TunnelDialError;

    fn refused(status: u16, reason: Option<&str>) -> PoolError<TunnelDialError> {
        PoolError::Open(OpenError::Refused { status, reason: reason.map(str::to_owned) })
    }

    fn lost(error: StreamError) -> PoolError<TunnelDialError> {
        PoolError::Open(OpenError::Stream(error))
    }

    #[rstest]
    #[case::its_port_is_closed(refused(503, Some("connect-refused")), Some(F::Refused))]
    #[case::its_queue_is_full(refused(503, Some("connect-timeout")), Some(F::Silent))]
    #[case::of_a_stock_peer(refused(503, None), Some(F::Failed))]
    #[case::the_peer_sheds(refused(503, Some("overloaded")), None)]
    #[case::the_peer_drains(refused(503, Some("draining")), None)]
    #[case::policy(refused(401, Some("policy-denied")), None)]
    #[case::stock_policy(refused(401, None), None)]
    #[case::no_answer(PoolError::Unanswered { dialled: true }, Some(F::Silent))]
    #[case::not_even_dialled(PoolError::Unanswered { dialled: false }, None)]
    #[case::reset(lost(StreamError::Reset(ResetCode::CANCEL)), Some(F::Failed))]
    #[case::the_connection_broke(lost(StreamError::ConnectionLost), None)]
    #[case::going_away(lost(StreamError::GoneAway(ResetCode::NO_ERROR)), None)]
    #[case::the_dialler_says_it_itself(
        PoolError::Dial(DialFailure::Dial(Arc::new(TunnelDialError { reason: Reason::TunnelRefused, detail: String::new() }))),
        None
    )]
    #[case::draining(PoolError::Draining, None)]
    fn what_the_pool_says_of_the_application(#[case] error: PoolError<TunnelDialError>, #[case] fault: Option<F>) {
        assert_eq!(fault_of_pool(&error), fault, "{error}");
    }
}
