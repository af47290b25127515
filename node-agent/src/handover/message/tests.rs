//! Encode and decode undo each other; whatever arrives, the parser answers and does not panic.

use proptest::{collection::vec, option, prelude::*};

use super::*;

fn uid() -> impl Strategy<Value = PodUid> {
    "[a-z0-9-]{1,36}".prop_map(PodUid::from)
}

fn family() -> impl Strategy<Value = Family> {
    prop_oneof![Just(Family::V4), Just(Family::V6)]
}

fn tag() -> impl Strategy<Value = ListenerTag> {
    let role = prop_oneof![Just(ListenerRole::Outbound), Just(ListenerRole::Inbound), Just(ListenerRole::Hbone)];
    (0..MAX_WORKERS, role, family()).prop_map(|(worker, role, family)| ListenerTag { worker, role, family })
}

fn info() -> impl Strategy<Value = PodInfo> {
    (uid(), ".{0,40}", ".{0,40}", ".{0,40}", vec(any::<IpAddr>(), 0..4), ".{0,40}", any::<bool>()).prop_map(
        |(uid, name, namespace, service_account, addresses, node, strict)| PodInfo {
            uid,
            name,
            namespace,
            service_account,
            addresses,
            node,
            strict,
        },
    )
}

fn to_proxy() -> impl Strategy<Value = ToProxy> {
    prop_oneof![
        (info(), vec(tag(), 0..240)).prop_map(|(info, listeners)| ToProxy::Pod { info, listeners }),
        uid().prop_map(|uid| ToProxy::Release { uid }),
        uid().prop_map(|uid| ToProxy::Remove { uid }),
        Just(ToProxy::SnapshotSent),
        (uid(), family()).prop_map(|(uid, family)| ToProxy::Sockets { uid, family }),
        Just(ToProxy::Retire),
        (vec(uncaptured(), 0..=MAX_UNCAPTURED), any::<u64>())
            .prop_map(|(pods, repairs)| ToProxy::Condition(Condition::new(pods, repairs))),
    ]
}

fn uncaptured() -> impl Strategy<Value = Uncaptured> {
    let reason = proptest::sample::select(UncapturedReason::ALL.as_slice());
    (uid(), ".{0,40}", ".{0,40}", reason, any::<bool>()).prop_map(|(uid, namespace, name, reason, closed)| Uncaptured {
        uid,
        namespace,
        name,
        reason,
        closed,
    })
}

#[test]
fn a_node_full_of_pods_with_the_longest_names_fits_into_a_record() {
    let pod = |number: usize| Uncaptured {
        uid: format!("{number:0>36}").into(),
        namespace: "n".repeat(63),
        name: "p".repeat(253),
        reason: UncapturedReason::HbonePortTaken,
        closed: false,
    };
    let condition = Condition::new((0..500).map(pod), u64::MAX);
    assert_eq!((condition.counts.values().sum::<u32>(), condition.uncaptured.len()), (500, MAX_UNCAPTURED));
    encode(&ToProxy::Condition(condition)).unwrap();
}

fn to_capture() -> impl Strategy<Value = ToCapture> {
    prop_oneof![
        (1..=MAX_WORKERS, ".{0,40}", any::<u64>()).prop_map(|(workers, node, born)| ToCapture::Hello(Hello {
            workers,
            node,
            born
        })),
        Just(ToCapture::Draining),
        (uid(), vec(tag(), 0..240)).prop_map(|(uid, listeners)| ToCapture::Holds { uid, listeners }),
        (uid(), option::of(".{0,80}")).prop_map(|(uid, error)| ToCapture::Ack { uid, error }),
        (uid(), family(), 1..=MAX_SOCKETS).prop_map(|(uid, family, count)| ToCapture::WantSockets {
            uid,
            family,
            count
        }),
        (uid(), any::<u64>()).prop_map(|(uid, count)| ToCapture::Relaying { uid, count }),
    ]
}

proptest! {
    #[test]
    fn to_proxy_round_trip(message in to_proxy()) {
        prop_assert_eq!(decode::<ToProxy>(&encode(&message).unwrap()).unwrap(), message);
    }

    #[test]
    fn to_capture_round_trip(message in to_capture()) {
        prop_assert_eq!(decode::<ToCapture>(&encode(&message).unwrap()).unwrap(), message);
    }

    #[test]
    fn any_bytes_are_answered(bytes in vec(any::<u8>(), 0..512)) {
        prop_assert!(decode::<ToProxy>(&bytes).is_err());
        prop_assert!(decode::<ToCapture>(&bytes).is_err());
    }

    #[test]
    fn a_damaged_record_is_answered(message in to_capture(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut record = encode(&message).unwrap();
        let at = at.index(record.len());
        record[at] = byte;
        let _answer = decode::<ToCapture>(&record);
        let _answer = decode::<ToCapture>(&record[..at]);
    }
}

#[test]
fn refusals_are_named() {
    let version = br#"{"version":999,"kind":"retire"}"#;
    assert_eq!(decode::<ToProxy>(version), Err(MessageError::Version { found: 999 }));
    let unknown = br#"{"version":3,"kind":"dance"}"#;
    assert_eq!(decode::<ToProxy>(unknown), Err(MessageError::Unknown { kind: "dance".into() }));
    assert!(matches!(decode::<ToProxy>(br#"{"kind":"retire"}"#), Err(MessageError::Malformed(_))));
    assert!(matches!(decode::<ToProxy>(br#"{"version":3,"kind":"remove"}"#), Err(MessageError::Malformed(_))));
    assert!(matches!(decode::<ToProxy>(b"[]"), Err(MessageError::Malformed(_))));
    let workers = br#"{"version":3,"kind":"hello","workers":0,"node":"a","born":0}"#;
    assert!(matches!(decode::<ToCapture>(workers), Err(MessageError::OutOfRange(_))));
    let far = br#"{"version":3,"kind":"holds","uid":"a","listeners":[{"worker":40,"role":"hbone","family":"v4"}]}"#;
    assert!(matches!(decode::<ToCapture>(far), Err(MessageError::OutOfRange(_))));
    let extra = br#"{"version":3,"kind":"remove","uid":"a","more":1}"#;
    assert!(matches!(decode::<ToProxy>(extra), Err(MessageError::Malformed(_))));
    assert_eq!(decode::<ToProxy>(&vec![b' '; MAX_RECORD + 1]), Err(MessageError::TooLong(MAX_RECORD + 1)));
}
