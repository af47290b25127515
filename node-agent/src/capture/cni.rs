//! The socket at which the CNI plugin asks whether a new pod is captured. One question a connection; what is answered is decided by
//! [`super::told`], in the loop of [`super::serve`].

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::cni::talk::{Answer, MAX_LINE, Request};

/// A question comes at once, or from something that is no plugin.
const QUESTION: Duration = Duration::from_secs(5);

/// Questions at a time: more than a node has pods.
const MAX_QUESTIONS: usize = 1000;

/// One question, and where its answer goes.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) request: Request,
    pub(super) answer: oneshot::Sender<Answer>,
}

/// A bound socket.
#[derive(Debug)]
pub(super) struct CniServer {
    listener: UnixListener,
}

impl CniServer {
    /// Makes the socket file, for root alone. Whoever calls this is the only capture half of the node (the lock of the handover socket): what
    /// lies there is an earlier life's.
    pub(super) fn bind(path: &Path) -> io::Result<Self> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // Under another name until its permissions are right.
        let beside = path.with_extension("new");
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&beside)?;
        fs::set_permissions(&beside, fs::Permissions::from_mode(0o600))?;
        fs::rename(&beside, path)?;
        Ok(Self { listener })
    }

    /// Takes questions until nobody answers any more.
    pub(super) async fn serve(self, calls: mpsc::Sender<Call>) {
        let mut talks = JoinSet::new();
        while !calls.is_closed() {
            tokio::select! {
                accepted = self.listener.accept(), if talks.len() < MAX_QUESTIONS => match accepted {
                    Ok((stream, _)) => _ = talks.spawn(converse(stream, calls.clone())),
                    Err(error) => {
                        // Out of descriptors, as a rule: do not spin.
                        tracing::warn!(%error, "cannot hear the CNI plugin");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
                Some(_ended) = talks.join_next() => {}
                () = calls.closed() => {}
            }
        }
    }
}

async fn converse(stream: UnixStream, calls: mpsc::Sender<Call>) {
    if let Err(error) = answer(stream, &calls).await {
        tracing::debug!(%error, "a question of the CNI plugin came to nothing");
    }
}

async fn answer(stream: UnixStream, calls: &mpsc::Sender<Call>) -> io::Result<()> {
    let root_or_own = [0, nix::unistd::geteuid().as_raw()];
    if !root_or_own.contains(&stream.peer_cred()?.uid()) {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let (reading, mut writing) = stream.into_split();
    let mut reader = BufReader::new(reading.take(MAX_LINE as u64));
    let mut line = String::new();
    timeout(QUESTION, reader.read_line(&mut line)).await??;
    let mut request: Request = serde_json::from_str(&line)?;
    if let Request::Add(pod) = &mut request {
        pod.netns = seen_from_here(&pod.netns);
    }
    let (sender, received) = oneshot::channel();
    let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
    calls.send(Call { request, answer: sender }).await.map_err(|_| gone())?;
    let mut more = [0; 1];
    let answer = tokio::select! {
        answer = received => answer.map_err(|_| gone())?,
        // The plugin says nothing more: it ended. Without `received` its question is dropped.
        _ended = reader.read(&mut more) => return Err(gone()),
    };
    let mut text = serde_json::to_string(&answer)?;
    text.push('\n');
    writing.write_all(text.as_bytes()).await
}

/// The container runtime's path where this half, in a container, finds it: by the first process of the node.
fn seen_from_here(netns: &str) -> String {
    let of_node = of_node(netns);
    if of_node.exists() { of_node.to_string_lossy().into_owned() } else { netns.to_owned() }
}

/// `/var/run` is a link to `/run`, and an absolute one would lead out of the node's root into ours. Process ids are the node's.
fn of_node(netns: &str) -> PathBuf {
    if netns.starts_with("/proc/") {
        return netns.into();
    }
    let netns = netns.strip_prefix("/var/run/").map_or_else(|| netns.to_owned(), |rest| format!("/run/{rest}"));
    Path::new("/proc/1/root").join(netns.trim_start_matches('/'))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("/var/run/netns/cni-1", "/proc/1/root/run/netns/cni-1")]
    #[case("/run/netns/cni-1", "/proc/1/root/run/netns/cni-1")]
    #[case("/proc/77/ns/net", "/proc/77/ns/net")]
    fn namespaces_of_the_node(#[case] netns: &str, #[case] expected: &str) {
        assert_eq!(of_node(netns), Path::new(expected));
    }

    #[tokio::test]
    async fn a_question_and_its_answer() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cni.sock");
        fs::write(&path, "left by an earlier life").unwrap();
        let server = CniServer::bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let (calls, mut received) = mpsc::channel(1);
        let serving = tokio::spawn(server.serve(calls));
        let request = Request::Delete { container: "c".to_owned() };
        let asked = request.clone();
        let plugin = std::thread::spawn(move || {
            crate::cni::ask::tell(&path, &asked);
            crate::cni::ask::ask(&path, &asked)
        });
        for (answer, heard) in [(Answer::Forgotten, true), (Answer::NotSelected, true)] {
            let call = received.recv().await.unwrap();
            assert_eq!(call.request, request);
            assert_eq!(call.answer.send(answer).is_ok(), heard);
        }
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        while !plugin.is_finished() && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        plugin.join().unwrap().unwrap();
        drop(received);
        serving.await.unwrap();
    }
}
