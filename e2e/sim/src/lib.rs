//! A deterministic simulation of control plane, agents and capture: one thread, no clock, no network, one seed.
//!
//! The parts that decide are the real ones: the YAML store, the translation, the catalog, the order of a stream
//! (`Conversation`), both ends of delta discovery, the mesh index, `decide`, `admit`, the roster of pods, the course of
//! joining and leaving, the rules of every phase, what of them deviates and what repairs it. What does I/O around them
//! (sockets, processes, timers, the kernel) is replaced by [`world`], which loses messages, kills processes and lets
//! everything happen in any order. After each step [`check`] holds the promises:
//!
//! 1. no plaintext leaves or enters a selected pod past the mesh,
//! 2. nothing is permitted that no version of the policies between "last acknowledged" and "now" permits,
//! 3. what an agent has acknowledged is in force in it.
//!
//! and at the end, when all faults are healed, everything must agree with what is written.
//!
//! | module | what |
//! |---|---|
//! | [`truth`] | the cluster as it is written, every version of it |
//! | [`server`], [`agent`], [`capture`] | the processes: what each loses when it is killed |
//! | [`kernel`] | one pod's packet filter: rules, guard and route |
//! | [`iptables`], [`nft`], [`packet`] | their texts, taken in and read rule by rule as the kernel does |
//! | [`hand`] | what somebody does to them by hand |
//! | [`world`] | all of it, and the steps it can take |
//! | [`check`], [`healed`] | the promises |
//! | [`plant`] | faults that it must find |
//! | [`run`] | one seed from start to end |

pub mod agent;
pub mod capture;
pub mod check;
pub mod hand;
pub mod healed;
pub mod iptables;
pub mod kernel;
pub mod nft;
pub mod packet;
pub mod plant;
pub mod run;
pub mod server;
pub mod truth;
pub mod world;
