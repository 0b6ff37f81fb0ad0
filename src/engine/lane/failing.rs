//! Identities that fail by themselves while others succeed: each is told once when that begins, the rest of
//! more than ten a minute in one notice. The store tells of each that it is over, with the commit that
//! ends it; here it is told when none is left.

use std::collections::BTreeSet;

use super::{Lane, Moment, messages, queue::Line, view::OPERATIONS};
use crate::{
    model::{Blame, Change, Notice, Record},
    schedule::{Finding, Fold, Steady},
    store::StoreError,
};

/// What was told within this minute.
#[derive(Debug, Default)]
pub(super) struct Failing {
    begun: Fold,
    /// Many were told of in one notice, and not that it is over.
    pub(super) many_told: bool,
}

impl Failing {
    /// When the current minute ends.
    pub(super) fn ends_at(&self) -> Option<Steady> {
        self.begun.ends_at()
    }
}

impl Lane {
    /// What is to be told of a row with what became of its call.
    pub(super) fn failing_notices(
        &mut self,
        record: &Record,
        change: &Change,
        now: Moment,
    ) -> Vec<Notice> {
        let Change::Failed {
            blame: Blame::RowAlone,
            attempt,
            due,
            ..
        } = change
        else {
            return Vec::new();
        };
        if record.failing_since.is_some() {
            return Vec::new();
        }
        let because = (&*self.doubts.because, &*attempt.result);
        let notice = messages::failing(record, &self.grounds(), because, due.at, now.wall);
        tracing::warn!(resource = %self.settings.name, "{}", notice.message);
        let told = self.failing.begun.tells(now.steady);
        told.then_some(notice).into_iter().collect()
    }

    /// At the end of a minute, tells how many more there were.
    pub(super) fn tell_failing_folded(&mut self, now: Moment) {
        if let Some(more) = self.failing.begun.rest(now.steady) {
            let notice = messages::many_failing(&self.settings.name, more, now.wall);
            self.raise(notice);
            self.failing.many_told = true;
        }
    }

    /// Tells that none fails any more, where many were told of.
    pub(super) async fn tell_if_none_fails(&mut self, now: Moment) -> Result<(), StoreError> {
        if !self.failing.many_told {
            return Ok(());
        }
        let (name, nobody) = (&self.settings.name, BTreeSet::new());
        for operation in OPERATIONS {
            let work = Line::alone(operation).work();
            let next = self.store.next_due_in(name, work, &nobody).await?;
            if next.is_some() {
                return Ok(());
            }
        }
        self.failing.many_told = false;
        self.raise(messages::none_fails(name, now.wall));
        Ok(())
    }

    /// What led to the proof of an outage is taken back from the rows.
    pub(super) fn take_back(&mut self, finding: &Finding) {
        for num in &finding.excused {
            self.note(Change::Excused { num: *num }, Vec::new());
        }
    }
}
