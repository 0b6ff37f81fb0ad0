//! Selections: which identities a bulk operation or a job means.
//!
//! ```text
//! expression := all-of ("or" all-of)*
//! all-of     := one ("and" one)*
//! one        := "not" one | "(" expression ")" | condition
//! condition  := text ("=" | "!=" | "~" | "!~") value | text ["not"] "in" "(" value ("," value)* ")"
//!             | time ("<" | "<=" | ">" | ">=") value
//! text       := "name" | "id" | "resource" | "scope" | "state" | "origin" | "label." KEY
//! time       := "issued" | "expires" | "revoked"
//! ```
//! Values stand in single or double quotes (a quote inside is doubled) or, where they are plain
//! words, bare. `~` compares with a pattern: `*` stands for any text, `?` for one character. A time
//! is RFC 3339, or a date alone: its midnight, UTC. A comparison with something that an identity
//! does not have (a label, a token) is false, so `label.team != 'x'` is true without the label.

mod parser;
#[cfg(test)]
mod tests;

use std::{borrow::Cow, collections::BTreeMap, fmt, ops::Range, str::FromStr};

use jiff::Timestamp;

use crate::model::{Origin, Record, Scope, State};

/// Which identities are meant: a parsed expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection(Expr);

impl Selection {
    /// Reads an expression such as `label.team = 'guest' and state in (late, held)`.
    ///
    /// # Errors
    /// Where and why the text cannot be understood.
    pub fn parse(text: &str) -> Result<Self, SelectionError> {
        parser::parse(text).map(Self)
    }

    /// Whether an identity is meant.
    pub fn matches(&self, facts: &Facts<'_>) -> bool {
        self.0.holds(facts)
    }
}

impl FromStr for Selection {
    type Err = SelectionError;

    fn from_str(text: &str) -> Result<Self, SelectionError> {
        Self::parse(text)
    }
}

#[cfg(test)]
impl schemars::JsonSchema for Selection {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Selection".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "Which identities, such as `label.team = 'guest' and state in (late, held)`.",
        })
    }
}

impl serde::Serialize for Selection {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Selection {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        Self::parse(&text).map_err(|error| serde::de::Error::custom(error.explain(&text)))
    }
}

/// `All` and `Any` hold two or more.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Expr {
    All(Vec<Expr>),
    Any(Vec<Expr>),
    Not(Box<Expr>),
    Text(TextField, Test),
    Time(TimeField, Order, Timestamp),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum TextField {
    Name,
    Id,
    Resource,
    Scope,
    State,
    Origin,
    Label(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    Is(String),
    IsNot(String),
    Like(String),
    Unlike(String),
    In(Vec<String>),
    NotIn(Vec<String>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TimeField {
    Issued,
    Expires,
    Revoked,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Before,
    NotAfter,
    After,
    NotBefore,
}

impl Expr {
    fn holds(&self, facts: &Facts<'_>) -> bool {
        match self {
            Self::All(parts) => parts.iter().all(|part| part.holds(facts)),
            Self::Any(parts) => parts.iter().any(|part| part.holds(facts)),
            Self::Not(part) => !part.holds(facts),
            Self::Text(field, test) => test.holds(field, facts),
            Self::Time(field, order, than) => field
                .of(facts)
                .is_some_and(|instant| order.holds(instant, *than)),
        }
    }
}

impl Test {
    fn holds(&self, field: &TextField, facts: &Facts<'_>) -> bool {
        match self {
            Self::Is(value) => field.any(facts, |found| found == value),
            Self::IsNot(value) => !field.any(facts, |found| found == value),
            Self::Like(pattern) => field.any(facts, |found| is_like(found, pattern)),
            Self::Unlike(pattern) => !field.any(facts, |found| is_like(found, pattern)),
            Self::In(values) => field.any(facts, |found| values.iter().any(|v| v == found)),
            Self::NotIn(values) => !field.any(facts, |found| values.iter().any(|v| v == found)),
        }
    }
}

impl TextField {
    /// Whether any value that the identity has of this field passes.
    fn any(&self, facts: &Facts<'_>, mut passes: impl FnMut(&str) -> bool) -> bool {
        match self {
            Self::Name => passes(facts.name),
            Self::Id => facts.id.is_some_and(passes),
            Self::Resource => passes(facts.resource),
            Self::Scope => facts
                .scopes
                .iter()
                .any(|scope: &Scope| passes(scope.as_str())),
            Self::State => passes(State::as_str(facts.state)),
            Self::Origin => passes(&facts.origin),
            Self::Label(key) => facts.labels.get(key).is_some_and(|value| passes(value)),
        }
    }
}

impl TimeField {
    fn of(self, facts: &Facts<'_>) -> Option<Timestamp> {
        match self {
            Self::Issued => facts.issued,
            Self::Expires => facts.expires,
            Self::Revoked => facts.revoked,
        }
    }
}

impl Order {
    fn holds(self, instant: Timestamp, than: Timestamp) -> bool {
        match self {
            Self::Before => instant < than,
            Self::NotAfter => instant <= than,
            Self::After => instant > than,
            Self::NotBefore => instant >= than,
        }
    }
}

/// Whether a text fits a pattern of `*` and `?`. Linear in memory, at worst their product in time.
fn is_like(text: &str, pattern: &str) -> bool {
    let (text, pattern): (Vec<char>, Vec<char>) =
        (text.chars().collect(), pattern.chars().collect());
    let (mut at, mut next) = (0, 0);
    // Where the last star stands, and how much of the text it has taken.
    let mut star: Option<(usize, usize)> = None;
    while at < text.len() {
        match pattern.get(next) {
            Some('*') => {
                star = Some((next, at));
                next += 1;
            }
            Some(c) if *c == '?' || *c == text[at] => {
                at += 1;
                next += 1;
            }
            _ => match &mut star {
                Some((place, taken)) => {
                    *taken += 1;
                    at = *taken;
                    next = *place + 1;
                }
                None => return false,
            },
        }
    }
    pattern[next..].iter().all(|c| *c == '*')
}

/// What a selection may ask of an identity.
#[derive(Debug, Clone)]
pub struct Facts<'a> {
    /// Our name of it.
    pub name: &'a str,
    /// What ACS calls it, once known.
    pub id: Option<&'a str>,
    /// The resource it belongs to.
    pub resource: &'a str,
    /// What its tokens may be used for.
    pub scopes: &'a [Scope],
    /// Where it stands now; `late` included.
    pub state: State,
    /// Who declares it, spelled as in listings.
    pub origin: Cow<'a, str>,
    pub labels: &'a BTreeMap<String, String>,
    /// When its current token was issued.
    pub issued: Option<Timestamp>,
    /// When its current token ends.
    pub expires: Option<Timestamp>,
    /// When its tokens were last revoked.
    pub revoked: Option<Timestamp>,
}

impl<'a> Facts<'a> {
    /// The facts of an identity at an instant.
    pub fn of(record: &'a Record, now: Timestamp) -> Self {
        Self {
            name: record.spec.name.as_str(),
            id: record.id.as_ref().map(AsRef::as_ref),
            resource: record.spec.resource.as_str(),
            scopes: &record.spec.declared.scopes,
            state: record.state_at(now),
            origin: match &record.spec.origin {
                Origin::File => "file".into(),
                Origin::Cli => "cli".into(),
                source @ Origin::Source(_) => source.to_string().into(),
            },
            labels: &record.spec.declared.labels,
            issued: record.token.as_ref().map(|token| token.issued_at),
            expires: record.token.as_ref().map(|token| token.expires_at),
            revoked: record.revoked_at,
        }
    }
}

/// At most so many characters of a line are shown.
const SHOWN: usize = 120;

/// Why a text is not a selection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SelectionError {
    /// The bytes of the text that cannot be understood; empty at its end where something is missing.
    pub span: Range<usize>,
    /// What was expected, and what may be written instead.
    pub message: String,
}

impl SelectionError {
    fn new(span: Range<usize>, message: impl Into<String>) -> Self {
        Self {
            span,
            message: message.into(),
        }
    }

    /// The message with the line, the column and a caret below the place in `text`.
    pub fn explain(&self, text: &str) -> String {
        let start = floor(text, self.span.start);
        let before = &text[..start];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        let line = before.matches('\n').count() + 1;
        let column = text[line_start..start].chars().count() + 1;
        let shown = |c: char| if c.is_control() { ' ' } else { c };
        // A long line is shown around the place.
        let skipped = column.saturating_sub(SHOWN / 2);
        let excerpt: String = text[line_start..line_end]
            .chars()
            .skip(skipped)
            .take(SHOWN)
            .map(shown)
            .collect();
        let end = floor(text, self.span.end.min(line_end)).max(start);
        let marked = text[start..end].chars().count().clamp(1, SHOWN / 2);
        format!(
            "{line}:{column}: {}\n  {excerpt}\n  {}{}",
            self.message,
            " ".repeat(column - 1 - skipped),
            "^".repeat(marked)
        )
    }
}

/// The nearest place at or before a byte that does not split a character.
fn floor(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All(parts) => joined(f, parts, " and "),
            Self::Any(parts) => joined(f, parts, " or "),
            Self::Not(part) => {
                f.write_str("not ")?;
                inner(f, part)
            }
            Self::Text(field, test) => write!(f, "{field} {test}"),
            Self::Time(field, order, than) => write!(f, "{field} {order} '{than}'"),
        }
    }
}

fn joined(f: &mut fmt::Formatter<'_>, parts: &[Expr], word: &str) -> fmt::Result {
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            f.write_str(word)?;
        }
        inner(f, part)?;
    }
    Ok(())
}

/// A part of something larger: in parentheses where it has parts of its own.
fn inner(f: &mut fmt::Formatter<'_>, part: &Expr) -> fmt::Result {
    match part {
        Expr::All(_) | Expr::Any(_) => write!(f, "({part})"),
        _ => write!(f, "{part}"),
    }
}

impl fmt::Display for TextField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Name => "name",
            Self::Id => "id",
            Self::Resource => "resource",
            Self::Scope => "scope",
            Self::State => "state",
            Self::Origin => "origin",
            Self::Label(key) => return write!(f, "label.{key}"),
        })
    }
}

impl fmt::Display for TimeField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Issued => "issued",
            Self::Expires => "expires",
            Self::Revoked => "revoked",
        })
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Before => "<",
            Self::NotAfter => "<=",
            Self::After => ">",
            Self::NotBefore => ">=",
        })
    }
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Is(value) => write!(f, "= {}", Quoted(value)),
            Self::IsNot(value) => write!(f, "!= {}", Quoted(value)),
            Self::Like(pattern) => write!(f, "~ {}", Quoted(pattern)),
            Self::Unlike(pattern) => write!(f, "!~ {}", Quoted(pattern)),
            Self::In(values) => write!(f, "in {}", List(values)),
            Self::NotIn(values) => write!(f, "not in {}", List(values)),
        }
    }
}

struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}'", self.0.replace('\'', "''"))
    }
}

struct List<'a>(&'a [String]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values: Vec<String> = self.0.iter().map(|v| Quoted(v).to_string()).collect();
        write!(f, "({})", values.join(", "))
    }
}
