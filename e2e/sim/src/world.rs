//! Everything at once, and the steps that it can take. A step that is impossible now does nothing.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use weft_model::Uid;
use weft_node_agent::capture::ruleset::Phase;
use weft_node_agent::outbound::Decision;

use crate::agent::{Agent, Handover, Way};
use crate::capture::{Capture, Outside};
use crate::check::{self, Broken};
use crate::hand::Hand;
use crate::kernel::{Fate, Kernel};
use crate::plant::Plant;
use crate::server::{Disk, Server};
use crate::truth::{Facts, NAMESPACES, NODES, PODS, POLICIES, PORT, Truth};

/// One thing that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Somebody writes.
    Enrol(usize),
    /// Likewise.
    Strict(usize),
    /// Likewise.
    OptOut(usize),
    /// Likewise.
    Policy(usize),
    /// A file breaks, or is whole again.
    Break,
    /// The server reads what is written and what nodes said.
    ServerReads,
    /// It starts, or is killed.
    ServerToggles,
    /// Another control plane takes the place of one that is down, and has read only two pods, from this one on, or nothing.
    StrangerStarts(usize),
    /// It sends what is due to a node.
    ServerSends(usize),
    /// It takes a node's next request in.
    ServerHears(usize),
    /// A proxy half starts, or is killed.
    AgentToggles(usize),
    /// It opens a stream.
    AgentConnects(usize),
    /// The stream breaks; what was on its way is lost.
    StreamBreaks(usize),
    /// It takes the next response in.
    AgentHears(usize),
    /// It waits until it believes what it doubts.
    AgentWaits(usize),
    /// It reports; `true`: whether there is news or not.
    AgentReports(usize, bool),
    /// A report arrives: the n-th of those on their way.
    ReportArrives(usize, usize),
    /// A report is lost.
    ReportLost(usize),
    /// A capture half starts, or is killed.
    CaptureToggles(usize),
    /// It reads what is written.
    CaptureReads(usize),
    /// It does what must be done.
    CaptureActs(usize),
    /// One act in a pod's kernel, or time passes for it.
    PodTurns(usize, Outside),
    /// The halves of a node find each other.
    HandoverConnects(usize),
    /// They lose each other.
    HandoverBreaks(usize),
    /// The proxy half takes the next word of the capture half in.
    AgentObeys(usize),
    /// Somebody with rights in a pod's network namespace changes something in it.
    Hand(usize, Hand),
    /// One pod calls another.
    Call(usize, usize),
}

/// What became of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// In plaintext, past the mesh at the far end.
    Direct,
    /// Through the mesh, permitted.
    Permitted,
    /// Not.
    Refused,
}

/// All of it.
#[derive(Debug)]
pub struct World {
    /// What is written.
    pub truth: Truth,
    /// What the server has on disk.
    pub disk: Disk,
    /// The server, when it runs.
    pub server: Option<Server>,
    /// Proxy halves, when they run.
    pub agents: [Option<Agent>; NODES.len()],
    /// Capture halves, when they run.
    pub captures: [Option<Capture>; NODES.len()],
    /// Kernels of the pods.
    pub kernels: [Kernel; PODS.len()],
    /// Since which version of the source a pod has been captured without a break.
    pub steady_since: [Option<usize>; PODS.len()],
    reports: [VecDeque<BTreeSet<Uid>>; NODES.len()],
    plant: Option<Plant>,
    dice: StdRng,
}

impl World {
    /// Nothing runs yet. `plant`: a fault that it should find.
    #[must_use]
    pub fn new(seed: u64, plant: Option<Plant>) -> Self {
        let mut dice = StdRng::seed_from_u64(seed);
        // The guard is there where nft works; the other promises hold without it.
        let nft = NODES.map(|_| dice.random_bool(0.75));
        Self {
            truth: Truth::default(),
            disk: Disk::default(),
            server: None,
            agents: Default::default(),
            captures: Default::default(),
            kernels: std::array::from_fn(|pod| Kernel::new(nft[PODS[pod].node])),
            steady_since: Default::default(),
            reports: Default::default(),
            plant,
            dice,
        }
    }

    /// What happens next. Faults are rarer than work, so that work gets somewhere between them.
    pub fn choose(&mut self) -> Step {
        let dice = &mut self.dice;
        let (node, pod) = (dice.random_range(0..NODES.len()), dice.random_range(0..PODS.len()));
        match dice.random_range(0..400_u32) {
            0..2 => Step::Enrol(dice.random_range(0..NAMESPACES.len())),
            2..4 => Step::Strict(dice.random_range(0..NAMESPACES.len())),
            4 => Step::OptOut(pod),
            5..10 => Step::Policy(dice.random_range(0..POLICIES.len())),
            10 => Step::Break,
            11..14 if self.server.is_none() && dice.random_bool(0.5) => {
                Step::StrangerStarts(dice.random_range(0..=PODS.len()))
            }
            11..14 => Step::ServerToggles,
            14 => Step::AgentToggles(node),
            15..17 => Step::CaptureToggles(node),
            17 => Step::StreamBreaks(node),
            18 => Step::HandoverBreaks(node),
            19 => Step::ReportLost(node),
            20 => Step::AgentWaits(node),
            21..29 => Step::Hand(pod, Hand::any(dice)),
            29..46 => Step::ServerReads,
            46..86 => Step::ServerSends(node),
            86..126 => Step::ServerHears(node),
            126..141 => Step::AgentConnects(node),
            141..186 => Step::AgentHears(node),
            186..196 => Step::AgentReports(node, dice.random_bool(0.2)),
            196..206 => Step::ReportArrives(node, dice.random_range(0..2)),
            206..221 => Step::CaptureReads(node),
            221..241 => Step::CaptureActs(node),
            241..316 => {
                let outside = Outside { fails: dice.random_bool(0.02), old: dice.random_bool(0.5) };
                Step::PodTurns(pod, outside)
            }
            316..326 => Step::HandoverConnects(node),
            326..351 => Step::AgentObeys(node),
            _ => Step::Call(pod, (pod + dice.random_range(1..PODS.len())) % PODS.len()),
        }
    }

    /// Takes a step, and holds the promises that it touches.
    ///
    /// # Errors
    /// The promise that is broken.
    pub fn take(&mut self, step: Step) -> Result<(), Broken> {
        match step {
            Step::Enrol(_) | Step::Strict(_) | Step::OptOut(_) | Step::Policy(_) | Step::Break => self.write(step),
            Step::ServerReads => self.server_reads(),
            Step::ServerToggles => self.server_toggles(),
            Step::StrangerStarts(first) => self.stranger_starts(first),
            Step::ServerSends(node) => return self.server_sends(node),
            Step::ServerHears(node) => self.server_hears(node),
            Step::AgentToggles(node) => self.agent_toggles(node),
            Step::AgentConnects(node) => self.agent_connects(node),
            Step::StreamBreaks(node) => self.stream_breaks(node),
            Step::AgentHears(node) => self.agents[node].iter_mut().try_for_each(Agent::receive)?,
            Step::AgentWaits(node) => self.agents[node].iter_mut().try_for_each(Agent::wait)?,
            Step::AgentReports(node, anew) => {
                if let Some(report) = self.agents[node].as_mut().and_then(|agent| agent.report(anew)) {
                    self.reports[node].push_back(report);
                }
            }
            Step::ReportArrives(node, which) => self.report_arrives(node, which),
            Step::ReportLost(node) => {
                if self.reports[node].pop_front().is_some() {
                    self.with_agent(node, Agent::report_failed);
                }
            }
            Step::CaptureToggles(node) => self.capture_toggles(node),
            Step::CaptureReads(node) => {
                let now = self.truth.now();
                self.captures[node].iter_mut().for_each(|capture| capture.version = Some(now));
            }
            Step::CaptureActs(node) => self.capture_acts(node),
            Step::PodTurns(pod, outside) => {
                let node = PODS[pod].node;
                if let Some(capture) = &mut self.captures[node] {
                    let words = capture.turn(pod, &mut self.kernels[pod], outside);
                    self.tell(node, words);
                }
            }
            Step::HandoverConnects(node) => self.handover_connects(node),
            Step::HandoverBreaks(node) => self.with_agent(node, |agent| agent.handover = None),
            Step::AgentObeys(node) => self.with_agent(node, Agent::obey),
            Step::Hand(pod, hand) => self.kernels[pod].suffer(hand),
            Step::Call(from, to) => return self.call(from, to).map(drop),
        }
        self.note_steady();
        (0..PODS.len()).try_for_each(|pod| self.stays_closed(pod))
    }

    fn write(&mut self, step: Step) {
        let mut facts: Facts = self.truth.facts().clone();
        match step {
            Step::Enrol(namespace) => toggle(&mut facts.enrolled, namespace),
            Step::Strict(namespace) => toggle(&mut facts.strict, namespace),
            Step::OptOut(pod) => toggle(&mut facts.opted_out, pod),
            Step::Policy(policy) => toggle(&mut facts.policies, policy),
            _ => facts.broken = !facts.broken,
        }
        self.truth.write(facts);
    }

    fn with_agent(&mut self, node: usize, act: impl FnOnce(&mut Agent)) {
        if let Some(agent) = &mut self.agents[node] {
            act(agent);
        }
    }

    fn server_reads(&mut self) {
        let now = self.truth.now();
        if let Some(server) = &mut self.server {
            server.look();
            server.publish(&self.truth, now, &self.disk);
        }
    }

    fn stranger_starts(&mut self, first: usize) {
        if self.server.is_none() {
            let mut server = Server::stranger(first, self.plant);
            server.publish(&self.truth, self.truth.now(), &self.disk);
            self.server = Some(server);
        }
    }

    fn server_toggles(&mut self) {
        self.server = if self.server.is_some() { None } else { Some(Server::new(self.plant)) };
        for agent in self.agents.iter_mut().flatten() {
            agent.stream = None;
        }
    }

    fn server_sends(&mut self, node: usize) -> Result<(), Broken> {
        let (Some(server), Some(agent)) = (&mut self.server, &mut self.agents[node]) else { return Ok(()) };
        let Some(stream) = &mut agent.stream else { return Ok(()) };
        let due = server.due(node);
        let quiet = due.is_empty() && stream.up.is_empty() && stream.down.is_empty();
        stream.down.extend(due);
        let told = !server.is_ignorant() && !agent.is_doubting();
        if quiet && told && server.is_settled(node) && server.version().is_some() {
            let news = agent.floor != server.version();
            agent.settled(server.version());
            check::acknowledged_is_in_force(server, agent.mesh(), node)?;
            return if news { self.all_call(node) } else { Ok(()) };
        }
        Ok(())
    }

    /// Everybody calls everybody on a node that has just settled: now is the moment when what is old would be seen.
    fn all_call(&mut self, node: usize) -> Result<(), Broken> {
        let pairs = (0..PODS.len()).flat_map(|from| (0..PODS.len()).map(move |to| (from, to)));
        let mut pairs = pairs.filter(|(from, to)| from != to && PODS[*to].node == node);
        pairs.try_for_each(|(from, to)| self.call(from, to).map(drop))
    }

    fn server_hears(&mut self, node: usize) {
        let (Some(server), Some(agent)) = (&mut self.server, &mut self.agents[node]) else { return };
        if let Some(request) = agent.stream.as_mut().and_then(|stream| stream.up.pop_front()) {
            server.request(node, request);
        }
    }

    fn agent_toggles(&mut self, node: usize) {
        self.agents[node] = if self.agents[node].is_some() { None } else { Some(Agent::new(node, self.plant)) };
        self.server.iter_mut().for_each(|server| server.hang_up(node));
    }

    fn agent_connects(&mut self, node: usize) {
        if let (Some(server), Some(agent)) = (&mut self.server, &mut self.agents[node])
            && agent.stream.is_none()
        {
            server.hang_up(node);
            agent.connect();
        }
    }

    fn stream_breaks(&mut self, node: usize) {
        self.with_agent(node, |agent| agent.stream = None);
        self.server.iter_mut().for_each(|server| server.hang_up(node));
    }

    fn report_arrives(&mut self, node: usize, which: usize) {
        if self.server.is_none() {
            return;
        }
        if let Some(report) = self.reports[node].remove(which) {
            self.disk.insert(NODES[node], report);
            // The pipeline runs whenever a report says something new.
            let served = self.server.as_ref().and_then(Server::version);
            if let (Some(server), Some(version)) = (&mut self.server, served) {
                server.publish(&self.truth, version, &self.disk);
            }
        }
    }

    fn capture_toggles(&mut self, node: usize) {
        let takes_along = self.plant == Some(Plant::TakesRulesAlong) && self.captures[node].is_some();
        for (kernel, _) in self.kernels.iter_mut().zip(&PODS).filter(|(_, pod)| takes_along && pod.node == node) {
            kernel.removal().into_iter().for_each(|commit| kernel.commit(commit));
        }
        self.captures[node] = if self.captures[node].is_some() { None } else { Some(Capture::new(self.plant)) };
        self.with_agent(node, |agent| agent.handover = None);
    }

    fn capture_acts(&mut self, node: usize) {
        let Some(capture) = &mut self.captures[node] else { return };
        let Some(version) = capture.version else { return };
        let proxied = self.agents[node].as_ref().is_some_and(|agent| agent.handover.is_some());
        let words = capture.follow(&self.truth.version(version).wanted[node], proxied);
        self.tell(node, words);
    }

    fn tell(&mut self, node: usize, words: Vec<Handover>) {
        if let Some(queue) = self.agents[node].as_mut().and_then(|agent| agent.handover.as_mut()) {
            queue.extend(words);
        }
    }

    fn handover_connects(&mut self, node: usize) {
        if let (Some(capture), Some(agent)) = (&self.captures[node], &mut self.agents[node])
            && agent.handover.is_none()
            && agent.is_ready()
            && capture.knows_its_pods()
        {
            agent.meet(capture.snapshot());
        }
    }

    /// A pod counts as captured for good once its capture half has done so because it is selected, and nothing that was
    /// written since says otherwise.
    fn note_steady(&mut self) {
        let now = self.truth.now();
        for (pod, since) in self.steady_since.iter_mut().enumerate() {
            let (kernel, capture) = (&self.kernels[pod], self.captures[PODS[pod].node].as_ref());
            // Everything was taken out by hand, and nobody was there to put it back: who comes finds a pod like any other.
            let holds = || capture.is_some_and(|capture| capture.holds(pod));
            let lost = kernel.is_exposed() && kernel.standing().is_none() && !holds();
            if lost || !self.truth.version(now).selects(pod) {
                *since = None;
            } else if since.is_none()
                && kernel.is_whole(Phase::Steady)
                && capture
                    .and_then(|capture| capture.keeps(pod))
                    .is_some_and(|seen| (seen..=now).all(|version| self.truth.version(version).selects(pod)))
            {
                *since = Some(now);
            }
        }
    }

    /// Promise 1, of every pod after every step. Who has taken everything away by hand has the time until the repair begins.
    fn stays_closed(&self, pod: usize) -> Result<(), Broken> {
        let kernel = &self.kernels[pod];
        for (fate, way) in [(kernel.call_out(), "leaves"), (kernel.call_in(), "enters")] {
            if fate == Fate::Direct && !kernel.is_exposed() {
                check::may_go_direct(self.steady_since[pod], pod, way)?;
            }
        }
        Ok(())
    }

    /// One pod calls another; what becomes of it.
    ///
    /// # Errors
    /// The promise that is broken.
    pub fn call(&mut self, from: usize, to: usize) -> Result<Outcome, Broken> {
        self.stays_closed(from)?;
        match self.kernels[from].call_out() {
            Fate::Dropped | Fate::Refused | Fate::Astray => Ok(Outcome::Refused),
            Fate::Direct => self.arrive_in_plaintext(from, to),
            Fate::Captured => self.captured_call(from, to),
        }
    }

    fn captured_call(&mut self, from: usize, to: usize) -> Result<Outcome, Broken> {
        let Some(agent) = &self.agents[PODS[from].node] else { return Ok(Outcome::Refused) };
        let decision = agent.decide(from, SocketAddr::new(PODS[to].ip(), PORT), &mut self.dice);
        let identity =
            |node: &Self| node.truth.version(node.truth.now()).mesh.workload(&PODS[from].uid())?.identity().ok();
        let Some(identity) = identity(self) else { return Ok(Outcome::Refused) };
        match decision {
            Decision::Refuse(_) => Ok(Outcome::Refused),
            Decision::Passthrough { .. } if agent.misled => self.arrive_in_plaintext(from, to),
            Decision::Passthrough { .. } => Err(Broken::Forgotten { from: PODS[from].name, to: PODS[to].name }),
            Decision::Plain(_) => self.arrive_in_plaintext(from, to),
            Decision::Local(_) => self.admitted(from, to, &Way::Local(identity)),
            Decision::Tunnel(plan) => {
                check::peer_is_right(&plan, to)?;
                self.admitted(from, to, &Way::Tunnel(identity))
            }
        }
    }

    fn arrive_in_plaintext(&mut self, from: usize, to: usize) -> Result<Outcome, Broken> {
        self.stays_closed(to)?;
        match self.kernels[to].call_in() {
            Fate::Dropped | Fate::Refused | Fate::Astray => Ok(Outcome::Refused),
            Fate::Direct => {
                self.kernels[to].called = true;
                Ok(Outcome::Direct)
            }
            Fate::Captured => self.admitted(from, to, &Way::Plaintext),
        }
    }

    fn admitted(&mut self, from: usize, to: usize, way: &Way) -> Result<Outcome, Broken> {
        let Some(agent) = &mut self.agents[PODS[to].node] else { return Ok(Outcome::Refused) };
        match agent.admit(to, way, SocketAddr::new(PODS[from].ip(), 40_000)) {
            Ok(connection) => {
                check::permit_has_a_policy(&self.truth, agent.floor, to, (way.identity(), &connection))?;
                Ok(Outcome::Permitted)
            }
            Err(_) => Ok(Outcome::Refused),
        }
    }

    /// How many reports are on their way.
    #[must_use]
    pub fn reports(&self, node: usize) -> usize {
        self.reports[node].len()
    }
}

fn toggle(set: &mut BTreeSet<usize>, one: usize) {
    if !set.remove(&one) {
        set.insert(one);
    }
}
