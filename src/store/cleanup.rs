//! Counters that never scan, and what is dropped when its time is over, a small batch at a time.

use std::{collections::BTreeMap, time::Duration};

use super::{
    Store,
    aside::RowKind,
    db::{self, Db, Txn, micros},
    disk::Disk,
    error::{Answer, Outcome},
    identities::count,
    idmap::read_remembered,
    notices::CameTo,
};
use crate::{
    model::{Counts, IdLine, Num, ResourceName, State, Timestamp},
    sql::Params,
};

/// How long the trails are kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keep {
    pub(super) renewals: Duration,
    pub(super) other: Duration,
}

impl Keep {
    /// What of it remains on such a disk: routine renewals go first, the rest only when nothing can be
    /// written any more.
    fn on(self, disk: Disk) -> Self {
        let (renewals, other) = match disk {
            Disk::Roomy => return self,
            Disk::OnReserve => (Duration::from_hours(1), self.other),
            Disk::Full => (Duration::ZERO, Duration::from_hours(30 * 24)),
        };
        Self {
            renewals: self.renewals.min(renewals),
            other: self.other.min(other),
        }
    }
}

/// How many rows a clean-up dropped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Lines of routine renewals.
    pub renewals: usize,
    /// Other entries of the audit trail.
    pub audit: usize,
    pub notices: usize,
    /// Orphaned tokens that have expired.
    pub orphans: usize,
    /// Forgotten identities whose consumers have been told.
    pub forgotten: usize,
    /// Items of campaigns that ended long ago.
    pub items: usize,
    /// Identities of replacements of keys that ended long ago.
    pub key_items: usize,
    /// Counts of token reads.
    pub reads: usize,
    /// Consumers that have not said for long which version they use.
    pub holders: usize,
}

impl Pruned {
    /// Whether any kind filled its batch, so that another round is worth it.
    pub fn is_full(&self, batch: usize) -> bool {
        [
            self.renewals,
            self.audit,
            self.notices,
            self.orphans,
            self.forgotten,
            self.items,
            self.key_items,
            self.reads,
            self.holders,
        ]
        .contains(&batch)
    }
}

/// So many identities of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally {
    pub resource: ResourceName,
    /// Their state as it is stored.
    pub state: State,
    /// Whether ACS has them.
    pub has_id: bool,
    /// Their state as people see it.
    pub shown: State,
    pub count: u64,
}

/// By resource and state, as if all were made and none late.
const ALL_KINDS: &str = "SELECT r.name, c.state, TRUE AS has_id, FALSE AS late, c.n FROM identity_count c \
    JOIN resource r ON r.num = c.resource WHERE c.n > 0";
/// Those that are late, or were not made; each row is looked at, and few are sorted.
const ODD_KINDS: &str = "SELECT r.name, k.state, k.has_id, k.late, count(*) AS n FROM (\
    SELECT resource, state, id IS NOT NULL AS has_id, state = 'active' AND (good_until < 0 \
    OR (good_until = 0 AND expires_at IS NOT NULL) OR coalesce(late_at <= ?1, FALSE)) AS late FROM identity) k \
    JOIN resource r ON r.num = k.resource WHERE k.late OR NOT k.has_id GROUP BY r.num, r.name, k.state, k.has_id, k.late";

impl Db {
    fn kinds(&self, sql: &str, params: impl Params) -> Outcome<Vec<Tally>> {
        Ok(self.all(RowKind::Counter, sql, params, |row| {
            let (late, state): (bool, State) = (row.get("late")?, db::word(row, "state")?);
            Ok(Tally {
                resource: db::parsed(row, "name")?,
                state,
                has_id: row.get("has_id")?,
                shown: if late { State::Late } else { state },
                count: db::unsigned(row, "n")?,
            })
        })?)
    }
}

impl Store {
    /// How long the trails are kept; shorter while the disk is full, so that renewals go on.
    pub(super) fn keep(&self) -> Keep {
        self.0.keep.on(self.disk())
    }

    /// Drops what is past its time, at most `batch` rows of each kind; called every minute or so, and
    /// again while [`Pruned::is_full`]. The id map is written anew if it is behind.
    pub async fn prune(&self, batch: usize, now: Timestamp) -> Answer<Pruned> {
        let keep = self.keep();
        self.write("clean up", move |txn| {
            let before = |age: std::time::Duration| {
                let at = now.checked_sub(age).unwrap_or(Timestamp::MIN);
                (micros(at), count(batch))
            };
            let (renewals, other) = (before(keep.renewals), before(keep.other));
            // Each trail is in the order of time, so its oldest rows are its first.
            let trail = "WITH oldest AS (SELECT seq, at FROM {} WHERE /*sqlite*/typeof(at) = 'integer'/*postgres TRUE*/ ORDER BY seq LIMIT ?2) \
                         DELETE FROM {} WHERE seq IN (SELECT seq FROM oldest WHERE at < ?1)";
            txn.effects.cleaned = true;
            txn.drop_empty_counts()?;
            txn.prune_journal(now)?;
            let (reads, holders) = txn.prune_access((other.0, renewals.0), count(batch))?;
            Ok(Pruned {
                renewals: txn.run(&trail.replace("{}", "renewal"), renewals)?,
                audit: txn.run(&trail.replace("{}", "audit"), other)?,
                notices: txn.run(&trail.replace("{}", "notice"), other)?,
                orphans: txn.remove_orphans(
                    "num IN (SELECT num FROM orphan WHERE kind = 'token' AND expires_at < ?1 LIMIT ?2)",
                    (micros(now), count(batch)),
                )?,
                forgotten: txn.drop_forgotten(batch, now)?,
                items: txn.drop_campaigns(other)?,
                key_items: txn.drop_key_changes(other)?,
                reads,
                holders,
            })
        })
        .await
    }

    /// How many identities there are of each kind that a bulk operation tells apart. Only those that are late or were
    /// never made are grouped; the counters tell how many the others are.
    pub async fn tally(&self, now: Timestamp) -> Answer<Vec<Tally>> {
        self.read("count identities", move |db| {
            let _same_state = db.conn.same_state()?;
            let mut kinds = db.kinds(ALL_KINDS, [])?;
            for odd in db.kinds(ODD_KINDS, [db::micros(now)])? {
                let is_alike =
                    |all: &&mut Tally| all.resource == odd.resource && all.state == odd.state;
                if let Some(all) = kinds.iter_mut().find(is_alike) {
                    all.count = all.count.saturating_sub(odd.count);
                }
                kinds.push(odd);
            }
            kinds.retain(|kind| kind.count > 0);
            Ok(kinds)
        })
        .await
    }

    pub async fn counts(&self) -> Answer<Counts> {
        self.read("read the counters", |db| {
            let mut counts = Counts::default();
            let sql = "SELECT r.name, c.resource, c.state, c.n FROM identity_count c JOIN resource r ON r.num = c.resource \
                       WHERE c.n > 0";
            for (resource, state, n) in db.all(RowKind::Counter, sql, [], |row| {
                let resource = db::parsed(row, "name")?;
                // An unknown word is that of a row which is set aside itself.
                let state = db::word(row, "state").ok();
                Ok((resource, state, db::unsigned(row, "n")?))
            })? {
                let of: &mut BTreeMap<_, _> = counts.identities.entry(resource).or_default();
                of.extend(state.map(|state| (state, n)));
            }
            let sql = "SELECT s.num, s.name, s.node, c.n FROM pending_count c JOIN sink s ON s.num = c.sink WHERE c.n > 0";
            let pending = db.all(RowKind::Sink, sql, [], |row| {
                Ok((db::sink_at(row, ("name", "node"))?, db::unsigned(row, "n")?))
            })?;
            counts.pending = pending.into_iter().collect();
            counts.oldest_pending = db.oldest_pending()?;
            let orphans = db.all(RowKind::Counter, "SELECT n FROM orphan_count", [], |row| {
                db::unsigned(row, "n")
            })?;
            counts.orphans = orphans.first().copied().unwrap_or(0);
            counts.set_aside = db.aside.told();
            Ok(counts)
        })
        .await
    }
}

impl Txn<'_> {
    /// Drops the items of campaigns that ended long ago, then the campaigns.
    fn drop_campaigns(&mut self, (before, batch): (i64, i64)) -> Outcome<usize> {
        let items = self.remove_items(
            "(campaign, num) IN (SELECT t.campaign, t.num FROM campaign c \
             JOIN campaign_item t ON t.campaign = c.num WHERE c.ended_at < ?1 LIMIT ?2)",
            (before, batch),
        )?;
        if items == 0 {
            self.flush_counts()?;
            let which = "campaign IN (SELECT num FROM campaign WHERE ended_at < ?1)";
            self.forget_item_counts(which, [before])?;
            self.run("DELETE FROM campaign WHERE ended_at < ?1", [before])?;
        }
        Ok(items)
    }

    /// Drops the identities of replacements of keys that ended long ago, then the replacements.
    fn drop_key_changes(&self, (before, batch): (i64, i64)) -> Outcome<usize> {
        let items = self.run(
            "DELETE FROM key_item WHERE (change, identity) IN (SELECT k.change, k.identity FROM key_change c \
             JOIN key_item k ON k.change = c.num WHERE c.ended_at < ?1 LIMIT ?2)",
            (before, batch),
        )?;
        if items == 0 {
            self.run("DELETE FROM key_change WHERE ended_at < ?1", [before])?;
        }
        Ok(items)
    }

    /// Drops forgotten identities whose consumers have been told; their ids stay in the id map.
    fn drop_forgotten(&mut self, batch: usize, now: Timestamp) -> Outcome<usize> {
        let sql = "SELECT num FROM identity i WHERE removed = 2 AND NOT EXISTS \
                   (SELECT 1 FROM delivery WHERE identity = i.num AND wanted > delivered) LIMIT ?1";
        let nums = self.all(RowKind::Identity, sql, [count(batch)], |row| {
            row.get::<_, Num>(0)
        })?;
        for num in &nums {
            self.drop_identity(*num, now)?;
        }
        Ok(nums.len())
    }

    /// Drops a row; its id is remembered, so that the name never becomes a new person.
    pub(super) fn drop_identity(&mut self, num: Num, now: Timestamp) -> Outcome<()> {
        self.run(
            "INSERT INTO remembered (name, resource, id, created_at) \
             SELECT i.name, coalesce(r.name, ''), i.id, i.created_at FROM identity i LEFT JOIN resource r ON r.num = i.resource WHERE i.num = ?1 AND i.id IS NOT NULL \
             ON CONFLICT (name) DO UPDATE SET resource = excluded.resource, id = excluded.id",
            [num],
        )?;
        self.end_notices_of(num, CameTo::Dropped, now)?;
        self.claim_ends(num, now)?;
        self.map_dropped(num)?;
        self.run("DELETE FROM intent WHERE identity = ?1", [num])?;
        self.remove_identity(num)?;
        self.effects.wanted = true;
        Ok(())
    }

    /// What the map says of a row that goes: its id stays known, and nothing else.
    fn map_dropped(&mut self, num: Num) -> Outcome<()> {
        let sql = "SELECT i.num, i.name, r.name AS resource, i.id, i.created_at FROM identity i \
                   LEFT JOIN resource r ON r.num = i.resource WHERE i.num = ?1 AND (id IS NOT NULL OR origin <> 'file')";
        // Of a name that cannot be read the map says what it said.
        let line = self.readable_one(RowKind::Identity, sql, [num], read_remembered)?;
        self.effects.ids.extend(line.map(|line| IdLine {
            dropped: line.id.is_none(),
            ..line
        }));
        Ok(())
    }
}
