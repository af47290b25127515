//! Asking a running program for one of its admin sections.

use std::time::Duration;

use anyhow::{Context, anyhow};
use serde::de::DeserializeOwned;

/// Longer than the five seconds after which a stuck section answers with an error of its own.
const TIMEOUT: Duration = Duration::from_secs(8);

/// Reads `HOST:PORT`, with an IPv6 address in brackets.
///
/// # Errors
/// Anything else, with an example.
pub fn parse_address(text: &str) -> Result<String, String> {
    let host_and_port = text.rsplit_once(':').filter(|(host, port)| {
        let bracketed = host.starts_with('[') && host.ends_with(']');
        !host.is_empty() && (bracketed || !host.contains([':', '[', ']', '/'])) && port.parse::<u16>().is_ok()
    });
    match host_and_port {
        Some(_) => Ok(text.to_owned()),
        None => Err("expected HOST:PORT, for example 127.0.0.1:15000 or [fd00::1]:15014".to_owned()),
    }
}

/// Fetches `/debug/SECTION` from the program at `address`.
///
/// # Errors
/// Names the address and what to try when the program does not answer, lacks the section, or answers something else.
pub fn section<T: DeserializeOwned>(address: &str, section: &str) -> anyhow::Result<T> {
    let url = format!("http://{address}/debug/{section}");
    let config = ureq::Agent::config_builder().timeout_global(Some(TIMEOUT)).http_status_as_error(false).build();
    let mut response = ureq::Agent::new_with_config(config).get(&url).call().map_err(|error| {
        let why = match error {
            ureq::Error::Io(error) => error.to_string(),
            other => other.to_string(),
        };
        anyhow!(
            "no answer from {address}: {why}\n  Is the agent or server running there? Name another one with --admin HOST:PORT \
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

#[cfg(test)]
mod tests {
    use super::parse_address;

    #[test]
    fn addresses_have_a_port() {
        for good in ["127.0.0.1:15000", "[::1]:1", "server.weft-system:15014"] {
            assert_eq!(parse_address(good).as_deref(), Ok(good));
        }
        for bad in ["", "host", "::1:15000", "[::1:5", "host:port", "http://host:1", ":1"] {
            assert!(parse_address(bad).is_err(), "{bad}");
        }
    }
}
