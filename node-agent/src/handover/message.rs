//! What the two halves say to each other: JSON records with a version, bounded in size, strict about unknown words.

use std::{collections::BTreeMap, net::IpAddr};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use thiserror::Error;

use crate::pods::{PodUid, Uncaptured, UncapturedReason};

/// Version of this protocol. Both halves come from one image, so a difference is an upgrade in progress: the side that
/// sees it says so and closes; the restarted half then matches.
pub const VERSION: u32 = 3;

/// Bytes of the longest record. A pod with 32 workers needs about 12 KiB; the kernel's default socket buffer
/// (212992 bytes) takes a record of this size whole.
pub const MAX_RECORD: usize = 64 * 1024;

/// Descriptors beside one record. The kernel's limit is 253 (`SCM_MAX_FD`, include/net/scm.h).
pub const MAX_DESCRIPTORS: usize = 253;

/// Data workers of one proxy: six listeners for each must fit into one record (`6 * 42 = 252`), rounded down.
pub const MAX_WORKERS: usize = 40;

/// A number of workers on a command line.
///
/// # Errors
/// It is none that the handover can carry: refused, not bent.
pub fn worker_count(text: &str) -> Result<usize, String> {
    let count = text.parse().ok().filter(|count| (1..=MAX_WORKERS).contains(count));
    count.ok_or_else(|| format!("expected 1 to {MAX_WORKERS}"))
}

/// Sockets of one request: more are asked for again, so that one pod cannot starve the others of descriptors.
pub const MAX_SOCKETS: usize = 64;

/// Pods of one [`Condition`] that are named: each takes at most some 600 bytes of the record (names of Kubernetes have at
/// most 253, namespaces 63).
pub const MAX_UNCAPTURED: usize = 100;

/// Why a record is refused. The connection is closed after it: the two halves do not understand each other.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum MessageError {
    /// Longer than [`MAX_RECORD`] (or cut off by the kernel, which is the same).
    #[error("handover record of {0} bytes, at most {MAX_RECORD} are allowed")]
    TooLong(usize),
    /// The other half speaks another version.
    #[error("handover version {found}, this half speaks {VERSION}: restart the older half")]
    Version {
        /// What the other half said.
        found: u32,
    },
    /// Right version, unknown word.
    #[error("unknown handover message {kind:?}")]
    Unknown {
        /// What the other half said, cut to 64 characters.
        kind: String,
    },
    /// Not JSON, or fields missing or wrong.
    #[error("handover record cannot be read: {0}")]
    Malformed(String),
    /// A field that is out of its range.
    #[error("handover record refused: {0}")]
    OutOfRange(&'static str),
}

/// Address family of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address. A v4-mapped IPv6 address counts as IPv6, as the kernel's sockets do.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// What a listener takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ListenerRole {
    /// The pod's own calls (15001).
    Outbound,
    /// Plaintext calls to the pod (15006).
    Inbound,
    /// HBONE to the pod (15008).
    Hbone,
}

impl ListenerRole {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Outbound, Self::Inbound, Self::Hbone];
}

/// Says what the descriptor of the same position is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListenerTag {
    /// Data worker that accepts from it, from 0.
    pub worker: usize,
    /// What arrives at it.
    pub role: ListenerRole,
    /// Address family.
    pub family: Family,
}

/// What the proxy must know of a captured pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PodInfo {
    /// Which life of which pod.
    pub uid: PodUid,
    /// Name within the namespace.
    pub name: String,
    /// Kubernetes namespace.
    pub namespace: String,
    /// Service account: with the namespace, the pod's identity.
    pub service_account: String,
    /// The pod's addresses.
    pub addresses: Vec<IpAddr>,
    /// Node that it runs on.
    pub node: String,
    /// Strict mTLS at the time of capture (the policy from xDS is what is enforced).
    pub strict: bool,
}

/// First words of a proxy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hello {
    /// Data workers, 1 to [`MAX_WORKERS`]: each gets its own listeners in every pod.
    pub workers: usize,
    /// Node that the proxy serves; must be the capture half's.
    pub node: String,
    /// When the proxy was started, in ticks since the machine was (no clock that can be set): of two that live beside
    /// each other the younger one serves, whoever comes first when the capture half returns.
    pub born: u64,
}

/// How it stands with the capture of this node's pods: for the proxy's metrics and pages, since this half has no port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    /// How many selected pods are not captured, by reason.
    pub counts: BTreeMap<UncapturedReason, u32>,
    /// The first [`MAX_UNCAPTURED`] of them.
    pub uncaptured: Vec<Uncaptured>,
    /// How often rules, routes or listeners had been changed by somebody, and were repaired, since this half started.
    pub repairs: u64,
}

impl Condition {
    /// Counts all, names as many as fit.
    pub fn new(uncaptured: impl IntoIterator<Item = Uncaptured>, repairs: u64) -> Self {
        let mut condition = Self { repairs, ..Self::default() };
        for pod in uncaptured {
            *condition.counts.entry(pod.reason).or_default() += 1;
            if condition.uncaptured.len() < MAX_UNCAPTURED {
                condition.uncaptured.push(pod);
            }
        }
        condition
    }
}

/// From the capture half to the proxy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum ToProxy {
    /// A captured pod, new or changed; one descriptor for each tag. Replaces what was said of this uid before.
    Pod {
        /// The pod.
        info: PodInfo,
        /// What the descriptors are.
        listeners: Vec<ListenerTag>,
    },
    /// The pod leaves the mesh: keep serving what is there, report [`ToCapture::Relaying`] until it is 0.
    Release {
        /// Which pod.
        uid: PodUid,
    },
    /// The pod is gone or released: close everything of it.
    Remove {
        /// Which pod.
        uid: PodUid,
    },
    /// Every pod that is captured now has been sent; a pod that was not named since connecting is no longer captured.
    SnapshotSent,
    /// Sockets to dial with from inside the pod, as many as there are descriptors (fewer than wanted is possible).
    Sockets {
        /// Which pod.
        uid: PodUid,
        /// Their family.
        family: Family,
    },
    /// A newer proxy has taken every pod: stop accepting, finish what is there. A later `Pod` revokes it.
    Retire,
    /// How it stands with the capture; replaces what was said before.
    Condition(Condition),
}

/// From the proxy to the capture half. [`Self::Draining`] and the counts are said again after every greeting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum ToCapture {
    /// Must come first, once.
    Hello(Hello),
    /// Listeners of a pod that this proxy still has from an earlier life of the capture half, one descriptor for each tag.
    /// Said right after the greeting: what fits is kept, so that a restart of the capture half changes no listener.
    Holds {
        /// Which pod.
        uid: PodUid,
        /// What the descriptors are.
        listeners: Vec<ListenerTag>,
    },
    /// Answer to `Pod`, `Release` and `Remove`.
    Ack {
        /// Which pod.
        uid: PodUid,
        /// Why the pod is not served, if it is not.
        error: Option<String>,
    },
    /// Asks for dial sockets.
    WantSockets {
        /// Which pod.
        uid: PodUid,
        /// Which family.
        family: Family,
        /// At most this many, at most [`MAX_SOCKETS`].
        count: usize,
    },
    /// Connections that this proxy relays for the pod now.
    Relaying {
        /// Which pod.
        uid: PodUid,
        /// Captured connections, in both directions.
        count: u64,
    },
    /// This proxy takes nothing new any more: another one shall.
    Draining,
}

/// A message of one direction: knows its words, so that an unknown one is named in the error.
pub trait Message: Serialize + DeserializeOwned {
    /// Every `kind` of this direction.
    const KINDS: &'static [&'static str];

    /// Refuses values that the types allow and the protocol does not.
    ///
    /// # Errors
    /// [`MessageError::OutOfRange`] names the field.
    fn check(&self) -> Result<(), MessageError>;
}

impl Message for ToProxy {
    const KINDS: &'static [&'static str] =
        &["pod", "release", "remove", "snapshot_sent", "sockets", "retire", "condition"];

    fn check(&self) -> Result<(), MessageError> {
        match self {
            Self::Pod { listeners, .. } if listeners.len() > MAX_DESCRIPTORS => {
                Err(MessageError::OutOfRange("more listeners than descriptors fit beside a record"))
            }
            Self::Condition(condition) if condition.uncaptured.len() > MAX_UNCAPTURED => {
                Err(MessageError::OutOfRange("more pods that are not captured than may be named"))
            }
            _ => Ok(()),
        }
    }
}

impl Message for ToCapture {
    const KINDS: &'static [&'static str] = &["hello", "holds", "ack", "want_sockets", "relaying", "draining"];

    fn check(&self) -> Result<(), MessageError> {
        match self {
            Self::Hello(hello) if hello.workers == 0 || hello.workers > MAX_WORKERS => {
                Err(MessageError::OutOfRange("workers must be 1 to 40"))
            }
            Self::Holds { listeners, .. } if listeners.len() > MAX_DESCRIPTORS => {
                Err(MessageError::OutOfRange("more listeners than descriptors fit beside a record"))
            }
            Self::Holds { listeners, .. } if listeners.iter().any(|tag| tag.worker >= MAX_WORKERS) => {
                Err(MessageError::OutOfRange("workers must be 1 to 40"))
            }
            Self::WantSockets { count, .. } if *count == 0 || *count > MAX_SOCKETS => {
                Err(MessageError::OutOfRange("count of sockets must be 1 to 64"))
            }
            _ => Ok(()),
        }
    }
}

/// The record for a message.
///
/// # Errors
/// [`MessageError::TooLong`], or what [`Message::check`] says.
pub fn encode<M: Message>(message: &M) -> Result<Vec<u8>, MessageError> {
    message.check()?;
    let mut value = serde_json::to_value(message).map_err(|error| MessageError::Malformed(error.to_string()))?;
    if let Some(object) = value.as_object_mut() {
        object.insert("version".into(), VERSION.into());
    }
    let record = value.to_string().into_bytes();
    if record.len() > MAX_RECORD { Err(MessageError::TooLong(record.len())) } else { Ok(record) }
}

/// The message in a record. Never panics, whatever the bytes are.
///
/// # Errors
/// Every variant of [`MessageError`].
pub fn decode<M: Message>(record: &[u8]) -> Result<M, MessageError> {
    if record.len() > MAX_RECORD {
        return Err(MessageError::TooLong(record.len()));
    }
    let malformed = |error: serde_json::Error| MessageError::Malformed(error.to_string());
    let mut value: serde_json::Value = serde_json::from_slice(record).map_err(malformed)?;
    let object = value.as_object_mut().ok_or_else(|| MessageError::Malformed("not an object".into()))?;
    let version = object.remove("version").and_then(|version| version.as_u64());
    match version.and_then(|version| u32::try_from(version).ok()) {
        Some(VERSION) => {}
        Some(found) => return Err(MessageError::Version { found }),
        None => return Err(MessageError::Malformed("no version".into())),
    }
    let kind = object.get("kind").and_then(|kind| kind.as_str()).unwrap_or_default();
    if !M::KINDS.contains(&kind) {
        return Err(MessageError::Unknown { kind: kind.chars().take(64).collect() });
    }
    let message: M = serde_json::from_value(value).map_err(malformed)?;
    message.check()?;
    Ok(message)
}

#[cfg(test)]
mod tests;
