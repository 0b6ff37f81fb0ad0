//! Sees that every token of the old key is replaced and delivered.

use std::time::Duration;

use super::Keys;
use crate::{model::KeyChange, schedule::Steady, store::StoreError};

/// Rows of one transaction.
const PAGE: usize = 2000;
/// Between two looks at those on their way, at least.
const LOOK: Duration = Duration::from_millis(300);
/// Of its time the sweep takes at most one part in so many.
const SHARE: u32 = 5;
/// A token that the old key minted may have been on its way into the store when the rows were
/// looked through: so a second look must find nothing either, no sooner than this after the first,
/// and with no call of the old key under way in between.
const QUIET: Duration = Duration::from_secs(2);

/// How far the sweep is.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    /// Of which change.
    id: i64,
    /// The rows were looked through once.
    marked: bool,
    /// Since when nothing has been found.
    clean_since: Option<Steady>,
    /// It is over; kept, so that a repeated round does not begin anew.
    over: bool,
}

impl Keys {
    /// One look; whether no consumer holds a token of the old key any more, and how long to rest.
    pub(super) async fn sweep(
        &mut self,
        change: &KeyChange,
    ) -> Result<(bool, Duration), StoreError> {
        if self.sweep.id != change.id {
            self.sweep = Sweep {
                id: change.id,
                ..Sweep::default()
            };
        }
        if self.sweep.over {
            return Ok((true, LOOK));
        }
        let began = self.clock.steady();
        if !self.sweep.marked {
            self.mark(change).await?;
            self.sweep.marked = true;
        }
        self.settle(change).await?;
        let open = self.store.open_key_change(&change.resource).await?;
        let left = open.map_or(0, |change| change.pending + change.issued);
        if left == 0 && self.client.in_flight_with(&change.old_key) == 0 {
            self.look_again(change).await?;
        } else {
            self.sweep.clean_since = None;
        }
        let took = self.clock.steady().saturating_sub(began);
        Ok((self.sweep.over, (took * (SHARE - 1)).max(LOOK)))
    }

    async fn look_again(&mut self, change: &KeyChange) -> Result<(), StoreError> {
        let now = self.clock.steady();
        let due = self
            .sweep
            .clean_since
            .is_none_or(|since| now >= since + QUIET);
        if !due {
            return Ok(());
        }
        let found = self.mark(change).await?;
        if found > 0 {
            self.sweep.clean_since = None;
        } else if self.sweep.clean_since.is_some() {
            self.sweep.over = true;
        } else {
            self.sweep.clean_since = Some(now);
        }
        Ok(())
    }

    /// Sets due whatever the old key minted; how many rows that were.
    async fn mark(&self, change: &KeyChange) -> Result<u64, StoreError> {
        let (mut found, mut after) = (0, 0);
        loop {
            let now = self.clock.now();
            let page = self.store.mark_minted(change, after, PAGE, now).await?;
            found += page.marked;
            match page.next {
                Some(next) => after = next,
                None => return Ok(found),
            }
        }
    }

    async fn settle(&self, change: &KeyChange) -> Result<(), StoreError> {
        let mut after = 0;
        loop {
            let now = self.clock.now();
            let page = self.store.settle_key_items(change, after, PAGE, now);
            match page.await? {
                Some(next) => after = next,
                None => return Ok(()),
            }
        }
    }
}
