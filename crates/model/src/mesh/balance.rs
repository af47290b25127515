//! Which endpoint gets a connection: health, port, locality, then the less busy of two drawn by weight
//! ("power of two choices", Mitzenmacher 2001: two draws already avoid the herd that one draw makes).

use std::net::IpAddr;
use std::sync::Arc;

use rand::{Rng, RngExt};

use super::endpoints::{EndpointSet, Kind};
use super::index::Mesh;
use crate::address::NetworkAddress;
use crate::reason::Reason;
use crate::service::{BalanceMode, IpFamilies, Scope, Service};
use crate::workload::{Health, Uid, Workload};

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub struct EndpointRequest<'a> {
    /// The service.
    pub service: &'a Service,
    /// The service's port that the client named.
    pub service_port: u16,
    /// The client.
    pub source: &'a Workload,
    /// The family of the address that the client dialled; the service's own families go before it.
    pub prefer_ipv6: bool,
    /// The client named this very address (passthrough mode, headless services).
    pub exact: Option<IpAddr>,
    /// Endpoints that were tried already.
    pub exclude: &'a [Uid],
}

/// An endpoint with the address and port to reach it at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    /// Who.
    pub workload: Arc<Workload>,
    /// At which address.
    pub address: IpAddr,
    /// At which of its ports.
    pub port: u16,
}

/// How often to draw before looking at every endpoint. With half of them unusable, 8 draws miss one time in 256.
const DRAWS: usize = 8;

/// Chooses an endpoint. `outstanding` is how many connections of ours an endpoint has now; one that `avoids` names (connections
/// to it failed lately) is chosen only when every other usable one is such, too: then the nearest of them.
///
/// # Errors
/// [`Reason::PortUnresolved`] when the service has no such port, [`Reason::NoHealthyEndpoint`] when nobody is usable.
pub fn choose(
    mesh: &Mesh,
    request: &EndpointRequest<'_>,
    outstanding: impl Fn(&Uid) -> u32,
    avoids: impl Fn(&Chosen) -> bool,
    rng: &mut impl Rng,
) -> Result<Chosen, Reason> {
    let well = Search { request, takes: &|chosen| !avoids(chosen) };
    let any = Search { request, takes: &|_| true };
    match search(mesh, &well, &outstanding, rng) {
        Err(Reason::NoHealthyEndpoint) => search(mesh, &any, &outstanding, rng),
        found => found,
    }
}

/// Whom to look for.
#[derive(Clone, Copy)]
struct Search<'a> {
    request: &'a EndpointRequest<'a>,
    takes: &'a dyn Fn(&Chosen) -> bool,
}

impl Search<'_> {
    fn usable(&self, workload: &Arc<Workload>) -> Option<Chosen> {
        usable(workload, self.request).filter(|chosen| (self.takes)(chosen))
    }
}

fn search(
    mesh: &Mesh,
    search: &Search<'_>,
    outstanding: &impl Fn(&Uid) -> u32,
    rng: &mut impl Rng,
) -> Result<Chosen, Reason> {
    let request = search.request;
    if request.service.port(request.service_port).is_none() {
        return Err(Reason::PortUnresolved);
    }
    let Some(set) = mesh.endpoints(&request.service.key) else { return Err(Reason::NoHealthyEndpoint) };
    let balancing = &request.service.load_balancing;
    let open = |kind: &Kind| (kind.healthy || balancing.allow_unhealthy) && kind.network == request.source.network;
    let one_of = |open: &dyn Fn(&Kind) -> bool, rng: &mut _| {
        quick(set, search, open, outstanding, rng).or_else(|| {
            let usable: Vec<Chosen> = set.of_kinds(open).filter_map(|workload| search.usable(workload)).collect();
            draw_two(&usable, outstanding, rng)
        })
    };
    let chosen = if let Some(exact) = request.exact {
        named(mesh, set, exact, search)
    } else if balancing.scopes.is_empty() || balancing.mode == BalanceMode::Any {
        one_of(&open, rng)
    } else if balancing.scopes.iter().all(|scope| kind_knows(*scope)) {
        // From the nearest kinds to the farthest: as many steps as there are zones.
        let rank = |kind: &Kind| rank(&balancing.scopes, |scope| same_kind(scope, request.source, kind));
        let mut ranks: Vec<usize> = set.kinds().filter(|kind| open(kind)).map(rank).collect();
        ranks.sort_unstable();
        ranks.dedup();
        if balancing.mode == BalanceMode::Strict {
            ranks.retain(|rank| *rank == balancing.scopes.len());
        }
        ranks.into_iter().rev().find_map(|needed| one_of(&|kind: &Kind| open(kind) && rank(kind) >= needed, rng))
    } else {
        draw_two(&nearest(set, search), outstanding, rng)
    };
    chosen.ok_or(Reason::NoHealthyEndpoint)
}

/// The endpoint that the client named by its address.
fn named(mesh: &Mesh, set: &EndpointSet, exact: IpAddr, search: &Search<'_>) -> Option<Chosen> {
    let owner = mesh.workload_at(&NetworkAddress::new(search.request.source.network.clone(), exact));
    let owner = owner.and_then(|owner| set.get(&owner.uid));
    owner
        .and_then(|workload| search.usable(workload))
        // An address that several workloads share, or that is no pod's own.
        .or_else(|| set.workloads().find_map(|workload| search.usable(workload)))
}

/// Draws endpoints until two are usable, so that the cost does not grow with the service.
fn quick(
    set: &EndpointSet,
    search: &Search<'_>,
    open: &dyn Fn(&Kind) -> bool,
    outstanding: &impl Fn(&Uid) -> u32,
    rng: &mut impl Rng,
) -> Option<Chosen> {
    // Of so few, all can be looked at: then none is missed by bad luck.
    if set.len() <= DRAWS {
        return None;
    }
    let mut found: Option<Chosen> = None;
    for _ in 0..DRAWS {
        let Some(candidate) = search.usable(set.draw(rng, open)?) else { continue };
        match found {
            None => found = Some(candidate),
            Some(first) => return Some(less_busy(first, candidate, outstanding)),
        }
    }
    None
}

fn draw_two(usable: &[Chosen], outstanding: &impl Fn(&Uid) -> u32, rng: &mut impl Rng) -> Option<Chosen> {
    let total: u64 = usable.iter().map(|chosen| u64::from(chosen.workload.capacity)).sum();
    if total == 0 {
        return None;
    }
    let mut draw = || {
        let mut left = rng.random_range(0..total);
        usable.iter().find(|chosen| {
            let weight = u64::from(chosen.workload.capacity);
            let hit = left < weight;
            left = left.saturating_sub(weight);
            hit
        })
    };
    let (first, second) = (draw()?.clone(), draw()?.clone());
    Some(less_busy(first, second, outstanding))
}

/// Busy in relation to the weight: a workload of capacity 2 may hold twice as many.
fn less_busy(first: Chosen, second: Chosen, outstanding: &impl Fn(&Uid) -> u32) -> Chosen {
    let load = |chosen: &Chosen, other: &Chosen| {
        u64::from(outstanding(&chosen.workload.uid)) * u64::from(other.workload.capacity.max(1))
    };
    if load(&second, &first) < load(&first, &second) { second } else { first }
}

/// The endpoint with the address and port to use, if it may be used at all.
fn usable(workload: &Arc<Workload>, request: &EndpointRequest<'_>) -> Option<Chosen> {
    let service = request.service;
    let healthy = workload.health == Health::Healthy || service.load_balancing.allow_unhealthy;
    if !healthy || workload.capacity == 0 || request.exclude.contains(&workload.uid) {
        return None;
    }
    // Another network is reached through its gateway only, which this version cannot do.
    if workload.network != request.source.network {
        return None;
    }
    let port = target_port(workload, service, request.service_port)?;
    let address = match request.exact {
        Some(exact) => workload.addresses.iter().copied().find(|address| *address == exact)?,
        None => pick_address(workload, service, request.prefer_ipv6)?,
    };
    Some(Chosen { workload: workload.clone(), address, port })
}

/// The endpoint's own mapping first (named ports), then the service's number.
fn target_port(workload: &Workload, service: &Service, service_port: u16) -> Option<u16> {
    let mappings = workload.services.get(&service.key)?;
    let own = mappings.iter().find(|mapping| mapping.service_port == service_port).map(|mapping| mapping.target_port);
    let declared = service.port(service_port).map(|port| port.target_port).filter(|port| *port != 0);
    own.or(declared).filter(|port| *port != 0)
}

fn pick_address(workload: &Workload, service: &Service, prefer_ipv6: bool) -> Option<IpAddr> {
    let want_ipv6 = match service.ip_families {
        IpFamilies::V4Only => false,
        IpFamilies::V6Only => true,
        IpFamilies::Automatic | IpFamilies::Dual => prefer_ipv6,
    };
    let of_family = workload.addresses.iter().find(|address| address.is_ipv6() == want_ipv6);
    of_family.or_else(|| workload.addresses.first()).copied()
}

/// The usable endpoints that are near enough: all scopes (Strict), or the longest matching run of scopes (Failover). Looks at
/// all: only for scopes that are finer than a zone.
fn nearest(set: &EndpointSet, search: &Search<'_>) -> Vec<Chosen> {
    let (request, balancing) = (search.request, &search.request.service.load_balancing);
    let ranked = set.workloads().filter_map(|workload| {
        let chosen = search.usable(workload)?;
        Some((rank(&balancing.scopes, |scope| same_scope(scope, request.source, workload)), chosen))
    });
    let ranked: Vec<(usize, Chosen)> = ranked.collect();
    let needed = match balancing.mode {
        BalanceMode::Strict => balancing.scopes.len(),
        _ => ranked.iter().map(|(rank, _)| *rank).max().unwrap_or_default(),
    };
    ranked.into_iter().filter(|(rank, _)| *rank >= needed).map(|(_, chosen)| chosen).collect()
}

fn rank(scopes: &[Scope], same: impl Fn(Scope) -> bool) -> usize {
    scopes.iter().take_while(|scope| same(**scope)).count()
}

/// Whether all endpoints of a kind are alike in this.
fn kind_knows(scope: Scope) -> bool {
    matches!(scope, Scope::Network | Scope::Region | Scope::Zone)
}

fn same_kind(scope: Scope, source: &Workload, kind: &Kind) -> bool {
    match scope {
        Scope::Network => source.network == kind.network,
        Scope::Region => source.locality.region == kind.region,
        Scope::Zone => source.locality.zone == kind.zone,
        Scope::Subzone | Scope::Node | Scope::Cluster => false,
    }
}

fn same_scope(scope: Scope, one: &Workload, other: &Workload) -> bool {
    match scope {
        Scope::Region => one.locality.region == other.locality.region,
        Scope::Zone => one.locality.zone == other.locality.zone,
        Scope::Subzone => one.locality.subzone == other.locality.subzone,
        Scope::Node => one.node == other.node,
        Scope::Cluster => one.cluster == other.cluster,
        Scope::Network => one.network == other.network,
    }
}
