//! As much of a Kubernetes API server as the root's Secret needs: objects by their paths, versions, conflicts.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use weft_kubernetes::Client;

pub(crate) const NAMESPACE: &str = "weft-system";
pub(crate) const SECRET: &str = "/api/v1/namespaces/weft-system/secrets/weft-ca";
pub(crate) const PODS: &str = "/api/v1/namespaces/weft-system/pods";

/// The objects.
#[derive(Debug, Default)]
struct Objects {
    there: BTreeMap<String, Value>,
    version: u64,
}

impl Objects {
    fn put(&mut self, path: &str, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.there.insert(path.to_owned(), object.clone());
        object
    }

    /// Status and body of an answer.
    fn answer(&mut self, method: &str, path: &str, body: &[u8]) -> (u16, Value) {
        let path = path.split('?').next().unwrap_or_default();
        let sent: Value = serde_json::from_slice(body).unwrap_or_default();
        let there = self.there.get(path).cloned();
        let stale = |there: &Value| {
            let version = &sent["metadata"]["resourceVersion"];
            !version.is_null() && *version != there["metadata"]["resourceVersion"]
        };
        match (method, there) {
            ("GET", Some(object)) => (200, object),
            ("GET", None) if path.rsplit('/').next().is_some_and(|last| last.ends_with('s')) => {
                let below = format!("{path}/");
                let items: Vec<_> = self.there.iter().filter(|(known, _)| known.starts_with(&below)).collect();
                let items: Vec<&Value> = items.into_iter().map(|(_, object)| object).collect();
                (200, json!({ "kind": "List", "apiVersion": "v1", "metadata": {}, "items": items }))
            }
            ("POST", _) => {
                let path = format!("{path}/{}", sent["metadata"]["name"].as_str().unwrap_or_default());
                if self.there.contains_key(&path) { failed(409) } else { (201, self.put(&path, sent)) }
            }
            ("PUT" | "PATCH", Some(there)) if stale(&there) => failed(409),
            ("PUT", Some(_)) => (200, self.put(path, sent)),
            ("PATCH", there) => {
                let mut object = there.unwrap_or_default();
                merge(&mut object, &sent);
                (200, self.put(path, object))
            }
            _ => failed(404),
        }
    }
}

/// RFC 7386, which is near enough to what applying does here.
fn merge(into: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        into.clone_from(patch);
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    for (key, value) in patch {
        merge(&mut into[key], value);
    }
}

fn failed(code: u16) -> (u16, Value) {
    let reason = if code == 404 { "NotFound" } else { "Conflict" };
    (code, json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code }))
}

/// The server.
pub(crate) struct Api {
    objects: Arc<Mutex<Objects>>,
    kubeconfig: PathBuf,
    _home: tempfile::TempDir,
    _task: JoinSet<()>,
}

impl Api {
    pub(crate) async fn start() -> Self {
        weft_identity::tls::install_default_provider();
        let (home, objects) = (tempfile::TempDir::new().unwrap(), Arc::<Mutex<Objects>>::default());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let kubeconfig = home.path().join("kubeconfig");
        let address = listener.local_addr().unwrap();
        let text = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{ "name": "c", "cluster": { "server": format!("http://{address}") } }],
            "users": [{ "name": "u", "user": {} }],
            "contexts": [{ "name": "c", "context": { "cluster": "c", "user": "u" } }],
        });
        std::fs::write(&kubeconfig, text.to_string()).unwrap();
        let (mut task, shared) = (JoinSet::new(), objects.clone());
        task.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, shared.clone()));
            }
        });
        Self { objects, kubeconfig, _home: home, _task: task }
    }

    pub(crate) async fn client(&self) -> Client {
        weft_kubernetes::connect(Some(&self.kubeconfig)).await.unwrap()
    }

    pub(crate) fn get(&self, path: &str) -> Value {
        self.objects.lock().unwrap().there.get(path).cloned().unwrap_or_default()
    }

    pub(crate) fn put(&self, path: &str, object: Value) {
        let _stored = self.objects.lock().unwrap().put(path, object);
    }

    /// Somebody changes an object.
    pub(crate) fn change(&self, path: &str, act: impl FnOnce(&mut Value)) {
        let mut objects = self.objects.lock().unwrap();
        let mut object = objects.there.get(path).cloned().unwrap_or_default();
        act(&mut object);
        let _stored = objects.put(path, object);
    }

    pub(crate) fn remove(&self, path: &str) {
        self.objects.lock().unwrap().there.remove(path);
    }

    /// A pod of a replica that runs.
    pub(crate) fn pod(&self, name: &str) {
        self.put(&format!("{PODS}/{name}"), json!({ "metadata": { "name": name } }));
    }
}

async fn serve(mut stream: TcpStream, objects: Arc<Mutex<Objects>>) {
    while let Some((method, path, body)) = request(&mut stream).await {
        let (code, answer) = objects.lock().unwrap().answer(&method, &path, &body);
        let answer = answer.to_string();
        let head =
            format!("HTTP/1.1 {code} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", answer.len());
        if stream.write_all(&[head.as_bytes(), answer.as_bytes()].concat()).await.is_err() {
            return;
        }
    }
}

/// Method, path and body of the next request; none at the end.
async fn request(stream: &mut TcpStream) -> Option<(String, String, Vec<u8>)> {
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        bytes.push(stream.read_u8().await.ok()?);
    };
    let text = String::from_utf8(bytes[..head].to_vec()).ok()?;
    let length =
        text.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).await.ok()?;
    let mut words = text.split(' ');
    Some((words.next()?.to_owned(), words.next()?.to_owned(), body))
}
