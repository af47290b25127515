//! A namespace of its own in the cluster of $KUBECONFIG, and kubectl.

use std::io::Write;
use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use weft_testkit::wait;

/// How long anything may take on a busy machine: an image is there already, so a pod starts within seconds.
pub(crate) const DEADLINE: Duration = Duration::from_secs(90);

/// What `curl` says when it got no answer.
pub(crate) const NONE: &str = "000";

pub(crate) fn url(address: &str, port: u16) -> String {
    match address.parse() {
        Ok(IpAddr::V6(address)) => format!("http://[{address}]:{port}/"),
        _ => format!("http://{address}:{port}/"),
    }
}

/// Calls that shall all end the same way.
pub(crate) fn all(urls: impl IntoIterator<Item = String>, expected: &str) -> Vec<(String, String)> {
    urls.into_iter().map(|url| (url, expected.to_owned())).collect()
}

/// kubectl, or what $WEFT_KUBECTL says (`weft-cluster kubectl`).
fn kubectl() -> Command {
    let words = std::env::var_os("WEFT_KUBECTL").unwrap_or_else(|| "kubectl".into());
    let words = words.to_string_lossy();
    let mut words = words.split_whitespace();
    let mut command = Command::new(words.next().unwrap_or("kubectl"));
    command.args(words);
    command
}

/// Runs kubectl, with a text on its standard input.
///
/// # Errors
/// It fails, with its words.
pub(crate) fn run(arguments: &[&str], input: &str) -> Result<String> {
    let mut command = kubectl();
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("{command:?}"))?;
    child.stdin.take().context("piped")?.write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if !output.status.success() {
        bail!("kubectl {}: {}{}", arguments.join(" "), text(&output.stdout), text(&output.stderr));
    }
    Ok(text(&output.stdout))
}

/// Until a Deployment or DaemonSet is rolled out. Asked again and again: a `kubectl rollout status` that watches has waited for minutes for
/// what had long been there, on a busy machine.
///
/// # Errors
/// After [`DEADLINE`], with kubectl's words.
pub(crate) fn rolled_out(namespace: &str, what: &str) -> Result<()> {
    wait::eventually(DEADLINE * 2, &format!("{what} to be rolled out"), || {
        let words = run(&["-n", namespace, "rollout", "status", what, "--watch=false"], "")?;
        if words.contains("successfully rolled out") { Ok(()) } else { Err(anyhow::anyhow!("{words}")) }
    })
}

/// A namespace that is removed in the end.
pub(crate) struct Stage {
    pub(crate) namespace: String,
}

impl Stage {
    /// Makes it, with these objects in it (`NAMESPACE` in the text is its name).
    pub(crate) fn new(name: &str, objects: &str) -> Result<Self> {
        let stage = Self { namespace: format!("weft-e2e-{name}-{}", std::process::id()) };
        run(&["create", "namespace", &stage.namespace], "")?;
        // Pods that come before it are refused.
        wait::eventually(DEADLINE, "the default service account", || {
            stage.kubectl(&["get", "serviceaccount", "default"])
        })?;
        stage.apply(objects)?;
        Ok(stage)
    }

    /// The same, and waits until all of it runs.
    pub(crate) fn ready(name: &str, objects: &[&str]) -> Result<Self> {
        let stage = Self::new(name, &objects.join("\n"))?;
        for kind in ["deployment", "daemonset", "statefulset"] {
            for object in stage.words(&[kind], "{.items[*].metadata.name}")? {
                stage.kubectl(&["rollout", "status", &format!("{kind}/{object}"), "--timeout=90s"])?;
            }
        }
        Ok(stage)
    }

    pub(crate) fn apply(&self, objects: &str) -> Result<()> {
        let text = objects.replace("NAMESPACE", &self.namespace);
        run(&["-n", &self.namespace, "apply", "-f", "-"], &text).map(drop)
    }

    pub(crate) fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        run(&[&["-n", &self.namespace], arguments].concat(), "")
    }

    pub(crate) fn rolled_out(&self, deployment: &str) -> Result<()> {
        rolled_out(&self.namespace, &format!("deployment/{deployment}"))
    }

    pub(crate) fn label(&self, label: &str) -> Result<()> {
        run(&["label", "namespace", &self.namespace, "--overwrite", label], "").map(drop)
    }

    /// Into the mesh, and until every pod says that it is captured.
    pub(crate) fn enroll(&self) -> Result<()> {
        self.label("weft.dev/mesh=enabled")?;
        self.captured("True")
    }

    /// Until every pod that runs says so.
    pub(crate) fn captured(&self, word: &str) -> Result<()> {
        let path = "{range .items[?(@.status.phase==\"Running\")]}{.status.conditions[?(@.type==\"weft.dev/captured\")].status} {end}";
        wait::eventually(DEADLINE, &format!("weft.dev/captured={word} of all pods"), || {
            let words = self.kubectl(&["get", "pods", "-o", &format!("jsonpath={path}")])?;
            let pods =
                self.kubectl(&["get", "pods", "--field-selector=status.phase=Running", "-o", "name"])?.lines().count();
            let so = words.split_whitespace().filter(|found| *found == word).count();
            if pods > 0 && so == pods { Ok(()) } else { Err(anyhow::anyhow!("{so} of {pods}")) }
        })
    }

    /// Runs a command in a pod of a Deployment.
    pub(crate) fn exec(&self, deployment: &str, command: &[&str]) -> Result<String> {
        self.kubectl(&[&["exec", &format!("deploy/{deployment}"), "--"], command].concat())
    }

    /// Makes these calls in a pod of a Deployment, one after the other, until each ends as it shall: `NAME STATUS` or `STATUS` alone,
    /// where 000 is no answer. Asked again until the deadline, because rules, policies and names need a moment to arrive.
    pub(crate) fn expect(&self, from: &str, calls: &[(String, String)]) -> Result<()> {
        let urls: Vec<&str> = calls.iter().map(|(url, _)| &**url).collect();
        let script = format!("for u in {}; do echo $(curl -g -s -m 3 -w ' %{{http_code}}' $u); done", urls.join(" "));
        wait::eventually(DEADLINE, &format!("{} calls of {from} as they shall end", calls.len()), || {
            let text = self.exec(from, &["sh", "-c", &script])?;
            let lines: Vec<&str> = text.lines().collect();
            let wrong = calls.iter().zip(&lines).find(|((_, expected), line)| !line.ends_with(expected.as_str()));
            match wrong {
                _ if lines.len() != calls.len() => bail!("{} lines for {} calls: {text}", lines.len(), calls.len()),
                Some(((url, expected), line)) => bail!("{url}: {line}, not {expected}"),
                None => Ok(()),
            }
        })
    }

    /// Words that a jsonpath finds in the objects of this namespace.
    pub(crate) fn words(&self, what: &[&str], path: &str) -> Result<Vec<String>> {
        let text = self.kubectl(&[&["get"], what, &["-o", &format!("jsonpath={path}")]].concat())?;
        Ok(text.split_whitespace().map(str::to_owned).collect())
    }

    /// Every address of every pod of `each`, of both families where the cluster has both: same-node and cross-node calls.
    pub(crate) fn addresses(&self) -> Result<Vec<String>> {
        let addresses = self.words(&["pods", "-l", "app=each"], "{.items[*].status.podIPs[*].ip}")?;
        ensure!(!addresses.is_empty(), "no pod has an address");
        Ok(addresses.iter().map(|address| url(address, 8080)).collect())
    }

    /// Until the pods with this label say that they are captured, or (`False`) that they are not.
    pub(crate) fn wait_captured(&self, label: &str, word: &str) -> Result<()> {
        let condition = format!("--for=condition=weft.dev/captured={word}");
        self.kubectl(&["wait", &condition, "pod", "-l", label, "--timeout=90s"]).map(drop)
    }

    /// Lines of the agents' access logs that name the namespace.
    pub(crate) fn access_log(&self) -> Result<Vec<String>> {
        let arguments = ["-n", "weft-system", "logs", "-l", "app=weft-node-agent", "-c", "proxy", "--tail=-1"];
        let text = run(&arguments, "")?;
        let of_it = text.lines().filter(|line| line.starts_with("access ") && line.contains(&self.namespace));
        Ok(of_it.map(str::to_owned).collect())
    }

    /// What the agents say of calls that did not end well, for a test that fails.
    fn refusals(&self) -> String {
        let lines = self.access_log().unwrap_or_else(|error| vec![error.to_string()]);
        let refused: Vec<String> = lines.into_iter().filter(|line| !line.contains(" verdict=ok ")).collect();
        format!("the agents said of it:\n{}", refused.join("\n"))
    }

    /// One call from `client`: its HTTP status, 000 without an answer.
    pub(crate) fn call(&self, url: &str) -> Result<String> {
        // curl's own exit code says less than the status.
        let script = format!("curl -s -m 5 -o /dev/null -w '%{{http_code}}' {url}; true");
        self.exec("client", &["sh", "-c", &script])
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _gone = run(&["delete", "namespace", &self.namespace, "--wait=false"], "");
    }
}

/// Calls of `client`, each on a connection of its own, one after the other until it is asked for what came of them.
pub(crate) struct Load<'s> {
    stage: &'s Stage,
}

impl<'s> Load<'s> {
    pub(crate) fn start(stage: &'s Stage, url: &str) -> Result<Self> {
        // A call that fails says when.
        let script = format!(
            "rm -f /tmp/stop; (while [ ! -e /tmp/stop ]; do curl -s -m 10 -o /dev/null -w '%{{http_code}} %{{exitcode}}' {url} \
             && echo || date +' at %T'; done > /tmp/calls 2>&1; touch /tmp/done) > /dev/null 2>&1 &"
        );
        stage.exec("client", &["sh", "-c", &script])?;
        let load = Self { stage };
        load.more(20)?;
        Ok(load)
    }

    fn count(&self) -> Result<usize> {
        Ok(self.stage.exec("client", &["sh", "-c", "wc -l < /tmp/calls"])?.trim().parse()?)
    }

    /// Until this many more calls have ended.
    pub(crate) fn more(&self, calls: usize) -> Result<()> {
        let before = self.count().unwrap_or_default();
        wait::eventually(DEADLINE, "calls", || {
            let now = self.count()?;
            if now >= before + calls { Ok(()) } else { Err(anyhow::anyhow!("{} of {calls}", now - before)) }
        })
    }

    /// Ends it: how many calls were made.
    ///
    /// # Errors
    /// A call failed, and when.
    pub(crate) fn end(self) -> Result<usize> {
        self.stage.exec("client", &["touch", "/tmp/stop"])?;
        wait::eventually(DEADLINE, "the end of the load", || self.stage.exec("client", &["cat", "/tmp/done"]))?;
        let text = self.stage.exec("client", &["cat", "/tmp/calls"])?;
        let calls = text.lines().count();
        let failed: Vec<&str> = text.lines().filter(|line| *line != "200 0").collect();
        if let (Some(first), Some(last)) = (failed.first(), failed.last()) {
            bail!("{} of {calls} calls failed, from {first} to {last}; {}", failed.len(), self.stage.refusals());
        }
        Ok(calls)
    }
}

/// One answer of `web` that goes on, a number every second, until it is asked to end.
pub(crate) struct Stream<'s> {
    stage: &'s Stage,
}

impl<'s> Stream<'s> {
    pub(crate) fn start(stage: &'s Stage) -> Result<Self> {
        let script = "(curl -sN http://web/cgi-bin/count > /tmp/stream; echo \"exit code $?\" >> /tmp/stream) > /dev/null 2>&1 &";
        stage.exec("client", &["sh", "-c", script])?;
        wait::eventually(DEADLINE, "the first number", || stage.exec("client", &["grep", "-q", "^1$", "/tmp/stream"]))?;
        Ok(Self { stage })
    }

    /// Has it end: how many numbers came, without a gap.
    pub(crate) fn end(self) -> Result<usize> {
        let servers = self.stage.kubectl(&["get", "pods", "-l", "app=web", "-o", "name"])?;
        for server in servers.lines() {
            self.stage.kubectl(&["exec", server, "--", "touch", "/tmp/end"])?;
        }
        wait::eventually(DEADLINE, "the end of the stream", || {
            self.stage.exec("client", &["grep", "-q", "^exit", "/tmp/stream"])
        })?;
        let text = self.stage.exec("client", &["cat", "/tmp/stream"])?;
        let count = text.lines().count().saturating_sub(2);
        let whole: String =
            (1..=count).map(|number| format!("{number}\n")).chain(["end\nexit code 0\n".to_owned()]).collect();
        if text == whole { Ok(count) } else { bail!("the stream ended with {text}; {}", self.stage.refusals()) }
    }
}
