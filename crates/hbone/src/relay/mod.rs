//! The relay: copies both ways between an application's socket and a tunnel, or between two sockets.
//!
//! ```text
//! app socket  --up-->   peer (tunnel, or the second socket)      one future, one task, both directions
//!             <-down--
//! ```
//! **Ends look like what they are.** FIN becomes END_STREAM and back, each direction by itself. A reset becomes a reset: of the
//! application, RST_STREAM CONNECT_ERROR (after what it said before has left); of the peer, a TCP RST. A cancelled, dropped or
//! killed relay is a reset on both sides, never a complete answer.
//!
//! For the last of these the caller calls [`reset_unless_orderly`] on every socket as soon as it has it (accepted or
//! connected): it sets SO_LINGER {1, 0}, so that any close is a RST, be it by a returned error, a dropped future or SIGKILL. The relay
//! clears it when, and only when, both directions ended in order.
//!
//! **Idle connections hold no buffer**, and busy ones copy little: what a socket says is read straight into the frames that go out, what
//! a tunnel says is written from where it waits, and between two sockets the worker's [`Buffers`] are borrowed for one turn.
//!
//! A later observer of the plaintext (HTTP metrics, `weft tap`) belongs into the three `Source::step`, where each piece passes once.

mod buffers;
mod end;
mod outcome;
mod pump;
mod run;
mod socket;
mod stream;

pub use buffers::Buffers;
pub use outcome::{RelayEnd, RelayOutcome, Side, Traffic};
pub use run::{relay_sockets, relay_tunnel};
pub use socket::reset_unless_orderly;
