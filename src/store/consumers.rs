//! Who holds a live token, by the version that each sink confirmed last (counted without a scan of those who
//! do); who took tokens over the socket, by the hour; and which version each consumer said that it uses.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    Each, Store,
    aside::RowKind,
    db::{self, Db, Txn, micros},
    error::{Answer, Outcome},
    identities::count,
    queues::earliest_end,
};
use crate::{
    model::{Consumers, Name, Num, Reader, ResourceName, Served, SinkAt, Timestamp, Version},
    sql::{self, Row, params},
};

/// What a sink's consumers lack: only those are read that hold nothing live.
pub(super) const LACKING: &str = "SELECT count(*) FILTER (WHERE live_until >= 0), count(*) FILTER (WHERE live_until < 0) \
    FROM delivery WHERE sink = ?1 AND live_until IS NOT NULL AND live_until <= ?2";
/// The token that ends next, and how long its identity's tokens live.
pub(super) const NEXT_END: &str = "SELECT d.live_until, i.expires_at - i.issued_at FROM delivery d CROSS JOIN identity i \
    ON i.num = d.identity WHERE d.sink = ?1 AND d.live_until IS NOT NULL AND d.live_until > ?2 ORDER BY d.live_until LIMIT 1";
/// So many of those that hold none are looked at for who is without one for longest.
macro_rules! looked_at {
    () => {
        "8192"
    };
}
/// Since when the first of a sink's consumers holds none that lives: since its token ended, or since it was to have one.
pub(super) const LACKING_SINCE: &str = concat!(
    "SELECT min(CASE WHEN l.live_until > 0 THEN l.live_until WHEN l.wanted > l.delivered AND l.since > i.created_at \
     AND (i.revoked_at IS NULL OR l.since > i.revoked_at) THEN l.since WHEN i.revoked_at > i.created_at THEN i.revoked_at \
     ELSE i.created_at END) FROM (SELECT identity, live_until, wanted, delivered, since FROM delivery \
     WHERE sink = ?1 AND live_until IS NOT NULL AND live_until >= 0 AND live_until <= ?2 LIMIT ",
    looked_at!(),
    ") l CROSS JOIN identity i ON i.num = l.identity"
);
/// The same of those that only the socket serves.
pub(super) const LACKING_SINCE_OF: &str = concat!(
    "SELECT min(CASE WHEN l.good_until > 0 THEN l.good_until WHEN l.good_until < 0 THEN l.good_until + (1/*postgres ::bigint*/ << 60) \
     ELSE CASE WHEN i.revoked_at > i.created_at THEN i.revoked_at ELSE i.created_at END END) FROM (SELECT num, good_until FROM identity \
     INDEXED BY identity_ending WHERE resource = ?1 AND (id IS NULL)/*postgres ::int*/ IN (0, 1) AND (failing_since IS NOT NULL)/*postgres ::int*/ IN (0, 1) \
     AND due_at IS NOT NULL AND good_until <= ?2 AND (good_until >= 0 OR good_until + (1/*postgres ::bigint*/ << 60) <= ?2) AND by_socket = 1 LIMIT ",
    looked_at!(),
    ") l CROSS JOIN identity i ON i.num = l.num"
);
pub(super) const LACKING_NAMES: &str = "SELECT i.name FROM delivery d JOIN identity i ON i.num = d.identity \
    WHERE d.sink = ?1 AND d.live_until IS NOT NULL AND d.live_until >= 0 AND d.live_until <= ?2 \
    ORDER BY d.live_until LIMIT ?3";
/// Identities that want a token and have no live one (one that is in doubt may live), and those of them that only the socket serves.
pub(super) const LACKING_OF: &str = "SELECT count(*), count(*) FILTER (WHERE by_socket = 1) FROM identity WHERE resource = ?1 \
    AND (id IS NULL)/*postgres ::int*/ IN (0, 1) AND (failing_since IS NOT NULL)/*postgres ::int*/ IN (0, 1) AND due_at IS NOT NULL AND good_until <= ?2 \
    AND (good_until >= 0 OR good_until + (1/*postgres ::bigint*/ << 60) <= ?2)";
/// Passes over those that have a sink.
pub(super) const NEXT_END_OF: &str = concat!(
    "SELECT ",
    earliest_end!("?1", "good_until > ?2 AND by_socket = 1")
);
/// How long a token lives that ends then: it is late when a quarter of its life is left.
pub(super) const LIFE_OF_END: &str = "SELECT (good_until - late_at) * 4 FROM identity INDEXED BY identity_ending \
    WHERE resource = ?1 AND (id IS NULL)/*postgres ::int*/ IN (0, 1) AND (failing_since IS NOT NULL)/*postgres ::int*/ IN (0, 1) AND due_at IS NOT NULL \
    AND good_until = ?2 AND by_socket = 1 LIMIT 1";
pub(super) const ENDED: &str = "SELECT count(*) FROM identity WHERE resource = ?1 AND (id IS NULL)/*postgres ::int*/ IN (0, 1) \
    AND (failing_since IS NOT NULL)/*postgres ::int*/ IN (0, 1) AND due_at IS NOT NULL AND good_until > 0 AND good_until <= ?2";

/// Rows whose token is in doubt and has not ended: `good_until` is as far below zero as its end is from the beginning
/// of the next era, so that they are one stretch of the index.
macro_rules! doubtful {
    ($select:literal, $rest:literal) => {
        concat!(
            $select,
            " WHERE i.resource = ?1 AND (i.id IS NULL)/*postgres ::int*/ IN (0, 1) AND (i.failing_since IS NOT NULL)/*postgres ::int*/ IN (0, 1) \
             AND i.due_at IS NOT NULL AND i.good_until < 0 AND i.good_until > ?2 - (1/*postgres ::bigint*/ << 60) AND ",
            $rest
        )
    };
}

pub(super) const DOUBTFUL_BY_SOCKET: &str = doubtful!(
    "SELECT count(*) FROM identity i INDEXED BY identity_ending",
    "i.by_socket = 1"
);
/// Who holds such a token, by sink.
pub(super) const DOUBTFUL_HELD: &str = doubtful!(
    "SELECT d.sink, count(*) FROM identity i INDEXED BY identity_ending CROSS JOIN delivery d ON d.identity = i.num",
    "i.by_socket = 0 AND d.live_until > ?2 AND d.live_key IN (SELECT fingerprint FROM doubted_key) GROUP BY d.sink"
);
/// Who still holds one although the row has another by now.
pub(super) const DOUBTFUL_BEHIND: &str = "SELECT count(*) FROM delivery d JOIN identity i ON i.num = d.identity \
    WHERE d.sink = ?1 AND d.wanted > d.delivered AND d.live_until > ?2 AND NOT i.good_until < 0 \
    AND d.live_key IN (SELECT fingerprint FROM doubted_key)";

/// Since when the oldest of what is due, and of what failed and waits for its next attempt, is overdue. Of those that
/// have no token the first thousands stand for all.
pub(super) const OVERDUE: &str = "SELECT r.num, r.name, (SELECT min(i.renews_at) FROM identity i INDEXED BY identity_due \
    WHERE i.resource = r.num AND (i.id IS NULL)/*postgres ::int*/ IN (0, 1) AND (i.failing_since IS NOT NULL)/*postgres ::int*/ IN (0, 1) AND i.due_at <= ?1 AND i.good_until > 0) AS due, \
    (SELECT min(since) FROM (SELECT coalesce(i.revoked_at, i.created_at) AS since FROM identity i INDEXED BY identity_ending \
    WHERE i.resource = r.num AND (i.id IS NULL)/*postgres ::int*/ IN (0, 1) AND (i.failing_since IS NOT NULL)/*postgres ::int*/ IN (0, 1) AND i.due_at IS NOT NULL \
    AND i.good_until <= 0 AND i.due_at <= ?1 LIMIT 8192) without) AS without, \
    (SELECT min(CASE WHEN i.good_until > 0 THEN i.renews_at ELSE coalesce(i.revoked_at, i.created_at) END) \
    FROM identity i WHERE i.resource = r.num AND i.failures > 0 AND i.due_at > ?1) AS failing FROM resource r WHERE r.num = ?2";
/// The same where very many are due, of which not each is looked at: to the minute.
pub(super) const OVERDUE_OF_MANY: &str = "SELECT r.num, r.name, (SELECT min(renews) * 60000000 FROM life_count \
    WHERE resource = r.num AND n > 0) AS due, \
    (SELECT min(since) FROM (SELECT coalesce(i.revoked_at, i.created_at) AS since FROM identity i INDEXED BY identity_ending \
    WHERE i.resource = r.num AND (i.id IS NULL)/*postgres ::int*/ IN (0, 1) AND (i.failing_since IS NOT NULL)/*postgres ::int*/ IN (0, 1) AND i.due_at IS NOT NULL \
    AND i.good_until <= 0 AND i.due_at <= ?1 LIMIT 8192) without) AS without, CAST(NULL AS BIGINT) AS failing FROM resource r WHERE r.num = ?2";

/// What is withdrawn and not delivered. A sink may have been behind before: then it waits for what was withdrawn
/// since that was.
pub(super) const WITHHELD: &str = "SELECT d.identity AS num, d.sink AS sink_num, i.name, \
    CASE WHEN i.withdrawn_at > d.since THEN i.withdrawn_at ELSE d.since END AS since, d.last_error FROM delivery d \
    INDEXED BY delivery_withheld CROSS JOIN identity i ON i.num = d.identity \
    WHERE d.sink = ?1 AND d.wanted > d.delivered AND d.live_until IS NULL AND d.since <= ?2 \
    AND coalesce(i.withdrawn_at, d.since) <= ?2 AND i.state IN ('held', 'gone', 'deleted') ORDER BY d.since LIMIT ?3";
/// So many are counted.
const COUNTED: usize = 10_000;

/// What is withdrawn and has not reached a sink: its consumers may still hold a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Withheld {
    pub sink: SinkAt,
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
            let sql = "SELECT s.num, s.name, s.node, c.n FROM consumer_count c JOIN sink s ON s.num = c.sink \
                       WHERE c.n > 0 AND s.configured = 1";
            let sinks = db.all(RowKind::Sink, sql, [], |row| {
                let name = db::sink_at(row, ("name", "node"))?;
                Ok((
                    row.get::<_, Num>("num")?,
                    name,
                    db::unsigned(row, "n")?,
                ))
            })?;
            for (num, name, all) in sinks {
                let lacking = db.first(LACKING, [num, micros(now)], |row| {
                    Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
                })?;
                let (without, unknown) = lacking.unwrap_or_default();
                let mut held = consumers(all, without.unsigned_abs(), unknown.unsigned_abs());
                let next = db.first(NEXT_END, [num, micros(now)], |row| {
                    Ok((number(row, 0), number(row, 1)))
                })?;
                held.next_end = next.and_then(|(end, _)| Some(db::instant(end?)));
                held.next_life_secs = next.and_then(|(_, life)| seconds(life?));
                if without > 0 {
                    let since =
                        db.first(LACKING_SINCE, [num, micros(now)], |row| Ok(number(row, 0)))?;
                    held.without_since = since.flatten().map(db::instant);
                }
                served.sinks.insert(name, held);
            }
            db.served_by_socket(now, &mut served)?;
            Ok(served)
        })
        .await
    }

    /// What is withdrawn and waits for a sink since this instant or longer.
    pub async fn withheld(&self, since: Timestamp, named: usize) -> Answer<Vec<Withheld>> {
        self.read("look for what is withdrawn and not delivered", move |db| {
            let sinks = "SELECT num, name, node FROM sink WHERE configured = 1 ORDER BY name, node";
            let sinks = db.all(RowKind::Sink, sinks, [], |row| {
                Ok((
                    row.get::<_, Num>("num")?,
                    db::sink_at(row, ("name", "node"))?,
                ))
            })?;
            let mut withheld = Vec::new();
            for (num, sink) in sinks {
                let params = params![num, micros(since), count(COUNTED)];
                let mut rows = db.all(RowKind::Delivery, WITHHELD, params, |row| {
                    let name: Name = db::parsed(row, "name")?;
                    let error: Option<String> = row.get("last_error")?;
                    Ok((name, db::instant_in(row, "since")?, error))
                })?;
                rows.sort_by_key(|(_, since, _)| *since);
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
    pub async fn doubtful_held(&self, now: Timestamp) -> Answer<(BTreeMap<SinkAt, u64>, u64)> {
        self.read("count doubtful tokens", move |db| {
            let none = "SELECT 1 FROM doubted_key LIMIT 1";
            if db.first(none, [], |_| Ok(()))?.is_none() {
                return Ok(Default::default());
            }
            let (mut by_socket, mut held) = (0, BTreeMap::new());
            let sql = "SELECT num FROM resource";
            for resource in db.all(RowKind::Resource, sql, [], |row| row.get::<_, Num>(0))? {
                let params = [resource, micros(now)];
                let found = db.first(DOUBTFUL_BY_SOCKET, params, |row| row.get::<_, i64>(0))?;
                by_socket += found.unwrap_or(0).unsigned_abs();
                for (sink, n) in db.all(RowKind::Delivery, DOUBTFUL_HELD, params, read_held_of)? {
                    *held.entry(sink).or_default() += n;
                }
            }
            let sql = "SELECT num, name, node FROM sink WHERE configured = 1";
            let sinks = db.all(RowKind::Sink, sql, [], |row| {
                let sink = db::sink_at(row, ("name", "node"))?;
                Ok((row.get::<_, Num>("num")?, sink))
            })?;
            let mut told = BTreeMap::new();
            for (num, name) in sinks {
                let behind = db.first(DOUBTFUL_BEHIND, [num, micros(now)], |row| {
                    row.get::<_, i64>(0)
                })?;
                let n = held.get(&num).copied().unwrap_or(0) + behind.unwrap_or(0).unsigned_abs();
                if n > 0 {
                    told.insert(name, n);
                }
            }
            Ok((told, by_socket))
        })
        .await
    }

    /// Tokens of a resource that ended, at an instant of the service's clock.
    pub async fn ended_tokens(&self, resource: &ResourceName, now: Timestamp) -> Answer<Ended> {
        let resource = resource.clone();
        self.read("look for tokens that ended", move |db| {
            let params = [db.resource_num(resource.as_str())?, micros(now)];
            let ended = db.first(ENDED, params, |row| row.get::<_, i64>(0))?;
            let lives = "SELECT 1 FROM identity WHERE resource = ?1 AND (id IS NULL)/*postgres ::int*/ IN (0, 1) \
                         AND (failing_since IS NOT NULL)/*postgres ::int*/ IN (0, 1) AND due_at IS NOT NULL AND (good_until > ?2 OR good_until < 0) LIMIT 1";
            Ok(Ended {
                ended: ended.unwrap_or(0).unsigned_abs(),
                any_lives: db.first(lives, params, |_| Ok(()))?.is_some(),
            })
        })
        .await
    }

    /// When the next token ends that only the socket hands out, and how many seconds its life is long; passes over
    /// those that end sooner and have a sink, unless all have one.
    pub async fn next_end_by_socket(
        &self,
        now: Timestamp,
    ) -> Answer<Option<(Timestamp, Option<u64>)>> {
        self.read("look for the next end", move |db| {
            if db.consumers_by_socket()? == 0 {
                return Ok(None);
            }
            let mut next: Option<(i64, Num)> = None;
            let sql = "SELECT num FROM resource";
            let resources = db.all(RowKind::Resource, sql, [], |row| row.get::<_, Num>(0))?;
            for num in resources {
                let end = db.first(NEXT_END_OF, [num, micros(now)], |row| Ok(number(row, 0)))?;
                let end = end.flatten().map(|end| (end, num));
                next = next.into_iter().chain(end).min();
            }
            let Some((end, num)) = next else {
                return Ok(None);
            };
            let life = db.first(LIFE_OF_END, [num, end], |row| Ok(number(row, 0)))?;
            Ok(Some((db::instant(end), life.flatten().and_then(seconds))))
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
            let sinks = "SELECT num, name, node FROM sink WHERE configured = 1";
            let sinks = db.all(RowKind::Sink, sinks, [], |row| {
                let sink = db::sink_at(row, (1, 2))?;
                Ok((row.get::<_, Num>(0)?, sink.to_string()))
            })?;
            let mut lacking = BTreeMap::new();
            for (num, sink) in sinks {
                let params = params![num, micros(now), count(limit)];
                let names = db.all(RowKind::Identity, LACKING_NAMES, params, |row| {
                    db::parsed(row, "name")
                })?;
                lacking.insert(sink, names);
            }
            let by_socket = "SELECT name FROM identity WHERE (id IS NULL)/*postgres ::int*/ IN (0, 1) AND (failing_since IS NOT NULL)/*postgres ::int*/ IN (0, 1) AND due_at IS NOT NULL AND by_socket = 1 \
                AND resource = ?1 AND good_until <= ?2 AND (good_until >= 0 OR good_until + (1/*postgres ::bigint*/ << 60) <= ?2) LIMIT ?3";
            let mut names = Vec::new();
            for num in db.all(RowKind::Resource, "SELECT num FROM resource", [], |row| {
                row.get::<_, Num>(0)
            })? {
                let params = params![num, micros(now), count(limit)];
                names.extend(db.all(RowKind::Identity, by_socket, params, |row| {
                    db::parsed(row, "name")
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
            let rows = db.each_resource(|resource| {
                let few = db.are_few_due(resource, now)?;
                let sql = if few { OVERDUE } else { OVERDUE_OF_MANY };
                Ok(
                    db.all(RowKind::Resource, sql, [micros(now), resource], |row| {
                        let name: ResourceName = db::parsed(row, "name")?;
                        let ats = [
                            row.get::<_, Option<i64>>("due")?,
                            row.get("without")?,
                            row.get("failing")?,
                        ];
                        Ok((name, ats.into_iter().flatten().min()))
                    })?,
                )
            })?;
            let overdue = |at: i64| at <= micros(now);
            let rows = rows
                .into_iter()
                .filter_map(|(name, at)| Some((name, at.filter(|at| overdue(*at))?)));
            Ok(rows.map(|(name, at)| (name, db::instant(at))).collect())
        })
        .await
    }

    /// Consumers that hold a live token of this access key, by sink; reads the deliveries through.
    pub async fn holding_key(&self, key: String, now: Timestamp) -> Answer<BTreeMap<SinkAt, u64>> {
        self.read("count tokens of a key", move |db| db.holding_key(&key, now))
            .await
    }
}

impl Db {
    fn served_by_socket(&self, now: Timestamp, served: &mut Served) -> Outcome<()> {
        let sql = "SELECT num, name FROM resource";
        let resources = self.all(RowKind::Resource, sql, [], |row| {
            let name: ResourceName = db::parsed(row, "name")?;
            Ok((row.get::<_, Num>("num")?, name))
        })?;
        let (mut without, mut since) = (0, None);
        for (num, name) in resources {
            let lacking = self.first(LACKING_OF, [num, micros(now)], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
            })?;
            let (all, by_socket) = lacking.unwrap_or_default();
            without += by_socket.unsigned_abs();
            if by_socket > 0 {
                let first = self.first(LACKING_SINCE_OF, [num, micros(now)], |row| {
                    Ok(number(row, 0))
                })?;
                since = first.flatten().into_iter().chain(since).min();
            }
            if all > 0 {
                served.without.insert(name, all.unsigned_abs());
            }
        }
        served.socket = consumers(self.consumers_by_socket()?, without, 0);
        served.socket.without_since = since.map(db::instant);
        Ok(())
    }

    /// Identities that want a token and that only the socket serves.
    fn consumers_by_socket(&self) -> Outcome<u64> {
        let sql = "SELECT n FROM consumer_count WHERE sink = 0";
        let all = self.all(RowKind::Counter, sql, [], |row| db::unsigned(row, "n"))?;
        Ok(all.first().copied().unwrap_or(0))
    }

    /// Consumers that still hold a token of this access key which lives, as far as is known; and
    /// whether each of them waits behind a sink that is disabled.
    pub(super) fn holding_key(&self, key: &str, now: Timestamp) -> Outcome<BTreeMap<SinkAt, u64>> {
        let sql = "SELECT s.num, s.name, s.node, count(*) AS n FROM sink s JOIN delivery d ON d.sink = s.num \
                   WHERE s.configured = 1 AND d.live_until > ?2 AND d.live_key = ?1 GROUP BY s.num, s.name, s.node";
        let rows = self.all(RowKind::Sink, sql, params![key, micros(now)], |row| {
            Ok((db::sink_at(row, ("name", "node"))?, db::unsigned(row, "n")?))
        })?;
        Ok(rows.into_iter().collect())
    }
}

impl Txn<'_> {
    /// An identity is without a token on purpose: nobody is expected to hold one.
    pub(super) fn expect_none(&mut self, num: Num) -> Outcome<()> {
        let what = "SET live_until = NULL, live_key = NULL WHERE identity = ?1";
        self.write_deliveries_of(num, |txn| txn.write_deliveries(what, [num]))?;
        Ok(())
    }

    /// An identity is to have a token again: its consumers hold none as yet.
    pub(super) fn expect_token(&mut self, num: Num) -> Outcome<()> {
        let what = "SET live_until = 0 WHERE identity = ?1 AND live_until IS NULL";
        self.write_deliveries_of(num, |txn| txn.write_deliveries(what, [num]))?;
        Ok(())
    }

    /// Whatever the consumers of an identity hold was revoked.
    pub(super) fn all_held_are_dead(&self, num: Num) -> Outcome<()> {
        let what = "SET live_until = 0 WHERE identity = ?1 AND live_until <> 0";
        self.write_deliveries(what, [num])?;
        Ok(())
    }
}

fn read_held_of(row: &Row<'_>) -> sql::Result<(Num, u64)> {
    Ok((row.get(0)?, row.get::<_, i64>(1)?.unsigned_abs()))
}

fn consumers(all: u64, without: u64, unknown: u64) -> Consumers {
    Consumers {
        live: all.saturating_sub(without + unknown),
        without,
        unknown,
        ..Consumers::default()
    }
}

/// A number that may be none: what is no time is set aside where the rows are looked through.
fn number(row: &Row<'_>, column: usize) -> Option<i64> {
    row.get(column).ok().flatten()
}

fn seconds(micros: i64) -> Option<u64> {
    u64::try_from(micros / 1_000_000)
        .ok()
        .filter(|life| *life > 0)
}

/// Consumers of one identity that are remembered of each user, the latest to speak.
const HOLDERS_OF_USER: i64 = 64;
/// Consumers of one identity that are remembered at all: beyond it goes whoever speaks with the most names,
/// so that nobody pushes the one consumer of another user out.
const HOLDERS: i64 = 1024;

/// A consumer's word that it uses a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acknowledgement {
    pub num: Num,
    /// The user that said so.
    pub uid: u32,
    /// What it calls itself.
    pub client: String,
    pub version: Version,
}

/// A consumer and the version that it uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Holder {
    pub name: Name,
    /// The user that said so.
    pub uid: u32,
    /// What it calls itself.
    pub client: String,
    /// The version that it uses.
    pub version: Version,
    /// The version that it should use.
    pub current: Version,
    /// When it said so.
    pub at: Timestamp,
}

/// Tokens that one user took of one identity within an hour.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TokenReads {
    /// The start of the hour.
    pub hour: Timestamp,
    pub name: Name,
    pub uid: u32,
    pub count: u64,
}

/// Which counts of reads to show, the latest hour first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReadsQuery {
    /// Only of this identity.
    pub name: Option<Name>,
    /// Only of hours that start at or after this instant.
    pub since: Option<Timestamp>,
    /// Only what comes after this one in the listing: the last of the page before.
    pub after: Option<(Timestamp, Name, u32)>,
    /// At most so many.
    pub limit: usize,
}

impl Store {
    /// Notes which version a consumer uses; false where the identity never had it, as far as is remembered.
    /// Of each user the latest 64 consumers of an identity are kept.
    pub async fn acknowledge(&self, ack: Acknowledgement, now: Timestamp) -> Answer<bool> {
        self.write("note an acknowledgement", move |txn| {
            let version = db::signed(ack.version.0);
            let sql = "SELECT 1 FROM identity WHERE num = ?1 AND (version = ?2 OR prev_version = ?2 \
                       OR /*sqlite*/instr/*postgres strpos*/(' ' || past, ' ' || CAST(?2 AS TEXT) || ' ') > 0)";
            if txn.first(sql, [ack.num, version], |_| Ok(()))?.is_none() {
                return Ok(false);
            }
            let sql = "INSERT INTO holder (identity, uid, client, version, at) VALUES (?1, ?2, ?3, ?4, ?5) \
                       ON CONFLICT (identity, uid, client) DO UPDATE SET version = ?4, at = ?5";
            txn.run(
                sql,
                params![ack.num, ack.uid, ack.client, version, micros(now)],
            )?;
            txn.run(
                "DELETE FROM holder WHERE identity = ?1 AND uid = ?2 AND client IN \
                 (SELECT client FROM holder WHERE identity = ?1 AND uid = ?2 ORDER BY at DESC LIMIT 9223372036854775807 OFFSET ?3)",
                [ack.num, i64::from(ack.uid), HOLDERS_OF_USER],
            )?;
            txn.run(
                "DELETE FROM holder WHERE identity = ?1 AND (uid, client) IN (SELECT uid, client FROM ( \
                 SELECT uid, client, at, row_number() OVER (PARTITION BY uid ORDER BY at DESC) AS nth \
                 FROM holder WHERE identity = ?1) ranked ORDER BY nth, at DESC LIMIT 9223372036854775807 OFFSET ?2)",
                [ack.num, HOLDERS],
            )?;
            Ok(true)
        })
        .await
    }

    /// Whether any of these users and groups may read any identity.
    pub async fn may_any_read(&self, readers: Vec<Reader>) -> Answer<bool> {
        self.read_mirrored("look for readers", Vec::new(), move |db| {
            for reader in &readers {
                let sql = "SELECT 1 FROM reader WHERE name = ?1 AND n > 0";
                if db.first(sql, [reader.to_string()], |_| Ok(()))?.is_some() {
                    return Ok(true);
                }
            }
            Ok(false)
        })
        .await
    }

    /// Consumers of an identity, or of all, in the order of names; those that use an old version
    /// alone, if so wished.
    pub async fn holders(
        &self,
        num: Option<Num>,
        only_old: bool,
        limit: usize,
    ) -> Answer<Vec<Holder>> {
        self.read("list consumers", move |db| {
            let sql = "SELECT h.identity, i.name, h.uid, h.client, h.version, i.version AS current, h.at \
                       FROM holder h JOIN identity i ON i.num = h.identity \
                       WHERE (CAST(?1 AS BIGINT) IS NULL OR h.identity = ?1) AND (CAST(?2 AS BIGINT) = 0 OR h.version < i.version) \
                       ORDER BY i.name, h.uid, h.client";
            let holders = db.page(RowKind::Holder, limit, sql, params![num, only_old], |row| {
                Ok(Holder {
                    name: db::parsed(row, "name")?,
                    uid: row.get("uid")?,
                    client: row.get("client")?,
                    version: Version(db::unsigned(row, "version")?),
                    current: Version(db::unsigned(row, "current")?),
                    at: db::instant_in(row, "at")?,
                })
            })?;
            Ok(holders)
        })
        .await
    }

    /// Adds to the counts of tokens that were taken. Each is answered; one that the store refuses keeps no
    /// other back.
    pub async fn note_reads(&self, reads: Vec<TokenReads>) -> Answer<Each<()>> {
        self.write("count token reads", move |txn| {
            txn.each("count a token read", &reads, |txn, reads| {
                txn.note_reads(reads)?;
                Ok(vec![(); reads.len()])
            })
        })
        .await
    }

    /// The counts of tokens that were taken, the latest hour first.
    pub async fn token_reads(&self, query: ReadsQuery) -> Answer<Vec<TokenReads>> {
        self.read("list token reads", move |db| {
            let sql = "SELECT hour, name, uid, n FROM token_read \
                       WHERE (CAST(?1 AS TEXT) IS NULL OR name = ?1) AND hour >= ?2 \
                       AND (CAST(?3 AS BIGINT) IS NULL OR hour < ?3 OR (hour = ?3 AND (name, uid) > (?4, ?5))) \
                       ORDER BY hour DESC, name, uid";
            let after = query.after.as_ref();
            let params = params![
                query.name.as_ref().map(Name::as_str),
                query.since.map_or(i64::MIN, micros),
                after.map(|(hour, ..)| micros(*hour)),
                after.map(|(_, name, _)| name.as_str()),
                after.map(|(.., uid)| *uid)
            ];
            let reads = db.page(RowKind::TokenRead, query.limit, sql, params, |row| {
                Ok(TokenReads {
                    hour: db::instant_in(row, "hour")?,
                    name: db::parsed(row, "name")?,
                    uid: row.get("uid")?,
                    count: db::unsigned(row, "n")?,
                })
            })?;
            Ok(reads)
        })
        .await
    }
}

impl Txn<'_> {
    pub(super) fn note_reads(&self, reads: &[TokenReads]) -> Outcome<()> {
        let sql = "INSERT INTO token_read (hour, name, uid, n) VALUES (?1, ?2, ?3, ?4) \
                   ON CONFLICT (hour, name, uid) DO UPDATE SET n = token_read.n + ?4";
        for read in reads {
            let n = db::signed(read.count);
            self.run(
                sql,
                params![micros(read.hour), read.name.as_str(), read.uid, n],
            )?;
        }
        Ok(())
    }

    /// Nobody uses a token of a row that is dropped.
    pub(super) fn forget_holders(&self, num: Num) -> Outcome<()> {
        self.run("DELETE FROM holder WHERE identity = ?1", [num])?;
        Ok(())
    }

    /// Drops counts of hours, and consumers that have been silent, since before these instants.
    pub(super) fn prune_access(
        &self,
        (reads, holders): (i64, i64),
        batch: i64,
    ) -> Outcome<(usize, usize)> {
        let old_reads = "DELETE FROM token_read WHERE (hour, name, uid) IN \
                         (SELECT hour, name, uid FROM token_read WHERE hour < ?1 LIMIT ?2)";
        let old_holders = "DELETE FROM holder WHERE (identity, uid, client) IN \
                           (SELECT identity, uid, client FROM holder WHERE at < ?1 LIMIT ?2)";
        Ok((
            self.run(old_reads, [reads, batch])?,
            self.run(old_holders, [holders, batch])?,
        ))
    }
}
