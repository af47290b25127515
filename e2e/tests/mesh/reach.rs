//! Every way from a pod to another: families, pod addresses, ClusterIPs, headless and named ports, one node and two, in
//! and out of the mesh; what the wire shows, whom the application sees, who is who in metrics.

use anyhow::{Result, ensure};
use weft_model::view::ConnectionRow;
use weft_testkit::agents::{Extra, SERVER_PORT};
use weft_testkit::enter_or_skip;
use weft_testkit::mesh::{PodPlan, ServicePlan};
use weft_testkit::wait;

use crate::ask::{answers, at, open, seen_as, talk};
use crate::checks::Checks;
use crate::world::{Apps, Cast, ECHO, HBONE, MARKER, PEER, SOON, World};

const FAMILIES: [bool; 2] = [false, true];

#[test]
fn pods_reach_each_other_by_every_address() {
    enter_or_skip!();
    let (mut world, cast) = World::enrolled(&Extra::default()).unwrap();
    let mut checks = Checks::default();
    checks.check("same node: not a byte on the wire", || same_node_stays_off_the_wire(&world, &cast));
    checks.check("same node: both identities are known", || same_node_identities(&world, &cast));
    checks.check("same node: the application sees the client's address", || {
        FAMILIES.iter().try_for_each(|v6| {
            seen_as(&cast.client, at(&cast.near, *v6, PEER), cast.client.address(*v6))?;
            seen_as(&cast.client, cast.near_vip.at(*v6, PEER - 8000), cast.client.address(*v6))
        })
    });
    world.wire.forget();
    checks.check("two nodes: by pod address and by ClusterIP, IPv4 and IPv6", || {
        FAMILIES.iter().try_for_each(|v6| {
            answers(&cast.client, at(&cast.far, *v6, ECHO))?;
            answers(&cast.client, cast.far_vip.at(*v6, 80))
        })
    });
    checks.check("two nodes: the wire shows only TLS on 15008", || world.assert_encrypted().map(drop));
    checks.check("two nodes: the application sees the client's address", || {
        FAMILIES.iter().try_for_each(|v6| {
            seen_as(&cast.client, at(&cast.far, *v6, PEER), cast.client.address(*v6))?;
            seen_as(&cast.client, cast.far_vip.at(*v6, PEER - 8000), cast.client.address(*v6))
        })
    });
    checks.check("a pod calls its own service", || {
        FAMILIES.iter().try_for_each(|v6| answers(&cast.far, cast.far_vip.at(*v6, 80)))
    });
    checks.check("metrics: connections opened, with source, destination, service and security", || {
        metrics_name_both_ends(&world)
    });
    checks.check("a connection is shown with its identities while it lives", || shown_while_live(&world, &cast));
    checks.check("a service without endpoints refuses at once", || {
        let empty = world.service("nobody")?;
        world.wait_refused(&cast.client, empty.at(false, 80), (1, "no-healthy-endpoint"))
    });
    checks.check("headless: an endpoint's address on the service's port", || headless(&mut world, &cast));
    checks.check("a targetPort by name", || named_port(&mut world, &cast));
    checks.end(&world);
}

fn same_node_stays_off_the_wire(world: &World, cast: &Cast) -> Result<()> {
    world.wire.forget();
    for v6 in FAMILIES {
        answers(&cast.client, at(&cast.near, v6, ECHO))?;
        answers(&cast.client, cast.near_vip.at(v6, 80))?;
    }
    let report = world.wire.report();
    report.assert_no_marker()?;
    let others: Vec<_> = report.flows.iter().filter(|flow| !flow.has_port(SERVER_PORT)).collect();
    ensure!(others.is_empty(), "on the wire: {others:?}");
    Ok(())
}

fn same_node_identities(world: &World, cast: &Cast) -> Result<()> {
    let labels = [
        r#"source_principal="spiffe://cluster.local/ns/shop/sa/client""#,
        r#"destination_principal="spiffe://cluster.local/ns/shop/sa/near""#,
        r#"connection_security_policy="mutual_tls""#,
    ];
    for reporter in [r#"reporter="source""#, r#"reporter="destination""#] {
        let [a, b, c] = labels;
        let count = world.metric(1, "istio_tcp_connections_opened_total", &[reporter, a, b, c])?;
        ensure!(count >= 4.0, "{reporter}: {count}");
    }
    let stream = open(&cast.client, at(&cast.near, false, ECHO))?;
    talk(&stream)?;
    let rows: Vec<ConnectionRow> = world.agent(1, "connections")?;
    ensure!(rows.iter().any(|row| row.security == "same-node"), "{rows:?}");
    Ok(())
}

fn metrics_name_both_ends(world: &World) -> Result<()> {
    let labels = [
        r#"source_workload="client""#,
        r#"source_workload_namespace="shop""#,
        r#"source_principal="spiffe://cluster.local/ns/shop/sa/client""#,
        r#"destination_workload="far""#,
        r#"destination_principal="spiffe://cluster.local/ns/shop/sa/far""#,
        r#"connection_security_policy="mutual_tls""#,
        r#"request_protocol="tcp""#,
        r#"response_flags="-""#,
    ];
    let with = |more: &[&'static str]| [labels.as_slice(), more].concat();
    let opened = "istio_tcp_connections_opened_total";
    let name = r#"destination_service="far.shop.svc.cluster.local""#;
    let source = world.metric(1, opened, &with(&[r#"reporter="source""#, name]))?;
    ensure!(source >= 2.0, "the client's node counts {source} by service");
    let destination = world.metric(2, opened, &with(&[r#"reporter="destination""#]))?;
    ensure!(destination >= 4.0, "the server's node counts {destination}");
    let bytes = world.metric(1, "istio_tcp_sent_bytes_total", &with(&[r#"reporter="source""#]))?;
    ensure!(bytes >= (MARKER.len() * 4) as f64, "{bytes} bytes");
    Ok(())
}

fn shown_while_live(world: &World, cast: &Cast) -> Result<()> {
    let stream = open(&cast.client, cast.far_vip.at(false, 80))?;
    talk(&stream)?;
    let identity = Some("spiffe://cluster.local/ns/shop/sa/client".to_owned());
    for (node, direction) in [(1, "outbound"), (2, "inbound")] {
        let rows: Vec<ConnectionRow> = world.agent(node, "connections")?;
        let found = rows.iter().find(|row| {
            row.direction == direction && row.security == "mtls" && row.source_identity == identity && row.sent > 0
        });
        ensure!(found.is_some_and(|row| row.destination_workload.as_deref() == Some("shop/far")), "{node}: {rows:?}");
    }
    Ok(())
}

fn headless(world: &mut World, cast: &Cast) -> Result<()> {
    let mut plan = ServicePlan::new("shop", "far", ECHO, ECHO);
    (plan.name, plan.headless) = ("far-headless".to_owned(), true);
    world.cluster.service(plan)?;
    world.wire.forget();
    FAMILIES.iter().try_for_each(|v6| answers(&cast.client, at(&cast.far, *v6, ECHO)))?;
    let report = world.wire.report();
    report.assert_no_marker()?;
    ensure!(!report.on_port(HBONE).is_empty(), "not through a tunnel");
    Ok(())
}

/// The port of the name is another one in each pod.
fn named_port(world: &mut World, cast: &Cast) -> Result<()> {
    let mut apps = Vec::new();
    for (name, node, port) in [("named-1", 1, ECHO), ("named-2", 2, crate::world::GREET)] {
        let mut plan = PodPlan::new("shop", "named", name, node);
        plan.ports = vec![("main".to_owned(), port)];
        let pod = world.cluster.pod(plan)?;
        apps.push(Apps::start(&pod)?);
    }
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: named, namespace: shop}\nspec:\n  clusterIP: 10.96.0.11\n  \
                   selector: {app: named}\n  ports:\n  - {name: tcp, port: 80, targetPort: main}\n";
    world.cluster.directory().apply_yaml("service-named", service)?;
    world.wait_in_mesh(&["named-1", "named-2"], true)?;
    let to = "10.96.0.11:80".parse()?;
    wait::eventually(SOON, "both endpoints by their own ports", || {
        // The greeting is read as an answer too; what counts is where the connection arrives.
        let _ = crate::ask::find(&cast.client, to);
        let counts = [apps[0].at(ECHO).accepted(), apps[1].at(crate::world::GREET).accepted()];
        ensure!(counts.iter().all(|count| *count > 0), "{counts:?}");
        anyhow::Ok(())
    })?;
    let wrong = [apps[0].at(crate::world::GREET).accepted(), apps[1].at(ECHO).accepted()];
    ensure!(wrong == [0, 0], "connections on the other pod's port: {wrong:?}");
    Ok(())
}
