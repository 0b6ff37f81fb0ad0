//! Problems as text for people: `path:line:col: error: message`, the line, a caret, a hint.

use std::{collections::BTreeMap, fmt::Write};

use anstyle::{AnsiColor, Style};

use super::{Place, Problem, Severity};
use crate::model::paint;

/// More of one severity than this are counted, not shown.
const MOST: usize = 101;

/// Problems as text, each ending with a line end and apart by an empty line; in colour for a
/// terminal.
pub fn render(problems: &[Problem], colour: bool) -> String {
    let pen = Pen { colour };
    let mut seen: BTreeMap<Severity, usize> = BTreeMap::new();
    let is_shown = |problem: &&Problem| {
        let count = seen.entry(problem.severity).or_default();
        *count += 1;
        *count <= MOST
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
    fn problem(&self, problem: &Problem) -> String {
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
