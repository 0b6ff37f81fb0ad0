//! Reads a selection: splits it into words, each with its place, and says what they mean together by recursive
//! descent, each mistake with its place.

use std::ops::Range;

use jiff::{Timestamp, civil::Date, tz::TimeZone};

use super::{Expr, Order, SelectionError, Test, TextField, TimeField};
use crate::model::{Scope, State};

/// One word of a selection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SelectionWord {
    /// A bare word: a field, a keyword or a plain value.
    Bare(String),
    /// A value in quotes, without them.
    Quoted(String),
    /// An operator, a parenthesis or a comma.
    Sign(&'static str),
    End,
}

/// A word and where it stands, in bytes.
#[derive(Debug, Clone)]
pub(super) struct Placed {
    pub(super) word: SelectionWord,
    pub(super) span: Range<usize>,
}

const SIGNS: [&str; 11] = ["!=", "!~", "<=", ">=", "=", "~", "<", ">", "(", ")", ","];

/// Splits a text; the last word is [`SelectionWord::End`].
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
        word: SelectionWord::End,
        span: text.len()..text.len(),
    });
    Ok(words)
}

fn word(text: &str, at: usize, first: char) -> Result<(SelectionWord, usize), SelectionError> {
    let rest = &text[at..];
    if first == '\'' || first == '"' {
        return quoted(rest, first).ok_or_else(|| {
            let message = format!("this quote is never closed; end the value with {first}");
            SelectionError::new(at..text.len(), message)
        });
    }
    if let Some(sign) = SIGNS.into_iter().find(|sign| rest.starts_with(sign)) {
        return Ok((SelectionWord::Sign(sign), sign.len()));
    }
    let length = rest.find(|c| !is_bare(c)).unwrap_or(rest.len());
    if length == 0 {
        let message = format!(
            "{first:?} is not part of the language; put values in quotes, such as 'a value'"
        );
        return Err(SelectionError::new(at..at + first.len_utf8(), message));
    }
    Ok((SelectionWord::Bare(rest[..length].to_owned()), length))
}

/// A value in quotes; a doubled quote inside stands for one.
fn quoted(rest: &str, quote: char) -> Option<(SelectionWord, usize)> {
    let mut value = String::new();
    let mut chars = rest.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if c != quote {
            value.push(c);
        } else if chars.next_if(|(_, next)| *next == quote).is_some() {
            value.push(quote);
        } else {
            return Some((SelectionWord::Quoted(value), at + quote.len_utf8()));
        }
    }
    None
}

/// What a word without quotes may hold.
pub(super) fn is_bare(c: char) -> bool {
    c.is_ascii_alphanumeric() || "._@+-:*?/".contains(c)
}

/// Parentheses and `not` may stand so deep in each other.
const DEEPEST: usize = 64;
/// No selection is longer, in bytes.
const LONGEST: usize = 64 * 1024;

const FIELDS: &str =
    "name, id, resource, scope, state, origin, label.KEY, issued, expires or revoked";

pub(super) fn parse(text: &str) -> Result<Expr, SelectionError> {
    if text.len() > LONGEST {
        let message = "a selection has at most 64 KiB; put many names into a file and use --ids";
        return Err(SelectionError::new(LONGEST..text.len(), message));
    }
    let mut parser = Parser {
        words: words(text)?,
        at: 0,
        depth: 0,
    };
    let expr = parser.any()?;
    match parser.peek().word {
        SelectionWord::End => Ok(expr),
        _ => Err(parser.wrong("expected and, or, or the end")),
    }
}

struct Parser {
    words: Vec<Placed>,
    at: usize,
    depth: usize,
}

impl Parser {
    fn any(&mut self) -> Result<Expr, SelectionError> {
        let first = self.all()?;
        if !self.is_keyword("or") {
            return Ok(first);
        }
        let mut parts = vec![first];
        while self.keyword("or") {
            parts.push(self.all()?);
        }
        Ok(Expr::Any(parts))
    }

    fn all(&mut self) -> Result<Expr, SelectionError> {
        let first = self.one()?;
        if !self.is_keyword("and") {
            return Ok(first);
        }
        let mut parts = vec![first];
        while self.keyword("and") {
            parts.push(self.one()?);
        }
        Ok(Expr::All(parts))
    }

    fn one(&mut self) -> Result<Expr, SelectionError> {
        if self.depth == DEEPEST {
            return Err(self.wrong("this is nested too deeply"));
        }
        self.depth += 1;
        let found = self.nested();
        self.depth -= 1;
        found
    }

    fn nested(&mut self) -> Result<Expr, SelectionError> {
        if self.keyword("not") {
            return Ok(Expr::Not(Box::new(self.one()?)));
        }
        let opened = self.peek().span.clone();
        if self.sign("(") {
            let inner = self.any()?;
            return if self.sign(")") {
                Ok(inner)
            } else {
                let message = "this parenthesis is never closed";
                Err(match self.peek().word {
                    SelectionWord::End => SelectionError::new(opened, message),
                    _ => self.wrong("expected and, or, or )"),
                })
            };
        }
        self.condition()
    }

    fn condition(&mut self) -> Result<Expr, SelectionError> {
        let SelectionWord::Bare(field) = self.peek().word.clone() else {
            return Err(self.wrong(&format!("expected {FIELDS}")));
        };
        if let Some(field) = time_field(&field) {
            self.at += 1;
            return self.time(field);
        }
        let field = self.text_field(&field)?;
        self.at += 1;
        let test = self.test(&field)?;
        Ok(Expr::Text(field, test))
    }

    fn text_field(&self, word: &str) -> Result<TextField, SelectionError> {
        Ok(match word.to_ascii_lowercase().as_str() {
            "name" => TextField::Name,
            "id" => TextField::Id,
            "resource" => TextField::Resource,
            "scope" => TextField::Scope,
            "state" => TextField::State,
            "origin" => TextField::Origin,
            lower if lower.starts_with("label.") && word.len() > "label.".len() => {
                TextField::Label(word["label.".len()..].to_owned())
            }
            lower => {
                let known = [
                    "name", "id", "resource", "scope", "state", "origin", "label.", "issued",
                    "expires", "revoked",
                ];
                let near = known
                    .into_iter()
                    .find(|known| strsim::damerau_levenshtein(known, lower) <= 2);
                let message = match near {
                    Some("label.") => "a label is written label.KEY".to_owned(),
                    Some(near) => format!("{word:?} is nothing to select by; did you mean {near}?"),
                    None => format!("{word:?} is nothing to select by; expected {FIELDS}"),
                };
                return Err(SelectionError::new(self.peek().span.clone(), message));
            }
        })
    }

    fn test(&mut self, field: &TextField) -> Result<Test, SelectionError> {
        if self.sign("=") {
            return Ok(Test::Is(self.value(field)?));
        }
        if self.sign("!=") {
            return Ok(Test::IsNot(self.value(field)?));
        }
        if self.sign("~") {
            return Ok(Test::Like(self.any_value()?.0));
        }
        if self.sign("!~") {
            return Ok(Test::Unlike(self.any_value()?.0));
        }
        let not = self.keyword("not");
        if self.keyword("in") {
            let values = self.list(field)?;
            return Ok(if not {
                Test::NotIn(values)
            } else {
                Test::In(values)
            });
        }
        Err(self.wrong(if not {
            "expected in"
        } else {
            "expected =, !=, ~, !~, in or not in"
        }))
    }

    fn list(&mut self, field: &TextField) -> Result<Vec<String>, SelectionError> {
        if !self.sign("(") {
            return Err(self.wrong("expected a list, such as (a, b)"));
        }
        let mut values = vec![self.value(field)?];
        while self.sign(",") {
            values.push(self.value(field)?);
        }
        if self.sign(")") {
            Ok(values)
        } else {
            Err(self.wrong("expected , or )"))
        }
    }

    fn time(&mut self, field: TimeField) -> Result<Expr, SelectionError> {
        let orders = [
            ("<", Order::Before),
            ("<=", Order::NotAfter),
            (">", Order::After),
            (">=", Order::NotBefore),
        ];
        let Some((_, order)) = orders.into_iter().find(|(sign, _)| self.sign(sign)) else {
            return Err(self.wrong("expected <, <=, > or >="));
        };
        let (value, span) = self.any_value()?;
        let than = instant(&value).ok_or_else(|| {
            let message =
                format!("{value:?} is not a time; write '2026-11-20T00:00:00Z' or '2026-11-20'");
            SelectionError::new(span, message)
        })?;
        Ok(Expr::Time(field, order, than))
    }

    /// A value that the field can have: an unknown state or scope would silently select nothing.
    fn value(&mut self, field: &TextField) -> Result<String, SelectionError> {
        let (value, span) = self.any_value()?;
        let known = match field {
            TextField::State => {
                const KNOWN: [State; 6] = [
                    State::New,
                    State::Active,
                    State::Late,
                    State::Held,
                    State::Gone,
                    State::Deleted,
                ];
                let known = KNOWN.iter().any(|state| state.as_str() == value);
                known.then_some(()).ok_or_else(|| {
                    format!(
                        "{value:?} is not a state; known are new, active, late, held, gone, deleted"
                    )
                })
            }
            TextField::Scope => value.parse::<Scope>().map(drop),
            _ => Ok(()),
        };
        known.map_err(|message| SelectionError::new(span, message))?;
        Ok(value)
    }

    fn any_value(&mut self) -> Result<(String, Range<usize>), SelectionError> {
        match self.peek().word.clone() {
            SelectionWord::Bare(value) | SelectionWord::Quoted(value) => {
                let span = self.peek().span.clone();
                self.at += 1;
                Ok((value, span))
            }
            _ => Err(self.wrong("expected a value, such as 'guest'")),
        }
    }

    fn peek(&self) -> &Placed {
        // The last word is the end, and nothing steps over it.
        &self.words[self.at]
    }

    fn sign(&mut self, sign: &str) -> bool {
        let found = matches!(&self.peek().word, SelectionWord::Sign(found) if *found == sign);
        self.at += usize::from(found);
        found
    }

    fn is_keyword(&self, keyword: &str) -> bool {
        matches!(&self.peek().word, SelectionWord::Bare(word) if word.eq_ignore_ascii_case(keyword))
    }

    fn keyword(&mut self, keyword: &str) -> bool {
        let found = self.is_keyword(keyword);
        self.at += usize::from(found);
        found
    }

    fn wrong(&self, expected: &str) -> SelectionError {
        let found = match &self.peek().word {
            SelectionWord::Bare(word) | SelectionWord::Quoted(word) => {
                format!("{expected}, found {word:?}")
            }
            SelectionWord::Sign(sign) => format!("{expected}, found {sign}"),
            SelectionWord::End => format!("{expected}, but nothing follows"),
        };
        SelectionError::new(self.peek().span.clone(), found)
    }
}

fn time_field(word: &str) -> Option<TimeField> {
    match word.to_ascii_lowercase().as_str() {
        "issued" => Some(TimeField::Issued),
        "expires" => Some(TimeField::Expires),
        "revoked" => Some(TimeField::Revoked),
        _ => None,
    }
}

fn instant(text: &str) -> Option<Timestamp> {
    text.parse::<Timestamp>().ok().or_else(|| {
        // Only a date that stands alone: a time without its zone is not taken for another.
        let date = text.parse::<Date>().ok().filter(|_| text.len() == 10)?;
        Some(date.to_zoned(TimeZone::UTC).ok()?.timestamp())
    })
}
