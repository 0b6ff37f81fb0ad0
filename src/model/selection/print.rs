//! Writes a selection so that it reads back as the same.

use std::fmt;

use super::{Expr, Order, Selection, Test, TextField, TimeField};

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
