//! Parses the text of each file; mistakes of TOML itself, in words for an operator.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use toml::de::DeTable;

use super::{
    file::{File, Text},
    problem::{Note, ProblemReport},
    sections::VOCABULARY,
    tree::{self, Members, Span},
};

/// After this mistake the parser gives up on the rest of the file: the line is taken out, and the
/// text is parsed again, at most so many times.
const STOPS: &str = "key with no value";
const RETRIES: usize = 20;
/// In a longer text mistakes are looked for up to so far after the first one: the parser keeps a list of them all.
const LONG: usize = 256 << 10;
const AFTER: usize = 64 << 10;

/// Parses every file and joins them; what cannot be parsed is told and skipped. With the lines of
/// each file that are no TOML.
pub(super) fn parse(files: &[File], report: &ProblemReport) -> (Members, BTreeSet<(usize, usize)>) {
    let mut root = Members::new();
    let mut broken = BTreeSet::new();
    for (index, file) in files.iter().enumerate() {
        let (fields, mistakes, unread) = parse_file(index, &file.text);
        if let Some(unread) = unread {
            let end = unread..unread;
            let note = Note::warning(Span::new(index, end), "from here on the file is not read");
            report.add_syntax(note.hint("mend what is said before this first, then check again"));
        }
        for (span, message) in mistakes {
            broken.insert((index, file.text.line_of(span.start)));
            let (message, hint) = explain(&message, span.is_empty());
            report.add_syntax(Note::error(Span::new(index, span), message).maybe_hint(hint));
        }
        tree::merge(&mut root, fields, &mut |key, first, second| {
            let message = match VOCABULARY.may_name(key) {
                true => format!("`{key}` is set in two files"),
                false => "this is set in two files".to_owned(),
            };
            let note = Note::error(second, message).see(first, "the other is at");
            report.add(note.hint("take out one of them: files add to each other, none wins"));
        });
    }
    (root, broken)
}

/// How much of a long text is read: all of it, or up to a while after its first mistake.
fn readable(text: &str) -> Result<DeTable<'_>, usize> {
    if text.len() <= LONG {
        return Err(text.len());
    }
    let first = match DeTable::parse(text) {
        Ok(table) => return Ok(table.into_inner()),
        Err(error) => error.span().unwrap_or_default().start,
    };
    let after = text.bytes().skip(first + AFTER);
    let line = after.take_while(|byte| *byte != b'\n').count() + 1;
    Err(text.len().min(first + AFTER + line))
}

/// A mistake's place and what the parser says of it.
type Mistake = (Range<usize>, String);

/// What one file says, and its mistakes: the first of each line, since one often leads to more; and from where on
/// it was not read, if so.
fn parse_file(index: usize, text: &Text) -> (Members, Vec<Mistake>, Option<usize>) {
    let end = match readable(text.as_str()) {
        Ok(table) => return (tree::fields(index, table), Vec::new(), None),
        Err(end) => end,
    };
    let unread = Some(end).filter(|end| *end < text.as_str().len());
    let mut mistakes: BTreeMap<usize, Mistake> = BTreeMap::new();
    let mut remaining = Cow::Borrowed(&text.as_str()[..end]);
    let mut retries = 0;
    loop {
        let (table, errors) = DeTable::parse_recoverable(&remaining);
        let mut stopped = None;
        for error in errors {
            let span = error.span().unwrap_or_default();
            let line = text.line_of(span.start);
            if error.message().starts_with(STOPS) {
                stopped = Some(line);
            }
            let known = mistakes.get(&line);
            if known.is_none_or(|(known, _)| span.start < known.start) {
                mistakes.insert(line, (span, error.message().to_owned()));
            }
        }
        let fields = tree::fields(index, table.into_inner());
        match stopped.filter(|_| retries < RETRIES) {
            Some(line) => remaining = Cow::Owned(without(&remaining, text.line(line))),
            None => return (fields, mistakes.into_values().collect(), unread),
        }
        retries += 1;
    }
}

/// The text with a line of spaces in place of a line, so that all else stays where it is.
fn without(text: &str, line: Range<usize>) -> String {
    let blank = " ".repeat(line.len());
    [&text[..line.start], &blank, &text[line.end..]].concat()
}

/// The parser's message, which never quotes the text, with a hint where there is a usual reason.
fn explain(message: &str, nothing_there: bool) -> (String, Option<String>) {
    let message = message.split(", expected").next().unwrap_or(message);
    if nothing_there && message.starts_with("string values must be quoted") {
        let hint = "write it on the same line, behind the =";
        return ("this key has no value".to_owned(), Some(hint.to_owned()));
    }
    let hint = HINTS.iter().find(|(start, _)| message.starts_with(start));
    (
        format!("this is not TOML: {message}"),
        hint.map(|(_, hint)| (*hint).to_owned()),
    )
}

/// How a message of the parser starts, and what usually led to it.
const HINTS: &[(&str, &str)] = &[
    (
        "string values must be quoted",
        "put the value in double quotes",
    ),
    (
        "key with no value",
        "a key and its value are written: key = value",
    ),
    (
        "unquoted keys cannot be empty",
        "a key and its value are written: key = value",
    ),
    (
        "invalid unquoted key",
        "a key and its value are written: key = value",
    ),
    (
        "invalid basic string",
        "is the closing quote missing? A backslash is written \\\\",
    ),
    (
        "invalid multi-line",
        "is the closing \"\"\" or ''' missing?",
    ),
    ("invalid literal string", "is the closing quote missing?"),
    (
        "missing escaped value",
        "a backslash is written \\\\, or stands in single quotes",
    ),
    (
        "too few unicode value digits",
        "a backslash is written \\\\, or stands in single quotes",
    ),
    (
        "unclosed array table",
        "such a section starts with [[name]]",
    ),
    ("unclosed array", "is a closing ] missing?"),
    ("unclosed table", "such a section starts with [name]"),
    ("unclosed inline table", "is a closing } missing?"),
    (
        "missing key for inline table",
        "is a closing } missing before this?",
    ),
    (
        "missing comma",
        "is a comma or a closing bracket missing before this?",
    ),
    (
        "duplicate key",
        "it stands twice; a further section of a list has two brackets, as in [[identity]]",
    ),
    (
        "unexpected leading zero",
        "write it in quotes, or an octal number as 0o640",
    ),
    (
        "invalid mantissa",
        "a number starts with a digit, as in 0.5",
    ),
    (
        "unexpected key or value",
        "one key to a line; is a quote or a comma missing before this?",
    ),
];
