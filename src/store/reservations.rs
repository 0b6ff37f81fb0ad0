//! Calls that may have been sent: written before they go out, so that the window of a limit holds over
//! `kill -9`. And the question whether the store can be written at all, asked before ACS is called.

use rusqlite::params;

use super::{
    aside::RowKind,
    columns::{self, micros, spelled},
    db::{Db, Txn},
    error::Outcome,
};
use crate::model::{Operation, Timestamp};

/// What the probe writes: about as much as a batch of results needs.
const PROBE_BYTES: usize = 64 * 1024;

impl Txn<'_> {
    pub(super) fn reserve(
        &self,
        resource: &str,
        operation: Operation,
        window: &[(u32, Timestamp)],
    ) -> Outcome<()> {
        let operation = spelled(&operation);
        self.run(
            "DELETE FROM reservation WHERE resource = ?1 AND operation = ?2",
            params![resource, operation],
        )?;
        for (permits, until) in window {
            self.run(
                "INSERT INTO reservation (resource, operation, permits, until) VALUES (?1, ?2, ?3, ?4)",
                params![resource, operation, permits, micros(*until)],
            )?;
        }
        Ok(())
    }

    /// Writes as much as a batch of results would need, and takes it back.
    pub(super) fn probe(&self) -> Outcome<()> {
        columns::set_meta(&self.conn, "probe", vec![0xa5_u8; PROBE_BYTES])?;
        columns::set_meta(&self.conn, "probe", rusqlite::types::Null)?;
        Ok(())
    }
}

impl Db {
    pub(super) fn reservations(&self, resource: &str) -> Outcome<Vec<(Operation, u32, Timestamp)>> {
        let sql = "SELECT num, operation, permits, until FROM reservation WHERE resource = ?1 ORDER BY until, num";
        Ok(self.all(RowKind::Reservation, sql, [resource], |row| {
            Ok((
                columns::word(row, "operation")?,
                row.get("permits")?,
                columns::instant_in(row, "until")?,
            ))
        })?)
    }
}
