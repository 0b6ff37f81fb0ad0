//! A signed event: CloudEvents 1.0 around a token document or a notice, and a signature of Standard Webhooks
//! 1.0.0, symmetric: HMAC-SHA256 over `id.timestamp.body`.

use std::{fmt, str::FromStr};

use base64::{Engine, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use percent_encoding::AsciiSet;
use serde::Serialize;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::{
    config::Include,
    model::{
        Name, Notice, RESERVED, ResourceName, Secret, SinkName, TokenDocument, hex,
        percent_encoded, whole_seconds,
    },
};

/// An event, ready to be signed and sent.
pub(super) struct CloudEvent {
    /// The same over retries and restarts, without a dot.
    pub(super) id: String,
    /// The whole event as JSON.
    pub(super) body: Zeroizing<Vec<u8>>,
}

#[derive(Serialize)]
struct Envelope<'a> {
    specversion: &'static str,
    id: &'a str,
    source: &'a str,
    r#type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a Name>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<String>,
    datacontenttype: &'static str,
}

/// The data of a notice.
#[derive(Serialize)]
struct NoticeData<'a> {
    resource: Option<&'a ResourceName>,
    name: Option<&'a Name>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    message: &'a str,
}

/// The type of the event that carries a document, without `renewd.`.
pub(super) fn token_type(document: &TokenDocument) -> String {
    format!("token.{}", document.kind)
}

impl CloudEvent {
    /// The id of a notice that is only a test.
    pub(super) fn test_id(instance: &str, sink: &SinkName, at: Timestamp) -> String {
        event_id(&["test", instance, sink.as_str(), &at.to_string()])
    }

    /// The event that carries a document, or names its version.
    pub(super) fn of_token(
        instance: &str,
        sink: &SinkName,
        document: &TokenDocument,
        include: Include,
    ) -> Self {
        Self::around(
            document,
            "token",
            &token_type(document),
            instance,
            sink,
            include,
        )
    }

    /// The event of `renewd sink test`: a type of its own, so that no receiver takes it for a token.
    pub(super) fn of_test(
        instance: &str,
        sink: &SinkName,
        document: &TokenDocument,
        include: Include,
    ) -> Self {
        Self::around(document, "test", "sink.test", instance, sink, include)
    }

    fn around(
        document: &TokenDocument,
        about: &str,
        event_type: &str,
        instance: &str,
        sink: &SinkName,
        include: Include,
    ) -> Self {
        let data = match include {
            Include::Token => document.to_json(),
            Include::Reference => document.to_json_reference(),
        };
        let version = document.version.to_string();
        let id = event_id(&[
            about,
            instance,
            sink.as_str(),
            document.name.as_str(),
            &version,
        ]);
        let envelope = Envelope {
            specversion: "1.0",
            id: &id,
            source: &source(instance, Some(&document.resource)),
            r#type: &format!("renewd.{event_type}"),
            subject: Some(&document.name),
            time: document
                .issued_at
                .or_else(|| committed_at(document))
                .map(whole_seconds),
            datacontenttype: "application/json",
        };
        let body = with_data(&envelope, &data);
        Self { id, body }
    }

    /// The event that tells of a notice.
    pub(super) fn of_notice(instance: &str, sink: &SinkName, seq: u64, notice: &Notice) -> Self {
        let data = to_json(&NoticeData {
            resource: notice.resource.as_ref(),
            name: notice.name.as_ref(),
            key: notice.key.as_deref(),
            message: &notice.message,
        });
        let at = notice.at.to_string();
        let id = event_id(&["notice", instance, sink.as_str(), &seq.to_string(), &at]);
        let envelope = Envelope {
            specversion: "1.0",
            id: &id,
            source: &source(instance, notice.resource.as_ref()),
            r#type: &format!("renewd.{}", notice.kind),
            subject: notice.name.as_ref(),
            time: Some(whole_seconds(notice.at)),
            datacontenttype: "application/json",
        };
        let body = with_data(&envelope, &data);
        Self { id, body }
    }
}

/// Versions follow the clock's seconds, so they tell when a change without a token was committed.
fn committed_at(document: &TokenDocument) -> Option<Timestamp> {
    let seconds = i64::try_from(document.version.0).ok()?;
    Timestamp::from_second(seconds).ok()
}

/// 32 hex digits from the parts; each is preceded by its length, so that no two lists look alike.
fn event_id(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    hex(&hash.finalize()[..16])
}

/// A URI reference: what could not stand in one is percent-encoded.
fn source(instance: &str, resource: Option<&ResourceName>) -> String {
    const ENCODED: &AsciiSet = &RESERVED.remove(b'@').remove(b'+');
    let mut source = format!("renewd/{}", percent_encoded(instance, ENCODED));
    if let Some(resource) = resource {
        source.push('/');
        source.push_str(resource.as_str());
    }
    source
}

/// The envelope with `data` as its last member. The document is copied once, into memory that is
/// wiped, and never parsed.
fn with_data(envelope: &Envelope<'_>, data: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut head = to_json(envelope);
    head.pop();
    let mut body = Zeroizing::new(Vec::with_capacity(head.len() + data.len() + 16));
    for part in [head.as_slice(), b",\"data\":", data, b"}"] {
        body.extend_from_slice(part);
    }
    body
}

fn to_json(value: &impl Serialize) -> Vec<u8> {
    #[expect(
        clippy::expect_used,
        reason = "plain strings always serialise into memory"
    )]
    serde_json::to_vec(value).expect("an envelope serialises")
}

/// Why a text is no pattern of event types.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a pattern of events: write a type such as token.renewed, a group such as token.*, or *"
)]
pub struct EventPatternError(String);

/// Which types of events a receiver wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventPattern {
    text: String,
}

impl EventPattern {
    /// Whether it covers a type, written without `renewd.`.
    pub fn matches(&self, event_type: &str) -> bool {
        match self.text.strip_suffix('*') {
            Some(prefix) => event_type.starts_with(prefix),
            None => event_type == self.text,
        }
    }
}

impl FromStr for EventPattern {
    type Err = EventPatternError;

    fn from_str(text: &str) -> Result<Self, EventPatternError> {
        let words = text.strip_suffix(".*").unwrap_or(text);
        let is_word = |word: &str| {
            !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
        };
        if text == "*" || words.split('.').all(is_word) {
            Ok(Self {
                text: text.to_owned(),
            })
        } else {
            Err(EventPatternError(text.to_owned()))
        }
    }
}

/// How long a key may be, in bytes; the official libraries do not mind, so we do.
const LENGTHS: std::ops::RangeInclusive<usize> = 24..=64;

/// Why a text is no signing secret. It never holds the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SigningSecretError {
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
    pub fn parse(secret: &Secret) -> Result<Self, SigningSecretError> {
        let encoded = secret
            .expose()
            .strip_prefix("whsec_")
            .ok_or(SigningSecretError::Prefix)?;
        let key = Zeroizing::new(
            BASE64_STANDARD
                .decode(encoded)
                .map_err(|_| SigningSecretError::Encoding)?,
        );
        if !LENGTHS.contains(&key.len()) {
            return Err(SigningSecretError::Length(key.len()));
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
mod event_tests {
    use super::*;
    use crate::model::{Kind, NoticeKind, Scope, Secret, State, Version};

    fn document() -> TokenDocument {
        TokenDocument {
            name: "support-bot".parse().unwrap(),
            resource: "contoso".parse().unwrap(),
            id: None,
            state: State::Active,
            token: Some(Secret::new("ey.secret".to_owned())),
            scopes: vec![Scope::Chat],
            issued_at: Some("2026-11-22T17:00:00Z".parse().unwrap()),
            expires_at: Some("2026-11-23T17:00:00Z".parse().unwrap()),
            renews_at: None,
            version: Version(1_795_366_800),
            kind: Kind::Renewed,
        }
    }

    fn of(document: &TokenDocument, include: Include) -> (String, serde_json::Value) {
        let event = CloudEvent::of_token("web 1", &"crm".parse().unwrap(), document, include);
        let value = serde_json::from_slice(&event.body).unwrap();
        (event.id, value)
    }

    #[test]
    fn a_token_event_says_what_when_and_about_whom() {
        let (id, event) = of(&document(), Include::Token);
        assert_eq!(event["specversion"], "1.0");
        assert_eq!(event["id"], id.as_str());
        assert_eq!(event["type"], "renewd.token.renewed");
        assert_eq!(event["source"], "renewd/web%201/contoso");
        assert_eq!(event["subject"], "support-bot");
        assert_eq!(event["time"], "2026-11-22T17:00:00Z");
        assert_eq!(event["datacontenttype"], "application/json");
        let data: serde_json::Value = serde_json::from_slice(&document().to_json()).unwrap();
        assert_eq!(event["data"], data);
        assert_eq!(event["data"]["token"], "ey.secret");
    }

    #[test]
    fn a_reference_names_the_version_and_leaves_the_token_out() {
        let (_, event) = of(&document(), Include::Reference);
        assert_eq!(event["data"]["version"], 1_795_366_800);
        assert!(event["data"].get("token").is_none());
    }

    #[test]
    fn the_id_follows_instance_sink_identity_and_version_alone() {
        let (id, _) = of(&document(), Include::Token);
        assert_eq!(id, of(&document(), Include::Reference).0);
        assert!(id.len() == 32 && !id.contains('.'));
        let mut next = document();
        next.version = Version(1_795_366_801);
        assert_ne!(id, of(&next, Include::Token).0);
        assert_ne!(event_id(&["ab", "c"]), event_id(&["a", "bc"]));
    }

    #[test]
    fn a_hold_is_dated_by_its_version() {
        let held = TokenDocument {
            state: State::Held,
            token: None,
            issued_at: None,
            expires_at: None,
            kind: Kind::Held,
            ..document()
        };
        let (_, event) = of(&held, Include::Token);
        assert_eq!(event["time"], "2026-11-22T17:00:00Z");
        assert_eq!(event["data"]["token"], serde_json::Value::Null);
    }

    #[test]
    fn a_notice_has_a_type_of_its_own() {
        let notice = Notice {
            at: "2026-11-22T17:00:00.5Z".parse().unwrap(),
            kind: NoticeKind::ResourceUnreachable,
            resource: Some("contoso".parse().unwrap()),
            name: None,
            key: Some("outage contoso".to_owned()),
            message: "contoso does not answer".to_owned(),
        };
        let event = CloudEvent::of_notice("web-1", &"crm".parse().unwrap(), 7, &notice);
        let value: serde_json::Value = serde_json::from_slice(&event.body).unwrap();
        assert_eq!(value["type"], "renewd.resource.unreachable");
        assert_eq!(value["source"], "renewd/web-1/contoso");
        assert_eq!(value["time"], "2026-11-22T17:00:00Z");
        assert!(value.get("subject").is_none());
        assert_eq!(value["data"]["message"], "contoso does not answer");
        assert_eq!(value["data"]["key"], "outage contoso");
    }

    #[test]
    fn patterns_cover_types_and_groups() {
        let matches = |pattern: &str, event_type| {
            pattern.parse::<EventPattern>().unwrap().matches(event_type)
        };
        assert!(matches("token.*", "token.renewed") && matches("*", "key.rejected"));
        assert!(matches("token.held", "token.held") && !matches("token.held", "token.held_on"));
        assert!(!matches("token.*", "tokens.x") && !matches("token.*", "resource.recovered"));
        for bad in [
            "",
            "token.",
            "*.held",
            "tok*",
            "Token.*",
            "token..x",
            "token.*.*",
        ] {
            assert!(bad.parse::<EventPattern>().is_err(), "{bad:?}");
        }
    }
}

#[cfg(test)]
mod signature_tests {
    use super::*;

    const ASCENDING: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    const DESCENDING: &str = "whsec_//79/Pv6+fj39vX08/Lx8O/u7ezr6uno5+bl5OPi4eA=";
    const ROTATED: &str = r#"{"type":"token.rotated","timestamp":"2026-01-02T03:04:05Z","data":{"name":"github/prod","version":42,"expires_at":"2026-01-02T04:04:05Z"}}"#;
    const ROTATED_ID: &str = "msg_01JGJ5Z8K3V9Q4T7N2X6Y0B1CD";

    fn secret(text: &str) -> Result<SigningSecret, SigningSecretError> {
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
        assert_eq!(secret("whsec_").unwrap_err(), SigningSecretError::Length(0));
        assert_eq!(
            secret(&of_length(23)).unwrap_err(),
            SigningSecretError::Length(23)
        );
        assert_eq!(
            secret(&of_length(65)).unwrap_err(),
            SigningSecretError::Length(65)
        );
        assert!(secret(&of_length(24)).is_ok() && secret(&of_length(64)).is_ok());
        assert_eq!(
            secret(&ASCENDING[6..]).unwrap_err(),
            SigningSecretError::Prefix
        );
        for bad in [
            ASCENDING.trim_end_matches('='),
            &DESCENDING.replace('/', "_").replace('+', "-"),
            &format!("{ASCENDING}\n"),
        ] {
            assert_eq!(
                secret(bad).unwrap_err(),
                SigningSecretError::Encoding,
                "{bad:?}"
            );
        }
    }
}
