//! `weft`: what a person types. Each subcommand lives in a module of its own.

pub mod arguments;
pub mod cluster;
pub mod format;
pub mod lint;
pub mod output;
pub mod programs;
pub mod progress;
pub mod show;
pub mod why;
