//! The last promise: when all faults are healed and nothing is on its way, everybody does what is written.

use weft_model::Mesh;
use weft_model::authz::{Connection, evaluate};
use weft_model::workload::TunnelProtocol;
use weft_node_agent::capture::ruleset::Phase;

use crate::check::Broken;
use crate::truth::{PODS, PORT};
use crate::world::{Outcome, World};

/// Holds it.
///
/// # Errors
/// See [`Broken`].
pub fn healed(world: &mut World) -> Result<(), Broken> {
    let now = world.truth.version(world.truth.now()).clone();
    for (pod, facts) in PODS.iter().enumerate() {
        let selected = now.selects(pod);
        let kernel = &world.kernels[pod];
        let right = if selected { kernel.is_whole(Phase::Steady) } else { kernel.is_free() };
        wrong_unless(right, || format!("{} is selected: {selected}, in its kernel: {kernel:?}", facts.name))?;
        for agent in world.agents.iter().flatten() {
            let known = agent.mesh().workload(&facts.uid()).map(|workload| workload.tunnel);
            let expected = if selected { TunnelProtocol::Hbone } else { TunnelProtocol::None };
            wrong_unless(known == Some(expected), || {
                let home = world.agents[facts.node].as_ref();
                let (offered, met) = (home.map(|home| home.offers(pod)), home.map(|home| home.handover.is_some()));
                let capture = world.captures[facts.node].as_ref();
                format!(
                    "{} is selected: {selected}, peers use {known:?}; its agent has met the capture half: {met:?}, \
                     offers it: {offered:?}; the capture half: {capture:?}",
                    facts.name
                )
            })?;
        }
    }
    let pairs = (0..PODS.len()).flat_map(|from| (0..PODS.len()).map(move |to| (from, to)));
    for (from, to) in pairs.filter(|(from, to)| from != to) {
        let expected = expected(&now.mesh, (from, now.selects(from)), (to, now.selects(to)));
        let became = world.call(from, to)?;
        let (caller, called) = (PODS[from].name, PODS[to].name);
        wrong_unless(became == expected, || format!("{caller} calls {called}: {became:?}, expected {expected:?}"))?;
    }
    Ok(())
}

fn expected(mesh: &Mesh, (from, from_selected): (usize, bool), (to, to_selected): (usize, bool)) -> Outcome {
    let (Some(client), Some(server)) = (mesh.workload(&PODS[from].uid()), mesh.workload(&PODS[to].uid())) else {
        return Outcome::Refused;
    };
    if !to_selected {
        return Outcome::Direct;
    }
    let connection = Connection {
        identity: client.identity().ok().filter(|_| from_selected),
        source: PODS[from].ip(),
        destination: (PODS[to].ip(), PORT).into(),
    };
    if evaluate(mesh, server, &connection).enforced.is_ok() { Outcome::Permitted } else { Outcome::Refused }
}

fn wrong_unless(right: bool, what: impl FnOnce() -> String) -> Result<(), Broken> {
    if right { Ok(()) } else { Err(Broken::NotHealed { what: what() }) }
}
