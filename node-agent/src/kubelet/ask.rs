//! The proxy half's end: asks about one connection, and takes everything that is no clear answer for "not the kubelet".

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use weft_runtime::metrics::Registry;

use super::talk::{Answer, MAX_LINE, Question, TalkError, VERSION, decode, encode};
use crate::pods::PodUid;

/// An answer takes a millisecond; a probe's own patience is a second, unless it is told otherwise.
const PATIENCE: Duration = Duration::from_secs(1);

/// Questions at a time of one proxy half; the capture half looks for one after the other.
const AT_A_TIME: usize = 32;

/// What was answered, counted.
#[derive(Clone, Debug, Default)]
pub struct QuestionMetrics {
    answers: Family<AnswerLabels, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AnswerLabels {
    answer: &'static str,
}

impl QuestionMetrics {
    /// Registered.
    #[must_use]
    pub fn new(registry: &Registry) -> Self {
        let metrics = Self::default();
        let help = "Questions whether a connection that policies refuse is a probe of the kubelet, by answer";
        registry.register(|registry| registry.register("weft_kubelet_questions", help, metrics.answers.clone()));
        metrics
    }

    fn count(&self, answer: &'static str) {
        self.answers.get_or_create(&AnswerLabels { answer }).inc();
    }
}

/// Whom to ask. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Kubelet {
    /// None: nobody, and no connection is the kubelet's.
    socket: Option<Arc<Path>>,
    places: Arc<Semaphore>,
    metrics: QuestionMetrics,
}

impl Default for Kubelet {
    fn default() -> Self {
        Self { socket: None, places: Arc::new(Semaphore::new(AT_A_TIME)), metrics: QuestionMetrics::default() }
    }
}

/// No answer. Where the capture half takes no questions (no Kubernetes, an older one) it is the first of these.
#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Talk(#[from] TalkError),
}

impl Kubelet {
    /// Asks the capture half at this socket.
    #[must_use]
    pub fn at(socket: PathBuf, metrics: QuestionMetrics) -> Self {
        Self { socket: Some(socket.into()), metrics, ..Self::default() }
    }

    /// Whose the other end of a connection is. Asked anew for each: an answer is about a socket of this moment.
    pub async fn ask(&self, pod: &PodUid, client: SocketAddr, target: SocketAddr) -> Answer {
        let Some(socket) = &self.socket else { return Answer::Other { detail: None } };
        let question = Question { version: VERSION, pod: pod.clone(), client, target };
        let asked = async {
            // Never closed.
            let _place = self.places.acquire().await;
            exchange(socket, &question).await
        };
        let answer = match timeout(PATIENCE, asked).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                tracing::debug!(%error, "the capture half was not asked whose a connection is");
                self.metrics.count("none");
                return Answer::Other { detail: None };
            }
            Err(_elapsed) => {
                self.metrics.count("none");
                return Answer::other("the capture half did not say in time whether it is a probe of the kubelet");
            }
        };
        self.metrics.count(match &answer {
            Answer::Kubelet => "kubelet",
            Answer::Gone => "gone",
            Answer::Other { .. } => "other",
        });
        answer
    }
}

async fn exchange(socket: &Path, question: &Question) -> Result<Answer, AskError> {
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(&encode(question)?).await?;
    let mut line = Vec::new();
    BufReader::new(stream.take(MAX_LINE as u64)).read_until(b'\n', &mut line).await?;
    Ok(decode(&line)?)
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;

    async fn ask(kubelet: &Kubelet) -> Answer {
        kubelet.ask(&"pod".into(), "10.0.0.1:4000".parse().unwrap(), "10.0.0.2:80".parse().unwrap()).await
    }

    /// What is asked when a capture half says this.
    async fn answered(words: &'static [u8]) -> Answer {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kubelet.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let server = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = BufReader::new(stream);
            let mut question = Vec::new();
            stream.read_until(b'\n', &mut question).await.unwrap();
            assert_eq!(decode::<Question>(&question).unwrap().version, VERSION);
            stream.write_all(words).await.unwrap();
        });
        let answer = ask(&Kubelet::at(path, QuestionMetrics::default())).await;
        server.await.unwrap();
        answer
    }

    #[tokio::test]
    async fn only_a_clear_word_is_a_word() {
        assert_eq!(answered(b"{\"owner\":\"kubelet\"}\n").await, Answer::Kubelet);
        assert_eq!(answered(b"{\"owner\":\"gone\"}\n").await, Answer::Gone);
        let other = Answer::Other { detail: None };
        for words in [&b"{\"owner\":\"kubelet\"}"[..], b"", b"kubelet\n", b"{\"owner\":\"kubelet\",\"x\":1\n"] {
            assert_eq!(answered(words).await, other);
        }
        assert_eq!(ask(&Kubelet::default()).await, other);
        assert_eq!(ask(&Kubelet::at("/nowhere/kubelet.sock".into(), QuestionMetrics::default())).await, other);
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kubelet.sock");
        let _listener = UnixListener::bind(&path).unwrap();
        let begin = tokio::time::Instant::now();
        assert!(matches!(ask(&Kubelet::at(path, QuestionMetrics::default())).await, Answer::Other { detail: Some(_) }));
        assert_eq!(begin.elapsed(), PATIENCE);
    }
}
