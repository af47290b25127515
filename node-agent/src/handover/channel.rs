//! One end of the socket between the halves: whole records with descriptors, for tokio, without unsafe code.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use thiserror::Error;
use tokio::{io::Interest, net::UnixStream};

use super::message::{self, MAX_DESCRIPTORS, MAX_RECORD, Message, MessageError};

/// Why a connection between the halves ended.
#[derive(Debug, Error)]
pub enum ChannelError {
    /// The kernel refused.
    #[error("handover socket: {0}")]
    Io(#[from] io::Error),
    /// The halves do not understand each other.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// The other half went away.
    #[error("the other half closed the handover socket")]
    Closed,
    /// The kernel dropped descriptors: this process may open no more files.
    #[error("descriptors were lost on the way: raise the limit of open files (ulimit -n) of this process")]
    DescriptorsLost,
}

/// A connected SOCK_SEQPACKET socket: every send is one record, every receive takes one whole.
#[derive(Debug)]
pub struct Channel {
    /// Tokio's stream type only watches the descriptor here; every byte goes through `sendmsg` and `recvmsg`.
    socket: UnixStream,
}

impl Channel {
    /// Takes a connected socket. Must be called inside a tokio runtime with I/O.
    ///
    /// # Errors
    /// When the runtime cannot watch it.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(Self { socket: UnixStream::from_std(socket.into())? })
    }

    /// Connects to the socket file of the capture half.
    ///
    /// # Errors
    /// `NotFound` or `ConnectionRefused` while the capture half is not there; `PermissionDenied` by the file's mode.
    pub fn connect(path: &Path) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
        Self::new(socket)
    }

    /// Two connected ends, as a test needs them.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub fn pair() -> io::Result<(Self, Self)> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (one, other) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        Ok((Self::new(one)?, Self::new(other)?))
    }

    /// User id of the process at the other end, as the kernel knows it.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn peer_uid(&self) -> io::Result<u32> {
        Ok(self.socket.peer_cred()?.uid())
    }

    /// Sends one message; waits while the other end is full.
    ///
    /// # Errors
    /// [`ChannelError::Closed`] when the other half is gone.
    pub async fn send<M: Message>(&self, message: &M, descriptors: &[BorrowedFd<'_>]) -> Result<(), ChannelError> {
        let record = message::encode(message)?;
        if descriptors.len() > MAX_DESCRIPTORS {
            return Err(MessageError::OutOfRange("too many descriptors beside one record").into());
        }
        let sent = self.socket.async_io(Interest::WRITABLE, || send_record(&self.socket, &record, descriptors)).await;
        sent.map_err(from_kernel)
    }

    /// Receives one message and its descriptors. Cancel-safe: a record is taken whole or not at all.
    ///
    /// # Errors
    /// [`ChannelError::Closed`] at the orderly end; anything else means that the connection is of no more use.
    pub async fn receive<M: Message>(&self) -> Result<(M, Vec<OwnedFd>), ChannelError> {
        let Arrived { message, descriptors, lost } = self.receive_what_came(|| {}).await?;
        if lost { Err(ChannelError::DescriptorsLost) } else { Ok((message, descriptors)) }
    }

    /// As [`Self::receive`], for whoever can go on without descriptors that were lost. `make_room` is called right before the
    /// kernel hands them over.
    ///
    /// # Errors
    /// As [`Self::receive`], but for [`ChannelError::DescriptorsLost`].
    pub async fn receive_what_came<M: Message>(&self, mut make_room: impl FnMut()) -> Result<Arrived<M>, ChannelError> {
        let received = self.socket.async_io(Interest::READABLE, || {
            make_room();
            receive_record(&self.socket)
        });
        let (record, descriptors, lost) = received.await.map_err(from_kernel)?.into_parts()?;
        Ok(Arrived { message: message::decode(&record)?, descriptors, lost })
    }
}

/// A message, and what the kernel could hand over of the descriptors beside it.
#[derive(Debug)]
pub struct Arrived<M> {
    /// Whole.
    pub message: M,
    /// The first ones of those that were sent.
    pub descriptors: Vec<OwnedFd>,
    /// There were more: this process may open no more files.
    pub lost: bool,
}

/// A record as the kernel gave it, with what it says about losses.
struct Received {
    record: Vec<u8>,
    descriptors: Vec<OwnedFd>,
    flags: ReturnFlags,
}

impl Received {
    fn into_parts(self) -> Result<(Vec<u8>, Vec<OwnedFd>, bool), ChannelError> {
        if self.flags.contains(ReturnFlags::TRUNC) {
            Err(MessageError::TooLong(self.record.len()).into())
        } else if self.record.is_empty() {
            Err(ChannelError::Closed)
        } else {
            Ok((self.record, self.descriptors, self.flags.contains(ReturnFlags::CTRUNC)))
        }
    }
}

fn send_record(socket: &UnixStream, record: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        let fits = ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
        debug_assert!(fits, "the space is for MAX_DESCRIPTORS");
    }
    rustix::net::sendmsg(socket, &[IoSlice::new(record)], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

fn receive_record(socket: &UnixStream) -> io::Result<Received> {
    let mut record = vec![0; MAX_RECORD];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received =
        rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut record)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    record.truncate(received.bytes);
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    Ok(Received { record, descriptors, flags: received.flags })
}

fn from_kernel(error: io::Error) -> ChannelError {
    match error.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::NotConnected => {
            ChannelError::Closed
        }
        _ => ChannelError::Io(error),
    }
}
