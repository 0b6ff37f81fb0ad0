//! Takes names and their ids over, from `identities.jsonl` or from elsewhere, in batches.

use rusqlite::params;
use serde::{Deserialize, Serialize};

use super::{
    columns::{self, micros, spelled},
    db::{Db, Txn},
    error::Outcome,
    idmap::{IdLine, remember_unknown},
    reconcile::Refusal,
};
use crate::model::{
    CreationsWaiting, DueReason, IdentityId, Name, Num, Origin, ResourceName, Spec, Timestamp,
};

/// A line of an import; lines of `identities.jsonl` are such lines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportLine {
    /// Our name.
    pub name: Name,
    /// Its resource.
    pub resource: ResourceName,
    /// What ACS calls it.
    pub id: IdentityId,
    /// When it was made, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Timestamp>,
}

/// What an import did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Imported {
    /// Rows that had no id and have one now.
    pub adopted: usize,
    /// Names without a row, whose id is kept for when they are declared.
    pub remembered: usize,
    /// Names that had this id before.
    pub unchanged: usize,
    /// Who is still without an id and waits for a person's word before it is created.
    pub missing: Vec<CreationsWaiting>,
    /// Lines that were not taken.
    pub refused: Vec<Refusal>,
}

/// Why a line is not taken over.
const UNREADABLE: &str = "a row of the store that it is about cannot be read: see `renewd status`";

enum Line {
    Adopted(Num),
    Remembered,
    Unchanged,
    Refused(String),
}

/// Whether the row of a name has room for an id; `?2` is the resource that is said.
const ROOM: &str = "SELECT i.num, i.id IS NULL AND i.state = 'new' AND r.name IS ?2 FROM identity i \
    LEFT JOIN resource r ON r.num = i.resource WHERE i.name = ?1";

impl Imported {
    fn count(&mut self, line: &ImportLine, taken: Outcome<Line>) -> Outcome<()> {
        let taken = match taken {
            Err(fault) if fault.is_unreadable() => Line::Refused(UNREADABLE.to_owned()),
            taken => taken?,
        };
        match taken {
            Line::Adopted(_) => self.adopted += 1,
            Line::Remembered => self.remembered += 1,
            Line::Unchanged => self.unchanged += 1,
            Line::Refused(reason) => self.refused.push(Refusal {
                name: line.name.clone(),
                reason,
            }),
        }
        Ok(())
    }
}

impl Txn<'_> {
    /// Takes a batch over.
    pub(super) fn import(&mut self, lines: &[ImportLine], now: Timestamp) -> Outcome<Imported> {
        let mut imported = Imported::default();
        for line in lines {
            let taken = self.take_over(line, now);
            imported.count(line, taken)?;
        }
        self.effects.due = true;
        self.end_wait()?;
        Ok(imported)
    }

    fn take_over(&mut self, line: &ImportLine, now: Timestamp) -> Outcome<Line> {
        let fate = self.fate(line)?;
        let named = (line.name.clone(), line.resource.clone());
        let created_at = line.created_at.unwrap_or(now);
        match &fate {
            Line::Unchanged | Line::Refused(_) => {}
            Line::Remembered => {
                let id_line = IdLine::of_id(named, line.id.clone(), created_at);
                remember_unknown(self, &id_line)?;
                self.effects.ids.push(id_line);
            }
            Line::Adopted(row) => {
                let sql = "UPDATE identity SET id = ?2, created_at = ?3 WHERE num = ?1";
                self.run(sql, params![row, line.id.as_str(), micros(created_at)])?;
                self.adopted_first(*row, now)?;
                self.effects.mapped.insert(*row);
            }
        }
        Ok(fate)
    }

    /// Gives every row without an id the one that its name had before.
    pub(super) fn adopt_remembered(&self, now: Timestamp) -> Outcome<usize> {
        let adopted = self.run(
            "UPDATE OR IGNORE identity SET id = m.id, created_at = m.created_at, due_at = coalesce(due_at, ?1), \
             due_why = coalesce(due_why, ?2) FROM remembered m JOIN resource r ON r.name = m.resource \
             WHERE identity.name = m.name AND identity.resource = r.num AND identity.id IS NULL \
             AND identity.state = 'new'",
            params![micros(now), spelled(&DueReason::First)],
        )?;
        let sql = "DELETE FROM remembered WHERE name IN \
                   (SELECT m.name FROM remembered m JOIN identity i ON i.name = m.name WHERE i.id = m.id)";
        self.run(sql, [])?;
        Ok(adopted)
    }
}

impl Db {
    /// Lines of a map may be of names that a file or a source declares by now: of those only the id counts,
    /// so they go from `specs` to `ids`.
    pub(super) fn leave_to_others(
        &self,
        specs: &mut Vec<Spec>,
        ids: &mut Vec<ImportLine>,
    ) -> Outcome<()> {
        let sql = "SELECT origin FROM identity WHERE name = ?1 AND removed = 0";
        let mut ours = Vec::with_capacity(specs.len());
        for spec in std::mem::take(specs) {
            let origin = self.first(sql, [spec.name.as_str()], |row| {
                Ok(columns::word::<Origin>(row, "origin").unwrap_or(Origin::Cli))
            })?;
            match (&spec.id, origin) {
                (Some(id), Some(Origin::File | Origin::Source(_))) => ids.push(ImportLine {
                    name: spec.name,
                    resource: spec.resource,
                    id: id.clone(),
                    created_at: None,
                }),
                _ => ours.push(spec),
            }
        }
        *specs = ours;
        Ok(())
    }

    /// What [`Txn::import`] would do.
    pub(super) fn plan_ids(&self, lines: &[ImportLine]) -> Outcome<Imported> {
        let mut plan = Imported::default();
        for line in lines {
            plan.count(line, self.fate(line))?;
        }
        Ok(plan)
    }

    /// What becomes of a line, decided by reads alone.
    fn fate(&self, line: &ImportLine) -> Outcome<Line> {
        if let Some(owner) = self.owner_of(&line.id)? {
            return Ok(match owner == line.name {
                true => Line::Unchanged,
                false => Line::Refused(format!("the id {} belongs to {owner}", line.id)),
            });
        }
        let words = [line.name.as_str(), line.resource.as_str()];
        let row = self.first(ROOM, words, |row| {
            Ok((row.get::<_, Num>(0)?, row.get::<_, bool>(1)?))
        })?;
        Ok(match row {
            None => Line::Remembered,
            Some((row, true)) => Line::Adopted(row),
            Some((_, false)) => Line::Refused(
                "this name has another id already, or belongs to another resource".to_owned(),
            ),
        })
    }

    /// Whose id this is, by row or by memory.
    fn owner_of(&self, id: &IdentityId) -> Outcome<Option<Name>> {
        let sql = "SELECT name FROM identity WHERE id = ?1 UNION ALL SELECT name FROM remembered WHERE id = ?1";
        Ok(self.first(sql, [id.as_str()], |row| columns::parsed(row, "name"))?)
    }
}
