//! Remembers where everything stands, so that what other rooms find is shown like our own; and shows what holds, each
//! value with its place or as a default.

use std::{collections::BTreeSet, fmt::Write, ops::Range, path::Path, sync::OnceLock};

use super::{
    ConfigProblem, Excerpt, Finding, Place, Settings, Severity,
    excerpt::{MASK, Showable, hidden},
    file::{File, floor, read_text},
    keys::{Key, Preset, Shown, Table, Takes},
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
    /// where it lies. `settings` are those that were read here: what depends on the surroundings is there.
    pub fn effective(&self, settings: &Settings) -> String {
        let mut out = String::new();
        let part = Part {
            table: &ROOT,
            path: String::new(),
            fields: Some(&self.root),
            at: None,
        };
        self.show_table(&mut out, &part, settings);
        out
    }

    /// A table, whether it is written or not: its keys, then the tables inside of it.
    fn show_table(&self, out: &mut String, part: &Part<'_>, settings: &Settings) {
        let Part { table, path, .. } = part;
        if let Some(span) = part.at {
            let _infallible = writeln!(out, "\n[[{path}]]  # {}", self.line_of(span));
        } else if !table.is_of_sections() {
            let _infallible = writeln!(out, "\n[{path}]");
        }
        let mut inside = Vec::new();
        for key in table.keys() {
            let field = part.fields.and_then(|fields| fields.get(key.name));
            let node = field.map(|field| &field.node);
            let may_be_table = node.is_none_or(|node| matches!(node.value, Value::Table(_)));
            match key.takes {
                // Another one stands in its place.
                Takes::Table(_) if node.is_none() && key.shown == Shown::Elsewhere => {
                    let _infallible = writeln!(out, "# {} is not set", key.name);
                }
                Takes::Table(table) if may_be_table => inside.push(part.inside(key, table, node)),
                Takes::Tables(table) => inside.extend(part.each_inside(key, table, node)),
                _ => {
                    let shown = self.shown_key(path, key, node, settings);
                    let _infallible = writeln!(out, "{shown}");
                }
            }
        }
        for part in inside {
            self.show_table(out, &part, settings);
        }
    }

    /// One key, with its value or its default.
    fn shown_key(&self, path: &str, key: &Key, node: Option<&Node>, settings: &Settings) -> String {
        let name = key.name;
        match (node, key.preset) {
            (Some(node), _) => {
                format!(
                    "{name} = {}  # {}",
                    shown(key, node),
                    self.line_of(node.span)
                )
            }
            (None, Preset::Is(text)) => format!("{name} = {text}  # default"),
            (None, Preset::Of(section)) => self.said_by(section, key),
            (None, Preset::Said(words)) => match surrounding(settings, path, name) {
                Some(value) => format!("{name} = {value:?}  # default"),
                None => format!("# {name}: {words}  # default"),
            },
            (None, Preset::Nothing | Preset::Required) => format!("# {name} is not set"),
        }
    }

    /// What a section says of a key that is left out elsewhere.
    fn said_by(&self, section: &str, key: &Key) -> String {
        let name = key.name;
        let node = self
            .root
            .get(section)
            .and_then(|field| match &field.node.value {
                Value::Table(fields) => fields.get(name).map(|field| &field.node),
                _ => None,
            });
        let row = match ROOT.key(section).map(|row| row.takes) {
            Some(Takes::Table(table)) => table.key(name),
            _ => None,
        };
        match (node, row) {
            (Some(node), Some(row)) => {
                let place = self.line_of(node.span);
                format!("{name} = {}  # [{section}], {place}", shown(row, node))
            }
            (
                _,
                Some(Key {
                    preset: Preset::Is(text),
                    ..
                }),
            ) => {
                format!("{name} = {text}  # default of [{section}]")
            }
            _ => format!("# {name}: what [{section}] says"),
        }
    }

    /// `FILE:LINE`.
    fn line_of(&self, span: Span) -> String {
        let place = self.place(span);
        format!("{}:{}", place.path.display(), place.line)
    }
}

/// A table that is to be shown.
struct Part<'a> {
    table: &'static Table,
    /// As it stands in a header.
    path: String,
    /// What is written of it.
    fields: Option<&'a Members>,
    /// Where it is written, of tables of which there may be several.
    at: Option<Span>,
}

impl<'a> Part<'a> {
    /// A table inside of it.
    fn inside(&self, key: &Key, table: &'static Table, node: Option<&'a Node>) -> Self {
        let fields = node.and_then(|node| match &node.value {
            Value::Table(fields) => Some(fields),
            _ => None,
        });
        let (path, at) = (self.path_of(key), None);
        Self {
            table,
            path,
            fields,
            at,
        }
    }

    /// Each of the tables of a key.
    fn each_inside(&self, key: &Key, table: &'static Table, node: Option<&'a Node>) -> Vec<Self> {
        let items = match node.map(|node| &node.value) {
            Some(Value::Array(items)) => items.as_slice(),
            _ => &[],
        };
        let tables = items.iter().filter_map(|item| match &item.value {
            Value::Table(fields) => Some(Self {
                table,
                path: self.path_of(key),
                fields: Some(fields),
                at: Some(item.span),
            }),
            _ => None,
        });
        tables.collect()
    }

    fn path_of(&self, key: &Key) -> String {
        match self.path.as_str() {
            "" => key.name.to_owned(),
            path => format!("{path}.{}", key.name),
        }
    }
}

/// What a key that is left out comes to here, where that is one plain value.
fn surrounding(settings: &Settings, path: &str, key: &str) -> Option<String> {
    let daemon = &settings.daemon;
    let shown = |path: &Path| path.display().to_string();
    match (path, key) {
        ("daemon", "state_dir") => Some(shown(&daemon.state_dir)),
        ("daemon", "socket") => Some(shown(&daemon.socket)),
        ("daemon", "instance") => Some(daemon.instance.clone()),
        ("store", "path") => settings.store.place.file().map(shown),
        ("identity", "resource") => match settings.resources.as_slice() {
            [only] => Some(only.name.to_string()),
            _ => None,
        },
        _ => None,
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
