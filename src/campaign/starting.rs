//! Taking items into hand and starting what may start of them.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;

use super::{
    act::{self, Flight, Item},
    line::{Line, NOBODY, Turn},
    outcome::{self, Need, need},
    runner::Runner,
};
use crate::{
    model::Operation,
    schedule::{Press, Remaining, Steady, Ticket, awaiting, is_yielding, share_beside},
    store::{Campaign, CampaignAction, CampaignState, Frozen, ItemNote, StoreError},
};

/// Rows looked at in one transaction while a selection is frozen.
const CHUNK: usize = 1000;
/// A campaign that yields to renewals looks again after this.
const YIELD: Duration = Duration::from_millis(250);

fn ahead(now: Timestamp, by: Duration) -> Timestamp {
    now.checked_add(by).unwrap_or(now)
}

impl Runner {
    /// How many items are under way at once: some rounds' worth of calls.
    fn most(&self) -> usize {
        (4 * self.settings.max_in_flight).max(128)
    }

    /// Takes pending items of the oldest campaigns into hand, a chunk at a time; urgent ones first.
    pub(super) async fn take_items(&mut self) -> Result<(), StoreError> {
        let now = self.clock.now();
        if self.look_at.is_none_or(|at| at > now) {
            return Ok(());
        }
        self.look_at = None;
        let open = self.store.open_campaigns().await?;
        self.let_go_of_stopped(&open);
        let waiting = self.waiting_renewals(&open, now).await?;
        for campaign in open {
            match campaign.state {
                CampaignState::Running => self.take_of(campaign, waiting, now).await?,
                CampaignState::Freezing => {
                    match self.store.freeze(campaign.id, CHUNK, now).await? {
                        Frozen::More | Frozen::Whole => self.look_by(now),
                        Frozen::Brought(ends) => self.look_by(ends),
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    async fn take_of(
        &mut self,
        campaign: Campaign,
        waiting: usize,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let campaign = Arc::new(campaign);
        // Those that failed before have a hand of their own: neither part keeps the other out.
        let (failing, fresh) = self.in_hand(&campaign);
        let room = (self.most() / 2).saturating_sub(failing);
        self.take_some(&campaign, true, room, now).await?;
        let under_way = self.lines.iter().map(Line::len).sum::<usize>() + self.flights.len();
        let may = self.room_for(&campaign, waiting, under_way).await?;
        if may == 0 {
            self.look_by(ahead(now, YIELD));
        }
        let room = self.most().saturating_sub(fresh).min(may);
        self.take_some(&campaign, false, room, now).await
    }

    async fn take_some(
        &mut self,
        campaign: &Arc<Campaign>,
        failing: bool,
        room: usize,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        if room == 0 {
            // Whatever ends makes room, and is followed by a look.
            return Ok(());
        }
        let (name, skip) = (&self.settings.name, &self.busy);
        let found = self
            .store
            .campaign_items(campaign.id, name, failing, room, skip);
        let items = found.await?;
        if items.len() == room {
            self.look_by(now);
        }
        for item in items {
            if item.next_at > now {
                self.look_by(item.next_at);
                break;
            }
            self.busy.insert(item.num);
            let unanswered = self.unanswered.get(&item.num).copied().unwrap_or(0);
            self.take(Item::new(campaign.clone(), item, unanswered));
        }
        Ok(())
    }

    /// How many items are in hand that compete with those of a campaign: those that failed before, and
    /// the others. What waits for another operation does not.
    fn in_hand(&self, campaign: &Campaign) -> (usize, usize) {
        let [revoke, delete] = &self.lines;
        let (own, other) = match campaign.action {
            CampaignAction::Delete => (delete, revoke),
            _ => (revoke, delete),
        };
        let calls = |operation| {
            let flights = self.flights.values();
            flights
                .filter(|flight| flight.call.as_ref().map(|call| call.0) == Some(operation))
                .count()
        };
        let others = other.len() + calls(other.operation);
        let all = self.busy.len().saturating_sub(others);
        (own.failing(), all.saturating_sub(own.failing()))
    }

    /// How many more items of a campaign may be begun: as many as tokens can follow. Those of identities
    /// that fail by themselves are not waited for.
    async fn room_for(
        &mut self,
        campaign: &Campaign,
        waiting: usize,
        under_way: usize,
    ) -> Result<usize, StoreError> {
        if campaign.urgent || !campaign.reissues() {
            return Ok(usize::MAX);
        }
        let awaited = usize::try_from(campaign.acknowledged).unwrap_or(usize::MAX);
        let name = &self.settings.name;
        let stuck = match awaited {
            0 => 0,
            _ => self.store.awaiting_failing(campaign.id, name).await?,
        };
        let limit = self.settings.limits.issue;
        let yields = is_yielding(waiting, self.settings.max_in_flight);
        let begun = awaited.saturating_sub(stuck).saturating_add(under_way);
        Ok(awaiting(limit, yields).saturating_sub(begun))
    }

    /// How many renewals wait beside campaigns that are to yield to them; sets their pace by it.
    async fn waiting_renewals(
        &mut self,
        open: &[Campaign],
        now: Timestamp,
    ) -> Result<usize, StoreError> {
        let yields = |one: &Campaign| one.reissues() && one.pending > 0;
        let mut running = open
            .iter()
            .filter(|one| one.state == CampaignState::Running && one.pending > 0);
        if !running.clone().any(yields) {
            self.permits.gate().pace(Operation::Revoke).cap(1.0);
            return Ok(0);
        }
        let most = 4 * self.settings.max_in_flight;
        let name = &self.settings.name;
        let waiting = self.store.waiting_renewals(name, most, now).await?;
        let limits = &self.settings.limits;
        // One that need not yield takes what it can.
        let free = running.any(|one| one.urgent || !one.reissues());
        let share = match is_yielding(waiting, self.settings.max_in_flight) && !free {
            true => share_beside(limits.issue, limits.revoke),
            false => 1.0,
        };
        self.permits.gate().pace(Operation::Revoke).cap(share);
        Ok(waiting)
    }

    /// Forgets items in hand of campaigns that were paused or cancelled, before they are begun.
    fn let_go_of_stopped(&mut self, open: &[Campaign]) {
        let runs = |id| {
            open.iter()
                .any(|one| one.id == id && one.state == CampaignState::Running)
        };
        for line in &mut self.lines {
            for num in line.let_go(runs) {
                self.busy.remove(&num);
            }
        }
    }

    /// Looks for items at this time at the latest.
    pub(super) fn look_by(&mut self, at: Timestamp) {
        self.look_at = Some(self.look_at.map_or(at, |look| look.min(at)));
    }

    fn take(&mut self, item: Item) {
        let now = self.clock.now();
        match need(&item) {
            Need::Step(step) => {
                let verdict = outcome::stepped(&item, step, now);
                self.note(&item, verdict);
            }
            Need::Refusal(why) => {
                let verdict = outcome::refused(&item, why, now);
                self.note(&item, verdict);
            }
            Need::Withhold => {
                let work = act::withhold(self.store.clone(), self.clock.clone(), item.clone());
                let task = self.tasks.spawn(work);
                self.flights.insert(task.id(), Flight { item, call: None });
            }
            Need::Call(operation) => self.line(operation).push(item),
        }
    }

    /// Starts calls, as many as keys, health and pace allow.
    pub(super) async fn start_calls(&mut self) -> Result<(), StoreError> {
        for operation in [Operation::Revoke, Operation::Delete] {
            while self.may_call(operation) {
                let turn = {
                    let (permits, now) = (self.permits.clone(), self.clock.steady());
                    let gate = permits.gate();
                    self.line(operation).next(&gate, now)
                };
                let Some(turn) = turn else { break };
                if !self.start(operation, turn).await? {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Whether one more call may start, pace aside.
    fn may_call(&mut self, operation: Operation) -> bool {
        let steady = self.clock.steady();
        self.line(operation).len() > 0
            && self.calls_in_flight() < self.settings.max_in_flight
            && self
                .permits
                .gate()
                .room(operation, Remaining::Never, steady)
                > 0
    }

    /// Takes the permit of a call and starts it; false where the pace allows none.
    async fn start(&mut self, operation: Operation, turn: Turn) -> Result<bool, StoreError> {
        let who = match &turn {
            Turn::Of(item) => item.item.num,
            Turn::Nobody => NOBODY,
        };
        let waiting = self.line(operation).len() + 1;
        let permit = self
            .permits
            .take(operation, who, Press::Ordinary, waiting)
            .await;
        match (permit, turn) {
            (Ok(Some(ticket)), turn) => {
                self.launch(ticket, operation, turn);
                Ok(true)
            }
            (other, turn) => {
                match turn {
                    Turn::Of(item) => self.line(operation).give_back(*item),
                    Turn::Nobody => self.line(operation).tried_out(),
                }
                other.map(|_| false)
            }
        }
    }

    fn launch(&mut self, ticket: Ticket, operation: Operation, turn: Turn) {
        let (client, clock) = (self.client.clone(), self.clock.clone());
        let Turn::Of(item) = turn else {
            let task = self.tasks.spawn(act::try_out(client, clock, operation));
            self.trials.insert(task.id(), (operation, ticket));
            return;
        };
        let Some(id) = item.item.id.clone() else {
            // Only items with an id need a call.
            let steady = self.clock.steady();
            self.permits.gate().abandoned(ticket, 0, steady);
            return;
        };
        let task = self.tasks.spawn(act::call(client, clock, operation, id));
        let called = ItemNote::Called(item.campaign.id, item.item.num);
        self.outbox.add(called);
        let call = Some((operation, ticket));
        self.flights.insert(task.id(), Flight { item: *item, call });
    }

    pub(super) fn calls_in_flight(&self) -> usize {
        let calls = self.flights.values();
        calls.filter(|flight| flight.call.is_some()).count() + self.trials.len()
    }

    /// When items may be pending that can be taken.
    pub(super) fn next_look(&self, now: Timestamp, steady: Steady) -> Option<Steady> {
        let wait = self.look_at?.duration_since(now);
        Some(steady + Duration::try_from(wait).unwrap_or_default())
    }

    /// When a call may start that could not now.
    pub(super) fn next_call(&mut self, steady: Steady) -> Option<Steady> {
        if self.calls_in_flight() >= self.settings.max_in_flight {
            return None;
        }
        let mut gate = self.permits.gate();
        let waiting = self.lines.iter().filter(|line| line.len() > 0);
        waiting
            .filter_map(|line| {
                let urgency = (Press::Ordinary, Remaining::Never);
                gate.opens_at(line.operation, line.len(), urgency, steady)
            })
            .min()
    }
}
