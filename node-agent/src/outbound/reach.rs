//! Decides and connects, to the next endpoint after each that failed, as long as the application has neither sent nor
//! received a byte.
//!
//! - At most [`ATTEMPTS`] endpoints, and nothing begins any more after `connect_timeout`.
//! - An attempt without an answer after `attempt_patience` is given up if another endpoint may do, and else waited for.
//! - A peer agent that did not answer (`tunnel_connect_timeout`) or whose port is closed, and that is the only one, is dialled again.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use weft_hbone::Patience;
use weft_model::Reason;
use weft_model::address::OriginalDst;
use weft_model::ejection::{Fault, Subject};
use weft_model::mesh::Chosen;
use weft_model::workload::{HBONE_PORT, TunnelProtocol, Uid, Workload};

use super::connect::{NotConnected, Peer, connect};
use super::decide::{Decision, Question, Surroundings, decide};
use super::ways::ways;
use crate::worker::connections::{Live, Outstanding};
use crate::worker::failure::Failure;
use crate::worker::shard::{Pod, Shard};

/// Endpoints that are tried for one connection. With one of ten dead, three miss one time in a thousand; more would only
/// make a client wait that has better things to do.
const ATTEMPTS: usize = 3;

/// Rest before an agent is dialled again whose port was closed: a fraction of the second or three that a replacement takes.
const REFUSED_REST: Duration = Duration::from_millis(200);

/// A connection that stands.
pub(super) struct Reached {
    pub(super) peer: Peer,
    /// Counts it at its endpoint.
    pub(super) _counted: Option<Outstanding>,
    /// The application's port, if its end says something of an endpoint that could be left out.
    pub(super) port: Option<u16>,
    /// When it began.
    pub(super) begun: std::time::Instant,
}

/// What has been tried for one connection.
#[derive(Default)]
struct Tried {
    /// Endpoints to leave out from now on.
    exclude: Vec<Uid>,
    first: Option<Failure>,
    /// Each attempt in words.
    story: Vec<String>,
}

impl Tried {
    fn note(&mut self, decision: &Decision, failure: &Failure) {
        let whom = decision.workload().map(|workload| format!("{}/{}: ", workload.namespace, workload.name));
        let detail = failure.detail.as_ref().map(|detail| format!(": {detail}"));
        let words = [whom.unwrap_or_default(), failure.reason.to_string(), detail.unwrap_or_default()].concat();
        if self.story.last() != Some(&words) {
            self.story.push(words);
        }
        self.first.get_or_insert_with(|| failure.clone());
    }

    /// The end: with the reason of `failure`, and all attempts in words if there was more than one.
    fn end(self, failure: Failure) -> Failure {
        if self.story.len() < 2 { failure } else { Failure::new(failure.reason, self.story.join("; ")) }
    }
}

/// One connection's way to its peer.
struct Attempt<'a> {
    shard: &'a Shard,
    source: &'a Arc<Workload>,
    original: OriginalDst,
    /// Nothing begins after this.
    deadline: Instant,
}

/// See the [module](self).
pub(super) async fn reach(shard: &Shard, pod: &Pod, live: &Live, original: OriginalDst) -> Result<Reached, Failure> {
    let settings = &shard.environment.settings;
    let deadline = Instant::now() + settings.connect_timeout;
    let source = shard.workload_of(pod).await?;
    live.note(|record| record.source_workload = Some(source.clone()));
    let (attempt, mut tried) = (Attempt { shard, source: &source, original, deadline }, Tried::default());
    let health = &shard.environment.health;
    loop {
        let decision = attempt.ask(&tried.exclude);
        // Nothing is left to try: what the endpoints said tells more than that there are no others.
        if let (Decision::Refuse(_), Some(first)) = (&decision, tried.first.clone()) {
            let Some(pause) = attempt.repeats_after(&first) else { return Err(tried.end(first)) };
            tokio::time::sleep(pause).await;
            tried.exclude.clear();
            continue;
        }
        let counted = decision.workload().map(|workload| shard.connections.count_endpoint(&workload.uid));
        let begun = std::time::Instant::now();
        health.took(|| decision.ways());
        let gives_up = || attempt.gives_up(&decision, &tried.exclude);
        let patience = Patience { step: settings.attempt_patience, gives_up };
        let failed = match connect(shard, pod, live, &source, &decision, patience).await {
            Ok(peer) => {
                health.connected(|| decision.ways());
                let port = decision.service().and_then(|_| decision.endpoint_port());
                return Ok(Reached { peer, _counted: counted, port, begun });
            }
            Err(failed) => failed,
        };
        let NotConnected { failure, try_another, fault } = failed;
        health.count_attempt(failure.reason);
        tried.note(&decision, &failure);
        if let Some(fault) = fault {
            attempt.blame(&decision, fault, begun);
        }
        match decision.endpoint().filter(|_| try_another) {
            Some(endpoint) => tried.exclude.push(endpoint.clone()),
            None => match attempt.repeats_after(&failure) {
                Some(pause) => {
                    tokio::time::sleep(pause).await;
                    continue;
                }
                None => return Err(tried.end(failure)),
            },
        }
        if tried.exclude.len() >= ATTEMPTS || Instant::now() >= deadline {
            return Err(tried.end(failure));
        }
    }
}

impl Attempt<'_> {
    fn ask(&self, exclude: &[Uid]) -> Decision {
        self.shard.mesh(|mesh| {
            let source = mesh.workload(&self.source.uid).unwrap_or(self.source);
            let question = Question { mesh, source, original: self.original, exclude };
            decide(&question, &Around(self.shard), &mut rand::rng())
        })
    }

    /// Whether, and after which rest, to dial a peer again when there is nobody else: a SYN may be lost, and an agent that is
    /// replaced is back in a moment.
    fn repeats_after(&self, failure: &Failure) -> Option<Duration> {
        let rest = match failure.reason {
            Reason::TunnelTimeout => Duration::ZERO,
            Reason::TunnelRefused => REFUSED_REST,
            _ => return None,
        };
        (Instant::now() + rest < self.deadline).then_some(rest)
    }

    /// Whether an attempt that takes long shall end now: another endpoint may do, or it is late for everything.
    fn gives_up(&self, current: &Decision, exclude: &[Uid]) -> bool {
        if Instant::now() >= self.deadline + self.shard.environment.settings.connect_timeout {
            return true;
        }
        let Some(endpoint) = current.endpoint().filter(|_| exclude.len() + 1 < ATTEMPTS) else { return false };
        if Instant::now() >= self.deadline {
            return false;
        }
        let tried: Vec<Uid> = exclude.iter().chain([endpoint]).cloned().collect();
        let next = self.ask(&tried);
        next.endpoint().is_some() && !self.shard.environment.health.avoids(|| next.ways())
    }

    fn blame(&self, decision: &Decision, fault: Fault, begun: std::time::Instant) {
        let health = &self.shard.environment.health;
        match (decision.workload(), decision.service(), decision.endpoint_port()) {
            (Some(workload), Some(service), Some(port)) => {
                self.shard.mesh(|mesh| health.endpoint_failed(mesh, &service.key, (&workload.uid, port), fault, begun));
            }
            // A waypoint has no application behind it that could be at fault.
            (Some(_), _, None) => {
                if let Decision::Tunnel(plan) = decision {
                    health.hop_failed(plan.next_hop.0, None, fault, begun);
                }
            }
            // Nobody else could have been asked: leaving it out would help nobody.
            _ => {}
        }
    }
}

struct Around<'a>(&'a Shard);

impl Surroundings for Around<'_> {
    fn outstanding(&self, uid: &Uid) -> u32 {
        self.0.connections.outstanding(uid)
    }

    fn serves(&self, workload: &Workload, address: IpAddr) -> bool {
        self.0.environment.served.read(|served| served.serving(workload, address).is_some())
    }

    fn avoids(&self, chosen: &Chosen, waypoint: bool) -> bool {
        let Chosen { workload, address, port } = chosen;
        let subjects = || -> Vec<Subject> {
            let tunnel = waypoint
                || (workload.tunnel == TunnelProtocol::Hbone
                    && (workload.native_tunnel || !self.serves(workload, *address)));
            let hop = tunnel.then_some((*address, if waypoint { *port } else { HBONE_PORT }).into());
            ways(workload, (!waypoint).then_some(*port), hop).collect()
        };
        self.0.environment.health.avoids(subjects)
    }
}
