//! Identities that fail by themselves while others succeed: each is told once when that begins and once
//! when it ends, the rest of more than ten a minute in one notice.

use super::{Lane, Moment, messages};
use crate::{
    model::{Blame, Change, Notice, NoticeKind, Record},
    schedule::{Finding, LateFold, LateNotice, Steady},
};

/// What was told within this minute.
#[derive(Debug, Default)]
pub(super) struct Failing {
    begun: LateFold,
    ended: LateFold,
}

impl Failing {
    /// When the current minute ends.
    pub(super) fn ends_at(&self) -> Option<Steady> {
        let ends = [self.begun.ends_at(), self.ended.ends_at()];
        ends.into_iter().flatten().min()
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
        let was = record.failing_since.is_some();
        let (fold, notice) = match change {
            Change::Failed {
                blame: Blame::RowAlone,
                attempt,
                due,
                ..
            } if !was => {
                let because = (&*self.doubts.because, &*attempt.result);
                (
                    &mut self.failing.begun,
                    messages::failing(record, because, due.at, now.wall),
                )
            }
            Change::Issued { .. } | Change::Gone { .. } if was => (
                &mut self.failing.ended,
                messages::no_longer_failing(record, now.wall),
            ),
            _ => return Vec::new(),
        };
        let told = fold.late(&record.spec.name, now.steady);
        let resource = &self.settings.name;
        match notice.kind {
            NoticeKind::IdentityFailing => tracing::warn!(%resource, "{}", notice.message),
            _ => tracing::info!(%resource, "{}", notice.message),
        }
        told.map(|_| notice).into_iter().collect()
    }

    /// At the end of a minute, tells how many more there were.
    pub(super) fn tell_failing_folded(&mut self, now: Moment) {
        let resource = &self.settings.name.clone();
        if let Some(LateNotice::Many(more)) = self.failing.begun.fold(now.steady) {
            let notice = messages::many_failing(resource, more, now.wall);
            self.raise(notice);
        }
        if let Some(LateNotice::Many(more)) = self.failing.ended.fold(now.steady) {
            let notice = messages::many_no_longer_failing(resource, more, now.wall);
            self.raise(notice);
        }
    }

    /// What led to the proof of an outage is taken back from the rows.
    pub(super) fn take_back(&mut self, finding: &Finding) {
        for num in &finding.excused {
            self.note(Change::Excused { num: *num }, Vec::new());
        }
    }
}
