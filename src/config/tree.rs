//! The parsed files as one tree: what TOML says, and for every key and value where it stands.

use std::{collections::BTreeMap, ops::Range};

use toml::de::{DeTable, DeValue};

/// A stretch of bytes in one of the files that were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Span {
    pub(super) file: usize,
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Span {
    pub(super) fn new(file: usize, range: Range<usize>) -> Self {
        Self {
            file,
            start: range.start,
            end: range.end,
        }
    }
}

/// A value and where it stands.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) span: Span,
    pub(super) value: Value,
}

/// A value. It never derives what it prints from a secret: see `excerpt`.
#[derive(Debug)]
pub(super) enum Value {
    Text(String),
    /// `None` where it does not fit; the radix tells `0o640` from `640`.
    Integer(Option<i64>, u32),
    Float(f64),
    Boolean(bool),
    Datetime,
    Array(Vec<Node>),
    Table(Members),
}

/// A table's keys, with where each stands.
pub(super) type Members = BTreeMap<String, Field>;

/// One entry of a table.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) key: Span,
    pub(super) node: Node,
}

impl Value {
    /// The kind of value, in words that follow "is".
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "a string",
            Self::Integer(..) => "a whole number",
            Self::Float(_) => "a number",
            Self::Boolean(_) => "true or false",
            Self::Datetime => "a date",
            Self::Array(_) => "a list",
            Self::Table(_) => "a table",
        }
    }
}

/// Takes over a parsed table, remembering the file.
pub(super) fn fields(file: usize, table: DeTable<'_>) -> Members {
    let entries = table.into_iter().map(|(key, value)| {
        let span = Span::new(file, key.span());
        let node = node(file, value.span(), value.into_inner());
        (key.into_inner().into_owned(), Field { key: span, node })
    });
    entries.collect()
}

fn node(file: usize, range: Range<usize>, value: DeValue<'_>) -> Node {
    let value = match value {
        DeValue::String(text) => Value::Text(text.into_owned()),
        DeValue::Integer(number) => Value::Integer(
            i64::from_str_radix(number.as_str(), number.radix()).ok(),
            number.radix(),
        ),
        DeValue::Float(number) => Value::Float(number.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(yes) => Value::Boolean(yes),
        DeValue::Datetime(_) => Value::Datetime,
        DeValue::Array(items) => Value::Array(
            items
                .into_iter()
                .map(|item| node(file, item.span(), item.into_inner()))
                .collect(),
        ),
        DeValue::Table(table) => Value::Table(fields(file, table)),
    };
    Node {
        span: Span::new(file, range),
        value,
    }
}

/// Joins the tables of a further file into those before: sections key by key, `[[…]]` lists one
/// after the other. Calls `clash` with both places of a key that is set twice, and keeps the first.
pub(super) fn merge(into: &mut Members, from: Members, clash: &mut impl FnMut(&str, Span, Span)) {
    for (key, field) in from {
        let Some(known) = into.get_mut(&key) else {
            into.insert(key, field);
            continue;
        };
        let (first, second) = (known.key, field.key);
        match (&mut known.node.value, field.node.value) {
            (Value::Table(known), Value::Table(more)) => merge(known, more, clash),
            (Value::Array(known), Value::Array(more)) if of_tables(known) && of_tables(&more) => {
                known.extend(more);
            }
            _ => clash(&key, first, second),
        }
    }
}

fn of_tables(items: &[Node]) -> bool {
    items
        .iter()
        .all(|item| matches!(item.value, Value::Table(_)))
}
