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
    CreationsWaiting, DueReason, IdentityId, Name, Origin, ResourceName, Spec, Timestamp,
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
    Adopted,
    Remembered,
    Unchanged,
    Refused(String),
}

impl Txn<'_> {
    /// Takes a batch over.
    pub(super) fn import(&mut self, lines: &[ImportLine], now: Timestamp) -> Outcome<Imported> {
        let mut imported = Imported::default();
        for line in lines {
            let taken = match self.take_over(line, now) {
                Err(fault) if fault.is_unreadable() => Line::Refused(UNREADABLE.to_owned()),
                taken => taken?,
            };
            match taken {
                Line::Adopted => imported.adopted += 1,
                Line::Remembered => imported.remembered += 1,
                Line::Unchanged => imported.unchanged += 1,
                Line::Refused(reason) => imported.refused.push(Refusal {
                    name: line.name.clone(),
                    reason,
                }),
            }
        }
        self.effects.due = true;
        self.end_wait()?;
        Ok(imported)
    }

    fn take_over(&mut self, line: &ImportLine, now: Timestamp) -> Outcome<Line> {
        if let Some(owner) = self.owner_of(&line.id)? {
            return Ok(match owner == line.name {
                true => Line::Unchanged,
                false => Line::Refused(format!("the id {} belongs to {owner}", line.id)),
            });
        }
        let named = (line.name.clone(), line.resource.clone());
        let created_at = line.created_at.unwrap_or(now);
        let id_line = IdLine::of_id(named, line.id.clone(), created_at);
        let Some(row) = self.num_of(line.name.as_str())? else {
            remember_unknown(self, &id_line)?;
            self.effects.ids.push(id_line);
            return Ok(Line::Remembered);
        };
        let adopted = self.run(
            "UPDATE identity SET id = ?2, created_at = ?3 WHERE num = ?1 AND id IS NULL AND state = 'new' \
             AND resource = ?4",
            params![
                row,
                line.id.as_str(),
                micros(created_at),
                self.resource_num(line.resource.as_str())?
            ],
        )?;
        if adopted == 0 {
            return Ok(Line::Refused(
                "this name has another id already, or belongs to another resource".to_owned(),
            ));
        }
        self.adopted_first(row, now)?;
        self.effects.mapped.insert(row);
        Ok(Line::Adopted)
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

    /// Lines that [`Txn::import`] would refuse.
    pub(super) fn plan_ids(&self, lines: &[ImportLine]) -> Outcome<Vec<Refusal>> {
        let mut refused = Vec::new();
        for line in lines {
            let reason = match self.owner_of(&line.id)? {
                Some(owner) if owner != line.name => {
                    Some(format!("the id {} belongs to {owner}", line.id))
                }
                Some(_) => None,
                None => match self.known_id(line.name.as_str())? {
                    Some(other) if self.num_of(line.name.as_str())?.is_some() => {
                        Some(format!("this name has the id {other} already"))
                    }
                    _ => None,
                },
            };
            refused.extend(reason.map(|reason| Refusal {
                name: line.name.clone(),
                reason,
            }));
        }
        Ok(refused)
    }

    /// Whose id this is, by row or by memory.
    fn owner_of(&self, id: &IdentityId) -> Outcome<Option<Name>> {
        let sql = "SELECT name FROM identity WHERE id = ?1 UNION ALL SELECT name FROM remembered WHERE id = ?1";
        Ok(self.first(sql, [id.as_str()], |row| columns::parsed(row, "name"))?)
    }
}
