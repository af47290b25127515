//! Step 3: identities. `weft pods` and `weft connections`, asked on node1.

use std::time::Duration;

use anyhow::{Result, ensure};
use weft_testkit::wait;

use crate::demo::claim::Claim;
use crate::demo::floor::NAMESPACE;
use crate::demo::show::Show;
use crate::demo::stage::Stage;

/// Lines of `weft connections` shown; there are dozens under load.
const LINES: usize = 12;
/// Each of them has a connection nearly all the time.
const SEEN: Duration = Duration::from_secs(5);

pub(super) fn act(stage: &mut Stage, show: &Show) -> Result<Vec<Claim>> {
    show.say("weft pods, on node1:");
    let pods = stage.weft(1, &["pods", "--namespace", NAMESPACE])?;
    show.quote(&pods);
    let identities = ["shopper", "web"].map(|account| format!("ns/{NAMESPACE}/sa/{account}"));
    let connections = wait::eventually(SEEN, "connections of both identities", || {
        let connections = stage.weft(1, &["connections"])?;
        ensure!(identities.iter().all(|identity| connections.contains(identity)), "{connections}");
        anyhow::Ok(connections)
    });
    show.say("weft connections, on node1 (the first lines):");
    let lines = connections.as_deref().unwrap_or("(see below)").lines().take(LINES);
    show.quote(&lines.collect::<Vec<_>>().join("\n"));
    let missing: Vec<&str> =
        stage.cluster.pods().map(|(plan, _)| plan.name.as_str()).filter(|name| !pods.contains(name)).collect();
    let known = match &*missing {
        [] => format!("{} pods", stage.cluster.pods().count()),
        names => format!("missing: {}", names.join(", ")),
    };
    Ok(vec![
        Claim::new("every pod is known by name", missing.is_empty(), known),
        Claim::of("connections carry proved identities", connections.map(|_| identities.join(", "))),
    ])
}
