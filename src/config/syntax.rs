//! Parses the text of each file; mistakes of TOML itself, in words for an operator.

use toml::de::DeTable;

use super::{
    file::File,
    report::{Note, Report},
    tree::{self, Fields, Span},
};

/// Parses every file and joins them; what cannot be parsed is told and skipped.
pub(super) fn parse(files: &[File], report: &Report) -> Fields {
    let mut root = Fields::new();
    for (index, file) in files.iter().enumerate() {
        let text = file.text.as_str();
        let (table, errors) = DeTable::parse_recoverable(text);
        // One mistake often leads to more on the same line: the first in the text is shown.
        let mut errors: Vec<_> = errors
            .into_iter()
            .map(|error| (error.span().unwrap_or_default(), error))
            .collect();
        errors.sort_by_key(|(span, _)| span.start);
        errors.dedup_by_key(|(span, _)| file.text.line_of(span.start.min(text.len())));
        for (span, error) in errors {
            let (message, hint) = explain(error.message());
            report.add_syntax(Note::error(Span::new(index, span), message).maybe_hint(hint));
        }
        let fields = tree::fields(index, table.into_inner());
        tree::merge(&mut root, fields, &mut |key, first, second| {
            let message = format!("`{key}` is set in two files");
            let note = Note::error(second, message).see(first, "the other is at");
            report.add(note.hint("take out one of them: files add to each other, none wins"));
        });
    }
    root
}

/// The parser's message, which never quotes the text, with a hint where there is a usual reason.
fn explain(message: &str) -> (String, Option<String>) {
    let hint = match message {
        m if m.starts_with("string values must be quoted") => "put the value in double quotes",
        m if m.starts_with("key with no value") => "a key and its value are written: key = value",
        m if m.starts_with("invalid basic string") => {
            "is the closing quote missing? A backslash is written \\\\"
        }
        m if m.starts_with("invalid literal string") => "is the closing quote missing?",
        m if m.starts_with("unclosed array table") => "such a section starts with [[name]]",
        m if m.starts_with("unclosed array") => "is a closing ] missing?",
        m if m.starts_with("unclosed table") => "such a section starts with [name]",
        m if m.starts_with("unclosed inline table") => "is a closing } missing?",
        m if m.starts_with("duplicate key") => {
            "it stands twice here; a further section of a list starts with two brackets, as in [[identity]]"
        }
        m if m.starts_with("unexpected leading zero") => {
            "write it in quotes, or an octal number as 0o640"
        }
        m if m.starts_with("unexpected key or value") => {
            "one key to a line; is a quote or a comma missing before this?"
        }
        m if m.starts_with("missing comma") => "put a comma between the values",
        _ => "",
    };
    let hint = (!hint.is_empty()).then(|| hint.to_owned());
    let message = message.split(", expected").next().unwrap_or(message);
    (format!("this is not TOML: {message}"), hint)
}
