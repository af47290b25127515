//! Kubernetes objects as they change: lists and watches of every kind that Weft reads, as one consistent value.
//!
//! Nothing is said before each kind was listed once: a mesh without its policies would be another mesh. After that, changes that come
//! together are told together. A watch that fails is begun anew, and what is known stays meanwhile.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use weft_manifest::{Kind, Live, ObjectKey, Outcome};
use weft_runtime::shared::{self, Reader, Writer};

use crate::client::Client;
use crate::scope::Scope;
use crate::watches::{self, Tell};

/// Changes that come within this of each other are one: a Deployment that scales changes pods, slices and services at once.
const TOGETHER: Duration = Duration::from_millis(20);
/// Nobody waits longer than this for changes that never end.
const AT_MOST: Duration = Duration::from_millis(200);

/// Running watches. Dropping it ends them.
#[derive(Debug)]
pub struct Feed {
    /// What is in force; `None` until everything was listed once.
    pub outcomes: Reader<Option<Arc<Outcome>>>,
    _tasks: JoinSet<()>,
}

impl Feed {
    /// Begins to watch. `seen` is called with each new state before it is published.
    #[must_use]
    pub fn start(client: &Client, scope: &Scope, seen: impl FnMut(&Outcome) + Send + 'static) -> Self {
        let (sender, receiver) = mpsc::channel(1024);
        let mut tasks = JoinSet::new();
        for kind in scope.kinds() {
            tasks.spawn(forward(kind, client.clone(), scope.clone(), sender.clone()));
        }
        let (writer, outcomes) = shared::channel(None);
        let collector =
            Collector { live: Live::default(), missing: scope.kinds().into_iter().collect(), listing: Vec::new() };
        tasks.spawn(collect(collector, receiver, writer, seen));
        Self { outcomes, _tasks: tasks }
    }
}

async fn forward(kind: Kind, client: Client, scope: Scope, sender: mpsc::Sender<(Kind, Tell)>) {
    loop {
        let mut watch = watches::of(kind, &client, &scope);
        while let Some(tell) = watch.next().await {
            let unknown = matches!(tell, Tell::NoSuchKind);
            if sender.send((kind, tell)).await.is_err() {
                return;
            }
            if unknown {
                break;
            }
        }
        tokio::time::sleep(watches::UNKNOWN_KIND_REST).await;
    }
}

async fn collect(
    mut collector: Collector,
    mut tells: mpsc::Receiver<(Kind, Tell)>,
    mut writer: Writer<Option<Arc<Outcome>>>,
    mut seen: impl FnMut(&Outcome),
) {
    while let Some((kind, tell)) = tells.recv().await {
        let mut changed = collector.take(kind, tell);
        let end = Instant::now() + AT_MOST;
        // Whatever follows closely comes along.
        while let Ok(Some((kind, tell))) = timeout_at(end.min(Instant::now() + TOGETHER), tells.recv()).await {
            changed |= collector.take(kind, tell);
        }
        if changed && collector.missing.is_empty() {
            let outcome = Arc::new(collector.live.outcome());
            if writer.load().as_ref().as_ref() != Some(&outcome) {
                seen(&outcome);
                writer.publish(Some(outcome));
            }
        }
    }
}

/// What has been told so far.
#[derive(Debug)]
struct Collector {
    live: Live,
    /// Kinds that have not been listed yet.
    missing: BTreeSet<Kind>,
    /// Lists that have begun: the names so far. What they do not name is gone when they are complete, not before.
    listing: Vec<(Kind, BTreeSet<ObjectKey>)>,
}

impl Collector {
    /// Takes one tell in; says whether anything may have changed.
    fn take(&mut self, kind: Kind, tell: Tell) -> bool {
        match tell {
            Tell::Begin => {
                self.listing.retain(|(listed, _)| *listed != kind);
                self.listing.push((kind, BTreeSet::new()));
                self.live.forget_nameless(kind);
                false
            }
            Tell::Listed(object) => {
                let key = self.live.put(kind, &object);
                if let Some((_, names)) = self.listing.iter_mut().find(|(listed, _)| *listed == kind) {
                    names.extend(key);
                }
                false
            }
            Tell::Complete => {
                if let Some(at) = self.listing.iter().position(|(listed, _)| *listed == kind) {
                    let (_, names) = self.listing.swap_remove(at);
                    self.live.keep_only(kind, &names);
                }
                self.missing.remove(&kind);
                true
            }
            Tell::Put(object) => {
                self.live.put(kind, &object);
                true
            }
            Tell::Gone(namespace, name) => {
                self.live.remove(&ObjectKey { kind, namespace, name });
                true
            }
            Tell::Failed(why) => {
                tracing::warn!(%kind, why, "a watch failed and begins anew; what is known stays in force");
                false
            }
            Tell::NoSuchKind => self.no_such_kind(kind),
        }
    }

    /// Only our own kinds can be missing: then there are no objects of it. What was known stays: a definition that is removed by
    /// mistake must not take the policies along.
    fn no_such_kind(&mut self, kind: Kind) -> bool {
        let problem = "the API server does not know this kind; expected its CustomResourceDefinition: `weft install`";
        tracing::error!(%kind, problem);
        self.live.note(kind, Some(problem.to_owned()));
        self.missing.remove(&kind);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use weft_manifest::{Kind, Live};

    use super::{Collector, Scope};
    use crate::watches::{Tell, named};

    fn collector() -> Collector {
        Collector { live: Live::default(), missing: Scope::Cluster.kinds().into_iter().collect(), listing: Vec::new() }
    }

    fn names(collector: &Collector) -> BTreeSet<String> {
        collector.live.outcome().objects.service_accounts.keys().map(|(_, name)| name.clone()).collect()
    }

    #[test]
    fn a_new_list_takes_away_what_it_does_not_name_when_it_is_complete_and_not_before() {
        let mut collector = collector();
        let kind = Kind::ServiceAccount;
        collector.take(kind, Tell::Begin);
        for name in ["a", "b"] {
            assert!(!collector.take(kind, Tell::Listed(named("shop", name))));
        }
        assert!(collector.take(kind, Tell::Complete) && !collector.missing.contains(&kind));
        collector.take(kind, Tell::Put(named("shop", "c")));
        // The watch was lost; the next list breaks off once.
        collector.take(kind, Tell::Begin);
        collector.take(kind, Tell::Listed(named("shop", "b")));
        assert!(!collector.take(kind, Tell::Failed("away".to_owned())));
        collector.take(kind, Tell::Begin);
        collector.take(kind, Tell::Listed(named("shop", "c")));
        assert_eq!(names(&collector), ["a", "b", "c"].map(str::to_owned).into());
        collector.take(kind, Tell::Complete);
        assert_eq!(names(&collector), ["c".to_owned()].into());
        assert!(collector.take(kind, Tell::Gone("shop".to_owned(), "c".to_owned())));
        assert!(names(&collector).is_empty());
    }

    #[test]
    fn nothing_is_complete_before_every_kind_was_listed_and_a_kind_that_is_not_there_is_said() {
        let mut collector = collector();
        for kind in Kind::ALL {
            assert!(!collector.missing.is_empty());
            if kind == Kind::AuthorizationPolicy {
                collector.take(kind, Tell::NoSuchKind);
            } else {
                collector.take(kind, Tell::Begin);
                collector.take(kind, Tell::Complete);
            }
        }
        assert!(collector.missing.is_empty());
        assert!(collector.live.outcome().findings.iter().any(|finding| finding.problem.contains("weft install")));
        collector.take(Kind::AuthorizationPolicy, Tell::Begin);
        assert!(!collector.live.outcome().findings.iter().any(|finding| finding.problem.contains("weft install")));
    }
}
