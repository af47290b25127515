//! The whole mesh in network namespaces: the real programs on two nodes, what every connection meets, and what happens
//! when policy, pods or programs change.
//!
//! `world` builds nodes, pods and programs, `ask` puts questions to them, `checks` names what each `#[test]` proves. One
//! test starts one mesh and proves several things with it, each by its name; a failure lists every check that did not
//! hold, with the last words of the programs. The programs are those of this build (`make test` builds them first).

mod ask;
mod checks;
mod world;

mod control_plane;
mod endpoints;
mod ends;
mod enrol;
mod faults;
mod hostile;
mod kills;
mod limits;
mod mixed;
mod policy;
mod programs;
mod reach;
mod reboot;
mod show;
mod soak;
mod upgrade;
