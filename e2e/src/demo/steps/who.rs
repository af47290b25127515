//! Step 3: identities. `weft pods` and `weft connections`, asked on node1.

use anyhow::Result;

use crate::demo::claim::Claim;
use crate::demo::floor::NAMESPACE;
use crate::demo::show::Show;
use crate::demo::stage::Stage;

/// Lines of `weft connections` shown; there are dozens under load.
const LINES: usize = 12;

pub(super) fn act(stage: &mut Stage, show: &Show) -> Result<Vec<Claim>> {
    show.say("weft pods, on node1:");
    let pods = stage.weft(1, &["pods", "--namespace", NAMESPACE])?;
    show.quote(&pods);
    show.say("weft connections, on node1 (the first lines):");
    let connections = stage.weft(1, &["connections"])?;
    show.quote(&connections.lines().take(LINES).collect::<Vec<_>>().join("\n"));
    let missing: Vec<&str> =
        stage.cluster.pods().map(|(plan, _)| plan.name.as_str()).filter(|name| !pods.contains(name)).collect();
    let count = stage.cluster.pods().count();
    let identities = ["shopper", "web"].map(|account| format!("ns/{NAMESPACE}/sa/{account}"));
    let seen = identities.iter().all(|identity| connections.contains(identity));
    Ok(vec![
        Claim::new("every pod is known by name", missing.is_empty(), format!("{count} pods, missing {missing:?}")),
        Claim::new("connections carry proved identities", seen, identities.join(", ")),
    ])
}
