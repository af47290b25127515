//! Rules, routes and sockets of the capture half in real network namespaces: as root, and as an ordinary user in a user
//! namespace (`WEFT_NETNS=user`). What is not possible here says SKIPPED.

#![expect(clippy::unwrap_used, reason = "test equipment outside of #[test] functions: a failure is the test's")]

mod equipment;
mod failure;
mod half;
mod half_dead;
mod lives;
mod older;
mod ports;
mod remembered;
mod repair;
mod replace;
mod rules;
mod scene;
mod traffic;
mod transitions;
