//! Steps that a bulk operation or a person takes on single rows: hold, release, revoke, delete, renew.

use std::collections::BTreeMap;

use super::{
    Store,
    aside::RowKind,
    commit::latest,
    db::{self, CurrentRow, Txn, list, listed, micros, spelled},
    error::{Answer, Outcome},
    tables::Counting,
    tables::update_identities,
};
use crate::{
    model::{AuditEntry, DueReason, Kind, Name, Num, State, Step, Then, Timestamp, Version},
    sql::params,
};

/// Who wants something done, and why; for the audit trail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// Who: `renewd`, or `uid 1000 (anna)`.
    pub actor: String,
    /// Why, in the words of whoever asked.
    pub reason: Option<String>,
}

impl Cause {
    /// renewd itself, for this reason.
    pub fn ours(reason: &str) -> Self {
        Self {
            actor: "renewd".to_owned(),
            reason: Some(reason.to_owned()),
        }
    }
}

/// A step on one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepOn {
    pub num: Num,
    pub step: Step,
    /// The service's request id, where ACS was called.
    pub request_id: Option<String>,
}

impl Store {
    /// Takes steps of bulk operations; answers with each row's version after it, and with
    /// [`Version`] 0 for a row that is no more.
    pub async fn step(
        &self,
        steps: Vec<StepOn>,
        cause: &Cause,
        now: Timestamp,
    ) -> Answer<Vec<Version>> {
        let cause = cause.clone();
        self.withdraw("take a step", move |txn| txn.step(&steps, &cause, now))
            .await
    }
}

/// How a row stands after a step, as far as an item of a campaign asks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stand {
    /// Whether it waits for a token.
    pub(super) awaits_token: bool,
    /// Whether ACS does not know it any more.
    pub(super) is_gone: bool,
    /// Whether no sink takes its tokens.
    pub(super) by_socket: bool,
}

/// A row that was made due now.
#[derive(Debug)]
pub(super) struct DueNow {
    pub(super) name: Name,
    pub(super) version: Version,
    pub(super) stand: Stand,
}

impl CurrentRow {
    pub(super) fn stand(&self) -> Stand {
        Stand {
            awaits_token: self.state.wants_token() && self.due_at.is_some(),
            is_gone: self.state == State::Gone,
            by_socket: self.by_socket,
        }
    }
}

impl Txn<'_> {
    /// Takes the steps; answers with the versions after them, [`Version`] 0 for a row that is no more.
    pub(super) fn step(
        &mut self,
        steps: &[StepOn],
        cause: &Cause,
        now: Timestamp,
    ) -> Outcome<Vec<Version>> {
        let versions = steps.iter().map(|on| {
            let taken = self.step_one(on, cause, now)?;
            Ok(taken.map_or_else(Version::default, |(version, _)| version))
        });
        versions.collect()
    }

    /// Takes one step; answers with the version and how the row stands after it, with nothing where it is no more.
    pub(super) fn step_one(
        &mut self,
        on: &StepOn,
        cause: &Cause,
        now: Timestamp,
    ) -> Outcome<Option<(Version, Stand)>> {
        if let Step::Due(why) = &on.step
            && let Some(row) = self.renew(&[on.num], why, now)?.remove(&on.num)
        {
            self.tell_step(on, (&row.name, row.version), cause, now)?;
            return Ok(Some((row.version, row.stand)));
        }
        let Some(row) = self.standing(on.num)? else {
            return Ok(None);
        };
        let version = self.take(&row, on, cause, now)?;
        let stand = match &on.step {
            Step::Revoked {
                then: Then::Reissue,
                ..
            } if row.state.wants_token() && row.due_at.is_some() => row.stand(),
            _ => match self.standing(on.num)? {
                Some(row) => row.stand(),
                None => return Ok(None),
            },
        };
        Ok(Some((version, stand)))
    }

    /// Makes rows that wait for their time due now, by one statement; those that are any other are left as they are.
    pub(super) fn renew(
        &mut self,
        nums: &[Num],
        why: &DueReason,
        now: Timestamp,
    ) -> Outcome<BTreeMap<Num, DueNow>> {
        let sql = update_identities(concat!(
            "SET due_at = ?2, due_why = ?3 WHERE num IN (SELECT value FROM ",
            listed!("?1"),
            " one) AND state IN ('new', 'active') AND due_at IS NOT NULL RETURNING num, name, version, by_socket = 1"
        ));
        let params = params![list(nums), micros(now), spelled(why)];
        let rows = self.all(RowKind::Identity, &sql, params, |row| {
            let stand = Stand {
                awaits_token: true,
                is_gone: false,
                by_socket: row.get(3)?,
            };
            let (name, version) = (db::parsed(row, 1)?, Version(db::unsigned(row, 2)?));
            Ok((
                row.get(0)?,
                DueNow {
                    name,
                    version,
                    stand,
                },
            ))
        })?;
        self.effects.due |= !rows.is_empty();
        Ok(rows.into_iter().collect())
    }

    fn take(
        &mut self,
        row: &CurrentRow,
        on: &StepOn,
        cause: &Cause,
        now: Timestamp,
    ) -> Outcome<Version> {
        let version = match &on.step {
            Step::Withhold if row.state.wants_token() => {
                self.withdraw(row, State::Held, Kind::Held, now)?
            }
            Step::Revoked { at, then } => self.revoked(row, *at, *then, now)?,
            Step::Deleted { .. } if row.state != State::Deleted => {
                self.withdraw(row, State::Deleted, Kind::Deleted, now)?
            }
            Step::Gone { attempt, because } if row.state.wants_token() => {
                let row = row.clone();
                return self.claimed_gone(row, attempt, because, now);
            }
            Step::Release if row.state == State::Held => {
                self.release(row, now)?;
                self.spare_planned(row.num, now)?;
                row.version
            }
            Step::Due(why) if row.state.wants_token() => {
                self.set_due(row, micros(now), &spelled(why))?;
                row.version
            }
            Step::Withhold
            | Step::Deleted { .. }
            | Step::Gone { .. }
            | Step::Release
            | Step::Due(_) => {
                return Ok(row.version);
            }
        };
        self.tell_step(on, (&row.name, version), cause, now)?;
        Ok(version)
    }

    pub(super) fn tell_step(
        &mut self,
        on: &StepOn,
        (name, version): (&Name, Version),
        cause: &Cause,
        now: Timestamp,
    ) -> Outcome<()> {
        self.audit(&AuditEntry {
            at: now,
            actor: cause.actor.clone(),
            action: action(&on.step).to_owned(),
            name: Some(name.clone()),
            reason: cause.reason.clone(),
            request_id: on.request_id.clone(),
            result: format!("version {version}"),
        })
    }

    pub(super) fn revoked(
        &mut self,
        row: &CurrentRow,
        at: Timestamp,
        then: Then,
        now: Timestamp,
    ) -> Outcome<Version> {
        self.effects.touched.rows.insert(row.num);
        let reissues = row.state.wants_token() && then != Then::Hold;
        // One from before the clock was set back hides no later revocation. Of an active row all is said in one statement.
        if reissues && row.state == State::Active {
            self.write_identities(
                "SET revoked_at = CASE WHEN revoked_at > ?2 AND revoked_at <= ?5 THEN revoked_at ELSE ?2 END, good_until = 0, \
                 prev_until = 0, next_kind = 'reissued', due_at = ?3, due_why = ?4 WHERE num = ?1",
                params![
                    row.num,
                    micros(at),
                    just_after(at.max(now)),
                    spelled(&DueReason::Revoked),
                    latest(now)
                ],
                Counting::of_due(row.num, row.due_at.is_some()),
            )?;
            self.effects.due = true;
        } else {
            let what = "SET revoked_at = CASE WHEN revoked_at > ?2 AND revoked_at <= ?3 THEN revoked_at ELSE ?2 END WHERE num = ?1";
            let params = [row.num, micros(at), latest(now)];
            self.write_identities(what, params, Counting::Nothing)?;
            if !row.state.wants_token() {
                return Ok(row.version);
            }
            if then == Then::Hold {
                return self.withdraw(row, State::Held, Kind::Held, now);
            }
            let at = just_after(at.max(now));
            self.set_due(row, at, &spelled(&DueReason::Revoked))?;
        }
        if !row.by_socket {
            self.all_held_are_dead(row.num)?;
        }
        Ok(row.version)
    }

    /// Ends a hold: the row waits for its first token again.
    pub(super) fn release(&mut self, row: &CurrentRow, now: Timestamp) -> Outcome<()> {
        let num = row.num;
        self.effects.touched.rows.insert(num);
        let what = "SET state = 'new', next_kind = 'issued', removed = 0 WHERE num = ?1";
        self.write_identities(what, [num], Counting::OfRow(num))?;
        self.effects.mapped.insert(num);
        self.expect_token(num)?;
        self.begin_waiting(num, just_after(now), &DueReason::Released)
    }
}

/// The first instant that counts as after: a call that begins at the very instant of a revocation
/// counts as before it.
pub(super) fn just_after(at: Timestamp) -> i64 {
    micros(at) + 1
}

fn action(step: &Step) -> &'static str {
    match step {
        Step::Withhold => "hold",
        Step::Revoked { .. } => "revoke",
        Step::Deleted { .. } => "delete",
        Step::Gone { .. } => "gone",
        Step::Release => "release",
        Step::Due(_) => "renew",
    }
}
