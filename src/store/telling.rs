//! Results together with what people are told of them: who sees the one sees the other, whenever the
//! process ends.

use super::{db::Txn, error::Outcome};
use crate::model::{Applied, AuditEntry, Change, Notice, Timestamp};

/// A decision, and what people are told once it is applied.
#[derive(Debug, Clone)]
pub struct Decided {
    /// The decision.
    pub change: Change,
    /// Raised in the same transaction, unless the change comes too late ([`Applied::Stale`]).
    pub notices: Vec<Notice>,
}

/// What is told of no row.
#[derive(Debug, Clone, Default)]
pub struct Tidings {
    /// Notices, in order.
    pub notices: Vec<Notice>,
    /// Entries of the audit trail.
    pub audits: Vec<AuditEntry>,
}

impl Tidings {
    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        self.notices.is_empty() && self.audits.is_empty()
    }
}

impl Txn<'_> {
    /// Tidings first: they were there before.
    pub(super) fn commit_and_tell(
        &mut self,
        decided: &[Decided],
        tidings: &Tidings,
        now: Timestamp,
    ) -> Outcome<Vec<Applied>> {
        self.raise(&tidings.notices)?;
        for entry in &tidings.audits {
            self.audit(entry)?;
        }
        let mut all = Vec::with_capacity(decided.len());
        for one in decided {
            let applied = self.apply(&one.change, now)?;
            if matches!(applied, Applied::Done(_)) {
                self.raise(&one.notices)?;
            }
            all.push(applied);
        }
        Ok(all)
    }
}
