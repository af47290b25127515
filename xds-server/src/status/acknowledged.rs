//! What the agents of one replica have acknowledged, in few words. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::serve::Settled;

/// Names of a policy, `NAMESPACE/NAME`.
type Names = BTreeSet<Arc<str>>;

/// Nodes by the state of the policies that they hold (`Catalog::stamp`), each with the policies that it refuses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Acknowledged {
    stamps: BTreeMap<u64, BTreeMap<Arc<str>, Names>>,
}

impl Acknowledged {
    /// Of these nodes.
    #[must_use]
    pub fn of(nodes: BTreeMap<Arc<str>, Settled>) -> Self {
        let mut stamps: BTreeMap<u64, BTreeMap<Arc<str>, Names>> = BTreeMap::new();
        for (node, settled) in nodes {
            stamps.entry(settled.stamp).or_default().insert(node, settled.refused);
        }
        Self { stamps }
    }

    /// As another replica reads it. Of a few thousand nodes some 20 bytes each.
    #[must_use]
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// What another replica has said; none if it speaks another language.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// Each node with the state that it holds and what it refuses.
    pub(super) fn nodes(&self) -> impl Iterator<Item = (&Arc<str>, u64, &Names)> {
        self.stamps.iter().flat_map(|(stamp, nodes)| nodes.iter().map(|(node, refused)| (node, *stamp, refused)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_map, btree_set};
    use proptest::prelude::{any, prop_assert_eq, proptest};

    use super::*;

    proptest! {
        #[test]
        fn what_is_said_is_understood(
            nodes in btree_map("[a-z0-9.-]{1,9}", (any::<u64>(), btree_set("[a-z]{1,5}/[a-z]{1,5}", 0..3)), 0..9)
        ) {
            let settled = nodes.into_iter().map(|(node, (stamp, refused))| {
                (node.into(), Settled { stamp, refused: refused.into_iter().map(Into::into).collect() })
            });
            let said = Acknowledged::of(settled.collect());
            prop_assert_eq!(Acknowledged::from_text(&said.to_text()), Some(said));
        }
    }

    #[test]
    fn another_language_is_not_understood() {
        assert_eq!(Acknowledged::from_text("[]"), None);
        assert_eq!(Acknowledged::from_text("{\"1\":{\"node\":[]}}").unwrap().nodes().count(), 1);
    }
}
