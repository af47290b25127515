//! Loads whose threads each do one thing at a time: requests that are due, new connections, streams of bytes.

use std::io::{Error, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use weft_testkit::wait;

use super::closed::connect;
use super::drive::{Control, PATIENCE, Tally, Work};
use super::wire::Exchange;

/// Bytes written at once by a stream.
const CHUNK: usize = 64 << 10;

/// Open loop: one connection per thread, a request every `every`, whose time counts from the moment it was due, also
/// when the one before it was late: a slow answer is not hidden by asking less. The threads take turns evenly. A sleeping thread wakes some 50 us late
/// (the kernel's timer slack for ordinary programs), which is in the figures of every peer, the direct path's too.
#[must_use]
pub fn open(exchange: Exchange, every: Duration, threads: u32) -> Work {
    let next = AtomicU32::new(0);
    Arc::new(move |control, target| {
        let turn = next.fetch_add(1, Ordering::Relaxed) % threads;
        let mut tally = Tally::default();
        let begin = Instant::now() + every * turn / threads;
        if let Err(error) = on_time(control, target, &exchange, (begin, every), &mut tally) {
            tally.failed(&error);
        }
        tally
    })
}

fn on_time(
    control: &Control,
    target: SocketAddr,
    exchange: &Exchange,
    (begin, every): (Instant, Duration),
    tally: &mut Tally,
) -> std::io::Result<()> {
    let mut stream = connect(target)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut answer = vec![0; exchange.answer];
    let mut due = begin;
    while !control.over() {
        let rest = due.saturating_duration_since(Instant::now());
        if !rest.is_zero() {
            wait::pause(rest);
        }
        stream.write_all(&exchange.request)?;
        stream.read_exact(&mut answer)?;
        control.done(tally, due.elapsed());
        due += every;
    }
    Ok(())
}

/// New connections, one after the other: connect, ask, read the answer to its end.
#[must_use]
pub fn churn(exchange: Exchange) -> Work {
    Arc::new(move |control, target| {
        let mut tally = Tally::default();
        let mut answer = vec![0; exchange.answer + 1];
        while !control.over() {
            let begin = Instant::now();
            match once(target, &exchange, &mut answer) {
                Ok(()) => control.done(&mut tally, begin.elapsed()),
                Err(error) => tally.failed(&error),
            }
        }
        tally
    })
}

/// One new connection, one exchange.
///
/// # Errors
/// The connection, or an answer of another length.
pub fn one_exchange(target: SocketAddr, exchange: &Exchange) -> std::io::Result<()> {
    once(target, exchange, &mut vec![0; exchange.answer + 1])
}

/// That many exchanges on one connection.
///
/// # Errors
/// The connection, or an answer that does not come.
pub fn exchanges(target: SocketAddr, exchange: &Exchange, count: usize) -> std::io::Result<()> {
    let mut stream = connect(target)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut answer = vec![0; exchange.answer];
    for _ in 0..count {
        stream.write_all(&exchange.request)?;
        stream.read_exact(&mut answer)?;
    }
    Ok(())
}

fn once(target: SocketAddr, exchange: &Exchange, answer: &mut [u8]) -> std::io::Result<()> {
    let mut stream = connect(target)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&exchange.request)?;
    let mut length = 0;
    loop {
        match stream.read(&mut answer[length..])? {
            0 if length == exchange.answer => return Ok(()),
            0 => return Err(Error::from(ErrorKind::UnexpectedEof)),
            more => length += more,
        }
        if length > exchange.answer {
            return Err(Error::other("more came back than was asked for"));
        }
    }
}

/// One stream of bytes, as fast as they go; the server counts.
#[must_use]
pub fn bulk() -> Work {
    Arc::new(|control, target| {
        let mut tally = Tally::default();
        if let Err(error) = stream(control, target, &mut tally) {
            tally.failed(&error);
        }
        tally
    })
}

fn stream(control: &Control, target: SocketAddr, tally: &mut Tally) -> std::io::Result<()> {
    let mut stream = connect(target)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let chunk = vec![b'b'; CHUNK];
    while !control.over() {
        let begin = Instant::now();
        stream.write_all(&chunk)?;
        control.done(tally, begin.elapsed());
    }
    Ok(())
}
