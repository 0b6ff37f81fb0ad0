//! Taking items into hand and starting what may start of them.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use jiff::Timestamp;

use super::{
    act::{self, Flight, Item},
    outcome::{self, Need, need},
    runner::Runner,
};
use crate::{
    model::Operation,
    schedule::{PERMITS_VALID, Steady},
    store::StoreError,
};

impl Runner {
    /// How many items are under way at once: some rounds' worth of calls.
    fn most(&self) -> usize {
        (4 * self.settings.max_in_flight).max(128)
    }

    /// Takes pending items of the oldest campaigns into hand, a chunk at a time.
    pub(super) async fn take_items(&mut self) -> Result<(), StoreError> {
        let now = self.clock.now();
        if self.look_at.is_none_or(|at| at > now) || self.busy.len() >= self.most() {
            return Ok(());
        }
        let mut next: Option<Timestamp> = None;
        for campaign in self.store.open_campaigns().await? {
            let campaign = Arc::new(campaign);
            let room = self.most().saturating_sub(self.busy.len());
            if room == 0 {
                next = Some(now);
                break;
            }
            let (name, skip) = (&self.settings.name, &self.busy);
            let items = self
                .store
                .campaign_items(campaign.id, name, room, skip)
                .await?;
            let full = items.len() == room;
            for item in items {
                if item.next_at > now {
                    next = Some(next.map_or(item.next_at, |at| at.min(item.next_at)));
                    break;
                }
                self.busy.insert(item.num);
                self.take(Item {
                    campaign: campaign.clone(),
                    item,
                    unconfirmed: Vec::new(),
                });
            }
            if full {
                next = Some(now);
            }
        }
        self.look_at = next;
        Ok(())
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
            let operation = self.ready[index].1;
            if shut.contains(&operation) || !self.may_call(operation).await? {
                shut.insert(operation);
                index += 1;
                continue;
            }
            if let Some((item, operation)) = self.ready.remove(index) {
                self.launch(item, operation);
            }
        }
        Ok(())
    }

    /// Whether one more call may start; takes its permit.
    async fn may_call(&mut self, operation: Operation) -> Result<bool, StoreError> {
        let (now, steady) = (self.clock.now(), self.clock.steady());
        let in_flight = self.calls_in_flight();
        let waiting = u32::try_from(self.ready.len()).unwrap_or(u32::MAX);
        let open = in_flight < self.settings.max_in_flight
            && self.keys.admits(in_flight, None, steady)
            && self.gate(operation).is_open(steady);
        if !open {
            return Ok(false);
        }
        let gate = self.gate(operation);
        if gate.pace.available(steady) == 0 {
            let permits = gate.pace.reservable(waiting, steady);
            if permits == 0 {
                return Ok(false);
            }
            let until = now.checked_add(PERMITS_VALID).unwrap_or(now);
            let name = &self.settings.name;
            let reserved = self.store.reserve(name, operation, permits, until, now);
            reserved.await?;
            let gate = self.gate(operation);
            gate.pace.reserved(permits, steady + PERMITS_VALID);
        }
        let steady = self.clock.steady();
        Ok(self.gate(operation).pace.start(steady))
    }

    fn launch(&mut self, item: Item, operation: Operation) {
        let steady = self.clock.steady();
        let gate = self.gate(operation);
        gate.in_flight += 1;
        let ticket = gate.health.start(steady);
        let Some(id) = item.item.id.clone() else {
            // Only items with an id need a call.
            return;
        };
        let work = act::call(self.client.clone(), self.clock.clone(), operation, id);
        let task = self.tasks.spawn(work);
        let call = Some((operation, ticket));
        self.flights.insert(task.id(), Flight { item, call });
    }

    pub(super) fn calls_in_flight(&self) -> usize {
        self.revoke.in_flight + self.delete.in_flight
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
        if let Some((until, _)) = self.keys.until(None) {
            return (self.calls_in_flight() == 0).then_some(until);
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
                self.gate(operation).ready_at(waiting, steady)
            })
            .min()
    }
}
