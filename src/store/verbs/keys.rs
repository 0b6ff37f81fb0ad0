//! Verbs of changing access keys.

use std::collections::BTreeMap;

use super::Answer;
use crate::{
    model::{KeyChange, KeyItem, Num, ResourceName, Timestamp},
    store::{KeyPage, NewKeyChange, Store},
};

impl Store {
    /// Begins a change of keys; refused while another of the same resource is not over.
    pub async fn begin_key_change(&self, new: NewKeyChange, now: Timestamp) -> Answer<KeyChange> {
        self.write("begin to replace a key", move |txn| {
            txn.begin_key_change(&new, now)
        })
        .await
    }

    /// Calls the open change off; what was re-minted stays.
    pub async fn cancel_key_change(
        &self,
        resource: &ResourceName,
        actor: String,
        now: Timestamp,
    ) -> Answer<KeyChange> {
        let resource = resource.clone();
        self.write("call the replacement of a key off", move |txn| {
            txn.cancel_key_change(resource.as_str(), &actor, now)
        })
        .await
    }

    /// Notes how far a change is; one that is over stays as it is.
    pub async fn note_key_change(&self, change: KeyChange, now: Timestamp) -> Answer<()> {
        self.write("note how far a key is replaced", move |txn| {
            txn.note_key_change(&change, now)
        })
        .await
    }

    /// Sets identities due that hold a live token of the old key, among the next `page` rows.
    pub async fn mark_minted(
        &self,
        change: &KeyChange,
        after: Num,
        page: usize,
        now: Timestamp,
    ) -> Answer<KeyPage> {
        let change = change.clone();
        self.write("set tokens of a key due", move |txn| {
            txn.mark_minted(&change, after, page, now)
        })
        .await
    }

    /// Notes which of the next `page` identities of a change have their new token, and which of
    /// those with every consumer. Answers where the next page starts.
    pub async fn settle_key_items(
        &self,
        change: &KeyChange,
        after: Num,
        page: usize,
        now: Timestamp,
    ) -> Answer<Option<Num>> {
        let change = change.clone();
        self.write("follow tokens of a key", move |txn| {
            txn.settle_key_items(&change, after, page, now)
        })
        .await
    }

    /// The change of a resource's keys that is not over.
    pub async fn open_key_change(&self, resource: &ResourceName) -> Answer<Option<KeyChange>> {
        let resource = resource.clone();
        self.read("look a replacement of keys up", move |db| {
            db.open_key_change(resource.as_str())
        })
        .await
    }

    /// The newest change of a resource's keys, over or not.
    pub async fn last_key_change(&self, resource: &ResourceName) -> Answer<Option<KeyChange>> {
        let resource = resource.clone();
        self.read("look a replacement of keys up", move |db| {
            db.last_key_change(resource.as_str())
        })
        .await
    }

    /// How many live tokens each key minted, by its fingerprint; reads the identities through.
    pub async fn minted(
        &self,
        resource: &ResourceName,
        now: Timestamp,
    ) -> Answer<BTreeMap<String, u64>> {
        let resource = resource.clone();
        self.read("count the tokens of keys", move |db| {
            db.minted(resource.as_str(), now)
        })
        .await
    }

    /// A page of a change's identities, in the order of their names.
    pub async fn key_items(
        &self,
        change: &KeyChange,
        after: &str,
        limit: usize,
    ) -> Answer<Vec<KeyItem>> {
        let (change, after) = (change.clone(), after.to_owned());
        self.read("list the tokens of a key", move |db| {
            db.key_items(&change, &after, limit)
        })
        .await
    }
}
