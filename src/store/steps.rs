//! Steps that a bulk operation or a person takes on single rows: hold, release, revoke, delete, renew.

use super::{
    Store,
    columns::{micros, spelled},
    commit::Standing,
    db::Txn,
    error::{Answer, Outcome},
};
use crate::model::{AuditEntry, DueReason, Kind, Num, State, Step, Then, Timestamp, Version};

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
    /// The row.
    pub num: Num,
    /// The step.
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

impl Txn<'_> {
    /// Takes the steps; answers with the versions after them, [`Version`] 0 for a row that is no more.
    pub(super) fn step(
        &mut self,
        steps: &[StepOn],
        cause: &Cause,
        now: Timestamp,
    ) -> Outcome<Vec<Version>> {
        steps
            .iter()
            .map(|on| match self.standing(on.num)? {
                Some(row) => self.take(&row, on, cause, now),
                None => Ok(Version::default()),
            })
            .collect()
    }

    fn take(
        &mut self,
        row: &Standing,
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
                self.release(row.num, now)?;
                self.spare_planned(row.num, now)?;
                row.version
            }
            Step::Due(why) if row.state.wants_token() => {
                self.set_due(row.num, micros(now), &spelled(why))?;
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
        self.audit(&AuditEntry {
            at: now,
            actor: cause.actor.clone(),
            action: action(&on.step).to_owned(),
            name: Some(row.name.clone()),
            reason: cause.reason.clone(),
            request_id: on.request_id.clone(),
            result: format!("version {version}"),
        })?;
        Ok(version)
    }

    pub(super) fn revoked(
        &mut self,
        row: &Standing,
        at: Timestamp,
        then: Then,
        now: Timestamp,
    ) -> Outcome<Version> {
        let sql =
            "UPDATE identity SET revoked_at = max(coalesce(revoked_at, ?2), ?2) WHERE num = ?1";
        self.run(sql, [row.num, micros(at)])?;
        self.effects.touched.rows.insert(row.num);
        if !row.state.wants_token() {
            return Ok(row.version);
        }
        if then == Then::Hold {
            return self.withdraw(row, State::Held, Kind::Held, now);
        }
        self.run(
            "UPDATE identity SET good_until = 0, prev_until = 0, next_kind = 'reissued' \
             WHERE num = ?1 AND state = 'active'",
            [row.num],
        )?;
        self.all_held_are_dead(row.num)?;
        self.set_due(
            row.num,
            just_after(at.max(now)),
            &spelled(&DueReason::Revoked),
        )?;
        Ok(row.version)
    }

    /// Ends a hold: the row waits for its first token again.
    pub(super) fn release(&mut self, num: Num, now: Timestamp) -> Outcome<()> {
        self.effects.touched.rows.insert(num);
        let sql =
            "UPDATE identity SET state = 'new', next_kind = 'issued', removed = 0 WHERE num = ?1";
        self.run(sql, [num])?;
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
