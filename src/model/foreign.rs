//! Text that other programs wrote, read as it was meant: a byte order mark at its beginning is no part of
//! it, other encodings are named, and a line may end in any way.

use std::io::{self, BufRead};

/// The byte order mark of UTF-8, which Windows programs put before a text.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// Why bytes are no text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotText {
    /// Two bytes a character.
    #[error("it is UTF-16 (Windows programs say Unicode); save it as UTF-8")]
    Utf16,
    /// Some other encoding, or no text at all.
    #[error("it is not UTF-8 text")]
    Other,
}

/// The bytes without a byte order mark before them.
pub fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(MARK).unwrap_or(bytes)
}

/// Whether a text that begins so is UTF-16: its mark, or every second byte zero.
pub fn is_utf16(start: &[u8]) -> bool {
    let zeros = |from: usize| {
        let mut bytes = start.iter().skip(from).step_by(2).take(8).peekable();
        bytes.peek().is_some() && start.len() >= 4 && bytes.all(|byte| *byte == 0)
    };
    start.starts_with(b"\xff\xfe") || start.starts_with(b"\xfe\xff") || zeros(0) != zeros(1)
}

/// The text that bytes are, without a byte order mark.
///
/// # Errors
/// When they are no UTF-8; the reason names UTF-16.
pub fn text_of(bytes: &[u8]) -> Result<&str, NotText> {
    if is_utf16(bytes) {
        return Err(NotText::Utf16);
    }
    std::str::from_utf8(without_mark(bytes)).map_err(|_| NotText::Other)
}

/// What separates the columns of a head line, where that is no comma: a word for it.
pub fn other_delimiter(head: &str) -> Option<&'static str> {
    let of = |c| head.matches(c).count();
    [(';', "semicolons"), ('\t', "tabs"), ('|', "bars")]
        .into_iter()
        .filter(|(c, _)| of(*c) > of(','))
        .max_by_key(|(c, _)| of(*c))
        .map(|(_, word)| word)
}

/// The lines of a text, each with its number as every editor counts: a line ends with `\n`, `\r\n` or
/// `\r`, and one without anything in it counts.
#[derive(Debug)]
pub struct Lines<R> {
    from: R,
    number: u64,
    after_return: bool,
}

impl<R: BufRead> Lines<R> {
    /// All of them.
    pub fn of(from: R) -> Self {
        Self {
            from,
            number: 0,
            after_return: false,
        }
    }

    /// The rest of a line without its end; `None` at the end of the text.
    fn line(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut line = None::<Vec<u8>>;
        loop {
            let chunk = match self.from.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                chunk => chunk?,
            };
            if std::mem::take(&mut self.after_return) && chunk.first() == Some(&b'\n') {
                self.from.consume(1);
                continue;
            }
            if chunk.is_empty() {
                return Ok(line);
            }
            let line = line.get_or_insert_default();
            let end = chunk.iter().position(|byte| is_line_end(*byte));
            let (text, rest) = chunk.split_at(end.unwrap_or(chunk.len()));
            line.extend_from_slice(text);
            self.after_return = rest.first() == Some(&b'\r');
            let read = text.len() + usize::from(end.is_some());
            self.from.consume(read);
            if end.is_some() {
                return Ok(Some(std::mem::take(line)));
            }
        }
    }
}

impl<R: BufRead> Iterator for Lines<R> {
    type Item = io::Result<(u64, Vec<u8>)>;

    fn next(&mut self) -> Option<Self::Item> {
        let line = self.line().transpose()?;
        self.number += 1;
        Some(line.map(|line| (self.number, line)))
    }
}

/// Whether a line may end with this byte.
pub fn is_line_end(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_numbered_as_editors_do_whatever_ends_them() {
        let told = |text: &str, room| {
            let lines = Lines::of(io::BufReader::with_capacity(room, text.as_bytes()));
            let lines = lines.map(|line| {
                line.map(|(n, line)| format!("{n}{}", String::from_utf8(line).unwrap()))
            });
            lines.collect::<io::Result<Vec<String>>>().unwrap()
        };
        for room in [1, 2, 3, 64] {
            for end in ["\n", "\r\n", "\r"] {
                let text = ["a", "", "b", "", "", "c"].join(end);
                let wanted = ["1a", "2", "3b", "4", "5", "6c"];
                assert_eq!(told(&text, room), wanted, "{end:?}");
                assert_eq!(told(&(text + end), room), wanted, "{end:?}");
            }
            assert_eq!(told("a\n\rb\r\r\nc", room), ["1a", "2", "3b", "4", "5c"]);
            assert!(told("", room).is_empty());
        }
    }

    #[test]
    fn a_mark_is_skipped_and_other_encodings_are_named() {
        assert_eq!(text_of(b"\xef\xbb\xbfanna"), Ok("anna"));
        assert_eq!(text_of("Müller".as_bytes()), Ok("Müller"));
        for utf16 in [
            &b"\xff\xfea\0b\0"[..],
            b"\xfe\xff\0a\0b",
            b"a\0b\0c\0",
            b"\0a\0b\0c",
        ] {
            assert_eq!(text_of(utf16), Err(NotText::Utf16), "{utf16:?}");
        }
        assert_eq!(text_of(b"M\xfcller"), Err(NotText::Other));
        for text in ["", "a", "{}", "\0\0\0\0"] {
            assert_eq!(text_of(text.as_bytes()), Ok(text));
        }
    }

    #[test]
    fn other_delimiters_are_named() {
        assert_eq!(other_delimiter("name;id;scopes"), Some("semicolons"));
        assert_eq!(other_delimiter("name\tid"), Some("tabs"));
        assert_eq!(other_delimiter("name,id,label_a;b"), None);
        assert_eq!(other_delimiter("name"), None);
    }
}
