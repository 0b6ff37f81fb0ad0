//! The lines of a file of identities, CSV or JSON, each with its number: read one by one, so that a
//! million take no more memory than one.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::Path,
};

use clap::ValueEnum;
use serde_json::{Map, Value};

use crate::model::{Entry, EntryError, NotText, is_utf16, other_delimiter, without_mark};

use super::super::{exit::Failed, spreadsheet};

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

/// Every line that is not empty.
pub(super) fn rows(
    file: &Path,
    format: Format,
) -> Result<Box<dyn Iterator<Item = Result<Row, Failed>>>, Failed> {
    let cannot = {
        let file = file.to_owned();
        move |error: &dyn std::fmt::Display| {
            Failed::plain(format!("cannot read {}: {error}", file.display()))
        }
    };
    let mut opened = BufReader::new(File::open(file).map_err(|error| cannot(&error))?);
    begin(&mut opened).map_err(|error| cannot(&error))?;
    Ok(match format {
        Format::Csv => {
            let mut reader = csv::ReaderBuilder::new()
                .trim(csv::Trim::All)
                .from_reader(opened);
            let columns = reader.headers().map_err(|error| cannot(&error))?.clone();
            if !columns.iter().any(|column| column == "name") {
                let head: Vec<&str> = columns.iter().collect();
                let instead = other_delimiter(&head.join(",")).map_or(String::new(), |word| {
                    format!(": {word} separate its columns, and commas are wanted")
                });
                return Err(Failed::usage(format!(
                    "{} has no column `name` in its first line{instead}",
                    file.display()
                ))
                .hint("such as name,id,resource,scopes,labels"));
            }
            Box::new(reader.into_records().map(move |record| match record {
                Ok(record) => {
                    let number = record.position().map_or(0, csv::Position::line);
                    Ok((number, of_record(&columns, &record)))
                }
                Err(error) => match (error.position().map(csv::Position::line), error.kind()) {
                    (
                        Some(line),
                        csv::ErrorKind::UnequalLengths {
                            expected_len, len, ..
                        },
                    ) => Ok((
                        line,
                        Err(wrong(&format!("it has {len} fields, not {expected_len}"))),
                    )),
                    (Some(line), csv::ErrorKind::Utf8 { .. }) => {
                        Ok((line, Err(wrong("it is not UTF-8"))))
                    }
                    _ => Err(cannot(&error)),
                },
            }))
        }
        Format::Jsonl => {
            let lines = (1..).zip(opened.split(b'\n'));
            let filled = lines.filter(|(_, line)| {
                line.as_ref()
                    .map_or(true, |line| !line.trim_ascii().is_empty())
            });
            Box::new(filled.map(move |(number, line)| match line {
                Ok(line) => Ok((number, of_line(&line))),
                Err(error) => Err(cannot(&error)),
            }))
        }
    })
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
        .map(spreadsheet::plain)
        .map(Value::from)
        .collect();
    Entry::of(columns.iter().zip(&values))
}

fn of_line(line: &[u8]) -> Result<Entry, EntryError> {
    let fields: Map<String, Value> = serde_json::from_slice(line)
        .map_err(|error| wrong(&format!("it is no JSON object: {error}")))?;
    Entry::of(fields.iter().map(|(key, value)| (key.as_str(), value)))
}

fn wrong(reason: &str) -> EntryError {
    EntryError {
        name: None,
        reason: reason.to_owned(),
    }
}
