//! `istio.v1.auth.IstioCertificateService`: asks who calls, decides, signs, counts.

use std::sync::Arc;
use std::time::Instant;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use tonic::{Extensions, Request, Response, Status};
use weft_identity::clock::SharedClock;
use weft_identity::signer::Signer;
use weft_model::{Reason, SpiffeId};
use weft_runtime::metrics::Registry;
use weft_runtime::quota::{Allowance, Quota};
use weft_runtime::shared::Reader;
use weft_wire::ca::impersonated_identity;
use weft_wire::proto::istio::v1::auth::istio_certificate_service_server::IstioCertificateService;
use weft_wire::proto::istio::v1::auth::{IstioCertificateRequest, IstioCertificateResponse};
use weft_wire::refusal::{reason_of, refuse};

use crate::ca::policy::{Asked, decide};

/// Tells the node that calls, from what authentication left in the request (`serve::caller_of`), or refuses.
pub type Identify = Arc<dyn Fn(&Extensions) -> Result<Arc<str>, Status> + Send + Sync>;

/// Tells whether a pod with the identity runs on the node.
pub type RunsOn = Arc<dyn Fn(&str, &SpiffeId) -> bool + Send + Sync>;

/// Requests of one node. A node with 500 pods (the most that anybody configures) may start with all of them at once, and
/// renews each twice an hour afterwards; a signature costs the server a fraction of a millisecond.
const PER_NODE: Allowance = Allowance { burst: 600, per_second: 20.0 };

/// The largest request: a certificate request with an RSA key of 8192 bits is 4 KiB, ours is half of one.
pub const REQUEST_LIMIT: usize = 16 * 1024;

/// The service. `IstioCertificateServiceServer::new` of `weft_wire::proto` makes it a tonic service.
pub struct CertificateService {
    signer: Reader<Signer>,
    trust_domain: String,
    quota: Quota<Arc<str>>,
    identify: Identify,
    runs_on: RunsOn,
    clock: SharedClock,
    metrics: CaMetrics,
}

impl CertificateService {
    /// A service that signs with `signer` for `trust_domain`.
    #[must_use]
    pub fn new(
        signer: Reader<Signer>,
        trust_domain: &str,
        identify: Identify,
        runs_on: RunsOn,
        clock: SharedClock,
        metrics: CaMetrics,
    ) -> Self {
        let (trust_domain, quota) = (trust_domain.to_owned(), Quota::new(PER_NODE));
        Self { signer, trust_domain, quota, identify, runs_on, clock, metrics }
    }

    /// Everything but the transport.
    fn answer(&self, node: &Arc<str>, request: &IstioCertificateRequest) -> Result<Vec<String>, Refused> {
        if !self.quota.take(node, Instant::now()) {
            let detail = format!("more than {} certificate requests of the node at once", PER_NODE.burst);
            return Err(Refused { reason: Reason::Overloaded, detail });
        }
        let asked = Asked {
            node,
            csr_pem: &request.csr,
            impersonated: impersonated_identity(request),
            validity_seconds: request.validity_duration,
        };
        let granted = decide(&asked, &self.trust_domain, |node, identity| (self.runs_on)(node, identity))
            .map_err(|refusal| Refused { reason: refusal.reason(), detail: refusal.to_string() })?;
        let chain = self
            .signer
            .load()
            .sign(&granted.request, granted.ttl, self.clock.now())
            .map_err(|error| Refused { reason: error.reason(), detail: error.to_string() })?;
        tracing::debug!(%node, identity = %granted.request.identity(), "certificate issued");
        Ok(chain)
    }
}

/// What is logged, counted and answered.
struct Refused {
    reason: Reason,
    detail: String,
}

#[tonic::async_trait]
impl IstioCertificateService for CertificateService {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let node = (self.identify)(request.extensions())
            .inspect_err(|status| self.metrics.refused(reason_of(status).unwrap_or(Reason::Unauthenticated)))?;
        match self.answer(&node, request.get_ref()) {
            Ok(cert_chain) => {
                self.metrics.issued.inc();
                Ok(Response::new(IstioCertificateResponse { cert_chain }))
            }
            Err(Refused { reason, detail }) => {
                self.metrics.refused(reason);
                let peer = request.remote_addr().map(|address| address.to_string()).unwrap_or_default();
                tracing::warn!(%node, %peer, reason = reason.code(), detail, "certificate refused");
                Err(refuse(reason, &detail))
            }
        }
    }
}

impl std::fmt::Debug for CertificateService {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("CertificateService").field("trust_domain", &self.trust_domain).finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Refusals {
    reason: &'static str,
}

/// What the CA counts.
#[derive(Debug, Clone, Default)]
pub struct CaMetrics {
    issued: Counter,
    refused: Family<Refusals, Counter>,
}

impl CaMetrics {
    /// Registers `weft_ca_issued_total` and `weft_ca_refused_total{reason}`.
    #[must_use]
    pub fn new(registry: &Registry) -> Self {
        let metrics = Self::default();
        registry.register(|registry| {
            registry.register("weft_ca_issued", "Certificates issued to nodes", metrics.issued.clone());
            let help = "Certificate requests refused, by reason";
            registry.register("weft_ca_refused", help, metrics.refused.clone());
        });
        metrics
    }

    fn refused(&self, reason: Reason) {
        self.refused.get_or_create(&Refusals { reason: reason.code() }).inc();
    }
}
