//! A CONNECT request's head as a value, and its HTTP form in both directions.

use std::str::FromStr;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Uri};

use super::authority::{Authority, AuthorityError};
use super::traceparent::Traceparent;

pub(crate) const BAGGAGE: HeaderName = HeaderName::from_static("baggage");
const FORWARDED: HeaderName = HeaderName::from_static("forwarded");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const FORWARDED_NETWORK: HeaderName = HeaderName::from_static("x-forwarded-network");
const ISTIO_SOURCE: HeaderName = HeaderName::from_static("x-istio-source");

/// Response header with the reason code of a refusal; ours alone, other peers ignore it.
pub(crate) const REASON_HEADER: HeaderName = HeaderName::from_static("x-weft-reason");

/// What a tunnel's opener says (`ambient-wire.md` section 2). Only the authority decides anything.
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
    pub(crate) fn encode(&self) -> Result<Request<()>, EncodeError> {
        let mut request = Request::new(());
        *request.method_mut() = Method::CONNECT;
        *request.uri_mut() =
            Uri::builder().authority(self.authority.to_string()).build().map_err(|_| EncodeError("authority"))?;
        let headers = request.headers_mut();
        put(headers, BAGGAGE, "baggage", self.baggage.as_deref())?;
        put(headers, FORWARDED, "forwarded", self.forwarded.as_deref())?;
        put(headers, TRACEPARENT, "traceparent", self.traceparent.map(|trace| trace.to_string()).as_deref())?;
        put(headers, FORWARDED_NETWORK, "x-forwarded-network", self.forwarded_network.as_deref())?;
        put(headers, ISTIO_SOURCE, "x-istio-source", self.istio_source.as_deref())?;
        Ok(request)
    }

    /// Reads the HTTP form.
    pub(crate) fn decode<B>(request: &Request<B>) -> Result<Self, DecodeError> {
        let extended = request.extensions().get::<h2::ext::Protocol>().is_some();
        if request.method() != Method::CONNECT || extended {
            return Err(DecodeError::NotConnect);
        }
        let authority = request.uri().authority().map_or("", |authority| authority.as_str());
        let headers = request.headers();
        Ok(Self {
            authority: Authority::from_str(authority)?,
            baggage: merged(headers, &BAGGAGE),
            forwarded: header_text(headers, &FORWARDED),
            traceparent: header_text(headers, &TRACEPARENT).and_then(|text| text.parse().ok()),
            forwarded_network: header_text(headers, &FORWARDED_NETWORK),
            istio_source: header_text(headers, &ISTIO_SOURCE),
        })
    }
}

fn put(headers: &mut HeaderMap, name: HeaderName, label: &'static str, value: Option<&str>) -> Result<(), EncodeError> {
    if let Some(value) = value.filter(|value| !value.is_empty()) {
        headers.insert(name, HeaderValue::from_str(value).map_err(|_| EncodeError(label))?);
    }
    Ok(())
}

/// The first line of a header as ASCII text; `None` when absent, empty or not visible ASCII.
pub(crate) fn header_text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let text = headers.get(name)?.to_str().ok()?.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// All lines of a list header as one (RFC 9110 section 5.3).
pub(crate) fn merged(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let lines: Vec<&str> = headers
        .get_all(name)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    (!lines.is_empty()).then(|| lines.join(","))
}
