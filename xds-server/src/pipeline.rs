//! From what is written to what is served: objects and reports in; catalog, placement and view out, always all of one
//! version. Runs whenever either input changed.

use std::collections::BTreeSet;
use std::sync::Arc;

use weft_manifest::{Objects, Outcome};
use weft_model::{Change, Mesh, Resource, Uid};
use weft_runtime::shared::{self, Reader, Writer};

use crate::catalog::Catalog;
use crate::placement::Placement;
use crate::serve::Captured;
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
}

/// See the [module](self).
#[derive(Debug)]
pub struct Pipeline {
    outcomes: Reader<Option<Arc<Outcome>>>,
    captured: Reader<Captured>,
    settings: MeshSettings,
    catalog: Writer<Option<Catalog>>,
    placement: Writer<Placement>,
    mesh: Writer<Mesh>,
}

impl Pipeline {
    /// A pipeline that has not run yet, and what it will write.
    #[must_use]
    pub fn new(
        outcomes: Reader<Option<Arc<Outcome>>>,
        captured: Reader<Captured>,
        settings: MeshSettings,
    ) -> (Self, Served) {
        let (catalog, catalog_reader) = shared::channel(None);
        let (placement, placement_reader) = shared::channel(Placement::default());
        let (mesh, mesh_reader) = shared::channel(Mesh::default());
        let served = Served { catalog: catalog_reader, placement: placement_reader, mesh: mesh_reader };
        (Self { outcomes, captured, settings, catalog, placement, mesh }, served)
    }

    /// Runs until the source is gone.
    pub async fn run(mut self) {
        loop {
            // Both inputs are loaded after their change was taken note of, so no version is missed.
            let (outcome, captured) = (self.outcomes.load(), self.captured.load());
            if let Some(outcome) = outcome.as_ref() {
                self.publish(&outcome.objects, &captured);
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

    fn publish(&mut self, objects: &Objects, captured: &Captured) {
        // A node's word counts only for pods that the source says run there.
        let believed = believed(objects, captured, &self.settings);
        let resources = translate(objects, &believed, &self.settings);
        let before = self.catalog.load();
        let (next, differences) = before.as_ref().clone().unwrap_or_default().update(&resources);
        for difference in differences.iter().filter(|difference| !difference.is_empty()) {
            tracing::info!(?difference, "programme changed");
        }
        // Placement first: whoever hears of a pod may ask for its certificate at once.
        self.placement.publish(Placement::of(&resources));
        self.catalog.publish(Some(next));
        self.mesh.publish(Mesh::default().apply(resources.into_iter().map(Change::Upsert).collect()));
    }
}

fn believed(objects: &Objects, captured: &Captured, settings: &MeshSettings) -> BTreeSet<Uid> {
    let placed: Vec<Resource> = translate(objects, &BTreeSet::new(), settings);
    let placement = Placement::of(&placed);
    captured.effective(|uid| placement.node_of(uid).map(|node| &**node))
}
