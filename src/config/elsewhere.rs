//! Places inside of values: a template that stands in a file of its own, or in the configuration.

use std::{fs, ops::Range, path::Path};

use super::{
    file::File,
    problem::{Excerpt, Place},
    tree::{Node, Span, Value},
};
use crate::model::text_of;

/// A template, or whatever a value refers to as `{ file }`, is no larger.
pub(super) const LARGEST: u64 = 256 << 10;

/// Reads a text that the configuration refers to.
///
/// # Errors
/// Why not, in words that follow the path.
pub(super) fn read(path: &Path) -> Result<String, String> {
    let cannot = |error: std::io::Error| error.to_string();
    let meta = fs::metadata(path).map_err(cannot)?;
    if !meta.is_file() {
        return Err("it is not a regular file".to_owned());
    }
    if meta.len() > LARGEST {
        return Err("it is larger than 256 KiB".to_owned());
    }
    let bytes = fs::read(path).map_err(cannot)?;
    text_of(&bytes)
        .map(str::to_owned)
        .map_err(|why| why.to_string())
}

/// Where a range of a value's text stands. A text with escapes does not lie in its file as it reads;
/// then the whole value is meant.
pub(super) fn place(files: &[File], node: &Node, range: &Range<usize>) -> Place {
    let file = &files[node.span.file];
    match &node.value {
        Value::Text(text) => {
            let raw = file.text.as_str().get(node.span.start..node.span.end);
            let at = raw.and_then(|raw| raw.find(text.as_str()));
            file.place(at.map_or(node.span, |at| Span {
                file: node.span.file,
                start: node.span.start + at + range.start,
                end: node.span.start + at + range.end,
            }))
        }
        Value::Table(fields) => {
            let named = fields.get("file").map(|field| &field.node.value);
            let inside = match named {
                Some(Value::Text(path)) => in_file(&file.directory().join(path), range),
                _ => None,
            };
            inside.unwrap_or_else(|| file.place(node.span))
        }
        _ => file.place(node.span),
    }
}

/// The place in a template's file. Of its line only the tag is shown that is wrong: what stands around
/// it may be a password of somebody else's.
fn in_file(path: &Path, range: &Range<usize>) -> Option<Place> {
    let text = read(path).ok()?;
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
