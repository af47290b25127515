//! One seed from start to end: faults for a while, then healing, then everything must be as it is written.

use std::fmt;

use clap::ValueEnum;

use crate::capture::Outside;
use crate::check::Broken;
use crate::healed::healed;
use crate::plant::Plant;
use crate::truth::{Facts, NAMESPACES, NODES, PODS};
use crate::world::{Step, World};

/// Rounds in which everything must have settled once faults are over: a round lets every message in its turn move one hop.
const HEALING: usize = 200;

/// A run that broke a promise. Its text says how to see it again.
#[derive(Debug)]
pub struct Failure {
    /// What it was started with.
    pub seed: u64,
    /// How many steps before healing.
    pub steps: usize,
    /// The fault that was planted, if any.
    pub plant: Option<Plant>,
    /// What happened, oldest first.
    pub trace: Vec<Step>,
    /// What broke.
    pub broken: Broken,
}

/// Steps of a trace that a failure shows.
const SHOWN: usize = 40;

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, steps, plant, trace, broken } = self;
        let named = plant.and_then(|plant| plant.to_possible_value());
        let planted = named.map(|name| format!(" --plant {}", name.get_name())).unwrap_or_default();
        writeln!(f, "{broken}")?;
        writeln!(f, "  again: cargo run -p weft-sim -- --seed {seed} --steps {steps}{planted} --trace")?;
        writeln!(f, "  step {} of {steps}; the last {}:", trace.len(), SHOWN.min(trace.len()))?;
        trace.iter().rev().take(SHOWN).rev().try_for_each(|step| writeln!(f, "    {step:?}"))
    }
}

/// Runs one seed, with a planted fault or without.
///
/// # Errors
/// The promise that it broke.
pub fn run(seed: u64, steps: usize, plant: Option<Plant>) -> Result<(), Box<Failure>> {
    let mut world = World::new(seed, plant);
    let mut trace = Vec::with_capacity(steps);
    let fail = |trace: &Vec<Step>, broken| Box::new(Failure { seed, steps, plant, trace: trace.clone(), broken });
    for step in start() {
        trace.push(step);
        world.take(step).map_err(|broken| fail(&trace, broken))?;
    }
    for _ in 0..steps {
        let step = world.choose();
        trace.push(step);
        world.take(step).map_err(|broken| fail(&trace, broken))?;
    }
    heal(&mut world).map_err(|broken| fail(&trace, broken))
}

/// Everything runs at first, and every namespace is selected.
fn start() -> Vec<Step> {
    let mut steps = vec![Step::ServerToggles];
    steps.extend((0..NAMESPACES.len()).map(Step::Enrol));
    steps.extend((0..NODES.len()).flat_map(|node| [Step::AgentToggles(node), Step::CaptureToggles(node)]));
    steps
}

fn heal(world: &mut World) -> Result<(), Broken> {
    if world.truth.facts().broken {
        let facts = Facts { broken: false, ..world.truth.facts().clone() };
        world.truth.write(facts);
    }
    if world.server.is_none() {
        world.take(Step::ServerToggles)?;
    }
    for node in 0..NODES.len() {
        if world.agents[node].is_none() {
            world.take(Step::AgentToggles(node))?;
        }
        if world.captures[node].is_none() {
            world.take(Step::CaptureToggles(node))?;
        }
        // What was on its way is over, one way or the other, and streams that stood may be half dead: PING ends them.
        while world.reports(node) > 0 {
            world.take(Step::ReportArrives(node, 0))?;
        }
        world.take(Step::StreamBreaks(node))?;
    }
    for round in 0..HEALING {
        heal_once(world, round)?;
    }
    healed(world)
}

fn heal_once(world: &mut World, round: usize) -> Result<(), Broken> {
    world.take(Step::ServerReads)?;
    for node in 0..NODES.len() {
        world.take(Step::AgentConnects(node))?;
        world.take(Step::ServerHears(node))?;
        world.take(Step::ServerSends(node))?;
        world.take(Step::AgentHears(node))?;
        if round == HEALING / 2 {
            world.take(Step::AgentWaits(node))?;
        }
        world.take(Step::CaptureReads(node))?;
        world.take(Step::CaptureActs(node))?;
        world.take(Step::HandoverConnects(node))?;
        world.take(Step::AgentObeys(node))?;
        // A stream that stands anew makes the agent report whether it has news or not.
        world.take(Step::AgentReports(node, round == HEALING / 4))?;
        world.take(Step::ReportArrives(node, 0))?;
    }
    (0..PODS.len()).try_for_each(|pod| world.take(Step::PodTurns(pod, Outside::default())))
}
