//! CSV that is safe to open in a spreadsheet: a cell that a spreadsheet would take for a formula begins
//! with an apostrophe, which it shows as text. Our own import takes the apostrophe off again.

use serde::Serialize;

/// What formulas begin with, and what spreadsheets skip before them. Source: OWASP, "CSV injection".
const FORMULA: [char; 10] = [
    '=', '+', '-', '@', '\t', '\r', '\n', '\u{ff1d}', '\u{ff0b}', '\u{ff20}',
];
const TEXT: char = '\'';

/// A cell as it is written.
pub(super) fn cell(text: impl Into<String>) -> String {
    let text = text.into();
    // What begins with an apostrophe gets another, so that exactly one is taken off.
    match text.trim_start_matches(TEXT).starts_with(FORMULA) {
        true => format!("{TEXT}{text}"),
        false => text,
    }
}

/// A cell as it was before it was written.
pub(super) fn plain(cell: &str) -> &str {
    match cell.strip_prefix(TEXT) {
        Some(text) if text.trim_start_matches(TEXT).starts_with(FORMULA) => text,
        _ => cell,
    }
}

/// Records of named fields as CSV, with a heading where one is wanted.
pub(super) fn rows<T: Serialize>(
    records: impl IntoIterator<Item = T>,
    headed: bool,
) -> Result<String, csv::Error> {
    let mut raw = csv::Writer::from_writer(Vec::new());
    for record in records {
        raw.serialize(record)?;
    }
    let raw = raw.into_inner().map_err(|error| error.into_error())?;
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .from_reader(&*raw);
    let mut safe = csv::Writer::from_writer(Vec::new());
    for record in reader.records().skip(usize::from(!headed)) {
        safe.write_record(record?.iter().map(cell))?;
    }
    let safe = safe.into_inner().map_err(|error| error.into_error())?;
    Ok(String::from_utf8_lossy(&safe).into_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn no_cell_begins_a_formula() {
        for text in ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "＝1"] {
            assert_eq!(cell(text), format!("'{text}"));
        }
        for text in ["anna", "8:acs:x", "a=1", "'quoted'", ""] {
            assert_eq!(cell(text), text);
        }
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_again(text in "['=+@a\\-]{0,6}") {
            let cell = cell(text.clone());
            prop_assert_eq!(plain(&cell), text);
        }
    }
}
