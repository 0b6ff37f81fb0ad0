//! Notices in the form that their receiver reads: alerts for Alertmanager, or what a template of the operator's makes of
//! them. There is no token in a notice, and a sink of such a form gets nothing else.
//!
//! What begins and what ends go under the same key, so that a receiver closes what it opened.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use minijinja::Value;
use serde::Serialize;
use zeroize::Zeroizing;

use crate::{
    config::EventBody,
    model::{Notice, NoticeKind, whole_seconds},
    sinks::file::template::{self, Renderer, TemplateError},
};

/// What a receiver opens that nobody closes ends by itself after so long.
const FOR_GOOD: SignedDuration = SignedDuration::from_hours(365 * 24);
/// What happened once is shown for so long.
const ONCE: Duration = Duration::from_hours(1);

/// The names that a template of a notice knows.
pub(in crate::sinks) const FIELDS: [&str; 9] = [
    "notice", "state", "key", "message", "instance", "resource", "name", "at", "id",
];

/// Whether a notice begins something, ends it, or tells what happened once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Begins,
    Ends,
    Once,
}

impl Phase {
    fn of(notice: &Notice) -> Self {
        match (&notice.key, notice.kind.ended_by()) {
            (None, _) => Self::Once,
            (Some(_), []) => Self::Ends,
            (Some(_), _) => Self::Begins,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Begins => "begins",
            Self::Ends => "ends",
            Self::Once => "once",
        }
    }
}

/// A notice with all that a receiver may want to know of it.
pub(super) struct Told<'a> {
    /// The word of its kind, or `sink.test`.
    pub(super) word: &'a str,
    pub(super) notice: &'a Notice,
    pub(super) instance: &'a str,
    /// The same over retries and restarts.
    pub(super) id: &'a str,
}

/// How a sink writes notices, where not as events.
#[derive(Debug)]
pub(super) enum Form {
    Alertmanager,
    Template(Renderer),
}

impl Form {
    /// `None` for events.
    ///
    /// # Errors
    /// When the template cannot be compiled.
    pub(super) fn of(body: &EventBody) -> Result<Option<Self>, TemplateError> {
        Ok(match body {
            EventBody::Event => None,
            EventBody::Alertmanager => Some(Self::Alertmanager),
            EventBody::Template(template) => Some(Self::Template(Renderer::new(&template.text)?)),
        })
    }

    /// The body that tells a notice at `now`.
    ///
    /// # Errors
    /// When the template gives nothing for it.
    pub(super) fn write(&self, told: &Told<'_>, now: Timestamp) -> Result<Vec<u8>, TemplateError> {
        match self {
            Self::Alertmanager => Ok(alerts(told, now)),
            Self::Template(template) => Ok(template.render(fields(told), 1)?.to_vec()),
        }
    }
}

/// One alert, as Alertmanager's API takes it. It is known again by its labels, so they hold only what is the same when
/// that ends.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Alert<'a> {
    labels: Labels<'a>,
    annotations: Annotations<'a>,
    starts_at: String,
    ends_at: String,
}

#[derive(Serialize)]
struct Labels<'a> {
    alertname: &'static str,
    instance: &'a str,
    key: &'a str,
    severity: &'static str,
}

#[derive(Serialize)]
struct Annotations<'a> {
    summary: &'a str,
    notice: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    identity: Option<&'a str>,
}

fn alerts(told: &Told<'_>, now: Timestamp) -> Vec<u8> {
    let notice = told.notice;
    let at = notice.at;
    let (starts, ends) = match Phase::of(notice) {
        Phase::Begins => (at, at.checked_add(FOR_GOOD).unwrap_or(Timestamp::MAX)),
        // An alert begins before it ends; of two that are one, the earlier beginning counts.
        Phase::Ends => (at - Duration::from_millis(1), at),
        Phase::Once => (at, at.max(now) + ONCE),
    };
    let alert = Alert {
        labels: Labels {
            alertname: "RenewdNotice",
            instance: told.instance,
            key: notice.key.as_deref().unwrap_or(told.id),
            severity: "warning",
        },
        annotations: Annotations {
            summary: &notice.message,
            notice: told.word,
            resource: notice.resource.as_ref().map(|name| name.as_str()),
            identity: notice.name.as_ref().map(|name| name.as_str()),
        },
        starts_at: starts.to_string(),
        ends_at: ends.to_string(),
    };
    // Strings alone: it can be written.
    serde_json::to_vec(&[alert]).unwrap_or_default()
}

fn fields(told: &Told<'_>) -> Value {
    let notice = told.notice;
    let key = notice.key.as_deref().unwrap_or(told.id);
    let values = [
        Value::from(told.word),
        Value::from(Phase::of(notice).as_str()),
        Value::from(key),
        Value::from(notice.message.as_str()),
        Value::from(told.instance),
        Value::from(notice.resource.as_ref().map(|name| name.as_str())),
        Value::from(notice.name.as_ref().map(|name| name.as_str())),
        Value::from(whole_seconds(notice.at)),
        Value::from(told.id),
    ];
    Value::from_pairs(FIELDS.into_iter().zip(values))
}

/// What is wrong with a template: it is compiled, and makes something of a notice that begins, one that ends and one that
/// tells what happened once; as JSON, where it is declared to be that.
pub(in crate::sinks) fn check(text: &str, is_json: bool) -> Option<TemplateError> {
    let samples = samples();
    let contexts = samples.iter().map(|notice| {
        fields(&Told {
            word: notice.kind.as_str(),
            notice,
            instance: "example",
            id: "ef4422f8c0b4a1de3e0d2f6f1b0a9c77",
        })
    });
    match template::made_of(text, contexts) {
        Err(error) => Some(error),
        Ok(bodies) => {
            let is_odd = |body: &Zeroizing<Vec<u8>>| {
                serde_json::from_slice::<serde::de::IgnoredAny>(body).is_err()
            };
            let odd = is_json && bodies.iter().any(is_odd);
            odd.then(|| TemplateError {
                message: "what this template makes of a notice is no JSON".to_owned(),
                range: None,
                unknown: None,
            })
        }
    }
}

/// Notices like those to come; what they say is awkward to quote.
fn samples() -> Vec<Notice> {
    let notice = |kind, key: Option<&str>, resource: Option<&str>| Notice {
        at: Timestamp::UNIX_EPOCH,
        kind,
        resource: resource.and_then(|name| name.parse().ok()),
        name: None,
        key: key.map(str::to_owned),
        message: "example: it said \"no\" \\ and\nnothing else".to_owned(),
    };
    vec![
        notice(
            NoticeKind::ResourceUnreachable,
            Some("outage example"),
            Some("example"),
        ),
        notice(
            NoticeKind::ResourceRecovered,
            Some("outage example"),
            Some("example"),
        ),
        notice(NoticeKind::StoreBroughtUp, None, None),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alert(notice: &Notice) -> serde_json::Value {
        let told = Told {
            word: notice.kind.as_str(),
            notice,
            instance: "web-1",
            id: "7",
        };
        let now = "2026-11-22T17:00:00Z".parse().unwrap();
        let body = Form::Alertmanager.write(&told, now).unwrap();
        let mut alerts: Vec<serde_json::Value> = serde_json::from_slice(&body).unwrap();
        alerts.remove(0)
    }

    #[test]
    fn what_ends_has_the_labels_of_what_began() {
        let [began, ended, once] = &samples()[..] else {
            panic!()
        };
        let (opens, closes, once) = (alert(began), alert(ended), alert(once));
        assert_eq!(opens["labels"], closes["labels"]);
        assert_eq!(opens["labels"]["key"], "outage example");
        assert!(opens["endsAt"].as_str() > Some("1970-12"), "{opens}");
        assert_eq!(closes["endsAt"], "1970-01-01T00:00:00Z");
        assert!(closes["startsAt"].as_str() < closes["endsAt"].as_str());
        assert_eq!(once["labels"]["key"], "7");
        assert_eq!(once["endsAt"], "2026-11-22T18:00:00Z", "{once}");
    }

    #[test]
    fn a_template_is_tried_out_with_what_is_awkward() {
        let good = "{\"text\": {{ message|json }}, \"on\": {{ (resource or instance)|json }}}";
        assert_eq!(check(good, true), None);
        let bare = "{\"text\": \"{{ message }}\"}";
        assert!(check(bare, true).unwrap().message.contains("no JSON"));
        assert_eq!(check(bare, false), None);
        let error = check("{{ token }}", false).unwrap();
        assert_eq!(error.message, "the template knows no `token`");
    }
}
