//! What the store knows of sinks: whether they are configured, disabled, how far behind; the one file of those that keep
//! their documents together; and the files that nobody speaks of any more, strays, noted in the very transaction that
//! lets go of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use super::{
    Store,
    aside::RowKind,
    db::{self, Db, Txn, drawn, draws, micros, next_number},
    error::{Answer, Outcome},
    tables::OF_SINK,
};
use crate::{
    model::{
        DispatcherView, Name, NodeName, Notice, NoticeKind, Num, Placed, ResourceName, SinkAt,
        SinkName, Timestamp,
    },
    sql::{self, Connection, Params, Row, params},
};

/// What is pending for a sink is due at an instant.
pub(super) const DUE_NOW: &str =
    "SET next_at = ?2 WHERE sink = ?1 AND wanted > delivered AND next_at > ?2";

/// What of a sink is asked for with each delivery.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct StoredSink {
    pub(super) num: Num,
    /// Whether another sink delivers after this one.
    pub(super) awaited: bool,
    /// Whether this one delivers after others.
    pub(super) waits: bool,
}

impl Store {
    /// Why a sink is disabled, if it is.
    pub async fn sink_disabled(&self, sink: &SinkAt) -> Answer<Option<Disabled>> {
        let sink = sink.clone();
        self.read("look a sink up", move |db| db.sink_disabled(&sink))
            .await
    }

    /// Disables a sink, over restarts, and raises the notice of it for every other sink.
    pub async fn disable_sink(
        &self,
        sink: &SinkAt,
        disabled: Disabled,
        now: Timestamp,
    ) -> Answer<()> {
        let sink = sink.clone();
        self.write("disable a sink", move |txn| {
            let was = txn.sink_disabled(&sink)?;
            txn.write_sink(
                "disabled = ?2, paused = CASE WHEN paused > ?3 THEN paused ELSE ?3 END",
                params![txn.sink_num(&sink)?, disabled.why, disabled.by_command],
            )?;
            if was.is_none() {
                txn.tell_of_disabled(&sink, &disabled.why, now)?;
            }
            txn.effects.wanted = true;
            Ok(())
        })
        .await
    }

    /// Enables a sink; everything that is pending for it is due now.
    pub async fn enable_sink(&self, sink: &SinkAt, now: Timestamp) -> Answer<()> {
        let sink = sink.clone();
        self.write("enable a sink", move |txn| {
            let num = txn.sink_num(&sink)?;
            txn.write_sink("disabled = NULL, paused = 0", [num])?;
            txn.write_deliveries(DUE_NOW, [num, micros(now)])?;
            txn.tell_enabled(
                &sink,
                "is enabled: what waited for it is tried at once",
                now,
            )?;
            txn.effects.wanted = true;
            Ok(())
        })
        .await
    }

    /// Notes where a sink's bundle lies, or that it has none.
    pub async fn place_bundle(&self, sink: &SinkAt, placed: Option<Placed>) -> Answer<()> {
        let sink = sink.clone();
        self.write("note a bundle's file", move |txn| {
            let num = txn.sink_num(&sink)?;
            match placed.as_ref() {
                Some(Placed { path, digest }) => {
                    let path = path.to_string_lossy();
                    let sql = "SELECT 1 FROM sink WHERE num = ?1 AND path = ?2";
                    let same = txn.first(sql, params![num, path], |_| Ok(()))?.is_some();
                    txn.leave_bundle_of(num, Some(&path))?;
                    txn.take_up(num, &path)?;
                    let set = "path = ?2, digest = ?3";
                    let set = txn.write_sink(set, params![num, path, digest])?;
                    txn.effects.wanted |= set > 0 && !same;
                }
                None => {
                    txn.write_sink("path = NULL, digest = NULL", [num])?;
                }
            }
            txn.leave_files(OF_SINK, [num])?;
            let what = "SET path = NULL, digest = NULL WHERE sink = ?1 AND path IS NOT NULL";
            txn.effects.wanted |= txn.write_deliveries(what, [num])? > 0;
            Ok(())
        })
        .await
    }

    /// A sink keeps a file per identity now: the bundle that it kept before becomes a stray.
    pub async fn leave_bundle(&self, sink: &SinkAt) -> Answer<()> {
        let sink = sink.clone();
        self.write("let go of a bundle's file", move |txn| {
            let num = txn.sink_num(&sink)?;
            txn.leave_bundle_of(num, None)?;
            let had = "SELECT 1 FROM sink WHERE num = ?1 AND path IS NOT NULL";
            if txn.first(had, [num], |_| Ok(()))?.is_some() {
                txn.write_sink("path = NULL, digest = NULL", [num])?;
                txn.effects.wanted = true;
            }
            Ok(())
        })
        .await
    }

    /// Files of this machine that nobody speaks of any more and that are to be looked at now.
    pub async fn strays(&self, now: Timestamp, limit: usize) -> Answer<Vec<Stray>> {
        self.read("look for files left behind", move |db| {
            let sql = "SELECT * FROM stray WHERE next_at <= ?1 AND node = ?2 ORDER BY next_at, num";
            let params = params![micros(now), db.node()];
            Ok(db.page(RowKind::Stray, limit, sql, params, read_stray)?)
        })
        .await
    }

    /// Whether such a file is somebody's again; `by` are the sinks that would put one there.
    pub async fn is_claimed(
        &self,
        path: PathBuf,
        by: Vec<SinkAt>,
        name: Option<Name>,
    ) -> Answer<bool> {
        self.read("look for a file's owner", move |db| {
            let name = name.as_ref();
            let path = path.to_string_lossy();
            // Other machines have other files at the same place.
            let recorded = "SELECT EXISTS (SELECT 1 FROM delivery d JOIN sink s ON s.num = d.sink \
                            WHERE d.path = ?1 AND s.node = ?2) \
                            OR EXISTS (SELECT 1 FROM sink WHERE path = ?1 AND node = ?2)";
            let params = params![path, db.node()];
            if db.first(recorded, params, |row| row.get(0))? == Some(true) {
                return Ok(true);
            }
            for sink in &by {
                let sink = db.sink_num(sink)?;
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

    /// The sinks that any machine of the cluster has; none where there is no cluster.
    pub async fn sinks_of_cluster(&self) -> Answer<Vec<SinkAt>> {
        if !self.is_shared() {
            return Ok(Vec::new());
        }
        self.read("list the sinks of all machines", |db| {
            let sql = "SELECT num, name, node FROM sink WHERE configured = 1 ORDER BY name, node";
            Ok(db.all(RowKind::Sink, sql, [], |row| {
                db::sink_at(row, ("name", "node"))
            })?)
        })
        .await
    }

    /// The sinks of a cluster that are not among these, and how they are as far as the store knows.
    pub async fn sinks_beside(
        &self,
        here: Vec<SinkAt>,
    ) -> Answer<BTreeMap<SinkAt, DispatcherView>> {
        if !self.is_shared() {
            return Ok(BTreeMap::new());
        }
        self.read("list the sinks of other machines", move |db| {
            let sql = "SELECT num, name, node, disabled, paused FROM sink WHERE configured = 1";
            let all = db.all(RowKind::Sink, sql, [], |row| {
                let view = DispatcherView {
                    disabled: row.get("disabled")?,
                    paused: row.get("paused")?,
                    ..DispatcherView::default()
                };
                let sink = db::sink_at(row, ("name", "node"))?;
                Ok((row.get::<_, Num>("num")?, sink, view))
            })?;
            let beside = all.into_iter().filter(|(_, sink, _)| !here.contains(sink));
            let beside = beside.map(|(num, sink, view)| Ok((sink, db.failing(num, view)?)));
            beside.collect()
        })
        .await
    }

    /// Whether no bundle of a sink is noted yet, while identities wait for their first token in it.
    pub async fn awaits_first_bundle(&self, sink: &SinkAt) -> Answer<bool> {
        let sink = sink.clone();
        self.read_mirrored("look for a sink's bundle", Vec::new(), move |db| {
            let sql = "SELECT 1 FROM sink s WHERE num = ?1 AND digest IS NULL \
                       AND EXISTS (SELECT 1 FROM delivery WHERE sink = s.num AND wanted = 0)";
            Ok(db.first(sql, [db.sink_num(&sink)?], |_| Ok(()))?.is_some())
        })
        .await
    }

    /// How many identities have left a sink so far.
    pub async fn losses(&self, sink: &SinkAt) -> Answer<i64> {
        let sink = sink.clone();
        self.read_mirrored("count who left a sink", Vec::new(), move |db| {
            let sql = "SELECT losses FROM sink WHERE num = ?1";
            Ok(db
                .first(sql, [db.sink_num(&sink)?], |row| row.get(0))?
                .unwrap_or(0))
        })
        .await
    }
}

/// Sinks and files that were left are of no machine where the store is a file of one; those of other machines stay theirs.
pub(super) fn are_of_one(conn: &Connection, node: &str) -> sql::Result<()> {
    conn.execute(
        "UPDATE sink SET node = '' WHERE node = ?1 \
         AND NOT EXISTS (SELECT 1 FROM sink o WHERE o.name = sink.name AND o.node = '')",
        [node],
    )?;
    let strays = "UPDATE stray SET node = '' WHERE node = ?1";
    conn.execute(strays, [node]).map(drop)
}

impl Txn<'_> {
    /// A sink is configured, for the first time or again: it hears of notices from now on.
    pub(super) fn configure_sink(&self, sink: &SinkAt) -> Outcome<()> {
        let (name, node) = (sink.name().as_str(), db::node_of(sink));
        // What a store of one machine kept for it is its own when others join.
        self.run(
            "UPDATE sink SET node = ?2 WHERE name = ?1 AND node = '' AND configured = 1 AND ?2 <> '' \
             AND NOT EXISTS (SELECT 1 FROM sink o WHERE o.name = ?1 AND o.node = ?2)",
            [name, node],
        )?;
        self.run(
            concat!(
                "INSERT INTO sink (num, name, node, notice_cursor) VALUES (",
                next_number!("sink", "num"),
                ", ?1, ?2, (SELECT coalesce(max(seq), 0) FROM notice)) ON CONFLICT (name, node) DO UPDATE SET configured = 1, \
                 notice_cursor = excluded.notice_cursor"
            ),
            [name, node],
        )?;
        Ok(())
    }

    /// Before the files of these deliveries are let go of: they become strays, unless they are still there elsewhere.
    pub(super) fn leave_files(&self, which: &str, params: impl Params) -> Outcome<()> {
        self.run(
            &format!(
                "/*sqlite*/INSERT INTO stray (path, digest, sink, node, name, resource) /*postgres WITH strays AS (*/\
                 SELECT d.path, d.digest, s.name AS sink, s.node, i.name, r.name AS resource \
                 FROM delivery d JOIN sink s ON s.num = d.sink LEFT JOIN identity i ON i.num = d.identity \
                 LEFT JOIN resource r ON r.num = i.resource WHERE d.digest IS NOT NULL AND {which}\
                 /*postgres ), drawn AS (UPDATE meta \
                 SET value = CAST(CAST(value AS BIGINT) + (SELECT count(*) FROM strays) AS TEXT) WHERE key = 'last_stray' \
                 RETURNING CAST(value AS BIGINT) AS num) INSERT INTO stray (num, path, digest, sink, node, name, resource) \
                 SELECT drawn.num + 1 - row_number() OVER (), path, digest, sink, node, name, resource FROM strays, drawn*/"
            ),
            params,
        )?;
        Ok(())
    }

    /// Before a sink's bundle moves or is let go of: the file that it was becomes a stray.
    pub(super) fn leave_bundle_of(&self, sink: Num, path: Option<&str>) -> Outcome<()> {
        self.run(
            concat!(
                draws!("stray"),
                " (num, path, digest, sink, node) SELECT ",
                drawn!(),
                ", path, digest, name, node FROM sink WHERE num = ?1 AND digest IS NOT NULL AND path IS DISTINCT FROM ?2"
            ),
            params![sink, path],
        )?;
        Ok(())
    }

    /// A sink writes a file where one lay that was let go of: it is no stray any more.
    pub(super) fn take_up(&self, sink: Num, path: &str) -> Outcome<()> {
        let sql =
            "DELETE FROM stray WHERE path = ?2 AND node = (SELECT node FROM sink WHERE num = ?1)";
        self.run(sql, params![sink, path])?;
        Ok(())
    }

    /// Who keeps documents together in a sink's file sees by it that some have left.
    pub(super) fn note_losses(&self, sink: Num, left: i64) -> Outcome<()> {
        let sql = "UPDATE sink SET losses = losses + ?2 WHERE num = ?1 AND digest IS NOT NULL";
        self.run(sql, [sink, left])?;
        Ok(())
    }

    /// Changes a sink (`?1`) in these columns.
    pub(super) fn write_sink(&self, set: &str, params: impl Params) -> Outcome<usize> {
        Ok(self.run(&format!("UPDATE sink SET {set} WHERE num = ?1"), params)?)
    }

    /// Those of some sinks that are configured, on any machine.
    pub(super) fn configured(&self, sinks: &[SinkName]) -> Outcome<BTreeSet<Num>> {
        let mut nums = BTreeSet::new();
        for sink in sinks {
            let sql = "SELECT num FROM sink WHERE name = ?1 AND configured = 1";
            nums.extend(self.every(sql, [sink.as_str()], |row| row.get::<_, Num>(0))?);
        }
        Ok(nums)
    }
}

/// Sinks `s` that are waited for: those that are configured and take something, unless their machine is away. The
/// clock is the database's, as the machines note it.
macro_rules! waited_for {
    () => {
        "s.configured = 1 AND s.disabled IS NULL AND (s.node = '' OR EXISTS (SELECT 1 FROM node n \
         WHERE n.name = s.node AND n.until > (SELECT coalesce(max(heartbeat_at), 0) FROM node)))"
    };
}

pub(super) use waited_for;

impl Txn<'_> {
    /// Drops all that was kept for a machine which will not come back: its sinks, what waited for them, and its files.
    pub(super) fn forget_sinks_of(&mut self, node: &NodeName) -> Outcome<()> {
        let sql = "SELECT num FROM sink WHERE node = ?1";
        for num in self.every(sql, [node.as_str()], |row| row.get::<_, Num>(0))? {
            self.remove_deliveries_to(num)?;
            self.forget_order_of(num)?;
            self.run("DELETE FROM sink WHERE num = ?1", [num])?;
        }
        self.run("DELETE FROM stray WHERE node = ?1", [node.as_str()])?;
        self.effects.wanted = true;
        Ok(())
    }
}

/// Why nothing goes out to a sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disabled {
    pub why: String,
    /// Whether a command said so: then only a command enables it. Otherwise its receiver did (410),
    /// and the next start tries it again.
    pub by_command: bool,
}

pub(super) const OLDEST: &str = "SELECT since, attempts, last_error, identity AS num, sink AS sink_num FROM delivery \
    WHERE sink = ?1 AND wanted > delivered ORDER BY since";

impl Db {
    /// A sink, looked up once for many deliveries.
    pub(super) fn sink(&self, sink: &SinkAt) -> Outcome<StoredSink> {
        let sql = "SELECT num, EXISTS (SELECT 1 FROM sink_after WHERE earlier = num), \
                   EXISTS (SELECT 1 FROM sink_after WHERE sink = num) FROM sink WHERE name = ?1 AND node = ?2";
        let place = [sink.name().as_str(), db::node_of(sink)];
        let found = self.first(sql, place, |row| {
            Ok(StoredSink {
                num: row.get(0)?,
                awaited: row.get(1)?,
                waits: row.get(2)?,
            })
        })?;
        Ok(found.unwrap_or_default())
    }

    /// Why a sink is disabled, if it is.
    pub(super) fn sink_disabled(&self, sink: &SinkAt) -> Outcome<Option<Disabled>> {
        let sql = "SELECT disabled, paused, num, name FROM sink WHERE num = ?1";
        let found = self.one(RowKind::Sink, sql, [self.sink_num(sink)?], |row| {
            let why: Option<String> = row.get(0)?;
            let by_command = row.get(1)?;
            Ok(why.map(|why| Disabled { why, by_command }))
        })?;
        Ok(found.flatten())
    }

    /// A sink fails where what has waited longest for it does.
    fn failing(&self, num: Num, view: DispatcherView) -> Outcome<DispatcherView> {
        let oldest = self.some(RowKind::Delivery, 1, OLDEST, [num], |row| {
            let failures = row.get::<_, i64>("attempts")?;
            Ok(Some(DispatcherView {
                failures_in_row: u32::try_from(failures).unwrap_or(u32::MAX),
                failing_since: match failures {
                    0 => None,
                    _ => Some(db::instant_in(row, "since")?),
                },
                last_error: row.get("last_error")?,
                ..view.clone()
            }))
        })?;
        Ok(oldest.into_iter().next().unwrap_or(view))
    }

    /// Since when the oldest pending delivery of each sink is pending.
    pub(super) fn oldest_pending(&self) -> Outcome<BTreeMap<SinkAt, Timestamp>> {
        let sinks = self.all(
            RowKind::Sink,
            "SELECT num, name, node FROM sink WHERE configured = 1",
            [],
            |row| Ok((row.get::<_, i64>(0)?, db::sink_at(row, ("name", "node"))?)),
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
    fn tell_of_disabled(&mut self, sink: &SinkAt, why: &str, now: Timestamp) -> Outcome<()> {
        self.raise(&[Notice::new(
            NoticeKind::SinkDisabled,
            now,
            format!("The sink {sink} is disabled: {why}. `renewd sink enable {sink}` ends it."),
        )
        .keyed(Notice::disabled_key(sink.as_str()))])?;
        let sql = "UPDATE notice SET not_to = ?1 WHERE seq = (SELECT max(seq) FROM notice)";
        self.run(sql, [self.sink_num(sink)?])?;
        Ok(())
    }

    /// That a sink is disabled is over.
    pub(super) fn tell_enabled(&mut self, sink: &SinkAt, how: &str, now: Timestamp) -> Outcome<()> {
        self.announce(
            &Notice::new(
                NoticeKind::SinkEnabled,
                now,
                format!("The sink {sink} {how}."),
            )
            .keyed(Notice::disabled_key(sink.as_str())),
        )?;
        Ok(())
    }
}

/// A file that we once wrote and that no row speaks of any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stray {
    pub num: i64,
    pub placed: Placed,
    /// The sink that wrote it, which may be configured no longer.
    pub sink: String,
    /// Whose it was; `None` for a bundle.
    pub name: Option<Name>,
    /// The resource of that identity.
    pub resource: Option<ResourceName>,
}

pub(super) fn read_placed(row: &Row<'_>) -> sql::Result<Placed> {
    Ok(Placed {
        path: PathBuf::from(row.get::<_, String>("path")?),
        digest: row.get("digest")?,
    })
}

pub(super) fn read_stray(row: &Row<'_>) -> sql::Result<Stray> {
    Ok(Stray {
        num: row.get("num")?,
        placed: read_placed(row)?,
        sink: row.get("sink")?,
        name: db::maybe_parsed(row, "name")?,
        resource: db::maybe_parsed(row, "resource")?,
    })
}
