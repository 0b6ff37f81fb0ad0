//! Verbs of the engine: what is due, what became of it, what may be orphaned.

use std::{collections::BTreeSet, sync::Arc};

use super::Answer;
use crate::{
    model::{
        Applied, Change, GoneHeld, IdentityId, Name, Num, Operation, Record, ResourceName,
        Timestamp, Version,
    },
    store::{Cause, Each, Orphan, Posting, StepOn, Store, Work},
};

impl Store {
    /// The rows of a resource that are due, but for those in flight (`skip`): rows without a good
    /// token first, then the earliest expiry. Rows that wait for their creation are a queue of their
    /// own (`work`). A row that cannot be read is passed over.
    pub async fn due(
        &self,
        resource: &ResourceName,
        work: Work,
        now: Timestamp,
        limit: usize,
        skip: &BTreeSet<Num>,
    ) -> Answer<Vec<Record>> {
        self.due_in(resource, (work, false), now, limit, skip).await
    }

    /// The same of those that fail by themselves, or of those that do not.
    pub async fn due_in(
        &self,
        resource: &ResourceName,
        line: (Work, bool),
        now: Timestamp,
        limit: usize,
        skip: &BTreeSet<Num>,
    ) -> Answer<Vec<Record>> {
        let (resource, skip) = (resource.clone(), skip.clone());
        self.read("look for due identities", move |db| {
            db.due(resource.as_str(), line, now, limit, &skip)
        })
        .await
    }

    /// The earliest due time of a resource, but for those in `skip`; it may have passed.
    pub async fn next_due(
        &self,
        resource: &ResourceName,
        work: Work,
        skip: &BTreeSet<Num>,
    ) -> Answer<Option<Timestamp>> {
        self.next_due_in(resource, (work, false), skip).await
    }

    /// The same of those that fail by themselves, or of those that do not.
    pub async fn next_due_in(
        &self,
        resource: &ResourceName,
        line: (Work, bool),
        skip: &BTreeSet<Num>,
    ) -> Answer<Option<Timestamp>> {
        let (resource, skip) = (resource.clone(), skip.clone());
        self.read("look for the next due time", move |db| {
            db.next_due(resource.as_str(), line, &skip)
        })
        .await
    }

    /// Rows of a resource that failed and whose next attempt lies ahead.
    pub async fn failing(
        &self,
        resource: &ResourceName,
        now: Timestamp,
        limit: usize,
    ) -> Answer<Vec<Record>> {
        let resource = resource.clone();
        self.read("look for failing identities", move |db| {
            db.failing(resource.as_str(), now, limit)
        })
        .await
    }

    /// Commits a batch of decisions; one answer each, in order. A token that comes too late
    /// ([`Applied::Stale`]) is listed as an orphan until it expires.
    pub async fn commit(&self, changes: Vec<Change>, now: Timestamp) -> Answer<Vec<Applied>> {
        let withdraws = changes.iter().any(is_gone);
        self.queue("commit results", withdraws, move |txn| {
            txn.commit(&changes, now)
        })
        .await
    }

    /// Notes decisions together with what people are told of them: who sees the one sees the other, whenever
    /// the process ends. Each posting is answered; one that the store refuses keeps no other back.
    pub async fn post(
        &self,
        postings: Arc<Vec<Posting>>,
        now: Timestamp,
    ) -> Answer<Each<Option<Applied>>> {
        let withdraws = postings.iter().any(
            |posting| matches!(posting, Posting::Decided(decided) if is_gone(&decided.change)),
        );
        self.queue("commit results", withdraws, move |txn| {
            txn.post(&postings, now)
        })
        .await
    }

    /// Keeps ids of identities that were just made in the map beside the store alone: the last resort for
    /// what the database does not take. The next start gives them back to their names.
    pub async fn keep_ids(&self, ids: Vec<(Num, IdentityId)>) -> Answer<()> {
        self.write("keep ids", move |txn| {
            ids.iter().try_for_each(|(num, id)| txn.note_id(*num, id))
        })
        .await
    }

    /// Takes steps of bulk operations; answers with each row's version after it, and with
    /// [`Version`] 0 for a row that is no more.
    pub async fn step(
        &self,
        steps: Vec<StepOn>,
        cause: &Cause,
        now: Timestamp,
    ) -> Answer<Vec<Version>> {
        let cause = cause.clone();
        self.withdraw("take a step", move |txn| txn.step(&steps, &cause, now))
            .await
    }

    /// Notes the calls that count or may be sent, and until when; before they are sent. It takes the place
    /// of what was noted of this operation before.
    pub async fn reserve(
        &self,
        resource: &ResourceName,
        operation: Operation,
        window: Vec<(u32, Timestamp)>,
    ) -> Answer<()> {
        let resource = resource.clone();
        self.write("note calls", move |txn| {
            txn.reserve(resource.as_str(), operation, &window)
        })
        .await
    }

    /// What was noted last of each operation; some of it may count no more.
    pub async fn reservations(
        &self,
        resource: &ResourceName,
    ) -> Answer<Vec<(Operation, u32, Timestamp)>> {
        let resource = resource.clone();
        self.read("read noted calls", move |db| {
            db.reservations(resource.as_str())
        })
        .await
    }

    /// Whether a batch of results could be written; asked after a failure, before ACS is called again.
    pub async fn probe(&self) -> Answer<()> {
        self.write("write", |txn| txn.probe()).await
    }

    /// Notes that these rows are about to be created at ACS; before the calls. Settled by
    /// [`Change::Issued`] with an id, or by [`Store::creation_failed`]; by a crash they become orphans.
    pub async fn intend_creations(&self, nums: Vec<Num>, now: Timestamp) -> Answer<()> {
        self.write("note a creation", move |txn| {
            txn.intend_creations(&nums, now)
        })
        .await
    }

    /// A creation gave no id; `maybe_created`: its answer was lost, so an identity may exist.
    pub async fn creation_failed(
        &self,
        num: Num,
        maybe_created: bool,
        request_id: Option<String>,
    ) -> Answer<()> {
        self.write("note a failed creation", move |txn| {
            txn.creation_failed(num, maybe_created, request_id.as_deref())
        })
        .await
    }

    /// A page of what may exist at ACS without a record.
    pub async fn orphans(&self, after: Num, limit: usize) -> Answer<Vec<Orphan>> {
        self.read("list orphans", move |db| db.orphans(after, limit))
            .await
    }

    /// Orphans by their numbers; those that are not on the list are left out.
    pub async fn orphans_by_num(&self, nums: Vec<Num>) -> Answer<Vec<Orphan>> {
        self.read("list orphans", move |db| db.orphans_by_num(&nums))
            .await
    }

    /// Takes orphans off the list.
    pub async fn dismiss_orphans(&self, nums: Vec<Num>) -> Answer<()> {
        self.write("dismiss orphans", move |txn| txn.dismiss_orphans(&nums))
            .await
    }

    /// Where ACS says of too many identities that they are gone; a person decides.
    pub async fn held_gone(&self) -> Answer<Vec<GoneHeld>> {
        self.read("look for what is said to be gone", |db| db.held_gone())
            .await
    }

    /// A person's word that what ACS says is gone is; answers with whom that withdraws.
    pub async fn confirm_gone(
        &self,
        resource: &ResourceName,
        cause: &Cause,
        now: Timestamp,
    ) -> Answer<Vec<Name>> {
        let (resource, cause) = (resource.clone(), cause.clone());
        self.withdraw("withdraw what is gone", move |txn| {
            txn.confirm_gone(resource.as_str(), &cause, now)
        })
        .await
    }

    /// A person's word that one that is gone is known again, under the same id: it becomes due.
    pub async fn revive(&self, name: &Name, cause: &Cause, now: Timestamp) -> Answer<Version> {
        let (name, cause) = (name.clone(), cause.clone());
        self.withdraw("revive an identity", move |txn| {
            txn.revive(&name, &cause, now)
        })
        .await
    }
}

/// Whether a change may withdraw what a consumer holds.
fn is_gone(change: &Change) -> bool {
    matches!(change, Change::Gone { .. })
}
