//! Findings for people: grouped by where, one line each, and below it what to do.

use super::finding::{Finding, Level};
use crate::output::{self, Field, Tone};

/// Prints them, and what they come to.
pub(super) fn grouped(findings: &[Finding]) -> anyhow::Result<()> {
    let mut place = "";
    for finding in findings {
        if finding.place != place {
            place = &finding.place;
            output::line(place)?;
        }
        output::marked(2, &mark(finding.level), &finding.finding)?;
        if let Some(fix) = &finding.fix {
            output::line(&format!("           next: {fix}"))?;
        }
    }
    output::line(&format!("\n{}", sum(findings)))
}

/// The form of `weft check --pre`: a table.
pub(super) fn table(findings: &[Finding]) -> anyhow::Result<()> {
    let row = |finding: &Finding| {
        let fix = finding.fix.as_ref().map_or_else(String::new, |fix| format!("; {fix}"));
        vec![mark(finding.level), (&*finding.place).into(), format!("{}{fix}", finding.finding).into()]
    };
    output::table(&["", "what", "found"], findings.iter().map(row).collect(), "Nothing to look at.")
}

fn mark(level: Level) -> Field {
    match level {
        Level::Ok => Field::toned("ok", Tone::Good),
        Level::Note => Field::from("note"),
        Level::Warning => Field::toned("warning", Tone::Warn),
        Level::Error => Field::toned("ERROR", Tone::Bad),
    }
}

fn sum(findings: &[Finding]) -> String {
    let count = |level| findings.iter().filter(|finding| finding.level == level).count();
    let words = |count: usize, word: &str| match count {
        0 => None,
        1 => Some(format!("1 {word}")),
        _ => Some(format!("{count} {word}s")),
    };
    let found = [words(count(Level::Error), "error"), words(count(Level::Warning), "warning")];
    let found: Vec<String> = found.into_iter().flatten().collect();
    if found.is_empty() { "All well.".to_owned() } else { found.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::{Finding, sum};

    #[test]
    fn what_they_come_to() {
        let (ok, bad) = (Finding::ok("a", "b"), Finding::error("a", "b", "c"));
        assert_eq!(sum(&[ok.clone(), Finding::note("a", "b")]), "All well.");
        assert_eq!(sum(&[ok, bad.clone(), bad, Finding::warning("a", "b", "c")]), "2 errors, 1 warning");
    }
}
