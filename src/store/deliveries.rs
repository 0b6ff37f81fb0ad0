//! Deliveries: one permanent row per (sink, identity), pending while `wanted` is ahead of `delivered`, so that a newer
//! version replaces an undelivered older one by itself.
//!
//! Operators list them, try them at once and have them delivered once more. A sink is disabled or not, and so far
//! behind. Files that nobody speaks of any more are strays, noted by the schema's triggers in the very transaction
//! that lets go of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
};

use rusqlite::{Row, params};

use super::{
    Each, Store,
    aside::RowKind,
    db::{self, Db, Txn, micros, signed},
    error::{Answer, Outcome, StoreError},
    identities::Consignment,
};
use crate::model::{
    Name, Notice, NoticeKind, Num, Placed, ResourceName, SinkName, Timestamp, Version,
};

/// A delivery that is pending, or a row of the delivery table.
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

impl Store {
    /// What a sink has to deliver now, but for rows in flight (`skip`), the longest waiting first.
    pub async fn pending(
        &self,
        sink: &SinkName,
        now: Timestamp,
        limit: usize,
        skip: &BTreeSet<Num>,
    ) -> Answer<Vec<Delivery>> {
        let (sink, skip) = (sink.clone(), skip.clone());
        self.read("look for pending deliveries", move |db| {
            let params = params![db.sink_num(sink.as_str())?, micros(now)];
            Ok(
                db.some(RowKind::Delivery, limit, PENDING, params, |row| match skip
                    .contains(&row.get("num")?)
                {
                    true => Ok(None),
                    false => read_delivery(row).map(Some),
                })?,
            )
        })
        .await
    }

    /// The earliest next attempt of a sink, but for rows in `skip`; it may have passed.
    pub async fn next_pending(
        &self,
        sink: &SinkName,
        skip: &BTreeSet<Num>,
    ) -> Answer<Option<Timestamp>> {
        let (sink, skip) = (sink.clone(), skip.clone());
        self.read("look for the next delivery", move |db| {
            let mut skip = skip.clone();
            skip.extend(db.aside.nums(RowKind::Delivery));
            let params = [db.sink_num(sink.as_str())?];
            let heads = db.some(RowKind::Delivery, 1, NEXT_PENDING, params, |row| {
                let at = db::instant_in(row, "next_at")?;
                Ok((!skip.contains(&row.get("num")?)).then_some(at))
            })?;
            Ok(heads.first().copied())
        })
        .await
    }

    /// Notes how attempts at deliveries ended. Each is answered; one that the store refuses keeps no other
    /// back.
    pub async fn settle(&self, settled: impl Into<Arc<Vec<Settled>>>) -> Answer<Each<()>> {
        let settled = settled.into();
        self.write("note deliveries", move |txn| {
            txn.each("note a delivery", &settled, |txn, settled| {
                txn.settle(settled)?;
                Ok(vec![(); settled.len()])
            })
        })
        .await
    }

    /// Lets a sink deliver a version only once these others have.
    pub async fn set_after(&self, sink: &SinkName, earlier: &[SinkName]) -> Answer<()> {
        let (sink, earlier) = (sink.clone(), earlier.to_vec());
        self.write("note the order of sinks", move |txn| {
            let num = txn.sink_num(sink.as_str())?;
            txn.run("DELETE FROM sink_after WHERE sink = ?1", [num])?;
            for name in &earlier {
                let sql = "INSERT OR IGNORE INTO sink_after (sink, earlier) VALUES (?1, ?2)";
                txn.run(sql, [num, txn.sink_num(name.as_str())?])?;
            }
            Ok(())
        })
        .await
    }

    /// Makes everything that is pending for a sink due now: its breaker has closed.
    pub async fn hasten(&self, sink: &SinkName, now: Timestamp) -> Answer<()> {
        let sink = sink.clone();
        self.write("hasten deliveries", move |txn| {
            let params = [txn.sink_num(sink.as_str())?, micros(now)];
            let sql = "UPDATE delivery SET next_at = ?2 WHERE sink = ?1 AND wanted > delivered AND next_at > ?2";
            txn.effects.wanted |= txn.run(sql, params)? > 0;
            Ok(())
        })
        .await
    }

    /// Wants the newest version of a row delivered once more, to one sink or to all.
    pub async fn redeliver(&self, num: Num, sink: Option<SinkName>, now: Timestamp) -> Answer<()> {
        self.write("deliver again", move |txn| {
            let sink = sink.as_ref().map(SinkName::as_str);
            let sink = sink.map(|sink| txn.sink_num(sink)).transpose()?;
            txn.run(
                "UPDATE delivery SET since = iif(wanted > delivered, since, ?3), delivered = min(delivered, wanted - 1), \
                 attempts = 0, next_at = ?3, last_error = NULL WHERE identity = ?1 AND (?2 IS NULL OR sink = ?2) AND wanted > 0",
                params![num, sink, micros(now)],
            )?;
            txn.effects.wanted = true;
            Ok(())
        })
        .await
    }

    /// The deliveries of one row.
    pub async fn deliveries_of(&self, num: Num) -> Answer<Vec<Delivery>> {
        self.read("list deliveries", move |db| {
            Ok(db.all(RowKind::Delivery, OF_IDENTITY, [num], read_delivery)?)
        })
        .await
    }

    /// A page of a sink's deliveries that have something to hold, pending or not, in the order of
    /// their rows; for restoring files at start.
    pub async fn delivered_page(
        &self,
        sink: &SinkName,
        after: Num,
        limit: usize,
    ) -> Answer<Vec<Delivery>> {
        let sink = sink.clone();
        self.read("list deliveries", move |db| {
            let params = [db.sink_num(sink.as_str())?, after];
            Ok(db.page(RowKind::Delivery, limit, PAGE, params, read_delivery)?)
        })
        .await
    }

    /// Why a sink is disabled, if it is.
    pub async fn sink_disabled(&self, sink: &SinkName) -> Answer<Option<Disabled>> {
        let sink = sink.clone();
        self.read("look a sink up", move |db| db.sink_disabled(sink.as_str()))
            .await
    }

    /// Disables a sink, over restarts, and raises the notice of it for every other sink.
    pub async fn disable_sink(
        &self,
        sink: &SinkName,
        disabled: Disabled,
        now: Timestamp,
    ) -> Answer<()> {
        let sink = sink.clone();
        self.write("disable a sink", move |txn| {
            let sink = sink.as_str();
            let was = txn.sink_disabled(sink)?;
            txn.run(
                "UPDATE sink SET disabled = ?2, paused = max(paused, ?3) WHERE name = ?1",
                params![sink, disabled.why, disabled.by_command],
            )?;
            if was.is_none() {
                txn.tell_of_disabled(sink, &disabled.why, now)?;
            }
            txn.effects.wanted = true;
            Ok(())
        })
        .await
    }

    /// Enables a sink; everything that is pending for it is due now.
    pub async fn enable_sink(&self, sink: &SinkName, now: Timestamp) -> Answer<()> {
        let sink = sink.clone();
        self.write("enable a sink", move |txn| {
            let sink = sink.as_str();
            let sql = "UPDATE sink SET disabled = NULL, paused = 0 WHERE name = ?1";
            txn.run(sql, [sink])?;
            txn.run(
                "UPDATE delivery SET next_at = ?2 WHERE sink = ?1 AND wanted > delivered AND next_at > ?2",
                [txn.sink_num(sink)?, micros(now)],
            )?;
            txn.tell_enabled(sink, "is enabled: what waited for it is tried at once", now)?;
            txn.effects.wanted = true;
            Ok(())
        })
        .await
    }

    /// Notes where a sink's bundle lies, or that it has none.
    pub async fn place_bundle(&self, sink: &SinkName, placed: Option<Placed>) -> Answer<()> {
        let sink = sink.clone();
        self.write("note a bundle's file", move |txn| {
            match placed.as_ref() {
                Some(Placed { path, digest }) => {
                    let (sink, path) = (sink.as_str(), path.to_string_lossy());
                    let same = "UPDATE sink SET digest = ?3 WHERE name = ?1 AND path = ?2";
                    if txn.run(same, params![sink, path, digest])? == 0 {
                        let moved = "UPDATE sink SET path = ?2, digest = ?3 WHERE name = ?1";
                        txn.effects.wanted |= txn.run(moved, params![sink, path, digest])? > 0;
                    }
                }
                None => {
                    let sql = "UPDATE sink SET digest = NULL WHERE name = ?1";
                    txn.run(sql, [sink.as_str()])?;
                    let sql = "UPDATE sink SET path = NULL WHERE name = ?1";
                    txn.run(sql, [sink.as_str()])?;
                }
            }
            let sql =
                "UPDATE delivery SET path = NULL, digest = NULL WHERE sink = ?1 AND path IS NOT NULL";
            txn.effects.wanted |= txn.run(sql, [txn.sink_num(sink.as_str())?])? > 0;
            Ok(())
        })
        .await
    }

    /// Where a sink's bundle lies.
    pub async fn bundle_of(&self, sink: &SinkName) -> Answer<Option<Placed>> {
        let sink = sink.clone();
        self.read("look a bundle up", move |db| {
            let sql = "SELECT path, digest FROM sink WHERE name = ?1 AND digest IS NOT NULL";
            Ok(db.first(sql, [sink.as_str()], read_placed)?)
        })
        .await
    }

    /// A sink keeps a file per identity now: the bundle that it kept before becomes a stray.
    pub async fn leave_bundle(&self, sink: &SinkName) -> Answer<()> {
        let sink = sink.clone();
        self.write("let go of a bundle's file", move |txn| {
            let sql =
                "UPDATE sink SET path = NULL, digest = NULL WHERE name = ?1 AND path IS NOT NULL";
            txn.effects.wanted |= txn.run(sql, [sink.as_str()])? > 0;
            Ok(())
        })
        .await
    }

    /// Files that nobody speaks of any more and that are to be looked at now.
    pub async fn strays(&self, now: Timestamp, limit: usize) -> Answer<Vec<Stray>> {
        self.read("look for files left behind", move |db| {
            let sql = "SELECT * FROM stray WHERE next_at <= ?1 ORDER BY next_at, num";
            Ok(db.page(RowKind::Stray, limit, sql, [micros(now)], read_stray)?)
        })
        .await
    }

    /// Whether such a file is somebody's again; `by` are the sinks that would put one there.
    pub async fn is_claimed(
        &self,
        path: PathBuf,
        by: Vec<SinkName>,
        name: Option<Name>,
    ) -> Answer<bool> {
        self.read("look for a file's owner", move |db| {
            let name = name.as_ref();
            let path = path.to_string_lossy();
            let recorded = "SELECT EXISTS (SELECT 1 FROM delivery WHERE path = ?1) \
                            OR EXISTS (SELECT 1 FROM sink WHERE path = ?1)";
            if db.first(recorded, [&path], |row| row.get(0))? == Some(true) {
                return Ok(true);
            }
            for sink in &by {
                let sink = db.sink_num(sink.as_str())?;
                let found = match name {
                    Some(name) => {
                        let sql = "SELECT 1 FROM delivery WHERE sink = ?1 \
                                   AND identity = (SELECT num FROM identity WHERE name = ?2)";
                        db.first(sql, params![sink, name.as_str()], |_| Ok(()))?
                    }
                    None => {
                        let sql = "SELECT 1 FROM delivery WHERE sink = ?1 LIMIT 1";
                        db.first(sql, [sink], |_| Ok(()))?
                    }
                };
                if found.is_some() {
                    return Ok(true);
                }
            }
            Ok(false)
        })
        .await
    }

    /// Forgets strays, or puts them off until an instant.
    pub async fn settle_strays(&self, strays: Vec<(i64, Option<Timestamp>)>) -> Answer<()> {
        self.write("note files taken back", move |txn| {
            for (num, again) in &strays {
                match again {
                    None => txn.run("DELETE FROM stray WHERE num = ?1", [num])?,
                    Some(at) => {
                        let sql = "UPDATE stray SET next_at = ?2 WHERE num = ?1";
                        txn.run(sql, [*num, micros(*at)])?
                    }
                };
            }
            Ok(())
        })
        .await
    }

    /// A page of the documents that a sink should keep, in the order of the rows.
    pub async fn members(&self, sink: &SinkName, after: Num, limit: usize) -> Answer<Vec<Member>> {
        let sink = sink.clone();
        self.read("read a sink's tokens", move |db| {
            let sql = "SELECT i.*, r.name AS resource_name, d.wanted, d.wanted > d.delivered AS pending \
                       FROM delivery d JOIN identity i ON i.num = d.identity \
                       LEFT JOIN resource r ON r.num = i.resource \
                       WHERE d.sink = ?1 AND d.identity > ?2 AND d.wanted > 0 ORDER BY d.identity";
            let params = [db.sink_num(sink.as_str())?, after];
            Ok(db.page(RowKind::Identity, limit, sql, params, |row| {
                let read = db.read_consignment(row);
                if let Err(fault) = &read {
                    db.note_consignment(row, fault);
                }
                Ok(Member {
                    num: row.get("num")?,
                    wanted: Version(db::unsigned(row, "wanted")?),
                    is_pending: row.get("pending")?,
                    consignment: read
                        .map_err(|fault| StoreError::new("read a token", fault).to_string()),
                })
            })?)
        })
        .await
    }

    /// How many identities have left a sink so far.
    pub async fn losses(&self, sink: &SinkName) -> Answer<i64> {
        let sink = sink.clone();
        self.read("count who left a sink", move |db| {
            let sql = "SELECT losses FROM sink WHERE name = ?1";
            Ok(db
                .first(sql, [sink.as_str()], |row| row.get(0))?
                .unwrap_or(0))
        })
        .await
    }

    /// A page of the delivery table after this identity. A page may end within the rows of an identity, unless
    /// one sink was asked for.
    pub async fn delivery_table(
        &self,
        rows: Rows,
        after: Num,
        limit: usize,
    ) -> Answer<Vec<Listed>> {
        self.read("list deliveries", move |db| {
            let params = params![
                rows.nums_json(),
                rows.sink_name(),
                rows.pending,
                rows.dead,
                after
            ];
            Ok(db.page(
                RowKind::Delivery,
                limit,
                DELIVERY_TABLE_PAGE,
                params,
                |row| {
                    Ok(Listed {
                        delivery: read_delivery(row)?,
                        waits_for: db::parsed_all(row, "waits_for")?,
                    })
                },
            )?)
        })
        .await
    }

    /// Makes what is pending among these due now. How many there are.
    pub async fn retry_deliveries(&self, rows: Rows, now: Timestamp) -> Answer<usize> {
        self.write("try deliveries now", move |txn| txn.ask(RETRY, &rows, now))
            .await
    }

    /// Wants the current version of these delivered once more. How many there are.
    pub async fn replay_deliveries(&self, rows: Rows, now: Timestamp) -> Answer<usize> {
        self.write("deliver again", move |txn| txn.ask(REPLAY, &rows, now))
            .await
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

    /// Gives an identity the delivery table rows of these sinks: those that are new want the version that
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
        name: db::parsed(row, "name")?,
        sink: db::parsed(row, "sink")?,
        wanted: Version(db::unsigned(row, "wanted")?),
        delivered: Version(db::unsigned(row, "delivered")?),
        attempts: row.get("attempts")?,
        next_at: db::instant_in(row, "next_at")?,
        since: db::instant_in(row, "since")?,
        last_error: row.get("last_error")?,
        expires_at: db::maybe_instant(row, "expires_at")?,
    })
}

/// Which rows of the delivery table; what is left open matches all.
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

/// A row of the delivery table.
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

/// A sink that was behind before waits for what was withdrawn since that was.
const DELIVERY_TABLE_PAGE: &str = concat!(
    "SELECT d.identity AS num, d.sink AS sink_num, i.name, s.name AS sink, d.wanted, d.delivered, d.attempts, d.next_at, \
     iif(i.state IN ('held', 'gone', 'deleted'), max(d.since, coalesce(i.withdrawn_at, d.since)), d.since) AS since, \
     d.last_error, i.expires_at, \
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

impl Txn<'_> {
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

/// Why nothing goes out to a sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disabled {
    /// In one sentence.
    pub why: String,
    /// Whether a command said so: then only a command enables it. Otherwise its receiver did (410),
    /// and the next start tries it again.
    pub by_command: bool,
}

pub(super) const OLDEST: &str = "SELECT since, identity AS num, sink AS sink_num FROM delivery WHERE sink = ?1 AND wanted > delivered ORDER BY since";

impl Db {
    /// Why a sink is disabled, if it is.
    pub(super) fn sink_disabled(&self, sink: &str) -> Outcome<Option<Disabled>> {
        let sql = "SELECT disabled, paused, num, name FROM sink WHERE name = ?1";
        let found = self.one(RowKind::Sink, sql, [sink], |row| {
            let why: Option<String> = row.get(0)?;
            let by_command = row.get(1)?;
            Ok(why.map(|why| Disabled { why, by_command }))
        })?;
        Ok(found.flatten())
    }

    /// Since when the oldest pending delivery of each sink is pending.
    pub(super) fn oldest_pending(&self) -> Outcome<BTreeMap<SinkName, Timestamp>> {
        let sinks = self.all(
            RowKind::Sink,
            "SELECT num, name FROM sink WHERE configured = 1",
            [],
            |row| Ok((row.get::<_, i64>(0)?, db::parsed(row, "name")?)),
        )?;
        let mut oldest = BTreeMap::new();
        for (num, name) in sinks {
            let since = self.some(RowKind::Delivery, 1, OLDEST, [num], |row| {
                db::instant_in(row, "since").map(Some)
            })?;
            oldest.extend(since.first().map(|since| (name, *since)));
        }
        Ok(oldest)
    }
}

impl Txn<'_> {
    fn tell_of_disabled(&mut self, sink: &str, why: &str, now: Timestamp) -> Outcome<()> {
        self.raise(&[Notice {
            at: now,
            kind: NoticeKind::SinkDisabled,
            resource: None,
            name: None,
            key: Some(Notice::disabled_key(sink)),
            message: format!(
                "The sink {sink} is disabled: {why}. `renewd sink enable {sink}` ends it."
            ),
        }])?;
        let sql =
            "UPDATE notice SET not_to = (SELECT num FROM sink WHERE name = ?1) WHERE seq = ?2";
        self.run(sql, params![sink, self.conn.last_insert_rowid()])?;
        Ok(())
    }

    /// That a sink is disabled is over.
    pub(super) fn tell_enabled(&mut self, sink: &str, how: &str, now: Timestamp) -> Outcome<()> {
        self.announce(&Notice {
            at: now,
            kind: NoticeKind::SinkEnabled,
            resource: None,
            name: None,
            key: Some(Notice::disabled_key(sink)),
            message: format!("The sink {sink} {how}."),
        })?;
        Ok(())
    }
}

/// A file that we once wrote and that no row speaks of any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stray {
    /// Its number.
    pub num: i64,
    /// The file.
    pub placed: Placed,
    /// The sink that wrote it, which may be configured no longer.
    pub sink: String,
    /// Whose it was; `None` for a bundle.
    pub name: Option<Name>,
    /// The resource of that identity.
    pub resource: Option<ResourceName>,
}

/// One of those whose documents a sink keeps together.
#[derive(Debug)]
pub struct Member {
    /// The identity's row.
    pub num: Num,
    /// The version that the sink should have.
    pub wanted: Version,
    /// Whether the sink does not have it yet.
    pub is_pending: bool,
    /// The document and its readers, or why they cannot be read.
    pub consignment: Result<Consignment, String>,
}

impl Txn<'_> {
    /// Notes where an identity's file lies now, or that it has none. What is noted already is written
    /// only where the content changed, so that routine renewals leave the index alone.
    pub(super) fn place(&mut self, sink: Num, num: Num, placed: Option<&Placed>) -> Outcome<()> {
        let Some(Placed { path, digest }) = placed else {
            // Removed by ourselves: without a digest the trigger sees no stray.
            self.run(
                "UPDATE delivery SET digest = NULL WHERE identity = ?1 AND sink = ?2 AND digest IS NOT NULL",
                [num, sink],
            )?;
            self.run(
                "UPDATE delivery SET path = NULL WHERE identity = ?1 AND sink = ?2 AND path IS NOT NULL",
                [num, sink],
            )?;
            return Ok(());
        };
        let path = path.to_string_lossy();
        let same = "UPDATE delivery SET digest = ?4 WHERE identity = ?1 AND sink = ?2 AND path = ?3 \
                    AND digest IS NOT ?4";
        if self.run(same, params![num, sink, path, digest])? == 0 {
            let moved = "UPDATE delivery SET path = ?3, digest = ?4 WHERE identity = ?1 AND sink = ?2 \
                         AND path IS NOT ?3";
            self.effects.wanted |= self.run(moved, params![num, sink, path, digest])? > 0;
        }
        Ok(())
    }
}

pub(super) fn read_placed(row: &Row<'_>) -> rusqlite::Result<Placed> {
    Ok(Placed {
        path: PathBuf::from(row.get::<_, String>("path")?),
        digest: row.get("digest")?,
    })
}

pub(super) fn read_stray(row: &Row<'_>) -> rusqlite::Result<Stray> {
    Ok(Stray {
        num: row.get("num")?,
        placed: read_placed(row)?,
        sink: row.get("sink")?,
        name: db::maybe_parsed(row, "name")?,
        resource: db::maybe_parsed(row, "resource")?,
    })
}
