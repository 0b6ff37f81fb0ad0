//! Collects what is wrong while the tree is read, so that every mistake is told at once.

use std::cell::{Cell, RefCell};

use super::{
    Severity,
    file::File,
    problem::{Place, Problem},
    tree::Span,
};

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
    /// It cannot work.
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
pub(super) struct Report {
    notes: RefCell<Vec<Note>>,
    whole_files: RefCell<Vec<Problem>>,
    syntax: RefCell<Vec<Note>>,
    errors: Cell<usize>,
}

impl Report {
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
        self.whole_files.borrow_mut().push(Problem {
            severity: Severity::Error,
            place: Some(place),
            message,
            hint: hint.map(str::to_owned),
            related: Vec::new(),
        });
    }

    /// Everything in the order of the files. Where the text itself is wrong, what is said about the
    /// same line, or about something missing, would only confuse, and is left out.
    pub(super) fn into_problems(self, files: &[File]) -> Vec<Problem> {
        let is_full = self.is_full();
        let syntax = self.syntax.into_inner();
        let mut problems = self.whole_files.into_inner();
        let line = |span: Span| (span.file, files[span.file].text.line_of(span.start));
        let broken: Vec<_> = syntax
            .iter()
            .filter_map(|note| note.span.map(line))
            .collect();
        let incomplete = !syntax.is_empty() || !problems.is_empty();
        let mut notes = self.notes.into_inner();
        let in_doubt = |note: &Note| {
            (incomplete && note.absence)
                || note.span.is_some_and(|span| broken.contains(&line(span)))
        };
        notes.retain(|note| !in_doubt(note));
        notes.extend(syntax);
        notes.sort_by_key(|note| (note.span.map(|span| (span.file, span.start)), note.severity));
        problems.extend(notes.into_iter().map(|note| note.into_problem(files)));
        problems.extend(is_full.then(unread));
        problems
    }
}

/// That the list of mistakes may not be whole.
fn unread() -> Problem {
    Problem {
        severity: Severity::Warning,
        place: None,
        message: format!("and more: after {MOST} mistakes a configuration is not read further"),
        hint: Some("mend these first, then check again".to_owned()),
        related: Vec::new(),
    }
}

impl Note {
    fn into_problem(self, files: &[File]) -> Problem {
        let place = |span: Span| files[span.file].place(span);
        Problem {
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
