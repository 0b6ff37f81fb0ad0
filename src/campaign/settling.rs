//! Ended tasks, and noting in the store what became of their items.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::task::{Id, JoinError};

use super::{
    act::{Called, Done, Item, cause},
    line::NOBODY,
    outcome::{self, Verdict, judge},
    runner::Runner,
};
use crate::{
    model::{Notice, Num, Operation},
    schedule::{Finding, Steady, Ticket},
    store::{Campaign, CampaignId, Cause, ItemOutcome, StepOn, StoreError},
};

const SHORTEST_TROUBLE: Duration = Duration::from_millis(500);
const LONGEST_TROUBLE: Duration = Duration::from_secs(30);

/// What is done and not noted yet. While it cannot be noted, nothing more is done.
#[derive(Debug, Default)]
pub(super) struct Settling {
    campaigns: BTreeMap<CampaignId, Chunk>,
    trouble: Option<(Steady, Duration)>,
}

#[derive(Debug)]
struct Chunk {
    campaign: Arc<Campaign>,
    verdicts: Vec<(Num, Verdict)>,
}

/// What the store takes of verdicts, in one commit.
#[derive(Debug, Default)]
struct Commit {
    steps: Vec<StepOn>,
    outcomes: Vec<(Num, ItemOutcome)>,
    notices: Vec<Notice>,
}

impl Commit {
    fn of(verdicts: &[(Num, Verdict)]) -> Self {
        let mut commit = Self::default();
        for (num, verdict) in verdicts {
            commit.steps.extend(verdict.step.clone());
            commit.outcomes.push((*num, verdict.outcome.clone()));
            commit.notices.extend(verdict.notice.clone());
        }
        commit
    }
}

/// Whether time, or an operator, mends it; any other refusal is about what was to be written.
fn passes(error: &StoreError) -> bool {
    error.is_unwritable()
        || matches!(
            error,
            StoreError::Closed { .. } | StoreError::Corrupt { .. }
        )
}

impl Settling {
    pub(super) fn add(&mut self, item: &Item, verdict: Verdict) {
        let chunk = self
            .campaigns
            .entry(item.campaign.id)
            .or_insert_with(|| Chunk {
                campaign: item.campaign.clone(),
                verdicts: Vec::new(),
            });
        chunk.verdicts.push((item.item.num, verdict));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.campaigns.is_empty()
    }

    pub(super) fn count(&self) -> usize {
        self.campaigns
            .values()
            .map(|chunk| chunk.verdicts.len())
            .sum()
    }

    pub(super) fn failed(&mut self, error: &StoreError, now: Steady) {
        let gap = match self.trouble {
            Some((_, gap)) => (gap * 2).min(LONGEST_TROUBLE),
            None => {
                tracing::error!(%error, "campaigns wait until the store works");
                SHORTEST_TROUBLE
            }
        };
        self.trouble = Some((now + gap, gap));
    }

    pub(super) fn too_soon(&self, now: Steady) -> bool {
        self.trouble.is_some_and(|(at, _)| now < at)
    }

    pub(super) fn retry_at(&self) -> Option<Steady> {
        self.trouble.map(|(at, _)| at)
    }
}

impl Runner {
    /// Notes what was done: the step of each row, its item and its notice are one commit.
    pub(super) async fn settle(&mut self) -> Result<(), StoreError> {
        let now = self.clock.now();
        if !self.called.is_empty() {
            self.store.items_called(self.called.clone(), now).await?;
            self.called.clear();
        }
        while let Some((id, chunk)) = self.settling.campaigns.first_key_value() {
            let id = *id;
            let cause = cause(&chunk.campaign);
            match self.commit(id, &cause, &chunk.verdicts).await {
                Err(error) if passes(&error) => return Err(error),
                Err(error) => {
                    tracing::error!(campaign = id, %error, "results are noted one by one, because the store refuses one of them");
                    self.settle_singly(id, &cause).await?;
                }
                Ok(()) => {}
            }
            let Some(chunk) = self.settling.campaigns.remove(&id) else {
                return Ok(());
            };
            for (num, verdict) in &chunk.verdicts {
                self.busy.remove(num);
                match &verdict.outcome {
                    ItemOutcome::Retry { next_at, .. } => self.look_by(*next_at),
                    ItemOutcome::Unanswered { next_at, .. } => {
                        *self.unanswered.entry(*num).or_default() += 1;
                        self.look_by(*next_at);
                    }
                    ItemOutcome::Done { .. } | ItemOutcome::Failed { .. } => {
                        self.unanswered.remove(num);
                    }
                }
            }
            // Rows that were skipped because another campaign had them in hand.
            self.look_by(now);
            self.following.look_by(self.clock.steady());
        }
        if !self.excused.is_empty() {
            let (name, nums) = (&self.settings.name, self.excused.clone());
            self.store.excuse_items(name, nums).await?;
            self.excused.clear();
        }
        self.settling.trouble = None;
        Ok(())
    }

    async fn commit(
        &self,
        id: CampaignId,
        cause: &Cause,
        verdicts: &[(Num, Verdict)],
    ) -> Result<(), StoreError> {
        let Commit {
            steps,
            outcomes,
            notices,
        } = Commit::of(verdicts);
        let now = self.clock.now();
        let settled = self
            .store
            .settle_items(id, steps, cause, outcomes, notices, now);
        settled.await
    }

    /// Notes the results of a campaign one after the other. One that the store refuses by itself has
    /// failed, and says what was done; where even that is refused, it is left alone.
    async fn settle_singly(&mut self, id: CampaignId, cause: &Cause) -> Result<(), StoreError> {
        loop {
            let Some(chunk) = self.settling.campaigns.get_mut(&id) else {
                return Ok(());
            };
            let Some((num, verdict)) = chunk.verdicts.pop() else {
                return Ok(());
            };
            let one = [(num, verdict)];
            let error = match self.commit(id, cause, &one).await {
                Ok(()) => {
                    self.busy.remove(&num);
                    continue;
                }
                Err(error) => error,
            };
            let [(num, verdict)] = one;
            if passes(&error) {
                if let Some(chunk) = self.settling.campaigns.get_mut(&id) {
                    chunk.verdicts.push((num, verdict));
                }
                return Err(error);
            }
            let failed = [(num, outcome::unnoted(&verdict, &error.to_string()))];
            match self.commit(id, cause, &failed).await {
                Ok(()) => {
                    self.busy.remove(&num);
                }
                // It stays in hand, so that nothing is done twice.
                Err(error) => {
                    tracing::error!(campaign = id, row = num, %error, "a result of a campaign is set aside, because the store refuses it");
                }
            }
        }
    }

    /// A task has ended, or panicked.
    pub(super) fn on_task(&mut self, joined: Result<(Id, Done), JoinError>) {
        let (id, done) = match joined {
            Ok((id, done)) => (id, Some(done)),
            Err(error) => (error.id(), None),
        };
        if let Some(Done::Sealed(id, result)) = &done {
            return self.on_sealed(*id, result);
        }
        if let Some((operation, ticket)) = self.trials.remove(&id) {
            return self.on_tried_out(operation, ticket, done);
        }
        let Some(flight) = self.flights.remove(&id) else {
            return;
        };
        match (done, flight.call) {
            (Some(Done::Withheld(withheld)), _) => self.on_withheld(flight.item, withheld),
            (Some(Done::Called(called)), Some((operation, ticket))) => {
                self.on_called(&flight.item, operation, ticket, &called);
            }
            (_, call) => self.on_panic(&flight.item, call),
        }
    }

    fn on_withheld(&mut self, mut item: Item, withheld: Result<Vec<String>, StoreError>) {
        match withheld {
            Ok(unconfirmed) => {
                item.unconfirmed = unconfirmed;
                if item.item.id.is_some() {
                    self.line(Operation::Revoke).push(item);
                } else {
                    let verdict = outcome::stepped(&item, None, self.clock.now());
                    self.settling.add(&item, verdict);
                }
            }
            Err(error) if error.is_unwritable() || matches!(error, StoreError::Closed { .. }) => {
                self.busy.remove(&item.item.num);
                self.look_at = Some(self.clock.now());
                self.settling.failed(&error, self.clock.steady());
            }
            Err(error) => {
                // It is this row that the store refuses: the others do not wait for it.
                let now = self.clock.now();
                let verdict = outcome::not_withheld(&item, &error, now, &mut self.rng);
                self.log(&item, Operation::Revoke, &verdict);
                self.settling.add(&item, verdict);
            }
        }
    }

    fn on_called(&mut self, item: &Item, operation: Operation, ticket: Ticket, called: &Called) {
        let finding = self.learn(operation, ticket, called);
        match judge(item, operation, called, &finding, &mut self.rng) {
            Some(verdict) => {
                self.log(item, operation, &verdict);
                self.settling.add(item, verdict);
            }
            None => {
                // It is still pending; the gate says when it is tried again, after those that were not.
                let tried = Item {
                    tried: true,
                    ..item.clone()
                };
                self.line(operation).push(tried);
            }
        }
    }

    /// What an operation answered to nobody tells of it, not of any item.
    fn on_tried_out(&mut self, operation: Operation, ticket: Ticket, done: Option<Done>) {
        self.line(operation).tried_out();
        let steady = self.clock.steady();
        match done {
            Some(Done::TriedOut(called)) => {
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

    fn on_panic(&mut self, item: &Item, call: Option<(Operation, Ticket)>) {
        let (now, steady) = (self.clock.now(), self.clock.steady());
        tracing::error!(resource = %self.settings.name, identity = %item.item.label(), "an item of a campaign panicked");
        if let Some((_, ticket)) = call {
            self.permits.gate().abandoned(ticket, 1, steady);
        }
        let verdict = outcome::panicked(item, now, &mut self.rng);
        self.settling.add(item, verdict);
    }

    /// Takes from an ended call what it tells of the item and of the resource.
    fn learn(&mut self, operation: Operation, ticket: Ticket, called: &Called) -> Finding {
        let result = called
            .result
            .as_ref()
            .map_or_else(|failure| failure.class.as_str(), |_| "ok");
        self.metrics
            .call_ended(&self.settings.name, operation, result);
        let result = called.result.as_ref().map(|_| ());
        let finding = self
            .permits
            .gate()
            .ended(ticket, called.requests, result, self.moment());
        if finding.closed
            && let Err(failure) = &called.result
        {
            tracing::error!(resource = %self.settings.name, %operation, "only probes go out: {}", failure.message);
        }
        let excused = finding.excused.iter().filter(|num| **num != NOBODY);
        self.excused.extend(excused);
        finding
    }

    fn log(&self, item: &Item, operation: Operation, verdict: &Verdict) {
        let (resource, identity, campaign) =
            (&self.settings.name, item.item.label(), item.campaign.id);
        match &verdict.outcome {
            ItemOutcome::Done { request_id, .. } => {
                tracing::info!(%resource, %identity, campaign, %operation, request_id, "acknowledged");
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
