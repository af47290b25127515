//! Each program may do what it needs, and of a list of other things nothing.

use anyhow::Result;

use crate::among_others;
use crate::stage::run;

const SERVER: &str = "system:serviceaccount:weft-system:weft-xds-server";
const AGENT: &str = "system:serviceaccount:weft-system:weft-node-agent";

/// Whether the account may do it: verb, resource (`/NAME`, `:SUBRESOURCE`), namespace (`-A`: in all).
fn may(account: &str, verb: &str, resource: &str, namespace: &str) -> Result<bool> {
    let place = if namespace == "-A" { "-A".to_owned() } else { format!("--namespace={namespace}") };
    let (resource, part) = resource.split_once(':').unwrap_or((resource, ""));
    // `no` is also a failure.
    let whom = [format!("--as={account}"), format!("--subresource={part}")];
    let answer = run(&["auth", "can-i", verb, resource, &place, &whom[0], &whom[1]], "");
    match answer {
        Ok(text) => Ok(text.trim() == "yes"),
        Err(error) if error.to_string().trim().ends_with(": no") => Ok(false),
        Err(error) => Err(error),
    }
}

#[test]
#[ignore = "needs a Kubernetes cluster: make e2e"]
fn each_program_may_do_what_it_needs_and_nothing_else() -> Result<()> {
    let _others = among_others();
    let allowed = [
        (SERVER, "list", "pods", "-A"),
        (SERVER, "watch", "services", "-A"),
        (SERVER, "watch", "endpointslices.discovery.k8s.io", "-A"),
        (SERVER, "watch", "authorizationpolicies.weft.dev", "-A"),
        (SERVER, "patch", "pods:status", "-A"),
        (SERVER, "create", "tokenreviews.authentication.k8s.io", "-A"),
        (SERVER, "get", "secrets/weft-ca", "weft-system"),
        (SERVER, "update", "secrets/weft-ca", "weft-system"),
        (SERVER, "patch", "configmaps/weft-root-cert", "weft-system"),
        (SERVER, "patch", "authorizationpolicies.weft.dev:status", "-A"),
        (SERVER, "create", "events.events.k8s.io", "-A"),
        (SERVER, "patch", "events.events.k8s.io", "-A"),
        (SERVER, "create", "leases.coordination.k8s.io", "weft-system"),
        (SERVER, "get", "leases.coordination.k8s.io", "weft-system"),
        (SERVER, "list", "leases.coordination.k8s.io", "weft-system"),
        (SERVER, "update", "leases.coordination.k8s.io", "weft-system"),
        (SERVER, "patch", "leases.coordination.k8s.io", "weft-system"),
        (AGENT, "create", "events.events.k8s.io", "-A"),
        (AGENT, "patch", "events.events.k8s.io", "-A"),
        (AGENT, "watch", "pods", "-A"),
        (AGENT, "list", "namespaces", "-A"),
    ];
    let forbidden = [
        (SERVER, "get", "secrets", "default"),
        (SERVER, "list", "secrets", "weft-system"),
        (SERVER, "get", "secrets/other", "weft-system"),
        (SERVER, "update", "secrets", "weft-system"),
        (SERVER, "update", "secrets/other", "weft-system"),
        (SERVER, "update", "secrets/weft-ca", "default"),
        (SERVER, "patch", "secrets/weft-ca", "weft-system"),
        (SERVER, "delete", "secrets/weft-ca", "weft-system"),
        (SERVER, "create", "pods", "-A"),
        (SERVER, "patch", "pods", "-A"),
        (SERVER, "delete", "pods", "-A"),
        (SERVER, "patch", "nodes", "-A"),
        (SERVER, "create", "serviceaccounts:token", "weft-system"),
        (SERVER, "impersonate", "users", "-A"),
        (SERVER, "patch", "authorizationpolicies.weft.dev", "-A"),
        (SERVER, "delete", "authorizationpolicies.weft.dev", "-A"),
        (SERVER, "update", "leases.coordination.k8s.io", "kube-system"),
        (SERVER, "update", "leases.coordination.k8s.io", "kube-node-lease"),
        (SERVER, "delete", "leases.coordination.k8s.io", "weft-system"),
        (SERVER, "list", "events.events.k8s.io", "-A"),
        (SERVER, "delete", "events.events.k8s.io", "-A"),
        (SERVER, "create", "events", "-A"),
        (SERVER, "patch", "customresourcedefinitions.apiextensions.k8s.io", "-A"),
        (SERVER, "patch", "validatingadmissionpolicies.admissionregistration.k8s.io", "-A"),
        (AGENT, "list", "events.events.k8s.io", "-A"),
        (AGENT, "delete", "events.events.k8s.io", "-A"),
        (AGENT, "update", "leases.coordination.k8s.io", "weft-system"),
        (AGENT, "get", "leases.coordination.k8s.io", "weft-system"),
        (AGENT, "patch", "authorizationpolicies.weft.dev:status", "-A"),
        (AGENT, "get", "secrets", "weft-system"),
        (AGENT, "list", "secrets", "-A"),
        (AGENT, "patch", "pods:status", "-A"),
        (AGENT, "create", "pods", "-A"),
        (AGENT, "create", "pods:exec", "-A"),
        (AGENT, "create", "tokenreviews.authentication.k8s.io", "-A"),
        (AGENT, "watch", "authorizationpolicies.weft.dev", "-A"),
        (AGENT, "patch", "nodes", "-A"),
        (AGENT, "create", "serviceaccounts:token", "weft-system"),
    ];
    for (expected, list) in [(true, &allowed[..]), (false, &forbidden[..])] {
        for (account, verb, resource, namespace) in list {
            assert_eq!(
                may(account, verb, resource, namespace)?,
                expected,
                "{account} {verb} {resource} in {namespace}"
            );
        }
    }
    Ok(())
}
