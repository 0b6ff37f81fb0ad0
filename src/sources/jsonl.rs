//! JSON lines as rows, read one by one.

use std::io::{BufRead, BufReader, Cursor, Read};

use super::{SourceError, list::Collector};
use crate::model::{Entry, EntryError, Fields, NotText, is_utf16, without_mark};

/// The most that is read.
const LARGEST: u64 = 512 << 20;
/// The longest line.
const LONGEST: u64 = 1 << 20;
/// So much of the beginning says how a text is written.
const START: u64 = 64;

/// Takes every line that is not empty, with its number.
pub(super) fn rows(
    mut from: impl Read,
    what: &str,
    list: &mut Collector,
) -> Result<(), SourceError> {
    let failed = |error: std::io::Error| SourceError::Program {
        program: what.to_owned(),
        reason: error.to_string(),
    };
    let mut start = Vec::new();
    from.by_ref()
        .take(START)
        .read_to_end(&mut start)
        .map_err(failed)?;
    if is_utf16(&start) {
        return Err(SourceError::Program {
            program: what.to_owned(),
            reason: NotText::Utf16.to_string(),
        });
    }
    let start = Cursor::new(without_mark(&start));
    let mut lines = BufReader::with_capacity(1 << 16, start.chain(from)).take(LARGEST + 1);
    let (mut number, mut line) = (0, Vec::new());
    loop {
        line.clear();
        let read = lines
            .by_ref()
            .take(LONGEST)
            .read_until(b'\n', &mut line)
            .map_err(failed)?;
        if lines.limit() == 0 {
            return Err(SourceError::Long {
                what: what.to_owned(),
                most: "512 MiB".to_owned(),
            });
        }
        if read == 0 {
            return Ok(());
        }
        number += 1;
        if read as u64 == LONGEST && !line.ends_with(b"\n") {
            lines.skip_until(b'\n').map_err(failed)?;
            list.push(number, Err(wrong("it is longer than 1 MiB".to_owned())))?;
        } else if !line.trim_ascii().is_empty() {
            list.push(number, row(line.trim_ascii()))?;
        }
    }
}

fn row(line: &[u8]) -> Result<Entry, EntryError> {
    let fields = Fields::read(line).map_err(|error| {
        let why = match (line.first(), line.last()) {
            (Some(b'['), _) | (_, Some(b']')) => {
                "it belongs to a JSON array, and one object a line is wanted".to_owned()
            }
            (Some(b'{'), Some(b',')) => {
                "a comma follows it, and one object a line without any is wanted".to_owned()
            }
            (Some(b'{'), _) if error.is_eof() => "its end is missing".to_owned(),
            // The message says what was expected and where; it repeats nothing of the line.
            _ => error.to_string(),
        };
        wrong(format!("it is no JSON object: {why}"))
    })?;
    Entry::of_object(&fields)
}

fn wrong(reason: String) -> EntryError {
    EntryError::nameless(reason)
}

#[cfg(test)]
mod tests {
    use super::{super::list::List, *};

    fn list(text: &[u8]) -> Result<List, SourceError> {
        let mut list = Collector::new("a".to_owned());
        rows(text, "a", &mut list)?;
        Ok(list.finish())
    }

    #[test]
    fn a_mark_is_skipped_and_what_is_no_row_is_explained() {
        let good = list("\u{feff}{\"name\":\"b\"}\r\n\n{\"name\":\"a\"}".as_bytes()).unwrap();
        assert_eq!((good.head.rows, good.head.unnamed), (2, 0));
        assert_eq!(&*good.line(0).unwrap(), b"{\"row\":[3,{\"name\":\"a\"}]}");
        for (text, word) in [
            (&b"{\"name\":\"a\"},\n"[..], "a comma follows it"),
            (b"[\n", "a JSON array"),
            (b"{\"name\":\"a\"", "its end is missing"),
            (b"{\"name\":null}", "its name is not a text"),
            (b"{\"name\":\"a\",\"name\":\"b\"}", "stands there twice"),
            (b"{\"name\":\"\xc2\xa0a\"}", "is not valid"),
        ] {
            let list = list(text).unwrap();
            assert_eq!(list.head.unnamed, 1);
            assert!(list.head.shown[0].reason.contains(word), "{:?}", list.head);
        }
        let strange = list(b"{\"name\":\"../x\"}\n{\"name\":\"a\"}\n").unwrap();
        assert_eq!(
            (
                strange.head.rows,
                strange.head.unnamed,
                strange.head.invalid
            ),
            (2, 0, 1)
        );
        let said = &strange.head.nobodies[0];
        assert!(
            said.number == 1 && said.reason.contains("\"../x\""),
            "{said:?}"
        );
        let long = [&b"x".repeat(3 << 20)[..], b"\n{\"name\":\"a\"}\n"].concat();
        let long = list(&long).unwrap();
        assert_eq!((long.head.rows, long.head.shown[0].number), (2, 1));
        let error = list(b"\xff\xfe{\0\"\0").unwrap_err();
        assert!(error.to_string().contains("UTF-16"), "{error}");
    }

    #[test]
    fn rows_come_in_the_order_of_names_and_twins_are_refused() {
        let text = b"{\"name\":\"d\",\"id\":\"8:acs:1\"}\n{\"name\":\"c\"}\n{\"name\":\"b\",\"id\":\"8:acs:1\"}\n\
                     {\"name\":\"c\"}\n{\"name\":\"a\",\"scopes\":\"x\"}\n";
        let list = list(text).unwrap();
        let lines: Vec<String> = (0..)
            .map_while(|at| Some(String::from_utf8(list.line(at)?.into_owned()).unwrap()))
            .collect();
        let wanted = [
            ("\"a\"", "\"x\""),
            ("\"b\"", "8:acs:1 stands under more than one name: b, d"),
            ("\"c\"", "stands in 2 rows"),
            ("\"c\"", "stands in 2 rows"),
            ("\"d\"", "b, d"),
        ];
        assert_eq!(lines.len(), wanted.len());
        for (line, (name, reason)) in lines.iter().zip(wanted) {
            assert!(line.contains("refused") && line.contains(name), "{line}");
            assert!(line.contains(reason) || reason == "\"x\"", "{line}");
        }
    }
}
