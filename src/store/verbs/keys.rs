//! Verbs of changing access keys.

use std::collections::BTreeMap;

use super::Answer;
use crate::{
    model::{KeyChange, KeyDoubt, KeyItem, Notice, Num, ResourceName, Timestamp},
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

    /// Every change of keys that is not over, without its counts.
    pub async fn open_key_changes(&self) -> Answer<Vec<KeyChange>> {
        self.read("look replacements of keys up", |db| db.open_key_changes())
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

    /// The keys of a resource whose tokens may be dead, each with how many it minted.
    pub async fn doubted_keys(
        &self,
        resource: &ResourceName,
        now: Timestamp,
    ) -> Answer<Vec<KeyDoubt>> {
        let resource = resource.clone();
        self.read("look for tokens in doubt", move |db| {
            db.doubted_keys(resource.as_str(), now)
        })
        .await
    }

    /// Takes in which keys a resource has; answers with those whose tokens may be dead.
    pub async fn take_keys(
        &self,
        resource: &ResourceName,
        configured: Vec<String>,
        now: Timestamp,
    ) -> Answer<Vec<KeyDoubt>> {
        let resource = resource.clone();
        self.write("look for tokens of other keys", move |txn| {
            txn.take_keys(resource.as_str(), &configured, now)
        })
        .await
    }

    /// Notes a key whose tokens may be dead, or that people were told of it, with the notice.
    pub async fn note_doubt(
        &self,
        resource: &ResourceName,
        doubt: KeyDoubt,
        notice: Option<Notice>,
    ) -> Answer<()> {
        let resource = resource.clone();
        self.write("note a key in doubt", move |txn| {
            txn.note_doubt(resource.as_str(), &doubt, notice.as_ref())
        })
        .await
    }

    /// A key is no longer in doubt, with the notice of that.
    pub async fn end_doubt(
        &self,
        resource: &ResourceName,
        fingerprint: &str,
        notice: Option<Notice>,
    ) -> Answer<()> {
        let (resource, fingerprint) = (resource.clone(), fingerprint.to_owned());
        self.write("note that a key is out of doubt", move |txn| {
            txn.end_doubt(resource.as_str(), &fingerprint, notice.as_ref())
        })
        .await
    }

    /// Puts the doubtful tokens of a key, among its next `page`, before all other work.
    pub async fn hasten_doubtful(
        &self,
        resource: &ResourceName,
        fingerprint: &str,
        after: Num,
        page: usize,
        now: Timestamp,
    ) -> Answer<KeyPage> {
        let (resource, fingerprint) = (resource.clone(), fingerprint.to_owned());
        self.write("put doubtful tokens first", move |txn| {
            txn.hasten_doubtful(resource.as_str(), &fingerprint, after, page, now)
        })
        .await
    }

    /// Gives the tokens of a key, among its next `page`, their own time back.
    pub async fn spare_doubtful(
        &self,
        resource: &ResourceName,
        fingerprint: &str,
        after: Num,
        page: usize,
        now: Timestamp,
    ) -> Answer<KeyPage> {
        let (resource, fingerprint) = (resource.clone(), fingerprint.to_owned());
        self.write("give tokens their own time back", move |txn| {
            txn.spare_doubtful(resource.as_str(), &fingerprint, after, page, now)
        })
        .await
    }

    /// A resource is called anew, perhaps by another connection string: those that it said are gone, and
    /// that wait for a person's word, are asked for at once.
    pub async fn ask_held_again(&self, resource: &ResourceName, now: Timestamp) -> Answer<()> {
        let resource = resource.clone();
        self.write("ask again for what is said to be gone", move |txn| {
            txn.ask_held_again(resource.as_str(), now)
        })
        .await
    }
}
