//! Selected pods that cannot be captured: closed unless that is refused, seen by the proxy, and taken as soon as it works.

use std::{net::TcpListener, sync::Arc, time::Duration};

use weft_node_agent::{
    capture::{
        settings::OnFailure,
        socket::Ipv6,
        status::{PodState, PodStatus},
    },
    handover::Family,
    pods::{PodSpec, UncapturedReason},
};
use weft_testkit::{
    enter_or_skip,
    netns::{Lab, Pod},
    wire::Capture,
};

use crate::equipment::{DEADLINE, FAMILIES, QUIET, accept, address, connect, installers, listen};
use crate::scene::{Half, run, spec};

const PORT: u16 = 8080;

fn strict(pod: &Pod) -> PodSpec {
    PodSpec { strict: true, ..spec(pod) }
}

#[test]
fn a_selected_pod_that_cannot_be_captured_is_closed_and_seen_and_taken_when_it_can_be() {
    enter_or_skip!();
    let lab = Lab::builder().nodes(2).build().unwrap();
    let pods = ["strict", "lenient"].map(|name| lab.pod(1, name).unwrap());
    let other = lab.pod(2, "other").unwrap();
    let holders: Vec<TcpListener> =
        pods.iter().map(|pod| pod.run(|| TcpListener::bind("0.0.0.0:15008")).unwrap().unwrap()).collect();
    let wires: Vec<_> = pods.iter().map(|pod| Capture::start(&pod.netns, "eth0", &[]).unwrap()).collect();
    let unplaced = PodSpec { uid: "unplaced".into(), name: "unplaced".into(), netns: None, ..spec(&other) };
    run(async {
        let half = Half::start(&lab, vec![strict(&pods[0]), spec(&pods[1]), unplaced], false);
        for name in ["strict", "lenient"] {
            half.until_state(name, PodState::Closed).await;
        }
        let mut proxy = half.proxy(1);
        let told = proxy.condition(|condition| condition.uncaptured.len() == 3).await;
        assert_eq!(told.counts[&UncapturedReason::HbonePortTaken], 2);
        assert_eq!(told.counts[&UncapturedReason::Unplaced], 1);
        let closed: Vec<_> = told.uncaptured.iter().filter(|pod| pod.closed).map(|pod| pod.name.as_str()).collect();
        assert_eq!(closed, ["lenient", "strict"]);
        for (pod, wire) in pods.iter().zip(&wires) {
            wire.forget();
            for family in FAMILIES {
                let (service, application) = (listen(&other, family, PORT), listen(pod, family, PORT));
                assert!(connect(pod, address(&other, family, PORT), QUIET).is_err(), "{}: out", pod.name);
                assert!(connect(&other, address(pod, family, PORT), QUIET).is_err(), "{}: in", pod.name);
                assert!(accept(&service, QUIET / 10).is_none() && accept(&application, QUIET / 10).is_none());
            }
            let own = [pod.address(false), pod.address(true)];
            let left: Vec<_> =
                wire.report().on_port(PORT).into_iter().filter(|flow| own.contains(&flow.a.ip())).cloned().collect();
            assert!(left.is_empty(), "{}: left the pod: {left:?}", pod.name);
        }
        drop(holders);
        for name in ["strict", "lenient"] {
            half.until_state(name, PodState::Captured).await;
        }
        proxy.condition(|condition| condition.uncaptured.len() == 1).await;
        half.end().await;
    });
}

#[test]
fn open_failure_is_a_choice_and_not_one_of_strict_pods() {
    enter_or_skip!();
    let lab = Lab::builder().nodes(1).build().unwrap();
    let pods = ["strict", "lenient"].map(|name| lab.pod(1, name).unwrap());
    let holders: Vec<TcpListener> =
        pods.iter().map(|pod| pod.run(|| TcpListener::bind("0.0.0.0:15008")).unwrap().unwrap()).collect();
    let count = |pod: &Pod| pod.run(|| installers()[0].count(Ipv6::Usable)).unwrap().unwrap();
    run(async {
        let wanted = vec![strict(&pods[0]), spec(&pods[1])];
        let half = Half::start_with(&lab, wanted, |settings| settings.on_failure = OnFailure::Open);
        half.until_state("strict", PodState::Closed).await;
        let tried_again =
            |pod: Option<&PodStatus>| pod.is_some_and(|pod| pod.failures > 3 && pod.state == PodState::Failed);
        half.until("lenient", tried_again).await;
        assert_eq!(count(&pods[1]), 0, "left as it was");
        let mut proxy = half.proxy(1);
        let told = proxy.condition(|condition| condition.uncaptured.len() == 2).await;
        assert!(told.uncaptured.iter().any(|pod| pod.name == "lenient" && !pod.closed), "{told:?}");
        // A closed pod that is not selected any more is freed.
        let out = vec![PodSpec { enrolled: false, ..strict(&pods[0]) }];
        half.wanted.send_replace(Arc::new(out));
        half.until("strict", |pod| pod.is_none()).await;
        assert_eq!(count(&pods[0]), 0);
        drop(holders);
        half.end().await;
    });
}

#[test]
fn a_new_pod_is_captured_whole_at_once_and_one_that_was_called_opens_first() {
    enter_or_skip!();
    let lab = Lab::builder().nodes(2).build().unwrap();
    let (new, called, caller) =
        (lab.pod(1, "new").unwrap(), lab.pod(1, "called").unwrap(), lab.pod(2, "caller").unwrap());
    let application = listen(&called, Family::V4, PORT);
    drop(connect(&caller, address(&called, Family::V4, PORT), DEADLINE).unwrap());
    drop(accept(&application, DEADLINE).unwrap());
    run(async {
        let wanted = vec![spec(&new), spec(&called)];
        let half = Half::start_with(&lab, wanted, |settings| settings.settle = Duration::from_secs(600));
        half.until_state("new", PodState::Captured).await;
        half.until_state("called", PodState::Enrolling).await;
        half.end().await;
    });
}
