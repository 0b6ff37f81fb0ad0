//! Looks at the store once per change, and hands what it finds to everybody who watches it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio_util::sync::CancellationToken;

use super::{
    super::{
        handle::Api,
        problem::{Problem, ProblemType},
    },
    event::Event,
    seat::{Interest, Seat},
};
use crate::{model::Name, store::Changed};

/// Identities that are read from the store at once.
const BATCH: usize = 64;
/// Names that are watched at once, each as often as it is: what watchers may take is counted by them.
pub(in crate::api) const MOST_WATCHED: usize = 96 * 1024;
/// Those of one user other than root.
const MOST_WATCHED_BY_USER: usize = 32 * 1024;

/// Everybody who watches.
#[derive(Debug, Clone, Default)]
pub(in crate::api) struct Hub {
    seats: Arc<Mutex<Seats>>,
}

#[derive(Debug, Default)]
struct Seats {
    last: u64,
    seats: BTreeMap<u64, Arc<Seat>>,
    by_name: BTreeMap<Name, BTreeSet<u64>>,
    everything: BTreeSet<u64>,
    /// What each user watches.
    weights: BTreeMap<u32, usize>,
}

/// A seat that is kept until dropped.
#[derive(Debug)]
pub(super) struct Ticket {
    hub: Hub,
    number: u64,
    uid: u32,
    interest: Interest,
    pub(super) seat: Arc<Seat>,
}

impl Hub {
    /// A seat for whatever changes from now on.
    ///
    /// # Errors
    /// When this user, or all together, watch as much as may be watched.
    pub(super) fn sit(&self, uid: u32, interest: Interest) -> Result<Ticket, Problem> {
        let mut seats = self.seats();
        let weight = interest.weight();
        seats.admit(uid, weight)?;
        seats.last += 1;
        let (number, seat) = (seats.last, Arc::new(Seat::default()));
        seats.seats.insert(number, Arc::clone(&seat));
        match &interest {
            Interest::All => {
                seats.everything.insert(number);
            }
            Interest::These(names) => {
                for name in names {
                    seats
                        .by_name
                        .entry(name.clone())
                        .or_default()
                        .insert(number);
                }
            }
        }
        drop(seats);
        Ok(Ticket {
            hub: self.clone(),
            number,
            uid,
            interest,
            seat,
        })
    }

    /// Serves the watchers until `stop`. It looks from this call on, not from the first poll, so
    /// that whoever sits down after the call misses nothing.
    pub(in crate::api) fn run(api: Api, stop: CancellationToken) -> impl Future<Output = ()> {
        let mut signal = api.store.wanted_signal();
        let mut seen = api.store.seq();
        async move {
            loop {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    changed = signal.changed() => if changed.is_err() { return },
                }
                // Read first: what is committed in between is looked at again, not missed.
                let newest = api.store.seq();
                match api.store.changes_after(seen) {
                    Some(changes) => api.hub.tell(&api, changes).await,
                    None => api.hub.lose_all(),
                }
                seen = newest;
            }
        }
    }

    /// Reads what changed and is watched, and leaves it at the seats.
    async fn tell(&self, api: &Api, changes: Vec<Changed>) {
        let mut newest: BTreeMap<Name, u64> = BTreeMap::new();
        for change in changes {
            if self.is_watched(&change.name) {
                newest.insert(change.name, change.seq);
            }
        }
        let names: Vec<Name> = newest.keys().cloned().collect();
        for batch in names.chunks(BATCH) {
            match api.store.holdings(batch.to_vec()).await {
                Ok(holdings) => {
                    for holding in holdings {
                        let seq = newest.get(&holding.record.spec.name).copied();
                        let event = api.event(holding, seq.unwrap_or(0));
                        self.leave(&Arc::new(event));
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "watchers cannot be told of a change; they read everything again");
                    self.lose_all();
                }
            }
        }
    }

    fn is_watched(&self, name: &Name) -> bool {
        let seats = self.seats();
        !seats.everything.is_empty() || seats.by_name.contains_key(name)
    }

    fn leave(&self, event: &Arc<Event>) {
        for seat in self.seats().of(&event.name) {
            seat.leave(event);
        }
    }

    fn lose_all(&self) {
        for seat in self.seats().seats.values() {
            seat.lose();
        }
    }

    fn seats(&self) -> MutexGuard<'_, Seats> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seats {
    /// Counts what a user watches more, within bounds.
    fn admit(&mut self, uid: u32, weight: usize) -> Result<(), Problem> {
        let refuse = |who: &str, most: usize| {
            let why = format!("{who} {most} names at once, which is the most; come again later");
            Err(Problem::new(ProblemType::Busy, why).retry_after(Duration::from_secs(5)))
        };
        let all: usize = self.weights.values().sum();
        let own = self.weights.get(&uid).copied().unwrap_or(0);
        if uid != 0 && own + weight > MOST_WATCHED_BY_USER {
            return refuse("this user watches", MOST_WATCHED_BY_USER);
        }
        if all + weight > MOST_WATCHED {
            return refuse("all users together watch", MOST_WATCHED);
        }
        self.weights.insert(uid, own + weight);
        Ok(())
    }

    fn of(&self, name: &Name) -> impl Iterator<Item = &Arc<Seat>> {
        let named = self.by_name.get(name).into_iter().flatten();
        let numbers = named.chain(&self.everything);
        numbers.filter_map(|number| self.seats.get(number))
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut seats = self.hub.seats();
        if let Some(own) = seats.weights.get_mut(&self.uid) {
            *own = own.saturating_sub(self.interest.weight());
            if *own == 0 {
                seats.weights.remove(&self.uid);
            }
        }
        seats.seats.remove(&self.number);
        seats.everything.remove(&self.number);
        if let Interest::These(names) = &self.interest {
            for name in names {
                if let Some(numbers) = seats.by_name.get_mut(name) {
                    numbers.remove(&self.number);
                    if numbers.is_empty() {
                        seats.by_name.remove(name);
                    }
                }
            }
        }
    }
}
