//! Duplicates of the listeners that this proxy serves, for the successor of a capture half that was killed: whoever has the
//! very same sockets need not make others, and nothing that waits in them is lost.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use super::message::{ListenerTag, ToCapture, ToProxy};
use crate::pods::PodUid;

/// By pod. A duplicate costs an entry of the descriptor table, not a socket.
#[derive(Debug, Default)]
pub(super) struct Kept {
    pods: BTreeMap<PodUid, Vec<(ListenerTag, OwnedFd)>>,
    /// Pods that the current conversation has named.
    named: BTreeSet<PodUid>,
}

impl Kept {
    /// A new conversation: what it says of each pod, to be sent behind the greeting.
    pub(super) fn said_again(&mut self) -> Vec<(ToCapture, Vec<BorrowedFd<'_>>)> {
        self.named.clear();
        let say = |(uid, listeners): (&PodUid, &'_ Vec<(ListenerTag, OwnedFd)>)| ToCapture::Holds {
            uid: uid.clone(),
            listeners: listeners.iter().map(|(tag, _)| *tag).collect(),
        };
        let all = self.pods.iter();
        all.map(|pod| (say(pod), pod.1.iter().map(|(_, descriptor)| descriptor.as_fd()).collect())).collect()
    }

    /// Follows what the capture half says: the proxy serves just that.
    pub(super) fn heard(&mut self, message: &ToProxy, descriptors: &[OwnedFd]) {
        match message {
            ToProxy::Pod { info, listeners } => {
                self.named.insert(info.uid.clone());
                let duplicates = descriptors.iter().map(OwnedFd::try_clone).collect::<Result<Vec<_>, _>>();
                match duplicates {
                    Ok(duplicates) => {
                        let listeners = listeners.iter().copied().zip(duplicates).collect();
                        self.pods.insert(info.uid.clone(), listeners);
                    }
                    Err(error) => {
                        tracing::warn!(pod = %info.uid, %error, "a capture half that is restarted will replace its listeners");
                        self.pods.remove(&info.uid);
                    }
                }
            }
            ToProxy::Remove { uid } => _ = self.pods.remove(uid),
            ToProxy::SnapshotSent => self.pods.retain(|uid, _| self.named.contains(uid)),
            // A newer proxy has the same ones.
            ToProxy::Retire => self.pods.clear(),
            ToProxy::Release { .. } | ToProxy::Sockets { .. } | ToProxy::Condition(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;
    use crate::handover::{Family, ListenerRole, PodInfo};

    fn pod(uid: &str) -> ToProxy {
        let (name, namespace, service_account) = (uid.to_owned(), "shop".to_owned(), "default".to_owned());
        let (addresses, node) = (Vec::new(), "one".to_owned());
        let info = PodInfo { uid: uid.into(), name, namespace, service_account, addresses, node, strict: true };
        let tag = ListenerTag { worker: 0, role: ListenerRole::Hbone, family: Family::V4 };
        ToProxy::Pod { info, listeners: vec![tag] }
    }

    fn names(kept: &mut Kept) -> Vec<String> {
        let said = kept.said_again();
        let name = |(message, descriptors): &(ToCapture, Vec<_>)| match message {
            ToCapture::Holds { uid, listeners } if listeners.len() == descriptors.len() => uid.as_str().to_owned(),
            other => panic!("{other:?}"),
        };
        said.iter().map(name).collect()
    }

    #[test]
    fn what_is_served_is_kept_and_nothing_else() {
        let mut kept = Kept::default();
        let descriptor = || [OwnedFd::from(File::open("/dev/null").unwrap())];
        for uid in ["a", "b", "c", "a"] {
            kept.heard(&pod(uid), &descriptor());
        }
        kept.heard(&ToProxy::SnapshotSent, &[]);
        kept.heard(&ToProxy::Remove { uid: "b".into() }, &[]);
        assert_eq!(names(&mut kept), ["a", "c"], "a new conversation");
        kept.heard(&pod("c"), &descriptor());
        kept.heard(&ToProxy::SnapshotSent, &[]);
        assert_eq!(names(&mut kept), ["c"], "what a whole snapshot does not name is gone");
        kept.heard(&ToProxy::Retire, &[]);
        assert!(names(&mut kept).is_empty());
    }
}
