//! Judges a request's HMAC signature over what was really sent, and finds out what a client signed instead.
//!
//! What is signed is `VERB \n TARGET \n VALUES`, where the target is the raw request target and the
//! values are those of the signed headers, in the order of `SignedHeaders`, joined by `;`. Source:
//! "Sign an HTTP request", ACS docs, and requests captured from the SDKs. This is written apart from
//! `acs::request` on purpose: a mistake there must not be agreed to here.
//!
//! The service says only "Denied by the resource provider", for every mistake. Here each usual
//! mistake is tried in turn: whichever gives the signature at hand is the one that was made.

use std::{fmt, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use http::{HeaderMap, Method};
use jiff::Timestamp;
use renewd_acs_wire::hex;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{
    access_keys::{AccessKeys, Key, hmac_sha256},
    call::{self, read_http_date},
};

/// A request as it was sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent<'a> {
    pub(super) method: &'a Method,
    /// Path and query, percent-encoding untouched.
    pub(super) target: &'a str,
    /// `Host`, or the authority of HTTP/2.
    pub(super) host: &'a str,
    pub(super) headers: &'a HeaderMap,
    pub(super) body: &'a [u8],
}

impl<'a> Sent<'a> {
    /// A header as text, `host` from wherever it travelled.
    pub(super) fn value(&self, name: &str) -> Option<&'a str> {
        if name.eq_ignore_ascii_case("host") {
            return Some(self.host);
        }
        self.headers.get(name)?.to_str().ok()
    }
}

/// Why a request is denied. The words are for whoever debugs a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Denial {
    /// Something is missing or cannot be read.
    Malformed(String),
    /// The hash of the content is not that of the body.
    Content(String),
    /// The signature is not one that a valid key gives; the text says what differs.
    Signature(String),
    /// The signature is right and the date is too far off.
    Date(String),
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(text)
            | Self::Content(text)
            | Self::Signature(text)
            | Self::Date(text) => f.write_str(text),
        }
    }
}

/// The parts of `HMAC-SHA256 SignedHeaders=…&Signature=…`.
#[derive(Debug)]
struct Authorization<'a> {
    signed_headers: Vec<&'a str>,
    signature: &'a str,
}

/// The key that signed the request, or why it is denied.
pub(super) fn verify<'k>(
    sent: &Sent<'_>,
    keys: &'k AccessKeys,
    now: Timestamp,
    margin: Duration,
) -> Result<&'k Key, Denial> {
    let authorization = read_authorization(sent)?;
    let values = signed_values(sent, &authorization.signed_headers)?;
    check_content(sent)?;
    let text = string_to_sign(sent.method.as_str(), sent.target, &values);
    let given = BASE64_STANDARD
        .decode(authorization.signature)
        .unwrap_or_default();
    let signed = |key: &&Key| -> bool {
        hmac_sha256(key.bytes(), text.as_bytes())[..]
            .ct_eq(&given)
            .into()
    };
    let Some(key) = keys.valid().into_iter().find(signed) else {
        let reason = explain(
            sent,
            &authorization.signed_headers,
            authorization.signature,
            keys,
        );
        return Err(Denial::Signature(reason));
    };
    check_date(sent, &authorization.signed_headers, now, margin)?;
    Ok(key)
}

fn read_authorization<'a>(sent: &Sent<'a>) -> Result<Authorization<'a>, Denial> {
    let missing = || Denial::Malformed("missing header Authorization".to_owned());
    let unlike = |what: &str| {
        Denial::Malformed(format!(
            "Authorization {what}; it should be HMAC-SHA256 SignedHeaders=x-ms-date;host;x-ms-content-sha256&Signature=<base64>"
        ))
    };
    let value = sent.value("authorization").ok_or_else(missing)?;
    let (scheme, rest) = value.split_once(' ').unwrap_or((value, ""));
    if !scheme.eq_ignore_ascii_case("HMAC-SHA256") {
        return Err(unlike("does not begin with HMAC-SHA256"));
    }
    let part = |name: &str| {
        rest.split('&')
            .find_map(|part| part.trim().strip_prefix(name)?.strip_prefix('='))
    };
    let headers = part("SignedHeaders").ok_or_else(|| unlike("has no SignedHeaders"))?;
    Ok(Authorization {
        signed_headers: headers.split(';').collect(),
        signature: part("Signature").ok_or_else(|| unlike("has no Signature"))?,
    })
}

/// The values of the signed headers, in their order; date, host and content hash must be among
/// them.
fn signed_values(sent: &Sent<'_>, names: &[&str]) -> Result<Vec<String>, Denial> {
    let covers = |name: &str| names.iter().any(|n| n.eq_ignore_ascii_case(name));
    let uncovered = |name: &str| {
        Denial::Malformed(format!(
            "SignedHeaders={} leaves out {name}",
            names.join(";")
        ))
    };
    if !covers("x-ms-date") && !covers("date") {
        return Err(uncovered("x-ms-date"));
    }
    for name in ["host", "x-ms-content-sha256"] {
        if !covers(name) {
            return Err(uncovered(name));
        }
    }
    names
        .iter()
        .map(|name| {
            let missing = || Denial::Malformed(format!("missing header {name}"));
            sent.value(name).map(str::to_owned).ok_or_else(missing)
        })
        .collect()
}

/// Base64 of SHA-256.
pub(super) fn content_hash(body: &[u8]) -> String {
    BASE64_STANDARD.encode(Sha256::digest(body))
}

fn check_content(sent: &Sent<'_>) -> Result<(), Denial> {
    let said = sent.value("x-ms-content-sha256").unwrap_or_default();
    let is = content_hash(sent.body);
    if said == is {
        return Ok(());
    }
    Err(Denial::Content(format!(
        "content hash: x-ms-content-sha256 is {said}, but the body of {} bytes hashes to {is}",
        sent.body.len()
    )))
}

/// `VERB \n TARGET \n VALUES`.
pub(super) fn string_to_sign(method: &str, target: &str, values: &[String]) -> String {
    format!("{method}\n{target}\n{}", values.join(";"))
}

fn check_date(
    sent: &Sent<'_>,
    names: &[&str],
    now: Timestamp,
    margin: Duration,
) -> Result<(), Denial> {
    let name = if names.iter().any(|n| n.eq_ignore_ascii_case("x-ms-date")) {
        "x-ms-date"
    } else {
        "date"
    };
    let text = sent.value(name).unwrap_or_default();
    let date = read_http_date(text).ok_or_else(|| {
        Denial::Malformed(format!(
            "{name} {text:?} is not an HTTP date (RFC 1123, GMT)"
        ))
    })?;
    let off = date.duration_since(now);
    if off.unsigned_abs() <= margin {
        return Ok(());
    }
    Err(Denial::Date(format!(
        "date off by {:+} s: {name} is {text}, the time here is {}; allowed are {} s each way",
        off.as_secs(),
        super::call::http_date(now),
        margin.as_secs()
    )))
}

/// What was signed in place of what was sent, as one sentence.
pub(super) fn explain(
    sent: &Sent<'_>,
    names: &[&str],
    signature: &str,
    keys: &AccessKeys,
) -> String {
    let values: Vec<String> = names
        .iter()
        .map(|name| sent.value(name).unwrap_or_default().to_owned())
        .collect();
    let text = string_to_sign(sent.method.as_str(), sent.target, &values);
    if let Some(reason) = other_key(&text, signature, keys) {
        return reason;
    }
    for guess in guesses(sent, names, &values) {
        for key in keys.valid() {
            if matches(&hmac_sha256(key.bytes(), guess.text.as_bytes()), signature) {
                return guess.reason;
            }
        }
    }
    format!(
        "wrong key, or a mistake that is not known here: neither access key gives this signature for {text:?}"
    )
}

/// The same text under a key that is not valid, or in another encoding.
fn other_key(text: &str, signature: &str, keys: &AccessKeys) -> Option<String> {
    for key in keys.valid() {
        let slot = key.stamp.slot.as_str();
        let mac = hmac_sha256(key.bytes(), text.as_bytes());
        if hex(mac).eq_ignore_ascii_case(signature) {
            return Some("the signature is in hexadecimal; it should be base64".to_owned());
        }
        if matches(
            &hmac_sha256(key.text().expose().as_bytes(), text.as_bytes()),
            signature,
        ) {
            return Some(format!(
                "wrong key: the {slot} key was used as text; decode it from base64 first"
            ));
        }
    }
    let retired = keys
        .retired()
        .find(|key| matches(&hmac_sha256(key.bytes(), text.as_bytes()), signature))?;
    Some(format!(
        "wrong key: signed with the former {} key, which was regenerated",
        retired.stamp.slot.as_str()
    ))
}

fn matches(mac: &[u8; 32], signature: &str) -> bool {
    BASE64_STANDARD.encode(mac) == signature
}

/// One usual mistake: what would have been signed, and how to say so.
struct Guess {
    text: String,
    reason: String,
}

fn guesses(sent: &Sent<'_>, names: &[&str], values: &[String]) -> Vec<Guess> {
    let method = sent.method.as_str();
    let mut guesses: Vec<Guess> = targets(sent)
        .into_iter()
        .map(|target| Guess {
            text: string_to_sign(method, &target, values),
            reason: format!(
                "path signed differently: signed {target}, sent {}",
                sent.target
            ),
        })
        .collect();
    guesses.push(Guess {
        text: string_to_sign(&method.to_lowercase(), sent.target, values),
        reason: "the method was signed in lower case".to_owned(),
    });
    let mut replaced = |name: &str, what: &str, others: Vec<String>| {
        let Some(at) = names.iter().position(|n| n.eq_ignore_ascii_case(name)) else {
            return;
        };
        for other in others {
            let mut values = values.to_vec();
            let reason = format!(
                "{what} signed differently: signed {other}, sent {}",
                values[at]
            );
            values[at] = other;
            guesses.push(Guess {
                text: string_to_sign(method, sent.target, &values),
                reason,
            });
        }
    };
    replaced("host", "host", hosts(sent.host));
    replaced(
        "x-ms-content-sha256",
        "content hash",
        vec![content_hash(b""), String::new()],
    );
    let other_date = |name: &str| sent.value(name).map(str::to_owned).into_iter().collect();
    replaced("x-ms-date", "date", other_date("date"));
    replaced("date", "date", other_date("x-ms-date"));
    guesses
}

/// Ways in which the same target is written by clients that sign another one than they send.
fn targets(sent: &Sent<'_>) -> Vec<String> {
    let target = sent.target;
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut found = vec![
        path.to_owned(),
        format!("{path}/?{query}"),
        format!("/{target}"),
        format!("https://{}{target}", sent.host),
        format!("http://{}{target}", sent.host),
        format!("{}?{query}", path.replace("%3A", ":").replace("%3a", ":")),
        format!("{}?{query}", encode_colons(path)),
        format!("{}?{query}", path.replace(':', "%3A")),
    ];
    found.extend(call::decode(target));
    found.retain(|other| other != target);
    found
}

/// `8:acs:…` as `8%3Aacs%3A…`, the verb's own colon left.
fn encode_colons(path: &str) -> String {
    let segments: Vec<String> = path
        .split('/')
        .map(|segment| match segment.strip_prefix(':') {
            Some(verb) => format!(":{verb}"),
            None => segment.replace(':', "%3A"),
        })
        .collect();
    segments.join("/")
}

/// Names of the same place under which a request may have been signed.
fn hosts(host: &str) -> Vec<String> {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => (name, port),
        _ => (host, ""),
    };
    let mut found = vec![format!("{host}/"), name.to_owned(), host.to_lowercase()];
    for name in [name, "localhost", "127.0.0.1", "[::1]"] {
        for port in [port, "443", "80"] {
            found.push(name.to_owned());
            found.push(format!("{name}:{port}"));
        }
    }
    for scheme in ["https", "http"] {
        found.push(format!("{scheme}://{host}"));
        found.push(format!("{scheme}://{host}/"));
    }
    found.retain(|other| other != host);
    found
}

#[cfg(test)]
mod tests {
    //! The vectors of the SDKs, and one test for each way of being denied.

    use http::HeaderValue;

    use super::*;
    use crate::access_keys::{KeyStamp, Slot, draw};
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use renewd_acs_wire::Secret;

    const KEY: &str = "bm90LWEtcmVhbC1rZXktMDEyMzQ1Njc4OWFiY2RlZiEh";
    const ID: &str =
        "8%3Aacs%3A11111111-2222-3333-4444-555555555555_00000000-aaaa-bbbb-cccc-000000000001";
    const RAW_ID: &str =
        "8:acs:11111111-2222-3333-4444-555555555555_00000000-aaaa-bbbb-cccc-000000000001";
    const V: &str = "?api-version=2023-10-01";
    const HOST: &str = "127.0.0.1:18080";
    const PY_DATE: &str = "Sun, 22 Nov 2026 17:19:47 GMT";
    const JS_DATE: &str = "Sun, 22 Nov 2026 17:24:48 GMT";
    const FIXED_DATE: &str = "Mon, 01 Jan 2024 00:00:00 GMT";
    const MARGIN: Duration = Duration::from_secs(300);
    const ORDER: &str = "x-ms-date;host;x-ms-content-sha256";

    fn keys() -> AccessKeys {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let key = |slot, text| {
            let stamp = KeyStamp {
                slot,
                generation: 0,
            };
            Key::new(stamp, text).unwrap()
        };
        AccessKeys::new(
            key(Slot::Primary, draw(&mut rng)),
            key(Slot::Secondary, Secret::new(KEY.to_owned())),
        )
    }

    struct Request {
        method: Method,
        target: String,
        host: String,
        headers: HeaderMap,
        body: Vec<u8>,
    }

    impl Request {
        fn new(
            method: Method,
            target: &str,
            host: &str,
            date: &str,
            body: &str,
            sig: &str,
        ) -> Self {
            let mut headers = HeaderMap::new();
            let hash = content_hash(body.as_bytes());
            headers.insert("x-ms-date", HeaderValue::from_str(date).unwrap());
            headers.insert("x-ms-content-sha256", hash.parse().unwrap());
            let mut request = Self {
                method,
                target: target.to_owned(),
                host: host.to_owned(),
                headers,
                body: body.as_bytes().to_vec(),
            };
            request.authorize(ORDER, sig);
            request
        }

        /// A correctly signed creation.
        fn good() -> Self {
            let mut request = Self::new(
                Method::POST,
                &format!("/identities{V}"),
                HOST,
                PY_DATE,
                "",
                "",
            );
            request.sign();
            request
        }

        fn authorize(&mut self, order: &str, signature: &str) {
            let value = format!("HMAC-SHA256 SignedHeaders={order}&Signature={signature}");
            self.headers.insert("authorization", value.parse().unwrap());
        }

        fn sign(&mut self) {
            let (target, host) = (self.target.clone(), self.host.clone());
            self.sign_as(&target, &host, &BASE64_STANDARD.decode(KEY).unwrap());
        }

        fn sign_as(&mut self, target: &str, host: &str, key: &[u8]) {
            let header = |name: &str| self.headers[name].to_str().unwrap().to_owned();
            let values = [
                header("x-ms-date"),
                host.to_owned(),
                header("x-ms-content-sha256"),
            ];
            let text = string_to_sign(self.method.as_str(), target, &values);
            let signature = BASE64_STANDARD.encode(hmac_sha256(key, text.as_bytes()));
            self.authorize(ORDER, &signature);
        }

        fn judge_at(&self, now: Timestamp) -> Result<Slot, Denial> {
            let sent = Sent {
                method: &self.method,
                target: &self.target,
                host: &self.host,
                headers: &self.headers,
                body: &self.body,
            };
            verify(&sent, &keys(), now, MARGIN).map(|key| key.stamp.slot)
        }

        fn judge(&self) -> Result<Slot, Denial> {
            let date = self.headers["x-ms-date"].to_str().unwrap();
            self.judge_at(read_http_date(date).unwrap())
        }

        fn reason(&self) -> String {
            self.judge().unwrap_err().to_string()
        }
    }

    #[test]
    fn every_vector_of_the_sdks_is_accepted() {
        let issue = format!("/identities/{ID}/:issueAccessToken{V}");
        let raw_issue = format!("/identities/{RAW_ID}/:issueAccessToken{V}");
        let create = format!("/identities{V}");
        let delete = format!("/identities/{ID}{V}");
        let revoke = format!("/identities/{ID}/:revokeAccessTokens{V}");
        let exchange = format!("/teamsUser/:exchangeAccessToken{V}");
        let acs = "my-resource.communication.azure.com";
        #[rustfmt::skip]
    let vectors = [
        ("V1", "POST", &create, HOST, PY_DATE, "", "TEdfZl5sqfbmjBEw9nLMNXdDdN6W2hdWTqCifPYuNYk="),
        ("V2", "POST", &create, HOST, PY_DATE, r#"{"createTokenWithScopes": ["chat", "voip"], "expiresInMinutes": 120}"#, "a3v1p9e5WlSU+AggcwN21RCGr5R5L8AMQ0ZzDrTOmV4="),
        ("V3", "POST", &issue, HOST, PY_DATE, r#"{"scopes": ["chat"]}"#, "AzQtFMBvFfmBVUfPkaE6/Jz+ExpvABKiUEQTtFzMfgE="),
        ("V4", "POST", &revoke, HOST, PY_DATE, "", "BPQh4xn78gbZlHfO3GIJeMYxi5bQUj9jyxrJYq/58DA="),
        ("V5", "DELETE", &delete, HOST, PY_DATE, "", "SmTITeypsvxSqvyrJ7QY4M73Ep8eyf6xDPZfTHaJ2Vs="),
        ("V6", "POST", &exchange, HOST, PY_DATE, r#"{"token": "a.b.c", "appId": "app", "userId": "user"}"#, "gF1sy28EGXciyqPPA8Zn/KhTRfOAyrzuj5UzH/sH5zI="),
        ("V7", "POST", &raw_issue, HOST, JS_DATE, r#"{"scopes": ["chat"]}"#, "VnSJnWY6PXnHpAeo8cFrlZcqzP6TI4a6HaVdv0zwW90="),
        ("V8", "POST", &issue, HOST, JS_DATE, r#"{"scopes":["chat"]}"#, "GHSpJdasfZnCegMxHC4NaKdbcfVGfk5M4jiap9g9il0="),
        ("V9", "POST", &create, HOST, JS_DATE, r#"{"createTokenWithScopes":["chat","voip"],"expiresInMinutes":120}"#, "VSPQmAf8+rwE7C9fMzd2dMlwgrAfZq/8WJWKsOodFW8="),
        ("V10", "POST", &create, HOST, JS_DATE, "", "ffvZy8BO7ZCy8lKs+1k7vLmQo4Wob3FFsZLmhxcjMZg="),
        ("F1", "POST", &create, acs, FIXED_DATE, "", "zHxk1Mej2i7eNsuysQEbDrAsg0fON41dbEmHmSXDQvs="),
        ("F2", "POST", &create, acs, FIXED_DATE, r#"{"createTokenWithScopes":["chat","voip"],"expiresInMinutes":60}"#, "Pj7+mX+BEE0O8bn2eCuefSlm3OctSVF6SMzxqRnijF8="),
        ("F3", "POST", &issue, "localhost:8443", FIXED_DATE, r#"{"scopes":["chat"]}"#, "rmUYpFcqAfSAi/KMLkqhj74rEWx0ahkM6w40c0SQ2Kg="),
    ];
        for (name, method, target, host, date, body, signature) in vectors {
            let method = method.parse().unwrap();
            let request = Request::new(method, target, host, date, body, signature);
            assert_eq!(request.judge(), Ok(Slot::Secondary), "{name}");
        }
    }

    #[test]
    fn a_trailing_slash_in_the_signed_host_is_named() {
        let signature = "T9tWU2MATgOkj6Z4+gSPYSMVQl8o00gfeafEuc5FiMU=";
        let target = format!("/identities{V}");
        let request = Request::new(Method::POST, &target, HOST, PY_DATE, "", signature);
        assert_eq!(
            request.reason(),
            "host signed differently: signed 127.0.0.1:18080/, sent 127.0.0.1:18080"
        );
    }

    #[test]
    fn signed_headers_count_in_their_own_order_and_date_may_stand_for_x_ms_date() {
        let mut request = Request::good();
        let date = request.headers.remove("x-ms-date").unwrap();
        request.headers.insert("date", date);
        let hash = content_hash(b"");
        let text = format!("POST\n{}\n{HOST};{hash};{PY_DATE}", request.target);
        let signature = hmac_sha256(&BASE64_STANDARD.decode(KEY).unwrap(), text.as_bytes());
        request.authorize(
            "host;x-ms-content-sha256;date",
            &BASE64_STANDARD.encode(signature),
        );
        let now = read_http_date(PY_DATE).unwrap();
        assert_eq!(request.judge_at(now), Ok(Slot::Secondary));
    }

    #[test]
    fn five_minutes_either_way_are_allowed_and_not_a_second_more() {
        let request = Request::good();
        let date = read_http_date(PY_DATE).unwrap();
        for seconds in [-300, 300] {
            let now = date + jiff::SignedDuration::from_secs(seconds);
            assert_eq!(request.judge_at(now), Ok(Slot::Secondary), "{seconds}");
        }
        let denial = request
            .judge_at(date + jiff::SignedDuration::from_secs(301))
            .unwrap_err();
        assert!(
            matches!(&denial, Denial::Date(why) if why.starts_with("date off by -301 s")),
            "{denial}"
        );
        let denial = request
            .judge_at(date - jiff::SignedDuration::from_secs(900))
            .unwrap_err();
        assert!(
            denial.to_string().starts_with("date off by +900 s"),
            "{denial}"
        );
    }

    #[test]
    fn a_missing_header_is_named() {
        for (header, reason) in [
            ("authorization", "missing header Authorization"),
            ("x-ms-date", "missing header x-ms-date"),
            ("x-ms-content-sha256", "missing header x-ms-content-sha256"),
        ] {
            let mut request = Request::good();
            request.headers.remove(header);
            let denial = request.judge_at(read_http_date(PY_DATE).unwrap());
            assert_eq!(denial.unwrap_err().to_string(), reason);
        }
    }

    #[test]
    fn headers_that_are_not_signed_are_named() {
        let mut request = Request::good();
        request.authorize("x-ms-date;host", "AAAA");
        assert_eq!(
            request.reason(),
            "SignedHeaders=x-ms-date;host leaves out x-ms-content-sha256"
        );
    }

    #[test]
    fn another_body_than_the_hashed_one_is_named() {
        let mut request = Request::good();
        request.body = b"{}".to_vec();
        assert!(
            request
                .reason()
                .starts_with("content hash: x-ms-content-sha256 is 47DEQ")
        );
    }

    #[test]
    fn a_path_signed_in_another_encoding_is_named() {
        let mut request = Request::good();
        request.target = format!("/identities/{ID}/:revokeAccessTokens{V}");
        let signed = format!("/identities/{RAW_ID}/:revokeAccessTokens{V}");
        request.sign_as(&signed, HOST, &BASE64_STANDARD.decode(KEY).unwrap());
        assert_eq!(
            request.reason(),
            format!(
                "path signed differently: signed {signed}, sent {}",
                request.target
            )
        );
        let mut other = Request::good();
        other.target = signed;
        let encoded = format!("/identities/{ID}/:revokeAccessTokens{V}");
        other.sign_as(&encoded, HOST, &BASE64_STANDARD.decode(KEY).unwrap());
        assert!(
            other
                .reason()
                .starts_with(&format!("path signed differently: signed {encoded}"))
        );
    }

    #[test]
    fn a_wrong_key_is_named_and_so_is_one_that_was_not_decoded() {
        let mut request = Request::good();
        let (target, host) = (request.target.clone(), request.host.clone());
        request.sign_as(&target, &host, b"some other key");
        assert!(
            request
                .reason()
                .starts_with("wrong key, or a mistake that is not known here")
        );
        request.sign_as(&target, &host, KEY.as_bytes());
        assert_eq!(
            request.reason(),
            "wrong key: the secondary key was used as text; decode it from base64 first"
        );
    }

    #[test]
    fn a_regenerated_key_is_recognised() {
        let mut keys = keys();
        keys.regenerate(Slot::Secondary, &mut ChaCha8Rng::seed_from_u64(2));
        let request = Request::good();
        let sent = Sent {
            method: &request.method,
            target: &request.target,
            host: &request.host,
            headers: &request.headers,
            body: &request.body,
        };
        let denial = verify(&sent, &keys, read_http_date(PY_DATE).unwrap(), MARGIN).unwrap_err();
        assert_eq!(
            denial.to_string(),
            "wrong key: signed with the former secondary key, which was regenerated"
        );
    }

    #[test]
    fn a_scheme_that_is_not_hmac_is_named() {
        let mut request = Request::good();
        request
            .headers
            .insert("authorization", "Basic a.b.c".parse().unwrap());
        assert!(request.reason().contains("begin with HMAC-SHA256"));
        request
            .headers
            .insert("authorization", "HMAC-SHA256 Signature=x".parse().unwrap());
        assert!(request.reason().contains("has no SignedHeaders"));
    }
}
