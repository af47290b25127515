//! What stands between a listener and the tasks that serve its connections: asks the limits, and sheds whom it must.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::time::Instant;

use tokio::net::TcpStream;
use weft_hbone::relay::reset_unless_orderly;
use weft_model::Reason;

use super::limits::{Newcomer, Verdict};
use super::pod_load::Way;
use super::reserve::Reserve;
use super::set_up::SetUp;
use super::shard::{Pod, Shard};
use crate::telemetry::{ConnectionRecord, Direction};

/// The gate of one listener.
pub struct Gate {
    shard: Rc<Shard>,
    pod: Rc<Pod>,
    way: Way,
}

impl Gate {
    /// The gate of a listener of the pod.
    #[must_use]
    pub fn new(shard: Rc<Shard>, pod: Rc<Pod>, way: Way) -> Self {
        Self { shard, pod, way }
    }

    /// Whether the connection may be served now.
    #[must_use]
    pub fn judge(&self, stream: &TcpStream, client: IpAddr) -> Verdict {
        let of_its_peer = if self.way == Way::Outbound { 0 } else { self.pod.served.load.of_peer(self.way, client) };
        let descriptor = u64::try_from(stream.as_raw_fd()).unwrap_or_default();
        let newcomer = Newcomer { way: self.way, load: &self.pod.served.load, of_its_peer, descriptor };
        let limits = &self.shard.environment.settings.limits;
        match limits.judge(&newcomer) {
            // Somebody may have raised the limit of this process.
            Verdict::Shed(Reason::DescriptorLimit) => {
                limits.descriptors.look();
                limits.judge(&newcomer)
            }
            verdict => verdict,
        }
    }

    /// It will be served: its set-up begins.
    #[must_use]
    pub fn begin(&self, client: IpAddr) -> SetUp {
        SetUp::begin(&self.pod.served.load, self.way, client)
    }

    /// Resets it, with a line in the log and a count.
    pub fn shed(&self, stream: TcpStream, client: SocketAddr, reason: Reason) {
        let destination = stream.local_addr().unwrap_or(client);
        // Fails only on a socket that is gone.
        let _gone = reset_unless_orderly(&stream);
        drop(stream);
        let direction = if self.way == Way::Outbound { Direction::Outbound } else { Direction::Inbound };
        let mut record = ConnectionRecord::new(direction, super::address::canonical(client), destination);
        let identity = Some(self.pod.served.identity.clone());
        match direction {
            Direction::Outbound => record.source_identity = identity,
            Direction::Inbound => record.destination_identity = identity,
        }
        record.reason = Some(reason);
        self.shard.telemetry.refused(record);
        if reason == Reason::DescriptorLimit {
            // The one that was just closed may be all that there is.
            self.reserve().renew();
        }
    }

    /// The descriptor that is kept for bad moments.
    #[must_use]
    pub fn reserve(&self) -> &Reserve {
        &self.shard.reserve
    }

    /// A listener rests, because there was no descriptor; says whether that is news.
    #[must_use]
    pub fn paused(&self) -> bool {
        let settings = &self.shard.environment.settings;
        // It may have fewer than it knows of: then whoever gets one that is given back is shed at once, by its number.
        settings.limits.descriptors.look();
        settings.accepts.paused(Instant::now())
    }

    /// A connection could be taken: whether the shortage is over. It is said.
    #[must_use]
    pub fn recovered(&self) -> bool {
        let over = self.shard.environment.settings.accepts.is_over(Instant::now());
        if over == Some(true) {
            tracing::info!("connections are accepted again");
        }
        over.is_some()
    }
}
