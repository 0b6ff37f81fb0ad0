//! The address of a receiver, and whether events may go there.
//!
//! What is decided here is decided from the text alone. A guard over the addresses that a name
//! resolves to belongs to the transport that the sink makes, where the vetted address can be pinned.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use http::Uri;

/// Why a URL cannot be posted to. It holds no more of the URL than its host: paths and queries of
/// webhooks may be secrets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Not a URL at all.
    #[error("the URL of a webhook must look like https://host/path")]
    NotAUrl,
    /// Another scheme.
    #[error("a webhook is posted over https, not {0}")]
    Scheme(String),
    /// Tokens in the clear over a network.
    #[error(
        "plain http to {0} would show tokens to the network; use https, or say allow_http = true"
    )]
    PlainHttp(String),
    /// A password in the URL.
    #[error(
        "the URL of {0} holds a user name; it would never be sent, and receivers know us by the signature"
    )]
    UserInfo(String),
}

/// Where a receiver listens.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint {
    uri: Uri,
    host: String,
}

impl Endpoint {
    /// Reads a URL. Plain http is for loopback, unless `allow_http`.
    ///
    /// # Errors
    /// When tokens should not be posted there.
    pub fn new(url: &str, allow_http: bool) -> Result<Self, EndpointError> {
        let uri: Uri = url.parse().map_err(|_| EndpointError::NotAUrl)?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(EndpointError::NotAUrl);
        };
        let host = authority.host().to_owned();
        if authority.as_str().contains('@') {
            return Err(EndpointError::UserInfo(host));
        }
        // A port that is no port is silently no port to the parser.
        let has_port = authority.as_str().len() > host.len();
        if host.is_empty() || (has_port && authority.port_u16().is_none_or(|port| port == 0)) {
            return Err(EndpointError::NotAUrl);
        }
        match scheme {
            "https" => {}
            "http" if allow_http || is_loopback(&host) => {}
            "http" => return Err(EndpointError::PlainHttp(host)),
            other => return Err(EndpointError::Scheme(other.to_owned())),
        }
        Ok(Self { uri, host })
    }

    /// The whole address.
    pub(super) fn uri(&self) -> Uri {
        self.uri.clone()
    }
}

/// Scheme, host and port: what may be shown.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}://{}",
            self.uri.scheme_str().unwrap_or("https"),
            self.host
        )?;
        match self.uri.port_u16() {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({self})")
    }
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    match bare.parse() {
        Ok(IpAddr::V4(address)) => Ipv4Addr::is_loopback(&address),
        Ok(IpAddr::V6(address)) => Ipv6Addr::is_loopback(&address),
        Err(_) => host.eq_ignore_ascii_case("localhost"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_stays_on_the_machine() {
        for local in [
            "http://127.0.0.1:8080/x",
            "http://127.9.9.9/",
            "http://[::1]:80/",
            "http://LOCALHOST/x",
        ] {
            assert!(Endpoint::new(local, false).is_ok(), "{local}");
        }
        for remote in [
            "http://crm.example/",
            "http://10.0.0.1/",
            "http://localhost.example/",
            "http://[::2]/",
        ] {
            assert!(
                matches!(
                    Endpoint::new(remote, false),
                    Err(EndpointError::PlainHttp(_))
                ),
                "{remote}"
            );
            assert!(Endpoint::new(remote, true).is_ok(), "{remote}");
        }
    }

    #[test]
    fn what_is_no_https_url_is_refused() {
        for bad in [
            "",
            "crm.example/x",
            "/x",
            "https://",
            "https://h:0/",
            "ftp://h/",
            "https://u:p@h/",
            "https://h:99999/",
        ] {
            assert!(Endpoint::new(bad, false).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_the_host_is_ever_shown() {
        let endpoint =
            Endpoint::new("https://crm.example:8443/hooks/s3cret?code=hush", false).unwrap();
        assert_eq!(endpoint.to_string(), "https://crm.example:8443");
        assert_eq!(
            format!("{endpoint:?}"),
            "Endpoint(https://crm.example:8443)"
        );
        let error = Endpoint::new("http://crm.example/s3cret", false)
            .unwrap_err()
            .to_string();
        assert!(!error.contains("s3cret"), "{error}");
    }
}
