//! What the CNI plugin and the capture half say to each other: one line of JSON each way, then the end of the connection.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// The longest line, in bytes: a pod has a few names and two addresses.
pub const MAX_LINE: usize = 64 * 1024;

/// Where the capture half listens if nothing else is said.
pub const SOCKET: &str = "/run/weft/cni.sock";

/// What the plugin asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum Request {
    /// A pod's network is made: is it captured?
    Add(NewPod),
    /// A pod's network goes.
    Delete {
        /// The sandbox.
        container: String,
    },
}

/// A pod whose network has just been made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewPod {
    /// Kubernetes namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Kubernetes uid.
    pub uid: String,
    /// The sandbox: one pod may have several, one after the other.
    pub container: String,
    /// Path of its network namespace, as the container runtime sees it.
    pub netns: String,
    /// Its addresses, by the plugins before this one.
    pub addresses: Vec<IpAddr>,
}

/// What the capture half says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Answer {
    /// Rules and listeners stand.
    Captured,
    /// The pod is not selected.
    NotSelected,
    /// A sandbox is forgotten.
    Forgotten,
    /// The pod must not start yet.
    Failed {
        /// Why, with the next step.
        message: String,
    },
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pod() -> impl Strategy<Value = NewPod> {
        let texts = (".*", ".*", ".*", ".*", ".*");
        (texts, proptest::collection::vec(any::<IpAddr>(), 0..4)).prop_map(
            |((namespace, name, uid, container, netns), addresses)| NewPod {
                namespace,
                name,
                uid,
                container,
                netns,
                addresses,
            },
        )
    }

    fn one_line<T: Serialize>(value: &T) -> String {
        let text = serde_json::to_string(value).unwrap();
        assert!(!text.contains('\n'));
        text
    }

    proptest! {
        #[test]
        fn requests_come_back(pod in pod(), container in ".*") {
            for request in [Request::Add(pod.clone()), Request::Delete { container: container.clone() }] {
                prop_assert_eq!(serde_json::from_str::<Request>(&one_line(&request)).unwrap(), request);
            }
        }

        #[test]
        fn answers_come_back(message in ".*") {
            for answer in [Answer::Captured, Answer::NotSelected, Answer::Forgotten, Answer::Failed { message: message.clone() }] {
                prop_assert_eq!(serde_json::from_str::<Answer>(&one_line(&answer)).unwrap(), answer);
            }
        }
    }
}
