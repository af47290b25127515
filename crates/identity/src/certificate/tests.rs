//! The CA's answer: complete and ours, or refused.

use proptest::prelude::proptest;
use rstest::rstest;

use super::*;
use crate::request::{Request, VerifiedRequest};
use crate::signer::{DEFAULT_ROOT_TTL, LeafLifetime, RootMaterial, Signer};

const HOUR: Duration = Duration::from_secs(3600);

fn web() -> SpiffeId {
    "spiffe://td/ns/shop/sa/web".parse().unwrap()
}

fn signer(now: SystemTime) -> Signer {
    let root = RootMaterial::create("td", DEFAULT_ROOT_TTL, now).unwrap();
    Signer::load(&root.certificate_pem, &root.key_pem, None, LeafLifetime::default(), now).unwrap()
}

fn answer(signer: &Signer, request: &Request, now: SystemTime) -> Vec<String> {
    signer.sign(&VerifiedRequest::from_pem(&request.csr_pem).unwrap(), Some(HOUR), now).unwrap()
}

#[test]
fn a_good_answer_becomes_credentials() {
    let now = SystemTime::now();
    let (signer, request) = (signer(now), Request::new(&web()).unwrap());
    let credentials = Credentials::from_response(&web(), &request.key, &answer(&signer, &request, now), now).unwrap();
    assert_eq!((credentials.identity(), credentials.chain().len()), (&web(), 1));
    assert_eq!(credentials.roots().as_ref(), signer.roots());
    assert_eq!(credentials.serial().len(), 32);
    let validity = credentials.validity();
    assert!(validity.contains(now) && !validity.is_expired(now));
    assert!(validity.not_before <= now - Duration::from_secs(59), "a late clock accepts it, too");
    assert!(validity.remaining(now) <= HOUR && validity.remaining(now) > HOUR - Duration::from_secs(2));
    let half = validity.half_life().duration_since(now).unwrap();
    assert!(half < HOUR / 2 && half > HOUR / 2 - Duration::from_secs(60));
    assert!(validity.is_expired(now + HOUR + Duration::from_secs(1)));
    let shown = format!("{credentials:?}{request:?}");
    assert!(!shown.contains("PRIVATE") && shown.contains("secret key elided"), "{shown}");
}

#[test]
fn answers_that_are_not_ours_are_refused() {
    let now = SystemTime::now();
    let (signer, stranger, request) = (signer(now), signer(now), Request::new(&web()).unwrap());
    let good = answer(&signer, &request, now);
    let take = |asked: &SpiffeId, key: &PrivateKey, response: &[String], now| {
        Credentials::from_response(asked, key, response, now).map(|_| ()).unwrap_err()
    };
    let other: SpiffeId = "spiffe://td/ns/shop/sa/cart".parse().unwrap();
    assert!(matches!(take(&other, &request.key, &good, now), CertificateError::OtherIdentity { .. }));
    let key = PrivateKey::generate().unwrap();
    assert_eq!(take(&web(), &key, &good, now), CertificateError::OtherKey);
    for late in [now + 2 * HOUR, now - HOUR] {
        let error = take(&web(), &request.key, &good, late);
        assert!(matches!(error, CertificateError::NotNow { .. }), "{error}");
        assert_eq!(error.reason(), Reason::NoCertificate);
    }
    let mixed = [good[0].clone(), stranger.roots().to_pem()];
    assert!(matches!(take(&web(), &request.key, &mixed, now), CertificateError::Chain(_)));
}

#[rstest]
#[case::nothing(&[])]
#[case::one(&["x"])]
#[case::no_certificates(&["x", "y"])]
#[case::broken(&["-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "y"])]
#[case::cut(&["-----BEGIN CERTIFICATE-----\nAAAA", "y"])]
fn malformed_answers_are_refused(#[case] response: &[&str]) {
    let response: Vec<String> = response.iter().map(|text| (*text).to_owned()).collect();
    let key = PrivateKey::generate().unwrap();
    assert!(Credentials::from_response(&web(), &key, &response, SystemTime::now()).is_err());
}

proptest! {
    #[test]
    fn no_answer_panics(texts in proptest::collection::vec(".{0,120}", 0..4), at: proptest::sample::Index, value in "[ -~]") {
        let now = SystemTime::now();
        let key = PrivateKey::generate().unwrap();
        let _ = Credentials::from_response(&web(), &key, &texts, now);
        let request = Request::new(&web()).unwrap();
        let mut response = answer(&signer(now), &request, now);
        let at = at.index(response[0].len());
        response[0].replace_range(at..=at, &value);
        let _ = Credentials::from_response(&web(), &request.key, &response, now);
    }
}
