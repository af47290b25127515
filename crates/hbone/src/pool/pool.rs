//! The doing half of the pool: leases places on connections, runs dials and connections.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::Future;
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::io::{AsyncBufRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::dial::{Dial, DialFailure, PoolKey};
use super::ledger::{Answer, ConnectionId, KeyCount, Ledger, WaiterId};
use crate::client::{ClientConnection, ClientDriver, OpenError, handshake};
use crate::connect::ConnectHead;
use crate::error::{ConnectionEnd, StreamError};
use crate::settings::ConnectionSettings;
use crate::tunnel::Tunnel;

/// How often a request is sent again on another connection when the peer certainly did not process it, or a kept connection broke. 2: a GOAWAY may cross it, and
/// the next connection may meet the same; a peer that refuses three in a row means it.
const RETRIES: usize = 2;

/// Idle connections are looked for four times per `idle_release`, but not more often than this.
const SHORTEST_TICK: Duration = Duration::from_millis(1);

/// The numbers of a pool.
#[derive(Debug, Clone)]
pub struct PoolSettings {
    /// For every connection.
    pub connection: ConnectionSettings,
    /// A connection without tunnels is closed after this. 5 min (as ztunnel).
    pub idle_release: Duration,
    /// TCP, TLS and HTTP/2 together. 10 s (same, section 2.5).
    pub dial_timeout: Duration,
}

impl Default for PoolSettings {
    fn default() -> Self {
        Self {
            connection: ConnectionSettings::default(),
            idle_release: Duration::from_secs(300),
            dial_timeout: Duration::from_secs(10),
        }
    }
}

/// Why the pool gave no tunnel.
#[derive(Debug, thiserror::Error)]
pub enum PoolError<E: std::fmt::Display> {
    /// No connection to the peer.
    #[error("dial: {0}")]
    Dial(DialFailure<E>),
    /// A connection, but no tunnel.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// No answer in time, and the caller did not want to wait any longer ([`Patience`]).
    #[error("{}", if *.dialled { "no answer to the request" } else { "no connection yet" })]
    Unanswered {
        /// A connection stood and the request was sent; else the dial was not over.
        dialled: bool,
    },
    /// [`Pool::drain`] was called, or the driver is gone.
    #[error("pool takes no more tunnels")]
    Draining,
}

/// How long a caller waits for each step (a connection; the answer to its request) before it asks itself whether to go on.
#[derive(Debug, Clone, Copy)]
pub struct Patience<G> {
    /// How long a step may take unasked, and between two questions.
    pub step: Duration,
    /// Whether to give up now: is there anything better to do?
    pub gives_up: G,
}

impl<G: Fn() -> bool> Patience<G> {
    /// Waits for a step; `None` when the caller gave up.
    pub async fn wait<T>(&self, step: impl Future<Output = T>) -> Option<T> {
        let mut step = pin!(step);
        loop {
            match timeout(self.step, &mut step).await {
                Ok(done) => return Some(done),
                Err(_) if (self.gives_up)() => return None,
                Err(_) => {}
            }
        }
    }
}

/// One key's line for the admin page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolCount<K> {
    /// The peer.
    pub key: K,
    /// What it has.
    pub count: KeyCount,
}

/// Opens tunnels. Clones share one pool.
pub struct Pool<K: PoolKey, E> {
    book: Rc<RefCell<Book<K, E>>>,
    commands: mpsc::UnboundedSender<Command<K>>,
}

/// Owns the dials and connections of a pool. Nothing moves unless [`PoolDriver::run`] is polled; dropping it cuts everything.
#[must_use = "a pool does nothing unless its driver runs"]
pub struct PoolDriver<K: PoolKey, D: Dial<K>> {
    dialer: D,
    settings: PoolSettings,
    book: Rc<RefCell<Book<K, D::Error>>>,
    commands: mpsc::UnboundedReceiver<Command<K>>,
}

enum Command<K> {
    Dial(K),
    /// Look again whether there is anything left to do.
    Wake,
}

type Served<K, E> = Result<Lease<K, E>, Option<DialFailure<E>>>;

struct Book<K: PoolKey, E> {
    ledger: Ledger<K>,
    connections: HashMap<ConnectionId, ClientConnection>,
    waiters: HashMap<WaiterId, oneshot::Sender<Served<K, E>>>,
    next_waiter: u64,
    draining: bool,
}

/// A place on a connection; given back when dropped, which is when the tunnel that holds it is.
struct Lease<K: PoolKey, E> {
    id: ConnectionId,
    connection: Option<ClientConnection>,
    /// The connection was dialled for this caller.
    fresh: bool,
    book: Weak<RefCell<Book<K, E>>>,
}

/// A caller that waits; forgotten when dropped.
struct Waiter<'a, K: PoolKey, E> {
    key: &'a K,
    id: WaiterId,
    served: oneshot::Receiver<Served<K, E>>,
    book: &'a RefCell<Book<K, E>>,
}

impl<K, E> Pool<K, E>
where
    K: PoolKey,
    E: std::fmt::Display + 'static,
{
    /// An empty pool, and what must be driven for it to work.
    pub fn new<D>(dialer: D, settings: PoolSettings) -> (Self, PoolDriver<K, D>)
    where
        D: Dial<K, Error = E>,
    {
        let (sender, receiver) = mpsc::unbounded_channel();
        let book = Rc::new(RefCell::new(Book {
            ledger: Ledger::new(settings.idle_release),
            connections: HashMap::new(),
            waiters: HashMap::new(),
            next_waiter: 0,
            draining: false,
        }));
        let driver = PoolDriver { dialer, settings, book: Rc::clone(&book), commands: receiver };
        (Self { book, commands: sender }, driver)
    }

    /// Opens a tunnel to the peer that `key` names, on a connection that has room or on a new one. No deadline but that of the dial.
    ///
    /// # Errors
    /// See [`PoolError`]. A request that met a GOAWAY is tried again on another connection first.
    pub async fn open(&self, key: &K, head: &ConnectHead) -> Result<Tunnel, PoolError<E>> {
        self.open_within(key, head, Patience { step: Duration::MAX, gives_up: || false }).await
    }

    /// As [`Self::open`], for a caller that may have something better to do. A connection on which a request was not answered in time
    /// gets no new ones and is replaced: what is on it goes on.
    ///
    /// # Errors
    /// See [`PoolError`].
    pub async fn open_within(
        &self,
        key: &K,
        head: &ConnectHead,
        patience: Patience<impl Fn() -> bool>,
    ) -> Result<Tunnel, PoolError<E>> {
        let mut tries = 0;
        loop {
            let lease = patience.wait(self.lease(key)).await;
            let mut lease = lease.ok_or(PoolError::Unanswered { dialled: false })??;
            let connection = lease.connection.take().ok_or(PoolError::Draining)?;
            let Some(opened) = patience.wait(connection.open(head)).await else {
                let mut book = self.book.borrow_mut();
                book.retire(lease.id);
                // Says soon whether it was the application or the peer, also when nobody asks for this key any more.
                if book.ledger.replace(key) {
                    let _ = self.commands.send(Command::Dial(key.clone()));
                }
                return Err(PoolError::Unanswered { dialled: true });
            };
            match opened {
                Ok(mut tunnel) => {
                    tunnel.hold(Box::new(lease));
                    return Ok(tunnel);
                }
                Err(error) if may_retry(&error, lease.fresh) && tries < RETRIES => {
                    self.book.borrow_mut().retire(lease.id);
                    tries += 1;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// No new tunnels on the connections of the keys that `which` picks (a certificate was revoked, a pod is gone); open ones go on.
    pub fn retire_where(&self, which: impl FnMut(&K) -> bool) {
        let mut book = self.book.borrow_mut();
        for id in book.ledger.retire_where(which) {
            book.connections.remove(&id);
        }
    }

    /// No new tunnels at all; open ones go on, and each connection closes after its last. [`PoolDriver::run`] then returns.
    pub fn drain(&self) {
        let mut book = self.book.borrow_mut();
        book.draining = true;
        book.ledger.retire_where(|_| true);
        book.connections.clear();
        for id in book.ledger.abandon() {
            if let Some(waiter) = book.waiters.remove(&id) {
                // A caller that is gone needs no answer.
                let _ = waiter.send(Err(None));
            }
        }
        let _ = self.commands.send(Command::Wake);
    }

    /// What each key has, for the admin page. In no order.
    #[must_use]
    pub fn counts(&self) -> Vec<PoolCount<K>> {
        let book = self.book.borrow_mut();
        book.ledger.counts().map(|(key, count)| PoolCount { key: key.clone(), count }).collect()
    }

    async fn lease(&self, key: &K) -> Result<Lease<K, E>, PoolError<E>> {
        let mut waiter = {
            let mut book = self.book.borrow_mut();
            match book.ask(key, &self.book) {
                Asked::Leased(lease) => return Ok(lease),
                Asked::Draining => return Err(PoolError::Draining),
                Asked::Waits { id, served, dials } => {
                    for _ in 0..dials {
                        self.commands.send(Command::Dial(key.clone())).map_err(|_| PoolError::Draining)?;
                    }
                    Waiter { key, id, served, book: &self.book }
                }
            }
        };
        match (&mut waiter.served).await {
            Ok(Ok(lease)) => Ok(lease),
            Ok(Err(Some(failure))) => Err(PoolError::Dial(failure)),
            Ok(Err(None)) | Err(_) => Err(PoolError::Draining),
        }
    }
}

impl<K: PoolKey, E> Clone for Pool<K, E> {
    fn clone(&self) -> Self {
        Self { book: Rc::clone(&self.book), commands: self.commands.clone() }
    }
}

impl<K, D> PoolDriver<K, D>
where
    K: PoolKey,
    D: Dial<K>,
{
    /// Runs dials and connections until the pool is drained (or all its handles are gone) and the last tunnel has ended.
    pub async fn run(self) {
        let Self { dialer, settings, book, mut commands } = self;
        let mut dials = FuturesUnordered::new();
        let mut connections = FuturesUnordered::new();
        let mut tick = interval((settings.idle_release / 4).max(SHORTEST_TICK));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut open = true;
        // Nobody waits any more for a dial that is under way when the pool closes.
        while open || !connections.is_empty() {
            tokio::select! {
                Some((id, key, end)) = connections.next() => {
                    let end: ConnectionEnd = end;
                    tracing::debug!(%end, "tunnel connection ended");
                    book.borrow_mut().retire(id);
                    dialer.ended(&key, &end);
                }
                Some((key, result)) = dials.next() => {
                    let (running, more) = dialled(&book, &key, result);
                    dials.extend(std::iter::repeat_n(key.clone(), more).map(|key| dial(&dialer, &settings, key)));
                    connections.extend(running.map(|(id, driver)| async move { (id, key, driver.await) }));
                }
                command = commands.recv(), if open => match command {
                    Some(Command::Dial(key)) => dials.push(dial(&dialer, &settings, key)),
                    Some(Command::Wake) => {}
                    None => book.borrow_mut().connections.clear(),
                },
                _ = tick.tick() => book.borrow_mut().expire(),
            }
            open = !commands.is_closed() && !book.borrow_mut().draining;
        }
    }
}

/// A kept connection may have died unnoticed (the peer's agent was killed and came back): a caller must not pay for that. At worst the
/// application there sees one connection come and go without a byte.
fn may_retry(error: &OpenError, fresh: bool) -> bool {
    error.is_unprocessed() || (!fresh && *error == OpenError::Stream(StreamError::ConnectionLost))
}

/// What a dial gives: a connection and its driver, or the failure that all its waiters get.
type DialResult<Io, E> = Result<(ClientConnection, ClientDriver<Io>), DialFailure<E>>;

/// Enters a dial's result in the book. Returns what must run from now on, and how many more dials the key needs.
fn dialled<K: PoolKey, Io, E>(
    shared: &Rc<RefCell<Book<K, E>>>,
    key: &K,
    result: DialResult<Io, E>,
) -> (Option<(ConnectionId, ClientDriver<Io>)>, usize)
where
    Io: AsyncBufRead + AsyncWrite + Unpin,
{
    let mut book = shared.borrow_mut();
    let (connection, driver) = match result {
        Ok(pair) if !book.draining => pair,
        Ok(_) => return (None, 0),
        Err(failure) => {
            for id in book.ledger.dial_failed(key) {
                book.answer(id, Err(Some(failure.clone())));
            }
            return (None, 0);
        }
    };
    let dialled = book.ledger.dialled(key, connection.tunnel_limit(), Instant::now().into_std());
    let id = dialled.connection;
    book.connections.insert(id, connection);
    for waiter in dialled.served {
        book.serve(id, waiter, true, Rc::downgrade(shared));
    }
    (Some((id, driver)), dialled.dials)
}

async fn dial<K, D: Dial<K>>(dialer: &D, settings: &PoolSettings, key: K) -> (K, DialResult<D::Io, D::Error>) {
    let connect = async {
        let io = dialer.dial(&key).await.map_err(|error| DialFailure::Dial(Arc::new(error)))?;
        handshake(io, &settings.connection).await.map_err(DialFailure::Handshake)
    };
    let result = timeout(settings.dial_timeout, connect).await.unwrap_or(Err(DialFailure::Timeout));
    (key, result)
}

enum Asked<K: PoolKey, E> {
    Leased(Lease<K, E>),
    Waits { id: WaiterId, served: oneshot::Receiver<Served<K, E>>, dials: usize },
    Draining,
}

impl<K: PoolKey, E> Book<K, E> {
    fn ask(&mut self, key: &K, book: &Rc<RefCell<Self>>) -> Asked<K, E> {
        if self.draining {
            return Asked::Draining;
        }
        let waiter = WaiterId(self.next_waiter);
        self.next_waiter += 1;
        loop {
            match self.ledger.ask(key, waiter) {
                Answer::Wait { dials } => {
                    let (sender, served) = oneshot::channel();
                    self.waiters.insert(waiter, sender);
                    return Asked::Waits { id: waiter, served, dials };
                }
                Answer::Use(id) => {
                    let Some(connection) = self.connections.get(&id).filter(|connection| connection.is_usable()) else {
                        self.retire(id);
                        continue;
                    };
                    if !self.ledger.set_limit(id, connection.tunnel_limit()) {
                        self.ledger.give_back(id, Instant::now().into_std());
                        continue;
                    }
                    return Asked::Leased(Lease {
                        id,
                        connection: Some(connection.clone()),
                        fresh: false,
                        book: Rc::downgrade(book),
                    });
                }
            }
        }
    }

    /// Answers a waiter; returns a lease that nobody took.
    fn answer(&mut self, id: WaiterId, answer: Served<K, E>) -> Option<Lease<K, E>> {
        let unsent = match self.waiters.remove(&id) {
            Some(waiter) => waiter.send(answer).err(),
            None => Some(answer),
        };
        unsent.and_then(Result::ok)
    }

    /// Gives a place that was taken for a waiter to it, or to the next if it is gone. The book is borrowed: no lease may be dropped in here.
    fn serve(&mut self, id: ConnectionId, mut waiter: WaiterId, fresh: bool, book: Weak<RefCell<Self>>) {
        loop {
            let connection = self.connections.get(&id).cloned();
            let Some(mut unused) = self.answer(waiter, Ok(Lease { id, connection, fresh, book: book.clone() })) else {
                return;
            };
            unused.book = Weak::new();
            match self.ledger.give_back(id, Instant::now().into_std()) {
                Some(next) => waiter = next,
                None => return,
            }
        }
    }

    /// A tunnel ended.
    fn give_back(&mut self, id: ConnectionId, book: Weak<RefCell<Self>>) {
        if self.ledger.is_waited_for(id) && !self.connections.get(&id).is_some_and(ClientConnection::is_usable) {
            return self.retire(id);
        }
        if let Some(waiter) = self.ledger.give_back(id, Instant::now().into_std()) {
            self.serve(id, waiter, false, book);
        }
    }

    fn retire(&mut self, id: ConnectionId) {
        self.ledger.retire(id);
        self.connections.remove(&id);
    }

    fn expire(&mut self) {
        for id in self.ledger.expire(Instant::now().into_std()) {
            self.connections.remove(&id);
        }
    }
}

impl<K: PoolKey, E> Drop for Lease<K, E> {
    fn drop(&mut self) {
        if let Some(book) = self.book.upgrade() {
            book.borrow_mut().give_back(self.id, Weak::clone(&self.book));
        }
    }
}

impl<K: PoolKey, E> Drop for Waiter<'_, K, E> {
    fn drop(&mut self) {
        let mut book = self.book.borrow_mut();
        book.ledger.forget(self.key, self.id);
        book.waiters.remove(&self.id);
    }
}
