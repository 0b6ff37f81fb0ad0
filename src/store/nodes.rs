//! Machines that share the store: who is there, who leads, and what changed for the others.
//!
//! A machine's own row is written every few seconds, on a connection of its own, and locks nothing else. The row of
//! the duty is locked by every transaction that writes, so that there is one writer at a time, and changes only when
//! another machine leads. All times are the database's: who leads is decided by one clock.

use std::{collections::BTreeSet, sync::atomic::Ordering, time::Duration};

use super::{
    Cause, Store,
    db::{self, Db, Touched, Txn, instant, micros, signed},
    error::{Answer, Fault, Outcome},
    identities::count,
    schema,
};
use crate::{
    model::{Beat, DutySeen, Name, NodeName, NodeRow, Num, Timestamp, Version},
    sql::{self, Connection, Row, params},
};

/// For so long a machine leads, and counts as there, after it said so.
const TERM: Duration = Duration::from_secs(15);
/// Changes are kept for this long at least, for those who are a little behind; and no longer than a day.
const CHANGES_KEPT: Duration = Duration::from_mins(1);
const CHANGES_KEPT_AT_MOST: Duration = Duration::from_hours(24);

/// How the server lists our sessions; the name of the machine follows, and what each is for.
pub(super) const SESSIONS: &str = "renewd ";

/// The rows that a query finds stay as they are until its transaction ends; a file is locked as a whole.
const LOCKED: &str = "/*postgres  FOR UPDATE*/";
/// How the row is called of who leads, and how after the store went elsewhere.
const LEADER: &str = "leader";
const NOBODY: &str = "moved";
/// The schema that made room for machines.
const CLUSTERS_SINCE: i64 = 21;
/// The clock of PostgreSQL, which goes on while a transaction waits.
const DATABASE_NOW: &str = "SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT)";
/// So many changes are told one by one.
const NEWS: usize = 2000;
/// So many are written at once.
const ROWS: usize = 16;

/// What changed, for the other machines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedChange {
    pub seq: u64,
    pub kind: ChangeKind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeKind {
    /// An identity has another version.
    Version {
        num: Num,
        name: Name,
        version: Version,
    },
    /// Something else is known of a row: what the map says of it, or what is withdrawn.
    Row(Num),
    /// Work may have come.
    Signals(WorkSignals),
}

/// What work may have come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WorkSignals {
    pub due: bool,
    pub wanted: bool,
    pub campaigns: bool,
}

impl WorkSignals {
    fn words(self) -> String {
        let words = [
            (self.due, "due"),
            (self.wanted, "wanted"),
            (self.campaigns, "campaigns"),
        ];
        let said: Vec<&str> = words
            .iter()
            .filter(|(is, _)| *is)
            .map(|(_, word)| *word)
            .collect();
        said.join(" ")
    }

    fn read(words: &str) -> Self {
        let says = |wanted: &str| words.split(' ').any(|word| word == wanted);
        Self {
            due: says("due"),
            wanted: says("wanted"),
            campaigns: says("campaigns"),
        }
    }
}

/// What changed since it was last looked.
#[derive(Debug, Default)]
pub(super) struct SharedNews {
    pub(super) changes: Vec<SharedChange>,
    /// The last number that is known now.
    pub(super) upto: u64,
    /// With which entry the journal ends that the files of all machines follow.
    pub(super) journal: u64,
    /// Not all changes are known any more.
    pub(super) gap: bool,
}

/// Who leads, as the row of the duty says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Duty {
    pub(super) epoch: u64,
    holder: Option<NodeName>,
    yielded_at: Option<Timestamp>,
    yielded_by: Option<NodeName>,
}

impl Store {
    /// By how much the clock of this machine is ahead of the database's: before anything is written for others to read.
    pub fn is_ahead(&self, by_ms: i64) {
        let ahead = by_ms.saturating_mul(1000);
        self.0.ahead.store(ahead, Ordering::Relaxed);
    }

    /// A machine says that it is there, and leads if it does; what the database knows then.
    pub async fn beat(&self, beat: Beat) -> Answer<DutySeen> {
        let seen_seq = self.seq();
        self.pulse("say that this node is there", move |db| {
            db.conn.begin()?;
            let beaten = db.beat(&beat, seen_seq);
            match beaten {
                Ok(_) => db.conn.commit()?,
                Err(_) => db.conn.batch("ROLLBACK")?,
            }
            beaten
        })
        .await
    }

    /// Takes the duty, unless somebody else has it. Where the one who asks led in the epoch `had` and nobody did
    /// since, that epoch goes on.
    pub async fn take_duty(
        &self,
        node: &NodeName,
        had: Option<u64>,
        now: Timestamp,
    ) -> Answer<DutySeen> {
        self.end_former_sessions(node).await;
        let node = node.clone();
        let taken = self.write("take over", move |txn| txn.take_duty(&node, had, now));
        let taken = taken.await?;
        self.answered("take over")?;
        Ok(taken)
    }

    /// Ends what the server still carries out for the machine that led: frozen inside a transaction it would keep the
    /// row of the duty locked. Nothing depends on it, as each of its commits is refused.
    async fn end_former_sessions(&self, node: &NodeName) {
        if self.settings().place.database().is_none() {
            return;
        }
        let node = node.clone();
        let ended = self.pulse("end the sessions of who led", move |db| {
            db.end_former_sessions(&node)
        });
        match ended.await {
            Ok(0) => {}
            Ok(sessions) => {
                tracing::warn!(
                    sessions,
                    "sessions of the node that led were ended at the database"
                );
            }
            Err(error) => {
                tracing::debug!(%error, "sessions of the node that led end by themselves")
            }
        }
    }

    /// Whoever leads takes over what those left who led before: creations that were under way are possible orphans.
    /// How many.
    pub async fn take_over_left(&self, now: Timestamp) -> Answer<usize> {
        self.write("take over what was left", move |txn| {
            txn.note_late_calls()?;
            txn.adopt_remembered(now)?;
            txn.orphan_intents(micros(now))
        })
        .await
    }

    /// Gives the duty up, so that another machine takes it at once.
    pub async fn yield_duty(
        &self,
        node: &NodeName,
        epoch: u64,
        why: &'static str,
        now: Timestamp,
    ) -> Answer<()> {
        let node = node.clone();
        self.write("let another node lead", move |txn| {
            let at = txn.database_now()?;
            let sql = "UPDATE duty SET holder = NULL, yielded_at = ?3, yielded_by = ?1 \
                       WHERE name = 'leader' AND holder = ?1 AND epoch = ?2";
            if txn.run(sql, params![node.as_str(), signed(epoch), micros(at)])? > 0 {
                let cause = Cause::ours(why);
                txn.note_word("yield", format!("{node}, epoch {epoch}"), &cause, now)?;
            }
            Ok(())
        })
        .await
    }

    /// A machine goes: it counts as dead from now on.
    pub async fn leave(&self, node: &NodeName) -> Answer<()> {
        let node = node.clone();
        self.pulse("say that this node goes", move |db| {
            let now = db.database_now()?;
            let sql = "UPDATE node SET until = ?2 WHERE name = ?1";
            db.run(sql, params![node.as_str(), micros(now)])?;
            Ok(())
        })
        .await
    }

    /// The machines, by name.
    pub async fn nodes(&self) -> Answer<Vec<NodeRow>> {
        self.read("list nodes", move |db| {
            let now = db.database_now()?;
            db.nodes(&db.duty("")?, now)
        })
        .await
    }

    /// A person wants a machine not to lead, or to do so again. False where it is not known.
    pub async fn drain_node(
        &self,
        node: &NodeName,
        drained: bool,
        cause: &Cause,
        now: Timestamp,
    ) -> Answer<bool> {
        let (node, cause) = (node.clone(), cause.clone());
        self.write("drain a node", move |txn| {
            let at = txn.database_now()?;
            let at = drained.then(|| micros(at));
            let sql = "UPDATE node SET drained_at = ?2 WHERE name = ?1";
            if txn.run(sql, params![node.as_str(), at])? == 0 {
                return Ok(false);
            }
            let word = if drained { "drain" } else { "drain-end" };
            txn.note_word(word, node.to_string(), &cause, now)?;
            Ok(true)
        })
        .await
    }

    /// Forgets a machine that will not come back, with what only it knew. False where it is not known; refused
    /// while it is there.
    pub async fn forget_node(
        &self,
        node: &NodeName,
        cause: &Cause,
        now: Timestamp,
    ) -> Answer<bool> {
        let (node, cause) = (node.clone(), cause.clone());
        self.write("forget a node", move |txn| {
            let at = txn.database_now()?;
            let nodes = txn.nodes(&txn.duty("")?, at)?;
            let Some(row) = nodes.iter().find(|row| row.name == node) else {
                return Ok(false);
            };
            if row.alive {
                return Err(Fault::Refused(format!(
                    "{node} is there: stop renewd on it first, and wait until `renewd node list` calls it dead"
                )));
            }
            txn.run("DELETE FROM node WHERE name = ?1", [node.as_str()])?;
            let sql = "UPDATE duty SET holder = NULL WHERE name = 'leader' AND holder = ?1";
            txn.run(sql, [node.as_str()])?;
            txn.forget_sinks_of(&node)?;
            txn.note_word("forget-node", node.to_string(), &cause, now)?;
            Ok(true)
        })
        .await
    }

    /// Drops changes that every machine which is there has seen, and those of yesterday.
    pub async fn prune_changes(&self) -> Answer<()> {
        self.write("drop old changes", move |txn| {
            let now = txn.database_now()?;
            let ago = |by| micros(now.checked_sub(by).unwrap_or(now));
            let sql = "DELETE FROM change WHERE at < ?2 OR (at < ?1 AND seq <= \
                       (SELECT coalesce(min(seen_seq), 0) FROM node WHERE until > ?3))";
            txn.run(
                sql,
                params![ago(CHANGES_KEPT), ago(CHANGES_KEPT_AT_MOST), micros(now)],
            )?;
            Ok(())
        })
        .await
    }
}

impl Db {
    /// The database's clock. A file has none but the one that whoever works on it has ([`Db::clock`]).
    pub(super) fn database_now(&self) -> Outcome<Timestamp> {
        if self.conn.file().is_some() {
            return Ok(self.clock.get());
        }
        let now = self.first(DATABASE_NOW, [], |row| row.get::<_, i64>(0))?;
        Ok(now.map_or(self.clock.get(), instant))
    }

    /// The row of the duty; with a lock until the transaction ends, where the engine has locks of rows.
    pub(super) fn locked_duty(&self) -> Outcome<Duty> {
        self.duty(LOCKED)
    }

    pub(super) fn duty(&self, lock: &str) -> Outcome<Duty> {
        let sql = format!(
            "SELECT epoch, holder, yielded_at, yielded_by FROM duty WHERE name = 'leader'{lock}"
        );
        let found = self.first(&sql, [], |row| {
            Ok(Duty {
                epoch: db::unsigned(row, "epoch")?,
                holder: db::maybe_parsed(row, "holder")?,
                yielded_at: db::maybe_instant(row, "yielded_at")?,
                yielded_by: db::maybe_parsed(row, "yielded_by")?,
            })
        })?;
        match found {
            Some(duty) => Ok(duty),
            None => Err(Fault::Refused(self.why_nobody_leads()?)),
        }
    }

    fn why_nobody_leads(&self) -> Outcome<String> {
        let moved = db::meta::<String>(&self.conn, db::MOVED_TO)?;
        Ok(match moved {
            Some(to) => format!(
                "the store was moved to {to}: write that into [store] of the configuration and start renewd anew"
            ),
            None => "the store has lost its row of who leads".to_owned(),
        })
    }

    fn lease_until(&self, node: &NodeName, lock: &str) -> Outcome<Option<Timestamp>> {
        let sql = format!("SELECT lease_until FROM node WHERE name = ?1{lock}");
        Ok(self.first(&sql, [node.as_str()], |row| {
            db::instant_in(row, "lease_until")
        })?)
    }

    /// Ends sessions of the machine that led, if its lease has run out and they do something; how many.
    fn end_former_sessions(&self, us: &NodeName) -> Outcome<i64> {
        let Some(holder) = self.duty("")?.holder.filter(|holder| holder != us) else {
            return Ok(0);
        };
        let now = self.database_now()?;
        if self
            .lease_until(&holder, "")?
            .is_some_and(|until| until > now)
        {
            return Ok(0);
        }
        let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() \
                   AND usename = current_user AND state <> 'idle' AND starts_with(application_name, ?1)";
        let its = format!("{SESSIONS}{holder} ");
        Ok(self.first(sql, [its], |row| row.get(0))?.unwrap_or(0))
    }

    /// Until when the process counts as there that has this name, and when it began.
    fn named(&self, node: &NodeName) -> Outcome<Option<(Timestamp, Timestamp)>> {
        let sql = "SELECT until, since FROM node WHERE name = ?1";
        Ok(self.first(sql, [node.as_str()], |row| {
            Ok((db::instant_in(row, "until")?, db::instant_in(row, "since")?))
        })?)
    }

    fn beat(&self, beat: &Beat, seen_seq: u64) -> Outcome<DutySeen> {
        let own = self.lease_until(&beat.node, LOCKED)?;
        // Once nobody else can change the row: what was waited for has passed.
        let now = self.database_now()?;
        let duty = self.duty("")?;
        // A name goes back to who had it once the other process is there no more.
        let named = self.named(&beat.node)?;
        let displaced = named.is_some_and(|(until, since)| since > beat.since && until > now);
        let renewed = !displaced
            && duty.holder.as_ref() == Some(&beat.node)
            && beat.epoch == Some(duty.epoch)
            && own.is_some_and(|until| until > now);
        if !displaced {
            self.note_beat(beat, (seen_seq, renewed), now)?;
        }
        self.seen(duty, (renewed, displaced), now)
    }

    fn note_beat(
        &self,
        beat: &Beat,
        (seen_seq, renewed): (u64, bool),
        now: Timestamp,
    ) -> Outcome<()> {
        let sql = "INSERT INTO node (name, since, heartbeat_at, until, seen_seq, version, schema, offset_ms, digest, \
                   socket, lacks) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) \
                   ON CONFLICT (name) DO UPDATE SET since = excluded.since, heartbeat_at = excluded.heartbeat_at, \
                   until = excluded.until, seen_seq = excluded.seen_seq, version = excluded.version, \
                   schema = excluded.schema, offset_ms = excluded.offset_ms, digest = excluded.digest, \
                   socket = excluded.socket, lacks = excluded.lacks, \
                   lease_until = coalesce(?12, node.lease_until)";
        let until = now + TERM;
        self.run(
            sql,
            params![
                beat.node.as_str(),
                micros(beat.since),
                micros(now),
                micros(until),
                signed(seen_seq),
                env!("CARGO_PKG_VERSION"),
                schema::NEWEST,
                beat.offset_ms,
                beat.digest,
                beat.socket,
                i64::from(beat.lacks),
                renewed.then(|| micros(until))
            ],
        )?;
        Ok(())
    }

    fn seen(
        &self,
        duty: Duty,
        (renewed, displaced): (bool, bool),
        now: Timestamp,
    ) -> Outcome<DutySeen> {
        let nodes = self.nodes(&duty, now)?;
        let lease = match &duty.holder {
            Some(holder) => self.lease_until(holder, "")?,
            None => None,
        };
        Ok(DutySeen {
            now,
            epoch: duty.epoch,
            holder: duty.holder,
            lease_until: lease.unwrap_or(Timestamp::UNIX_EPOCH),
            renewed,
            yielded_at: duty.yielded_at,
            yielded_by: duty.yielded_by,
            displaced,
            nodes,
        })
    }

    fn nodes(&self, duty: &Duty, now: Timestamp) -> Outcome<Vec<NodeRow>> {
        let sql = "SELECT name, since, heartbeat_at, until, lease_until, seen_seq, version, schema, offset_ms, digest, \
                   socket, lacks, drained_at FROM node ORDER BY name";
        Ok(self.every(sql, [], |row| {
            let name: NodeName = db::parsed(row, "name")?;
            let leads =
                duty.holder.as_ref() == Some(&name) && db::instant_in(row, "lease_until")? > now;
            read_node(row, (name, leads), now)
        })?)
    }

    fn changes(&self, after: u64, limit: usize) -> Outcome<Vec<SharedChange>> {
        let sql =
            "SELECT seq, kind, num, name, version FROM change WHERE seq > ?1 ORDER BY seq LIMIT ?2";
        let params = params![signed(after), count(limit)];
        Ok(self.every(sql, params, read_change)?)
    }
}

impl Db {
    /// What changed after a number; nothing is read where nothing did.
    pub(super) fn news(&self, after: u64) -> Outcome<SharedNews> {
        let (upto, journal) = self.ends()?;
        if upto <= after {
            return Ok(SharedNews {
                upto,
                journal,
                ..SharedNews::default()
            });
        }
        let changes = self.changes(after, NEWS)?;
        let first = changes.first().map(|change| change.seq);
        // What was dropped meanwhile, and what is too much to be told one by one.
        let gap = first != Some(after + 1) || changes.last().is_some_and(|last| last.seq < upto);
        Ok(SharedNews {
            changes,
            upto,
            journal,
            gap,
        })
    }
}

/// Why a store of an older schema is not brought up to date yet: another machine that is there could not use it then.
/// What ran on this one before is there no more.
pub(super) fn keep_from_migrating(
    conn: &Connection,
    (found, node): (i64, Option<&NodeName>),
    ours: Timestamp,
) -> sql::Result<Option<String>> {
    // Before the step of this file there were no machines to share a store.
    if !(CLUSTERS_SINCE..schema::NEWEST).contains(&found) {
        return Ok(None);
    }
    let now = match conn.file() {
        Some(_) => micros(ours),
        None => conn
            .first(DATABASE_NOW, [], |row| row.get::<_, i64>(0))?
            .unwrap_or_else(|| micros(ours)),
    };
    let sql = "SELECT name, version FROM node WHERE until > ?1 AND schema < ?2 AND name <> ?3 ORDER BY name";
    let this = node.map_or("", NodeName::as_str);
    let behind = conn.first(sql, params![now, schema::USABLE_FROM, this], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
    })?;
    Ok(behind.map(|(node, version)| {
        format!(
            "it is of an older renewd and is brought up to date only once no node uses that any more: {node} still runs \
             renewd {version}; upgrade it, or stop it"
        )
    }))
}

/// Takes the row of who leads away from all machines, or gives it back: without it none writes, even one that was away
/// while the store went elsewhere.
pub(super) fn let_nobody_lead(conn: &Connection, nobody: bool) -> sql::Result<()> {
    let (from, to) = match nobody {
        true => (LEADER, NOBODY),
        false => (NOBODY, LEADER),
    };
    conn.execute("UPDATE duty SET name = ?2 WHERE name = ?1", [from, to])
        .map(drop)
}

/// One row of a change, before it has a number.
struct Unnumbered {
    kind: &'static str,
    num: Num,
    name: String,
    version: i64,
}

impl Txn<'_> {
    /// Numbers what the operation changed, for all machines.
    pub(super) fn number_shared(&mut self) -> Outcome<()> {
        let mut seq = self.seq()?;
        let before = seq;
        let mut rows = Vec::new();
        for changed in &mut self.effects.changed {
            seq += 1;
            changed.seq = seq;
            rows.push(Unnumbered {
                kind: "version",
                num: changed.num,
                name: changed.name.to_string(),
                version: signed(changed.version.0),
            });
        }
        let bare = |kind| {
            move |num: &Num| Unnumbered {
                kind,
                num: *num,
                name: String::new(),
                version: 0,
            }
        };
        let Touched {
            rows: held, listed, ..
        } = &self.effects.touched;
        let known: BTreeSet<&Num> = self
            .effects
            .mapped
            .iter()
            .chain(held)
            .chain(listed)
            .collect();
        rows.extend(known.into_iter().map(bare("row")));
        let signalled = WorkSignals {
            due: self.effects.due,
            wanted: self.effects.wanted && self.effects.changed.is_empty(),
            campaigns: self.effects.campaigns,
        };
        if signalled != WorkSignals::default() {
            rows.push(Unnumbered {
                name: signalled.words(),
                ..bare("signals")(&0)
            });
        }
        if rows.is_empty() {
            return Ok(());
        }
        // The versions have theirs already, and come first.
        let numbered = rows
            .chunks(ROWS)
            .try_fold(before, |after, part| self.insert_changes(part, after))?;
        Ok(db::set_meta(&self.conn, "seq", signed(numbered))?)
    }

    /// Adds rows after a number; the number of the last.
    fn insert_changes(&self, rows: &[Unnumbered], after: u64) -> Outcome<u64> {
        use std::fmt::Write as _;
        let at = self.database_now()?;
        let mut sql = "INSERT INTO change (seq, kind, num, name, version, at) VALUES ".to_owned();
        let mut values: Vec<sql::Value> = Vec::with_capacity(rows.len() * 5 + 1);
        values.push(micros(at).into());
        for (seq, row) in (after + 1..).zip(rows) {
            let n = values.len() + 1;
            let comma = if n > 2 { ", " } else { "" };
            let _infallible = write!(
                sql,
                "{comma}(?{n}, ?{}, ?{}, ?{}, ?{}, ?1)",
                n + 1,
                n + 2,
                n + 3,
                n + 4
            );
            values.extend([
                signed(seq).into(),
                row.kind.to_owned().into(),
                row.num.into(),
                row.name.clone().into(),
                row.version.into(),
            ]);
        }
        let lent: Vec<&dyn sql::ToSql> = values
            .iter()
            .map(|value| value as &dyn sql::ToSql)
            .collect();
        self.send(&sql, &*lent)?;
        Ok(after + rows.len() as u64)
    }

    fn take_duty(
        &mut self,
        node: &NodeName,
        had: Option<u64>,
        wall: Timestamp,
    ) -> Outcome<DutySeen> {
        let duty = self.locked_duty()?;
        let lease = match &duty.holder {
            Some(holder) => self.lease_until(holder, LOCKED)?,
            None => None,
        };
        let now = self.database_now()?;
        let goes_on = duty.holder.as_ref() == Some(node) && had == Some(duty.epoch);
        let is_vacant = lease.is_none_or(|until| until <= now);
        if !goes_on && !is_vacant {
            return self.seen(duty, (false, false), now);
        }
        let sql = "UPDATE node SET lease_until = ?2, until = ?2 WHERE name = ?1";
        if self.run(sql, params![node.as_str(), micros(now + TERM)])? == 0 {
            return Err(Fault::Refused(format!(
                "{node} was not announced, or was forgotten"
            )));
        }
        if !goes_on {
            let (epoch, before) = (duty.epoch + 1, duty.holder);
            let sql =
                "UPDATE duty SET epoch = ?2, holder = ?1, taken_at = ?3 WHERE name = 'leader'";
            self.run(sql, params![node.as_str(), signed(epoch), micros(now)])?;
            let from = before.map_or_else(String::new, |before| format!(", after {before}"));
            let cause = Cause::ours("nobody led");
            self.note_word(
                "take-over",
                format!("{node}, epoch {epoch}{from}"),
                &cause,
                wall,
            )?;
        }
        let duty = self.duty("")?;
        self.seen(duty, (true, false), now)
    }
}

fn read_node(
    row: &Row<'_>,
    (name, leads): (NodeName, bool),
    now: Timestamp,
) -> sql::Result<NodeRow> {
    let heartbeat_at = db::instant_in(row, "heartbeat_at")?;
    let age = now.duration_since(heartbeat_at).as_millis();
    Ok(NodeRow {
        name,
        leads,
        alive: db::instant_in(row, "until")? > now,
        drained_at: db::maybe_instant(row, "drained_at")?,
        since: db::instant_in(row, "since")?,
        heartbeat_at,
        age_ms: u64::try_from(age).unwrap_or(0),
        seen_seq: db::unsigned(row, "seen_seq")?,
        version: row.get("version")?,
        schema: db::unsigned(row, "schema")?,
        offset_ms: row.get("offset_ms")?,
        digest: row.get("digest")?,
        socket: row.get("socket")?,
        lacks: u32::try_from(row.get::<_, i64>("lacks")?).unwrap_or(u32::MAX),
    })
}

fn read_change(row: &Row<'_>) -> sql::Result<SharedChange> {
    let word: String = row.get("kind")?;
    let num = row.get("num")?;
    let kind = match word.as_str() {
        "version" => ChangeKind::Version {
            num,
            name: db::parsed(row, "name")?,
            version: Version(db::unsigned(row, "version")?),
        },
        "row" => ChangeKind::Row(num),
        _ => ChangeKind::Signals(WorkSignals::read(&row.get::<_, String>("name")?)),
    };
    let seq = db::unsigned(row, "seq")?;
    Ok(SharedChange { seq, kind })
}
