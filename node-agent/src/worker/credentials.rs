//! Where the data path gets certificates from, and the TLS configurations made of them, cached per worker.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::time::Instant;
use weft_identity::Credentials;
use weft_identity::tls::{ClientConfig, ServerConfig, TlsError, client_config, server_config};
use weft_model::{Reason, SpiffeId};

/// What waiting for credentials gives.
pub type Awaited<'a> = Pin<Box<dyn Future<Output = Result<Arc<Credentials>, CredentialsError>> + Send + 'a>>;

/// Gives the credentials of this node's workloads. The certificate store is one; tests have fixed ones.
pub trait CredentialSource: Send + Sync + 'static {
    /// Those that are valid now; never waits.
    fn current(&self, identity: &SpiffeId) -> Option<Arc<Credentials>>;

    /// As [`Self::current`], but waits until the deadline for the first ones, and asks for them ahead of what is only refreshed.
    fn wait<'a>(&'a self, identity: &'a SpiffeId, deadline: Instant) -> Awaited<'a>;
}

/// No credentials.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no certificate for {identity}: {why}")]
pub struct CredentialsError {
    /// For whom.
    pub identity: SpiffeId,
    /// What stands in the way.
    pub why: String,
}

impl CredentialsError {
    /// The code for log, metric and status.
    #[must_use]
    pub fn reason(&self) -> Reason {
        Reason::NoCertificate
    }
}

/// Configurations that a worker keeps before it starts anew. 4096 peers of one node at about 1 KB each are 4 MB; making one
/// again costs microseconds.
const LARGEST_CACHE: usize = 4096;

type Peers = Arc<[SpiffeId]>;
/// Configurations beside the credentials that they were made of.
type Cache<K, V> = RefCell<HashMap<K, (Arc<Credentials>, Arc<V>)>>;

/// TLS configurations by credentials. A renewal replaces them.
#[derive(Clone)]
pub struct TlsConfigs {
    source: Arc<dyn CredentialSource>,
    servers: Rc<Cache<SpiffeId, ServerConfig>>,
    clients: Rc<Cache<(SpiffeId, Peers), ClientConfig>>,
}

impl TlsConfigs {
    /// An empty cache over a source.
    #[must_use]
    pub fn new(source: Arc<dyn CredentialSource>) -> Self {
        Self { source, servers: Rc::default(), clients: Rc::default() }
    }

    /// What the workload accepts tunnels with.
    ///
    /// # Errors
    /// [`TlsUnavailable`] when there are no credentials by the deadline.
    pub async fn server(&self, identity: &SpiffeId, deadline: Instant) -> Result<Arc<ServerConfig>, TlsUnavailable> {
        let credentials = self.credentials(identity, deadline).await?;
        cached(&self.servers, identity.clone(), &credentials, || server_config(&credentials))
    }

    /// What the workload opens tunnels to one of `peers` with.
    ///
    /// # Errors
    /// As [`Self::server`].
    pub async fn client(
        &self,
        identity: &SpiffeId,
        peers: &Peers,
        deadline: Instant,
    ) -> Result<Arc<ClientConfig>, TlsUnavailable> {
        let credentials = self.credentials(identity, deadline).await?;
        let key = (identity.clone(), peers.clone());
        cached(&self.clients, key, &credentials, || client_config(&credentials, peers))
    }

    /// The last moment of the certificate that an identity has now.
    #[must_use]
    pub fn not_after(&self, identity: &SpiffeId) -> Option<SystemTime> {
        self.source.current(identity).map(|credentials| credentials.validity().not_after)
    }

    async fn credentials(&self, identity: &SpiffeId, deadline: Instant) -> Result<Arc<Credentials>, CredentialsError> {
        match self.source.current(identity) {
            Some(credentials) => Ok(credentials),
            None => self.source.wait(identity, deadline).await,
        }
    }
}

fn cached<K, V>(
    cache: &Cache<K, V>,
    key: K,
    credentials: &Arc<Credentials>,
    make: impl FnOnce() -> Result<Arc<V>, TlsError>,
) -> Result<Arc<V>, TlsUnavailable>
where
    K: Eq + std::hash::Hash,
{
    let mut cache = cache.borrow_mut();
    if let Some((made_of, config)) = cache.get(&key)
        && Arc::ptr_eq(made_of, credentials)
    {
        return Ok(config.clone());
    }
    let config = make()?;
    if cache.len() >= LARGEST_CACHE {
        cache.clear();
    }
    cache.insert(key, (credentials.clone(), config.clone()));
    Ok(config)
}

/// No TLS configuration for a workload.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TlsUnavailable {
    /// No certificate.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// A certificate that TLS does not take.
    #[error(transparent)]
    Config(#[from] TlsError),
}

impl TlsUnavailable {
    /// The code for log, metric and status.
    #[must_use]
    pub fn reason(&self) -> Reason {
        Reason::NoCertificate
    }
}

impl fmt::Debug for TlsConfigs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsConfigs").finish_non_exhaustive()
    }
}
