//! Reads a delivery's body: a CloudEvents 1.0 event in structured mode.

use http::{HeaderMap, header::CONTENT_TYPE};
use serde::Deserialize;
use serde_json::Value;

use renewd_acs_wire::Secret;

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
