//! `weft install` and `weft upgrade`: the same act. What is there already is left as it is where it is right.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::{Value, json};
use weft_kubernetes::Cluster;
use weft_manifest::write_plain;
use weft_model::enrolment::MTLS_LABEL;

use super::connect::with;
use super::look::look;
use super::object::text;
use super::options::{Act, InstallOptions};
use super::plan::{self, Plan};
use super::values::{Mtls, given};
use crate::format::Format;
use crate::output;
use crate::programs::choose::NAMESPACE;
use crate::progress::{Done, Progress};

/// How often a rollout is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// A kind of ours is served within some 100 ms of its definition.
const SERVED: Duration = Duration::from_secs(30);

/// Installs.
///
/// # Errors
/// A value cannot be, the API server refuses, or it is not ready in time: says what to look at.
pub fn run(options: &InstallOptions, act: Act) -> anyhow::Result<ExitCode> {
    let given = given(&options.values)?;
    if options.dry_run {
        let plan = match act {
            Act::Install => plan::alone(given)?,
            Act::Upgrade => {
                with(&options.cluster, |cluster| async move { plan::of(&cluster, given, options, act).await })?
            }
        };
        print(&plan.objects, options.output)?;
        return Ok(ExitCode::SUCCESS);
    }
    let progress = Progress::begin(options.output);
    progress.end(with(&options.cluster, |cluster| async move {
        let plan = plan::of(&cluster, given, options, act).await?;
        if !plan.set.is_empty() {
            progress.step("set", "values", &format!("set: {}", plan.set.join(" ")))?;
        }
        apply(&cluster, &plan, progress).await?;
        for object in plan.objects.iter().filter(|object| runs(object)) {
            rolled_out(&cluster, object, (progress, progress.begun() + options.timeout)).await?;
        }
        plan.is_in_force(&cluster).await?;
        let message = format!(
            "Weft {} is installed ({:.0} s).\nNext: `weft enroll NAMESPACE --wait`, then `weft pods -A`.",
            plan.values.tag(),
            progress.begun().elapsed().as_secs_f32()
        );
        Ok(Done { outcome: "installed", message })
    }))
}

fn print(objects: &[Value], output: Format) -> anyhow::Result<()> {
    match output {
        Format::Table => output::line(write_plain(objects).trim_end()),
        Format::Json => output::json(&json!({ "apiVersion": "v1", "kind": "List", "items": objects })),
    }
}

fn runs(object: &Value) -> bool {
    object["kind"] == "Deployment" || object["kind"] == "DaemonSet"
}

async fn apply(cluster: &Cluster, plan: &Plan, progress: Progress) -> anyhow::Result<()> {
    for object in &plan.objects {
        cluster.apply(object).await?;
        if object["kind"] == "CustomResourceDefinition" {
            established(cluster, object).await?;
        }
    }
    for object in &plan.unwanted {
        cluster.delete(object).await?;
    }
    if plan.values.mtls == Mtls::Permissive {
        // Applying takes away what we have set; this takes it away whoever has set it.
        cluster.label_namespace(NAMESPACE, MTLS_LABEL, None).await?;
    }
    let applied = format!("applied {} objects in {NAMESPACE} and beside it", plan.objects.len());
    progress.step("applied", NAMESPACE, &applied)
}

async fn established(cluster: &Cluster, definition: &Value) -> anyhow::Result<()> {
    let end = Instant::now() + SERVED;
    loop {
        let now = cluster.read(definition).await?.unwrap_or_default();
        let conditions = now["status"]["conditions"].as_array().cloned().unwrap_or_default();
        if conditions.iter().any(|condition| condition["type"] == "Established" && condition["status"] == "True") {
            return Ok(());
        }
        if Instant::now() > end {
            bail!("the API server does not serve {} in time", definition["metadata"]["name"]);
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn rolled_out(cluster: &Cluster, object: &Value, (progress, end): (Progress, Instant)) -> anyhow::Result<()> {
    let named = format!("{} {}", text(&object["kind"]), text(&object["metadata"]["name"]));
    let mut said = String::new();
    loop {
        let now = cluster.read(object).await?.with_context(|| format!("{named} is gone"))?;
        let Some(what) = look(cluster, &now).await? else {
            return progress.step("ready", &named, &format!("{named}: ready"));
        };
        if said != what {
            progress.step("waiting", &named, &format!("{named}: {what} ..."))?;
            said.clone_from(&what);
        }
        if Instant::now() > end {
            bail!(
                "{named} is not ready: {what}; see `kubectl -n weft-system get pods` and `kubectl -n weft-system get events`"
            );
        }
        tokio::time::sleep(LOOK).await;
    }
}
