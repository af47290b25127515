//! Certificate requests (PKCS#10, RFC 2986), both sides: a fresh key with its request for the node agent, the check of a
//! request for the CA.
//!
//! The form is Istio's: ECDSA P-256 with SHA-256, empty subject, one critical subjectAltName
//! with one URI. The CA takes nothing from a request but the public key and that identity, and refuses a request that
//! asks for more, so that nobody believes to have got what was ignored.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, SanType, SubjectPublicKeyInfo};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateSigningRequestDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use weft_model::{Reason, SpiffeId};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::cri_attributes::ParsedCriAttribute;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_SIG_ECDSA_WITH_SHA256};
use x509_parser::prelude::FromDer;
use x509_parser::x509::SubjectPublicKeyInfo as ParsedKey;
use zeroize::Zeroize;

/// A P-256 request with the longest identity is under 1.5 KiB of PEM; a bigger one is none of ours.
const MAX_REQUEST: usize = 16 * 1024;

/// An ECDSA P-256 private key that exists in memory only and is wiped when dropped.
#[derive(Debug)]
pub struct PrivateKey {
    pair: KeyPair,
}

impl PrivateKey {
    /// A fresh random key.
    ///
    /// # Errors
    /// Only when the system gives no randomness.
    pub fn generate() -> Result<Self, RequestError> {
        Ok(Self { pair: KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(RequestError::make)? })
    }

    /// The key as the signer of requests and certificates.
    pub(crate) fn pair(&self) -> &KeyPair {
        &self.pair
    }

    /// The key as rustls signs handshakes with it. The copy inside is aws-lc's, which wipes it when freed.
    pub(crate) fn signing_key(&self) -> Result<std::sync::Arc<dyn rustls::sign::SigningKey>, rustls::Error> {
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.pair.serialized_der()));
        rustls::crypto::aws_lc_rs::sign::any_ecdsa_type(&der)
    }
}

impl Drop for PrivateKey {
    fn drop(&mut self) {
        self.pair.zeroize();
    }
}

/// A key and the request that goes to the CA.
#[derive(Debug)]
pub struct Request {
    /// Stays here.
    pub key: PrivateKey,
    /// Goes to the CA, PEM.
    pub csr_pem: String,
}

impl Request {
    /// Makes a fresh key and asks for `identity`.
    ///
    /// # Errors
    /// Only when the system gives no randomness.
    pub fn new(identity: &SpiffeId) -> Result<Self, RequestError> {
        let key = PrivateKey::generate()?;
        let mut params = CertificateParams::default();
        // rcgen marks the subjectAltName critical when the subject is empty (RFC 5280 section 4.2.1.6).
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![uri_name(identity).map_err(RequestError::make)?];
        let csr_pem = params.serialize_request(&key.pair).and_then(|csr| csr.pem()).map_err(RequestError::make)?;
        Ok(Self { key, csr_pem })
    }
}

pub(crate) fn uri_name(identity: &SpiffeId) -> Result<SanType, rcgen::Error> {
    Ok(SanType::URI(identity.to_string().try_into()?))
}

/// A request whose holder has proved to own the key, and that asks for exactly one identity.
#[derive(Debug, Clone)]
pub struct VerifiedRequest {
    identity: SpiffeId,
    public_key: SubjectPublicKeyInfo,
}

impl VerifiedRequest {
    /// Reads and checks a request in PEM.
    ///
    /// # Errors
    /// Says what is wrong with it; every error is [`Reason::BadCertificateRequest`].
    pub fn from_pem(csr_pem: &str) -> Result<Self, RequestError> {
        if csr_pem.len() > MAX_REQUEST {
            return Err(RequestError::TooLong(csr_pem.len()));
        }
        let der = CertificateSigningRequestDer::from_pem_slice(csr_pem.as_bytes())
            .map_err(|error| RequestError::Encoding(format!("no PEM block CERTIFICATE REQUEST: {error}")))?;
        Self::from_der(&der)
    }

    /// Reads and checks a request in DER.
    ///
    /// # Errors
    /// As [`from_pem`](Self::from_pem).
    pub fn from_der(der: &[u8]) -> Result<Self, RequestError> {
        let (rest, csr) = X509CertificationRequest::from_der(der)
            .map_err(|error| RequestError::Encoding(format!("not a PKCS#10 request: {error}")))?;
        if !rest.is_empty() {
            return Err(RequestError::Encoding(format!("{} bytes follow the request", rest.len())));
        }
        let info = &csr.certification_request_info;
        check_key(&info.subject_pki)?;
        if csr.signature_algorithm.algorithm != OID_SIG_ECDSA_WITH_SHA256 {
            return Err(RequestError::Key("it must be signed with ECDSA and SHA-256".to_owned()));
        }
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, info.subject_pki.subject_public_key.data.as_ref())
            .verify(info.raw, csr.signature_value.data.as_ref())
            .map_err(|_| RequestError::Signature)?;
        if info.subject.iter().next().is_some() {
            return Err(RequestError::AsksForMore(format!("the subject '{}'", info.subject)));
        }
        let identity = only_identity(info.iter_attributes().map(|attribute| attribute.parsed_attribute()))?;
        let public_key = SubjectPublicKeyInfo::from_der(info.subject_pki.raw)
            .map_err(|error| RequestError::Key(error.to_string()))?;
        Ok(Self { identity, public_key })
    }

    /// The identity that is asked for.
    #[must_use]
    pub fn identity(&self) -> &SpiffeId {
        &self.identity
    }

    pub(crate) fn public_key(&self) -> &SubjectPublicKeyInfo {
        &self.public_key
    }
}

fn check_key(key: &ParsedKey<'_>) -> Result<(), RequestError> {
    let curve = key.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
    if key.algorithm.algorithm != OID_KEY_TYPE_EC_PUBLIC_KEY || curve != Some(OID_EC_P256) {
        return Err(RequestError::Key("the key must be ECDSA on P-256".to_owned()));
    }
    Ok(())
}

fn only_identity<'a>(attributes: impl Iterator<Item = &'a ParsedCriAttribute<'a>>) -> Result<SpiffeId, RequestError> {
    let mut uris = Vec::new();
    for attribute in attributes {
        let ParsedCriAttribute::ExtensionRequest(request) = attribute else {
            return Err(RequestError::AsksForMore("an attribute that is no extension request".to_owned()));
        };
        for extension in &request.extensions {
            let ParsedExtension::SubjectAlternativeName(names) = extension.parsed_extension() else {
                return Err(RequestError::AsksForMore(format!("the extension {}", extension.oid)));
            };
            for name in &names.general_names {
                match name {
                    GeneralName::URI(uri) => uris.push(*uri),
                    other => return Err(RequestError::AsksForMore(format!("the name {other}"))),
                }
            }
        }
    }
    match uris.as_slice() {
        [uri] => uri.parse().map_err(RequestError::Identity),
        _ => Err(RequestError::NotOneUri(uris.len())),
    }
}

/// Why a request cannot be made or signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Key generation or encoding failed.
    #[error("cannot make a certificate request: {0}")]
    Make(String),
    /// Far longer than a request can be.
    #[error("the certificate request is {0} bytes long; at most 16 KiB are read")]
    TooLong(usize),
    /// Not a PEM or DER request.
    #[error("the certificate request cannot be read: {0}")]
    Encoding(String),
    /// Another kind of key or signature than ECDSA P-256.
    #[error("the certificate request has a key that is not accepted: {0}")]
    Key(String),
    /// The sender does not hold the private key.
    #[error("the certificate request is not signed by its own key")]
    Signature,
    /// Not exactly one URI in the subjectAltName.
    #[error("the certificate request must name exactly one URI, it names {0}")]
    NotOneUri(usize),
    /// The URI is no identity of ours.
    #[error("the certificate request's URI is no identity: {0}")]
    Identity(#[source] weft_model::spiffe::SpiffeError),
    /// Something beside the identity is asked for.
    #[error("the certificate request asks for more than one identity: {0}")]
    AsksForMore(String),
}

impl RequestError {
    fn make(error: rcgen::Error) -> Self {
        Self::Make(error.to_string())
    }

    /// The code for log, metric and status.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Make(_) => Reason::NoCertificate,
            _ => Reason::BadCertificateRequest,
        }
    }
}

#[cfg(test)]
mod tests;
