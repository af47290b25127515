//! `weft install` and `weft upgrade`: the same act. What is there already is left as it is where it is right.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::{Value, json};
use weft_kubernetes::Cluster;

use super::connect::with;
use super::look::look;
use super::manifests;
use super::options::InstallOptions;
use crate::format::Format;
use crate::output;
use crate::progress::{Done, Progress};

/// How often a rollout is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// A kind of ours is served within some 100 ms of its definition.
const SERVED: Duration = Duration::from_secs(30);

/// Installs.
///
/// # Errors
/// The API server refuses, or it is not ready in time: says what to look at.
pub fn run(options: &InstallOptions) -> anyhow::Result<ExitCode> {
    let objects = manifests::objects(&options.images, &options.tag)?;
    if options.dry_run {
        match options.output {
            Format::Table => output::line(manifests::text(&options.images, &options.tag).trim_end())?,
            Format::Json => output::json(&json!({ "apiVersion": "v1", "kind": "List", "items": objects }))?,
        }
        return Ok(ExitCode::SUCCESS);
    }
    let progress = Progress::begin(options.output);
    progress.end(with(&options.cluster, |cluster| async move {
        for object in &objects {
            cluster.apply(object).await?;
            if object["kind"] == "CustomResourceDefinition" {
                established(&cluster, object).await?;
            }
        }
        let applied = format!("applied {} objects in weft-system and beside it", objects.len());
        progress.step("applied", "weft-system", &applied)?;
        for object in objects.iter().filter(|object| object["kind"] == "Deployment" || object["kind"] == "DaemonSet") {
            rolled_out(&cluster, object, (progress, progress.begun() + options.timeout)).await?;
        }
        let message = format!(
            "Weft {} is installed ({:.0} s).\nNext: `weft enroll NAMESPACE --wait`, then `weft pods -A`.",
            options.tag,
            progress.begun().elapsed().as_secs_f32()
        );
        Ok(Done { outcome: "installed", message })
    }))
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

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
