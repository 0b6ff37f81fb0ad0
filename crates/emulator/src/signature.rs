//! Judges a request's HMAC signature over what was really sent.
//!
//! What is signed is `VERB \n TARGET \n VALUES`, where the target is the raw request target and the
//! values are those of the signed headers, in the order of `SignedHeaders`, joined by `;`. Source:
//! "Sign an HTTP request", ACS docs, and requests captured from the SDKs. This is written apart from
//! `acs::hmac` on purpose: a mistake there must not be agreed to here.

use std::{fmt, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use http::{HeaderMap, Method};
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{
    access_keys::{AccessKeys, Key, hmac_sha256},
    call::read_http_date,
    diagnosis,
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
        let reason = diagnosis::explain(
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
    if scheme.eq_ignore_ascii_case("bearer") {
        return Err(Denial::Malformed(
            "Authorization is a Bearer token: this emulator takes access keys only".to_owned(),
        ));
    }
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

#[cfg(test)]
mod tests;
