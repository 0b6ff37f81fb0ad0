//! The address of a receiver, and whether events may go there.
//!
//! What is decided here is decided from the text alone; `guard` judges what a name resolves to.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use crate::transport::Url;
use http::Uri;

use super::guard::{self, Inside};

/// Why a URL cannot be posted to. It holds no more of the URL than its host: paths and queries of
/// webhooks may be secrets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Not a URL at all.
    #[error("the URL of a webhook must look like https://host/path")]
    NotAUrl,
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
    /// An address that does not look like one.
    #[error("{written} is another way to write {address}; write the address itself if it is meant")]
    Disguised {
        /// As it stands in the URL.
        written: String,
        address: IpAddr,
    },
    /// A service that hands out credentials.
    #[error("{0} is a cloud's metadata service, where nothing is ever posted")]
    Metadata(String),
    /// `localhost`.
    #[error("the name {0} leads to this machine; write 127.0.0.1, or say allow_private = true")]
    Local(String),
}

/// What an operator has allowed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rules {
    /// Plain http may leave the machine.
    pub http: bool,
    /// Names may lead to addresses that are not public.
    pub private: bool,
}

/// Where a receiver listens.
#[derive(Clone, PartialEq, Eq)]
pub struct ReceiverUrl {
    url: Url,
    host: String,
}

impl ReceiverUrl {
    /// Reads a URL. Plain http is for loopback, and names for public addresses, unless the rules
    /// say otherwise. An address that is written as such is taken at its word.
    ///
    /// # Errors
    /// When tokens should not be posted there.
    pub fn new(url: &str, rules: Rules) -> Result<Self, EndpointError> {
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
            "http" if rules.http || is_loopback(&host) => {}
            "http" => return Err(EndpointError::PlainHttp(host)),
            other => return Err(EndpointError::Scheme(other.to_owned())),
        }
        let url = Url::parse(url).map_err(|_| EndpointError::NotAUrl)?;
        judge_host(&url, &host, rules)?;
        Ok(Self { url, host })
    }

    pub(super) fn url(&self) -> Url {
        self.url.clone()
    }
}

/// Scheme, host and port: what may be shown.
impl fmt::Display for ReceiverUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.url.scheme(), self.host)?;
        match self.url.port() {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for ReceiverUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({self})")
    }
}

/// What the host is to whoever connects. URL parsing takes `0x7f.1`, `2130706433` and `0177.0.0.1`
/// for 127.0.0.1; nobody who means an address writes it so.
fn judge_host(parsed: &Url, host: &str, rules: Rules) -> Result<(), EndpointError> {
    let meant = parsed.host_str().unwrap_or_default();
    let Ok(address) = bare(meant).parse::<IpAddr>() else {
        return match meant {
            name if guard::is_metadata_name(name) => Err(EndpointError::Metadata(name.to_owned())),
            name if guard::is_local_name(name) && !rules.private => {
                Err(EndpointError::Local(name.to_owned()))
            }
            _ => Ok(()),
        };
    };
    if guard::inside(address) == Some(Inside::Metadata) {
        return Err(EndpointError::Metadata(address.to_string()));
    }
    if bare(host).parse() == Ok(address) {
        return Ok(());
    }
    Err(EndpointError::Disguised {
        written: host.to_owned(),
        address,
    })
}

/// Without the brackets of an IPv6 address.
fn bare(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

fn is_loopback(host: &str) -> bool {
    match bare(host).parse() {
        Ok(IpAddr::V4(address)) => Ipv4Addr::is_loopback(&address),
        Ok(IpAddr::V6(address)) => Ipv6Addr::is_loopback(&address),
        Err(_) => host.eq_ignore_ascii_case("localhost"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRICT: Rules = Rules {
        http: false,
        private: false,
    };
    const OPEN: Rules = Rules {
        http: true,
        private: true,
    };

    #[test]
    fn plain_http_stays_on_the_machine() {
        for local in [
            "http://127.0.0.1:8080/x",
            "http://127.9.9.9/",
            "http://[::1]:80/",
        ] {
            assert!(ReceiverUrl::new(local, STRICT).is_ok(), "{local}");
        }
        for remote in [
            "http://crm.example/",
            "http://10.0.0.1/",
            "http://localhost.example/",
            "http://[::2]/",
        ] {
            assert!(
                matches!(
                    ReceiverUrl::new(remote, STRICT),
                    Err(EndpointError::PlainHttp(_))
                ),
                "{remote}"
            );
            assert!(ReceiverUrl::new(remote, OPEN).is_ok(), "{remote}");
        }
    }

    #[test]
    fn addresses_are_taken_at_their_word_unless_they_hand_out_credentials() {
        for meant in [
            "https://10.0.0.7/",
            "https://[fd12::7]:8443/",
            "https://[0:0:0:0:0:0:0:1]/",
            "https://[::ffff:10.0.0.1]/",
        ] {
            assert!(ReceiverUrl::new(meant, STRICT).is_ok(), "{meant}");
        }
        for never in [
            "https://169.254.169.254/",
            "https://168.63.129.16/",
            "https://[fd00:ec2::254]/",
            "https://[::ffff:169.254.169.254]/",
            "https://[64:ff9b::a9fe:a9fe]/",
            "https://[2001:0:a00:1::5601:5601]/",
            "https://[fd12::5efe:169.254.169.254]/",
            "https://2852039166/",
            "https://0xa9fea9fe/",
            "https://0251.0376.0251.0376/",
            "https://169.16689662/",
            "https://2822734096/",
            "https://[::a83f:8110]/",
            "https://metadata.google.internal/",
        ] {
            let error = ReceiverUrl::new(never, OPEN).unwrap_err();
            assert!(matches!(error, EndpointError::Metadata(_)), "{never}");
        }
    }

    #[test]
    fn an_address_in_disguise_is_refused_with_its_plain_form() {
        for disguised in [
            "https://0x7f.1/",
            "https://2130706433/",
            "https://0177.0.0.1/",
            "https://127.1/",
            "https://0x7F000001/",
            "https://127.0.0.1./",
        ] {
            let error = ReceiverUrl::new(disguised, OPEN).unwrap_err();
            let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
            assert!(
                matches!(error, EndpointError::Disguised { address, .. } if address == loopback),
                "{disguised}: {error}"
            );
        }
    }

    #[test]
    fn localhost_is_a_name_like_any_other() {
        let error = ReceiverUrl::new("http://LOCALHOST/x", STRICT).unwrap_err();
        assert!(error.to_string().contains("allow_private"), "{error}");
        let allowed = Rules {
            private: true,
            ..STRICT
        };
        assert!(ReceiverUrl::new("http://localhost:8080/x", allowed).is_ok());
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
            assert!(ReceiverUrl::new(bad, STRICT).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_the_host_is_ever_shown() {
        let endpoint =
            ReceiverUrl::new("https://crm.example:8443/hooks/s3cret?code=hush", STRICT).unwrap();
        assert_eq!(endpoint.to_string(), "https://crm.example:8443");
        assert_eq!(
            format!("{endpoint:?}"),
            "Endpoint(https://crm.example:8443)"
        );
        let error = ReceiverUrl::new("http://crm.example/s3cret", STRICT)
            .unwrap_err()
            .to_string();
        assert!(!error.contains("s3cret"), "{error}");
    }
}
