//! The pool's only seam: how a ready encrypted stream to a peer comes into being.

use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;

use tokio::io::{AsyncBufRead, AsyncWrite};

use crate::error::ConnectionEnd;

/// What a pool may be keyed by: the real value, never a hash of it.
pub trait PoolKey: Eq + Hash + Clone + 'static {}

impl<K: Eq + Hash + Clone + 'static> PoolKey for K {}

/// Makes encrypted streams: TCP from inside the right network namespace, TLS, check of the peer. Shared by all dials of a pool.
pub trait Dial<K> {
    /// The encrypted stream. It reads ahead: frames are walked where they lie in its buffer.
    type Io: AsyncBufRead + AsyncWrite + Unpin + 'static;
    /// Why there is none; shared by all who wait for the dial.
    type Error: 'static;

    /// Connects to the peer that `key` names. May be dropped at any await: when the pool's deadline is over.
    fn dial(&self, key: &K) -> impl Future<Output = Result<Self::Io, Self::Error>>;

    /// A connection that was dialled has ended.
    fn ended(&self, _key: &K, _end: &ConnectionEnd) {}
}

/// Why a dial gave no connection. All callers that waited for it get the same.
#[derive(Debug)]
pub enum DialFailure<E> {
    /// The [`Dial`] failed.
    Dial(Arc<E>),
    /// The stream stood, HTTP/2 on it did not.
    Handshake(ConnectionEnd),
    /// Both together took longer than `PoolSettings::dial_timeout`.
    Timeout,
}

impl<E> Clone for DialFailure<E> {
    fn clone(&self) -> Self {
        match self {
            Self::Dial(error) => Self::Dial(Arc::clone(error)),
            Self::Handshake(end) => Self::Handshake(end.clone()),
            Self::Timeout => Self::Timeout,
        }
    }
}

impl<E: std::fmt::Display> std::fmt::Display for DialFailure<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Dial(error) => write!(f, "{error}"),
            Self::Handshake(end) => write!(f, "HTTP/2 handshake failed: {end}"),
            Self::Timeout => f.write_str("no connection in time"),
        }
    }
}
