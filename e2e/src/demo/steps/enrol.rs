//! Step 2: the mesh starts, then one label takes the shop in. Nobody notices, but the wire.

use std::time::{Duration, Instant};

use anyhow::Result;
use weft_testkit::agents::Deployment;
use weft_testkit::wait;

use crate::demo::claim::Claim;
use crate::demo::floor::NAMESPACE;
use crate::demo::show::Show;
use crate::demo::stage::{Stage, encrypted};
use crate::shop::LIFE;

/// From the label to the end of the last plaintext connection: capture takes a second or two, kept connections of the
/// shop end after [`LIFE`]; the rest is room for a busy machine.
const CHANGE: Duration = Duration::from_secs(40);
/// One look at the wire: longer than an old connection can be silent, so a clean look proves that none is left.
const LOOK: Duration = LIFE.saturating_add(Duration::from_secs(1));

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
    let clean = wait::eventually(CHANGE, "a wire with nothing but TLS on it", || encrypted(&stage.watch(LOOK)));
    let last = labelled.elapsed().saturating_sub(LOOK);
    stage.trade(1)?;
    drop(busy);
    if clean.is_ok() {
        show.say(&format!("the last plaintext passed within {:.1} s; {LOOK:?} without any since", last.as_secs_f64()));
    }
    Ok(vec![
        stage.nothing_failed("not one request failed while the mesh took over", &start)?,
        Claim::of("the wire shows only TLS on 15008, the marker never", clean),
    ])
}
