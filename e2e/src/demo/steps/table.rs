//! The table of steps: `run` walks it.

use anyhow::Result;

use super::{control_plane, enrol, leave, plain, policy, proxy, who};
use crate::demo::claim::Claim;
use crate::demo::show::Show;
use crate::demo::stage::Stage;

/// One step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    /// What happens, as a sentence.
    pub(crate) title: &'static str,
    /// Does it, and says what held. An error means that it could not be carried out.
    pub(crate) act: fn(&mut Stage, &Show) -> Result<Vec<Claim>>,
}

/// All steps.
pub(crate) const STEPS: [Step; 7] = [
    Step { title: "The shop without a mesh: what does the wire show?", act: plain::act },
    Step { title: "The namespace joins the mesh, under load, by one label", act: enrol::act },
    Step { title: "Who is who", act: who::act },
    Step { title: "A policy: only the web pods may reach the cart", act: policy::act },
    Step { title: "The proxy of node1 is killed with -9, under load", act: proxy::act },
    Step { title: "The control plane is killed with -9, under load", act: control_plane::act },
    Step { title: "The namespace leaves the mesh, under load", act: leave::act },
];
