//! Verbs of campaigns.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::Answer;
use crate::{
    model::{IdentityId, Notice, Num, ResourceName, Timestamp},
    store::{
        Campaign, CampaignId, CampaignItem, Cause, Each, Followed, Frozen, ItemNote, ItemOutcome,
        NewCampaign, Order, ReportLine, RowOrder, Stalled, StepOn, Store, WaitingItem, Wanted,
        db::Txn,
    },
};

impl Store {
    /// Makes a campaign; the answer is its number. The runners expand what was selected and begin.
    pub async fn create_campaign(&self, new: NewCampaign, now: Timestamp) -> Answer<CampaignId> {
        self.withdraw("make a campaign", move |txn| txn.create_campaign(&new, now))
            .await
    }

    /// Lists more items of a campaign that was made with [`Target::Later`](crate::store::Target::Later).
    pub async fn add_items(
        &self,
        id: CampaignId,
        items: Vec<Wanted>,
        now: Timestamp,
    ) -> Answer<()> {
        self.withdraw("list a campaign's items", move |txn| {
            txn.add_items(id, &items, now)
        })
        .await
    }

    /// One item of each kind that waits: to be called, for its token or its consumers.
    pub async fn waiting_items(&self, id: CampaignId) -> Answer<Vec<WaitingItem>> {
        self.read("look a campaign up", move |db| db.waiting_items(id))
            .await
    }

    /// Which rows have these ids; ids that no row has are left out.
    pub async fn owners(&self, ids: Vec<IdentityId>) -> Answer<BTreeMap<IdentityId, Num>> {
        self.read("look ids up", move |db| db.owners(&ids)).await
    }

    /// All items are listed, `target` says in words what they are; the campaign starts.
    pub async fn seal_campaign(
        &self,
        id: CampaignId,
        target: String,
        now: Timestamp,
    ) -> Answer<()> {
        self.withdraw("start a campaign", move |txn| {
            txn.seal_campaign(id, &target, now)
        })
        .await
    }

    /// Ends campaigns whose items were still being listed when the last process ended; when a process
    /// starts, before anybody can bring any.
    pub async fn end_unsealed(&self, now: Timestamp) -> Answer<()> {
        self.withdraw("end campaigns that never began", move |txn| {
            txn.end_unsealed(now, now)
        })
        .await
    }

    /// Freezes up to `chunk` more rows of a selection. A list that somebody brings ends here when
    /// nothing came for half a minute.
    pub async fn expand(&self, id: CampaignId, chunk: usize, now: Timestamp) -> Answer<Frozen> {
        self.withdraw("freeze a campaign", move |txn| txn.expand(id, chunk, now))
            .await
    }

    /// A campaign and how far it is.
    pub async fn campaign(&self, id: CampaignId) -> Answer<Option<Campaign>> {
        self.read("look a campaign up", move |db| db.campaign(id))
            .await
    }

    /// Orders that wait, or of which something failed for good and still matters; the oldest first.
    pub async fn orders(&self, now: Timestamp) -> Answer<Vec<Order>> {
        self.read("list what is still to be done", move |db| db.orders(now))
            .await
    }

    /// What is still to be done to one row, or failed for good; the oldest order first.
    pub async fn orders_of(&self, num: Num, now: Timestamp) -> Answer<Vec<RowOrder>> {
        self.read("look up what is still to be done", move |db| {
            db.orders_of(num, now)
        })
        .await
    }

    /// Items of a campaign that fail and are tried again.
    pub async fn failing_of(&self, id: CampaignId) -> Answer<Stalled> {
        self.read("look a campaign up", move |db| db.failing_of(id))
            .await
    }

    /// Campaigns that have something left to do: urgent ones first, then the oldest.
    pub async fn open_campaigns(&self) -> Answer<Vec<Campaign>> {
        self.read("list campaigns", |db| db.open_campaigns()).await
    }

    /// A page of all campaigns, the newest first.
    pub async fn campaigns(
        &self,
        before: Option<CampaignId>,
        limit: usize,
    ) -> Answer<Vec<Campaign>> {
        self.read("list campaigns", move |db| db.campaigns(before, limit))
            .await
    }

    /// Items of one resource that are to be begun, those that failed before or the others, but for those
    /// in flight (`skip`), the earliest `next_at` first; it may lie in the future.
    pub async fn campaign_items(
        &self,
        id: CampaignId,
        resource: &ResourceName,
        failing: bool,
        limit: usize,
        skip: &BTreeSet<Num>,
    ) -> Answer<Vec<CampaignItem>> {
        let (resource, skip) = (resource.clone(), skip.clone());
        self.read("list a campaign's items", move |db| {
            db.campaign_items(id, resource.as_str(), failing, limit, &skip)
        })
        .await
    }

    /// A page of a campaign's report in the order of the rows: of the quarantine (`failed`), or of all.
    pub async fn campaign_report(
        &self,
        id: CampaignId,
        after: Option<Num>,
        failed: bool,
        limit: usize,
    ) -> Answer<Vec<ReportLine>> {
        self.read("report on a campaign", move |db| {
            db.campaign_report(id, after, failed, limit)
        })
        .await
    }

    /// How many renewals of a resource wait now, counted up to `most`: what a campaign yields to.
    pub async fn waiting_renewals(
        &self,
        resource: &ResourceName,
        most: usize,
        now: Timestamp,
    ) -> Answer<usize> {
        let resource = resource.clone();
        self.read("count what waits", move |db| {
            db.waiting_renewals(resource.as_str(), most, now)
        })
        .await
    }

    /// Notes what became of items of one resource: the steps of their rows, how attempts ended, what is told
    /// of it; a campaign ends with its last item. Each is answered; one that the store refuses keeps no
    /// other back.
    pub async fn note_items(
        &self,
        resource: &ResourceName,
        notes: Arc<Vec<ItemNote>>,
        now: Timestamp,
    ) -> Answer<Each<()>> {
        let (resource, withdraws) = (resource.clone(), notes.iter().any(ItemNote::withdraws));
        let note = move |txn: &mut Txn<'_>| {
            txn.each("note an item", &notes, |txn, notes| {
                txn.note_items(resource.as_str(), notes, now)?;
                Ok(vec![(); notes.len()])
            })
        };
        match withdraws {
            true => self.withdraw("note a campaign's results", note).await,
            false => self.write("note a campaign's results", note).await,
        }
    }

    /// Takes the steps of rows, notes how attempts at their items ended and tells it, in one commit; the
    /// campaign ends with its last item.
    pub async fn settle_items(
        &self,
        id: CampaignId,
        steps: Vec<StepOn>,
        cause: &Cause,
        outcomes: Vec<(Num, ItemOutcome)>,
        notices: Vec<Notice>,
        now: Timestamp,
    ) -> Answer<()> {
        let cause = cause.clone();
        self.withdraw("note a campaign's results", move |txn| {
            txn.step(&steps, &cause, now)?;
            txn.settle_items(id, &outcomes, now)?;
            txn.raise(&notices)
        })
        .await
    }

    /// Tries items again that failed for good while others failed as well; how many.
    pub async fn retry_items(
        &self,
        items: Vec<(CampaignId, Num)>,
        now: Timestamp,
    ) -> Answer<usize> {
        self.withdraw("try a campaign's items again", move |txn| {
            txn.retry_items(&items, now)
        })
        .await
    }

    /// How many items of a campaign wait for the token of an identity that fails again and again.
    pub async fn awaiting_failing(&self, id: CampaignId, resource: &ResourceName) -> Answer<usize> {
        let resource = resource.clone();
        self.read("count what waits", move |db| {
            db.awaiting_failing(id, resource.as_str())
        })
        .await
    }

    /// Ends up to `limit` items of a cancelled campaign that are not acknowledged: those of one resource,
    /// but for what is in hand there (`skip`), and after some minutes those of every other, for which
    /// nobody may work any more. True while there may be more.
    pub async fn sweep_cancelled(
        &self,
        id: CampaignId,
        resource: &ResourceName,
        skip: &BTreeSet<Num>,
        limit: usize,
        now: Timestamp,
    ) -> Answer<bool> {
        let (resource, skip) = (resource.clone(), skip.clone());
        self.write("end what was cancelled", move |txn| {
            txn.sweep_cancelled(id, resource.as_str(), &skip, limit, now)
        })
        .await
    }

    /// Looks at up to `limit` items that wait for a token or for a consumer. `calm` says that tokens have
    /// been issued for a while: then a row that fails by itself is waited for no longer.
    pub async fn follow_items(
        &self,
        id: CampaignId,
        after: Option<Num>,
        limit: usize,
        calm: bool,
        now: Timestamp,
    ) -> Answer<Followed> {
        self.write("follow a campaign", move |txn| {
            txn.follow_items(id, after, limit, calm, now)
        })
        .await
    }

    /// Stops a campaign for now, or lets it go on. False where there is nothing to stop or resume.
    pub async fn pause_campaign(
        &self,
        id: CampaignId,
        pause: bool,
        cause: &Cause,
        now: Timestamp,
    ) -> Answer<bool> {
        let cause = cause.clone();
        self.withdraw("pause a campaign", move |txn| {
            txn.pause_campaign(id, pause, &cause, now)
        })
        .await
    }

    /// Stops a campaign for good. False where it has ended.
    pub async fn cancel_campaign(
        &self,
        id: CampaignId,
        cause: &Cause,
        now: Timestamp,
    ) -> Answer<bool> {
        let cause = cause.clone();
        self.withdraw("cancel a campaign", move |txn| {
            txn.cancel_campaign(id, &cause, now)
        })
        .await
    }

    /// Tries again what failed for good; how many.
    pub async fn retry_campaign(
        &self,
        id: CampaignId,
        cause: &Cause,
        now: Timestamp,
    ) -> Answer<usize> {
        let cause = cause.clone();
        self.withdraw("try a campaign again", move |txn| {
            txn.retry_campaign(id, &cause, now)
        })
        .await
    }

    /// Campaigns that have ended and whose report is not sealed yet.
    pub async fn unsealed_reports(&self) -> Answer<Vec<CampaignId>> {
        self.read("look for ended campaigns", |db| db.unsealed_reports())
            .await
    }

    /// Notes what the report of an ended campaign hashes to, in the audit trail as well.
    pub async fn seal_report(&self, id: CampaignId, sha256: String, now: Timestamp) -> Answer<()> {
        self.write("seal a report", move |txn| {
            txn.seal_report(id, &sha256, now)
        })
        .await
    }
}
