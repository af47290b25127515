//! What a server has to give, seen from a session.

use std::sync::Arc;

use crate::convert::{Encoded, ResourceType};

/// One consistent version of everything a server has. Sessions ask for what changed, so that a push costs by the size of
/// the change and not by the size of the mesh.
pub trait Snapshot {
    /// Grows with each change of this type.
    fn sequence(&self, kind: ResourceType) -> u64;

    /// The resource of that name.
    fn get(&self, kind: ResourceType, name: &str) -> Option<&Encoded>;

    /// All names, in any order.
    fn names(&self, kind: ResourceType) -> Box<dyn Iterator<Item = &Arc<str>> + '_>;

    /// Names that were put or removed after `sequence`; none if that is too long ago to know.
    fn changed_since(&self, kind: ResourceType, sequence: u64) -> Option<Vec<Arc<str>>>;
}
