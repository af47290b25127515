//! Looks for the owner of a connection: the kernel's sockets of the node, then the kubelet's descriptors.
//!
//! Nothing that was found is remembered but which processes are the kubelet, and each of them is looked at again for every question.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::owner::{KubeletCommand, Namespaces, Process, is_kubelet};
use super::process;
use crate::capture::connections;
use crate::capture::diag::{ESTABLISHED, TcpSocket};
use crate::capture::netns::own_addresses;
use crate::kubelet::Answer;

/// All processes are looked at no more often than this, while none of them is the kubelet: some 10 us each.
const SEARCH_AGAIN: Duration = Duration::from_secs(1);

/// The node's addresses are read no more often than this: with a hundred interfaces it takes a millisecond.
const ADDRESSES_AGAIN: Duration = Duration::from_secs(1);

/// The kubelet may close a TCP probe while its descriptors are read, and a descriptor is gone some microseconds before its
/// connection is: who is not found is looked for again.
const LOOKS: usize = 2;

const PROC: &str = "/proc";

/// Lives on a thread in the node's network namespace.
#[derive(Debug)]
pub(super) struct Lookout {
    commands: Vec<KubeletCommand>,
    proc: PathBuf,
    node: Namespaces,
    kernel: OwnedFd,
    addresses: (Option<Instant>, Vec<IpAddr>),
    kubelets: Vec<Process>,
    searched: Option<Instant>,
}

impl Lookout {
    /// For the node whose first process has this id. Must be called in the network namespace of the node.
    ///
    /// # Errors
    /// Without CAP_SYS_PTRACE.
    pub(super) fn new(node_process: u32, commands: Vec<KubeletCommand>) -> io::Result<Self> {
        let proc = PathBuf::from(PROC);
        Ok(Self {
            node: process::namespaces(&proc.join(node_process.to_string()))?,
            kernel: connections::open()?,
            commands,
            proc,
            addresses: (None, Vec::new()),
            kubelets: Vec::new(),
            searched: None,
        })
    }

    /// Whose the end at `client` of a connection to `target` is.
    ///
    /// # Errors
    /// The kernel does not say.
    pub(super) fn look(&mut self, client: SocketAddr, target: SocketAddr) -> io::Result<Answer> {
        let mut found = self.find_open(client, target)?;
        if !self.is_own(client.ip()) {
            return Ok(Answer::Other { detail: None });
        }
        if let Some(socket) = found.as_ref().filter(|socket| socket.uid != 0) {
            return Ok(Answer::other(format!("not a probe: of user {} on this node", socket.uid)));
        }
        for _ in 0..LOOKS {
            let Some(socket) = found else { return Ok(Answer::Gone) };
            self.find_kubelets();
            if self.kubelets.is_empty() {
                let commands: Vec<String> = self.commands.iter().map(ToString::to_string).collect();
                let commands = commands.join(", ");
                return Ok(Answer::other(format!("no process of this node is the kubelet, by --kubelet ({commands})")));
            }
            if self.is_the_kubelets(&socket) {
                return Ok(Answer::Kubelet);
            }
            found = self.find_open(client, target)?.filter(|again| again.cookie() == socket.cookie());
        }
        Ok(if found.is_none() { Answer::Gone } else { Answer::other("not a probe: of another process of this node") })
    }

    /// The end at `client`, while a process has it open.
    fn find_open(&self, client: SocketAddr, target: SocketAddr) -> io::Result<Option<TcpSocket>> {
        let found = connections::find(&self.kernel, client, target)?;
        Ok(found.filter(|socket| socket.state == ESTABLISHED && socket.inode != 0))
    }

    fn is_the_kubelets(&self, socket: &TcpSocket) -> bool {
        let holds = |kubelet: &Process| process::holds(&self.proc, kubelet.pid, socket.inode).unwrap_or(false);
        // Looked at again: so it was this process all the time, and not one that got its number meanwhile.
        self.kubelets.iter().any(|kubelet| holds(kubelet) && self.is_still(kubelet))
    }

    /// Those that are known and still there; else all processes are looked at.
    fn find_kubelets(&mut self) {
        let mut known = std::mem::take(&mut self.kubelets);
        known.retain(|kubelet| self.is_still(kubelet));
        let rests = self.searched.is_some_and(|searched| searched.elapsed() < SEARCH_AGAIN);
        if known.is_empty() && !rests {
            self.searched = Some(Instant::now());
            let processes = process::all(&self.proc).filter_map(|pid| process::read(&self.proc, pid).ok());
            known.extend(processes.filter(|process| is_kubelet(process, &self.node, &self.commands)));
            let pids: Vec<u32> = known.iter().map(|kubelet| kubelet.pid).collect();
            tracing::debug!(?pids, "looked for the kubelet");
        }
        self.kubelets = known;
    }

    fn is_still(&self, kubelet: &Process) -> bool {
        let now = process::read(&self.proc, kubelet.pid);
        now.is_ok_and(|now| now.started == kubelet.started && is_kubelet(&now, &self.node, &self.commands))
    }

    /// An address of the node. The kernel's list of sockets alone would do for the kubelet; this tells strangers from callers of the
    /// node that have closed already.
    fn is_own(&mut self, address: IpAddr) -> bool {
        let (read, addresses) = &mut self.addresses;
        if !addresses.contains(&address) && read.is_none_or(|read| read.elapsed() >= ADDRESSES_AGAIN) {
            *addresses = own_addresses();
            *read = Some(Instant::now());
        }
        addresses.contains(&address)
    }
}

/// The directory of a process.
pub(super) fn directory(pid: u32) -> PathBuf {
    Path::new(PROC).join(pid.to_string())
}
