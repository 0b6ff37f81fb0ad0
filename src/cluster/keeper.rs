//! Keeps the lease of this machine: the loop that asks the database.

use std::{convert::Infallible, time::Duration};

use jiff::SignedDuration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::tenure::{Move, RENEWED_EVERY, Reason, TRIED_AGAIN, Tenure};
use crate::{
    clock::{Clock, Lease},
    config::ClusterSettings,
    model::{Beat, ClusterStanding, DutySeen, NodeName, Role, Timestamp},
    schedule::Steady,
    store::{Store, StoreError},
};

/// An answer of the database is not waited for longer.
const ASKED_FOR: Duration = Duration::from_secs(3);
/// What works under a lease that is given up gets so long to end.
const ENDS_WITHIN: Duration = Duration::from_secs(9);
/// Those who wait for a lease to run out ask so much apart at most.
const APART_MS: u64 = 500;

/// Whether this machine leads, and the lease under which its parts work: one for each epoch.
#[derive(Debug, Clone)]
pub struct Charge {
    pub role: Role,
    pub lease: Lease,
}

impl Charge {
    /// Of a machine that shares its store with nobody.
    pub fn alone() -> Self {
        Self {
            role: Role::Leads { epoch: 0 },
            lease: Lease::unlimited(),
        }
    }

    /// Of a machine that does not lead.
    pub fn follower() -> Self {
        Self::none(None)
    }

    fn none(leader: Option<NodeName>) -> Self {
        Self {
            role: Role::Follows { leader },
            lease: Lease::over(),
        }
    }
}

/// What others see of a keeper, and tell it.
#[derive(Debug, Clone)]
pub struct LeaseHandle {
    pub charge: watch::Receiver<Charge>,
    pub standing: watch::Receiver<ClusterStanding>,
    /// Whether anything works under a lease of this machine.
    pub at_work: watch::Sender<bool>,
}

/// What a keeper works with.
#[derive(Debug, Clone)]
pub struct LeaseKeeperDeps {
    pub settings: ClusterSettings,
    pub store: Store,
    pub clock: Clock,
    /// Of the configuration, but for what differs between machines.
    pub digest: watch::Receiver<String>,
    /// Where this machine is asked.
    pub socket: String,
    /// How much it lacks to lead.
    pub lacks: watch::Receiver<u32>,
}

/// The loop that keeps the lease of this machine.
#[derive(Debug)]
pub struct LeaseKeeper {
    deps: LeaseKeeperDeps,
    tenure: Tenure,
    since: Timestamp,
    offset_ms: i64,
    /// When the database is asked again.
    ask_at: Steady,
    charge: watch::Sender<Charge>,
    standing: watch::Sender<ClusterStanding>,
    at_work: watch::Receiver<bool>,
    handle: LeaseHandle,
}

impl LeaseKeeper {
    pub fn new(deps: LeaseKeeperDeps) -> Self {
        let ClusterSettings { name, node, .. } = &deps.settings;
        let charge = watch::Sender::new(Charge::none(None));
        let standing = watch::Sender::new(ClusterStanding {
            cluster: name.clone(),
            node: node.clone(),
            role: Role::Follows { leader: None },
            heard_at: None,
            trouble: None,
            offset_ms: 0,
            calls_until: Duration::ZERO,
            lacks: 0,
            nodes: Vec::new(),
        });
        let (at_work, seen) = watch::channel(false);
        Self {
            tenure: Tenure::new(node.clone()),
            since: deps.clock.now(),
            offset_ms: 0,
            ask_at: Steady::ZERO,
            handle: LeaseHandle {
                charge: charge.subscribe(),
                standing: standing.subscribe(),
                at_work,
            },
            charge,
            standing,
            at_work: seen,
            deps,
        }
    }

    pub fn handle(&self) -> LeaseHandle {
        self.handle.clone()
    }

    /// Runs until `stop`, and gives the duty up then.
    ///
    /// # Errors
    /// Never: what fails is done again.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), Infallible> {
        loop {
            self.step().await;
            let rest = self.rest();
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                changed = self.deps.lacks.changed() => {
                    if changed.is_err() {
                        tokio::time::sleep(rest).await;
                    }
                }
                () = tokio::time::sleep(rest) => {}
            }
        }
        self.leave().await;
        Ok(())
    }

    /// Asks the database where it is time to, and does what follows from what is known.
    async fn step(&mut self) {
        self.tenure.lacks = *self.deps.lacks.borrow();
        if self.ask_at <= self.now() {
            self.beat().await;
        }
        match self.tenure.decide(self.now()) {
            Move::Stay => {}
            Move::TakeOver { had } => self.take(had).await,
            Move::Yield { epoch, why } => self.give_up(epoch, why).await,
        }
        self.publish();
    }

    fn now(&self) -> Steady {
        self.deps.clock.steady()
    }

    fn rest(&self) -> Duration {
        let now = self.now();
        let mut at = self.ask_at;
        if let Some(vacant) = self.tenure.vacant_at().filter(|vacant| *vacant > now) {
            at = at.min(vacant + self.apart());
        }
        at.saturating_sub(now).max(Duration::from_millis(1))
    }

    /// Machines that wait for the same moment do not all ask at once.
    fn apart(&self) -> Duration {
        let bytes = self.deps.settings.node.as_str().bytes();
        let sum = bytes.fold(7_u64, |sum, byte| sum.wrapping_mul(31) + u64::from(byte));
        Duration::from_millis(sum % APART_MS)
    }

    async fn beat(&mut self) {
        let (sent, wall) = (self.now(), self.deps.clock.now());
        let beat = Beat {
            node: self.deps.settings.node.clone(),
            since: self.since,
            epoch: self.tenure.epoch(),
            offset_ms: self.offset_ms,
            digest: self.deps.digest.borrow().clone(),
            socket: self.deps.socket.clone(),
            lacks: self.tenure.lacks,
        };
        match in_time(self.deps.store.beat(beat)).await {
            Ok(duty) => {
                let now = self.now();
                self.compare_clocks(duty.now, now.saturating_sub(sent));
                self.ask_at = sent + RENEWED_EVERY;
                self.deps.store.database_answers();
                self.heard(&duty);
                self.tenure.heard(sent, now, duty);
            }
            Err(why) => {
                self.deps.store.database_is_silent(&why, wall);
                self.not_heard(why);
            }
        }
    }

    /// The database's clock decides, so that what one machine writes is not ahead of another: it said `date` within the
    /// time that its answer `took`.
    fn compare_clocks(&mut self, date: Timestamp, took: Duration) {
        let clock = &self.deps.clock;
        let date = date.checked_add(took / 2).unwrap_or(date);
        if let Some(by) = clock.follow(date, took / 2) {
            tracing::warn!(
                "the clock of this node is off: time goes by the database's, which differs by {by:#}"
            );
        }
        let ms = |by: SignedDuration| i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        let ahead = clock.now().duration_since(date);
        self.deps.store.is_ahead(ms(ahead));
        self.offset_ms = ms(ahead + clock.wall_ahead());
    }

    async fn take(&mut self, had: Option<u64>) {
        let (sent, wall) = (self.now(), self.deps.clock.now());
        let node = &self.deps.settings.node;
        match in_time(self.deps.store.take_duty(node, had, wall)).await {
            Ok(duty) => {
                self.heard(&duty);
                self.tenure.took(sent, self.now(), duty);
            }
            Err(why) => self.not_heard(why),
        }
    }

    /// Lets another machine lead: what works under the lease ends first.
    async fn give_up(&mut self, epoch: u64, why: Reason) {
        let why = match why {
            Reason::Drained => "a person drained this node",
            Reason::CutOff => {
                "this node does not reach hosts of ACS, cannot write its files or cannot begin to lead, and another one lacks less"
            }
        };
        tracing::warn!(
            epoch,
            "this node stops leading, so that another one does: {why}"
        );
        self.end_work().await;
        let (node, now) = (&self.deps.settings.node, self.deps.clock.now());
        if let Err(why) = in_time(self.deps.store.yield_duty(node, epoch, why, now)).await {
            // The lease runs out by itself.
            self.not_heard(why);
        }
        self.tenure.let_go();
        self.ask_at = self.now() + TRIED_AGAIN;
    }

    /// No call begins any more, and what works under the lease ends.
    async fn end_work(&mut self) {
        self.charge.borrow().lease.end();
        let was_leading = self.charge.send_if_modified(|charge| {
            let leads = matches!(charge.role, Role::Leads { .. });
            *charge = Charge::none(None);
            leads
        });
        if was_leading {
            let ended = self.at_work.wait_for(|at_work| !at_work);
            tokio::time::timeout(ENDS_WITHIN, ended).await.ok();
        }
    }

    /// The end of this process: another machine may lead at once.
    async fn leave(mut self) {
        let (node, now) = (self.deps.settings.node.clone(), self.deps.clock.now());
        if let Some(epoch) = self.tenure.epoch() {
            self.end_work().await;
            let why = "this node ends";
            in_time(self.deps.store.yield_duty(&node, epoch, why, now))
                .await
                .ok();
        }
        in_time(self.deps.store.leave(&node)).await.ok();
    }

    fn heard(&mut self, duty: &DutySeen) {
        let now = self.deps.clock.now();
        let displaced = duty.displaced.then(|| {
            format!(
                "another process has joined as {}: give each machine a `node` of its own in [cluster]",
                self.deps.settings.node
            )
        });
        self.standing.send_modify(|standing| {
            if standing.trouble.is_some() && displaced.is_none() {
                tracing::info!("the database answers again");
            }
            standing.heard_at = Some(now);
            standing.trouble = displaced;
            standing.nodes.clone_from(&duty.nodes);
        });
    }

    fn not_heard(&mut self, why: String) {
        self.ask_at = self.now() + TRIED_AGAIN;
        self.standing.send_modify(|standing| {
            if standing.trouble.is_none() {
                tracing::warn!(
                    "the database does not answer, and nothing is obtained until it does: {why}"
                );
            }
            standing.trouble = Some(why);
        });
    }

    /// Says how it stands. The lease first: a call that looks at it sees what holds.
    fn publish(&mut self) {
        let role = self.tenure.role();
        let until = self.tenure.calls_until();
        let changed = self.charge.send_if_modified(|charge| {
            if charge.role == role {
                charge.lease.ends_at(until);
                return false;
            }
            charge.lease.end();
            *charge = match &role {
                Role::Leads { .. } => Charge {
                    role: role.clone(),
                    lease: Lease::over(),
                },
                Role::Follows { leader } => Charge::none(leader.clone()),
            };
            charge.lease.ends_at(until);
            true
        });
        if changed {
            match &role {
                Role::Leads { epoch } => tracing::info!(epoch, "this node leads"),
                Role::Follows { leader } => {
                    let leader = leader.as_ref().map_or("nobody", NodeName::as_str);
                    tracing::info!(leader, "this node follows");
                }
            }
        }
        let (offset_ms, lacks) = (self.offset_ms, self.tenure.lacks);
        self.standing.send_modify(|standing| {
            standing.role = role;
            standing.offset_ms = offset_ms;
            standing.calls_until = until;
            standing.lacks = lacks;
        });
    }
}

/// What the store answers, or why it did not.
async fn in_time<T>(answer: impl Future<Output = Result<T, StoreError>>) -> Result<T, String> {
    match tokio::time::timeout(ASKED_FOR, answer).await {
        // What was asked is not the point: nothing is answered.
        Ok(Err(StoreError::Away { reason, .. })) => Err(reason),
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {} s", ASKED_FOR.as_secs())),
    }
}
