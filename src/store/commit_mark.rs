//! The mark that each transaction in PostgreSQL leaves: where the answer to a commit does not come, it tells whether
//! the database has it. A file has no need of one: there a commit answers.

use super::{db, error::Outcome};
use crate::{
    config::{StorePlace, StoreSettings},
    sql::{self, Connection},
};

/// How the facts are called in which the machines leave their marks.
pub(super) const MARKS: &str = "commit ";

/// Leaves marks for one machine.
pub(super) struct CommitMark {
    /// The fact of this machine; none where the store lies in a file.
    key: Option<String>,
}

impl CommitMark {
    pub(super) fn of(settings: &StoreSettings) -> Self {
        let key = match &settings.place {
            StorePlace::File(_) => None,
            StorePlace::Database(_) => Some(format!("{MARKS}{}", settings.node_name())),
        };
        Self { key }
    }

    /// Leaves a new mark in the transaction that is open.
    pub(super) fn leave(&self, conn: &Connection) -> Outcome<Option<String>> {
        let Some(key) = &self.key else {
            return Ok(None);
        };
        let mark = uuid::Uuid::new_v4().to_string();
        db::set_meta(conn, key, &*mark)?;
        Ok(Some(mark))
    }

    /// Whether the transaction that left this mark was committed. Waits for one that is on its way: it holds the row.
    pub(super) fn is_committed(&self, conn: &Connection, mark: &str) -> sql::Result<bool> {
        let Some(key) = &self.key else {
            return Ok(false);
        };
        conn.begin()?;
        let sql = "SELECT value FROM meta WHERE key = ?1 FOR UPDATE";
        let found = conn.first(sql, [key], |row| row.get::<_, String>(0));
        // Nothing was changed.
        conn.batch("ROLLBACK").ok();
        Ok(found?.is_some_and(|found| found == mark))
    }
}
