//! The CA as agents meet it: over TLS, asked by the agent's own certificate store.

#![expect(clippy::unwrap_used, reason = "a test dies of what it did not expect")]

use std::net::Ipv4Addr;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, SystemTime};

use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tonic::service::InterceptorLayer;
use weft_identity::control::{
    ControlConnector, ControlRoots, ControlSecurity, Incoming, LearntRoots, ServingSource, system_resolver,
};
use weft_identity::request::Request;
use weft_identity::signer::{DEFAULT_ROOT_TTL, LeafLifetime, RootMaterial, Signer};
use weft_identity::store::{Settings, StoreMetrics};
use weft_identity::{CertificateAuthority, Priority, RemoteAuthority, Store, clock};
use weft_model::SpiffeId;
use weft_runtime::metrics::Registry;
use weft_runtime::shared::{self, Writer};
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

/// Node `node-a` has the token `secret-a` and runs everything of the namespace `shop`, `node-b` `secret-b` and `bank`.
async fn server() -> Server {
    server_and_signer().await.0
}

async fn server_and_signer() -> (Server, Writer<Signer>) {
    LazyLock::force(&LINES);
    let state = tempfile::TempDir::new().unwrap();
    let lifetime = LeafLifetime::default();
    let signer = ca::load(state.path(), &RootSource::Own, "cluster.local", lifetime, SystemTime::now()).unwrap();
    let (writer, signer) = shared::channel(signer);
    let registry = Registry::new("test", "0");
    let service = CertificateService::new(
        signer.clone(),
        "cluster.local",
        Arc::new(|extensions| caller_of(extensions).map(|caller| caller.node)),
        Arc::new(|node, identity| matches!((node, identity.namespace()), ("node-a", "shop") | ("node-b", "bank"))),
        clock::system(),
        CaMetrics::new(&registry),
    );
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let names = ["127.0.0.1".to_owned()];
    let incoming = Incoming::tls(listener, ServingSource::new(signer, &names, clock::system()).unwrap());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let service = IstioCertificateServiceServer::new(service).max_decoding_message_size(ca::REQUEST_LIMIT);
        let mut server = tonic::transport::Server::builder().layer(InterceptorLayer::new(two_nodes));
        server.add_service(service).serve_with_incoming(incoming).await.unwrap();
    });
    (Server { state, origin, registry, _tasks: tasks }, writer)
}

/// Stands for the server's own interceptor, which has tests of its own.
fn two_nodes(mut request: tonic::Request<()>) -> Result<tonic::Request<()>, tonic::Status> {
    let token = request.metadata().get("authorization").and_then(|value| value.to_str().ok().map(str::to_owned));
    match token.as_deref() {
        Some("Bearer secret-a") => drop(request.extensions_mut().insert(Caller { node: "node-a".into() })),
        Some("Bearer secret-b") => drop(request.extensions_mut().insert(Caller { node: "node-b".into() })),
        _ => {}
    }
    Ok(request)
}

impl Server {
    fn authority(&self, token: &str) -> RemoteAuthority {
        self.authority_by(token, LearntRoots::default())
    }

    fn authority_by(&self, token: &str, learnt: LearntRoots) -> RemoteAuthority {
        let roots = ControlRoots::File(self.state.path().join("root-cert.pem"));
        let security = ControlSecurity::Tls { roots, server_name: None };
        let connector = ControlConnector::new(security, system_resolver()).with_learnt(learnt);
        let connector = connector.into_wire(self.origin.parse().unwrap());
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
    let request = Request::new(&id("shop")).unwrap();
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

/// Remembers the fields of what is logged at WARN and above, by all tests of this file.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

static LINES: LazyLock<Lines> = LazyLock::new(|| {
    let lines = Lines::default();
    tracing::subscriber::set_global_default(lines.clone()).unwrap();
    lines
});

impl tracing::Subscriber for Lines {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::WARN
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        struct Words(String);
        impl tracing::field::Visit for Words {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                self.0 += &format!("{field}={value:?} ");
            }
        }
        let mut words = Words(String::new());
        event.record(&mut words);
        self.0.lock().unwrap().push(words.0);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

#[tokio::test]
async fn a_node_that_wants_an_identity_of_another_node_is_refused_logged_and_counted() {
    let server = server().await;
    let victim: SpiffeId = "spiffe://cluster.local/ns/bank/sa/vault".parse().unwrap();
    let request = Request::new(&victim).unwrap();
    let error = server.authority("secret-a").sign(&request.csr_pem, &victim, HOUR).await.unwrap_err();
    assert!(error.to_string().contains("identity-not-on-node"), "{error}");
    let lines = LINES.0.lock().unwrap().clone();
    let line = lines.iter().find(|line| line.contains(&victim.to_string())).expect("a line");
    for words in ["certificate refused", "node=node-a", "reason=\"identity-not-on-node\"", "peer="] {
        assert!(line.contains(words), "no {words} in: {line}");
    }
    assert!(server.registry.encode().contains(r#"weft_ca_refused_total{reason="identity-not-on-node"} 1"#));
    assert!(server.authority("secret-b").sign(&request.csr_pem, &victim, HOUR).await.is_ok());
}

#[tokio::test]
async fn a_node_that_asks_without_end_and_one_that_asks_for_too_much_cost_the_others_nothing() {
    let server = server().await;
    let greedy = server.authority("secret-a");
    let huge = format!("-----BEGIN CERTIFICATE REQUEST-----\n{}", "A".repeat(1024 * 1024));
    assert!(greedy.sign(&huge, &id("shop"), HOUR).await.is_err());
    let error = greedy.sign(&huge[..8 * 1024], &id("shop"), HOUR).await.unwrap_err();
    assert!(error.to_string().contains("bad-certificate-request"), "{error}");
    let request = Request::new(&id("bank")).unwrap(); // refused, so that no signature is paid for here
    let mut asked = 0;
    let refused = loop {
        let error = greedy.sign(&request.csr_pem, &id("bank"), HOUR).await.unwrap_err();
        if error.to_string().contains("overloaded") {
            break error;
        }
        asked += 1;
        assert!(asked < 5000, "no end");
    };
    assert!(asked >= 599, "{asked}: {refused}");
    assert!(matches!(refused, weft_identity::AuthorityError::Unavailable(_)), "it may ask again later: {refused}");
    assert!(server.authority("secret-b").sign(&request.csr_pem, &id("bank"), HOUR).await.is_ok());
    assert!(server.registry.encode().contains(r#"weft_ca_refused_total{reason="overloaded"} 1"#));
}

/// A node's roots file is as old as the node; what the CA gave it takes it through the rotation, and nothing else does.
#[tokio::test]
async fn an_agent_that_runs_through_a_rotation_needs_no_new_file() {
    let (server, mut writer) = server_and_signer().await;
    let file = std::fs::read_to_string(server.state.path().join("root-cert.pem")).unwrap();
    let pair = std::fs::read_to_string(server.state.path().join("ca/root.pem")).unwrap();
    let (now, life) = (SystemTime::now(), LeafLifetime::default());
    let next = RootMaterial::create("cluster.local", DEFAULT_ROOT_TTL, now).unwrap();
    let learnt = LearntRoots::default();
    let learn = |answer: &[String]| {
        learnt.learn(&weft_identity::Roots::from_pem(answer.last().unwrap().as_bytes()).unwrap());
    };
    let request = Request::new(&id("shop")).unwrap();
    let sign = async |learnt: LearntRoots| {
        // A connection of its own for each, as after a restart of the server.
        server.authority_by("secret-a", learnt).sign(&request.csr_pem, &id("shop"), HOUR).await
    };
    learn(&sign(learnt.clone()).await.unwrap());
    let signers = [
        Signer::load(&file, &pair[pair.find("-----BEGIN PRIVATE").unwrap()..], Some(&next.certificate_pem), life, now),
        Signer::load(&next.certificate_pem, &next.key_pem, Some(&file), life, now),
        Signer::load(&next.certificate_pem, &next.key_pem, None, life, now),
    ];
    let mut ignorant = Vec::new();
    for signer in signers {
        writer.publish(signer.unwrap());
        learn(&sign(learnt.clone()).await.unwrap());
        ignorant.push(sign(LearntRoots::default()).await.is_ok());
    }
    assert_eq!(ignorant, [true, false, false], "who starts with the old file only needs the new one from step 2 on");
    std::fs::write(server.state.path().join("root-cert.pem"), &next.certificate_pem).unwrap();
    assert!(sign(LearntRoots::default()).await.is_ok(), "the file is read again for each connection");
}
