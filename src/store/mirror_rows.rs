//! Rows of the database as they are, on their way into a node's mirror.

use std::collections::BTreeMap;

use super::{
    db::{self, Txn},
    error::Outcome,
};
use crate::{
    model::{Num, Version},
    sql::{self, ToSql, Value, params},
};

/// Rows of a table, as they are.
pub(super) struct CopiedRows {
    table: &'static str,
    columns: Vec<String>,
    rows: Vec<Vec<Value>>,
}

/// The row of this name here that came after one of a database: its version is higher, or the token of that was revoked.
/// Whoever was declared anew begins anew.
const NEWER: &str = "SELECT num, version FROM identity WHERE name = ?1 AND (?2 > 0 OR num = ?3) AND (version > ?2 \
    OR (version = ?2 AND good_until = 0 AND expires_at IS NOT NULL AND NOT ?4))";

/// Identities of which the copy has a newer version than the database, which lost it: by name, with their numbers here.
#[derive(Debug, Default)]
pub(super) struct Newer {
    pub(super) versions: BTreeMap<String, Version>,
    nums: Vec<Num>,
}

impl Newer {
    /// A condition that leaves the rows out which stay as they are; `column` holds the number of an identity.
    pub(super) fn spared(&self, column: &str) -> String {
        match self.nums.is_empty() {
            true => String::new(),
            false => {
                let nums: Vec<String> = self.nums.iter().map(Num::to_string).collect();
                format!(" AND {column} NOT IN ({})", nums.join(", "))
            }
        }
    }
}

impl CopiedRows {
    pub(super) fn of(
        table: &'static str,
        columns: Vec<String>,
        find: impl FnOnce(&str, WholeRow<'_>) -> sql::Result<Vec<Vec<Value>>>,
    ) -> sql::Result<Self> {
        let (select, width) = (
            format!("SELECT {} FROM {table}", columns.join(", ")),
            columns.len(),
        );
        let rows = find(&select, &|row| {
            (0..width).map(|place| row.get(place)).collect()
        })?;
        Ok(Self {
            table,
            columns,
            rows,
        })
    }

    fn place(&self, column: &str) -> Option<usize> {
        self.columns.iter().position(|one| one == column)
    }

    /// What these two columns hold, row by row.
    pub(super) fn numbers(&self, columns: [&str; 2]) -> Vec<(i64, i64)> {
        let rows = self.rows.iter();
        rows.map(|row| (self.number(row, columns[0]), self.number(row, columns[1])))
            .collect()
    }

    /// The number of the last row.
    pub(super) fn last(&self) -> Option<Num> {
        match self.rows.last()?.first()? {
            Value::Integer(num) => Some(*num),
            _ => None,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    fn number(&self, row: &[Value], column: &str) -> i64 {
        match self.place(column).and_then(|at| row.get(at)) {
            Some(Value::Integer(number)) => *number,
            _ => 0,
        }
    }

    /// Takes those identities out of which the copy has a newer version.
    pub(super) fn take_out_older(&mut self, txn: &Txn<'_>) -> Outcome<Newer> {
        let (mut newer, mut rows) = (Newer::default(), Vec::with_capacity(self.rows.len()));
        for row in std::mem::take(&mut self.rows) {
            let name = self.place("name").and_then(|at| row.get(at));
            let (num, version) = (self.number(&row, "num"), self.number(&row, "version"));
            let is_revoked = self.number(&row, "good_until") == 0;
            let params = params![name, version, num, is_revoked];
            let here = txn.first(NEWER, params, |row| {
                Ok((row.get::<_, Num>(0)?, db::unsigned(row, 1)?))
            })?;
            match (here, name) {
                (Some((here, newest)), Some(Value::Text(name))) => {
                    if newest > version.unsigned_abs() {
                        newer.versions.insert(name.clone(), Version(newest));
                    }
                    newer.nums.extend([here, num]);
                }
                _ => rows.push(row),
            }
        }
        self.rows = rows;
        Ok(newer)
    }

    /// Takes those out that are of these identities.
    pub(super) fn take_out(&mut self, newer: &Newer, column: &str) {
        let Some(at) = self.place(column).filter(|_| !newer.nums.is_empty()) else {
            return;
        };
        let is_of = |row: &Vec<Value>| {
            let found = row.get(at);
            matches!(found, Some(Value::Integer(num)) if newer.nums.contains(num))
        };
        self.rows.retain(|row| !is_of(row));
    }

    /// The highest version among them.
    pub(super) fn highest(&self) -> u64 {
        let versions = self.rows.iter().map(|row| self.number(row, "version"));
        versions.max().unwrap_or(0).unsigned_abs()
    }

    pub(super) fn insert(&self, txn: &Txn<'_>) -> Outcome<()> {
        let (table, columns, places) = (
            self.table,
            self.columns.join(", "),
            places(self.columns.len()),
        );
        let sql = format!("INSERT INTO {table} ({columns}) VALUES ({places})");
        for row in &self.rows {
            let params: Vec<&dyn ToSql> = row.iter().map(|value| value as &dyn ToSql).collect();
            txn.run(&sql, params.as_slice())?;
        }
        Ok(())
    }

    /// Puts rows of identities in the place of whoever has their names or ids here.
    pub(super) fn put(&self, txn: &mut Txn<'_>) -> Outcome<()> {
        let column = |name| self.place(name).unwrap_or_default();
        let (name, id, wish) = (column("name"), column("id"), column("wish"));
        for row in &self.rows {
            let (Some(name), Some(id), Some(wish)) = (row.get(name), row.get(id), row.get(wish))
            else {
                continue;
            };
            txn.drop_copied_identities("name = ?1 OR id = ?2", params![name, id])?;
            if let Value::Text(wish) = wish {
                txn.count_readers("", wish);
            }
        }
        self.insert(txn)
    }
}

/// Reads every column of a row.
pub(super) type WholeRow<'a> = &'a dyn Fn(&sql::Row<'_>) -> sql::Result<Vec<Value>>;

/// So many parameters, as a list.
pub(super) fn places(count: usize) -> String {
    let places: Vec<String> = (1..=count).map(|n| format!("?{n}")).collect();
    places.join(", ")
}
