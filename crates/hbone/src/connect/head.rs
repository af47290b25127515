//! A CONNECT request's head as a value, and its HTTP form in both directions.

use std::str::FromStr;

use super::authority::{Authority, AuthorityError};
use super::traceparent::Traceparent;
use crate::http2::hpack::{Field, HeaderList};

pub(crate) const BAGGAGE: &str = "baggage";
const FORWARDED: &str = "forwarded";
const TRACEPARENT: &str = "traceparent";
const FORWARDED_NETWORK: &str = "x-forwarded-network";
const ISTIO_SOURCE: &str = "x-istio-source";

/// Response header with the reason code of a refusal; ours alone, other peers ignore it.
pub(crate) const REASON_HEADER: &str = "x-weft-reason";

/// What a tunnel's opener says (`docs/hbone.md`). Only the authority decides anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectHead {
    /// Where the tunnel leads.
    pub authority: Authority,
    /// The source workload ([`super::Baggage`] as text). Received: repeated lines joined by commas, empty ones dropped.
    pub baggage: Option<String>,
    /// The source socket and original host ([`super::Forwarded`] as text).
    pub forwarded: Option<String>,
    /// The trace that this connection belongs to; received: `None` when absent or malformed.
    pub traceparent: Option<Traceparent>,
    /// `x-forwarded-network`: the network of the origin, only on the inner CONNECT of double HBONE.
    pub forwarded_network: Option<String>,
    /// `x-istio-source`: what kind of Envoy opened it (`waypoint`, `gateway`, `sidecar`); we never set it.
    pub istio_source: Option<String>,
}

/// A request that opens no tunnel; the answer is 400.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Another method than CONNECT, or an extended CONNECT (RFC 8441).
    #[error("method is not CONNECT")]
    NotConnect,
    /// The authority is missing or names no target.
    #[error("authority: {0}")]
    Authority(#[from] AuthorityError),
}

/// A head that cannot be put on the wire.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} holds bytes that no header can carry")]
pub struct EncodeError(&'static str);

impl ConnectHead {
    /// A head with nothing but its target.
    #[must_use]
    pub fn new(authority: Authority) -> Self {
        Self {
            authority,
            baggage: None,
            forwarded: None,
            traceparent: None,
            forwarded_network: None,
            istio_source: None,
        }
    }

    /// The HTTP form.
    pub(crate) fn encode(&self) -> Result<Vec<Field>, EncodeError> {
        let mut fields = vec![Field::from_static(":method", "CONNECT")];
        put(&mut fields, ":authority", Some(self.authority.to_string()))?;
        put(&mut fields, BAGGAGE, self.baggage.clone())?;
        put(&mut fields, FORWARDED, self.forwarded.clone())?;
        put(&mut fields, TRACEPARENT, self.traceparent.map(|trace| trace.to_string()))?;
        put(&mut fields, FORWARDED_NETWORK, self.forwarded_network.clone())?;
        put(&mut fields, ISTIO_SOURCE, self.istio_source.clone())?;
        Ok(fields)
    }

    /// Reads the HTTP form.
    pub(crate) fn decode(list: &HeaderList) -> Result<Self, DecodeError> {
        // `:scheme` and `:path` belong to other methods, and to the extended CONNECT that `:protocol` makes.
        let other = [":protocol", ":scheme", ":path"].iter().any(|name| list.get(name).is_some());
        if list.get(":method") != Some(b"CONNECT") || other {
            return Err(DecodeError::NotConnect);
        }
        let authority = list.get(":authority").and_then(|text| std::str::from_utf8(text).ok()).unwrap_or_default();
        Ok(Self {
            authority: Authority::from_str(authority)?,
            baggage: merged(list, BAGGAGE),
            forwarded: header_text(list, FORWARDED),
            traceparent: header_text(list, TRACEPARENT).and_then(|text| text.parse().ok()),
            forwarded_network: header_text(list, FORWARDED_NETWORK),
            istio_source: header_text(list, ISTIO_SOURCE),
        })
    }
}

fn put(fields: &mut Vec<Field>, name: &'static str, value: Option<String>) -> Result<(), EncodeError> {
    match value.filter(|value| !value.is_empty()) {
        Some(value) if is_header_value(&value) => fields.push(Field::new(name, value)),
        Some(_) => return Err(EncodeError(name)),
        None => {}
    }
    Ok(())
}

/// Visible ASCII, spaces and tabs (RFC 9110 section 5.5, without its obsolete part).
pub(crate) fn is_header_value(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'\t' | b' '..=b'~'))
}

/// A header line as text; `None` when empty or not visible ASCII.
fn text_of(value: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(value).ok()?;
    is_header_value(text).then(|| text.trim()).filter(|text| !text.is_empty())
}

/// The first line of a header as ASCII text; `None` when absent, empty or not visible ASCII.
pub(crate) fn header_text(list: &HeaderList, name: &str) -> Option<String> {
    list.get(name).and_then(text_of).map(str::to_owned)
}

/// All lines of a list header as one (RFC 9110 section 5.3).
pub(crate) fn merged(list: &HeaderList, name: &str) -> Option<String> {
    let lines: Vec<&str> = list.all(name).filter_map(text_of).collect();
    (!lines.is_empty()).then(|| lines.join(","))
}
