//! How items are settled: what became of them is noted in the store, the tokens and deliveries that are to
//! follow are waited for, and the reports of campaigns that ended are sealed.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use sha2::{Digest, Sha256};
use tokio::task::{Id, JoinError};

use super::{
    Runner,
    item::{self, Called, ItemDone, ItemVerdict, NOBODY, RunItem, judge},
};
use crate::{
    clock::Clock,
    model::{NoticeKind, Num, Operation, Timestamp, hex},
    outbox::Refused,
    schedule::{CallFinding, Steady, Ticket},
    store::{
        Campaign, CampaignId, CampaignState, Followed, ItemEnd, ItemNote, ItemOutcome, Store,
        StoreError,
    },
};

impl Runner {
    /// Notes what was done: the step of each row, its item and its notice are one commit. While it cannot be
    /// noted, nothing more is done.
    pub(super) async fn note_all(&mut self) {
        while self.begin_write() {
            let written = self.outbox.ended().await;
            let steady = self.clock.steady();
            let Some(noted) = self.outbox.settle(written, steady) else {
                return;
            };
            for refused in noted.refused {
                self.on_refused(refused, steady);
            }
            for (note, ()) in noted.done {
                if let ItemNote::Ended(end) = note {
                    self.on_noted(&end);
                }
            }
        }
    }

    fn begin_write(&mut self) -> bool {
        let (store, now) = (self.store.clone(), self.clock.now());
        let resource = self.settings.name.clone();
        self.outbox.begin(self.clock.steady(), |notes| {
            Box::pin(async move { store.note_items(&resource, notes, now).await })
        })
    }

    fn on_noted(&mut self, end: &ItemEnd) {
        self.busy.remove(&end.num);
        match &end.outcome {
            ItemOutcome::Retry { next_at, .. } => self.look_by(*next_at),
            ItemOutcome::Unanswered { next_at, .. } => {
                *self.unanswered.entry(end.num).or_default() += 1;
                self.look_by(*next_at);
            }
            ItemOutcome::Done { .. } | ItemOutcome::Failed { .. } => {
                self.unanswered.remove(&end.num);
            }
        }
        // Rows that were skipped because another campaign had them in hand.
        self.look_by(self.clock.now());
        self.following.look_by(self.clock.steady());
    }

    /// The store refuses one result by itself: its item has failed, and says what was done; where even that
    /// is refused, it is set aside and stays in hand, so that nothing is done twice.
    fn on_refused(&mut self, refused: Refused<ItemNote>, now: Steady) {
        let Refused {
            entry,
            error,
            again,
        } = refused;
        let (resource, row) = (&self.settings.name, entry.num());
        let ItemNote::Ended(end) = entry else {
            tracing::error!(%resource, row, %error, "a note about an item is dropped, because the store refuses it");
            return;
        };
        tracing::error!(%resource, campaign = end.campaign.id, row, %error, "the store refuses a result of a campaign");
        let says_so = matches!(end.outcome, ItemOutcome::Failed { .. });
        if again || says_so {
            return self.outbox.set_aside(ItemNote::Ended(end), &error, now);
        }
        let unnoted = item::unnoted(&end, &error.to_string(), self.clock.now());
        self.outbox.add(ItemNote::Ended(Box::new(unnoted)));
    }

    /// Takes what becomes of an item.
    pub(super) fn note(&mut self, item: &RunItem, verdict: ItemVerdict) {
        self.note_until(item, verdict, None);
    }

    /// The same; what failed for good while others failed as well is tried again then at the latest.
    fn note_until(&mut self, item: &RunItem, verdict: ItemVerdict, again_at: Option<Timestamp>) {
        let ItemVerdict {
            step,
            outcome,
            mut notice,
        } = verdict;
        let steady = self.clock.steady();
        notice.take_if(|one| one.kind == NoticeKind::OrderFailed && !self.failures.tells(steady));
        self.outbox.add(ItemNote::Ended(Box::new(ItemEnd {
            campaign: item.campaign.clone(),
            num: item.item.num,
            step,
            outcome,
            notice,
            again_at,
        })));
    }

    /// Takes over what an earlier process would have tried again.
    pub(super) async fn remember(&mut self) -> Result<(), StoreError> {
        if self.remembers {
            return Ok(());
        }
        let left = self.store.failed_among_others(&self.settings.name).await?;
        let (now, steady) = (self.clock.now(), self.clock.steady());
        for one in left {
            let wait = |at: Timestamp| Duration::try_from(at.duration_since(now));
            let at = one.again_at.map(|at| steady + wait(at).unwrap_or_default());
            let item = (one.campaign, one.num);
            self.second_chance.remembers(item, one.chances, at);
        }
        self.remembers = true;
        Ok(())
    }

    /// At the end of a minute, tells how many more orders failed for good; and tries those again that failed
    /// while others did, once they do no more.
    pub(super) async fn look_back(&mut self) -> Result<(), StoreError> {
        let (now, steady) = (self.clock.now(), self.clock.steady());
        if let Some(more) = self.failures.rest(steady) {
            let notice = item::many_failed(&self.settings.name, more, now);
            self.store.raise(vec![notice]).await?;
        }
        let items = self.second_chance.due(steady);
        if !items.is_empty() {
            let again = self.store.retry_items(items.clone(), now).await?;
            self.second_chance.taken(&items);
            tracing::warn!(resource = %self.settings.name, items = again, "what failed for good while others failed as well is tried again");
        }
        Ok(())
    }

    /// A task has ended, or panicked.
    pub(super) fn on_task(&mut self, joined: Result<(Id, ItemDone), JoinError>) {
        let (id, done) = match joined {
            Ok((id, done)) => (id, Some(done)),
            Err(error) => (error.id(), None),
        };
        if let Some(ItemDone::Sealed(id, result)) = &done {
            return self.on_sealed(*id, result);
        }
        if let Some((operation, ticket)) = self.trials.remove(&id) {
            return self.on_tried_out(operation, ticket, done);
        }
        let Some(flight) = self.flights.remove(&id) else {
            return;
        };
        match (done, flight.call) {
            (Some(ItemDone::Withheld(withheld)), _) => self.on_withheld(flight.item, withheld),
            (Some(ItemDone::Called(called)), Some((operation, ticket))) => {
                self.on_called(&flight.item, operation, ticket, &called);
            }
            (Some(ItemDone::NotNoted(error)), Some((operation, ticket))) => {
                self.on_not_noted(flight.item, (operation, ticket), &error);
            }
            (_, call) => self.on_panic(&flight.item, call),
        }
    }

    /// Its call was not made: it waits until the store works, or whoever leads now makes it.
    fn on_not_noted(
        &mut self,
        item: RunItem,
        (operation, ticket): (Operation, Ticket),
        error: &StoreError,
    ) {
        let steady = self.clock.steady();
        self.permits.gate().abandoned(ticket, 0, steady);
        self.outbox.failed(error, steady);
        self.line(operation).push(item);
    }

    fn on_withheld(&mut self, mut item: RunItem, withheld: Result<Vec<String>, StoreError>) {
        match withheld {
            Ok(unconfirmed) => {
                item.unconfirmed = unconfirmed;
                if item.item.id.is_some() {
                    self.line(Operation::Revoke).push(item);
                } else {
                    let verdict = item::stepped(&item, None, self.clock.now());
                    self.note(&item, verdict);
                }
            }
            Err(error) if error.is_unwritable() || matches!(error, StoreError::Closed { .. }) => {
                self.busy.remove(&item.item.num);
                self.look_at = Some(self.clock.now());
                self.outbox.failed(&error, self.clock.steady());
            }
            Err(error) => {
                // It is this row that the store refuses: the others do not wait for it.
                let now = self.clock.now();
                let verdict = item::not_withheld(&item, &error, now, &mut self.rng);
                self.log(&item, Operation::Revoke, &verdict);
                self.note(&item, verdict);
            }
        }
    }

    fn on_called(&mut self, item: &RunItem, operation: Operation, ticket: Ticket, called: &Called) {
        let finding = self.learn(operation, ticket, called);
        match judge(item, operation, called, &finding, &mut self.rng) {
            Some(verdict) => {
                let mut again_at = None;
                if matches!(verdict.outcome, ItemOutcome::Failed { .. }) {
                    let which = (item.campaign.id, item.item.num);
                    let steady = self.clock.steady();
                    let wait = self.second_chance.failed(which, finding.rate, steady);
                    again_at = wait.and_then(|wait| self.clock.now().checked_add(wait).ok());
                }
                self.log(item, operation, &verdict);
                self.note_until(item, verdict, again_at);
            }
            None => {
                // It is still pending; the gate says when it is tried again, after those that were not.
                let tried = RunItem {
                    tried: true,
                    ..item.clone()
                };
                self.line(operation).push(tried);
            }
        }
    }

    /// What an operation answered to nobody tells of it, not of any item.
    fn on_tried_out(&mut self, operation: Operation, ticket: Ticket, done: Option<ItemDone>) {
        self.line(operation).tried_out();
        let steady = self.clock.steady();
        match done {
            Some(ItemDone::TriedOut(called)) => {
                self.learn(operation, ticket, &called);
            }
            _ => self.permits.gate().abandoned(ticket, 1, steady),
        }
    }

    fn on_sealed(&mut self, id: CampaignId, result: &Result<(), StoreError>) {
        if let Err(error) = result {
            tracing::error!(campaign = id, %error, "the report could not be sealed; it is tried again with the next campaign");
            self.following.unsealed(id);
        }
    }

    fn on_panic(&mut self, item: &RunItem, call: Option<(Operation, Ticket)>) {
        let (now, steady) = (self.clock.now(), self.clock.steady());
        tracing::error!(resource = %self.settings.name, identity = %item.item.label(), "an item of a campaign panicked");
        if let Some((_, ticket)) = call {
            self.permits.gate().abandoned(ticket, 1, steady);
        }
        let verdict = item::panicked(item, now, &mut self.rng);
        self.note(item, verdict);
    }

    /// Takes from an ended call what it tells of the item and of the resource.
    fn learn(&mut self, operation: Operation, ticket: Ticket, called: &Called) -> CallFinding {
        let result = called
            .result
            .as_ref()
            .map_or_else(|failure| failure.class.as_str(), |_| "ok");
        let took = called.ended.duration_since(called.began);
        self.metrics.call_ended(
            &self.settings.name,
            operation,
            result,
            took.try_into().unwrap_or_default(),
        );
        let result = called.result.as_ref().map(|_| ());
        let finding = self
            .permits
            .gate()
            .ended(ticket, called.requests, result, self.moment());
        let own = finding.own || finding.chance < 1e-3;
        match &result {
            Ok(()) => self.second_chance.heard(true),
            Err(_) if own => {}
            Err(_) => self.second_chance.heard(false),
        }
        if finding.closed
            && let Err(failure) = &called.result
        {
            tracing::error!(resource = %self.settings.name, %operation, "only probes go out: {}", failure.message);
        }
        for num in finding.excused.iter().filter(|num| **num != NOBODY) {
            self.outbox.add(ItemNote::Excused(*num));
        }
        finding
    }

    fn log(&self, item: &RunItem, operation: Operation, verdict: &ItemVerdict) {
        let (resource, identity, campaign) =
            (&self.settings.name, item.item.label(), item.campaign.id);
        match &verdict.outcome {
            ItemOutcome::Done { request_id, .. } => {
                tracing::debug!(%resource, %identity, campaign, %operation, request_id, "acknowledged");
            }
            ItemOutcome::Retry {
                error, request_id, ..
            }
            | ItemOutcome::Unanswered {
                error, request_id, ..
            } => {
                tracing::warn!(%resource, %identity, campaign, %operation, request_id, "failed, and is tried again: {error}");
            }
            ItemOutcome::Failed { error, request_id } => {
                tracing::error!(%resource, %identity, campaign, %operation, request_id, "failed for good: {error}");
            }
        }
    }
}

/// How often it is looked whether tokens came and were delivered.
const EVERY: Duration = Duration::from_secs(1);
/// Tokens have to be issued for so long before one that does not follow is about its identity.
const CALM: Duration = Duration::from_mins(2);
/// Items looked at in one transaction.
const CHUNK: usize = 1000;

/// When to look next, and where.
#[derive(Debug)]
pub(super) struct Following {
    at: Option<Steady>,
    /// Where the last look at a campaign ended.
    cursors: BTreeMap<CampaignId, Num>,
    sealing: BTreeSet<CampaignId>,
    /// Since when nothing holds the issuing of tokens, as far as it was looked.
    issued_since: Option<Steady>,
}

impl Default for Following {
    /// Looks at once: an earlier process may have left something.
    fn default() -> Self {
        Self {
            at: Some(Steady::ZERO),
            cursors: BTreeMap::new(),
            sealing: BTreeSet::new(),
            issued_since: None,
        }
    }
}

impl Following {
    /// A campaign was made, stopped or ended.
    pub(super) fn look_again(&mut self) {
        self.at = Some(Steady::ZERO);
    }

    /// Something was settled that may have to be followed.
    pub(super) fn look_by(&mut self, now: Steady) {
        let by = now + EVERY;
        self.at = Some(self.at.map_or(by, |at| at.min(by)));
    }

    /// Whether tokens have been issued for a while.
    fn is_calm(&mut self, issued: bool, now: Steady) -> bool {
        match issued {
            true => now >= *self.issued_since.get_or_insert(now) + CALM,
            false => {
                self.issued_since = None;
                false
            }
        }
    }

    /// A report could not be sealed: later.
    pub(super) fn unsealed(&mut self, id: CampaignId) {
        self.sealing.remove(&id);
    }

    pub(super) fn next(&self) -> Option<Steady> {
        self.at
    }
}

impl Runner {
    /// Whether nothing holds up what the renewer does.
    fn tokens_are_issued(&self) -> bool {
        let gate = self.permits.gate();
        let renewer = [Operation::Issue, Operation::CreateWithToken];
        !renewer.iter().any(|operation| gate.is_probing(*operation))
    }

    pub(super) async fn follow(&mut self) -> Result<(), StoreError> {
        let (now, steady) = (self.clock.now(), self.clock.steady());
        if self.following.at.is_none_or(|at| at > steady) {
            return Ok(());
        }
        self.following.at = None;
        let calm = self.following.is_calm(self.tokens_are_issued(), steady);
        let mut again = None;
        for campaign in self.store.open_campaigns().await? {
            if !is_followed(&campaign) {
                continue;
            }
            again.get_or_insert(steady + EVERY);
            if campaign.state == CampaignState::Cancelled && campaign.pending > 0 {
                let (name, busy) = (&self.settings.name, &self.busy);
                let swept = self
                    .store
                    .sweep_cancelled(campaign.id, name, busy, CHUNK, now);
                if swept.await? {
                    again = Some(steady);
                }
            }
            let after = self.following.cursors.remove(&campaign.id);
            let followed = self
                .store
                .follow_items(campaign.id, after, CHUNK, calm, now);
            let Followed { next, moved } = followed.await?;
            if let Some(next) = next {
                self.following.cursors.insert(campaign.id, next);
                // Where some went on, the next may as well: nothing but the store sets their pace.
                if moved {
                    again = Some(steady);
                }
            }
        }
        self.following.at = again;
        self.seal_reports().await
    }

    async fn seal_reports(&mut self) -> Result<(), StoreError> {
        let ended = self.store.unsealed_reports().await?;
        self.following.sealing.retain(|id| ended.contains(id));
        for id in ended {
            if self.following.sealing.insert(id) {
                let (store, clock) = (self.store.clone(), self.clock.clone());
                self.tasks.spawn(seal(store, clock, id));
            }
        }
        Ok(())
    }
}

fn is_followed(campaign: &Campaign) -> bool {
    let stopped = campaign.state == CampaignState::Cancelled && campaign.pending > 0;
    stopped || campaign.acknowledged + campaign.delivering > 0
}

/// Hashes the lines of a report and notes it.
async fn seal(store: Store, clock: Clock, id: CampaignId) -> ItemDone {
    let result = match hashed(&store, id).await {
        Ok(sha256) => store.seal_report(id, sha256, clock.now()).await,
        Err(error) => Err(error),
    };
    ItemDone::Sealed(id, result)
}

/// SHA-256 of the report as JSON lines: what `renewd campaign report --format jsonl` prints.
async fn hashed(store: &Store, id: CampaignId) -> Result<String, StoreError> {
    let (mut hash, mut after) = (Sha256::new(), None);
    loop {
        let lines = store.campaign_report(id, after, false, CHUNK).await?;
        let Some(last) = lines.last() else {
            break;
        };
        after = Some(last.num);
        for line in &lines {
            // A line holds texts and times only: it can always be written.
            hash.update(serde_json::to_vec(line).unwrap_or_default());
            hash.update(b"\n");
        }
    }
    Ok(hex(hash.finalize()))
}
