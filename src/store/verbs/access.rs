//! Verbs of access: who took tokens, and who says that it uses which version.

use super::Answer;
use crate::{
    model::{Num, Reader, Timestamp},
    store::{Acknowledgement, Each, Holder, ReadsQuery, Store, TokenReads},
};

impl Store {
    /// Notes which version a consumer uses; false where the identity never had it, as far as is remembered.
    /// Of each user the latest 64 consumers of an identity are kept.
    pub async fn acknowledge(&self, ack: Acknowledgement, now: Timestamp) -> Answer<bool> {
        self.write("note an acknowledgement", move |txn| {
            txn.acknowledge(&ack, now)
        })
        .await
    }

    /// Whether any of these users and groups may read any identity.
    pub async fn may_any_read(&self, readers: Vec<Reader>) -> Answer<bool> {
        self.read("look for readers", move |db| db.may_any_read(&readers))
            .await
    }

    /// Consumers of an identity, or of all, in the order of names; those that use an old version
    /// alone, if so wished.
    pub async fn holders(
        &self,
        num: Option<Num>,
        only_old: bool,
        limit: usize,
    ) -> Answer<Vec<Holder>> {
        self.read("list consumers", move |db| db.holders(num, only_old, limit))
            .await
    }

    /// Adds to the counts of tokens that were taken. Each is answered; one that the store refuses keeps no
    /// other back.
    pub async fn note_reads(&self, reads: Vec<TokenReads>) -> Answer<Each<()>> {
        self.write("count token reads", move |txn| {
            txn.each("count a token read", &reads, |txn, reads| {
                txn.note_reads(reads)?;
                Ok(vec![(); reads.len()])
            })
        })
        .await
    }

    /// The counts of tokens that were taken, the latest hour first.
    pub async fn token_reads(&self, query: ReadsQuery) -> Answer<Vec<TokenReads>> {
        self.read("list token reads", move |db| db.token_reads(&query))
            .await
    }
}
