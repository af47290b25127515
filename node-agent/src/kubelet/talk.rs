//! One question and its answer: a line of JSON each way over a Unix socket, then the end of the connection.
//!
//! Beside the handover and not in it: a message that an older half does not know ends the handover's conversation. Here the worst
//! that two versions do to each other is that a probe is refused, as it is by an agent that knows nothing of probes.

use std::net::SocketAddr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::pods::PodUid;

/// What both sides speak. To be raised with any change of what is written.
pub const VERSION: u32 = 1;

/// The socket, in the directory of the handover socket.
pub const SOCKET_FILE: &str = "kubelet.sock";

/// The longest line, in bytes: a question has a uid and two addresses, an answer a sentence.
pub const MAX_LINE: usize = 4096;

/// Whose is the other end of this connection?
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// [`VERSION`].
    pub version: u32,
    /// The pod that it came to.
    pub pod: PodUid,
    /// Where it came from.
    pub client: SocketAddr,
    /// The pod's address and port that it asked for.
    pub target: SocketAddr,
}

/// What the capture half has found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "owner", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Answer {
    /// The kubelet of this node holds it, and the port is one that the pod names for probes.
    Kubelet,
    /// It came from this node to such a port, and is closed already.
    Gone,
    /// Anything else.
    Other {
        /// Why not, where it came from this node: for whoever wonders about a refused probe.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        detail: Option<String>,
    },
}

impl Answer {
    /// Not the kubelet, and why.
    pub fn other(detail: impl ToString) -> Self {
        Self::Other { detail: Some(detail.to_string()) }
    }
}

/// A line that cannot be read.
#[derive(Debug, Error)]
pub enum TalkError {
    /// Longer than [`MAX_LINE`], or cut off.
    #[error("no whole line of at most {MAX_LINE} bytes")]
    Length,
    /// Not what is expected.
    #[error("cannot be read: {0}")]
    Json(#[from] serde_json::Error),
}

/// One line.
///
/// # Errors
/// [`TalkError::Length`].
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, TalkError> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    if line.len() > MAX_LINE { Err(TalkError::Length) } else { Ok(line) }
}

/// What [`encode`] made.
///
/// # Errors
/// [`TalkError`]; unknown words and fields are errors.
pub fn decode<T: DeserializeOwned>(line: &[u8]) -> Result<T, TalkError> {
    let text = line.strip_suffix(b"\n").filter(|_| line.len() <= MAX_LINE).ok_or(TalkError::Length)?;
    Ok(serde_json::from_slice(text)?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn questions_come_back(version: u32, pod in ".{0,200}", client: SocketAddr, target: SocketAddr) {
            // A zone and a flow label are of one machine, and no part of an address in text.
            let plain = |address: SocketAddr| SocketAddr::new(address.ip(), address.port());
            let question = Question { version, pod: pod.into(), client: plain(client), target: plain(target) };
            let line = encode(&question).unwrap();
            prop_assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
            prop_assert_eq!(decode::<Question>(&line).unwrap(), question);
        }

        #[test]
        fn answers_come_back(detail in proptest::option::of(".{0,200}")) {
            for answer in [Answer::Kubelet, Answer::Gone, Answer::Other { detail: detail.clone() }] {
                let line = encode(&answer).unwrap();
                prop_assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
                prop_assert_eq!(decode::<Answer>(&line).unwrap(), answer);
            }
        }

        #[test]
        fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _either = (decode::<Question>(&bytes), decode::<Answer>(&bytes));
        }

        #[test]
        fn what_is_cut_off_is_no_answer(cut in 0usize..20) {
            let line = encode(&Answer::Kubelet).unwrap();
            prop_assert!(decode::<Answer>(&line[..cut.min(line.len() - 1)]).is_err());
        }
    }

    #[test]
    fn what_this_version_does_not_know_is_an_error() {
        for line in [r#"{"owner":"somebody"}"#, r#"{"owner":"other","more":1}"#, "{}", r#""kubelet""#] {
            assert!(decode::<Answer>(format!("{line}\n").as_bytes()).is_err(), "{line}");
        }
        let more = r#"{"version":1,"pod":"p","client":"10.0.0.1:1","target":"10.0.0.2:2","more":1}"#;
        assert!(decode::<Question>(format!("{more}\n").as_bytes()).is_err());
        assert!(matches!(decode::<Answer>(&[b' '; MAX_LINE + 1]), Err(TalkError::Length)));
    }
}
