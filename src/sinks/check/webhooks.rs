//! Webhooks that cannot be made. What is wrong in the text alone, `config` has found before.

use crate::{
    config::{Finding, Severity, WebhookSinkSettings},
    sinks::webhook::{WebhookError, WebhookSink},
    transport::TransportSetupError,
};

/// What is wrong with one webhook, if anything.
pub(super) fn check(sink: &WebhookSinkSettings, path: &str) -> Option<Finding> {
    let error = WebhookSink::new(sink, "check", None).err()?;
    let key = match &error {
        WebhookError::Endpoint(_) => "url".to_owned(),
        WebhookError::NoSecret(_) => "secrets".to_owned(),
        WebhookError::Secret { index, .. } => format!("secrets[{index}]"),
        WebhookError::Pattern(_) => "events".to_owned(),
        WebhookError::Transport(TransportSetupError::Proxy(_)) => "proxy".to_owned(),
        WebhookError::Transport(_) => "ca_file".to_owned(),
    };
    Some(Finding {
        path: format!("{path}.{key}"),
        severity: Severity::Error,
        message: error.to_string(),
        hint: None,
    })
}
