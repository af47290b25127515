//! Addresses of admin pages, as they are typed.

/// The agent of the machine that this program runs on.
pub const HERE: &str = "127.0.0.1:15000";

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

/// Reads `NAMESPACE/POD`.
///
/// # Errors
/// Anything else, with an example.
pub fn parse_pod(text: &str) -> Result<(String, String), String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
            Ok((namespace.to_owned(), name.to_owned()))
        }
        _ => Err("expected NAMESPACE/POD, for example shop/web-1".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::{parse_address, parse_pod};

    #[test]
    fn addresses_have_a_port() {
        for good in ["127.0.0.1:15000", "[::1]:1", "server.weft-system:15014"] {
            assert_eq!(parse_address(good).as_deref(), Ok(good));
        }
        for bad in ["", "host", "::1:15000", "[::1:5", "host:port", "http://host:1", ":1"] {
            assert!(parse_address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn pods_have_a_namespace() {
        assert_eq!(parse_pod("shop/web-1"), Ok(("shop".to_owned(), "web-1".to_owned())));
        for bad in ["", "web-1", "/web-1", "shop/", "pods/shop/web-1"] {
            assert!(parse_pod(bad).is_err(), "{bad}");
        }
    }
}
