//! Asking a running program for one of its admin sections.

use std::time::Duration;

use anyhow::{Context, anyhow};
use serde::de::DeserializeOwned;

/// Longer than the five seconds after which a stuck section answers with an error of its own.
const TIMEOUT: Duration = Duration::from_secs(8);

/// Fetches `/debug/SECTION` from the program at `address`.
///
/// # Errors
/// Names the address and what to try when the program does not answer, lacks the section, or answers something else.
pub fn section<T: DeserializeOwned>(address: &str, section: &str) -> anyhow::Result<T> {
    let url = format!("http://{address}/debug/{section}");
    let config = ureq::Agent::config_builder().timeout_global(Some(TIMEOUT)).http_status_as_error(false).build();
    let mut response = ureq::Agent::new_with_config(config).get(&url).call().map_err(|error| {
        anyhow!(
            "no answer from {address}: {error}\n  Is the agent or server running there? Name another one with --admin HOST:PORT \
             (agents: 127.0.0.1:15000, server: 127.0.0.1:15014)."
        )
    })?;
    let status = response.status();
    let body = response.body_mut().read_to_string().with_context(|| format!("cannot read the answer of {url}"))?;
    if status.as_u16() == 404 {
        return Err(anyhow!(
            "the program at {address} has no '{section}'\n  Agents know connections and certs; servers do not. `weft config` says which one it is."
        ));
    }
    if !status.is_success() {
        return Err(anyhow!("{url} answered {status}: {}", body.trim()));
    }
    serde_json::from_str(&body)
        .with_context(|| format!("{url} answered something else than expected; are both of one version?"))
}
