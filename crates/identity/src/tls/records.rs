//! TLS records without I/O: bytes of the wire in, bytes of the application out, and the other way round.
//!
//! rustls' unbuffered interface, because it opens any number of records of one large read where they lie. The buffered one
//! copies each record into a buffer of its own first, and reads at most one of them per system call: 15 times more calls than
//! needed under bulk load (`performance.md` section 4).

use rustls::CommonState;
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};

/// Most bytes that sealing adds to one record: header 5, content type 1, tag 16 (RFC 8446 section 5.2).
const RECORD_OVERHEAD: usize = 22;
/// Most plaintext in one record (same place).
const RECORD_PLAINTEXT: usize = 16 << 10;
/// Room for what rustls may want to say before the application's bytes: a key update or an alert.
const CONTROL_ROOM: usize = 256;

/// Bytes of room that sealing `plaintext` bytes needs.
pub(super) const fn sealed_room(plaintext: usize) -> usize {
    plaintext + (plaintext.div_ceil(RECORD_PLAINTEXT)) * RECORD_OVERHEAD + CONTROL_ROOM
}

/// One end of a connection as rustls keeps it: client or server.
pub trait Session: Advance {}

impl Session for UnbufferedClientConnection {}
impl Session for UnbufferedServerConnection {}

mod private {
    use rustls::CommonState;
    use rustls::unbuffered::UnbufferedStatus;

    /// What both ends have in common, and what rustls has no trait for.
    pub trait Advance {
        /// What only one end knows.
        type Data;
        /// Takes one step with what has arrived.
        fn advance<'c, 'i>(&'c mut self, arrived: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
        /// What is agreed with the peer.
        fn common(&self) -> &CommonState;
    }
}

pub(super) use private::Advance;

impl Advance for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn advance<'c, 'i>(&'c mut self, arrived: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(arrived)
    }

    fn common(&self) -> &CommonState {
        self
    }
}

impl Advance for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn advance<'c, 'i>(&'c mut self, arrived: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(arrived)
    }

    fn common(&self) -> &CommonState {
        self
    }
}

/// What a call of [`Records::open`] came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Opened {
    /// Bytes at the front of what arrived that are done with. The rest must come again, in front of what arrives next.
    pub(super) consumed: usize,
    /// The handshake is over: the application's bytes may be sealed.
    pub(super) established: bool,
}

/// The records of one connection.
pub(super) struct Records<C> {
    session: C,
    peer_closed: bool,
}

impl<C: Session> Records<C> {
    pub(super) fn new(session: C) -> Self {
        Self { session, peer_closed: false }
    }

    /// What is agreed with the peer.
    pub(super) fn common(&self) -> &CommonState {
        self.session.common()
    }

    /// Whether the peer has said in order that nothing more comes.
    pub(super) fn peer_closed(&self) -> bool {
        self.peer_closed
    }

    /// Opens every whole record of `arrived` and gives the application's bytes to `sink`, a record at a time. What must be sent to
    /// the peer (handshake, key updates, the alert that goes with an error) is added to `reply`.
    ///
    /// # Errors
    /// Those of rustls: the connection is of no more use, but `reply` should still be sent.
    pub(super) fn open(
        &mut self,
        arrived: &mut [u8],
        reply: &mut Vec<u8>,
        mut sink: impl FnMut(&[u8]),
    ) -> Result<Opened, rustls::Error> {
        let mut consumed = 0;
        loop {
            let UnbufferedStatus { mut discard, state, .. } = self.session.advance(&mut arrived[consumed..]);
            let established = match state? {
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        discard += record.discard;
                        sink(record.payload);
                    }
                    None
                }
                ConnectionState::EncodeTlsData(mut data) => {
                    append(reply, |room| data.encode(room).map_err(too_small_to_encode))?;
                    None
                }
                ConnectionState::TransmitTlsData(data) => {
                    // It is in `reply`, which the caller sends before anything else.
                    data.done();
                    None
                }
                ConnectionState::PeerClosed => {
                    self.peer_closed = true;
                    None
                }
                ConnectionState::BlockedHandshake => Some(false),
                ConnectionState::WriteTraffic(_) | ConnectionState::Closed => Some(true),
                other => return Err(unexpected(&other)),
            };
            consumed += discard;
            if let Some(established) = established {
                return Ok(Opened { consumed, established });
            }
        }
    }

    /// What rustls still has to say after an error of [`Self::open`]: the alert. Nothing else may be called after that: rustls does not
    /// expect to be asked on (it would say the alert twice, which it asserts that it does not).
    pub(super) fn last_words(&mut self, arrived: &mut [u8], reply: &mut Vec<u8>) {
        while self.session.common().wants_write()
            && let Ok(ConnectionState::EncodeTlsData(mut data)) = self.session.advance(arrived).state
            && append(reply, |room| data.encode(room).map_err(too_small_to_encode)).is_ok()
        {}
    }

    /// Seals `plaintext` into `room`, which has [`sealed_room`] for it; says how many bytes that made. `arrived` is the rest that
    /// [`Self::open`] left: rustls counts on finding it again.
    ///
    /// # Errors
    /// Those of rustls; also when the handshake is not over.
    pub(super) fn seal(
        &mut self,
        arrived: &mut [u8],
        plaintext: &[u8],
        room: &mut [u8],
    ) -> Result<usize, rustls::Error> {
        let mut written = 0;
        loop {
            match self.session.advance(arrived).state? {
                ConnectionState::WriteTraffic(mut traffic) => {
                    let sealed = traffic.encrypt(plaintext, &mut room[written..]).map_err(cannot_seal)?;
                    return Ok(written + sealed);
                }
                ConnectionState::EncodeTlsData(mut data) => {
                    written += data
                        .encode(&mut room[written..])
                        .map_err(|_| rustls::Error::General("no room for a TLS message of our own".to_owned()))?;
                }
                ConnectionState::TransmitTlsData(data) => data.done(),
                ConnectionState::PeerClosed => self.peer_closed = true,
                other => return Err(unexpected(&other)),
            }
        }
    }

    /// Says in order that nothing more comes. Nothing is written when that was said before.
    pub(super) fn close(&mut self, arrived: &mut [u8], reply: &mut Vec<u8>) -> Result<(), rustls::Error> {
        loop {
            match self.session.advance(arrived).state? {
                ConnectionState::WriteTraffic(mut traffic) => {
                    return append(reply, |room| {
                        traffic.queue_close_notify(room).map_err(|error| match error {
                            EncryptError::InsufficientSize(size) => Refused::TooSmall(size.required_size),
                            error => Refused::Error(cannot_seal(error)),
                        })
                    });
                }
                ConnectionState::EncodeTlsData(mut data) => {
                    append(reply, |room| data.encode(room).map_err(too_small_to_encode))?;
                }
                ConnectionState::TransmitTlsData(data) => data.done(),
                ConnectionState::PeerClosed => self.peer_closed = true,
                _ => return Ok(()),
            }
        }
    }
}

/// Why a message was not written.
enum Refused {
    /// It needs this much room.
    TooSmall(usize),
    Error(rustls::Error),
}

/// Lets `write` write behind `reply`, with as much room as it says that it needs.
fn append(
    reply: &mut Vec<u8>,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, Refused>,
) -> Result<(), rustls::Error> {
    let start = reply.len();
    let mut room = 0;
    loop {
        reply.resize(start + room, 0);
        match write(&mut reply[start..]) {
            Ok(written) => {
                reply.truncate(start + written);
                return Ok(());
            }
            Err(Refused::TooSmall(needed)) if needed > room => room = needed,
            Err(Refused::TooSmall(_)) => {
                return Err(rustls::Error::General("rustls asks for room that it has".to_owned()));
            }
            Err(Refused::Error(error)) => return Err(error),
        }
    }
}

fn too_small_to_encode(error: EncodeError) -> Refused {
    match error {
        EncodeError::InsufficientSize(size) => Refused::TooSmall(size.required_size),
        error @ EncodeError::AlreadyEncoded => Refused::Error(rustls::Error::General(error.to_string())),
    }
}

fn cannot_seal(error: EncryptError) -> rustls::Error {
    match error {
        EncryptError::EncryptExhausted => rustls::Error::EncryptError,
        error @ EncryptError::InsufficientSize(_) => rustls::Error::General(error.to_string()),
    }
}

fn unexpected<Data>(state: &ConnectionState<'_, '_, Data>) -> rustls::Error {
    rustls::Error::General(format!("TLS is in the unexpected state {state:?}"))
}
