//! `[[sink.file]]`: token files.

use super::{
    super::{
        FileFormat, FileSinkSettings, Limit,
        reader::{Item, Located, Section, one_of},
        suspicion::shown,
        tree::Value,
    },
    sink,
};
use crate::model::SinkName;

/// A file sink before the identities that use it are known.
#[derive(Debug)]
pub(in super::super) struct Draft {
    pub(in super::super) name: Option<Located<SinkName>>,
    pub(in super::super) path: Option<Located<String>>,
    format: FileFormat,
    mode: u32,
    rate: Option<Limit>,
}

impl Draft {
    pub(in super::super) fn settings(self) -> Option<FileSinkSettings> {
        Some(FileSinkSettings {
            name: self.name?.value,
            path: self.path?.value,
            format: self.format,
            mode: self.mode,
            rate: self.rate,
        })
    }
}

/// Reads one `[[sink.file]]`.
pub(super) fn read(mut section: Section<'_>) -> Draft {
    let draft = Draft {
        name: section
            .required("name")
            .and_then(|item| item.name("bot-file")),
        path: section.required("path").and_then(path),
        format: section.or("format", FileFormat::Json, format),
        mode: section.or("mode", 0o600, mode),
        rate: section.optional("rate").and_then(sink::rate),
    };
    section.finish();
    draft
}

const EXAMPLE: &str = "/run/renewd/tokens/{name}.json";

fn path(item: Item<'_>) -> Option<Located<String>> {
    let text = item.text(EXAMPLE)?;
    if !text.starts_with('/') {
        return item.wrong(
            "the path of a file sink must be absolute",
            format!("such as path = {EXAMPLE:?}"),
        );
    }
    if text.split('/').any(|part| part == "..") {
        return item.wrong(
            "the path of a file sink must not contain `..`",
            "write the path without it",
        );
    }
    if text.ends_with('/') || text.contains(char::is_control) {
        return item.wrong(
            "this path names no file",
            format!("end it with a file's name, such as {EXAMPLE:?}"),
        );
    }
    if let Some(wrong) = unknown_placeholder(text) {
        return item.wrong(
            format!("the path has no placeholder {}", shown(wrong)),
            one_of(wrong, PLACEHOLDERS.into_iter()),
        );
    }
    Some(item.at(text.to_owned()))
}

const PLACEHOLDERS: [&str; 2] = ["{name}", "{resource}"];

/// The first part in braces that is no placeholder, or a brace that has no partner.
fn unknown_placeholder(path: &str) -> Option<&str> {
    let mut rest = path;
    while let Some(at) = rest.find(['{', '}']) {
        let from = &rest[at..];
        let known = PLACEHOLDERS
            .into_iter()
            .find(|known| from.starts_with(known));
        let Some(known) = known else {
            return Some(&from[..from.find('}').map_or(from.len(), |end| end + 1)]);
        };
        rest = &from[known.len()..];
    }
    None
}

fn format(item: Item<'_>) -> Option<FileFormat> {
    if matches!(item.value(), Value::Text(text) if text == "template") {
        return item.wrong(
            "`format = \"template\"` is not in this version yet",
            "json, token and env are there",
        );
    }
    item.choice(&[
        ("json", FileFormat::Json),
        ("token", FileFormat::Token),
        ("env", FileFormat::Env),
    ])
}

fn mode(item: Item<'_>) -> Option<u32> {
    let hint = "write \"0600\" or 0o600";
    let mode = match item.value() {
        Value::Text(text) => Some(text.as_str())
            .filter(|text| {
                (3..=4).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())
            })
            .and_then(|text| u32::from_str_radix(text, 8).ok()),
        Value::Integer(Some(number), 8) => u32::try_from(*number).ok(),
        Value::Integer(..) => {
            return item.wrong(
                "`mode` is an octal number, this one is not written as one",
                hint,
            );
        }
        _ => return item.mistyped("an octal number", "\"0600\""),
    };
    let Some(mode) = mode.filter(|mode| *mode <= 0o777 && mode & 0o400 != 0) else {
        return item.wrong(
            "`mode` must be permission bits that let the owner read",
            hint,
        );
    };
    if mode & 0o007 != 0 {
        item.tell(
            item.warning(format!(
                "with mode {mode:04o} every user of this machine gets at the tokens"
            ))
            .hint("mode 0600 and `readers` let exactly those read who should"),
        );
    }
    Some(mode)
}
