//! The endpoints of one service, in the shape that choosing wants: groups of endpoints that are alike, so that one can be
//! drawn by weight in a number of steps that does not grow with the service, and so that a change of one endpoint shares
//! the rest with the version before.

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::{Rng, RngExt};
use rpds::{HashTrieMapSync, VectorSync};

use crate::workload::{Health, Uid, Workload};

/// What the endpoints of one group have in common. A service has as many groups as zones, twice that while some are not
/// ready, and more only where weights differ.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Kind {
    /// Ready for connections.
    pub(super) healthy: bool,
    /// Its network.
    pub(super) network: Arc<str>,
    /// Its region.
    pub(super) region: Arc<str>,
    /// Its zone.
    pub(super) zone: Arc<str>,
    /// The weight, rounded down to a power of two; none for a weight of 0, which is never drawn.
    scale: Option<u32>,
}

impl Kind {
    fn of(workload: &Workload) -> Self {
        Self {
            healthy: workload.health == Health::Healthy,
            network: workload.network.clone(),
            region: workload.locality.region.clone(),
            zone: workload.locality.zone.clone(),
            scale: workload.capacity.checked_ilog2(),
        }
    }
}

#[derive(Debug, Clone, Default)]
struct Group {
    members: VectorSync<Arc<Workload>>,
    /// Sum of the members' weights.
    weight: u64,
}

/// Immutable; a change to one workload makes a new set, which costs by the logarithm of its size.
#[derive(Debug, Clone, Default)]
pub struct EndpointSet {
    groups: BTreeMap<Kind, Group>,
    places: HashTrieMapSync<Uid, (Kind, usize)>,
}

impl EndpointSet {
    /// All endpoints, healthy or not, in no particular order.
    pub fn workloads(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.groups.values().flat_map(|group| &group.members)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.size()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The workload of that uid, if it is one.
    #[must_use]
    pub fn get(&self, uid: &Uid) -> Option<&Arc<Workload>> {
        let (kind, index) = self.places.get(uid)?;
        self.groups.get(kind)?.members.get(*index)
    }

    /// The kinds that there are.
    pub(super) fn kinds(&self) -> impl Iterator<Item = &Kind> {
        self.groups.keys()
    }

    /// The endpoints of the kinds that `open` names.
    pub(super) fn of_kinds(&self, open: impl Fn(&Kind) -> bool) -> impl Iterator<Item = &Arc<Workload>> {
        self.groups.iter().filter(move |(kind, _)| open(kind)).flat_map(|(_, group)| &group.members)
    }

    /// One endpoint of the kinds that `open` names, by weight.
    pub(super) fn draw(&self, rng: &mut impl Rng, open: impl Fn(&Kind) -> bool) -> Option<&Arc<Workload>> {
        let groups = || self.groups.iter().filter(|(kind, _)| open(kind));
        let total: u64 = groups().map(|(_, group)| group.weight).sum();
        if total == 0 {
            return None;
        }
        let mut left = rng.random_range(0..total);
        let mut drawn = groups().find(|(_, group)| {
            let hit = left < group.weight;
            left = left.saturating_sub(group.weight);
            hit
        });
        let (kind, group) = drawn.take()?;
        // All weights of a group are between its scale and twice that, so an even draw that is kept by weight is kept with at
        // least one chance in two. So many misses come once in four thousand million draws; then the last is as good.
        const MISSES: usize = 32;
        let ceiling = 2_u64 << kind.scale?;
        let mut last = None;
        for _ in 0..MISSES {
            let member = group.members.get(rng.random_range(0..group.members.len()))?;
            last = Some(member);
            let alike = group.weight == u64::from(member.capacity) * group.members.len() as u64;
            if alike || rng.random_range(0..ceiling) < u64::from(member.capacity) {
                break;
            }
        }
        last
    }

    /// Puts this workload in, or in the place of what it was before.
    pub(super) fn put(&mut self, workload: &Arc<Workload>) {
        self.take(&workload.uid);
        let kind = Kind::of(workload);
        let group = self.groups.entry(kind.clone()).or_default();
        self.places.insert_mut(workload.uid.clone(), (kind, group.members.len()));
        group.members.push_back_mut(workload.clone());
        group.weight += u64::from(workload.capacity);
    }

    /// Takes this workload out. The last of its group moves into its place.
    pub(super) fn take(&mut self, uid: &Uid) {
        let Some((kind, index)) = self.places.get(uid).cloned() else { return };
        self.places.remove_mut(uid);
        let Some(group) = self.groups.get_mut(&kind) else { return };
        let Some(last) = group.members.last().cloned() else { return };
        if let Some(gone) = group.members.get(index) {
            group.weight -= u64::from(gone.capacity);
        }
        group.members.drop_last_mut();
        if index < group.members.len() {
            self.places.insert_mut(last.uid.clone(), (kind.clone(), index));
            group.members.set_mut(index, last);
        }
        if group.members.is_empty() {
            self.groups.remove(&kind);
        }
    }
}
