//! What sources list: which names, by a digest of each row, so that a new list touches only what
//! differs; and how each source is.

use std::{collections::BTreeSet, ops::Range};

use super::{
    Store,
    aside::RowKind,
    db::{self, Txn, micros, next_number, spelled},
    error::{Answer, Outcome},
    reconcile::{FORGOTTEN, ReconcilePlan, Reconciled, Refusal},
};
use crate::{
    model::{
        IdentityId, Lapse, Name, NodeName, NodePattern, Notice, Num, Origin, SourceName, Spec,
        Timestamp,
    },
    sql::{self, Row, params},
};

/// What tells two rows of a source apart.
pub type Digest = [u8; 16];

/// What the store knows of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFacts {
    pub name: SourceName,
    /// Which file its last good list came from, as the source describes it.
    pub file: Option<String>,
    /// When a list was last taken over.
    pub taken_at: Option<Timestamp>,
    /// Names that were taken over and not removed since.
    pub identities: u64,
    /// Rows of the last list that were refused.
    pub refused: u64,
    /// Why its list is not taken over.
    pub lapse: Option<Lapse>,
    /// It was known before a list had to be allowed to bring ids along.
    pub adopts: bool,
}

/// Part of what a new list changes.
#[derive(Debug, Clone, Default)]
pub struct SourceChange {
    /// New and changed rows.
    pub specs: Vec<(Spec, Digest)>,
    /// Names that are no longer listed.
    pub gone: Vec<Name>,
}

/// How a look at a source ended.
#[derive(Debug, Clone)]
pub enum SourceEnd {
    /// Its list was taken over.
    Taken {
        /// Which file it came from.
        file: Option<String>,
        /// Rows that were refused.
        refused: u64,
    },
    /// It was taken over as far as it adds and changes, and why nobody was removed.
    Partly {
        /// Which file it came from.
        file: Option<String>,
        /// Rows that were refused.
        refused: u64,
        reason: String,
    },
    /// It was not, and why.
    Lapsed(String),
}

impl Store {
    /// Whether this machine is to read a source: of those that may, the first by name that is there.
    pub async fn reads(&self, nodes: &[NodePattern]) -> Answer<bool> {
        if nodes.is_empty() || !self.is_shared() {
            return Ok(true);
        }
        let nodes = nodes.to_vec();
        self.read("look who reads a source", move |db| {
            let there = "SELECT name FROM node WHERE until > (SELECT coalesce(max(heartbeat_at), 0) FROM node) \
                         ORDER BY name";
            let there = db.every(there, [], |row| db::parsed::<NodeName>(row, "name"))?;
            let first = there.iter().find(|node| nodes.iter().any(|pattern| pattern.is_of(node)));
            Ok(first.is_none_or(|first| db.node.as_ref() == Some(first)))
        })
        .await
    }

    /// Names of a source's last list, each with a digest of its row, in the order of names: at most so many,
    /// after one.
    pub async fn source_rows(
        &self,
        source: &SourceName,
        after: Option<Name>,
        most: usize,
    ) -> Answer<Vec<(Name, Digest)>> {
        let source = source.clone();
        self.read("read a source's last list", move |db| {
            let after = after.as_ref();
            let sql = "SELECT source, name, digest FROM source_row WHERE source = (SELECT num FROM source WHERE name = ?1) \
                       AND name > ?2 ORDER BY name";
            let after = after.map_or("", Name::as_str);
            let params = params![source.as_str(), after];
            Ok(db.page(RowKind::SourceRow, most, sql, params, |row| {
                Ok((
                    db::parsed::<Name>(row, "name")?,
                    row.get::<_, Digest>("digest")?,
                ))
            })?)
        })
        .await
    }

    /// How many names of a source's last list were taken over.
    pub async fn source_count(&self, source: &SourceName) -> Answer<u64> {
        let source = source.clone();
        self.read("count a source's last list", move |db| {
            let sql = "SELECT count(*) FROM source_row WHERE source = (SELECT num FROM source WHERE name = ?1)";
            let count = db.first(sql, [source.as_str()], |row| row.get::<_, i64>(0))?;
            Ok(count.unwrap_or_default().unsigned_abs())
        })
        .await
    }

    /// Those of these names whose id nobody here has or had.
    pub async fn strange_ids(&self, rows: Vec<(Name, IdentityId)>) -> Answer<Vec<Name>> {
        self.read("look up the ids of a list", move |db| {
            let sql = "SELECT EXISTS (SELECT 1 FROM identity WHERE id = ?1 AND (name = ?2 OR removed <> ?3)) \
                       OR EXISTS (SELECT 1 FROM remembered WHERE id = ?1 AND name = ?2)";
            let mut strange = Vec::new();
            for (name, id) in &rows {
                let params = params![id.as_str(), name.as_str(), FORGOTTEN];
                if db.first(sql, params, |row| row.get::<_, bool>(0))? != Some(true) {
                    strange.push(name.clone());
                }
            }
            Ok(strange)
        })
        .await
    }

    /// What is known of every source.
    pub async fn sources(&self) -> Answer<Vec<SourceFacts>> {
        self.read("list sources", |db| {
            let sql = "SELECT s.*, (SELECT count(*) FROM source_row l WHERE l.source = s.num) AS identities \
                       FROM source s ORDER BY s.name";
            Ok(db.all(RowKind::Source, sql, [], read_facts)?)
        })
        .await
    }

    /// Takes part of a list over, in one transaction: rows that differ, names that are gone.
    pub async fn take_source(
        &self,
        source: &SourceName,
        change: SourceChange,
        now: Timestamp,
    ) -> Answer<Reconciled> {
        let source = source.clone();
        self.withdraw("take a source's list over", move |txn| {
            let num = txn.source_num_or_new(&source)?;
            let mut told = Reconciled::default();
            let count = |entries: usize| entries as i64;
            let part = |range: &Range<i64>| range.start as usize..range.end as usize;
            let doing = "take a row of a source over";
            let gone = txn.apart(doing, 0..count(change.gone.len()), |txn, range| {
                let gone = change.gone.get(part(&range)).unwrap_or_default();
                txn.drop_rows(&source, num, gone, now)
            })?;
            let specs = txn.apart(doing, 0..count(change.specs.len()), |txn, range| {
                let specs = change.specs.get(part(&range)).unwrap_or_default();
                txn.take_rows(num, specs, now)
            })?;
            let gone = gone.into_iter().map(|part| (part, true));
            for ((range, taken), is_gone) in gone.chain(specs.into_iter().map(|part| (part, false))) {
                let at = range.start as usize;
                let name = match is_gone {
                    true => change.gone.get(at),
                    false => change.specs.get(at).map(|(spec, _)| &spec.name),
                };
                match (taken, name) {
                    (Ok(part), _) => told.absorb(part),
                    (Err(error), Some(name)) => {
                        tracing::error!(%source, identity = %name, %error, "a row of a source is left as it is, because the store refuses it");
                        told.refused.push(Refusal {
                            name: name.clone(),
                            reason: error.to_string(),
                        });
                    }
                    (Err(_), None) => {}
                }
            }
            Ok(told)
        })
        .await
    }

    /// Notes how a look at a source ended, and raises the notice where that is news: a lapse that
    /// begins, or one that ends. Whether it was.
    pub async fn end_look(
        &self,
        source: &SourceName,
        end: SourceEnd,
        notice: Notice,
        now: Timestamp,
    ) -> Answer<bool> {
        let source = source.clone();
        self.write("note how a source is", move |txn| {
            txn.end_look(&source, &end, &notice, now)
        })
        .await
    }

    /// Forgets a source that lists nothing any more.
    pub async fn forget_source(&self, source: &SourceName) -> Answer<()> {
        let source = source.clone();
        self.write("forget a source", move |txn| {
            let sql = "DELETE FROM source WHERE name = ?1 AND NOT EXISTS \
                       (SELECT 1 FROM source_row WHERE source = source.num)";
            txn.run(sql, [source.as_str()])?;
            Ok(())
        })
        .await
    }
}

impl Txn<'_> {
    /// Lets names go that the source does not list any more.
    fn drop_rows(
        &mut self,
        source: &SourceName,
        num: Num,
        gone: &[Name],
        now: Timestamp,
    ) -> Outcome<Reconciled> {
        let mut plan = ReconcilePlan::default();
        let origin = spelled(&Origin::Source(source.clone()));
        for name in gone {
            let sql = "SELECT num FROM identity WHERE name = ?1 AND origin = ?2 AND removed = 0";
            let row = self.first(sql, [name.as_str(), &origin], |row| row.get::<_, Num>(0))?;
            if let Some(row) = row {
                let how = self.on_removal(row)?;
                plan.remove.push((row, how));
            }
        }
        self.carry_out(&mut plan, &[], now)?;
        let refused: BTreeSet<&Name> = plan.refused.iter().map(|refusal| &refusal.name).collect();
        // What is refused is still listed, so that the next look tries it again.
        for name in gone.iter().filter(|name| !refused.contains(name)) {
            let sql = "DELETE FROM source_row WHERE source = ?1 AND name = ?2";
            self.run(sql, params![num, name.as_str()])?;
        }
        Ok(plan.told())
    }

    fn take_rows(
        &mut self,
        num: Num,
        rows: &[(Spec, Digest)],
        now: Timestamp,
    ) -> Outcome<Reconciled> {
        let specs: Vec<Spec> = rows.iter().map(|(spec, _)| spec.clone()).collect();
        let mut plan = ReconcilePlan::default();
        self.plan_specs(&specs, &mut plan)?;
        self.carry_out(&mut plan, &specs, now)?;
        let refused: BTreeSet<&Name> = plan.refused.iter().map(|refusal| &refusal.name).collect();
        for (spec, digest) in rows {
            if !refused.contains(&spec.name) {
                let sql = "INSERT INTO source_row (source, name, digest) VALUES (?1, ?2, ?3) \
                           ON CONFLICT (source, name) DO UPDATE SET digest = excluded.digest";
                self.run(sql, params![num, spec.name.as_str(), digest.as_slice()])?;
            }
        }
        Ok(plan.told())
    }

    /// Notes how a look ended. The notice is raised where that is news; whether it was.
    pub(super) fn end_look(
        &mut self,
        source: &SourceName,
        end: &SourceEnd,
        notice: &Notice,
        now: Timestamp,
    ) -> Outcome<bool> {
        if matches!(end, SourceEnd::Taken { .. } | SourceEnd::Partly { .. }) {
            self.source_was_compared(source)?;
        }
        let num = self.source_num_or_new(source)?;
        let sql = "SELECT lapse IS NOT NULL FROM source WHERE num = ?1";
        let lapsed = self.first(sql, [num], |row| row.get::<_, bool>(0))? == Some(true);
        let is_news = match end {
            SourceEnd::Taken { file, refused } => {
                self.run(
                    "UPDATE source SET file = ?2, refused = ?3, taken_at = ?4, lapse = NULL, lapsed_at = NULL \
                     WHERE num = ?1",
                    params![num, file, db::signed(*refused), micros(now)],
                )?;
                lapsed
            }
            SourceEnd::Partly {
                file,
                refused,
                reason,
            } => {
                let refused = db::signed(*refused);
                self.run(
                    "UPDATE source SET file = ?2, refused = ?3, taken_at = ?4, lapse = ?5, \
                     lapsed_at = coalesce(lapsed_at, ?4) WHERE num = ?1",
                    params![num, file, refused, micros(now), reason],
                )?;
                !lapsed
            }
            SourceEnd::Lapsed(reason) => {
                self.run(
                    "UPDATE source SET lapse = ?2, lapsed_at = coalesce(lapsed_at, ?3) WHERE num = ?1",
                    params![num, reason, micros(now)],
                )?;
                !lapsed
            }
        };
        if is_news {
            self.raise(std::slice::from_ref(notice))?;
        }
        Ok(is_news)
    }

    /// A name that goes over to another owner leaves the list that it was on.
    pub(super) fn leave_source(&mut self, num: Num, to: &Origin) -> Outcome<()> {
        let sql = "SELECT name, origin FROM identity WHERE num = ?1";
        let was = self.first(sql, [num], |row| {
            // What cannot be read is on no list.
            let name = row.get::<_, String>(0).ok();
            Ok(name.zip(db::word::<Origin>(row, "origin").ok()))
        })?;
        if let Some((name, Origin::Source(source))) = was.flatten().filter(|(_, was)| was != to) {
            let sql = "DELETE FROM source_row WHERE name = ?2 AND source = (SELECT num FROM source WHERE name = ?1)";
            self.run(sql, [source.as_str(), &name])?;
        }
        Ok(())
    }

    fn source_num_or_new(&self, source: &SourceName) -> Outcome<i64> {
        let sql = "SELECT num FROM source WHERE name = ?1";
        match self.first(sql, [source.as_str()], |row| row.get(0))? {
            Some(num) => Ok(num),
            None => {
                let sql = concat!(
                    "INSERT INTO source (num, name) VALUES (",
                    next_number!("source", "num"),
                    ", ?1) RETURNING num"
                );
                Ok(self.number_of_new(sql, [source.as_str()])?)
            }
        }
    }
}

pub(super) fn read_facts(row: &Row<'_>) -> sql::Result<SourceFacts> {
    let reason: Option<String> = row.get("lapse")?;
    let since = db::maybe_instant(row, "lapsed_at")?;
    Ok(SourceFacts {
        name: db::parsed(row, "name")?,
        file: row.get("file")?,
        taken_at: db::maybe_instant(row, "taken_at")?,
        identities: db::unsigned(row, "identities")?,
        refused: db::unsigned(row, "refused")?,
        adopts: row.get("adopts")?,
        lapse: reason
            .zip(since)
            .map(|(reason, since)| Lapse { reason, since }),
    })
}

/// A refusal in the words of a list.
impl From<Refusal> for crate::model::RefusedRow {
    fn from(refusal: Refusal) -> Self {
        Self {
            number: 0,
            name: Some(refusal.name),
            reason: refusal.reason,
        }
    }
}
