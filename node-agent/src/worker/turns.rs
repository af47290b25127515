//! Turns: a caller with many connections leaves a worker's time to those with few.
//!
//! Each task that is woken is run, one after the other, so a pod that keeps 1,000 connections busy is a queue of 1,000 for whoever
//! comes next. So a crowd (a caller with more than [`FEW`] connections on this worker; a caller is an address: a pod of this node, or
//! the pod behind a tunnel) has [`TURN`] steps in each [`ROUND`] while there is [`Company`]. The tasks beyond them stand aside.
//!
//! ```text
//! relay is woken -> poll_turn -- alone, or has few connections --> relays
//!                       |------- steps left ---------------------> relays
//!                       '------- none --> set aside --next round--> woken again
//! ```
//!
//! The thread sleeps between a crowd's steps and the next round, though it has work to do: the programs of a node share the
//! processors with its agent. A thread that never sleeps has no advantage over them, and the scheduler lets it wait until each of
//! them has had its time, several milliseconds at each hop; one that sleeps is served as soon as somebody wakes it, and so are the
//! neighbour's programs. For the same reason company on any worker counts. That costs the crowd what it would have had in that time
//! (docs/threats.md has figures), so nobody else is held: who has few connections never waits, and who is alone on the agent, or has
//! been for [`LINGER`], has all the time that there is. Setting up takes no turns (`limits.rs` bounds it).

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::net::IpAddr;
use std::rc::{Rc, Weak};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use tokio::time::{Instant, sleep};
use weft_runtime::metrics::Registry;

/// Connections of one caller on one worker that are no crowd. 64: what a busy client's pool has; they are a queue of 0.6 ms.
const FEW: usize = 64;
/// Steps of a crowd in a round: some 0.3 ms of work. With 64 a neighbour's p99 was 5 to 16 ms, with 32 and with 16 it was 1 to 2 ms;
/// a crowd beside others has half as many answers with 16 as with 32.
const TURN: u32 = 32;
/// The time from a crowd's first step to its next round: the timer's least, which makes 1 to 2 ms of it.
const ROUND: Duration = Duration::from_millis(1);
/// For so long after others took a step a crowd is held. 100 ms: whoever asks ten times a second is company all the time, and a
/// probe once a second is a tenth of it.
const LINGER: Duration = Duration::from_millis(100);

/// Who uses the agent: what the rounds of all workers know and count together.
#[derive(Debug, Clone, Default)]
pub struct Company {
    latest: Arc<Mutex<[Option<Seen>; 2]>>,
    waits: Counter,
}

/// A caller, and when it took a step.
type Seen = (IpAddr, Instant);

impl Company {
    /// Counts as a metric.
    #[must_use]
    pub fn new(registry: &Registry) -> Self {
        let company = Self::default();
        let help = "Times that a connection of a caller with many waited for a turn";
        registry.register(|registry| registry.register("weft_turn_waits", help, company.waits.clone()));
        company
    }

    /// A caller takes a step; whether others did, too, of late.
    fn meets(&self, caller: IpAddr, now: Instant) -> bool {
        // Two values, each whole at any time.
        meet(&mut self.latest.lock().unwrap_or_else(PoisonError::into_inner), caller, now)
    }
}

/// The callers seen last: the latest one first, then the latest other one. Whether that was within [`LINGER`].
fn meet(latest: &mut [Option<Seen>; 2], caller: IpAddr, now: Instant) -> bool {
    let [first, second] = latest;
    if first.is_some_and(|(known, _)| known != caller) {
        *second = *first;
    }
    *first = Some((caller, now));
    second.is_some_and(|(_, at)| now.saturating_duration_since(at) < LINGER)
}

/// The turns of all callers of a worker.
#[derive(Debug)]
pub struct Rounds {
    known: RefCell<HashMap<IpAddr, Weak<Turns>>>,
    /// Until the next [`Rounds::tidy`] nobody stands aside.
    released: Cell<bool>,
    /// Callers that have taken steps in this round, or wait.
    due: RefCell<Vec<Rc<Turns>>>,
    runner: RefCell<Option<Waker>>,
    company: Company,
}

/// The turns of one caller: shared by the tasks of all its connections.
#[derive(Debug)]
pub struct Turns {
    caller: IpAddr,
    rounds: Rc<Rounds>,
    /// There was company when that was looked at last.
    shared: Cell<bool>,
    look_at: Cell<Option<Instant>>,
    used: Cell<u32>,
    aside: RefCell<VecDeque<Waker>>,
    /// How many have been called of those that ever stood aside, modulo 2^32.
    called: Cell<u32>,
    is_due: Cell<bool>,
}

/// The number of a task among all that stood aside, modulo 2^32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket(u32);

/// What a task may do that was woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// Go on; nobody counts.
    Free,
    /// Go on, by one of its caller's steps.
    Step,
    /// Wait behind those that wait.
    Aside,
    /// Go on waiting.
    Stay,
}

/// How it stands with a caller.
#[derive(Debug, Clone, Copy)]
struct Standing {
    /// Others use the agent, too.
    shared: bool,
    /// Connections of the caller on this worker.
    connections: usize,
    /// Its steps in this round.
    used: u32,
    /// Others of its tasks stand aside.
    others_wait: bool,
}

/// How it stands with one of its tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// It has not waited.
    New,
    /// It waits, and was woken by something else.
    Waits,
    /// It has waited, and was called.
    Called,
}

/// Whoever was called comes before whoever has not waited.
fn judge(standing: Standing, place: Place) -> Turn {
    let Standing { shared, connections, used, others_wait } = standing;
    match place {
        _ if !shared || connections <= FEW => Turn::Free,
        Place::Waits => Turn::Stay,
        Place::Called if used < TURN => Turn::Step,
        Place::New if used < TURN && !others_wait => Turn::Step,
        Place::Called | Place::New => Turn::Aside,
    }
}

impl Rounds {
    /// Those of a worker.
    #[must_use]
    pub fn new(company: Company) -> Rc<Self> {
        Rc::new(Self {
            known: RefCell::default(),
            released: Cell::default(),
            due: RefCell::default(),
            runner: RefCell::default(),
            company,
        })
    }

    /// The turns of a caller.
    #[must_use]
    pub fn of(self: &Rc<Self>, caller: IpAddr) -> Rc<Turns> {
        let mut known = self.known.borrow_mut();
        if let Some(turns) = known.get(&caller).and_then(Weak::upgrade) {
            return turns;
        }
        let turns = Rc::new(Turns {
            caller,
            rounds: Rc::clone(self),
            shared: Cell::default(),
            look_at: Cell::default(),
            used: Cell::default(),
            aside: RefCell::default(),
            called: Cell::default(),
            is_due: Cell::default(),
        });
        known.insert(caller, Rc::downgrade(&turns));
        turns
    }

    /// To be called now and then: what was released may be held again.
    pub fn tidy(&self) {
        self.released.set(false);
    }

    /// Many connections were told to end: none of them stands aside for it.
    pub fn release(&self) {
        self.released.set(true);
        self.due.borrow().iter().for_each(|turns| turns.call(usize::MAX));
    }

    /// Begins a new round each time that somebody needs one, for ever.
    pub async fn run(self: Rc<Self>) {
        loop {
            poll_fn(|cx| {
                if !self.due.borrow().is_empty() {
                    return Poll::Ready(());
                }
                self.runner.replace(Some(cx.waker().clone()));
                Poll::Pending
            })
            .await;
            sleep(ROUND).await;
            self.next_round();
        }
    }

    /// Gives new steps to everybody who has used some; all that they want, if nobody else has come of late.
    fn next_round(&self) {
        for turns in self.due.take() {
            turns.is_due.set(false);
            turns.used.set(0);
            turns.call(if turns.is_shared(Instant::now()) { TURN as usize } else { usize::MAX });
            if !turns.aside.borrow().is_empty() {
                self.is_due(&turns);
            }
        }
    }

    fn is_due(&self, turns: &Rc<Turns>) {
        if !turns.is_due.replace(true) {
            self.due.borrow_mut().push(Rc::clone(turns));
            self.runner.take().into_iter().for_each(Waker::wake);
        }
    }
}

impl Turns {
    /// Ready: take a step. Pending: this task stands aside, and is woken when its caller has steps again. `ticket` is the task's own
    /// memory of that; none at first.
    pub fn poll_turn(self: &Rc<Self>, cx: &Context<'_>, ticket: &mut Option<Ticket>) -> Poll<()> {
        let standing = Standing {
            shared: self.is_shared(Instant::now()) && !self.rounds.released.get(),
            // Each has one; `known` is weak, and one more while it is due.
            connections: Rc::strong_count(self),
            used: self.used.get(),
            others_wait: !self.aside.borrow().is_empty(),
        };
        match judge(standing, ticket.map_or(Place::New, |ticket| self.place(ticket))) {
            Turn::Free => *ticket = None,
            Turn::Step => {
                *ticket = None;
                self.used.set(standing.used + 1);
                self.rounds.is_due(self);
            }
            Turn::Aside => {
                *ticket = Some(self.set_aside(cx));
                self.rounds.is_due(self);
            }
            Turn::Stay => {}
        }
        if ticket.is_some() { Poll::Pending } else { Poll::Ready(()) }
    }

    /// Others use the agent, too. Other workers are asked once in a round.
    fn is_shared(&self, now: Instant) -> bool {
        if self.look_at.get().is_none_or(|at| at <= now) {
            self.shared.set(self.rounds.company.meets(self.caller, now));
            self.look_at.set(Some(now + ROUND));
        }
        self.shared.get()
    }

    fn set_aside(&self, cx: &Context<'_>) -> Ticket {
        let mut aside = self.aside.borrow_mut();
        // Fewer wait than there are descriptors.
        let ticket = Ticket(self.called.get().wrapping_add(u32::try_from(aside.len()).unwrap_or(u32::MAX)));
        aside.push_back(cx.waker().clone());
        self.rounds.company.waits.inc();
        ticket
    }

    fn place(&self, Ticket(number): Ticket) -> Place {
        // More than the half of all numbers ahead is behind.
        if number.wrapping_sub(self.called.get()) < u32::MAX / 2 { Place::Waits } else { Place::Called }
    }

    /// Wakes that many of those that stand aside, the first ones first.
    fn call(&self, count: usize) {
        let mut aside = self.aside.borrow_mut();
        let next = aside.len().min(count);
        self.called.set(self.called.get().wrapping_add(u32::try_from(next).unwrap_or(u32::MAX)));
        aside.drain(..next).for_each(Waker::wake);
    }
}

impl Drop for Turns {
    fn drop(&mut self) {
        let mut known = self.rounds.known.borrow_mut();
        // Another one may stand there by now.
        if known.get(&self.caller).is_some_and(|turns| turns.strong_count() == 0) {
            known.remove(&self.caller);
        }
    }
}

#[cfg(test)]
mod tests;
