//! Splits a selection into words, each with its place.

use std::ops::Range;

use super::SelectionError;

/// One word of a selection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Word {
    /// A bare word: a field, a keyword or a plain value.
    Bare(String),
    /// A value in quotes, without them.
    Quoted(String),
    /// An operator, a parenthesis or a comma.
    Sign(&'static str),
    /// Nothing follows.
    End,
}

/// A word and where it stands, in bytes.
#[derive(Debug, Clone)]
pub(super) struct Placed {
    pub(super) word: Word,
    pub(super) span: Range<usize>,
}

/// Longer ones first.
const SIGNS: [&str; 11] = ["!=", "!~", "<=", ">=", "=", "~", "<", ">", "(", ")", ","];

/// Splits a text; the last word is [`Word::End`].
pub(super) fn words(text: &str) -> Result<Vec<Placed>, SelectionError> {
    let mut words = Vec::new();
    let mut at = 0;
    while let Some(first) = text[at..].chars().next() {
        if first.is_whitespace() {
            at += first.len_utf8();
            continue;
        }
        let (word, length) = word(text, at, first)?;
        let span = at..at + length;
        at = span.end;
        words.push(Placed { word, span });
    }
    words.push(Placed {
        word: Word::End,
        span: text.len()..text.len(),
    });
    Ok(words)
}

fn word(text: &str, at: usize, first: char) -> Result<(Word, usize), SelectionError> {
    let rest = &text[at..];
    if first == '\'' || first == '"' {
        return quoted(rest, first).ok_or_else(|| {
            let message = format!("this quote is never closed; end the value with {first}");
            SelectionError::new(at..text.len(), message)
        });
    }
    if let Some(sign) = SIGNS.into_iter().find(|sign| rest.starts_with(sign)) {
        return Ok((Word::Sign(sign), sign.len()));
    }
    let length = rest.find(|c| !is_bare(c)).unwrap_or(rest.len());
    if length == 0 {
        let message = format!(
            "{first:?} is not part of the language; put values in quotes, such as 'a value'"
        );
        return Err(SelectionError::new(at..at + first.len_utf8(), message));
    }
    Ok((Word::Bare(rest[..length].to_owned()), length))
}

/// A value in quotes; a doubled quote inside stands for one.
fn quoted(rest: &str, quote: char) -> Option<(Word, usize)> {
    let mut value = String::new();
    let mut chars = rest.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if c != quote {
            value.push(c);
        } else if chars.next_if(|(_, next)| *next == quote).is_some() {
            value.push(quote);
        } else {
            return Some((Word::Quoted(value), at + quote.len_utf8()));
        }
    }
    None
}

/// What a word without quotes may hold.
pub(super) fn is_bare(c: char) -> bool {
    c.is_ascii_alphanumeric() || "._@+-:*?/".contains(c)
}
