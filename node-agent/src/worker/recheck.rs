//! Which live connections a change of the mesh concerns, and which of them must end.
//!
//! Connections are kept by the workload whose policies permitted them: there are as many of those as pods of this node, however
//! many connections each has and however large the mesh is. After a change the [`Basis`] of each is compared, and only the
//! connections behind one that changed are evaluated again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use weft_model::authz::{Basis, Connection, evaluate};
use weft_model::workload::{Uid, Workload};
use weft_model::{Mesh, Reason};

/// What a re-check found. A connection whose workload names a policy that has not been received stays for the `wait` that
/// the caller gives: a control plane names it first and sends it right behind, and who is permitted by both the old and the
/// new policies must not be cut in between.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rechecked {
    /// Connections that were evaluated again.
    pub evaluated: usize,
    /// Connections that were cut.
    pub cut: usize,
    /// Some wait for a policy that is on its way: check again when the wait is over.
    pub waiting: bool,
}

/// The permitted connections of one worker, by workload.
#[derive(Default)]
pub(super) struct Checks {
    by_workload: HashMap<Uid, Watched>,
}

struct Watched {
    workload: Arc<Workload>,
    /// None: not known, so the next change concerns it. A connection was checked by a version that may be
    /// older than the one that could be asked now.
    basis: Option<Basis>,
    connections: HashMap<usize, Check>,
    waiting: bool,
}

struct Check {
    connection: Connection,
    /// Since when the workload names a policy that has not been received.
    unknown_since: Option<Instant>,
}

impl Checks {
    /// The connection of that number was checked against the policies of `workload`.
    pub(super) fn enter(&mut self, id: usize, workload: &Arc<Workload>, connection: Connection) {
        let watched = self.by_workload.entry(workload.uid.clone()).or_insert_with(|| Watched {
            workload: workload.clone(),
            basis: None,
            connections: HashMap::new(),
            waiting: false,
        });
        watched.connections.insert(id, Check { connection, unknown_since: None });
    }

    /// It is over.
    pub(super) fn leave(&mut self, id: usize, workload: &Uid) {
        let Some(watched) = self.by_workload.get_mut(workload) else { return };
        watched.connections.remove(&id);
        if watched.connections.is_empty() {
            self.by_workload.remove(workload);
        }
    }

    /// The numbers of the connections that must end.
    pub(super) fn recheck(&mut self, mesh: &Mesh, now: Instant, wait: Duration) -> (Vec<usize>, Rechecked) {
        let (mut failed, mut done) = (Vec::new(), Rechecked::default());
        for watched in self.by_workload.values_mut() {
            let basis = Basis::of(mesh, &watched.workload);
            if !watched.waiting && watched.basis.as_ref() == Some(&basis) {
                continue;
            }
            watched.basis = Some(basis);
            // A workload that the mesh has dropped is judged as it was known last, by the policies of now.
            if let Some(workload) = mesh.workload(&watched.workload.uid) {
                watched.workload = workload.clone();
            }
            watched.waiting = false;
            for (id, check) in &mut watched.connections {
                done.evaluated += 1;
                if check.fails(mesh, &watched.workload, now, wait) {
                    failed.push(*id);
                } else {
                    watched.waiting |= check.unknown_since.is_some();
                }
            }
            done.waiting |= watched.waiting;
        }
        (failed, done)
    }
}

impl Check {
    /// Whether the connection must end. A policy that is on its way is waited for.
    fn fails(&mut self, mesh: &Mesh, workload: &Workload, now: Instant, wait: Duration) -> bool {
        let since = self.unknown_since.take();
        match evaluate(mesh, workload, &self.connection).enforced {
            Ok(_) => false,
            Err(denial) if denial.reason == Reason::PolicyUnknown => {
                let since = since.unwrap_or(now);
                self.unknown_since = Some(since);
                now.duration_since(since) >= wait
            }
            Err(_) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::time::Instant;
    use weft_model::authz::{Action, Connection, Mode, Policy, PolicyKey, Scope};
    use weft_model::change::{Change, Resource, ResourceKey};
    use weft_model::{Mesh, Workload};

    use super::{Checks, Rechecked};

    const WAIT: Duration = Duration::from_secs(2);

    fn pod(number: usize) -> Workload {
        Workload::named("Kubernetes", if number.is_multiple_of(2) { "even" } else { "odd" }, &format!("p{number}"))
    }

    fn put(resource: Resource) -> Vec<Change> {
        vec![Change::Upsert(resource)]
    }

    fn default_deny(namespace: &str) -> Policy {
        let (key, groups) = (PolicyKey::new(namespace, "deny"), Vec::new());
        Policy { key, scope: Scope::Namespace, action: Action::Allow, mode: Mode::Enforce, groups }
    }

    /// Four pods of this node with 100 connections each, in a mesh of many.
    fn scene(others: usize) -> (Mesh, Checks) {
        let workloads = (0..others + 4).map(|number| Change::Upsert(Resource::Workload(pod(number))));
        let mesh = Mesh::default().apply(workloads.collect());
        let mut checks = Checks::default();
        for id in 0..400 {
            let workload = Arc::clone(mesh.workload(&pod(id % 4).uid).unwrap());
            let connection = Connection {
                identity: None,
                source: "10.0.0.9".parse().unwrap(),
                destination: "10.0.0.1:80".parse().unwrap(),
            };
            checks.enter(id, &workload, connection);
        }
        // What was entered is looked at once, whatever the change.
        assert_eq!(checks.recheck(&mesh, Instant::now(), WAIT).1.evaluated, 400);
        (mesh, checks)
    }

    #[tokio::test]
    async fn a_change_costs_by_what_it_concerns_and_not_by_the_mesh() {
        for others in [10, 10_000] {
            let (mesh, mut checks) = scene(others);
            let mut evaluated = |mesh: &Mesh| checks.recheck(mesh, Instant::now(), WAIT).1.evaluated;
            let mesh = mesh.apply(put(Resource::Workload(pod(7))));
            assert_eq!(evaluated(&mesh), 0, "another node's pod");
            let mesh = mesh.apply(put(Resource::Policy(default_deny("elsewhere"))));
            assert_eq!(evaluated(&mesh), 0, "another namespace's policy");
            let mesh = mesh.apply(put(Resource::Workload(pod(1))));
            assert_eq!(evaluated(&mesh), 100, "one pod of this node");
            let mesh = mesh.apply(put(Resource::Policy(default_deny("even"))));
            assert_eq!(evaluated(&mesh), 200, "the two pods of the namespace");
        }
    }

    #[tokio::test]
    async fn only_who_is_no_longer_permitted_ends() {
        let (mesh, mut checks) = scene(0);
        let denied = mesh.apply(put(Resource::Policy(default_deny("odd"))));
        let (mut failed, _) = checks.recheck(&denied, Instant::now(), WAIT);
        failed.sort_unstable();
        assert_eq!(failed, (0..400).filter(|id| id % 2 == 1).collect::<Vec<_>>());
        for id in failed {
            checks.leave(id, &pod(id % 4).uid);
        }
        assert_eq!(checks.by_workload.len(), 2);
        let key = ResourceKey::Policy(default_deny("odd").key);
        let (failed, done) = checks.recheck(&denied.apply(vec![Change::Remove(key)]), Instant::now(), WAIT);
        assert_eq!((failed, done), (vec![], Rechecked::default()));
    }

    #[tokio::test]
    async fn a_policy_on_its_way_is_waited_for_and_a_dropped_workload_is_judged_as_it_was() {
        let (mesh, mut checks) = scene(0);
        let begin = Instant::now();
        let mut named = pod(0);
        named.policies = vec![PolicyKey::new("even", "soon")];
        let mesh = mesh.apply(put(Resource::Workload(named)));
        let (failed, done) = checks.recheck(&mesh, begin, WAIT);
        assert_eq!((failed.len(), done.waiting, done.evaluated), (0, true, 100));
        let (failed, done) = checks.recheck(&mesh, begin + WAIT, WAIT);
        assert_eq!((failed.len(), done.evaluated), (100, 100), "looked at again without a change");
        let mesh = mesh.apply(vec![Change::Remove(ResourceKey::Workload(pod(2).uid))]);
        let (failed, done) = checks.recheck(&mesh, begin, WAIT);
        assert_eq!((failed.len(), done.evaluated), (0, 100), "permitted before, and by what holds now");
    }
}
