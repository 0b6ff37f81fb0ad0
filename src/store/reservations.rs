//! Calls that may have been sent: written before they go out, so that the window of a limit holds over
//! `kill -9`. And the question whether the store can be written at all, asked before ACS is called.

use super::{
    Store,
    aside::RowKind,
    db::{self, micros, next_number, spelled},
    error::Answer,
};
use crate::{
    model::{Operation, ResourceName, Timestamp},
    sql::{self, params},
};

fn hold_key(resource: &ResourceName, operation: Operation) -> String {
    format!("hold {resource} {operation}")
}

fn read_hold(hold: &str) -> Option<(Timestamp, u32)> {
    let (until, thousandths) = hold.split_once(' ')?;
    let until = Timestamp::from_microsecond(until.parse().ok()?).ok()?;
    Some((until, thousandths.parse().ok()?))
}

impl Store {
    /// Notes the calls that count or may be sent, and until when; before they are sent. It takes the place
    /// of what was noted of this operation before.
    pub async fn reserve(
        &self,
        resource: &ResourceName,
        operation: Operation,
        window: Vec<(u32, Timestamp)>,
    ) -> Answer<()> {
        let resource = resource.clone();
        let window: Vec<(u32, Timestamp)> = window
            .into_iter()
            .map(|(permits, until)| (permits, self.by_database(until)))
            .collect();
        self.write("note calls", move |txn| {
            let resource = resource.as_str();
            let operation = spelled(&operation);
            txn.run(
                "DELETE FROM reservation WHERE resource = ?1 AND operation = ?2",
                params![resource, operation],
            )?;
            for (permits, until) in &window {
                txn.run(
                    concat!(
                        "INSERT INTO reservation (num, resource, operation, permits, until) VALUES (",
                        next_number!("reservation", "num"),
                        ", ?1, ?2, ?3, ?4)"
                    ),
                    params![resource, operation, permits, micros(*until)],
                )?;
            }
            Ok(())
        })
        .await
    }

    /// What was noted last of each operation; some of it may count no more.
    pub async fn reservations(
        &self,
        resource: &ResourceName,
    ) -> Answer<Vec<(Operation, u32, Timestamp)>> {
        let resource = resource.clone();
        let by_ours = self.by_ours();
        self.read("read noted calls", move |db| {
            let sql = "SELECT num, operation, permits, until FROM reservation WHERE resource = ?1 ORDER BY until, num";
            Ok(db.all(RowKind::Reservation, sql, [resource.as_str()], |row| {
                Ok((
                    db::word(row, "operation")?,
                    row.get("permits")?,
                    by_ours(db::instant_in(row, "until")?),
                ))
            })?)
        })
        .await
    }

    /// Notes until when a 429 holds an operation, and what of the pace it leaves, in thousandths.
    pub async fn note_hold(
        &self,
        resource: &ResourceName,
        operation: Operation,
        (until, thousandths): (Timestamp, u32),
    ) -> Answer<()> {
        let key = hold_key(resource, operation);
        let until = self.by_database(until);
        self.write("note a 429", move |txn| {
            let hold = format!("{} {thousandths}", micros(until));
            Ok(db::set_meta(&txn.conn, &key, hold)?)
        })
        .await
    }

    /// What was noted so last. What cannot be read holds nothing.
    pub async fn hold(
        &self,
        resource: &ResourceName,
        operation: Operation,
    ) -> Answer<Option<(Timestamp, u32)>> {
        let key = hold_key(resource, operation);
        let by_ours = self.by_ours();
        self.read("read noted 429s", move |db| {
            let noted = db::meta::<sql::Value>(&db.conn, &key)?;
            Ok(match noted {
                Some(sql::Value::Text(hold)) => {
                    read_hold(&hold).map(|(until, thousandths)| (by_ours(until), thousandths))
                }
                _ => None,
            })
        })
        .await
    }
}
