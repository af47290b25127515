//! The CA as agents meet it: over TLS, asked by the agent's own certificate store.

#![expect(clippy::unwrap_used, reason = "a test dies of what it did not expect")]

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tonic::service::InterceptorLayer;
use weft_identity::control::{
    ControlConnector, ControlRoots, ControlSecurity, Incoming, ServingSource, system_resolver,
};
use weft_identity::signer::LeafLifetime;
use weft_identity::store::{Settings, StoreMetrics};
use weft_identity::{CertificateAuthority, Priority, RemoteAuthority, Store, clock};
use weft_model::SpiffeId;
use weft_runtime::metrics::Registry;
use weft_wire::ca::CaClient;
use weft_wire::connect::Credentials as Bearer;
use weft_wire::proto::istio::v1::auth::istio_certificate_service_server::IstioCertificateServiceServer;
use weft_xds_server::ca::{self, CaMetrics, CertificateService, RootSource};
use weft_xds_server::serve::{Caller, caller_of};

const HOUR: Duration = Duration::from_secs(3600);

struct Server {
    state: tempfile::TempDir,
    origin: String,
    registry: Registry,
    _tasks: JoinSet<()>,
}

/// Node `node-a` has the token `secret-a` and runs everything of the namespace `shop`.
async fn server() -> Server {
    let state = tempfile::TempDir::new().unwrap();
    let lifetime = LeafLifetime::default();
    let signer = ca::load(state.path(), &RootSource::Own, "cluster.local", lifetime, SystemTime::now()).unwrap();
    let (signer, registry) = (Arc::new(signer), Registry::new("test", "0"));
    let service = CertificateService::new(
        signer.clone(),
        "cluster.local",
        Arc::new(|extensions| caller_of(extensions).map(|caller| caller.node)),
        Arc::new(|node, identity| node == "node-a" && identity.namespace() == "shop"),
        clock::system(),
        CaMetrics::new(&registry),
    );
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let names = ["127.0.0.1".to_owned()];
    let incoming = Incoming::tls(listener, ServingSource::new(signer, &names, clock::system()).unwrap());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let service = IstioCertificateServiceServer::new(service);
        let mut server = tonic::transport::Server::builder().layer(InterceptorLayer::new(only_node_a));
        server.add_service(service).serve_with_incoming(incoming).await.unwrap();
    });
    Server { state, origin, registry, _tasks: tasks }
}

/// Stands for the server's own interceptor, which has tests of its own.
fn only_node_a(mut request: tonic::Request<()>) -> Result<tonic::Request<()>, tonic::Status> {
    if request.metadata().get("authorization").is_some_and(|value| value == "Bearer secret-a") {
        request.extensions_mut().insert(Caller { node: "node-a".into() });
    }
    Ok(request)
}

impl Server {
    fn authority(&self, token: &str) -> RemoteAuthority {
        let roots = ControlRoots::File(self.state.path().join("root-cert.pem"));
        let security = ControlSecurity::Tls { roots, server_name: None };
        let connector = ControlConnector::new(security, system_resolver()).into_wire(self.origin.parse().unwrap());
        let file = self.state.path().join(format!("token-{token}"));
        std::fs::write(&file, token).unwrap();
        RemoteAuthority::new(CaClient::new(connector, Bearer { token_file: Some(file), ..Bearer::default() }))
    }
}

fn id(namespace: &str) -> SpiffeId {
    SpiffeId::new("cluster.local", namespace, "web").unwrap()
}

#[tokio::test]
async fn a_store_is_supplied_and_refused_with_the_reason() {
    let server = server().await;
    let registry = Registry::new("agent", "0");
    let (store, driver) = Store::new(
        Arc::new(server.authority("secret-a")),
        Settings::default(),
        clock::system(),
        StdRng::seed_from_u64(1),
        StoreMetrics::new(&registry),
    );
    let mut tasks = JoinSet::new();
    tasks.spawn(driver.run());
    store.ensure(&id("shop"), Priority::WarmUp);
    store.ensure(&id("bank"), Priority::WarmUp);
    let deadline = Instant::now() + Duration::from_secs(10);
    let credentials = store.wait(&id("shop"), deadline).await.unwrap();
    assert_eq!(credentials.identity(), &id("shop"));
    // The store asks for a day, and a day is the CA's limit.
    assert!(credentials.validity().remaining(SystemTime::now()) > 23 * HOUR);
    let failed = |row: &weft_model::view::CertificateRow| row.last_error.is_some();
    while !store.rows().iter().any(failed) && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let rows = store.rows();
    assert_eq!(rows.iter().map(|row| row.state.as_str()).collect::<Vec<_>>(), ["waiting", "valid"]);
    assert!(rows[0].last_error.as_ref().unwrap().contains("identity-not-on-node"), "{rows:?}");
    let text = server.registry.encode();
    assert!(text.contains("weft_ca_issued_total 1\n"), "{text}");
    assert!(text.contains(r#"weft_ca_refused_total{reason="identity-not-on-node"}"#), "{text}");
    assert!(registry.encode().contains(r#"weft_certificate_failures_total{reason="identity-not-on-node"}"#));
}

#[tokio::test]
async fn a_caller_without_a_known_token_gets_nothing() {
    let server = server().await;
    let request = weft_identity::request::Request::new(&id("shop")).unwrap();
    let stranger = server.authority("guess");
    let error = stranger.sign(&request.csr_pem, &id("shop"), HOUR).await.unwrap_err();
    assert!(error.to_string().contains("unauthenticated"), "{error}");
    assert!(server.registry.encode().contains(r#"weft_ca_refused_total{reason="unauthenticated"} 1"#));
    let known = server.authority("secret-a");
    assert_eq!(known.sign(&request.csr_pem, &id("shop"), HOUR).await.unwrap().len(), 2);
    // A request that says one thing in its metadata and another in itself.
    let error = known.sign(&request.csr_pem, &id("bank"), HOUR).await.unwrap_err();
    assert!(error.to_string().contains("bad-certificate-request"), "{error}");
}
