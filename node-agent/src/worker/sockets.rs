//! The worker's stock of sockets to dial with from inside each pod, asked for ahead of need.
//!
//! Only the capture half can make such sockets (it enters the pod's namespace), so every connection would cost a question
//! and an answer. The stock is kept above half of a batch, and a batch doubles whenever somebody had to wait: a busy
//! pod holds at most 64, an idle one 4 for each family that it used.
//!
//! Every option of a socket is set where it costs least: by the capture half on what it makes, and inherited by what a
//! listener accepts. Set for each connection they were 15 of its 44 system calls.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};
use weft_model::Reason;

use super::limits::Limits;
use crate::handover::Family;
use crate::loopback;
use crate::pods::PodUid;

/// Sockets of the first question for a pod.
const FIRST_BATCH: usize = 4;
/// Sockets of the largest question: what one handover record carries (`handover::message::MAX_SOCKETS`).
const LARGEST_BATCH: usize = 64;
/// A question without an answer for this long was lost with the capture half and is asked again; an answer takes
/// well under a millisecond.
const ASK_AGAIN: Duration = Duration::from_millis(300);

/// Asks the capture half for sockets; the answer comes through [`Sockets::supply`].
pub type Ask = Box<dyn Fn(&PodUid, Family, usize)>;

/// The stock of one worker.
pub struct Sockets {
    stocks: RefCell<HashMap<(PodUid, Family), Stock>>,
    ask: Ask,
    limits: Option<Limits>,
}

/// Why there is no socket.
enum Missing {
    /// It was asked for; this tells when to look again.
    OnTheWay(Rc<Notify>),
    /// It was sent, and there was no descriptor for it.
    Lost,
}

struct Stock {
    ready: Vec<OwnedFd>,
    batch: usize,
    asked: Option<Instant>,
    arrived: Rc<Notify>,
    /// How often the capture half said that there are none.
    refusals: u64,
    /// When an answer could not be taken, because there were no descriptors for it.
    lost: Option<Instant>,
}

impl Default for Stock {
    fn default() -> Self {
        Self { ready: Vec::new(), batch: FIRST_BATCH, asked: None, arrived: Rc::default(), refusals: 0, lost: None }
    }
}

/// The family of an address.
#[must_use]
pub fn family_of(address: IpAddr) -> Family {
    if address.is_ipv6() { Family::V6 } else { Family::V4 }
}

impl Sockets {
    /// An empty stock.
    #[must_use]
    pub fn new(ask: Ask) -> Self {
        Self { stocks: RefCell::default(), ask, limits: None }
    }

    /// Gives none whose number is above what connections may have.
    #[must_use]
    pub fn within(self, limits: Limits) -> Self {
        Self { limits: Some(limits), ..self }
    }

    /// Whether its number is near to the limit: the hand-over needs what is left.
    fn is_beyond(&self, socket: &OwnedFd) -> bool {
        let (Some(limits), Ok(number)) = (&self.limits, u64::try_from(socket.as_raw_fd())) else { return false };
        let beyond = || number >= limits.descriptors_for_all();
        beyond() && {
            limits.descriptors.look();
            beyond()
        }
    }

    /// A socket that lives in the pod's namespace: unbound, marked, transparent.
    ///
    /// # Errors
    /// [`Reason::NoDialSockets`] when none comes in time, [`Reason::DescriptorLimit`] when the process has nearly as many
    /// descriptors as it may.
    pub async fn take(&self, uid: &PodUid, family: Family, patience: Duration) -> Result<DialSocket, Reason> {
        let deadline = Instant::now() + patience;
        let key = (uid.clone(), family);
        let refusals = self.with(&key, |stock| stock.refusals);
        loop {
            let arrived = match self.with(&key, |stock| self.take_ready(&key, stock)) {
                Ok(socket) if self.is_beyond(&socket) => return Err(Reason::DescriptorLimit),
                Ok(socket) => return Ok(DialSocket(socket)),
                Err(Missing::Lost) => return Err(Reason::DescriptorLimit),
                Err(Missing::OnTheWay(arrived)) => arrived,
            };
            let notified = arrived.notified();
            let refused = self.with(&key, |stock| stock.refusals != refusals);
            if refused || Instant::now() >= deadline {
                return Err(Reason::NoDialSockets);
            }
            // Woken early or late makes no difference: the next round looks, and asks again when it is time.
            let _ = timeout_at(deadline.min(Instant::now() + ASK_AGAIN), notified).await;
        }
    }

    fn with<R>(&self, key: &(PodUid, Family), look: impl FnOnce(&mut Stock) -> R) -> R {
        let mut stocks = self.stocks.borrow_mut();
        if !stocks.contains_key(key) {
            stocks.insert(key.clone(), Stock::default());
        }
        look(stocks.get_mut(key).expect("inserted above"))
    }

    /// A socket, or what tells of the next ones.
    fn take_ready(&self, key: &(PodUid, Family), stock: &mut Stock) -> Result<OwnedFd, Missing> {
        let socket = stock.ready.pop();
        // Whoever comes now would be told the same: no question until it may have changed.
        if stock.lost.is_some_and(|lost| lost.elapsed() < ASK_AGAIN) {
            return socket.ok_or(Missing::Lost);
        }
        let lost = stock.asked.is_some_and(|asked| asked.elapsed() >= ASK_AGAIN);
        if stock.ready.len() < stock.batch / 2 && (stock.asked.is_none() || lost) {
            if socket.is_none() && !lost {
                stock.batch = (stock.batch * 2).min(LARGEST_BATCH);
            }
            stock.asked = Some(Instant::now());
            (self.ask)(&key.0, key.1, stock.batch);
        }
        socket.ok_or_else(|| Missing::OnTheWay(stock.arrived.clone()))
    }

    /// What the capture half sent; nothing means that the pod is not there.
    pub fn supply(&self, uid: &PodUid, family: Family, mut sockets: Vec<OwnedFd>) {
        make_ready(&mut sockets);
        self.with(&(uid.clone(), family), |stock| {
            (stock.asked, stock.lost) = (None, None);
            if sockets.is_empty() {
                stock.refusals += 1;
            }
            stock.ready.extend(sockets);
            stock.arrived.notify_waiters();
        });
    }

    /// What the capture half sent was lost, because this process has no descriptors: whoever waits is told so, and for a while
    /// whoever comes. Fewer are asked for next time.
    pub fn lost(&self, uid: &PodUid, family: Family) {
        self.with(&(uid.clone(), family), |stock| {
            (stock.asked, stock.lost, stock.batch) = (None, Some(Instant::now()), FIRST_BATCH);
            stock.arrived.notify_waiters();
        });
    }

    /// The capture half has named the pod (again): what was asked before is lost, and whoever waits asks anew.
    pub fn renew(&self, uid: &PodUid) {
        let mut stocks = self.stocks.borrow_mut();
        for (_, stock) in stocks.iter_mut().filter(|((owner, _), _)| owner == uid) {
            stock.asked = None;
            stock.arrived.notify_waiters();
        }
    }

    /// Closes what is left for a pod that is gone.
    pub fn forget(&self, uid: &PodUid) {
        self.stocks.borrow_mut().retain(|(owner, _), _| owner != uid);
    }

    /// Sockets in stock, for the admin page and tests.
    #[must_use]
    pub fn ready(&self, uid: &PodUid, family: Family) -> usize {
        self.stocks.borrow().get(&(uid.clone(), family)).map_or(0, |stock| stock.ready.len())
    }
}

/// Sockets of one answer are alike, so looking at the first one is enough: those of a capture half that is older than the
/// proxy may lack options, and a blocking one would stop the whole worker.
fn make_ready(sockets: &mut Vec<OwnedFd>) {
    if sockets.first().is_none_or(is_ready) {
        return;
    }
    sockets.retain(|socket| {
        let socket = SockRef::from(socket);
        // What fails here is gone already; the worker asks for others.
        socket.set_nonblocking(true).and_then(|()| set_options(&socket)).is_ok()
    });
}

fn is_ready(socket: &OwnedFd) -> bool {
    let socket = SockRef::from(socket);
    let lingers = socket.linger().is_ok_and(|linger| linger == Some(Duration::ZERO));
    lingers && socket.tcp_nodelay().unwrap_or(false) && socket.nonblocking().unwrap_or(false)
}

/// A socket to dial with: lives in the pod's namespace, unbound, with every option set. Dropped before it is connected to
/// the end, it leaves no trace that looks like a client who said goodbye.
#[derive(Debug)]
pub struct DialSocket(OwnedFd);

impl DialSocket {
    /// Gives it an address of its own to come from.
    ///
    /// # Errors
    /// Those of bind.
    pub fn bind(&self, from: SocketAddr) -> io::Result<()> {
        Ok(rustix::net::bind(&self.0, &from)?)
    }

    /// Says that what it will connect to is in its own pod: see [`loopback`].
    ///
    /// # Errors
    /// Those of setsockopt.
    pub fn stay_in_the_pod(&self) -> io::Result<()> {
        loopback::tune(&SockRef::from(&self.0))
    }

    /// Connects.
    ///
    /// # Errors
    /// Those of connect.
    pub async fn connect(self, to: SocketAddr) -> io::Result<TcpStream> {
        match rustix::net::connect(&self.0, &to) {
            Ok(()) => return self.registered(),
            Err(rustix::io::Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        // Over loopback, where applications are, the connection stands when `connect` returns; only it does not say so.
        if rustix::net::getpeername(&self.0).is_ok() {
            return self.registered();
        }
        let stream = self.registered()?;
        stream.writable().await?;
        match stream.take_error()? {
            Some(error) => Err(error),
            None => Ok(stream),
        }
    }

    fn registered(self) -> io::Result<TcpStream> {
        TcpStream::from_std(self.0.into())
    }
}

/// Rest before the first keepalive probe (as ztunnel).
const KEEPALIVE: Duration = Duration::from_secs(180);
/// Rest between two probes. 15 s where ztunnel has 180: with its numbers a connection whose other side has vanished, half
/// closed or not, holds its descriptors and memory for half an hour; so it is four minutes.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// Probes without answer before the connection counts as dead.
const KEEPALIVE_PROBES: u32 = 4;

/// What every socket of the data path has; set on a listener it holds for everything that is accepted from then on: small
/// writes leave at once, dead peers are noticed, and any close that is not orderly is a reset (see `weft_hbone::relay`).
///
/// # Errors
/// When the socket is gone.
pub fn tune(socket: &impl AsFd) -> io::Result<()> {
    set_options(&SockRef::from(socket))
}

fn set_options(socket: &SockRef<'_>) -> io::Result<()> {
    socket.set_linger(Some(Duration::ZERO))?;
    socket.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE_INTERVAL);
    socket.set_tcp_keepalive(&keepalive.with_retries(KEEPALIVE_PROBES))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::os::fd::OwnedFd;
    use std::rc::Rc;
    use std::time::Duration;

    use futures_util::FutureExt;
    use weft_model::Reason;

    use super::{Family, Sockets};
    use crate::pods::PodUid;

    type Asked = Rc<RefCell<Vec<usize>>>;

    fn stock() -> (Rc<Sockets>, Asked, PodUid) {
        let asked = Asked::default();
        let log = asked.clone();
        let sockets = Sockets::new(Box::new(move |_, _, count| log.borrow_mut().push(count)));
        (Rc::new(sockets), asked, PodUid::from("pod"))
    }

    fn some(count: usize) -> Vec<OwnedFd> {
        let socket = || socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        (0..count).map(|_| socket().into()).collect()
    }

    const PATIENCE: Duration = Duration::from_secs(5);

    /// Whether a socket has what [`super::tune`] sets.
    fn is_tuned(socket: &impl std::os::fd::AsFd) -> bool {
        let socket = socket2::SockRef::from(socket);
        let keepalive = socket.keepalive().unwrap() && socket.tcp_keepalive_time().unwrap() == super::KEEPALIVE;
        keepalive && socket.tcp_nodelay().unwrap() && socket.linger().unwrap() == Some(Duration::ZERO)
    }

    /// Nothing is set on accepted sockets one by one: this is the kernel's part of it.
    #[test]
    fn what_a_listener_accepts_inherits_its_options() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        super::tune(&listener).unwrap();
        let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(is_tuned(&listener.accept().unwrap().0));
    }

    #[tokio::test]
    async fn sockets_of_an_older_capture_half_get_what_they_lack() {
        let (sockets, _, pod) = stock();
        sockets.supply(&pod, Family::V4, some(2));
        for _ in 0..2 {
            let socket = sockets.take(&pod, Family::V4, PATIENCE).await.unwrap();
            assert!(is_tuned(&socket.0) && socket2::SockRef::from(&socket.0).nonblocking().unwrap());
        }
    }

    #[tokio::test]
    async fn a_connection_over_loopback_stands_at_once_and_a_refusal_is_one() {
        let (sockets, _, pod) = stock();
        sockets.supply(&pod, Family::V4, some(2));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = listener.local_addr().unwrap();
        let socket = sockets.take(&pod, Family::V4, PATIENCE).await.unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        socket.stay_in_the_pod().unwrap();
        assert!(socket2::SockRef::from(&socket.0).tcp_congestion().unwrap().starts_with(b"reno"));
        let stream = socket.connect(to).now_or_never().expect("without waiting").unwrap();
        assert_eq!(listener.accept().await.unwrap().1, stream.local_addr().unwrap());
        drop(listener);
        let refused = sockets.take(&pod, Family::V4, PATIENCE).await.unwrap().connect(to).await;
        assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    }

    #[tokio::test(start_paused = true)]
    async fn waits_for_the_answer_and_asks_ahead_from_then_on() {
        let (sockets, asked, pod) = stock();
        let taker = {
            let (sockets, pod) = (sockets.clone(), pod.clone());
            async move { sockets.take(&pod, Family::V4, PATIENCE).await.is_ok() }
        };
        let giver = async {
            tokio::task::yield_now().await;
            sockets.supply(&pod, Family::V4, some(8));
        };
        assert!(tokio::join!(taker, giver).0);
        assert_eq!(*asked.borrow(), [8], "the first one had to wait, so the batch doubled");
        for _ in 0..3 {
            assert!(sockets.take(&pod, Family::V4, PATIENCE).await.is_ok());
        }
        assert_eq!(*asked.borrow(), [8], "half of a batch is left");
        assert!(sockets.take(&pod, Family::V4, PATIENCE).await.is_ok());
        assert_eq!(*asked.borrow(), [8, 8], "below half, before anybody waits");
        assert_eq!(sockets.ready(&pod, Family::V4), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_question_is_asked_again() {
        let (sockets, asked, pod) = stock();
        let taker = {
            let (sockets, pod) = (sockets.clone(), pod.clone());
            async move { sockets.take(&pod, Family::V6, PATIENCE).await.is_ok() }
        };
        let giver = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            sockets.supply(&pod, Family::V6, some(1));
        };
        assert!(tokio::join!(taker, giver).0);
        assert!(asked.borrow().len() >= 3, "{:?}", asked.borrow());
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_asks_anew_when_the_capture_half_is_back() {
        let (sockets, asked, pod) = stock();
        let begin = tokio::time::Instant::now();
        let taker = sockets.take(&pod, Family::V4, PATIENCE);
        let giver = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            sockets.renew(&pod);
            while asked.borrow().len() < 2 {
                tokio::task::yield_now().await;
            }
            sockets.supply(&pod, Family::V4, some(1));
        };
        assert!(tokio::join!(taker, giver).0.is_ok());
        assert_eq!(begin.elapsed(), Duration::from_millis(100), "not only when the question counts as lost");
    }

    #[tokio::test(start_paused = true)]
    async fn without_descriptors_whoever_waits_is_refused_and_then_it_is_tried_again() {
        let (sockets, asked, pod) = stock();
        let taker = sockets.take(&pod, Family::V4, PATIENCE);
        let giver = async {
            tokio::task::yield_now().await;
            sockets.lost(&pod, Family::V4);
        };
        assert_eq!(tokio::join!(taker, giver).0.map(|_| ()), Err(Reason::DescriptorLimit));
        let at_once = sockets.take(&pod, Family::V4, PATIENCE).now_or_never().expect("without waiting");
        assert_eq!((at_once.map(|_| ()), asked.borrow().len()), (Err(Reason::DescriptorLimit), 1));
        tokio::time::sleep(super::ASK_AGAIN).await;
        let giver = async {
            tokio::task::yield_now().await;
            sockets.supply(&pod, Family::V4, some(2));
        };
        assert!(tokio::join!(sockets.take(&pod, Family::V4, PATIENCE), giver).0.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_ever() {
        let (sockets, _, pod) = stock();
        let begin = tokio::time::Instant::now();
        assert_eq!(sockets.take(&pod, Family::V4, PATIENCE).await.map(|_| ()), Err(Reason::NoDialSockets));
        assert_eq!(begin.elapsed(), PATIENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_that_is_not_there_is_refused_at_once() {
        let (sockets, _, pod) = stock();
        let begin = tokio::time::Instant::now();
        let taker = sockets.take(&pod, Family::V4, PATIENCE);
        let giver = async {
            tokio::task::yield_now().await;
            sockets.supply(&pod, Family::V4, Vec::new());
        };
        assert_eq!(tokio::join!(taker, giver).0.map(|_| ()), Err(Reason::NoDialSockets));
        assert!(begin.elapsed() < Duration::from_millis(10));
    }
}
