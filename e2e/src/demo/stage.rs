//! What the steps act on, and the questions that several of them ask.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weft_testkit::agents::{Deployment, SERVER_PORT, binary, require_system_program};
use weft_testkit::mesh::Cluster;
use weft_testkit::netns::{Lab, Pod, run};
use weft_testkit::wait;
use weft_testkit::wire::{Capture, Report};

use super::claim::Claim;
use super::flags::DemoFlags;
use super::floor::{Floor, MARKER};
use super::shopper::{Shopper, Since};
use crate::shop::Totals;

/// HBONE's port.
pub(crate) const HBONE: u16 = 15008;

/// Room for a machine that is too busy for the rate.
const BUSY: Duration = Duration::from_secs(60);

/// Everything of the demo.
#[derive(Debug)]
pub(crate) struct Stage {
    /// Programs that talk; before `cluster`, because fields are dropped in this order.
    pub(crate) shoppers: Vec<Shopper>,
    /// The mesh, from step 2 on.
    pub(crate) mesh: Option<Deployment>,
    /// What travels between the nodes: every frame of node1's wire.
    pub(crate) wire: Capture,
    /// The shop.
    pub(crate) floor: Floor,
    /// Lab and objects.
    pub(crate) cluster: Cluster,
    /// Purchases per second of each shopper.
    pub(crate) rate: u32,
}

/// A moment of all shoppers.
#[derive(Clone, Debug)]
pub(crate) struct Moment(Vec<Totals>);

impl Stage {
    /// Builds the two nodes and opens the shop; no shopper yet.
    ///
    /// # Errors
    /// A missing program, or what the lab says.
    pub(crate) fn build(flags: &DemoFlags) -> Result<Self> {
        for program in ["ip", "iptables", "nsenter", "nginx", "redis-server", "curl"] {
            require_system_program(program)?;
        }
        binary("weft-shop")?;
        if flags.until > 1 {
            for program in ["weft-xds-server", "weft-node-agent", "weft"] {
                binary(program)?;
            }
        }
        let mut builder = Lab::builder().nodes(2);
        if let Some(directory) = &flags.keep {
            builder = builder.keep(directory.clone());
        }
        let mut cluster = Cluster::new(builder.build()?)?;
        // Before the first packet, so that every flow is followed from its beginning.
        let wire = Capture::start(cluster.lab().wire().name(), "node1", &[MARKER])?;
        let floor = Floor::open(&mut cluster)?;
        Ok(Self { shoppers: Vec::new(), mesh: None, wire, floor, cluster, rate: flags.rate })
    }

    /// The mesh, which step 2 starts.
    ///
    /// # Errors
    /// Step 2 has not run.
    pub(crate) fn mesh(&mut self) -> Result<&mut Deployment> {
        self.mesh.as_mut().context("the mesh does not run")
    }

    /// Now.
    ///
    /// # Errors
    /// As [`Shopper::totals`].
    pub(crate) fn moment(&self) -> Result<Moment> {
        Ok(Moment(self.shoppers.iter().map(Shopper::totals).collect::<Result<_>>()?))
    }

    /// What all shoppers did since then.
    ///
    /// # Errors
    /// As [`Shopper::totals`].
    pub(crate) fn since(&self, before: &Moment) -> Result<Since> {
        let mut sum = Since::default();
        for (shopper, before) in self.shoppers.iter().zip(&before.0) {
            let since = shopper.since(before)?;
            sum.ok += since.ok;
            sum.failed += since.failed;
            sum.errors.extend(since.errors);
        }
        Ok(sum)
    }

    /// Lets the load run on until every shopper has had `seconds` worth of answers more.
    ///
    /// # Errors
    /// It stands still.
    pub(crate) fn trade(&self, seconds: u32) -> Result<()> {
        let (before, goal) = (self.moment()?, u64::from(self.rate * seconds));
        let deadline = Duration::from_secs(u64::from(seconds)) + BUSY;
        for (shopper, before) in self.shoppers.iter().zip(&before.0) {
            shopper.wait_for(before, goal, deadline)?;
        }
        Ok(())
    }

    /// The claim that nothing failed since then.
    ///
    /// # Errors
    /// As [`Shopper::totals`].
    pub(crate) fn nothing_failed(&self, text: &str, before: &Moment) -> Result<Claim> {
        let since = self.since(before)?;
        let mut figure = format!("{} purchases, {} failed", since.ok, since.failed);
        for error in since.errors.iter().take(5) {
            figure.push_str(&format!("\n{error}"));
        }
        Ok(Claim::new(text, since.failed == 0 && since.ok > 0, figure))
    }

    /// Watches the wire for a while, from now on.
    #[must_use]
    pub(crate) fn watch(&self, duration: Duration) -> Report {
        self.wire.forget();
        wait::pause(duration);
        self.wire.report()
    }

    /// Runs curl in a pod: exit code, and what it printed.
    ///
    /// # Errors
    /// curl cannot be started.
    pub(crate) fn curl(&self, pod: &Pod, url: &str) -> Result<(i32, String)> {
        let mut command = pod.command("curl");
        let output = command.args(["-sS", "-g", "--max-time", "5", url]).output().context("curl")?;
        let words = [output.stdout, output.stderr].concat();
        Ok((output.status.code().unwrap_or(-1), String::from_utf8_lossy(&words).trim().to_owned()))
    }

    /// Runs the `weft` command on node `node`, against the agent there.
    ///
    /// # Errors
    /// It fails.
    pub(crate) fn weft(&self, node: u8, words: &[&str]) -> Result<String> {
        // Not the cluster of whoever looks at it.
        let mut command = self.cluster.lab().node(node).command(binary("weft")?);
        run(command.args(words).env("WEFT_ADMIN", "127.0.0.1:15000"))
    }
}

/// Only TLS on HBONE's port and to the control plane, and no marker.
///
/// # Errors
/// What was seen instead.
pub(crate) fn encrypted(report: &Report) -> Result<String> {
    report.assert_no_marker()?;
    report.assert_only_tls_on(&[HBONE, SERVER_PORT])?;
    let tunnels = report.on_port(HBONE);
    ensure!(!tunnels.is_empty(), "nothing on port {HBONE}");
    let bytes: u64 = tunnels.iter().map(|flow| flow.bytes).sum();
    Ok(format!("{} frames, {bytes} bytes on {HBONE}, marker 0 times", report.frames))
}
