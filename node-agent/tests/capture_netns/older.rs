//! A capture half that was upgraded meets a proxy of the handover version before its own, as while `run` replaces the two: the
//! older one is turned away, its listeners serve on, after the patience others stand beside them, and nobody is refused.

use std::{
    net::TcpListener,
    os::fd::OwnedFd,
    path::Path,
    sync::{Mutex, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use weft_node_agent::capture::status::PodState;
use weft_testkit::{enter_or_skip, netns::Lab};

use crate::equipment::{DEADLINE, pause};
use crate::replace::{Calls, StopAtEnd, cookies, duplicates, serve};
use crate::scene::{Half, run, spec};

/// As a proxy of version 2 greets: version 3 brought `holds`, and nothing else of the greeting changed.
const HELLO: &[u8] = br#"{"version":2,"kind":"hello","workers":1,"node":"node1","born":1}"#;
/// One caller of each family: the moment in which listeners are added may cost some of many.
const CALLERS: usize = 2;

/// Greets as an older proxy, and waits until the capture half hangs up without a word.
async fn is_turned_away(path: &Path) {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket: OwnedFd = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
    rustix::net::connect(&socket, &SocketAddrUnix::new(path).unwrap()).unwrap();
    rustix::net::send(&socket, HELLO, SendFlags::NOSIGNAL).unwrap();
    let begun = Instant::now();
    loop {
        match rustix::net::recv(&socket, &mut [0_u8; 64][..], RecvFlags::empty()) {
            Ok((0, _)) | Err(rustix::io::Errno::CONNRESET) => return,
            Ok((length, _)) => panic!("it is told {length} bytes"),
            Err(rustix::io::Errno::AGAIN) => assert!(begun.elapsed() < DEADLINE, "nobody hangs up"),
            Err(error) => panic!("{error}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[test]
fn a_proxy_of_an_older_handover_version_serves_on_until_it_is_replaced_and_nobody_is_refused() {
    enter_or_skip!();
    let lab = Lab::builder().nodes(1).build().unwrap();
    let pod = lab.pod(1, "cart").unwrap();
    let path = lab.directory().join("handover.sock");
    let (calls, served) = (Calls::default(), Mutex::new(Vec::<TcpListener>::new()));
    thread::scope(|scope| {
        let (calls, served, pod, lab) = (&calls, &served, &pod, &lab);
        let _stop = StopAtEnd(&calls.stop);
        let proxies = scope.spawn(move || {
            while !calls.stop.load(Ordering::Relaxed) {
                serve(&served.lock().unwrap());
                pause();
            }
            calls.end(&served.lock().unwrap())
        });
        run(async {
            let half = Half::start(lab, vec![spec(pod)], false);
            half.until_state("cart", PodState::Captured).await;
            let mut older = half.proxy(1);
            let old = older.snapshot().await.remove(0).1;
            served.lock().unwrap().extend(duplicates(&old[0].outbound));
            for number in 0..CALLERS {
                scope.spawn(move || calls.make(pod, number));
            }
            // From here on it speaks another version than the capture half.
            drop(older);
            half.kill().await;
            let begun = Instant::now();
            let half = Half::start(lab, vec![spec(pod)], false);
            is_turned_away(&path).await;
            is_turned_away(&path).await;
            let answered = calls.answered();
            half.until_state("cart", PodState::Captured).await;
            let waited = begun.elapsed();
            assert!(waited > Duration::from_millis(2500) && waited < DEADLINE * 2, "{waited:?}");
            assert!(calls.answered() > answered, "the older one serves meanwhile");
            // Its successor, of our version.
            let fresh = half.proxy(1).snapshot().await.remove(0).1;
            assert!(cookies(&fresh[0]).iter().all(|cookie| !cookies(&old[0]).contains(cookie)));
            {
                let mut served = served.lock().unwrap();
                // The older one takes what waits, and ends.
                serve(&served);
                *served = duplicates(&fresh[0].outbound);
            }
            drop(old);
            calls.until_answered(100).await;
            is_turned_away(&path).await;
            calls.until_answered(100).await;
            calls.stop.store(true, Ordering::Relaxed);
            half.end().await;
        });
        // A refused call ends its thread with a panic, and so the test. A handshake that falls into the change may be reset.
        let (answered, lost) = proxies.join().unwrap();
        println!("{answered} answered, {lost} lost");
        assert!(answered > 300 && lost <= 2 * CALLERS as u64, "{answered} answered, {lost} lost");
    });
}
