//! A table as both engines have it: its rows by pages in the order of its key, what differs between two sides, and
//! whether they are the same.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

use super::{
    super::{backup, commit_mark, db, schema},
    MoveError,
};
use crate::{
    model::Num,
    sql::{Connection, Result, ToSql, Value},
};

/// Rows that one statement adds.
const CHUNK: usize = 40;
/// Who is there and who leads belongs to machines, and not to what is moved.
const LEFT_BEHIND: [&str; 3] = ["node", "duty", "change"];

/// Values in the order of the columns.
pub(super) type RowValues = Vec<Value>;

/// A table, described by the one of the two sides that is a file.
#[derive(Debug)]
pub(super) struct MovedTable {
    pub(super) name: String,
    columns: Vec<String>,
    /// The places of the columns that tell one row from another; all, where there is no key.
    key: Vec<usize>,
    /// Columns of which no two rows hold the same, and of which rows that is said.
    unique: Vec<(Vec<usize>, Option<String>)>,
    never_reuses_numbers: bool,
}

/// How many rows there are, and a sum over what is in them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) rows: u64,
    sum: u128,
}

impl MovedTable {
    /// All tables that are moved.
    pub(super) fn all(file: &Connection) -> Result<Vec<Self>> {
        let sql = "SELECT name, sql FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name";
        let mut named: Vec<(String, String)> = Vec::new();
        file.each(sql, [], None, |row| {
            named.push((row.get(0)?, row.get(1)?));
            Ok(true)
        })?;
        named.retain(|(name, _)| !LEFT_BEHIND.contains(&name.as_str()));
        named
            .into_iter()
            .map(|(name, sql)| Self::named(file, name, sql.contains("AUTOINCREMENT")))
            .collect()
    }

    fn named(file: &Connection, name: String, never_reuses_numbers: bool) -> Result<Self> {
        let mut columns = Vec::new();
        let mut key: BTreeMap<i64, usize> = BTreeMap::new();
        let sql = "SELECT name, pk FROM pragma_table_info(?1)";
        file.each(sql, [&name], None, |row| {
            let place: i64 = row.get(1)?;
            if place > 0 {
                key.insert(place, columns.len());
            }
            columns.push(row.get::<_, String>(0)?);
            Ok(true)
        })?;
        let key = match key.is_empty() {
            true => (0..columns.len()).collect(),
            false => key.into_values().collect(),
        };
        let unique = unique(file, &name, &columns)?;
        Ok(Self {
            name,
            columns,
            key,
            unique,
            never_reuses_numbers,
        })
    }

    pub(super) fn never_reuses_numbers(&self) -> bool {
        self.never_reuses_numbers
    }

    /// What tells a row from others.
    pub(super) fn key_of(&self, row: &[Value]) -> RowValues {
        let values = self.key.iter().filter_map(|place| row.get(*place));
        values.cloned().collect()
    }

    /// The next rows after a key.
    pub(super) fn page(
        &self,
        conn: &Connection,
        after: Option<&RowValues>,
        limit: usize,
    ) -> Result<Vec<RowValues>> {
        let mut params: Vec<&Value> = Vec::new();
        let from = self.beyond(after, &mut params, ">");
        let sql = format!(
            "SELECT {} FROM {}{} ORDER BY {} LIMIT {limit}",
            list(&self.columns),
            self.name,
            within(&[from]),
            list(&self.key_columns())
        );
        self.rows(conn, &sql, &params)
    }

    /// All rows after a key up to another one, or to the end.
    pub(super) fn between(
        &self,
        conn: &Connection,
        after: Option<&RowValues>,
        upto: Option<&RowValues>,
    ) -> Result<Vec<RowValues>> {
        let mut params: Vec<&Value> = Vec::new();
        let bounds = [
            self.beyond(after, &mut params, ">"),
            self.beyond(upto, &mut params, "<="),
        ];
        let sql = format!(
            "SELECT {} FROM {}{}",
            list(&self.columns),
            self.name,
            within(&bounds)
        );
        self.rows(conn, &sql, &params)
    }

    fn beyond<'a>(
        &self,
        key: Option<&'a RowValues>,
        params: &mut Vec<&'a Value>,
        sign: &str,
    ) -> Option<String> {
        let key = key?;
        let first = params.len() + 1;
        params.extend(key);
        let key = list(&self.key_columns());
        Some(format!("({key}) {sign} ({})", places(first..=params.len())))
    }

    fn key_columns(&self) -> Vec<String> {
        let columns = self.key.iter().filter_map(|place| self.columns.get(*place));
        columns.cloned().collect()
    }

    fn rows(&self, conn: &Connection, sql: &str, params: &[&Value]) -> Result<Vec<RowValues>> {
        let mut rows = Vec::new();
        conn.each(sql, &lent(params)[..], None, |row| {
            rows.push(self.values(row)?);
            Ok(true)
        })?;
        Ok(rows)
    }

    fn values(&self, row: &crate::sql::Row<'_>) -> Result<RowValues> {
        let values = (0..self.columns.len()).map(|place| {
            let value = row.get::<_, Value>(place)?;
            Ok(match value {
                // Facts have one type in PostgreSQL, and are read alike.
                Value::Integer(number) if self.name == "meta" => Value::Text(number.to_string()),
                value => value,
            })
        });
        values.collect()
    }

    /// Whether a row is one of the store itself, and not of the place where it is.
    fn is_moved(&self, row: &[Value]) -> bool {
        let Some(Value::Text(key)) = row.first().filter(|_| self.name == "meta") else {
            return true;
        };
        let of_place = [
            backup::MOVING,
            backup::INSTANCE,
            backup::MACHINE,
            backup::RETIRED,
            db::MOVED_TO,
            schema::VERSION,
            schema::USABLE_KEY,
        ];
        !of_place.contains(&key.as_str())
            && !key.starts_with(commit_mark::MARKS)
            && !key.starts_with(LAST_NUMBER)
    }

    /// Rows that are to be written to the other side, and keys of those that are to be dropped there.
    pub(super) fn difference(
        &self,
        ours: Vec<RowValues>,
        there: Vec<RowValues>,
    ) -> (Vec<RowValues>, Vec<RowValues>) {
        let packed = |row: &RowValues| pack(&self.key_of(row));
        let mut there: BTreeMap<Vec<u8>, RowValues> = there
            .into_iter()
            .filter(|row| self.is_moved(row))
            .map(|row| (packed(&row), row))
            .collect();
        let ours = ours.into_iter().filter(|row| self.is_moved(row));
        let put = ours
            .filter(|row| there.remove(&packed(row)).as_ref() != Some(row))
            .collect();
        let dropped = there.values().map(|row| self.key_of(row)).collect();
        (put, dropped)
    }

    pub(super) fn drop_rows(&self, conn: &Connection, keys: &[RowValues]) -> Result<()> {
        let sql = format!(
            "DELETE FROM {} WHERE ({}) = ({})",
            self.name,
            list(&self.key_columns()),
            places(1..=self.key.len())
        );
        for key in keys {
            let key: Vec<&Value> = key.iter().collect();
            conn.execute(&sql, &lent(&key)[..])?;
        }
        Ok(())
    }

    /// Adds rows, or changes those that are there.
    pub(super) fn put_rows(
        &self,
        conn: &Connection,
        rows: &[RowValues],
    ) -> std::result::Result<(), MoveError> {
        for chunk in rows.chunks(CHUNK) {
            if self.attempt(conn, chunk).is_err() {
                // One of them is in another's way, or is not taken.
                for row in chunk {
                    self.put_row(conn, row)?;
                }
            }
        }
        Ok(())
    }

    fn put_row(&self, conn: &Connection, row: &RowValues) -> std::result::Result<(), MoveError> {
        let put = self.attempt(conn, std::slice::from_ref(row)).or_else(|_| {
            self.make_way(conn, row)?;
            self.attempt(conn, std::slice::from_ref(row))
        });
        put.map_err(|error| {
            let key: Vec<String> = self.key_of(row).iter().map(shown).collect();
            MoveError::Row {
                table: self.name.clone(),
                key: key.join(", "),
                why: error.plain(),
            }
        })
    }

    /// Writes rows wholly or not at all.
    fn attempt(&self, conn: &Connection, rows: &[RowValues]) -> Result<()> {
        conn.batch("SAVEPOINT part")?;
        let values: Vec<&Value> = rows.iter().flatten().collect();
        match conn.execute(&self.upsert(rows.len()), &lent(&values)[..]) {
            Ok(_) => conn.batch("RELEASE part"),
            Err(error) => {
                conn.batch("ROLLBACK TO part; RELEASE part")?;
                Err(error)
            }
        }
    }

    fn upsert(&self, rows: usize) -> String {
        let width = self.columns.len();
        let each =
            (0..rows).map(|row| format!("({})", places(row * width + 1..=(row + 1) * width)));
        let each: Vec<String> = each.collect();
        let rest = (0..width).filter(|place| !self.key.contains(place));
        let set: Vec<String> = rest
            .filter_map(|place| self.columns.get(place))
            .map(|column| format!("\"{column}\" = excluded.\"{column}\""))
            .collect();
        let conflict = match set.is_empty() {
            true => "ON CONFLICT DO NOTHING".to_owned(),
            false => format!(
                "ON CONFLICT ({}) DO UPDATE SET {}",
                list(&self.key_columns()),
                set.join(", ")
            ),
        };
        format!(
            "INSERT INTO {} ({}) VALUES {} {conflict}",
            self.name,
            list(&self.columns),
            each.join(", ")
        )
    }

    /// Drops rows that hold what only one may: their successors come with a later part, or with the next pass.
    fn make_way(&self, conn: &Connection, row: &RowValues) -> Result<()> {
        for (places_of, which) in &self.unique {
            let named: Vec<String> = places_of
                .iter()
                .filter_map(|at| self.columns.get(*at))
                .cloned()
                .collect();
            let key = self.key_of(row);
            let mut values: Vec<&Value> = places_of.iter().filter_map(|at| row.get(*at)).collect();
            values.extend(&key);
            let sql = format!(
                "DELETE FROM {} WHERE ({}) = ({}) AND NOT (({}) = ({})){}",
                self.name,
                list(&named),
                places(1..=named.len()),
                list(&self.key_columns()),
                places(named.len() + 1..=values.len()),
                which
                    .as_ref()
                    .map_or(String::new(), |which| format!(" AND ({which})"))
            );
            conn.execute(&sql, &lent(&values)[..])?;
        }
        Ok(())
    }

    /// Everything that is in it.
    pub(super) fn tally(&self, conn: &Connection) -> Result<Tally> {
        let mut tally = Tally { rows: 0, sum: 0 };
        let sql = format!("SELECT {} FROM {}", list(&self.columns), self.name);
        conn.each(&sql, [], None, |row| {
            let values = self.values(row)?;
            if self.is_moved(&values) {
                let hash: [u8; 32] = Sha256::digest(pack(&values)).into();
                let (half, _) = hash.split_first_chunk::<16>().unwrap_or((&[0; 16], &[]));
                tally.rows += 1;
                tally.sum = tally.sum.wrapping_add(u128::from_le_bytes(*half));
            }
            Ok(true)
        })?;
        Ok(tally)
    }

    /// The last number that a row of it was given, whether that is still there or not.
    pub(super) fn last_drawn(&self, conn: &Connection) -> Result<Num> {
        let noted = match conn.file() {
            Some(_) => conn.first(
                "SELECT seq FROM sqlite_sequence WHERE name = ?1",
                [&self.name],
                |row| row.get(0),
            )?,
            None => db::meta(conn, &self.last_number())?,
        };
        let sql = format!(
            "SELECT max({}) FROM {}",
            list(&self.key_columns()),
            self.name
        );
        let there: Option<Option<Num>> = conn.first(&sql, [], |row| row.get(0))?;
        Ok(noted.unwrap_or(0).max(there.flatten().unwrap_or(0)))
    }

    /// The next row gets a number above this one.
    pub(super) fn go_on_from(&self, conn: &Connection, last: Num) -> Result<()> {
        if conn.file().is_none() {
            return db::set_meta(conn, &self.last_number(), last);
        }
        let sql = "UPDATE sqlite_sequence SET seq = ?2 WHERE name = ?1";
        if conn.execute(sql, (&self.name, last))? == 0 {
            let sql = "INSERT INTO sqlite_sequence (name, seq) VALUES (?1, ?2)";
            conn.execute(sql, (&self.name, last))?;
        }
        Ok(())
    }

    fn last_number(&self) -> String {
        format!("{LAST_NUMBER}{}", self.name)
    }
}

/// How facts begin that are the last number of a table.
const LAST_NUMBER: &str = "last_";

fn unique(
    file: &Connection,
    table: &str,
    columns: &[String],
) -> Result<Vec<(Vec<usize>, Option<String>)>> {
    let sql = "SELECT i.name, c.name, s.sql FROM pragma_index_list(?1) i JOIN pragma_index_info(i.name) c \
               LEFT JOIN sqlite_schema s ON s.type = 'index' AND s.name = i.name \
               WHERE i.\"unique\" = 1 AND i.origin <> 'pk' ORDER BY i.name, c.seqno";
    let mut found: BTreeMap<String, (Vec<usize>, Option<String>)> = BTreeMap::new();
    file.each(sql, [table], None, |row| {
        let (index, column): (String, String) = (row.get(0)?, row.get(1)?);
        let which = row.get::<_, Option<String>>(2)?;
        let which = which.and_then(|sql| Some(sql.split_once(" WHERE ")?.1.to_owned()));
        let (places, _) = found.entry(index).or_insert((Vec::new(), which));
        places.extend(columns.iter().position(|one| *one == column));
        Ok(true)
    })?;
    Ok(found.into_values().collect())
}

fn list(columns: &[String]) -> String {
    let quoted: Vec<String> = columns
        .iter()
        .map(|column| format!("\"{column}\""))
        .collect();
    quoted.join(", ")
}

fn places(places: std::ops::RangeInclusive<usize>) -> String {
    let each: Vec<String> = places.map(|place| format!("?{place}")).collect();
    each.join(", ")
}

fn within(bounds: &[Option<String>]) -> String {
    let bounds: Vec<&str> = bounds.iter().flatten().map(String::as_str).collect();
    match bounds.is_empty() {
        true => String::new(),
        false => format!(" WHERE {}", bounds.join(" AND ")),
    }
}

fn lent<'a>(values: &[&'a Value]) -> Vec<&'a dyn ToSql> {
    values.iter().map(|value| *value as &dyn ToSql).collect()
}

/// Values as bytes, so that no two lists of them are the same bytes.
fn pack(values: &[Value]) -> Vec<u8> {
    let mut packed = Vec::new();
    let mut add = |kind: u8, bytes: &[u8]| {
        packed.push(kind);
        packed.extend((bytes.len() as u64).to_le_bytes());
        packed.extend(bytes);
    };
    for value in values {
        match value {
            Value::Null => add(b'n', &[]),
            Value::Integer(number) => add(b'i', &number.to_le_bytes()),
            Value::Real(number) => add(b'r', &number.to_le_bytes()),
            Value::Text(text) => add(b's', text.as_bytes()),
            Value::Blob(bytes) => add(b'b', bytes),
        }
    }
    packed
}

/// A value of a key, for people.
fn shown(value: &Value) -> String {
    match value {
        Value::Integer(number) => number.to_string(),
        Value::Text(text) => text.clone(),
        Value::Null | Value::Real(_) | Value::Blob(_) => "?".to_owned(),
    }
}
