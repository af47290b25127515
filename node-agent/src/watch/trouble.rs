//! Pods that cannot be captured, as the capture half shows them in its status file: which to announce now. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use crate::pods::UncapturedReason;

/// A trouble that is over before that is none: a pod that has just come is looked for a moment.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// One that lasts is said again after this: the same Event, counted (kube's recorder counts within 6 min).
pub(super) const AGAIN: Duration = Duration::from_secs(5 * 60);

/// What is wrong with one pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trouble {
    pub(super) uid: String,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) reason: UncapturedReason,
    /// For people.
    pub(super) note: String,
}

/// What counts of the status file.
#[derive(Debug, Deserialize)]
struct Shown {
    pods: BTreeMap<String, ShownPod>,
}

#[derive(Debug, Deserialize)]
struct ShownPod {
    namespace: String,
    name: String,
    state: String,
    uncaptured: Option<UncapturedReason>,
    error: Option<String>,
}

/// The troubles in the text of a status file; of one that cannot be read none.
pub(super) fn troubles(text: &str) -> Vec<Trouble> {
    let Ok(shown) = serde_json::from_str::<Shown>(text) else { return Vec::new() };
    let trouble = |(uid, pod): (String, ShownPod)| {
        let reason = pod.uncaptured?;
        let state = if pod.state == "closed" {
            "nothing goes in or out until it can be captured"
        } else {
            "what it sends and receives is not protected"
        };
        let error = pod.error.map(|error| format!(" ({error})")).unwrap_or_default();
        let note = format!("not captured: {}{error}; {state}. {}", cause(reason), next(reason));
        Some(Trouble { uid, namespace: pod.namespace, name: pod.name, reason, note })
    };
    shown.pods.into_iter().filter_map(trouble).collect()
}

fn cause(reason: UncapturedReason) -> &'static str {
    match reason {
        UncapturedReason::Unplaced => "its network namespace is not found",
        UncapturedReason::Namespace => "its network namespace cannot be entered",
        UncapturedReason::WrongNamespace => "the network namespace that was found is not proven to be its own",
        UncapturedReason::HbonePortTaken => "a program of the pod listens on port 15008, which is the mesh's",
        UncapturedReason::Sockets => "listeners cannot be made in it",
        UncapturedReason::Rules => "rules or routes cannot be put into it",
        UncapturedReason::Connections => "the connections that it has cannot be read or reset",
    }
}

fn next(reason: UncapturedReason) -> &'static str {
    match reason {
        UncapturedReason::HbonePortTaken => "Let the program use another port",
        UncapturedReason::Unplaced
        | UncapturedReason::Namespace
        | UncapturedReason::WrongNamespace
        | UncapturedReason::Sockets
        | UncapturedReason::Rules
        | UncapturedReason::Connections => "See the log of `capture` in the weft-node-agent of its node",
    }
}

/// What was said of which pod.
#[derive(Debug, Default)]
pub(super) struct Said(BTreeMap<String, Known>);

#[derive(Debug)]
struct Known {
    reason: UncapturedReason,
    since: Duration,
    said: Option<Duration>,
}

impl Said {
    /// Which of the troubles of now to announce. A pod that is well again is forgotten.
    pub(super) fn due(&mut self, troubles: Vec<Trouble>, now: Duration) -> Vec<Trouble> {
        self.0.retain(|uid, _| troubles.iter().any(|trouble| trouble.uid == *uid));
        let due = |trouble: &Trouble| {
            let new = Known { reason: trouble.reason, since: now, said: None };
            let known = self.0.entry(trouble.uid.clone()).or_insert_with(|| new);
            if known.reason != trouble.reason {
                // Of another cause of the same trouble is told at once.
                *known = Known { reason: trouble.reason, since: known.since, said: None };
            }
            let due = match known.said {
                None => known.since + PATIENCE <= now,
                Some(said) => said + AGAIN <= now,
            };
            if due {
                known.said = Some(now);
            }
            due
        };
        troubles.into_iter().filter(due).collect()
    }

    /// It could not be said: the next time.
    pub(super) fn take_back(&mut self, uid: &str) {
        if let Some(known) = self.0.get_mut(uid) {
            known.said = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{AGAIN, Duration, Said, Trouble, UncapturedReason, troubles};
    use crate::capture::status::{CaptureStatus, PodState, PodStatus};

    fn pod(name: &str, state: PodState, uncaptured: Option<UncapturedReason>) -> (crate::pods::PodUid, PodStatus) {
        let (namespace, name) = ("shop".to_owned(), name.to_owned());
        let error = uncaptured.map(|_| "address in use".to_owned());
        (name.as_str().into(), PodStatus { namespace, name, state, uncaptured, error, ..PodStatus::default() })
    }

    #[test]
    fn the_file_of_the_capture_half_is_understood() {
        let pods = [
            pod("well", PodState::Captured, None),
            pod("closed", PodState::Closed, Some(UncapturedReason::HbonePortTaken)),
            pod("plain", PodState::Waiting, Some(UncapturedReason::Unplaced)),
        ];
        let status = CaptureStatus { pods: pods.into(), ..CaptureStatus::default() };
        let found = troubles(&serde_json::to_string(&status).unwrap());
        let said: Vec<(&str, &str)> = found.iter().map(|found| (found.uid.as_str(), found.reason.word())).collect();
        assert_eq!(said, [("closed", "hbone-port-taken"), ("plain", "unplaced")]);
        assert!(found[0].note.contains("15008") && found[0].note.contains("(address in use); nothing goes in or out"));
        assert!(found[1].note.contains("is not protected"));
        assert!(troubles("{").is_empty());
    }

    fn trouble(uid: &str, reason: UncapturedReason) -> Trouble {
        let (namespace, name) = ("shop".to_owned(), uid.to_owned());
        Trouble { uid: uid.to_owned(), namespace, name, reason, note: String::new() }
    }

    #[test]
    fn what_lasts_is_said_once_and_again_after_minutes() {
        let (mut said, s) = (Said::default(), Duration::from_secs);
        let rules = || vec![trouble("a", UncapturedReason::Rules)];
        let count = |said: &mut Said, troubles, now| said.due(troubles, now).len();
        let at = [0, 4, 5, 7].map(|now| count(&mut said, rules(), s(now)));
        assert_eq!(at, [0, 0, 1, 0]);
        assert_eq!(count(&mut said, vec![trouble("a", UncapturedReason::Sockets)], s(8)), 1, "another cause");
        said.take_back("a");
        assert_eq!(count(&mut said, vec![trouble("a", UncapturedReason::Sockets)], s(10)), 1, "it was not said");
        assert_eq!(count(&mut said, vec![trouble("a", UncapturedReason::Sockets)], s(10) + AGAIN), 1);
        assert_eq!(count(&mut said, vec![], s(400)), 0);
        assert_eq!(count(&mut said, rules(), s(401)), 0, "forgotten, so it has its patience again");
    }
}
