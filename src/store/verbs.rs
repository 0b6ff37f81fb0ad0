//! The verbs of [`Store`], as the rest of the house speaks them. Each is one transaction or one read.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    AuditQuery, Campaign, CampaignId, CampaignItem, Cause, Consignment, Delivery, IdLine,
    ImportLine, Imported, ItemOutcome, NewCampaign, Orphan, Pruned, Reconciled, Settled, StepOn,
    Store, StoreError,
};
use crate::model::{
    Applied, AuditEntry, Change, Counts, IdentityId, Name, Notice, Num, OnRemoval, Operation,
    Record, ResourceName, SinkName, Spec, Timestamp, TokenDocument, Version,
};

/// What a verb answers.
type Answer<T> = Result<T, StoreError>;

/// # Declaring
impl Store {
    /// Makes the rows what the files declare, in one transaction; costs what they declare, and writes
    /// nothing when nothing changed. `sinks` are all that are configured.
    pub async fn reconcile(
        &self,
        specs: &[Spec],
        sinks: &[SinkName],
        now: Timestamp,
    ) -> Answer<Reconciled> {
        let (specs, sinks) = (specs.to_vec(), sinks.to_vec());
        self.write("take the declared identities over", move |txn| {
            txn.reconcile(&specs, &sinks, now)
        })
        .await
    }

    /// What [`Store::reconcile`] would do.
    pub async fn plan_reconcile(&self, specs: &[Spec], sinks: &[SinkName]) -> Answer<Reconciled> {
        let (specs, sinks) = (specs.to_vec(), sinks.to_vec());
        self.read("compare the declared identities", move |db| {
            Ok(db.plan_reconcile(&specs, &sinks)?.told())
        })
        .await
    }

    /// Adds identities, or changes them, without touching others; for those kept in the store alone.
    pub async fn declare(&self, specs: Vec<Spec>, now: Timestamp) -> Answer<Reconciled> {
        self.write("add identities", move |txn| txn.declare(&specs, now))
            .await
    }

    /// Removes identities, as `how` says or as each one's own `on_removal`.
    pub async fn remove(
        &self,
        names: Vec<Name>,
        how: Option<OnRemoval>,
        now: Timestamp,
    ) -> Answer<Reconciled> {
        self.write("remove identities", move |txn| txn.remove(&names, how, now))
            .await
    }

    /// Takes names and ids over, such as the lines of `identities.jsonl`. The first call ends
    /// [`super::Opened::fresh`].
    pub async fn import(&self, lines: Vec<ImportLine>, now: Timestamp) -> Answer<Imported> {
        self.write("import ids", move |txn| txn.import(&lines, now))
            .await
    }
}

/// # Looking
impl Store {
    /// An identity by name.
    pub async fn record(&self, name: &Name) -> Answer<Option<Record>> {
        let name = name.clone();
        self.read("look an identity up", move |db| db.record(name.as_str()))
            .await
    }

    /// Identities by name; those that do not exist are left out.
    pub async fn records(&self, names: &[Name]) -> Answer<Vec<Record>> {
        let names = names.to_vec();
        self.read("look identities up", move |db| {
            let found: Result<Vec<_>, _> = names.iter().map(|n| db.record(n.as_str())).collect();
            Ok(found?.into_iter().flatten().collect())
        })
        .await
    }

    /// An identity by its row.
    pub async fn record_of(&self, num: Num) -> Answer<Option<Record>> {
        self.read("look an identity up", move |db| Ok(db.record_of(num)?))
            .await
    }

    /// A page of identities in the order of their names.
    pub async fn list(&self, after: Option<&Name>, limit: usize) -> Answer<Vec<Record>> {
        let after = after.map_or(String::new(), ToString::to_string);
        self.read("list identities", move |db| db.list(&after, limit))
            .await
    }

    /// Those that need a person first: late or failing, the nearest to their end first.
    pub async fn troubled(&self, now: Timestamp, limit: usize) -> Answer<Vec<Record>> {
        self.read("list late identities", move |db| db.troubled(now, limit))
            .await
    }

    /// How many are late, by resource; found by index, not by scanning.
    pub async fn late(&self, now: Timestamp) -> Answer<BTreeMap<ResourceName, u64>> {
        self.read("count late identities", move |db| db.late(now))
            .await
    }

    /// The earliest end of a current token, by resource; reads an index through.
    pub async fn earliest_expiry(&self) -> Answer<BTreeMap<ResourceName, Timestamp>> {
        self.read("look for the earliest expiry", |db| db.earliest_expiry())
            .await
    }

    /// The counters.
    pub async fn counts(&self) -> Answer<Counts> {
        self.read("read the counters", |db| db.counts()).await
    }

    /// What a consumer of this row should hold, with the token.
    pub async fn document(&self, num: Num) -> Answer<Option<TokenDocument>> {
        Ok(self.consignment(num).await?.map(|found| found.document))
    }

    /// What a consumer of this name should hold, with the token.
    pub async fn document_by_name(&self, name: &Name) -> Answer<Option<TokenDocument>> {
        let name = name.clone();
        self.read("read a token", move |db| {
            match db.num_of(name.as_str())? {
                Some(num) => Ok(db.consignment(num)?.map(|found| found.document)),
                None => Ok(None),
            }
        })
        .await
    }

    /// The document and the readers of a row, in one read.
    pub async fn consignment(&self, num: Num) -> Answer<Option<Consignment>> {
        self.read("read a token", move |db| db.consignment(num))
            .await
    }

    /// The id that a name has or had, by its row or by the id map; not of deleted ones.
    pub async fn known_id(&self, name: &Name) -> Answer<Option<IdentityId>> {
        let name = name.clone();
        self.read("look an id up", move |db| db.known_id(name.as_str()))
            .await
    }

    /// A page of names whose id only the id map knows.
    pub async fn remembered(&self, after: Option<&Name>, limit: usize) -> Answer<Vec<IdLine>> {
        let after = after.map_or(String::new(), ToString::to_string);
        self.read("list remembered ids", move |db| {
            db.remembered(&after, limit)
        })
        .await
    }

    /// Whether a lost database still waits for an import; see [`super::Opened::fresh`].
    pub async fn awaits_import(&self) -> Answer<bool> {
        self.read("ask for an import", |db| db.awaits_import())
            .await
    }
}

/// # Renewing
impl Store {
    /// The rows of a resource that are due, but for those in flight (`skip`): rows without a good
    /// token first, then the earliest expiry. A row that cannot be read is taken out of the queue.
    pub async fn due(
        &self,
        resource: &ResourceName,
        now: Timestamp,
        limit: usize,
        skip: &BTreeSet<Num>,
    ) -> Answer<Vec<Record>> {
        let (resource, skip) = (resource.clone(), skip.clone());
        let found = self
            .read("look for due identities", move |db| {
                db.due(resource.as_str(), now, limit, &skip)
            })
            .await?;
        if !found.unreadable.is_empty() {
            let nums = found.unreadable;
            tracing::error!(rows = ?nums, "identities cannot be read from the store and are set aside");
            self.write("set rows aside", move |txn| txn.quarantine(&nums))
                .await?;
        }
        Ok(found.records)
    }

    /// The earliest due time of a resource, but for those in `skip`; it may have passed.
    pub async fn next_due(
        &self,
        resource: &ResourceName,
        skip: &BTreeSet<Num>,
    ) -> Answer<Option<Timestamp>> {
        let (resource, skip) = (resource.clone(), skip.clone());
        self.read("look for the next due time", move |db| {
            db.next_due(resource.as_str(), &skip)
        })
        .await
    }

    /// Commits a batch of decisions; one answer each, in order. A token that comes too late
    /// ([`Applied::Stale`]) is listed as an orphan until it expires.
    pub async fn commit(&self, changes: Vec<Change>, now: Timestamp) -> Answer<Vec<Applied>> {
        self.write("commit results", move |txn| txn.commit(&changes, now))
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
        self.write("take a step", move |txn| txn.step(&steps, &cause, now))
            .await
    }

    /// Notes that up to `permits` calls may be sent, which count until `until`; before they are sent.
    pub async fn reserve(
        &self,
        resource: &ResourceName,
        operation: Operation,
        permits: u32,
        until: Timestamp,
        now: Timestamp,
    ) -> Answer<()> {
        let resource = resource.clone();
        self.write("note calls", move |txn| {
            txn.reserve(resource.as_str(), operation, permits, until, now)
        })
        .await
    }

    /// Calls that may have been sent, and until when they count; those of the past may be among them.
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

    /// Takes orphans off the list.
    pub async fn dismiss_orphans(&self, nums: Vec<Num>) -> Answer<()> {
        self.write("dismiss orphans", move |txn| txn.dismiss_orphans(&nums))
            .await
    }
}

/// # Delivering
impl Store {
    /// What a sink has to deliver now, but for rows in flight (`skip`), the longest waiting first.
    pub async fn pending(
        &self,
        sink: &SinkName,
        now: Timestamp,
        limit: usize,
        skip: &BTreeSet<Num>,
    ) -> Answer<Vec<Delivery>> {
        let (sink, skip) = (sink.clone(), skip.clone());
        self.read("look for pending deliveries", move |db| {
            db.pending(sink.as_str(), now, limit, &skip)
        })
        .await
    }

    /// The earliest next attempt of a sink, but for rows in `skip`; it may have passed.
    pub async fn next_pending(
        &self,
        sink: &SinkName,
        skip: &BTreeSet<Num>,
    ) -> Answer<Option<Timestamp>> {
        let (sink, skip) = (sink.clone(), skip.clone());
        self.read("look for the next delivery", move |db| {
            db.next_pending(sink.as_str(), &skip)
        })
        .await
    }

    /// Notes how attempts at deliveries ended.
    pub async fn settle(&self, settled: Vec<Settled>) -> Answer<()> {
        self.write("note deliveries", move |txn| txn.settle(&settled))
            .await
    }

    /// Makes everything that is pending for a sink due now: its breaker has closed.
    pub async fn hasten(&self, sink: &SinkName, now: Timestamp) -> Answer<()> {
        let sink = sink.clone();
        self.write("hasten deliveries", move |txn| {
            txn.hasten(sink.as_str(), now)
        })
        .await
    }

    /// Wants the newest version of a row delivered once more, to one sink or to all.
    pub async fn redeliver(&self, num: Num, sink: Option<SinkName>, now: Timestamp) -> Answer<()> {
        self.write("deliver again", move |txn| {
            txn.redeliver(num, sink.as_ref().map(SinkName::as_str), now)
        })
        .await
    }

    /// The deliveries of one row.
    pub async fn deliveries_of(&self, num: Num) -> Answer<Vec<Delivery>> {
        self.read("list deliveries", move |db| db.deliveries_of(num))
            .await
    }

    /// A page of a sink's deliveries that have something to hold, pending or not, in the order of
    /// their rows; for restoring files at start.
    pub async fn delivered_page(
        &self,
        sink: &SinkName,
        after: Num,
        limit: usize,
    ) -> Answer<Vec<Delivery>> {
        let sink = sink.clone();
        self.read("list deliveries", move |db| {
            db.delivery_page(sink.as_str(), after, limit)
        })
        .await
    }

    /// Why a sink is disabled, if it is.
    pub async fn sink_disabled(&self, sink: &SinkName) -> Answer<Option<String>> {
        let sink = sink.clone();
        self.read("look a sink up", move |db| db.sink_disabled(sink.as_str()))
            .await
    }

    /// Disables a sink for this reason, or enables it (`None`); holds over restarts.
    pub async fn set_sink_disabled(&self, sink: &SinkName, why: Option<String>) -> Answer<()> {
        let sink = sink.clone();
        self.write("disable or enable a sink", move |txn| {
            txn.set_sink_disabled(sink.as_str(), why.as_deref())
        })
        .await
    }

    /// Raises notices.
    pub async fn raise(&self, notices: Vec<Notice>) -> Answer<()> {
        self.write("raise a notice", move |txn| txn.raise(&notices))
            .await
    }

    /// Notices after a number, in order.
    pub async fn notices(&self, after: u64, limit: usize) -> Answer<Vec<(u64, Notice)>> {
        self.read("list notices", move |db| db.notices(after, limit))
            .await
    }

    /// The newest notices, newest first.
    pub async fn latest_notices(&self, limit: usize) -> Answer<Vec<(u64, Notice)>> {
        self.read("list notices", move |db| db.latest_notices(limit))
            .await
    }

    /// The number of the last notice that a sink has passed on.
    pub async fn notice_cursor(&self, sink: &SinkName) -> Answer<u64> {
        let sink = sink.clone();
        self.read("read a cursor", move |db| db.notice_cursor(sink.as_str()))
            .await
    }

    /// Moves it; never backwards.
    pub async fn advance_cursor(&self, sink: &SinkName, seq: u64) -> Answer<()> {
        let sink = sink.clone();
        self.write("move a cursor", move |txn| {
            txn.advance_cursor(sink.as_str(), seq)
        })
        .await
    }
}

/// # Bulk work, trail, housekeeping
impl Store {
    /// Freezes a bulk operation into the store.
    pub async fn create_campaign(&self, new: NewCampaign, now: Timestamp) -> Answer<CampaignId> {
        self.write("make a campaign", move |txn| txn.create_campaign(&new, now))
            .await
    }

    /// A campaign and how far it is.
    pub async fn campaign(&self, id: CampaignId) -> Answer<Option<Campaign>> {
        self.read("look a campaign up", move |db| db.campaign(id))
            .await
    }

    /// Campaigns that have something left to do, oldest first.
    pub async fn open_campaigns(&self) -> Answer<Vec<Campaign>> {
        self.read("list campaigns", |db| db.open_campaigns()).await
    }

    /// Items that are pending, but for those in flight (`skip`), the earliest `next_at` first; it
    /// may lie in the future.
    pub async fn campaign_items(
        &self,
        id: CampaignId,
        limit: usize,
        skip: &BTreeSet<Num>,
    ) -> Answer<Vec<CampaignItem>> {
        let skip = skip.clone();
        self.read("list a campaign's items", move |db| {
            db.campaign_items(id, limit, &skip)
        })
        .await
    }

    /// A page of all items of a campaign, in the order of their rows.
    pub async fn campaign_report(
        &self,
        id: CampaignId,
        after: Num,
        limit: usize,
    ) -> Answer<Vec<CampaignItem>> {
        self.read("report on a campaign", move |db| {
            db.campaign_report(id, after, limit)
        })
        .await
    }

    /// Notes how attempts at items ended; the campaign ends with its last one.
    pub async fn settle_items(
        &self,
        id: CampaignId,
        outcomes: Vec<(Num, ItemOutcome)>,
        now: Timestamp,
    ) -> Answer<()> {
        self.write("note a campaign's results", move |txn| {
            txn.settle_items(id, &outcomes, now)
        })
        .await
    }

    /// Adds entries to the audit trail.
    pub async fn audit(&self, entries: Vec<AuditEntry>) -> Answer<()> {
        self.write("write the audit trail", move |txn| {
            entries.iter().try_for_each(|entry| txn.audit(entry))
        })
        .await
    }

    /// The audit trail, newest first.
    pub async fn audit_trail(&self, query: AuditQuery) -> Answer<Vec<AuditEntry>> {
        self.read("read the audit trail", move |db| db.audit_trail(&query))
            .await
    }

    /// Drops what is past its time, at most `batch` rows of each kind; called every minute or so, and
    /// again while [`Pruned::is_full`]. The id map is written anew if it is behind.
    pub async fn prune(&self, batch: usize, now: Timestamp) -> Answer<Pruned> {
        let keep = self.keep();
        self.write("clean up", move |txn| txn.prune(keep, batch, now))
            .await
    }
}
