//! The control plane's port over loopback TCP: a real tonic server and client, TLS between them.

#![expect(clippy::unwrap_used, reason = "a test dies of what it did not expect")]

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tonic::{Request, Response, Status};
use weft_identity::clock::{self, Clock};
use weft_identity::control::{
    ControlConnector, ControlError, ControlRoots, ControlSecurity, Incoming, Resolve, ServingSource, system_resolver,
};
use weft_identity::request::VerifiedRequest;
use weft_identity::signer::{DEFAULT_ROOT_TTL, LeafLifetime, RootMaterial, Signer};
use weft_identity::{AuthorityError, CertificateAuthority, RemoteAuthority};
use weft_model::{Reason, SpiffeId};
use weft_runtime::shared;
use weft_wire::ca::CaClient;
use weft_wire::connect::Credentials as Bearer;
use weft_wire::proto::istio::v1::auth::istio_certificate_service_server::{
    IstioCertificateService, IstioCertificateServiceServer,
};
use weft_wire::proto::istio::v1::auth::{IstioCertificateRequest, IstioCertificateResponse};

const HOUR: Duration = Duration::from_secs(3600);

/// Signs everything but for the namespace `forbidden`.
struct Signs(Arc<Signer>);

#[tonic::async_trait]
impl IstioCertificateService for Signs {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        assert!(request.remote_addr().is_some(), "the peer's address comes through TLS");
        let request = VerifiedRequest::from_pem(&request.get_ref().csr).unwrap();
        if request.identity().namespace() == "forbidden" {
            return Err(weft_wire::refusal::refuse(Reason::IdentityNotOnNode, "not here"));
        }
        let cert_chain = self.0.sign(&request, Some(HOUR), SystemTime::now()).unwrap();
        Ok(Response::new(IstioCertificateResponse { cert_chain }))
    }
}

struct Bench {
    signer: Arc<Signer>,
    address: SocketAddr,
    roots: tempfile::NamedTempFile,
    _tasks: JoinSet<()>,
}

async fn bench(tls: bool) -> Bench {
    let now = SystemTime::now();
    let root = RootMaterial::create("cluster.local", DEFAULT_ROOT_TTL, now).unwrap();
    let load = || Signer::load(&root.certificate_pem, &root.key_pem, None, LeafLifetime::default(), now).unwrap();
    let (signer, serving) = (Arc::new(load()), load());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let incoming = if tls {
        let names = ["xds.weft-system.svc", "127.0.0.1"].map(str::to_owned);
        Incoming::tls(listener, ServingSource::new(shared::channel(serving).1, &names, clock::system()).unwrap())
    } else {
        Incoming::plaintext(listener)
    };
    let service = IstioCertificateServiceServer::new(Signs(signer.clone()));
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming).await.unwrap();
    });
    let roots = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(roots.path(), signer.roots().to_pem()).unwrap();
    Bench { signer, address, roots, _tasks: tasks }
}

fn tls(roots: &Path, server_name: Option<&str>) -> ControlSecurity {
    ControlSecurity::Tls { roots: ControlRoots::File(roots.to_owned()), server_name: server_name.map(str::to_owned) }
}

fn authority(security: ControlSecurity, resolve: Resolve, origin: &str) -> RemoteAuthority {
    let connector = ControlConnector::new(security, resolve).into_wire(origin.parse().unwrap());
    RemoteAuthority::new(CaClient::new(connector, Bearer::default()))
}

fn id(namespace: &str) -> SpiffeId {
    SpiffeId::new("cluster.local", namespace, "web").unwrap()
}

async fn sign(authority: &RemoteAuthority, namespace: &str) -> Result<Vec<String>, AuthorityError> {
    let request = weft_identity::request::Request::new(&id(namespace)).unwrap();
    authority.sign(&request.csr_pem, &id(namespace), HOUR).await
}

#[tokio::test]
async fn a_certificate_comes_over_tls_by_address_and_by_name() {
    let bench = bench(true).await;
    let by_address = authority(tls(bench.roots.path(), None), system_resolver(), &format!("http://{}", bench.address));
    assert_eq!(sign(&by_address, "shop").await.unwrap().len(), 2);
    let refused = sign(&by_address, "forbidden").await.unwrap_err();
    assert!(matches!(refused, AuthorityError::Refused { reason: Reason::IdentityNotOnNode, .. }), "{refused}");

    // The first address of the name does not answer; the second does.
    let nobody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap();
    let addresses = vec![nobody, bench.address];
    let resolve: Resolve = Arc::new(move |host, port| {
        assert_eq!((host.as_str(), port), ("anything.test", 15012));
        let addresses = addresses.clone();
        Box::pin(async move { Ok(addresses) })
    });
    let security = tls(bench.roots.path(), Some("xds.weft-system.svc"));
    let by_name = authority(security, resolve, "https://anything.test:15012");
    assert_eq!(sign(&by_name, "shop").await.unwrap().len(), 2);
}

#[tokio::test]
async fn another_name_another_root_and_plaintext_are_refused() {
    let bench = bench(true).await;
    let uri: http::Uri = format!("http://{}", bench.address).parse().unwrap();
    let connect = async |security| ControlConnector::new(security, system_resolver()).connect(uri.clone()).await;
    let error = connect(tls(bench.roots.path(), Some("istiod.istio-system.svc"))).await.unwrap_err();
    assert!(error.to_string().contains("not valid for name"), "{error}");
    let stranger = RootMaterial::create("x", DEFAULT_ROOT_TTL, SystemTime::now()).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &stranger.certificate_pem).unwrap();
    let error = connect(tls(file.path(), None)).await.unwrap_err();
    assert!(matches!(error, ControlError::Connect { .. }), "{error}");
    // The file is read again for each connection: a repaired one works at once.
    std::fs::write(file.path(), bench.signer.roots().to_pem()).unwrap();
    assert!(connect(tls(file.path(), None)).await.is_ok());
    for (content, words) in [("", "no certificate"), ("-----BEGIN CERTIFICATE-----\n%\n-----END", "roots in")] {
        std::fs::write(file.path(), content).unwrap();
        let error = connect(tls(file.path(), None)).await.unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
    assert!(matches!(connect(tls(Path::new("/nonexistent"), None)).await, Err(ControlError::Roots { .. })));
    assert!(matches!(connect(tls(file.path(), Some("not a name"))).await, Err(ControlError::Name(_))));
    let plain = authority(ControlSecurity::Plaintext, system_resolver(), &uri.to_string());
    assert!(matches!(sign(&plain, "shop").await, Err(AuthorityError::Unavailable(_))));
}

#[tokio::test]
async fn plaintext_works_when_both_sides_say_so() {
    let bench = bench(false).await;
    let plain = authority(ControlSecurity::Plaintext, system_resolver(), &format!("http://{}", bench.address));
    assert_eq!(sign(&plain, "shop").await.unwrap().len(), 2);
}

#[tokio::test]
async fn strangers_do_not_hold_up_the_port() {
    let bench = bench(true).await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(TcpStream::connect(bench.address).await.unwrap());
    }
    let mut rude = TcpStream::connect(bench.address).await.unwrap();
    rude.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    rude.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer.first(), Some(&21), "a TLS alert, then the end: {answer:?}");
    let good = authority(tls(bench.roots.path(), None), system_resolver(), &format!("http://{}", bench.address));
    assert_eq!(sign(&good, "shop").await.unwrap().len(), 2);
}

/// A clock that the test sets.
#[derive(Debug)]
struct Set(std::sync::Mutex<SystemTime>);

impl Clock for Set {
    fn now(&self) -> SystemTime {
        *self.0.lock().unwrap()
    }
}

#[test]
fn the_serving_certificate_is_renewed_after_half_its_life_a_step_of_the_clock_and_another_root() {
    let start = SystemTime::now();
    let signer = || {
        let root = RootMaterial::create("cluster.local", DEFAULT_ROOT_TTL, start).unwrap();
        Signer::load(&root.certificate_pem, &root.key_pem, None, LeafLifetime::default(), start).unwrap()
    };
    let (mut writer, reader) = shared::channel(signer());
    let clock = Arc::new(Set(std::sync::Mutex::new(start)));
    let mut source = ServingSource::new(reader, &["a.test".to_owned()], clock.clone()).unwrap();
    let (first, end) = (source.config(), source.validity().not_after);
    *clock.0.lock().unwrap() = start + 11 * HOUR;
    assert!(Arc::ptr_eq(&first, &source.config()));
    *clock.0.lock().unwrap() = start + 13 * HOUR;
    let second = source.config();
    assert!(!Arc::ptr_eq(&first, &second));
    assert!(source.validity().not_after > end);
    *clock.0.lock().unwrap() = start;
    let third = source.config();
    assert!(!Arc::ptr_eq(&second, &third) && source.validity().contains(start), "the clock was set back");
    writer.publish(signer());
    assert!(!Arc::ptr_eq(&third, &source.config()));
}
