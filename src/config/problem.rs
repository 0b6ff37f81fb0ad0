//! What is wrong with the configuration, and where: collected while the tree is read, so that every mistake is told
//! at once, and shown complete and safe, as `path:line:col: error: message`, the line, a caret and a hint.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    fmt::{self, Write},
    ops::Deref,
    path::PathBuf,
};

use anstyle::{AnsiColor, Style};

use super::{Excerpt, Places, Severity, tree::Span};
use crate::model::paint;

/// One mistake, or one oddity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigProblem {
    /// How bad it is.
    pub severity: Severity,
    /// Where, if it is somewhere.
    pub place: Option<Place>,
    /// What is wrong, in one sentence, never with a secret.
    pub message: String,
    pub hint: Option<String>,
    /// Other places that take part, each with its role.
    pub related: Vec<(Place, String)>,
}

/// A place in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub path: PathBuf,
    /// The line, from 1; 0 where the whole file is meant.
    pub line: usize,
    /// The column in characters, from 1; 0 where the whole file is meant.
    pub column: usize,
    /// The line itself, where it can be shown.
    pub excerpt: Option<Excerpt>,
}

/// All that is wrong, in the order of the files: errors, and warnings between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(pub Vec<ConfigProblem>);

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
    type Target = [ConfigProblem];

    fn deref(&self) -> &[ConfigProblem] {
        &self.0
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(render(self, false).trim_end())
    }
}

impl std::error::Error for Problems {}

/// Something that is wrong, by its place in the tree.
#[derive(Debug)]
pub(super) struct Note {
    severity: Severity,
    span: Option<Span>,
    message: String,
    hint: Option<String>,
    related: Vec<(Span, String)>,
    /// It speaks of something that is not there; in a file with syntax errors that proves nothing.
    absence: bool,
}

impl Note {
    pub(super) fn error(span: Span, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            span: Some(span),
            message: message.into(),
            hint: None,
            related: Vec::new(),
            absence: false,
        }
    }

    /// It can work, but is odd.
    pub(super) fn warning(span: Span, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(span, message)
        }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(super) fn maybe_hint(mut self, hint: Option<String>) -> Self {
        self.hint = hint;
        self
    }

    /// Another place that takes part: `role` is followed by that place.
    pub(super) fn see(mut self, span: Span, role: &str) -> Self {
        self.related.push((span, role.to_owned()));
        self
    }

    pub(super) fn absence(mut self) -> Self {
        self.absence = true;
        self
    }

    /// It belongs to no line.
    pub(super) fn nowhere(mut self) -> Self {
        self.span = None;
        self
    }
}

/// So many mistakes are told; a configuration with more is not read further.
pub(super) const MOST: usize = 100;

/// What is wrong so far.
#[derive(Debug, Default)]
pub(super) struct ProblemReport {
    notes: RefCell<Vec<Note>>,
    whole_files: RefCell<Vec<ConfigProblem>>,
    syntax: RefCell<Vec<Note>>,
    errors: Cell<usize>,
}

impl ProblemReport {
    pub(super) fn add(&self, note: Note) {
        if self.takes(note.severity) {
            self.notes.borrow_mut().push(note);
        }
    }

    /// The text itself is no TOML here.
    pub(super) fn add_syntax(&self, note: Note) {
        if self.takes(note.severity) {
            self.syntax.borrow_mut().push(note);
        }
    }

    /// Whether there are mistakes enough: what follows is not read.
    pub(super) fn is_full(&self) -> bool {
        self.errors.get() >= MOST
    }

    /// Counts a mistake; whether it is one of those that are told.
    fn takes(&self, severity: Severity) -> bool {
        let is_told = !self.is_full();
        if severity == Severity::Error {
            self.errors.set(self.errors.get() + 1);
        }
        is_told
    }

    /// A file as a whole cannot be read.
    pub(super) fn add_file(&self, place: Place, message: String, hint: Option<&str>) {
        self.whole_files.borrow_mut().push(ConfigProblem {
            severity: Severity::Error,
            place: Some(place),
            message,
            hint: hint.map(str::to_owned),
            related: Vec::new(),
        });
    }

    /// Everything in the order of the files. Where the text itself is wrong, what is said about the
    /// same line, or about something missing, would only confuse, and is left out.
    pub(super) fn into_problems(self, places: &Places) -> Vec<ConfigProblem> {
        let is_full = self.is_full();
        let syntax = self.syntax.into_inner();
        let mut problems = self.whole_files.into_inner();
        let incomplete = !syntax.is_empty() || !problems.is_empty();
        let mut notes = self.notes.into_inner();
        let in_doubt = |note: &Note| {
            (incomplete && note.absence) || note.span.is_some_and(|span| places.is_broken(span))
        };
        notes.retain(|note| !in_doubt(note));
        notes.extend(syntax);
        notes.sort_by_key(|note| (note.span.map(|span| (span.file, span.start)), note.severity));
        problems.extend(notes.into_iter().map(|note| note.into_problem(places)));
        problems.extend(is_full.then(unread));
        problems
    }
}

/// That the list of mistakes may not be whole.
fn unread() -> ConfigProblem {
    ConfigProblem {
        severity: Severity::Warning,
        place: None,
        message: format!("and more: after {MOST} mistakes a configuration is not read further"),
        hint: Some("mend these first, then check again".to_owned()),
        related: Vec::new(),
    }
}

impl Note {
    fn into_problem(self, places: &Places) -> ConfigProblem {
        let place = |span: Span| places.place(span);
        ConfigProblem {
            severity: self.severity,
            place: self.span.map(place),
            message: self.message,
            hint: self.hint,
            related: self
                .related
                .into_iter()
                .map(|(span, role)| (place(span), role))
                .collect(),
        }
    }
}

/// More of one severity than this are counted, not shown.
const RENDER_MOST: usize = 101;

/// Problems as text, each ending with a line end and apart by an empty line; in colour for a
/// terminal.
pub fn render(problems: &[ConfigProblem], colour: bool) -> String {
    let pen = Pen { colour };
    let mut seen: BTreeMap<Severity, usize> = BTreeMap::new();
    let is_shown = |problem: &&ConfigProblem| {
        let count = seen.entry(problem.severity).or_default();
        *count += 1;
        *count <= RENDER_MOST
    };
    let shown = problems.iter().filter(is_shown);
    let mut texts: Vec<String> = shown.map(|p| pen.problem(p)).collect();
    if problems.len() > texts.len() {
        texts.push(format!("… and {} more\n", problems.len() - texts.len()));
    }
    texts.join("\n")
}

struct Pen {
    colour: bool,
}

impl Pen {
    fn problem(&self, problem: &ConfigProblem) -> String {
        let (word, colour) = match problem.severity {
            Severity::Error => ("error", AnsiColor::Red),
            Severity::Warning => ("warning", AnsiColor::Yellow),
        };
        let strong = Style::new().bold();
        let accent = colour.on_default().bold();
        let mut out = String::new();
        if let Some(place) = &problem.place {
            let _infallible = write!(out, "{}: ", self.paint(strong, &position(place)));
        }
        let word = self.paint(accent, &format!("{word}:"));
        let _infallible = writeln!(out, "{word} {}", self.paint(strong, &problem.message));
        let places = problem
            .place
            .iter()
            .chain(problem.related.iter().map(|(place, _)| place));
        let gutter = places
            .map(|place| place.line.to_string().len())
            .max()
            .unwrap_or(1)
            .max(3);
        if let Some(place) = &problem.place {
            self.excerpt(&mut out, place, gutter, accent);
        }
        let quiet = AnsiColor::Cyan.on_default();
        for (place, role) in &problem.related {
            let note = format!("{role} {}", position(place));
            self.note(&mut out, gutter, "note", &note);
            self.excerpt(&mut out, place, gutter, quiet);
        }
        if let Some(hint) = &problem.hint {
            self.note(&mut out, gutter, "hint", hint);
        }
        out
    }

    fn excerpt(&self, out: &mut String, place: &Place, gutter: usize, accent: Style) {
        let Some(excerpt) = &place.excerpt else {
            return;
        };
        let rim = AnsiColor::Blue.on_default();
        let number = self.paint(rim, &format!("{:>gutter$} |", place.line));
        let blank = self.paint(rim, &format!("{:>gutter$} |", ""));
        let caret = format!("^{}", "~".repeat(excerpt.width.saturating_sub(1)));
        let _infallible = writeln!(out, "{}", format!("{number} {}", excerpt.text).trim_end());
        let _infallible = writeln!(
            out,
            "{blank} {}{}",
            " ".repeat(excerpt.start),
            self.paint(accent, &caret)
        );
    }

    fn note(&self, out: &mut String, gutter: usize, word: &str, text: &str) {
        let word = self.paint(AnsiColor::Cyan.on_default(), &format!("= {word}:"));
        let _infallible = writeln!(out, "{:>gutter$} {word} {text}", "");
    }

    fn paint(&self, style: Style, text: &str) -> String {
        if self.colour {
            paint(style, text)
        } else {
            text.to_owned()
        }
    }
}

/// `path:line:column`, or the path alone where the whole file is meant.
fn position(place: &Place) -> String {
    let path = place.path.display();
    if place.line == 0 {
        path.to_string()
    } else {
        format!("{path}:{}:{}", place.line, place.column)
    }
}
