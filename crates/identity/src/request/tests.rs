//! Requests: what is made is accepted and says what it said; everything else is refused, with the reason; nothing panics.

use proptest::prelude::{any, prop_assert_eq, proptest};
use rcgen::{CustomExtension, KeyUsagePurpose, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};
use rstest::rstest;

use super::*;

fn web() -> SpiffeId {
    "spiffe://cluster.local/ns/shop/sa/web".parse().unwrap()
}

fn params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![uri_name(&web()).unwrap()];
    params
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

fn csr(params: &CertificateParams, key: &KeyPair) -> Result<VerifiedRequest, RequestError> {
    VerifiedRequest::from_pem(&params.serialize_request(key).unwrap().pem().unwrap())
}

fn p256() -> KeyPair {
    KeyPair::generate().unwrap()
}

#[test]
fn the_form_is_istios() {
    let request = Request::new(&web()).unwrap();
    let der = CertificateSigningRequestDer::from_pem_slice(request.csr_pem.as_bytes()).unwrap();
    let (_, parsed) = X509CertificationRequest::from_der(&der).unwrap();
    let info = &parsed.certification_request_info;
    assert_eq!(info.subject.iter().count(), 0);
    let attributes: Vec<_> = info.iter_attributes().collect();
    let [attribute] = attributes.as_slice() else { panic!("{attributes:?}") };
    let ParsedCriAttribute::ExtensionRequest(request) = attribute.parsed_attribute() else { panic!("{attribute:?}") };
    let [extension] = request.extensions.as_slice() else { panic!("{request:?}") };
    assert!(extension.critical);
}

#[rstest]
#[case::two_uris(|params: &mut CertificateParams| params.subject_alt_names.push(uri("spiffe://td/ns/a/sa/b")))]
#[case::no_uri(|params: &mut CertificateParams| params.subject_alt_names.clear())]
#[case::other_scheme(|params: &mut CertificateParams| params.subject_alt_names = vec![uri("https://shop/web")])]
#[case::dns_beside(|params: &mut CertificateParams| params.subject_alt_names.push(SanType::DnsName("x.test".try_into().unwrap())))]
#[case::subject(|params: &mut CertificateParams| params.distinguished_name.push(rcgen::DnType::CommonName, "root"))]
#[case::key_usage(|params: &mut CertificateParams| params.key_usages = vec![KeyUsagePurpose::KeyCertSign])]
#[case::ca(|params: &mut CertificateParams| params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained))]
#[case::own_extension(|params: &mut CertificateParams| params.custom_extensions.push(CustomExtension::from_oid_content(&[1, 2, 3], vec![5, 0])))]
fn what_asks_for_something_else_is_refused(#[case] change: fn(&mut CertificateParams)) {
    let mut params = params();
    assert!(csr(&params, &p256()).is_ok());
    change(&mut params);
    let error = csr(&params, &p256()).unwrap_err();
    assert_eq!(error.reason(), Reason::BadCertificateRequest, "{error}");
}

#[test]
fn other_keys_are_refused() {
    for algorithm in [&PKCS_ECDSA_P384_SHA384, &PKCS_ED25519] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        assert!(matches!(csr(&params(), &key), Err(RequestError::Key(_))));
    }
}

#[test]
fn a_request_that_its_key_did_not_sign_is_refused() {
    let request = params().serialize_request(&p256()).unwrap();
    let mut der = request.der().to_vec();
    // Another account, of the same length: the attacker's wish under somebody's signature.
    let at = der.windows(6).position(|window| window == b"sa/web").unwrap();
    der[at + 3..at + 6].copy_from_slice(b"dba");
    assert_eq!(VerifiedRequest::from_der(&der).unwrap_err(), RequestError::Signature);
    der.push(0);
    assert!(matches!(VerifiedRequest::from_der(&der), Err(RequestError::Encoding(_))));
    assert_eq!(VerifiedRequest::from_pem(&"x".repeat(20_000)).unwrap_err(), RequestError::TooLong(20_000));
}

proptest! {
    #[test]
    fn what_is_asked_is_what_is_read(domain in "[a-z0-9][a-z0-9.-]{0,60}", ns in "[a-z0-9][a-z0-9-]{0,62}", sa in "[a-z0-9][a-z0-9.-]{0,200}") {
        let identity = SpiffeId::new(&domain, &ns, &sa).unwrap();
        let request = Request::new(&identity).unwrap();
        let verified = VerifiedRequest::from_pem(&request.csr_pem).unwrap();
        prop_assert_eq!(verified.identity(), &identity);
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), text in ".{0,300}") {
        let _ = VerifiedRequest::from_der(&bytes);
        let _ = VerifiedRequest::from_pem(&text);
    }

    /// The parser is lax about the envelope around what is signed (tag classes, the algorithm's tag, unused bits: each byte
    /// and value was tried). What comes through is still what the key signed.
    #[test]
    fn no_damage_panics_or_changes_what_is_asked(at: proptest::sample::Index, value: u8, cut: proptest::sample::Index) {
        let good = params().serialize_request(&p256()).unwrap().der().to_vec();
        let original = VerifiedRequest::from_der(&good).unwrap();
        let mut damaged = good.clone();
        damaged[at.index(good.len())] = value;
        if let Ok(read) = VerifiedRequest::from_der(&damaged) {
            prop_assert_eq!(read.identity(), original.identity());
            prop_assert_eq!(read.public_key(), original.public_key());
        }
        prop_assert_eq!(VerifiedRequest::from_der(&good[..cut.index(good.len())]).is_ok(), false);
    }
}
