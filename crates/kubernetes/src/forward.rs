//! A port of a pod, through the API server: what `kubectl port-forward` does, without a port on this machine that others could use.
//!
//! The kubelet connects to `localhost` in the pod's network, so a page that listens on 127.0.0.1 there is reached, and stays closed for
//! everybody else.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use k8s_openapi::api::core::v1::Pod;
use kube::api::Api;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::time::timeout;

use crate::client::words;
use crate::cluster::Cluster;

/// The kubelet's words come right behind the end of the connection.
const WORDS: Duration = Duration::from_millis(500);

/// The port cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// The user may not.
    #[error(
        "you may not reach ports of pods in {namespace}: {message}; ask for the verbs get and create of pods/portforward there (or ask an \
         address with --admin)"
    )]
    Forbidden {
        /// Where.
        namespace: String,
        /// The API server's words.
        message: String,
    },
    /// Anything else.
    #[error("port {port} of pod {namespace}/{pod} cannot be reached through the API server: {words}")]
    Api {
        /// Where.
        namespace: String,
        /// Which.
        pod: String,
        /// Which.
        port: u16,
        /// What was said.
        words: String,
    },
}

/// A connection to a port of a pod.
pub struct Forward {
    stream: DuplexStream,
    words: BoxFuture<'static, Option<String>>,
}

impl std::fmt::Debug for Forward {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Forward").finish_non_exhaustive()
    }
}

impl Forward {
    /// What the kubelet has said of a connection that ended without an answer: that nobody listens there, say.
    pub async fn words(self) -> Option<String> {
        drop(self.stream);
        timeout(WORDS, self.words).await.ok().flatten()
    }
}

impl Cluster {
    /// Connects to a port of a pod.
    ///
    /// # Errors
    /// [`ForwardError`]. That nobody listens at the port shows later: the stream ends, and [`Forward::words`] says so.
    pub async fn forward(&self, namespace: &str, pod: &str, port: u16) -> Result<Forward, ForwardError> {
        let api = Api::<Pod>::namespaced(self.client(), namespace);
        let mut forwarder = api.portforward(pod, &[port]).await.map_err(|cause| match cause {
            kube::Error::Api(status) if status.code == 403 => {
                ForwardError::Forbidden { namespace: namespace.to_owned(), message: status.message.clone() }
            }
            cause => {
                ForwardError::Api { namespace: namespace.to_owned(), pod: pod.to_owned(), port, words: words(&cause) }
            }
        })?;
        let stream = forwarder.take_stream(port).expect("the port that was asked for, taken once");
        let words = forwarder.take_error(port).expect("the port that was asked for, taken once");
        Ok(Forward { stream, words: words.boxed() })
    }
}

impl AsyncRead for Forward {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Forward {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
