//! Credentials on demand, of one root: the certificate store of tests that are about something else.

use std::collections::HashMap;
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
}

impl Issuer {
    pub(crate) fn new() -> Self {
        let now = SystemTime::now();
        let root = RootMaterial::create("cluster.local", Duration::from_secs(3600), now).unwrap();
        let signer = Signer::load(&root.certificate_pem, &root.key_pem, None, LeafLifetime::default(), now).unwrap();
        Self { signer, issued: Mutex::default() }
    }
}

impl CredentialSource for Issuer {
    fn current(&self, identity: &SpiffeId) -> Option<Arc<Credentials>> {
        let mut issued = self.issued.lock().unwrap();
        let issue = || Arc::new(self.signer.issue(identity, None, SystemTime::now()).unwrap());
        Some(issued.entry(identity.clone()).or_insert_with(issue).clone())
    }

    fn wait<'a>(&'a self, identity: &'a SpiffeId, _: Instant) -> Awaited<'a> {
        let missing = CredentialsError { identity: identity.clone(), why: "no issuer".to_owned() };
        Box::pin(async move { self.current(identity).ok_or(missing) })
    }
}
