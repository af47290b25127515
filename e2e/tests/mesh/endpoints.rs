//! Which endpoint of a service a connection goes to: not to an unhealthy one, on to the next when one cannot be reached,
//! and without a failure while endpoints come and go under load.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weft_model::view::ServiceRow;
use weft_testkit::agents::Extra;
use weft_testkit::enter_or_skip;
use weft_testkit::mesh::{PodPlan, ServicePlan};
use weft_testkit::netns::Pod;
use weft_testkit::traffic::{Behaviour, Load, LoadPlan, Server};
use weft_testkit::wait;

use crate::ask::answers;
use crate::checks::Checks;
use crate::world::{ECHO, MARKER, SOON, World};

/// Enough that three endpoints which share evenly are all met: (2/3)^40 is one in ten million.
const TRIES: usize = 40;
const POOL: &str = "pool";

/// An endpoint with its server, unless it "crashed".
struct Member {
    server: Option<Server>,
}

impl Member {
    fn accepted(&self) -> u64 {
        self.server.as_ref().map_or(0, Server::accepted)
    }
}

#[test]
fn endpoints_are_chosen_left_out_and_replaced() {
    enter_or_skip!();
    let (mut world, client, vip) = pool().unwrap();
    // Two on the other node, one on the client's own.
    let mut members: Vec<Member> = [("pool-1", 2), ("pool-2", 2), ("pool-3", 1)]
        .map(|(name, node)| member(&mut world, name, node).unwrap())
        .into();
    world.wait_in_mesh(&["pool-1", "pool-2", "pool-3"], true).unwrap();
    let mut checks = Checks::default();
    checks.check("every healthy endpoint gets connections", || {
        endpoints(&world, &["pool-1", "pool-2", "pool-3"])?;
        let before: Vec<u64> = members.iter().map(Member::accepted).collect();
        ask_often(&client, vip)?;
        let got: Vec<u64> = members.iter().zip(before).map(|(member, before)| member.accepted() - before).collect();
        ensure!(got.iter().all(|count| *count > 0), "{got:?}");
        Ok(())
    });
    for (name, place) in [("pool-1", 0), ("pool-3", 2)] {
        checks.check(&format!("an unhealthy endpoint gets nothing, and is back when it is healthy: {name}"), || {
            world.cluster.change_pod(name, |plan| plan.ready = false)?;
            let others: Vec<&str> = ["pool-1", "pool-2", "pool-3"].into_iter().filter(|other| *other != name).collect();
            endpoints(&world, &others)?;
            let before = members[place].accepted();
            ask_often(&client, vip)?;
            ensure!(members[place].accepted() == before, "{} connections", members[place].accepted() - before);
            world.cluster.change_pod(name, |plan| plan.ready = true)?;
            endpoints(&world, &["pool-1", "pool-2", "pool-3"])?;
            ask_often(&client, vip)?;
            ensure!(members[place].accepted() > before, "none after it was healthy again");
            Ok(())
        });
    }
    checks.check("an endpoint that refuses (its program has died) is skipped: the client sees no failure", || {
        for place in [1, 2] {
            members[place].server = None;
        }
        ask_often(&client, vip)
    });
    checks.check("an endpoint that refuses is left out after three times, and the agent says so", || {
        ask_often(&client, vip)?;
        let attempts = world.metric(1, "weft_attempts_failed_total", &["reason=\"connect-refused\""])?;
        // Two of three have died, but only one may be left out for that: at most half of a service.
        ensure!(attempts >= 3.0, "{attempts}");
        let rows: Vec<ServiceRow> = world.agent(1, "services")?;
        let pool = rows.iter().find(|row| row.name == POOL).context("no pool")?;
        let left_out: Vec<_> = pool.endpoints.iter().filter_map(|row| row.left_out.as_deref()).collect();
        ensure!(left_out.len() == 1 && left_out[0].contains("refused"), "{:?}", pool.endpoints);
        ensure!(world.metric(1, "weft_ejections_total", &["kind=\"endpoint\"", "cause=\"refused\""])? >= 1.0);
        Ok(())
    });
    checks.check("nothing in plain, whichever was left out", || world.assert_encrypted().map(drop));
    checks.check("endpoints come and go under load without a failure", || {
        let plan = LoadPlan { target: vip, rate: 100, new_connections: true, patience: SOON, text: MARKER.to_owned() };
        let load = Load::start(&client.netns, plan)?;
        load.wait_more(20, SOON)?;
        for (name, node) in [("pool-4", 2), ("pool-5", 1)] {
            members.push(member(&mut world, name, node)?);
            world.wait_in_mesh(&[name], true)?;
        }
        for name in ["pool-1", "pool-2", "pool-3"] {
            // As Kubernetes does it: not ready first, and gone when everybody knows.
            world.cluster.change_pod(name, |plan| plan.ready = false)?;
            wait::eventually(SOON, "everybody knows", || {
                let names = healthy(&world, 1)?;
                ensure!(!names.iter().any(|known| known == name), "{names:?}");
                anyhow::Ok(())
            })?;
            load.wait_more(10, SOON)?;
            world.cluster.remove_pod(name)?;
        }
        load.wait_more(20, SOON)?;
        let totals = load.stop();
        totals.assert_clean()?;
        ensure!(totals.worst < Duration::from_secs(2), "the longest took {:?}", totals.worst);
        ensure!(members[3..].iter().all(|member| member.accepted() > 0), "the new ones got nothing");
        Ok(())
    });
    checks.check("when the last endpoint goes, connections are refused at once", || {
        for name in ["pool-4", "pool-5"] {
            world.cluster.change_pod(name, |plan| plan.ready = false)?;
        }
        world.wait_refused(&client, vip, (1, "no-healthy-endpoint"))
    });
    checks.end(&world);
}

/// A client on node1, and the service without endpoints.
fn pool() -> Result<(World, Pod, SocketAddr)> {
    let mut world = World::new()?;
    let client = world.pod("shop", "client", 1)?;
    let (v4, _) = world.cluster.service(ServicePlan::new("shop", POOL, 80, ECHO))?.context("not headless")?;
    world.cluster.enrol("shop", true)?;
    world.start(&Extra::default())?;
    world.wait_in_mesh(&["client"], true)?;
    Ok((world, client, SocketAddr::new(v4, 80)))
}

fn member(world: &mut World, name: &str, node: u8) -> Result<Member> {
    // Not ready until its program listens, as a readiness probe has it.
    let mut plan = PodPlan::new("shop", POOL, name, node);
    plan.ready = false;
    let pod = world.cluster.pod(plan)?;
    let server = Server::start(&pod.netns, SocketAddr::new("::".parse()?, ECHO), Behaviour::Echo)?;
    world.cluster.change_pod(name, |plan| plan.ready = true)?;
    Ok(Member { server: Some(server) })
}

/// The healthy endpoints of the pool as node `node` knows them.
fn healthy(world: &World, node: u8) -> Result<Vec<String>> {
    let rows: Vec<ServiceRow> = world.agent(node, "services")?;
    let pool = rows.iter().find(|row| row.name == POOL).context("no pool")?;
    let names = pool.endpoints.iter().filter(|row| row.healthy).map(|row| row.workload.trim_start_matches("shop/"));
    Ok(names.map(str::to_owned).collect())
}

fn endpoints(world: &World, expected: &[&str]) -> Result<()> {
    wait::eventually(SOON, &format!("the endpoints {expected:?}"), || {
        let mut names = healthy(world, 1)?;
        names.sort();
        ensure!(names == expected, "{names:?}");
        anyhow::Ok(())
    })
}

fn ask_often(client: &Pod, vip: SocketAddr) -> Result<()> {
    (0..TRIES).try_for_each(|_| answers(client, vip))
}
