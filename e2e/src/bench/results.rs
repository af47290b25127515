//! What was measured, and what it comes to: medians, ratios, goals. Pure.

use std::collections::BTreeMap;

use serde::Serialize;

use super::figure::{Figure, Of, Peer, Scope, figures};
use super::statistics::median;

/// Beyond this part of one processor taken by others, a sample is left out when there are two quieter ones. The machine of
/// the reference has two processors.
const LOUD: f64 = 0.5;

/// One value.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Sample {
    /// In the figure's unit.
    pub value: f64,
    /// Processors that other programs kept busy meanwhile.
    pub others: f64,
}

/// All samples of a run.
#[derive(Clone, Debug, Default)]
pub struct Results {
    samples: BTreeMap<(Scope, &'static str, Peer), Vec<Sample>>,
    /// What a reader must know: failures of the load, parts left out.
    pub notes: Vec<String>,
}

/// One peer's side of a row.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Side {
    /// Who.
    pub peer: Peer,
    /// Median of the quiet samples, of all if fewer than two are quiet.
    pub median: f64,
    /// To the direct path: the median of the rounds' ratios. What makes the machine slow for a while makes both peers slow in that
    /// round, and a ratio of medians may then compare one peer's slow round with the other one's quick one.
    pub ratio: Option<f64>,
    /// The median divided by the direct path's, to compare with runs before 2026-11-23.
    pub ratio_of_medians: Option<f64>,
    /// What the median is made of.
    pub samples: Vec<Sample>,
}

/// How one goal of issue 4 stands.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Standing {
    /// The value or ratio that is asked about.
    pub reached: f64,
    /// Is it at least the floor?
    pub floor_met: bool,
    /// And the aim?
    pub aim_met: bool,
}

/// One line of the table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// What it is.
    #[serde(flatten)]
    pub figure: Figure,
    /// Who reached what.
    pub sides: Vec<Side>,
    /// Weft against the goal.
    pub standing: Option<Standing>,
}

impl Results {
    /// Adds a value.
    pub fn add(&mut self, scope: Scope, key: &'static str, peer: Peer, sample: Sample) {
        self.samples.entry((scope, key, peer)).or_default().push(sample);
    }

    /// Says something about the run, once.
    pub fn note(&mut self, text: String) {
        if !self.notes.contains(&text) {
            self.notes.push(text);
        }
    }

    /// The rows that have a value, in the table's order.
    #[must_use]
    pub fn rows(&self) -> Vec<Row> {
        figures().into_iter().map(|figure| self.row(figure)).filter(|row| !row.sides.is_empty()).collect()
    }

    fn row(&self, figure: Figure) -> Row {
        let samples = |peer| self.samples.get(&(figure.scope, figure.key, peer)).map_or(&[][..], Vec::as_slice);
        let direct = samples(Peer::Direct);
        let side = |peer| {
            let own = samples(peer);
            let median = typical(own)?;
            let ratio_of_medians = typical(direct).filter(|direct| *direct > 0.0).map(|direct| median / direct);
            let ratio = ratio_of_medians.and_then(|of_medians| {
                if own.len() == direct.len() { typical(&by_round(own, direct)) } else { Some(of_medians) }
            });
            Some(Side { peer, median, ratio, ratio_of_medians, samples: own.to_vec() })
        };
        let sides: Vec<Side> = [Peer::Direct, Peer::Weft, Peer::Ztunnel].into_iter().filter_map(side).collect();
        let standing = sides.iter().find(|side| side.peer == Peer::Weft).and_then(|weft| {
            let goal = figure.goal?;
            let reached = match goal.of {
                Of::Ratio => weft.ratio?,
                Of::Value => weft.median,
            };
            let met = |goal| figure.reaches(reached, goal);
            Some(Standing { reached, floor_met: met(goal.floor), aim_met: met(goal.aim) })
        });
        Row { figure, sides, standing }
    }
}

/// The ratios of the rounds; as loud as the louder of both samples.
fn by_round(own: &[Sample], direct: &[Sample]) -> Vec<Sample> {
    let ratio = |(own, direct): (&Sample, &Sample)| Sample {
        value: own.value / direct.value,
        others: own.others.max(direct.others),
    };
    own.iter().zip(direct).map(ratio).collect()
}

fn typical(samples: &[Sample]) -> Option<f64> {
    let quiet: Vec<f64> = samples.iter().filter(|sample| sample.others <= LOUD).map(|sample| sample.value).collect();
    if quiet.len() >= 2 {
        return median(&quiet);
    }
    median(&samples.iter().map(|sample| sample.value).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(value: f64, others: f64) -> Sample {
        Sample { value, others }
    }

    #[test]
    fn loud_samples_are_left_out_when_two_are_quiet() {
        assert_eq!(typical(&[]), None);
        assert_eq!(typical(&[sample(1.0, 0.0), sample(3.0, 0.1), sample(99.0, 1.5)]), Some(2.0));
        assert_eq!(typical(&[sample(1.0, 0.0), sample(3.0, 0.9), sample(5.0, 1.5)]), Some(3.0));
    }

    #[test]
    fn ratios_and_goals() {
        let mut results = Results::default();
        for (peer, value) in [(Peer::Direct, 100.0), (Peer::Weft, 40.0), (Peer::Ztunnel, 25.0)] {
            results.add(Scope::TwoNodes, "requests", peer, sample(value, 0.0));
        }
        results.add(Scope::Agent, "rss-idle", Peer::Weft, sample(15.0, 0.0));
        let rows = results.rows();
        assert_eq!(rows.len(), 2);
        let ratios: Vec<_> = rows[0].sides.iter().map(|side| side.ratio).collect();
        assert_eq!(ratios, [Some(1.0), Some(0.4), Some(0.25)]);
        assert_eq!(ratios, rows[0].sides.iter().map(|side| side.ratio_of_medians).collect::<Vec<_>>());
        assert_eq!(rows[0].standing, Some(Standing { reached: 0.4, floor_met: true, aim_met: false }));
        assert_eq!(rows[1].standing, Some(Standing { reached: 15.0, floor_met: false, aim_met: false }));
    }

    #[test]
    fn a_slow_round_is_slow_for_both() {
        let side = |rounds: [[(f64, f64); 2]; 3]| {
            let mut results = Results::default();
            for [direct, weft] in rounds {
                results.add(Scope::TwoNodes, "rate-p50", Peer::Direct, sample(direct.0, direct.1));
                results.add(Scope::TwoNodes, "rate-p50", Peer::Weft, sample(weft.0, weft.1));
            }
            results.rows()[0].sides[1].clone()
        };
        let slow_twice =
            side([[(100.0, 0.0), (300.0, 0.0)], [(100.0, 0.0), (200.0, 0.0)], [(150.0, 0.0), (300.0, 0.0)]]);
        assert_eq!((slow_twice.ratio, slow_twice.ratio_of_medians), (Some(2.0), Some(3.0)));
        // A load that is always slow is slow, and a loud round counts for neither.
        let slow = side([[(100.0, 0.0), (300.0, 0.0)], [(100.0, 0.0), (300.0, 0.0)], [(150.0, 0.9), (300.0, 0.0)]]);
        assert_eq!((slow.ratio, slow.ratio_of_medians), (Some(3.0), Some(3.0)));
    }
}
