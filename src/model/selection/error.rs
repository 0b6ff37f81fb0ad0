//! Where and why a selection cannot be understood.

use std::ops::Range;

/// At most so many characters of a line are shown.
const SHOWN: usize = 120;

/// Why a text is not a selection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SelectionError {
    /// The bytes of the text that cannot be understood; empty at its end where something is missing.
    pub span: Range<usize>,
    /// What was expected, and what may be written instead.
    pub message: String,
}

impl SelectionError {
    pub(super) fn new(span: Range<usize>, message: impl Into<String>) -> Self {
        Self {
            span,
            message: message.into(),
        }
    }

    /// The message with the line, the column and a caret below the place in `text`.
    pub fn explain(&self, text: &str) -> String {
        let start = floor(text, self.span.start);
        let before = &text[..start];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        let line = before.matches('\n').count() + 1;
        let column = text[line_start..start].chars().count() + 1;
        let shown = |c: char| if c.is_control() { ' ' } else { c };
        // A long line is shown around the place.
        let skipped = column.saturating_sub(SHOWN / 2);
        let excerpt: String = text[line_start..line_end]
            .chars()
            .skip(skipped)
            .take(SHOWN)
            .map(shown)
            .collect();
        let end = floor(text, self.span.end.min(line_end)).max(start);
        let marked = text[start..end].chars().count().clamp(1, SHOWN / 2);
        format!(
            "{line}:{column}: {}\n  {excerpt}\n  {}{}",
            self.message,
            " ".repeat(column - 1 - skipped),
            "^".repeat(marked)
        )
    }
}

/// The nearest place at or before a byte that does not split a character.
fn floor(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}
