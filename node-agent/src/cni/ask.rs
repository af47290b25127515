//! The plugin's end of the socket: plain blocking calls, each with a time limit.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};
use std::{io, thread};

use super::plugin::{PluginError, judge};
use super::talk::{Answer, MAX_LINE, Request};

/// How long a pod waits for its capture: the kubelet gives a sandbox two minutes, and tries again by itself.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long an agent may be away: a restart takes a second or two. Then it is an error that people see in the pod's events.
const AWAY: Duration = Duration::from_secs(10);
/// How often it is looked for meanwhile.
const LOOK: Duration = Duration::from_millis(100);
/// How long telling that a sandbox goes may take: nothing depends on it.
const TELL: Duration = Duration::from_secs(1);

/// Asks and waits for the answer.
///
/// # Errors
/// The pod must not start yet.
pub fn ask(socket: &Path, request: &Request) -> Result<(), PluginError> {
    let begun = Instant::now();
    loop {
        let left = PATIENCE.saturating_sub(begun.elapsed());
        match talk(socket, request, left) {
            Ok(answer) => return judge(answer),
            // It ended or begins: asked again, the question is the same.
            Err(error) if is_away(&error) && begun.elapsed() < AWAY => thread::park_timeout(LOOK),
            Err(error) => return Err(PluginError::Agent(format!("{}: {error}", socket.display()))),
        }
    }
}

/// Tells something that nobody has to hear.
pub fn tell(socket: &Path, request: &Request) {
    let _unheard = talk(socket, request, TELL);
}

fn is_away(error: &io::Error) -> bool {
    let away = [
        ErrorKind::NotFound,
        ErrorKind::ConnectionRefused,
        ErrorKind::ConnectionReset,
        ErrorKind::BrokenPipe,
        ErrorKind::UnexpectedEof,
    ];
    away.contains(&error.kind())
}

fn talk(socket: &Path, request: &Request, limit: Duration) -> io::Result<Answer> {
    // Zero would mean no limit.
    let limit = Some(limit.max(Duration::from_millis(1)));
    let mut stream = UnixStream::connect(socket)?;
    stream.set_write_timeout(limit)?;
    stream.set_read_timeout(limit)?;
    let mut line = serde_json::to_string(request)?;
    line.push('\n');
    stream.write_all(line.as_bytes())?;
    let mut answer = String::new();
    let mut reader = BufReader::new(stream.take(MAX_LINE as u64));
    match reader.read_line(&mut answer) {
        Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
        Ok(_) => Ok(serde_json::from_str(&answer)?),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            Err(io::Error::new(ErrorKind::TimedOut, "no answer in time"))
        }
        Err(error) => Err(error),
    }
}
