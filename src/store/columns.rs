//! How words and times lie in columns.

use std::str::FromStr;

use rusqlite::{
    Row,
    types::{FromSql, Type},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned, de::value::StrDeserializer};

use crate::model::{Attempt, Attempts, Timestamp};

/// Microseconds since 1970.
pub(super) fn micros(at: Timestamp) -> i64 {
    at.as_microsecond()
}

/// The instant of a stored number; what cannot be an instant is the latest one.
pub(super) fn instant(micros: i64) -> Timestamp {
    Timestamp::from_microsecond(micros).unwrap_or(Timestamp::MAX)
}

/// The instant in a column that may be empty.
pub(super) fn maybe_instant(row: &Row<'_>, column: &str) -> rusqlite::Result<Option<Timestamp>> {
    let micros: Option<i64> = row.get(column)?;
    micros.map(|micros| exact(column, micros)).transpose()
}

/// The instant in a column.
pub(super) fn instant_in(row: &Row<'_>, column: &str) -> rusqlite::Result<Timestamp> {
    exact(column, row.get(column)?)
}

fn exact(column: &str, micros: i64) -> rusqlite::Result<Timestamp> {
    Timestamp::from_microsecond(micros).map_err(|e| broken(column, e))
}

/// A name or id in a column.
pub(super) fn parsed<T>(row: &Row<'_>, column: &str) -> rusqlite::Result<T>
where
    T: FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    let text = row
        .get_ref(column)?
        .as_str()
        .map_err(|e| broken(column, e))?;
    text.parse().map_err(|e: T::Err| broken(column, e))
}

/// Names in a column, with spaces between them; none where it is empty.
pub(super) fn parsed_all<T>(row: &Row<'_>, column: &str) -> rusqlite::Result<Vec<T>>
where
    T: FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    let text: Option<String> = row.get(column)?;
    let words = text.iter().flat_map(|text| text.split(' '));
    words
        .map(|word| word.parse().map_err(|e: T::Err| broken(column, e)))
        .collect()
}

/// A name or id in a column that may be empty.
pub(super) fn maybe_parsed<T>(row: &Row<'_>, column: &str) -> rusqlite::Result<Option<T>>
where
    T: FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    match row.get_ref(column)?.as_str_or_null() {
        Ok(Some(text)) => text
            .parse()
            .map(Some)
            .map_err(|e: T::Err| broken(column, e)),
        Ok(None) => Ok(None),
        Err(e) => Err(broken(column, e)),
    }
}

/// A state, a kind, a reason … in a column.
pub(super) fn word<T: DeserializeOwned>(row: &Row<'_>, column: &str) -> rusqlite::Result<T> {
    let text = row
        .get_ref(column)?
        .as_str()
        .map_err(|e| broken(column, e))?;
    unspelled(text).map_err(|e| broken(column, e))
}

/// A word in a column that may be empty.
pub(super) fn maybe_word<T: DeserializeOwned>(
    row: &Row<'_>,
    column: &str,
) -> rusqlite::Result<Option<T>> {
    match row.get_ref(column)?.as_str_or_null() {
        Ok(Some(text)) => unspelled(text).map(Some).map_err(|e| broken(column, e)),
        Ok(None) => Ok(None),
        Err(e) => Err(broken(column, e)),
    }
}

/// A version or a counter, which SQLite keeps as a signed number.
pub(super) fn unsigned(row: &Row<'_>, column: &str) -> rusqlite::Result<u64> {
    let number: i64 = row.get(column)?;
    u64::try_from(number).map_err(|e| broken(column, e))
}

/// An unsigned number as SQLite keeps it.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// How a word is stored.
pub(super) fn spelled<T: Serialize>(word: &T) -> String {
    match serde_json::to_value(word) {
        Ok(serde_json::Value::String(text)) => text,
        other => unreachable!("a word of the model is spelled as a string, not {other:?}"),
    }
}

fn unspelled<T: DeserializeOwned>(text: &str) -> Result<T, serde_json::Error> {
    T::deserialize(StrDeserializer::new(text))
}

/// The last attempts as they are packed in the row: `[[micros, result, request id], …]`.
pub(super) fn packed(attempts: &Attempts) -> String {
    let list: Vec<Packed<'_>> = attempts
        .iter()
        .map(|a| {
            Packed(
                micros(a.at),
                (&*a.result).into(),
                a.request_id.as_deref().map(Into::into),
            )
        })
        .collect();
    serde_json::to_string(&list).unwrap_or_else(|_| "[]".to_owned())
}

/// The attempts of a row; a list that cannot be read counts as empty, it is only for people's eyes.
pub(super) fn unpacked(row: &Row<'_>, column: &str) -> rusqlite::Result<Attempts> {
    let text = row.get_ref(column)?.as_str().unwrap_or_default();
    let list: Vec<Packed<'_>> = serde_json::from_str(text).unwrap_or_default();
    let mut attempts = Attempts::default();
    for Packed(at, result, request_id) in list {
        attempts.push(Attempt {
            at: instant(at),
            result: result.into_owned(),
            request_id: request_id.map(Into::into),
        });
    }
    Ok(attempts)
}

#[derive(Serialize, Deserialize)]
struct Packed<'a>(
    i64,
    #[serde(borrow)] std::borrow::Cow<'a, str>,
    #[serde(borrow)] Option<std::borrow::Cow<'a, str>>,
);

/// A column whose content is not what we wrote there.
pub(super) fn broken(
    column: &str,
    error: impl std::error::Error + Send + Sync + 'static,
) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(
        0,
        Type::Text,
        format!("column {column}: {error}").into(),
    )
}

/// A single fact of the table `meta`.
pub(super) fn meta<T: FromSql>(
    conn: &rusqlite::Connection,
    key: &str,
) -> rusqlite::Result<Option<T>> {
    use rusqlite::OptionalExtension as _;
    conn.prepare_cached("SELECT value FROM meta WHERE key = ?1")?
        .query_row([key], |row| row.get(0))
        .optional()
}

/// Sets a single fact.
pub(super) fn set_meta(
    conn: &rusqlite::Connection,
    key: &str,
    value: impl rusqlite::ToSql,
) -> rusqlite::Result<()> {
    conn.prepare_cached("INSERT INTO meta VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = ?2")?
        .execute(rusqlite::params![key, value])
        .map(drop)
}
