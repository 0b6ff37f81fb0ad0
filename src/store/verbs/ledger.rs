//! Verbs of operators who look after deliveries.

use super::Answer;
use crate::{
    model::{Num, Timestamp},
    store::{Listed, Rows, Store},
};

impl Store {
    /// A page of the ledger after this identity. A page may end within the rows of an identity, unless
    /// one sink was asked for.
    pub async fn ledger(&self, rows: Rows, after: Num, limit: usize) -> Answer<Vec<Listed>> {
        self.read("list deliveries", move |db| db.ledger(&rows, after, limit))
            .await
    }

    /// Makes what is pending among these due now. How many there are.
    pub async fn retry_deliveries(&self, rows: Rows, now: Timestamp) -> Answer<usize> {
        self.write("try deliveries now", move |txn| txn.retry(&rows, now))
            .await
    }

    /// Wants the current version of these delivered once more. How many there are.
    pub async fn replay_deliveries(&self, rows: Rows, now: Timestamp) -> Answer<usize> {
        self.write("deliver again", move |txn| txn.replay(&rows, now))
            .await
    }
}
