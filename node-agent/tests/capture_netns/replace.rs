//! Listeners that are replaced under load, as a capture half that comes back and a proxy with another number of workers do.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpListener,
    os::fd::AsFd,
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use weft_node_agent::{
    capture::{
        ruleset::Phase,
        socket::{Listeners, migrate_waiting},
    },
    handover::ListenerRole,
};
use weft_testkit::{
    enter_or_skip,
    netns::{Lab, Pod},
};

use crate::equipment::{Captured, DEADLINE, FAMILIES, accept, connect, elsewhere, installers, pause};

/// Threads that call, one connection after the other.
const CALLERS: usize = 4;
const REPLACEMENTS: usize = 100;
/// How long one set of listeners lives.
const LIFE: Duration = Duration::from_millis(15);
/// A call without an answer for this long has been lost: who serves looks every few milliseconds.
const PATIENCE: Duration = Duration::from_secs(1);

/// Accepts until nothing waits any more, and answers with a byte.
fn serve(listeners: &[TcpListener]) {
    for listener in listeners {
        while let Some((mut stream, _)) = accept(listener, Duration::ZERO) {
            let _gone = stream.write_all(b"x");
        }
    }
}

fn outbound(listeners: &Listeners) -> Vec<TcpListener> {
    let of_role = listeners.all.iter().filter(|listener| listener.tag.role == ListenerRole::Outbound);
    of_role.map(|listener| listener.socket.as_fd().try_clone_to_owned().unwrap().into()).collect()
}

/// How many calls of the pod were answered and how many lost (reset, or never answered), while its listeners are replaced
/// again and again.
fn replace_under_load(pod: &Pod, first: Listeners) -> (u64, u64) {
    let (stop, answered, lost) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let calling = AtomicUsize::new(CALLERS);
    let call = |number: usize| {
        while !stop.load(Ordering::Relaxed) {
            // The reset may come before or after the last word of the handshake.
            let called = connect(pod, elsewhere(FAMILIES[number % 2]), DEADLINE);
            let heard = called.and_then(|mut stream| {
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.read_exact(&mut [0])
            });
            match heard {
                Ok(()) => answered.fetch_add(1, Ordering::Relaxed),
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::WouldBlock) => {
                    lost.fetch_add(1, Ordering::Relaxed)
                }
                Err(error) => panic!("{error}"),
            };
        }
        calling.fetch_sub(1, Ordering::Relaxed);
    };
    thread::scope(|scope| {
        for number in 0..CALLERS {
            let call = &call;
            scope.spawn(move || call(number));
        }
        let mut current = first;
        for _ in 0..REPLACEMENTS {
            let begun = Instant::now();
            while begun.elapsed() < LIFE {
                serve(&outbound(&current));
                pause();
            }
            let old = outbound(&current);
            // The descriptors of the half that was killed go first, those of the proxy when it has taken what waits.
            current = pod.run(|| Listeners::open(1, &FAMILIES)).unwrap().unwrap();
            serve(&old);
        }
        stop.store(true, Ordering::Relaxed);
        let begun = Instant::now();
        while calling.load(Ordering::Relaxed) > 0 && begun.elapsed() < 2 * DEADLINE {
            serve(&outbound(&current));
            pause();
        }
    });
    (answered.into_inner(), lost.into_inner())
}

#[test]
#[ignore = "a measurement: prints what is lost with and without net.ipv4.tcp_migrate_req, which halves it and no more"]
fn calls_lost_while_listeners_are_replaced() {
    enter_or_skip!();
    let lab = Lab::builder().nodes(1).build().unwrap();
    let installer = &installers()[0];
    for migrate in [false, true] {
        let pod = lab.pod(1, &format!("migrate-{migrate}")).unwrap();
        if let Err(error) = pod.run(|| migrate_waiting(migrate)).unwrap() {
            eprintln!("SKIPPED: this kernel, or this test's place in it, has no net.ipv4.tcp_migrate_req: {error}");
            return;
        }
        let captured = Captured::new(&pod, installer, Phase::Steady);
        let (answered, lost) = replace_under_load(&pod, captured.listeners);
        println!("tcp_migrate_req {migrate}: {answered} answered, {lost} lost");
        assert!(answered > 1000, "{answered} calls prove little");
    }
}
