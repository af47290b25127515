//! Which certificates this node needs: one for each identity of the pods that it serves, asked for when the pod comes and
//! forgotten when the last one leaves. Also hands them to the data path.

use std::sync::Arc;

use tokio::time::Instant;
use weft_identity::{Credentials, Priority, Store};
use weft_model::SpiffeId;

use crate::dispatch::PodObserver;
use crate::worker::credentials::{Awaited, CredentialSource, CredentialsError};
use crate::worker::served::ServedPod;

/// The certificate store as the rest of the proxy half sees it.
#[derive(Debug, Clone)]
pub struct Certificates {
    store: Store,
}

impl Certificates {
    /// Over a store whose driver runs elsewhere.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self { store }
    }
}

impl PodObserver for Certificates {
    fn came(&self, pod: &ServedPod) {
        self.store.ensure(&pod.identity, Priority::WarmUp);
    }

    fn went(&self, pod: &ServedPod) {
        self.store.release(&pod.identity);
    }
}

impl CredentialSource for Certificates {
    fn current(&self, identity: &SpiffeId) -> Option<Arc<Credentials>> {
        self.store.credentials(identity)
    }

    fn wait<'a>(&'a self, identity: &'a SpiffeId, deadline: Instant) -> Awaited<'a> {
        Box::pin(async move {
            let outcome = self.store.wait(identity, deadline).await;
            outcome.map_err(|error| CredentialsError { identity: error.identity, why: error.detail })
        })
    }
}
