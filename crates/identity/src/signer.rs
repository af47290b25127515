//! The certificate authority itself, without any I/O: makes a root, signs leaves, and gives the control plane its own
//! serving certificate. `xds-server/src/ca` stores the files and answers the network; tests use it as it is.
//!
//! Roots are plural: the signer signs with one certificate, and hands out all that peers shall accept, so that a rotation
//! can let old and new overlap.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{Context, SHA256};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use rustls::sign::CertifiedKey;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use weft_model::{Reason, SpiffeId};
use zeroize::Zeroizing;

use crate::certificate::{CertificateError, Credentials, Validity, read_leaf};
use crate::request::{PrivateKey, Request, RequestError, VerifiedRequest, uri_name};
use crate::verify::{Roots, VerifyError, to_pem};

/// Ten years: Istio's default for a root of its own (`CITADEL_SELF_SIGNED_CA_CERT_TTL`); rotation is by overlap, not by expiry.
pub const DEFAULT_ROOT_TTL: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// How far back a certificate's start lies, so that a peer whose clock is a little late accepts it at once. Istio backdates
/// by two minutes; nodes with NTP differ by far less than one.
const BACKDATE: Duration = Duration::from_secs(60);

/// RFC 5280 section 4.1.2.2 allows 20 bytes of serial number; 16 random ones cannot collide.
const SERIAL_BYTES: usize = 16;

/// How long leaves live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeafLifetime {
    /// When the request says nothing.
    pub default: Duration,
    /// The longest that is given, whatever the request says.
    pub max: Duration,
    /// The shortest: a request for less would renew without end.
    pub min: Duration,
}

impl Default for LeafLifetime {
    /// One hour (the design asks for short-lived leaves: a stolen key is useless soon, and no revocation is needed), at most
    /// 24 hours (what a stock ztunnel asks for), at least one minute.
    fn default() -> Self {
        Self { default: Duration::from_secs(3600), max: Duration::from_secs(24 * 3600), min: Duration::from_secs(60) }
    }
}

impl LeafLifetime {
    /// At most `life`, which is also what a request without a wish gets (`--certificate-life`).
    #[must_use]
    pub fn up_to(life: Duration) -> Self {
        Self { default: life, max: life, min: Self::default().min.min(life) }
    }

    /// What a request for `asked` gets.
    #[must_use]
    pub fn grant(&self, asked: Option<Duration>) -> Duration {
        asked.unwrap_or(self.default).min(self.max).max(self.min)
    }
}

/// A root as it is kept in files.
#[derive(Clone)]
pub struct RootMaterial {
    /// The certificate, PEM.
    pub certificate_pem: String,
    /// Its private key, PKCS#8 PEM, wiped when dropped.
    pub key_pem: Zeroizing<String>,
}

impl std::fmt::Debug for RootMaterial {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("RootMaterial").field("certificate_pem", &self.certificate_pem).finish_non_exhaustive()
    }
}

impl RootMaterial {
    /// A new self-signed root for a trust domain.
    ///
    /// # Errors
    /// Only when the system gives no randomness, or the moment cannot be written in a certificate.
    pub fn create(trust_domain: &str, ttl: Duration, now: SystemTime) -> Result<Self, SignError> {
        let key = PrivateKey::generate()?;
        let mut params = CertificateParams::default();
        let mut name = DistinguishedName::new();
        name.push(DnType::OrganizationName, trust_domain);
        name.push(DnType::CommonName, "Weft root");
        params.distinguished_name = name;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        set_validity(&mut params, now, now + ttl);
        params.serial_number = Some(random_serial()?);
        let certificate = params.self_signed(key.pair()).map_err(SignError::make)?;
        Ok(Self { certificate_pem: to_pem(certificate.der()), key_pem: Zeroizing::new(key.pair().serialize_pem()) })
    }
}

/// Signs leaves with one CA certificate.
#[derive(Debug)]
pub struct Signer {
    issuer: Issuer<'static, KeyPair>,
    /// The CA certificate that signs, then what leads from it to a root; empty when a root signs itself.
    intermediates: Vec<CertificateDer<'static>>,
    roots: Roots,
    validity: Validity,
    lifetime: LeafLifetime,
}

impl Signer {
    /// Takes a CA: `chain_pem` is the signing certificate, then its issuers up to the root, `key_pem` its key (PKCS#8 or
    /// SEC1; ECDSA, RSA or Ed25519, since a given root may be of any kind). `extra_roots_pem` are more roots that peers shall accept (rotation).
    ///
    /// # Errors
    /// Says which part cannot be used and why.
    pub fn load(
        chain_pem: &str,
        key_pem: &str,
        extra_roots_pem: Option<&str>,
        lifetime: LeafLifetime,
        now: SystemTime,
    ) -> Result<Self, SignError> {
        let chain = read_chain(chain_pem)?;
        let (Some(signing), Some(root)) = (chain.first(), chain.last()) else { return Err(SignError::NoCertificate) };
        let (validity, _) = read_leaf(signing).map_err(SignError::Certificate)?;
        if !validity.contains(now) {
            return Err(SignError::Certificate(CertificateError::NotNow { validity, now }));
        }
        check_ca(signing)?;
        let pair = KeyPair::from_pem(key_pem).map_err(|error| SignError::Key(error.to_string()))?;
        let mut roots = vec![root.clone()];
        roots.append(&mut extra_roots_pem.map_or(Ok(Vec::new()), read_chain)?);
        let roots = Roots::new(roots).map_err(SignError::Roots)?;
        let intermediates = chain[..chain.len() - 1].to_vec();
        let issuer = Issuer::from_ca_cert_der(signing, pair).map_err(|error| SignError::Ca(error.to_string()))?;
        let signer = Self { issuer, intermediates, roots, validity, lifetime };
        // A trial leaf proves in one go that the key is the certificate's, the chain leads to the root, and peers accept it.
        let trial = SpiffeId::new("trial", "trial", "trial").map_err(|error| SignError::Ca(error.to_string()))?;
        signer.issue(&trial, None, now).map_err(|error| SignError::Ca(error.to_string()))?;
        Ok(signer)
    }

    /// What peers compare with.
    #[must_use]
    pub fn roots(&self) -> &Roots {
        &self.roots
    }

    /// When the signing certificate begins and ends.
    #[must_use]
    pub fn validity(&self) -> Validity {
        self.validity
    }

    /// What it signs with and hands out, in 64 letters: two signers with the same one give certificates that are as good as each other's.
    /// SHA-256 over all certificates in their order, each behind its length.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let mut digest = Context::new(&SHA256);
        digest.update(&self.intermediates.len().to_be_bytes());
        for certificate in self.intermediates.iter().chain(self.roots.certificates()) {
            digest.update(&certificate.len().to_be_bytes());
            digest.update(certificate);
        }
        digest.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Signs a checked request and answers as the wire wants it: leaf, intermediates one each, all roots in the last element.
    ///
    /// # Errors
    /// When the CA's own certificate is over.
    pub fn sign(
        &self,
        request: &VerifiedRequest,
        ttl: Option<Duration>,
        now: SystemTime,
    ) -> Result<Vec<String>, SignError> {
        let names = vec![uri_name(request.identity()).map_err(SignError::make)?];
        let usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let leaf = self.leaf(names, usages, request.public_key(), self.lifetime.grant(ttl), now)?;
        let mut answer = vec![to_pem(&leaf)];
        answer.extend(self.intermediates.iter().map(|certificate| to_pem(certificate)));
        answer.push(self.roots.to_pem());
        Ok(answer)
    }

    /// A key, its request, the signature and the check in one: credentials without a network.
    ///
    /// # Errors
    /// As [`sign`](Self::sign).
    pub fn issue(&self, identity: &SpiffeId, ttl: Option<Duration>, now: SystemTime) -> Result<Credentials, SignError> {
        let Request { key, csr_pem } = Request::new(identity)?;
        let answer = self.sign(&VerifiedRequest::from_pem(&csr_pem)?, ttl, now)?;
        Credentials::from_response(identity, &key, &answer, now).map_err(SignError::Certificate)
    }

    /// A certificate for the control plane's own port, for these DNS names and addresses, with a fresh key in memory.
    ///
    /// # Errors
    /// When a name is no DNS name, or the CA's own certificate is over.
    pub fn serving(
        &self,
        names: &[String],
        addresses: &[IpAddr],
        ttl: Duration,
        now: SystemTime,
    ) -> Result<Serving, SignError> {
        let key = PrivateKey::generate()?;
        let mut sans: Vec<SanType> = addresses.iter().copied().map(SanType::IpAddress).collect();
        for name in names {
            let text = name.as_str().try_into().map_err(|_| SignError::Name(name.clone()))?;
            sans.push(SanType::DnsName(text));
        }
        let leaf = self.leaf(sans, vec![ExtendedKeyUsagePurpose::ServerAuth], key.pair(), ttl, now)?;
        let (validity, _) = read_leaf(&leaf).map_err(SignError::Certificate)?;
        let mut chain = vec![leaf];
        chain.extend(self.intermediates.iter().cloned());
        let signing_key = key.signing_key().map_err(|error| SignError::Key(error.to_string()))?;
        Ok(Serving { certified: Arc::new(CertifiedKey::new(chain, signing_key)), validity })
    }

    fn leaf(
        &self,
        names: Vec<SanType>,
        usages: Vec<ExtendedKeyUsagePurpose>,
        key: &impl PublicKeyData,
        ttl: Duration,
        now: SystemTime,
    ) -> Result<CertificateDer<'static>, SignError> {
        if self.validity.is_expired(now) {
            return Err(SignError::Certificate(CertificateError::NotNow { validity: self.validity, now }));
        }
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = names;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = usages;
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(random_serial()?);
        // A leaf never outlives its CA: it would be refused from then on while it looks valid.
        set_validity(&mut params, now, (now + ttl).min(self.validity.not_after));
        let leaf = params.signed_by(key, &self.issuer).map_err(SignError::make)?;
        Ok(leaf.into())
    }
}

/// The control plane's own certificate and key.
#[derive(Debug, Clone)]
pub struct Serving {
    pub(crate) certified: Arc<CertifiedKey>,
    validity: Validity,
}

impl Serving {
    /// When it begins and ends: make the next one at half life.
    #[must_use]
    pub fn validity(&self) -> Validity {
        self.validity
    }
}

/// Sets the first and the last moment; certificates know whole seconds.
fn set_validity(params: &mut CertificateParams, now: SystemTime, not_after: SystemTime) {
    params.not_before = (now - BACKDATE).into();
    params.not_after = not_after.into();
}

fn random_serial() -> Result<SerialNumber, SignError> {
    let mut bytes = [0; SERIAL_BYTES];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| SignError::Make("the system gives no randomness".to_owned()))?;
    bytes[0] &= 0x7f; // a serial number is positive
    bytes[0] |= 0x40; // and of equal length always
    Ok(SerialNumber::from_slice(&bytes))
}

fn read_chain(pem: &str) -> Result<Vec<CertificateDer<'static>>, SignError> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let chain = chain.map_err(|error| SignError::Certificate(CertificateError::Encoding(error.to_string())))?;
    if chain.is_empty() { Err(SignError::NoCertificate) } else { Ok(chain) }
}

fn check_ca(certificate: &CertificateDer<'_>) -> Result<(), SignError> {
    let (_, parsed) =
        x509_parser::parse_x509_certificate(certificate).map_err(|error| SignError::Ca(error.to_string()))?;
    if !parsed.is_ca() {
        return Err(SignError::Ca("its basic constraints do not say CA:TRUE".to_owned()));
    }
    match parsed.key_usage() {
        Ok(Some(usage)) if !usage.value.key_cert_sign() => {
            Err(SignError::Ca("its key usage does not allow to sign certificates".to_owned()))
        }
        Ok(_) => Ok(()),
        Err(error) => Err(SignError::Ca(error.to_string())),
    }
}

/// Why the CA cannot be used or does not sign.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// The request is not acceptable.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// Encoding or randomness failed.
    #[error("cannot make a certificate: {0}")]
    Make(String),
    /// The file holds none.
    #[error("no certificate in the given PEM")]
    NoCertificate,
    /// A certificate cannot be read or is not valid now.
    #[error("certificate: {0}")]
    Certificate(#[source] CertificateError),
    /// The certificate may not sign others, or does not belong to the key or the chain.
    #[error("the CA certificate cannot be used: {0}")]
    Ca(String),
    /// Not a private key in PEM, or of a kind that cannot sign here.
    #[error("the CA key cannot be used: {0}")]
    Key(String),
    /// The roots are not usable.
    #[error("the roots cannot be used: {0}")]
    Roots(#[source] VerifyError),
    /// Not a DNS name.
    #[error("'{0}' is no DNS name for a serving certificate")]
    Name(String),
}

impl SignError {
    fn make(error: rcgen::Error) -> Self {
        Self::Make(error.to_string())
    }

    /// The code for log, metric and status.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Request(error) => error.reason(),
            Self::Make(_)
            | Self::NoCertificate
            | Self::Certificate(_)
            | Self::Ca(_)
            | Self::Key(_)
            | Self::Roots(_)
            | Self::Name(_) => Reason::NoCertificate,
        }
    }
}

#[cfg(test)]
mod tests;
