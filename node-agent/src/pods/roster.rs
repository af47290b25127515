//! What has to be done about the pods of this node: wanted ones against those that the capture half has in hand. Pure.

use std::{collections::BTreeMap, time::Duration};

use super::spec::{PodSpec, PodUid};

/// A pod that the capture half has in hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Present {
    /// As it was last told.
    pub spec: PodSpec,
    /// Where it stands.
    pub stage: Stage,
}

/// Where a pod stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Looked at once and found without rules of ours, or freed from them.
    Clean,
    /// Captured, or about to be (failures are retried by themselves).
    Captured,
    /// Leaving.
    Releasing {
        /// Time since its callers could be told of it, once all that is new goes direct; `None` before that.
        left: Option<Duration>,
        /// Connections that proxies still relay; `None`: not all of them have said.
        relaying: Option<u64>,
        /// Time since the release began.
        age: Duration,
    },
}

/// How patient a release is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReleasePatience {
    /// Peers with an old view of the mesh still send HBONE for this long after they could be told, relayed connections or not.
    pub grace: Duration,
    /// After this long what is still relayed is cut.
    pub deadline: Duration,
}

impl Default for ReleasePatience {
    /// Grace 5 s: xDS reaches every node within one or two. Deadline 1 h: un-enrolling is no emergency, and long-lived
    /// database connections are worth waiting for.
    fn default() -> Self {
        Self { grace: Duration::from_secs(5), deadline: Duration::from_secs(3600) }
    }
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Capture it.
    Start(PodSpec),
    /// It is in another namespace than before: let go of the old one, then capture it.
    Restart(PodSpec),
    /// Something else of it changed, or it comes back while it was leaving.
    Change(PodSpec),
    /// Selected, but its network namespace is not known: nothing can be done, and that must be visible.
    Wait(PodSpec),
    /// Not selected and never looked at: remove what an earlier life of the capture half may have left.
    Clean(PodSpec),
    /// Relayed connections go on, new ones go direct.
    BeginRelease(PodUid),
    /// Take the rules away.
    FinishRelease(PodUid),
    /// The pod is gone: close its sockets. Its rules stay, closed, as long as its namespace lives.
    Forget(PodUid),
}

/// Compares. Same input, same answer: calling it again after the actions were begun gives none.
#[must_use]
pub fn plan(wanted: &[PodSpec], present: &BTreeMap<PodUid, Present>, patience: ReleasePatience) -> Vec<Action> {
    let mut actions: Vec<_> = wanted
        .iter()
        .filter_map(|spec| match present.get(&spec.uid) {
            None => newcomer(spec),
            Some(known) => known_pod(spec, known, patience),
        })
        .collect();
    let gone = present.keys().filter(|uid| !wanted.iter().any(|spec| spec.uid == **uid));
    actions.extend(gone.map(|uid| Action::Forget(uid.clone())));
    actions
}

fn newcomer(spec: &PodSpec) -> Option<Action> {
    match (spec.enrolled, &spec.netns) {
        (true, Some(_)) => Some(Action::Start(spec.clone())),
        (true, None) => Some(Action::Wait(spec.clone())),
        (false, Some(_)) => Some(Action::Clean(spec.clone())),
        (false, None) => None,
    }
}

fn known_pod(spec: &PodSpec, known: &Present, patience: ReleasePatience) -> Option<Action> {
    // A namespace that is not named any more is still the pod's.
    let moved = spec.netns.is_some() && spec.netns != known.spec.netns;
    let changed = moved || PodSpec { netns: known.spec.netns.clone(), ..spec.clone() } != known.spec;
    match (spec.enrolled, known.stage) {
        (true, Stage::Clean) => Some(Action::Start(spec.clone())),
        (true, _) if moved => Some(Action::Restart(spec.clone())),
        (true, Stage::Captured) => changed.then(|| Action::Change(spec.clone())),
        (true, Stage::Releasing { .. }) => Some(Action::Change(spec.clone())),
        // Without an address its namespace was not entered.
        (false, Stage::Clean) => {
            (moved || (changed && known.spec.addresses.is_empty())).then(|| Action::Clean(spec.clone()))
        }
        (false, Stage::Captured) => Some(Action::BeginRelease(spec.uid.clone())),
        (false, Stage::Releasing { left, relaying, age }) => {
            let finished = relaying == Some(0) && left.is_some_and(|since| since >= patience.grace);
            (finished || age >= patience.deadline).then(|| Action::FinishRelease(spec.uid.clone()))
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn spec(uid: &str) -> PodSpec {
        PodSpec {
            uid: uid.into(),
            name: uid.to_owned(),
            namespace: "shop".into(),
            service_account: "default".into(),
            addresses: vec!["10.0.0.1".parse().unwrap()],
            netns: Some(uid.to_owned()),
            strict: false,
            enrolled: true,
            probe_ports: std::collections::BTreeSet::new(),
        }
    }

    fn plain() -> PodSpec {
        PodSpec { enrolled: false, ..spec("a") }
    }

    fn moved() -> PodSpec {
        PodSpec { netns: Some("new".into()), ..spec("a") }
    }

    fn unplaced() -> PodSpec {
        PodSpec { netns: None, ..spec("a") }
    }

    fn strict() -> PodSpec {
        PodSpec { strict: true, ..spec("a") }
    }

    /// It could be told of a second after it began.
    fn releasing(relaying: Option<u64>, seconds: u64) -> Option<Stage> {
        let age = Duration::from_secs(seconds);
        Some(Stage::Releasing { left: age.checked_sub(Duration::from_secs(1)), relaying, age })
    }

    /// Its last rules do not stand yet.
    fn stuck(seconds: u64) -> Option<Stage> {
        Some(Stage::Releasing { left: None, relaying: Some(0), age: Duration::from_secs(seconds) })
    }

    const CAPTURED: Option<Stage> = Some(Stage::Captured);
    const CLEAN: Option<Stage> = Some(Stage::Clean);

    #[rstest]
    #[case::newcomer(spec("a"), None, Some(Action::Start(spec("a"))))]
    #[case::newcomer_without_place(unplaced(), None, Some(Action::Wait(unplaced())))]
    #[case::newcomer_not_selected(plain(), None, Some(Action::Clean(plain())))]
    #[case::nothing_known_nothing_wanted(PodSpec { netns: None, ..plain() }, None, None)]
    #[case::as_before(spec("a"), CAPTURED, None)]
    #[case::place_not_named_any_more(unplaced(), CAPTURED, None)]
    #[case::changed(strict(), CAPTURED, Some(Action::Change(strict())))]
    #[case::moved(moved(), CAPTURED, Some(Action::Restart(moved())))]
    #[case::leaves(plain(), CAPTURED, Some(Action::BeginRelease("a".into())))]
    #[case::joins(spec("a"), CLEAN, Some(Action::Start(spec("a"))))]
    #[case::stays_out(plain(), CLEAN, None)]
    #[case::stays_out_elsewhere(PodSpec { enrolled: false, ..moved() }, CLEAN, Some(Action::Clean(PodSpec { enrolled: false, ..moved() })))]
    #[case::comes_back(spec("a"), releasing(Some(2), 9), Some(Action::Change(spec("a"))))]
    #[case::still_relays(plain(), releasing(Some(2), 900), None)]
    #[case::has_not_said(plain(), releasing(None, 900), None)]
    #[case::too_early(plain(), releasing(Some(0), 5), None)]
    #[case::finished(plain(), releasing(Some(0), 6), Some(Action::FinishRelease("a".into())))]
    #[case::has_not_left_yet(plain(), stuck(900), None)]
    #[case::never_left(plain(), stuck(3600), Some(Action::FinishRelease("a".into())))]
    #[case::too_long(plain(), releasing(Some(2), 3600), Some(Action::FinishRelease("a".into())))]
    fn one_pod(#[case] wanted: PodSpec, #[case] stage: Option<Stage>, #[case] expected: Option<Action>) {
        let known = stage.map(|stage| {
            let enrolled = stage == Stage::Captured;
            Present { spec: PodSpec { enrolled, ..spec("a") }, stage }
        });
        let present = known.into_iter().map(|known| ("a".into(), known)).collect();
        let actions = plan(&[wanted], &present, ReleasePatience::default());
        assert_eq!(actions, Vec::from_iter(expected));
    }

    #[test]
    fn a_pod_that_had_no_address_is_looked_at_again_when_it_has_one() {
        let before = PodSpec { addresses: Vec::new(), ..plain() };
        let known = |spec| BTreeMap::from([("a".into(), Present { spec, stage: Stage::Clean })]);
        let patience = ReleasePatience::default();
        assert_eq!(plan(&[plain()], &known(before.clone()), patience), [Action::Clean(plain())]);
        assert_eq!(plan(std::slice::from_ref(&before), &known(before.clone()), patience), []);
    }

    #[test]
    fn pods_that_are_gone_are_forgotten_in_every_stage() {
        for stage in [Stage::Captured, Stage::Clean, releasing(None, 0).unwrap()] {
            let present = BTreeMap::from([("a".into(), Present { spec: spec("a"), stage })]);
            assert_eq!(
                plan(&[spec("b")], &present, ReleasePatience::default()),
                [Action::Start(spec("b")), Action::Forget("a".into())]
            );
        }
    }
}
