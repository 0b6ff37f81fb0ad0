//! Reads a delivery: its Standard Webhooks signature, judged apart from the code that makes it, and its body, a
//! CloudEvents 1.0 event in structured mode.
//!
//! Source: Standard Webhooks 1.0.0. Signed is `{id}.{timestamp}.{body}` with HMAC-SHA256; the header
//! holds one or more `v1,<base64>`, separated by single spaces; 300 s of age are allowed each way.

use base64::{Engine, prelude::BASE64_STANDARD};
use http::{HeaderMap, header::CONTENT_TYPE};
use jiff::Timestamp;
use renewd_acs_wire::Secret;
use serde::Deserialize;
use serde_json::Value;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::super::access_keys::hmac_sha256;

const TOLERANCE_SECS: i64 = 300;

/// A webhook secret that cannot be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a webhook secret is whsec_ followed by the standard base64 of 24 to 64 bytes")]
pub struct UnlikeAWebhookSecret;

pub(super) struct Verifier {
    keys: Vec<Zeroizing<Vec<u8>>>,
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Verifier({} secrets)", self.keys.len())
    }
}

impl Verifier {
    pub(super) fn new(secrets: &[Secret]) -> Result<Self, UnlikeAWebhookSecret> {
        let key = |secret: &Secret| {
            let text = secret.expose().strip_prefix("whsec_")?;
            let bytes = Zeroizing::new(BASE64_STANDARD.decode(text).ok()?);
            (24..=64).contains(&bytes.len()).then_some(bytes)
        };
        let keys: Option<Vec<_>> = secrets.iter().map(key).collect();
        Ok(Self {
            keys: keys.filter(|k| !k.is_empty()).ok_or(UnlikeAWebhookSecret)?,
        })
    }

    /// The delivery's id, if its signature is right; else why not.
    pub(super) fn verify<'h>(
        &self,
        headers: &'h HeaderMap,
        body: &[u8],
        now: Timestamp,
    ) -> Result<&'h str, String> {
        let header = |name: &str| {
            let value = headers.get(name).and_then(|value| value.to_str().ok());
            value.ok_or_else(|| format!("missing header {name}"))
        };
        let (id, timestamp) = (header("webhook-id")?, header("webhook-timestamp")?);
        let signatures = header("webhook-signature")?;
        let seconds: i64 = timestamp
            .parse()
            .map_err(|_| format!("webhook-timestamp {timestamp:?} is not a number of seconds"))?;
        let off = seconds.saturating_sub(now.as_second());
        if off.abs() > TOLERANCE_SECS {
            return Err(format!("webhook-timestamp is off by {off:+} s"));
        }
        let text = [id.as_bytes(), b".", timestamp.as_bytes(), b".", body].concat();
        if signatures.split(' ').any(|one| self.is_right(one, &text)) {
            Ok(id)
        } else {
            Err("no signature in webhook-signature is right for any secret".to_owned())
        }
    }

    fn is_right(&self, signature: &str, text: &[u8]) -> bool {
        let given = signature
            .strip_prefix("v1,")
            .and_then(|text| BASE64_STANDARD.decode(text).ok());
        given.is_some_and(|given| {
            self.keys
                .iter()
                .any(|key| hmac_sha256(key, text)[..].ct_eq(&given).into())
        })
    }
}

/// What the receiver wants to know of an event.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) id: String,
    pub(super) kind: String,
    pub(super) subject: String,
    /// Absent in notices, which have no version.
    pub(super) version: Option<i64>,
    pub(super) token: Option<Secret>,
    pub(super) state: Option<String>,
}

#[derive(Deserialize)]
struct Envelope {
    specversion: String,
    id: String,
    source: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    subject: String,
    #[serde(default)]
    data: Value,
}

/// How the body may be declared: as CloudEvents say, or as frameworks want that parse nothing else.
const CONTENT_TYPES: [&str; 2] = ["application/cloudevents+json", "application/json"];

/// The event, or what is wrong with it; a body is never quoted, it holds a token.
pub(super) fn read(headers: &HeaderMap, body: &[u8], id: &str) -> Result<Event, String> {
    let kind = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok());
    let essence = kind
        .unwrap_or_default()
        .split(';')
        .next()
        .unwrap_or_default();
    if !CONTENT_TYPES
        .iter()
        .any(|known| essence.trim().eq_ignore_ascii_case(known))
    {
        return Err(format!(
            "the content type is {essence:?}, neither {} nor {}",
            CONTENT_TYPES[0], CONTENT_TYPES[1]
        ));
    }
    let envelope: Envelope = serde_json::from_slice(body).map_err(|error| {
        format!(
            "the body is not a CloudEvents event ({:?} error at line {} column {})",
            error.classify(),
            error.line(),
            error.column()
        )
    })?;
    if envelope.specversion != "1.0" || envelope.source.is_empty() || envelope.kind.is_empty() {
        return Err("the event needs specversion 1.0, a source and a type".to_owned());
    }
    if envelope.id != id {
        return Err("the event's id is not the webhook-id".to_owned());
    }
    let text = |name: &str| envelope.data[name].as_str().map(str::to_owned);
    Ok(Event {
        version: envelope.data["version"].as_i64(),
        token: text("token").map(Secret::new),
        state: text("state"),
        id: envelope.id,
        kind: envelope.kind,
        subject: envelope.subject,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    const OTHER: &str = "whsec_//79/Pv6+fj39vX08/Lx8O/u7ezr6uno5+bl5OPi4eA=";
    const BODY: &str = r#"{"type":"token.rotated","timestamp":"2026-01-02T03:04:05Z","data":{"name":"github/prod","version":42,"expires_at":"2026-01-02T04:04:05Z"}}"#;
    const SIGNATURE: &str = "v1,PLw1d4ZxEy1ARebb6qm0vlLERgdDVoME11fDVp5PHK4=";
    const OTHER_SIGNATURE: &str = "v1,d7mOitnMyNgr55TXH5e9zQtu3QsVV4lNR29+LQ1ZwAQ=";
    const ID: &str = "msg_01JGJ5Z8K3V9Q4T7N2X6Y0B1CD";

    fn judge(secret: &str, id: &str, at: i64, body: &str, signature: &str, now: i64) -> bool {
        let verifier = Verifier::new(&[Secret::new(secret.to_owned())]).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("webhook-id", id.parse().unwrap());
        headers.insert("webhook-timestamp", at.into());
        headers.insert("webhook-signature", signature.parse().unwrap());
        let now = Timestamp::from_second(now).unwrap();
        verifier.verify(&headers, body.as_bytes(), now).is_ok()
    }

    #[test]
    fn the_vectors_of_three_libraries_are_right() {
        let at = 1_767_323_045;
        assert!(judge(SECRET, ID, at, BODY, SIGNATURE, at));
        assert!(judge(OTHER, ID, at, BODY, OTHER_SIGNATURE, at));
        assert!(judge(
            "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
            "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
            1_649_367_553,
            r#"{"email":"test@example.com","username":"test_user"}"#,
            "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=",
            1_649_367_553
        ));
    }

    #[test]
    fn either_secret_is_right_while_they_rotate_and_a_third_is_not() {
        let at = 1_767_323_045;
        let both = format!("{OTHER_SIGNATURE} {SIGNATURE}");
        assert!(judge(SECRET, ID, at, BODY, &both, at));
        assert!(judge(OTHER, ID, at, BODY, &both, at));
        let third = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
        assert!(!judge(third, ID, at, BODY, &both, at));
    }

    #[test]
    fn what_was_changed_or_is_old_is_wrong() {
        let at = 1_767_323_045;
        assert!(!judge(SECRET, "msg_x", at, BODY, SIGNATURE, at));
        assert!(!judge(SECRET, ID, at + 1, BODY, SIGNATURE, at));
        assert!(!judge(SECRET, ID, at, "{}", SIGNATURE, at));
        assert!(judge(SECRET, ID, at, BODY, SIGNATURE, at + 300));
        assert!(!judge(SECRET, ID, at, BODY, SIGNATURE, at + 301));
        assert!(!judge(SECRET, ID, at, BODY, SIGNATURE, at - 301));
    }

    #[test]
    fn short_and_bare_secrets_are_refused() {
        for bad in [
            "",
            "whsec_",
            "whsec_AAAA",
            "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
        ] {
            assert!(
                Verifier::new(&[Secret::new(bad.to_owned())]).is_err(),
                "{bad:?}"
            );
        }
        assert!(Verifier::new(&[]).is_err());
    }
}
