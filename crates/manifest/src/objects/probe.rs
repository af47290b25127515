//! The ports that the kubelet calls in a pod: of a container's probes, and of its lifecycle hooks.
//!
//! Reads the ports and leaves the rest to the API server; a kind of probe that is not known here is a port that the kubelet is not
//! let in at.

use crate::fields::At;

const PROBES: [&str; 3] = ["livenessProbe", "readinessProbe", "startupProbe"];
const HOOKS: [&str; 2] = ["postStart", "preStop"];
/// The kinds of call that a probe or hook may make over the network; `exec` makes none.
const CALLS: [&str; 3] = ["httpGet", "tcpSocket", "grpc"];

/// Of one container; `named` knows its own ports, which alone its probes may name.
pub(super) fn probed_ports(container: &At<'_>, named: impl Fn(&str) -> Option<u16>) -> Vec<u16> {
    let lifecycle = container.field("lifecycle");
    let probes = PROBES.iter().map(|name| container.field(name));
    let callers = probes.chain(HOOKS.iter().map(|name| lifecycle.field(name)));
    let called = callers.flat_map(|caller| CALLS.map(|call| caller.field(call).field("port")));
    let number = |port: At<'_>| match port.port_or_name()? {
        Ok(number) => Some(number),
        Err(name) => named(name),
    };
    called.filter_map(number).collect()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::fields::Problems;

    #[rstest]
    #[case::none("{name: a}", &[])]
    #[case::http("{livenessProbe: {httpGet: {path: /, port: 8080}}}", &[8080])]
    #[case::by_name("{readinessProbe: {httpGet: {port: http}}}", &[80])]
    #[case::by_a_name_that_is_not_its_own("{readinessProbe: {httpGet: {port: other}}}", &[])]
    #[case::tcp("{startupProbe: {tcpSocket: {port: 5432}, periodSeconds: 1}}", &[5432])]
    #[case::grpc("{livenessProbe: {grpc: {port: 9000, service: x}}}", &[9000])]
    #[case::exec("{livenessProbe: {exec: {command: [true]}}}", &[])]
    #[case::hooks("{lifecycle: {postStart: {httpGet: {port: 1}}, preStop: {httpGet: {port: 2}}}}", &[1, 2])]
    #[case::several("{livenessProbe: {tcpSocket: {port: 1}}, readinessProbe: {grpc: {port: 2}}}", &[1, 2])]
    fn ports_that_the_kubelet_calls(#[case] container: &str, #[case] expected: &[u16]) {
        let (value, problems) = (serde_yaml::from_str(container).unwrap(), Problems::default());
        let named = |name: &str| (name == "http").then_some(80);
        assert_eq!(probed_ports(&At::root(&value, &problems), named), expected);
        assert!(problems.into_vec().is_empty());
    }
}
