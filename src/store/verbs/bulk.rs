//! Verbs of bulk work, of the audit trail, and of cleaning up.

use std::collections::BTreeSet;

use super::Answer;
use crate::{
    model::{AuditEntry, Num, ResourceName, Timestamp},
    store::{
        AuditQuery, Campaign, CampaignId, CampaignItem, ItemOutcome, NewCampaign, Pruned, Store,
    },
};

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

    /// Items of one resource that are pending, but for those in flight (`skip`), the earliest
    /// `next_at` first; it may lie in the future.
    pub async fn campaign_items(
        &self,
        id: CampaignId,
        resource: &ResourceName,
        limit: usize,
        skip: &BTreeSet<Num>,
    ) -> Answer<Vec<CampaignItem>> {
        let (resource, skip) = (resource.clone(), skip.clone());
        self.read("list a campaign's items", move |db| {
            db.campaign_items(id, resource.as_str(), limit, &skip)
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
