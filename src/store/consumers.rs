//! Who holds a live token, by the version that each sink confirmed last; counted without a scan of
//! those who do.

use std::collections::BTreeMap;

use rusqlite::Row;

use super::{
    Store,
    aside::RowKind,
    columns::{self, micros},
    db::{Db, Txn},
    error::{Answer, Outcome},
    identities::{count, earliest_end},
};
use crate::model::{Consumers, Name, Num, ResourceName, Served, SinkName, Timestamp};

/// What a sink's consumers lack: only those are read that hold nothing live.
pub(super) const LACKING: &str = "SELECT coalesce(sum(live_until >= 0), 0), coalesce(sum(live_until < 0), 0) \
    FROM delivery WHERE sink = ?1 AND live_until IS NOT NULL AND live_until <= ?2";
pub(super) const NEXT_END: &str = "SELECT min(live_until) FROM delivery WHERE sink = ?1 AND live_until IS NOT NULL AND live_until > ?2";
pub(super) const LACKING_NAMES: &str = "SELECT i.name FROM delivery d JOIN identity i ON i.num = d.identity \
    WHERE d.sink = ?1 AND d.live_until IS NOT NULL AND d.live_until >= 0 AND d.live_until <= ?2 \
    ORDER BY d.live_until LIMIT ?3";
/// Identities that want a token and have no live one (one that is in doubt may live), and those of them that only the socket serves.
pub(super) const LACKING_OF: &str = "SELECT count(*), coalesce(sum(by_socket), 0) FROM identity WHERE resource = ?1 \
    AND (id IS NULL) IN (0, 1) AND (failing_since IS NOT NULL) IN (0, 1) AND due_at IS NOT NULL AND good_until <= ?2 \
    AND (good_until >= 0 OR good_until + (1 << 60) <= ?2)";
/// Passes over those that have a sink.
pub(super) const NEXT_END_OF: &str = concat!(
    "SELECT ",
    earliest_end!("?1", "good_until > ?2 AND by_socket")
);
pub(super) const ENDED: &str = "SELECT count(*) FROM identity WHERE resource = ?1 AND (id IS NULL) IN (0, 1) \
    AND (failing_since IS NOT NULL) IN (0, 1) AND due_at IS NOT NULL AND good_until > 0 AND good_until <= ?2";

/// Since when the oldest of what is due, and of what failed and waits for its next attempt, is overdue. Of those that
/// have no token the first thousands stand for all.
pub(super) const OVERDUE: &str = "SELECT r.num, r.name, (SELECT min(i.renews_at) FROM identity i INDEXED BY identity_due \
    WHERE i.resource = r.num AND (i.id IS NULL) IN (0, 1) AND (i.failing_since IS NOT NULL) IN (0, 1) AND i.due_at <= ?1 AND i.good_until > 0) AS due, \
    (SELECT min(since) FROM (SELECT coalesce(i.revoked_at, i.created_at) AS since FROM identity i INDEXED BY identity_ending \
    WHERE i.resource = r.num AND (i.id IS NULL) IN (0, 1) AND (i.failing_since IS NOT NULL) IN (0, 1) AND i.due_at IS NOT NULL \
    AND i.good_until <= 0 AND i.due_at <= ?1 LIMIT 8192)) AS without, \
    (SELECT min(CASE WHEN i.good_until > 0 THEN i.renews_at ELSE coalesce(i.revoked_at, i.created_at) END) \
    FROM identity i WHERE i.resource = r.num AND i.failures > 0 AND i.due_at > ?1) AS failing FROM resource r";

/// What is withdrawn and not delivered, the oldest first.
pub(super) const WITHHELD: &str = "SELECT d.identity AS num, d.sink AS sink_num, i.name, d.since, d.last_error FROM delivery d \
    INDEXED BY delivery_withheld CROSS JOIN identity i ON i.num = d.identity \
    WHERE d.sink = ?1 AND d.wanted > d.delivered AND d.live_until IS NULL AND d.since <= ?2 \
    AND i.state IN ('held', 'gone', 'deleted') ORDER BY d.since LIMIT ?3";
/// So many are counted.
const COUNTED: usize = 10_000;

/// What is withdrawn and has not reached a sink: its consumers may still hold a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Withheld {
    /// The sink.
    pub sink: SinkName,
    /// How many identities.
    pub count: u64,
    /// Some of them, the longest waiting first.
    pub names: Vec<Name>,
    /// Since when the first of them waits.
    pub since: Timestamp,
    /// How an attempt at one of them failed last.
    pub error: Option<String>,
}

/// Tokens of a resource that ended while their identity wants one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// How many.
    pub ended: u64,
    /// Whether any other lives.
    pub any_lives: bool,
}

impl Store {
    /// Who holds a live token at an instant of the service's clock, by the version that each sink
    /// confirmed last.
    pub async fn served(&self, now: Timestamp) -> Answer<Served> {
        self.read("count consumers", move |db| {
            let mut served = Served::default();
            let sql = "SELECT s.num, s.name, c.n FROM consumer_count c JOIN sink s ON s.num = c.sink \
                       WHERE c.n > 0 AND s.configured";
            let sinks = db.all(RowKind::Sink, sql, [], |row| {
                let name: SinkName = columns::parsed(row, "name")?;
                Ok((
                    row.get::<_, Num>("num")?,
                    name,
                    columns::unsigned(row, "n")?,
                ))
            })?;
            for (num, name, all) in sinks {
                let lacking = db.first(LACKING, [num, micros(now)], |row| {
                    Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
                })?;
                let (without, unknown) = lacking.unwrap_or_default();
                let next: Option<i64> = db
                    .first(NEXT_END, [num, micros(now)], |row| {
                        Ok(row.get(0).ok().flatten())
                    })?
                    .flatten();
                served.sinks.insert(
                    name,
                    consumers(all, without.unsigned_abs(), unknown.unsigned_abs(), next),
                );
            }
            db.served_by_socket(now, &mut served)?;
            Ok(served)
        })
        .await
    }

    /// What is withdrawn and waits for a sink since this instant or longer.
    pub async fn withheld(&self, since: Timestamp, named: usize) -> Answer<Vec<Withheld>> {
        self.read("look for what is withdrawn and not delivered", move |db| {
            let sinks = "SELECT num, name FROM sink WHERE configured ORDER BY name";
            let sinks = db.all(RowKind::Sink, sinks, [], |row| {
                Ok((
                    row.get::<_, Num>("num")?,
                    columns::parsed::<SinkName>(row, "name")?,
                ))
            })?;
            let mut withheld = Vec::new();
            for (num, sink) in sinks {
                let params = rusqlite::params![num, micros(since), count(COUNTED)];
                let rows = db.all(RowKind::Delivery, WITHHELD, params, |row| {
                    let name: Name = columns::parsed(row, "name")?;
                    let error: Option<String> = row.get("last_error")?;
                    Ok((name, columns::instant_in(row, "since")?, error))
                })?;
                let Some((_, since, _)) = rows.first() else {
                    continue;
                };
                withheld.push(Withheld {
                    sink,
                    count: rows.len() as u64,
                    since: *since,
                    error: rows.iter().find_map(|(.., error)| error.clone()),
                    names: rows
                        .into_iter()
                        .take(named)
                        .map(|(name, ..)| name)
                        .collect(),
                });
            }
            Ok(withheld)
        })
        .await
    }

    /// How many consumers hold a token that may be dead, by sink and by the socket alone; looks through
    /// what they hold, where any key is in doubt.
    pub async fn doubtful_held(&self, now: Timestamp) -> Answer<(BTreeMap<SinkName, u64>, u64)> {
        self.read("count doubtful tokens", move |db| {
            let sql = "SELECT s.num, s.name, count(*) AS n FROM sink s JOIN delivery d ON d.sink = s.num \
                       WHERE s.configured AND d.live_until > ?1 AND d.live_key IN (SELECT fingerprint FROM doubted_key) \
                       GROUP BY s.num";
            let none = "SELECT 1 FROM doubted_key LIMIT 1";
            if db.first(none, [], |_| Ok(()))?.is_none() {
                return Ok(Default::default());
            }
            let rows = db.all(RowKind::Sink, sql, [micros(now)], |row| {
                Ok((columns::parsed(row, "name")?, columns::unsigned(row, "n")?))
            })?;
            let by_socket = "SELECT count(*) AS n FROM identity WHERE by_socket AND due_at IS NOT NULL AND good_until < 0 \
                             AND expires_at > ?1";
            let by_socket = db.first(by_socket, [micros(now)], |row| columns::unsigned(row, "n"))?;
            Ok((rows.into_iter().collect(), by_socket.unwrap_or(0)))
        })
        .await
    }

    /// Tokens of a resource that ended, at an instant of the service's clock.
    pub async fn ended_tokens(&self, resource: &ResourceName, now: Timestamp) -> Answer<Ended> {
        let resource = resource.clone();
        self.read("look for tokens that ended", move |db| {
            let params = [db.resource_num(resource.as_str())?, micros(now)];
            let ended = db.first(ENDED, params, |row| row.get::<_, i64>(0))?;
            let lives = "SELECT 1 FROM identity WHERE resource = ?1 AND (id IS NULL) IN (0, 1) \
                         AND (failing_since IS NOT NULL) IN (0, 1) AND due_at IS NOT NULL AND (good_until > ?2 OR good_until < 0) LIMIT 1";
            Ok(Ended {
                ended: ended.unwrap_or(0).unsigned_abs(),
                any_lives: db.first(lives, params, |_| Ok(()))?.is_some(),
            })
        })
        .await
    }

    /// When the next token ends that only the socket hands out; reads an index through.
    pub async fn next_end_by_socket(&self, now: Timestamp) -> Answer<Option<Timestamp>> {
        self.read("look for the next end", move |db| {
            let mut next: Option<i64> = None;
            let sql = "SELECT num FROM resource";
            let resources = db.all(RowKind::Resource, sql, [], |row| row.get::<_, Num>(0))?;
            for num in resources {
                // What is no time is set aside where the rows are looked through.
                let read = |row: &Row<'_>| Ok(row.get(0).ok().flatten());
                let end = db.first(NEXT_END_OF, [num, micros(now)], read)?;
                next = next.into_iter().chain(end.flatten()).min();
            }
            Ok(next.map(columns::instant))
        })
        .await
    }

    /// Some of those who hold no live token, by sink, or `socket`.
    pub async fn lacking(
        &self,
        now: Timestamp,
        limit: usize,
    ) -> Answer<BTreeMap<String, Vec<Name>>> {
        self.read("list consumers without a token", move |db| {
            let sinks = "SELECT num, name FROM sink WHERE configured";
            let sinks = db.all(RowKind::Sink, sinks, [], |row| {
                Ok((row.get::<_, Num>(0)?, row.get::<_, String>(1)?))
            })?;
            let mut lacking = BTreeMap::new();
            for (num, sink) in sinks {
                let params = rusqlite::params![num, micros(now), count(limit)];
                let names = db.all(RowKind::Identity, LACKING_NAMES, params, |row| {
                    columns::parsed(row, "name")
                })?;
                lacking.insert(sink, names);
            }
            let by_socket = "SELECT name FROM identity WHERE (id IS NULL) IN (0, 1) AND (failing_since IS NOT NULL) IN (0, 1) AND due_at IS NOT NULL AND by_socket \
                AND resource = ?1 AND good_until <= ?2 AND (good_until >= 0 OR good_until + (1 << 60) <= ?2) LIMIT ?3";
            let mut names = Vec::new();
            for num in db.all(RowKind::Resource, "SELECT num FROM resource", [], |row| {
                row.get::<_, Num>(0)
            })? {
                let params = rusqlite::params![num, micros(now), count(limit)];
                names.extend(db.all(RowKind::Identity, by_socket, params, |row| {
                    columns::parsed(row, "name")
                })?);
            }
            names.truncate(limit);
            lacking.insert("socket".to_owned(), names);
            Ok(lacking)
        })
        .await
    }

    /// Since when the oldest overdue renewal of each resource is overdue; looks at all that are, by index.
    pub async fn overdue_since(&self, now: Timestamp) -> Answer<BTreeMap<ResourceName, Timestamp>> {
        self.read("look for the oldest overdue renewal", move |db| {
            let rows = db.all(RowKind::Resource, OVERDUE, [micros(now)], |row| {
                let name: ResourceName = columns::parsed(row, "name")?;
                let ats = [
                    row.get::<_, Option<i64>>("due")?,
                    row.get("without")?,
                    row.get("failing")?,
                ];
                Ok((name, ats.into_iter().flatten().min()))
            })?;
            let overdue = |at: i64| at <= micros(now);
            let rows = rows
                .into_iter()
                .filter_map(|(name, at)| Some((name, at.filter(|at| overdue(*at))?)));
            Ok(rows
                .map(|(name, at)| (name, columns::instant(at)))
                .collect())
        })
        .await
    }

    /// Consumers that hold a live token of this access key, by sink; reads the deliveries through.
    pub async fn holding_key(
        &self,
        key: String,
        now: Timestamp,
    ) -> Answer<BTreeMap<SinkName, u64>> {
        self.read("count tokens of a key", move |db| db.holding_key(&key, now))
            .await
    }
}

impl Db {
    fn served_by_socket(&self, now: Timestamp, served: &mut Served) -> Outcome<()> {
        let sql = "SELECT num, name FROM resource";
        let resources = self.all(RowKind::Resource, sql, [], |row| {
            let name: ResourceName = columns::parsed(row, "name")?;
            Ok((row.get::<_, Num>("num")?, name))
        })?;
        let mut without = 0;
        for (num, name) in resources {
            let lacking = self.first(LACKING_OF, [num, micros(now)], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
            })?;
            let (all, by_socket) = lacking.unwrap_or_default();
            without += by_socket.unsigned_abs();
            if all > 0 {
                served.without.insert(name, all.unsigned_abs());
            }
        }
        let sql = "SELECT n FROM consumer_count WHERE sink = 0";
        let all = self.all(RowKind::Counter, sql, [], |row| columns::unsigned(row, "n"))?;
        let all = all.first().copied().unwrap_or(0);
        served.socket = consumers(all, without, 0, None);
        Ok(())
    }

    /// Consumers that still hold a token of this access key which lives, as far as is known; and
    /// whether each of them waits behind a sink that is disabled.
    pub(super) fn holding_key(
        &self,
        key: &str,
        now: Timestamp,
    ) -> Outcome<BTreeMap<SinkName, u64>> {
        let sql = "SELECT s.num, s.name, count(*) AS n FROM sink s JOIN delivery d ON d.sink = s.num \
                   WHERE s.configured AND d.live_until > ?2 AND d.live_key = ?1 GROUP BY s.name";
        let rows = self.all(
            RowKind::Sink,
            sql,
            rusqlite::params![key, micros(now)],
            |row| Ok((columns::parsed(row, "name")?, columns::unsigned(row, "n")?)),
        )?;
        Ok(rows.into_iter().collect())
    }
}

impl Txn<'_> {
    /// An identity is without a token on purpose: nobody is expected to hold one.
    pub(super) fn expect_none(&self, num: Num) -> Outcome<()> {
        let sql = "UPDATE delivery SET live_until = NULL, live_key = NULL WHERE identity = ?1";
        self.run(sql, [num])?;
        Ok(())
    }

    /// An identity is to have a token again: its consumers hold none as yet.
    pub(super) fn expect_token(&self, num: Num) -> Outcome<()> {
        let sql = "UPDATE delivery SET live_until = 0 WHERE identity = ?1 AND live_until IS NULL";
        self.run(sql, [num])?;
        Ok(())
    }

    /// Whatever the consumers of an identity hold was revoked.
    pub(super) fn all_held_are_dead(&self, num: Num) -> Outcome<()> {
        let sql = "UPDATE delivery SET live_until = 0 WHERE identity = ?1 AND live_until <> 0";
        self.run(sql, [num])?;
        Ok(())
    }
}

fn consumers(all: u64, without: u64, unknown: u64, next: Option<i64>) -> Consumers {
    Consumers {
        live: all.saturating_sub(without + unknown),
        without,
        unknown,
        doubtful: 0,
        next_end: next.map(columns::instant),
    }
}
