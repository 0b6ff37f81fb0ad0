//! The ledger of deliveries: one permanent row per (sink, identity), pending while `wanted` is ahead
//! of `delivered`. A newer version replaces an undelivered older one by itself.

use std::collections::BTreeSet;

use rusqlite::{Row, params};

use super::{
    aside::RowKind,
    columns::{self, micros, signed},
    db::{Db, Txn},
    error::Outcome,
};
use crate::model::{Name, Num, Placed, SinkName, Timestamp, Version};

/// A delivery that is pending, or a row of the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The identity's row.
    pub num: Num,
    /// Its name.
    pub name: Name,
    /// The sink.
    pub sink: SinkName,
    /// The version that the consumer should hold.
    pub wanted: Version,
    /// The version that it confirmed; 0 before the first.
    pub delivered: Version,
    /// Failed attempts at `wanted`.
    pub attempts: u32,
    /// The next attempt, while pending.
    pub next_at: Timestamp,
    /// Since when it is pending, over newer versions; of no meaning while it is not.
    pub since: Timestamp,
    /// How the last attempt at `wanted` failed.
    pub last_error: Option<String>,
    /// When the identity's token ends.
    pub expires_at: Option<Timestamp>,
}

impl Delivery {
    /// Whether there is something to deliver.
    pub fn is_pending(&self) -> bool {
        self.wanted > self.delivered
    }
}

/// How an attempt at a delivery ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// The consumer has this version.
    Delivered {
        /// The sink.
        sink: SinkName,
        /// The row.
        num: Num,
        /// The version that was delivered.
        version: Version,
    },
    /// It failed; ignored when a newer version is wanted by now.
    Failed {
        /// The sink.
        sink: SinkName,
        /// The row.
        num: Num,
        /// The version that was attempted.
        version: Version,
        /// The next attempt.
        next_at: Timestamp,
        /// Why, in one sentence.
        error: String,
    },
    /// Where the row's file lies now, or that there is none any more.
    Placed {
        /// The sink.
        sink: SinkName,
        /// The row.
        num: Num,
        /// The file.
        placed: Option<Placed>,
    },
}

pub(super) const PENDING: &str = "SELECT d.identity AS num, d.sink AS sink_num, i.name, s.name AS sink, d.wanted, d.delivered, \
    d.attempts, d.next_at, d.since, d.last_error, i.expires_at \
    FROM delivery d JOIN identity i ON i.num = d.identity JOIN sink s ON s.num = d.sink \
    WHERE d.sink = ?1 AND d.wanted > d.delivered AND d.next_at <= ?2 \
    AND NOT EXISTS (SELECT 1 FROM sink_after a JOIN delivery e ON e.identity = d.identity AND e.sink = a.earlier \
    WHERE a.sink = d.sink AND e.delivered < d.wanted) ORDER BY d.next_at, d.identity";
pub(super) const NEXT_PENDING: &str = "SELECT d.next_at, d.identity AS num, d.sink AS sink_num FROM delivery d \
    WHERE d.sink = ?1 AND d.wanted > d.delivered \
    AND NOT EXISTS (SELECT 1 FROM sink_after a JOIN delivery e ON e.identity = d.identity AND e.sink = a.earlier \
    WHERE a.sink = d.sink AND e.delivered < d.wanted) ORDER BY d.next_at";
const OF_IDENTITY: &str = "SELECT d.identity AS num, d.sink AS sink_num, i.name, s.name AS sink, d.wanted, d.delivered, \
    d.attempts, d.next_at, d.since, d.last_error, i.expires_at \
    FROM delivery d JOIN identity i ON i.num = d.identity JOIN sink s ON s.num = d.sink \
    WHERE d.identity = ?1 ORDER BY s.name";
const PAGE: &str = "SELECT d.identity AS num, d.sink AS sink_num, i.name, s.name AS sink, d.wanted, d.delivered, \
    d.attempts, d.next_at, d.since, d.last_error, i.expires_at \
    FROM delivery d JOIN identity i ON i.num = d.identity JOIN sink s ON s.num = d.sink \
    WHERE d.sink = ?1 AND d.identity > ?2 AND d.wanted > 0 ORDER BY d.identity";

impl Db {
    /// What is to be delivered now, the longest waiting first.
    pub(super) fn pending(
        &self,
        sink: &str,
        now: Timestamp,
        limit: usize,
        skip: &BTreeSet<Num>,
    ) -> Outcome<Vec<Delivery>> {
        let params = params![self.sink_num(sink)?, micros(now)];
        Ok(
            self.some(RowKind::Delivery, limit, PENDING, params, |row| match skip
                .contains(&row.get("num")?)
            {
                true => Ok(None),
                false => read_delivery(row).map(Some),
            })?,
        )
    }

    /// When the next attempt of those that are not to be skipped is to be made.
    pub(super) fn next_pending(
        &self,
        sink: &str,
        skip: &BTreeSet<Num>,
    ) -> Outcome<Option<Timestamp>> {
        let mut skip = skip.clone();
        skip.extend(self.aside.nums(RowKind::Delivery));
        let params = [self.sink_num(sink)?];
        let heads = self.some(RowKind::Delivery, 1, NEXT_PENDING, params, |row| {
            let at = columns::instant_in(row, "next_at")?;
            Ok((!skip.contains(&row.get("num")?)).then_some(at))
        })?;
        Ok(heads.first().copied())
    }

    pub(super) fn deliveries_of(&self, num: Num) -> Outcome<Vec<Delivery>> {
        Ok(self.all(RowKind::Delivery, OF_IDENTITY, [num], read_delivery)?)
    }

    /// A sink's rows in the order of their numbers, whether pending or not.
    pub(super) fn delivery_page(
        &self,
        sink: &str,
        after: Num,
        limit: usize,
    ) -> Outcome<Vec<Delivery>> {
        let params = [self.sink_num(sink)?, after];
        Ok(self.page(RowKind::Delivery, limit, PAGE, params, read_delivery)?)
    }
}

impl Txn<'_> {
    pub(super) fn settle(&mut self, settled: &[Settled]) -> Outcome<()> {
        for one in settled {
            if let Settled::Delivered { sink, .. } = one {
                self.effects.wanted |= self.is_awaited(sink.as_str())?;
            }
            match one {
                Settled::Delivered { sink, num, version } => self.run(
                    "UPDATE delivery SET delivered = max(delivered, ?3), \
                     live_until = iif(?3 < delivered OR live_until IS NULL, live_until, coalesce((SELECT CASE ?3 \
                     WHEN i.version THEN i.good_until WHEN i.prev_version THEN i.prev_until END \
                     FROM identity i WHERE i.num = ?1), -1)), \
                     live_key = iif(?3 < delivered, live_key, (SELECT CASE ?3 \
                     WHEN i.version THEN i.minted_by WHEN i.prev_version THEN i.prev_key END \
                     FROM identity i WHERE i.num = ?1)), \
                     attempts = iif(?3 >= wanted, 0, attempts), last_error = iif(?3 >= wanted, NULL, last_error) \
                     WHERE identity = ?1 AND sink = ?2",
                    [*num, self.sink_num(sink.as_str())?, signed(version.0)],
                )?,
                Settled::Failed {
                    sink,
                    num,
                    version,
                    next_at,
                    error,
                } => self.run(
                    "UPDATE delivery SET attempts = attempts + 1, next_at = ?4, last_error = ?5 \
                     WHERE identity = ?1 AND sink = ?2 AND wanted = ?3 AND delivered < ?3",
                    params![
                        num,
                        self.sink_num(sink.as_str())?,
                        signed(version.0),
                        micros(*next_at),
                        error
                    ],
                )?,
                Settled::Placed { sink, num, placed } => {
                    self.place(self.sink_num(sink.as_str())?, *num, placed.as_ref())?;
                    0
                }
            };
        }
        Ok(())
    }

    /// Whether another sink delivers after this one.
    fn is_awaited(&self, sink: &str) -> Outcome<bool> {
        let sql = "SELECT 1 FROM sink_after WHERE earlier = ?1";
        let found = self.first(sql, [self.sink_num(sink)?], |_| Ok(()))?;
        Ok(found.is_some())
    }

    /// Lets a sink deliver a version only once these others have; those that an identity does not use
    /// are not waited for.
    pub(super) fn set_after(&mut self, sink: &str, earlier: &[SinkName]) -> Outcome<()> {
        let num = self.sink_num(sink)?;
        self.run("DELETE FROM sink_after WHERE sink = ?1", [num])?;
        for name in earlier {
            let sql = "INSERT OR IGNORE INTO sink_after (sink, earlier) VALUES (?1, ?2)";
            self.run(sql, [num, self.sink_num(name.as_str())?])?;
        }
        Ok(())
    }

    /// Makes everything pending of a sink due now.
    pub(super) fn hasten(&mut self, sink: &str, now: Timestamp) -> Outcome<()> {
        let params = [self.sink_num(sink)?, micros(now)];
        let sql = "UPDATE delivery SET next_at = ?2 WHERE sink = ?1 AND wanted > delivered AND next_at > ?2";
        self.effects.wanted |= self.run(sql, params)? > 0;
        Ok(())
    }

    /// Wants the newest version delivered once more, by one sink or by all.
    pub(super) fn redeliver(
        &mut self,
        num: Num,
        sink: Option<&str>,
        now: Timestamp,
    ) -> Outcome<()> {
        let sink = sink.map(|sink| self.sink_num(sink)).transpose()?;
        self.run(
            "UPDATE delivery SET since = iif(wanted > delivered, since, ?3), delivered = min(delivered, wanted - 1), \
             attempts = 0, next_at = ?3, last_error = NULL WHERE identity = ?1 AND (?2 IS NULL OR sink = ?2) AND wanted > 0",
            params![num, sink, micros(now)],
        )?;
        self.effects.wanted = true;
        Ok(())
    }

    /// Gives an identity the ledger rows of these sinks: those that are new want the version that
    /// there is, those that are gone are dropped. Sinks that are not configured are left out.
    pub(super) fn bind(
        &mut self,
        num: Num,
        sinks: &[SinkName],
        version: Version,
        now: Timestamp,
    ) -> Outcome<()> {
        let mut nums = BTreeSet::new();
        for sink in sinks {
            let sql = "SELECT num FROM sink WHERE name = ?1 AND configured = 1";
            nums.extend(self.first(sql, [sink.as_str()], |row| row.get::<_, Num>(0))?);
        }
        let bound = self.all(
            RowKind::Delivery,
            "SELECT identity AS num, sink AS sink_num FROM delivery WHERE identity = ?1",
            [num],
            |row| row.get::<_, Num>("sink_num"),
        )?;
        for sink in bound.iter().filter(|sink| !nums.contains(sink)) {
            let sql = "DELETE FROM delivery WHERE identity = ?1 AND sink = ?2";
            self.run(sql, [num, *sink])?;
            self.effects.wanted = true;
        }
        for sink in nums.iter().filter(|sink| !bound.contains(sink)) {
            self.run(
                "INSERT INTO delivery (identity, sink, wanted, next_at, since, live_until) VALUES (?1, ?2, ?3, ?4, ?4, \
                 (SELECT iif(due_at IS NULL, NULL, 0) FROM identity WHERE num = ?1))",
                params![num, sink, signed(version.0), micros(now)],
            )?;
            self.effects.wanted |= version > Version(0);
        }
        self.run(
            "UPDATE identity SET by_socket = ?2 WHERE num = ?1 AND by_socket <> ?2",
            params![num, nums.is_empty()],
        )?;
        Ok(())
    }
}

pub(super) fn read_delivery(row: &Row<'_>) -> rusqlite::Result<Delivery> {
    Ok(Delivery {
        num: row.get("num")?,
        name: columns::parsed(row, "name")?,
        sink: columns::parsed(row, "sink")?,
        wanted: Version(columns::unsigned(row, "wanted")?),
        delivered: Version(columns::unsigned(row, "delivered")?),
        attempts: row.get("attempts")?,
        next_at: columns::instant_in(row, "next_at")?,
        since: columns::instant_in(row, "since")?,
        last_error: row.get("last_error")?,
        expires_at: columns::maybe_instant(row, "expires_at")?,
    })
}
