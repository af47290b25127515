//! Credentials on demand, of one root: the certificate store of tests that are about something else.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;
use weft_identity::Credentials;
use weft_identity::signer::{LeafLifetime, RootMaterial, Signer};
use weft_model::SpiffeId;
use weft_node_agent::worker::credentials::{Awaited, CredentialSource, CredentialsError};

/// See the [module](self).
pub(crate) struct Issuer {
    signer: Signer,
    issued: Mutex<HashMap<SpiffeId, Arc<Credentials>>>,
    /// Issues nothing more; what is there serves until it expires.
    pub(crate) away: AtomicBool,
}

impl Issuer {
    pub(crate) fn new() -> Self {
        Self::with_life(LeafLifetime::default())
    }

    pub(crate) fn with_life(life: LeafLifetime) -> Self {
        let now = SystemTime::now();
        let root = RootMaterial::create("cluster.local", Duration::from_secs(3600), now).unwrap();
        let signer = Signer::load(&root.certificate_pem, &root.key_pem, None, life, now).unwrap();
        Self { signer, issued: Mutex::default(), away: AtomicBool::new(false) }
    }
}

impl CredentialSource for Issuer {
    fn current(&self, identity: &SpiffeId) -> Option<Arc<Credentials>> {
        let mut issued = self.issued.lock().unwrap();
        let now = SystemTime::now();
        if let Some(credentials) = issued.get(identity).filter(|one| !one.validity().is_expired(now)) {
            return Some(credentials.clone());
        }
        if self.away.load(Ordering::Relaxed) {
            return None;
        }
        let credentials = Arc::new(self.signer.issue(identity, None, now).unwrap());
        issued.insert(identity.clone(), credentials.clone());
        Some(credentials)
    }

    fn wait<'a>(&'a self, identity: &'a SpiffeId, _: Instant) -> Awaited<'a> {
        let missing = CredentialsError { identity: identity.clone(), why: "no issuer".to_owned() };
        Box::pin(async move { self.current(identity).ok_or(missing) })
    }
}
