//! Listeners that are replaced under load, as a capture half that comes back and a proxy with another number of workers do.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpListener,
    os::fd::AsFd,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
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

/// How many calls of the pod were answered and how many reset, while its listeners are replaced again and again.
fn replace_under_load(pod: &Pod, first: Listeners) -> (u64, u64) {
    let (stop, answered, reset) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let call = |number: usize| {
        while !stop.load(Ordering::Relaxed) {
            // The reset may come before or after the last word of the handshake.
            let called = connect(pod, elsewhere(FAMILIES[number % 2]), DEADLINE);
            match called.and_then(|mut stream| stream.read_exact(&mut [0])) {
                Ok(()) => answered.fetch_add(1, Ordering::Relaxed),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => reset.fetch_add(1, Ordering::Relaxed),
                Err(error) => panic!("{error}"),
            };
        }
    };
    thread::scope(|scope| {
        for number in 0..CALLERS {
            let call = &call;
            scope.spawn(move || call(number));
        }
        let mut current = first;
        for _ in 0..REPLACEMENTS {
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_millis(15) {
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
        while begun.elapsed() < Duration::from_millis(300) {
            serve(&outbound(&current));
            pause();
        }
    });
    (answered.into_inner(), reset.into_inner())
}

#[test]
fn listeners_replaced_under_load_reset_nobody() {
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
        let (answered, reset) = replace_under_load(&pod, captured.listeners);
        println!("tcp_migrate_req {migrate}: {answered} answered, {reset} reset");
        assert!(answered > 1000, "{answered} calls prove little");
        assert!(reset == 0 || !migrate, "{reset} of {answered} calls were reset");
    }
}
