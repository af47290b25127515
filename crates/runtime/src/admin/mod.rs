//! The HTTP pages of a running program: for probes, for Prometheus, for `weft` and for a person with curl. The parts of a
//! program register what they have to show ([`Admin`]); this module knows none of them.
//!
//! | path | answer |
//! |---|---|
//! | `GET /healthz/ready` | 200, or 500 with what is still pending |
//! | `GET /healthz/live` | 200 while the process can answer at all |
//! | `GET /metrics`, `/stats/prometheus` | OpenMetrics text |
//! | `GET /debug/sections` | names of the sections |
//! | `GET /debug/NAME` | one section as JSON |
//! | `GET /config_dump` | all sections as one JSON object |
//! | `POST /NAME` | an action, as in `/quitquitquit` or `/logging?level=debug` |
//!
//! Only `/healthz` and `/metrics` are meant for other machines: [`Exposure::Observers`]. The rest belongs on loopback.

mod catalogue;
mod guarded;
mod serve;
#[cfg(test)]
mod tests;

pub use catalogue::{ActionError, ActionRequest, Admin};
pub use serve::{BindError, Exposure, bind};
