//! Counters that never scan. By how much they change is noted with each write of what they count (`tables`), and
//! written down a few statements for many rows: when an operation ends, before a savepoint, and before they are read.
//! `store verify` counts everything anew, and mends what is wrong.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use super::{
    Store,
    db::{Db, Deltas, Txn},
    error::{Answer, Outcome},
};
use crate::{
    model::{CampaignId, Num, State},
    sql::{Params, Row, ValueRef, params},
};

/// A counter with one more line, or an old line that says more or less.
macro_rules! upsert {
    ($table:literal, $key:literal, $values:literal) => {
        concat!(
            "INSERT INTO ",
            $table,
            " (",
            $key,
            ", n) VALUES (",
            $values,
            ") ON CONFLICT (",
            $key,
            ") DO UPDATE SET n = ",
            $table,
            ".n + excluded.n"
        )
    };
}

/// A minute, by which the lives of tokens are counted.
const MINUTE: i64 = 60_000_000;

/// What is counted of one identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Counted {
    resource: Num,
    state: Cow<'static, str>,
    /// Whether it is to have a token, and the socket alone hands it out.
    by_socket: bool,
    /// The minutes in which its token is to be renewed and is late.
    life: Option<(i64, i64)>,
}

impl Counted {
    /// What is counted of a row that was made just now.
    pub(super) fn new(resource: Num, by_socket: bool) -> Self {
        Self {
            resource,
            state: State::New.as_str().into(),
            by_socket,
            life: None,
        }
    }

    /// The same in another state, and with a token to come by the socket alone or not.
    pub(super) fn into(self, state: State, by_socket: bool) -> Self {
        Self {
            state: state.as_str().into(),
            by_socket,
            ..self
        }
    }

    /// The same with a token that is to be renewed and is late at these instants, or without one.
    pub(super) fn living(self, life: Option<(i64, i64)>) -> Self {
        Self {
            life: life.map(minutes),
            ..self
        }
    }
}

fn minutes((renews_at, late_at): (i64, i64)) -> (i64, i64) {
    (renews_at / MINUTE, late_at / MINUTE)
}

const LOOK: &str = "SELECT resource, state, by_socket = 1 AND due_at IS NOT NULL, renews_at, late_at FROM identity WHERE num = ?1";

impl Db {
    /// What is counted of a row.
    pub(super) fn counted_row(&self, num: Num) -> Outcome<Option<Counted>> {
        Ok(self.first(LOOK, [num], |row| {
            Ok(Counted {
                resource: row.get(0).unwrap_or_default(),
                state: text(row, 1).into(),
                by_socket: row.get::<_, Option<bool>>(2).ok().flatten() == Some(true),
                // What is no time is counted by nobody.
                life: (row.get::<_, i64>(3).ok())
                    .zip(row.get::<_, i64>(4).ok())
                    .map(minutes),
            })
        })?)
    }
}

impl Txn<'_> {
    /// Counts a row no more as it was, and as it is now.
    pub(super) fn count(&mut self, was: Option<Counted>, is: Option<Counted>) {
        for (counted, by) in [(was, -1), (is, 1)] {
            let Some(Counted {
                resource,
                state,
                by_socket,
                life,
            }) = counted
            else {
                continue;
            };
            let deltas = &mut self.deltas;
            add(&mut deltas.identities, (resource, state), by);
            if by_socket {
                add(&mut deltas.consumers, 0, by);
            }
            if let Some((renews, late)) = life {
                add(&mut deltas.lives, (resource, renews, late), by);
            }
        }
    }

    /// Counts readers by what is declared of a row now.
    pub(super) fn count_readers(&mut self, was: &str, is: &str) {
        if was == is {
            return;
        }
        let (was, is) = (readers(was), readers(is));
        for gone in was.difference(&is) {
            add(&mut self.deltas.readers, gone.clone(), -1);
        }
        for come in is.difference(&was) {
            add(&mut self.deltas.readers, come.clone(), 1);
        }
    }

    /// Counts anew for whom the socket alone is to have a token; by an index that holds all that is asked for.
    pub(super) fn count_by_socket(&mut self) -> Outcome<()> {
        self.deltas.consumers.remove(&0);
        self.run(
            "INSERT INTO consumer_count (sink, n) SELECT 0, count(*) FROM identity INDEXED BY identity_ending \
             WHERE due_at IS NOT NULL AND by_socket = 1 ON CONFLICT (sink) DO UPDATE SET n = excluded.n",
            [],
        )?;
        Ok(())
    }

    /// Counts anew what is counted of a sink; by indexes.
    pub(super) fn count_sink(&mut self, sink: Num) -> Outcome<()> {
        self.deltas.pending.remove(&sink);
        self.deltas.consumers.remove(&sink);
        for (table, which) in [
            ("pending_count", "wanted > delivered"),
            ("consumer_count", "live_until IS NOT NULL"),
        ] {
            self.run(
                &format!(
                    "INSERT INTO {table} (sink, n) SELECT CAST(?1 AS BIGINT), count(*) FROM delivery WHERE sink = ?1 AND {which} \
                     ON CONFLICT (sink) DO UPDATE SET n = excluded.n"
                ),
                [sink],
            )?;
        }
        Ok(())
    }

    /// Counts the items of a campaign anew; by its items.
    pub(super) fn count_items(&mut self, campaign: CampaignId) -> Outcome<()> {
        self.flush_counts()?;
        self.forget_item_counts("campaign = ?1", [campaign])?;
        self.run(
            "INSERT INTO item_count (campaign, state, n) SELECT campaign, state, count(*) FROM campaign_item \
             WHERE campaign = ?1 GROUP BY 1, 2",
            [campaign],
        )?;
        Ok(())
    }

    /// Drops the counters of campaigns.
    pub(super) fn forget_item_counts(&self, which: &str, params: impl Params) -> Outcome<()> {
        self.run(&format!("DELETE FROM item_count WHERE {which}"), params)?;
        Ok(())
    }

    /// So many orphans more, or fewer.
    pub(super) fn count_orphans(&mut self, more: i64) {
        self.deltas.orphans += more;
    }

    /// Writes down what was counted so far.
    pub(super) fn flush_counts(&mut self) -> Outcome<()> {
        let deltas = std::mem::take(&mut self.deltas);
        let moved = |by: &i64| *by != 0;
        for ((resource, state), by) in deltas.identities.iter().filter(|(_, by)| moved(by)) {
            let sql = upsert!("identity_count", "resource, state", "?1, ?2, ?3");
            self.send(sql, params![resource, state, by])?;
        }
        for ((resource, renews, late), by) in deltas.lives.iter().filter(|(_, by)| moved(by)) {
            let sql = upsert!("life_count", "resource, renews, late", "?1, ?2, ?3, ?4");
            self.send(sql, params![resource, renews, late, by])?;
        }
        for (sink, by) in deltas.pending.iter().filter(|(_, by)| moved(by)) {
            self.send(upsert!("pending_count", "sink", "?1, ?2"), [sink, by])?;
        }
        for (sink, by) in deltas.consumers.iter().filter(|(_, by)| moved(by)) {
            self.send(upsert!("consumer_count", "sink", "?1, ?2"), [sink, by])?;
        }
        for ((campaign, state), by) in deltas.items.iter().filter(|(_, by)| moved(by)) {
            let sql = upsert!("item_count", "campaign, state", "?1, ?2, ?3");
            self.send(sql, params![campaign, state, by])?;
        }
        for (name, by) in deltas.readers.iter().filter(|(_, by)| moved(by)) {
            self.send(upsert!("reader", "name", "?1, ?2"), params![name, by])?;
            if *by < 0 {
                self.send("DELETE FROM reader WHERE name = ?1 AND n < 1", [name])?;
            }
        }
        if deltas.orphans != 0 {
            self.send("UPDATE orphan_count SET n = n + ?1", [deltas.orphans])?;
        }
        Ok(())
    }

    /// What was counted since the last savepoint is taken back with it.
    pub(super) fn forget_counts(&mut self) {
        self.reissued = BTreeMap::new();
        self.deltas = Deltas::default();
    }

    /// Drops counters of minutes that nobody is counted in any more.
    pub(super) fn drop_empty_counts(&self) -> Outcome<()> {
        self.run("DELETE FROM life_count WHERE n < 1", [])?;
        Ok(())
    }
}

/// Who may read an identity, by what is declared of it.
fn readers(wish: &str) -> BTreeSet<String> {
    let wish: serde_json::Value = serde_json::from_str(wish).unwrap_or_default();
    let list = wish.get("readers").and_then(serde_json::Value::as_array);
    let words = list.into_iter().flatten();
    words
        .filter_map(|word| word.as_str().map(str::to_owned))
        .collect()
}

/// Counts so many more, or fewer.
pub(super) fn add<K: Ord>(counts: &mut BTreeMap<K, i64>, key: K, by: i64) {
    *counts.entry(key).or_default() += by;
}

/// A text, whatever it is.
pub(super) fn text(row: &Row<'_>, column: usize) -> String {
    match row.get_ref(column) {
        Ok(ValueRef::Text(text)) => String::from_utf8_lossy(text).into_owned(),
        _ => String::new(),
    }
}

/// A counter, and how what it counts is counted anew.
struct Counter {
    table: &'static str,
    columns: &'static str,
    /// Nothing where it is counted by looking at each declaration.
    anew: Option<&'static str>,
    what: &'static str,
}

const COUNTERS: [Counter; 7] = [
    Counter {
        table: "identity_count",
        columns: "resource, state, n",
        anew: Some("SELECT resource, state, count(*) FROM identity GROUP BY 1, 2"),
        what: "identities by state",
    },
    Counter {
        table: "life_count",
        columns: "resource, renews, late, n",
        anew: Some(
            "SELECT resource, renews_at / 60000000, late_at / 60000000, count(*) FROM identity \
               WHERE /*sqlite*/typeof(renews_at) = 'integer' AND typeof(late_at) = 'integer'\
               /*postgres renews_at IS NOT NULL AND late_at IS NOT NULL*/ GROUP BY 1, 2, 3",
        ),
        what: "tokens by the minute of their renewal",
    },
    Counter {
        table: "pending_count",
        columns: "sink, n",
        anew: Some("SELECT sink, count(*) FROM delivery WHERE wanted > delivered GROUP BY 1"),
        what: "pending deliveries",
    },
    Counter {
        table: "consumer_count",
        columns: "sink, n",
        anew: Some(
            "SELECT sink, count(*) FROM delivery WHERE live_until IS NOT NULL GROUP BY 1 UNION ALL \
               SELECT 0, count(*) FROM identity WHERE by_socket = 1 AND due_at IS NOT NULL HAVING count(*) > 0",
        ),
        what: "consumers",
    },
    Counter {
        table: "item_count",
        columns: "campaign, state, n",
        anew: Some("SELECT campaign, state, count(*) FROM campaign_item GROUP BY 1, 2"),
        what: "items of campaigns",
    },
    Counter {
        table: "reader",
        columns: "name, n",
        anew: None,
        what: "readers",
    },
    Counter {
        table: "orphan_count",
        columns: "n",
        anew: Some("SELECT count(*) FROM orphan"),
        what: "orphans",
    },
];

impl Counter {
    /// How many lines of it do not say what there is.
    fn wrong(&self, anew: &str) -> String {
        let Self { table, columns, .. } = self;
        let said = match *table {
            "orphan_count" => format!("SELECT {columns} FROM {table}"),
            _ => format!("SELECT {columns} FROM {table} WHERE n <> 0"),
        };
        format!(
            "SELECT (SELECT count(*) FROM (SELECT * FROM ({said}) said EXCEPT SELECT * FROM ({anew}) anew) wrong) \
             + (SELECT count(*) FROM (SELECT * FROM ({anew}) anew EXCEPT SELECT * FROM ({said}) said) wrong)"
        )
    }
}

/// A counter that did not say what there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Miscount {
    pub what: &'static str,
    /// So many of its lines were wrong.
    pub lines: u64,
}

impl Store {
    /// Counts everything anew; which counters did not say what there is, and do now.
    pub async fn mend_counters(&self) -> Answer<Vec<Miscount>> {
        self.write("mend counters", |txn| txn.mend_counters()).await
    }
}

impl Txn<'_> {
    /// Counters that did not say what there is, and do now.
    pub(super) fn mend_counters(&mut self) -> Outcome<Vec<Miscount>> {
        self.flush_counts()?;
        let wrong = self.miscounts()?;
        for miscount in &wrong {
            let counters = COUNTERS.iter();
            for counter in counters.filter(|one| one.what == miscount.what) {
                let Counter { table, columns, .. } = counter;
                self.run(&format!("DELETE FROM {table}"), [])?;
                match counter.anew {
                    Some(anew) => {
                        self.run(&format!("INSERT INTO {table} ({columns}) {anew}"), [])?;
                    }
                    None => {
                        self.deltas.readers = self.readers_anew()?;
                        self.flush_counts()?;
                    }
                }
            }
        }
        Ok(wrong)
    }
}

impl Db {
    /// Who may read how many identities, by all that is declared.
    fn readers_anew(&self) -> Outcome<BTreeMap<String, i64>> {
        let mut counts = BTreeMap::new();
        let sql = "SELECT wish FROM identity";
        self.conn.each(sql, [], None, |row| {
            for reader in readers(&text(row, 0)) {
                add(&mut counts, reader, 1);
            }
            Ok(true)
        })?;
        Ok(counts)
    }

    fn wrong_readers(&self) -> Outcome<i64> {
        let said = self.every("SELECT name, n FROM reader WHERE n <> 0", [], |row| {
            Ok((text(row, 0), row.get::<_, i64>(1).ok()))
        })?;
        let anew = self.readers_anew()?;
        let wrong = said
            .iter()
            .filter(|(name, n)| anew.get(name).copied() != *n);
        let right = said.len() - wrong.clone().count();
        Ok(i64::try_from(wrong.count() + anew.len() - right).unwrap_or(i64::MAX))
    }

    /// Which counters do not say what there is.
    pub(super) fn miscounts(&self) -> Outcome<Vec<Miscount>> {
        let mut wrong = Vec::new();
        for counter in &COUNTERS {
            let lines = match counter.anew {
                Some(anew) => self.first(&counter.wrong(anew), [], |row| row.get::<_, i64>(0))?,
                None => Some(self.wrong_readers()?),
            };
            let lines = lines.unwrap_or(0).unsigned_abs();
            if lines > 0 {
                let what = counter.what;
                wrong.push(Miscount { what, lines });
            }
        }
        Ok(wrong)
    }
}
