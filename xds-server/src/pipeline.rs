//! From what is written to what is served: objects and reports in; catalog, placement and view out, always all of one
//! version. Runs whenever either input changed.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use weft_manifest::{Objects, Outcome};
use weft_model::{Mesh, Uid};
use weft_runtime::shared::{self, Reader, Writer, WriterGone};

use crate::catalog::Catalog;
use crate::difference::Changes;
use crate::placement::Placement;
use crate::serve::{Captured, Conditions};
use crate::translate::{MeshSettings, translate};

/// What the rest of the server reads.
#[derive(Debug, Clone)]
pub struct Served {
    /// Encoded resources; none until the source was read.
    pub catalog: Reader<Option<Catalog>>,
    /// Who runs where.
    pub placement: Reader<Placement>,
    /// Everything as an index, for the admin pages.
    pub mesh: Reader<Mesh>,
    /// What the catalog was made from; none until the source was read.
    pub programmed: Reader<Option<Programmed>>,
}

/// What a catalog was made from.
#[derive(Debug, Clone)]
pub struct Programmed {
    /// [`Catalog::stamp`].
    pub stamp: u64,
    /// The objects, and what is wrong with them.
    pub outcome: Arc<Outcome>,
}

/// What says which pods are captured.
#[derive(Debug, Clone)]
pub enum CapturedFrom {
    /// The reports of nodes, kept beside the objects.
    Reports(Reader<Captured>),
    /// The pods themselves: reports were written to them.
    Conditions,
}

impl CapturedFrom {
    async fn changed(&mut self) -> Result<(), WriterGone> {
        match self {
            Self::Reports(captured) => captured.changed().await,
            // It changes with the objects.
            Self::Conditions => std::future::pending().await,
        }
    }
}

/// See the [module](self).
#[derive(Debug)]
pub struct Pipeline {
    outcomes: Reader<Option<Arc<Outcome>>>,
    captured: CapturedFrom,
    settings: MeshSettings,
    catalog: Writer<Option<Catalog>>,
    placement: Writer<Placement>,
    mesh: Writer<Mesh>,
    programmed: Writer<Option<Programmed>>,
}

impl Pipeline {
    /// A pipeline that has not run yet, and what it will write.
    #[must_use]
    pub fn new(
        outcomes: Reader<Option<Arc<Outcome>>>,
        captured: CapturedFrom,
        settings: MeshSettings,
    ) -> (Self, Served) {
        let (catalog, catalog_reader) = shared::channel(None);
        let (placement, placement_reader) = shared::channel(Placement::default());
        let (mesh, mesh_reader) = shared::channel(Mesh::default());
        let (programmed, programmed_reader) = shared::channel(None);
        let served = Served {
            catalog: catalog_reader,
            placement: placement_reader,
            mesh: mesh_reader,
            programmed: programmed_reader,
        };
        (Self { outcomes, captured, settings, catalog, placement, mesh, programmed }, served)
    }

    /// Runs until the source is gone.
    pub async fn run(mut self) {
        loop {
            // Both inputs are loaded after their change was taken note of, so no version is missed.
            let outcome = self.outcomes.load();
            if let Some(outcome) = outcome.as_ref() {
                let believed = self.believed(outcome);
                let stamp = stamp(&outcome.objects);
                self.publish(&outcome.objects, &believed, stamp);
                self.programmed.publish(Some(Programmed { stamp, outcome: outcome.clone() }));
            }
            let gone = tokio::select! {
                changed = self.outcomes.changed() => changed.is_err(),
                changed = self.captured.changed() => changed.is_err(),
            };
            if gone {
                return;
            }
        }
    }

    fn believed(&self, outcome: &Outcome) -> BTreeSet<Uid> {
        match &self.captured {
            // A node's word counts only for pods that the source says run there.
            CapturedFrom::Reports(captured) => {
                captured.load().effective(|uid| node_of(&outcome.objects, &self.settings, uid))
            }
            // It was only written to those.
            CapturedFrom::Conditions => Conditions::captured(outcome, &self.settings.cluster),
        }
    }

    fn publish(&mut self, objects: &Objects, believed: &BTreeSet<Uid>, stamp: u64) {
        let resources = translate(objects, believed, &self.settings);
        let mesh = self.mesh.load();
        let Changes { changes, duplicates } = Changes::between(&mesh, resources);
        if !duplicates.is_empty() {
            tracing::warn!(?duplicates, "names that were given more than once; the first one counts");
        }
        let (catalog, differences) = self.catalog.load().as_ref().clone().unwrap_or_default().apply(&changes);
        for difference in differences.iter().filter(|difference| !difference.is_empty()) {
            tracing::info!(?difference, "programme changed");
        }
        // Placement first: whoever hears of a pod may ask for its certificate at once.
        let placement = self.placement.load().apply(&mesh, &changes);
        self.placement.publish(placement);
        self.catalog.publish(Some(catalog.stamped(stamp)));
        self.mesh.publish(mesh.apply(changes));
    }
}

/// Of the policies in force, which they are and in which state: the same number in every replica of this version.
fn stamp(objects: &Objects) -> u64 {
    let mut hasher = DefaultHasher::new();
    for (name, policy) in &objects.policies {
        (name, &policy.metadata.uid, policy.generation).hash(&mut hasher);
    }
    hasher.finish()
}

/// The node that the source places a pod on: only of a pod that is in the mesh's list (`translate` leaves out what has ended
/// or has no address yet).
fn node_of<'o>(objects: &'o Objects, settings: &MeshSettings, uid: &Uid) -> Option<&'o str> {
    let path = uid.0.strip_prefix(&*settings.cluster)?.strip_prefix("//Pod/")?;
    let (namespace, name) = path.split_once('/')?;
    let pod = objects.pods.get(&(namespace.to_owned(), name.to_owned()))?;
    let listed = !pod.is_finished() && !pod.addresses.is_empty() && !pod.node.is_empty();
    listed.then_some(&*pod.node)
}
