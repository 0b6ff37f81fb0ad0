//! A request: what each operation puts on the wire (method, target, body), and its signature.
//!
//! It is signed with HMAC-SHA256, as all ACS SDKs do it, over `VERB \n PATH_AND_QUERY \n DATE;HOST;CONTENT_HASH`,
//! where the path and query are the request target exactly as sent, percent-encoding untouched.
//! Source: "Sign an HTTP request", ACS docs; checked against requests captured from the SDKs.

use std::{
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::{Bytes, BytesMut};
use hmac::{Hmac, KeyInit, Mac};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method,
    header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, InvalidHeaderValue, USER_AGENT},
};
use jiff::Timestamp;
use serde::Serialize;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::{AccessKey, ResourceUrl, wire};
use crate::{
    entra::Bearer,
    model::{IdentityId, Operation, RESERVED, Scope, Secret, percent_encoded},
    transport::{self, Outgoing},
};

static JSON: HeaderValue = HeaderValue::from_static("application/json");
static TRUE: HeaderValue = HeaderValue::from_static("true");
static REQUEST_ID: HeaderName = HeaderName::from_static("x-ms-client-request-id");
static RETURN_REQUEST_ID: HeaderName = HeaderName::from_static("x-ms-return-client-request-id");
static DATE: HeaderName = HeaderName::from_static("x-ms-date");
static CONTENT_SHA256: HeaderName = HeaderName::from_static("x-ms-content-sha256");
/// For the values that only this request has: a signature, an id, a date, a hash.
const ROOM: usize = 256;
/// With two that the sender adds.
const MOST_HEADERS: usize = 11;

/// One operation, before it is signed.
#[derive(Debug, Clone)]
pub(super) struct AcsCall<'a> {
    pub(super) operation: Operation,
    pub(super) identity: Option<&'a IdentityId>,
    method: Method,
    path: String,
    body: Bytes,
}

impl<'a> AcsCall<'a> {
    pub(super) fn create(token: Option<(&[Scope], Duration)>) -> Self {
        let (operation, body) = match token {
            None => (Operation::Create, Bytes::new()),
            Some((scopes, lifetime)) => {
                let wanted = wire::CreateRequest {
                    create_token_with_scopes: Some(words(scopes)),
                    expires_in_minutes: Some(minutes(lifetime)),
                };
                (Operation::CreateWithToken, json(&wanted, 0))
            }
        };
        Self {
            operation,
            identity: None,
            method: Method::POST,
            path: "/identities".to_owned(),
            body,
        }
    }

    pub(super) fn issue(id: &'a IdentityId, scopes: &[Scope], lifetime: Duration) -> Self {
        let wanted = wire::IssueRequest {
            scopes: Some(words(scopes)),
            expires_in_minutes: Some(minutes(lifetime)),
        };
        Self {
            body: json(&wanted, 0),
            ..Self::on(id, Operation::Issue, "/:issueAccessToken")
        }
    }

    pub(super) fn revoke(id: &'a IdentityId) -> Self {
        Self::on(id, Operation::Revoke, "/:revokeAccessTokens")
    }

    pub(super) fn delete(id: &'a IdentityId) -> Self {
        Self {
            method: Method::DELETE,
            ..Self::on(id, Operation::Delete, "")
        }
    }

    pub(super) fn exchange(token: &Secret, app_id: &str, user_id: &str) -> Self {
        let wanted = wire::ExchangeRequest {
            token: Some(token.clone()),
            app_id: Some(app_id.to_owned()),
            user_id: Some(user_id.to_owned()),
        };
        Self {
            operation: Operation::Exchange,
            identity: None,
            method: Method::POST,
            path: "/teamsUser/:exchangeAccessToken".to_owned(),
            body: json(&wanted, token.expose().len()),
        }
    }

    fn on(id: &'a IdentityId, operation: Operation, verb: &str) -> Self {
        Self {
            operation,
            identity: Some(id),
            method: Method::POST,
            path: format!(
                "/identities/{}{verb}",
                percent_encoded(id.as_str(), RESERVED)
            ),
            body: Bytes::new(),
        }
    }

    pub(super) fn sign(&self, with: &Signing<'_>) -> Result<Outgoing, InvalidHeaderValue> {
        let url = with.endpoint.url(&self.path, with.query);
        let mut own = BytesMut::with_capacity(ROOM);
        let mut headers = HeaderMap::with_capacity(MOST_HEADERS);
        match with.authorization {
            Authorization::Key(key) => self.sign_with(key, with, &url, (&mut own, &mut headers))?,
            Authorization::Bearer(bearer) => {
                headers.insert(AUTHORIZATION, bearer.authorization().clone());
            }
        }
        headers.insert(ACCEPT, JSON.clone());
        headers.insert(USER_AGENT, transport::USER_AGENT.clone());
        headers.insert(&REQUEST_ID, value(&mut own, with.request_id)?);
        headers.insert(&RETURN_REQUEST_ID, TRUE.clone());
        if self.body.is_empty() {
            // Said openly, as the SDKs do: some servers refuse a POST that says nothing of length.
            headers.insert(CONTENT_LENGTH, HeaderValue::from(0));
        }
        if !self.body.is_empty() || self.operation == Operation::Create {
            headers.insert(CONTENT_TYPE, JSON.clone());
        }
        Ok(Outgoing {
            method: self.method.clone(),
            url,
            headers,
            body: self.body.clone(),
        })
    }

    fn sign_with(
        &self,
        key: &AccessKey,
        with: &Signing<'_>,
        url: &transport::Url,
        (own, headers): (&mut BytesMut, &mut HeaderMap),
    ) -> Result<(), InvalidHeaderValue> {
        let date = http_date(with.at);
        let content_hash = content_hash(&self.body);
        let signable = Signable {
            method: &self.method,
            target: with.endpoint.target(url),
            host: with.endpoint.authority(),
            date: &date,
            content_hash: &content_hash,
        };
        let mut authorization = value(own, &signable.authorization(key))?;
        authorization.set_sensitive(true);
        headers.insert(&DATE, value(own, &date)?);
        headers.insert(&CONTENT_SHA256, value(own, &content_hash)?);
        headers.insert(AUTHORIZATION, authorization);
        Ok(())
    }
}

/// What a request carries to prove who calls.
#[derive(Debug)]
pub(super) enum Authorization {
    Key(Arc<AccessKey>),
    Bearer(Arc<Bearer>),
}

/// What a request is signed with.
#[derive(Debug)]
pub(super) struct Signing<'a> {
    pub(super) endpoint: &'a ResourceUrl,
    /// The query of every request.
    pub(super) query: &'a str,
    pub(super) authorization: &'a Authorization,
    pub(super) at: Timestamp,
    pub(super) request_id: &'a str,
}

/// A header's value, whose text joins those of the same request in one piece of memory.
fn value(own: &mut BytesMut, text: &str) -> Result<HeaderValue, InvalidHeaderValue> {
    own.extend_from_slice(text.as_bytes());
    HeaderValue::from_maybe_shared(own.split().freeze())
}

fn words(scopes: &[Scope]) -> Vec<String> {
    scopes.iter().map(Scope::to_string).collect()
}

/// Whole minutes, rounded up.
fn minutes(lifetime: Duration) -> i64 {
    i64::try_from(lifetime.as_secs().div_ceil(60)).unwrap_or(i64::MAX)
}

/// A body that is wiped when the last who sends it is done with it. With room for the secret in it
/// up front, no copy is left behind by growing.
fn json(value: &impl Serialize, secret: usize) -> Bytes {
    let mut bytes = Zeroizing::new(Vec::with_capacity(256 + 2 * secret));
    #[expect(
        clippy::expect_used,
        reason = "plain strings and numbers always serialise into memory"
    )]
    serde_json::to_writer(&mut *bytes, value).expect("a request body serialises");
    Bytes::from_owner(bytes)
}

/// Whether a request is signed with this key, as a service would look at it.
pub fn is_signed_with(request: &http::Request<Bytes>, key: &AccessKey) -> bool {
    let header = |name: &str| request.headers().get(name)?.to_str().ok();
    let signed = || {
        let signable = Signable {
            method: request.method(),
            target: request.uri().path_and_query()?.as_str(),
            host: request.uri().authority()?.as_str(),
            date: header("x-ms-date")?,
            content_hash: header("x-ms-content-sha256")?,
        };
        Some(header(AUTHORIZATION.as_str())? == signable.authorization(key))
    };
    signed().unwrap_or(false)
}

/// What a request is signed with besides its method.
#[derive(Debug, Clone, Copy)]
pub(super) struct Signable<'a> {
    pub(super) method: &'a Method,
    /// The request target as sent: path and query.
    pub(super) target: &'a str,
    /// `Host` as sent: with the port where it is not the scheme's own.
    pub(super) host: &'a str,
    /// The instant, as an HTTP date in `x-ms-date`.
    pub(super) date: &'a str,
    /// [`content_hash`] of the body.
    pub(super) content_hash: &'a str,
}

impl Signable<'_> {
    /// The text that is signed, in its parts.
    fn parts(&self) -> [&str; 9] {
        let method = self.method.as_str();
        [
            method,
            "\n",
            self.target,
            "\n",
            self.date,
            ";",
            self.host,
            ";",
            self.content_hash,
        ]
    }

    /// The signature alone, in base64.
    pub(super) fn signature(&self, key: &AccessKey) -> String {
        #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
        let mut mac =
            Hmac::<Sha256>::new_from_slice(key.expose()).expect("HMAC takes keys of any length");
        for part in self.parts() {
            mac.update(part.as_bytes());
        }
        BASE64_STANDARD.encode(mac.finalize().into_bytes())
    }

    /// The value of the `Authorization` header.
    pub(super) fn authorization(&self, key: &AccessKey) -> String {
        let signature = self.signature(key);
        format!(
            "HMAC-SHA256 SignedHeaders=x-ms-date;host;x-ms-content-sha256&Signature={signature}"
        )
    }
}

/// The value of `x-ms-content-sha256`: the body's SHA-256 in base64.
pub(super) fn content_hash(body: &[u8]) -> String {
    BASE64_STANDARD.encode(Sha256::digest(body))
}

/// An HTTP date in GMT; what lies before 1970 becomes the first instant of it.
pub(super) fn http_date(at: Timestamp) -> String {
    let seconds = u64::try_from(at.as_second()).unwrap_or(0);
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds))
}

#[cfg(test)]
mod signature_tests {
    //! Requests captured from the real SDKs (V1 to V10), and three computed ones.

    use super::*;

    const V_HOST: &str = "127.0.0.1:18080";
    const EARLY: &str = "Sun, 22 Nov 2026 17:19:47 GMT";
    const LATE: &str = "Sun, 22 Nov 2026 17:24:48 GMT";
    const FIXED: &str = "Mon, 01 Jan 2024 00:00:00 GMT";
    const EMPTY: &str = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
    const CREATE: &str = "/identities?api-version=2023-10-01";
    const EXCHANGE: &str = "/teamsUser/:exchangeAccessToken?api-version=2023-10-01";
    const DELETE: &str = "/identities/8%3Aacs%3A11111111-2222-3333-4444-555555555555_00000000-aaaa-bbbb-cccc-000000000001?api-version=2023-10-01";
    const REVOKE: &str = "/identities/8%3Aacs%3A11111111-2222-3333-4444-555555555555_00000000-aaaa-bbbb-cccc-000000000001/:revokeAccessTokens?api-version=2023-10-01";
    const ISSUE: &str = "/identities/8%3Aacs%3A11111111-2222-3333-4444-555555555555_00000000-aaaa-bbbb-cccc-000000000001/:issueAccessToken?api-version=2023-10-01";
    const ISSUE_RAW: &str = "/identities/8:acs:11111111-2222-3333-4444-555555555555_00000000-aaaa-bbbb-cccc-000000000001/:issueAccessToken?api-version=2023-10-01";

    struct Vector {
        name: &'static str,
        request: (Method, &'static str),
        host: &'static str,
        date: &'static str,
        body: &'static str,
        hash: &'static str,
        signature: &'static str,
    }

    #[rustfmt::skip]
const VECTORS: [Vector; 13] = [
    Vector { name: "V1", request: (Method::POST, CREATE), host: V_HOST, date: EARLY, body: "",
        hash: EMPTY, signature: "TEdfZl5sqfbmjBEw9nLMNXdDdN6W2hdWTqCifPYuNYk=" },
    Vector { name: "V2", request: (Method::POST, CREATE), host: V_HOST, date: EARLY,
        body: r#"{"createTokenWithScopes": ["chat", "voip"], "expiresInMinutes": 120}"#,
        hash: "EvH+J36d+OFK5ODKUXsaKBxz2lqOOdqTXmkSvRdWpp8=", signature: "a3v1p9e5WlSU+AggcwN21RCGr5R5L8AMQ0ZzDrTOmV4=" },
    Vector { name: "V3", request: (Method::POST, ISSUE), host: V_HOST, date: EARLY, body: r#"{"scopes": ["chat"]}"#,
        hash: "sZHRO4JkAmw3HcI1PyxrC5twHvkHIWjyMLVIkauXKRA=", signature: "AzQtFMBvFfmBVUfPkaE6/Jz+ExpvABKiUEQTtFzMfgE=" },
    Vector { name: "V4", request: (Method::POST, REVOKE), host: V_HOST, date: EARLY, body: "",
        hash: EMPTY, signature: "BPQh4xn78gbZlHfO3GIJeMYxi5bQUj9jyxrJYq/58DA=" },
    Vector { name: "V5", request: (Method::DELETE, DELETE), host: V_HOST, date: EARLY, body: "",
        hash: EMPTY, signature: "SmTITeypsvxSqvyrJ7QY4M73Ep8eyf6xDPZfTHaJ2Vs=" },
    Vector { name: "V6", request: (Method::POST, EXCHANGE), host: V_HOST, date: EARLY,
        body: r#"{"token": "a.b.c", "appId": "app", "userId": "user"}"#,
        hash: "bfzBNSMBo7fDHC0x2rOMP69VJtof1xPWHXHDUXuK74g=", signature: "gF1sy28EGXciyqPPA8Zn/KhTRfOAyrzuj5UzH/sH5zI=" },
    Vector { name: "V7", request: (Method::POST, ISSUE_RAW), host: V_HOST, date: LATE, body: r#"{"scopes": ["chat"]}"#,
        hash: "sZHRO4JkAmw3HcI1PyxrC5twHvkHIWjyMLVIkauXKRA=", signature: "VnSJnWY6PXnHpAeo8cFrlZcqzP6TI4a6HaVdv0zwW90=" },
    Vector { name: "V8", request: (Method::POST, ISSUE), host: V_HOST, date: LATE, body: r#"{"scopes":["chat"]}"#,
        hash: "J+doRQjtFVYLx3qOvzptwBLjQWqy6OEWEEk1TY1+rT4=", signature: "GHSpJdasfZnCegMxHC4NaKdbcfVGfk5M4jiap9g9il0=" },
    Vector { name: "V9", request: (Method::POST, CREATE), host: V_HOST, date: LATE,
        body: r#"{"createTokenWithScopes":["chat","voip"],"expiresInMinutes":120}"#,
        hash: "pRSq5OM41a6aWr/ou6VM0bVmZy9Bqy32tQrHV5Cu0PU=", signature: "VSPQmAf8+rwE7C9fMzd2dMlwgrAfZq/8WJWKsOodFW8=" },
    Vector { name: "V10", request: (Method::POST, CREATE), host: V_HOST, date: LATE, body: "",
        hash: EMPTY, signature: "ffvZy8BO7ZCy8lKs+1k7vLmQo4Wob3FFsZLmhxcjMZg=" },
    Vector { name: "F1", request: (Method::POST, CREATE), host: "my-resource.communication.azure.com", date: FIXED, body: "",
        hash: EMPTY, signature: "zHxk1Mej2i7eNsuysQEbDrAsg0fON41dbEmHmSXDQvs=" },
    Vector { name: "F2", request: (Method::POST, CREATE), host: "my-resource.communication.azure.com", date: FIXED,
        body: r#"{"createTokenWithScopes":["chat","voip"],"expiresInMinutes":60}"#,
        hash: "jENEeifYNCidF9FcfXJ54WzhK3ED/2UrQyA4+oWOZKc=", signature: "Pj7+mX+BEE0O8bn2eCuefSlm3OctSVF6SMzxqRnijF8=" },
    Vector { name: "F3", request: (Method::POST, ISSUE), host: "localhost:8443", date: FIXED, body: r#"{"scopes":["chat"]}"#,
        hash: "J+doRQjtFVYLx3qOvzptwBLjQWqy6OEWEEk1TY1+rT4=", signature: "rmUYpFcqAfSAi/KMLkqhj74rEWx0ahkM6w40c0SQ2Kg=" },
];

    fn key() -> AccessKey {
        AccessKey::new(b"not-a-real-key-0123456789abcdef!!".to_vec())
    }

    #[test]
    fn every_captured_signature_is_reproduced() {
        for vector in &VECTORS {
            let hash = content_hash(vector.body.as_bytes());
            assert_eq!(hash, vector.hash, "{}", vector.name);
            let signable = Signable {
                method: &vector.request.0,
                target: vector.request.1,
                host: vector.host,
                date: vector.date,
                content_hash: &hash,
            };
            assert_eq!(
                signable.signature(&key()),
                vector.signature,
                "{}",
                vector.name
            );
        }
    }

    #[test]
    fn a_host_with_a_slash_signs_something_else() {
        let signed_with_slash = "T9tWU2MATgOkj6Z4+gSPYSMVQl8o00gfeafEuc5FiMU=";
        let signable = |host| Signable {
            method: &Method::POST,
            target: CREATE,
            host,
            date: EARLY,
            content_hash: EMPTY,
        };
        assert_ne!(signable(V_HOST).signature(&key()), signed_with_slash);
        assert_eq!(
            signable("127.0.0.1:18080/").signature(&key()),
            signed_with_slash
        );
    }

    #[test]
    fn the_text_and_the_header_are_as_documented() {
        let signable = Signable {
            method: &Method::POST,
            target: CREATE,
            host: V_HOST,
            date: EARLY,
            content_hash: EMPTY,
        };
        assert_eq!(
            signable.parts().concat(),
            "POST\n/identities?api-version=2023-10-01\nSun, 22 Nov 2026 17:19:47 GMT;127.0.0.1:18080;47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
        );
        assert_eq!(
            signable.authorization(&key()),
            "HMAC-SHA256 SignedHeaders=x-ms-date;host;x-ms-content-sha256&Signature=TEdfZl5sqfbmjBEw9nLMNXdDdN6W2hdWTqCifPYuNYk="
        );
    }

    #[test]
    fn hashes_recorded_from_the_service() {
        assert_eq!(
            content_hash(br#"{"createTokenWithScopes": ["voip", "chat"]}"#),
            "hlYiA5kT1yt3LwEdaupQDHzQEfodx+8svsStB5uolgw="
        );
        assert_eq!(
            content_hash(br#"{"scopes":["chat.join"]}"#),
            "T63uAyHtv9Xn8buLVfVhvbGB2Qe6rmahOjJWmOq+3+A="
        );
    }

    #[test]
    fn any_instant_makes_a_date() {
        assert_eq!(http_date(Timestamp::MIN), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(http_date("2026-11-22T17:19:47.9Z".parse().unwrap()), EARLY);
        assert!(http_date(Timestamp::MAX).ends_with(" 9999 22:00:00 GMT"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_one_encoded_segment() {
        assert_eq!(percent_encoded("8:acs:1-2_3", RESERVED), "8%3Aacs%3A1-2_3");
        assert_eq!(
            percent_encoded("8:a/../b?c#d%", RESERVED),
            "8%3Aa%2F..%2Fb%3Fc%23d%25"
        );
    }

    #[test]
    fn lifetimes_are_whole_minutes() {
        assert_eq!(minutes(Duration::from_secs(3600)), 60);
        assert_eq!(minutes(Duration::from_secs(3601)), 61);
    }
}
