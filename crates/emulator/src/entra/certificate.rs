//! Certificates that the application is known by: made here, or read; of a certificate only the public key, the
//! thumbprints and the time in which it is valid are looked at.

use jiff::Timestamp;
use rcgen::{CertificateParams, DnType, KeyPair, PKCS_RSA_SHA256, SerialNumber, date_time_ymd};
use renewd_acs_wire::{Secret, hex};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use serde_json::{Value, json};

use crate::mint::CLIENT_KEY;

/// Why a certificate is not taken.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// It cannot be made.
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// It cannot be read.
    #[error("there is no certificate with an RSA key in it, as PEM")]
    Unreadable,
}

/// A certificate of the application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Registered {
    /// SHA-1 of the DER: `x5t`, and in hexadecimal `kid`.
    pub(super) sha1: Vec<u8>,
    /// SHA-256 of it: `x5t#S256`.
    pub(super) sha256: Vec<u8>,
    /// `RSAPublicKey` of PKCS #1.
    pub(super) key: Vec<u8>,
    pub(super) from: Timestamp,
    pub(super) until: Timestamp,
}

impl Registered {
    /// The first certificate of a text.
    pub(super) fn read(pem: &str) -> Result<Self, CertificateError> {
        let der = CertificateDer::from_pem_slice(pem.as_bytes());
        let der = der.map_err(|_| CertificateError::Unreadable)?;
        Self::of(&der).ok_or(CertificateError::Unreadable)
    }

    fn of(der: &[u8]) -> Option<Self> {
        let (_, certificate, _) = element(der)?;
        let (_, mut body, _) = element(certificate)?;
        // The version may be left out; then come serial number, algorithm and issuer.
        if element(body)?.0 == 0xa0 {
            body = element(body)?.2;
        }
        for _ in 0..3 {
            body = element(body)?.2;
        }
        let (_, validity, body) = element(body)?;
        let (_, _subject, body) = element(body)?;
        let (from, validity) = time(validity)?;
        let (until, _) = time(validity)?;
        Some(Self {
            sha1: digest(&SHA1_FOR_LEGACY_USE_ONLY, der).as_ref().to_vec(),
            sha256: digest(&SHA256, der).as_ref().to_vec(),
            key: rsa_key(body)?.to_vec(),
            from,
            until,
        })
    }

    pub(super) fn show(&self) -> Value {
        json!({
            "thumbprint": hex(&self.sha1).to_uppercase(),
            "from": self.from,
            "until": self.until,
        })
    }
}

/// rsaEncryption (1.2.840.113549.1.1.1).
const RSA: [u8; 9] = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];

/// The key of `SubjectPublicKeyInfo`, if it is an RSA one.
fn rsa_key(body: &[u8]) -> Option<&[u8]> {
    let (_, info, _) = element(body)?;
    let (_, algorithm, rest) = element(info)?;
    let (tag, name, _) = element(algorithm)?;
    if (tag, name) != (0x06, &RSA) {
        return None;
    }
    // A bit string begins with the number of bits that its last byte does not use.
    match element(rest)? {
        (0x03, [0, key @ ..], _) => Some(key),
        _ => None,
    }
}

/// Tag and content of the first element of DER, and what follows it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, length], mut rest) = der.split_first_chunk()?;
    let mut length = usize::from(length);
    if length >= 0x80 {
        let bytes = rest.split_at_checked(length - 0x80)?;
        if bytes.0.len() > 4 {
            return None;
        }
        length = bytes
            .0
            .iter()
            .fold(0, |sum, byte| (sum << 8) | usize::from(*byte));
        rest = bytes.1;
    }
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// The first element as a time (`UTCTime` with two digits of the year, or `GeneralizedTime`), and what follows.
fn time(der: &[u8]) -> Option<(Timestamp, &[u8])> {
    let (tag, text, rest) = element(der)?;
    let text = std::str::from_utf8(text).ok()?;
    let text = match tag {
        0x17 if text.get(..2)? < "50" => format!("20{text}"),
        0x17 => format!("19{text}"),
        0x18 => text.to_owned(),
        _ => return None,
    };
    let at = jiff::civil::DateTime::strptime("%Y%m%d%H%M%SZ", text).ok()?;
    let at = at.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
    Some((at.timestamp(), rest))
}

/// A certificate by the built-in key, which signs for itself: both as PEM, and what is registered of it.
pub(super) fn make(
    serial: u64,
    from: Timestamp,
    until: Timestamp,
) -> Result<(Secret, Registered), CertificateError> {
    let key = KeyPair::from_pkcs8_pem_and_sign_algo(CLIENT_KEY, &PKCS_RSA_SHA256)?;
    let mut params = CertificateParams::new(Vec::new())?;
    params
        .distinguished_name
        .push(DnType::CommonName, "renewd emulator client");
    params.serial_number = Some(SerialNumber::from(serial));
    let at = |at: Timestamp| {
        let since = u64::try_from(at.as_second()).unwrap_or_default();
        date_time_ymd(1970, 1, 1) + std::time::Duration::from_secs(since)
    };
    (params.not_before, params.not_after) = (at(from), at(until));
    let certificate = params.self_signed(&key)?;
    let registered = Registered::of(certificate.der()).ok_or(CertificateError::Unreadable)?;
    let pem = format!("{}{}", key.serialize_pem(), certificate.pem());
    Ok((Secret::new(pem), registered))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_made_is_read_and_is_valid_as_long_as_asked() {
        let (from, until) = (at("2026-11-22T12:00:00Z"), at("2051-01-02T03:04:05Z"));
        let (pem, made) = make(7, from, until).unwrap();
        assert_eq!((made.from, made.until), (from, until));
        assert_eq!(Registered::read(pem.expose()).unwrap(), made);
        assert!(pem.expose().starts_with("-----BEGIN PRIVATE KEY-----"));
        let other = make(8, from, until).unwrap().1;
        assert_ne!(made.sha256, other.sha256);
        assert_eq!(made.key, other.key);
    }

    #[test]
    fn what_is_cut_off_or_has_another_key_is_not_taken() {
        let (from, until) = (at("2026-11-22T12:00:00Z"), at("2027-11-22T12:00:00Z"));
        let (pem, _) = make(7, from, until).unwrap();
        let der = CertificateDer::from_pem_slice(pem.expose().as_bytes()).unwrap();
        for cut in 0..der.len() {
            assert_eq!(Registered::of(&der[..cut]), None, "cut off at {cut}");
        }
        let ecdsa = KeyPair::generate().unwrap();
        let params = CertificateParams::new(Vec::new()).unwrap();
        let pem = params.self_signed(&ecdsa).unwrap().pem();
        for bad in [pem.as_str(), "", "nothing"] {
            assert!(Registered::read(bad).is_err(), "{bad}");
        }
    }
}
