//! The policy rule and the route that send the application's marked packets back over `lo`, by rtnetlink.
//!
//! Works in the network namespace of the calling thread: the netlink socket is made by it. Each call has a runtime of
//! its own for the microseconds it takes, so that no thread of the agent's runtimes ever enters a namespace.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr},
};

use futures_util::TryStreamExt;
use rtnetlink::{
    Handle, IpVersion, RouteMessageBuilder,
    packet_route::{
        route::{RouteAttribute, RouteMessage, RouteScope, RouteType},
        rule::{RuleAction, RuleAttribute, RuleMessage},
    },
};
use thiserror::Error;

use super::mark::{self, ROUTE_TABLE, RULE_PREFERENCE};
use crate::handover::Family;

/// Why rule or route cannot be read or changed.
#[derive(Debug, Error)]
pub enum RouteError {
    /// No netlink socket, or no `lo`.
    #[error("cannot reach the pod's routing tables: {0}")]
    Io(#[from] io::Error),
    /// The kernel refused.
    #[error("{what} refused: {source}; needs CAP_NET_ADMIN, and `lo` must be up in the pod")]
    Refused {
        /// What was asked.
        what: &'static str,
        /// What the kernel said.
        source: Box<rtnetlink::Error>,
    },
}

/// What is there of the two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Routing {
    /// How many rules like ours.
    pub rules: usize,
    /// Whether table 100 delivers everything to `lo`.
    pub route: bool,
}

impl Routing {
    /// Exactly what is wanted.
    #[must_use]
    pub fn stands(self) -> bool {
        self == Self { rules: 1, route: true }
    }
}

/// Adds what is missing. Idempotent.
///
/// # Errors
/// [`RouteError`].
pub fn install(family: Family) -> Result<(), RouteError> {
    within(async |handle| {
        let (found, loopback) = (read(&handle, family).await?, loopback()?);
        if found.rules.is_empty() {
            let mut request = handle.rule().add().fw_mark(mark::LOOP.value).priority(RULE_PREFERENCE);
            request.message_mut().attributes.push(RuleAttribute::FwMask(mark::LOOP.mask));
            let request = request.table_id(ROUTE_TABLE.into()).action(RuleAction::ToTable);
            let added = match family {
                Family::V4 => request.v4().execute().await,
                Family::V6 => request.v6().execute().await,
            };
            refused("policy rule for marked packets", unless_exists(added))?;
        }
        for surplus in found.rules.into_iter().skip(1) {
            refused("removal of a doubled policy rule", handle.rule().del(surplus).execute().await)?;
        }
        if !found.route {
            let added = handle.route().add(wanted_route(family, loopback)).execute().await;
            refused("local route of table 100", unless_exists(added))?;
        }
        Ok(())
    })
}

/// Takes both away. Idempotent.
///
/// # Errors
/// [`RouteError`].
pub fn remove(family: Family) -> Result<(), RouteError> {
    within(async |handle| {
        let (found, loopback) = (read(&handle, family).await?, loopback()?);
        for rule in found.rules {
            refused("removal of the policy rule", handle.rule().del(rule).execute().await)?;
        }
        if found.route {
            let removed = handle.route().del(wanted_route(family, loopback)).execute().await;
            refused("removal of the local route", removed)?;
        }
        Ok(())
    })
}

/// Reads what is there, for the auditor.
///
/// # Errors
/// [`RouteError`].
pub fn audit(family: Family) -> Result<Routing, RouteError> {
    within(async |handle| {
        let found = read(&handle, family).await?;
        Ok(Routing { rules: found.rules.len(), route: found.route })
    })
}

struct Found {
    rules: Vec<RuleMessage>,
    route: bool,
}

async fn read(handle: &Handle, family: Family) -> Result<Found, RouteError> {
    let version = if family == Family::V4 { IpVersion::V4 } else { IpVersion::V6 };
    let rules: Result<Vec<_>, _> = handle.rule().get(version).execute().try_collect().await;
    let rules = refused("reading the policy rules", rules)?;
    let loopback = loopback()?;
    let routes: Result<Vec<_>, _> = handle.route().get(empty_route(family)).execute().try_collect().await;
    // An IPv6 that is switched off has no tables: nothing found, which is what it is.
    let routes = refused("reading the routes", routes)?;
    Ok(Found {
        rules: rules.into_iter().filter(is_our_rule).collect(),
        route: routes.iter().any(|route| is_our_route(route, loopback)),
    })
}

fn is_our_rule(rule: &RuleMessage) -> bool {
    let has = |attribute| rule.attributes.contains(&attribute);
    rule.header.table == ROUTE_TABLE
        && has(RuleAttribute::FwMark(mark::LOOP.value))
        && has(RuleAttribute::FwMask(mark::LOOP.mask))
        && has(RuleAttribute::Priority(RULE_PREFERENCE))
}

fn is_our_route(route: &RouteMessage, loopback: u32) -> bool {
    route.header.table == ROUTE_TABLE
        && route.header.kind == RouteType::Local
        && route.header.destination_prefix_length == 0
        && route.attributes.contains(&RouteAttribute::Oif(loopback))
}

fn wanted_route(family: Family, loopback: u32) -> RouteMessage {
    let mut route = empty_route(family);
    route.header.table = ROUTE_TABLE;
    route.header.kind = RouteType::Local;
    route.header.scope = if family == Family::V4 { RouteScope::Host } else { RouteScope::Universe };
    route.attributes.push(RouteAttribute::Oif(loopback));
    route
}

fn empty_route(family: Family) -> RouteMessage {
    match family {
        Family::V4 => RouteMessageBuilder::<Ipv4Addr>::new().build(),
        Family::V6 => RouteMessageBuilder::<Ipv6Addr>::new().build(),
    }
}

fn loopback() -> Result<u32, RouteError> {
    Ok(nix::net::if_::if_nametoindex("lo").map_err(io::Error::from)?)
}

fn refused<T>(what: &'static str, outcome: Result<T, rtnetlink::Error>) -> Result<T, RouteError> {
    outcome.map_err(|source| RouteError::Refused { what, source: Box::new(source) })
}

/// Somebody was faster with the same: as wanted.
fn unless_exists(outcome: Result<(), rtnetlink::Error>) -> Result<(), rtnetlink::Error> {
    match outcome {
        Err(rtnetlink::Error::NetlinkError(error)) if error.to_io().kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

fn within<T>(work: impl AsyncFnOnce(Handle) -> Result<T, RouteError>) -> Result<T, RouteError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build_local(tokio::runtime::LocalOptions::default())?;
    runtime.block_on(async {
        let (connection, handle, _unasked) = rtnetlink::new_connection()?;
        let driver = tokio::spawn(connection);
        let outcome = work(handle).await;
        driver.abort();
        outcome
    })
}
