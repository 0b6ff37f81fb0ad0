//! Where sinks keep their files, and the files that nobody speaks of any more: strays, noted by the
//! schema's triggers in the very transaction that lets go of them.

use std::path::{Path, PathBuf};

use rusqlite::{Row, params};

use super::{
    aside::RowKind,
    columns::{self, micros},
    db::{Db, Txn},
    error::{Outcome, StoreError},
    identities::Consignment,
};
use crate::model::{Name, Num, Placed, ResourceName, SinkName, Timestamp, Version};

/// A file that we once wrote and that no row speaks of any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stray {
    /// Its number.
    pub num: i64,
    /// The file.
    pub placed: Placed,
    /// The sink that wrote it, which may be configured no longer.
    pub sink: String,
    /// Whose it was; `None` for a bundle.
    pub name: Option<Name>,
    /// The resource of that identity.
    pub resource: Option<ResourceName>,
}

/// One of those whose documents a sink keeps together.
#[derive(Debug)]
pub struct Member {
    /// The identity's row.
    pub num: Num,
    /// The version that the sink should have.
    pub wanted: Version,
    /// Whether the sink does not have it yet.
    pub is_pending: bool,
    /// The document and its readers, or why they cannot be read.
    pub consignment: Result<Consignment, String>,
}

impl Db {
    /// A page of the documents that a sink should keep, in the order of the rows.
    pub(super) fn members(
        &self,
        sink: &SinkName,
        after: Num,
        limit: usize,
    ) -> Outcome<Vec<Member>> {
        let sql = "SELECT i.*, r.name AS resource_name, d.wanted, d.wanted > d.delivered AS pending \
                   FROM delivery d JOIN identity i ON i.num = d.identity \
                   LEFT JOIN resource r ON r.num = i.resource \
                   WHERE d.sink = ?1 AND d.identity > ?2 AND d.wanted > 0 ORDER BY d.identity";
        let params = [self.sink_num(sink.as_str())?, after];
        Ok(self.page(RowKind::Identity, limit, sql, params, |row| {
            let read = self.read_consignment(row);
            if let Err(fault) = &read {
                self.note_consignment(row, fault);
            }
            Ok(Member {
                num: row.get("num")?,
                wanted: Version(columns::unsigned(row, "wanted")?),
                is_pending: row.get("pending")?,
                consignment: read
                    .map_err(|fault| StoreError::new("read a token", fault).to_string()),
            })
        })?)
    }

    /// How many identities have left a sink so far.
    pub(super) fn losses(&self, sink: &SinkName) -> Outcome<i64> {
        let sql = "SELECT losses FROM sink WHERE name = ?1";
        Ok(self
            .first(sql, [sink.as_str()], |row| row.get(0))?
            .unwrap_or(0))
    }

    /// Strays whose time has come, the longest waiting first.
    pub(super) fn strays(&self, now: Timestamp, limit: usize) -> Outcome<Vec<Stray>> {
        let sql = "SELECT * FROM stray WHERE next_at <= ?1 ORDER BY next_at, num";
        Ok(self.page(RowKind::Stray, limit, sql, [micros(now)], read_stray)?)
    }

    /// Whether a file is somebody's again: a row has it recorded, or one of these sinks, each of which
    /// would put it there, serves the identity (or, without a name, anybody).
    pub(super) fn is_claimed(
        &self,
        path: &Path,
        by: &[SinkName],
        name: Option<&Name>,
    ) -> Outcome<bool> {
        let path = path.to_string_lossy();
        let recorded = "SELECT EXISTS (SELECT 1 FROM delivery WHERE path = ?1) \
                        OR EXISTS (SELECT 1 FROM sink WHERE path = ?1)";
        if self.first(recorded, [&path], |row| row.get(0))? == Some(true) {
            return Ok(true);
        }
        for sink in by {
            let sink = self.sink_num(sink.as_str())?;
            let found = match name {
                Some(name) => {
                    let sql = "SELECT 1 FROM delivery WHERE sink = ?1 \
                               AND identity = (SELECT num FROM identity WHERE name = ?2)";
                    self.first(sql, params![sink, name.as_str()], |_| Ok(()))?
                }
                None => {
                    let sql = "SELECT 1 FROM delivery WHERE sink = ?1 LIMIT 1";
                    self.first(sql, [sink], |_| Ok(()))?
                }
            };
            if found.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The file of a sink's bundle.
    pub(super) fn bundle_of(&self, sink: &SinkName) -> Outcome<Option<Placed>> {
        let sql = "SELECT path, digest FROM sink WHERE name = ?1 AND digest IS NOT NULL";
        Ok(self.first(sql, [sink.as_str()], read_placed)?)
    }
}

impl Txn<'_> {
    /// Notes where an identity's file lies now, or that it has none. What is noted already is written
    /// only where the content changed, so that routine renewals leave the index alone.
    pub(super) fn place(&mut self, sink: Num, num: Num, placed: Option<&Placed>) -> Outcome<()> {
        let Some(Placed { path, digest }) = placed else {
            // Removed by ourselves: without a digest the trigger sees no stray.
            self.run(
                "UPDATE delivery SET digest = NULL WHERE identity = ?1 AND sink = ?2 AND digest IS NOT NULL",
                [num, sink],
            )?;
            self.run(
                "UPDATE delivery SET path = NULL WHERE identity = ?1 AND sink = ?2 AND path IS NOT NULL",
                [num, sink],
            )?;
            return Ok(());
        };
        let path = path.to_string_lossy();
        let same = "UPDATE delivery SET digest = ?4 WHERE identity = ?1 AND sink = ?2 AND path = ?3 \
                    AND digest IS NOT ?4";
        if self.run(same, params![num, sink, path, digest])? == 0 {
            let moved = "UPDATE delivery SET path = ?3, digest = ?4 WHERE identity = ?1 AND sink = ?2 \
                         AND path IS NOT ?3";
            self.effects.wanted |= self.run(moved, params![num, sink, path, digest])? > 0;
        }
        Ok(())
    }

    /// Notes where a sink's bundle lies now, or that it has none; the files of its identities, from
    /// when it was no bundle, become strays.
    pub(super) fn place_bundle(&mut self, sink: &SinkName, placed: Option<&Placed>) -> Outcome<()> {
        match placed {
            Some(Placed { path, digest }) => {
                let (sink, path) = (sink.as_str(), path.to_string_lossy());
                let same = "UPDATE sink SET digest = ?3 WHERE name = ?1 AND path = ?2";
                if self.run(same, params![sink, path, digest])? == 0 {
                    let moved = "UPDATE sink SET path = ?2, digest = ?3 WHERE name = ?1";
                    self.effects.wanted |= self.run(moved, params![sink, path, digest])? > 0;
                }
            }
            None => {
                let sql = "UPDATE sink SET digest = NULL WHERE name = ?1";
                self.run(sql, [sink.as_str()])?;
                let sql = "UPDATE sink SET path = NULL WHERE name = ?1";
                self.run(sql, [sink.as_str()])?;
            }
        }
        let sql =
            "UPDATE delivery SET path = NULL, digest = NULL WHERE sink = ?1 AND path IS NOT NULL";
        self.effects.wanted |= self.run(sql, [self.sink_num(sink.as_str())?])? > 0;
        Ok(())
    }

    /// A sink that keeps a file per identity lets go of the bundle that it kept before.
    pub(super) fn leave_bundle(&mut self, sink: &SinkName) -> Outcome<()> {
        let sql = "UPDATE sink SET path = NULL, digest = NULL WHERE name = ?1 AND path IS NOT NULL";
        self.effects.wanted |= self.run(sql, [sink.as_str()])? > 0;
        Ok(())
    }

    /// Forgets strays that are dealt with; with an instant, looks at them again then.
    pub(super) fn settle_strays(&self, strays: &[(i64, Option<Timestamp>)]) -> Outcome<()> {
        for (num, again) in strays {
            match again {
                None => self.run("DELETE FROM stray WHERE num = ?1", [num])?,
                Some(at) => {
                    let sql = "UPDATE stray SET next_at = ?2 WHERE num = ?1";
                    self.run(sql, [*num, micros(*at)])?
                }
            };
        }
        Ok(())
    }
}

pub(super) fn read_placed(row: &Row<'_>) -> rusqlite::Result<Placed> {
    Ok(Placed {
        path: PathBuf::from(row.get::<_, String>("path")?),
        digest: row.get("digest")?,
    })
}

pub(super) fn read_stray(row: &Row<'_>) -> rusqlite::Result<Stray> {
    Ok(Stray {
        num: row.get("num")?,
        placed: read_placed(row)?,
        sink: row.get("sink")?,
        name: columns::maybe_parsed(row, "name")?,
        resource: columns::maybe_parsed(row, "resource")?,
    })
}
