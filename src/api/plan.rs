//! Plans over the socket: what the limits of each resource mean for its fleet, or for one that does not exist.

use std::time::Duration;

use axum::extract::{Query, State};
use serde::Deserialize;

use super::{
    admin::Admin,
    connection::{ClientError, DaemonClient},
    endpoint::{EndpointAnswer, Json, endpoints},
    handle::Api,
    problem::{Problem, ProblemType},
};
use crate::{
    model::{ResourceName, Served},
    schedule::{Basis, Fleet, plan},
    store::StoreError,
};

pub use crate::schedule::{Plan, Plans, WhatIf};

endpoints! {
    /// What the limits of each resource mean for its fleet.
    ShowPlan: GET "/v1/plan" ?resource identities lifetime_seconds, () => Plans;
}

/// `?resource=…&identities=…&lifetime_seconds=…`.
#[derive(Debug, Deserialize)]
pub(super) struct PlanQuery {
    resource: Option<ResourceName>,
    identities: Option<u64>,
    lifetime_seconds: Option<u64>,
}

/// The plans of all resources, or of one.
pub(super) async fn show(
    State(api): State<Api>,
    _: Admin,
    Query(asked): Query<PlanQuery>,
) -> EndpointAnswer<ShowPlan> {
    let what_if = WhatIf {
        identities: asked.identities,
        lifetime: asked.lifetime_seconds.map(Duration::from_secs),
    };
    let plans = api.plans(asked.resource.as_ref(), &what_if).await?;
    match (plans.resources.is_empty(), asked.resource) {
        (true, Some(resource)) => {
            let why = format!("there is no resource {resource}");
            Err(Problem::new(ProblemType::Unknown, why))
        }
        _ => Ok(Json(plans)),
    }
}

impl Api {
    /// The plans of all resources, or of one: from what the store counts, or for a fleet that is asked about.
    pub(super) async fn plans(
        &self,
        only: Option<&ResourceName>,
        what_if: &WhatIf,
    ) -> Result<Plans, Problem> {
        let (now, shared_state) = (self.clock.now(), self.shared_state());
        let mut resources = Vec::new();
        for (resource, declared) in &shared_state.declared {
            if only.is_some_and(|only| only != resource) {
                continue;
            }
            let stock = self.store.stock(resource, now).await?;
            let usual = &shared_state.renewal;
            let known = Fleet::known(&stock, &declared.cohorts, usual);
            let (fleet, basis) = match what_if.is_some() {
                true => (known.instead(what_if, usual, now), Basis::WhatIf),
                false => (known, Basis::Store),
            };
            resources.push(plan(resource, (&fleet, basis), declared.room, now));
        }
        Ok(Plans {
            schema: Plans::SCHEMA,
            at: now,
            resources,
        })
    }
}

impl Api {
    /// The plans of all resources by the counters of the store, whatever the size of the fleet; for whoever looks often.
    pub(super) async fn counted_plans(&self, served: &Served) -> Result<Vec<Plan>, StoreError> {
        let (now, shared_state) = (self.clock.now(), self.shared_state());
        let mut plans = Vec::new();
        for (resource, declared) in &shared_state.declared {
            let lives = self.store.lives(resource).await?;
            let without = served.without.get(resource).copied().unwrap_or(0);
            let rules = (&declared.cohorts[..], &shared_state.renewal);
            let fleet = Fleet::counted(&lives, without, rules, now);
            plans.push(plan(resource, (&fleet, Basis::Store), declared.room, now));
        }
        Ok(plans)
    }
}

impl DaemonClient {
    /// What the limits of all resources, or of one, mean for their fleets, or for one that is asked about.
    pub async fn plans(
        &self,
        only: Option<&ResourceName>,
        what_if: &WhatIf,
    ) -> Result<Plans, ClientError> {
        let lifetime = what_if.lifetime.map(|life| life.as_secs().to_string());
        let pairs = [
            ("resource", only.map(ToString::to_string)),
            (
                "identities",
                what_if.identities.map(|count| count.to_string()),
            ),
            ("lifetime_seconds", lifetime),
        ];
        self.call(ShowPlan, &[]).query(pairs).send().await
    }
}
