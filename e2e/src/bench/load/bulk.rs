//! Streams of bytes, one thread for each at either end, in pieces of a size that is a setting: how much a pod writes at once
//! decides what the direct path can do.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Instant;

use socket2::Socket;

use super::closed::connect;
use super::drive::{Control, PATIENCE, Tally, Work};
use super::seen::Seen;

/// One stream, as fast as it goes, in pieces of that many bytes; the server counts them.
#[must_use]
pub fn bulk(piece: usize) -> Work {
    Arc::new(move |control, target| {
        let mut tally = Tally::default();
        if let Err(error) = stream(control, target, piece, &mut tally) {
            tally.failed(&error);
        }
        tally
    })
}

fn stream(control: &Control, target: SocketAddr, piece: usize, tally: &mut Tally) -> std::io::Result<()> {
    let mut stream = connect(target)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let piece = vec![b'b'; piece];
    while !control.over() {
        let begin = Instant::now();
        stream.write_all(&piece)?;
        control.done(tally, begin.elapsed());
    }
    Ok(())
}

/// Swallows what comes to `listener`, in pieces of at most that many bytes, until it is shut down.
pub(super) fn swallow(listener: &Socket, piece: usize, seen: &Arc<Seen>) {
    while let Ok((socket, _)) = listener.accept() {
        let seen = Arc::clone(seen);
        let swallow = move || {
            seen.open.fetch_add(1, Ordering::Relaxed);
            let (mut buffer, mut stream) = (vec![0; piece], TcpStream::from(socket));
            while let Ok(length) = stream.read(&mut buffer)
                && length > 0
            {
                seen.bytes.fetch_add(length as u64, Ordering::Relaxed);
            }
            seen.open.fetch_sub(1, Ordering::Relaxed);
        };
        // Without it the load finds nobody, and says so.
        let _ = thread::Builder::new().name("bench-sink".into()).spawn(swallow);
    }
}
