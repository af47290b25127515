//! The pool over in-memory connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_local};
use weft_hbone::pool::ledger::KeyCount;
use weft_hbone::{ConnectionSettings, Dial, DialFailure, Patience, Pool, PoolError, PoolSettings, server};

use crate::harness::{PIPE, Pipe, echo, eventually, head, ping, pipe, start_server_until, within};

/// Dials echo servers over pipes. The key says how: "fails", "slow" or anything else.
#[derive(Clone)]
struct Pipes {
    dials: Arc<AtomicUsize>,
    drain: watch::Sender<usize>,
}

#[derive(Debug, thiserror::Error)]
#[error("nobody there")]
struct NobodyThere;

impl Dial<&'static str> for Pipes {
    type Io = Pipe;
    type Error = NobodyThere;

    async fn dial(&self, key: &&'static str) -> Result<Pipe, NobodyThere> {
        let number = self.dials.fetch_add(1, Ordering::SeqCst);
        let mut drain = self.drain.subscribe();
        tokio::time::sleep(Duration::from_millis(10)).await;
        match *key {
            "fails" => return Err(NobodyThere),
            "slow" => std::future::pending().await,
            _ => {}
        }
        let (near, far) = pipe(PIPE);
        if (*key, number) == ("never answers once", 0) {
            spawn_local(answer_one_then_hang(far));
            return Ok(near);
        }
        if (*key, number) == ("breaks once", 0) {
            spawn_local(answer_one_then_break(far));
            return Ok(near);
        }
        start_server_until(far, echo, async move {
            let _ = drain.wait_for(|until| *until > number).await;
        });
        Ok(near)
    }
}

/// Accepts one tunnel; takes the second request and breaks without an answer.
async fn answer_one_then_break(io: Pipe) {
    let mut connection = server::handshake(io, &ConnectionSettings::default()).await.unwrap();
    let _first = connection.accept().await.unwrap().unwrap().accept(None).unwrap();
    let _second = connection.accept().await;
}

/// Accepts one tunnel and takes the others without an answer.
async fn answer_one_then_hang(io: Pipe) {
    let mut connection = server::handshake(io, &ConnectionSettings::default()).await.unwrap();
    let mut taken = Vec::new();
    let mut first = connection.accept().await.unwrap().unwrap().accept(None).unwrap();
    let serve = async move {
        let mut heard = [0; 64];
        while let Ok(count @ 1..) = first.read(&mut heard).await {
            first.write_all(&heard[..count]).await.unwrap();
        }
    };
    spawn_local(serve);
    while let Some(Ok(request)) = connection.accept().await {
        taken.push(request);
    }
}

fn start(settings: PoolSettings) -> (Pool<&'static str, NobodyThere>, Pipes, JoinHandle<()>) {
    let pipes = Pipes { dials: Arc::default(), drain: watch::Sender::new(0) };
    let (pool, driver) = Pool::new(pipes.clone(), settings);
    (pool, pipes, spawn_local(driver.run()))
}

fn count_of(pool: &Pool<&'static str, NobodyThere>, key: &str) -> KeyCount {
    pool.counts().into_iter().find(|line| line.key == key).map(|line| line.count).unwrap_or_default()
}

#[tokio::test(flavor = "local")]
async fn a_burst_to_a_cold_key_dials_once() {
    let (pool, pipes, _driver) = start(PoolSettings::default());
    let opened = (0..50).map(|_| {
        let pool = pool.clone();
        spawn_local(async move { pool.open(&"a", &head()).await.unwrap() })
    });
    let tunnels = within(futures_util::future::join_all(opened)).await;
    assert_eq!(pipes.dials.load(Ordering::SeqCst), 1);
    assert_eq!(count_of(&pool, "a"), KeyCount { connections: 1, tunnels: 50, waiting: 0 });
    drop(tunnels);
    assert_eq!(count_of(&pool, "a").tunnels, 0);
}

#[tokio::test(flavor = "local")]
async fn two_hundred_tunnels_at_a_time_share_two_connections() {
    let (pool, pipes, _driver) = start(PoolSettings::default());
    let all_open = Arc::new(tokio::sync::Barrier::new(200));
    let users = (0..200_u32).map(|number| {
        let (pool, all_open) = (pool.clone(), Arc::clone(&all_open));
        spawn_local(async move {
            let mut tunnel = pool.open(&"a", &head()).await.unwrap();
            all_open.wait().await;
            for turn in 0..5_u32 {
                ping(&mut tunnel, &[number.to_be_bytes(), turn.to_be_bytes()].concat()).await;
            }
            tunnel.shutdown().await.unwrap();
            assert_eq!(tunnel.read(&mut [0; 1]).await.unwrap(), 0);
        })
    });
    for user in within(futures_util::future::join_all(users)).await {
        user.unwrap();
    }
    assert_eq!(pipes.dials.load(Ordering::SeqCst), 2);
    assert_eq!(count_of(&pool, "a"), KeyCount { connections: 2, tunnels: 0, waiting: 0 });
}

#[tokio::test(flavor = "local")]
async fn keys_do_not_share() {
    let (pool, pipes, _driver) = start(PoolSettings::default());
    let _a = within(pool.open(&"a", &head())).await.unwrap();
    let _b = within(pool.open(&"b", &head())).await.unwrap();
    assert_eq!(pipes.dials.load(Ordering::SeqCst), 2);
}

#[tokio::test(flavor = "local")]
async fn a_failed_dial_fails_all_who_wait_for_it_alike() {
    let (pool, pipes, _driver) = start(PoolSettings::default());
    let opens = (0..20).map(|_| {
        let pool = pool.clone();
        async move { pool.open(&"fails", &head()).await }
    });
    for result in within(futures_util::future::join_all(opens)).await {
        assert!(matches!(result, Err(PoolError::Dial(DialFailure::Dial(_)))));
    }
    assert_eq!(pipes.dials.load(Ordering::SeqCst), 1);
    assert!(pool.counts().is_empty());
}

#[tokio::test(flavor = "local")]
async fn a_dial_has_a_deadline() {
    let settings = PoolSettings { dial_timeout: Duration::from_millis(30), ..PoolSettings::default() };
    let (pool, _, _driver) = start(settings);
    let result = within(pool.open(&"slow", &head())).await;
    assert!(matches!(result, Err(PoolError::Dial(DialFailure::Timeout))));
}

#[tokio::test(flavor = "local")]
async fn a_caller_that_gives_up_leaves_no_trace() {
    let (pool, _, _driver) = start(PoolSettings::default());
    assert!(tokio::time::timeout(Duration::from_millis(1), pool.open(&"a", &head())).await.is_err());
    assert_eq!(count_of(&pool, "a").waiting, 0);
    eventually("its dial ends", || count_of(&pool, "a").connections == 1).await;
    assert_eq!(count_of(&pool, "a").tunnels, 0);
}

#[tokio::test(flavor = "local")]
async fn after_goaway_new_tunnels_move_and_old_ones_finish() {
    let (pool, pipes, _driver) = start(PoolSettings::default());
    let mut old = within(pool.open(&"a", &head())).await.unwrap();
    pipes.drain.send(1).unwrap();
    // At whatever moment the GOAWAY arrives, nobody sees a failure.
    let mut tunnels = Vec::new();
    while pipes.dials.load(Ordering::SeqCst) == 1 {
        tunnels.push(within(pool.open(&"a", &head())).await.unwrap());
        assert!(tunnels.len() < 90, "GOAWAY never noticed");
    }
    let mut new = within(pool.open(&"a", &head())).await.unwrap();
    assert_eq!(pipes.dials.load(Ordering::SeqCst), 2);
    ping(&mut new, b"new").await;
    ping(&mut old, b"old").await;
    old.shutdown().await.unwrap();
    assert_eq!(within(old.read(&mut [0; 1])).await.unwrap(), 0);
}

/// A kept connection that breaks under a new request is replaced, and the caller does not notice.
#[tokio::test(flavor = "local")]
async fn a_broken_kept_connection_is_replaced() {
    let (pool, pipes, _driver) = start(PoolSettings::default());
    drop(within(pool.open(&"breaks once", &head())).await.unwrap());
    let mut tunnel = within(pool.open(&"breaks once", &head())).await.unwrap();
    assert_eq!(pipes.dials.load(Ordering::SeqCst), 2);
    ping(&mut tunnel, b"new").await;
}

#[tokio::test(flavor = "local")]
async fn a_burst_of_many_dials_at_once_and_waiters_take_places_that_come_free() {
    let (pool, pipes, _driver) = start(PoolSettings::default());
    let opened = (0..450).map(|_| {
        let pool = pool.clone();
        spawn_local(async move { pool.open(&"a", &head()).await.unwrap() })
    });
    let opened: Vec<_> = opened.collect();
    eventually("all dials begin together", || pipes.dials.load(Ordering::SeqCst) == 5).await;
    let tunnels = within(futures_util::future::join_all(opened)).await;
    assert_eq!(count_of(&pool, "a"), KeyCount { connections: 5, tunnels: 450, waiting: 0 });
    drop(tunnels);
    assert_eq!(count_of(&pool, "a").tunnels, 0);
}

const BRIEF: Duration = Duration::from_millis(20);

/// Whoever has something better to do goes; the connection that did not answer gets no new requests, and what is on it goes on.
#[tokio::test(flavor = "local")]
async fn a_request_without_an_answer_is_given_up_and_its_connection_is_left() {
    let (pool, pipes, _driver) = start(PoolSettings::default());
    let mut old = within(pool.open(&"never answers once", &head())).await.unwrap();
    let asked = AtomicUsize::new(0);
    let gives_up = || asked.fetch_add(1, Ordering::SeqCst) == 2;
    let head = head();
    let given_up = pool.open_within(&"never answers once", &head, Patience { step: BRIEF, gives_up });
    assert!(matches!(within(given_up).await, Err(PoolError::Unanswered { dialled: true })));
    assert_eq!(asked.load(Ordering::SeqCst), 3, "asked again while it had nothing better to do");
    let mut new = within(pool.open(&"never answers once", &head)).await.unwrap();
    assert_eq!(pipes.dials.load(Ordering::SeqCst), 2);
    ping(&mut new, b"new").await;
    ping(&mut old, b"old").await;
}

#[tokio::test(flavor = "local")]
async fn a_dial_that_takes_long_is_given_up_by_who_may_and_goes_on() {
    let (pool, pipes, _driver) = start(PoolSettings::default());
    let head = head();
    let given_up = pool.open_within(&"slow", &head, Patience { step: BRIEF, gives_up: || true });
    assert!(matches!(within(given_up).await, Err(PoolError::Unanswered { dialled: false })));
    assert_eq!(pipes.dials.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "local")]
async fn an_idle_connection_is_released() {
    let settings = PoolSettings { idle_release: Duration::from_millis(40), ..PoolSettings::default() };
    let (pool, pipes, _driver) = start(settings);
    let mut tunnel = within(pool.open(&"a", &head())).await.unwrap();
    tokio::time::sleep(Duration::from_millis(120)).await;
    ping(&mut tunnel, b"a busy one is kept").await;
    assert_eq!(count_of(&pool, "a").connections, 1);
    drop(tunnel);
    eventually("released", || pool.counts().is_empty()).await;
    within(pool.open(&"a", &head())).await.unwrap();
    assert_eq!(pipes.dials.load(Ordering::SeqCst), 2);
}

#[tokio::test(flavor = "local")]
async fn retired_keys_get_new_connections() {
    let (pool, pipes, _driver) = start(PoolSettings::default());
    let mut old = within(pool.open(&"a", &head())).await.unwrap();
    pool.retire_where(|key| *key == "a");
    let mut new = within(pool.open(&"a", &head())).await.unwrap();
    assert_eq!(pipes.dials.load(Ordering::SeqCst), 2);
    ping(&mut old, b"old").await;
    ping(&mut new, b"new").await;
}

#[tokio::test(flavor = "local")]
async fn a_drained_pool_takes_nothing_and_ends_with_its_last_tunnel() {
    let (pool, _, driver) = start(PoolSettings::default());
    let mut tunnel = within(pool.open(&"a", &head())).await.unwrap();
    let waiting = spawn_local({
        let pool = pool.clone();
        async move { pool.open(&"slow", &head()).await.map(|_| ()) }
    });
    eventually("it waits", || count_of(&pool, "slow").waiting == 1).await;
    pool.drain();
    assert!(matches!(within(waiting).await.unwrap(), Err(PoolError::Draining)));
    assert!(matches!(pool.open(&"a", &head()).await, Err(PoolError::Draining)));
    ping(&mut tunnel, b"goes on").await;
    assert!(!driver.is_finished());
    drop(tunnel);
    within(driver).await.unwrap();
}
