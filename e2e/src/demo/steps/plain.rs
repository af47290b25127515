//! Step 1: the shop without the mesh. The wire shows everything, card numbers included.

use anyhow::Result;

use crate::demo::claim::Claim;
use crate::demo::floor::MARKER;
use crate::demo::show::Show;
use crate::demo::stage::Stage;

pub(super) fn act(stage: &mut Stage, show: &Show) -> Result<Vec<Claim>> {
    let (exit, words) = stage.curl(&stage.floor.visitor, &format!("http://{}/", stage.floor.web.at(false)))?;
    show.say(&format!("curl http://{}/ says: {words}", stage.floor.web.at(false)));
    let busy = show.busy("two shoppers begin to buy, each purchase with the card number 4111-MARKER");
    stage.wire.forget();
    stage.shoppers = stage.floor.shoppers(&stage.cluster, stage.rate)?;
    let start = stage.moment()?;
    stage.trade(3)?;
    drop(busy);
    let report = stage.wire.report();
    if let Some(line) = report.evidence.first() {
        show.say("the wire between the nodes, as anybody there can read it:");
        show.quote(line);
    }
    let markers = report.markers();
    Ok(vec![
        Claim::new("curl reaches the shop", exit == 0 && words.contains("welcome"), words),
        stage.nothing_failed("the shop works", &start)?,
        Claim::new(
            format!("the wire shows plaintext, {MARKER} in it"),
            markers > 0 && report.on_port(super::super::stage::HBONE).is_empty(),
            format!("{markers} times in {} frames", report.frames),
        ),
    ])
}
