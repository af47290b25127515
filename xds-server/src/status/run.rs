//! Says what our agents have acknowledged, and, where we lead, writes what becomes of policies.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use weft_kubernetes::conditions::{API_VERSION, Condition, KIND, Timestamp, difference};
use weft_kubernetes::{
    About, Candidate, Client, Events, Leadership, PolicyConditions, PolicyLife, Replica, Replicas, Wanted,
};
use weft_manifest::{ObjectKey, Outcome, Revision};
use weft_runtime::drain;
use weft_runtime::shared::Reader;

use super::acknowledged::Acknowledged;
use super::judge::{ACCEPTED, ENFORCED, Findings, NOT_ACKNOWLEDGED, judge};
use super::knowledge::{ABSENCE, Knowledge};
use crate::pipeline::Programmed;
use crate::serve::Nodes;

/// The Lease of the leader.
const LEASE: &str = "weft-xds-server";
/// Changes that come together are one: a rollout of a policy reaches all agents within this.
const TOGETHER: Duration = Duration::from_millis(300);
/// A policy is written, and a replica speaks, at most as often as this.
const REST: Duration = Duration::from_secs(1);
/// How often the leader asks what the other replicas say, and a failed write is tried again.
const LOOK: Duration = Duration::from_secs(2);
/// How often everything is read and said anew, in case somebody else has written to it.
const AGAIN: Duration = Duration::from_secs(60);
/// Between two writes: at most 20 a second.
const WRITE_REST: Duration = Duration::from_millis(50);
/// How long a write may take. Nothing is begun that might outlive our lead.
const WRITE: Duration = Duration::from_secs(3);

/// What is needed.
#[derive(Debug)]
pub struct StatusParts {
    /// Where Weft lives.
    pub namespace: String,
    /// Which pod this is.
    pub replica: Replica,
    /// What is programmed.
    pub programmed: Reader<Option<Programmed>>,
    /// What agents have acknowledged.
    pub nodes: Nodes,
    /// The lease is given back when it begins.
    pub drain: drain::Watch,
}

/// Begins: three tasks that never end by themselves. Gives whether we lead.
pub fn start(client: &Client, parts: StatusParts, tasks: &mut JoinSet<()>) -> Leadership {
    let StatusParts { namespace, replica, programmed, nodes, drain } = parts;
    let (candidate, leadership) = Candidate::new(client.clone(), &namespace, LEASE, &replica.name);
    tasks.spawn(candidate.run(drain));
    let events = Events::new(client.clone(), "weft-xds-server", &replica.name);
    let replicas = Replicas::new(client.clone(), &namespace, replica);
    tasks.spawn(say(replicas.clone(), nodes.clone()));
    let leader = Leader {
        leadership: leadership.clone(),
        replicas,
        nodes,
        programmed,
        conditions: PolicyConditions::new(client.clone()),
        events,
        there: BTreeMap::new(),
    };
    tasks.spawn(leader.run());
    leadership
}

/// Tells whoever leads what our agents have acknowledged.
async fn say(replicas: Replicas, nodes: Nodes) {
    let mut changes = nodes.changes();
    let mut said: Option<(String, Instant)> = None;
    loop {
        let text = Acknowledged::of(nodes.settled()).to_text();
        let again = said.as_ref().is_none_or(|(before, at)| *before != text || at.elapsed() > AGAIN);
        let mut pause = AGAIN;
        if again {
            said = match replicas.say(&text).await {
                Ok(()) => Some((text, Instant::now())),
                Err(error) => {
                    tracing::warn!(%error, "what agents have acknowledged cannot be said; trying again");
                    pause = LOOK;
                    None
                }
            };
            sleep(REST).await;
        }
        // The writer lives as long as the table.
        let _end_or_change = tokio::time::timeout(pause, changes.changed()).await;
    }
}

struct Leader {
    leadership: Leadership,
    replicas: Replicas,
    nodes: Nodes,
    programmed: Reader<Option<Programmed>>,
    conditions: PolicyConditions,
    events: Events,
    /// The conditions as the API server has them.
    there: BTreeMap<PolicyLife, Vec<Condition>>,
}

impl Leader {
    async fn run(mut self) {
        loop {
            while !self.leadership.holds_for(WRITE) {
                self.leadership.changed().await;
            }
            self.lead().await;
        }
    }

    /// Writes until we do not lead any more.
    async fn lead(&mut self) {
        let (begin, mut knowledge) = (Instant::now(), Knowledge::default());
        let (mut read, mut changes): (Option<Instant>, _) = (None, self.nodes.changes());
        while self.leadership.holds_for(WRITE) {
            if read.is_none_or(|read| read.elapsed() > AGAIN) {
                match self.conditions.read().await {
                    Ok(there) => {
                        (self.there, read) = (there.into_iter().collect(), Some(Instant::now()));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot be read; trying again");
                        sleep(LOOK).await;
                        continue;
                    }
                }
            }
            let round = Instant::now();
            let programmed = self.learn(&mut knowledge, begin.elapsed()).await;
            if let Some(Programmed { outcome, .. }) = programmed.as_ref() {
                self.write(outcome, &knowledge, begin.elapsed() < ABSENCE).await;
            }
            sleep(REST.saturating_sub(round.elapsed())).await;
            tokio::select! {
                changed = self.programmed.changed() => {
                    if changed.is_err() {
                        return std::future::pending().await;
                    }
                    sleep(TOGETHER).await;
                }
                _changed = changes.changed() => sleep(TOGETHER).await,
                () = sleep(LOOK) => {}
            }
        }
    }

    /// Gives what the knowledge is about.
    async fn learn(&self, knowledge: &mut Knowledge, now: Duration) -> Arc<Option<Programmed>> {
        let mut said = vec![Acknowledged::of(self.nodes.settled())];
        match self.replicas.others().await {
            Ok(texts) => said.extend(texts.iter().filter_map(|text| Acknowledged::from_text(text))),
            Err(error) => tracing::warn!(%error, "what the other replicas say cannot be read"),
        }
        // After the words: what they speak of is known then, if it is known here at all.
        let programmed = self.programmed.load();
        if let Some(programmed) = programmed.as_ref() {
            knowledge.programmed(programmed.stamp, &programmed.outcome.objects);
            knowledge.told(&said, now);
        }
        programmed
    }

    async fn write(&mut self, outcome: &Outcome, knowledge: &Knowledge, young: bool) {
        let findings = Findings::of(outcome);
        for (key, revision) in &outcome.policies {
            let holds = |node: &str, revision: &Revision| knowledge.holds(node, &key.namespace, &key.name, revision);
            let wanted = judge(outcome, &findings, key, holds);
            let life = life(key, revision);
            let generation = i64::try_from(revision.generation).unwrap_or_default();
            let there = self.there.get(&life).map(Vec::as_slice).unwrap_or_default();
            if young && is_early(there, &wanted, generation) {
                continue;
            }
            let Some(next) = difference(there, &wanted, generation, Timestamp::now()) else { continue };
            if !self.leadership.holds_for(WRITE) {
                return;
            }
            let refused = refused(there, &next);
            match tokio::time::timeout(WRITE, self.conditions.write(&life, &next)).await {
                Ok(Ok(())) => drop(self.there.insert(life, next)),
                Ok(Err(error)) => tracing::warn!(%error, policy = %key, "not written; trying again"),
                Err(_) => tracing::warn!(policy = %key, "the status was not written in time; trying again"),
            }
            if let Some(refused) = refused {
                self.announce(key, revision, &refused).await;
            }
            sleep(WRITE_REST).await;
        }
        let lives: BTreeSet<PolicyLife> = outcome.policies.iter().map(|(key, revision)| life(key, revision)).collect();
        self.there.retain(|life, _| lives.contains(life));
    }

    async fn announce(&self, key: &ObjectKey, revision: &Revision, refused: &Condition) {
        let about = About {
            api_version: API_VERSION,
            kind: KIND,
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            uid: Some(revision.uid.clone()),
        };
        let said = self.events.warn(&about, &refused.reason, "Accept", &refused.message);
        if let Ok(Err(error)) = tokio::time::timeout(WRITE, said).await {
            tracing::warn!(%error, policy = %key, "the event of a refused policy");
        }
    }
}

fn life(key: &ObjectKey, revision: &Revision) -> PolicyLife {
    PolicyLife { namespace: key.namespace.clone(), name: key.name.clone(), uid: revision.uid.clone() }
}

/// Whether it is too early to take `Enforced` back: agents of a leader that is gone come to us and the others only now.
fn is_early(there: &[Condition], wanted: &[Wanted], generation: i64) -> bool {
    let was = there.iter().any(|condition| {
        condition.type_ == ENFORCED && condition.status == "True" && condition.observed_generation == Some(generation)
    });
    was && wanted.iter().any(|wanted| wanted.name == ENFORCED && wanted.reason == NOT_ACKNOWLEDGED)
}

/// The refusal that is new in the next conditions.
fn refused(there: &[Condition], next: &[Condition]) -> Option<Condition> {
    let new = |condition: &&Condition| {
        let same = |before: &Condition| before.type_ == condition.type_ && before.message == condition.message;
        condition.type_ == ACCEPTED && condition.status == "False" && !there.iter().any(same)
    };
    next.iter().find(new).cloned()
}
