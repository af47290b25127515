//! Where the control plane's inputs come from and its state is kept: a directory and files of its own, or Kubernetes. [`Platform::open`] is the
//! only place that tells the two apart; everything else is the same.

use std::sync::{Arc, Mutex};

use anyhow::Context;
use tokio::task::JoinSet;
use weft_identity::signer::{LeafLifetime, Signer};
use weft_kubernetes::files::SharedSecret;
use weft_kubernetes::{CapturedWriter, Client, Feed, Leadership, Replica, Replicas, Scope, connect};
use weft_manifest::{Outcome, Watch};
use weft_runtime::drain;
use weft_runtime::metrics::Registry;
use weft_runtime::shared::Reader;

use crate::ca::shared;
use crate::ca::steward::{self, Steward, StewardParts};
use crate::config::{Arguments, Source};
use crate::pipeline::{CapturedFrom, Served};
use crate::serve::{Authenticate, CapturedStore, Conditions, Keep, NodeTokens, Nodes, ReviewedTokens};
use crate::source::{self, Shown};
use crate::status::{self, StatusParts};

/// See the [module](self).
pub(crate) struct Platform {
    /// The objects in force.
    pub(crate) outcomes: Reader<Option<Arc<Outcome>>>,
    /// What says which pods are captured.
    pub(crate) captured: CapturedFrom,
    /// Where reports of that go.
    pub(crate) keep: Arc<dyn Keep>,
    /// Whether an earlier life of this mesh is remembered: without that, agents are told nothing before reports have come in.
    pub(crate) remembers: bool,
    /// Who may call.
    pub(crate) authenticate: Arc<dyn Authenticate>,
    /// The file of tokens, where there is one, for its findings.
    pub(crate) tokens: Option<Arc<NodeTokens>>,
    /// Where the root is shared, if it is.
    pub(crate) cluster: Option<Cluster>,
    /// The source ends when they are dropped.
    _source: (Option<Watch>, Option<Feed>),
}

/// What only Kubernetes has.
pub(crate) struct Cluster {
    pub(crate) client: Client,
    pub(crate) secret: SharedSecret,
}

impl Platform {
    /// Begins to read the source.
    ///
    /// # Errors
    /// It cannot be used: says which setting is wrong.
    pub(crate) async fn open(arguments: &Arguments, registry: &Registry) -> anyhow::Result<Self> {
        let named = || format!("--source {}", arguments.source);
        match &arguments.source {
            Source::Directory(directory) => {
                let path =
                    arguments.node_tokens.as_ref().with_context(|| format!("{} needs --node-tokens", named()))?;
                let tokens = Arc::new(NodeTokens::open(path)?);
                let (store, captured) = CapturedStore::open(&arguments.state_dir)?;
                // Last good versions outlive us: a Deny policy whose file is broken now must stay in force over a restart.
                let memory = arguments.state_dir.join("last-good");
                let source = source::start(directory, Some(&memory), registry).with_context(named)?;
                Ok(Self {
                    outcomes: source.outcomes,
                    captured: CapturedFrom::Reports(captured),
                    remembers: store.remembers(),
                    keep: Arc::new(Mutex::new(store)),
                    authenticate: tokens.clone(),
                    tokens: Some(tokens),
                    cluster: None,
                    _source: (Some(source.watch), None),
                })
            }
            Source::Kubernetes(kubeconfig) => {
                let client = connect(kubeconfig.as_deref()).await.with_context(named)?;
                let mut shown = Shown::new(registry);
                let feed = Feed::start(&client, &Scope::Cluster, move |outcome| shown.show(outcome));
                let writer = CapturedWriter::new(client.clone());
                let keep = Conditions::new(writer, feed.outcomes.clone(), arguments.cluster.as_str().into());
                let account = &arguments.agent_account;
                Ok(Self {
                    outcomes: feed.outcomes.clone(),
                    captured: CapturedFrom::Conditions,
                    // The pods do.
                    remembers: true,
                    keep: Arc::new(keep),
                    authenticate: Arc::new(ReviewedTokens::new(client.clone(), &arguments.token_audience, account)),
                    tokens: None,
                    cluster: Some(Cluster {
                        secret: SharedSecret::new(client.clone(), &arguments.namespace, shared::SECRET),
                        client,
                    }),
                    _source: (None, Some(feed)),
                })
            }
        }
    }
}

impl Cluster {
    /// Brings the root into the state directory, unless another one was given.
    ///
    /// # Errors
    /// The Secret cannot be read or made.
    pub(crate) async fn fetch_root(&self, arguments: &Arguments) -> anyhow::Result<()> {
        if arguments.ca_cert.is_none() {
            let now = weft_identity::clock::system().now();
            shared::fetch(&self.secret, &arguments.state_dir, &arguments.trust_domain, now).await?;
        }
        Ok(())
    }

    /// Writes what becomes of policies, where this replica leads; gives whether it does.
    pub(crate) fn keep_status(
        &self,
        arguments: &Arguments,
        (served, nodes): (&Served, &Nodes),
        drain: drain::Watch,
        tasks: &mut JoinSet<()>,
    ) -> Leadership {
        let replica = replica(arguments);
        let (namespace, programmed) = (arguments.namespace.clone(), served.programmed.clone());
        let parts = StatusParts { namespace, replica, programmed, nodes: nodes.clone(), drain };
        status::start(&self.client, parts, tasks)
    }

    /// Follows the Secret, and rotates its root, where this replica leads.
    pub(crate) fn keep_root(
        &self,
        arguments: &Arguments,
        (signer, leadership): (Reader<Signer>, Leadership),
        tasks: &mut JoinSet<()>,
    ) {
        if arguments.ca_cert.is_some() {
            return;
        }
        let parts = StewardParts {
            secret: self.secret.clone(),
            replicas: Replicas::new(self.client.clone(), &arguments.namespace, replica(arguments)),
            leadership,
            signer,
            state_dir: arguments.state_dir.clone(),
            trust_domain: arguments.trust_domain.clone(),
            lifetime: LeafLifetime::up_to(arguments.certificate_life),
            clock: weft_identity::clock::system(),
            look: steward::LOOK,
        };
        tasks.spawn(Steward::new(parts).run());
    }

    /// Publishes the roots.
    pub(crate) fn publish_roots(&self, arguments: &Arguments, signer: Reader<Signer>, tasks: &mut JoinSet<()>) {
        tasks.spawn(shared::publish_roots(self.client.clone(), arguments.namespace.clone(), signer));
    }
}

fn replica(arguments: &Arguments) -> Replica {
    Replica { name: arguments.pod_name.clone(), uid: arguments.pod_uid.clone() }
}
