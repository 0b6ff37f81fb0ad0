//! The lines of a file of identities, CSV or JSON, each with its number: read one by one, so that a
//! million take no more memory than one.

use std::{
    collections::{HashSet, VecDeque},
    fs::File,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use clap::ValueEnum;
use serde_json::Value;

use crate::model::{
    Entry, EntryError, Fields, Lines, NotText, is_line_end, is_utf16, other_delimiter, without_mark,
};

use super::super::{exit::Failed, output};

/// How the lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// With a head line that names the columns
    Csv,
    /// One JSON object a line
    Jsonl,
}

impl Format {
    /// As it is said, or as the file's name says.
    pub(super) fn of(said: Option<Self>, file: Option<&Path>) -> Self {
        let by_name = || {
            let is_csv = file
                .and_then(Path::extension)
                .is_some_and(|end| end.eq_ignore_ascii_case("csv"));
            if is_csv { Self::Csv } else { Self::Jsonl }
        };
        said.unwrap_or_else(by_name)
    }
}

/// A line's number, and what it says.
pub(super) type Row = (u64, Result<Entry, EntryError>);

/// Reads a file of identities as an import does; how many lines can be identities, and how many cannot.
///
/// # Errors
/// With the sentence for the operator, when it is no such file.
pub fn examine_import(file: &Path) -> Result<(usize, usize), String> {
    let (mut good, mut bad) = (0, 0);
    for row in rows(file, Format::of(None, Some(file))).map_err(|failed| failed.to_string())? {
        match row.map_err(|failed| failed.to_string())?.1 {
            Ok(_) => good += 1,
            Err(_) => bad += 1,
        }
    }
    Ok((good, bad))
}

/// Every line that is not empty.
pub(super) fn rows(
    file: &Path,
    format: Format,
) -> Result<Box<dyn Iterator<Item = Result<Row, Failed>>>, Failed> {
    let shown = file.to_owned();
    let cannot = move |error: &dyn std::fmt::Display| unreadable(&shown, error);
    let mut opened = BufReader::new(File::open(file).map_err(|error| cannot(&error))?);
    begin(&mut opened).map_err(|error| cannot(&error))?;
    Ok(match format {
        Format::Csv => Box::new(Records::of(opened, file)?),
        Format::Jsonl => {
            let filled = Lines::of(opened).filter(|line| {
                let is_empty = |(_, line): &(u64, Vec<u8>)| line.trim_ascii().is_empty();
                !line.as_ref().is_ok_and(is_empty)
            });
            Box::new(filled.map(move |line| {
                let (number, line) = line.map_err(|error| cannot(&error))?;
                Ok((number, of_line(&line)))
            }))
        }
    })
}

/// The records of a CSV file below its head line.
struct Records {
    reader: csv::Reader<Numbered<BufReader<File>>>,
    columns: csv::StringRecord,
    file: PathBuf,
}

impl Records {
    fn of(opened: BufReader<File>, file: &Path) -> Result<Self, Failed> {
        let mut reader = csv::ReaderBuilder::new()
            .trim(csv::Trim::All)
            .from_reader(Numbered::of(opened));
        let columns = reader.headers().map_err(|error| unreadable(file, &error))?;
        let columns = columns.clone();
        let wrong = |what: String| Failed::usage(format!("{} {what}", file.display()));
        let mut seen = HashSet::new();
        let twice = columns
            .iter()
            .find(|column| !column.is_empty() && !seen.insert(*column));
        if let Some(column) = twice {
            return Err(wrong(format!(
                "has the column `{column}` twice in its first line"
            )));
        }
        if !seen.contains("name") {
            let head: Vec<&str> = columns.iter().collect();
            let instead = other_delimiter(&head.join(",")).map_or(String::new(), |word| {
                format!(": {word} separate its columns, and commas are wanted")
            });
            return Err(
                wrong(format!("has no column `name` in its first line{instead}"))
                    .hint("such as name,id,resource,scopes,labels"),
            );
        }
        Ok(Self {
            reader,
            columns,
            file: file.to_owned(),
        })
    }

    /// Where a record begins, as a line of the file.
    fn number(&mut self, position: Option<&csv::Position>) -> u64 {
        position.map_or(0, |at| self.reader.get_mut().line_at(at.byte()))
    }

    /// One record; the outer `None` at the end, the inner one where there is nothing in it.
    fn record(&mut self) -> Option<Option<Result<Row, Failed>>> {
        let mut record = csv::StringRecord::new();
        let read = self.reader.read_record(&mut record);
        let error = match read {
            Ok(false) => return None,
            Ok(true) => {
                let number = self.number(record.position());
                return Some(Some(Ok((number, of_record(&self.columns, &record)))));
            }
            Err(error) => error,
        };
        let number = self.number(error.position());
        Some(match error.kind() {
            csv::ErrorKind::UnequalLengths { .. }
                if record.iter().all(str::is_empty) && record.len() == 1 =>
            {
                None
            }
            csv::ErrorKind::UnequalLengths {
                expected_len, len, ..
            } => {
                let reason = format!("it has {len} fields, not {expected_len}");
                Some(Ok((number, Err(wrong(&reason)))))
            }
            csv::ErrorKind::Utf8 { .. } => Some(Ok((number, Err(wrong("it is not UTF-8"))))),
            _ => Some(Err(unreadable(&self.file, &error))),
        })
    }
}

impl Iterator for Records {
    type Item = Result<Row, Failed>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(row) = self.record()? {
                return Some(row);
            }
        }
    }
}

/// Notes where the lines of what is read begin: a reader of CSV counts neither every way to end a line
/// nor what it skips.
struct Numbered<R> {
    from: R,
    offset: u64,
    line: u64,
    is_empty: bool,
    after_return: bool,
    /// Where a line that holds something begins, and its number: of those that are not asked for yet.
    begins: VecDeque<(u64, u64)>,
}

impl<R> Numbered<R> {
    fn of(from: R) -> Self {
        Self {
            from,
            offset: 0,
            line: 1,
            is_empty: true,
            after_return: false,
            begins: VecDeque::new(),
        }
    }

    fn see(&mut self, byte: u8) {
        if !is_line_end(byte) && std::mem::take(&mut self.is_empty) {
            self.begins.push_back((self.offset, self.line));
        }
        let second = byte == b'\n' && self.after_return;
        if is_line_end(byte) && !second {
            self.line += 1;
            self.is_empty = true;
        }
        self.after_return = byte == b'\r';
        self.offset += 1;
    }

    /// The number of the first line that holds something at or after this place; places only grow.
    fn line_at(&mut self, offset: u64) -> u64 {
        while self
            .begins
            .front()
            .is_some_and(|(begin, _)| *begin < offset)
        {
            self.begins.pop_front();
        }
        self.begins.front().map_or(self.line, |(_, line)| *line)
    }
}

impl<R: Read> Read for Numbered<R> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let read = self.from.read(into)?;
        into.iter().take(read).for_each(|byte| self.see(*byte));
        Ok(read)
    }
}

fn unreadable(file: &Path, error: &dyn std::fmt::Display) -> Failed {
    Failed::plain(format!("cannot read {}: {error}", file.display()))
}

/// Skips a byte order mark; UTF-16 is no text that we read.
fn begin(file: &mut impl BufRead) -> std::io::Result<()> {
    let start = file.fill_buf()?;
    if is_utf16(start) {
        return Err(std::io::Error::other(NotText::Utf16));
    }
    let mark = start.len() - without_mark(start).len();
    file.consume(mark);
    Ok(())
}

fn of_record(columns: &csv::StringRecord, record: &csv::StringRecord) -> Result<Entry, EntryError> {
    let values: Vec<Value> = record
        .iter()
        .map(output::csv_text)
        .map(Value::from)
        .collect();
    Entry::of(columns.iter().zip(&values))
}

fn of_line(line: &[u8]) -> Result<Entry, EntryError> {
    let fields = Fields::read(line).map_err(|error| {
        // It stands on one line, whose number is the file's own.
        let (said, column) = (error.to_string(), error.column());
        let said = said.split(" at line ").next().unwrap_or(&said);
        wrong(&format!(
            "it is not a JSON object: {said} (column {column})"
        ))
    })?;
    Entry::of_object(&fields)
}

fn wrong(reason: &str) -> EntryError {
    EntryError::nameless(reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every row of a file with this text: its number, and its name or what is wrong with it.
    fn told(text: &str, format: Format) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("people");
        std::fs::write(&path, text).unwrap();
        let rows = rows(&path, format).unwrap();
        rows.map(|row| match row.unwrap() {
            (number, Ok(entry)) => format!("{number} {}", entry.name),
            (number, Err(error)) => format!("{number}! {error}"),
        })
        .collect()
    }

    #[test]
    fn line_numbers_are_the_files_own_whatever_ends_them() {
        for mark in ["", "\u{feff}"] {
            for end in ["\n", "\r\n", "\r"] {
                let csv = [
                    "",
                    "name,label_x",
                    "",
                    "a,1",
                    "",
                    "",
                    "b b,2",
                    "  ",
                    "c,\"two",
                    "lines\"",
                    "d",
                    "e,3",
                ];
                let csv = format!("{mark}{}", csv.join(end));
                let rows = told(&csv, Format::Csv);
                let starts: Vec<&str> = rows
                    .iter()
                    .map(|row| row.split(' ').next().unwrap())
                    .collect();
                assert_eq!(starts, ["4", "7!", "9!", "11!", "12"], "{end:?}: {rows:?}");
                let json = [
                    "",
                    "{\"name\":\"a\"}",
                    " ",
                    "{\"name\":\"b b\"}",
                    "",
                    "{\"name\":\"c\"}",
                    "{oops",
                ];
                let json = format!("{mark}{}", json.join(end));
                let rows = told(&json, Format::Jsonl);
                let starts: Vec<&str> = rows
                    .iter()
                    .map(|row| row.split(' ').next().unwrap())
                    .collect();
                assert_eq!(starts, ["2", "4!", "6", "7!"], "{end:?}: {rows:?}");
            }
        }
    }

    #[test]
    fn numbers_stay_right_over_more_than_one_buffer() {
        let long = "x".repeat(200);
        let rows = (0..2_000).map(|n| format!("a{n},{long}\r\n\r\n"));
        let told = told(
            &format!("name,label_x\r\n{}", rows.collect::<String>()),
            Format::Csv,
        );
        assert_eq!(told.len(), 2_000);
        for (n, row) in told.iter().enumerate() {
            assert_eq!(*row, format!("{} a{n}", 2 + 2 * n));
        }
    }

    #[test]
    fn what_stands_twice_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("people.csv");
        for head in ["name,id,id", "name, name", "name,label_x,label_x"] {
            std::fs::write(&path, format!("{head}\na,,\n")).unwrap();
            let error = rows(&path, Format::Csv).err().unwrap().to_string();
            assert!(error.contains("twice in its first line"), "{error}");
        }
        let rows = told(
            "{\"name\":\"a\",\"id\":\"8:acs:x\",\"id\":\"8:acs:y\"}\n",
            Format::Jsonl,
        );
        assert_eq!(
            rows,
            ["1! \"id\" stands there twice, so nobody knows which is meant"]
        );
    }
}
