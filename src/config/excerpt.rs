//! What of a configuration text people may see, and the line that an excerpt shows of it.
//!
//! Nothing is shown unless something says that it may be: a key that some section knows, and the value
//! under a key whose row is on the allow-list (`quoted` in [`Key`](super::keys::Key)) if it also reads as words
//! and numbers do ([`is_plain`]). All else on the line, comments too, becomes `***`. What may be shown comes
//! from the tree that was parsed, so on a line that is no TOML no value is shown at all: nobody can
//! tell to which key it belongs.

use std::{collections::BTreeSet, ops::Range};

use super::{
    file::Text,
    keys::{Key, Table, Takes},
    sections::{ROOT, SECRET_REFERENCE, VOCABULARY},
    tree::{Members, Node, Value},
};

/// What is printed instead of something hidden.
pub(super) const MASK: &str = "***";
/// Longer lines are cut around what is wrong.
const WIDEST: usize = 110;

/// A line of a file with its values hidden but for those that may be shown, and the part of it to point at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excerpt {
    pub text: String,
    /// How many characters stand before the part to point at.
    pub start: usize,
    /// How many characters to point at, at least 1.
    pub width: usize,
}

/// The stretches of each file that may be shown, in order.
#[derive(Debug)]
pub(super) struct Showable {
    keys: Vec<Vec<Range<usize>>>,
    values: Vec<Vec<Range<usize>>>,
    /// The lines that are no TOML.
    broken: BTreeSet<(usize, usize)>,
}

impl Showable {
    pub(super) fn new(texts: &[&Text], root: &Members, broken: BTreeSet<(usize, usize)>) -> Self {
        let mut found = Self {
            keys: vec![Vec::new(); texts.len()],
            values: vec![Vec::new(); texts.len()],
            broken,
        };
        found.table(texts, root, Some(&ROOT));
        for ranges in found.keys.iter_mut().chain(&mut found.values) {
            ranges.sort_by_key(|range| (range.start, range.end));
        }
        found
    }

    fn table(&mut self, texts: &[&Text], fields: &Members, table: Option<&Table>) {
        for (name, field) in fields {
            let row = table.and_then(|table| table.key(name));
            if row.is_some() || VOCABULARY.may_name(name) {
                self.keys[field.key.file].push(field.key.start..field.key.end);
            }
            self.node(texts, &field.node, row);
        }
    }

    fn node(&mut self, texts: &[&Text], node: &Node, row: Option<&Key>) {
        let span = node.span;
        let raw = || {
            let text = texts[span.file].as_str();
            text.get(span.start..span.end).unwrap_or_default()
        };
        match &node.value {
            Value::Table(fields) => {
                if header_end(raw()) == Some(raw().len()) {
                    self.keys[span.file].push(span.start..span.end);
                }
                self.table(texts, fields, inside(row));
            }
            Value::Array(nodes) => {
                for node in nodes {
                    self.node(texts, node, row);
                }
            }
            value => {
                if row.is_some_and(|row| row.may_show(value)) && !raw().contains('\n') {
                    self.values[span.file].push(span.start..span.end);
                }
            }
        }
    }

    /// A line as it may be shown, and the part of it to point at.
    pub(super) fn excerpt(&self, file: usize, text: &Text, wrong: Range<usize>) -> Excerpt {
        let number = text.line_of(wrong.start);
        let line = text.line(number);
        let mut shown: Vec<_> = on_line(&self.keys[file], &line).collect();
        shown.push(line.start..line.start + known_start(&text.as_str()[line.clone()]));
        if !self.broken.contains(&(file, number)) {
            shown.extend(on_line(&self.values[file], &line));
        }
        shown.sort_by_key(|range| (range.start, range.end));
        let mut drawing = Drawing::new(text.as_str(), wrong);
        let mut at = line.start;
        for range in shown.into_iter().filter(|range| !range.is_empty()) {
            if range.start >= at {
                drawing.gap(at..range.start);
                drawing.plain(range.clone());
                at = range.end;
            }
        }
        drawing.rest(at..line.end);
        drawing.excerpt()
    }
}

/// The section that a key's value is read as.
fn inside(row: Option<&Key>) -> Option<&'static Table> {
    match row?.takes {
        Takes::Table(table) | Takes::Tables(table) => Some(table),
        Takes::Secret | Takes::Secrets => Some(&SECRET_REFERENCE),
        _ => None,
    }
}

/// The texts in a value that must not be shown.
pub(super) fn hidden<'a>(node: &'a Node, row: Option<&Key>, out: &mut Vec<&'a str>) {
    match &node.value {
        Value::Text(text) if !row.is_some_and(|row| row.may_show(&node.value)) => out.push(text),
        Value::Array(nodes) => nodes.iter().for_each(|node| hidden(node, row, out)),
        Value::Table(fields) => {
            for (name, field) in fields {
                let row = inside(row).and_then(|table| table.key(name));
                hidden(&field.node, row, out);
            }
        }
        _ => {}
    }
}

/// Where the ranges on a line are.
fn on_line<'a>(
    ranges: &'a [Range<usize>],
    line: &Range<usize>,
) -> impl Iterator<Item = Range<usize>> + 'a {
    let first = ranges.partition_point(|range| range.start < line.start);
    let end = line.end;
    let on_it = ranges[first..]
        .iter()
        .take_while(move |range| range.start < end);
    on_it.filter(move |range| range.end <= end).cloned()
}

/// How far a line says only what some section knows: a header, or a key.
fn known_start(line: &str) -> usize {
    header_end(line).unwrap_or_else(|| {
        let indent = line.len() - line.trim_start().len();
        match words_end(&line[indent..]) {
            0 => 0,
            end => indent + end,
        }
    })
}

/// Where a header of known words ends that a text starts with.
fn header_end(text: &str) -> Option<usize> {
    let name = text.trim_start_matches(['[', ' ', '\t']);
    let start = text.len() - name.len();
    let end = words_end(name);
    let is_header = text.trim_start().starts_with('[') && end > 0;
    is_header.then(|| {
        let rest = &name[end..];
        start + end + rest.len() - rest.trim_start_matches(']').len()
    })
}

/// Where words end that some section knows, with points between them.
fn words_end(text: &str) -> usize {
    let mut end = 0;
    loop {
        let from = if end == 0 { 0 } else { end + 1 };
        let word: &str = text[from..]
            .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '-'))
            .next()
            .unwrap_or_default();
        if !VOCABULARY.is_known(word) {
            return end;
        }
        end = from + word.len();
        if !text[end..].starts_with('.') {
            return end;
        }
    }
}

/// A line that is being drawn: what stands there, and which bytes it stands for.
struct Drawing<'a> {
    text: &'a str,
    wrong: Range<usize>,
    shown: Vec<char>,
    caret: Option<(usize, usize)>,
}

impl<'a> Drawing<'a> {
    fn new(text: &'a str, wrong: Range<usize>) -> Self {
        Self {
            text,
            wrong,
            shown: Vec::new(),
            caret: None,
        }
    }

    /// What may be shown.
    fn plain(&mut self, range: Range<usize>) {
        for (offset, c) in self.text[range.clone()].char_indices() {
            let at = range.start + offset;
            let c = if c.is_control() { ' ' } else { c };
            self.put(at..at + c.len_utf8(), &[c]);
        }
    }

    /// What stands between: signs of TOML are shown, all else is hidden as one.
    fn gap(&mut self, range: Range<usize>) {
        let between = &self.text[range.clone()];
        let is_sign = |c: char| "[]{}=,. \t".contains(c);
        let inner = between.trim_matches(is_sign);
        let start = range.start + (between.len() - between.trim_start_matches(is_sign).len());
        self.plain(range.start..start);
        if !inner.is_empty() {
            let mask: Vec<char> = MASK.chars().collect();
            self.put(start..start + inner.len(), &mask);
            self.plain(start + inner.len()..range.end);
        }
    }

    /// What follows the last thing that is shown; a comment is left out.
    fn rest(&mut self, range: Range<usize>) {
        let is_comment = self.text[range.clone()].trim_start().starts_with('#');
        if !is_comment || self.wrong.start >= range.start {
            self.gap(range);
        }
    }

    fn put(&mut self, stands_for: Range<usize>, text: &[char]) {
        let before = self.shown.len();
        self.shown.extend(text);
        let meets = stands_for.start < self.wrong.end && self.wrong.start < stands_for.end;
        if meets || stands_for.contains(&self.wrong.start) {
            let start = self.caret.map_or(before, |(start, _)| start);
            self.caret = Some((start, self.shown.len()));
        }
    }

    fn excerpt(self) -> Excerpt {
        let end = self.shown.len();
        let (start, end) = self.caret.unwrap_or((end, end + 1));
        cut(&self.shown, start, end)
    }
}

/// Cuts a long line around what is wrong.
fn cut(shown: &[char], start: usize, end: usize) -> Excerpt {
    let from = if shown.len() > WIDEST {
        start.saturating_sub(WIDEST / 3)
    } else {
        0
    };
    let to = shown.len().min(from + WIDEST);
    let mut text = String::new();
    if from > 0 {
        text.push('…');
    }
    text.extend(&shown[from..to]);
    if to < shown.len() {
        text.push('…');
    }
    let start = start - from + usize::from(from > 0);
    let width = (end - from + usize::from(from > 0)).saturating_sub(start);
    Excerpt {
        start,
        width: width.clamp(1, WIDEST.max(start + 1) - start),
        text,
    }
}
