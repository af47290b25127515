//! `weft-node-agent run`: both halves as two processes of this program, started again when they end. On Kubernetes the
//! kubelet does this for two containers; here it is us, for bare metal, the demo and tests.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::time::Instant;
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
/// pods are still captured.
///
/// # Errors
/// When a half cannot be started at all.
pub async fn run(plan: Plan, mut signals: Signals) -> std::io::Result<()> {
    let mut capture = Half::start(&plan, "capture")?;
    let mut proxy = Half::start(&plan, "proxy")?;
    loop {
        tokio::select! {
            signal = signals.next() => {
                tracing::info!(?signal, "ending both halves");
                break;
            }
            status = capture.child.wait() => capture = capture.again(&plan, status).await?,
            status = proxy.child.wait() => proxy = proxy.again(&plan, status).await?,
        }
    }
    proxy.end(plan.drain_deadline + GRACE).await;
    capture.end(GRACE).await;
    Ok(())
}

struct Half {
    name: &'static str,
    child: Child,
    started: Instant,
    backoff: Backoff,
}

impl Half {
    fn start(plan: &Plan, name: &'static str) -> std::io::Result<Self> {
        Ok(Self { name, child: spawn(plan, name)?, started: Instant::now(), backoff: Backoff::new(PAUSE) })
    }

    async fn again(mut self, plan: &Plan, status: std::io::Result<std::process::ExitStatus>) -> std::io::Result<Self> {
        if self.started.elapsed() > LIVED {
            self.backoff.reset();
        }
        let pause = self.backoff.next_delay(&mut rand::rng());
        let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        tracing::warn!(half = self.name, status, pause = ?pause, "a half ended; starting it again");
        tokio::time::sleep(pause).await;
        self.child = spawn(plan, self.name)?;
        self.started = Instant::now();
        Ok(self)
    }

    async fn end(mut self, patience: Duration) {
        let pid = self.child.id().and_then(|pid| i32::try_from(pid).ok());
        if let Some(pid) = pid {
            let _gone = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM);
        }
        if tokio::time::timeout(patience, self.child.wait()).await.is_err() {
            tracing::warn!(half = self.name, "did not end in time; killing it");
            let _gone = self.child.kill().await;
        }
    }
}

/// The children are named by one more argument; a child dies with us, so that a killed supervisor leaves no twin behind.
fn spawn(plan: &Plan, name: &'static str) -> std::io::Result<Child> {
    Command::new(&plan.program).args(&plan.arguments).args(["--only", name]).kill_on_drop(true).spawn()
}
