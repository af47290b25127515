//! Where a captured connection goes, as one pure function. Steps are looked at in this order (ztunnel's; code and tests name them):
//!
//! | step | when | decision |
//! |---|---|---|
//! | 0 | the target is a reserved port on loopback | refuse |
//! | 1 | the source pod is not known yet | waited for by the caller (`serve`) |
//! | 2 | the target is a service with a waypoint, and the caller is not that waypoint | tunnel to the waypoint, authority = original destination |
//! | 3 | nothing is known of the target | plain TCP to the original destination |
//! | 3b | a service without a usable endpoint | refuse; in passthrough mode as 3 |
//! | 4 | the endpoint is in another network | refuse: double HBONE is not there yet |
//! | 5 | the target is a workload with a waypoint, and the caller is not that waypoint | tunnel to the waypoint, authority = original destination |
//! | 6 | the endpoint accepts HBONE | tunnel to its port 15008, authority = endpoint and its target port |
//! | 7 | the endpoint accepts no tunnel | plain TCP to endpoint and target port |
//!
//! One version of the mesh in, one [`Decision`] out; nothing is awaited, nothing is guessed. What cannot be decided is
//! [`Decision::Refuse`], never a way around policy. Two things differ from ztunnel on purpose: an endpoint that
//! this agent serves itself is reached without a tunnel ([`Decision::Local`], policy is checked all the same), and a
//! waypoint that cannot be used refuses the connection.
//!
//! A workload that has only a host name (and no address) is no usable endpoint yet: such a service is refused with
//! [`Reason::NoHealthyEndpoint`].

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use rand::Rng;
use weft_model::address::{NetworkAddress, NextHop, OriginalDst};
use weft_model::mesh::{Chosen, EndpointRequest, Mesh, choose};
use weft_model::reason::Reason;
use weft_model::service::{BalanceMode, Service};
use weft_model::spiffe::SpiffeId;
use weft_model::workload::{GatewayAddress, HBONE_PORT, Health, TunnelProtocol, Uid, Workload};

use crate::ports::is_reserved;
use crate::worker::address::canonical;
use crate::worker::gateway::{Gateway, find_gateway, is_gateway};

/// What is asked: one captured connection.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The version of the mesh to decide from.
    pub mesh: &'a Mesh,
    /// The pod that the connection came from.
    pub source: &'a Workload,
    /// Where its application wanted to go.
    pub original: OriginalDst,
    /// Endpoints (waypoint or application) that were tried for this connection already.
    pub exclude: &'a [Uid],
}

/// What the decision depends on besides the mesh.
pub trait Surroundings {
    /// How many connections of this worker the endpoint has now.
    fn outstanding(&self, uid: &Uid) -> u32;

    /// Whether this agent serves the workload now, at this address: captured, on this node, not about to leave.
    fn serves(&self, workload: &Workload, address: IpAddr) -> bool;

    /// Whether an endpoint (or a waypoint) shall be chosen only when there is no other one: connections to it failed lately.
    fn avoids(&self, _chosen: &Chosen, _waypoint: bool) -> bool {
        false
    }
}

/// Where the connection goes.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// The mesh knows nothing of the target: plain TCP to where the application wanted to go.
    Passthrough {
        /// The original destination.
        to: SocketAddr,
    },
    /// An endpoint that is not in the mesh: plain TCP to it.
    Plain(Target),
    /// An endpoint that this agent serves itself: its policy is checked here, then the two sockets are joined.
    Local(Target),
    /// Over HBONE.
    Tunnel(TunnelPlan),
    /// Not at all.
    Refuse(Reason),
}

/// The application that a connection ends at.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// Its workload.
    pub workload: Arc<Workload>,
    /// Its address and port, after routing.
    pub to: SocketAddr,
    /// The service that the client named, if it named one.
    pub service: Option<Arc<Service>>,
}

/// One tunnel to open.
#[derive(Debug, Clone, PartialEq)]
pub struct TunnelPlan {
    /// Where TCP and TLS go.
    pub next_hop: NextHop,
    /// What is asked of the peer: the endpoint, or the original destination towards a waypoint.
    pub authority: SocketAddr,
    /// The identities that the peer may have; sorted, never empty.
    pub peers: Arc<[SpiffeId]>,
    /// Who is at the next hop: the endpoint or the waypoint.
    pub workload: Arc<Workload>,
    /// The service that the client named, if it named one.
    pub service: Option<Arc<Service>>,
    /// The next hop is a waypoint.
    pub waypoint: bool,
}

impl Decision {
    /// The endpoint to leave out when the connection to it failed before its first byte; `None` when there is no
    /// other one to try.
    #[must_use]
    pub fn endpoint(&self) -> Option<&Uid> {
        match self {
            Self::Passthrough { .. } | Self::Refuse(_) => None,
            Self::Plain(target) | Self::Local(target) => target.service.as_ref().map(|_| &target.workload.uid),
            Self::Tunnel(plan) => (plan.service.is_some() || plan.waypoint).then_some(&plan.workload.uid),
        }
    }

    /// Who is at the other end, if the mesh knows.
    #[must_use]
    pub fn workload(&self) -> Option<&Arc<Workload>> {
        match self {
            Self::Passthrough { .. } | Self::Refuse(_) => None,
            Self::Plain(target) | Self::Local(target) => Some(&target.workload),
            Self::Tunnel(plan) => Some(&plan.workload),
        }
    }

    /// The service that the client named.
    #[must_use]
    pub fn service(&self) -> Option<&Arc<Service>> {
        match self {
            Self::Passthrough { .. } | Self::Refuse(_) => None,
            Self::Plain(target) | Self::Local(target) => target.service.as_ref(),
            Self::Tunnel(plan) => plan.service.as_ref(),
        }
    }
}

/// Decides. The numbers in the code are the steps of the table above.
#[must_use]
pub fn decide(question: &Question<'_>, around: &impl Surroundings, rng: &mut impl Rng) -> Decision {
    let to = canonical(question.original.0);
    // 0: our own listeners are behind these ports; a proxy that dials itself never ends.
    if to.ip().is_loopback() && is_reserved(to.port()) {
        return Decision::Refuse(Reason::ReservedPort);
    }
    let found = match find(question, to.ip()) {
        Found::Service(service) => to_service(question, service, to, around, rng),
        Found::Workload(workload) => to_workload(question, workload, to, around, rng),
        Found::Nothing => Ok(Decision::Passthrough { to }), // 3
    };
    found.unwrap_or_else(Decision::Refuse)
}

enum Found<'a> {
    Service(&'a Arc<Service>),
    Workload(&'a Arc<Workload>),
    Nothing,
}

/// An exact VIP wins over a workload's address, and that over a range of addresses: the longer prefix.
fn find<'a>(question: &Question<'a>, address: IpAddr) -> Found<'a> {
    let key = NetworkAddress::new(question.source.network.clone(), address);
    let service = question.mesh.service_at(&key, &question.source.namespace);
    let exact = service.filter(|service| service.addresses.iter().any(|own| own.as_single().as_ref() == Some(&key)));
    if let Some(service) = exact {
        return Found::Service(service);
    }
    match (question.mesh.workload_at(&key), service) {
        (Some(workload), _) => Found::Workload(workload),
        (None, Some(service)) => Found::Service(service),
        (None, None) => Found::Nothing,
    }
}

fn to_service(
    question: &Question<'_>,
    service: &Arc<Service>,
    to: SocketAddr,
    around: &impl Surroundings,
    rng: &mut impl Rng,
) -> Result<Decision, Reason> {
    // 2
    if let Some(gateway) =
        service.waypoint.as_ref().filter(|gateway| !is_gateway(question.mesh, question.source, gateway))
    {
        return to_waypoint(question, gateway, Some(service), to, around, rng);
    }
    let keeps_choice = service.load_balancing.mode == BalanceMode::Passthrough;
    let request = EndpointRequest {
        service,
        service_port: to.port(),
        source: question.source,
        prefer_ipv6: to.is_ipv6(),
        exact: keeps_choice.then_some(to.ip()),
        exclude: question.exclude,
    };
    let avoids = |chosen: &Chosen| around.avoids(chosen, false);
    match choose(question.mesh, &request, |uid| around.outstanding(uid), avoids, rng) {
        Ok(chosen) => to_endpoint(chosen, Some(service), around),
        // 3b: what the client chose itself needs no endpoint that we know, only one that we have not tried.
        Err(_) if keeps_choice && question.exclude.is_empty() => Ok(Decision::Passthrough { to }),
        Err(Reason::NoHealthyEndpoint) if only_elsewhere(question, service) => Err(Reason::NetworkUnreachable), // 4
        Err(reason) => Err(reason),
    }
}

/// Whether the service has endpoints that could be used, but all of them in other networks.
fn only_elsewhere(question: &Question<'_>, service: &Service) -> bool {
    let usable = |workload: &&Arc<Workload>| {
        workload.capacity > 0 && (workload.health == Health::Healthy || service.load_balancing.allow_unhealthy)
    };
    let all = question.mesh.endpoints(&service.key).into_iter().flat_map(|set| set.workloads());
    let mut usable = all.filter(usable).peekable();
    usable.peek().is_some() && usable.all(|workload| workload.network != question.source.network)
}

fn to_workload(
    question: &Question<'_>,
    workload: &Arc<Workload>,
    to: SocketAddr,
    around: &impl Surroundings,
    rng: &mut impl Rng,
) -> Result<Decision, Reason> {
    // 5
    if let Some(gateway) =
        workload.waypoint.as_ref().filter(|gateway| !is_gateway(question.mesh, question.source, gateway))
    {
        return to_waypoint(question, gateway, None, to, around, rng);
    }
    let chosen = Chosen { workload: workload.clone(), address: to.ip(), port: to.port() };
    to_endpoint(chosen, None, around)
}

/// 6 and 7.
fn to_endpoint(chosen: Chosen, service: Option<&Arc<Service>>, around: &impl Surroundings) -> Result<Decision, Reason> {
    let to = SocketAddr::new(chosen.address, chosen.port);
    let target = Target { workload: chosen.workload, to, service: service.cloned() };
    if target.workload.tunnel == TunnelProtocol::None {
        return Ok(Decision::Plain(target));
    }
    // A native tunnel is the application's own business: it wants the TLS bytes.
    if !target.workload.native_tunnel && around.serves(&target.workload, to.ip()) {
        return Ok(Decision::Local(target));
    }
    Ok(Decision::Tunnel(TunnelPlan {
        next_hop: NextHop(SocketAddr::new(to.ip(), HBONE_PORT)),
        authority: to,
        peers: accepted_peers(target.service.as_deref(), &target.workload)?,
        workload: target.workload,
        service: target.service,
        waypoint: false,
    }))
}

/// 2 and 5: whatever keeps the waypoint from being used, the connection does not go around it.
fn to_waypoint(
    question: &Question<'_>,
    gateway: &GatewayAddress,
    service: Option<&Arc<Service>>,
    to: SocketAddr,
    around: &impl Surroundings,
    rng: &mut impl Rng,
) -> Result<Decision, Reason> {
    let unavailable = || Reason::WaypointUnavailable;
    let mesh = question.mesh;
    let (own_service, chosen) = match find_gateway(mesh, gateway, &question.source.namespace).ok_or_else(unavailable)? {
        Gateway::Service(waypoint) => {
            let request = EndpointRequest {
                service: waypoint,
                service_port: gateway.hbone_port,
                source: question.source,
                prefer_ipv6: to.is_ipv6(),
                exact: None,
                exclude: question.exclude,
            };
            let avoids = |chosen: &Chosen| around.avoids(chosen, true);
            let chosen = choose(mesh, &request, |uid| around.outstanding(uid), avoids, rng);
            let chosen = chosen.map_err(|_| unavailable())?;
            (Some(waypoint), chosen)
        }
        Gateway::Workload(workload, address) => {
            let usable = workload.health == Health::Healthy
                && workload.network == question.source.network
                && !question.exclude.contains(&workload.uid);
            let chosen = Chosen { workload: workload.clone(), address, port: gateway.hbone_port };
            (None, usable.then_some(chosen).ok_or_else(unavailable)?)
        }
    };
    Ok(Decision::Tunnel(TunnelPlan {
        next_hop: NextHop(SocketAddr::new(chosen.address, chosen.port)),
        authority: to,
        peers: accepted_peers(own_service.map(|service| &**service), &chosen.workload)?,
        workload: chosen.workload,
        service: service.cloned(),
        waypoint: true,
    }))
}

/// The service's names and the workload's own, sorted so that equal sets share a tunnel.
fn accepted_peers(service: Option<&Service>, workload: &Workload) -> Result<Arc<[SpiffeId]>, Reason> {
    let names = service.map(|service| service.subject_alt_names.as_slice()).unwrap_or_default();
    let mut peers: Vec<SpiffeId> = names.iter().cloned().chain(workload.identity()).collect();
    peers.sort();
    peers.dedup();
    // A workload whose name cannot be an identity cannot prove one either.
    if peers.is_empty() { Err(Reason::PeerIdentityMismatch) } else { Ok(peers.into()) }
}
