//! The numbers of a connection, both directions alike; see the reason beside each default.

use crate::keepalive::KeepaliveSettings;

/// Tunnels that one connection carries at most. 100: what stock peers announce, and ztunnel's own cap
/// (`ambient-wire.md` section 2.3).
pub const MAX_TUNNELS: usize = 100;

/// See [`ConnectionSettings::stream_window`].
const STREAM_WINDOW: u32 = 2 << 20;

/// Streams that we reset and whose late frames are still expected, for a second each. 1024 (the library: 50): tunnels of a busy pod are reset
/// in bursts, and each frame for a stream that is forgotten too early counts against [`LATE_FRAMES_FORGIVEN`].
pub(crate) const RESET_STREAMS_REMEMBERED: usize = 1024;

/// Frames for forgotten streams that a connection survives over its whole life. 65,536 (the library: 1024): a connection between two
/// busy pods lives for weeks, and its end would cut up to 100 tunnels.
pub(crate) const LATE_FRAMES_FORGIVEN: usize = 1 << 16;

/// What a connection announces and keeps to. [`ConnectionSettings::default`] is what both agents use.
#[derive(Debug, Clone)]
pub struct ConnectionSettings {
    /// Bytes a peer may send on one stream before we release some. 2 MiB: about 16 Gbit/s at 1 ms, 0.5 Gbit/s at 30 ms
    /// round trip; also the most memory that one stream with a stopped reader can hold. (ztunnel: 4 MiB.)
    pub stream_window: u32,
    /// The same for the connection. 200 MiB, as much as [`MAX_TUNNELS`] streams may have: stopped readers eat it, and when
    /// they have eaten all of it they stop every other stream of the connection (`datapath.md` section 5: four of them with
    /// ztunnel's 4 of 16 MiB; 32 did with 2 of 64 MiB here). What it bounds is held by streams that do not move, and each of those has its own bound.
    pub connection_window: u32,
    /// Largest DATA frame that we take; fewer, larger frames save work per byte. 256 KiB (ztunnel: 1 MiB): a larger one only
    /// delays the other streams of the connection.
    pub max_frame_size: u32,
    /// Bytes of one stream that may wait inside the HTTP/2 library. Must exceed `tunnel::BACKLOG_LIMIT`, which binds first.
    pub max_send_buffer_size: usize,
    /// Allowance for small DATA frames (each under 256 bytes is charged the difference while unread); beyond it the library
    /// closes the whole connection. 32 MiB = 131,000 unread 1-byte frames, some 20 MB. Relays take frames out at once
    /// (`Tunnel::poll_receive`), so only a stopped consumer other than the relay uses any (`crates.md` trap 1).
    pub data_frame_budget: usize,
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
            stream_window: STREAM_WINDOW,
            connection_window: MAX_TUNNELS as u32 * STREAM_WINDOW,
            max_frame_size: 256 << 10,
            max_send_buffer_size: 1 << 20,
            data_frame_budget: 32 << 20,
            max_concurrent_streams: 200,
            max_header_list_size: 64 << 10,
            keepalive: KeepaliveSettings::default(),
        }
    }
}
