//! One look at the whole daemon: what status, readiness and metrics are made of.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};

use super::{
    away,
    handle::{Api, Unbound},
    needs::{Late, Observed, needs},
    news::news,
    orders,
    readiness::{Readiness, StoreReadiness, readiness},
    shared_state::SharedState,
    wire::{Need, NeedKind, Nodes, PublicResource, PublicSink, PublicStatus, Status},
};
use crate::{
    model::{
        Counts, CreationsWaiting, DatabaseAway, DispatcherView, GoneHeld, HealthView, JobName,
        KeyChange, Name, Notice, NoticeKind, RenewerView, ResourceName, SelfCheckFindings, Served,
        SinkAt, State, Tokens, decided_lately, service_time, short_duration,
    },
    schedule::{Alarm, Facts, Grounds, alarms, state},
    store::{
        Disk, DiskRoom, FailingAlone, ItemState, JobRan, Order, Resealing, Store, StoreError,
        Withheld,
    },
    telemetry::{self, JobTimes, Scrape, StoreHealth},
};

/// How many late identities of a resource are named.
const NAMED: usize = 20;
/// What is withdrawn reaches its sinks at once; what has not after so long is told.
const WITHHELD_FOR: SignedDuration = SignedDuration::from_secs(5);

/// What the store says of something, or why it says nothing.
type Answer<T> = Result<T, StoreError>;

/// The daemon at one instant.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub now: Timestamp,
    pub shared_state: Arc<SharedState>,
    pub renewers: BTreeMap<ResourceName, RenewerView>,
    pub dispatchers: BTreeMap<SinkAt, DispatcherView>,
    /// The same instant on the clock that never steps.
    pub steady: Duration,
    pub held_step: Option<SignedDuration>,
    pub disk: Disk,
    pub room: DiskRoom,
    /// The TCP address that is refused.
    pub unbound: Option<Unbound>,
    pub self_check: SelfCheckFindings,
    /// The database, while it is away.
    pub away: Option<DatabaseAway>,
    pub stored: StoreAnswers,
}

/// What only the store knows, each by itself: what cannot be read leaves the rest standing.
#[derive(Debug)]
pub(super) struct StoreAnswers {
    pub counts: Answer<Counts>,
    pub late: Answer<BTreeMap<ResourceName, Late>>,
    /// Identities that fail by themselves, by resource.
    pub failing: Answer<BTreeMap<ResourceName, FailingAlone>>,
    pub served: Answer<Served>,
    pub gone: Answer<Vec<GoneHeld>>,
    pub creations: Answer<Vec<CreationsWaiting>>,
    pub orders: Answer<Vec<Order>>,
    pub resealing: Answer<Resealing>,
    /// What is withdrawn and has not reached a sink.
    pub withheld: Answer<Vec<Withheld>>,
    /// Some of those who hold no live token, by what serves them.
    pub lacking: BTreeMap<String, Vec<Name>>,
    pub key_changes: Answer<Vec<KeyChange>>,
    /// Where this machine does not lead, what is told and not over.
    pub told: Answer<BTreeMap<String, NoticeKind>>,
    /// Sinks that other machines of the cluster serve.
    pub beside: Answer<BTreeMap<SinkAt, DispatcherView>>,
    pub last_backup: Answer<Option<Timestamp>>,
    /// Read where it is worth its price.
    pub earliest_expiry: Answer<BTreeMap<ResourceName, Timestamp>>,
    /// Since when the oldest overdue renewal of each resource is overdue; the same.
    pub overdue_since: Answer<BTreeMap<ResourceName, Timestamp>>,
    /// Items of campaigns that are not over, and how jobs went; the same.
    pub items: Answer<BTreeMap<ItemState, u64>>,
    pub jobs: Answer<Vec<JobRan>>,
}

impl StoreAnswers {
    /// Why something of it is not known.
    fn trouble(&self) -> Option<String> {
        let errors = [
            self.counts.as_ref().err(),
            self.served.as_ref().err(),
            self.late.as_ref().err(),
            self.failing.as_ref().err(),
            self.gone.as_ref().err(),
            self.creations.as_ref().err(),
            self.orders.as_ref().err(),
            self.resealing.as_ref().err(),
            self.withheld.as_ref().err(),
            self.key_changes.as_ref().err(),
            self.told.as_ref().err(),
            self.beside.as_ref().err(),
            self.last_backup.as_ref().err(),
            self.earliest_expiry.as_ref().err(),
            self.overdue_since.as_ref().err(),
            self.items.as_ref().err(),
            self.jobs.as_ref().err(),
        ];
        errors.into_iter().flatten().next().map(ToString::to_string)
    }
}

impl Snapshot {
    /// Looks now at everything.
    pub(super) async fn take(api: &Api) -> Self {
        let mut snapshot = Self::glance(api).await;
        let now = snapshot.now;
        snapshot.stored.earliest_expiry = api.store.earliest_expiry().await;
        snapshot.stored.overdue_since = api.store.overdue_since(now).await;
        snapshot.stored.items = api.store.open_items().await;
        let service = service_time(&snapshot.renewers, now);
        match (
            &mut snapshot.stored.served,
            api.store.doubtful_held(service).await,
        ) {
            (Ok(served), Ok((sinks, socket))) => {
                served.socket.doubtful = socket;
                for (sink, doubtful) in sinks {
                    if let Some(one) = served.sinks.get_mut(&sink) {
                        one.doubtful = doubtful.min(one.live);
                    }
                }
            }
            (served, Err(error)) => *served = Err(error),
            (Err(_), Ok(_)) => {}
        }
        match (
            &mut snapshot.stored.served,
            api.store.next_end_by_socket(now).await,
        ) {
            (Ok(served), Ok(next)) => {
                served.socket.next_end = next.map(|(end, _)| end);
                served.socket.next_life_secs = next.and_then(|(_, life)| life);
            }
            (served, Err(error)) => *served = Err(error),
            (Err(_), Ok(_)) => {}
        }
        snapshot
    }

    /// Looks now at what costs the same however many identities there are, which leaves the
    /// earliest expiry out: enough for a probe that comes every second.
    pub(super) async fn glance(api: &Api) -> Self {
        let now = api.clock.now();
        let shared_state = api.shared_state();
        let unbound = api.unbound.borrow().clone();
        let renewers = shared_state.renewer_views();
        let self_check = SelfCheckFindings {
            socket: api.socket.borrow().clone(),
            reload: shared_state.reload_refused.clone(),
            store: shared_state.store_moved.borrow().clone(),
            withdrawn_copy: api.store.copy_trouble(),
            map: api.store.map_trouble(),
            withdrawn: api.store.withdrawn_trouble(),
            mirror: api.store.mirror_trouble(),
            map_aside: api.store.map_aside(),
            seal_key_gone: api.store.seal_key_gone(),
            not_taken: shared_state.not_taken.clone(),
        };
        Self {
            now,
            dispatchers: shared_state.dispatcher_views(),
            steady: api.clock.steady(),
            held_step: api.clock.held_step(),
            disk: api.store.disk(),
            room: api.store.room(),
            unbound,
            self_check,
            away: api.store.away(),
            stored: stored(api, &renewers, now).await,
            renewers,
            shared_state,
        }
    }

    /// Whether the daemon is ready, and what is not.
    pub(super) fn readiness(&self) -> Readiness {
        readiness(
            self.shared_state.life,
            self.store_readiness(),
            &self.renewers,
            &self.shared_state.runner_decisions(),
            &self.dispatchers,
            self.now,
        )
        .beside(self.remarks())
    }

    /// Whether the store does what it is there for.
    fn store_readiness(&self) -> StoreReadiness {
        let failed =
            |why: Option<String>| why.map_or(StoreReadiness::Ready, StoreReadiness::Failed);
        match (self.shared_state.standing.refusal(), &self.away) {
            (None, Some(away)) => {
                let why = away::told(away, self.now);
                match away.mirror_of {
                    Some(_) => StoreReadiness::Degraded(why),
                    None => failed(Some(why)),
                }
            }
            (None, None) => failed(self.store_fault()),
            (refusal, _) => failed(refusal),
        }
    }

    /// Why the store cannot be read or written.
    fn store_fault(&self) -> Option<String> {
        let full = (self.disk == Disk::Full).then(|| {
            "it cannot be written: its disk is full and the reserve is used up".to_owned()
        });
        let blocked = self
            .renewers
            .values()
            .find_map(|renewer| renewer.blocked.clone());
        self.stored
            .trouble()
            .or(full)
            .or(blocked.map(|why| format!("it cannot be written: {why}")))
    }

    /// The kinds of what does not work although every loop decides; a probe is told no more than that.
    fn remarks(&self) -> Option<String> {
        let needs = self.needs();
        let grave = needs.iter().filter(|need| need.kind.is_grave());
        let kinds: BTreeSet<String> = grave.map(|need| need.kind.as_word()).collect();
        let kinds: Vec<String> = kinds.into_iter().collect();
        (!kinds.is_empty()).then(|| format!("{}: see `renewd status`", kinds.join(", ")))
    }

    /// For `/metrics`.
    pub(super) fn scrape(&self) -> Scrape {
        let shared_state = &self.shared_state;
        let kinds = NeedKind::ALL.iter().map(|kind| (kind.as_word(), 0));
        let mut needs: BTreeMap<String, u64> = kinds.collect();
        for need in self.needs() {
            *needs.entry(need.kind.as_word()).or_default() += 1;
        }
        let since = shared_state.life.since;
        let loops = shared_state.decisions().into_iter();
        Scrape {
            now: self.now,
            since,
            renewers: self.renewers.clone(),
            lifetimes: self.lifetimes(),
            dispatchers: self.dispatchers.clone(),
            sources: shared_state.source_views(),
            trusted: shared_state.trusted.borrow().clone(),
            loops: loops
                .map(|(name, decided)| (name, decided.unwrap_or(since)))
                .collect(),
            configured: (
                shared_state.configured_at,
                shared_state.reload_refused.is_none(),
            ),
            needs,
            held_step: self.held_step,
            cluster: shared_state.cluster_standing().map(|standing| {
                let left = standing.calls_until.saturating_sub(self.steady);
                (standing, left)
            }),
            store: self.store_health(),
            stored: self.told_by_store(),
        }
    }

    /// The shortest life that the configuration asks for tokens of each resource.
    fn lifetimes(&self) -> BTreeMap<ResourceName, u64> {
        let usual = self.shared_state.renewal.lifetime;
        let lifetimes = self.renewers.keys().map(|resource| {
            let declared = self.shared_state.declared.get(resource);
            let cohorts = declared.into_iter().flat_map(|declared| &declared.cohorts);
            let shortest = cohorts.map(|cohort| cohort.lifetime).chain([usual]).min();
            (resource.clone(), shortest.unwrap_or(usual).as_secs())
        });
        lifetimes.collect()
    }

    fn store_health(&self) -> StoreHealth {
        StoreHealth {
            up: self.store_fault().is_none(),
            readable: self.stored.counts.is_ok() && self.stored.served.is_ok(),
            standing: self.shared_state.standing.clone(),
            away: self.away.clone(),
            taken: self.room.taken,
            free: self.room.free,
        }
    }

    /// What the store says, each by itself.
    fn told_by_store(&self) -> telemetry::Stored {
        let stored = &self.stored;
        let late = stored.late.as_ref().ok();
        let orders = stored.orders.as_ref().ok();
        let items = stored.items.as_ref().ok();
        telemetry::Stored {
            counts: stored.counts.as_ref().ok().cloned(),
            served: stored.served.as_ref().ok().cloned(),
            late: late.map(|late| {
                let counts = late.iter();
                counts
                    .map(|(name, late)| (name.clone(), late.count))
                    .collect()
            }),
            tokens: self.known_tokens(),
            earliest_expiry: stored.earliest_expiry.as_ref().ok().cloned(),
            overdue_since: stored.overdue_since.as_ref().ok().cloned(),
            items: items.map(|items| items.iter().map(|(s, n)| (s.as_str(), *n)).collect()),
            withdrawal_due: orders
                .map(|orders| orders::withdrawal_due(orders, &self.shared_state.declared)),
            jobs: stored.jobs.as_ref().ok().map(|ran| self.jobs(ran)),
            last_backup: stored.last_backup.as_ref().ok().copied(),
        }
    }

    /// How each configured job went.
    fn jobs(&self, ran: &[JobRan]) -> BTreeMap<JobName, JobTimes> {
        let jobs = self.shared_state.jobs.iter().map(|job| {
            let ran = ran.iter().find(|ran| ran.job == job.name);
            let times = JobTimes {
                ran: ran.map(|ran| ran.last),
                succeeded: ran.and_then(|ran| ran.succeeded),
            };
            (job.name.clone(), times)
        });
        jobs.collect()
    }

    /// How the tokens of each resource stand; nothing where that is not known.
    fn tokens(&self) -> BTreeMap<ResourceName, Tokens> {
        self.known_tokens().unwrap_or_default()
    }

    fn known_tokens(&self) -> Option<BTreeMap<ResourceName, Tokens>> {
        let counts = self.stored.counts.as_ref().ok()?;
        let served = self.stored.served.as_ref().ok()?;
        let keys = self.shared_state.key_views();
        let tokens = self.shared_state.resources().map(|resource| {
            let doubts = keys.get(resource).into_iter().flat_map(|keys| &keys.doubts);
            let doubtful = doubts.map(|doubt| doubt.tokens).sum();
            (resource.clone(), counts.tokens(resource, served, doubtful))
        });
        Some(tokens.collect())
    }

    pub(super) fn status(self) -> Status {
        let ready = self.readiness().ready;
        let (needs, tokens) = (self.needs(), self.tokens());
        Status {
            at: self.now,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            instance: self.shared_state.daemon.instance.clone(),
            since: self.shared_state.life.since,
            ready,
            needs,
            brought_up: self.shared_state.brought_up.clone(),
            database: self.away,
            tokens,
            consumers: self.stored.served.ok(),
            counts: self.stored.counts.ok(),
            earliest_expiry: self.stored.earliest_expiry.unwrap_or_default(),
            renewers: self.renewers,
            dispatchers: self.dispatchers,
            beside: self.stored.beside.unwrap_or_default(),
            behind: Vec::new(),
            last_backup: self.stored.last_backup.unwrap_or_default(),
            cluster: self
                .shared_state
                .cluster_standing()
                .map(|one| Nodes::of(one, self.now)),
            held_step_ms: self
                .held_step
                .map(|step| step.as_millis().try_into().unwrap_or(i64::MAX)),
        }
    }

    /// For anybody who can reach the TCP listener: without names of identities unless they were
    /// allowed, and without the texts of errors, which may quote what a receiver answered.
    pub(super) fn public(&self) -> PublicStatus {
        let ready = self.readiness().ready;
        let mut needs = self.needs();
        for need in &mut needs {
            need.because = None;
            if !self.shared_state.daemon.page_names {
                need.names.clear();
                need.command = None;
            }
        }
        let stored = &self.stored;
        PublicStatus {
            at: self.now,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            instance: self.shared_state.daemon.instance.clone(),
            since: self.shared_state.life.since,
            ready,
            needs,
            consumers: stored.served.as_ref().ok().map(Served::all),
            resources: self
                .renewers
                .iter()
                .map(|(name, renewer)| resource(name, renewer, stored, self.now))
                .collect(),
            sinks: self
                .sinks()
                .map(|(name, dispatcher)| sink(name, dispatcher, stored))
                .collect(),
        }
    }

    /// The sinks that are served here, then those that other machines serve.
    pub(super) fn sinks(&self) -> impl Iterator<Item = (&SinkAt, &DispatcherView)> {
        let beside = self.stored.beside.iter().flatten();
        self.dispatchers.iter().chain(beside)
    }

    /// What wakes a person.
    fn alarms(&self) -> Vec<Alarm> {
        let (shared_state, stored) = (&self.shared_state, &self.stored);
        let since = shared_state.life.since;
        let decisions = shared_state.decisions().into_iter();
        let still = decisions.filter(|(_, at)| !decided_lately(*at, since, self.now));
        let consumers = stored.served.as_ref().ok().map(|served| {
            let sinks = served.sinks.iter();
            let sinks = sinks.map(|(sink, held)| (sink.as_str(), *held));
            sinks.chain([("socket", served.socket)]).collect()
        });
        let orders = stored.orders.as_ref().ok();
        let facts = Facts {
            standing: &shared_state.standing,
            consumers,
            withdrawal_due: orders
                .map(|orders| orders::withdrawal_due(orders, &shared_state.declared)),
            still: still.map(|(name, _)| name).collect(),
        };
        alarms(&facts, self.now)
    }

    /// What needs a person.
    pub(super) fn needs(&self) -> Vec<Need> {
        self.known(needs)
    }

    /// The notices that are due, given what was told and is not told to be over.
    pub(super) fn news(&self, open: &BTreeMap<String, NoticeKind>) -> Vec<Notice> {
        self.known(|known| news(known, &needs(known), open))
    }

    /// One line for the service manager: what needs a person first.
    pub(super) fn headline(&self) -> String {
        let mut parts: Vec<String> = Vec::new();
        let needs = self.needs();
        if let Some(need) = needs.first() {
            let because = need.because.as_ref();
            let because = because.map_or(String::new(), |because| format!(" ({because})"));
            parts.push(format!("{}: {}{because}", need.subject, need.message));
            if needs.len() > 1 {
                parts.push(format!("{} more need a person", needs.len() - 1));
            }
        }
        parts.push(match &self.stored.served {
            Ok(served) => {
                let all = served.all();
                format!(
                    "{} of {} consumers hold a live token",
                    all.live,
                    all.total()
                )
            }
            Err(_) => "it is not known who holds a live token".to_owned(),
        });
        if let Ok(counts) = &self.stored.counts {
            let pending: u64 = counts.pending.values().sum();
            if pending > 0 {
                parts.push(format!("{pending} deliveries pending"));
            }
        }
        if let Some(next) = self
            .renewers
            .values()
            .filter_map(|renewer| renewer.next_due)
            .min()
        {
            let wait = next.duration_since(self.now).try_into().unwrap_or_default();
            parts.push(format!("next renewal in {}", short_duration(wait)));
        }
        parts.join(", ")
    }

    /// Hands everything that is known to a decision.
    fn known<T>(&self, decide: impl FnOnce(&Observed<'_>) -> T) -> T {
        let (counts, late, failing) = (Counts::default(), BTreeMap::new(), BTreeMap::new());
        let (none_beside, none_told) = (BTreeMap::new(), BTreeMap::new());
        let stored = &self.stored;
        // While the database is away that is said instead.
        let trouble = stored.trouble().filter(|_| self.away.is_none());
        decide(&Observed {
            standing: &self.shared_state.standing,
            now: self.now,
            since: self.shared_state.life.since,
            renewers: &self.renewers,
            dispatchers: &self.dispatchers,
            beside: stored.beside.as_ref().unwrap_or(&none_beside),
            counts: stored.counts.as_ref().unwrap_or(&counts),
            served: stored.served.as_ref().ok(),
            lacking: &stored.lacking,
            key_changes: stored.key_changes.as_deref().unwrap_or_default(),
            away: self.away.as_ref(),
            unreadable: trouble.as_deref(),
            self_check: &self.self_check,
            late: stored.late.as_ref().unwrap_or(&late),
            failing: stored.failing.as_ref().unwrap_or(&failing),
            keys: &self.shared_state.key_views(),
            orders: stored.orders.as_deref().unwrap_or_default(),
            resealing: stored.resealing.as_ref().ok(),
            withheld: stored.withheld.as_deref().unwrap_or_default(),
            gone: stored.gone.as_deref().unwrap_or_default(),
            creations: stored.creations.as_deref().unwrap_or_default(),
            jobs: stored.jobs.as_deref().unwrap_or_default(),
            configured_jobs: &self.shared_state.jobs,
            lapses: &self.shared_state.lapses(),
            trusted: &self.shared_state.trusted.borrow().clone(),
            held_step_secs: self.held_step.map(|step| step.as_secs()),
            disk: self.disk,
            unbound: self.unbound.as_ref(),
            configured: &self.shared_state.resources().cloned().collect(),
            told: stored.told.as_ref().unwrap_or(&none_told),
            cluster: self.shared_state.cluster_standing().as_ref(),
        })
    }
}

impl Api {
    /// What wakes a person at the moment.
    pub async fn alarms(&self) -> Vec<Alarm> {
        Snapshot::take(self).await.alarms()
    }

    /// One line for the service manager: what needs a person first.
    pub async fn headline(&self) -> String {
        Snapshot::glance(self).await.headline()
    }

    /// The notices that are due, given what was told and is not told to be over, by key.
    pub async fn news(&self, open: &BTreeMap<String, NoticeKind>) -> Vec<Notice> {
        let shared_state = self.shared_state();
        if shared_state.follows() || shared_state.standing.refusal().is_some() {
            // Nothing is written to a store that may not be used; of a cluster one machine tells.
            return Vec::new();
        }
        Snapshot::glance(self).await.news(open)
    }
}

fn resource(
    name: &ResourceName,
    renewer: &RenewerView,
    stored: &StoreAnswers,
    now: Timestamp,
) -> PublicResource {
    let counts = stored.counts.as_ref().ok();
    let standing = counts
        .zip(stored.served.as_ref().ok())
        .map(|(counts, served)| counts.standing(name, served));
    PublicResource {
        name: name.clone(),
        health: health(renewer, now),
        dead: standing.as_ref().map(|standing| standing.dead),
        identities: standing.map(|standing| standing.states).unwrap_or_default(),
        earliest_expiry: stored
            .earliest_expiry
            .as_ref()
            .ok()
            .and_then(|ends| ends.get(name).copied()),
        next_due: renewer.next_due,
        in_flight: renewer.in_flight,
    }
}

/// The worst of a renewer's operations in a few words.
fn health(renewer: &RenewerView, now: Timestamp) -> String {
    let ago =
        |since: Timestamp| short_duration(now.duration_since(since).try_into().unwrap_or_default());
    let mut words = "open".to_owned();
    for (operation, health) in &renewer.health {
        match health {
            HealthView::Probing { since, .. } => {
                return format!("no answer to {operation} for {}", ago(*since));
            }
            HealthView::Held { until, .. } if now < *until => {
                let left = until.duration_since(now).try_into().unwrap_or_default();
                words = format!("{operation} waits for {}", short_duration(left));
            }
            HealthView::Held { .. } | HealthView::Open => {}
        }
    }
    match renewer.blocked {
        Some(_) => "blocked".to_owned(),
        None => words,
    }
}

fn sink(name: &SinkAt, dispatcher: &DispatcherView, stored: &StoreAnswers) -> PublicSink {
    let trouble = match dispatcher {
        DispatcherView {
            disabled: Some(_), ..
        } => Some("disabled".to_owned()),
        DispatcherView {
            failures_in_row: 0, ..
        } => None,
        failing => Some(format!("{} failures in a row", failing.failures_in_row)),
    };
    PublicSink {
        name: name.clone(),
        pending: stored
            .counts
            .as_ref()
            .ok()
            .map(|counts| counts.pending.get(name).copied().unwrap_or(0)),
        delivered: dispatcher.delivered,
        failed: dispatcher.failed,
        trouble,
    }
}

async fn stored(
    api: &Api,
    renewers: &BTreeMap<ResourceName, RenewerView>,
    now: Timestamp,
) -> StoreAnswers {
    let service = service_time(renewers, now);
    let store = &api.store;
    let served = store.served(service).await;
    let without = served.as_ref().map_or(0, |served| served.all().without);
    api.lacking.store(without, Ordering::Relaxed);
    StoreAnswers {
        counts: store.counts().await,
        late: late(store, renewers, now).await,
        failing: store.failing_alone(NAMED).await,
        lacking: match &served {
            // Without names the number still stands.
            Ok(served) if served.all().without > 0 => {
                store.lacking(service, NAMED).await.unwrap_or_default()
            }
            _ => BTreeMap::new(),
        },
        served,
        gone: store.held_gone().await,
        creations: store.creations_waiting().await,
        orders: store.orders(now).await,
        resealing: store.resealing().await,
        withheld: store.withheld(now - WITHHELD_FOR, NAMED).await,
        last_backup: store.last_backup().await,
        key_changes: store.open_key_changes().await,
        told: match api.shared_state().follows() {
            true => store.open_notices().await,
            false => Ok(BTreeMap::new()),
        },
        beside: api.sinks_beside().await,
        earliest_expiry: Ok(BTreeMap::new()),
        overdue_since: Ok(BTreeMap::new()),
        items: Ok(BTreeMap::new()),
        jobs: store.jobs_ran().await,
    }
}

async fn late(
    store: &Store,
    renewers: &BTreeMap<ResourceName, RenewerView>,
    now: Timestamp,
) -> Answer<BTreeMap<ResourceName, Late>> {
    let mut late: BTreeMap<ResourceName, Late> = BTreeMap::new();
    for (resource, count) in store.late(now).await? {
        late.entry(resource).or_default().count = count;
    }
    if !late.is_empty() {
        for record in store.troubled(now, NAMED).await? {
            let late = late.get_mut(&record.spec.resource);
            let renewer = renewers.get(&record.spec.resource);
            let grounds = renewer.map_or_else(Grounds::default, Grounds::of);
            let is_late = state(&record, &grounds, now) == State::Late;
            if let Some(late) = late.filter(|_| is_late) {
                late.names.push(record.spec.name);
            }
        }
    }
    Ok(late)
}
