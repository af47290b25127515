//! Ending in order. One [`Trigger`] tells every [`Watch`] to stop taking new work, waits until all of them (and the
//! [`Guard`]s they became) are dropped, and forces the rest to end when the deadline passes.
//!
//! ```text
//!            drain(deadline)             deadline passed
//! Running ------------------> Draining ------------------> Forced
//!                                 | all holders dropped       | all dropped, or FORCE_GRACE passed
//!                                 v                           v
//!                          Outcome::Drained             Outcome::Forced
//! ```
//!
//! **Who holds a `Watch` or a `Guard` is waited for**, from the moment it was made: no connection can slip between "the drain
//! began" and "I have noticed". Whoever only wants to know, and must not be waited for, holds an [`Observer`]. A trigger that is
//! dropped without draining forces everybody: a program that lost its owner does not go on.

use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout, timeout_at};

/// How long forced holders get to drop what they hold before [`Trigger::drain`] returns without them. One second is
/// thousands of times what dropping sockets takes; longer would only delay the exit of a program with a stuck task.
const FORCE_GRACE: Duration = Duration::from_secs(1);

/// Makes the trigger and the first watch.
pub fn channel() -> (Trigger, Watch) {
    let (phase, phases) = watch::channel(Phase::Running);
    // Nothing is ever sent: the channel only counts its senders, across threads, and wakes when the last one is gone.
    let (hold, holders) = mpsc::channel(1);
    (Trigger { phase, holders }, Watch { phases, hold })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    Draining { deadline: Instant },
    Forced,
}

/// What a holder is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Take nothing new; finish what is open before the deadline.
    Graceful {
        /// When the rest will be forced.
        deadline: Instant,
    },
    /// End now.
    Immediate,
}

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Outcome {
    /// Everybody finished before the deadline.
    Drained {
        /// How long it took.
        took: Duration,
    },
    /// The deadline passed first.
    Forced {
        /// Holders that were told to end at once.
        told: usize,
        /// Holders that still had not ended [a second](FORCE_GRACE) later.
        left: usize,
    },
}

/// Starts the drain. There is one.
#[derive(Debug)]
pub struct Trigger {
    phase: watch::Sender<Phase>,
    holders: mpsc::Receiver<std::convert::Infallible>,
}

impl Trigger {
    /// Tells everybody to finish, waits until they have or until `deadline` (from now) has passed, then forces the rest.
    /// A deadline of zero forces at once.
    pub async fn drain(mut self, deadline: Duration) -> Outcome {
        let begin = Instant::now();
        if !deadline.is_zero() {
            let deadline = begin + deadline;
            self.phase.send_replace(Phase::Draining { deadline });
            if timeout_at(deadline, self.holders.recv()).await.is_ok() {
                return Outcome::Drained { took: begin.elapsed() };
            }
        }
        let told = self.holders.sender_strong_count();
        self.phase.send_replace(Phase::Forced);
        let left = match timeout(FORCE_GRACE, self.holders.recv()).await {
            Ok(_) => 0,
            Err(_) => self.holders.sender_strong_count(),
        };
        Outcome::Forced { told, left }
    }

    /// How many watches and guards are alive.
    pub fn holders(&self) -> usize {
        self.holders.sender_strong_count()
    }
}

/// Held by whoever must end in order; cloned for every listener and connection. Counts as a holder.
#[derive(Debug, Clone)]
pub struct Watch {
    phases: watch::Receiver<Phase>,
    #[expect(dead_code, reason = "held only to be counted")]
    hold: mpsc::Sender<std::convert::Infallible>,
}

impl Watch {
    /// Completes when the drain begins (at once if it has). The guard keeps the program alive while work is finished; this
    /// watch stays one holder more, so drop both.
    pub async fn signalled(&self) -> Guard {
        let mode = wait_signal(&self.phases).await;
        Guard { mode, watch: self.clone() }
    }

    /// Completes when holders must end at once.
    pub async fn forced(&self) {
        wait_force(&self.phases).await;
    }

    /// What is asked now; `None` while nothing is.
    pub fn mode(&self) -> Option<Mode> {
        mode_of(*self.phases.borrow())
    }

    /// For somebody who wants to know but must not be waited for.
    pub fn observer(&self) -> Observer {
        Observer { phases: self.phases.clone() }
    }
}

/// Proof that the drain was noticed; drop it when the work is finished.
#[derive(Debug)]
#[must_use = "the drain waits only for those who hold a guard or a watch"]
pub struct Guard {
    mode: Mode,
    watch: Watch,
}

impl Guard {
    /// What was asked when the guard was made.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Completes when holders must end at once.
    pub async fn forced(&self) {
        self.watch.forced().await;
    }
}

/// Sees the drain but is not waited for.
#[derive(Debug, Clone)]
pub struct Observer {
    phases: watch::Receiver<Phase>,
}

impl Observer {
    /// Completes when the drain begins.
    pub async fn signalled(&self) -> Mode {
        wait_signal(&self.phases).await
    }

    /// Completes when holders must end at once.
    pub async fn forced(&self) {
        wait_force(&self.phases).await;
    }

    /// What is asked now; `None` while nothing is.
    pub fn mode(&self) -> Option<Mode> {
        mode_of(*self.phases.borrow())
    }
}

fn mode_of(phase: Phase) -> Option<Mode> {
    match phase {
        Phase::Running => None,
        Phase::Draining { deadline } => Some(Mode::Graceful { deadline }),
        Phase::Forced => Some(Mode::Immediate),
    }
}

async fn wait_signal(phases: &watch::Receiver<Phase>) -> Mode {
    let mut phases = phases.clone();
    // A closed channel is a trigger dropped without a drain; one dropped after it left its last phase, which is found first.
    let phase = phases.wait_for(|phase| *phase != Phase::Running).await.map_or(Phase::Forced, |phase| *phase);
    mode_of(phase).unwrap_or(Mode::Immediate)
}

async fn wait_force(phases: &watch::Receiver<Phase>) {
    // An error is a trigger that is gone: nobody will force any more, so it counts as forced.
    let mut phases = phases.clone();
    let _gone = phases.wait_for(|phase| *phase == Phase::Forced).await.is_err();
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn waits_for_those_who_finish_in_time() {
        let (trigger, watch) = channel();
        assert_eq!((watch.mode(), trigger.holders()), (None, 1));
        let begin = Instant::now();
        tokio::spawn(async move {
            let guard = watch.signalled().await;
            assert_eq!(guard.mode(), Mode::Graceful { deadline: begin + DEADLINE });
            tokio::time::sleep(Duration::from_secs(5)).await;
        });
        assert_eq!(trigger.drain(DEADLINE).await, Outcome::Drained { took: Duration::from_secs(5) });
    }

    #[tokio::test(start_paused = true)]
    async fn forces_those_who_do_not_and_counts_those_who_cannot() {
        let (trigger, watch) = channel();
        let stuck = watch.clone();
        tokio::spawn(async move { watch.signalled().await.forced().await });
        assert_eq!(trigger.drain(DEADLINE).await, Outcome::Forced { told: 3, left: 1 });
        assert_eq!(stuck.mode(), Some(Mode::Immediate));
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_of_zero_forces_at_once() {
        let (trigger, watch) = channel();
        let ended = tokio::spawn(async move { watch.signalled().await.mode() });
        assert!(matches!(trigger.drain(Duration::ZERO).await, Outcome::Forced { left: 0, .. }));
        assert_eq!(ended.await.unwrap(), Mode::Immediate);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_waited_for_when_nobody_holds_and_observers_do_not_count() {
        let (trigger, watch) = channel();
        let observer = watch.observer();
        drop(watch);
        assert_eq!(trigger.drain(DEADLINE).await, Outcome::Drained { took: Duration::ZERO });
        assert!(matches!(observer.signalled().await, Mode::Graceful { .. }));
        assert!(matches!(observer.mode(), Some(Mode::Graceful { .. })));
    }

    #[tokio::test]
    async fn a_trigger_that_is_lost_forces() {
        let (trigger, watch) = channel();
        drop(trigger);
        assert_eq!(watch.signalled().await.mode(), Mode::Immediate);
        watch.forced().await;
        watch.observer().forced().await;
    }

    #[tokio::test]
    async fn a_holder_on_another_runtime_is_waited_for() {
        let (trigger, watch) = channel();
        let (started, ready) = tokio::sync::oneshot::channel();
        let worker = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                started.send(()).unwrap();
                drop(watch.signalled().await);
            });
        });
        ready.await.unwrap();
        assert!(matches!(trigger.drain(DEADLINE).await, Outcome::Drained { .. }));
        worker.join().unwrap();
    }
}
