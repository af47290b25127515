//! `weft why CODE`: cause and next step of a reason code. Works without any running program.

use std::process::ExitCode;

use anyhow::anyhow;
use serde_json::json;
use weft_model::Reason;

use crate::arguments::{Format, WhyOptions};
use crate::output::{self, Field};

/// Explains one code, or lists all.
pub fn run(options: &WhyOptions) -> anyhow::Result<ExitCode> {
    match &options.code {
        Some(code) => one(code, options.output)?,
        None => all(options.output)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn one(code: &str, format: Format) -> anyhow::Result<()> {
    let reason = Reason::from_code(code).ok_or_else(|| unknown(code))?;
    let explanation = reason.explain();
    match format {
        Format::Json => output::json(&value(reason)),
        Format::Table => output::line(&format!(
            "{}\n  What happened: {}\n  What to do:    {}\n  Seen as:       HTTP status {} inside a tunnel, response flag {} in Istio's metrics",
            explanation.code,
            explanation.cause,
            explanation.next,
            reason.status(),
            reason.response_flag(),
        )),
    }
}

fn value(reason: Reason) -> serde_json::Value {
    let explanation = reason.explain();
    json!({ "code": explanation.code, "cause": explanation.cause, "next": explanation.next, "status": reason.status() })
}

fn all(format: Format) -> anyhow::Result<()> {
    match format {
        Format::Json => output::json(&Reason::ALL.iter().copied().map(value).collect::<Vec<_>>()),
        Format::Table => {
            let row = |reason: &Reason| -> Vec<Field> { vec![reason.code().into(), reason.explain().cause.into()] };
            output::table(&["code", "what happened"], Reason::ALL.iter().map(row).collect(), "")
        }
    }
}

fn unknown(code: &str) -> anyhow::Error {
    let near: Vec<&str> = Reason::ALL
        .iter()
        .map(|reason| reason.code())
        .filter(|known| known.split('-').any(|word| word.len() > 3 && code.contains(word)))
        .collect();
    let hint = if near.is_empty() {
        "`weft why` lists all codes.".to_owned()
    } else {
        format!("Did you mean {}?", near.join(", "))
    };
    anyhow!("'{code}' is not a reason code\n  {hint}")
}

#[cfg(test)]
mod tests {
    use super::unknown;

    #[test]
    fn a_typo_gets_a_hint() {
        assert!(unknown("policy-deny").to_string().contains("policy-denied"));
        assert!(unknown("x").to_string().contains("lists all"));
    }
}
