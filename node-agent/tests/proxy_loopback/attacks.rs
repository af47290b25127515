//! HTTP/2 attacks on 15008 by a peer that has a certificate of the mesh, over TLS at the agent's real listener; and what a
//! peer says of itself beside its certificate. The budgets of the framer itself are tested in `weft-hbone`, frame by frame.

use std::cell::Cell;
use std::time::Duration;

use rstest::rstest;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf};
use weft_hbone::{Authority, ConnectHead, ConnectionSettings, OpenError, client};
use weft_identity::tls;
use weft_model::authz::{Action, Match, StringMatch};
use weft_model::{Reason, SpiffeId};
use weft_node_agent::telemetry::Direction;

use crate::world::{APP_PORT, call, soon};
use crate::{CART, Pair, WEB, local, policy, two_nodes};

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes that an attacker sends at most: thousands of frames, far beyond any budget.
const FLOOD: usize = 1 << 20;
/// Bytes of answer for each byte of attack: every frame may be answered by one of about its size, none by more.
const ANSWER: usize = 3;
/// What a connection says of itself: SETTINGS, windows, a GOAWAY.
const OWN_WORDS: usize = 64 << 10;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// CONNECT to `authority`, each field literal and not indexed.
fn connect(authority: &str) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in [(":method", "CONNECT"), (":authority", authority)] {
        for text in [name, value] {
            if text == name {
                block.push(0);
            }
            block.push(u8::try_from(text.len()).unwrap());
            block.extend(text.as_bytes());
        }
    }
    block
}

/// The `n`-th piece of an attack; streams are 1, 3, 5 and so on.
type Attack = fn(u32) -> Vec<u8>;

fn request(n: u32) -> Vec<u8> {
    frame(1, 4, 2 * n + 1, &connect("10.9.9.9:80"))
}

fn rapid_reset(n: u32) -> Vec<u8> {
    [request(n), frame(3, 0, 2 * n + 1, &8_u32.to_be_bytes())].concat()
}

fn continuations(n: u32) -> Vec<u8> {
    if n == 0 { frame(1, 0, 1, &connect("10.9.9.9:80")) } else { frame(9, 0, 1, &[0, 1, b'a', 1, b'b']) }
}

fn header_bomb(n: u32) -> Vec<u8> {
    // One long field into the dynamic table, then thousands of references to it.
    let long = [&[0x40, 1, b'a', 0x7f, 0x80, 0x1e][..], &[b'x'; 3967]].concat();
    let block = [connect("10.9.9.9:80"), long, vec![0xbe; 8000]].concat();
    frame(1, 4, 2 * n + 1, &block)
}

fn window_games(n: u32) -> Vec<u8> {
    // The window of new streams to nothing, to one byte, and back.
    let window = |size: u32| frame(4, 0, 0, &[&[0, 4][..], &size.to_be_bytes()].concat());
    [window(0), window(1), request(n), window(65_535)].concat()
}

#[rstest]
#[case::rapid_reset(rapid_reset, false)]
#[case::many_streams(request, false)]
#[case::continuation_flood(continuations, true)]
#[case::header_bomb(header_bomb, false)]
#[case::empty_data(|n: u32| if n == 0 { request(0) } else { frame(0, 0, 1, b"") }, false)]
#[case::settings_flood(|_: u32| frame(4, 0, 0, b""), false)]
#[case::ping_flood(|_: u32| frame(6, 0, 0, b"8 octets"), false)]
#[case::window_games(window_games, false)]
#[case::window_overflow(|_: u32| frame(8, 0, 0, &0x7fff_ffff_u32.to_be_bytes()), true)]
#[case::nothing_updates(|_: u32| frame(8, 0, 0, &0_u32.to_be_bytes()), true)]
#[case::priority_flood(|_: u32| frame(2, 0, 1, &[0, 0, 0, 0, 1]), false)]
#[case::unknown_frames(|_: u32| frame(0xbe, 0, 7, b"zzzz"), false)]
#[case::data_without_a_stream(|_: u32| frame(0, 0, 5, b"data"), true)]
#[case::push(|_: u32| frame(5, 4, 1, &[0, 0, 0, 2, 0x88]), true)]
#[case::a_frame_too_large(|_: u32| [&[0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1][..], &[0; 4096]].concat(), true)]
#[tokio::test]
async fn an_attack_costs_little_and_harms_nobody_else(#[case] attack: Attack, #[case] must_end: bool) {
    local(async {
        let mut pair = two_nodes();
        let app = pair.app().await;
        let (mut reading, mut writing) = tokio::io::split(attacker(&pair, "web").await);
        let done = Cell::new(false);
        let sending = async {
            let settings = frame(4, 0, 0, b"");
            let (mut sent, mut n) = (0, 0);
            writing.write_all(&[PREFACE, &settings].concat()).await.unwrap();
            while sent < FLOOD {
                // Many frames at once, as an attacker would.
                let mut piece = Vec::new();
                while piece.len() < 16 << 10 {
                    piece.extend(attack(n));
                    n += 1;
                }
                sent += piece.len();
                if writing.write_all(&piece).await.is_err() || writing.flush().await.is_err() {
                    break;
                }
            }
            done.set(true);
            sent
        };
        let attacked = async { tokio::join!(sending, answers(&mut reading, &done)) };
        // A neighbour's call, on a connection of its own, while the attack is on.
        let (neighbour, (sent, (answered, goaway))) = soon(async { tokio::join!(pair.joined(&app), attacked) }).await;
        assert!(answered <= ANSWER * sent + OWN_WORDS, "{answered} bytes of answer for {sent}");
        assert!(goaway.is_some() || !must_end, "no GOAWAY after {sent} bytes");
        drop(neighbour);
        drop((reading, writing));
        let (_client, _server) = pair.joined(&app).await;
        if goaway.is_some_and(|code| code != 0) {
            let said = loop {
                let record = pair.world.record(Direction::Inbound).await;
                if record.reason == Some(Reason::TunnelFailed) {
                    break record;
                }
            };
            assert_eq!(said.source_identity.unwrap().service_account(), "web", "it is known who did it");
        }
    })
    .await;
}

pub(crate) type Attacker = tls::ClientStream<tokio::net::TcpStream>;

/// TLS to the tunnel port of `cart`, as a workload of that name.
pub(crate) async fn attacker(pair: &Pair, name: &str) -> Attacker {
    let own = SpiffeId::new("cluster.local", "shop", name).unwrap();
    let cart = SpiffeId::new("cluster.local", "shop", "cart").unwrap();
    let config = tls::client_config(&pair.world.credentials(&own), &[cart]).unwrap();
    let tcp = call(pair.world.ip(WEB), pair.world.at(CART, 15008)).await;
    soon(Box::pin(tls::connect(tcp, config))).await.unwrap()
}

/// Reads until the end, or until all is sent and nothing comes for a moment: how many bytes, and the code of a GOAWAY.
async fn answers(reading: &mut ReadHalf<Attacker>, sent: &Cell<bool>) -> (usize, Option<u32>) {
    let (mut all, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
    loop {
        match tokio::time::timeout(Duration::from_millis(500), reading.read(&mut buffer)).await {
            Ok(Ok(count @ 1..)) => all.extend_from_slice(&buffer[..count]),
            Err(_silence) if !sent.get() => {}
            _ => break,
        }
    }
    let (mut rest, mut goaway) = (&all[..], None);
    while let [a, b, c, kind, _, _, _, _, _, behind @ ..] = rest {
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        let Some(payload) = behind.get(..length) else { break };
        if *kind == 7 {
            goaway = Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
        }
        rest = &behind[length..];
    }
    (all.len(), goaway)
}

#[tokio::test]
async fn what_a_peer_says_of_itself_decides_nothing() {
    local(async {
        let mut pair = two_nodes();
        let _app = pair.app().await;
        let web = StringMatch::Exact("cluster.local/ns/shop/sa/web".into());
        pair.world.apply([policy(
            "web-only",
            Action::Allow,
            vec![Match { principals: vec![web], ..Match::default() }],
        )]);
        let target = pair.world.at(CART, APP_PORT);
        let lying = |namespace: &str, account: &str, address: &str| ConnectHead {
            baggage: Some(format!(
                "k8s.namespace.name={namespace},k8s.deployment.name={account},service.name={account}"
            )),
            forwarded: Some(format!("for=\"{address}:4711\";host=cart.shop.svc.cluster.local")),
            istio_source: Some("gateway".to_owned()),
            ..ConnectHead::new(Authority::Address(target))
        };
        let own = pair.world.ip(WEB).to_string();
        let settings = ConnectionSettings::default();
        // Another identity, that says in every place that it is `web`: refused, and known by its certificate.
        let other = Box::pin(client::handshake(attacker(&pair, "other").await, &settings));
        let (other, driver) = soon(other).await.unwrap();
        tokio::task::spawn_local(driver);
        let error = soon(other.open(&lying("shop", "web", &own))).await.unwrap_err();
        assert_eq!(error, OpenError::Refused { status: 401, reason: Some("policy-not-allowed".to_owned()) });
        let refused = pair.world.record(Direction::Inbound).await;
        assert_eq!(refused.source_identity.unwrap().service_account(), "other");
        // `web` itself, that says it is somebody else, elsewhere: served, and known by its certificate and its own address.
        let web = Box::pin(client::handshake(attacker(&pair, "web").await, &settings));
        let (web, driver) = soon(web).await.unwrap();
        tokio::task::spawn_local(driver);
        let mut tunnel = soon(web.open(&lying("kube-system", "root", "192.0.2.1"))).await.unwrap();
        tunnel.shutdown().await.unwrap();
        drop(tunnel);
        let served = pair.world.record(Direction::Inbound).await;
        assert_eq!(served.source_identity.unwrap().service_account(), "web");
        assert_eq!(served.source.ip(), pair.world.ip(WEB));
    })
    .await;
}
