//! Both ends of the mesh's handshake against each other and against strangers, over pipes in memory.

#![expect(clippy::unwrap_used, reason = "a test dies of what it did not expect")]

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rstest::rstest;
use rustls::crypto::aws_lc_rs;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use weft_identity::signer::{DEFAULT_ROOT_TTL, LeafLifetime, RootMaterial, Signer};
use weft_identity::{Credentials, HandshakeError, tls};
use weft_model::{Reason, SpiffeId};

const HOUR: Duration = Duration::from_secs(3600);

/// Room for both flights of a handshake.
const PIPE: usize = 64 * 1024;

fn id(text: &str) -> SpiffeId {
    text.parse().unwrap()
}

fn web() -> SpiffeId {
    id("spiffe://cluster.local/ns/shop/sa/web")
}

fn cart() -> SpiffeId {
    id("spiffe://cluster.local/ns/shop/sa/cart")
}

fn signer() -> Signer {
    signer_at(SystemTime::now())
}

fn signer_at(now: SystemTime) -> Signer {
    let root = RootMaterial::create("cluster.local", DEFAULT_ROOT_TTL, now).unwrap();
    Signer::load(&root.certificate_pem, &root.key_pem, None, LeafLifetime::default(), now).unwrap()
}

fn issue(signer: &Signer, identity: &SpiffeId) -> Credentials {
    signer.issue(identity, None, SystemTime::now()).unwrap()
}

type Server = tls::ServerStream<DuplexStream>;
type Client = tls::ClientStream<DuplexStream>;

async fn handshake(
    server: &Credentials,
    client: &Credentials,
    expected: &[SpiffeId],
) -> (Result<(Server, SpiffeId), HandshakeError>, Result<Client, HandshakeError>) {
    let (near, far) = duplex(PIPE);
    let accept = tls::accept(near, tls::server_config(server).unwrap());
    let connect = tls::connect(far, tls::client_config(client, expected).unwrap());
    tokio::join!(accept, connect)
}

/// What the server makes of a client with this configuration.
async fn refused_by_server(server: &Credentials, client: rustls::ClientConfig) -> (HandshakeError, std::io::Error) {
    let (near, far) = duplex(PIPE);
    let accept = tls::accept(near, tls::server_config(server).unwrap());
    let connect = async {
        let mut stream =
            tls::connect(far, Arc::new(client)).await.map_err(|error| std::io::Error::other(error.to_string()))?;
        stream.read_u8().await
    };
    let (accepted, read) = tokio::join!(accept, connect);
    (accepted.expect_err("the server must refuse"), read.expect_err("the client must be told"))
}

#[tokio::test]
async fn both_know_each_other_and_speak_h2_with_the_post_quantum_group() {
    let signer = signer();
    let (accepted, connected) = handshake(&issue(&signer, &cart()), &issue(&signer, &web()), &[web(), cart()]).await;
    let ((mut server, peer), mut client) = (accepted.unwrap(), connected.unwrap());
    assert_eq!(peer, web());
    let connection = client.get_ref().1;
    assert_eq!(tls::peer_identity(connection), Some(cart()));
    assert_eq!(connection.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    assert_eq!(connection.alpn_protocol(), Some(&b"h2"[..]));
    assert_eq!(connection.negotiated_key_exchange_group().unwrap().name(), rustls::NamedGroup::X25519MLKEM768);
    assert_eq!(connection.negotiated_cipher_suite().unwrap().suite(), rustls::CipherSuite::TLS13_AES_128_GCM_SHA256);
    client.write_all(b"ping").await.unwrap();
    let mut got = [0; 4];
    server.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"ping");
    server.write_all(b"pong").await.unwrap();
    client.read_exact(&mut got).await.unwrap();
}

#[rstest]
#[case::somebody_else(vec![web()])]
#[case::nobody_expected(vec![])]
#[case::other_trust_domain(vec![id("spiffe://other/ns/shop/sa/cart")])]
#[tokio::test]
async fn the_client_refuses_an_unexpected_server(#[case] expected: Vec<SpiffeId>) {
    let signer = signer();
    let (accepted, connected) = handshake(&issue(&signer, &cart()), &issue(&signer, &web()), &expected).await;
    assert_eq!(connected.unwrap_err().reason(), Reason::PeerIdentityMismatch);
    assert_eq!(accepted.unwrap_err().reason(), Reason::TlsFailed);
}

#[tokio::test]
async fn the_server_refuses_another_trust_domain_even_of_its_own_root() {
    let signer = signer();
    let stranger = issue(&signer, &id("spiffe://other.domain/ns/shop/sa/web"));
    let (accepted, _) = handshake(&issue(&signer, &cart()), &stranger, &[cart()]).await;
    let error = accepted.unwrap_err();
    assert_eq!(error.reason(), Reason::TrustDomainMismatch, "{error}");
}

#[tokio::test]
async fn another_root_is_refused_by_both() {
    let (ours, theirs) = (signer(), signer());
    let (accepted, connected) = handshake(&issue(&ours, &cart()), &issue(&theirs, &web()), &[cart()]).await;
    assert_eq!(connected.unwrap_err().reason(), Reason::TlsFailed);
    assert_eq!(accepted.unwrap_err().reason(), Reason::TlsFailed);
}

#[tokio::test]
async fn expired_and_not_yet_valid_certificates_are_refused() {
    let long_ago = SystemTime::now() - 10 * HOUR;
    let signer = signer_at(long_ago);
    let expired = signer.issue(&web(), Some(HOUR), long_ago).unwrap();
    let future = signer.issue(&web(), Some(HOUR), SystemTime::now() + HOUR).unwrap();
    let good = signer.issue(&cart(), Some(24 * HOUR), long_ago).unwrap();
    for bad in [expired, future] {
        let (accepted, _) = handshake(&good, &bad, &[cart()]).await;
        assert_eq!(accepted.unwrap_err().reason(), Reason::TlsFailed, "{bad:?}");
        let (_, connected) = handshake(&bad, &good, &[web()]).await;
        assert_eq!(connected.unwrap_err().reason(), Reason::TlsFailed, "{bad:?}");
    }
}

/// A verifier for strangers that look at nothing.
fn careless(
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> rustls::ConfigBuilder<rustls::ClientConfig, rustls::client::WantsClientCert> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let roots = rustls::RootCertStore::empty();
    rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
}

#[derive(Debug)]
struct TrustsAnybody;

impl rustls::client::danger::ServerCertVerifier for TrustsAnybody {
    fn verify_server_cert(
        &self,
        _: &rustls_pki_types::CertificateDer<'_>,
        _: &[rustls_pki_types::CertificateDer<'_>],
        _: &rustls_pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls_pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &rustls_pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &rustls_pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        vec![rustls::SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

#[tokio::test]
async fn a_client_without_certificate_is_refused() {
    let mut config = careless(&[&rustls::version::TLS13]).with_no_client_auth();
    config.dangerous().set_certificate_verifier(Arc::new(TrustsAnybody));
    config.alpn_protocols = vec![b"h2".to_vec()];
    let (error, told) = refused_by_server(&issue(&signer(), &cart()), config).await;
    assert_eq!(error.reason(), Reason::TlsFailed);
    assert!(error.to_string().contains("no certificates"), "{error}");
    assert_eq!(tls::reason_of(&told), Some(Reason::TlsFailed), "{told}");
}

#[rstest]
#[case::none(vec![])]
#[case::other(vec![b"http/1.1".to_vec()])]
#[tokio::test]
async fn a_client_that_does_not_speak_h2_is_refused(#[case] alpn: Vec<Vec<u8>>) {
    let signer = signer();
    let mut config = rustls::ClientConfig::clone(&tls::client_config(&issue(&signer, &web()), &[cart()]).unwrap());
    config.alpn_protocols = alpn;
    let (error, _) = refused_by_server(&issue(&signer, &cart()), config).await;
    assert_eq!(error.reason(), Reason::TlsFailed, "{error}");
    assert!(error.to_string().contains("protocol"), "{error}");
}

/// A ClientHello of TLS 1.2 (RFC 5246 section 7.4.1.2): one ECDHE suite, the groups and signatures it needs, no
/// supported_versions.
fn hello_of_tls12() -> Vec<u8> {
    let extensions = [
        [0, 10, 0, 4, 0, 2, 0, 23].as_slice(),         // supported_groups: secp256r1
        [0, 13, 0, 4, 0, 2, 4, 3].as_slice(),          // signature_algorithms: ecdsa_secp256r1_sha256
        [0, 11, 0, 2, 1, 0].as_slice(),                // ec_point_formats: uncompressed
        [0, 16, 0, 5, 0, 3, 2, b'h', b'2'].as_slice(), // ALPN
        [0, 23, 0, 0].as_slice(),                      // extended_master_secret
    ]
    .concat();
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0xc0, 0x2b, 1, 0]); // no session, ECDHE-ECDSA-AES128-GCM-SHA256, no compression
    body.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
    body.extend(extensions);
    let mut message = vec![1];
    message.extend(&u32::try_from(body.len()).unwrap().to_be_bytes()[1..]);
    message.extend(body);
    let mut record = vec![22, 3, 1];
    record.extend(u16::try_from(message.len()).unwrap().to_be_bytes());
    record.extend(message);
    record
}

#[tokio::test]
async fn tls_12_is_refused_with_the_alert_that_says_so() {
    let (near, mut far) = duplex(PIPE);
    let config = tls::server_config(&issue(&signer(), &cart())).unwrap();
    let accept = tokio::spawn(tls::accept(near, config));
    far.write_all(&hello_of_tls12()).await.unwrap();
    let mut answer = Vec::new();
    far.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, [21, 3, 3, 0, 2, 2, 70], "a fatal alert protocol_version");
    assert_eq!(accept.await.unwrap().err().unwrap().reason(), Reason::TlsFailed);
}

#[rstest]
#[case::http(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec())]
#[case::zeros(vec![0; 600])]
#[case::h2_without_tls(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec())]
#[case::silence_then_close(Vec::new())]
#[tokio::test]
async fn garbage_is_refused(#[case] bytes: Vec<u8>) {
    let (near, mut far) = duplex(PIPE);
    let accept = tokio::spawn(tls::accept(near, tls::server_config(&issue(&signer(), &cart())).unwrap()));
    far.write_all(&bytes).await.unwrap();
    far.shutdown().await.unwrap();
    assert_eq!(accept.await.unwrap().err().unwrap().reason(), Reason::TlsFailed);
}

#[tokio::test]
async fn renewal_serves_new_handshakes_and_leaves_old_connections_alone() {
    let signer = signer();
    let (first, client) = (issue(&signer, &cart()), issue(&signer, &web()));
    let (accepted, connected) = handshake(&first, &client, &[cart()]).await;
    let ((mut old_server, _), mut old_client) = (accepted.unwrap(), connected.unwrap());

    let second = issue(&signer, &cart());
    assert_ne!(first.serial(), second.serial());
    let (_accepted, connected) = handshake(&second, &client, &[cart()]).await;
    let renewed = connected.unwrap();
    assert_eq!(renewed.get_ref().1.peer_certificates().unwrap()[0], second.chain()[0]);

    drop(first);
    old_client.write_all(b"still here").await.unwrap();
    let mut got = [0; 10];
    old_server.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"still here");
}

#[tokio::test]
async fn old_and_new_roots_overlap() {
    let now = SystemTime::now();
    let [old, new] = [0, 1].map(|_| RootMaterial::create("cluster.local", DEFAULT_ROOT_TTL, now).unwrap());
    let load = |root: &RootMaterial, other: &RootMaterial| {
        let lifetime = LeafLifetime::default();
        Signer::load(&root.certificate_pem, &root.key_pem, Some(&other.certificate_pem), lifetime, now).unwrap()
    };
    let (before, after) = (load(&old, &new), load(&new, &old));
    for (server, client) in [(&before, &after), (&after, &before)] {
        let (accepted, connected) = handshake(&issue(server, &cart()), &issue(client, &web()), &[cart()]).await;
        assert!(accepted.is_ok() && connected.is_ok());
    }
}
