//! What is declared of identities, and by whom. A declaration is kept in the identity's row (all of [`Spec`] that has
//! no column of its own), and in `identities.jsonl` where the store alone has it. Plans of declarations are carried
//! out here: rows are made, changed, withheld and forgotten; names and their ids are taken over in batches.

use serde::{Deserialize, Serialize};

use super::{
    Cause, Store,
    aside::RowKind,
    campaigns::{NewCampaign, Target, Wanted},
    db::{self, Db, Txn, micros, spelled},
    error::{Answer, Outcome, StoreError},
    idmap::remember_unknown,
    reconcile::{Alteration, FORGOTTEN, REMOVED, ReconcilePlan, Reconciled, Refusal},
    steps::just_after,
    tables::{Counting, Handed, NewRow},
};
use crate::{
    model::{
        AuditEntry, CampaignAction, CreationsWaiting, DueReason, IdLine, IdentityId, Kind, Name,
        Num, OnRemoval, Origin, ResourceName, SinkAt, Spec, State, Then, Timestamp, Version,
    },
    sql::params,
};

impl Store {
    /// Makes the rows what the files declare, in one transaction; costs what they declare, and writes
    /// nothing when nothing changed. `sinks` are all that are configured here; those of other machines stay as they
    /// are.
    pub async fn reconcile(
        &self,
        specs: &[Spec],
        sinks: &[SinkAt],
        now: Timestamp,
    ) -> Answer<Reconciled> {
        // Nothing is written where nothing changed: not even that something may be withdrawn.
        let withdraws = !self.plan_reconcile(specs, sinks).await?.is_unchanged();
        let (specs, sinks) = (specs.to_vec(), sinks.to_vec());
        self.queue("take the declared identities over", withdraws, move |txn| {
            let mut plan = txn.plan_reconcile(&specs, &sinks)?;
            txn.take_sinks(&plan, now)?;
            txn.carry_out(&mut plan, &specs, now)?;
            txn.files_were_compared()?;
            Ok(plan.told())
        })
        .await
    }

    /// Makes the sinks of this machine what is configured here, whatever identities are declared; binds all who name
    /// them.
    pub async fn bind_sinks(&self, sinks: &[SinkAt], now: Timestamp) -> Answer<()> {
        let sinks = sinks.to_vec();
        let plan = |db: &Db, sinks: &[SinkAt]| {
            let mut plan = ReconcilePlan::default();
            db.plan_sinks(sinks, &mut plan, |sink| sink.node() == db.node.as_ref())?;
            Ok(plan)
        };
        let ours = sinks.clone();
        let found = self.read("compare the sinks of this machine", move |db| {
            plan(db, &ours)
        });
        if found.await?.told().sinks == 0 {
            return Ok(());
        }
        self.write("bind the sinks of this machine", move |txn| {
            let found = plan(txn, &sinks)?;
            txn.take_sinks(&found, now)
        })
        .await
    }

    /// Some of those who name a sink that no machine has any more, so that nothing is delivered to them there.
    pub async fn of_former_sinks(&self) -> Answer<Vec<Refusal>> {
        self.read("look for sinks that are no longer configured", |db| {
            let retired = "SELECT EXISTS (SELECT 1 FROM sink WHERE configured = 0)";
            if db.first(retired, [], |row| row.get(0))? != Some(true) {
                return Ok(Vec::new());
            }
            let sql = "SELECT i.num, i.name, s.name AS sink FROM identity i\
                /*sqlite*/, json_each(iif(json_valid(i.wish), i.wish, '{}'), '$.sinks') w JOIN sink s ON s.name = w.value\
                /*postgres  JOIN sink s ON strpos(substring(i.wish FROM '\"sinks\":\\[([^]]*)\\]'), '\"' || s.name || '\"') > 0*/ \
                WHERE s.configured = 0 AND NOT EXISTS (SELECT 1 FROM sink o WHERE o.name = s.name AND o.configured = 1) \
                AND i.removed = 0 AND i.state IN ('new', 'active', 'late') LIMIT 1000";
            Ok(db.all(RowKind::Identity, sql, [], |row| {
                let sink: String = row.get("sink")?;
                Ok(Refusal {
                    name: db::parsed(row, "name")?,
                    reason: format!("its sink {sink} is not configured, so nothing is delivered there"),
                })
            })?)
        })
        .await
    }

    /// Adds identities, or changes them, without touching others; for those kept in the store alone.
    pub async fn declare(&self, specs: Vec<Spec>, now: Timestamp) -> Answer<Reconciled> {
        self.withdraw("add identities", move |txn| txn.declare(&specs, now))
            .await
    }

    /// Removes identities, as `how` says or as each one's own `on_removal`.
    pub async fn remove(
        &self,
        names: Vec<Name>,
        how: Option<OnRemoval>,
        now: Timestamp,
    ) -> Answer<Reconciled> {
        self.withdraw("remove identities", move |txn| {
            let (mut plan, mut forgotten) = (ReconcilePlan::default(), 0);
            for name in &names {
                let refusal = match txn.num_of(name.as_str())? {
                    Some(num) => {
                        let how = how.map_or_else(|| txn.on_removal(num), Ok)?;
                        let readable = txn.readable(num)?.is_some();
                        match (readable, how) {
                            (true, how) => {
                                plan.remove.push((num, how));
                                continue;
                            }
                            // Nothing else can be done with it; its id stays known.
                            (false, OnRemoval::Forget) => {
                                txn.drop_identity(num, now)?;
                                forgotten += 1;
                                continue;
                            }
                            (false, _) => UNREADABLE,
                        }
                    }
                    None => "there is no identity of this name",
                };
                plan.refused.push(Refusal {
                    name: name.clone(),
                    reason: refusal.to_owned(),
                });
            }
            txn.carry_out(&mut plan, &[], now)?;
            let mut done = plan.told();
            done.forget += forgotten;
            Ok(done)
        })
        .await
    }

    /// Takes a batch over in one transaction: ids given back first, then identities to keep.
    pub async fn take_batch(
        &self,
        specs: Vec<Spec>,
        ids: Vec<ImportLine>,
        now: Timestamp,
    ) -> Answer<(Reconciled, Imported)> {
        self.withdraw("import identities", move |txn| {
            let (mut specs, mut ids) = (specs.clone(), ids.clone());
            txn.leave_to_others(&mut specs, &mut ids)?;
            let mut imported = txn.import(&ids, now)?;
            let declared = txn.declare(&specs, now)?;
            imported.missing = txn.creations_waiting()?;
            Ok((declared, imported))
        })
        .await
    }

    /// What [`Store::take_batch`] would do.
    pub async fn plan_import(
        &self,
        mut specs: Vec<Spec>,
        mut ids: Vec<ImportLine>,
    ) -> Answer<(Reconciled, Imported)> {
        self.read("check an import", move |db| {
            db.leave_to_others(&mut specs, &mut ids)?;
            Ok((db.plan_declare(&specs)?, db.plan_ids(&ids)?))
        })
        .await
    }

    /// Takes names and ids over, such as lines of `identities.jsonl`.
    pub async fn import(&self, lines: Vec<ImportLine>, now: Timestamp) -> Answer<Imported> {
        self.write("import ids", move |txn| txn.import(&lines, now))
            .await
    }
}

impl Txn<'_> {
    /// Takes declarations over without touching what they do not name.
    pub(super) fn declare(&mut self, specs: &[Spec], now: Timestamp) -> Outcome<Reconciled> {
        let mut plan = ReconcilePlan::default();
        self.plan_specs(specs, &mut plan)?;
        self.carry_out(&mut plan, specs, now)?;
        Ok(plan.told())
    }

    /// Removals go first, so that a forgotten row's id is free for another name. What the store refuses of it
    /// is named in the plan, and the rest is done.
    pub(super) fn carry_out(
        &mut self,
        plan: &mut ReconcilePlan,
        specs: &[Spec],
        now: Timestamp,
    ) -> Outcome<()> {
        let (remove, refused) =
            self.one_by_one(&plan.remove, |txn, (num, how)| txn.let_go(*num, *how, now))?;
        plan.remove = remove;
        for ((num, _), error) in refused {
            let sql = "SELECT name FROM identity WHERE num = ?1";
            let name = self.first(sql, [num], |row| db::parsed(row, "name"))?;
            let reason = refusal(&error);
            plan.refused
                .extend(name.map(|name| Refusal { name, reason }));
        }
        let revoke = plan.remove.iter();
        let revoke = revoke.filter(|(_, how)| *how == OnRemoval::Revoke);
        let revoke: Vec<Num> = revoke.map(|(num, _)| *num).collect();
        if !revoke.is_empty() {
            let rows = revoke.into_iter().map(Wanted::Row).collect();
            let (hold, cause) = (Some(Then::Hold), Cause::ours(NO_LONGER));
            let target = Target::Items(rows);
            let campaign = NewCampaign::new(CampaignAction::Revoke, hold, target, cause);
            self.create_campaign(&campaign, now)?;
        }
        let (create, refused) =
            self.one_by_one(&plan.create, |txn, at| txn.create(&specs[*at], now))?;
        plan.create = create;
        for (at, error) in refused {
            plan.refuse(&specs[at], refusal(&error));
        }
        let (change, refused) = self.one_by_one(&plan.change, |txn, (at, alteration)| {
            txn.alter(&specs[*at], *alteration, now)
        })?;
        plan.change = change;
        for ((at, _), error) in refused {
            plan.refuse(&specs[at], refusal(&error));
        }
        Ok(())
    }

    /// Does something with each of these; those with which it was done, and those with which the store refuses
    /// it.
    fn one_by_one<E: Clone>(
        &mut self,
        entries: &[E],
        mut work: impl FnMut(&mut Txn<'_>, &E) -> Outcome<()>,
    ) -> Outcome<Parted<E>> {
        let each = self.each("take a declaration over", entries, |txn, part| {
            part.iter().map(|entry| work(txn, entry)).collect()
        })?;
        let (mut done, mut refused) = (Vec::new(), Vec::new());
        for (entry, answer) in entries.iter().zip(each) {
            match answer {
                Ok(()) => done.push(entry.clone()),
                Err(error) => refused.push((entry.clone(), error)),
            }
        }
        Ok((done, refused))
    }

    fn create(&mut self, spec: &Spec, now: Timestamp) -> Outcome<()> {
        let resource = self.resource_num_or_new(spec.resource.as_str())?;
        let (id, created_at) = self.first_id(spec, now)?;
        if let Some(id) = &id {
            self.take_id(id, &spec.name)?;
        }
        let due = id.is_some() || self.may_create(&spec.origin)?;
        let sinks = self.configured(&spec.declared.sinks)?;
        let num = self.add_identity(&NewRow {
            name: spec.name.as_str(),
            resource,
            origin: &spelled(&spec.origin),
            declared: spec.origin == Origin::File,
            id: id.as_ref().map(IdentityId::as_str),
            created_at,
            due_at: due.then(|| micros(now)),
            due_why: &spelled(&DueReason::First),
            by_socket: sinks.is_empty(),
            wish: &spec.declared.to_text(),
        })?;
        self.effects.due = true;
        self.effects.mapped.insert(num);
        for sink in sinks {
            let version = Version(0);
            self.add_delivery(Handed { sink, num, version }, micros(now))?;
        }
        self.take_waiting(num, spec.name.as_str(), now)
    }

    /// The id that a new row begins with: the declared one, or the one that the name had before.
    fn first_id(&self, spec: &Spec, now: Timestamp) -> Outcome<(Option<IdentityId>, i64)> {
        if spec.declared.id.is_some() {
            return Ok((spec.declared.id.clone(), micros(now)));
        }
        let sql = "SELECT id, created_at FROM remembered WHERE name = ?1 AND resource = ?2";
        let known = self.first(sql, [spec.name.as_str(), spec.resource.as_str()], |row| {
            Ok((super::db::parsed(row, "id")?, row.get(1)?))
        })?;
        Ok(known.map_or((None, micros(now)), |(id, at)| (Some(id), at)))
    }

    /// An id comes to a name: a forgotten row or a memory of it lets go.
    fn take_id(&mut self, id: &IdentityId, name: &Name) -> Outcome<()> {
        let what = "SET id = NULL WHERE id = ?1 AND removed = 2";
        self.write_identities(what, [id.as_str()], Counting::Nothing)?;
        let sql = "DELETE FROM remembered WHERE id = ?1 OR name = ?2";
        if self.run(sql, [id.as_str(), name.as_str()])? > 0 {
            self.effects.ids_replaced = true;
        }
        Ok(())
    }

    fn alter(&mut self, spec: &Spec, alteration: Alteration, now: Timestamp) -> Outcome<()> {
        let Alteration { num, reissue, back } = alteration;
        let Some(row) = self.readable(num)? else {
            return Ok(());
        };
        if let Some(id) = spec
            .declared
            .id
            .as_ref()
            .filter(|id| row.id.as_ref() != Some(*id))
        {
            self.take_id(id, &spec.name)?;
            self.set_id(num, Some(id))?;
            self.effects.ids_replaced |= row.id.is_some();
            self.adopted_first(num, now)?;
        }
        self.effects.mapped.insert(num);
        self.leave_source(num, &spec.origin)?;
        let (wish, origin) = (spec.declared.to_text(), spelled(&spec.origin));
        self.declare_row(num, (&wish, &origin, spec.origin == Origin::File))?;
        if reissue {
            let what = "SET asked_at = ?2 WHERE num = ?1";
            self.write_identities(what, [num, micros(now)], Counting::Nothing)?;
        }
        self.bind(num, &spec.declared.sinks, row.version, now)?;
        if back {
            self.spare(num, now)?;
            self.release(&row, now)?;
            return self.told_why(&row.name, "release", "declared again", row.version, now);
        }
        if reissue && row.state.wants_token() {
            let why = match row.state {
                State::New => DueReason::First,
                _ => DueReason::Changed,
            };
            self.set_due(&row, just_after(now), &spelled(&why))?;
        }
        Ok(())
    }

    /// Nothing names a row any more.
    pub(super) fn let_go(&mut self, num: Num, how: OnRemoval, now: Timestamp) -> Outcome<()> {
        let Some(row) = self.readable(num)? else {
            return Ok(());
        };
        let mark = match how {
            OnRemoval::Hold | OnRemoval::Revoke => REMOVED,
            OnRemoval::Forget => FORGOTTEN,
        };
        let what = "SET declared = 0, removed = ?2 WHERE num = ?1";
        self.write_identities(what, params![num, mark], Counting::Nothing)?;
        self.effects.touched.rows.insert(num);
        self.effects.mapped.insert(num);
        let (action, version) = match how {
            OnRemoval::Forget => ("forget", self.forget(&row, now)?),
            OnRemoval::Hold | OnRemoval::Revoke if row.state.wants_token() => {
                ("hold", self.withdraw(&row, State::Held, Kind::Held, now)?)
            }
            // Held, gone or deleted before: that is not to be undone by naming it again.
            OnRemoval::Hold | OnRemoval::Revoke => {
                let what = "SET removed = 0 WHERE num = ?1";
                self.write_identities(what, [num], Counting::Nothing)?;
                return Ok(());
            }
        };
        self.told_why(&row.name, action, NO_LONGER, version, now)
    }

    /// A forgotten row stays until its consumers have been told; one that never had anything to tell
    /// goes at once.
    fn forget(&mut self, row: &super::db::CurrentRow, now: Timestamp) -> Outcome<Version> {
        if row.state == State::Deleted {
            // Its id is no more, and its consumers have been told.
            self.set_id(row.num, None)?;
            return Ok(row.version);
        }
        if row.version == Version(0) {
            self.drop_identity(row.num, now)?;
            return Ok(row.version);
        }
        self.withdraw(row, State::Deleted, Kind::Deleted, now)
    }

    fn told_why(
        &mut self,
        name: &Name,
        action: &str,
        reason: &str,
        version: Version,
        now: Timestamp,
    ) -> Outcome<()> {
        self.audit(&AuditEntry {
            at: now,
            actor: "renewd".to_owned(),
            action: action.to_owned(),
            name: Some(name.clone()),
            reason: Some(reason.to_owned()),
            request_id: None,
            result: format!("version {version}"),
        })
    }

    fn take_sinks(&mut self, plan: &ReconcilePlan, now: Timestamp) -> Outcome<()> {
        for sink in &plan.sinks_gone {
            self.tell_enabled(sink, "is no longer configured", now)?;
            self.retire_sink(sink)?;
        }
        for sink in &plan.sinks_new {
            self.add_sink(sink, now)?;
        }
        Ok(())
    }

    /// A sink that is no longer configured: nothing waits for it any more.
    fn retire_sink(&mut self, sink: &SinkAt) -> Outcome<()> {
        let num = self.sink_num(sink)?;
        self.remove_deliveries_to(num)?;
        self.leave_bundle_of(num, None)?;
        let set = "configured = 0, disabled = NULL, paused = 0, path = NULL, digest = NULL";
        self.write_sink(set, [num])?;
        self.effects.wanted = true;
        Ok(())
    }

    /// A sink that is new or comes back: it hears of notices from now on, and of every identity that
    /// already names it.
    fn add_sink(&mut self, sink: &SinkAt, now: Timestamp) -> Outcome<()> {
        self.configure_sink(sink)?;
        let num = self.sink_num(sink)?;
        let bound = self.add_deliveries_to(num, sink.name().as_str(), micros(now))?;
        self.effects.wanted |= bound > 0;
        Ok(())
    }
}

const NO_LONGER: &str = "no longer declared";

/// With what it was done, and with what the store refuses it.
type Parted<E> = (Vec<E>, Vec<(E, StoreError)>);

/// That the store refuses to write a row, and why.
fn refusal(error: &StoreError) -> String {
    format!("the store refuses to write its row, which is left as it is: {error}")
}

const UNREADABLE: &str =
    "its row in the store cannot be read, so it can only be dropped, which keeps its id known";

/// A line of an import; lines of `identities.jsonl` are such lines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ImportLine {
    pub name: Name,
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
const IMPORT_UNREADABLE: &str =
    "a row of the store that it is about cannot be read: see `renewd status`";

enum Line {
    Adopted(Num),
    Remembered,
    Unchanged,
    Refused(String),
}

/// Whether the row of a name has room for an id; `?2` is the resource that is said.
const ROOM: &str = "SELECT i.num, i.id IS NULL AND i.state = 'new' AND r.name IS NOT DISTINCT FROM ?2 FROM identity i \
    LEFT JOIN resource r ON r.num = i.resource WHERE i.name = ?1";

impl Imported {
    fn count(&mut self, line: &ImportLine, taken: Outcome<Line>) -> Outcome<()> {
        let taken = match taken {
            Err(fault) if fault.is_unreadable() => Line::Refused(IMPORT_UNREADABLE.to_owned()),
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
        let each = self.each("import an id", lines, |txn, part| {
            let taken = part.iter().map(|line| match txn.take_over(line, now) {
                Err(fault) if fault.is_unreadable() => {
                    Ok(Line::Refused(IMPORT_UNREADABLE.to_owned()))
                }
                taken => taken,
            });
            taken.collect()
        })?;
        for (line, taken) in lines.iter().zip(each) {
            let taken = taken.unwrap_or_else(|error| Line::Refused(refusal(&error)));
            imported.count(line, Ok(taken))?;
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
                let what = "SET id = ?2, created_at = ?3 WHERE num = ?1";
                let params = params![row, line.id.as_str(), micros(created_at)];
                self.write_identities(what, params, Counting::Nothing)?;
                self.adopted_first(*row, now)?;
                self.effects.mapped.insert(*row);
            }
        }
        Ok(fate)
    }

    /// Gives every row without an id the one that its name had before.
    pub(super) fn adopt_remembered(&mut self, now: Timestamp) -> Outcome<usize> {
        // Where nothing is remembered, which is the rule, no row is looked at.
        let any = "SELECT EXISTS (SELECT 1 FROM remembered)";
        if self.first(any, [], |row| row.get(0))? != Some(true) {
            return Ok(0);
        }
        let adopted = self.adopt_all_remembered(micros(now), &spelled(&DueReason::First))?;
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
                Ok(db::word::<Origin>(row, "origin").unwrap_or(Origin::Cli))
            })?;
            match (&spec.declared.id, origin) {
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
        Ok(self.first(sql, [id.as_str()], |row| db::parsed(row, "name"))?)
    }
}
