//! Step 5: the proxy half of node1 dies under load. Its listeners live on in the other half: nobody is refused, new
//! connections wait in the kernel's queue for its successor, and nothing leaves in plain.

use std::time::Duration;

use anyhow::Result;
use weft_testkit::traffic::{Load, LoadPlan};
use weft_testkit::wait;

use crate::demo::claim::Claim;
use crate::demo::floor::MARKER;
use crate::demo::show::Show;
use crate::demo::stage::{Stage, encrypted};

/// How long node1 stays without a proxy: long enough that dozens of connections queue up.
const ABSENT: Duration = Duration::from_millis(1500);

/// Forty echoes take a second; the rest is room for a busy machine.
const RESUMED: Duration = Duration::from_secs(40);

pub(super) fn act(stage: &mut Stage, show: &Show) -> Result<Vec<Claim>> {
    let plan = LoadPlan {
        target: stage.floor.echo.at(false),
        rate: 40,
        new_connections: true,
        patience: Duration::from_secs(20),
        text: MARKER.to_owned(),
    };
    let load = Load::start(&stage.floor.shopper.netns, plan)?;
    load.wait_more(20, RESUMED)?;
    stage.wire.forget();
    let before = stage.moment()?;

    let busy = show.busy("kill -9 of the proxy half of node1, with connections coming in all the time");
    let killed = load.elapsed();
    stage.mesh()?.agents[0].proxy.kill9()?;
    let gone = load.elapsed();
    wait::pause(ABSENT);
    stage.mesh()?.agents[0].proxy.restart()?;
    stage.mesh()?.agents[0].proxy.wait_ready()?;
    let absent = load.elapsed().saturating_sub(gone);
    load.wait_more(40, RESUMED)?;
    drop(busy);
    stage.trade(2)?;
    let cut = stage.since(&before)?;
    let report = stage.wire.report();
    let totals = load.stop();
    show.say(&format!(
        "node1 had no proxy for {:.1} s; the kill itself cut {} purchases and {} echoes that were on their way",
        absent.as_secs_f64(),
        cut.failed,
        totals.failed
    ));
    let refused = totals.failures.iter().filter(|failure| failure.error.contains("refused")).count();
    let late: Vec<_> = totals.failures.iter().filter(|failure| failure.at > gone).collect();
    let first = late
        .first()
        .map_or(String::new(), |failure| format!(", first at {:?}: {}", failure.at - killed, failure.error));
    Ok(vec![
        Claim::new("no connection was refused", refused == 0, format!("{} begun, {refused} refused", totals.sent)),
        Claim::new(
            "connections begun without a proxy waited and succeeded",
            late.is_empty() && totals.worst >= ABSENT / 2,
            format!("{} failed, longest wait {:.1} s{first}", late.len(), totals.worst.as_secs_f64()),
        ),
        Claim::of("not one plaintext byte meanwhile", encrypted(&report)),
    ])
}
