//! What each phase does, and what is left of it when somebody takes a part away.

use rand::SeedableRng;
use rand::rngs::StdRng;

use weft_node_agent::capture::ruleset::Way;

use super::*;

fn kernel(nft: bool, phase: Phase) -> Kernel {
    let mut kernel = Kernel::new(nft);
    kernel.commits(phase).into_iter().for_each(|commit| kernel.commit(commit));
    assert!(kernel.is_whole(phase), "{kernel:?}");
    kernel
}

#[test]
fn every_phase_does_what_its_name_says() {
    for nft in [false, true] {
        let fates = |phase| (kernel(nft, phase).call_out(), kernel(nft, phase).call_in());
        assert_eq!(fates(Phase::Steady), (Fate::Captured, Fate::Captured));
        for older in [Way::Direct, Way::Relayed] {
            assert_eq!(fates(Phase::EnrolOut(older)), (Fate::Captured, Fate::Direct));
            assert_eq!(fates(Phase::Enrol(older)), (Fate::Captured, Fate::Captured));
            assert_eq!(fates(Phase::ReleaseIn(older)), (Fate::Captured, Fate::Direct));
            assert_eq!(fates(Phase::Release(older)), (Fate::Direct, Fate::Direct));
        }
    }
}

fn assert_closed(kernel: &Kernel, why: &dyn fmt::Debug) {
    assert!(kernel.call_out() != Fate::Direct && kernel.call_in() != Fate::Direct, "{why:?}: {kernel:?}");
}

#[test]
fn either_table_alone_keeps_a_steady_pod_closed_and_so_does_the_guard() {
    for name in REMOVAL {
        for routed in [false, true] {
            let mut alone = Kernel { routed, ..Kernel::new(false) };
            alone.commit(Commit::Put(name, Phase::Steady));
            assert_closed(&alone, &name);
        }
    }
    let mut guarded = kernel(true, Phase::Steady);
    guarded.suffer(Hand::DeleteTables);
    assert!(!guarded.is_exposed());
    assert_closed(&guarded, &"every table of iptables is gone");
    assert_eq!((guarded.standing(), guarded.stands(false)), (Some(Standing::Damaged), None));
    guarded.suffer(Hand::Unguard);
    assert!(guarded.is_exposed() && guarded.call_out() == Fate::Direct, "{guarded:?}");
}

#[test]
fn whatever_is_done_by_hand_the_pod_is_closed_as_long_as_one_part_is_whole_and_the_auditor_repairs_all() {
    let mut dice = StdRng::seed_from_u64(0);
    let (mut exposed, mut held) = (0, 0);
    for round in 0..600 {
        let mut pod = kernel(round % 2 == 0, Phase::Steady);
        let hands = [0; 3].map(|_| Hand::any(&mut dice));
        for (count, hand) in hands.iter().enumerate() {
            pod.suffer(*hand);
            if pod.is_exposed() {
                exposed += 1;
            } else {
                held += 1;
                assert_closed(&pod, &(&hands[..=count], pod.nft));
            }
        }
        // The guard goes first: from the first repair on nothing passes, where there is one.
        let repairs = pod.repairs(Phase::Steady);
        for commit in repairs {
            pod.commit(commit);
            if pod.nft {
                assert_closed(&pod, &(hands, commit));
            }
        }
        assert!(pod.is_whole(Phase::Steady), "{hands:?}: {pod:?}");
        let removal = pod.removal();
        removal.into_iter().for_each(|commit| pod.commit(commit));
        assert!(pod.is_free(), "{hands:?}: {pod:?}");
    }
    assert!(exposed > 50 && held > 1000, "{exposed}, {held}");
}

#[test]
fn what_stands_is_read_back() {
    let mut pod = Kernel::new(true);
    assert_eq!(pod.standing(), None);
    let expected =
        [None, Some(Standing::Damaged), Some(Standing::Whole(Phase::Steady)), Some(Standing::Whole(Phase::Steady))];
    for (count, commit) in pod.commits(Phase::Steady).into_iter().enumerate() {
        pod.commit(commit);
        assert_eq!((pod.standing(), pod.is_whole(Phase::Steady)), (expected[count], count == 3), "{commit:?}");
    }
    pod.removal().into_iter().for_each(|commit| pod.commit(commit));
    assert!(pod.is_free());
}
