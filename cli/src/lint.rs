//! `weft lint PATH`: what the control plane would say about these files, without one.
//!
//! Reads with the same code as `weft-xds-server --source dir:PATH`, including what only shows when all objects are seen
//! together, so a directory that lint accepts is accepted there, too.

use std::path::Path;
use std::process::ExitCode;

use serde_json::json;
use weft_manifest::{Finding, Outcome, Scanner, Severity, Store};

use crate::arguments::{Format, LintOptions};
use crate::output;

/// Prints the findings; exit code 1 when one needs action.
pub fn run(options: &LintOptions) -> anyhow::Result<ExitCode> {
    let scan = Scanner::new(&options.path).scan()?;
    let outcome = Store::default().apply(&scan.files);
    match options.output {
        Format::Json => output::json(&json!({ "objects": outcome.objects.len(), "findings": outcome.findings }))?,
        Format::Table => output::line(&text(&options.path, &outcome))?,
    }
    let clean = !outcome.findings.iter().any(Finding::needs_action);
    Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn text(path: &Path, outcome: &Outcome) -> String {
    let mut lines: Vec<String> = outcome.findings.iter().map(ToString::to_string).collect();
    let count = |severity| outcome.findings.iter().filter(|finding| finding.severity == severity).count();
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    let objects = outcome.objects.len();
    lines.push(match (errors + warnings, objects) {
        (0, 0) => format!("{}: nothing that Weft reads", path.display()),
        (0, _) => format!("{}: {} read, all well", path.display(), plural(objects, "object")),
        _ => format!(
            "{}: {} and {}; {} in force",
            path.display(),
            plural(errors, "error"),
            plural(warnings, "warning"),
            plural(objects, "object")
        ),
    });
    lines.join("\n")
}

fn plural(count: usize, word: &str) -> String {
    format!("{count} {word}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use weft_manifest::{Outcome, Scanner, Store};

    use super::text;

    fn lint(yaml: &str) -> (Outcome, String) {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("x.yaml"), yaml).unwrap();
        let outcome = Store::default().apply(&Scanner::new(directory.path()).scan().unwrap().files);
        let shown = text(Path::new("dir"), &outcome).replace(directory.path().to_str().unwrap(), "dir");
        (outcome, shown)
    }

    #[test]
    fn good_files_get_a_friendly_line() {
        assert_eq!(lint("").1, "dir: nothing that Weft reads");
        let (_, shown) = lint("apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n");
        assert_eq!(shown, "dir: 1 object read, all well");
        let (outcome, shown) = lint("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: cart}\n");
        assert!(!outcome.findings[0].needs_action());
        assert!(shown.starts_with("dir/x.yaml:1 (document 1): note: Deployment cart: is none of"), "{shown}");
    }

    #[test]
    fn faults_of_one_document_and_of_all_together_are_shown() {
        let service = |name: &str| {
            format!("---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{clusterIP: 10.0.0.1}}\n")
        };
        let broken = "---\napiVersion: v1\nkind: Service\nmetadata: {name: c}\nspec: {slector: {app: c}}\n";
        let (_, shown) = lint(&(service("a") + &service("b") + broken));
        let lines: Vec<&str> = shown.lines().collect();
        assert!(lines[0].contains("Service default/b: spec.clusterIPs: 10.0.0.1 is also"), "{shown}");
        assert_eq!(
            lines[1],
            "dir/x.yaml:12 (document 3): error: Service default/c: spec.slector: unknown field; did you mean 'selector'?"
        );
        assert_eq!(lines[2], "dir: 2 errors and 0 warnings; 2 objects in force");
    }
}
