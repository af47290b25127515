//! A replica: as much of the program as the root needs.

use std::path::Path;
use std::time::{Duration, SystemTime};

use tokio::task::JoinSet;
use weft_identity::signer::{LeafLifetime, Signer};
use weft_identity::{Credentials, clock};
use weft_kubernetes::files::SharedSecret;
use weft_kubernetes::{Candidate, Leadership, Replicas};
use weft_model::SpiffeId;
use weft_runtime::drain;
use weft_runtime::metrics::Registry;
use weft_runtime::shared::Reader;
use weft_xds_server::ca::shared::{self, SharedError};
use weft_xds_server::ca::steward::{Steward, StewardParts};
use weft_xds_server::ca::{CaSettings, Keeper, RootSource};

use crate::api::{Api, NAMESPACE};

/// A step lasts for this, a quarter more, and a second.
const LIFE: Duration = Duration::from_secs(1);
/// How often the Secret is looked at.
const LOOK: Duration = Duration::from_millis(100);
const DOMAIN: &str = "cluster.local";

pub(crate) struct Replica {
    state: tempfile::TempDir,
    signer: Reader<Signer>,
    leadership: Leadership,
    trigger: drain::Trigger,
    tasks: JoinSet<()>,
}

impl Replica {
    pub(crate) async fn fetch(api: &Api, state: &Path) -> Result<(), SharedError> {
        let secret = SharedSecret::new(api.client().await, NAMESPACE, shared::SECRET);
        shared::fetch(&secret, state, DOMAIN, SystemTime::now()).await
    }

    /// With nothing but what the API server knows.
    pub(crate) async fn start(api: &Api, name: &str) -> Self {
        api.pod(name);
        let (state, client) = (tempfile::TempDir::new().unwrap(), api.client().await);
        Self::fetch(api, state.path()).await.unwrap();
        let lifetime = LeafLifetime::up_to(LIFE);
        let settings = CaSettings {
            state_dir: state.path().to_owned(),
            source: RootSource::Shared,
            trust_domain: DOMAIN.to_owned(),
            lifetime,
        };
        let (keeper, signer) = Keeper::open(settings, clock::system(), &Registry::new("t", "0")).unwrap();
        let (candidate, leadership) = Candidate::new(client.clone(), NAMESPACE, "weft-xds-server", name);
        let (trigger, watch) = drain::channel();
        let parts = StewardParts {
            secret: SharedSecret::new(client.clone(), NAMESPACE, shared::SECRET),
            replicas: Replicas::new(
                client,
                NAMESPACE,
                weft_kubernetes::Replica { name: name.to_owned(), uid: Some(name.to_owned()) },
            ),
            leadership: leadership.clone(),
            signer: signer.clone(),
            state_dir: state.path().to_owned(),
            trust_domain: DOMAIN.to_owned(),
            lifetime,
            clock: clock::system(),
            look: LOOK,
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(keeper.run());
        tasks.spawn(candidate.run(watch));
        tasks.spawn(Steward::new(parts).run());
        Self { state, signer, leadership, trigger, tasks }
    }

    /// Ends as at SIGTERM: the lease is given back.
    pub(crate) async fn end(self) {
        let _outcome = self.trigger.drain(LIFE).await;
        drop((self.tasks, self.state));
    }

    pub(crate) fn leads(&self) -> bool {
        self.leadership.holds_for(Duration::ZERO)
    }

    pub(crate) fn issue(&self) -> Credentials {
        let id = SpiffeId::new(DOMAIN, "shop", "web").unwrap();
        self.signer.load().issue(&id, None, SystemTime::now()).unwrap()
    }

    /// How many roots it hands out.
    pub(crate) fn roots(&self) -> usize {
        self.signer.load().roots().certificates().len()
    }

    /// The one that signs, PEM: the first of them.
    pub(crate) fn root(&self) -> String {
        let text = self.signer.load().roots().to_pem();
        text.split_inclusive("-----END CERTIFICATE-----\n").next().unwrap().to_owned()
    }
}

/// A text as the data of a Secret.
pub(crate) fn encoded(text: &str) -> String {
    base64(text.as_bytes())
}

/// RFC 4648.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let bits = three.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for place in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * place) & 63) as usize];
            text.push(if place > three.len() { '=' } else { char::from(letter) });
        }
    }
    text
}
