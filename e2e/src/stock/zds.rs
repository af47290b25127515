//! The agent's side of ZDS (`istio.workload.zds`, between istio-cni and ztunnel): tells proxies that dial in which pods they serve, each with
//! its network namespace. One message per packet of a SOCK_SEQPACKET socket; protobuf of four small messages, by hand.

use std::fs::File;
use std::io::{IoSlice, Read};
use std::os::fd::{AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use socket2::{Domain, SockAddr, Socket, Type};

/// The wire's own deadline of a message (ztunnel's).
const DEADLINE: Duration = Duration::from_secs(5);
/// The wire's largest message.
const LARGEST: usize = 1024;

/// A pod as ZDS names it.
#[derive(Clone, Debug)]
pub struct ZdsPod {
    /// As in the pod's metadata; any unique word here.
    pub uid: String,
    /// Name of the pod.
    pub name: String,
    /// Its Kubernetes namespace.
    pub namespace: String,
    /// Its service account.
    pub account: String,
    /// Name of its network namespace under /run/netns.
    pub netns: String,
}

/// What is said to a proxy, and what it answered: empty when it agreed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// Number of the connection, from 1.
    pub proxy: usize,
    /// The message in words.
    pub said: String,
    /// What the proxy did not like.
    pub error: String,
}

#[derive(Clone, Debug)]
enum Command {
    Add(ZdsPod),
    Delete(String),
}

#[derive(Debug, Default)]
struct Shared {
    pods: Vec<ZdsPod>,
    proxies: Vec<mpsc::Sender<Command>>,
    exchanges: Vec<Exchange>,
}

/// A running ZDS server.
#[derive(Debug)]
pub struct ZdsServer {
    path: PathBuf,
    shared: Arc<Mutex<Shared>>,
}

impl ZdsServer {
    /// Listens at `path`; its first snapshot is `pods`.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub fn start(path: &Path, pods: Vec<ZdsPod>) -> Result<Self> {
        let listener = Socket::new(Domain::UNIX, Type::SEQPACKET, None)?;
        listener.bind(&SockAddr::unix(path)?).with_context(|| path.display().to_string())?;
        listener.listen(8)?;
        let shared = Arc::new(Mutex::new(Shared { pods, ..Shared::default() }));
        let inner = Arc::clone(&shared);
        thread::spawn(move || {
            while let Ok((socket, _)) = listener.accept() {
                let shared = Arc::clone(&inner);
                // A proxy that goes away ends its thread; what went wrong shows as a missing exchange.
                thread::spawn(move || serve(&socket, &shared));
            }
        });
        Ok(Self { path: path.to_owned(), shared })
    }

    /// Where it listens.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A pod came: every proxy that is there is told.
    pub fn add(&self, pod: ZdsPod) {
        let mut shared = self.shared.lock().expect("no panic while held");
        shared.pods.push(pod.clone());
        shared.proxies.retain(|proxy| proxy.send(Command::Add(pod.clone())).is_ok());
    }

    /// A pod went.
    pub fn delete(&self, uid: &str) {
        let mut shared = self.shared.lock().expect("no panic while held");
        shared.pods.retain(|pod| pod.uid != uid);
        shared.proxies.retain(|proxy| proxy.send(Command::Delete(uid.to_owned())).is_ok());
    }

    /// Everything said and answered up to now.
    #[must_use]
    pub fn exchanges(&self) -> Vec<Exchange> {
        self.shared.lock().expect("no panic while held").exchanges.clone()
    }
}

fn serve(socket: &Socket, shared: &Mutex<Shared>) -> Result<()> {
    socket.set_read_timeout(Some(DEADLINE))?;
    let hello = receive(socket)?;
    ensure!(hello == [0x08, 1], "ZdsHello{{version: V1}}, not {hello:?}");
    let (sender, commands) = mpsc::channel();
    let (number, pods) = {
        let mut shared = shared.lock().expect("no panic while held");
        shared.proxies.push(sender);
        (shared.proxies.len(), shared.pods.clone())
    };
    let ask = |said: String, request: &[u8], netns: Option<&str>| -> Result<()> {
        let namespace = netns.map(|name| File::open(Path::new("/run/netns").join(name))).transpose()?;
        let descriptors: Vec<RawFd> = namespace.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&descriptors)];
        let rights = if descriptors.is_empty() { &[][..] } else { &rights[..] };
        sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(request)], rights, MsgFlags::empty(), None)?;
        let error = error_of(&receive(socket)?)?;
        shared.lock().expect("no panic while held").exchanges.push(Exchange { proxy: number, said, error });
        Ok(())
    };
    for pod in &pods {
        ask(format!("add {}", pod.uid), &add(pod), Some(&pod.netns))?;
    }
    ask("snapshot".to_owned(), &message(3, &[]), None)?;
    for command in commands {
        match command {
            Command::Add(pod) => ask(format!("add {}", pod.uid), &add(&pod), Some(&pod.netns))?,
            Command::Delete(uid) => ask(format!("delete {uid}"), &message(2, &string(2, &uid)), None)?,
        }
    }
    Ok(())
}

fn receive(socket: &Socket) -> Result<Vec<u8>> {
    let mut buffer = [0; LARGEST];
    let length = { socket }.read(&mut buffer)?;
    ensure!(length > 0, "the proxy went away");
    Ok(buffer[..length].to_vec())
}

/// Field `number` with length and content (wire type 2); everything here is shorter than two varint bytes hold.
fn message(number: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).expect("far below the largest message");
    let mut bytes = vec![number << 3 | 2];
    match u8::try_from(length) {
        Ok(short) if short < 0x80 => bytes.push(short),
        _ => bytes.extend([(length & 0x7f | 0x80).to_le_bytes()[0], (length >> 7).to_le_bytes()[0]]),
    }
    bytes.extend_from_slice(content);
    bytes
}

fn string(number: u8, text: &str) -> Vec<u8> {
    message(number, text.as_bytes())
}

fn add(pod: &ZdsPod) -> Vec<u8> {
    let info = [string(1, &pod.name), string(2, &pod.namespace), string(3, &pod.account)].concat();
    message(1, &[string(1, &pod.uid), message(2, &info)].concat())
}

/// The error in a WorkloadResponse: `{1: Ack{1: error}}`, nothing in the Ack when all is well.
fn error_of(response: &[u8]) -> Result<String> {
    let [0x0a, _, ack @ ..] = response else { anyhow::bail!("an Ack, not {response:?}") };
    Ok(ack.get(2..).map(|text| String::from_utf8_lossy(text).into_owned()).unwrap_or_default())
}
