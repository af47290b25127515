//! What the certificate store counts.

use std::time::UNIX_EPOCH;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use weft_model::{Reason, SpiffeId};
use weft_runtime::metrics::Registry;

use crate::certificate::Validity;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Identity {
    identity: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Failure {
    reason: &'static str,
}

/// Expiry per identity, certificates issued, failures by reason.
#[derive(Debug, Clone, Default)]
pub struct StoreMetrics {
    expiry: Family<Identity, Gauge>,
    issued: Counter,
    failures: Family<Failure, Counter>,
}

impl StoreMetrics {
    /// Registers `weft_certificate_expiry_timestamp_seconds{identity}`, `weft_certificates_issued_total` and
    /// `weft_certificate_failures_total{reason}`.
    #[must_use]
    pub fn new(registry: &Registry) -> Self {
        let metrics = Self::default();
        registry.register(|registry| {
            let help = "When the certificate in use expires, seconds since 1970";
            registry.register("weft_certificate_expiry_timestamp_seconds", help, metrics.expiry.clone());
            registry.register("weft_certificates_issued", "Certificates received from the CA", metrics.issued.clone());
            let help = "Requests for a certificate that did not give one";
            registry.register("weft_certificate_failures", help, metrics.failures.clone());
        });
        metrics
    }

    pub(super) fn issued(&self, identity: &SpiffeId, validity: Validity) {
        let seconds = validity.not_after.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let label = Identity { identity: identity.to_string() };
        self.expiry.get_or_create(&label).set(i64::try_from(seconds).unwrap_or(i64::MAX));
        self.issued.inc();
    }

    pub(super) fn failed(&self, reason: Reason) {
        self.failures.get_or_create(&Failure { reason: reason.code() }).inc();
    }

    pub(super) fn forget(&self, identity: &SpiffeId) {
        self.expiry.remove(&Identity { identity: identity.to_string() });
    }
}
