//! What a step claims, and the summary table. Pure.

use std::fmt::Write as _;

/// A statement that held or did not, with the figure behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The statement, as a user would say it.
    pub text: String,
    /// Did it hold?
    pub held: bool,
    /// What was measured; why it did not hold.
    pub figure: String,
}

impl Claim {
    /// A claim with its measure.
    pub fn new(text: impl Into<String>, held: bool, figure: impl Into<String>) -> Self {
        Self { text: text.into(), held, figure: figure.into() }
    }

    /// A claim that holds when a check passed; the figure is the check's value, or why it failed.
    pub fn of(text: impl Into<String>, check: anyhow::Result<String>) -> Self {
        match check {
            Ok(figure) => Self::new(text, true, figure),
            Err(error) => Self::new(text, false, format!("{error:#}")),
        }
    }
}

/// How a step went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Its title.
    pub title: &'static str,
    /// What it claims; empty when it was not reached.
    pub claims: Vec<Claim>,
}

/// Longest text of a figure: the table then fits 100 columns. The whole text stands in the lines above it.
const FIGURE: usize = 28;

/// The table, one row per claim.
#[must_use]
pub fn table(outcomes: &[Outcome]) -> String {
    let mut rows = vec![["step", "held", "claim", "measured"].map(str::to_owned)];
    for (index, outcome) in outcomes.iter().enumerate() {
        let step = (index + 1).to_string();
        if outcome.claims.is_empty() {
            rows.push([step.clone(), "-".to_owned(), outcome.title.to_owned(), "not reached".to_owned()]);
        }
        for claim in &outcome.claims {
            let held = if claim.held { "yes" } else { "NO" };
            rows.push([step.clone(), held.to_owned(), claim.text.clone(), short(&claim.figure)]);
        }
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths = [width(0), width(1), width(2), width(3)];
    let rule = widths.map(|width| "-".repeat(width)).join("-+-");
    let mut text = String::new();
    for (index, row) in rows.iter().enumerate() {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        let _ = writeln!(text, "{}", cells.join(" | ").trim_end());
        if index == 0 {
            let _ = writeln!(text, "{rule}");
        }
    }
    text
}

/// The first line, shortened.
fn short(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    if line.chars().count() <= FIGURE { line.to_owned() } else { line.chars().take(FIGURE - 1).chain(['~']).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_line_up() {
        let text = table(&[
            Outcome { title: "plain", claims: vec![Claim::new("the shop works", true, "7 purchases")] },
            Outcome {
                title: "enrol",
                claims: vec![Claim::of("only TLS", Err(anyhow::anyhow!("a\nb {}", "x".repeat(99))))],
            },
            Outcome { title: "leave", claims: vec![] },
        ]);
        assert_eq!(
            text,
            "step | held | claim          | measured\n\
             -----+------+----------------+------------\n\
             1    | yes  | the shop works | 7 purchases\n\
             2    | NO   | only TLS       | a\n\
             3    | -    | leave          | not reached\n"
        );
        assert_eq!(short(&"x".repeat(99)).chars().count(), FIGURE);
    }
}
