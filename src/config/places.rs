//! Remembers where everything stands, so that what other rooms find is shown like our own.

use std::ops::Range;

use super::{
    Finding, Problem, Severity, elsewhere,
    file::File,
    tree::{Fields, Node, Value},
};

/// Where everything in the configuration stands.
#[derive(Debug)]
pub struct Places {
    pub(super) files: Vec<File>,
    pub(super) root: Fields,
}

impl Places {
    /// Findings with the lines that they speak of. A path leads to its value, or to the nearest
    /// part of the configuration around it that is written down.
    pub fn problems(&self, findings: impl IntoIterator<Item = Finding>) -> Vec<Problem> {
        let mut problems: Vec<_> = findings
            .into_iter()
            .map(|finding| {
                let (path, range) = split(&finding.path);
                (self.find(path), range, finding)
            })
            .collect();
        problems.sort_by_key(|(node, _, finding)| {
            let span = node.map(|node| node.span);
            (span, std::cmp::Reverse(finding.severity))
        });
        let problem = |(node, range, finding): (Option<&Node>, Option<Range<usize>>, Finding)| {
            let place = |node: &Node| match &range {
                Some(range) => elsewhere::place(&self.files, node, range),
                None => self.files[node.span.file].place(node.span),
            };
            Problem {
                severity: finding.severity,
                place: node.map(place),
                message: finding.message,
                hint: finding.hint,
                related: Vec::new(),
            }
        };
        problems.into_iter().map(problem).collect()
    }

    /// Whether a finding is an error.
    pub fn any_error(problems: &[Problem]) -> bool {
        problems
            .iter()
            .any(|problem| problem.severity == Severity::Error)
    }

    fn find(&self, path: &str) -> Option<&Node> {
        let mut found = None;
        let mut fields = Some(&self.root);
        for segment in path.split('.') {
            let (key, indices) = segment.split_once('[').unwrap_or((segment, ""));
            let Some(field) = fields.and_then(|fields| fields.get(key)) else {
                break;
            };
            let mut node = &field.node;
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
            found = Some(node);
            fields = match &node.value {
                Value::Table(fields) => Some(fields),
                _ => None,
            };
        }
        found
    }
}

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
