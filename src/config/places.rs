//! Remembers where everything stands, so that what other rooms find is shown like our own; and shows what holds, each
//! value with its place or as a default.

use std::{collections::BTreeSet, fmt::Write, ops::Range, path::Path, sync::OnceLock};

use super::{
    ConfigProblem, Excerpt, Finding, Place, Severity,
    excerpt::{MASK, Showable, hidden},
    file::{File, floor, read_text},
    keys::{Key, Preset, Table, Takes},
    quantity::is_plain,
    sections::ROOT,
    tree::{Members, Node, Span, Value},
};

/// Where everything in the configuration stands.
#[derive(Debug)]
pub struct Places {
    pub(super) files: Vec<File>,
    pub(super) root: Members,
    /// The lines that are no TOML, each with its file.
    broken: BTreeSet<(usize, usize)>,
    showable: OnceLock<Showable>,
}

impl Places {
    pub(super) fn new(files: Vec<File>, root: Members, broken: BTreeSet<(usize, usize)>) -> Self {
        Self {
            files,
            root,
            broken,
            showable: OnceLock::new(),
        }
    }

    /// Whether the line of a span is no TOML.
    pub(super) fn is_broken(&self, span: Span) -> bool {
        let line = self.files[span.file].text.line_of(span.start);
        self.broken.contains(&(span.file, line))
    }

    /// Where a span stands, with what of its line may be shown.
    pub(super) fn place(&self, span: Span) -> Place {
        let file = &self.files[span.file];
        let text = file.text.as_str();
        let start = floor(text, span.start);
        let line = file.text.line_of(start);
        let range = file.text.line(line);
        let column = text[range.start..start.min(range.end)].chars().count() + 1;
        let showable = self.showable.get_or_init(|| {
            let texts: Vec<_> = self.files.iter().map(|file| &file.text).collect();
            Showable::new(&texts, &self.root, self.broken.clone())
        });
        let wrong = start..floor(text, span.end);
        Place {
            path: file.path.clone(),
            line: line + 1,
            column,
            excerpt: Some(showable.excerpt(span.file, &file.text, wrong)),
        }
    }

    /// Findings with the lines that they speak of. A path leads to its value, or to the nearest
    /// part of the configuration around it that is written down.
    pub fn problems(&self, findings: impl IntoIterator<Item = Finding>) -> Vec<ConfigProblem> {
        let mut problems: Vec<_> = findings
            .into_iter()
            .map(|finding| {
                let (path, range) = split(&finding.path);
                (self.find(path), range, finding)
            })
            .collect();
        problems.sort_by_key(|(found, _, finding)| {
            let span = found.map(|(node, _)| node.span);
            (span, std::cmp::Reverse(finding.severity))
        });
        let problems = problems.into_iter();
        problems
            .map(|(found, range, finding)| self.problem(found, range.as_ref(), finding))
            .collect()
    }

    /// One finding at its place. What must not be shown of its value is taken out of what the other
    /// room says of it.
    fn problem(
        &self,
        found: Option<(&Node, Option<&Key>)>,
        range: Option<&Range<usize>>,
        finding: Finding,
    ) -> ConfigProblem {
        let mut secrets = Vec::new();
        if let Some((node, row)) = found {
            hidden(node, row, &mut secrets);
        }
        secrets.retain(|text| text.len() >= SHORTEST && !is_plain(text));
        let told = |text: String| {
            secrets
                .iter()
                .fold(text, |text, hide| text.replace(*hide, MASK))
        };
        let place = |(node, _): (&Node, _)| match range {
            Some(range) => self.place_within(node, range),
            None => self.place(node.span),
        };
        ConfigProblem {
            severity: finding.severity,
            place: found.map(place),
            message: told(finding.message),
            hint: finding.hint.map(told),
            related: Vec::new(),
        }
    }

    /// Whether a finding is an error.
    pub fn any_error(problems: &[ConfigProblem]) -> bool {
        problems
            .iter()
            .any(|problem| problem.severity == Severity::Error)
    }

    /// Where a range of a value's text stands. A text with escapes does not lie in its file as it reads;
    /// then the whole value is meant.
    fn place_within(&self, node: &Node, range: &Range<usize>) -> Place {
        let file = &self.files[node.span.file];
        match &node.value {
            Value::Text(text) => {
                let raw = file.text.as_str().get(node.span.start..node.span.end);
                let at = raw.and_then(|raw| raw.find(text.as_str()));
                self.place(at.map_or(node.span, |at| Span {
                    file: node.span.file,
                    start: node.span.start + at + range.start,
                    end: node.span.start + at + range.end,
                }))
            }
            Value::Table(fields) => {
                let named = fields.get("file").map(|field| &field.node.value);
                let inside = match named {
                    Some(Value::Text(path)) => in_template(&file.directory().join(path), range),
                    _ => None,
                };
                inside.unwrap_or_else(|| self.place(node.span))
            }
            _ => self.place(node.span),
        }
    }

    /// What a path leads to, and its row.
    fn find(&self, path: &str) -> Option<(&Node, Option<&'static Key>)> {
        let mut found = None;
        let mut fields = Some(&self.root);
        let mut table: Option<&'static Table> = Some(&ROOT);
        for segment in path.split('.') {
            let (key, indices) = segment.split_once('[').unwrap_or((segment, ""));
            let Some(field) = fields.and_then(|fields| fields.get(key)) else {
                break;
            };
            let mut node = &field.node;
            let row = table.and_then(|table| table.key(key));
            table = match row.map(|row| row.takes) {
                Some(Takes::Table(table) | Takes::Tables(table)) => Some(table),
                _ => None,
            };
            for index in indices.split(['[', ']']).filter(|index| !index.is_empty()) {
                let Value::Array(items) = &node.value else {
                    break;
                };
                let Some(item) = index.parse().ok().and_then(|index: usize| items.get(index))
                else {
                    break;
                };
                node = item;
            }
            found = Some((node, row));
            fields = match &node.value {
                Value::Table(fields) => Some(fields),
                _ => None,
            };
        }
        found
    }
}

/// What stands for a value that is not shown.
const HIDDEN: &str = "\"***\"";

impl Places {
    /// The configuration as it holds, for people: every key of every section that there is, with its value and
    /// where that comes from. A value is shown where its row says that an error may quote it; of a secret only
    /// where it lies.
    pub fn effective(&self) -> String {
        let mut out = String::new();
        self.show_table(&mut out, &ROOT, "", Some(&self.root), None);
        out
    }

    /// A table of this path, whether it is written or not: its keys, then the tables inside of it.
    fn show_table(
        &self,
        out: &mut String,
        table: &Table,
        path: &str,
        fields: Option<&Members>,
        at: Option<(&str, Span)>,
    ) {
        if let Some((header, span)) = at {
            let _infallible = writeln!(out, "\n{header}  # {}", self.line_of(span));
        } else if !table.is_of_sections() {
            let _infallible = writeln!(out, "\n[{path}]");
        }
        let inner = |key: &Key| {
            format!(
                "{path}{}{}",
                if path.is_empty() { "" } else { "." },
                key.name
            )
        };
        let field = |key: &Key| fields.and_then(|fields| fields.get(key.name));
        let mut tables = Vec::new();
        for key in table.keys() {
            match (key.takes, field(key).map(|field| &field.node)) {
                (
                    Takes::Table(table),
                    Some(Node {
                        value: Value::Table(fields),
                        ..
                    }),
                ) => {
                    tables.push((table, inner(key), Some(fields), None));
                }
                (Takes::Table(table), None) => tables.push((table, inner(key), None, None)),
                (
                    Takes::Tables(table),
                    Some(Node {
                        value: Value::Array(items),
                        ..
                    }),
                ) => {
                    for item in items {
                        if let Value::Table(fields) = &item.value {
                            tables.push((table, inner(key), Some(fields), Some(item.span)));
                        }
                    }
                }
                (Takes::Tables(_), _) => {}
                (_, node) => self.show_key(out, key, node),
            }
        }
        for (table, path, fields, span) in tables {
            let header = format!("[[{path}]]");
            let at = span.map(|span| (header.as_str(), span));
            self.show_table(out, table, &path, fields, at);
        }
    }

    /// One key, with its value or its default.
    fn show_key(&self, out: &mut String, key: &Key, node: Option<&Node>) {
        let name = key.name;
        let shown = match (node, key.preset) {
            (Some(node), _) => format!(
                "{name} = {}  # {}",
                shown(key, node),
                self.line_of(node.span)
            ),
            (None, Preset::Is(text)) => format!("{name} = {text}  # default"),
            (None, Preset::Said(words)) => format!("# {name}: {words}  # default"),
            (None, Preset::Nothing | Preset::Required) => format!("# {name} is not set"),
        };
        let _infallible = writeln!(out, "{shown}");
    }

    /// `FILE:LINE`.
    fn line_of(&self, span: Span) -> String {
        let place = self.place(span);
        format!("{}:{}", place.path.display(), place.line)
    }
}

/// A value as TOML, as far as it may be shown.
fn shown(key: &Key, node: &Node) -> String {
    match key.takes {
        // That it is a reference, and not the secret, was seen to when it was read.
        Takes::Secret | Takes::Secrets => toml(&node.value, true),
        _ => toml(&node.value, key.quoted),
    }
}

/// A value that reads as words and numbers do, where it may be shown at all.
fn toml(value: &Value, may: bool) -> String {
    let each = |items: Vec<String>| items.join(", ");
    match value {
        Value::Array(items) => format!(
            "[{}]",
            each(items.iter().map(|item| toml(&item.value, may)).collect())
        ),
        Value::Table(fields) => {
            let name = |name: &str| match is_plain(name) {
                true => name.to_owned(),
                false => HIDDEN.to_owned(),
            };
            let fields = fields.iter();
            let fields = fields
                .map(|(key, field)| format!("{} = {}", name(key), toml(&field.node.value, may)));
            format!("{{ {} }}", each(fields.collect()))
        }
        Value::Text(text) if may && is_plain(text) => format!("{text:?}"),
        Value::Integer(Some(number), 8) if may => format!("0o{number:o}"),
        Value::Integer(Some(number), _) if may => number.to_string(),
        Value::Float(number) if may => number.to_string(),
        Value::Boolean(is) => is.to_string(),
        _ => HIDDEN.to_owned(),
    }
}

/// Shorter words than this stand in any sentence.
const SHORTEST: usize = 5;

/// A path and the bytes of its text, as in `sink.file[0].template@12..20`.
fn split(path: &str) -> (&str, Option<Range<usize>>) {
    let range = |text: &str| {
        let (start, end) = text.split_once("..")?;
        Some(start.parse().ok()?..end.parse().ok()?)
    };
    match path.split_once('@') {
        Some((path, text)) => (path, range(text)),
        None => (path, None),
    }
}

/// The place in a template's file. Of its line only the tag is shown that is wrong: what stands around
/// it may be a password of somebody else's, and so may a text in quotes inside of it.
fn in_template(path: &Path, range: &Range<usize>) -> Option<Place> {
    let text = read_text(path).ok()?;
    let start = range.start.min(text.len());
    let before = text.get(..start)?;
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    let line = text[line_start..].lines().next().unwrap_or_default();
    let in_line = start - line_start;
    let tag_start = line
        .get(..in_line)?
        .rfind('{')
        .map_or(in_line, |at| at - usize::from(line[..at].ends_with('{')));
    let tag_end = line[in_line..]
        .find('}')
        .map_or(line.len(), |at| line.len().min(in_line + at + 2));
    let tag = line.get(tag_start..tag_end)?;
    if !is_plain(tag.trim_matches(['{', '}', '%', ' ', '-'])) || tag.contains(['"', '\'']) {
        return Some(Place {
            path: path.to_owned(),
            line: before.matches('\n').count() + 1,
            column: line[..in_line].chars().count() + 1,
            excerpt: None,
        });
    }
    let wrong = line.get(in_line..tag_end.min(in_line + range.len().max(1)));
    Some(Place {
        path: path.to_owned(),
        line: before.matches('\n').count() + 1,
        column: line[..in_line].chars().count() + 1,
        excerpt: Some(Excerpt {
            text: tag.to_owned(),
            start: line[tag_start..in_line].chars().count(),
            width: wrong.map_or(1, |wrong| wrong.chars().count().max(1)),
        }),
    })
}
