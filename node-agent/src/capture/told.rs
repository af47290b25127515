//! What the CNI plugin has told of new pods: where they are, before their own status says it; and who waits for an answer. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::cni::Call;
use crate::cni::talk::{Answer, NewPod, Request};
use crate::pods::{PodSpec, PodUid};

/// How long a question waits: the plugin itself gives up after 30 s.
const PATIENCE: Duration = Duration::from_secs(25);

/// How long a pod may be unknown to the source before what was told of it is forgotten: after that the source cannot be just late.
const UNKNOWN: Duration = Duration::from_secs(120);

/// Where a pod's capture stands in one network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Rules and listeners are there.
    Captured,
    /// Not yet; what went wrong last.
    NotYet(Option<String>),
}

#[derive(Debug)]
struct Told {
    container: String,
    netns: String,
    addresses: Vec<IpAddr>,
    since: Instant,
}

#[derive(Debug)]
struct Waiting {
    uid: PodUid,
    container: String,
    since: Instant,
    answer: oneshot::Sender<Answer>,
}

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Desk {
    told: BTreeMap<PodUid, Told>,
    waiting: Vec<Waiting>,
}

impl Desk {
    /// Takes a question; it is answered by [`Self::settle`].
    pub(super) fn hear(&mut self, call: Call, now: Instant) {
        match call.request {
            Request::Add(NewPod { uid, container, netns, addresses, .. }) => {
                let uid = PodUid::from(uid);
                let told = Told { container: container.clone(), netns, addresses, since: now };
                self.told.insert(uid.clone(), told);
                self.waiting.push(Waiting { uid, container, since: now, answer: call.answer });
            }
            Request::Delete { container } => {
                // A pod may have a newer sandbox by now.
                self.told.retain(|_, told| told.container != container);
                self.waiting.retain(|waiting| waiting.container != container);
                let _unheard = call.answer.send(Answer::Forgotten);
            }
        }
    }

    /// The pods as the source has them, with where the container runtime put them: it knows first, and of the newest sandbox.
    pub(super) fn place(&self, pods: &[PodSpec]) -> Vec<PodSpec> {
        let placed = |pod: &PodSpec| match self.told.get(&pod.uid) {
            Some(told) => {
                let addresses = if told.addresses.is_empty() { pod.addresses.clone() } else { told.addresses.clone() };
                PodSpec { netns: Some(told.netns.clone()), addresses, ..pod.clone() }
            }
            None => pod.clone(),
        };
        pods.iter().map(placed).collect()
    }

    /// Answers whom it can, and forgets what is of no use. `pods`: none before the first list.
    pub(super) fn settle(
        &mut self,
        pods: Option<&[PodSpec]>,
        standing: impl Fn(&PodUid, &str) -> Standing,
        now: Instant,
    ) {
        let find = |uid: &PodUid| pods.into_iter().flatten().find(|pod| pod.uid == *uid);
        let told = &self.told;
        for waiting in std::mem::take(&mut self.waiting) {
            if waiting.answer.is_closed() {
                continue;
            }
            let place = told.get(&waiting.uid).filter(|told| told.container == waiting.container);
            let late = now.duration_since(waiting.since) >= PATIENCE;
            let verdict = match place {
                Some(told) => verdict(find(&waiting.uid), || standing(&waiting.uid, &told.netns), late),
                None => Some(Answer::Failed { message: "another sandbox of the pod was made meanwhile".to_owned() }),
            };
            match verdict {
                Some(answer) => _ = waiting.answer.send(answer),
                None => self.waiting.push(waiting),
            }
        }
        if pods.is_some() {
            self.told.retain(|uid, told| now.duration_since(told.since) < UNKNOWN || find(uid).is_some());
        }
    }
}

/// None: not yet.
fn verdict(pod: Option<&PodSpec>, standing: impl FnOnce() -> Standing, late: bool) -> Option<Answer> {
    let failed = |message: String| late.then_some(Answer::Failed { message });
    let Some(pod) = pod else {
        return failed(
            "the agent has not heard of the pod from the API server; look at the logs of the container watch of weft-node-agent"
                .to_owned(),
        );
    };
    if !pod.enrolled {
        return Some(Answer::NotSelected);
    }
    match standing() {
        Standing::Captured => Some(Answer::Captured),
        Standing::NotYet(error) => {
            let error = error.unwrap_or_else(|| "it takes too long".to_owned());
            failed(format!("{error}; look at the logs of the container capture of weft-node-agent"))
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const EARLY: Duration = Duration::from_secs(1);

    fn spec(uid: &str, enrolled: bool) -> PodSpec {
        PodSpec {
            uid: uid.into(),
            name: "web".to_owned(),
            namespace: "shop".to_owned(),
            service_account: "default".to_owned(),
            addresses: Vec::new(),
            netns: None,
            strict: false,
            enrolled,
            probe_ports: std::collections::BTreeSet::new(),
        }
    }

    fn ask(desk: &mut Desk, request: Request, now: Instant) -> oneshot::Receiver<Answer> {
        let (answer, answered) = oneshot::channel();
        desk.hear(Call { request, answer }, now);
        answered
    }

    fn add(uid: &str, container: &str) -> Request {
        Request::Add(NewPod {
            namespace: "shop".to_owned(),
            name: "web".to_owned(),
            uid: uid.to_owned(),
            container: container.to_owned(),
            netns: format!("/run/netns/{container}"),
            addresses: vec!["10.0.0.1".parse().unwrap()],
        })
    }

    fn not_yet(error: Option<&str>) -> Standing {
        Standing::NotYet(error.map(str::to_owned))
    }

    #[rstest]
    #[case::captured(Some(spec("a", true)), Standing::Captured, EARLY, Some("captured"))]
    #[case::not_selected(Some(spec("a", false)), not_yet(None), EARLY, Some("not-selected"))]
    #[case::not_selected_whatever_stands(Some(spec("a", false)), Standing::Captured, EARLY, Some("not-selected"))]
    #[case::being_captured(Some(spec("a", true)), not_yet(None), EARLY, None)]
    #[case::tried_again(Some(spec("a", true)), not_yet(Some("no rules")), EARLY, None)]
    #[case::not_heard_of(None, Standing::Captured, EARLY, None)]
    #[case::another_life_of_it(Some(spec("b", false)), Standing::Captured, EARLY, None)]
    #[case::too_slow(Some(spec("a", true)), not_yet(None), PATIENCE, Some("it takes too long"))]
    #[case::cannot(Some(spec("a", true)), not_yet(Some("no rules")), PATIENCE, Some("no rules"))]
    #[case::never_heard_of(None, Standing::Captured, PATIENCE, Some("API server"))]
    fn one_question(
        #[case] listed: Option<PodSpec>,
        #[case] standing: Standing,
        #[case] age: Duration,
        #[case] expected: Option<&str>,
    ) {
        let (mut desk, begin) = (Desk::default(), Instant::now());
        let mut answered = ask(&mut desk, add("a", "c1"), begin);
        let pods: Vec<PodSpec> = listed.into_iter().collect();
        desk.settle(
            Some(&pods),
            |_, netns| if netns == "/run/netns/c1" { standing.clone() } else { not_yet(None) },
            begin + age,
        );
        let answer = answered.try_recv().ok().map(|answer| serde_json::to_string(&answer).unwrap());
        assert_eq!(answer.is_some(), expected.is_some());
        assert!(answer.unwrap_or_default().contains(expected.unwrap_or_default()));
    }

    #[test]
    fn before_the_first_list_nobody_is_known() {
        let (mut desk, now) = (Desk::default(), Instant::now());
        let mut answered = ask(&mut desk, add("a", "c1"), now);
        desk.settle(None, |_, _| Standing::Captured, now);
        assert!(answered.try_recv().is_err());
        desk.settle(Some(&[spec("a", true)]), |_, _| Standing::Captured, now);
        assert_eq!(answered.try_recv(), Ok(Answer::Captured));
    }

    #[test]
    fn a_pod_is_where_its_newest_sandbox_is_until_that_goes() {
        let (mut desk, now) = (Desk::default(), Instant::now());
        let pods = [spec("a", true), spec("b", true)];
        let netns = |desk: &Desk| desk.place(&pods)[0].netns.clone();
        let mut first = ask(&mut desk, add("a", "c1"), now);
        assert_eq!(netns(&desk).as_deref(), Some("/run/netns/c1"));
        assert_eq!(desk.place(&pods)[0].addresses, ["10.0.0.1".parse::<IpAddr>().unwrap()]);
        assert_eq!(desk.place(&pods)[1], pods[1]);
        let mut second = ask(&mut desk, add("a", "c2"), now);
        desk.settle(Some(&pods), |_, _| not_yet(None), now);
        assert!(matches!(first.try_recv(), Ok(Answer::Failed { .. })));
        assert!(second.try_recv().is_err());
        let mut gone = ask(&mut desk, Request::Delete { container: "c1".to_owned() }, now);
        assert_eq!(gone.try_recv(), Ok(Answer::Forgotten));
        assert_eq!(netns(&desk).as_deref(), Some("/run/netns/c2"));
        let _gone = ask(&mut desk, Request::Delete { container: "c2".to_owned() }, now);
        assert_eq!(desk.place(&pods), pods);
        assert!(second.try_recv().is_err());
        assert!(desk.waiting.is_empty());
    }

    #[test]
    fn what_the_source_does_not_know_is_forgotten_and_what_it_knows_is_not() {
        let (mut desk, now) = (Desk::default(), Instant::now());
        let _both = (ask(&mut desk, add("a", "c1"), now), ask(&mut desk, add("b", "c2"), now));
        desk.settle(Some(&[spec("a", true)]), |_, _| not_yet(None), now + UNKNOWN);
        assert_eq!(desk.told.keys().map(PodUid::as_str).collect::<Vec<_>>(), ["a"]);
    }

    #[test]
    fn who_gave_up_is_not_answered() {
        let (mut desk, now) = (Desk::default(), Instant::now());
        drop(ask(&mut desk, add("a", "c1"), now));
        desk.settle(Some(&[]), |_, _| not_yet(None), now);
        assert!(desk.waiting.is_empty());
        assert!(desk.told.contains_key(&PodUid::from("a")), "the runtime says when it goes");
    }
}
