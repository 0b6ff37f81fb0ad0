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

mod error;
mod facts;
mod lexer;
mod parser;
mod print;
#[cfg(test)]
mod tests;

use std::str::FromStr;

use jiff::Timestamp;

pub use error::SelectionError;
pub use facts::Facts;

use super::{Scope, State};

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
