//! Carries a plan of declarations out: rows made, changed, withheld, forgotten.

use rusqlite::params;

use super::{
    Cause,
    campaigns::{CampaignAction, NewCampaign, Target, Wanted},
    columns::{micros, spelled},
    db::Txn,
    error::Outcome,
    reconcile::{Alteration, FORGOTTEN, Plan, REMOVED, Reconciled, Refusal},
    spec::Wish,
    steps::just_after,
};
use crate::model::{
    AuditEntry, DueReason, IdentityId, Kind, Name, Num, OnRemoval, Origin, SinkName, Spec, State,
    Then, Timestamp, Version,
};

impl Txn<'_> {
    /// Makes the rows what the files declare.
    pub(super) fn reconcile(
        &mut self,
        specs: &[Spec],
        sinks: &[SinkName],
        now: Timestamp,
    ) -> Outcome<Reconciled> {
        let plan = self.plan_reconcile(specs, sinks)?;
        for sink in &plan.sinks_gone {
            self.tell_enabled(sink.as_str(), "is no longer configured", now)?;
            self.retire_sink(sink)?;
        }
        for sink in &plan.sinks_new {
            self.add_sink(sink, now)?;
        }
        self.carry_out(&plan, specs, now)?;
        self.files_were_compared()?;
        Ok(plan.told())
    }

    /// Takes declarations over without touching what they do not name.
    pub(super) fn declare(&mut self, specs: &[Spec], now: Timestamp) -> Outcome<Reconciled> {
        let mut plan = Plan::default();
        self.plan_specs(specs, &mut plan)?;
        self.carry_out(&plan, specs, now)?;
        Ok(plan.told())
    }

    /// Removes names, in the way that is given or that each one's declaration says.
    pub(super) fn remove(
        &mut self,
        names: &[Name],
        how: Option<OnRemoval>,
        now: Timestamp,
    ) -> Outcome<Reconciled> {
        let (mut plan, mut forgotten) = (Plan::default(), 0);
        for name in names {
            let refusal = match self.num_of(name.as_str())? {
                Some(num) => {
                    let how = how.map_or_else(|| self.on_removal(num), Ok)?;
                    let readable = self.readable(num)?.is_some();
                    match (readable, how) {
                        (true, how) => {
                            plan.remove.push((num, how));
                            continue;
                        }
                        // Nothing else can be done with it; its id stays known.
                        (false, OnRemoval::Forget) => {
                            self.drop_identity(num, now)?;
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
        self.carry_out(&plan, &[], now)?;
        let mut done = plan.told();
        done.forget += forgotten;
        Ok(done)
    }

    /// Removals go first, so that a forgotten row's id is free for another name.
    pub(super) fn carry_out(&mut self, plan: &Plan, specs: &[Spec], now: Timestamp) -> Outcome<()> {
        let mut revoke = Vec::new();
        for (num, how) in &plan.remove {
            self.let_go(*num, *how, now)?;
            if *how == OnRemoval::Revoke {
                revoke.push(*num);
            }
        }
        if !revoke.is_empty() {
            let rows = revoke.into_iter().map(Wanted::Row).collect();
            let (hold, cause) = (Some(Then::Hold), Cause::ours(NO_LONGER));
            let target = Target::Items(rows);
            let campaign = NewCampaign::new(CampaignAction::Revoke, hold, target, cause);
            self.create_campaign(&campaign, now)?;
        }
        for at in &plan.create {
            self.create(&specs[*at], now)?;
        }
        for (at, alteration) in &plan.change {
            self.alter(&specs[*at], *alteration, now)?;
        }
        Ok(())
    }

    fn create(&mut self, spec: &Spec, now: Timestamp) -> Outcome<()> {
        let resource = self.resource_num_or_new(spec.resource.as_str())?;
        let (id, created_at) = self.first_id(spec, now)?;
        if let Some(id) = &id {
            self.take_id(id, &spec.name)?;
        }
        let due = id.is_some() || self.may_create(&spec.origin)?;
        self.run(
            "INSERT INTO identity (name, resource, origin, declared, state, id, created_at, due_at, due_why, wish) \
             VALUES (?1, ?2, ?3, ?4, 'new', ?5, ?6, ?7, ?8, ?9)",
            params![
                spec.name.as_str(),
                resource,
                spelled(&spec.origin),
                spec.origin == Origin::File,
                id.as_ref().map(IdentityId::as_str),
                created_at,
                due.then(|| micros(now)),
                spelled(&DueReason::First),
                Wish::of(spec).to_text(),
            ],
        )?;
        let num = self.conn.last_insert_rowid();
        self.effects.due = true;
        self.effects.mapped.insert(num);
        self.bind(num, &spec.sinks, Version(0), now)?;
        self.take_waiting(num, spec.name.as_str(), now)
    }

    /// The id that a new row begins with: the declared one, or the one that the name had before.
    fn first_id(&self, spec: &Spec, now: Timestamp) -> Outcome<(Option<IdentityId>, i64)> {
        if spec.id.is_some() {
            return Ok((spec.id.clone(), micros(now)));
        }
        let sql = "SELECT id, created_at FROM remembered WHERE name = ?1 AND resource = ?2";
        let known = self.first(sql, [spec.name.as_str(), spec.resource.as_str()], |row| {
            Ok((super::columns::parsed(row, "id")?, row.get(1)?))
        })?;
        Ok(known.map_or((None, micros(now)), |(id, at)| (Some(id), at)))
    }

    /// An id comes to a name: a forgotten row or a memory of it lets go.
    fn take_id(&mut self, id: &IdentityId, name: &Name) -> Outcome<()> {
        self.run(
            "UPDATE identity SET id = NULL WHERE id = ?1 AND removed = 2",
            [id.as_str()],
        )?;
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
        if let Some(id) = spec.id.as_ref().filter(|id| row.id.as_ref() != Some(*id)) {
            self.take_id(id, &spec.name)?;
            let sql = "UPDATE identity SET id = ?2 WHERE num = ?1";
            self.run(sql, params![num, id.as_str()])?;
            self.effects.ids_replaced |= row.id.is_some();
            self.adopted_first(num, now)?;
        }
        self.effects.mapped.insert(num);
        self.leave_source(num, &spec.origin)?;
        self.run(
            "UPDATE identity SET wish = ?2, origin = ?3, declared = ?4 WHERE num = ?1",
            params![
                num,
                Wish::of(spec).to_text(),
                spelled(&spec.origin),
                spec.origin == Origin::File
            ],
        )?;
        if reissue {
            let sql = "UPDATE identity SET asked_at = ?2 WHERE num = ?1";
            self.run(sql, [num, micros(now)])?;
        }
        self.bind(num, &spec.sinks, row.version, now)?;
        if back {
            self.spare(num, now)?;
            self.release(num, now)?;
            return self.told_why(&row.name, "release", "declared again", row.version, now);
        }
        if reissue && row.state.wants_token() {
            let why = match row.state {
                State::New => DueReason::First,
                _ => DueReason::Changed,
            };
            self.set_due(num, just_after(now), &spelled(&why))?;
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
        let sql = "UPDATE identity SET declared = 0, removed = ?2 WHERE num = ?1";
        self.run(sql, params![num, mark])?;
        self.effects.touched.rows.insert(num);
        self.effects.mapped.insert(num);
        let (action, version) = match how {
            OnRemoval::Forget => ("forget", self.forget(&row, now)?),
            OnRemoval::Hold | OnRemoval::Revoke if row.state.wants_token() => {
                ("hold", self.withdraw(&row, State::Held, Kind::Held, now)?)
            }
            // Held, gone or deleted before: that is not to be undone by naming it again.
            OnRemoval::Hold | OnRemoval::Revoke => {
                self.run("UPDATE identity SET removed = 0 WHERE num = ?1", [num])?;
                return Ok(());
            }
        };
        self.told_why(&row.name, action, NO_LONGER, version, now)
    }

    /// A forgotten row stays until its consumers have been told; one that never had anything to tell
    /// goes at once.
    fn forget(&mut self, row: &super::commit::Standing, now: Timestamp) -> Outcome<Version> {
        if row.state == State::Deleted {
            // Its id is no more, and its consumers have been told.
            self.run("UPDATE identity SET id = NULL WHERE num = ?1", [row.num])?;
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

    /// A sink that is no longer configured: nothing waits for it any more.
    fn retire_sink(&mut self, sink: &SinkName) -> Outcome<()> {
        let num = self.sink_num(sink.as_str())?;
        self.run("DELETE FROM delivery WHERE sink = ?1", [num])?;
        self.run(
            "UPDATE sink SET configured = 0, disabled = NULL, paused = 0, path = NULL, digest = NULL \
             WHERE num = ?1",
            [num],
        )?;
        self.effects.wanted = true;
        Ok(())
    }

    /// A sink that is new or comes back: it hears of notices from now on, and of every identity that
    /// already names it.
    fn add_sink(&mut self, sink: &SinkName, now: Timestamp) -> Outcome<()> {
        self.run(
            "INSERT INTO sink (name, notice_cursor) VALUES (?1, (SELECT coalesce(max(seq), 0) FROM notice)) \
             ON CONFLICT DO UPDATE SET configured = 1, notice_cursor = excluded.notice_cursor",
            [sink.as_str()],
        )?;
        let bound = self.run(
            "INSERT INTO delivery (identity, sink, wanted, next_at, since) SELECT i.num, ?1, i.version, ?3, ?3 \
             FROM identity i, json_each(iif(json_valid(i.wish), i.wish, '{}'), '$.sinks') s WHERE s.value = ?2 ON CONFLICT DO NOTHING",
            params![self.sink_num(sink.as_str())?, sink.as_str(), micros(now)],
        )?;
        self.effects.wanted |= bound > 0;
        Ok(())
    }
}

const NO_LONGER: &str = "no longer declared";
const UNREADABLE: &str =
    "its row in the store cannot be read, so it can only be dropped, which keeps its id known";
