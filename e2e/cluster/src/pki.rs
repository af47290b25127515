//! Keys and certificates of a cluster: one authority, a certificate for each part, a kubeconfig for each user.
//!
//! Made once for each cluster and thrown away with it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use serde_json::json;
use time::{Duration, OffsetDateTime};

use crate::plan::Plan;

/// A cluster for tests lives for hours.
const LIFE: Duration = Duration::days(30);

type Authority = CertifiedIssuer<'static, KeyPair>;

/// Who holds a certificate: its file, user and group, and the names that it serves under.
struct Holder {
    file: String,
    user: String,
    group: &'static str,
    names: Vec<String>,
}

/// Writes everything, unless it is there already.
///
/// # Errors
/// The folder cannot be written.
pub fn make(plan: &Plan) -> Result<()> {
    let marker = plan.pki("complete");
    if marker.exists() {
        return Ok(());
    }
    fs::create_dir_all(plan.pki(""))?;
    let authority = authority(&plan.name)?;
    write(&plan.pki("ca.pem"), authority.pem())?;
    write(&plan.pki("ca.key"), authority.key().serialize_pem())?;
    // Signs the tokens of service accounts.
    let accounts = KeyPair::generate()?;
    write(&plan.pki("accounts.key"), accounts.serialize_pem())?;
    write(&plan.pki("accounts.pub"), accounts.public_key_pem())?;
    for holder in holders(plan) {
        let key = KeyPair::generate()?;
        let certificate = params(&holder)?.signed_by(&key, &authority)?.pem();
        write(&plan.pki(&format!("{}.pem", holder.file)), &certificate)?;
        write(&plan.pki(&format!("{}.key", holder.file)), key.serialize_pem())?;
    }
    for user in ["admin", "controller-manager", "scheduler", "proxy"] {
        let to = if user == "admin" { plan.kubeconfig() } else { plan.pki(&format!("{user}.kubeconfig")) };
        kubeconfig(plan, user, &to)?;
    }
    for node in plan.all_nodes() {
        kubeconfig(plan, &node.name, &plan.pki(&format!("{}.kubeconfig", node.name)))?;
    }
    write(&marker, "")
}

fn holders(plan: &Plan) -> Vec<Holder> {
    let holder = |file: &str, user: &str, group, names: Vec<String>| Holder {
        file: file.to_owned(),
        user: user.to_owned(),
        group,
        names,
    };
    let kubernetes = "kubernetes.default.svc.cluster.local";
    let mut of_server =
        vec![plan.wire(1).to_string(), plan.service(1).to_string(), "127.0.0.1".to_owned(), "localhost".to_owned()];
    // `kubernetes`, `kubernetes.default`, ... up to the whole name.
    of_server.extend(kubernetes.match_indices('.').map(|(at, _)| kubernetes[..at].to_owned()));
    of_server.push(kubernetes.to_owned());
    let mut holders = vec![
        holder("apiserver", "kube-apiserver", "", of_server),
        holder("admin", "admin", "system:masters", vec![]),
        holder("controller-manager", "system:kube-controller-manager", "", vec![]),
        holder("scheduler", "system:kube-scheduler", "", vec![]),
        holder("proxy", "system:kube-proxy", "", vec![]),
        // With this the API server calls kubelets, and aggregated API servers.
        holder("apiserver-client", "kube-apiserver-client", "system:masters", vec![]),
        holder("front-proxy", "front-proxy", "", vec![]),
    ];
    holders.extend(plan.all_nodes().into_iter().map(|node| {
        let (v4, v6) = node.addresses;
        let mut names = vec![node.name.clone(), v4.to_string()];
        names.extend(v6.map(|v6| v6.to_string()));
        holder(&node.name, &format!("system:node:{}", node.name), "system:nodes", names)
    }));
    holders
}

fn authority(name: &str) -> Result<Authority> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, format!("{name} cluster"));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    (params.not_before, params.not_after) = validity();
    Ok(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?)
}

fn params(holder: &Holder) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(holder.names.clone())?;
    params.distinguished_name.push(DnType::CommonName, &*holder.user);
    if !holder.group.is_empty() {
        params.distinguished_name.push(DnType::OrganizationName, holder.group);
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    (params.not_before, params.not_after) = validity();
    Ok(params)
}

fn validity() -> (OffsetDateTime, OffsetDateTime) {
    let now = OffsetDateTime::now_utc();
    (now - Duration::minutes(5), now + LIFE)
}

/// A kubeconfig that needs no other file. JSON is YAML.
fn kubeconfig(plan: &Plan, user: &str, path: &Path) -> Result<()> {
    let file = |name: String| -> Result<String> {
        let path = plan.pki(&name);
        Ok(BASE64_STANDARD.encode(fs::read(&path).with_context(|| path.display().to_string())?))
    };
    let context = json!({ "cluster": plan.name, "user": user });
    let value = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": plan.name,
        "clusters": [{ "name": plan.name, "cluster": { "server": plan.server(), "certificate-authority-data": file("ca.pem".to_owned())? } }],
        "users": [{ "name": user, "user": {
            "client-certificate-data": file(format!("{user}.pem"))?,
            "client-key-data": file(format!("{user}.key"))?,
        } }],
        "contexts": [{ "name": plan.name, "context": context }],
    });
    write(path, serde_json::to_string_pretty(&value)?)
}

/// Keys are for their owner alone.
fn write(path: &Path, text: impl AsRef<[u8]>) -> Result<()> {
    fs::write(path, text).with_context(|| path.display().to_string())?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::make;
    use crate::plan::{Plan, ProxyMode};

    #[test]
    fn everybody_gets_what_they_need_and_a_second_time_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let plan = Plan {
            name: "test".to_owned(),
            index: 0,
            nodes: 2,
            proxy: ProxyMode::Iptables,
            dual_stack: true,
            folder: folder.path().to_owned(),
        };
        std::fs::create_dir_all(plan.own("")).unwrap();
        make(&plan).unwrap();
        let kubeconfig = std::fs::read_to_string(plan.kubeconfig()).unwrap();
        assert!(kubeconfig.contains("https://172.30.0.1:6443"));
        for file in ["apiserver.pem", "node2.key", "node2.kubeconfig", "accounts.pub", "front-proxy.pem"] {
            assert!(plan.pki(file).exists(), "{file}");
        }
        make(&plan).unwrap();
        assert_eq!(kubeconfig, std::fs::read_to_string(plan.kubeconfig()).unwrap());
    }
}
