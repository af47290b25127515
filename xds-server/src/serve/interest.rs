//! Who gets what. Pure.
//!
//! Everybody gets everything for now. The rule has its place already, asked for every name with the caller at hand: later
//! a node sees only what its own pods may talk to, and nothing else has to change.

use std::sync::Arc;

use weft_wire::convert::{Encoded, ResourceType};
use weft_wire::delta::Snapshot;

use super::caller::Caller;
use crate::catalog::Catalog;

/// The catalog as one caller may see it.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    catalog: &'a Catalog,
    caller: &'a Caller,
}

impl<'a> View<'a> {
    /// For this caller.
    #[must_use]
    pub fn new(catalog: &'a Catalog, caller: &'a Caller) -> Self {
        Self { catalog, caller }
    }
}

/// Whether the caller may see the resource: the agent of any node needs every service, every peer and every policy, since
/// any of its pods may call any other.
fn may_see(_caller: &Caller, kind: ResourceType, _name: &str) -> bool {
    match kind {
        ResourceType::Address | ResourceType::Authorization => true,
    }
}

impl Snapshot for View<'_> {
    fn sequence(&self, kind: ResourceType) -> u64 {
        self.catalog.sequence(kind)
    }

    fn get(&self, kind: ResourceType, name: &str) -> Option<&Encoded> {
        self.catalog.get(kind, name).filter(|_| may_see(self.caller, kind, name))
    }

    fn names(&self, kind: ResourceType) -> Box<dyn Iterator<Item = &Arc<str>> + '_> {
        Box::new(self.catalog.names(kind).filter(move |name| may_see(self.caller, kind, name)))
    }

    /// Names that became invisible are in it, too: looking them up then finds nothing, which is a removal.
    fn changed_since(&self, kind: ResourceType, sequence: u64) -> Option<Vec<Arc<str>>> {
        self.catalog.changed_since(kind, sequence)
    }
}
