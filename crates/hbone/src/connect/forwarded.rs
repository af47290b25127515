//! `forwarded`: the client's address and the service that it asked for (RFC 7239 with two keys). Telemetry only.

use std::fmt;
use std::net::SocketAddr;

/// What a client's agent says about the connection that it captured.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forwarded {
    /// `for="ip:port"`: the application's own socket.
    pub client: Option<SocketAddr>,
    /// `host=name`: the service host name, when the original target was a service.
    pub host: Option<String>,
}

impl Forwarded {
    /// Reads what can be read of the first element; anything not ASCII is ignored. Never fails.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut forwarded = Self::default();
        if !text.is_ascii() {
            return forwarded;
        }
        for pair in text.split(',').next().unwrap_or_default().split(';') {
            let Some((key, value)) = pair.split_once('=') else { continue };
            let value = value.trim().trim_matches('"');
            if value.is_empty() {
                continue;
            }
            match key.trim().to_ascii_lowercase().as_str() {
                "for" => forwarded.client = value.parse().ok(),
                "host" => forwarded.host = Some(value.to_owned()),
                _ => {}
            }
        }
        forwarded
    }
}

impl fmt::Display for Forwarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        if let Some(client) = self.client {
            write!(f, "for=\"{client}\"")?;
            separator = ";";
        }
        match &self.host {
            Some(host) if is_host(host) => write!(f, "{separator}host={host}"),
            _ => Ok(()),
        }
    }
}

fn is_host(host: &str) -> bool {
    !host.is_empty()
        && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':'))
}
