//! Webhooks that cannot work.

use crate::{
    config::{Finding, Severity, WebhookSinkSettings},
    model::{Kind, NoticeKind},
    sinks::webhook::{Endpoint, EventPattern, SigningSecret},
};

/// What is wrong with one webhook.
pub(super) fn check(sink: &WebhookSinkSettings, path: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut report = |at: String, severity, message: String, hint: Option<&str>| {
        findings.push(Finding {
            path: format!("{path}.{at}"),
            severity,
            message,
            hint: hint.map(str::to_owned),
        });
    };
    if let Err(error) = Endpoint::new(&sink.url, sink.allow_http) {
        report("url".to_owned(), Severity::Error, error.to_string(), None);
    }
    if sink.secrets.is_empty() {
        let message = "without a secret its events could not be signed".to_owned();
        let hint = "printf 'whsec_%s' \"$(openssl rand -base64 32)\" makes one";
        report("secrets".to_owned(), Severity::Error, message, Some(hint));
    }
    for (at, loaded) in sink.secrets.iter().enumerate() {
        if let Err(error) = SigningSecret::parse(&loaded.secret) {
            report(
                format!("secrets[{at}]"),
                Severity::Error,
                error.to_string(),
                None,
            );
        }
    }
    for (at, text) in sink.events.iter().enumerate() {
        let at = format!("events[{at}]");
        match text.parse::<EventPattern>() {
            Err(error) => report(at, Severity::Error, error.to_string(), None),
            Ok(pattern) if !types().any(|event| pattern.matches(&event)) => {
                let message = format!("no event is of the type {text:?}, so nothing would match");
                let known: Vec<String> = types().collect();
                report(
                    at,
                    Severity::Warning,
                    message,
                    Some(&format!("there are {}", known.join(", "))),
                );
            }
            Ok(_) => {}
        }
    }
    findings
}

/// Every type of event, without `renewd.`.
fn types() -> impl Iterator<Item = String> {
    let tokens = Kind::ALL.into_iter().map(|kind| format!("token.{kind}"));
    tokens.chain(NoticeKind::ALL.into_iter().map(|kind| kind.to_string()))
}
