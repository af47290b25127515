//! The Unix socket between the two halves: one record per message, file descriptors beside it.
//!
//! The capture half is the server and keeps every listener open, so a proxy that dies refuses nobody: new connections
//! complete in the kernel's queue and wait for its successor. A conversation:
//!
//! ```text
//! proxy                                   capture
//! Hello{workers, node}          ->
//! Holds{uid, listeners} + fds   ->                                        (what it has from an earlier capture half)
//!                               <-        Pod{info, listeners} + fds      (every captured pod)
//! Ack{uid}                      ->
//!                               <-        SnapshotSent                    (what was not named until here is gone)
//! WantSockets{uid, family, n}   ->
//!                               <-        Sockets{uid, family} + fds
//!                               <-        Release{uid}                    (finish: report what is still relayed)
//! Relaying{uid, 0}              ->
//!                               <-        Remove{uid}
//!                               <-        Retire                          (a newer proxy has taken every pod)
//! ```

mod channel;
pub mod client;
pub mod hub;
mod kept;
pub mod message;
pub mod server;
mod spare;

pub use channel::{Channel, ChannelError};
pub use client::{ClientError, Event, HandoverClient, HandoverHandle, WorkerListeners};
pub use message::{Condition, Family, Hello, ListenerRole, ListenerTag, MessageError, PodInfo, ToCapture, ToProxy};

#[cfg(test)]
mod tests;
