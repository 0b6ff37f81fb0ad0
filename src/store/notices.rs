//! Notices: raised in the transaction that they tell of, so that who sees the one sees the other, whenever the
//! process ends; kept in order until every sink has them.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Store,
    aside::RowKind,
    db::{self, Db, Txn, drawn, draws, micros, signed, spelled},
    error::{Answer, Each, Outcome},
};
use crate::{
    model::{
        Applied, AuditEntry, Change, Name, Notice, NoticeKind, Num, ResourceName, SinkAt, Timestamp,
    },
    sql::{self, Row, params},
};

/// What a row has come to, so that nothing that was told of it while it had no token goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CameTo {
    /// A token was committed.
    Token,
    /// It is without a token on purpose, or gone.
    None,
    /// Nobody names it any more.
    Dropped,
}

impl Store {
    pub async fn raise(&self, notices: Vec<Notice>) -> Answer<()> {
        self.write("raise a notice", move |txn| txn.raise(&notices))
            .await
    }

    /// Raises a notice of what begins or ends, unless that is what was told last under its key.
    /// Whether it was raised.
    pub async fn announce(&self, notice: Notice) -> Answer<bool> {
        self.write("raise a notice", move |txn| txn.announce(&notice))
            .await
    }

    /// Tells that what was told of resources but these is over: nobody asks them for anything.
    pub async fn end_notices_elsewhere(
        &self,
        configured: Vec<ResourceName>,
        now: Timestamp,
    ) -> Answer<()> {
        let here = configured.clone();
        let told = self.read("look for what was told", move |db| db.told_elsewhere(&here));
        if told.await?.is_empty() {
            return Ok(());
        }
        self.write("raise a notice", move |txn| {
            let over = txn.told_elsewhere(&configured)?;
            let twins = over
                .into_iter()
                .filter_map(|told| no_longer_told(told, now));
            let twins: Vec<Notice> = twins.collect();
            txn.raise(&twins)
        })
        .await
    }

    /// What was told and is not told to be over, by key.
    pub async fn open_notices(&self) -> Answer<BTreeMap<String, NoticeKind>> {
        self.read("look for what was told", |db| {
            let sql = "SELECT n.key, n.kind FROM (SELECT max(seq) AS seq FROM notice WHERE key IS NOT NULL GROUP BY key) l \
                       JOIN notice n ON n.seq = l.seq";
            let mut open: BTreeMap<String, NoticeKind> = BTreeMap::new();
            for (key, kind) in db.all(RowKind::Notice, sql, [], |row| {
                Ok((row.get(0)?, db::word::<NoticeKind>(row, "kind")?))
            })? {
                if !kind.ended_by().is_empty() {
                    open.insert(key, kind);
                }
            }
            Ok(open)
        })
        .await
    }

    /// How often what is not over was told under a key.
    pub async fn times_told(&self, key: String) -> Answer<u32> {
        self.read("look for what was told", move |db| {
            let sql = "SELECT kind FROM notice WHERE key = ?1 ORDER BY seq DESC LIMIT 10";
            let kinds: Vec<NoticeKind> =
                db.all(RowKind::Notice, sql, [&key], |row| db::word(row, "kind"))?;
            let open = kinds.iter().take_while(|kind| !kind.ended_by().is_empty());
            Ok(u32::try_from(open.count()).unwrap_or(u32::MAX))
        })
        .await
    }

    /// What was told under a key and is not told to be over.
    pub async fn open_notice(&self, key: String) -> Answer<Option<NoticeKind>> {
        self.read("look for what was told", move |db| db.open_notice(&key))
            .await
    }

    /// Notices after a number, in order.
    pub async fn notices(&self, after: u64, limit: usize) -> Answer<Vec<(u64, Notice)>> {
        self.read("list notices", move |db| {
            let sql = "SELECT * FROM notice WHERE seq > ?1 ORDER BY seq";
            Ok(db.page(RowKind::Notice, limit, sql, [signed(after)], read_numbered)?)
        })
        .await
    }

    /// Notices after a number that a sink is to be told of: all but that of its own end.
    pub async fn notices_for(
        &self,
        sink: &SinkAt,
        after: u64,
        limit: usize,
    ) -> Answer<Vec<(u64, Notice)>> {
        let sink = sink.clone();
        self.read("list notices", move |db| {
            let sql =
                "SELECT * FROM notice WHERE seq > ?1 AND not_to IS DISTINCT FROM ?2 ORDER BY seq";
            let params = [signed(after), db.sink_num(&sink)?];
            Ok(db.page(RowKind::Notice, limit, sql, params, read_numbered)?)
        })
        .await
    }

    /// The trouble of a resource that was announced and whose end was not: unreachable, or its keys
    /// rejected.
    pub async fn announced_trouble(&self, resource: &ResourceName) -> Answer<Option<NoticeKind>> {
        let resource = resource.clone();
        self.read("look for an outage", move |db| {
            let sql = "SELECT kind FROM notice WHERE resource = ?1 AND name IS NULL AND kind IN \
                       ('resource.unreachable', 'resource.recovered', 'key.rejected') ORDER BY seq DESC LIMIT 1";
            let last = db.first(sql, [resource.as_str()], |row| db::word(row, "kind"))?;
            Ok(last.filter(|kind| *kind != NoticeKind::ResourceRecovered))
        })
        .await
    }

    /// The newest notices, newest first.
    pub async fn latest_notices(&self, limit: usize) -> Answer<Vec<(u64, Notice)>> {
        self.read("list notices", move |db| {
            let sql = "SELECT * FROM notice ORDER BY seq DESC";
            Ok(db.page(RowKind::Notice, limit, sql, [], read_numbered)?)
        })
        .await
    }

    /// The number of the last notice that a sink has passed on.
    pub async fn notice_cursor(&self, sink: &SinkAt) -> Answer<u64> {
        let sink = sink.clone();
        self.read("read a cursor", move |db| {
            let sql = "SELECT num, name, notice_cursor FROM sink WHERE num = ?1";
            let read = |row: &Row<'_>| db::unsigned(row, "notice_cursor");
            match db.one(RowKind::Sink, sql, [db.sink_num(&sink)?], read) {
                Ok(cursor) => Ok(cursor.unwrap_or(0)),
                // How far it was is not known: it hears of what comes, as a new sink does.
                Err(error) if error.is_unreadable() => {
                    let sql = "SELECT coalesce(max(seq), 0) AS seq FROM notice";
                    let newest = db.first(sql, [], |row| db::unsigned(row, "seq"))?;
                    Ok(newest.unwrap_or(0))
                }
                Err(error) => Err(error.into()),
            }
        })
        .await
    }

    /// Moves it; never backwards.
    pub async fn advance_cursor(&self, sink: &SinkAt, seq: u64) -> Answer<()> {
        let sink = sink.clone();
        self.write("move a cursor", move |txn| {
            let set = "notice_cursor = CASE WHEN /*sqlite*/typeof(notice_cursor) = 'integer' AND /*postgres */notice_cursor > ?2 \
                       THEN notice_cursor ELSE ?2 END";
            txn.write_sink(set, params![txn.sink_num(&sink)?, signed(seq)])?;
            Ok(())
        })
        .await
    }

    /// Notes decisions together with what people are told of them: who sees the one sees the other, whenever
    /// the process ends. Each posting is answered; one that the store refuses keeps no other back.
    pub async fn post(
        &self,
        postings: Arc<Vec<Posting>>,
        now: Timestamp,
    ) -> Answer<Each<Option<Applied>>> {
        let withdraws = postings.iter().any(
            |posting| matches!(posting, Posting::Decided(decided) if decided.change.is_gone()),
        );
        self.queue("commit results", withdraws, move |txn| {
            txn.each("note a result", &postings, |txn, postings| {
                let decided = postings.iter().filter_map(Posting::decided);
                txn.read_ahead(decided.map(|decided| &decided.change))?;
                postings
                    .iter()
                    .map(|posting| txn.post_one(posting, now))
                    .collect()
            })
        })
        .await
    }
}

impl Txn<'_> {
    pub(super) fn raise(&mut self, notices: &[Notice]) -> Outcome<()> {
        for notice in notices {
            self.send(
                concat!(
                    draws!("notice"),
                    " (seq, at, kind, resource, name, message, key) VALUES (",
                    drawn!(),
                    ", ?1, ?2, ?3, ?4, ?5, ?6)"
                ),
                params![
                    micros(notice.at),
                    spelled(&notice.kind),
                    notice.resource.as_ref().map(|r| r.as_str()),
                    notice.name.as_ref().map(|n| n.as_str()),
                    notice.message,
                    notice.key
                ],
            )?;
        }
        self.effects.wanted |= !notices.is_empty();
        Ok(())
    }

    /// Raises a notice of what begins or ends, unless that is what was told last under its key: so
    /// each is told once, over restarts. Whether it was raised.
    pub(super) fn announce(&mut self, notice: &Notice) -> Outcome<bool> {
        let open = match &notice.key {
            Some(key) => self.open_notice(key)?,
            None => None,
        };
        let begins = !notice.kind.ended_by().is_empty();
        let news = match open {
            None => begins,
            Some(open) if begins => open != notice.kind,
            Some(open) => open.ended_by().contains(&notice.kind),
        };
        if news {
            self.raise(std::slice::from_ref(notice))?;
        }
        Ok(news)
    }

    /// Tells that what was told of a row is over, before what marks it is taken from the row: that its
    /// renewal is late, that it fails by itself, that it is gone, that an order for it failed.
    pub(super) fn end_notices_of(
        &mut self,
        num: Num,
        came_to: CameTo,
        now: Timestamp,
    ) -> Outcome<()> {
        let sql = "SELECT i.name, r.name AS resource, i.late_notified, i.failing_since IS NOT NULL AS failing, \
                   i.next_kind = 'issued' AS first FROM identity i LEFT JOIN resource r ON r.num = i.resource WHERE i.num = ?1";
        let found = self.first(sql, [num], |row| {
            let marks = [row.get(2), row.get(3), row.get(4)];
            let marks = marks.map(|mark: sql::Result<bool>| mark.unwrap_or(true));
            // Of a row whose name cannot be read nothing was told.
            let name: Option<Name> = db::parsed(row, "name").ok();
            Ok(name.map(|name| (name, db::parsed(row, "resource").ok(), marks)))
        })?;
        let Some((name, resource, [late, failing, first])) = found.flatten() else {
            return Ok(());
        };
        let resource: Option<ResourceName> = resource;
        let mut over = Vec::new();
        let how = match came_to {
            CameTo::Token => "it has a new token",
            CameTo::None => "it is to have no token any more",
            CameTo::Dropped => "it was removed",
        };
        if late {
            let message = format!("The renewal of {name} is not late any more: {how}.");
            over.push((
                Notice::late_key(&name),
                NoticeKind::RenewalRecovered,
                message,
            ));
        }
        if failing {
            let message = format!("{name} does not fail any more: {how}.");
            over.push((
                Notice::failing_key(&name),
                NoticeKind::IdentityRecovered,
                message,
            ));
        }
        if first && came_to == CameTo::Token {
            let message = format!("ACS knows {name} again, and it has a token.");
            over.push((
                Notice::gone_key(&name),
                NoticeKind::IdentityRevived,
                message,
            ));
        }
        if came_to == CameTo::Dropped {
            let message = format!("{name}, which ACS did not know any more, was removed.");
            over.push((Notice::gone_key(&name), NoticeKind::GoneSettled, message));
        }
        for (key, kind, message) in over {
            let (resource, name) = (resource.clone(), Some(name.clone()));
            self.announce(&Notice {
                at: now,
                kind,
                resource,
                name,
                key: Some(key),
                message,
            })?;
        }
        Ok(())
    }

    /// An order that had failed for good is done after all, or given up.
    pub(super) fn end_order_notice(
        &mut self,
        label: &str,
        how: &str,
        now: Timestamp,
    ) -> Outcome<()> {
        self.announce(&Notice {
            at: now,
            kind: NoticeKind::OrderDone,
            resource: None,
            name: label.parse().ok(),
            key: Some(Notice::order_key(label)),
            message: format!("What was ordered for {label} and had failed {how}."),
        })?;
        Ok(())
    }
}

/// That what was told of a resource is over, because the resource is no longer configured.
fn no_longer_told(told: Notice, now: Timestamp) -> Option<Notice> {
    let resource = told.resource.as_ref()?;
    Some(Notice {
        at: now,
        kind: *told.kind.ended_by().last()?,
        message: format!("{resource} is no longer configured: what was told of it is over."),
        ..told
    })
}

impl Db {
    /// What was told of resources but these, can end, and was not told to be over. What became of orders and
    /// of identities that are gone stays true.
    fn told_elsewhere(&self, configured: &[ResourceName]) -> Outcome<Vec<Notice>> {
        let sql = "SELECT n.* FROM (SELECT max(seq) AS seq FROM notice WHERE key IS NOT NULL GROUP BY key) l \
                   JOIN notice n ON n.seq = l.seq WHERE n.resource IS NOT NULL";
        let told = self.all(RowKind::Notice, sql, [], read_notice)?;
        let stays = [NoticeKind::OrderFailed, NoticeKind::IdentityGone];
        let is_over = |notice: &Notice| {
            let mut here = notice.resource.iter();
            !here.any(|one| configured.contains(one))
                && !notice.kind.ended_by().is_empty()
                && !stays.contains(&notice.kind)
        };
        Ok(told.into_iter().filter(is_over).collect())
    }

    /// What was told under a key and is not told to be over.
    pub(super) fn open_notice(&self, key: &str) -> Outcome<Option<NoticeKind>> {
        let sql = "SELECT kind FROM notice WHERE key = ?1 ORDER BY seq DESC LIMIT 1";
        let last: Option<NoticeKind> = self.first(sql, [key], |row| db::word(row, "kind"))?;
        Ok(last.filter(|kind| !kind.ended_by().is_empty()))
    }
}

pub(super) fn read_numbered(row: &Row<'_>) -> sql::Result<(u64, Notice)> {
    Ok((db::unsigned(row, "seq")?, read_notice(row)?))
}

fn read_notice(row: &Row<'_>) -> sql::Result<Notice> {
    Ok(Notice {
        at: db::instant_in(row, "at")?,
        kind: db::word(row, "kind")?,
        resource: db::maybe_parsed(row, "resource")?,
        name: db::maybe_parsed(row, "name")?,
        key: row.get("key")?,
        message: row.get("message")?,
    })
}

/// A decision, and what people are told once it is applied.
#[derive(Debug, Clone)]
pub struct Decided {
    pub change: Change,
    /// Raised in the same transaction, unless the change comes too late ([`Applied::Stale`]).
    pub notices: Vec<Notice>,
}

/// What is to be noted of results.
#[derive(Debug, Clone)]
pub enum Posting {
    /// A decision about a row.
    Decided(Decided),
    /// A notice that is about no row's decision.
    Notice(Notice),
    /// An entry of the audit trail.
    Audit(AuditEntry),
}

impl Posting {
    fn decided(&self) -> Option<&Decided> {
        match self {
            Self::Decided(decided) => Some(decided),
            Self::Notice(_) | Self::Audit(_) => None,
        }
    }
}

impl Txn<'_> {
    fn post_one(&mut self, posting: &Posting, now: Timestamp) -> Outcome<Option<Applied>> {
        let decided = match posting {
            Posting::Decided(decided) => decided,
            Posting::Notice(notice) => {
                self.raise(std::slice::from_ref(notice))?;
                return Ok(None);
            }
            Posting::Audit(entry) => {
                self.audit(entry)?;
                return Ok(None);
            }
        };
        let applied = self.apply(&decided.change, now)?;
        if matches!(applied, Applied::Done(_)) {
            self.raise(&decided.notices)?;
        }
        Ok(Some(applied))
    }
}
