//! The unary clients against scripted servers: what arrives, and what becomes of each answer.

#![expect(clippy::unwrap_used, reason = "a test may die of an assumption")]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Request, Response, Status};
use weft_model::{Reason, SpiffeId, Uid};
use weft_wire::ca::{CaClient, CaError, CertificateRequest, impersonated_identity};
use weft_wire::connect::{Connector, Credentials};
use weft_wire::proto::istio::v1::auth::istio_certificate_service_server::{
    IstioCertificateService, IstioCertificateServiceServer,
};
use weft_wire::proto::istio::v1::auth::{IstioCertificateRequest, IstioCertificateResponse};
use weft_wire::proto::node::node_service_server::{NodeService, NodeServiceServer};
use weft_wire::proto::node::{Refused, ReportRequest, ReportResponse};
use weft_wire::refusal::refuse;
use weft_wire::report::{Report, ReportError, Reported, Reporter};

type Seen<T> = Arc<Mutex<Vec<T>>>;

struct Authority {
    answer: fn() -> Result<Vec<String>, Status>,
    seen: Seen<IstioCertificateRequest>,
}

#[tonic::async_trait]
impl IstioCertificateService for Authority {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        self.seen.lock().unwrap().push(request.into_inner());
        (self.answer)().map(|cert_chain| Response::new(IstioCertificateResponse { cert_chain }))
    }
}

struct Reports {
    answer: fn() -> Result<ReportResponse, Status>,
    seen: Seen<ReportRequest>,
}

#[tonic::async_trait]
impl NodeService for Reports {
    async fn report(&self, request: Request<ReportRequest>) -> Result<Response<ReportResponse>, Status> {
        self.seen.lock().unwrap().push(request.into_inner());
        (self.answer)().map(Response::new)
    }
}

async fn listen() -> (TcpListenerStream, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (TcpListenerStream::new(listener), address)
}

async fn ask(answer: fn() -> Result<Vec<String>, Status>) -> (Result<Vec<String>, CaError>, IstioCertificateRequest) {
    let (incoming, address) = listen().await;
    let seen = Seen::default();
    let service = IstioCertificateServiceServer::new(Authority { answer, seen: seen.clone() });
    tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
    let client = CaClient::new(Connector::tcp(address), Credentials::default());
    let request = CertificateRequest {
        csr: "PEM".to_owned(),
        identity: SpiffeId::new("cluster.local", "shop", "web").unwrap(),
        validity: Duration::from_secs(3600),
    };
    let result = client.issue(&request).await;
    let seen = seen.lock().unwrap().pop().unwrap();
    (result, seen)
}

#[tokio::test]
async fn a_certificate_is_asked_for_and_comes() {
    let (chain, seen) = ask(|| Ok(vec!["leaf".to_owned(), "root".to_owned()])).await;
    assert_eq!(chain.unwrap(), ["leaf", "root"]);
    assert_eq!((seen.csr.as_str(), seen.validity_duration), ("PEM", 3600));
    assert_eq!(impersonated_identity(&seen), Some("spiffe://cluster.local/ns/shop/sa/web"));
}

#[tokio::test]
async fn refusals_keep_their_reason_and_troubles_may_be_retried() {
    let (refused, _) = ask(|| Err(refuse(Reason::IdentityNotOnNode, "no such pod here"))).await;
    let refused = refused.unwrap_err();
    assert!(!refused.is_retryable());
    assert_eq!(refused.reason(), Reason::IdentityNotOnNode);
    let (foreign, _) = ask(|| Err(Status::permission_denied("no"))).await;
    assert_eq!(foreign.unwrap_err().reason(), Reason::NoCertificate);
    let (busy, _) = ask(|| Err(Status::resource_exhausted("later"))).await;
    assert!(busy.unwrap_err().is_retryable());
    let (short, _) = ask(|| Ok(vec!["leaf".to_owned()])).await;
    assert!(matches!(short, Err(CaError::ShortChain(1))));
}

#[tokio::test]
async fn nobody_there_may_be_retried() {
    let (incoming, address) = listen().await;
    drop(incoming);
    let client = CaClient::new(Connector::tcp(address), Credentials::default());
    let identity = SpiffeId::new("td", "a", "b").unwrap();
    let request = CertificateRequest { csr: String::new(), identity, validity: Duration::from_secs(1) };
    let error = client.issue(&request).await.unwrap_err();
    assert!(error.is_retryable() && matches!(error, CaError::Unavailable { .. }), "{error}");
}

async fn tell(answer: fn() -> Result<ReportResponse, Status>) -> (Result<Reported, ReportError>, ReportRequest) {
    let (incoming, address) = listen().await;
    let seen = Seen::default();
    let service = NodeServiceServer::new(Reports { answer, seen: seen.clone() });
    tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
    let reporter = Reporter::new(Connector::tcp(address), Credentials::default());
    let captured = vec![Uid::of_pod("c", "shop", "web-1")];
    let report = Report { node: "node-1".to_owned(), captured, agent_version: "1".to_owned() };
    let result = reporter.report(&report).await;
    let seen = seen.lock().unwrap().pop().unwrap();
    (result, seen)
}

#[tokio::test]
async fn a_report_arrives_and_says_what_was_not_believed() {
    fn answer() -> Result<ReportResponse, Status> {
        let one = Refused { uid: "c//Pod/a/b".to_owned(), reason: "wrong-node: elsewhere".to_owned() };
        Ok(ReportResponse { refused: vec![one] })
    }
    let (result, seen) = tell(answer).await;
    let expected = (Uid::of_pod("c", "a", "b"), "wrong-node: elsewhere".to_owned());
    assert_eq!(result.unwrap(), Reported::Accepted { refused: vec![expected] });
    assert_eq!((seen.node.as_str(), seen.captured), ("node-1", vec!["c//Pod/shop/web-1".to_owned()]));
}

#[tokio::test]
async fn a_control_plane_without_reports_is_fine_and_a_refusal_has_its_reason() {
    let (result, _) = tell(|| Err(Status::unimplemented("unknown service"))).await;
    assert_eq!(result.unwrap(), Reported::Unsupported);
    let (result, _) = tell(|| Err(refuse(Reason::WrongNode, "node-2"))).await;
    let Err(ReportError::Failed { code, reason, .. }) = result else { panic!("{result:?}") };
    assert_eq!((code, reason), (Code::PermissionDenied, Some(Reason::WrongNode)));
}
