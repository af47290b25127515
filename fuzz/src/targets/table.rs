//! The targets by name.

use super::{certificates, config, cuts, heads, http2, outcome::Outcome, wire};

/// One kind of input.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, and that of its folders below `corpus/`, `regressions/` and `artifacts/`.
    pub name: &'static str,
    /// Takes any bytes. Panics when something does not hold.
    pub run: fn(&[u8]) -> Outcome,
    /// Bytes of the longest input that is tried.
    pub longest: usize,
    /// Words of the input's language, for the mutations.
    pub words: &'static [&'static [u8]],
}

const TEXT: &[&[u8]] =
    &[b"=", b",", b";", b"\"", b":", b"[", b"]", b"0", b"65536", b"::", b".", b"\0", b"\xc3\xa9", b"%"];
const YAML: &[&[u8]] = &[
    b"---\n",
    b"- ",
    b"? ",
    b"&a ",
    b"*a",
    b"!!binary ",
    b"<<: ",
    b"{",
    b"[",
    b"|\n",
    b"\t",
    b"null",
    b"~",
    b"apiVersion: v1\n",
    b"kind: Pod\n",
    b"kind: List\nitems:\n",
    b"metadata: {name: a, namespace: b}\n",
    b"labels: {weft.dev/mesh: enabled}\n",
];
const HEADS: &[&[u8]] = &[
    b":method",
    b":authority",
    b":path",
    b":scheme",
    b":protocol",
    b"CONNECT",
    b"GET",
    b"\0",
    b"baggage",
    b"forwarded",
];
/// Beginnings of frames: no payload, most payload, CONTINUATION, RST_STREAM, SETTINGS, WINDOW_UPDATE.
const FRAMES: &[&[u8]] = &[
    b"\0\0\0\x04\0\0\0\0\0",
    b"\0\x40\0\0\0\0\0\0\x01",
    b"\0\0\0\x09\0\0\0\0\x01",
    b"\0\0\x04\x03\0\0\0\0\x01\0\0\0\x08",
    b"\0\0\x04\x08\0\0\0\0\0\x7f\xff\xff\xff",
    b"\0\0\x08\x06\0\0\0\0\0abcdefgh",
    b"\0\0\x06\x04\0\0\0\0\0\0\x04\0\0\0\0",
    b"\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\0",
    b"\x88",
    b"\x42\x07CONNECT",
    b"\x3f\xe1\xff\xff\xff\x0f",
    b"\xff\xff\xff\xff\x0f",
];
const DER: &[&[u8]] = &[
    b"\x30\x80",
    b"\x30\x84\xff\xff\xff\xff",
    b"\x06\x03\x55\x1d\x11",
    b"\x86",
    b"\x82",
    b"spiffe://",
    b"\xa3",
    b"\x05\0",
];
const RECORDS: &[&[u8]] = &[
    br#""version":3"#,
    br#""kind":"hello""#,
    br#""kind":"pod""#,
    b"null",
    b"-1",
    b"1e999",
    b"[[[[",
    b"\\u0000",
    b"{}",
];
const FIELDS: &[&[u8]] =
    &[b"\x0a", b"\x12", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x0b", b"\0", b"/", b"*", b"ns/name"];

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "authority", run: heads::authority, longest: 512, words: TEXT },
    Target { name: "baggage", run: heads::baggage, longest: 2048, words: TEXT },
    Target { name: "forwarded", run: heads::forwarded, longest: 2048, words: TEXT },
    Target { name: "connect_head", run: http2::connect_head, longest: 4096, words: HEADS },
    Target { name: "http2_server", run: http2::server, longest: 16_384, words: FRAMES },
    Target { name: "http2_client", run: http2::client, longest: 16_384, words: FRAMES },
    Target { name: "http2_cuts", run: cuts::cuts, longest: 16_384, words: FRAMES },
    Target { name: "resource", run: wire::resource, longest: 8192, words: FIELDS },
    Target { name: "delta_response", run: wire::delta_response, longest: 8192, words: FIELDS },
    Target { name: "delta_request", run: wire::delta_request, longest: 8192, words: FIELDS },
    Target { name: "csr", run: certificates::request, longest: 4096, words: DER },
    Target { name: "certificate", run: certificates::certificate, longest: 4096, words: DER },
    Target { name: "roots", run: certificates::roots, longest: 8192, words: DER },
    Target { name: "yaml", run: config::yaml, longest: 8192, words: YAML },
    Target { name: "tokens", run: config::tokens, longest: 4096, words: TEXT },
    Target { name: "handover", run: config::handover, longest: 8192, words: RECORDS },
];

/// The one of that name.
#[must_use]
pub fn by_name(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
