//! Asks programs for one of their admin sections.

use std::process::ExitCode;

use anyhow::{Context, anyhow, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::time::timeout;
use weft_kubernetes::{Cluster, has_kubeconfig};

use super::address::HERE;
use super::choose::{NAMESPACE, Program, Role, nobody, on, programs};
use super::http;
use super::many::many;
use super::options::ProgramOptions;
use crate::cluster::connect::{run, with};
use crate::output;

/// Whom a command asks when nobody is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whom {
    /// Every agent: each knows something that the others do not.
    Agents,
    /// One replica of the control plane: all know the same.
    ControlPlane,
    /// Every replica.
    Replicas,
}

/// What one program said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Said<T> {
    /// Which agent of several said so, by its node; none where one was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// Which pod said so, where a cluster was asked.
    #[serde(skip)]
    pub pod: Option<String>,
    /// What it said.
    #[serde(flatten)]
    pub value: T,
}

/// What all said.
#[derive(Debug)]
pub struct Answers<T> {
    /// Those that answered.
    pub said: Vec<Said<T>>,
    /// More than one may have been asked.
    pub several: bool,
    /// The others, and why.
    missing: Vec<(String, anyhow::Error)>,
}

impl<T> Answers<T> {
    /// Says who did not answer. The exit code is then 2, as what was shown is not all.
    #[must_use]
    pub fn end(&self, code: ExitCode) -> ExitCode {
        for (name, error) in &self.missing {
            output::error(&anyhow!("{name}: {error:#}"));
        }
        if self.missing.is_empty() { code } else { ExitCode::from(2) }
    }
}

impl<T> Answers<Vec<T>> {
    /// All rows, each with whose it is.
    pub fn take_rows(&mut self) -> Vec<Said<T>> {
        let rows = |said: Said<Vec<T>>| {
            let (agent, pod) = (said.agent, said.pod);
            said.value.into_iter().map(move |value| Said { agent: agent.clone(), pod: pod.clone(), value })
        };
        std::mem::take(&mut self.said).into_iter().flat_map(rows).collect()
    }
}

/// Asks whom the options name, or else whom the command wants.
///
/// # Errors
/// There is no such program, or none of those answers: says what to do.
pub fn ask<T: DeserializeOwned + Send + 'static>(
    options: &ProgramOptions,
    whom: Whom,
    section: &'static str,
) -> anyhow::Result<Answers<T>> {
    if let Some(address) = address(options) {
        let value = run(at(&address, section))?;
        return Ok(Answers { said: vec![Said { agent: None, pod: None, value }], several: false, missing: Vec::new() });
    }
    with(&options.cluster, |cluster| async move {
        let mut missing = Vec::new();
        let mut said = Vec::new();
        let chosen = chosen(&cluster, options, whom).await?;
        let several = options.node.is_none() && options.pod.is_none() && whom != Whom::ControlPlane;
        for (program, answer) in each(&cluster, chosen, section).await {
            let agent = (several && program.role == Role::Agent).then(|| program.node.clone());
            match answer {
                Ok(value) => said.push(Said { agent, pod: Some(program.pod), value }),
                Err(error) => missing.push((program.name().to_owned(), error)),
            }
        }
        match missing.pop() {
            Some((name, error)) if said.is_empty() => Err(error.context(name)),
            last => Ok(Answers { said, several, missing: missing.into_iter().chain(last).collect() }),
        }
    })
}

/// The one address that is asked, where it is no cluster.
fn address(options: &ProgramOptions) -> Option<String> {
    let here = || (!options.names_a_cluster() && !has_kubeconfig()).then(|| HERE.to_owned());
    options.admin.clone().or_else(here)
}

/// Whether a command that wants agents asks all of a cluster.
#[must_use]
pub fn asks_every_agent(options: &ProgramOptions) -> bool {
    address(options).is_none() && options.node.is_none() && options.pod.is_none() && !options.server
}

/// Our programs in a cluster.
///
/// # Errors
/// The API server.
pub async fn found(cluster: &Cluster, role: Role) -> anyhow::Result<Vec<Program>> {
    Ok(programs(role, &cluster.list_in("Pod", NAMESPACE, role.selector()).await?))
}

async fn chosen(cluster: &Cluster, options: &ProgramOptions, whom: Whom) -> anyhow::Result<Vec<Program>> {
    let node = match (&options.node, &options.pod) {
        (Some(node), _) => Some(node.clone()),
        (None, Some((namespace, name))) => Some(node_of(cluster, namespace, name).await?),
        (None, None) => None,
    };
    let role = if node.is_none() && (options.server || whom != Whom::Agents) { Role::Server } else { Role::Agent };
    let mut all = found(cluster, role).await?;
    if let Some(node) = node {
        return Ok(vec![on(&node, all)?]);
    }
    if all.is_empty() {
        bail!("{}", nobody(role));
    }
    if role == Role::Server && whom != Whom::Replicas {
        all.sort_by_key(|program| !program.ready);
        all.truncate(1);
    }
    Ok(all)
}

async fn node_of(cluster: &Cluster, namespace: &str, name: &str) -> anyhow::Result<String> {
    let wanted = json!({ "kind": "Pod", "metadata": { "namespace": namespace, "name": name } });
    let pod = cluster.read(&wanted).await?;
    let pod =
        pod.with_context(|| format!("there is no pod {namespace}/{name}\n  next: kubectl -n {namespace} get pods"))?;
    let node = pod["spec"]["nodeName"].as_str().filter(|node| !node.is_empty());
    node.map(str::to_owned).with_context(|| format!("pod {namespace}/{name} is on no node yet"))
}

/// Asks each of them through the API server; the answers are in their order.
pub async fn each<T: DeserializeOwned + Send + 'static>(
    cluster: &Cluster,
    programs: Vec<Program>,
    section: &'static str,
) -> Vec<(Program, anyhow::Result<T>)> {
    many(programs, |program| {
        let cluster = cluster.clone();
        async move {
            let answer = through(&cluster, &program, section).await;
            (program, answer)
        }
    })
    .await
}

async fn through<T: DeserializeOwned>(cluster: &Cluster, program: &Program, section: &str) -> anyhow::Result<T> {
    let named = format!("{} (pod {NAMESPACE}/{})", program.name(), program.pod);
    // The way leads through the kubelet: of a node that is away nobody answers.
    let way = timeout(http::TIMEOUT, cluster.forward(NAMESPACE, &program.pod, program.role.port())).await;
    let Ok(way) = way else {
        let node = &program.node;
        bail!("no way to {named}: the kubelet of node {node} does not answer\n  next: kubectl describe node {node}");
    };
    let mut stream = way?;
    match http::get(&mut stream, &path(section)).await {
        Ok(answer) => value(&named, section, &answer),
        Err(error) => {
            let words = stream.words().await.unwrap_or_else(|| error.to_string());
            bail!(
                "no answer from {named}: {}\n  next: kubectl -n {NAMESPACE} get pod {pod}; kubectl -n {NAMESPACE} logs {pod} \
                 --all-containers --tail=20",
                words.trim(),
                pod = program.pod
            )
        }
    }
}

async fn at<T: DeserializeOwned>(address: &str, section: &str) -> anyhow::Result<T> {
    let no_answer = |why: String| {
        anyhow!(
            "no answer from {address}: {why}\n  Is the agent or server running there? Name another one with --admin HOST:PORT \
             (agents: 127.0.0.1:15000, server: 127.0.0.1:15014), or a cluster with --kubeconfig FILE."
        )
    };
    let answer = async {
        let connected = timeout(http::TIMEOUT, TcpStream::connect(address)).await;
        let mut stream = connected.map_err(|_late| http::NoAnswer::Late)??;
        http::get(&mut stream, &path(section)).await
    };
    value(address, section, &answer.await.map_err(|error| no_answer(error.to_string()))?)
}

fn path(section: &str) -> String {
    format!("/debug/{section}")
}

fn value<T: DeserializeOwned>(named: &str, section: &str, answer: &http::Answer) -> anyhow::Result<T> {
    match answer.status {
        200..=299 => serde_json::from_slice(&answer.body).with_context(|| {
            format!("{named} answered something else than expected to '{section}'; are both of one version?")
        }),
        404 => bail!(
            "the program at {named} has no '{section}'\n  Agents know connections and certs; servers do not. `weft config` says which one \
             it is."
        ),
        status => bail!("{named} answered {status} to '{section}': {}", String::from_utf8_lossy(&answer.body).trim()),
    }
}

#[cfg(test)]
mod tests {
    use super::{Answers, Said, http, value};

    #[test]
    fn rows_of_several_agents_say_whose_they_are() {
        let said =
            |agent: &str, value: Vec<serde_json::Value>| Said { agent: Some(agent.to_owned()), pod: None, value };
        let row = serde_json::json!({ "name": "a" });
        let mut answers = Answers {
            said: vec![said("one", vec![row.clone(), row.clone()]), said("two", vec![row])],
            several: true,
            missing: Vec::new(),
        };
        let rows = serde_json::to_value(answers.take_rows()).unwrap();
        let expected = serde_json::json!([
            { "agent": "one", "name": "a" }, { "agent": "one", "name": "a" }, { "agent": "two", "name": "a" },
        ]);
        assert_eq!(rows, expected);
    }

    #[test]
    fn an_answer_that_is_none_says_what_to_do() {
        let of = |status: u16, body: &str| {
            value::<Vec<u8>>("node 1", "certs", &http::Answer { status, body: body.as_bytes().to_vec() })
        };
        assert_eq!(of(200, "[1]").unwrap(), [1]);
        assert!(of(200, "{}").unwrap_err().to_string().contains("of one version"));
        assert!(of(404, "").unwrap_err().to_string().contains("has no 'certs'"));
        assert!(of(500, " late\n").unwrap_err().to_string().ends_with("answered 500 to 'certs': late"));
    }
}
