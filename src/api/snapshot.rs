//! One look at the whole daemon: what status, readiness and metrics are made of.

use std::{collections::BTreeMap, sync::Arc};

use jiff::{SignedDuration, Timestamp};

use super::{
    handle::{Api, Scene},
    listeners::Unbound,
    needs::{Known, Late, needs},
    readiness::{Readiness, readiness},
    wire::{Need, PublicResource, PublicSink, PublicStatus, Status},
};
use crate::{
    model::{
        Counts, CourierView, GoneHeld, HealthView, LaneView, ResourceName, SinkName, State,
        short_duration,
    },
    store::{Disk, Order, StoreError},
    telemetry::Scrape,
};

/// How many late identities of a resource are named.
const NAMED: usize = 20;

/// The daemon at one instant.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub now: Timestamp,
    pub scene: Arc<Scene>,
    pub lanes: BTreeMap<ResourceName, LaneView>,
    pub couriers: BTreeMap<SinkName, CourierView>,
    pub held_step: Option<SignedDuration>,
    pub disk: Disk,
    /// The TCP address that is refused.
    pub unbound: Option<Unbound>,
    /// What the store says, or why it says nothing.
    pub stored: Result<Stored, StoreError>,
}

/// What only the store knows.
#[derive(Debug, Default)]
pub(super) struct Stored {
    pub counts: Counts,
    pub late: BTreeMap<ResourceName, Late>,
    pub gone: Vec<GoneHeld>,
    pub orders: Vec<Order>,
    pub earliest_expiry: BTreeMap<ResourceName, Timestamp>,
    pub last_backup: Option<Timestamp>,
}

impl Snapshot {
    /// Looks now at everything.
    pub(super) async fn take(api: &Api) -> Self {
        let mut snapshot = Self::glance(api).await;
        if let Ok(stored) = &mut snapshot.stored {
            match api.store.earliest_expiry().await {
                Ok(expiry) => stored.earliest_expiry = expiry,
                Err(error) => snapshot.stored = Err(error),
            }
        }
        snapshot
    }

    /// Looks now at what costs the same however many identities there are, which leaves the
    /// earliest expiry out: enough for a probe that comes every second.
    pub(super) async fn glance(api: &Api) -> Self {
        let now = api.clock.now();
        let scene = api.scene();
        let unbound = api.unbound.borrow().clone();
        Self {
            now,
            lanes: scene.lane_views(),
            couriers: scene.courier_views(),
            held_step: api.clock.held_step(),
            disk: api.store.disk(),
            unbound,
            stored: stored(api, now).await,
            scene,
        }
    }

    /// Whether the daemon is ready, and what is not.
    pub(super) fn readiness(&self) -> Readiness {
        let unreadable = self.stored.as_ref().err().map(ToString::to_string);
        let store = self.scene.standing.refusal().or(unreadable);
        readiness(
            self.scene.life,
            store,
            &self.lanes,
            &self.scene.runner_decisions(),
            &self.couriers,
            self.now,
        )
    }

    /// For `/metrics`; without a store, what the store counts is left out.
    pub(super) fn scrape(&self) -> Scrape {
        let stored = self.stored.as_ref().ok();
        Scrape {
            now: self.now,
            lanes: self.lanes.clone(),
            couriers: self.couriers.clone(),
            counts: stored
                .map(|stored| stored.counts.clone())
                .unwrap_or_default(),
            earliest_expiry: stored
                .map(|stored| stored.earliest_expiry.clone())
                .unwrap_or_default(),
            held_step: self.held_step,
            last_backup: stored.and_then(|stored| stored.last_backup),
        }
    }

    /// For admins.
    pub(super) fn status(self) -> Result<Status, StoreError> {
        let ready = self.readiness().ready;
        let needs = self.needs();
        let stored = self.stored?;
        Ok(Status {
            at: self.now,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            instance: self.scene.daemon.instance.clone(),
            since: self.scene.life.since,
            ready,
            needs,
            brought_up: self.scene.brought_up.clone(),
            counts: stored.counts,
            earliest_expiry: stored.earliest_expiry,
            lanes: self.lanes,
            couriers: self.couriers,
            behind: Vec::new(),
            last_backup: stored.last_backup,
            held_step_ms: self
                .held_step
                .map(|step| step.as_millis().try_into().unwrap_or(i64::MAX)),
        })
    }

    /// For anybody who can reach the TCP listener: without names of identities unless they were
    /// allowed, and without the texts of errors, which may quote what a receiver answered.
    pub(super) fn public(self) -> Result<PublicStatus, StoreError> {
        let ready = self.readiness().ready;
        let mut needs = self.needs();
        for need in &mut needs {
            need.because = None;
            if !self.scene.daemon.page_names {
                need.names.clear();
            }
        }
        let stored = self.stored?;
        Ok(PublicStatus {
            at: self.now,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            instance: self.scene.daemon.instance.clone(),
            since: self.scene.life.since,
            ready,
            needs,
            resources: self
                .lanes
                .iter()
                .map(|(name, lane)| resource(name, lane, &stored, self.now))
                .collect(),
            sinks: self
                .couriers
                .iter()
                .map(|(name, courier)| sink(name, courier, &stored))
                .collect(),
        })
    }

    fn needs(&self) -> Vec<Need> {
        let nothing = Stored::default();
        let stored = self.stored.as_ref().unwrap_or(&nothing);
        needs(&Known {
            standing: &self.scene.standing,
            now: self.now,
            since: self.scene.life.since,
            lanes: &self.lanes,
            couriers: &self.couriers,
            counts: &stored.counts,
            keys: &self.scene.key_views(),
            gone: &stored.gone,
            late: &stored.late,
            orders: &stored.orders,
            lapses: &self.scene.lapses(),
            held_step_secs: self.held_step.map(|step| step.as_secs()),
            disk: self.disk,
            unbound: self.unbound.as_ref(),
        })
    }
}

fn resource(
    name: &ResourceName,
    lane: &LaneView,
    stored: &Stored,
    now: Timestamp,
) -> PublicResource {
    PublicResource {
        name: name.clone(),
        health: health(lane, now),
        identities: stored
            .counts
            .identities
            .get(name)
            .cloned()
            .unwrap_or_default(),
        earliest_expiry: stored.earliest_expiry.get(name).copied(),
        next_due: lane.next_due,
        in_flight: lane.in_flight,
    }
}

/// The worst of a lane's operations in a few words.
fn health(lane: &LaneView, now: Timestamp) -> String {
    let ago =
        |since: Timestamp| short_duration(now.duration_since(since).try_into().unwrap_or_default());
    let mut words = "open".to_owned();
    for (operation, health) in &lane.health {
        match health {
            HealthView::Probing { since, .. } => {
                return format!("{operation} unanswered for {}", ago(*since));
            }
            HealthView::Held { until, .. } if now < *until => {
                let left = until.duration_since(now).try_into().unwrap_or_default();
                words = format!("{operation} held for {}", short_duration(left));
            }
            HealthView::Held { .. } | HealthView::Open => {}
        }
    }
    match lane.blocked {
        Some(_) => "blocked".to_owned(),
        None => words,
    }
}

fn sink(name: &SinkName, courier: &CourierView, stored: &Stored) -> PublicSink {
    let trouble = match courier {
        CourierView {
            disabled: Some(_), ..
        } => Some("disabled".to_owned()),
        CourierView {
            failures_in_row: 0, ..
        } => None,
        failing => Some(format!("{} failures in a row", failing.failures_in_row)),
    };
    PublicSink {
        name: name.clone(),
        pending: stored.counts.pending.get(name).copied().unwrap_or(0),
        delivered: courier.delivered,
        failed: courier.failed,
        trouble,
    }
}

async fn stored(api: &Api, now: Timestamp) -> Result<Stored, StoreError> {
    let counts = api.store.counts().await?;
    let mut late: BTreeMap<ResourceName, Late> = BTreeMap::new();
    for (resource, count) in api.store.late(now).await? {
        late.entry(resource).or_default().count = count;
    }
    if !late.is_empty() {
        for record in api.store.troubled(now, NAMED).await? {
            let late = late.get_mut(&record.spec.resource);
            if let Some(late) = late.filter(|_| record.state_at(now) == State::Late) {
                late.names.push(record.spec.name);
            }
        }
    }
    Ok(Stored {
        counts,
        late,
        gone: api.store.held_gone().await?,
        orders: api.store.orders(now).await?,
        last_backup: api.store.last_backup().await?,
        ..Stored::default()
    })
}
