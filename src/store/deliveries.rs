//! Deliveries: one permanent row per (sink, identity), pending while `wanted` is ahead of `delivered`, so that a newer
//! version replaces an undelivered older one by itself.
//!
//! Operators list them, try them at once and have them delivered once more.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    Each, Store,
    aside::RowKind,
    db::{self, Db, Txn, in_order, listed, micros, signed},
    error::{Answer, Outcome, StoreError},
    identities::Consignment,
    sinks::{DUE_NOW, StoredSink},
    tables::{Counting, Handed},
};
use crate::{
    model::{Name, NameError, Num, Placed, SinkAt, SinkName, Timestamp, Version},
    sql::{self, Null, Row, SqlError, params},
};

/// A delivery that is pending, or a row of the delivery table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    pub num: Num,
    pub name: Name,
    pub sink: SinkAt,
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

/// What a sink has to deliver.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pending {
    pub deliveries: Vec<Delivery>,
    /// The earliest next attempt of all others that are pending and were not to be skipped; it may have passed.
    pub next_at: Option<Timestamp>,
}

/// How an attempt at a delivery ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// The consumer has this version.
    Delivered {
        sink: SinkAt,
        num: Num,
        /// The version that was delivered.
        version: Version,
    },
    /// It failed; ignored when a newer version is wanted by now.
    Failed {
        sink: SinkAt,
        num: Num,
        /// The version that was attempted.
        version: Version,
        next_at: Timestamp,
        /// Why, in one sentence.
        error: String,
    },
    /// Where the row's file lies now, or that there is none any more.
    Placed {
        sink: SinkAt,
        num: Num,
        placed: Option<Placed>,
    },
}

/// The columns that a [`Delivery`] is read from; `$sink` and `$node` are those of its sink.
macro_rules! delivery_columns {
    ($sink:literal, $node:literal) => {
        concat!(
            "d.identity AS num, d.sink AS sink_num, i.name, ",
            $sink,
            " AS sink, d.wanted, d.delivered, d.attempts, d.next_at, d.since, d.last_error, i.expires_at, ",
            $node,
            " AS node"
        )
    };
}

pub(super) use delivery_columns;

/// What is pending for a sink that comes after no other, the longest waiting first.
pub(super) const PENDING: &str = "SELECT d.next_at, d.identity AS num, d.sink AS sink_num FROM delivery d \
    WHERE d.sink = ?1 AND d.wanted > d.delivered ORDER BY d.next_at, d.identity";
/// The same of one that waits for others.
const PENDING_AFTER: &str = "SELECT d.next_at, d.identity AS num, d.sink AS sink_num FROM delivery d \
    WHERE d.sink = ?1 AND d.wanted > d.delivered \
    AND NOT EXISTS (SELECT 1 FROM sink_after a JOIN delivery e ON e.identity = d.identity AND e.sink = a.earlier \
    WHERE a.sink = d.sink AND e.delivered < d.wanted) ORDER BY d.next_at, d.identity";
/// These deliveries of a sink, in the order of the list.
pub(super) const CHOSEN: &str = concat!(
    "SELECT ",
    delivery_columns!("?2", "?4"),
    " FROM ",
    listed!("?3"),
    " j CROSS JOIN delivery d ON d.identity = j.value AND d.sink = ?1 CROSS JOIN identity i ON i.num = d.identity",
    in_order!("j")
);
const OF_IDENTITY: &str = concat!(
    "SELECT ",
    delivery_columns!("s.name", "s.node"),
    " FROM delivery d JOIN identity i ON i.num = d.identity JOIN sink s ON s.num = d.sink \
     WHERE d.identity = ?1 ORDER BY s.name, s.node"
);
const PAGE: &str = concat!(
    "SELECT ",
    delivery_columns!("?3", "?4"),
    " FROM delivery d JOIN identity i ON i.num = d.identity \
     WHERE d.sink = ?1 AND d.identity > ?2 AND d.wanted > 0 ORDER BY d.identity"
);

impl Store {
    /// What a sink has to deliver now, but for rows in flight (`skip`), the longest waiting first.
    pub async fn pending(
        &self,
        sink: &SinkAt,
        now: Timestamp,
        limit: usize,
        skip: &BTreeSet<Num>,
    ) -> Answer<Pending> {
        let (sink, mut skip) = (sink.clone(), skip.clone());
        self.read("look for pending deliveries", move |db| {
            let StoredSink { num, waits, .. } = db.sink(&sink)?;
            let (name, node) = (sink.name().as_str(), db::node_of(&sink));
            let mut most = limit;
            loop {
                let (chosen, next_at) = db.first_pending((num, waits), (now, most), &skip)?;
                let params = params![num, name, db::list(&chosen), node];
                let deliveries =
                    db.page(RowKind::Delivery, limit, CHOSEN, params, read_delivery)?;
                // A page of rows that cannot be read hides nobody behind it. The next one is twice as long, as with
                // identities that are due; then more may wait than are read.
                if !deliveries.is_empty() || chosen.len() < most {
                    let more = most > limit && deliveries.len() == limit;
                    return Ok(Pending {
                        next_at: if more { Some(now) } else { next_at },
                        deliveries,
                    });
                }
                skip.extend(chosen);
                most = most.saturating_mul(2);
            }
        })
        .await
    }

    /// Notes how attempts at deliveries ended. Each is answered; one that the store refuses keeps no other
    /// back.
    pub async fn settle(
        &self,
        settled: impl Into<Arc<Vec<Settled>>>,
        now: Timestamp,
    ) -> Answer<Each<()>> {
        let settled = settled.into();
        self.write("note deliveries", move |txn| {
            txn.each("note a delivery", &settled, |txn, settled| {
                txn.settle(settled, now)?;
                Ok(vec![(); settled.len()])
            })
        })
        .await
    }

    /// Lets a sink deliver a version only once these others have.
    pub async fn set_after(&self, sink: &SinkAt, earlier: &[SinkName]) -> Answer<()> {
        let (sink, earlier) = (sink.clone(), earlier.to_vec());
        self.write("note the order of sinks", move |txn| {
            let num = txn.sink_num(&sink)?;
            txn.run("DELETE FROM sink_after WHERE sink = ?1", [num])?;
            for name in &earlier {
                // That of the same machine, or one that is nobody's own.
                let sql = "INSERT INTO sink_after (sink, earlier) \
                           SELECT ?1, num FROM sink WHERE name = ?2 AND node IN ('', ?3) ON CONFLICT DO NOTHING";
                let node = db::node_of(&sink);
                txn.run(sql, params![num, name.as_str(), node])?;
            }
            Ok(())
        })
        .await
    }

    /// Makes everything that is pending for a sink due now: its breaker has closed.
    pub async fn hasten(&self, sink: &SinkAt, now: Timestamp) -> Answer<()> {
        let sink = sink.clone();
        self.write("hasten deliveries", move |txn| {
            let params = [txn.sink_num(&sink)?, micros(now)];
            txn.effects.wanted |= txn.write_deliveries(DUE_NOW, params)? > 0;
            Ok(())
        })
        .await
    }

    /// Wants the newest version of a row delivered once more, to one sink or to all.
    pub async fn redeliver(&self, num: Num, sink: Option<SinkAt>, now: Timestamp) -> Answer<()> {
        self.write("deliver again", move |txn| {
            let sink = sink.as_ref().map(|sink| txn.sink_num(sink)).transpose()?;
            let which =
                "d.identity = ?1 AND (CAST(?2 AS BIGINT) IS NULL OR d.sink = ?2) AND CAST(?3 AS BIGINT) IS NULL AND CAST(?4 AS BIGINT) IS NULL";
            txn.deliver_again(which, params![num, sink, Null, Null, micros(now)])?;
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
        sink: &SinkAt,
        after: Num,
        limit: usize,
    ) -> Answer<Vec<Delivery>> {
        let sink = sink.clone();
        self.read_mirrored("list deliveries", Vec::new(), move |db| {
            let (name, node) = (sink.name().as_str(), db::node_of(&sink));
            let params = params![db.sink_num(&sink)?, after, name, node];
            Ok(db.page(RowKind::Delivery, limit, PAGE, params, read_delivery)?)
        })
        .await
    }

    /// A page of the documents that a sink should keep, in the order of the rows.
    pub async fn members(&self, sink: &SinkAt, after: Num, limit: usize) -> Answer<Vec<Member>> {
        let sink = sink.clone();
        self.read_mirrored("read a sink's tokens", Vec::new(), move |db| {
            let sql = "SELECT i.*, r.name AS resource_name, d.wanted, d.wanted > d.delivered AS pending \
                       FROM delivery d JOIN identity i ON i.num = d.identity \
                       LEFT JOIN resource r ON r.num = i.resource \
                       WHERE d.sink = ?1 AND d.identity > ?2 AND d.wanted > 0 ORDER BY d.identity";
            let params = [db.sink_num(&sink)?, after];
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
                rows.sink_num(db)?,
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
                        waits_for: read_earlier(row)?,
                    })
                },
            )?)
        })
        .await
    }

    /// Makes what is pending among these due now. How many there are.
    pub async fn retry_deliveries(&self, rows: Rows, now: Timestamp) -> Answer<usize> {
        self.write("try deliveries now", move |txn| txn.ask(false, &rows, now))
            .await
    }

    /// Wants the current version of these delivered once more. How many there are.
    pub async fn replay_deliveries(&self, rows: Rows, now: Timestamp) -> Answer<usize> {
        self.write("deliver again", move |txn| txn.ask(true, &rows, now))
            .await
    }
}

impl Db {
    /// The first rows of a sink (`waits`: that comes after others) that are pending by now, at most so many, and when
    /// the next one is to be attempted.
    fn first_pending(
        &self,
        (sink, waits): (Num, bool),
        (now, limit): (Timestamp, usize),
        skip: &BTreeSet<Num>,
    ) -> Outcome<(Vec<Num>, Option<Timestamp>)> {
        let sql = if waits { PENDING_AFTER } else { PENDING };
        let mut chosen = Vec::new();
        let next = self.some(RowKind::Delivery, 1, sql, [sink], |row| {
            let (at, num) = (db::instant_in(row, 0)?, row.get(1)?);
            if skip.contains(&num) {
                return Ok(None);
            }
            if at > now || chosen.len() >= limit {
                return Ok(Some(at));
            }
            chosen.push(num);
            Ok(None)
        })?;
        Ok((chosen, next.first().copied()))
    }
}

impl Settled {
    fn sink(&self) -> &SinkAt {
        match self {
            Self::Delivered { sink, .. }
            | Self::Failed { sink, .. }
            | Self::Placed { sink, .. } => sink,
        }
    }

    /// Where the file lies that was delivered so, if this says that.
    fn placed_of(&self, delivered: &Self) -> Option<&Placed> {
        match (self, delivered) {
            (
                Self::Placed { sink, num, placed },
                Self::Delivered {
                    sink: to, num: row, ..
                },
            ) if (sink, num) == (to, row) => placed.as_ref(),
            _ => None,
        }
    }
}

impl Txn<'_> {
    /// A sink is no more: it waits for nobody, and nobody for it.
    pub(super) fn forget_order_of(&self, sink: Num) -> Outcome<()> {
        self.run(
            "DELETE FROM sink_after WHERE sink = ?1 OR earlier = ?1",
            [sink],
        )?;
        Ok(())
    }

    pub(super) fn settle(&mut self, settled: &[Settled], now: Timestamp) -> Outcome<()> {
        let mut sinks: Vec<(&SinkAt, StoredSink)> = Vec::new();
        let mut settled = settled.iter().peekable();
        while let Some(one) = settled.next() {
            let name = one.sink();
            let known = sinks.iter().find(|(known, _)| *known == name);
            let StoredSink {
                num: sink, awaited, ..
            } = match known {
                Some((_, sink)) => *sink,
                None => {
                    let sink = self.sink(name)?;
                    sinks.push((name, sink));
                    sink
                }
            };
            match one {
                Settled::Delivered { num, version, .. } => {
                    let (num, version) = (*num, *version);
                    let handed = Handed { sink, num, version };
                    self.effects.wanted |= awaited;
                    // Its file, as a rule, is new where the last one lay.
                    let is_noted = match settled.peek().and_then(|next| next.placed_of(one)) {
                        Some(placed) => self.note_replaced(handed, placed)?,
                        None => false,
                    };
                    if is_noted {
                        settled.next();
                    }
                    if is_noted || self.note_delivered(handed)? {
                        self.items_delivered(num, now)?;
                    }
                }
                Settled::Failed {
                    num,
                    version,
                    next_at,
                    error,
                    ..
                } => {
                    let params = params![num, sink, signed(version.0), micros(*next_at), error];
                    self.write_deliveries(
                        "SET attempts = attempts + 1, next_at = ?4, last_error = ?5 \
                         WHERE identity = ?1 AND sink = ?2 AND wanted = ?3 AND delivered < ?3",
                        params,
                    )?;
                }
                Settled::Placed { num, placed, .. } => self.place(sink, *num, placed.as_ref())?,
            }
        }
        Ok(())
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
        let nums = self.configured(sinks)?;
        let bound = self.all(
            RowKind::Delivery,
            "SELECT identity AS num, sink AS sink_num FROM delivery WHERE identity = ?1",
            [num],
            |row| row.get::<_, Num>("sink_num"),
        )?;
        for sink in bound.iter().filter(|sink| !nums.contains(sink)) {
            self.remove_delivery(num, *sink)?;
            self.effects.wanted = true;
        }
        for sink in nums.iter().filter(|sink| !bound.contains(sink)) {
            let sink = *sink;
            self.add_delivery(Handed { sink, num, version }, micros(now))?;
            self.effects.wanted |= version > Version(0);
        }
        if nums.is_empty() != bound.is_empty() {
            self.write_identities(
                "SET by_socket = ?2 WHERE num = ?1 AND by_socket <> ?2",
                params![num, nums.is_empty()],
                Counting::OfRow(num),
            )?;
        }
        Ok(())
    }
}

/// The columns in the order of `delivery_columns`.
pub(super) fn read_delivery(row: &Row<'_>) -> sql::Result<Delivery> {
    Ok(Delivery {
        num: row.get(0)?,
        name: db::parsed(row, 2)?,
        sink: db::sink_at(row, (3, 11))?,
        wanted: Version(db::unsigned(row, 4)?),
        delivered: Version(db::unsigned(row, 5)?),
        attempts: row.get(6)?,
        next_at: db::instant_in(row, 7)?,
        since: db::instant_in(row, 8)?,
        last_error: row.get(9)?,
        expires_at: db::maybe_instant(row, 10)?,
    })
}

/// Sinks in one column, each with its node behind a stroke, which no name holds.
fn read_earlier(row: &Row<'_>) -> sql::Result<Vec<SinkAt>> {
    let text: Option<String> = row.get("waits_for")?;
    let broken = |e: NameError| SqlError::unreadable("waits_for", e);
    let one = |word: &str| {
        let (name, node) = word.split_once('/').unwrap_or((word, ""));
        let node = Some(node).filter(|node| !node.is_empty()).map(str::parse);
        let (name, node) = (name.parse::<SinkName>(), node.transpose());
        Ok(SinkAt::new(name.map_err(broken)?, node.map_err(broken)?))
    };
    let words = text.iter().flat_map(|text| text.split(' '));
    words.map(one).collect()
}

/// Which rows of the delivery table; what is left open matches all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rows {
    pub nums: Option<Vec<Num>>,
    pub sink: Option<SinkAt>,
    /// Those that are still to be delivered.
    pub pending: bool,
    /// Those that nothing is attempted for: of a disabled sink, or given up because the token ended.
    pub dead: bool,
}

/// A row of the delivery table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub delivery: Delivery,
    /// Sinks that come before this one and have not delivered this version yet.
    pub waits_for: Vec<SinkAt>,
}

/// What [`Rows`] says, with ?1 to ?4 bound to its fields.
macro_rules! chosen {
    () => {
        concat!(
            "(CAST(?1 AS TEXT) IS NULL OR d.identity IN (SELECT j.value FROM ",
            listed!("?1"),
            " j)) AND (CAST(?2 AS BIGINT) IS NULL OR d.sink = ?2) \
             AND (CAST(?3 AS BIGINT) = 0 OR d.wanted > d.delivered) \
             AND (CAST(?4 AS BIGINT) = 0 OR (d.wanted > d.delivered AND ( \
                 EXISTS (SELECT 1 FROM sink WHERE num = d.sink AND disabled IS NOT NULL) \
                 OR d.next_at >= (SELECT expires_at FROM identity WHERE num = d.identity))))"
        )
    };
}

/// A sink that was behind before waits for what was withdrawn since that was.
const DELIVERY_TABLE_PAGE: &str = concat!(
    "SELECT d.identity AS num, d.sink AS sink_num, i.name, s.name AS sink, d.wanted, d.delivered, d.attempts, d.next_at, \
     CASE WHEN i.state IN ('held', 'gone', 'deleted') AND i.withdrawn_at > d.since THEN i.withdrawn_at ELSE d.since END AS since, \
     d.last_error, i.expires_at, s.node, \
     (SELECT string_agg(earlier.name || '/' || earlier.node, ' ') FROM sink_after a JOIN sink earlier ON earlier.num = a.earlier \
        JOIN delivery e ON e.identity = d.identity AND e.sink = a.earlier \
        WHERE a.sink = d.sink AND d.wanted > d.delivered AND e.delivered < d.wanted) AS waits_for \
     FROM delivery d JOIN identity i ON i.num = d.identity JOIN sink s ON s.num = d.sink WHERE ",
    chosen!(),
    " AND d.identity > ?5 AND d.wanted > 0 AND s.configured = 1 ORDER BY d.identity, s.name, s.node"
);
const RETRY: &str = concat!(
    "AS d SET next_at = ?5 WHERE d.wanted > d.delivered AND ",
    chosen!()
);

impl Rows {
    fn nums_json(&self) -> Option<String> {
        self.nums.as_deref().map(db::list)
    }

    fn sink_num(&self, db: &Db) -> Outcome<Option<Num>> {
        let num = self.sink.as_ref().map(|sink| db.sink_num(sink));
        Ok(num.transpose()?)
    }
}

impl Txn<'_> {
    /// Tries what is pending of these at once, or wants all of them delivered once more.
    fn ask(&mut self, again: bool, rows: &Rows, now: Timestamp) -> Outcome<usize> {
        let params = params![
            rows.nums_json(),
            rows.sink_num(self)?,
            rows.pending,
            rows.dead,
            micros(now)
        ];
        let asked = match again {
            true => self.deliver_again(chosen!(), params)?,
            false => self.write_deliveries(RETRY, params)?,
        };
        self.effects.wanted |= asked > 0;
        Ok(asked)
    }
}

/// One of those whose documents a sink keeps together.
#[derive(Debug)]
pub struct Member {
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
            // Removed by ourselves: it is no stray.
            self.write_deliveries(
                "SET path = NULL, digest = NULL WHERE identity = ?1 AND sink = ?2 AND path IS NOT NULL",
                [num, sink],
            )?;
            return Ok(());
        };
        let path = path.to_string_lossy();
        let same = "SET digest = ?4 WHERE identity = ?1 AND sink = ?2 AND path = ?3 AND digest IS DISTINCT FROM ?4";
        if self.write_deliveries(same, params![num, sink, path, digest])? == 0 {
            let elsewhere = "d.identity = ?1 AND d.sink = ?2 AND d.path IS DISTINCT FROM ?3";
            self.leave_files(elsewhere, params![num, sink, path])?;
            let moved = "SET path = ?3, digest = ?4 WHERE identity = ?1 AND sink = ?2 AND path IS DISTINCT FROM ?3";
            let moved = self.write_deliveries(moved, params![num, sink, path, digest])?;
            if moved > 0 {
                self.take_up(sink, &path)?;
            }
            self.effects.wanted |= moved > 0;
        }
        Ok(())
    }
}
