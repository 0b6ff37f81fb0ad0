//! JSON lines as rows.

use serde_json::Value;

use super::{
    SourceError,
    listing::{MOST_ROWS, Row},
};
use crate::model::{Entry, EntryError};

/// Every line that is not empty, with its number.
pub(super) fn rows(text: &[u8], what: &str) -> Result<Vec<Row>, SourceError> {
    let mut rows = Vec::new();
    for (number, line) in (1..).zip(text.split(|byte| *byte == b'\n')) {
        if line.trim_ascii().is_empty() {
            continue;
        }
        if rows.len() == MOST_ROWS {
            return Err(SourceError::Long {
                what: what.to_owned(),
                most: "1,000,000 rows",
            });
        }
        rows.push((number, row(line)));
    }
    Ok(rows)
}

fn row(line: &[u8]) -> Result<Entry, EntryError> {
    let fields: serde_json::Map<String, Value> =
        serde_json::from_slice(line).map_err(|error| EntryError {
            name: None,
            // The message says what was expected and where; it repeats nothing of the line.
            reason: format!("it is no JSON object: {error}"),
        })?;
    Entry::of(fields.iter().map(|(key, value)| (key.as_str(), value)))
}
