//! The least Kubernetes that a stock istiod needs, in the control namespace of a laboratory: etcd, one API server, the
//! CRDs, and istiod itself. No kubelet, no controller: whoever uses it writes pods with their status.

use std::fs;
use std::io::{Error, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use weft_testkit::agents::{get_ok, require_system_program};
use weft_testkit::netns::{Lab, run, run_with_input};
use weft_testkit::process::Process;

/// From the start of a Go program to its readiness; the API server takes 5 s on two idle cores.
const READY: Duration = Duration::from_secs(90);
/// Of the administrator; the API server listens on loopback of a private namespace only.
const TOKEN: &str = "administrator";
/// Its health, and that of istiod.
const API: &str = "https://127.0.0.1:6443";
const ISTIOD_READY: ([u8; 4], u16) = ([127, 0, 0, 1], 8080);

/// The stock programs.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    istiod: PathBuf,
    etcd: String,
    api_server: String,
    crds: PathBuf,
}

impl Programs {
    /// From the environment; `None` after a loud word when one is missing.
    pub(crate) fn find(test: &str) -> Option<Self> {
        let text = |name: &str| std::env::var_os(name).and_then(|value| value.into_string().ok());
        let found = (|| {
            Ok::<_, &str>(Self {
                istiod: text("WEFT_PEER_ISTIOD").ok_or("WEFT_PEER_ISTIOD")?.into(),
                etcd: text("WEFT_PEER_ETCD").ok_or("WEFT_PEER_ETCD")?,
                api_server: text("WEFT_PEER_KUBE_APISERVER").ok_or("WEFT_PEER_KUBE_APISERVER")?,
                crds: text("WEFT_PEER_ISTIO_CRDS").ok_or("WEFT_PEER_ISTIO_CRDS")?.into(),
            })
        })();
        match found {
            Ok(programs) => Some(programs),
            Err(missing) => {
                // Past libtest's capture: a skipped test must be seen.
                let _ = writeln!(std::io::stderr(), "SKIPPED: {test}: {missing} is not set (docs/interop.md)");
                None
            }
        }
    }
}

/// The running control plane.
pub(crate) struct Kubernetes {
    pub(crate) istiod: Process,
    _api_server: Process,
    _etcd: Process,
    programs: Programs,
    netns: String,
    directory: PathBuf,
}

impl Kubernetes {
    /// Starts all of it and waits until it is ready.
    pub(crate) fn start(lab: &Lab, programs: Programs) -> Result<Self> {
        for program in ["kubectl", "openssl"] {
            require_system_program(program)?;
        }
        let directory = lab.directory().join("kubernetes");
        fs::create_dir_all(&directory)?;
        prepare(&directory)?;
        let etcd = lab.start("etcd", words(lab, &programs.etcd, &etcd_flags(&directory)))?;
        let mut api_server = lab.start("api-server", words(lab, &programs.api_server, &api_flags(&directory)))?;
        let netns = lab.control().name().to_owned();
        let kubectl = |arguments: &[&str]| run(kubectl(lab, &directory).args(arguments));
        api_server.wait_ready(READY, "readiness", || kubectl(&["get", "--raw", "/readyz"]).map(drop))?;
        let crds = programs.crds.display().to_string();
        kubectl(&["apply", "--server-side", "-f", &crds])?;
        kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"])?;
        kubectl(&["create", "namespace", "istio-system"])?;
        let istiod = start_istiod(lab, &programs, &directory)?;
        let mut all = Self { istiod, _api_server: api_server, _etcd: etcd, programs, netns, directory };
        all.wait_ready()?;
        Ok(all)
    }

    /// istiod again, after its end.
    pub(crate) fn restart_istiod(&mut self, lab: &Lab) -> Result<()> {
        self.istiod.kill9()?;
        self.istiod = start_istiod(lab, &self.programs, &self.directory)?;
        self.wait_ready()
    }

    fn wait_ready(&mut self) -> Result<()> {
        let netns = self.netns.clone();
        self.istiod.wait_ready(READY, "readiness", || get_ok(&netns, SocketAddr::from(ISTIOD_READY), "/ready"))?;
        Ok(())
    }

    /// Runs kubectl.
    pub(crate) fn kubectl(&self, lab: &Lab, arguments: &[&str]) -> Result<String> {
        run(kubectl(lab, &self.directory).args(arguments))
    }

    /// Makes or changes an object, its status included.
    pub(crate) fn apply(&self, lab: &Lab, object: &Value) -> Result<()> {
        let text = object.to_string();
        run_with_input(kubectl(lab, &self.directory).args(["apply", "-f", "-"]), &text)?;
        if let Some(status) = object.get("status") {
            let kind = object["kind"].as_str().context("a kind")?;
            let name = object["metadata"]["name"].as_str().context("a name")?;
            let namespace = object["metadata"]["namespace"].as_str().unwrap_or("default");
            let patch = json!({ "status": status }).to_string();
            let arguments =
                ["patch", "-n", namespace, kind, name, "--subresource=status", "--type=merge", "-p", &patch];
            self.kubectl(lab, &arguments)?;
        }
        Ok(())
    }

    /// istiod's root certificate, once it has published it.
    pub(crate) fn root(&self, lab: &Lab) -> Result<String> {
        let path = "jsonpath={.data.root-cert\\.pem}";
        let text = self.kubectl(lab, &["get", "configmap", "-n", "istio-system", "istio-ca-root-cert", "-o", path])?;
        ensure!(text.contains("BEGIN CERTIFICATE"), "not there yet");
        Ok(text)
    }
}

/// Keys and kubeconfig.
fn prepare(directory: &Path) -> Result<()> {
    let at = |name: &str| directory.join(name).display().to_string();
    run(Command::new("openssl").args(["genrsa", "-out", &at("sa.key"), "2048"]))?;
    run(Command::new("openssl").args(["rsa", "-in", &at("sa.key"), "-pubout", "-out", &at("sa.pub")]))?;
    fs::write(directory.join("tokens.csv"), format!("{TOKEN},admin,1,\"system:masters\"\n"))?;
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "lab",
        "clusters": [{"name": "lab", "cluster": {"server": API, "insecure-skip-tls-verify": true}}],
        "users": [{"name": "admin", "user": {"token": TOKEN}}],
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "admin"}}],
    });
    fs::write(directory.join("kubeconfig"), kubeconfig.to_string())?;
    let mesh = "trustDomain: cluster.local\nrootNamespace: istio-system\n";
    Ok::<_, Error>(fs::write(directory.join("mesh.yaml"), mesh)?).map_err(Into::into)
}

fn etcd_flags(directory: &Path) -> String {
    let data = directory.join("etcd");
    format!(
        "--data-dir {} --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
         --listen-peer-urls http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380 \
         --initial-cluster default=http://127.0.0.1:2380 --unsafe-no-fsync --log-level warn",
        data.display()
    )
}

fn api_flags(directory: &Path) -> String {
    let directory = directory.display();
    format!(
        "--etcd-servers http://127.0.0.1:2379 --secure-port 6443 --bind-address 127.0.0.1 --advertise-address 172.31.0.100 \
         --cert-dir {directory} --token-auth-file {directory}/tokens.csv --authorization-mode RBAC --allow-privileged \
         --service-account-issuer https://kubernetes.default.svc.cluster.local --service-account-key-file {directory}/sa.pub \
         --service-account-signing-key-file {directory}/sa.key --service-cluster-ip-range 10.96.0.0/16,fd00:10:96::/112 \
         --disable-admission-plugins ServiceAccount --endpoint-reconciler-type none"
    )
}

fn start_istiod(lab: &Lab, programs: &Programs, directory: &Path) -> Result<Process> {
    let path = directory.display();
    let flags = format!(
        "discovery --kubeconfig {path}/kubeconfig --meshConfig {path}/mesh.yaml --monitoringAddr 127.0.0.1:15014 --httpAddr \
         127.0.0.1:8080 --httpsAddr 127.0.0.1:15017 --grpcAddr= --secureGRPCAddr [::]:15012 --ctrlz_port 0"
    );
    let mut command = words(lab, &programs.istiod.display().to_string(), &flags);
    command.current_dir(directory);
    command.envs([
        ("PILOT_ENABLE_AMBIENT", "true"),
        // The account that our agent runs as here.
        ("CA_TRUSTED_NODE_ACCOUNTS", "istio-system/weft-node-agent,istio-system/ztunnel"),
        ("POD_NAMESPACE", "istio-system"),
        ("POD_NAME", "istiod-1"),
        ("CLUSTER_ID", "Kubernetes"),
        ("ENABLE_LEADER_ELECTION", "false"),
        ("VALIDATION_WEBHOOK_CONFIG_NAME", ""),
        ("INJECTION_WEBHOOK_CONFIG_NAME", ""),
    ]);
    lab.start("istiod", command)
}

fn words(lab: &Lab, program: &str, flags: &str) -> Command {
    let mut words = program.split_whitespace();
    let mut command = lab.control().command(words.next().unwrap_or_default());
    command.args(words).args(flags.split_whitespace());
    command
}

fn kubectl(lab: &Lab, directory: &Path) -> Command {
    let mut command = lab.control().command("kubectl");
    command.arg("--kubeconfig").arg(directory.join("kubeconfig"));
    command.args(["--cache-dir", "/run/kubectl"]);
    command
}
