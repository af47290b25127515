//! etcd, API server, controller manager and scheduler: processes of this machine in the bridge's network namespace.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, anyhow};
use nix::sys::signal::Signal;

use crate::critical;
use crate::plan::Plan;
use crate::started::Started;
use crate::wait;

/// The API server is there 4 to 8 s after its start on two busy cores.
const READY: Duration = Duration::from_secs(90);

/// In the order of their start; they end the other way round.
pub const PARTS: [&str; 4] = ["etcd", "apiserver", "controller-manager", "scheduler"];

/// What limits pods to namespaces.
const ADMISSION: &str = "admission.json";

/// Starts what does not run, and waits until the API server is ready.
///
/// # Errors
/// A program cannot be started, or is not ready in time.
pub fn start(plan: &Plan) -> Result<()> {
    std::fs::write(plan.own(ADMISSION), critical::admission().to_string())?;
    for part in PARTS {
        if process(plan, part).alive().is_none() {
            let netns = format!("--net=/run/netns/{}", plan.bridge_netns());
            let mut command = Command::new("nsenter");
            // `ip netns exec` would make a mount namespace, too.
            command.arg(netns).arg(plan.program("kube")).arg(part).args(flags(plan, part));
            process(plan, part).start(command, &plan.own("log").join(format!("{part}.log")))?;
        }
        if part == "apiserver" {
            // The others end when they come before their rights, which it makes at its first start.
            wait_ready(plan)?;
        }
    }
    Ok(())
}

fn wait_ready(plan: &Plan) -> Result<()> {
    wait::eventually(READY, "the API server", || {
        if process(plan, "apiserver").alive().is_none() {
            return Err(anyhow!("it has ended: see {}", plan.own("log/apiserver.log").display()));
        }
        crate::kubectl::run(plan, &["get", "--raw", "/readyz"]).map(drop)
    })
}

/// Ends all of it.
///
/// # Errors
/// A process outlives SIGKILL.
pub fn stop(plan: &Plan) -> Result<()> {
    PARTS.iter().rev().try_for_each(|part| process(plan, part).end(Signal::SIGTERM))
}

/// One of the parts, for a test that ends it for a while.
#[must_use]
pub fn process(plan: &Plan, part: &str) -> Started {
    Started::of(plan.own("run").join(part))
}

fn flags(plan: &Plan, part: &str) -> Vec<String> {
    match part {
        "etcd" => etcd(plan),
        "apiserver" => api_server(plan),
        "controller-manager" => controller_manager(plan),
        _ => scheduler(plan),
    }
}

fn etcd(plan: &Plan) -> Vec<String> {
    list(&[
        ("data-dir", plan.own("etcd").display().to_string()),
        ("listen-client-urls", "http://127.0.0.1:2379".to_owned()),
        ("advertise-client-urls", "http://127.0.0.1:2379".to_owned()),
        ("listen-peer-urls", "http://127.0.0.1:2380".to_owned()),
        ("initial-advertise-peer-urls", "http://127.0.0.1:2380".to_owned()),
        ("initial-cluster", "default=http://127.0.0.1:2380".to_owned()),
        // A cluster for tests may forget what a power cut takes.
        ("unsafe-no-fsync", "true".to_owned()),
        ("log-level", "warn".to_owned()),
    ])
}

fn api_server(plan: &Plan) -> Vec<String> {
    let pki = |file: &str| plan.pki(file).display().to_string();
    list(&[
        ("etcd-servers", "http://127.0.0.1:2379".to_owned()),
        ("advertise-address", plan.wire(1).to_string()),
        ("service-cluster-ip-range", plan.service_ranges()),
        ("authorization-mode", "Node,RBAC".to_owned()),
        ("enable-admission-plugins", "NodeRestriction".to_owned()),
        ("admission-control-config-file", plan.own(ADMISSION).display().to_string()),
        ("allow-privileged", "true".to_owned()),
        ("tls-cert-file", pki("apiserver.pem")),
        ("tls-private-key-file", pki("apiserver.key")),
        ("client-ca-file", pki("ca.pem")),
        ("service-account-issuer", "https://kubernetes.default.svc.cluster.local".to_owned()),
        ("service-account-key-file", pki("accounts.pub")),
        ("service-account-signing-key-file", pki("accounts.key")),
        ("requestheader-client-ca-file", pki("ca.pem")),
        ("requestheader-allowed-names", "front-proxy".to_owned()),
        ("requestheader-username-headers", "X-Remote-User".to_owned()),
        ("requestheader-group-headers", "X-Remote-Group".to_owned()),
        ("requestheader-extra-headers-prefix", "X-Remote-Extra-".to_owned()),
        ("proxy-client-cert-file", pki("front-proxy.pem")),
        ("proxy-client-key-file", pki("front-proxy.key")),
        ("kubelet-client-certificate", pki("apiserver-client.pem")),
        ("kubelet-client-key", pki("apiserver-client.key")),
        ("kubelet-certificate-authority", pki("ca.pem")),
        ("kubelet-preferred-address-types", "InternalIP".to_owned()),
        // It then calls webhooks at their pods' addresses, and needs no kube-proxy in its namespace.
        ("enable-aggregator-routing", "true".to_owned()),
    ])
}

fn controller_manager(plan: &Plan) -> Vec<String> {
    let pki = |file: &str| plan.pki(file).display().to_string();
    list(&[
        ("kubeconfig", pki("controller-manager.kubeconfig")),
        ("authentication-kubeconfig", pki("controller-manager.kubeconfig")),
        ("authorization-kubeconfig", pki("controller-manager.kubeconfig")),
        ("bind-address", "127.0.0.1".to_owned()),
        ("use-service-account-credentials", "true".to_owned()),
        ("service-account-private-key-file", pki("accounts.key")),
        ("root-ca-file", pki("ca.pem")),
        ("cluster-signing-cert-file", pki("ca.pem")),
        ("cluster-signing-key-file", pki("ca.key")),
        ("leader-elect", "false".to_owned()),
    ])
}

fn scheduler(plan: &Plan) -> Vec<String> {
    let kubeconfig = plan.pki("scheduler.kubeconfig").display().to_string();
    list(&[
        ("kubeconfig", kubeconfig.clone()),
        ("authentication-kubeconfig", kubeconfig.clone()),
        ("authorization-kubeconfig", kubeconfig),
        ("bind-address", "127.0.0.1".to_owned()),
        ("leader-elect", "false".to_owned()),
    ])
}

fn list(pairs: &[(&str, String)]) -> Vec<String> {
    pairs.iter().map(|(name, value)| format!("--{name}={value}")).collect()
}
