//! The control thread of the proxy half: the stream from the control plane, certificates, reports, admin pages, and the
//! wiring of all of it to the data workers. Nothing here touches a connection.
//!
//! | file | does |
//! |---|---|
//! | `proxy_half` | makes every part, joins them, ends them in order: begin here |
//! | `plane`, `resolve`, `trust` | how the control plane is reached; names to addresses; what follows when it or its roots are new |
//! | `certificates`, `report` | which certificates are needed; which pods accept tunnels |
//! | `parting` | when a half that is told to end may leave its pods |
//! | `pages`, `sections` | the admin listeners; what `weft` reads there |
//! | `metrics`, `condition`, `ejections` | metrics of the control plane, of the capture half, of what is left out |

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
