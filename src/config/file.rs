//! The files that were read: their text and their lines.

use std::{
    fs,
    io::{self, Read as _},
    ops::Range,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;

use crate::model::{NotText, is_utf16, text_of, without_mark};

/// No configuration file is larger; 100,000 identities take about 20 MB.
const LARGEST: u64 = 64 << 20;

#[derive(Debug)]
pub(super) struct File {
    pub(super) path: PathBuf,
    pub(super) text: Text,
}

/// A file's text. `Debug` does not show it: somebody may have written a secret into it.
pub(super) struct Text {
    text: String,
    starts: Vec<usize>,
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
        let bytes = read_regular(path, LARGEST).map_err(cannot)?;
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
}

impl Text {
    fn new(text: String) -> Self {
        let starts = std::iter::once(0)
            .chain(text.match_indices('\n').map(|(at, _)| at + 1))
            .collect();
        Self { text, starts }
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
}

/// Opens a regular file, and never waits for the other end of a pipe that lies in its place.
///
/// # Errors
/// Why not.
pub fn open_regular(path: &Path) -> io::Result<fs::File> {
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits();
    let file = fs::File::options()
        .read(true)
        .custom_flags(flags.cast_signed())
        .open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("it is not a regular file")),
    }
}

/// What is in a regular file of at most so many bytes.
///
/// # Errors
/// Why not.
pub fn read_regular(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let file = open_regular(path)?;
    // At once as much as is needed: what is read may be a secret, of which no copy is left behind.
    let length = file.metadata()?.len().min(most) + 1;
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
    file.take(most + 1).read_to_end(&mut bytes)?;
    match u64::try_from(bytes.len()) {
        Ok(length) if length <= most => Ok(bytes),
        _ => Err(io::Error::other(format!(
            "it is larger than {} KiB",
            most >> 10
        ))),
    }
}

/// A template, or whatever a value refers to as `{ file }`, is no larger.
pub(super) const LARGEST_TEXT: u64 = 256 << 10;

/// Reads a text that the configuration refers to.
///
/// # Errors
/// Why not, in words that follow the path.
pub(super) fn read_text(path: &Path) -> Result<String, String> {
    let cannot = |error: std::io::Error| error.to_string();
    let bytes = read_regular(path, LARGEST_TEXT).map_err(cannot)?;
    text_of(&bytes)
        .map(str::to_owned)
        .map_err(|why| why.to_string())
}

/// The nearest start of a character at or before a byte.
pub(super) fn floor(text: &str, at: usize) -> usize {
    (0..=at.min(text.len()))
        .rev()
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or(0)
}
