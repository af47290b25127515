//! Whether a connection may enter a pod, and where in it: `docs/hbone.md`, "What a server accepts", as pure functions.
//!
//! Three ways in, one outcome: a tunnel ([`admit_tunnel`]), plaintext ([`admit_plaintext`]) and the short way from
//! another pod of this node ([`admit_local`]). Every one ends in the same policy check with the port resolved, and the
//! only way to an [`Admission`] leads through it: it holds the [`Permit`] that `weft_model::authz` alone can make.
//! The address is always the pod's own, never loopback: what listens on 127.0.0.1 only is not reachable from outside
//! without a mesh either.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use weft_hbone::Authority;
use weft_model::address::NetworkAddress;
use weft_model::authz::{Connection, Permit, PolicyKey, ShadowDenial, evaluate};
use weft_model::mesh::Mesh;
use weft_model::reason::Reason;
use weft_model::service::{Service, ServiceKey};
use weft_model::spiffe::SpiffeId;
use weft_model::workload::{GatewayAddress, Workload};

use crate::ports::is_reserved;
use crate::worker::address::canonical;
use crate::worker::gateway::is_gateway;

/// Who comes, and to which address of the pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The address that the outer connection came from.
    pub client: SocketAddr,
    /// The pod's own address that it came to.
    pub arrived_at: IpAddr,
    /// Who the client proved to be; `None` for plaintext.
    pub identity: Option<SpiffeId>,
}

/// The connection may enter.
#[derive(Debug, Clone, PartialEq)]
pub struct Admission {
    /// Where the application is to be dialled.
    pub application: SocketAddr,
    /// What was checked; the same is checked again when policies change.
    pub connection: Connection,
    /// By what it was permitted.
    pub permit: Permit,
    /// What a shadowed policy would have refused.
    pub shadow: Option<ShadowDenial>,
    /// The service that the client named, if it named one that this workload serves.
    pub service: Option<Arc<Service>>,
    /// Set when a proxy in front of the application must be told who comes, before the first byte (PROXY protocol).
    pub announce: Option<Announcement>,
}

/// What the PROXY protocol tells the application's own proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    /// The client.
    pub source: SocketAddr,
    /// What the client asked for: an address that a waypoint stands for, or this pod.
    pub destination: SocketAddr,
    /// Who the client proved to be.
    pub identity: Option<SpiffeId>,
}

/// The connection may not enter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denied {
    /// Why; its status is the answer to a tunnel.
    pub reason: Reason,
    /// By which policy, if it was one.
    pub policy: Option<PolicyKey>,
}

impl From<Reason> for Denied {
    fn from(reason: Reason) -> Self {
        Self { reason, policy: None }
    }
}

/// A CONNECT that arrived at this pod's port 15008.
///
/// # Errors
/// [`Denied`], in the order of the reference: destination, port, trust domain, policy.
pub fn admit_tunnel(
    mesh: &Mesh,
    workload: &Workload,
    authority: &Authority,
    caller: &Caller,
) -> Result<Admission, Denied> {
    let asked = match authority {
        Authority::Address(address) => asked_address(mesh, workload, *address, caller)?,
        Authority::Host { name, port } => asked_host(mesh, workload, name, *port)?,
    };
    let trusted = caller.identity.as_ref().is_some_and(|id| id.trust_domain() == &*workload.trust_domain);
    if !trusted {
        return Err(Reason::TrustDomainMismatch.into());
    }
    let port = workload.application_tunnel.map_or(asked.port, |tunnel| tunnel.port);
    let mut admission = check(mesh, workload, caller, port)?;
    let told = workload.application_tunnel.is_some_and(|tunnel| tunnel.proxy_protocol);
    admission.announce = told.then(|| Announcement {
        source: caller.client,
        destination: asked.target.unwrap_or(SocketAddr::new(caller.arrived_at, asked.port)),
        identity: caller.identity.clone(),
    });
    admission.service = asked.service;
    Ok(admission)
}

/// A plaintext connection to `original`, an address of this pod.
///
/// # Errors
/// [`Denied`]: a port of the mesh, or policy.
pub fn admit_plaintext(
    mesh: &Mesh,
    workload: &Workload,
    client: SocketAddr,
    original: SocketAddr,
) -> Result<Admission, Denied> {
    let caller = Caller { client: canonical(client), arrived_at: original.ip().to_canonical(), identity: None };
    check(mesh, workload, &caller, original.port())
}

/// A connection from a captured pod of this node to `target`, an address of this pod; `identity` is that of the pod
/// whose namespace the kernel says it came from.
///
/// # Errors
/// [`Denied`]: as for a tunnel.
pub fn admit_local(mesh: &Mesh, workload: &Workload, caller: &Caller, target: SocketAddr) -> Result<Admission, Denied> {
    admit_tunnel(mesh, workload, &Authority::Address(target), caller)
}

/// What the authority asks for.
struct Asked {
    port: u16,
    /// The address behind the request, where it is not the pod's own.
    target: Option<SocketAddr>,
    service: Option<Arc<Service>>,
}

fn asked_address(mesh: &Mesh, workload: &Workload, target: SocketAddr, caller: &Caller) -> Result<Asked, Denied> {
    let target = canonical(target);
    let address = target.ip();
    // The listener is in the pod's own namespace, so what the outer connection came to is an address of the pod.
    if address == caller.arrived_at || workload.addresses.contains(&address) {
        return Ok(Asked { port: target.port(), target: None, service: None });
    }
    let at = NetworkAddress::new(workload.network.clone(), address);
    let service = mesh.service_at(&at, &workload.namespace);
    let by_service = service.and_then(|service| service.waypoint.as_ref());
    let by_workload = mesh.workload_at(&at).and_then(|other| other.waypoint.as_ref());
    let is_waypoint =
        |gateway: Option<&GatewayAddress>| gateway.is_some_and(|gateway| is_gateway(mesh, workload, gateway));
    if workload.application_tunnel.is_some() || is_waypoint(by_service) || is_waypoint(by_workload) {
        return Ok(Asked { port: target.port(), target: Some(target), service: service.cloned() });
    }
    Err(Reason::WrongDestination.into())
}

fn asked_host(mesh: &Mesh, workload: &Workload, name: &str, port: u16) -> Result<Asked, Denied> {
    let service = mesh.service_named(name, &workload.namespace).ok_or(Reason::WrongDestination)?;
    if let Some(own) = own_port(workload, &service.key) {
        let mapped = own.iter().find(|mapping| mapping.service_port == port).map(|mapping| mapping.target_port);
        let declared = service.port(port).map(|declared| declared.target_port);
        let port = mapped.or(declared).filter(|port| *port != 0).ok_or(Reason::PortUnresolved)?;
        return Ok(Asked { port, target: None, service: Some(service.clone()) });
    }
    if service.waypoint.as_ref().is_some_and(|gateway| is_gateway(mesh, workload, gateway)) {
        let vip = service.addresses.iter().find_map(|address| address.as_single());
        let target = vip.map(|vip| SocketAddr::new(vip.address, port));
        return Ok(Asked { port, target, service: Some(service.clone()) });
    }
    Err(Reason::WrongDestination.into())
}

fn own_port<'a>(workload: &'a Workload, key: &ServiceKey) -> Option<&'a [weft_model::workload::PortMapping]> {
    workload.services.get(key).map(Vec::as_slice)
}

/// The last steps of every way in: ports of the mesh, then policy.
fn check(mesh: &Mesh, workload: &Workload, caller: &Caller, port: u16) -> Result<Admission, Denied> {
    if is_reserved(port) {
        return Err(Reason::ReservedPort.into());
    }
    let application = SocketAddr::new(caller.arrived_at, port);
    let connection = Connection {
        identity: caller.identity.clone(),
        source: caller.client.ip().to_canonical(),
        destination: application,
    };
    let verdict = evaluate(mesh, workload, &connection);
    match verdict.enforced {
        Ok(permit) => {
            Ok(Admission { application, connection, permit, shadow: verdict.shadow, service: None, announce: None })
        }
        Err(denial) => Err(Denied { reason: denial.reason, policy: denial.policy }),
    }
}
