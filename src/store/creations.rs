//! Nobody is made anew in silence. A store that was lost, whose names `identities.jsonl` or
//! `withdrawn.jsonl` beside it may have known, takes the map over; who is declared and has no id then waits
//! for a person: an import of its id, or the word that it may be created. Who waits has nothing due, and the
//! first token as the reason.
//!
//! What may exist at ACS without a row of ours is kept here too: creations whose answer was lost, and tokens that
//! came too late. The intent to create is written before the call, so that a crash cannot hide one.

use serde::{Deserialize, Serialize};

use super::{
    Cause, Refusal, Store,
    aside::RowKind,
    db::{self, Db, Txn, micros, next_number, spelled},
    error::{Answer, Outcome},
    idmap::remember_unknown,
    tables::Counting,
};
use crate::{
    model::{
        AuditEntry, CreationsWaiting, DueReason, IdLine, IdentityId, Name, Num, Origin,
        ResourceName, SourceName, Spec, Timestamp,
    },
    sql::{self, Params, Row, SqlError, params},
};

/// What a start took over from `identities.jsonl`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TakenOver {
    /// The database had been lost, not only set back.
    pub lost: bool,
    /// Names whose id is known by it.
    pub ids: usize,
    /// Identities that the store alone had declared, which are declared again.
    pub declared: usize,
    /// Those of them that could not be; the file was kept under another name.
    pub refused: usize,
}

impl TakenOver {
    /// Whether it is worth telling.
    pub(super) fn is_news(self) -> bool {
        self.lost || self.declared + self.refused > 0
    }
}

impl std::fmt::Display for TakenOver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (ids, declared) = (self.ids, self.declared);
        match self.lost {
            true => write!(
                f,
                "the database had been lost, and identities.jsonl was taken over: {ids} ids, {declared} identities \
                 declared again"
            )?,
            false => write!(
                f,
                "identities.jsonl knew of {declared} identities that the store did not: they are declared again"
            )?,
        }
        match self.refused {
            0 => Ok(()),
            refused => write!(
                f,
                "; {refused} could not be declared again, see identities.jsonl.broken and the log"
            ),
        }
    }
}

/// That the store had been lost: what is declared without an id waits. Its value says whether the files
/// have been compared since.
const AWAITS_WORD: &str = "awaits_word";
const COMPARED: i64 = 2;
/// The same for the first list of a source since.
const AWAITS_SOURCE: &str = "awaits_source ";
/// Names that are shown.
const NAMED: i64 = 20;
/// Lines that are taken over at once.
const PAGE: usize = 1000;

/// Who waits for a person's word before it is created.
pub(super) const WAITING: &str =
    "id IS NULL AND state = 'new' AND due_at IS NULL AND due_why = 'first'";

impl Store {
    /// A person's word: these identities, which wait because the store had been lost, are created, or all
    /// that wait. How many, and who does not wait.
    pub async fn create_by_word(
        &self,
        names: Option<Vec<Name>>,
        cause: &Cause,
        now: Timestamp,
    ) -> Answer<(u64, Vec<Refusal>)> {
        let cause = cause.clone();
        self.write("let identities be created", move |txn| {
            let names = names.as_deref();
            let (mut created, mut refused) = (0, Vec::new());
            match names {
                None => {
                    let what = format!("SET due_at = ?1 WHERE {WAITING}");
                    created = txn.write_identities(&what, [micros(now)], Counting::Anew)? as u64;
                    let result = format!("{created} identities may be created");
                    txn.audit(&word(&cause, None, result, now))?;
                }
                Some(names) => {
                    let what = format!("SET due_at = ?2 WHERE num = ?1 AND {WAITING}");
                    for name in names {
                        let num = txn.num_of(name.as_str())?.unwrap_or(0);
                        let params = params![num, micros(now)];
                        if txn.write_identities(&what, params, Counting::OfRow(num))? > 0 {
                            created += 1;
                            let result = "may be created".to_owned();
                            txn.audit(&word(&cause, Some(name), result, now))?;
                        } else {
                            refused.push(txn.does_not_wait(name)?);
                        }
                    }
                }
            }
            txn.effects.due |= created > 0;
            txn.end_wait()?;
            Ok((created, refused))
        })
        .await
    }

    /// Who waits for a person's word before it is created, because the store had been lost.
    pub async fn creations_waiting(&self) -> Answer<Vec<CreationsWaiting>> {
        self.read("look for creations that wait", |db| db.creations_waiting())
            .await
    }
}

impl Txn<'_> {
    /// The database was lost: from now on what has no id waits for a person.
    pub(super) fn begin_wait(&self) -> Outcome<()> {
        Ok(db::set_meta(&self.conn, AWAITS_WORD, 1)?)
    }

    /// Takes over what [`super::idmap::IdMap::compare`] put aside: ids are remembered, and what the store
    /// alone had declared is declared again.
    pub(super) fn take_map_over(&mut self, lost: bool, now: Timestamp) -> Outcome<TakenOver> {
        let mut taken = TakenOver {
            lost,
            ..TakenOver::default()
        };
        let sql = "SELECT name, line FROM map_line WHERE name > ?1 ORDER BY name LIMIT ?2";
        let mut after = String::new();
        loop {
            let params = params![after, super::identities::count(PAGE)];
            let lines = self.all(RowKind::RememberedId, sql, params, |row| {
                Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
            })?;
            let Some((last, _)) = lines.last() else { break };
            after.clone_from(last);
            let lines = lines.iter().map(|(_, text)| serde_json::from_str(text));
            self.take_lines(
                &lines.filter_map(Result::ok).collect::<Vec<_>>(),
                &mut taken,
                now,
            )?;
        }
        self.run("DELETE FROM map_line", [])?;
        Ok(taken)
    }

    fn take_lines(
        &mut self,
        lines: &[IdLine],
        taken: &mut TakenOver,
        now: Timestamp,
    ) -> Outcome<()> {
        let mut specs: Vec<Spec> = Vec::new();
        for line in lines {
            remember_unknown(self, line)?;
            taken.ids += usize::from(line.id.is_some());
            if let (true, Some(Origin::Source(source))) = (taken.lost, &line.kept.origin) {
                db::set_meta(&self.conn, &format!("{AWAITS_SOURCE}{source}"), 1)?;
            }
            if let Some(spec) = line.spec()
                && self.num_of(spec.name.as_str())?.is_none()
            {
                specs.push(spec);
            }
        }
        let declared = self.declare(&specs, now)?;
        taken.declared += declared.create;
        taken.refused += declared.refused.len();
        for refusal in &declared.refused {
            tracing::error!(
                name = %refusal.name,
                "identities.jsonl declares it, and it cannot be declared again: {}", refusal.reason
            );
        }
        Ok(())
    }

    /// Whether one of this origin that has no id may be created without a person's word.
    pub(super) fn may_create(&self, origin: &Origin) -> Outcome<bool> {
        let is_set =
            |key: &str| Ok::<_, SqlError>(db::meta::<sql::Value>(&self.conn, key)?.is_some());
        Ok(match origin {
            Origin::Source(source) if is_set(&format!("{AWAITS_SOURCE}{source}"))? => false,
            _ => !is_set(AWAITS_WORD)?,
        })
    }

    /// A row that waits for its first token is due, unless it waits for a person's word.
    pub(super) fn begin_waiting(&mut self, num: Num, at: i64, why: &DueReason) -> Outcome<()> {
        let sql = "SELECT origin, id IS NULL AS nobody FROM identity WHERE num = ?1";
        let row = self.first(sql, [num], |row| {
            let origin = db::word(row, "origin").unwrap_or(Origin::Cli);
            Ok((origin, row.get::<_, bool>("nobody")?))
        })?;
        match row {
            Some((origin, true)) if !self.may_create(&origin)? => {
                let what = "SET due_at = NULL, due_why = ?2 WHERE num = ?1";
                let params = params![num, spelled(&DueReason::First)];
                self.write_identities(what, params, Counting::OfRow(num))?;
                Ok(())
            }
            _ => self.set_due_of(num, false, at, &spelled(why)),
        }
    }

    /// A row that waited for a person's word has its id: its token is due.
    pub(super) fn adopted_first(&mut self, num: Num, now: Timestamp) -> Outcome<()> {
        let what = "SET due_at = ?2 WHERE num = ?1 AND state = 'new' AND due_at IS NULL AND due_why = 'first'";
        self.write_identities(what, params![num, micros(now)], Counting::OfRow(num))?;
        self.effects.due = true;
        Ok(())
    }

    /// All that files declare has a row now: where nobody waits, the loss of the store is over.
    pub(super) fn files_were_compared(&self) -> Outcome<()> {
        if db::meta::<sql::Value>(&self.conn, AWAITS_WORD)?.is_some() {
            db::set_meta(&self.conn, AWAITS_WORD, COMPARED)?;
            self.end_wait()?;
        }
        Ok(())
    }

    /// All that a source lists has a row now.
    pub(super) fn source_was_compared(&self, source: &SourceName) -> Outcome<()> {
        let key = format!("{AWAITS_SOURCE}{source}");
        self.run("DELETE FROM meta WHERE key = ?1", [key])?;
        Ok(())
    }

    /// Somebody got an id, or may be created: where nobody waits any more, the loss of the store is over.
    pub(super) fn end_wait(&self) -> Outcome<()> {
        let found = db::meta::<i64>(&self.conn, AWAITS_WORD).unwrap_or_default();
        let compared = found == Some(COMPARED);
        let sql = format!("SELECT 1 FROM identity WHERE {WAITING} LIMIT 1");
        if compared && self.first(&sql, [], |_| Ok(()))?.is_none() {
            self.run("DELETE FROM meta WHERE key = ?1", [AWAITS_WORD])?;
        }
        Ok(())
    }

    fn does_not_wait(&self, name: &Name) -> Outcome<Refusal> {
        let sql = "SELECT id IS NOT NULL FROM identity WHERE name = ?1";
        let is_there = self.first(sql, [name.as_str()], |row| row.get::<_, bool>(0))?;
        let reason = match is_there {
            None => "there is no identity of this name: declare it, or `renewd identity add` it"
                .to_owned(),
            Some(true) => "it exists at ACS already, under the id that renewd has".to_owned(),
            Some(false) => {
                format!("it does not wait for a word: `renewd why {name}` says what it waits for")
            }
        };
        Ok(Refusal {
            name: name.clone(),
            reason,
        })
    }
}

fn word(cause: &Cause, name: Option<&Name>, result: String, at: Timestamp) -> AuditEntry {
    AuditEntry {
        at,
        actor: cause.actor.clone(),
        action: "create".to_owned(),
        name: name.cloned(),
        reason: cause.reason.clone(),
        request_id: None,
        result,
    }
}

impl Db {
    /// Who waits for a person's word before it is created, by resource, with some names.
    pub(super) fn creations_waiting(&self) -> Outcome<Vec<CreationsWaiting>> {
        let sql = format!(
            "SELECT w.resource AS num, r.name, w.n FROM (SELECT resource, count(*) AS n FROM identity \
             WHERE {WAITING} GROUP BY resource) w JOIN resource r ON r.num = w.resource ORDER BY r.name"
        );
        let mut waiting = self.all(RowKind::Resource, &sql, [], |row| {
            let resource: ResourceName = db::parsed(row, "name")?;
            Ok((row.get::<_, Num>("num")?, resource, db::unsigned(row, "n")?))
        })?;
        let sql = format!(
            "SELECT num, name FROM identity WHERE resource = ?1 AND {WAITING} ORDER BY name LIMIT ?2"
        );
        waiting
            .drain(..)
            .map(|(num, resource, count)| {
                let names = self.all(RowKind::Identity, &sql, [num, NAMED], |row| {
                    db::parsed(row, "name")
                })?;
                Ok(CreationsWaiting {
                    resource,
                    count,
                    names,
                })
            })
            .collect()
    }
}

/// A token or an identity that may exist at ACS without a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Orphan {
    /// Its number in the list.
    pub num: Num,
    /// When it was noticed, or when the call began.
    pub at: Timestamp,
    /// `creation` (its id is not known), `identity` or `token`.
    pub kind: String,
    pub resource: ResourceName,
    /// For which of our names it was made.
    pub name: Name,
    /// Its id, where known.
    pub id: Option<IdentityId>,
    /// The service's request id, where known.
    pub request_id: Option<String>,
    /// When the token ends, and leaves the list. Creations and identities stay.
    pub expires_at: Option<Timestamp>,
    /// When the tokens of an identity were revoked; it is still there, to be deleted or dismissed.
    #[serde(default)]
    pub revoked_at: Option<Timestamp>,
}

/// The intent to create is noted no longer before the call than this, in microseconds.
const NOTED_BEFORE: i64 = 60_000_000;

/// An orphan that is being noted.
pub(super) struct Orphaned<'a> {
    pub(super) at: i64,
    pub(super) kind: &'static str,
    pub(super) num: Num,
    pub(super) id: Option<&'a str>,
    pub(super) request_id: Option<&'a str>,
    pub(super) expires_at: Option<i64>,
}

impl Store {
    /// Notes that these rows are about to be created at ACS; before the calls. Settled by
    /// [`Change::Issued`] with an id, or by [`Store::creation_failed`]; by a crash they become orphans.
    pub async fn intend_creations(&self, nums: Vec<Num>, now: Timestamp) -> Answer<()> {
        self.write("note a creation", move |txn| {
            for num in &nums {
                txn.not_while_held(*num)?;
                txn.run(
                    "INSERT INTO intent (identity, at) VALUES (?1, ?2) ON CONFLICT (identity) DO UPDATE SET at = ?2",
                    [*num, db::micros(now)],
                )?;
            }
            Ok(())
        })
        .await
    }

    /// A creation gave no id; `maybe_created`: its answer was lost, so an identity may exist.
    pub async fn creation_failed(
        &self,
        num: Num,
        maybe_created: bool,
        request_id: Option<String>,
    ) -> Answer<()> {
        self.write("note a failed creation", move |txn| {
            let sql = "DELETE FROM intent WHERE identity = ?1 RETURNING at";
            let began = txn.first(sql, [num], |row| row.get(0))?;
            match began {
                Some(at) if maybe_created => txn.orphan(&Orphaned {
                    at,
                    kind: "creation",
                    num,
                    id: None,
                    request_id: request_id.as_deref(),
                    expires_at: None,
                }),
                _ => Ok(()),
            }
        })
        .await
    }

    /// A page of what may exist at ACS without a record.
    pub async fn orphans(&self, after: Num, limit: usize) -> Answer<Vec<Orphan>> {
        self.read("list orphans", move |db| {
            let sql = "SELECT * FROM orphan WHERE num > ?1 ORDER BY num";
            Ok(db.page(RowKind::Orphan, limit, sql, [after], read_orphan)?)
        })
        .await
    }

    /// Orphans by their numbers; those that are not on the list are left out.
    pub async fn orphans_by_num(&self, nums: Vec<Num>) -> Answer<Vec<Orphan>> {
        self.read("list orphans", move |db| {
            let sql = "SELECT * FROM orphan WHERE num = ?1";
            let mut found = Vec::new();
            for num in &nums {
                match db.one(RowKind::Orphan, sql, [num], read_orphan) {
                    Ok(orphan) => found.extend(orphan),
                    Err(error) if error.is_unreadable() => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Ok(found)
        })
        .await
    }

    /// Takes orphans off the list.
    pub async fn dismiss_orphans(&self, nums: Vec<Num>) -> Answer<()> {
        self.write("dismiss orphans", move |txn| {
            for num in &nums {
                txn.remove_orphans("num = ?1", [num])?;
            }
            Ok(())
        })
        .await
    }
}

impl Txn<'_> {
    /// At start: every creation that was under way is a possible orphan. Answers with their number.
    pub(super) fn orphan_intents(&mut self, now: i64) -> Outcome<usize> {
        let open = self.all(
            RowKind::Intent,
            "SELECT identity, at FROM intent",
            [],
            |row| Ok((row.get(0)?, row.get::<_, i64>(1)?)),
        )?;
        for (num, at) in &open {
            self.orphan(&Orphaned {
                at: (*at).min(now),
                kind: "creation",
                num: *num,
                id: None,
                request_id: None,
                expires_at: None,
            })?;
        }
        self.run("DELETE FROM intent", [])?;
        Ok(open.len())
    }

    /// What became of a creation that a call at `began` asked for is known after all.
    pub(super) fn know_creation(&mut self, num: Num, began: Timestamp) -> Outcome<()> {
        let upto = micros(began);
        let within = params![num, upto - NOTED_BEFORE, upto];
        let sql = "DELETE FROM intent WHERE identity = ?1 AND at >= ?2 AND at <= ?3";
        self.run(sql, within)?;
        let which = "kind = 'creation' AND name = (SELECT name FROM identity WHERE num = ?1) AND at >= ?2 AND at <= ?3";
        self.remove_orphans(which, within)?;
        Ok(())
    }

    pub(super) fn orphan(&mut self, orphan: &Orphaned<'_>) -> Outcome<()> {
        let added = self.run(
            concat!(
                "INSERT INTO orphan (num, at, kind, resource, name, id, request_id, expires_at) SELECT ",
                next_number!("orphan", "num"),
                ", ?1, ?2, coalesce(r.name, ''), i.name, ?4, ?5, ?6 FROM identity i \
                 LEFT JOIN resource r ON r.num = i.resource WHERE i.num = ?3"
            ),
            params![
                orphan.at,
                orphan.kind,
                orphan.num,
                orphan.id,
                orphan.request_id,
                orphan.expires_at
            ],
        )?;
        self.orphans = None;
        self.count_orphans(i64::try_from(added).unwrap_or(0));
        Ok(())
    }

    /// Whether there is any at all.
    pub(super) fn any_orphans(&mut self) -> Outcome<bool> {
        if self.orphans.is_none() {
            let sql = "SELECT EXISTS (SELECT 1 FROM orphan)";
            self.orphans = self.first(sql, [], |row| row.get(0))?;
        }
        Ok(self.orphans != Some(false))
    }

    /// Takes orphans off the list; how many.
    pub(super) fn remove_orphans(&mut self, which: &str, params: impl Params) -> Outcome<usize> {
        let gone = self.run(&format!("DELETE FROM orphan WHERE {which}"), params)?;
        self.count_orphans(-i64::try_from(gone).unwrap_or(0));
        Ok(gone)
    }

    /// An id was deleted: what may have existed of it is no more.
    pub(super) fn orphans_deleted(&mut self, id: &str) -> Outcome<()> {
        self.remove_orphans("id = ?1", [id])?;
        Ok(())
    }

    /// All tokens of an id were revoked by a call that began at `called`: those noticed before it are
    /// dead. The identities remain, without tokens.
    pub(super) fn orphans_revoked(&mut self, id: &str, called: i64, at: i64) -> Outcome<()> {
        let which = "id = ?1 AND kind = 'token' AND at <= ?2";
        self.remove_orphans(which, params![id, called])?;
        self.run(
            "UPDATE orphan SET revoked_at = ?3 WHERE id = ?1 AND kind = 'identity' AND at <= ?2",
            params![id, called, at],
        )?;
        Ok(())
    }
}

pub(super) fn read_orphan(row: &Row<'_>) -> sql::Result<Orphan> {
    Ok(Orphan {
        num: row.get("num")?,
        at: db::instant_in(row, "at")?,
        kind: row.get("kind")?,
        resource: db::parsed(row, "resource")?,
        name: db::parsed(row, "name")?,
        id: db::maybe_parsed(row, "id")?,
        request_id: row.get("request_id")?,
        expires_at: db::maybe_instant(row, "expires_at")?,
        revoked_at: db::maybe_instant(row, "revoked_at")?,
    })
}
