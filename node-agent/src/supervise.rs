//! `weft-node-agent run`: both halves as two processes of this program, started again when they end. On Kubernetes the
//! kubelet does this for two containers; here it is us, for bare metal, the demo and tests.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::{Signal as Kill, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep_until, timeout};
use weft_runtime::backoff::{Backoff, Settings};
use weft_runtime::signals::Signals;

/// A half that ends at once is started again after this pause, doubling; one that lived is started at once.
const PAUSE: Settings =
    Settings { initial: Duration::from_millis(100), cap: Duration::from_secs(5), factor: 2.0, jitter: 0.2 };
/// A half that lived this long did not end because of how it was started.
const LIVED: Duration = Duration::from_secs(10);
/// Time to end after SIGTERM beyond the proxy's own drain deadline, then SIGKILL.
const GRACE: Duration = Duration::from_secs(5);

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
/// pods are still captured. A second signal ends what is left at once.
///
/// # Errors
/// When a half cannot be started at all.
pub async fn run(plan: Plan, mut signals: Signals) -> std::io::Result<()> {
    let (mut capture, mut proxy) = (Half::start(&plan, "capture")?, Half::start(&plan, "proxy")?);
    let signal = loop {
        tokio::select! {
            signal = signals.next() => break signal,
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

struct Half {
    name: &'static str,
    state: State,
    backoff: Backoff,
}

enum State {
    Running { child: Child, since: Instant },
    Pausing { until: Instant },
}

impl Half {
    fn start(plan: &Plan, name: &'static str) -> std::io::Result<Self> {
        Ok(Self { name, state: spawn(plan, name)?, backoff: Backoff::new(PAUSE) })
    }

    /// Waits for what comes next, its end or the end of a pause, and acts. Dropped half-way it has changed nothing.
    async fn step(&mut self, plan: &Plan) -> std::io::Result<()> {
        match &mut self.state {
            State::Pausing { until } => {
                sleep_until(*until).await;
                self.state = spawn(plan, self.name)?;
            }
            State::Running { child, since } => {
                let status = child.wait().await?;
                if since.elapsed() > LIVED {
                    self.backoff.reset();
                }
                let pause = self.backoff.next_delay(&mut rand::rng());
                tracing::warn!(half = self.name, %status, ?pause, "a half ended; starting it again");
                self.state = State::Pausing { until: Instant::now() + pause };
            }
        }
        Ok(())
    }

    async fn end(&mut self, patience: Duration) {
        let State::Running { child, .. } = &mut self.state else { return };
        if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
            let _gone = kill(Pid::from_raw(pid), Kill::SIGTERM);
        }
        if timeout(patience, child.wait()).await.is_err() {
            tracing::warn!(half = self.name, "did not end in time; killing it");
            let _gone = child.kill().await;
        }
    }
}

/// A child knows its half by one more argument. In a process group of its own, so that Ctrl-C reaches only the supervisor,
/// which ends them in order.
fn spawn(plan: &Plan, name: &'static str) -> std::io::Result<State> {
    let mut command = Command::new(&plan.program);
    command.args(&plan.arguments).args(["--only", name]).process_group(0).kill_on_drop(true);
    Ok(State::Running { child: command.spawn()?, since: Instant::now() })
}
