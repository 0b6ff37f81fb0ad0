//! Whether it is known what was withdrawn, and a person's word where it is not.

use rusqlite::params;

use super::{
    Cause,
    columns::{self, micros, spelled},
    db::{Db, Txn},
    error::{Fault, Outcome},
};
use crate::model::{AuditEntry, DueReason, Timestamp};

/// Why it is not known what was withdrawn; kept over restarts, until a person accepts.
pub(super) const RESTORED: &str = "restored";

impl Db {
    /// Why it is not known what was withdrawn, where it is not.
    pub(super) fn restored(&self) -> Outcome<Option<String>> {
        Ok(columns::meta::<String>(&self.conn, RESTORED)?)
    }
}

impl Txn<'_> {
    /// From now on, over restarts, it is not known what was withdrawn.
    pub(super) fn doubt(&self, why: &str) -> Outcome<()> {
        Ok(columns::set_meta(&self.conn, RESTORED, why)?)
    }

    /// A person does not trust what the store knows since an instant.
    pub(super) fn distrust(
        &mut self,
        since: Timestamp,
        cause: &Cause,
        now: Timestamp,
    ) -> Outcome<()> {
        let said = format!(
            "it was said that the store knows nothing of what was withdrawn since {since:.0}"
        );
        self.doubt(&said)?;
        self.note_word("store.distrust", said, cause, now)
    }

    /// A person goes on: every token of unknown standing is renewed now; how many.
    pub(super) fn accept(&mut self, cause: &Cause, now: Timestamp) -> Outcome<u64> {
        if self.restored()?.is_none() {
            return Err(Fault::Refused(
                "there is nothing to accept: it is known what was withdrawn".to_owned(),
            ));
        }
        let renewing = self.run(
            "UPDATE identity SET good_until = 0, due_at = ?1, due_why = ?2 WHERE state = 'active'",
            params![micros(now), spelled(&DueReason::Requested)],
        )?;
        self.run("DELETE FROM meta WHERE key = ?1", [RESTORED])?;
        self.effects.due = true;
        let said = format!("{renewing} tokens of unknown standing are renewed");
        self.note_word("store.accept", said, cause, now)?;
        Ok(u64::try_from(renewing).unwrap_or(u64::MAX))
    }

    fn note_word(
        &mut self,
        action: &str,
        result: String,
        cause: &Cause,
        now: Timestamp,
    ) -> Outcome<()> {
        self.audit(&AuditEntry {
            at: now,
            actor: cause.actor.clone(),
            action: action.to_owned(),
            name: None,
            reason: cause.reason.clone(),
            request_id: None,
            result,
        })
    }
}
