//! What is measured, in which unit, and what issue 4 asks for. Values only.

use serde::Serialize;

/// Who carries the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Peer {
    /// Nobody: pods talk to each other.
    Direct,
    /// Our agents.
    Weft,
    /// A stock ztunnel on either node, under our control plane.
    Ztunnel,
}

/// Where client and server are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// On two nodes.
    TwoNodes,
    /// On one.
    SameNode,
    /// Figures of an agent rather than of a path.
    Agent,
}

/// How a number is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Things in a second.
    PerSecond,
    /// Microseconds.
    Microseconds,
    /// Milliseconds.
    Milliseconds,
    /// Seconds.
    Seconds,
    /// 10^9 bits in a second.
    Gigabits,
    /// 2^20 bytes.
    Mebibytes,
    /// Bytes.
    Bytes,
    /// A number of things.
    Count,
}

/// Which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// More.
    Higher,
    /// Less.
    Lower,
}

/// What a goal is said about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Of {
    /// The value divided by that of the direct path in the same run.
    Ratio,
    /// The value itself.
    Value,
}

/// A goal of issue 4, part A.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Goal {
    /// Of what.
    pub of: Of,
    /// What must be reached.
    pub floor: f64,
    /// What is hoped for.
    pub aim: f64,
}

/// One figure.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Figure {
    /// Its name in the file.
    pub key: &'static str,
    /// Where.
    pub scope: Scope,
    /// Its name in the table.
    pub title: &'static str,
    /// Its unit.
    pub unit: Unit,
    /// Which way is better.
    pub better: Better,
    /// What is asked of it.
    pub goal: Option<Goal>,
}

impl Figure {
    const fn new(scope: Scope, key: &'static str, title: &'static str, unit: Unit, better: Better) -> Self {
        Self { key, scope, title, unit, better, goal: None }
    }

    const fn ratio(mut self, floor: f64, aim: f64) -> Self {
        self.goal = Some(Goal { of: Of::Ratio, floor, aim });
        self
    }

    const fn value(mut self, floor: f64, aim: f64) -> Self {
        self.goal = Some(Goal { of: Of::Value, floor, aim });
        self
    }

    /// Is `value` as good as `goal` asks, or better?
    #[must_use]
    pub fn reaches(&self, value: f64, goal: f64) -> bool {
        match self.better {
            Better::Higher => value >= goal,
            Better::Lower => value <= goal,
        }
    }
}

/// The figures of a path, without goals.
const fn path(scope: Scope) -> [Figure; 17] {
    use Better::{Higher, Lower};
    use Unit::{Gigabits, Microseconds, Milliseconds, PerSecond, Seconds};
    [
        Figure::new(scope, "requests", "requests/s, 32 kept connections", PerSecond, Higher),
        Figure::new(scope, "requests-p99", "  p99", Microseconds, Lower),
        Figure::new(scope, "requests-cpu", "  agents' CPU per 1000", Milliseconds, Lower),
        Figure::new(scope, "rate-p50", "1000 requests/s, open loop: p50", Microseconds, Lower),
        Figure::new(scope, "rate-p99", "  p99", Microseconds, Lower),
        Figure::new(scope, "rate-cpu", "  agents' CPU per 1000", Milliseconds, Lower),
        Figure::new(scope, "connections", "new connections/s, 16 workers", PerSecond, Higher),
        Figure::new(scope, "connections-p99", "  p99", Microseconds, Lower),
        Figure::new(scope, "connections-cpu", "  agents' CPU per 1000", Milliseconds, Lower),
        Figure::new(scope, "echo-p50", "echo, 1 connection: p50", Microseconds, Lower),
        Figure::new(scope, "echo-p99", "  p99", Microseconds, Lower),
        Figure::new(scope, "echo64", "echo, 64 connections: messages/s", PerSecond, Higher),
        Figure::new(scope, "echo64-cpu", "  agents' CPU per 1000", Milliseconds, Lower),
        Figure::new(scope, "bulk1", "bulk, 1 stream", Gigabits, Higher),
        Figure::new(scope, "bulk1-cpu", "  agents' CPU per GB", Seconds, Lower),
        Figure::new(scope, "bulk4", "bulk, 4 streams", Gigabits, Higher),
        Figure::new(scope, "bulk4-cpu", "  agents' CPU per GB", Seconds, Lower),
    ]
}

/// Every figure, in the order of the table.
#[must_use]
pub fn figures() -> Vec<Figure> {
    use Better::{Higher, Lower};
    use Unit::{Bytes, Count, Mebibytes, Microseconds, Milliseconds, PerSecond, Seconds};
    let agent = |key, title, unit| Figure::new(Scope::Agent, key, title, unit, Lower);
    let agents = [
        agent("rss-idle", "memory of one node, both halves, idle", Mebibytes).value(14.0, 9.0),
        agent("pss-idle", "  its share: a page that n processes have counts 1/n", Mebibytes),
        agent("rss-held", "memory of both nodes, 10,000 open connections", Mebibytes).value(60.0, 25.0),
        agent("rss-after", "  12 s after they closed", Mebibytes),
        agent("held-open", "  time to open them", Seconds),
        agent("held-cpu", "  agents' CPU to open them", Seconds),
        agent("allocations-request", "allocations per request, both agents", Count),
        agent("allocations-connection", "allocations per connection, both agents", Count),
        Figure::new(Scope::Agent, "small-connections", "catalog of 10: new connections/s", PerSecond, Higher),
        agent("small-connections-cpu", "  agents' CPU per 1000", Milliseconds),
        Figure::new(Scope::Agent, "large-connections", "catalog of 100,000: new connections/s", PerSecond, Higher),
        agent("large-connections-cpu", "  agents' CPU per 1000", Milliseconds),
        agent("large-rss", "  memory of one node, both halves", Mebibytes),
        agent("small-change-pushes", "catalog of 10, one workload changes: responses to an agent", Count),
        agent("small-change-bytes", "  bytes to both agents", Bytes),
        agent("small-change-applied", "  until both agents have it", Milliseconds),
        agent("large-change-pushes", "catalog of 100,000, one workload changes: responses to an agent", Count),
        agent("large-change-bytes", "  bytes to both agents", Bytes),
        agent("large-change-applied", "  until both agents have it", Milliseconds),
        agent("large-change-echo", "  p99 of echo meanwhile", Microseconds),
        agent("large-still-echo", "  p99 of echo without a change", Microseconds),
    ];
    let mut all: Vec<Figure> = path(Scope::TwoNodes).into_iter().chain(path(Scope::SameNode)).collect();
    for figure in &mut all {
        *figure = asked(*figure);
    }
    all.extend(agents);
    all
}

/// The floors and aims of issue 4, part A.
fn asked(figure: Figure) -> Figure {
    match (figure.scope, figure.key) {
        (Scope::TwoNodes, "requests") => figure.ratio(0.36, 0.45),
        (Scope::TwoNodes, "connections") => figure.ratio(0.40, 0.50),
        (Scope::TwoNodes, "rate-p50") => figure.ratio(2.2, 2.0),
        (Scope::TwoNodes, "bulk1") => figure.ratio(0.28, 0.40),
        (Scope::TwoNodes, "bulk4") => figure.ratio(0.30, 0.45),
        (Scope::SameNode, "requests") => figure.ratio(0.45, 0.55),
        (Scope::SameNode, "connections") => figure.ratio(0.45, 0.57),
        (Scope::SameNode, "bulk1" | "bulk4") => figure.ratio(0.55, 0.70),
        (Scope::SameNode, "bulk1-cpu" | "bulk4-cpu") => figure.value(0.8, 0.45),
        _ => figure,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_floors_below_aims() {
        let all = figures();
        let names: BTreeSet<_> = all.iter().map(|figure| (figure.scope, figure.key)).collect();
        assert_eq!(names.len(), all.len());
        for figure in all.iter().filter(|figure| figure.goal.is_some()) {
            let goal = figure.goal.expect("filtered");
            assert!(figure.reaches(goal.aim, goal.floor) && !figure.reaches(goal.floor, goal.aim), "{figure:?}");
        }
        assert_eq!(all.iter().filter(|figure| figure.goal.is_some()).count(), 13);
    }
}
