//! Sums up captured frames: per flow who, how many, how they began and ended, markers, TLS. Pure; bounded memory.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, bail, ensure};
use etherparse::{LaxNetSlice, LaxSlicedPacket, TransportSlice};

use super::tls::RecordTrack;

/// Flows that are kept; a test makes some thousands at most. Further ones are counted only (`Report::unkept`).
const FLOWS: usize = 50_000;
/// Samples of text around a found marker.
const EVIDENCE: usize = 20;
/// Bytes shown around a marker, to each side.
const AROUND: usize = 48;

/// Transport protocol of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// One flow; `a` is the side that sent the first packet seen (the client, when the SYN was captured).
#[derive(Clone, Debug)]
pub struct Flow {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// First sender.
    pub a: SocketAddr,
    /// The other side.
    pub b: SocketAddr,
    /// Packets in both directions.
    pub packets: u64,
    /// Payload bytes in both directions.
    pub bytes: u64,
    /// Packets with SYN and without ACK.
    pub syn: u64,
    /// Packets with FIN.
    pub fin: u64,
    /// Packets with RST.
    pub rst: u64,
    /// Markers found in payloads.
    pub markers: u64,
    /// From `a` and from `b`.
    tracks: [RecordTrack; 2],
    /// Last bytes of each direction, so that a marker over two segments is found.
    tails: [Vec<u8>; 2],
}

impl Flow {
    /// Does one side use this port?
    #[must_use]
    pub fn has_port(&self, port: u16) -> bool {
        self.a.port() == port || self.b.port() == port
    }

    /// Bytes that are not TLS were seen.
    #[must_use]
    pub fn not_tls(&self) -> bool {
        self.tracks.iter().any(RecordTrack::violated)
    }

    /// Not seen from its beginning, or with gaps: nothing can be said about TLS.
    #[must_use]
    pub fn unknown(&self) -> bool {
        self.tracks.iter().any(RecordTrack::lost)
    }
}

impl std::fmt::Display for Flow {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { protocol, a, b, packets, bytes, syn, fin, rst, markers, .. } = self;
        write!(out, "{protocol:?} {a} > {b}: {packets} packets, {bytes} bytes, SYN {syn} FIN {fin} RST {rst}")?;
        if *markers > 0 {
            write!(out, ", {markers} markers")?;
        }
        Ok(())
    }
}

/// What was seen up to a moment.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Flows with at least one packet since the start or the last `forget`.
    pub flows: Vec<Flow>,
    /// Frames seen.
    pub frames: u64,
    /// Frames of flows beyond the kept ones.
    pub unkept: u64,
    /// Text around the first markers found.
    pub evidence: Vec<String>,
}

impl Report {
    /// How often a marker was seen.
    #[must_use]
    pub fn markers(&self) -> u64 {
        self.flows.iter().map(|flow| flow.markers).sum()
    }

    /// TCP flows with payload on `port`.
    #[must_use]
    pub fn on_port(&self, port: u16) -> Vec<&Flow> {
        self.flows.iter().filter(|flow| flow.has_port(port)).collect()
    }

    /// No marker was seen.
    ///
    /// # Errors
    /// With the text around the first markers.
    pub fn assert_no_marker(&self) -> Result<()> {
        self.assert_whole()?;
        ensure!(
            self.markers() == 0,
            "{} markers on the wire, for example:\n{}",
            self.markers(),
            self.evidence.join("\n")
        );
        Ok(())
    }

    /// Every TCP byte between two hosts went through TLS records on one of `ports` (15008, and the control plane's),
    /// and at least one did.
    ///
    /// # Errors
    /// Names the flows for which this is not so, those that could not be followed included.
    pub fn assert_only_tls_on(&self, ports: &[u16]) -> Result<()> {
        self.assert_whole()?;
        let mut offences = Vec::new();
        let mut encrypted = 0;
        for flow in self.flows.iter().filter(|flow| flow.protocol == Protocol::Tcp) {
            let right_port = ports.iter().any(|port| flow.has_port(*port));
            // A refused or reset attempt has no payload, yet on a wrong port it is a leak of intent: it counts.
            if !right_port {
                offences.push(format!("{flow} (port)"));
            } else if flow.not_tls() {
                offences.push(format!("{flow} (not TLS)"));
            } else if flow.unknown() {
                offences.push(format!("{flow} (not seen from its beginning)"));
            } else if flow.bytes > 0 {
                encrypted += 1;
            }
        }
        offences.truncate(20);
        if !offences.is_empty() {
            bail!("not only TLS on {ports:?}:\n{}", offences.join("\n"));
        }
        ensure!(encrypted > 0, "no TLS flow on {ports:?} at all, {} frames seen", self.frames);
        Ok(())
    }

    fn assert_whole(&self) -> Result<()> {
        ensure!(
            self.unkept == 0,
            "{} frames belong to flows beyond the kept ones: nothing can be claimed",
            self.unkept
        );
        Ok(())
    }
}

type Key = (Protocol, SocketAddr, SocketAddr);

/// Takes frames, gives reports.
#[derive(Debug)]
pub struct Ledger {
    markers: Vec<Vec<u8>>,
    flows: BTreeMap<Key, Flow>,
    frames: u64,
    unkept: u64,
    evidence: Vec<String>,
}

struct Segment<'a> {
    key: Key,
    payload: &'a [u8],
    sequence: u32,
    /// SYN without ACK, SYN, FIN, RST.
    flags: [bool; 4],
}

impl Ledger {
    /// `markers`: byte strings to look for in payloads.
    #[must_use]
    pub fn new(markers: &[&str]) -> Self {
        let markers = markers.iter().map(|marker| marker.as_bytes().to_vec()).collect();
        Self { markers, flows: BTreeMap::new(), frames: 0, unkept: 0, evidence: Vec::new() }
    }

    /// Takes an Ethernet frame. What is not TCP or UDP over IP is counted only.
    pub fn frame(&mut self, frame: &[u8]) {
        self.frames += 1;
        let Some(segment) = parse(frame) else { return };
        let (protocol, source, destination) = segment.key;
        let reverse = (protocol, destination, source);
        let (key, side) = if self.flows.contains_key(&reverse) { (reverse, 1) } else { (segment.key, 0) };
        // A port may be used again after its flow has ended: a new SYN keeps the counters and follows TLS anew.
        if !self.flows.contains_key(&key) && self.flows.len() >= FLOWS {
            self.unkept += 1;
            return;
        }
        let flow = self.flows.entry(key).or_insert_with(|| Flow {
            protocol,
            a: source,
            b: destination,
            packets: 0,
            bytes: 0,
            syn: 0,
            fin: 0,
            rst: 0,
            markers: 0,
            tracks: Default::default(),
            tails: Default::default(),
        });
        let [syn, any_syn, fin, rst] = segment.flags;
        flow.packets += 1;
        flow.bytes += segment.payload.len() as u64;
        flow.syn += u64::from(syn);
        flow.fin += u64::from(fin);
        flow.rst += u64::from(rst);
        if any_syn && flow.tracks[side].is_new_start(segment.sequence) {
            flow.tracks[side].start(segment.sequence);
        }
        if protocol == Protocol::Tcp {
            flow.tracks[side].segment(segment.sequence, segment.payload);
        }
        search(&self.markers, flow, side, segment.payload, &mut self.evidence);
    }

    /// Starts counting anew; what is needed to follow the streams stays.
    pub fn forget(&mut self) {
        (self.frames, self.unkept) = (0, 0);
        self.evidence.clear();
        for flow in self.flows.values_mut() {
            (flow.packets, flow.bytes, flow.syn, flow.fin, flow.rst, flow.markers) = (0, 0, 0, 0, 0, 0);
        }
    }

    /// What was seen up to now.
    #[must_use]
    pub fn report(&self) -> Report {
        let flows = self.flows.values().filter(|flow| flow.packets > 0).cloned().collect();
        Report { flows, frames: self.frames, unkept: self.unkept, evidence: self.evidence.clone() }
    }
}

fn parse(frame: &[u8]) -> Option<Segment<'_>> {
    let packet = LaxSlicedPacket::from_ethernet(frame).ok()?;
    let (source, destination): (IpAddr, IpAddr) = match packet.net.as_ref()? {
        LaxNetSlice::Ipv4(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
        LaxNetSlice::Ipv6(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
        LaxNetSlice::Arp(_) => return None,
    };
    let key = |protocol, from, to| (protocol, SocketAddr::new(source, from), SocketAddr::new(destination, to));
    match packet.transport? {
        TransportSlice::Tcp(tcp) => Some(Segment {
            key: key(Protocol::Tcp, tcp.source_port(), tcp.destination_port()),
            payload: tcp.payload(),
            // The payload of a SYN (fast open) begins behind the SYN's own number.
            sequence: tcp.sequence_number(),
            flags: [tcp.syn() && !tcp.ack(), tcp.syn(), tcp.fin(), tcp.rst()],
        }),
        TransportSlice::Udp(udp) => Some(Segment {
            key: key(Protocol::Udp, udp.source_port(), udp.destination_port()),
            payload: udp.payload(),
            sequence: 0,
            flags: [false; 4],
        }),
        _ => None,
    }
}

fn search(markers: &[Vec<u8>], flow: &mut Flow, side: usize, payload: &[u8], evidence: &mut Vec<String>) {
    let Some(longest) = markers.iter().map(Vec::len).max().filter(|_| !payload.is_empty()) else { return };
    let tail = std::mem::take(&mut flow.tails[side]);
    let text = [tail.as_slice(), payload].concat();
    for marker in markers.iter().filter(|marker| !marker.is_empty()) {
        for (place, window) in text.windows(marker.len()).enumerate() {
            // One that ends inside the tail was counted with the segment before.
            if window != marker.as_slice() || place + marker.len() <= tail.len() {
                continue;
            }
            flow.markers += 1;
            if evidence.len() < EVIDENCE {
                let part = &text[place.saturating_sub(AROUND)..text.len().min(place + marker.len() + AROUND)];
                evidence.push(format!("{} > {}: {}", flow.a, flow.b, part.escape_ascii()));
            }
        }
    }
    flow.tails[side] = text[text.len().saturating_sub(longest - 1 + AROUND)..].to_vec();
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;

    struct Speaker(u32);

    impl Speaker {
        fn say(&mut self, ledger: &mut Ledger, ports: (u16, u16), text: &[u8]) {
            let step = PacketBuilder::ethernet2([1; 6], [2; 6]).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
            let mut builder = step.tcp(ports.0, ports.1, self.0, 1000);
            builder = if text.is_empty() { builder.syn() } else { builder.ack(1) };
            let mut frame = Vec::new();
            builder.write(&mut frame, text).unwrap();
            ledger.frame(&frame);
            self.0 = self.0.wrapping_add(u32::try_from(text.len().max(1)).unwrap());
        }
    }

    #[test]
    fn finds_markers_over_segments_once() {
        let mut ledger = Ledger::new(&["4111-MARKER"]);
        let mut speaker = Speaker(7);
        for text in [&b""[..], b"card=4111-MA", b"RKER&more", b"4111-MARKER"] {
            speaker.say(&mut ledger, (4000, 80), text);
        }
        let report = ledger.report();
        assert_eq!(report.markers(), 2);
        assert_eq!((report.flows.len(), report.flows[0].syn, report.frames), (1, 1, 4));
        assert!(report.evidence[0].contains("card=4111-MARKER&more"), "{:?}", report.evidence);
        assert!(report.assert_no_marker().is_err());
        assert!(report.assert_only_tls_on(&[15008]).unwrap_err().to_string().contains("(port)"));
        ledger.forget();
        assert!(ledger.report().flows.is_empty());
    }

    #[test]
    fn tells_tls_from_the_rest() {
        let mut ledger = Ledger::new(&[]);
        let mut speaker = Speaker(0);
        speaker.say(&mut ledger, (4000, 15008), b"");
        assert!(ledger.report().assert_only_tls_on(&[15008]).is_err(), "nothing encrypted was seen");
        speaker.say(&mut ledger, (4000, 15008), b"\x16\x03\x01\x00\x02ab");
        ledger.report().assert_only_tls_on(&[15008]).unwrap();
        speaker.say(&mut ledger, (4000, 15008), b"GET /");
        assert!(ledger.report().assert_only_tls_on(&[15008]).is_err());
    }
}
