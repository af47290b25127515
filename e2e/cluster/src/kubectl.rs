//! kubectl against a cluster, as its administrator.

use std::process::Command;

use anyhow::Result;
use serde_json::Value;

use crate::plan::Plan;
use crate::shell;

/// The command, without its arguments.
#[must_use]
pub fn command(plan: &Plan) -> Command {
    let mut command = Command::new(plan.program("kube"));
    command.arg("kubectl").arg("--kubeconfig").arg(plan.kubeconfig());
    command
}

/// Runs it.
///
/// # Errors
/// It fails.
pub fn run(plan: &Plan, arguments: &[&str]) -> Result<String> {
    shell::run(command(plan).args(arguments))
}

/// Puts objects in, or changes them.
///
/// # Errors
/// The API server refuses one.
pub fn apply(plan: &Plan, objects: &[Value]) -> Result<()> {
    let list = serde_json::json!({ "apiVersion": "v1", "kind": "List", "items": objects });
    shell::run_with_input(command(plan).args(["apply", "--server-side", "-f", "-"]), &list.to_string()).map(drop)
}
