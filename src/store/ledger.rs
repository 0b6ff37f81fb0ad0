//! The ledger for operators: listed by what they look for, tried at once, delivered once more.

use rusqlite::params;

use super::{
    aside::RowKind,
    columns::{self, micros},
    db::{Db, Txn},
    deliveries::{Delivery, read_delivery},
    error::Outcome,
};
use crate::model::{Num, SinkName, Timestamp};

/// Which rows of the ledger; what is left open matches all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rows {
    /// Of these identities.
    pub nums: Option<Vec<Num>>,
    /// Of this sink.
    pub sink: Option<SinkName>,
    /// Those that are still to be delivered.
    pub pending: bool,
    /// Those that nothing is attempted for: of a disabled sink, or given up because the token ended.
    pub dead: bool,
}

/// A row of the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The delivery.
    pub delivery: Delivery,
    /// Sinks that come before this one and have not delivered this version yet.
    pub waits_for: Vec<SinkName>,
}

/// What [`Rows`] says, with ?1 to ?4 bound to its fields.
macro_rules! chosen {
    () => {
        "(?1 IS NULL OR d.identity IN (SELECT value FROM json_each(?1))) \
         AND (?2 IS NULL OR d.sink = (SELECT num FROM sink WHERE name = ?2)) \
         AND (?3 = 0 OR d.wanted > d.delivered) \
         AND (?4 = 0 OR (d.wanted > d.delivered AND ( \
             EXISTS (SELECT 1 FROM sink WHERE num = d.sink AND disabled IS NOT NULL) \
             OR d.next_at >= (SELECT expires_at FROM identity WHERE num = d.identity))))"
    };
}

const PAGE: &str = concat!(
    "SELECT d.identity AS num, d.sink AS sink_num, i.name, s.name AS sink, d.wanted, d.delivered, \
     d.attempts, d.next_at, d.since, d.last_error, i.expires_at, \
     (SELECT group_concat(earlier.name, ' ') FROM sink_after a JOIN sink earlier ON earlier.num = a.earlier \
        JOIN delivery e ON e.identity = d.identity AND e.sink = a.earlier \
        WHERE a.sink = d.sink AND d.wanted > d.delivered AND e.delivered < d.wanted) AS waits_for \
     FROM delivery d JOIN identity i ON i.num = d.identity JOIN sink s ON s.num = d.sink WHERE ",
    chosen!(),
    " AND d.identity > ?5 AND d.wanted > 0 AND s.configured = 1 ORDER BY d.identity, s.name"
);
const RETRY: &str = concat!(
    "UPDATE delivery AS d SET next_at = ?5 WHERE d.wanted > d.delivered AND ",
    chosen!()
);
const REPLAY: &str = concat!(
    "UPDATE delivery AS d SET since = iif(d.wanted > d.delivered, d.since, ?5), \
     delivered = min(d.delivered, d.wanted - 1), attempts = 0, next_at = ?5, last_error = NULL \
     WHERE d.wanted > 0 AND ",
    chosen!()
);

impl Rows {
    fn nums_json(&self) -> Option<String> {
        let nums = self.nums.as_ref()?;
        let words: Vec<String> = nums.iter().map(Num::to_string).collect();
        Some(format!("[{}]", words.join(",")))
    }

    fn sink_name(&self) -> Option<&str> {
        self.sink.as_ref().map(SinkName::as_str)
    }
}

impl Db {
    /// Rows after this identity, in the order of identities and then of sinks. A page may end within
    /// the rows of an identity, unless one sink was asked for.
    pub(super) fn ledger(&self, rows: &Rows, after: Num, limit: usize) -> Outcome<Vec<Listed>> {
        let params = params![
            rows.nums_json(),
            rows.sink_name(),
            rows.pending,
            rows.dead,
            after
        ];
        Ok(self.page(RowKind::Delivery, limit, PAGE, params, |row| {
            Ok(Listed {
                delivery: read_delivery(row)?,
                waits_for: columns::parsed_all(row, "waits_for")?,
            })
        })?)
    }
}

impl Txn<'_> {
    /// Makes what is pending among these due now. How many there are.
    pub(super) fn retry(&mut self, rows: &Rows, now: Timestamp) -> Outcome<usize> {
        self.ask(RETRY, rows, now)
    }

    /// Wants the current version of these delivered once more. How many there are.
    pub(super) fn replay(&mut self, rows: &Rows, now: Timestamp) -> Outcome<usize> {
        self.ask(REPLAY, rows, now)
    }

    fn ask(&mut self, sql: &str, rows: &Rows, now: Timestamp) -> Outcome<usize> {
        let params = params![
            rows.nums_json(),
            rows.sink_name(),
            rows.pending,
            rows.dead,
            micros(now)
        ];
        let asked = self.run(sql, params)?;
        self.effects.wanted |= asked > 0;
        Ok(asked)
    }
}
