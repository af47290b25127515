//! Bytes on a tunnel's connection, behind TLS: any peer with a certificate of the mesh writes them.
//!
//! The input goes into a pipe, cut into pieces of two sizes, and the other end is driven until nothing moves: no panic, no
//! end without a word, and not more bytes of answer than an answer to every frame would need.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader, DuplexStream, duplex};
use tokio::runtime::Runtime;
use weft_hbone::{
    Authority, ConnectHead, ConnectionEnd, ConnectionSettings, Malformed, client as client_end, server as server_end,
};

use super::outcome::Outcome;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes that one frame of at least 9 bytes may be answered with, on average; and what a connection says by itself.
const ANSWER_PER_BYTE: usize = 8;
const OWN_WORDS: usize = 4096;
/// Yields in which nothing moves: then nothing will. Everything runs on one thread without a clock.
const QUIET: usize = 8;

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// What a server made of its client.
#[derive(Debug, Default, PartialEq, Eq)]
struct Served {
    tunnels: usize,
    malformed: Vec<Malformed>,
    end: Option<ConnectionEnd>,
    answered: usize,
}

/// A client's bytes behind the preface.
pub(super) fn server(bytes: &[u8]) -> Outcome {
    let input = [PREFACE, bytes].concat();
    let whole = serve(&input, input.len());
    // What a request came to may differ: one that is withdrawn in the same read is never seen. `http2_cuts` has what may not.
    let _pieces = serve(&input, 1 + input.len() / 7);
    Outcome::exactly(&whole.end)
        .past(whole.tunnels > 0)
        .and(Outcome::of(&whole.malformed))
        .and(Outcome::exactly(&(whole.tunnels.min(4), whole.answered.min(256) / 8)))
}

/// One request: lines `name: value`, as a block without compression.
pub(super) fn connect_head(bytes: &[u8]) -> Outcome {
    let mut block = Vec::new();
    for line in bytes.split(|byte| *byte == b'\n').take(64) {
        let split = line.iter().skip(1).position(|byte| *byte == b':').map_or(line.len(), |at| at + 1);
        let (name, value) = line.split_at(split);
        let value = value.strip_prefix(b":").unwrap_or(value);
        let value = value.strip_prefix(b" ").unwrap_or(value);
        // Literal without indexing (RFC 7541 section 6.2.2); lengths below 127 in one byte.
        block.push(0);
        for text in [&name[..name.len().min(126)], &value[..value.len().min(126)]] {
            block.push(text.len() as u8);
            block.extend_from_slice(text);
        }
    }
    let length = u32::try_from(block.len()).unwrap_or(u32::MAX).to_be_bytes();
    // HEADERS with END_HEADERS on stream 1.
    let frame = [&length[1..], &[1, 4, 0, 0, 0, 1], &block].concat();
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let input = [PREFACE, &settings, &frame].concat();
    let served = serve(&input, input.len());
    assert!(served.tunnels + served.malformed.len() <= 1);
    Outcome::exactly(&(served.end, served.malformed, served.tunnels)).past(served.tunnels > 0)
}

fn serve(input: &[u8], piece: usize) -> Served {
    runtime().block_on(async {
        let (near, far) = duplex(1 << 20);
        let mut served = Served::default();
        let serving = async {
            let mut connection = match server_end::handshake(BufReader::new(far), &ConnectionSettings::default()).await
            {
                Ok(connection) => connection,
                Err(end) => return served.end = Some(end),
            };
            let mut open = Vec::new();
            while let Some(next) = connection.accept().await {
                match next {
                    Err(error) => served.malformed.push(error),
                    Ok(incoming) => {
                        served.tunnels += 1;
                        // Half of them are answered and stay open, half are dropped.
                        if !served.tunnels.is_multiple_of(2) {
                            open.extend(incoming.accept(None));
                        }
                    }
                }
            }
            served.end = connection.end().cloned();
        };
        let answered = exchange(near, input, piece, serving).await;
        served.answered = answered;
        assert!(answered <= OWN_WORDS + ANSWER_PER_BYTE * input.len(), "{answered} bytes for {}", input.len());
        served
    })
}

/// A server's bytes to a client that has opened a tunnel.
pub(super) fn client(bytes: &[u8]) -> Outcome {
    runtime().block_on(async {
        let (near, far) = duplex(1 << 20);
        let mut opened = None;
        let asking = async {
            let Ok((connection, driver)) =
                client_end::handshake(BufReader::new(far), &ConnectionSettings::default()).await
            else {
                return;
            };
            let head = ConnectHead::new(Authority::Address("10.0.0.7:8080".parse().expect("an address")));
            let open = async {
                let tunnel = connection.open(&head).await;
                opened = Some(tunnel.as_ref().map(drop).map_err(ToString::to_string));
                if let Ok(mut tunnel) = tunnel {
                    let mut buffer = [0; 512];
                    while matches!(tunnel.read(&mut buffer).await, Ok(1..)) {}
                }
                drop(connection);
            };
            let _both = tokio::join!(open, driver);
        };
        let answered = exchange(near, bytes, bytes.len().max(1), asking).await;
        assert!(answered <= OWN_WORDS + ANSWER_PER_BYTE * bytes.len(), "{answered} bytes for {}", bytes.len());
        let past = matches!(opened, Some(Ok(())));
        Outcome::exactly(&(opened, answered.min(256) / 8)).past(past)
    })
}

/// Writes the input in pieces, reads what comes back, and moves `end` until it is done or nothing moves any more.
/// Returns how many bytes came back.
async fn exchange(mut pipe: DuplexStream, input: &[u8], piece: usize, end: impl Future<Output = ()>) -> usize {
    let mut answered = 0;
    {
        let mut end = pin!(end);
        let mut pieces = input.chunks(piece.max(1));
        let mut buffer = vec![0; 64 << 10];
        let mut quiet = 0;
        while quiet < QUIET {
            quiet += 1;
            if let Some(next) = pieces.next() {
                quiet = 0;
                if pipe.write_all(next).await.is_err() {
                    break;
                }
            }
            let done = poll_fn(|cx| Poll::Ready(end.as_mut().poll(cx).is_ready())).await;
            // What has come back so far, without waiting for more.
            let read = {
                let mut reading = pin!(pipe.read(&mut buffer));
                poll_fn(|cx| {
                    Poll::Ready(match reading.as_mut().poll(cx) {
                        Poll::Ready(Ok(count)) => count,
                        _ => 0,
                    })
                })
                .await
            };
            answered += read;
            if read > 0 {
                quiet = 0;
            }
            if done {
                break;
            }
            tokio::task::yield_now().await;
        }
    }
    answered
}
