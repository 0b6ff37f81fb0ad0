//! Templates that cannot be read, or that fail with a document made up for them.

use crate::{
    config::{FileSinkSettings, Finding, Severity},
    sinks::file::template,
};

/// What is wrong with a file sink's template, if anything.
pub(super) fn check(sink: &FileSinkSettings, path: &str) -> Option<Finding> {
    let settings = sink.template.as_ref()?;
    let error = template::check(&settings.text, sink.bundle)?;
    let path = match &error.range {
        Some(range) => format!("{path}.template@{}..{}", range.start, range.end),
        None => format!("{path}.template"),
    };
    Some(Finding {
        path,
        severity: Severity::Error,
        hint: hint(error.unknown.as_deref(), sink.bundle),
        message: error.message,
    })
}

fn hint(unknown: Option<&str>, is_bundle: bool) -> Option<String> {
    let word = unknown?;
    let known = template::FIELDS.join(", ");
    let base = word.split(['.', '[', ' ']).next().unwrap_or(word);
    Some(match is_bundle {
        true if template::FIELDS.contains(&base) => format!(
            "a bundle's template goes through all: {{% for i in identities %}} … {{{{ i.{base} }}}} … {{% endfor %}}"
        ),
        true => format!(
            "it knows {}; each of them has {known}",
            template::IDENTITIES
        ),
        false => format!("it knows {known}"),
    })
}
