//! Threads that each do one thing at a time: requests that are due, and exchanges for who only counts them.

use std::io::{Error, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use weft_testkit::wait;

use super::closed::connect;
use super::drive::{Control, PATIENCE, Tally, Work};
use super::wire::{Exchange, whole_length};

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
    let mut answer = vec![0; first_answer(&mut stream, exchange)?];
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

/// Asks once and says how long the answer is, head and body.
fn first_answer(stream: &mut TcpStream, exchange: &Exchange) -> std::io::Result<usize> {
    stream.write_all(&exchange.request)?;
    let (mut read, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut buffer)? {
            0 => return Err(Error::from(ErrorKind::UnexpectedEof)),
            more => read.extend_from_slice(&buffer[..more]),
        }
        match whole_length(&read) {
            Some(length) if read.len() == length => return Ok(length),
            Some(length) if read.len() > length => return Err(Error::other("more came back than was asked for")),
            _ => {}
        }
    }
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
