//! Which node holds which state of which policy, from what replicas say. Pure.
//!
//! A node acknowledges a state of all policies together, named by a stamp that every replica computes alike. The last states are
//! remembered, so a node that is one state behind still holds every policy that did not change since: one policy that is edited changes
//! nothing for the others.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use weft_manifest::{Objects, Revision};

use super::acknowledged::Acknowledged;

/// States that are remembered: a node that is further behind holds nothing that we know of.
const STATES: usize = 64;
/// How long a node counts as it was after nobody speaks of it any more: agents and replicas that are replaced come back within this
/// (`weft_wire::delta::BACKOFF` is at most 15 s).
pub(super) const ABSENCE: Duration = Duration::from_secs(20);

/// `(namespace, name)`.
type Name = (String, String);
/// All policies in force at one time.
type State = BTreeMap<Name, Revision>;

/// Whether a node holds a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holds {
    /// In this state.
    Yes,
    /// It could not use it.
    Refused,
    /// Not, or nobody knows.
    No,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Knowledge {
    /// Oldest first.
    states: VecDeque<(u64, Arc<State>)>,
    nodes: BTreeMap<Arc<str>, Node>,
}

#[derive(Debug)]
struct Node {
    state: Arc<State>,
    refused: BTreeSet<Arc<str>>,
    /// When somebody spoke of it last.
    seen: Duration,
}

impl Knowledge {
    /// What is programmed now.
    pub(super) fn programmed(&mut self, stamp: u64, objects: &Objects) {
        if self.states.back().is_some_and(|(last, _)| *last == stamp) {
            return;
        }
        self.states.retain(|(known, _)| *known != stamp);
        let state = objects.policies.iter().map(|(name, policy)| {
            let uid = policy.metadata.uid.clone().unwrap_or_default();
            (name.clone(), Revision { uid, generation: policy.generation.unwrap_or_default() })
        });
        self.states.push_back((stamp, Arc::new(state.collect())));
        if self.states.len() > STATES {
            self.states.pop_front();
        }
    }

    /// What replicas say at this time, all of them.
    pub(super) fn told(&mut self, said: &[Acknowledged], now: Duration) {
        let mut newest: BTreeMap<&Arc<str>, (usize, &BTreeSet<Arc<str>>)> = BTreeMap::new();
        for (node, stamp, refused) in said.iter().flat_map(Acknowledged::nodes) {
            let Some(at) = self.states.iter().position(|(known, _)| *known == stamp) else {
                // Ahead of us, or far behind: as it was.
                if let Some(node) = self.nodes.get_mut(node) {
                    node.seen = now;
                }
                continue;
            };
            let found = newest.entry(node).or_insert((at, refused));
            if at > found.0 {
                *found = (at, refused);
            }
        }
        for (node, (at, refused)) in newest {
            let state = self.states[at].1.clone();
            self.nodes.insert(node.clone(), Node { state, refused: refused.clone(), seen: now });
        }
        self.nodes.retain(|_, node| node.seen + ABSENCE > now);
    }

    /// Whether a node holds this state of a policy.
    pub(super) fn holds(&self, node: &str, namespace: &str, name: &str, revision: &Revision) -> Holds {
        let Some(node) = self.nodes.get(node) else { return Holds::No };
        if node.state.get(&(namespace.to_owned(), name.to_owned())) != Some(revision) {
            Holds::No
        } else if node.refused.contains(format!("{namespace}/{name}").as_str()) {
            Holds::Refused
        } else {
            Holds::Yes
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use weft_manifest::{Kind, Live};

    use super::*;
    use crate::serve::Settled;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn objects(policies: &[(&str, u64)]) -> Objects {
        let mut live = Live::default();
        for (name, generation) in policies {
            let metadata = json!({ "name": name, "namespace": "shop", "uid": name, "generation": generation });
            live.put(Kind::AuthorizationPolicy, &json!({ "metadata": metadata, "spec": {} }));
        }
        live.outcome().objects
    }

    fn says(nodes: &[(&str, u64, &[&str])]) -> Acknowledged {
        let settled = nodes.iter().map(|(node, stamp, refused)| {
            ((*node).into(), Settled { stamp: *stamp, refused: refused.iter().map(|name| (*name).into()).collect() })
        });
        Acknowledged::of(settled.collect())
    }

    fn holds(knowledge: &Knowledge, node: &str, name: &str, generation: u64) -> Holds {
        knowledge.holds(node, "shop", name, &Revision { uid: name.to_owned(), generation })
    }

    #[test]
    fn a_node_that_is_behind_holds_what_did_not_change() {
        let mut knowledge = Knowledge::default();
        knowledge.programmed(1, &objects(&[("a", 1), ("b", 1)]));
        knowledge.programmed(2, &objects(&[("a", 1), ("b", 2)]));
        knowledge.told(&[says(&[("behind", 1, &[])]), says(&[("here", 2, &["shop/a"]), ("lost", 77, &[])])], s(0));
        let all = [("behind", "a", 1), ("behind", "b", 2), ("here", "b", 2), ("here", "a", 1), ("lost", "a", 1)];
        let found = all.map(|(node, name, generation)| holds(&knowledge, node, name, generation));
        assert_eq!(found, [Holds::Yes, Holds::No, Holds::Yes, Holds::Refused, Holds::No]);
        let other_life = Revision { uid: "other".to_owned(), generation: 1 };
        assert_eq!(knowledge.holds("here", "shop", "a", &other_life), Holds::No);
    }

    #[test]
    fn of_two_words_about_a_node_the_newer_counts_and_one_that_is_ahead_changes_nothing() {
        let mut knowledge = Knowledge::default();
        knowledge.programmed(1, &objects(&[("a", 1)]));
        knowledge.programmed(2, &objects(&[("a", 2)]));
        knowledge.told(&[says(&[("n", 2, &[])]), says(&[("n", 1, &[])])], s(0));
        assert_eq!(holds(&knowledge, "n", "a", 2), Holds::Yes);
        knowledge.told(&[says(&[("n", 3, &[])])], s(30));
        assert_eq!(holds(&knowledge, "n", "a", 2), Holds::Yes, "ahead");
        knowledge.programmed(3, &objects(&[("a", 3)]));
        knowledge.told(&[says(&[("n", 3, &[])])], s(31));
        assert_eq!(holds(&knowledge, "n", "a", 3), Holds::Yes);
    }

    #[test]
    fn a_node_that_nobody_speaks_of_counts_for_a_while() {
        let mut knowledge = Knowledge::default();
        knowledge.programmed(1, &objects(&[("a", 1)]));
        knowledge.told(&[says(&[("n", 1, &[])])], s(100));
        knowledge.told(&[], s(119));
        assert_eq!(holds(&knowledge, "n", "a", 1), Holds::Yes);
        knowledge.told(&[], s(120));
        assert_eq!(holds(&knowledge, "n", "a", 1), Holds::No);
    }

    #[test]
    fn few_states_are_remembered_and_one_that_comes_again_is_the_newest() {
        let mut knowledge = Knowledge::default();
        for stamp in 0..200 {
            knowledge.programmed(stamp, &objects(&[]));
        }
        knowledge.programmed(150, &objects(&[]));
        assert_eq!((knowledge.states.len(), knowledge.states.back().map(|(stamp, _)| *stamp)), (STATES, Some(150)));
    }
}
