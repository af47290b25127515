//! Names of the control plane to addresses, by hickory: the C library's look-up is fragile in a static binary.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use hickory_resolver::TokioResolver;
use weft_identity::control::Resolve;

/// Names cannot be looked up.
#[derive(Debug, thiserror::Error)]
#[error("names cannot be looked up, and '{host}' is a name: {cause}; give an address instead")]
pub struct ResolverError {
    /// The name.
    host: String,
    /// Why not.
    cause: String,
}

/// A look-up by this machine's `resolv.conf` and `hosts`, if `host` is a name at all.
pub(super) fn resolver(host: &str) -> Result<Resolve, ResolverError> {
    if host.parse::<IpAddr>().is_ok() {
        let refuse = |host: String, _port: u16| io::Error::other(format!("'{host}' is not looked up"));
        return Ok(Arc::new(move |host, port| {
            let error = refuse(host, port);
            Box::pin(std::future::ready(Err(error)))
        }));
    }
    let failed = |cause: String| ResolverError { host: host.to_owned(), cause };
    let builder = TokioResolver::builder_tokio().map_err(|error| failed(error.to_string()))?;
    let resolver = builder.build().map_err(|error| failed(error.to_string()))?;
    Ok(Arc::new(move |host, port| {
        let resolver = resolver.clone();
        Box::pin(async move {
            let found = resolver.lookup_ip(host).await.map_err(io::Error::other)?;
            Ok(found.iter().map(|address| SocketAddr::new(address, port)).collect())
        })
    }))
}
