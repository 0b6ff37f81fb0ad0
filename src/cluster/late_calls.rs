//! Whoever leads answers for what a former leader may still send.

use crate::{
    clock::Clock,
    model::{DueReason, Step},
    store::{Cause, StepOn, Store, StoreError},
};

/// Has a new token made where a former leader may have revoked the one that was made since.
#[derive(Debug, Clone)]
pub struct LateCalls {
    store: Store,
    clock: Clock,
}

impl LateCalls {
    pub fn new(store: Store, clock: Clock) -> Self {
        Self { store, clock }
    }

    /// Has those tokens made that are due by now.
    ///
    /// # Errors
    /// When the store cannot be read or written; then it is done the next time.
    pub async fn answer(&self) -> Result<(), StoreError> {
        let now = self.clock.now();
        let nums = self.store.late_calls(now).await?;
        if nums.is_empty() {
            return Ok(());
        }
        let steps = nums.iter().map(|num| StepOn {
            num: *num,
            step: Step::Due(DueReason::Requested),
            request_id: None,
        });
        let cause = Cause::ours("a former leader may have revoked it once more");
        self.store.step(steps.collect(), &cause, now).await?;
        self.store.late_calls_answered(nums).await
    }
}
