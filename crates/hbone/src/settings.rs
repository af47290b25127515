//! The numbers of a connection, both directions alike; see the reason beside each default.

use std::time::Duration;

use weft_runtime::budget::Budget;

/// Tunnels that one connection carries at most. 100: what stock peers announce, and ztunnel's own cap.
pub const MAX_TUNNELS: usize = 100;

/// What a connection announces and keeps to. [`ConnectionSettings::default`] is what both agents use, but for `keepalive`,
/// which the node agent sets shorter (`node-agent/src/environment.rs`).
#[derive(Debug, Clone)]
pub struct ConnectionSettings {
    /// Bytes a peer may send on a new stream before some are passed on. 256 KiB: what a reader that stops at once makes us hold.
    pub first_stream_window: u32,
    /// What that grows to while the stream's reader keeps up, doubling. 2 MiB: about 16 Gbit/s at 1 ms, 0.5 Gbit/s at 30 ms round trip; the
    /// most memory that one stream with a stopped reader can hold. (ztunnel: 4 MiB, from the start.)
    pub stream_window: u32,
    /// What the windows of all streams of a connection may have grown together. 64 MiB: 36 streams of full speed at 30 ms.
    pub grown_windows: usize,
    /// Bytes that may be under way on the connection. 16 MiB (as ztunnel). Given back when they arrive, not when they are passed on, so that
    /// stopped readers do not use it up: what they hold is bounded by their streams' windows.
    pub connection_window: u32,
    /// Bytes that all streams of the connection hold before its window is withheld. 128 MiB: above what 200 first windows and
    /// [`Self::grown_windows`] come to, so that only a peer that plays with ended streams ever meets it.
    pub most_held: usize,
    /// The agent-wide count of what is held. While it is tight no window grows, and those of busy streams shrink to 64 KiB.
    pub memory: Budget,
    /// Largest DATA frame that we take; fewer, larger frames save work per byte. 256 KiB (ztunnel: 1 MiB): a larger one only
    /// delays the other streams of the connection.
    pub max_frame_size: u32,
    /// Streams that a client may open to us. 200 as ztunnel: clients open at most 100 and do not read this in time.
    pub max_concurrent_streams: u32,
    /// Bytes of one header list that we take. 64 KiB on both sides (ztunnel: 16 KiB client, 64 KiB server).
    pub max_header_list_size: u32,
    /// When to PING and when to give up.
    pub keepalive: KeepaliveSettings,
}

impl Default for ConnectionSettings {
    fn default() -> Self {
        Self {
            first_stream_window: 256 << 10,
            stream_window: 2 << 20,
            grown_windows: 64 << 20,
            connection_window: 16 << 20,
            most_held: 128 << 20,
            memory: Budget::unlimited(),
            max_frame_size: 256 << 10,
            max_concurrent_streams: 200,
            max_header_list_size: 64 << 10,
            keepalive: KeepaliveSettings::default(),
        }
    }
}

/// When a connection is probed and when it counts as dead.
#[derive(Debug, Clone, Copy)]
pub struct KeepaliveSettings {
    /// Rest between an answer and the next PING. 10 s (as ztunnel), even while data flows.
    pub interval: Duration,
    /// How long an answer may take. 20 s (same place).
    pub timeout: Duration,
}

impl Default for KeepaliveSettings {
    fn default() -> Self {
        Self { interval: Duration::from_secs(10), timeout: Duration::from_secs(20) }
    }
}
