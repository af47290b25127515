//! When endpoints are left out, and for how long.

use std::time::Duration;

use clap::Args;
use weft_model::ejection::EjectionSettings;

/// When endpoints are left out, and for how long.
#[derive(Debug, Clone, Args)]
pub struct EjectionOptions {
    /// Connections in a row that an endpoint fails before it is left out for a while.
    #[arg(long, default_value_t = EjectionSettings::default().failures, value_parser = clap::value_parser!(u32).range(1..), value_name = "COUNT")]
    pub ejection_failures: u32,
    /// How long an endpoint is left out for the first time; each further time twice as long, up to a minute (or this, if longer).
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration, value_name = "DURATION")]
    pub ejection_time: Duration,
    /// The most of a service's endpoints that their failures may leave out, in percent; the last one never is. 0: none.
    #[arg(long, default_value_t = EjectionSettings::default().share, value_parser = clap::value_parser!(u32).range(0..=100), value_name = "PERCENT")]
    pub ejection_share: u32,
}

impl EjectionOptions {
    /// The numbers in force.
    #[must_use]
    pub fn settings(&self) -> EjectionSettings {
        let usual = EjectionSettings::default();
        EjectionSettings {
            failures: self.ejection_failures,
            resets: usual.resets.max(self.ejection_failures),
            first: self.ejection_time,
            longest: usual.longest.max(self.ejection_time),
            share: self.ejection_share,
            ..usual
        }
    }
}
