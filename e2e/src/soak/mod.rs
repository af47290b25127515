//! The soak: two nodes with the real programs, traffic that is checked all the time, and faults at random moments from a
//! seed. A run is repeated by its seed: the same faults in the same order at the same times.
//!
//! | file | what |
//! |---|---|
//! | [`schedule`] | from a seed to the list of faults; pure |
//! | [`stage`] | nodes, pods, programs, and a look at the wire |
//! | [`traffic`] | the callers, and what they have counted |
//! | [`inflict`] | one fault, and its end |
//! | [`crowd`] | many connections, and abuse, on a fresh mesh |
//! | [`hall`] | the pods of that |
//! | [`herd`] | many connections of one pod, in a process of their own |
//! | [`neighbour`] | what a pod feels of another one that floods |
//! | [`run`] | the whole, and the verdict |

mod crowd;
pub mod flags;
mod hall;
mod herd;
mod inflict;
mod neighbour;
pub mod run;
pub mod schedule;
mod stage;
mod traffic;

pub use flags::SoakFlags;
pub use run::run;
