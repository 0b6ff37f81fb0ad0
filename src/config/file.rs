//! The files that were read: their text, their lines, and excerpts that are safe to show.

use std::{
    fs, io,
    ops::Range,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use super::{
    mask,
    problem::{Excerpt, Place},
    quantity::MASK,
    tree::Span,
};
use crate::model::{NotText, is_utf16, without_mark};

/// No configuration file is larger; 100,000 identities take about 20 MB.
const LARGEST: u64 = 64 << 20;
/// Longer lines are cut around what is wrong.
const WIDEST: usize = 110;

/// One file.
#[derive(Debug)]
pub(super) struct File {
    pub(super) path: PathBuf,
    pub(super) text: Text,
}

/// A file's text. `Debug` does not show it: somebody may have written a secret into it.
pub(super) struct Text {
    text: String,
    starts: Vec<usize>,
    masked: OnceLock<Vec<Range<usize>>>,
}

impl std::fmt::Debug for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Text({} lines)", self.starts.len())
    }
}

/// Why a file is no text, and the line and column where that shows, if it has one.
pub(super) struct Unreadable {
    pub(super) message: String,
    pub(super) at: Option<(usize, usize)>,
}

impl File {
    /// Reads a file.
    pub(super) fn read(path: &Path) -> Result<Self, Unreadable> {
        let fail = |message: String| Unreadable { message, at: None };
        let cannot = |error: io::Error| fail(format!("cannot read this file: {error}"));
        let meta = fs::metadata(path).map_err(cannot)?;
        if !meta.is_file() {
            return Err(fail("this is not a regular file".to_owned()));
        }
        if meta.len() > LARGEST {
            return Err(fail("this file is larger than 64 MiB".to_owned()));
        }
        let bytes = fs::read(path).map_err(cannot)?;
        if is_utf16(&bytes) {
            return Err(fail(NotText::Utf16.to_string()));
        }
        let text = String::from_utf8(without_mark(&bytes).to_vec()).map_err(|error| {
            let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let good = String::from_utf8_lossy(good);
            let line = good.matches('\n').count();
            let column = good.rsplit('\n').next().unwrap_or_default().chars().count();
            Unreadable {
                message: "this file is not UTF-8 text".to_owned(),
                at: Some((line + 1, column + 1)),
            }
        })?;
        Ok(Self {
            path: path.to_owned(),
            text: Text::new(text),
        })
    }

    /// The directory against which relative paths in the file are read.
    pub(super) fn directory(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new(""))
    }

    /// Where a span stands, with the line, safe to show.
    pub(super) fn place(&self, span: Span) -> Place {
        let text = &self.text;
        let start = floor(&text.text, span.start);
        let line = text.line_of(start);
        let range = text.line(line);
        let column = text.text[range.start..start.min(range.end)].chars().count() + 1;
        Place {
            path: self.path.clone(),
            line: line + 1,
            column,
            excerpt: Some(text.excerpt(&range, start..floor(&text.text, span.end))),
        }
    }
}

impl Text {
    fn new(text: String) -> Self {
        let starts = std::iter::once(0)
            .chain(text.match_indices('\n').map(|(at, _)| at + 1))
            .collect();
        Self {
            text,
            starts,
            masked: OnceLock::new(),
        }
    }

    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    /// The number of the line, from 0, that a byte is on.
    pub(super) fn line_of(&self, at: usize) -> usize {
        self.starts.partition_point(|start| *start <= at) - 1
    }

    /// The bytes of a line, without its end.
    pub(super) fn line(&self, line: usize) -> Range<usize> {
        let start = self.starts[line];
        let end = self
            .starts
            .get(line + 1)
            .map_or(self.text.len(), |next| next - 1);
        let content = self.text[start..end].trim_end_matches('\r');
        start..start + content.len()
    }

    /// A line with its secrets masked, and the part of it to point at.
    fn excerpt(&self, line: &Range<usize>, wrong: Range<usize>) -> Excerpt {
        let masked = self.masked.get_or_init(|| mask::masked(&self.text));
        let mut shown = Vec::new();
        let mut caret: Option<(usize, usize)> = None;
        let mut hidden = false;
        let first = masked.partition_point(|range| range.end <= line.start);
        let mut ranges = masked[first..].iter().peekable();
        for (offset, c) in self.text[line.clone()].char_indices() {
            let at = line.start + offset;
            while ranges.next_if(|range| range.end <= at).is_some() {}
            let hide = ranges.peek().is_some_and(|range| range.contains(&at));
            let before = if hide && hidden {
                shown.len().saturating_sub(MASK.len())
            } else {
                shown.len()
            };
            match (hide, hidden) {
                (true, false) => shown.extend(MASK.chars()),
                (true, true) => {}
                (false, _) => shown.push(if c.is_control() { ' ' } else { c }),
            }
            hidden = hide;
            if wrong.contains(&at) || wrong.start == at {
                let start = caret.map_or(before, |(start, _)| start);
                caret = Some((start, shown.len()));
            }
        }
        let (start, end) = caret.unwrap_or((shown.len(), shown.len() + 1));
        cut(&shown, start, end)
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

/// The nearest start of a character at or before a byte.
fn floor(text: &str, at: usize) -> usize {
    (0..=at.min(text.len()))
        .rev()
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or(0)
}
