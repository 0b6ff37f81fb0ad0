//! Taking items into hand and starting what may start of them.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use jiff::Timestamp;

use super::{
    act::{self, Flight, Item},
    outcome::{self, Need, need},
    runner::Runner,
};
use crate::{
    model::{Num, Operation},
    schedule::{Press, Remaining, Steady, Ticket, awaiting, is_yielding, share_beside},
    store::{Campaign, CampaignState, Frozen, StoreError},
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
        let open = self.store.open_campaigns().await?;
        self.let_go_of_stopped(&open);
        if self.busy.len() >= self.most() {
            return Ok(());
        }
        self.look_at = None;
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
        let under_way = self.ready.len() + self.flights.len();
        let room = self
            .most()
            .saturating_sub(self.busy.len())
            .min(self.room_for(&campaign, waiting, under_way));
        if room == 0 {
            self.look_by(ahead(now, YIELD));
            return Ok(());
        }
        let (name, skip) = (&self.settings.name, &self.busy);
        let found = self.store.campaign_items(campaign.id, name, room, skip);
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
            self.take(Item {
                campaign: campaign.clone(),
                item,
                unconfirmed: Vec::new(),
            });
        }
        Ok(())
    }

    /// How many more items of a campaign may be begun: as many as tokens can follow.
    fn room_for(&self, campaign: &Campaign, waiting: usize, under_way: usize) -> usize {
        if campaign.urgent || !campaign.reissues() {
            return usize::MAX;
        }
        let awaited = usize::try_from(campaign.acknowledged).unwrap_or(usize::MAX);
        let limit = self.settings.limits.issue;
        let yields = is_yielding(waiting, self.settings.max_in_flight);
        awaiting(limit, yields).saturating_sub(awaited.saturating_add(under_way))
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
        let busy = &mut self.busy;
        self.ready.retain(|(item, _)| {
            let keep = runs(item.campaign.id);
            if !keep {
                busy.remove(&item.item.num);
            }
            keep
        });
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
                self.settling.add(&item, verdict);
            }
            Need::Refusal(why) => self.settling.add(&item, outcome::refused(why)),
            Need::Withhold => {
                let work = act::withhold(self.store.clone(), self.clock.clone(), item.clone());
                let task = self.tasks.spawn(work);
                self.flights.insert(task.id(), Flight { item, call: None });
            }
            Need::Call(operation) => self.ready.push_back((item, operation)),
        }
    }

    /// Starts calls, as many as keys, health and pace allow.
    pub(super) async fn start_calls(&mut self) -> Result<(), StoreError> {
        let mut shut = BTreeSet::new();
        let mut index = 0;
        while index < self.ready.len() {
            let (num, operation) = (self.ready[index].0.item.num, self.ready[index].1);
            let ticket = match shut.contains(&operation) {
                true => None,
                false => self.permit(operation, num).await?,
            };
            let Some(ticket) = ticket else {
                shut.insert(operation);
                index += 1;
                continue;
            };
            if let Some((item, operation)) = self.ready.remove(index) {
                self.launch(ticket, item, operation);
            }
        }
        Ok(())
    }

    /// Takes a permit for an item, where a call may start now.
    async fn permit(
        &mut self,
        operation: Operation,
        num: Num,
    ) -> Result<Option<Ticket>, StoreError> {
        let room = self
            .permits
            .gate()
            .room(operation, Remaining::Never, self.clock.steady());
        if room == 0 || self.calls_in_flight() >= self.settings.max_in_flight {
            return Ok(None);
        }
        let waiting = self.ready.len();
        self.permits
            .take(operation, num, Press::Ordinary, waiting)
            .await
    }

    fn launch(&mut self, ticket: Ticket, item: Item, operation: Operation) {
        let Some(id) = item.item.id.clone() else {
            // Only items with an id need a call.
            let steady = self.clock.steady();
            self.permits.gate().abandoned(ticket, 0, steady);
            return;
        };
        let work = act::call(self.client.clone(), self.clock.clone(), operation, id);
        let task = self.tasks.spawn(work);
        self.called.push((item.campaign.id, item.item.num));
        let call = Some((operation, ticket));
        self.flights.insert(task.id(), Flight { item, call });
    }

    pub(super) fn calls_in_flight(&self) -> usize {
        let calls = self.flights.values();
        calls.filter(|flight| flight.call.is_some()).count()
    }

    /// When items may be pending that can be taken.
    pub(super) fn next_look(&self, now: Timestamp, steady: Steady) -> Option<Steady> {
        if self.busy.len() >= self.most() {
            return None;
        }
        let wait = self.look_at?.duration_since(now);
        Some(steady + Duration::try_from(wait).unwrap_or_default())
    }

    /// When a call may start that could not now.
    pub(super) fn next_call(&mut self, steady: Steady) -> Option<Steady> {
        if self.ready.is_empty() {
            return None;
        }
        if self.calls_in_flight() >= self.settings.max_in_flight {
            return None;
        }
        let waits = |ready: &std::collections::VecDeque<(Item, Operation)>, operation| {
            ready
                .iter()
                .filter(|(_, wanted)| *wanted == operation)
                .count()
        };
        [Operation::Revoke, Operation::Delete]
            .into_iter()
            .filter_map(|operation| {
                let waiting = waits(&self.ready, operation);
                if waiting == 0 {
                    return None;
                }
                let urgency = (Press::Ordinary, Remaining::Never);
                let mut gate = self.permits.gate();
                gate.opens_at(operation, waiting, urgency, steady)
            })
            .min()
    }
}
