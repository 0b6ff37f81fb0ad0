//! Results together with what people are told of them: who sees the one sees the other, whenever the
//! process ends.

use super::{apart::Each, db::Txn, error::Outcome};
use crate::model::{Applied, AuditEntry, Change, Notice, Timestamp};

/// A decision, and what people are told once it is applied.
#[derive(Debug, Clone)]
pub struct Decided {
    /// The decision.
    pub change: Change,
    /// Raised in the same transaction, unless the change comes too late ([`Applied::Stale`]).
    pub notices: Vec<Notice>,
}

/// What is to be noted of results.
#[derive(Debug, Clone)]
pub enum Posting {
    /// A decision about a row.
    Decided(Decided),
    /// A notice that is about no row's decision.
    Notice(Notice),
    /// An entry of the audit trail.
    Audit(AuditEntry),
}

impl Txn<'_> {
    /// Notes postings in order; each is answered, a decision with how it was applied.
    pub(super) fn post(
        &mut self,
        postings: &[Posting],
        now: Timestamp,
    ) -> Outcome<Each<Option<Applied>>> {
        self.each("note a result", postings, |txn, postings| {
            postings
                .iter()
                .map(|posting| txn.post_one(posting, now))
                .collect()
        })
    }

    fn post_one(&mut self, posting: &Posting, now: Timestamp) -> Outcome<Option<Applied>> {
        let decided = match posting {
            Posting::Decided(decided) => decided,
            Posting::Notice(notice) => {
                self.raise(std::slice::from_ref(notice))?;
                return Ok(None);
            }
            Posting::Audit(entry) => {
                self.audit(entry)?;
                return Ok(None);
            }
        };
        let applied = self.apply(&decided.change, now)?;
        if matches!(applied, Applied::Done(_)) {
            self.raise(&decided.notices)?;
        }
        Ok(Some(applied))
    }
}
