//! Chains and identities: what is believed and what is not; the handshake's view of it is in `tests/handshake.rs`.

use std::time::Duration;

use proptest::prelude::{any, prop_assert, proptest};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use rstest::rstest;

use super::*;

struct Ca {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

fn ca_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

fn root() -> Ca {
    let (params, key) = (ca_params("root"), KeyPair::generate().unwrap());
    let certificate = params.self_signed(&key).unwrap().into();
    Ca { issuer: Issuer::new(params, key), certificate }
}

fn intermediate(root: &Ca) -> Ca {
    let (params, key) = (ca_params("intermediate"), KeyPair::generate().unwrap());
    let certificate = params.signed_by(&key, &root.issuer).unwrap().into();
    Ca { issuer: Issuer::new(params, key), certificate }
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

fn leaf_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![uri("spiffe://td/ns/shop/sa/web")];
    params
}

fn leaf(ca: &Ca, params: &CertificateParams) -> CertificateDer<'static> {
    params.signed_by(&KeyPair::generate().unwrap(), &ca.issuer).unwrap().into()
}

fn now() -> UnixTime {
    unix_time(SystemTime::now())
}

fn roots(of: &[&Ca]) -> Roots {
    Roots::new(of.iter().map(|ca| ca.certificate.clone())).unwrap()
}

#[test]
fn a_chain_leads_to_any_of_the_roots_over_its_intermediates() {
    let (first, second) = (root(), root());
    let between = intermediate(&second);
    let certificate = leaf(&between, &leaf_params());
    let both = roots(&[&first, &second]);
    let id =
        verify_chain(&both, &certificate, std::slice::from_ref(&between.certificate), Usage::Client, now()).unwrap();
    assert_eq!(id.to_string(), "spiffe://td/ns/shop/sa/web");
    assert!(verify_chain(&both, &certificate, &[], Usage::Client, now()).is_err(), "intermediate missing");
    let only = roots(&[&first]);
    assert!(verify_chain(&only, &certificate, &[between.certificate], Usage::Client, now()).is_err());
}

#[rstest]
#[case::two_uris(|params: &mut CertificateParams| params.subject_alt_names.push(uri("spiffe://td/ns/shop/sa/other")))]
#[case::no_names(|params: &mut CertificateParams| params.subject_alt_names.clear())]
#[case::foreign_uri(|params: &mut CertificateParams| params.subject_alt_names = vec![uri("https://example.org")])]
#[case::longer_path(|params: &mut CertificateParams| params.subject_alt_names = vec![uri("spiffe://td/ns/shop/sa/web/x")])]
#[case::a_ca(|params: &mut CertificateParams| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained))]
#[case::other_usage(|params: &mut CertificateParams| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning])]
#[case::server_only(|params: &mut CertificateParams| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth])]
#[case::over(|params: &mut CertificateParams| params.not_after = (SystemTime::now() - Duration::from_secs(60)).into())]
#[case::not_begun(|params: &mut CertificateParams| params.not_before = (SystemTime::now() + Duration::from_secs(600)).into())]
fn leaves_that_are_refused(#[case] change: fn(&mut CertificateParams)) {
    let ca = root();
    let mut params = leaf_params();
    assert!(verify_chain(&roots(&[&ca]), &leaf(&ca, &params), &[], Usage::Client, now()).is_ok());
    change(&mut params);
    let error = verify_chain(&roots(&[&ca]), &leaf(&ca, &params), &[], Usage::Client, now()).unwrap_err();
    assert_eq!(error.reason(), Reason::TlsFailed, "{error}");
}

#[test]
fn roots_are_read_all_or_none() {
    let (first, second) = (root(), root());
    let both = roots(&[&first, &second, &first]);
    assert_eq!(both.certificates().len(), 2, "the same one twice counts once");
    assert_eq!(Roots::from_pem(both.to_pem().as_bytes()).unwrap(), both);
    assert_eq!(Roots::from_pem(b"").unwrap_err(), VerifyError::NoRoots);
    let broken = format!("{}-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", both.to_pem());
    assert!(matches!(Roots::from_pem(broken.as_bytes()), Err(VerifyError::Root(_))));
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), text in ".{0,200}") {
        let certificate = CertificateDer::from(bytes.clone());
        prop_assert!(identity_of(&certificate).is_err());
        let _ = Roots::new([certificate]);
        let _ = Roots::from_pem(&bytes);
        let _ = Roots::from_pem(text.as_bytes());
    }

    #[test]
    fn no_damage_panics_or_is_believed(at: proptest::sample::Index, value: u8) {
        let ca = root();
        let good = leaf(&ca, &leaf_params());
        let mut damaged = good.to_vec();
        let at = at.index(damaged.len());
        damaged[at] = value;
        let damaged = CertificateDer::from(damaged);
        let believed = verify_chain(&roots(&[&ca]), &damaged, &[], Usage::Server, now()).is_ok();
        prop_assert!(!believed || damaged == good, "byte {at}");
        let _ = identity_of(&damaged);
    }
}
