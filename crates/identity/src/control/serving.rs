//! The control plane's own certificate: issued by its own CA, for the names that agents call it by, renewed in time, and
//! at once when the CA signs with another root.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use weft_runtime::shared::Reader;

use crate::certificate::Validity;
use crate::clock::SharedClock;
use crate::signer::{SignError, Signer};
use crate::tls::{self, TlsError};

/// One day: renewal costs a millisecond, and a process that runs on a wrong clock is noticed soon.
const TTL: Duration = Duration::from_secs(24 * 3600);

/// Always has a valid serving certificate; makes the next one when the first connection after half life comes, after the
/// signer was replaced, or after the clock was set back.
#[derive(Debug)]
pub struct ServingSource {
    signer: Reader<Signer>,
    /// Who signed the certificate in use.
    used: Arc<Signer>,
    names: Vec<String>,
    addresses: Vec<IpAddr>,
    clock: SharedClock,
    config: Arc<ServerConfig>,
    validity: Validity,
}

impl ServingSource {
    /// A source for these names, each a DNS name or an IP address, with its first certificate.
    ///
    /// # Errors
    /// When a name is no DNS name, or the CA cannot sign.
    pub fn new(signer: Reader<Signer>, names: &[String], clock: SharedClock) -> Result<Self, ServingError> {
        let addresses: Vec<IpAddr> = names.iter().filter_map(|name| name.parse().ok()).collect();
        let names: Vec<String> = names.iter().filter(|name| name.parse::<IpAddr>().is_err()).cloned().collect();
        let used = signer.load();
        let (config, validity) = issue(&used, &names, &addresses, &clock)?;
        Ok(Self { signer, used, names, addresses, clock, config, validity })
    }

    /// The configuration to accept the next connection with.
    pub fn config(&mut self) -> Arc<ServerConfig> {
        let (now, signer) = (self.clock.now(), self.signer.load());
        let replaced = !Arc::ptr_eq(&signer, &self.used);
        if replaced || now >= self.validity.half_life() || now < self.validity.not_before {
            match issue(&signer, &self.names, &self.addresses, &self.clock) {
                Ok((config, validity)) => (self.config, self.validity, self.used) = (config, validity, signer),
                // Agents refuse it once it has expired, and say so.
                Err(error) => tracing::error!(%error, "cannot renew the control plane's certificate"),
            }
        }
        self.config.clone()
    }

    /// When the certificate in use begins and ends.
    #[must_use]
    pub fn validity(&self) -> Validity {
        self.validity
    }
}

fn issue(
    signer: &Signer,
    names: &[String],
    addresses: &[IpAddr],
    clock: &SharedClock,
) -> Result<(Arc<ServerConfig>, Validity), ServingError> {
    let serving = signer.serving(names, addresses, TTL, clock.now())?;
    Ok((tls::control_server_config(serving.certified.clone())?, serving.validity()))
}

/// There is no certificate for the control plane.
#[derive(Debug, thiserror::Error)]
#[error("the control plane's certificate: {0}")]
pub enum ServingError {
    /// The CA cannot sign it.
    Sign(#[from] SignError),
    /// It cannot be used.
    Tls(#[from] TlsError),
}
