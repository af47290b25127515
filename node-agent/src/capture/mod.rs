//! The privileged half: rules, routes and sockets inside the network namespaces of the pods of this node.
//!
//! `reference/capture.md` is what this does and why.
//!
//! | module | does |
//! |---|---|
//! | [`mark`] | numbers that rules, routes and sockets share |
//! | [`rules`], [`ruleset`], [`compare`] | rules as values, which ones, what deviates (pure) |
//! | [`program`], [`routes`], [`install`] | put them into the kernel, read them back |
//! | [`netns`] | a thread inside a pod's namespace |
//! | [`diag`], [`connections`] | connections that are already there |
//! | [`socket`], [`batch`] | listeners and dial sockets |

pub mod batch;
pub mod compare;
pub mod connections;
pub mod diag;
pub mod install;
pub mod mark;
pub mod netns;
pub mod program;
pub mod routes;
pub mod rules;
pub mod ruleset;
pub mod socket;
