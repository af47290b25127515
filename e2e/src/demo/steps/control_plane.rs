//! Step 6: the control plane dies. Agents go on with what they know, for old and new connections.

use std::time::Instant;

use anyhow::Result;

use crate::demo::claim::Claim;
use crate::demo::show::Show;
use crate::demo::stage::Stage;

pub(super) fn act(stage: &mut Stage, show: &Show) -> Result<Vec<Claim>> {
    let start = stage.moment()?;
    let busy = show.busy("kill -9 of weft-xds-server");
    stage.mesh()?.server.kill9()?;
    stage.trade(4)?;
    drop(busy);
    let without = stage.nothing_failed("traffic goes on without a control plane", &start)?;
    let busy = show.busy("starting it again");
    let (again, begun) = (stage.moment()?, Instant::now());
    stage.mesh()?.server.restart()?;
    stage.mesh()?.server.wait_ready()?;
    let ready = begun.elapsed();
    stage.trade(2)?;
    drop(busy);
    show.say(&format!("ready again after {:.1} s, from its directory and its state", ready.as_secs_f64()));
    Ok(vec![without, stage.nothing_failed("and when it comes back", &again)?])
}
