//! A pod's network namespace: opened by name or path, verified, and a thread that lives inside it.
//!
//! `setns` changes the calling thread only, so it never happens on a runtime's thread: each captured pod has one thread
//! of its own, and everything that must happen inside (programs, netlink, sockets) is a closure sent to it. A pod whose
//! work is slow delays nobody else.

use std::{
    fs::File,
    io,
    net::IpAddr,
    os::{fd::AsRawFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
};

use nix::{
    sched::{CloneFlags, setns, unshare},
    sys::{socket::SockaddrStorage, statfs},
};
use rustix::fs::{Mode, OFlags};
use thiserror::Error;
use tokio::sync::oneshot;

/// Where `ip netns` and most CNI runtimes keep names.
const RUN_NETNS: &str = "/run/netns";

/// Stack of a pod's thread: it runs programs and netlink, no deep recursion; untouched pages cost nothing.
const STACK: usize = 512 * 1024;

/// Why a namespace is not entered.
#[derive(Debug, Error)]
pub enum NetnsError {
    /// Not a name and not an absolute path.
    #[error("network namespace {0:?} is neither a name under {RUN_NETNS} nor an absolute path")]
    BadName(String),
    /// It cannot be opened.
    #[error("cannot open network namespace {path}: {source}")]
    Open {
        /// What was tried.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A file that is no namespace, or not a network namespace.
    #[error("{0} is not a network namespace")]
    NotNetns(PathBuf),
    /// Capturing the host would take the whole node's traffic.
    #[error(
        "{0} is the network namespace of the host or of this program, not a pod's (host network is never captured)"
    )]
    Host(PathBuf),
    /// Nothing to tell the pod's namespace from another pod's by.
    #[error(
        "{0} is not entered before the pod has an address: an annotation alone does not prove whose namespace it is"
    )]
    Unproven(PathBuf),
    /// Somebody else's namespace: a stale name, or a wrong annotation.
    #[error("{path} holds none of the pod's addresses {addresses:?}: a stale name, or another pod's namespace")]
    WrongPod {
        /// What was opened.
        path: PathBuf,
        /// What the pod should have.
        addresses: Vec<IpAddr>,
    },
    /// `setns` or `unshare` refused.
    #[error("cannot enter the network namespace {path}: {source}; run as root or with CAP_SYS_ADMIN and CAP_NET_ADMIN")]
    Enter {
        /// What was opened.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The thread could not be started.
    #[error("cannot start a thread for {path}: {source}")]
    Thread {
        /// For which namespace.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The thread ended: a closure panicked.
    #[error("the thread inside the network namespace ended")]
    Ended,
}

/// The file of a namespace given by name or absolute path.
///
/// # Errors
/// [`NetnsError::BadName`].
pub fn resolve(name: &str) -> Result<PathBuf, NetnsError> {
    if name.starts_with('/') && !name.contains('\0') {
        return Ok(PathBuf::from(name));
    }
    if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
        return Err(NetnsError::BadName(name.to_owned()));
    }
    Ok(Path::new(RUN_NETNS).join(name))
}

/// An open network namespace that is not the host's.
#[derive(Debug)]
pub struct Netns {
    file: File,
    path: PathBuf,
    inode: u64,
}

impl Netns {
    /// Opens and checks; does not enter.
    ///
    /// # Errors
    /// Every reason but those of entering.
    pub fn open(name: &str) -> Result<Self, NetnsError> {
        let path = resolve(name)?;
        let open = |source| NetnsError::Open { path: path.clone(), source };
        // The path comes from an annotation. Looked at before it is opened: opening a pipe waits for its writer for ever,
        // and opening a device may do anything.
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let found = rustix::fs::open(&path, flags, Mode::empty()).map_err(|error| open(error.into()))?;
        let kind = statfs::fstatfs(&found).map_err(|error| open(error.into()))?.filesystem_type();
        if kind != statfs::NSFS_MAGIC {
            return Err(NetnsError::NotNetns(path));
        }
        // The same inode, wherever the path leads by now.
        let file = File::open(format!("/proc/self/fd/{}", found.as_raw_fd())).map_err(open)?;
        let identity = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
        let this = identity(file.metadata().map_err(open)?);
        for host in ["/proc/self/ns/net", "/proc/1/ns/net"] {
            // Process 1 is not readable without CAP_SYS_PTRACE; our own namespace always is.
            if std::fs::metadata(host).map(identity).is_ok_and(|host| host == this) {
                return Err(NetnsError::Host(path));
            }
        }
        Ok(Self { file, path, inode: this.1 })
    }

    /// Tells one life of a name from the next.
    #[must_use]
    pub fn inode(&self) -> u64 {
        self.inode
    }

    /// Starts the thread inside, after verifying that one of `addresses` is there.
    ///
    /// # Errors
    /// Entering failed, [`NetnsError::WrongPod`], or [`NetnsError::Unproven`] when no address is given: whoever is taken
    /// for the owner of a namespace gets its traffic and speaks in the owner's name.
    pub async fn start_thread(self, addresses: Vec<IpAddr>) -> Result<NetnsThread, NetnsError> {
        let path = self.path.clone();
        if addresses.is_empty() {
            return Err(NetnsError::Unproven(path));
        }
        let thread = start("pod", &path, move || self.enter())?;
        let found = thread.run(own_addresses).await?;
        if !addresses.iter().any(|address| found.contains(address)) {
            return Err(NetnsError::WrongPod { path, addresses });
        }
        Ok(thread)
    }

    fn enter(&self) -> Result<(), NetnsError> {
        setns(&self.file, CloneFlags::CLONE_NEWNET).map_err(|error| match error {
            nix::Error::EINVAL => NetnsError::NotNetns(self.path.clone()),
            error => NetnsError::Enter { path: self.path.clone(), source: error.into() },
        })
    }
}

type Work = Box<dyn FnOnce() + Send>;

/// A thread inside a namespace. Dropping the last handle lets the thread finish what it does and end.
#[derive(Clone, Debug)]
pub struct NetnsThread {
    work: mpsc::Sender<Work>,
}

impl NetnsThread {
    /// A thread in a fresh namespace that nobody else is in: to try things out.
    ///
    /// # Errors
    /// Without CAP_SYS_ADMIN.
    pub fn in_private_namespace() -> Result<Self, NetnsError> {
        let path = PathBuf::from("made for trials");
        start("probe", &path.clone(), move || {
            unshare(CloneFlags::CLONE_NEWNET).map_err(|error| NetnsError::Enter { path, source: error.into() })
        })
    }

    /// A thread in the network namespace of the node: that of the process whose directory in /proc this is.
    ///
    /// # Errors
    /// Without CAP_SYS_PTRACE and CAP_SYS_ADMIN.
    pub(super) fn of_node(process: &Path) -> Result<Self, NetnsError> {
        let path = process.join("ns/net");
        let file = File::open(&path).map_err(|source| NetnsError::Open { path: path.clone(), source })?;
        start("node", &path.clone(), move || {
            setns(&file, CloneFlags::CLONE_NEWNET).map_err(|error| NetnsError::Enter { path, source: error.into() })
        })
    }

    /// Runs `work` inside and waits for it; works of one thread run one after the other.
    ///
    /// # Errors
    /// [`NetnsError::Ended`] when the work panicked, now or earlier.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, NetnsError> {
        let (answer, answered) = oneshot::channel();
        let work: Work = Box::new(move || {
            // Nobody waits any more: the result is of no use then.
            let _unwanted = answer.send(work());
        });
        self.work.send(work).map_err(|_| NetnsError::Ended)?;
        answered.await.map_err(|_| NetnsError::Ended)
    }
}

fn start(
    name: &str,
    path: &Path,
    enter: impl FnOnce() -> Result<(), NetnsError> + Send + 'static,
) -> Result<NetnsThread, NetnsError> {
    let (work, received) = mpsc::channel::<Work>();
    let (entered, has_entered) = mpsc::channel();
    let body = move || {
        let outcome = enter();
        let go_on = outcome.is_ok();
        if entered.send(outcome).is_ok() && go_on {
            received.into_iter().for_each(|work| work());
        }
    };
    let thread = thread::Builder::new().name(format!("netns-{name}")).stack_size(STACK).spawn(body);
    thread.map_err(|source| NetnsError::Thread { path: path.to_path_buf(), source })?;
    // Entering takes microseconds: waiting here keeps a thread that is in the wrong place from ever getting work.
    has_entered.recv().map_err(|_| NetnsError::Ended)??;
    Ok(NetnsThread { work })
}

/// The addresses of the calling thread's network namespace.
pub(super) fn own_addresses() -> Vec<IpAddr> {
    let Ok(interfaces) = nix::ifaddrs::getifaddrs() else { return Vec::new() };
    interfaces.filter_map(|interface| interface.address.as_ref().and_then(ip_of)).collect()
}

fn ip_of(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_paths() {
        assert_eq!(resolve("cart").unwrap(), Path::new("/run/netns/cart"));
        assert_eq!(resolve("/proc/7/ns/net").unwrap(), Path::new("/proc/7/ns/net"));
        for bad in ["", ".", "..", "../shadow", "a/b", "a\0b"] {
            assert!(matches!(resolve(bad), Err(NetnsError::BadName(_))), "{bad:?}");
        }
    }

    #[test]
    fn what_is_no_namespace_of_a_pod_is_refused() {
        assert!(matches!(Netns::open("/etc/hosts"), Err(NetnsError::NotNetns(_))));
        assert!(matches!(Netns::open("/proc/self/ns/net"), Err(NetnsError::Host(_))));
        assert!(matches!(Netns::open("weft-not-there"), Err(NetnsError::Open { .. })));
    }

    #[test]
    fn a_pipe_that_nobody_writes_to_stops_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let (answer, answered) = mpsc::channel();
        let name = pipe.to_str().unwrap().to_owned();
        thread::spawn(move || answer.send(Netns::open(&name)).unwrap());
        let outcome = answered.recv_timeout(std::time::Duration::from_secs(5)).expect("an answer at once");
        assert!(matches!(outcome, Err(NetnsError::NotNetns(_))));
    }
}
