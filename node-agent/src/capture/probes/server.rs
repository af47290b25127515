//! The socket at which proxies ask whose a connection is. One question a connection, one look after the other.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use std::{fs, io};

use thiserror::Error;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::lookout::{Lookout, directory};
use super::owner::{KubeletCommand, is_probed};
use crate::capture::netns::{NetnsError, NetnsThread};
use crate::kubelet::talk::{Answer, MAX_LINE, Question, TalkError, VERSION, decode, encode};
use crate::pods::PodSpec;

/// A question comes at once and is answered within milliseconds; who asked has stopped waiting by then.
const PATIENCE: Duration = Duration::from_secs(1);

/// Questions at a time: as many as two proxies have, an old one and its successor.
const AT_A_TIME: usize = 64;

/// Who is asked for, and by whom.
#[derive(Clone, Debug)]
pub struct KubeletSettings {
    /// Socket file.
    pub socket: PathBuf,
    /// Users who may ask, by the kernel's word (SO_PEERCRED).
    pub allowed: Vec<u32>,
    /// Commands that are the kubelet.
    pub commands: Vec<KubeletCommand>,
    /// A process that has the node's own namespaces: the first one.
    pub node_process: u32,
}

/// Why no question can be taken.
#[derive(Debug, Error)]
#[error("cannot make the socket {path} where proxies ask for the kubelet: {source}; choose another --kubelet-socket")]
pub struct ProbeServerError {
    path: PathBuf,
    source: io::Error,
}

/// No answer.
#[derive(Debug, Error)]
enum QuestionError {
    #[error("user {0} may not ask")]
    User(u32),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Talk(#[from] TalkError),
    #[error("{0}")]
    Netns(#[from] NetnsError),
    #[error("not in time")]
    Late(#[from] tokio::time::error::Elapsed),
}

/// A bound socket.
#[derive(Debug)]
pub struct ProbeServer {
    listener: UnixListener,
    settings: KubeletSettings,
}

impl ProbeServer {
    /// Makes the socket file. Whoever calls this is the only capture half of the node (the lock of the handover socket): what lies
    /// there is an earlier life's. Everybody may connect, and only `allowed` users are heard.
    ///
    /// # Errors
    /// [`ProbeServerError`].
    pub fn bind(settings: KubeletSettings) -> Result<Self, ProbeServerError> {
        let path = &settings.socket;
        let bind = || {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let listener = UnixListener::bind(path)?;
            fs::set_permissions(path, fs::Permissions::from_mode(0o666))?;
            Ok(listener)
        };
        let listener = bind().map_err(|source| ProbeServerError { path: path.clone(), source })?;
        Ok(Self { listener, settings })
    }

    /// Takes questions about these pods until dropped.
    pub async fn serve(self, pods: watch::Receiver<Arc<Vec<PodSpec>>>) {
        let Self { listener, settings } = self;
        let post = match Post::take(&settings).await {
            Ok(post) => Arc::new(post),
            Err(error) => {
                tracing::warn!(%error, "probes of the kubelet cannot be told from other calls; strict pods refuse them");
                return;
            }
        };
        let allowed: Arc<[u32]> = settings.allowed.into();
        let mut talks = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept(), if talks.len() < AT_A_TIME => match accepted {
                    Ok((stream, _)) => _ = talks.spawn(converse(stream, allowed.clone(), post.clone(), pods.clone())),
                    Err(error) => {
                        // Out of descriptors, as a rule: do not spin.
                        tracing::warn!(%error, "cannot hear whose connection a proxy asks about");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
                Some(_ended) = talks.join_next() => {}
            }
        }
    }
}

/// The thread in the node's network namespace, and what works there.
struct Post {
    thread: NetnsThread,
    lookout: Arc<Mutex<Lookout>>,
}

impl Post {
    async fn take(settings: &KubeletSettings) -> Result<Self, QuestionError> {
        let thread = NetnsThread::of_node(&directory(settings.node_process))?;
        let (process, commands) = (settings.node_process, settings.commands.clone());
        let lookout = thread.run(move || Lookout::new(process, commands)).await??;
        Ok(Self { thread, lookout: Arc::new(Mutex::new(lookout)) })
    }

    async fn answer(&self, question: Question, pods: &[PodSpec]) -> Result<Answer, QuestionError> {
        if question.version != VERSION {
            let words = format!("the capture half knows version {VERSION} of the question, not {}", question.version);
            return Ok(Answer::other(words));
        }
        if let Err(why) = is_probed(pods, &question.pod, question.target) {
            tracing::debug!(pod = %question.pod, target = %question.target, %why, "no probe");
            return Ok(Answer::Other { detail: None });
        }
        let lookout = self.lookout.clone();
        let look = move || {
            // Whole at any time: what it remembers is looked at again before it counts.
            lookout.lock().unwrap_or_else(PoisonError::into_inner).look(question.client, question.target)
        };
        Ok(self.thread.run(look).await??)
    }
}

async fn converse(stream: UnixStream, allowed: Arc<[u32]>, post: Arc<Post>, pods: watch::Receiver<Arc<Vec<PodSpec>>>) {
    let talk = async {
        let user = stream.peer_cred()?.uid();
        if !allowed.contains(&user) {
            return Err(QuestionError::User(user));
        }
        let mut stream = BufReader::new(stream);
        let mut line = Vec::new();
        (&mut stream).take(MAX_LINE as u64).read_until(b'\n', &mut line).await?;
        let pods = pods.borrow().clone();
        let answer = post.answer(decode(&line)?, &pods).await?;
        stream.write_all(&encode(&answer)?).await?;
        Ok(())
    };
    let outcome = timeout(PATIENCE, talk).await.map_err(QuestionError::from).and_then(|outcome| outcome);
    if let Err(error) = outcome {
        tracing::debug!(%error, "a question whose a connection is came to nothing");
    }
}
