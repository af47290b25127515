//! The listener and the router of the admin pages.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io;
use std::net::SocketAddr;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};
use thiserror::Error;
use tokio::net::TcpListener;

use super::catalogue::{ActionError, ActionRequest, Admin};
use super::guarded::Guarded;
use crate::drain::Watch;
use crate::metrics;

/// The longest request body. Actions take a few words; this is generous for all of them and nothing for an attacker.
const BODY_LIMIT_BYTES: usize = 64 * 1024;

/// Who may come to a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exposure {
    /// Everything, actions included: for loopback only.
    Everything,
    /// `/healthz` and `/metrics`: for kubelet and Prometheus on other machines.
    Observers,
}

/// Listens on an address; `setting` is the flag that it came from, for the error.
///
/// # Errors
/// [`BindError`] naming address and setting.
pub async fn bind(address: SocketAddr, setting: &str) -> Result<TcpListener, BindError> {
    TcpListener::bind(address).await.map_err(|source| BindError { address, setting: setting.to_owned(), source })
}

/// An address cannot be listened on.
#[derive(Debug, Error)]
#[error("cannot listen on {address} (setting {setting}): {source}{}", next_step(source))]
pub struct BindError {
    /// The address.
    pub address: SocketAddr,
    /// The flag that it came from.
    pub setting: String,
    /// What the system said.
    pub source: io::Error,
}

fn next_step(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "; another program has it (see `ss -ltnp`), so stop that one or choose another port"
        }
        io::ErrorKind::PermissionDenied => "; ports below 1024 need CAP_NET_BIND_SERVICE",
        io::ErrorKind::AddrNotAvailable => "; no interface of this machine has that address",
        _ => "",
    }
}

impl Admin {
    /// Answers until the watch is signalled, finishing the requests that are open.
    ///
    /// The admin pages should outlive everything they show, so give them a drain of their own and trigger it last.
    pub async fn serve(self, listener: TcpListener, exposure: Exposure, drain: Watch) {
        let (begun, forced) = (drain.observer(), drain.observer());
        let serving = axum::serve(Guarded::new(listener), self.router(exposure)).with_graceful_shutdown(async move {
            begun.signalled().await;
        });
        // The watch itself is held to the end, so that the drain waits for open requests.
        tokio::select! {
            outcome = serving => if let Err(error) = outcome {
                tracing::error!(%error, "the admin pages ended");
            },
            () = forced.forced() => {}
        }
        drop(drain);
    }

    fn router(self, exposure: Exposure) -> Router {
        let router = Router::new()
            .route("/healthz/live", get(async || "live\n"))
            .route("/healthz/ready", get(ready))
            .route("/metrics", get(metrics_text))
            .route("/stats/prometheus", get(metrics_text));
        let router = match exposure {
            Exposure::Observers => router.fallback(observers_index),
            Exposure::Everything => router
                .route("/debug/sections", get(sections))
                .route("/debug/{name}", get(section))
                .route("/config_dump", get(config_dump))
                .route("/{action}", post(action).get(index))
                .route("/", get(index))
                .fallback(index),
        };
        router.layer(DefaultBodyLimit::max(BODY_LIMIT_BYTES)).with_state(self)
    }

    /// What exists here, for the index and for whoever mistyped.
    fn index(&self) -> String {
        let mut text = String::from(OBSERVER_PAGES);
        text.push_str("GET  /config_dump\nGET  /debug/sections\n");
        for name in self.section_names() {
            // Writing into a String cannot fail.
            let _ = writeln!(text, "GET  /debug/{name}");
        }
        for name in self.action_names() {
            let _ = writeln!(text, "POST /{name}");
        }
        text
    }
}

const OBSERVER_PAGES: &str = "GET  /healthz/ready\nGET  /healthz/live\nGET  /metrics\nGET  /stats/prometheus\n";

async fn ready(State(admin): State<Admin>) -> Response {
    let pending = admin.readiness.pending();
    if pending.is_empty() {
        return "ready\n".into_response();
    }
    let mut text = String::from("not ready, waiting for:\n");
    for what in pending {
        let _ = writeln!(text, "  {what}");
    }
    (StatusCode::INTERNAL_SERVER_ERROR, text).into_response()
}

async fn metrics_text(State(admin): State<Admin>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], admin.registry.encode())
}

async fn sections(State(admin): State<Admin>) -> Json<Value> {
    Json(json!(admin.section_names()))
}

async fn section(State(admin): State<Admin>, Path(name): Path<String>) -> Response {
    match admin.show(&name).await {
        Some(Ok(value)) => Json(value).into_response(),
        Some(Err(error)) => (StatusCode::GATEWAY_TIMEOUT, Json(json!({ "error": error }))).into_response(),
        None => not_found(&admin.index()),
    }
}

async fn config_dump(State(admin): State<Admin>) -> Json<Value> {
    Json(admin.show_all().await)
}

async fn action(
    State(admin): State<Admin>,
    Path(name): Path<String>,
    Query(parameters): Query<BTreeMap<String, String>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    // Browsers send Origin with every POST, and nobody steers an agent from a browser: a web page that a person on this
    // machine looks at must not be able to stop the mesh.
    if headers.contains_key(header::ORIGIN) {
        return (StatusCode::FORBIDDEN, "actions are not for browsers; use curl -X POST\n").into_response();
    }
    match admin.act(&name, ActionRequest { parameters, body: body.into() }).await {
        Some(Ok(value)) => Json(value).into_response(),
        Some(Err(error)) => {
            let status = match &error {
                ActionError::Request(_) => StatusCode::BAD_REQUEST,
                ActionError::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
            };
            (status, Json(json!({ "error": error.to_string() }))).into_response()
        }
        None => not_found(&admin.index()),
    }
}

async fn index(State(admin): State<Admin>, method: Method, uri: axum::http::Uri) -> Response {
    let path = uri.path();
    if path == "/" {
        return admin.index().into_response();
    }
    if method == Method::GET && admin.action_names().contains(&path.trim_start_matches('/')) {
        let allow = [(header::ALLOW, "POST")];
        return (StatusCode::METHOD_NOT_ALLOWED, allow, format!("use POST: curl -X POST .../{}\n", &path[1..]))
            .into_response();
    }
    not_found(&admin.index())
}

async fn observers_index() -> Response {
    not_found(OBSERVER_PAGES)
}

fn not_found(index: &str) -> Response {
    (StatusCode::NOT_FOUND, format!("no such page; there are\n{index}")).into_response()
}
