//! Problems: what is wrong with the configuration, and where, complete and safe to show.

use std::{fmt, ops::Deref, path::PathBuf};

use super::{Severity, render};

/// One mistake, or one oddity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// Where, if it is somewhere.
    pub place: Option<Place>,
    /// What is wrong, in one sentence, never with a secret.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
    /// Other places that take part, each with its role.
    pub related: Vec<(Place, String)>,
}

/// A place in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub path: PathBuf,
    /// The line, from 1; 0 where the whole file is meant.
    pub line: usize,
    /// The column in characters, from 1; 0 where the whole file is meant.
    pub column: usize,
    /// The line itself, where it can be shown.
    pub excerpt: Option<Excerpt>,
}

/// A line of a file with its secrets masked, and the part of it to point at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excerpt {
    /// The line.
    pub text: String,
    /// How many characters stand before the part to point at.
    pub start: usize,
    /// How many characters to point at, at least 1.
    pub width: usize,
}

/// All that is wrong, in the order of the files: errors, and warnings between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    /// `2 errors`, `1 error and 3 warnings`.
    pub fn summary(&self) -> String {
        let count = |severity, word: &str| {
            let n = self.iter().filter(|p| p.severity == severity).count();
            (n > 0).then(|| format!("{n} {word}{}", if n == 1 { "" } else { "s" }))
        };
        let parts = [
            count(Severity::Error, "error"),
            count(Severity::Warning, "warning"),
        ];
        parts
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .join(" and ")
    }
}

impl Deref for Problems {
    type Target = [Problem];

    fn deref(&self) -> &[Problem] {
        &self.0
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(render(self, false).trim_end())
    }
}

impl std::error::Error for Problems {}
