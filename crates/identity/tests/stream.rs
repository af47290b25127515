//! The encrypted stream against itself and against tokio-rustls, over pipes in memory that tear records apart.

#![expect(clippy::unwrap_used, reason = "a test dies of what it did not expect")]

use std::net::{IpAddr, Ipv4Addr};
use std::time::SystemTime;

use proptest::collection::vec;
use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};
use proptest::test_runner::Config;
use rstest::rstest;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex, split};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};
use weft_identity::signer::{DEFAULT_ROOT_TTL, LeafLifetime, RootMaterial, Signer};
use weft_identity::{Credentials, tls};
use weft_model::SpiffeId;

/// Smaller than a record, so that every record comes and goes in parts.
const NARROW: usize = 5_000;
const WIDE: usize = 1 << 20;

fn web() -> SpiffeId {
    "spiffe://cluster.local/ns/shop/sa/web".parse().unwrap()
}

fn credentials() -> Credentials {
    let now = SystemTime::now();
    let root = RootMaterial::create("cluster.local", DEFAULT_ROOT_TTL, now).unwrap();
    let signer = Signer::load(&root.certificate_pem, &root.key_pem, None, LeafLifetime::default(), now).unwrap();
    signer.issue(&web(), None, now).unwrap()
}

type Ours = (tls::ClientStream<DuplexStream>, tls::ServerStream<DuplexStream>);

async fn ours(pipe: usize) -> Ours {
    let (near, far) = duplex(pipe);
    let credentials = credentials();
    let accept = tls::accept(near, tls::server_config(&credentials).unwrap());
    let connect = tls::connect(far, tls::client_config(&credentials, &[web()]).unwrap());
    let (accepted, connected) = tokio::join!(accept, connect);
    (connected.unwrap(), accepted.unwrap().0)
}

async fn ours_and_a_stock_server(pipe: usize) -> (tls::ClientStream<DuplexStream>, server::TlsStream<DuplexStream>) {
    let (near, far) = duplex(pipe);
    let credentials = credentials();
    let accept = TlsAcceptor::from(tls::server_config(&credentials).unwrap()).accept(near);
    let connect = tls::connect(far, tls::client_config(&credentials, &[web()]).unwrap());
    let (accepted, connected) = tokio::join!(accept, connect);
    (connected.unwrap(), accepted.unwrap())
}

async fn a_stock_client_and_ours(pipe: usize) -> (client::TlsStream<DuplexStream>, tls::ServerStream<DuplexStream>) {
    let (near, far) = duplex(pipe);
    let credentials = credentials();
    let accept = tls::accept(near, tls::server_config(&credentials).unwrap());
    let name = ServerName::from(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let connect = TlsConnector::from(tls::client_config(&credentials, &[web()]).unwrap()).connect(name, far);
    let (accepted, connected) = tokio::join!(accept, connect);
    (connected.unwrap(), accepted.unwrap().0)
}

fn bytes(count: usize, seed: u8) -> Vec<u8> {
    (0..count).map(|index| (index % 251) as u8 ^ seed).collect()
}

/// Sends in pieces, ends in order, and reads all that the other side says meanwhile.
async fn converse(stream: impl AsyncRead + AsyncWrite, says: &[u8], piece: usize) -> Vec<u8> {
    let (mut reading, mut writing) = split(stream);
    let mut heard = Vec::new();
    let read = async { reading.read_to_end(&mut heard).await.unwrap() };
    let write = async {
        for part in says.chunks(piece) {
            writing.write_all(part).await.unwrap();
            writing.flush().await.unwrap();
        }
        writing.shutdown().await.unwrap();
    };
    tokio::join!(read, write);
    heard
}

#[rstest]
#[case::records_in_parts(NARROW, 300_000, 100_000)]
#[case::bulk(WIDE, 5_000_000, 1_000_000)]
#[case::small_pieces(WIDE, 20_000, 7)]
#[tokio::test]
async fn what_is_said_is_heard(#[case] pipe: usize, #[case] count: usize, #[case] piece: usize) {
    let (up, down) = (bytes(count, 0), bytes(count / 2, 0x5a));
    let (client, server) = ours(pipe).await;
    let heard = tokio::join!(converse(client, &up, piece), converse(server, &down, piece));
    assert!(heard == (down.clone(), up.clone()), "ours with ours");
    let (client, server) = ours_and_a_stock_server(pipe).await;
    assert_eq!(server.get_ref().1.server_name(), None, "no server name is sent");
    let heard = tokio::join!(converse(client, &up, piece), converse(server, &down, piece));
    assert!(heard == (down.clone(), up.clone()), "ours with a stock server");
    let (client, server) = a_stock_client_and_ours(pipe).await;
    assert_eq!(client.get_ref().1.tls13_tickets_received(), 0, "nothing to resume with");
    let heard = tokio::join!(converse(client, &up, piece), converse(server, &down, piece));
    assert!(heard == (down, up), "a stock client with ours");
}

#[tokio::test]
async fn one_look_shows_all_that_arrived() {
    let (mut client, mut server) = ours(WIDE).await;
    let said = bytes(100_000, 1);
    client.write_all(&said).await.unwrap();
    client.flush().await.unwrap();
    assert_eq!(server.fill_buf().await.unwrap(), said, "seven records in one look");
    server.consume(99_990);
    assert_eq!(server.fill_buf().await.unwrap(), &said[99_990..]);
    let mut rest = [0; 10];
    server.read_exact(&mut rest).await.unwrap();
    assert_eq!(rest, said[99_990..]);
}

#[tokio::test]
async fn an_end_is_told_from_a_cut() {
    let (mut client, mut server) = ours(WIDE).await;
    client.write_all(b"all of it").await.unwrap();
    client.shutdown().await.unwrap();
    let mut heard = Vec::new();
    server.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"all of it");
    assert_eq!(server.fill_buf().await.unwrap(), b"", "and it stays so");

    let (mut client, mut server) = ours(WIDE).await;
    client.write_all(b"half of i").await.unwrap();
    drop(client);
    let error = server.read_to_end(&mut Vec::new()).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn the_peer_may_change_its_keys_at_any_time() {
    let (mut client, mut server) = a_stock_client_and_ours(WIDE).await;
    for round in 0..5_u8 {
        client.get_mut().1.refresh_traffic_keys().unwrap();
        let said = bytes(40_000, round);
        client.write_all(&said).await.unwrap();
        client.flush().await.unwrap();
        let mut heard = vec![0; said.len()];
        server.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard, said);
        server.write_all(&said).await.unwrap();
        server.flush().await.unwrap();
        client.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard, said);
    }
}

#[tokio::test]
async fn a_changed_byte_ends_the_stream_and_the_peer_is_told() {
    let credentials = credentials();
    let ((near, mut near_wire), (far, mut far_wire)) = (duplex(WIDE), duplex(WIDE));
    let accept = tls::accept(near, tls::server_config(&credentials).unwrap());
    let connect = tls::connect(far, tls::client_config(&credentials, &[web()]).unwrap());
    let both = async {
        let (accepted, connected) = tokio::join!(accept, connect);
        (connected.unwrap(), accepted.unwrap().0)
    };
    let (mut client, mut server) = tokio::select! {
        both = both => both,
        _ = tokio::io::copy_bidirectional(&mut near_wire, &mut far_wire) => unreachable!("nobody ends the wire"),
    };
    client.write_all(b"credit").await.unwrap();
    client.flush().await.unwrap();
    let mut record = vec![0; 28];
    far_wire.read_exact(&mut record).await.unwrap();
    record[10] ^= 1;
    near_wire.write_all(&record).await.unwrap();
    let error = server.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidData, "{error}");
    let mut alert = vec![0; 24];
    near_wire.read_exact(&mut alert).await.unwrap();
    far_wire.write_all(&alert).await.unwrap();
    let error = client.read_u8().await.unwrap_err();
    assert!(error.to_string().contains("BadRecordMac"), "{error}");
    assert!(server.read_u8().await.is_err(), "and it stays so");
}

proptest! {
    #![proptest_config(Config { cases: 24, ..Config::default() })]
    #[test]
    fn any_pieces_through_any_pipe(
        pieces in vec(vec(any::<u8>(), 0..40_000), 1..8),
        pipe in 1_usize..70_000,
        wanted in 1_usize..70_000,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (near, far) = duplex(pipe);
            let credentials = credentials();
            let accept = tls::accept(near, tls::server_config(&credentials).unwrap());
            let connect = tls::connect(far, tls::client_config(&credentials, &[web()]).unwrap());
            let (accepted, connected) = tokio::join!(accept, connect);
            let (mut client, (mut server, _)) = (connected.unwrap(), accepted.unwrap());
            let write = async {
                for piece in &pieces {
                    client.write_all(piece).await.unwrap();
                }
                client.shutdown().await.unwrap();
            };
            let read = async {
                let (mut heard, mut part) = (Vec::new(), vec![0; wanted]);
                loop {
                    let count = server.read(&mut part).await.unwrap();
                    if count == 0 {
                        break heard;
                    }
                    heard.extend_from_slice(&part[..count]);
                }
            };
            let ((), heard) = tokio::join!(write, read);
            prop_assert_eq!(heard.len(), pieces.iter().map(Vec::len).sum::<usize>());
            prop_assert!(heard == pieces.concat());
            Ok(())
        })?;
    }
}
