//! Step 2: the mesh starts, then one label takes the shop in. Nobody notices, but the wire.

use std::time::{Duration, Instant};

use anyhow::Result;
use weft_testkit::agents::Deployment;
use weft_testkit::wait;

use crate::demo::claim::Claim;
use crate::demo::floor::NAMESPACE;
use crate::demo::show::Show;
use crate::demo::stage::{Stage, WATCH, encrypted};

/// From the label to the end of the last plaintext connection: capture takes a second or two, kept connections of the
/// shop end after 2 s (`shop::caller::LIFE`); the rest is room for a busy machine.
const CHANGE: Duration = Duration::from_secs(40);
/// One look at the wire: several times the pause between two purchases.
const LOOK: Duration = Duration::from_millis(500);

pub(super) fn act(stage: &mut Stage, show: &Show) -> Result<Vec<Claim>> {
    let start = stage.moment()?;
    let busy = show.busy("starting weft-xds-server, and weft-node-agent (capture and proxy) on both nodes");
    let begun = Instant::now();
    stage.mesh = Some(Deployment::start(&stage.cluster)?);
    drop(busy);
    show.say(&format!("the mesh is ready after {:.1} s; nobody is in it yet", begun.elapsed().as_secs_f64()));

    let busy = show.busy("kubectl label namespace shop weft.dev/mesh=enabled (a changed file, here)");
    let labelled = Instant::now();
    stage.cluster.enrol(NAMESPACE, true)?;
    wait::eventually(CHANGE, "a wire with nothing but TLS on it", || encrypted(&stage.watch(LOOK)))?;
    let took = labelled.elapsed();
    drop(busy);
    show.say(&format!("the last plaintext connection ended within {:.1} s", took.as_secs_f64()));

    let busy = show.busy("watching the wire");
    let report = stage.watch(WATCH);
    stage.trade(1)?;
    drop(busy);
    Ok(vec![
        stage.nothing_failed("not one request failed while the mesh took over", &start)?,
        Claim::of("the wire shows only TLS on 15008, the marker never", encrypted(&report)),
    ])
}
