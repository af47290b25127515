//! Which process is the kubelet, and which questions are looked into. Pure.
//!
//! Whoever is root in the node's own namespaces can be taken for the kubelet by the name of its file; such a process can enter any pod
//! without our help. Everybody else cannot: other users, and root in a container, even one with the node's network and processes, which
//! has a mount namespace of its own.

use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use thiserror::Error;

use crate::pods::{PodSpec, PodUid};

/// A command that is the kubelet: the name of its program's file, and the words that its arguments begin with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubeletCommand {
    program: String,
    words: Vec<String>,
}

/// As on the command line: `kubelet`, `k3s agent`. Nothing is no command, and nobody's.
impl FromStr for KubeletCommand {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        let mut words = text.split_whitespace().map(str::to_owned);
        Ok(Self { program: words.next().unwrap_or_default(), words: words.collect() })
    }
}

impl fmt::Display for KubeletCommand {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.program)?;
        self.words.iter().try_for_each(|word| write!(formatter, " {word}"))
    }
}

impl KubeletCommand {
    /// Whether a process may be this one, by its program and arguments.
    #[must_use]
    pub fn is(&self, process: &Process) -> bool {
        // Some programs write their title over their arguments, as one text with spaces.
        let mut words = process.arguments.iter().flat_map(|argument| argument.split_whitespace()).skip(1);
        !self.program.is_empty()
            && self.program == process.program
            && self.words.iter().all(|word| words.next() == Some(word))
    }
}

/// Device and inode of a process's namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Namespaces {
    /// Processes.
    pub pid: (u64, u64),
    /// Mounts.
    pub mnt: (u64, u64),
    /// Network.
    pub net: (u64, u64),
    /// Users.
    pub user: (u64, u64),
}

/// A process, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// When it was started, in ticks since the machine was: tells it from a later one of the same id.
    pub started: u64,
    /// All its users (real, effective, saved, of files) are root.
    pub is_root: bool,
    /// The name of its program's file, which only an `execve` of such a file sets.
    pub program: String,
    /// Its arguments, its own name first: what it says of itself.
    pub arguments: Vec<String>,
    /// Where it lives.
    pub namespaces: Namespaces,
}

/// Whether a process is the kubelet of the node whose own namespaces these are.
#[must_use]
pub fn is_kubelet(process: &Process, node: &Namespaces, commands: &[KubeletCommand]) -> bool {
    process.is_root && process.namespaces == *node && commands.iter().any(|command| command.is(process))
}

/// Why a question is not looked into.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NoQuestion {
    /// Not a pod that is here to be captured.
    #[error("the pod is not known here")]
    Pod,
    /// An address of somebody else.
    #[error("the target is no address of the pod")]
    Address,
    /// Where the kubelet has no business.
    #[error("the port is named by no probe and no hook of the pod")]
    Port,
}

/// Whether the kubelet calls there at all.
///
/// # Errors
/// [`NoQuestion`].
pub fn is_probed(pods: &[PodSpec], pod: &PodUid, target: SocketAddr) -> Result<(), NoQuestion> {
    let pod = pods.iter().find(|known| known.uid == *pod && known.enrolled).ok_or(NoQuestion::Pod)?;
    if !pod.addresses.contains(&target.ip().to_canonical()) {
        return Err(NoQuestion::Address);
    }
    if pod.probe_ports.contains(&target.port()) { Ok(()) } else { Err(NoQuestion::Port) }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const NODE: Namespaces = Namespaces { pid: (4, 1), mnt: (4, 2), net: (4, 3), user: (4, 4) };

    fn process(program: &str, arguments: &[&str]) -> Process {
        let arguments = arguments.iter().map(|text| (*text).to_owned()).collect();
        Process { pid: 7, started: 1, is_root: true, program: program.to_owned(), arguments, namespaces: NODE }
    }

    fn kubelet() -> Process {
        process("kubelet", &["/usr/bin/kubelet", "--config=x"])
    }

    #[rstest]
    #[case::itself(kubelet(), true)]
    #[case::another_program(process("curl", &["kubelet"]), false)]
    #[case::a_longer_name(process("kubelet-agent", &["kubelet"]), false)]
    #[case::another_user(Process { is_root: false, ..kubelet() }, false)]
    #[case::other_processes(Process { namespaces: Namespaces { pid: (4, 9), ..NODE }, ..kubelet() }, false)]
    #[case::a_container(Process { namespaces: Namespaces { mnt: (4, 9), ..NODE }, ..kubelet() }, false)]
    #[case::a_pod(Process { namespaces: Namespaces { net: (4, 9), ..NODE }, ..kubelet() }, false)]
    #[case::other_users(Process { namespaces: Namespaces { user: (4, 9), ..NODE }, ..kubelet() }, false)]
    #[case::other_device(Process { namespaces: Namespaces { user: (5, 4), ..NODE }, ..kubelet() }, false)]
    #[case::k3s(process("k3s", &["/usr/local/bin/k3s", "agent", "--x"]), true)]
    #[case::k3s_by_its_title(process("k3s", &["/usr/local/bin/k3s agent"]), true)]
    #[case::k3s_as_kubectl(process("k3s", &["kubectl", "get", "pods"]), false)]
    #[case::k3s_without_arguments(process("k3s", &[]), false)]
    #[case::no_program(process("", &[]), false)]
    fn who_is_the_kubelet(#[case] process: Process, #[case] expected: bool) {
        let commands = ["kubelet", "k3s agent", "", " "].map(|text| text.parse().unwrap());
        assert_eq!(is_kubelet(&process, &NODE, &commands), expected);
    }

    #[test]
    fn commands_are_shown_as_they_were_written() {
        for text in ["kubelet", "k3s agent"] {
            assert_eq!(text.parse::<KubeletCommand>().unwrap().to_string(), text);
        }
    }

    #[rstest]
    #[case::a_probe("cart", "10.0.0.2:8080", Ok(()))]
    #[case::v6("cart", "[fd00::2]:8080", Ok(()))]
    #[case::v4_as_v6("cart", "[::ffff:10.0.0.2]:8080", Ok(()))]
    #[case::another_port("cart", "10.0.0.2:80", Err(NoQuestion::Port))]
    #[case::another_address("cart", "10.0.0.3:8080", Err(NoQuestion::Address))]
    #[case::another_pod("web", "10.0.0.2:8080", Err(NoQuestion::Pod))]
    #[case::a_pod_that_is_not_selected("out", "10.0.0.9:8080", Err(NoQuestion::Pod))]
    fn where_the_kubelet_calls(#[case] pod: &str, #[case] target: &str, #[case] expected: Result<(), NoQuestion>) {
        let spec = |uid: &str, addresses: [&str; 2], enrolled| PodSpec {
            uid: uid.into(),
            name: uid.to_owned(),
            namespace: "shop".to_owned(),
            service_account: "default".to_owned(),
            addresses: addresses.map(|address| address.parse().unwrap()).into(),
            netns: None,
            strict: true,
            enrolled,
            probe_ports: [8080].into(),
        };
        let pods = [spec("cart", ["10.0.0.2", "fd00::2"], true), spec("out", ["10.0.0.9", "fd00::9"], false)];
        assert_eq!(is_probed(&pods, &pod.into(), target.parse().unwrap()), expected);
    }
}
