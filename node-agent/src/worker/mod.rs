//! The data path's home: one worker thread, what its tasks share, and how connections are accepted, kept and ended.
//!
//! | file | what |
//! |---|---|
//! | [`run`] | the worker: obeys the control thread, accepts, re-checks, drains |
//! | [`shard`] | what one worker owns: everything else here, for its tasks |
//! | [`accept`] | the accept loop of one listener |
//! | [`load`] | how busy each worker is, and which one takes a tunnel |
//! | [`gate`], [`limits`], [`pod_load`], [`set_up`] | whom it lets in: what pods and peers may hold, and what they hold now |
//! | [`descriptors`], [`reserve`] | how many there may be; for the moment when there are none |
//! | [`connections`], [`recheck`] | the table of live connections; which of them a change concerns |
//! | [`turns`] | which connections relay now: a crowd leaves time to its neighbours |
//! | [`steps`] | setting up and relaying, each in room of its own |
//! | [`sockets`] | dial sockets from inside the pods, and the options of every socket |
//! | [`credentials`], [`tunnels`] | TLS configurations; how the pool gets its encrypted connections |
//! | [`lifetimes`] | until when those take new tunnels |
//! | [`served`], [`own`], [`gateway`], [`address`] | a pod as it is served; who it is in the mesh |
//! | [`health`] | endpoints, peers and nodes that are left out for a while |
//! | [`failure`], [`describe`] | a refusal and its reason; words for baggage |
//!
//! The two directions, [`crate::outbound`] and [`crate::inbound`], stand on it.

pub mod accept;
pub mod address;
pub mod connections;
pub mod credentials;
pub mod describe;
pub mod descriptors;
pub mod failure;
pub mod gate;
pub mod gateway;
pub mod health;
pub mod lifetimes;
pub mod limits;
pub mod load;
pub mod own;
pub mod pod_load;
pub mod recheck;
pub mod reserve;
pub mod run;
pub mod served;
pub mod set_up;
pub mod shard;
pub mod sockets;
pub mod steps;
pub mod tunnels;
pub mod turns;
