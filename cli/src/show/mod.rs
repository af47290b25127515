//! The commands that show what a running agent or server has.

pub mod certificates;
pub mod config;
pub mod connections;
pub mod pods;
pub mod policies;
pub mod services;
