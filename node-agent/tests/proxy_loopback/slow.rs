//! Strangers who come to 15008 and then take their time: with half a TLS handshake, with half an HTTP/2 preface behind a whole
//! one, or with a byte now and then. Each is gone at the deadline of the handshake, which no byte puts off; until then it
//! counts against the limits of its address; and a line says what became of it.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use rstest::rstest;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use weft_identity::tls;
use weft_model::{Reason, SpiffeId};
use weft_node_agent::telemetry::Direction;
use weft_node_agent::worker::limits::HANDSHAKES_PER_PEER;

use crate::attacks::{PREFACE, attacker};
use crate::world::{World, call, soon};
use crate::{CART, Pair, local, two_nodes_of};

/// In place of the 10 s of a real agent.
const DEADLINE: Duration = Duration::from_secs(1);
/// Between two bytes of those who trickle: even a preface (24 bytes) then takes far longer than what [`LATE`] allows.
const TRICKLE: Duration = Duration::from_millis(400);
/// After the deadline, on a machine with other things to do.
const LATE: Duration = Duration::from_secs(5);
/// The last number of the strangers' address.
const STRANGER: u8 = 99;

fn patient_for_a_moment() -> Pair {
    let mut world = World::new();
    world.handshake_timeout = DEADLINE;
    two_nodes_of(world)
}

/// The first flight of an honest client of the mesh: its ClientHello.
async fn hello(pair: &Pair) -> Vec<u8> {
    let of = |name| SpiffeId::new("cluster.local", "shop", name).unwrap();
    let config = tls::client_config(&pair.world.credentials(&of("web")), &[of("cart")]).unwrap();
    let (near, mut far) = tokio::io::duplex(64 << 10);
    let mut bytes = vec![0; 64 << 10];
    let length = tokio::select! {
        _ = Box::pin(tls::connect(near, config)) => panic!("nobody has answered"),
        length = far.read(&mut bytes) => length.unwrap(),
    };
    bytes.truncate(length);
    bytes
}

async fn stranger(pair: &Pair) -> TcpStream {
    call(pair.world.ip(STRANGER), pair.world.at(CART, 15008)).await
}

/// What a stranger says before it falls silent, and then, a byte at a time.
#[rstest]
#[case::nothing(|_: &[u8]| (0, 0))]
#[case::half_a_hello(|hello: &[u8]| (hello.len() / 2, 0))]
#[case::a_hello_and_no_answer(|hello: &[u8]| (hello.len(), 0))]
#[case::a_byte_now_and_then(|hello: &[u8]| (1, hello.len() - 1))]
#[tokio::test]
async fn a_handshake_that_is_not_finished_is_over_at_its_deadline(#[case] said: fn(&[u8]) -> (usize, usize)) {
    local(async {
        let mut pair = patient_for_a_moment();
        let hello = hello(&pair).await;
        let (at_once, slowly) = said(&hello);
        let begun = Instant::now();
        let (mut reading, mut writing) = stranger(&pair).await.into_split();
        writing.write_all(&hello[..at_once]).await.unwrap();
        let trickle = async {
            for byte in &hello[at_once..at_once + slowly] {
                tokio::time::sleep(TRICKLE).await;
                if writing.write_all(&[*byte]).await.is_err() {
                    break;
                }
            }
            // Silent, and still there.
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = trickle => {}
            () = ends(&mut reading) => {}
        }
        is_the_deadline(begun.elapsed());
        says(&mut pair, Reason::TlsFailed, None).await;
        serves_on(&pair).await;
    })
    .await;
}

/// Who has proved its name does not get more time, and is named.
#[rstest]
#[case::nothing(0, false)]
#[case::half_a_preface(PREFACE.len() / 2, false)]
#[case::a_byte_now_and_then(0, true)]
#[tokio::test]
async fn a_preface_that_is_not_finished_is_over_at_the_same_deadline(#[case] at_once: usize, #[case] trickles: bool) {
    local(async {
        let mut pair = patient_for_a_moment();
        let begun = Instant::now();
        let (mut reading, mut writing) = tokio::io::split(attacker(&pair, "web").await);
        writing.write_all(&PREFACE[..at_once]).await.unwrap();
        writing.flush().await.unwrap();
        let trickle = async {
            // Never the last byte: it would be a preface then, however slow.
            for byte in PREFACE[at_once..PREFACE.len() - 1].iter().filter(|_| trickles) {
                tokio::time::sleep(TRICKLE).await;
                if writing.write_all(&[*byte]).await.is_err() || writing.flush().await.is_err() {
                    break;
                }
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = trickle => {}
            () = ends(&mut reading) => {}
        }
        is_the_deadline(begun.elapsed());
        says(&mut pair, Reason::TlsFailed, Some("web")).await;
        serves_on(&pair).await;
    })
    .await;
}

/// However it is unfinished, it counts as a handshake of its address; and it does no more when it is over.
#[tokio::test]
async fn who_takes_their_time_counts_against_the_limits_of_their_address_until_the_deadline() {
    local(async {
        let mut pair = patient_for_a_moment();
        let hello = hello(&pair).await;
        let mut slow = Vec::new();
        for count in 0..HANDSHAKES_PER_PEER {
            let mut stream = stranger(&pair).await;
            stream.write_all(&hello[..if count % 2 == 0 { hello.len() / 2 } else { hello.len() }]).await.unwrap();
            slow.push(stream);
        }
        let mut one_more = stranger(&pair).await;
        let read = soon(one_more.read(&mut [0])).await;
        assert_eq!(read.map_err(|error| error.kind()), Err(ErrorKind::ConnectionReset));
        says(&mut pair, Reason::PeerHandshakeLimit, None).await;
        for mut stream in slow {
            ends(&mut stream).await;
        }
        let mut afterwards = stranger(&pair).await;
        let heard = tokio::time::timeout(DEADLINE / 2, afterwards.read(&mut [0])).await;
        assert!(heard.is_err(), "its address may try again: {heard:?}");
        serves_on(&pair).await;
    })
    .await;
}

/// Reads to the end, which may be a reset.
async fn ends(reading: &mut (impl AsyncRead + Unpin)) {
    let mut heard = Vec::new();
    let _ended = soon(reading.read_to_end(&mut heard)).await;
}

fn is_the_deadline(took: Duration) {
    assert!(took >= DEADLINE - Duration::from_millis(50), "ended early, after {took:?}");
    assert!(took < DEADLINE + LATE, "ended late, after {took:?}");
}

async fn says(pair: &mut Pair, reason: Reason, who: Option<&str>) {
    let record = soon(async {
        loop {
            let record = pair.world.record(Direction::Inbound).await;
            if record.reason == Some(reason) {
                return record;
            }
        }
    });
    let record = record.await;
    assert_eq!(record.source_identity.as_ref().map(SpiffeId::service_account), who, "{record:?}");
}

async fn serves_on(pair: &Pair) {
    let app = pair.app().await;
    pair.joined(&app).await;
}
