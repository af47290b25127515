//! What every Weft program needs to start, run and end in order.
//!
//! Line 0 of the layers: uses no crate of ours, and everything above may use it. It is the home of the async runtime's
//! set-up; it knows nothing about the mesh.
//!
//! | module | gives |
//! |---|---|
//! | [`shared`] | state with one writer and many readers that never wait |
//! | [`drain`] | ending in order: tell everybody, wait to a deadline, then force |
//! | [`readiness`] | what a program still waits for before it may be used |
//! | [`admin`] | the HTTP pages for people, probes and Prometheus |
//! | [`metrics`] | the registry (the metrics themselves live beside the code they count) |
//! | [`logging`] | log lines as text or JSON, the filter changeable while running; `lossy`: the writer that never waits |
//! | [`failure`] | the last words of a program that could not go on |
//! | [`budget`] | bytes that many tasks hold together, bounded |
//! | [`quota`] | how often each of many may do something |
//! | [`places`] | how many connections strangers may hold, in all and per address |
//! | [`backoff`] | how long to wait before trying again |
//! | [`threads`] | named OS threads, each with its own single-threaded runtime |
//! | [`signals`] | SIGTERM and SIGINT as a value |

pub mod admin;
pub mod backoff;
pub mod budget;
pub mod drain;
pub mod failure;
pub mod logging;
mod lossy;
pub mod metrics;
pub mod places;
pub mod quota;
pub mod readiness;
pub mod shared;
pub mod signals;
pub mod threads;
