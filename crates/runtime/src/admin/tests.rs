//! Asks a real listener over a real socket, with requests written by hand: what curl and kubelet would see.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{ActionError, Admin, Exposure, bind};
use crate::drain;
use crate::metrics::Registry;
use crate::readiness::Readiness;

struct Server {
    address: SocketAddr,
    readiness: Readiness,
    trigger: drain::Trigger,
}

async fn start(exposure: Exposure) -> Server {
    let (readiness, registry) = (Readiness::new(), Registry::new("weft-test", "0"));
    let admin = Admin::new(readiness.clone(), registry)
        .section("pods", || json!(["shop/web-1"]))
        .section_async("workers", async || {
            tokio::task::yield_now().await;
            json!({ "threads": 2 })
        })
        .action("quitquitquit", async |request| match request.parameters.get("why") {
            Some(why) => Ok(json!({ "why": why, "body": request.body.len() })),
            None => Err(ActionError::Request("say why=REASON".to_owned())),
        });
    let listener = bind((Ipv4Addr::LOCALHOST, 0).into(), "--admin").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (trigger, watch) = drain::channel();
    tokio::spawn(admin.serve(listener, exposure, watch));
    Server { address, readiness, trigger }
}

impl Server {
    /// Status and body of one request.
    async fn ask(&self, head: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let length = body.len();
        let request = format!("{head}\r\nhost: weft\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}");
        // A server that refuses a long body may close before all of it is written.
        let _ = stream.write_all(request.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8(answer).unwrap();
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status line");
        (status, answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
    }

    async fn get(&self, path: &str) -> (u16, String) {
        self.ask(&format!("GET {path} HTTP/1.1"), "").await
    }

    async fn json(&self, path: &str) -> Value {
        let (status, body) = self.get(path).await;
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }
}

#[tokio::test]
async fn health_follows_readiness_and_names_what_is_pending() {
    let server = start(Exposure::Observers).await;
    assert_eq!(server.get("/healthz/ready").await, (200, "ready\n".to_owned()));
    let guard = server.readiness.wait_for("xds: first answer");
    let (status, body) = server.get("/healthz/ready").await;
    assert_eq!((status, body.contains("xds: first answer")), (500, true), "{body}");
    assert_eq!(server.get("/healthz/live").await.0, 200);
    drop(guard);
    assert_eq!(server.get("/healthz/ready").await.0, 200);
}

#[tokio::test]
async fn metrics_have_two_names() {
    let server = start(Exposure::Observers).await;
    for path in ["/metrics", "/stats/prometheus"] {
        let (status, body) = server.get(path).await;
        assert_eq!((status, body.contains("weft_build_info{")), (200, true), "{body}");
    }
}

#[tokio::test]
async fn sections_are_listed_shown_and_merged() {
    let server = start(Exposure::Everything).await;
    assert_eq!(server.json("/debug/sections").await, json!(["pods", "workers"]));
    assert_eq!(server.json("/debug/workers").await, json!({ "threads": 2 }));
    assert_eq!(server.json("/config_dump").await, json!({ "pods": ["shop/web-1"], "workers": { "threads": 2 } }));
}

#[tokio::test]
async fn actions_want_post_and_sense_and_no_browser() {
    let server = start(Exposure::Everything).await;
    let (status, body) = server.ask("POST /quitquitquit?why=a%20test HTTP/1.1", "12345").await;
    assert_eq!((status, body.as_str()), (200, r#"{"body":5,"why":"a test"}"#));
    let (status, body) = server.ask("POST /quitquitquit HTTP/1.1", "").await;
    assert_eq!((status, body.contains("say why=REASON")), (400, true), "{body}");
    assert_eq!(server.get("/quitquitquit").await.0, 405);
    let browser = "POST /quitquitquit?why=x HTTP/1.1\r\norigin: http://evil.example";
    assert_eq!(server.ask(browser, "").await.0, 403);
    let long = "x".repeat(65 * 1024);
    assert_eq!(server.ask("POST /quitquitquit?why=x HTTP/1.1", &long).await.0, 413);
}

#[tokio::test]
async fn a_wrong_path_is_answered_with_what_exists() {
    let server = start(Exposure::Everything).await;
    for path in ["/nothing", "/debug/nothing", "/a/b/c"] {
        let (status, body) = server.get(path).await;
        assert_eq!(status, 404, "{path}");
        for page in ["/debug/pods", "POST /quitquitquit", "/metrics"] {
            assert!(body.contains(page), "{path}: {body}");
        }
    }
    assert_eq!(server.get("/").await.0, 200);
    assert_eq!(server.ask("POST /nothing HTTP/1.1", "").await.0, 404);
}

#[tokio::test]
async fn observers_see_neither_sections_nor_actions() {
    let server = start(Exposure::Observers).await;
    for path in ["/debug/pods", "/config_dump", "/debug/sections", "/"] {
        let (status, body) = server.get(path).await;
        assert_eq!((status, body.contains("/debug/pods")), (404, false), "{path}: {body}");
    }
    assert_eq!(server.ask("POST /quitquitquit?why=x HTTP/1.1", "").await.0, 404);
}

#[tokio::test(start_paused = true)]
async fn a_stuck_section_says_so_and_holds_up_nobody() {
    let admin = Admin::new(Readiness::new(), Registry::new("weft-test", "0"))
        .section_async("stuck", std::future::pending)
        .section("pods", || json!([]));
    let shown = admin.show_all().await;
    assert_eq!(shown["pods"], json!([]));
    assert_eq!(shown["stuck"]["error"], "section stuck did not answer within 5 s");
}

#[tokio::test]
async fn ends_with_its_drain() {
    let server = start(Exposure::Observers).await;
    assert_eq!(server.get("/healthz/live").await.0, 200);
    let outcome = server.trigger.drain(Duration::from_secs(10)).await;
    assert!(matches!(outcome, drain::Outcome::Drained { .. }), "{outcome:?}");
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn a_taken_port_is_named_with_its_setting_and_the_next_step() {
    let server = start(Exposure::Observers).await;
    let error = bind(server.address, "--metrics-address").await.unwrap_err().to_string();
    for part in [server.address.to_string().as_str(), "--metrics-address", "ss -ltnp"] {
        assert!(error.contains(part), "{error}");
    }
}
