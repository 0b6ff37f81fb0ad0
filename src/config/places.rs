//! Remembers where everything stands, so that what other rooms find is shown like our own.

use super::{
    Finding, Problem, Severity,
    file::File,
    tree::{Fields, Span, Value},
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
            .map(|finding| (self.find(&finding.path), finding))
            .collect();
        problems.sort_by_key(|(span, finding)| (*span, std::cmp::Reverse(finding.severity)));
        let problem = |(span, finding): (Option<Span>, Finding)| Problem {
            severity: finding.severity,
            place: span.map(|span| self.files[span.file].place(span)),
            message: finding.message,
            hint: finding.hint,
            related: Vec::new(),
        };
        problems.into_iter().map(problem).collect()
    }

    /// Whether a finding is an error.
    pub fn any_error(problems: &[Problem]) -> bool {
        problems
            .iter()
            .any(|problem| problem.severity == Severity::Error)
    }

    fn find(&self, path: &str) -> Option<Span> {
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
            found = Some(node.span);
            fields = match &node.value {
                Value::Table(fields) => Some(fields),
                _ => None,
            };
        }
        found
    }
}
