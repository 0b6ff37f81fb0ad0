//! Connection strings, read as all ACS SDKs read them: `endpoint=https://…/;accesskey=…`, in any
//! order, names in any case, with or without a trailing slash.
//!
//! What is wrong with a bad one is explained without repeating any of its text, since no part of a
//! garbled string is sure not to be the key.

use std::{fmt, net::IpAddr};

use base64::{DecodeError, Engine, prelude::BASE64_STANDARD};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::{
    config::{CredentialSettings, ResourceSettings},
    model::{Secret, hex},
    transport::Url,
};

/// An endpoint and a key to it.
#[derive(Debug, Clone)]
pub struct ConnectionString {
    /// Where the resource listens.
    pub endpoint: ResourceUrl,
    /// What signs requests to it.
    pub key: AccessKey,
}

/// Where a resource listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceUrl {
    url: Url,
    authority: String,
}

/// An access key; wiped when dropped.
#[derive(Clone)]
pub struct AccessKey {
    bytes: Zeroizing<Vec<u8>>,
    fingerprint: String,
}

/// Why a connection string cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ConnectionStringError {
    #[error("the connection string is empty")]
    Empty,
    #[error("the connection string is wrapped in quotes; remove them")]
    Quoted,
    /// A part without `=`.
    #[error(
        "part {0} of the connection string is not of the form name=value; it should read endpoint=https://<resource>.communication.azure.com/;accesskey=<key>"
    )]
    NotNamed(usize),
    /// A part is missing.
    #[error(
        "the connection string has no {0}; it should read endpoint=https://<resource>.communication.azure.com/;accesskey=<key>"
    )]
    Missing(&'static str),
    /// A part occurs twice.
    #[error("the connection string has more than one {0}; keep one")]
    Twice(&'static str),
    /// The endpoint is no URL of a host.
    #[error("the endpoint in the connection string {0}")]
    Endpoint(&'static str),
    /// The key is not base64.
    #[error("the accesskey in the connection string {0}; copy it again from the Azure portal")]
    Key(&'static str),
}

impl ConnectionString {
    /// Reads a connection string.
    ///
    /// # Errors
    /// When a part is missing, double or malformed; the error never repeats any of the text.
    pub fn parse(text: &Secret) -> Result<Self, ConnectionStringError> {
        use ConnectionStringError as Bad;
        let text = text.expose().trim_start_matches('\u{feff}').trim();
        if text.is_empty() {
            return Err(Bad::Empty);
        }
        if text.starts_with(['"', '\'']) {
            return Err(Bad::Quoted);
        }
        let (mut endpoint, mut key) = (None, None);
        let parts = text.split(';').map(str::trim).enumerate();
        for (at, part) in parts.filter(|(_, part)| !part.is_empty()) {
            let (name, value) = part.split_once('=').ok_or(Bad::NotNamed(at + 1))?;
            let (slot, name) = match name.trim().to_ascii_lowercase().as_str() {
                "endpoint" => (&mut endpoint, "endpoint"),
                "accesskey" => (&mut key, "accesskey"),
                // Unknown parts are passed over, as the SDKs do.
                _ => continue,
            };
            if slot.replace(value.trim()).is_some() {
                return Err(Bad::Twice(name));
            }
        }
        Ok(Self {
            endpoint: ResourceUrl::parse(endpoint.ok_or(Bad::Missing("endpoint"))?)?,
            key: AccessKey::parse(key.ok_or(Bad::Missing("accesskey"))?)?,
        })
    }
}

impl ResourceUrl {
    /// Where a resource listens, if its settings can be read.
    pub fn of(settings: &ResourceSettings) -> Option<Self> {
        match &settings.credential {
            CredentialSettings::Keys(keys) => {
                let read = ConnectionString::parse(&keys.connection_string.secret);
                read.map(|read| read.endpoint).ok()
            }
            CredentialSettings::Entra(entra) => Self::parse(&entra.endpoint).ok(),
        }
    }

    /// Reads with the very parser that the sender uses, so that the signed host is the sent host.
    pub(super) fn parse(text: &str) -> Result<Self, ConnectionStringError> {
        let bad = ConnectionStringError::Endpoint;
        let lower = text.to_ascii_lowercase();
        if !lower.starts_with("https://") && !lower.starts_with("http://") {
            return Err(bad("does not start with https://"));
        }
        let url = Url::parse(text).map_err(|_| bad("is not a valid URL"))?;
        // The sender's parser lets hosts pass that no request can be addressed to.
        url.as_str()
            .parse::<http::Uri>()
            .map_err(|_| bad("is not a valid URL"))?;
        let host = url.host_str().ok_or(bad("names no host"))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(bad(
                "holds a user name or password; only the host belongs there",
            ));
        }
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return Err(bad("goes on after the host; end it there"));
        }
        let authority = match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        Ok(Self { url, authority })
    }

    /// Host, and port where it is not the scheme's own: what is signed and sent as `Host`.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Host and port, whether or not that is the scheme's own.
    pub fn address(&self) -> String {
        let host = self.url.host_str().unwrap_or_default();
        let port = self.url.port_or_known_default().unwrap_or_default();
        format!("{host}:{port}")
    }

    /// Whether requests go there without TLS.
    pub fn is_plain(&self) -> bool {
        self.url.scheme() == "http"
    }

    /// The URL of a path and a query on this endpoint.
    pub(super) fn url(&self, path: &str, query: &str) -> Url {
        let mut url = self.url.clone();
        url.set_path(path);
        url.set_query(Some(query));
        url
    }

    /// What of such a URL is sent as the request's target.
    pub(super) fn target<'u>(&self, url: &'u Url) -> &'u str {
        let origin = self.url.as_str().len() - "/".len();
        url.as_str().get(origin..).unwrap_or_default()
    }

    /// Whether the way there is safe: TLS, or never leaving this machine.
    pub fn is_safe(&self) -> bool {
        !self.is_plain() || self.is_loopback()
    }

    fn is_loopback(&self) -> bool {
        let host = self.url.host_str().unwrap_or_default();
        let address = host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost"
            || address
                .parse::<IpAddr>()
                .is_ok_and(|address| address.is_loopback())
    }
}

impl fmt::Display for ResourceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.url.scheme(), self.authority)
    }
}

impl AccessKey {
    fn parse(text: &str) -> Result<Self, ConnectionStringError> {
        let bad = ConnectionStringError::Key;
        if text.is_empty() {
            return Err(bad("is empty"));
        }
        let bytes = BASE64_STANDARD.decode(text).map_err(|error| match error {
            DecodeError::InvalidByte(..) => bad("holds a character that is not base64"),
            _ => bad("is cut short: its base64 does not come out even"),
        })?;
        Ok(Self::new(bytes))
    }

    /// A key by its bytes.
    pub fn new(bytes: Vec<u8>) -> Self {
        let digest = Sha256::digest(&bytes);
        Self {
            fingerprint: hex(&digest[..6]),
            bytes: Zeroizing::new(bytes),
        }
    }

    /// A short, stable, one-way name of this key: 12 hex digits of its SHA-256.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// As a connection string holds it.
    pub fn base64(&self) -> Secret {
        Secret::new(BASE64_STANDARD.encode(&*self.bytes))
    }

    pub(super) fn expose(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Debug for AccessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AccessKey({})", self.fingerprint)
    }
}

impl PartialEq for AccessKey {
    fn eq(&self, other: &Self) -> bool {
        use subtle::ConstantTimeEq;
        self.bytes.ct_eq(&other.bytes).into()
    }
}

impl Eq for AccessKey {}

#[cfg(test)]
mod tests {
    use super::{ConnectionStringError as Bad, *};

    const KEY: &str = "bm90LWEtcmVhbC1rZXktMDEyMzQ1Njc4OWFiY2RlZiEh";

    fn parse(text: &str) -> Result<ConnectionString, Bad> {
        ConnectionString::parse(&Secret::new(text.to_owned()))
    }

    #[test]
    fn every_spelling_that_the_sdks_take_is_taken() {
        for text in [
            format!("endpoint=https://a.communication.azure.com/;accesskey={KEY}"),
            format!("endpoint=https://a.communication.azure.com;accesskey={KEY}"),
            format!("accesskey={KEY};endpoint=https://a.communication.azure.com/"),
            format!("Endpoint=https://A.Communication.Azure.com/;AccessKey={KEY};"),
            format!(" ENDPOINT = HTTPS://a.communication.azure.com:443 ; ACCESSKEY = {KEY}\n"),
        ] {
            let read = parse(&text).unwrap();
            assert_eq!(
                read.endpoint.authority(),
                "a.communication.azure.com",
                "{text}"
            );
            assert_eq!(
                read.endpoint.to_string(),
                "https://a.communication.azure.com"
            );
            assert_eq!(read.key.expose(), b"not-a-real-key-0123456789abcdef!!");
        }
    }

    #[test]
    fn only_loopback_is_safe_without_tls() {
        for (endpoint, authority, safe) in [
            ("http://127.0.0.1:18080", "127.0.0.1:18080", true),
            ("http://[::1]:8080/", "[::1]:8080", true),
            ("http://localhost", "localhost", true),
            ("http://10.0.0.1", "10.0.0.1", false),
            (
                "http://localhost.evil.example",
                "localhost.evil.example",
                false,
            ),
            ("https://10.0.0.1", "10.0.0.1", true),
        ] {
            let read = parse(&format!("endpoint={endpoint};accesskey={KEY}")).unwrap();
            assert_eq!(read.endpoint.authority(), authority);
            assert_eq!(read.endpoint.is_safe(), safe, "{endpoint}");
        }
    }

    #[test]
    fn a_bad_one_is_explained_without_repeating_it() {
        let endpoint = "endpoint=https://canary.example";
        for (text, want) in [
            (String::new(), Bad::Empty),
            (format!("\"{endpoint};accesskey={KEY}\""), Bad::Quoted),
            (KEY.to_owned(), Bad::NotNamed(1)),
            (format!("{KEY}=="), Bad::Missing("endpoint")),
            (format!("{endpoint};{KEY}"), Bad::NotNamed(2)),
            (endpoint.to_owned(), Bad::Missing("accesskey")),
            (format!("accesskey={KEY}"), Bad::Missing("endpoint")),
            (
                format!("{endpoint};{endpoint};accesskey={KEY}"),
                Bad::Twice("endpoint"),
            ),
            (
                format!("endpoint={KEY};accesskey=https://canary.example"),
                Bad::Endpoint("does not start with https://"),
            ),
            (
                format!("endpoint=https://;accesskey={KEY}"),
                Bad::Endpoint("is not a valid URL"),
            ),
            (
                format!("endpoint=https://canary.`zure.com/;accesskey={KEY}"),
                Bad::Endpoint("is not a valid URL"),
            ),
            (
                format!("{endpoint}/canary;accesskey={KEY}"),
                Bad::Endpoint("goes on after the host; end it there"),
            ),
            (
                format!("{endpoint}?canary;accesskey={KEY}"),
                Bad::Endpoint("goes on after the host; end it there"),
            ),
            (
                format!("endpoint=https://canary:canary@x;accesskey={KEY}"),
                Bad::Endpoint("holds a user name or password; only the host belongs there"),
            ),
            (format!("{endpoint};accesskey="), Bad::Key("is empty")),
            (
                format!("{endpoint};accesskey={}", &KEY[1..]),
                Bad::Key("is cut short: its base64 does not come out even"),
            ),
            (
                format!("{endpoint};accesskey={KEY}!canary"),
                Bad::Key("holds a character that is not base64"),
            ),
        ] {
            let error = parse(&text).unwrap_err();
            assert_eq!(error, want, "{text}");
            for shown in [error.to_string(), format!("{error:?}")] {
                assert!(
                    !shown.contains("canary") && !shown.contains(&KEY[1..9]),
                    "{shown}"
                );
            }
        }
    }

    #[test]
    fn a_key_shows_its_fingerprint_alone() {
        let read = parse(&format!("endpoint=https://x;accesskey={KEY}")).unwrap();
        let shown = format!("{read:?}");
        assert!(
            shown.contains(read.key.fingerprint()) && !shown.contains(&KEY[..9]),
            "{shown}"
        );
        assert!(!shown.contains("not-a-real"), "{shown}");
        assert_eq!(read.key.fingerprint().len(), 12);
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in ".{0,200}") {
            parse(&text).ok();
            parse(&format!("endpoint={text};accesskey={text}")).ok();
        }
    }
}
