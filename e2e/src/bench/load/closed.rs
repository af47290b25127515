//! Closed loop: each connection asks again as soon as it is answered. Shows what can be carried at most.

use std::io::{Error, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use super::drive::{Control, PATIENCE, Tally, Work};
use super::wire::Exchange;

struct Connection {
    stream: TcpStream,
    asked: Instant,
    /// Bytes of the answer that have not come.
    missing: usize,
}

/// One event loop with `connections` connections.
#[must_use]
pub fn closed(exchange: Exchange, connections: usize) -> Work {
    Arc::new(move |control, target| {
        let mut tally = Tally::default();
        if let Err(error) = run(control, target, (&exchange, connections), &mut tally) {
            tally.failed(&error);
        }
        tally
    })
}

fn run(
    control: &Control,
    target: SocketAddr,
    (exchange, count): (&Exchange, usize),
    tally: &mut Tally,
) -> std::io::Result<()> {
    let mut poll = Poll::new()?;
    let mut connections = Vec::with_capacity(count);
    for place in 0..count {
        let stream = connect(target)?;
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        poll.registry().register(&mut stream, Token(place), Interest::READABLE)?;
        let mut connection = Connection { stream, asked: Instant::now(), missing: 0 };
        ask(&mut connection, exchange)?;
        connections.push(connection);
    }
    let mut events = Events::with_capacity(count.max(16));
    let mut scratch = vec![0; 64 << 10];
    // To the last answer: a connection that is closed with bytes unread is reset, and that is no load to compare with.
    let mut waiting = count;
    while waiting > 0 {
        match poll.poll(&mut events, Some(PATIENCE)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            result => result?,
        }
        if events.is_empty() {
            return Err(Error::from(ErrorKind::TimedOut));
        }
        for event in &events {
            let connection = &mut connections[event.token().0];
            // A short read empties the socket, and what comes later is a new event: one read for an answer.
            if read(connection, &mut scratch)? {
                control.done(tally, connection.asked.elapsed());
                if control.over() {
                    waiting -= 1;
                } else {
                    ask(connection, exchange)?;
                }
            }
        }
    }
    Ok(())
}

/// Connects, with what every client of the load has.
pub(super) fn connect(target: SocketAddr) -> std::io::Result<std::net::TcpStream> {
    let stream = std::net::TcpStream::connect_timeout(&target, PATIENCE)?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn ask(connection: &mut Connection, exchange: &Exchange) -> std::io::Result<()> {
    connection.asked = Instant::now();
    connection.missing = exchange.answer;
    // Smaller than any send buffer, and there is only one at a time.
    connection.stream.write_all(&exchange.request)
}

/// Reads once; true when the answer is complete.
fn read(connection: &mut Connection, scratch: &mut [u8]) -> std::io::Result<bool> {
    match connection.stream.read(scratch) {
        Ok(0) => Err(Error::from(ErrorKind::UnexpectedEof)),
        Ok(length) if length > connection.missing => Err(Error::other("more came back than was asked for")),
        Ok(length) => {
            connection.missing -= length;
            Ok(connection.missing == 0)
        }
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(false),
        Err(error) => Err(error),
    }
}
