//! Listeners under load: those that a successor of the capture half takes over, and those that are replaced, as a proxy with
//! another number of workers does.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpListener,
    os::fd::AsFd,
    sync::{
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use socket2::SockRef;
use weft_node_agent::{
    capture::status::PodState,
    capture::{
        ruleset::Phase,
        socket::{Listeners, migrate_waiting},
    },
    handover::{ListenerRole, WorkerListeners},
};
use weft_testkit::{
    enter_or_skip,
    netns::{Lab, Pod},
};

use crate::equipment::{Captured, DEADLINE, FAMILIES, accept, connect, elsewhere, installers, pause};
use crate::scene::{Half, run, spec};

/// How often the capture half is killed under load.
const KILLS: usize = 12;
/// Threads that call, one connection after the other.
const CALLERS: usize = 4;
const REPLACEMENTS: usize = 100;
/// How long one set of listeners lives.
const LIFE: Duration = Duration::from_millis(15);
/// A call without an answer for this long has been lost: who serves looks every few milliseconds.
const PATIENCE: Duration = Duration::from_secs(1);

/// Accepts until nothing waits any more, and answers with a byte.
pub(crate) fn serve(listeners: &[TcpListener]) {
    for listener in listeners {
        while let Some((mut stream, _)) = accept(listener, Duration::ZERO) {
            // An end in order: a reset that comes before the caller has looked at its handshake would count as a loss.
            let _gone = SockRef::from(&stream).set_linger(None).and_then(|()| stream.write_all(b"x"));
        }
    }
}

fn outbound(listeners: &Listeners) -> Vec<TcpListener> {
    let of_role = listeners.all.iter().filter(|listener| listener.tag.role == ListenerRole::Outbound);
    of_role.map(|listener| listener.socket.as_fd().try_clone_to_owned().unwrap().into()).collect()
}

/// Calls of a pod: how many were answered and how many lost (reset, or never answered).
#[derive(Default)]
pub(crate) struct Calls {
    pub(crate) stop: AtomicBool,
    calling: AtomicUsize,
    answered: AtomicU64,
    reset: AtomicU64,
    silent: AtomicU64,
}

impl Calls {
    /// One connection after the other until `stop`.
    pub(crate) fn make(&self, pod: &Pod, number: usize) {
        self.calling.fetch_add(1, Ordering::Relaxed);
        while !self.stop.load(Ordering::Relaxed) {
            // The reset may come before or after the last word of the handshake.
            let called = connect(pod, elsewhere(FAMILIES[number % 2]), DEADLINE);
            let heard = called.and_then(|mut stream| {
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.read_exact(&mut [0])
            });
            match heard {
                Ok(()) => self.answered.fetch_add(1, Ordering::Relaxed),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => self.reset.fetch_add(1, Ordering::Relaxed),
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.silent.fetch_add(1, Ordering::Relaxed),
                Err(error) => panic!("{error}"),
            };
        }
        self.calling.fetch_sub(1, Ordering::Relaxed);
    }

    /// How many were answered up to now.
    pub(crate) fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Waits for so many more answers.
    pub(crate) async fn until_answered(&self, more: u64) {
        let (begun, wanted) = (Instant::now(), self.answered() + more);
        while self.answered() < wanted {
            assert!(begun.elapsed() < 2 * DEADLINE, "{} of {wanted}", self.answered());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Serves from these until the callers have stopped.
    pub(crate) fn end(&self, listeners: &[TcpListener]) -> (u64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        let begun = Instant::now();
        while self.calling.load(Ordering::Relaxed) > 0 && begun.elapsed() < 2 * DEADLINE {
            serve(listeners);
            pause();
        }
        let (reset, silent) = (self.reset.load(Ordering::Relaxed), self.silent.load(Ordering::Relaxed));
        (self.answered.load(Ordering::Relaxed), reset + silent)
    }
}

/// What is lost while the listeners are replaced again and again.
fn replace_under_load(pod: &Pod, first: Listeners) -> (u64, u64) {
    let calls = Calls::default();
    thread::scope(|scope| {
        for number in 0..CALLERS {
            let calls = &calls;
            scope.spawn(move || calls.make(pod, number));
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
        calls.end(&outbound(&current))
    })
}

/// What the kernel knows each listener by, for its whole life.
pub(crate) fn cookies(worker: &WorkerListeners) -> Vec<u64> {
    let all = worker.outbound.iter().chain(&worker.inbound).chain(&worker.hbone);
    all.map(|listener| SockRef::from(listener).cookie().unwrap()).collect()
}

pub(crate) fn duplicates(listeners: &[TcpListener]) -> Vec<TcpListener> {
    listeners.iter().map(|listener| listener.try_clone().unwrap()).collect()
}

/// A failed test ends its threads.
pub(crate) struct StopAtEnd<'a>(pub(crate) &'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_capture_half_killed_again_and_again_under_load_changes_no_listener_and_loses_no_call() {
    enter_or_skip!();
    let lab = Lab::builder().nodes(1).build().unwrap();
    let pod = lab.pod(1, "cart").unwrap();
    let calls = Calls::default();
    thread::scope(|scope| {
        let (listeners_sender, listeners) = mpsc::channel::<Vec<TcpListener>>();
        let (calls, pod, lab) = (&calls, &pod, &lab);
        let _stop = StopAtEnd(&calls.stop);
        // Whoever serves has the listeners of the beginning only: another one would stay unanswered.
        let server = scope.spawn(move || {
            let listeners = listeners.recv().unwrap();
            for number in 0..CALLERS {
                scope.spawn(move || calls.make(pod, number));
            }
            while !calls.stop.load(Ordering::Relaxed) {
                serve(&listeners);
                pause();
            }
            calls.end(&listeners)
        });
        run(async {
            let mut half = Half::start(lab, vec![spec(pod)], false);
            let mut proxy = half.proxy(1);
            half.until_state("cart", PodState::Captured).await;
            let first = proxy.snapshot().await.remove(0).1;
            listeners_sender.send(duplicates(&first[0].outbound)).unwrap();
            for _ in 0..KILLS {
                half.kill().await;
                half = Half::start(lab, vec![spec(pod)], false);
                let again = proxy.snapshot().await.remove(0).1;
                assert_eq!(cookies(&again[0]), cookies(&first[0]));
                half.until_state("cart", PodState::Captured).await;
            }
            calls.stop.store(true, Ordering::Relaxed);
            // One that somebody has ended is made anew, and only that one.
            half.kill().await;
            SockRef::from(&first[0].inbound[0]).shutdown(std::net::Shutdown::Both).unwrap();
            let half = Half::start(lab, vec![spec(pod)], false);
            let again = cookies(&proxy.snapshot().await.remove(0).1[0]);
            let differs: Vec<bool> = again.iter().zip(cookies(&first[0])).map(|(now, then)| *now != then).collect();
            assert_eq!(differs, [false, false, true, false, false, false]);
            half.end().await;
        });
        let (answered, lost) = server.join().unwrap();
        println!("{KILLS} restarts: {answered} answered, {lost} lost");
        assert_eq!(lost, 0, "of {answered}: {:?} were reset", calls.reset);
        assert!(answered > 500, "{answered} calls prove little");
    });
}

/// A proxy that hangs has the listeners and brings none: after the patience others are made.
#[test]
fn a_proxy_that_does_not_bring_its_listeners_is_not_waited_for_long() {
    enter_or_skip!();
    let lab = Lab::builder().nodes(1).build().unwrap();
    let pod = lab.pod(1, "cart").unwrap();
    run(async {
        let half = Half::start(&lab, vec![spec(&pod)], false);
        half.until_state("cart", PodState::Captured).await;
        let mut proxy = half.proxy(1);
        let hung = proxy.snapshot().await.remove(0).1;
        drop(proxy);
        half.kill().await;
        let begun = Instant::now();
        let half = Half::start(&lab, vec![spec(&pod)], false);
        half.until_state("cart", PodState::Captured).await;
        let waited = begun.elapsed();
        assert!(waited > Duration::from_millis(2500) && waited < DEADLINE * 2, "{waited:?}");
        let fresh = half.proxy(1).snapshot().await.remove(0).1;
        assert!(cookies(&fresh[0]).iter().all(|cookie| !cookies(&hung[0]).contains(cookie)));
        half.end().await;
    });
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
