//! The counters add up over workers, the labels are Istio's, and a slow writer costs lines, never time.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use weft_model::authz::ShadowDenial;
use weft_model::{PolicyKey, Reason, Service, SpiffeId, Workload};
use weft_runtime::metrics::Registry;

use super::{AccessLog, ConnectionRecord, Direction, LogFormat, Security, Telemetry, WorkerTelemetry};

fn record(direction: Direction) -> ConnectionRecord {
    let mut record =
        ConnectionRecord::new(direction, "10.0.0.1:1000".parse().unwrap(), "10.96.0.1:80".parse().unwrap());
    record.source_workload = Some(Arc::new(Workload::named("Kubernetes", "shop", "web")));
    record.source_identity = Some(SpiffeId::new("cluster.local", "shop", "web").unwrap());
    record.destination_workload = Some(Arc::new(Workload::named("Kubernetes", "shop", "cart")));
    record.service = Some(Arc::new(Service::named("shop", "cart", "cart.shop.svc.cluster.local")));
    record.security = Security::MutualTls;
    record
}

fn one_connection(worker: &WorkerTelemetry) {
    let mut live = record(Direction::Outbound);
    let edge = worker.opened(&live);
    worker.progress(&edge, 10, 100);
    (live.sent, live.received) = (15, 150);
    worker.closed(&edge, live, 5, 50);
}

fn page(telemetry: &Telemetry) -> String {
    let registry = Registry::new("test", "0");
    registry.register(|registry| registry.register_collector(Box::new(telemetry.clone())));
    registry.encode()
}

fn value(page: &str, name: &str, label: &str) -> f64 {
    let line = page.lines().find(|line| line.starts_with(&format!("{name}{{")) && line.contains(label));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_else(|| panic!("no {name} {label} in {page}"))
}

#[test]
fn workers_are_summed_and_labels_are_istios() {
    let (telemetry, _lines) = Telemetry::new();
    one_connection(&telemetry.worker());
    one_connection(&telemetry.worker());
    let page = page(&telemetry);
    let cart = "destination_service=\"cart.shop.svc.cluster.local\"";
    assert_eq!(value(&page, "istio_tcp_connections_opened_total", cart), 2.0);
    assert_eq!(value(&page, "istio_tcp_connections_closed_total", cart), 2.0);
    assert_eq!(value(&page, "istio_tcp_sent_bytes_total", cart), 30.0);
    assert_eq!(value(&page, "istio_tcp_received_bytes_total", cart), 300.0);
    assert_eq!(value(&page, "istio_tcp_sockets_open", "source"), 0.0);
    for label in [
        "reporter=\"source\"",
        "source_workload=\"web\"",
        "source_principal=\"spiffe://cluster.local/ns/shop/sa/web\"",
        "destination_principal=\"unknown\"",
        "connection_security_policy=\"mutual_tls\"",
        "response_flags=\"-\"",
        "request_protocol=\"tcp\"",
    ] {
        assert_eq!(value(&page, "istio_tcp_connections_opened_total", label), 2.0, "{label}");
    }
}

#[test]
fn refusals_carry_their_reason() {
    let (telemetry, _lines) = Telemetry::new();
    let worker = telemetry.worker();
    let mut refused = record(Direction::Inbound);
    refused.reason = Some(Reason::PolicyNotAllowed);
    worker.refused(refused);
    let mut shadowed = record(Direction::Inbound);
    let denial = ShadowDenial { policy: PolicyKey::new("shop", "strict"), reason: Reason::PolicyDenied };
    shadowed.shadow = Some(Box::new(denial));
    let edge = worker.opened(&shadowed);
    worker.closed(&edge, shadowed, 0, 0);
    let page = page(&telemetry);
    assert_eq!(value(&page, "weft_refusals_total", "policy-not-allowed"), 1.0);
    assert_eq!(value(&page, "istio_tcp_connections_failed_total", "response_flags=\"DENY\""), 1.0);
    assert_eq!(value(&page, "weft_shadow_denials_total", "shop/strict"), 1.0);
}

/// What was written, readable while and after it is.
#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Sink {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A reader that reads nothing until it is told to, then one that has gone.
struct Stuck(mpsc::Receiver<()>);

impl Write for Stuck {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        let _ended = self.0.recv();
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_line_says_who_and_why() {
    let (telemetry, lines) = Telemetry::new();
    let mut refused = record(Direction::Outbound);
    refused.reason = Some(Reason::ConnectRefused);
    refused.detail = Some("Connection refused (os error 111)".into());
    telemetry.worker().refused(refused);
    drop(telemetry);
    let out = Sink::default();
    let log = AccessLog::start(lines, LogFormat::Text, out.clone()).unwrap();
    let refusals = log.refusals();
    log.run().await;
    assert_eq!(refusals.rows()[0].reason.as_deref(), Some("connect-refused"));
    let line = out.text();
    let (time, rest) = line.strip_prefix("access time=").unwrap().split_once(' ').unwrap();
    assert!(time.len() == "2026-01-02T03:04:05.678Z".len() && time.ends_with('Z'), "{time}");
    assert!(humantime::parse_rfc3339(time).unwrap().elapsed().unwrap() < Duration::from_secs(10), "{time}");
    assert!(rest.starts_with("verdict=refused reason=connect-refused direction=outbound src.addr=10.0.0.1:1000 "));
    assert!(line.contains(" error=\"Connection refused (os error 111)\" bytes_sent=0 "), "{line}");
    assert_eq!(line.lines().count(), 1);
}

#[tokio::test]
async fn json_lines_parse() {
    let (telemetry, lines) = Telemetry::new();
    let (worker, live) = (telemetry.worker(), record(Direction::Inbound));
    let edge = worker.opened(&live);
    worker.closed(&edge, live, 0, 0);
    drop((worker, telemetry));
    let out = Sink::default();
    AccessLog::start(lines, LogFormat::Json, out.clone()).unwrap().run().await;
    let text = out.text();
    assert!(text.starts_with(r#"{"time":"20"#), "{text}");
    let line: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(line["target"], "access");
    assert_eq!(line["dst.service"], "cart.shop.svc.cluster.local");
    assert_eq!(line["verdict"], "ok");
}

#[test]
fn a_writer_that_is_behind_costs_lines_and_says_so() {
    let (telemetry, _lines) = Telemetry::new();
    let worker = telemetry.worker();
    for _ in 0..9_000 {
        worker.refused(record(Direction::Inbound));
    }
    let dropped =
        page(&telemetry).lines().find(|line| line.starts_with("weft_access_log_dropped_total")).map(str::to_owned);
    assert_eq!(dropped.as_deref(), Some("weft_access_log_dropped_total 808"));
}

#[tokio::test(flavor = "current_thread")]
async fn a_reader_that_stands_still_or_goes_stops_nobody() {
    let (telemetry, lines) = Telemetry::new();
    let (go, wait) = mpsc::channel();
    let log = AccessLog::start(lines, LogFormat::Text, Stuck(wait)).unwrap();
    let refusals = log.refusals();
    let running = tokio::spawn(log.run());
    let worker = telemetry.worker();
    for number in 0..40 {
        for _ in 0..256 {
            let mut refused = record(Direction::Outbound);
            refused.reason = Some(Reason::ConnectRefused);
            refused.detail = Some(format!("batch {number}").into());
            worker.refused(refused);
        }
        // This thread makes the lines, too: it never waits for the write.
        tokio::task::yield_now().await;
    }
    let last = tokio::time::timeout(Duration::from_secs(5), async {
        while refusals.rows().last().and_then(|row| row.detail.clone()).as_deref() != Some("batch 39") {
            tokio::task::yield_now().await;
        }
    });
    assert!(last.await.is_ok(), "what was refused is still known");
    drop(go);
    let written_or_lost = tokio::time::timeout(Duration::from_secs(5), async {
        while telemetry.dropped() < 40 * 256 {
            tokio::task::yield_now().await;
        }
    });
    written_or_lost.await.expect("every line that was not written counts");
    drop((worker, telemetry));
    tokio::time::timeout(Duration::from_secs(5), running).await.unwrap().unwrap();
}
