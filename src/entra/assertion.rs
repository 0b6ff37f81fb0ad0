//! A client certificate with its key, and the assertion that proves to Entra ID that we hold it: a JWT of ten
//! minutes, PS256, which names the certificate by `x5t#S256` (RFC 7523; "Certificate credentials", Entra docs).

use std::{fmt, sync::Arc};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jiff::{SignedDuration, Timestamp};
use rustls::{
    SignatureAlgorithm, SignatureScheme,
    crypto::ring::sign::any_supported_type,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::SigningKey,
};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::{
    model::Secret,
    transport::{certificate_end, certificate_key},
};

/// Longer ones are refused by some tenants.
const LIFE: SignedDuration = SignedDuration::from_mins(10);

/// A certificate that an application has registered, and its RSA key.
#[derive(Clone)]
pub struct ClientCertificate {
    key: Arc<dyn SigningKey>,
    /// SHA-256 of the certificate, as `x5t#S256` has it.
    thumbprint: String,
    ends: Option<Timestamp>,
}

/// Why a text cannot be used as a certificate with its key. It repeats nothing of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    #[error(
        "the client certificate holds no PEM: it begins nowhere with -----BEGIN; openssl pkcs12 -in NAME.pfx -out NAME.pem -nodes makes it from a PFX"
    )]
    NoPem,
    /// As Azure Key Vault hands it out.
    #[error(
        "the client certificate is a PFX or DER in base64, not PEM; base64 -d NAME.txt > NAME.pfx, then openssl pkcs12 -in NAME.pfx -out NAME.pem -nodes"
    )]
    Base64,
    #[error("the PEM of the client certificate is cut short or damaged")]
    Damaged,
    #[error("the PEM of the client certificate holds no certificate beside the key")]
    NoCertificate,
    #[error("the PEM of the client certificate holds no private key beside the certificate")]
    NoKey,
    #[error(
        "the private key of the client certificate is encrypted; openssl pkey -in NAME.pem -out NAME.key decrypts it"
    )]
    Encrypted,
    #[error("the private key of the client certificate is no RSA key, and Entra ID takes no other")]
    NotRsa,
    #[error(
        "the private key of the client certificate cannot be used; RSA keys of 2048 to 8192 bits can"
    )]
    UnusableKey,
    #[error("the private key belongs to none of the certificates beside it")]
    OtherKey,
    /// The library refused to sign.
    #[error("the private key of the client certificate does not sign")]
    DoesNotSign,
}

impl ClientCertificate {
    /// Reads PEM: certificates in any order, and one private key (PKCS#8 or PKCS#1). The certificate of the key is
    /// the one that counts.
    ///
    /// # Errors
    /// When either is missing, damaged, or of no use here.
    pub fn parse(pem: &Secret) -> Result<Self, CertificateError> {
        let text = pem.expose();
        if !text.contains("-----BEGIN ") {
            return Err(match text.trim_start().starts_with("MI") {
                true => CertificateError::Base64,
                false => CertificateError::NoPem,
            });
        }
        if text.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----")
            || text.contains("Proc-Type: 4,ENCRYPTED")
        {
            return Err(CertificateError::Encrypted);
        }
        let certificates = CertificateDer::pem_slice_iter(text.as_bytes());
        let certificates: Vec<_> = certificates
            .collect::<Result<_, _>>()
            .map_err(|_| CertificateError::Damaged)?;
        if certificates.is_empty() {
            return Err(CertificateError::NoCertificate);
        }
        let key = signing_key(text.as_bytes())?;
        let public = key.public_key();
        let public = public.as_ref().map(AsRef::as_ref);
        let own = certificates
            .iter()
            .find(|certificate| certificate_key(certificate) == public)
            .ok_or(CertificateError::OtherKey)?;
        Ok(Self {
            thumbprint: BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(own)),
            ends: certificate_end(own),
            key,
        })
    }

    /// When the certificate ends.
    pub fn ends(&self) -> Option<Timestamp> {
        self.ends
    }

    /// A proof to whoever listens at `audience`, made at `now`, that `client` holds the key; `id` is never used twice.
    ///
    /// # Errors
    /// When the key does not sign.
    pub(super) fn assertion(
        &self,
        client: &str,
        audience: &str,
        id: &str,
        now: Timestamp,
    ) -> Result<Secret, CertificateError> {
        let header = json!({"alg": "PS256", "typ": "JWT", "x5t#S256": self.thumbprint});
        let at = now.as_second();
        let claims = json!({
            "aud": audience,
            "iss": client,
            "sub": client,
            "jti": id,
            "iat": at,
            "nbf": at,
            "exp": at + LIFE.as_secs(),
        });
        let part = |json: serde_json::Value| BASE64_URL_SAFE_NO_PAD.encode(json.to_string());
        let signed = format!("{}.{}", part(header), part(claims));
        let signer = self.key.choose_scheme(&[SignatureScheme::RSA_PSS_SHA256]);
        let signature = signer
            .and_then(|signer| signer.sign(signed.as_bytes()).ok())
            .ok_or(CertificateError::DoesNotSign)?;
        let signature = BASE64_URL_SAFE_NO_PAD.encode(signature);
        Ok(Secret::new(format!("{signed}.{signature}")))
    }
}

fn signing_key(pem: &[u8]) -> Result<Arc<dyn SigningKey>, CertificateError> {
    use rustls::pki_types::pem::Error as Pem;
    let der = PrivateKeyDer::from_pem_slice(pem).map_err(|error| match error {
        Pem::NoItemsFound => CertificateError::NoKey,
        _ => CertificateError::Damaged,
    })?;
    let unusable = match &der {
        PrivateKeyDer::Sec1(_) => CertificateError::NotRsa,
        _ => CertificateError::UnusableKey,
    };
    let key = any_supported_type(&der).map_err(|_| unusable)?;
    match key.algorithm() {
        SignatureAlgorithm::RSA => Ok(key),
        _ => Err(CertificateError::NotRsa),
    }
}

impl fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientCertificate({})", self.thumbprint)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A certificate until 2036 with its key, made for tests by openssl.
    pub(in crate::entra) const PEM: &str = include_str!("../../tests/it/fixtures/entra-client.pem");

    fn parse(text: &str) -> Result<ClientCertificate, CertificateError> {
        ClientCertificate::parse(&Secret::new(text.to_owned()))
    }

    /// The sections of [`PEM`]: the key and the certificate.
    fn parts() -> (String, String) {
        let at = PEM.find("-----BEGIN CERTIFICATE").unwrap();
        (PEM[..at].to_owned(), PEM[at..].to_owned())
    }

    #[test]
    fn the_certificate_of_the_key_counts_wherever_it_stands() {
        let (key, own) = parts();
        let other = include_str!("../../tests/it/fixtures/authority.pem");
        for text in [
            PEM.to_owned(),
            format!("{own}{key}"),
            format!("{other}{own}{key}"),
            format!("Bag Attributes\n    friendlyName: x\n{own}{other}{key}"),
            PEM.replace('\n', "\r\n"),
        ] {
            let read = parse(&text).unwrap();
            assert_eq!(read.thumbprint, parse(PEM).unwrap().thumbprint);
            assert!(read.ends() > Some("2030-01-01T00:00:00Z".parse().unwrap()));
        }
        assert_eq!(
            parse(&format!("{other}{key}")).unwrap_err(),
            CertificateError::OtherKey
        );
    }

    #[test]
    fn each_mistake_is_named_and_nothing_of_the_text_is_shown() {
        let (key, own) = parts();
        let section = |label: &str, body: &str| {
            format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
        };
        let body = key.lines().nth(1).unwrap().to_owned();
        // A key of P-256, made for this test.
        let elliptic = section(
            "EC PRIVATE KEY",
            "MHcCAQEEIB6720s+hKyT5eEx8md5QzgE76qQkAbZfJaP1zpstLZ7oAoGCCqGSM49\n\
             AwEHoUQDQgAEaUfpq4RLfV48yIbEboC4mZaVWU+vHqDEFYPaU+ugB68IqP7YAZ3A\n\
             g5OuZ92zReoCh+NDI+RlFUSC96TormbUxQ==",
        );
        for (text, want) in [
            (String::new(), CertificateError::NoPem),
            (
                "MIIJqQIBAzCCCW8GCSqGSIb3DQEHAaCC".to_owned(),
                CertificateError::Base64,
            ),
            (own.clone(), CertificateError::NoKey),
            (key.clone(), CertificateError::NoCertificate),
            (
                format!("{own}{}", section("ENCRYPTED PRIVATE KEY", &body)),
                CertificateError::Encrypted,
            ),
            (format!("{own}{elliptic}"), CertificateError::NotRsa),
            (
                format!("{own}{}", section("PRIVATE KEY", "bm90IGEga2V5")),
                CertificateError::UnusableKey,
            ),
            (
                format!("{own}{}", &key[..key.len() / 2]),
                CertificateError::Damaged,
            ),
            (
                format!("{key}{}", &own[..own.len() / 2]),
                CertificateError::Damaged,
            ),
        ] {
            let error = parse(&text).unwrap_err();
            assert_eq!(error, want, "{text}");
            assert!(!error.to_string().contains(&body[..12]), "{error}");
        }
        let shown = format!("{:?}", parse(PEM).unwrap());
        assert!(!shown.contains(&body[..12]), "{shown}");
    }

    #[test]
    fn an_assertion_lives_for_ten_minutes_and_names_its_certificate() {
        let certificate = parse(PEM).unwrap();
        let now: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        let audience = "https://login.example/t/oauth2/v2.0/token";
        let made = certificate.assertion("me", audience, "once", now).unwrap();
        let parts: Vec<&str> = made.expose().split('.').collect();
        let json = |part: &str| -> serde_json::Value {
            serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
        };
        assert_eq!(
            json(parts[0]),
            json!({"alg": "PS256", "typ": "JWT", "x5t#S256": certificate.thumbprint})
        );
        let at = now.as_second();
        assert_eq!(
            json(parts[1]),
            json!({"aud": audience, "iss": "me", "sub": "me", "jti": "once", "iat": at, "nbf": at, "exp": at + 600})
        );
        // RSA of 2048 bits.
        assert_eq!(BASE64_URL_SAFE_NO_PAD.decode(parts[2]).unwrap().len(), 256);
    }
}
