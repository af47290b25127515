//! Step 7: the label goes, and the mesh with it, as unnoticed as it came.

use std::time::Duration;

use anyhow::{Result, ensure};
use weft_testkit::netns::run;
use weft_testkit::wait;

use crate::demo::claim::Claim;
use crate::demo::floor::NAMESPACE;
use crate::demo::show::Show;
use crate::demo::stage::{HBONE, Stage};

/// From the label to the last relayed connection's end; kept connections of the shop end after 2 s.
const CHANGE: Duration = Duration::from_secs(60);
/// The words by which the rules of the agent are known in `iptables -S` and `nft list ruleset`.
const RULES: &str = "weft";

pub(super) fn act(stage: &mut Stage, show: &Show) -> Result<Vec<Claim>> {
    let start = stage.moment()?;
    let busy = show.busy("kubectl label namespace shop weft.dev/mesh-");
    stage.cluster.enrol(NAMESPACE, false)?;
    let direct = wait::eventually(CHANGE, "a wire without tunnels", || {
        let report = stage.watch(Duration::from_millis(500));
        let tunnelled: u64 = report.on_port(HBONE).iter().map(|flow| flow.bytes).sum();
        // An idle tunnel may say hello now and then; purchases are some 10 kB per look.
        ensure!(report.markers() > 0 && tunnelled < 1000, "{} markers, {tunnelled} bytes in tunnels", report.markers());
        anyhow::Ok(format!("marker {} times in {} frames", report.markers(), report.frames))
    });
    let clean = wait::eventually(CHANGE, "pods without rules", || rules_left(stage));
    drop(busy);
    stage.trade(1)?;
    let unnoticed = stage.nothing_failed("not one request failed on the way out", &start)?;
    let mut sent = 0;
    for shopper in &mut stage.shoppers {
        sent += shopper.stop()?.sent;
    }
    show.say(&format!("the shoppers stop; they have begun {sent} purchases"));
    Ok(vec![
        unnoticed,
        Claim::of("traffic goes direct again", direct),
        Claim::of("no rule of the mesh is left in any pod", clean),
    ])
}

fn rules_left(stage: &Stage) -> Result<String> {
    let mut looked = 0;
    for (plan, pod) in stage.cluster.pods() {
        for words in [&["iptables-save"][..], &["ip6tables-save"], &["nft", "list", "tables"]] {
            let program = words.join(" ");
            let rules = run(pod.command(words[0]).args(&words[1..]))?.to_lowercase();
            ensure!(!rules.contains(RULES), "{} of {} still has {RULES} rules", program, plan.name);
        }
        looked += 1;
    }
    Ok(format!("{looked} pods, both families"))
}
