//! The command line and environment: the only place where settings are read. Every default stands with its reason.

mod arguments;
mod control_plane;
mod ejection;
mod proxy;
#[cfg(test)]
mod tests;

pub use arguments::{Arguments, CommonOptions, Half, LogFormat, OneHalf};
pub use control_plane::{ControlPlaneOptions, Endpoint, KeyValue};
pub use ejection::EjectionOptions;
pub use proxy::ProxyOptions;
