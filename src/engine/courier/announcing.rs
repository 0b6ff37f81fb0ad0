//! Notices: in order and one at a time, for sinks that asked for them.

use std::time::Duration;

use jiff::SignedDuration;
use rand::Rng;

use super::{Courier, landing::Cargo};
use crate::{
    schedule::{Steady, delivery_gap},
    sinks::Receipt,
    store::StoreError,
};

/// Notices looked at in one go.
const PAGE: usize = 64;
/// A notice that could not be told for so long is let go, so that newer ones are heard.
const TOLD_WITHIN: SignedDuration = SignedDuration::from_hours(72);

/// How far the sink has been told.
#[derive(Debug, Default)]
pub(super) struct Notices {
    /// The last notice that is dealt with; unknown before the first look.
    cursor: Option<u64>,
    /// How much of that the store knows.
    noted: u64,
    is_telling: bool,
    failures: u32,
    not_before: Option<Steady>,
}

impl Notices {
    pub(super) fn arrived(&mut self, seq: u64) {
        *self = Self {
            cursor: Some(seq),
            noted: self.noted,
            ..Self::default()
        };
    }

    pub(super) fn failed(
        &mut self,
        now: Steady,
        retry_after: Option<Duration>,
        rng: &mut impl Rng,
    ) {
        self.is_telling = false;
        self.failures = self.failures.saturating_add(1);
        let gap = delivery_gap(self.failures, rng);
        self.not_before = Some(now + gap.max(retry_after.unwrap_or_default()));
    }

    /// When the notice that failed is told again.
    pub(super) fn retry_at(&self) -> Option<Steady> {
        self.not_before
    }
}

impl Courier {
    /// Begins to tell the next notice, if it is time for one.
    pub(super) async fn start_notice(&mut self) -> Result<(), StoreError> {
        if !self.sink.hears_notices() {
            return Ok(());
        }
        let steady = self.clock.steady();
        let is_early = self.notices.not_before.is_some_and(|at| steady < at);
        if !self.notices.is_telling && !is_early && self.may_start() {
            self.tell_next().await?;
        }
        self.note_cursor().await
    }

    async fn tell_next(&mut self) -> Result<(), StoreError> {
        let after = match self.notices.cursor {
            Some(cursor) => cursor,
            None => self.store.notice_cursor(&self.name).await?,
        };
        self.notices.cursor = Some(after);
        let now = self.clock.now();
        for (seq, notice) in self.store.notices_for(&self.name, after, PAGE).await? {
            let is_stale = now.duration_since(notice.at) > TOLD_WITHIN;
            let is_wanted = self.sink.wants_notice(notice.kind);
            if is_wanted && is_stale {
                tracing::warn!(sink = %self.name, notice = seq, "a notice could not be told in 72 h and is let go");
            }
            if is_wanted && !is_stale {
                let sink = self.sink.clone();
                let attempt = async move {
                    let told = sink.announce(seq, &notice, now).await;
                    told.map(Receipt::from)
                };
                let id = self.attempts.spawn(attempt).id();
                self.rate.began(self.clock.steady());
                self.cargo.insert(id, Cargo::Notice(seq));
                self.notices.is_telling = true;
                return Ok(());
            }
            self.notices.cursor = Some(seq);
            self.notices.failures = 0;
        }
        self.notices.not_before = None;
        Ok(())
    }

    async fn note_cursor(&mut self) -> Result<(), StoreError> {
        match self.notices.cursor {
            Some(cursor) if cursor > self.notices.noted => {
                self.store.advance_cursor(&self.name, cursor).await?;
                self.notices.noted = cursor;
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
