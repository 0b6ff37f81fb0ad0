//! `renewal.late`: told once per lapse, folded above ten a minute, never inside an announced outage. The
//! store tells of each that it is over, with the commit that ends it; here it is told when none is left.

use std::time::Duration;

use super::{Lane, Moment, messages};
use crate::{
    model::{Change, Record, State},
    schedule::{Fold, Steady, state},
    store::{StoreError, Work},
};

/// How often those that wait without attempts are looked at.
const EVERY: Duration = Duration::from_secs(10);
/// How many of them at once, the most urgent first.
const AT_ONCE: usize = 128;
/// What was late when an outage ended gets so long to be renewed before anybody is told.
const AFTER_OUTAGE: Duration = Duration::from_mins(10);

/// Watches for late renewals.
#[derive(Debug, Default)]
pub(super) struct LateWatch {
    pub(super) fold: Fold,
    /// Many were told of in one notice, and not that it is over.
    pub(super) many_told: bool,
    looked: Steady,
}

impl Lane {
    /// Looks at those that wait: a backlog makes identities late without a single failure.
    pub(super) async fn look_for_late(&mut self) -> Result<(), StoreError> {
        let now = self.moment();
        if now.steady < self.late.looked + EVERY || self.in_announced_outage() {
            return Ok(());
        }
        self.late.looked = now.steady;
        self.tell_if_none_is_late(now).await?;
        self.tell_if_none_fails(now).await?;
        let waiting = self
            .lines()
            .any(|line| !line.ready.is_empty() || line.wants_rows(now));
        if !waiting {
            return Ok(());
        }
        let name = &self.settings.name;
        let waiting = self
            .store
            .due(name, Work::Issue, now.wall, AT_ONCE, &self.busy)
            .await?;
        for record in &waiting {
            self.tell_if_late(record, now);
        }
        Ok(())
    }

    /// Tells that this record is late, if it is and nobody was told.
    pub(super) fn tell_if_late(&mut self, record: &Record, now: Moment) {
        if record.late_notified
            || state(record, &self.grounds(), now.wall) != State::Late
            || self.in_announced_outage()
            || self.lapsed_in_outage(record, now)
        {
            return;
        }
        let notices = match self.late.fold.tells(now.steady) {
            true => {
                let notice = messages::late(record, &self.grounds(), now.wall);
                tracing::warn!(resource = %self.settings.name, identity = %record.spec.name, "{}", notice.message);
                vec![notice]
            }
            false => Vec::new(),
        };
        self.note(Change::LateNotified { num: record.num }, notices);
    }

    /// At the end of a minute, tells how many more there were.
    pub(super) fn tell_folded(&mut self, now: Moment) {
        if let Some(more) = self.late.fold.rest(now.steady) {
            let notice = messages::many_late(&self.settings.name, more, now.wall);
            self.raise(notice);
            self.late.many_told = true;
        }
    }

    /// Tells that none is late any more, where many were told of.
    async fn tell_if_none_is_late(&mut self, now: Moment) -> Result<(), StoreError> {
        if !self.late.many_told {
            return Ok(());
        }
        let name = &self.settings.name;
        if self.store.late(now.wall).await?.contains_key(name) {
            return Ok(());
        }
        self.late.many_told = false;
        self.raise(messages::none_is_late(name, now.wall));
        Ok(())
    }

    fn in_announced_outage(&self) -> bool {
        self.outage.is_on() || self.key_outage.is_on()
    }

    fn lapsed_in_outage(&self, record: &Record, now: Moment) -> bool {
        self.recovered.is_some_and(|recovered| {
            let before = record.late_at.is_some_and(|at| at <= recovered.wall);
            before && now.steady < recovered.steady + AFTER_OUTAGE
        })
    }
}
