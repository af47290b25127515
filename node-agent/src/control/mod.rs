//! The control thread of the proxy half: the stream from the control plane, certificates, reports, admin pages, and the
//! wiring of all of it to the data workers. Nothing here touches a connection.

mod certificates;
mod condition;
mod ejections;
mod metrics;
mod pages;
mod parting;
mod plane;
mod proxy_half;
mod report;
mod resolve;
mod sections;
mod trust;

pub use certificates::Certificates;
pub use plane::ControlPlane;
pub use proxy_half::run_proxy;
