//! The capture half's end of the socket: lets proxies in, and carries messages of each conversation in tasks of its own,
//! so that a slow proxy blocks nobody.

use std::{
    fs, io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{FileTypeExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use thiserror::Error;
use tokio::{net::UnixListener, sync::mpsc, task::JoinSet, time::timeout};

use super::{
    channel::{Channel, ChannelError},
    hub::{Outgoing, SessionId},
    message::{ListenerTag, ToCapture},
};
use crate::pods::PodUid;

/// Messages that wait for one proxy: some for each of the 250 pods of a node. A proxy that is further behind is ended and
/// gets a fresh snapshot when it comes back.
pub const QUEUE: usize = 2048;

/// A proxy whose control thread reads nothing for this long is stuck.
const STUCK: Duration = Duration::from_secs(30);

/// Who may connect, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandoverSettings {
    /// Socket file.
    pub path: PathBuf,
    /// Its permissions, such as 0o660.
    pub mode: u32,
    /// Its owner and group, if they are to be changed (needs CAP_CHOWN unless they are our own).
    pub owner: Option<(u32, u32)>,
    /// Users whose proxies are let in, by the kernel's word (SO_PEERCRED).
    pub allowed: Vec<u32>,
}

/// Why the socket file cannot be made.
#[derive(Debug, Error)]
pub enum BindError {
    /// Another capture half is alive.
    #[error("{0} is in use: another `weft-node-agent capture` runs on this node")]
    InUse(PathBuf),
    /// Something else lies there.
    #[error("{0} exists and is no socket: remove it, or choose another --handover path")]
    NotASocket(PathBuf),
    /// The kernel refused.
    #[error("cannot make the handover socket {path}: {source}; run as root, or choose another --handover path")]
    Io {
        /// Where.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

/// What happens at the socket.
#[derive(Debug)]
pub enum FromProxy {
    /// A proxy is there; what is put into the queue is sent to it, dropping the queue ends the conversation.
    Connected(SessionId, mpsc::Sender<Outgoing>),
    /// It said something.
    Said(SessionId, ToCapture),
    /// It has listeners of a pod from an earlier life of this half.
    Holds(SessionId, PodUid, Vec<(ListenerTag, OwnedFd)>),
    /// It is gone, and why.
    Gone(SessionId, ChannelError),
}

/// A bound socket file, removed when dropped.
#[derive(Debug)]
pub struct HandoverServer {
    listener: UnixListener,
    settings: HandoverSettings,
    _lock: fs::File,
}

impl HandoverServer {
    /// Makes the socket file, and one beside it (`.lock`) that says that we live. A stale socket is replaced.
    ///
    /// # Errors
    /// [`BindError`].
    pub fn bind(settings: HandoverSettings) -> Result<Self, BindError> {
        let path = &settings.path;
        let failed = |source: io::Error| BindError::Io { path: path.clone(), source };
        let lock = lock(path)?;
        clear_stale(path)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None);
        let socket: OwnedFd = socket.map_err(|error| failed(error.into()))?;
        let address = SocketAddrUnix::new(path).map_err(|error| failed(error.into()))?;
        rustix::net::bind(&socket, &address).map_err(|error| failed(error.into()))?;
        // Nobody can connect before listen, so permissions are right from the first moment.
        set_access(&settings).map_err(failed)?;
        rustix::net::listen(&socket, 16).map_err(|error| failed(error.into()))?;
        let listener = UnixListener::from_std(socket.into()).map_err(failed)?;
        Ok(Self { listener, settings, _lock: lock })
    }

    /// Lets proxies in until dropped; ends when nobody reads `events` any more.
    pub async fn serve(self, events: mpsc::Sender<FromProxy>) {
        let mut sessions = JoinSet::new();
        let mut next: SessionId = 1;
        while !events.is_closed() {
            tokio::select! {
                accepted = self.listener.accept() => match accepted.and_then(|(stream, _)| self.admit(stream)) {
                    Ok(Some(channel)) => {
                        sessions.spawn(converse(next, channel, events.clone()));
                        next += 1;
                    }
                    Ok(None) => {}
                    Err(error) => {
                        // Out of descriptors, as a rule: do not spin.
                        tracing::warn!(%error, "cannot let a proxy in");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
                Some(_ended) = sessions.join_next() => {}
                () = events.closed() => {}
            }
        }
    }

    fn admit(&self, stream: tokio::net::UnixStream) -> io::Result<Option<Channel>> {
        let channel = Channel::new(OwnedFd::from(stream.into_std()?))?;
        let user = channel.peer_uid()?;
        if self.settings.allowed.contains(&user) {
            return Ok(Some(channel));
        }
        tracing::warn!(user, allowed = ?self.settings.allowed, "a process of a user that is not allowed connected as proxy");
        Ok(None)
    }
}

impl Drop for HandoverServer {
    fn drop(&mut self) {
        // A file that is left is recognised as stale by the next start.
        let _left = fs::remove_file(&self.settings.path);
    }
}

/// Whoever holds the lock is the capture half of this socket; the kernel lets go of it when its holder dies.
fn lock(path: &Path) -> Result<fs::File, BindError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let failed = |source: io::Error| BindError::Io { path: PathBuf::from(&name), source };
    let file = fs::File::options().create(true).truncate(false).write(true).open(&name).map_err(failed)?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(BindError::InUse(path.to_path_buf())),
        Err(error) => Err(failed(error.into())),
    }
}

/// What an earlier life left; the lock is ours, so nobody lives there.
fn clear_stale(path: &Path) -> Result<(), BindError> {
    let Ok(metadata) = fs::symlink_metadata(path) else { return Ok(()) };
    if !metadata.file_type().is_socket() {
        return Err(BindError::NotASocket(path.to_path_buf()));
    }
    fs::remove_file(path).map_err(|source| BindError::Io { path: path.to_path_buf(), source })
}

/// The proxy's user must be able to open the file. Without CAP_CHOWN everybody may, and the kernel's word about who
/// connected decides alone.
fn set_access(settings: &HandoverSettings) -> io::Result<()> {
    let mode = |mode| fs::set_permissions(&settings.path, fs::Permissions::from_mode(mode));
    mode(settings.mode)?;
    let Some((user, group)) = settings.owner else { return Ok(()) };
    match std::os::unix::fs::chown(&settings.path, Some(user), Some(group)) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            tracing::info!(
                user,
                "the handover socket cannot be given to the proxy's user; its peers are checked instead"
            );
            mode(0o666)
        }
        // A user that this user namespace does not know (user_namespaces(7)): the proxy cannot become it either.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
        outcome => outcome,
    }
}

/// Both directions of one conversation at once: neither waits for the other, so two full sockets cannot lock each other.
async fn converse(id: SessionId, channel: Channel, events: mpsc::Sender<FromProxy>) {
    let (queue, outgoing) = mpsc::channel(QUEUE);
    if events.send(FromProxy::Connected(id, queue)).await.is_err() {
        return;
    }
    let end = tokio::select! {
        end = read(id, &channel, &events) => end,
        end = write(&channel, outgoing) => end,
    };
    // The loop that would hear it may be gone, at the end of the program.
    let _unheard = events.send(FromProxy::Gone(id, end)).await;
}

async fn read(id: SessionId, channel: &Channel, events: &mpsc::Sender<FromProxy>) -> ChannelError {
    loop {
        match channel.receive::<ToCapture>().await {
            Ok((message, descriptors)) => {
                let event = match message {
                    ToCapture::Holds { listeners, .. } if listeners.len() != descriptors.len() => {
                        return ChannelError::DescriptorsLost;
                    }
                    ToCapture::Holds { uid, listeners } => {
                        FromProxy::Holds(id, uid, listeners.into_iter().zip(descriptors).collect())
                    }
                    // Beside anything else there are none that anybody wants.
                    message => FromProxy::Said(id, message),
                };
                if events.send(event).await.is_err() {
                    return ChannelError::Closed;
                }
            }
            Err(error) => return error,
        }
    }
}

async fn write(channel: &Channel, mut outgoing: mpsc::Receiver<Outgoing>) -> ChannelError {
    while let Some(Outgoing { message, descriptors }) = outgoing.recv().await {
        let borrowed: Vec<_> = descriptors.iter().map(|descriptor| descriptor.as_fd()).collect();
        match timeout(STUCK, channel.send(&message, &borrowed)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return error,
            Err(_elapsed) => return io::Error::new(io::ErrorKind::TimedOut, "the proxy reads nothing").into(),
        }
    }
    ChannelError::Closed
}

#[cfg(test)]
mod tests;
