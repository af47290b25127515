//! Somebody at a pod's port 15008 who need not be who it should be: with a certificate of any identity, of the mesh's own
//! root or of another, valid or expired, and a CONNECT written byte by byte (testkit stands below the tunnels' crate).

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, anyhow};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
/// A certificate with its key.
pub use weft_identity::Credentials;
use weft_identity::request::Request;
use weft_identity::signer::{LeafLifetime, RootMaterial, Signer};
use weft_identity::tls;
use weft_model::SpiffeId;

use crate::traffic::connect;

/// The whole conversation; an agent answers in milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);
/// A certificate's life here; an expired one is made this long and some more ago.
const LIFE: Duration = Duration::from_secs(600);
/// HTTP/2's first bytes from a client (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Frame types (RFC 9113 section 6).
const HEADERS: u8 = 1;
/// The whole header block is in this frame.
const END_HEADERS: u8 = 4;
/// HPACK's static table: `:status: 200` (RFC 7541 appendix A), the indexed form.
const STATUS_200: u8 = 0x88;
/// HPACK's word on the size of the dynamic table, when it is small.
const TABLE_SIZE: std::ops::Range<u8> = 0x20..0x40;

/// A certificate request (PEM) for an identity, as an agent makes it; nobody keeps its key.
///
/// # Errors
/// No randomness.
pub fn certificate_request(identity: &SpiffeId) -> Result<String> {
    Ok(Request::new(identity)?.csr_pem)
}

/// A new root: its certificate and its key, PEM.
///
/// # Errors
/// No randomness.
pub fn root(trust_domain: &str) -> Result<(String, String)> {
    let root = RootMaterial::create(trust_domain, LIFE * 144, SystemTime::now())?;
    Ok((root.certificate_pem, root.key_pem.to_string()))
}

/// Somebody who signs certificates.
#[derive(Debug)]
pub struct Authority {
    signer: Signer,
}

impl Authority {
    /// The one of a control plane with this `--state-dir`.
    ///
    /// # Errors
    /// It has not made its root yet.
    pub fn of_server(state: &Path) -> Result<Self> {
        let path = state.join("ca/root.pem");
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let key = text.find("-----BEGIN PRIVATE KEY-----").context("a private key")?;
        Self::load(&text, &text[key..])
    }

    /// One that nobody knows.
    ///
    /// # Errors
    /// No randomness.
    pub fn foreign(trust_domain: &str) -> Result<Self> {
        let root = RootMaterial::create(trust_domain, LIFE * 10, SystemTime::now())?;
        Self::load(&root.certificate_pem, &root.key_pem)
    }

    fn load(certificate: &str, key: &str) -> Result<Self> {
        let signer = Signer::load(certificate, key, None, LeafLifetime::default(), SystemTime::now())?;
        Ok(Self { signer })
    }

    /// A certificate for `identity`, valid now.
    ///
    /// # Errors
    /// Not a SPIFFE identity.
    pub fn issue(&self, identity: &str) -> Result<Credentials> {
        self.issue_at(identity, SystemTime::now())
    }

    /// One that was valid until some minutes ago.
    ///
    /// # Errors
    /// Not a SPIFFE identity.
    pub fn issue_expired(&self, identity: &str) -> Result<Credentials> {
        self.issue_at(identity, SystemTime::now() - LIFE - Duration::from_secs(300))
    }

    fn issue_at(&self, identity: &str, now: SystemTime) -> Result<Credentials> {
        let identity: SpiffeId = identity.parse().map_err(|error| anyhow!("{identity}: {error}"))?;
        Ok(self.signer.issue(&identity, Some(LIFE), now)?)
    }
}

/// How an agent answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// 200: the tunnel stands.
    Opened,
    /// Another status.
    Refused,
    /// TLS or the connection ended before an answer, with the system's words.
    Ended(String),
}

/// Asks the agent at `pod` (an address and port 15008), which must prove to be `expected`, for a tunnel to `target`.
///
/// # Errors
/// No TCP connection; no answer at all within 5 s.
pub fn ask_tunnel(
    netns: &str,
    pod: SocketAddr,
    credentials: &Credentials,
    expected: &str,
    target: SocketAddr,
) -> Result<Answer> {
    let expected: SpiffeId = expected.parse().map_err(|error| anyhow!("{expected}: {error}"))?;
    let config = tls::client_config(credentials, &[expected])?;
    let stream = connect(netns, pod, PATIENCE).with_context(|| format!("{pod} from {netns}"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let conversation = async {
            let stream = into_tokio(stream)?;
            let mut stream = match tls::connect(stream, config).await {
                Ok(stream) => stream,
                Err(error) => return Ok(Answer::Ended(error.to_string())),
            };
            // In TLS 1.3 a server that refuses the certificate is heard at the first read, or write.
            let asked = stream.write_all(&request(target)).await;
            let answer = match asked {
                Ok(()) => status(&mut stream).await,
                Err(error) => Err(error),
            };
            anyhow::Ok(answer.unwrap_or_else(|error| Answer::Ended(error.to_string())))
        };
        tokio::time::timeout(PATIENCE, conversation).await.context("no answer in 5 s")?
    })
}

fn into_tokio(stream: TcpStream) -> Result<tokio::net::TcpStream> {
    stream.set_nonblocking(true)?;
    Ok(tokio::net::TcpStream::from_std(stream)?)
}

/// Preface, empty SETTINGS, and the CONNECT on stream 1: `:method` and `:authority` as literals with indexed names.
fn request(target: SocketAddr) -> Vec<u8> {
    let authority = target.to_string();
    let mut block = vec![0x02, 7];
    block.extend(b"CONNECT");
    // An address with its port has less than 64 bytes: one byte says the length.
    block.extend([0x01, u8::try_from(authority.len()).unwrap_or(0)]);
    block.extend(authority.as_bytes());
    let mut bytes = PREFACE.to_vec();
    bytes.extend([0, 0, 0, 4, 0, 0, 0, 0, 0]);
    bytes.extend([0, 0, u8::try_from(block.len()).unwrap_or(0), HEADERS, END_HEADERS, 0, 0, 0, 1]);
    bytes.extend(block);
    bytes
}

/// Reads frames up to the answer's head.
async fn status(stream: &mut (impl AsyncReadExt + Unpin)) -> std::io::Result<Answer> {
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload).await?;
        if head[3] == HEADERS {
            // What size the encoder's table has may be said first (RFC 7541 section 6.3).
            let first = payload.iter().find(|byte| !TABLE_SIZE.contains(*byte));
            return Ok(if first == Some(&STATUS_200) { Answer::Opened } else { Answer::Refused });
        }
    }
}
