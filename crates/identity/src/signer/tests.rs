//! The CA: roots that can be used or are refused with the reason, leaves within their limits.

use rstest::rstest;

use super::*;
use crate::verify::{Usage, unix_time, verify_chain};

const HOUR: Duration = Duration::from_secs(3600);

fn web() -> SpiffeId {
    "spiffe://td/ns/shop/sa/web".parse().unwrap()
}

fn load(root: &RootMaterial, now: SystemTime) -> Result<Signer, SignError> {
    Signer::load(&root.certificate_pem, &root.key_pem, None, LeafLifetime::default(), now)
}

fn root(now: SystemTime) -> RootMaterial {
    RootMaterial::create("td", DEFAULT_ROOT_TTL, now).unwrap()
}

#[rstest]
#[case::says_nothing(None, HOUR)]
#[case::a_day(Some(24 * HOUR), 24 * HOUR)]
#[case::a_year(Some(365 * 24 * HOUR), 24 * HOUR)]
#[case::a_second(Some(Duration::from_secs(1)), Duration::from_secs(60))]
#[case::ten_minutes(Some(HOUR / 6), HOUR / 6)]
fn the_life_of_a_leaf_is_bounded(#[case] asked: Option<Duration>, #[case] given: Duration) {
    assert_eq!(LeafLifetime::default().grant(asked), given);
    let now = SystemTime::now();
    let remaining = load(&root(now), now).unwrap().issue(&web(), asked, now).unwrap().validity().remaining(now);
    assert!(remaining <= given && remaining + Duration::from_secs(1) > given, "{remaining:?}");
}

#[test]
fn one_setting_bounds_all_lives() {
    let short = LeafLifetime::up_to(Duration::from_secs(20));
    for asked in [None, Some(HOUR), Some(Duration::from_secs(20))] {
        assert_eq!(short.grant(asked), Duration::from_secs(20));
    }
    assert_eq!(LeafLifetime::up_to(2 * HOUR).grant(Some(Duration::ZERO)), Duration::from_secs(60));
}

#[test]
fn a_leaf_does_not_outlive_its_root_and_an_expired_root_signs_nothing() {
    let now = SystemTime::now();
    let short = RootMaterial::create("td", HOUR, now).unwrap();
    let signer = load(&short, now).unwrap();
    let later = now + HOUR / 2;
    assert_eq!(signer.issue(&web(), Some(24 * HOUR), later).unwrap().validity().not_after, signer.validity().not_after);
    let over = now + HOUR + Duration::from_secs(2);
    assert!(matches!(signer.issue(&web(), None, over), Err(SignError::Certificate(CertificateError::NotNow { .. }))));
    assert!(matches!(load(&short, over), Err(SignError::Certificate(CertificateError::NotNow { .. }))));
    assert!(matches!(load(&short, now - HOUR), Err(SignError::Certificate(CertificateError::NotNow { .. }))));
}

#[test]
fn leaves_have_the_form_that_peers_expect() {
    let now = SystemTime::now();
    let signer = load(&root(now), now).unwrap();
    let credentials = signer.issue(&web(), None, now).unwrap();
    let (_, leaf) = x509_parser::parse_x509_certificate(&credentials.chain()[0]).unwrap();
    assert_eq!(leaf.subject().iter().count(), 0);
    assert!(leaf.subject_alternative_name().unwrap().unwrap().critical, "the subject is empty (RFC 5280 4.2.1.6)");
    assert!(leaf.basic_constraints().unwrap().is_some_and(|basic| !basic.value.ca));
    assert!(leaf.key_usage().unwrap().unwrap().value.digital_signature());
    let usage = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.client_auth && usage.server_auth && !usage.any);
    let again = signer.issue(&web(), None, now).unwrap();
    assert_ne!(again.serial(), credentials.serial());
}

#[test]
fn an_intermediate_signs_and_its_chain_is_handed_out() {
    let now = SystemTime::now();
    let key = PrivateKey::generate().unwrap();
    let given = root(now);
    let issuer = Issuer::from_ca_cert_pem(&given.certificate_pem, KeyPair::from_pem(&given.key_pem).unwrap()).unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "intermediate");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let certificate = params.signed_by(key.pair(), &issuer).unwrap().pem();
    let chain = format!("{certificate}{}", given.certificate_pem);
    let signer = Signer::load(&chain, &key.pair().serialize_pem(), None, LeafLifetime::default(), now).unwrap();
    let request = Request::new(&web()).unwrap();
    let answer = signer.sign(&VerifiedRequest::from_pem(&request.csr_pem).unwrap(), None, now).unwrap();
    assert_eq!(answer.len(), 3, "leaf, intermediate, root");
    assert_eq!(answer[2], Roots::from_pem(given.certificate_pem.as_bytes()).unwrap().to_pem());
    assert_eq!(Credentials::from_response(&web(), &request.key, &answer, now).unwrap().chain().len(), 2);
    let missing = Signer::load(&certificate, &key.pair().serialize_pem(), None, LeafLifetime::default(), now);
    assert!(missing.is_ok(), "an intermediate alone is its own trust anchor");
}

#[test]
fn several_roots_are_handed_out_in_one_element() {
    let now = SystemTime::now();
    let (old, new) = (root(now), root(now));
    let extra = Some(old.certificate_pem.as_str());
    let signer = Signer::load(&new.certificate_pem, &new.key_pem, extra, LeafLifetime::default(), now).unwrap();
    let request = Request::new(&web()).unwrap();
    let answer = signer.sign(&VerifiedRequest::from_pem(&request.csr_pem).unwrap(), None, now).unwrap();
    assert_eq!(answer.len(), 2);
    assert_eq!(answer[1].matches("BEGIN CERTIFICATE").count(), 2);
    assert_eq!(signer.roots().certificates().len(), 2);
}

#[test]
fn what_cannot_sign_is_refused_at_start() {
    let now = SystemTime::now();
    let (ours, other) = (root(now), root(now));
    let load = |certificate: &str, key: &str| {
        Signer::load(certificate, key, None, LeafLifetime::default(), now).map(|_| ()).unwrap_err()
    };
    assert!(matches!(load(&ours.certificate_pem, &other.key_pem), SignError::Ca(_)), "another key");
    assert!(matches!(load(&ours.certificate_pem, "no key"), SignError::Key(_)));
    assert_eq!(load("", &ours.key_pem), SignError::NoCertificate);
    let signer = Signer::load(&ours.certificate_pem, &ours.key_pem, None, LeafLifetime::default(), now).unwrap();
    let request = Request::new(&web()).unwrap();
    let answer = signer.sign(&VerifiedRequest::from_pem(&request.csr_pem).unwrap(), None, now).unwrap();
    let error = load(&answer[0], &request.key.pair().serialize_pem());
    assert!(error.to_string().contains("CA:TRUE"), "a leaf is no CA: {error}");
    assert!(!format!("{ours:?} {signer:?}").contains("PRIVATE"));
}

#[test]
fn a_serving_certificate_serves_and_does_not_pass_for_a_workload() {
    let now = SystemTime::now();
    let signer = load(&root(now), now).unwrap();
    let serving =
        signer.serving(&["xds.weft-system.svc".to_owned()], &["127.0.0.1".parse().unwrap()], HOUR, now).unwrap();
    let leaf = &serving.certified.cert[0];
    for usage in [Usage::Client, Usage::Server] {
        assert!(verify_chain(signer.roots(), leaf, &[], usage, unix_time(now)).is_err());
    }
    assert!(serving.validity().remaining(now) > HOUR - Duration::from_secs(2));
    let error = signer.serving(&["ä".to_owned()], &[], HOUR, now).unwrap_err();
    assert_eq!(error, SignError::Name("ä".to_owned()));
}
