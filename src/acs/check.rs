//! What can be said of a `[[resource]]` section without calling it.

use super::ConnectionString;
use crate::{
    config::{Finding, LoadedSecret, ResourceSettings, Severity},
    transport::{NetworkOptions, Transport},
};

/// The oldest version whose shapes renewd speaks.
const OLDEST_SPOKEN: &str = "2021-03-07";
/// The oldest version that lets a token's lifetime be chosen.
const OLDEST_WITH_LIFETIME: &str = "2022-10-01";

/// Everything that is wrong with one `[[resource]]`; `path` is its configuration path, such as
/// `resource[0]`.
pub fn check(settings: &ResourceSettings, path: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let at = |key: &str| format!("{path}.{key}");
    let mut read = |loaded: &LoadedSecret, key: &str| {
        let read = ConnectionString::parse(&loaded.secret);
        match &read {
            Ok(string) if !string.endpoint.is_safe() => findings.push(Finding {
                hint: Some("plain http is for an emulator on this machine; use https".to_owned()),
                ..error(
                    at(key),
                    "plain http would carry tokens in the clear out of this machine",
                )
            }),
            Ok(_) => {}
            Err(reason) => findings.push(error(at(key), reason.to_string())),
        }
        read.ok()
    };
    let primary = read(&settings.connection_string, "connection_string");
    let secondary = settings
        .secondary_connection_string
        .as_ref()
        .and_then(|loaded| read(loaded, "secondary_connection_string"));
    if let (Some(primary), Some(secondary)) = (primary, secondary) {
        findings.extend(pair(
            &primary,
            &secondary,
            at("secondary_connection_string"),
        ));
    }
    findings.extend(api_version(&settings.api_version, at("api_version")));
    if let Some(file) = &settings.ca_file {
        let options = NetworkOptions {
            ca_file: Some(file.clone()),
            ..NetworkOptions::default()
        };
        if let Err(reason) = Transport::network(&options) {
            findings.push(error(at("ca_file"), reason.to_string()));
        }
    }
    if let Some(proxy) = &settings.proxy {
        let options = NetworkOptions {
            proxy: Some(proxy.clone()),
            ..NetworkOptions::default()
        };
        if let Err(reason) = Transport::network(&options) {
            findings.push(error(at("proxy"), reason.to_string()));
        }
    }
    findings
}

/// Whether a text has the form of an API version: `YYYY-MM-DD`, with a word after it for previews.
pub(super) fn is_api_version(text: &str) -> bool {
    let (date, preview) = text.split_at_checked(10).unwrap_or((text, ""));
    date.parse::<jiff::civil::Date>().is_ok()
        && (preview.is_empty() || preview.starts_with("-preview"))
        && preview
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

fn pair(primary: &ConnectionString, secondary: &ConnectionString, at: String) -> Option<Finding> {
    if primary.endpoint != secondary.endpoint {
        return Some(Finding {
            hint: Some("both keys of a pair belong to one resource; make another [[resource]] for the other".to_owned()),
            ..error(
                at,
                format!(
                    "its endpoint {} is not that of connection_string, {}",
                    secondary.endpoint, primary.endpoint
                ),
            )
        });
    }
    (primary.key == secondary.key).then(|| {
        warning(
            at,
            "it holds the same key as connection_string, so nothing is left when that key is regenerated",
        )
    })
}

fn api_version(version: &str, at: String) -> Option<Finding> {
    if !is_api_version(version) {
        let message = "an API version reads YYYY-MM-DD or YYYY-MM-DD-preview, such as 2023-10-01";
        return Some(error(at, message));
    }
    if version < OLDEST_SPOKEN {
        return Some(error(
            at,
            format!("renewd speaks {OLDEST_SPOKEN} and newer"),
        ));
    }
    (version < OLDEST_WITH_LIFETIME).then(|| {
        warning(
            at,
            format!(
                "before {OLDEST_WITH_LIFETIME} every token lives 24h, whatever lifetime is asked"
            ),
        )
    })
}

fn error(path: String, message: impl Into<String>) -> Finding {
    Finding {
        path,
        severity: Severity::Error,
        message: message.into(),
        hint: None,
    }
}

fn warning(path: String, message: impl Into<String>) -> Finding {
    Finding {
        severity: Severity::Warning,
        ..error(path, message)
    }
}

#[cfg(test)]
mod tests;
