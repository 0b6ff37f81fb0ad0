//! Lets calls to ACS start: one gate per resource, shared by whoever calls, whose permits the store
//! knows of before they are used.
//!
//! Renewals, campaigns and proofs of access keys take their permits here, so that no call goes past
//! a pace, and what one of them learns of the resource holds for all.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::OnceCell;

use crate::{
    acs::{AccessKey, Client, Proof},
    clock::Clock,
    config::ResourceSettings,
    model::{KeyRole, Num, Operation, ResourceName},
    schedule::{Gate, Moment, Press, Ticket},
    store::{Store, StoreError},
    telemetry::Metrics,
};

/// How often a proof looks whether there is a permit for it.
const LOOK: Duration = Duration::from_millis(100);
/// Requests that a proof may have sent: it is signed again where the clock was wrong.
const PROOF_REQUESTS: u32 = 2;

/// Every operation that has a pace of its own.
const OPERATIONS: [Operation; 6] = [
    Operation::Issue,
    Operation::Create,
    Operation::CreateWithToken,
    Operation::Revoke,
    Operation::Delete,
    Operation::Exchange,
];

/// What every worker of one resource works with.
#[derive(Debug, Clone)]
pub struct ResourceDeps {
    pub settings: ResourceSettings,
    pub client: Arc<Client>,
    /// What lets its calls start.
    pub permits: Permits,
    pub store: Store,
    pub clock: Clock,
    /// Where calls and commits are counted.
    pub metrics: Metrics,
    /// Where chance starts: the same seed, the same run.
    pub seed: u64,
}

/// The shared gate of one resource.
#[derive(Debug, Clone)]
pub struct Permits(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    resource: ResourceName,
    /// Without a bearer no call starts, where it takes one.
    client: Arc<Client>,
    store: Store,
    clock: Clock,
    gate: Arc<Mutex<Gate>>,
    noting: tokio::sync::Mutex<()>,
    /// What an earlier process reserved is counted.
    restored: OnceCell<()>,
}

impl Permits {
    /// The permits of a resource. Its loops share one; another one is made only after they ended.
    pub fn new(
        settings: &ResourceSettings,
        client: Arc<Client>,
        store: Store,
        clock: Clock,
    ) -> Self {
        Self(Arc::new(Inner {
            resource: settings.name.clone(),
            client,
            store,
            clock,
            gate: Arc::new(Mutex::new(Gate::new(
                &settings.limits,
                settings.max_in_flight,
            ))),
            noting: tokio::sync::Mutex::default(),
            restored: OnceCell::new(),
        }))
    }

    /// The gate, for a moment.
    pub fn gate(&self) -> MutexGuard<'_, Gate> {
        let mut gate = self.0.gate.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bearers) = self.0.client.bearers() {
            gate.heed_bearer(bearers.hold());
        }
        gate
    }

    /// The gate itself, for whoever explains what it lets through: as it was when it was last used.
    pub fn shared_gate(&self) -> Arc<Mutex<Gate>> {
        self.0.gate.clone()
    }

    /// Takes a permit for a call that starts now, one of so many that wait; `None` where the pace
    /// allows none, or this machine does not lead. That the store notes it proves that the store can be written before ACS is called.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub async fn take(
        &self,
        operation: Operation,
        who: Num,
        press: Press,
        waiting: usize,
    ) -> Result<Option<Ticket>, StoreError> {
        if !self.0.client.may_call() {
            return Ok(None);
        }
        self.restore().await?;
        let start = || {
            let now = self.0.clock.steady();
            self.gate().start(operation, who, press, now)
        };
        match start() {
            None if self.reserve(operation, press, waiting).await? => Ok(start()),
            ticket => Ok(ticket),
        }
    }

    /// Notes the holds that 429s asked for, so that a restart waits as well.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn note_holds(&self) -> Result<(), StoreError> {
        for operation in OPERATIONS {
            let Some((until, thousandths)) = self.gate().pace(operation).unnoted_hold() else {
                continue;
            };
            let hold = (self.moment().wall_at(until), thousandths);
            let Inner {
                store, resource, ..
            } = &*self.0;
            store.note_hold(resource, operation, hold).await?;
            self.gate().pace(operation).hold_noted(until);
        }
        Ok(())
    }

    /// Proves one of the keys by a harmless signed call, within the pace of issuing; `None` where
    /// there is no such key.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub async fn prove(
        &self,
        client: &Client,
        role: KeyRole,
        deadline: Duration,
    ) -> Result<Option<Proof>, StoreError> {
        let proof = client.prove(role, deadline);
        Ok(self
            .within_pace(proof, deadline)
            .await?
            .unwrap_or_else(out_of_pace))
    }

    /// Proves the key that signs, or the bearer; `None` where there is no permit for that in time, or no bearer, which
    /// says nothing.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub async fn prove_in_use(
        &self,
        client: &Client,
        deadline: Duration,
    ) -> Result<Option<Proof>, StoreError> {
        let proof = client.prove_in_use(deadline);
        Ok(self.within_pace(proof, deadline).await?.flatten())
    }

    /// Proves a key that is not in place yet, such as a successor.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub async fn prove_new(
        &self,
        client: &Client,
        role: KeyRole,
        key: &AccessKey,
        deadline: Duration,
    ) -> Result<Proof, StoreError> {
        let proof = async { Some(client.prove_new(role, key, deadline).await) };
        let proved = self.within_pace(proof, deadline).await?;
        Ok(proved
            .unwrap_or_else(out_of_pace)
            .unwrap_or_else(|| Proof::Unknown(String::new())))
    }

    /// Makes a harmless call as soon as there is a permit for it; `None` where there is none in time.
    async fn within_pace<T>(
        &self,
        call: impl Future<Output = T>,
        deadline: Duration,
    ) -> Result<Option<T>, StoreError> {
        let clock = &self.0.clock;
        let ends = clock.steady() + deadline;
        loop {
            self.restore().await?;
            let reserved = self.0.client.may_call()
                && self.reserve(Operation::Issue, Press::Pressing, 1).await?;
            if reserved && self.gate().start_proof(clock.steady()) {
                break;
            }
            if clock.steady() >= ends {
                return Ok(None);
            }
            clock.sleep_until(clock.now() + LOOK).await;
        }
        let proof = Proving(self);
        let called = call.await;
        drop(proof);
        Ok(Some(called))
    }

    /// Sees that a permit is in hand, which the store knows of.
    async fn reserve(
        &self,
        operation: Operation,
        press: Press,
        waiting: usize,
    ) -> Result<bool, StoreError> {
        // What is noted takes the place of what was: one after the other.
        let _alone = self.0.noting.lock().await;
        let now = self.moment();
        let (permits, window) = {
            let mut gate = self.gate();
            let pace = gate.pace(operation);
            if pace.available(press, now.steady) > 0 {
                return Ok(true);
            }
            let waiting = u32::try_from(waiting).unwrap_or(u32::MAX);
            let permits = pace.reservable(waiting, press, now.steady);
            if permits == 0 {
                return Ok(false);
            }
            (permits, pace.noted(permits, now.steady))
        };
        let at = |ahead| now.wall.checked_add(ahead).unwrap_or(now.wall);
        let window = window.into_iter().map(|(calls, ahead)| (calls, at(ahead)));
        let Inner {
            store, resource, ..
        } = &*self.0;
        store.reserve(resource, operation, window.collect()).await?;
        self.gate().pace(operation).reserved(permits, now.steady);
        Ok(true)
    }

    /// Counts what an earlier process reserved, before anything is called; tried again until the
    /// store answers.
    async fn restore(&self) -> Result<(), StoreError> {
        let Inner {
            store,
            resource,
            restored,
            ..
        } = &*self.0;
        let counted = restored.get_or_try_init(|| async {
            let reservations = store.reservations(resource).await?;
            for operation in OPERATIONS {
                if let Some((until, thousandths)) = store.hold(resource, operation).await? {
                    let now = self.moment();
                    let ahead = until.duration_since(now.wall);
                    let mut gate = self.gate();
                    let pace = gate.pace(operation);
                    pace.restore_hold(ahead, thousandths, now.steady);
                }
            }
            let now = self.moment();
            let mut gate = self.gate();
            for (operation, permits, until) in reservations {
                let ahead = until.duration_since(now.wall);
                gate.pace(operation).restore(permits, ahead, now.steady);
            }
            Ok(())
        });
        counted.await.copied()
    }

    fn moment(&self) -> Moment {
        Moment {
            wall: self.0.clock.now(),
            steady: self.0.clock.steady(),
        }
    }
}

/// A proof that is on its way: however it ends, its permit is given back.
struct Proving<'a>(&'a Permits);

impl Drop for Proving<'_> {
    fn drop(&mut self) {
        let now = self.0.0.clock.steady();
        self.0.gate().end_proof(PROOF_REQUESTS, now);
    }
}

fn out_of_pace() -> Option<Proof> {
    Some(Proof::Unknown(
        "no call could be sent within the pace".to_owned(),
    ))
}
