//! What waits in the queues of a resource, the most pressing first: what is due, what is late, and what fails.

use std::collections::{BTreeMap, BTreeSet};

use jiff::SignedDuration;

use super::{
    Store,
    aside::RowKind,
    db::{self, Db},
    error::{Answer, Outcome},
    identities::{count, read_record, select_record},
};
use crate::{
    model::{Num, Record, ResourceName, Timestamp},
    sql::params,
};

/// The two queues of a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Rows with an id, which wait for a token.
    Issue,
    /// Rows without one, which wait to be created.
    Create,
}

/// Identities of one resource that fail by themselves, while it answers other calls, or never got a token
/// although it answered several times.
#[derive(Debug, Clone, PartialEq)]
pub struct FailingAlone {
    pub count: u64,
    /// Since when the first of them is known to fail by itself, if one is.
    pub since: Option<Timestamp>,
    /// Those that have for the longest.
    pub some: Vec<Record>,
}

impl Store {
    /// The rows of a resource that are due, but for those in flight (`skip`): rows without a good
    /// token first, then the earliest expiry. Rows that wait for their creation are a queue of their
    /// own (`work`). A row that cannot be read is passed over.
    pub async fn due(
        &self,
        resource: &ResourceName,
        work: Work,
        now: Timestamp,
        limit: usize,
        skip: &BTreeSet<Num>,
    ) -> Answer<Vec<Record>> {
        self.due_in(resource, (work, false), now, limit, skip).await
    }

    /// The same of those that fail by themselves, or of those that do not.
    pub async fn due_in(
        &self,
        resource: &ResourceName,
        line: (Work, bool),
        now: Timestamp,
        limit: usize,
        skip: &BTreeSet<Num>,
    ) -> Answer<Vec<Record>> {
        let (resource, skip) = (resource.clone(), skip.clone());
        self.read("look for due identities", move |db| {
            let line = db.line(&resource, line)?;
            let mut skip = db.and_set_aside(&skip);
            let mut most = limit.saturating_add(skip.len());
            loop {
                let found = db.due_nums(line, db::micros(now), most)?;
                let full = found.len() >= most;
                let nums: Vec<Num> = found
                    .into_iter()
                    .filter(|num| !skip.contains(num))
                    .collect();
                let records = db.records_of(&nums, limit)?;
                // A page of rows that cannot be read hides nobody behind it. The next one is twice as long, so that
                // however many they are, each is passed over a few times and not with each page.
                if !records.is_empty() || !full {
                    return Ok(records);
                }
                skip.extend(nums);
                most = limit.saturating_add(skip.len().saturating_mul(2));
            }
        })
        .await
    }

    /// The earliest due time of a resource, but for those in `skip`; it may have passed.
    pub async fn next_due(
        &self,
        resource: &ResourceName,
        work: Work,
        skip: &BTreeSet<Num>,
    ) -> Answer<Option<Timestamp>> {
        self.next_due_in(resource, (work, false), skip).await
    }

    /// The same of those that fail by themselves, or of those that do not.
    pub async fn next_due_in(
        &self,
        resource: &ResourceName,
        line: (Work, bool),
        skip: &BTreeSet<Num>,
    ) -> Answer<Option<Timestamp>> {
        let (resource, skip) = (resource.clone(), skip.clone());
        self.read("look for the next due time", move |db| {
            let (resource, creates, alone) = db.line(&resource, line)?;
            let skip = db.and_set_aside(&skip);
            let params = params![resource, creates, alone];
            let heads = db.some(RowKind::Identity, 1, NEXT_DUE, params, |row| {
                let at = db::instant_in(row, "due_at")?;
                Ok((!skip.contains(&row.get("num")?)).then_some(at))
            })?;
            Ok(heads.first().copied())
        })
        .await
    }

    /// Rows of a resource that perhaps wait for an instant that their token makes senseless, where the service's
    /// clock is `skew` ahead: among so many rows after one, at most so many. And where to go on.
    pub async fn waiting_past_their_token(
        &self,
        resource: &ResourceName,
        (after, among, most): (Num, usize, usize),
        skew: SignedDuration,
        now: Timestamp,
    ) -> Answer<(Vec<Record>, Option<Num>)> {
        let resource = resource.clone();
        self.read("look for misplaced renewals", move |db| {
            let skew = i64::try_from(skew.as_micros()).unwrap_or(0);
            let upto = db.first(PAGE_END, params![after, count(among)], |row| {
                row.get::<_, Option<Num>>(0)
            })?;
            let Some(upto) = upto.flatten() else {
                return Ok((Vec::new(), None));
            };
            let resource = db.resource_num(resource.as_str())?;
            let params = params![resource, db::micros(now), after, upto, skew, count(most)];
            let nums = db.all(RowKind::Identity, WAITING_PAST, params, |row| {
                row.get::<_, Num>(0)
            })?;
            let next = match nums.last() {
                Some(last) if nums.len() == most => *last,
                _ => upto,
            };
            Ok((db.records_of(&nums, most)?, Some(next)))
        })
        .await
    }

    /// Rows of a resource that failed and whose next attempt lies ahead.
    pub async fn failing(
        &self,
        resource: &ResourceName,
        now: Timestamp,
        limit: usize,
    ) -> Answer<Vec<Record>> {
        let resource = resource.clone();
        self.read("look for failing identities", move |db| {
            let sql = select_record!(
                "WHERE i.failures > 0 AND i.resource = ?1 AND i.due_at > ?2 ORDER BY i.due_at"
            );
            let params = params![db.resource_num(resource.as_str())?, db::micros(now)];
            Ok(db.page(RowKind::Identity, limit, sql, params, read_record)?)
        })
        .await
    }

    /// How many tokens of a resource are to be renewed in each minute (since 1970) of the two days to come, ascending; by
    /// the counters, so that it costs what there are of minutes.
    pub async fn renewals_by_minute(
        &self,
        resource: &ResourceName,
        now: Timestamp,
    ) -> Answer<Vec<(i64, u32)>> {
        let resource = resource.to_string();
        self.read("count what is due in each minute", move |db| {
            let first = now.as_second().div_euclid(60);
            let params = [db.resource_num(&resource)?, first, first + TWO_DAYS];
            Ok(db.all(RowKind::Counter, BY_MINUTE, params, |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?)
        })
        .await
    }

    /// Those that need a person first: late or failing, the nearest to their end first.
    pub async fn troubled(&self, now: Timestamp, limit: usize) -> Answer<Vec<Record>> {
        self.read("list late identities", move |db| {
            let skip = db.and_set_aside(&BTreeSet::new());
            let params = params![db::micros(now), count(limit.saturating_add(skip.len()))];
            let nums = db.all(RowKind::Identity, TROUBLED, params, |row| {
                row.get::<_, Num>(0)
            })?;
            let nums: Vec<Num> = nums.into_iter().filter(|num| !skip.contains(num)).collect();
            db.records_of(&nums, limit)
        })
        .await
    }

    /// How many are late, by resource; found by index, not by scanning.
    pub async fn late(&self, now: Timestamp) -> Answer<BTreeMap<ResourceName, u64>> {
        self.read("count late identities", move |db| {
            let rows = db.each_resource(|resource| {
                let few = db.are_few_due(resource, now)?;
                let sql = if few { LATE } else { LATE_OF_MANY };
                Ok(
                    db.all(RowKind::Resource, sql, [db::micros(now), resource], |row| {
                        Ok((db::parsed(row, "name")?, db::unsigned(row, "n")?))
                    })?,
                )
            })?;
            Ok(rows.into_iter().filter(|(_, n)| *n > 0).collect())
        })
        .await
    }

    /// Those that fail by themselves while others succeed, by resource; of each at most so many are named.
    pub async fn failing_alone(
        &self,
        limit: usize,
    ) -> Answer<BTreeMap<ResourceName, FailingAlone>> {
        self.read("look for failing identities", move |db| {
            let counted = db.all(RowKind::Resource, FAILING_ALONE, [], |row| {
                let failing = FailingAlone {
                    count: db::unsigned(row, "n")?,
                    since: db::maybe_instant(row, "since")?,
                    some: Vec::new(),
                };
                Ok((row.get::<_, Num>("num")?, db::parsed(row, "name")?, failing))
            })?;
            let mut all = BTreeMap::new();
            let some = counted.into_iter().filter(|(.., found)| found.count > 0);
            for (resource, name, mut failing) in some {
                let mut nums = Vec::new();
                for sql in [LONGEST_FAILING, NEVER_SERVED] {
                    let params = params![resource, count(limit)];
                    let found = db.all(RowKind::Identity, sql, params, |row| row.get(0))?;
                    nums.extend::<Vec<Num>>(found);
                }
                failing.some = db.records_of(&nums, limit)?;
                all.insert(name, failing);
            }
            Ok(all)
        })
        .await
    }

    /// How many of a resource fail, and are not known to do so by themselves; counted up to `most`.
    pub async fn failing_among_others(
        &self,
        resource: &ResourceName,
        most: usize,
    ) -> Answer<usize> {
        let resource = resource.clone();
        self.read("count failing identities", move |db| {
            let params = params![db.resource_num(resource.as_str())?, count(most)];
            let found = db.first(FAILING_AMONG_OTHERS, params, |row| row.get::<_, u32>(0))?;
            Ok(found.unwrap_or(0) as usize)
        })
        .await
    }

    /// The earliest end of a current token, by resource; reads an index through.
    pub async fn earliest_expiry(&self) -> Answer<BTreeMap<ResourceName, Timestamp>> {
        self.read("look for the earliest expiry", |db| {
            let rows = db.all(RowKind::Resource, EARLIEST_EXPIRY, [], |row| {
                Ok((db::parsed(row, "name")?, db::maybe_instant(row, "at")?))
            })?;
            Ok(rows
                .into_iter()
                .filter_map(|(name, at)| Some((name, at?)))
                .collect())
        })
        .await
    }
}

impl Db {
    /// A line of rows that wait for the same, as queries take it.
    fn line(
        &self,
        resource: &ResourceName,
        (work, alone): (Work, bool),
    ) -> Outcome<(Num, bool, bool)> {
        let resource = self.resource_num(resource.as_str())?;
        Ok((resource, work == Work::Create, alone))
    }

    /// The rows of a line that are due, the most pressing first. Few are sorted; of many those that end first are
    /// taken by index, so that it costs the same however many are due.
    fn due_nums(&self, line: (Num, bool, bool), now: i64, most: usize) -> Outcome<Vec<Num>> {
        let (resource, creates, alone) = line;
        let take = |sql: &str, limit: usize| {
            let params = params![resource, creates, alone, now, count(limit)];
            self.all(RowKind::Identity, sql, params, |row| {
                Ok((row.get::<_, Num>(0)?, row.get::<_, Option<i64>>(1)?))
            })
        };
        let params = params![resource, creates, alone, now, count(SORTED)];
        let due = self.first(HOW_MANY_DUE, params, |row| row.get::<_, i64>(0))?;
        if due.is_some_and(|due| due >= count(SORTED)) && most < SORTED {
            let (without, with) = (take(DUE_WITHOUT_TOKEN, most)?, take(DUE_WITH_TOKEN, most)?);
            // Where others end before them that are not due, they are too far apart to be found like this.
            if without.len() + with.len() >= most {
                let is_late = |row: &(Num, Option<i64>)| row.1.is_some_and(|at| at <= now);
                let (late, rest): (Vec<_>, Vec<_>) = with.into_iter().partition(is_late);
                let ordered = late.into_iter().chain(without).chain(rest);
                return Ok(ordered.map(|(num, _)| num).take(most).collect());
            }
        }
        Ok(take(DUE, most)?.into_iter().map(|(num, _)| num).collect())
    }

    /// Whether so few are due of a resource that each can be looked at.
    pub(super) fn are_few_due(&self, resource: Num, now: Timestamp) -> Outcome<bool> {
        let params = params![resource, db::micros(now), count(SORTED)];
        let due = self.first(MANY_DUE, params, |row| row.get::<_, i64>(0))?;
        Ok(due.unwrap_or(0) < count(SORTED))
    }

    /// What is found for each resource.
    pub(super) fn each_resource<T>(
        &self,
        mut find: impl FnMut(Num) -> Outcome<Vec<T>>,
    ) -> Outcome<Vec<T>> {
        let mut found = Vec::new();
        let sql = "SELECT num FROM resource";
        for resource in self.all(RowKind::Resource, sql, [], |row| row.get(0))? {
            found.extend(find(resource)?);
        }
        Ok(found)
    }

    /// These rows and those that were set aside.
    fn and_set_aside(&self, skip: &BTreeSet<Num>) -> BTreeSet<Num> {
        let mut skip = skip.clone();
        skip.extend(self.aside.nums(RowKind::Identity));
        skip
    }
}

pub(super) const FAILING_ALONE: &str = "SELECT r.num, r.name, \
    (SELECT count(*) FROM identity i INDEXED BY identity_alone WHERE i.resource = r.num AND i.failing_since IS NOT NULL) \
    + (SELECT count(*) FROM identity i INDEXED BY identity_failing WHERE i.resource = r.num AND i.failures > 0 \
       AND i.failures >= 3 AND i.state = 'new' AND i.failing_since IS NULL) AS n, \
    (SELECT min(i.failing_since) FROM identity i INDEXED BY identity_alone WHERE i.resource = r.num \
     AND i.failing_since IS NOT NULL) AS since FROM resource r";
pub(super) const LONGEST_FAILING: &str = "SELECT num FROM identity INDEXED BY identity_alone WHERE resource = ?1 \
    AND failing_since IS NOT NULL ORDER BY failing_since LIMIT ?2";
pub(super) const FAILING_AMONG_OTHERS: &str = "SELECT count(*) FROM (SELECT 1 FROM identity INDEXED BY identity_failing \
    WHERE resource = ?1 AND failures > 0 AND failing_since IS NULL LIMIT ?2) few";
/// Those that never got a token, although they were answered so often.
pub(super) const NEVER_SERVED: &str = "SELECT num FROM identity INDEXED BY identity_failing WHERE resource = ?1 AND failures > 0 \
    AND failures >= 3 AND state = 'new' AND failing_since IS NULL LIMIT ?2";

pub(super) const PAGE_END: &str =
    "SELECT max(num) FROM (SELECT num FROM identity WHERE num > ?1 ORDER BY num LIMIT ?2) page";
/// Issued in the future, due at once by a clock that was ahead, or later than any renewal of its life would be; a superset
/// of what `misplaced` of the schedule moves, found without reading tokens. By `+` the rows of the page are looked at, and not
/// for each page the index of all that a resource has.
pub(super) const WAITING_PAST: &str = "SELECT num FROM identity WHERE num > ?3 AND num <= ?4 AND +resource = ?1 AND due_at > ?2 \
    AND (issued_at > ?2 + ?5 + 300000000 \
    OR due_at > ?2 + 300000000 AND due_why IN ('revoked', 'requested', 'released') OR due_at > issued_at - ?5 + 300000000 + cast((expires_at - issued_at) \
    * coalesce(/*sqlite*/iif(json_valid(wish), json_extract(wish, '$.renew_at'), 0)\
    /*postgres CAST(substring(wish FROM '\"renew_at\":([0-9]+(\\.[0-9]+)?)') AS DOUBLE PRECISION)*/, 0) AS BIGINT)) ORDER BY num LIMIT ?6";
/// How many of a line are due, counted up to a number.
pub(super) const HOW_MANY_DUE: &str = "SELECT count(*) FROM (SELECT 1 FROM identity WHERE resource = ?1 AND (id IS NULL)/*postgres ::int*/ = ?2 \
    AND (failing_since IS NOT NULL)/*postgres ::int*/ = ?3 AND due_at <= ?4 LIMIT ?5) few";
/// Renewals that are late go before all; then rows without a good token, then the earliest end. Sorts all that
/// are due.
pub(super) const DUE: &str = "SELECT num, late_at FROM identity WHERE resource = ?1 AND (id IS NULL)/*postgres ::int*/ = ?2 \
    AND (failing_since IS NOT NULL)/*postgres ::int*/ = ?3 AND due_at <= ?4 \
    ORDER BY (good_until > 0 AND late_at <= ?4) DESC NULLS LAST, good_until, due_at, num LIMIT ?5";

/// Rows that are due among the first of a line by their end, in that order.
macro_rules! due_by_end {
    ($which:literal) => {
        concat!(
            "SELECT num, late_at FROM (SELECT num, due_at, late_at FROM identity INDEXED BY identity_ending \
             WHERE resource = ?1 AND (id IS NULL)/*postgres ::int*/ = ?2 AND (failing_since IS NOT NULL)/*postgres ::int*/ = ?3 AND due_at IS NOT NULL \
             AND ",
            $which,
            " ORDER BY good_until, due_at LIMIT 32768) soon WHERE due_at <= ?4 LIMIT ?5"
        )
    };
}

pub(super) const DUE_WITHOUT_TOKEN: &str = due_by_end!("good_until <= 0");
pub(super) const DUE_WITH_TOKEN: &str = due_by_end!("good_until > 0");
/// Of more than so many that are due not all are sorted.
const SORTED: usize = 4096;

pub(super) const NEXT_DUE: &str = "SELECT due_at, num FROM identity WHERE resource = ?1 AND (id IS NULL)/*postgres ::int*/ = ?2 \
    AND (failing_since IS NOT NULL)/*postgres ::int*/ = ?3 AND due_at IS NOT NULL ORDER BY due_at";
/// No token lives for more than one day; two show a campaign's or an outage's wake as well. In minutes.
const TWO_DAYS: i64 = 2 * 24 * 60;
pub(super) const BY_MINUTE: &str = "SELECT renews, CAST(sum(n) AS BIGINT) FROM life_count WHERE resource = ?1 AND n > 0 \
    AND renews BETWEEN ?2 AND ?3 GROUP BY renews";
/// Whatever is late is overdue, or failed and waits for its next attempt.
pub(super) const LATE: &str = "SELECT r.num, r.name, \
    (SELECT count(*) FROM identity i WHERE i.resource = r.num AND (i.id IS NULL)/*postgres ::int*/ IN (0, 1) AND (i.failing_since IS NOT NULL)/*postgres ::int*/ IN (0, 1) AND i.due_at <= ?1 AND i.late_at <= ?1) \
    + (SELECT count(*) FROM identity i WHERE i.resource = r.num AND i.failures > 0 AND i.due_at > ?1 \
       AND i.late_at <= ?1) AS n FROM resource r WHERE r.num = ?2";
/// The same where very many are due, of which not each is looked at: to the minute.
pub(super) const LATE_OF_MANY: &str = "SELECT r.num, r.name, \
    (SELECT CAST(coalesce(sum(n), 0) AS BIGINT) FROM life_count WHERE resource = r.num AND n > 0 AND late <= CAST(?1 AS BIGINT) / 60000000) AS n \
    FROM resource r WHERE r.num = ?2";
/// How many of a resource are due, or failed, counted up to a number.
const MANY_DUE: &str = "SELECT (SELECT count(*) FROM (SELECT 1 FROM identity WHERE resource = ?1 AND (id IS NULL)/*postgres ::int*/ IN (0, 1) \
    AND (failing_since IS NOT NULL)/*postgres ::int*/ IN (0, 1) AND due_at <= ?2 LIMIT ?3) due) \
    + (SELECT count(*) FROM (SELECT 1 FROM identity WHERE resource = ?1 AND failures > 0 LIMIT ?3) failing)";

/// The earliest of those ends that are as is said, of all lines of a resource: one step down the index for each.
macro_rules! earliest_end {
    ($resource:literal, $which:literal) => {
        concat!(
            "(SELECT min(at) FROM (",
            "SELECT min(good_until) AS at FROM identity WHERE resource = ",
            $resource,
            " AND (id IS NULL)/*postgres ::int*/ = 0 AND (failing_since IS NOT NULL)/*postgres ::int*/ = 0 AND due_at IS NOT NULL AND ",
            $which,
            " UNION ALL SELECT min(good_until) FROM identity WHERE resource = ",
            $resource,
            " AND (id IS NULL)/*postgres ::int*/ = 0 AND (failing_since IS NOT NULL)/*postgres ::int*/ = 1 AND due_at IS NOT NULL AND ",
            $which,
            " UNION ALL SELECT min(good_until) FROM identity WHERE resource = ",
            $resource,
            " AND (id IS NULL)/*postgres ::int*/ = 1 AND (failing_since IS NOT NULL)/*postgres ::int*/ = 0 AND due_at IS NOT NULL AND ",
            $which,
            " UNION ALL SELECT min(good_until) FROM identity WHERE resource = ",
            $resource,
            " AND (id IS NULL)/*postgres ::int*/ = 1 AND (failing_since IS NOT NULL)/*postgres ::int*/ = 1 AND due_at IS NOT NULL AND ",
            $which,
            ") ends)"
        )
    };
}

pub(super) use earliest_end;

/// Ends of tokens that are in doubt are counted below zero.
pub(super) const EARLIEST_EXPIRY: &str = concat!(
    "SELECT num, name, CASE WHEN good IS NULL OR doubtful + (1/*postgres ::bigint*/ << 60) < good THEN doubtful + (1/*postgres ::bigint*/ << 60) \
     ELSE good END AS at \
     FROM (SELECT r.num, r.name, ",
    earliest_end!("r.num", "good_until > 0"),
    " AS good, ",
    earliest_end!("r.num", "good_until < 0"),
    " AS doubtful FROM resource r) ends"
);
pub(super) const TROUBLED: &str = "SELECT num FROM ( \
    SELECT i.num, i.good_until FROM resource r CROSS JOIN identity i \
    ON i.resource = r.num AND (i.id IS NULL)/*postgres ::int*/ IN (0, 1) AND (i.failing_since IS NOT NULL)/*postgres ::int*/ IN (0, 1) AND i.due_at <= ?1 AND i.late_at <= ?1 \
    UNION SELECT i.num, i.good_until FROM resource r CROSS JOIN identity i INDEXED BY identity_failing \
    ON i.resource = r.num WHERE i.failures > 0) troubled \
    ORDER BY good_until, num LIMIT ?2";
