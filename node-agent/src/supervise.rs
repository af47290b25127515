//! `weft-node-agent run`: both halves as two processes of this program, started again when they end. On Kubernetes the
//! kubelet does this for two containers; here it is us, for bare metal, the demo and tests.
//!
//! SIGHUP upgrades both in place, from what the program's file is by then, if that runs at all:
//!
//! ```text
//! capture half   killed, and started anew: it adopts its pods, and the proxy goes on meanwhile
//! proxy half     a successor beside it -> ready -> SIGTERM to the old one, which drains
//!                                      '-> ends, or is not ready in time: killed, the old one goes on
//! ```

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use futures_util::future::select_all;
use nix::sys::signal::{Signal as Kill, kill};
use nix::unistd::Pid;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use weft_runtime::backoff::{Backoff, Settings};
use weft_runtime::signals::Signals;

/// A half that ends at once is started again after this pause, doubling; one that lived is started at once.
const PAUSE: Settings =
    Settings { initial: Duration::from_millis(100), cap: Duration::from_secs(5), factor: 2.0, jitter: 0.2 };
/// A half that lived this long did not end because of how it was started.
const LIVED: Duration = Duration::from_secs(10);
/// Time to end after SIGTERM beyond the proxy's own drain deadline, then SIGKILL.
const GRACE: Duration = Duration::from_secs(5);
/// How long a program may take to say its version.
const TRIAL: Duration = Duration::from_secs(5);
/// How long a successor may take to be ready: a second or two with a control plane, and without one it shall not take over.
const READY: Duration = Duration::from_secs(60);

/// How to start the halves.
#[derive(Debug, Clone)]
pub struct Plan {
    /// This program.
    pub program: PathBuf,
    /// The arguments that this process was given, without the program's name.
    pub arguments: Vec<OsString>,
    /// How long the proxy half may drain.
    pub drain_deadline: Duration,
}

/// Runs both halves until a signal comes, then ends them in order: the proxy first, so that it can drain while its
/// pods are still captured. A second signal ends what is left at once. SIGHUP: see the [module](self).
///
/// # Errors
/// When a half cannot be started at all.
pub async fn run(plan: Plan, mut signals: Signals) -> std::io::Result<()> {
    let mut upgrades = signal(SignalKind::hangup())?;
    let (mut capture, mut proxy) = (Half::start(&plan, "capture")?, Half::start(&plan, "proxy")?);
    let signal = loop {
        tokio::select! {
            signal = signals.next() => break signal,
            Some(()) = upgrades.recv() => {
                tracing::info!(program = %plan.program.display(), "SIGHUP: upgrading both halves");
                if let Err(why) = try_out(&plan).await {
                    tracing::error!(why, "the program does not run; nothing is changed");
                    continue;
                }
                // The new proxy may speak another version of the handover, so its counterpart comes first.
                capture.renew(&plan).await?;
                proxy.succeed(&plan);
            }
            step = capture.step(&plan) => step?,
            step = proxy.step(&plan) => step?,
        }
    };
    tracing::info!(%signal, "ending both halves, the proxy first; a second signal ends them at once");
    tokio::select! {
        () = async {
            proxy.end(plan.drain_deadline + GRACE).await;
            capture.end(GRACE).await;
        } => {}
        signal = signals.next() => tracing::warn!(%signal, "ending both halves at once"),
    }
    // Whoever still lives is killed when its `Child` is dropped.
    Ok(())
}

/// For a half: ends with its supervisor, however that one ends, so that no twin is left behind. Must be called after the
/// user has changed, which makes the kernel forget it (prctl(2), PR_SET_PDEATHSIG).
///
/// # Errors
/// When the kernel refuses.
pub fn end_with_supervisor() -> std::io::Result<()> {
    Ok(rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))?)
}

/// Whether the program's file is one that runs here: the capture half is killed before its successor has proven itself.
async fn try_out(plan: &Plan) -> Result<(), String> {
    let mut command = Command::new(&plan.program);
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
    match timeout(TRIAL, command.status()).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(format!("--version: {status}")),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("--version does not end".to_owned()),
    }
}

struct Half {
    name: &'static str,
    state: State,
    backoff: Backoff,
    /// Started beside the one that runs, and not ready yet.
    successor: Option<Successor>,
    /// Drain, and are killed at their time.
    retired: Vec<(Child, Instant)>,
}

enum State {
    Running { child: Child, since: Instant },
    Pausing { until: Instant },
}

struct Successor {
    child: Child,
    /// One byte when it is ready; its end when it has ended.
    ready: pipe::Receiver,
    since: Instant,
}

/// Standard input of a child.
enum Input {
    /// Ours.
    Inherited,
    /// Where it says that it is ready.
    Ready(OwnedFd),
}

/// What a half has waited for.
enum Event {
    Ended(ExitStatus),
    PauseOver,
    SuccessorReady,
    SuccessorFailed(&'static str),
    /// One of the retired, or its time.
    Gone(usize),
}

impl Half {
    fn start(plan: &Plan, name: &'static str) -> std::io::Result<Self> {
        let state = running(spawn(plan, name, Input::Inherited)?);
        Ok(Self { name, state, backoff: Backoff::new(PAUSE), successor: None, retired: Vec::new() })
    }

    /// Waits for what comes next and acts. Dropped half-way it has changed nothing.
    async fn step(&mut self, plan: &Plan) -> std::io::Result<()> {
        let event = tokio::select! {
            event = own_end(&mut self.state) => event?,
            event = first_word(&mut self.successor) => event,
            event = first_gone(&mut self.retired) => event,
        };
        match event {
            Event::PauseOver => self.state = running(spawn(plan, self.name, Input::Inherited)?),
            Event::Ended(status) => self.ended(status),
            Event::SuccessorReady => {
                if let Some(Successor { child, .. }) = self.successor.take() {
                    tracing::info!(half = self.name, "the successor is ready; the old one drains");
                    let old = std::mem::replace(&mut self.state, running(child));
                    if let State::Running { child, .. } = old {
                        terminate(&child);
                        self.retired.push((child, Instant::now() + plan.drain_deadline + GRACE));
                    }
                }
            }
            Event::SuccessorFailed(why) => {
                self.give_up_successor();
                tracing::error!(half = self.name, why, "upgrade failed; the old one goes on");
            }
            // Killed when it is dropped, if it has not ended.
            Event::Gone(number) => drop(self.retired.swap_remove(number)),
        }
        Ok(())
    }

    fn ended(&mut self, status: ExitStatus) {
        if let State::Running { since, .. } = &self.state
            && since.elapsed() > LIVED
        {
            self.backoff.reset();
        }
        if let Some(Successor { child, .. }) = self.successor.take() {
            tracing::warn!(half = self.name, %status, "a half ended while its successor was starting");
            self.state = running(child);
            return;
        }
        let pause = self.backoff.next_delay(&mut rand::rng());
        tracing::warn!(half = self.name, %status, ?pause, "a half ended; starting it again");
        self.state = State::Pausing { until: Instant::now() + pause };
    }

    /// Ends it and starts it anew. By SIGKILL, which it must survive anyway: SIGTERM would free its pods with
    /// `--release-on-exit`.
    async fn renew(&mut self, plan: &Plan) -> std::io::Result<()> {
        if let State::Running { child, .. } = &mut self.state {
            child.kill().await?;
        }
        self.state = running(spawn(plan, self.name, Input::Inherited)?);
        Ok(())
    }

    /// Kills it, if there is one, and waits for its end among the retired: a child that is only dropped may stay a zombie
    /// until the next child ends.
    fn give_up_successor(&mut self) {
        if let Some(Successor { mut child, .. }) = self.successor.take() {
            let _ended_already = child.start_kill();
            self.retired.push((child, Instant::now() + GRACE));
        }
    }

    /// Starts a successor beside it. One that was starting already is given up.
    fn succeed(&mut self, plan: &Plan) {
        self.give_up_successor();
        let begun = || -> std::io::Result<Successor> {
            let (sender, ready) = pipe::pipe()?;
            let child = spawn(plan, self.name, Input::Ready(sender.into_blocking_fd()?))?;
            Ok(Successor { child, ready, since: Instant::now() })
        };
        match begun() {
            Ok(successor) => self.successor = Some(successor),
            Err(error) => tracing::error!(half = self.name, %error, "upgrade failed; the old one goes on"),
        }
    }

    async fn end(&mut self, patience: Duration) {
        self.successor = None;
        let State::Running { child, .. } = &mut self.state else { return };
        terminate(child);
        if timeout(patience, child.wait()).await.is_err() {
            tracing::warn!(half = self.name, "did not end in time; killing it");
            let _gone = child.kill().await;
        }
    }
}

async fn own_end(state: &mut State) -> std::io::Result<Event> {
    match state {
        State::Running { child, .. } => Ok(Event::Ended(child.wait().await?)),
        State::Pausing { until } => {
            sleep_until(*until).await;
            Ok(Event::PauseOver)
        }
    }
}

async fn first_word(successor: &mut Option<Successor>) -> Event {
    let Some(Successor { ready, since, .. }) = successor else { return std::future::pending().await };
    match timeout_at(*since + READY, ready.read_u8()).await {
        Ok(Ok(_)) => Event::SuccessorReady,
        Ok(Err(_)) => Event::SuccessorFailed("it ended before it was ready"),
        Err(_) => Event::SuccessorFailed("it was not ready in time"),
    }
}

async fn first_gone(retired: &mut [(Child, Instant)]) -> Event {
    if retired.is_empty() {
        return std::future::pending().await;
    }
    let ends = retired.iter_mut().map(|(child, until)| Box::pin(timeout_at(*until, child.wait())));
    let (_ended_or_late, number, _) = select_all(ends).await;
    Event::Gone(number)
}

fn running(child: Child) -> State {
    State::Running { child, since: Instant::now() }
}

fn terminate(child: &Child) {
    if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
        let _gone = kill(Pid::from_raw(pid), Kill::SIGTERM);
    }
}

/// A child knows its half by one more argument, and a successor by another. In a process group of its own, so that Ctrl-C
/// reaches only the supervisor, which ends them in order.
fn spawn(plan: &Plan, name: &'static str, input: Input) -> std::io::Result<Child> {
    let mut command = Command::new(&plan.program);
    command.args(&plan.arguments).args(["--only", name]).process_group(0).kill_on_drop(true);
    if let Input::Ready(pipe) = input {
        command.arg("--say-ready").stdin(Stdio::from(pipe));
    }
    command.spawn()
}
