//! Signatures of Standard Webhooks 1.0.0, symmetric: HMAC-SHA256 over `id.timestamp.body`.

use std::fmt;

use base64::{Engine, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::model::Secret;

/// How long a key may be, in bytes; the official libraries do not mind, so we do.
const LENGTHS: std::ops::RangeInclusive<usize> = 24..=64;

/// Why a text is no signing secret. It never holds the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// No `whsec_` before it.
    #[error("a signing secret begins with whsec_")]
    Prefix,
    /// Some libraries drop what they cannot read and sign with another key, so nothing is forgiven.
    #[error(
        "after whsec_ comes base64 of the standard alphabet (no - and no _) with its padding, and nothing else"
    )]
    Encoding,
    /// Too short to be safe, or longer than the standard allows.
    #[error(
        "the key has {0} bytes and the standard wants 24 to 64; `openssl rand -base64 32` makes one"
    )]
    Length(usize),
}

/// A key that signs events.
pub struct SigningSecret(Zeroizing<Vec<u8>>);

impl fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningSecret(***)")
    }
}

impl SigningSecret {
    /// Reads `whsec_…`.
    ///
    /// # Errors
    /// When the text is not of that form, or the key of a length that the standard does not allow.
    pub fn parse(secret: &Secret) -> Result<Self, SecretError> {
        let encoded = secret
            .expose()
            .strip_prefix("whsec_")
            .ok_or(SecretError::Prefix)?;
        let key = Zeroizing::new(
            BASE64_STANDARD
                .decode(encoded)
                .map_err(|_| SecretError::Encoding)?,
        );
        if !LENGTHS.contains(&key.len()) {
            return Err(SecretError::Length(key.len()));
        }
        Ok(Self(key))
    }

    /// `v1,…` for one attempt. `id` must hold no dot, or two messages could look alike.
    fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("a key");
        mac.update(format!("{id}.{timestamp}.").as_bytes());
        mac.update(body);
        format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes()))
    }
}

/// The value of `webhook-signature`: one signature per secret, the first secret's first, with exactly
/// one space between (a library in wide use fails on two).
pub(super) fn header(secrets: &[SigningSecret], id: &str, timestamp: i64, body: &[u8]) -> String {
    let signatures: Vec<String> = secrets
        .iter()
        .map(|secret| secret.sign(id, timestamp, body))
        .collect();
    signatures.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASCENDING: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    const DESCENDING: &str = "whsec_//79/Pv6+fj39vX08/Lx8O/u7ezr6uno5+bl5OPi4eA=";
    const ROTATED: &str = r#"{"type":"token.rotated","timestamp":"2026-01-02T03:04:05Z","data":{"name":"github/prod","version":42,"expires_at":"2026-01-02T04:04:05Z"}}"#;
    const ROTATED_ID: &str = "msg_01JGJ5Z8K3V9Q4T7N2X6Y0B1CD";

    fn secret(text: &str) -> Result<SigningSecret, SecretError> {
        SigningSecret::parse(&Secret::new(text.to_owned()))
    }

    /// V1 to V5: signed by the library of PyPI, matched by those of npm and of Rust.
    #[test]
    fn known_vectors_are_signed_to_the_byte() {
        let vectors: [(&str, &str, i64, &str, &str); 5] = [
            (
                "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
                "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
                1_649_367_553,
                r#"{"email":"test@example.com","username":"test_user"}"#,
                "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=",
            ),
            (
                ASCENDING,
                ROTATED_ID,
                1_767_323_045,
                ROTATED,
                "v1,PLw1d4ZxEy1ARebb6qm0vlLERgdDVoME11fDVp5PHK4=",
            ),
            (
                DESCENDING,
                ROTATED_ID,
                1_767_323_045,
                ROTATED,
                "v1,d7mOitnMyNgr55TXH5e9zQtu3QsVV4lNR29+LQ1ZwAQ=",
            ),
            (
                ASCENDING,
                "msg_utf8",
                1_767_323_045,
                r#"{"name":"größe/東京"}"#,
                "v1,x2RQP2tnUGvJgJEdR8cYJ/vqjq9DbCQffDQy/gPxurI=",
            ),
            (
                "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0+Pw==",
                "msg_empty",
                1_767_323_045,
                "",
                "v1,Q+dP7mm3jkO7oXRq9SYtI4hQwZOT+fV0ylIgQLq1x8A=",
            ),
        ];
        for (key, id, timestamp, body, signature) in vectors {
            let signed = secret(key).unwrap().sign(id, timestamp, body.as_bytes());
            assert_eq!(signed, signature, "{id}");
        }
    }

    #[test]
    fn while_rotating_the_first_secret_signs_first() {
        let secrets = [secret(DESCENDING).unwrap(), secret(ASCENDING).unwrap()];
        assert_eq!(
            header(&secrets, ROTATED_ID, 1_767_323_045, ROTATED.as_bytes()),
            "v1,d7mOitnMyNgr55TXH5e9zQtu3QsVV4lNR29+LQ1ZwAQ= v1,PLw1d4ZxEy1ARebb6qm0vlLERgdDVoME11fDVp5PHK4="
        );
    }

    #[test]
    fn secrets_that_some_library_would_take_differently_are_refused() {
        let of_length = |n| format!("whsec_{}", BASE64_STANDARD.encode(vec![7; n]));
        assert_eq!(secret("whsec_").unwrap_err(), SecretError::Length(0));
        assert_eq!(secret(&of_length(23)).unwrap_err(), SecretError::Length(23));
        assert_eq!(secret(&of_length(65)).unwrap_err(), SecretError::Length(65));
        assert!(secret(&of_length(24)).is_ok() && secret(&of_length(64)).is_ok());
        assert_eq!(secret(&ASCENDING[6..]).unwrap_err(), SecretError::Prefix);
        for bad in [
            ASCENDING.trim_end_matches('='),
            &DESCENDING.replace('/', "_").replace('+', "-"),
            &format!("{ASCENDING}\n"),
        ] {
            assert_eq!(secret(bad).unwrap_err(), SecretError::Encoding, "{bad:?}");
        }
    }
}
