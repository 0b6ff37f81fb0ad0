//! Sources over the socket: lists of identities that others own, tried and taken over.

use std::{collections::BTreeMap, time::Duration};

use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::{
    admin::Admin,
    body::Body,
    connection::{ClientError, DaemonClient},
    endpoint::{EndpointAnswer, Json, endpoints},
    handle::Api,
    problem::{Problem, ProblemType},
    shared_state::{self, Command},
};
use crate::{
    model::{Lapse, NodeName, SourceName, SourceReport, SourceView, Timestamp},
    store::SourceFacts,
};

endpoints! {
    /// The sources of identities and how they are.
    ListSources: GET "/v1/sources", () => Sources;
    /// Reads a source and says what its list would change.
    TestSource: POST "/v1/sources/{name}/test", () => SourceReport;
    /// Takes a source's list over.
    Apply: POST "/v1/sources/{name}/apply", ApplySource => SourceReport;
}

/// `GET /v1/sources`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Sources {
    /// Those that are configured, and those that no longer are and still list identities.
    pub sources: Vec<SourceView>,
}

/// `POST /v1/sources/{name}/apply`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ApplySource {
    /// Whether `max_removal`, and what protects like it, is set aside this once.
    #[serde(default)]
    pub yes: bool,
}

/// The sources in the order of their names.
pub(super) async fn list(State(api): State<Api>, _: Admin) -> EndpointAnswer<ListSources> {
    let shared_state = api.shared_state();
    let mut known: BTreeMap<SourceName, SourceView> = BTreeMap::new();
    for name in &shared_state.configured_sources {
        let reads = "read by another node".to_owned();
        let view = SourceView {
            reads,
            ..unread(name.clone())
        };
        known.insert(name.clone(), view);
    }
    for facts in api.store.sources().await? {
        match known.get_mut(&facts.name) {
            Some(view) => {
                view.taken_at = facts.taken_at;
                view.identities = facts.identities;
                view.refused = facts.refused;
                view.lapse = facts.lapse;
            }
            None if facts.identities > 0 => {
                let former = no_longer_configured(facts, api.clock.now());
                known.insert(former.name.clone(), former);
            }
            None => {}
        }
    }
    known.extend(shared_state.source_views());
    Ok(Json(Sources {
        sources: known.into_values().collect(),
    }))
}

/// A source of which only its name is known.
fn unread(name: SourceName) -> SourceView {
    SourceView {
        name,
        kind: String::new(),
        reads: String::new(),
        every_seconds: 0,
        looked_at: None,
        taken_at: None,
        identities: 0,
        refused: 0,
        lapse: None,
        reading_since: None,
        advice: None,
    }
}

fn no_longer_configured(facts: SourceFacts, now: Timestamp) -> SourceView {
    let reason = format!(
        "it is no longer configured; its {} identities stay as they are until `renewd source apply {} --yes` lets them go",
        facts.identities, facts.name
    );
    SourceView {
        taken_at: facts.taken_at,
        identities: facts.identities,
        refused: facts.refused,
        lapse: Some(Lapse {
            reason,
            since: facts.taken_at.unwrap_or(now),
        }),
        ..unread(facts.name)
    }
}

/// What the list of a source would change; nothing is changed.
pub(super) async fn test(
    State(api): State<Api>,
    _: Admin,
    Path(name): Path<String>,
) -> EndpointAnswer<TestSource> {
    asked(&api, &name, None).await
}

/// Takes the list over now.
pub(super) async fn apply(
    State(api): State<Api>,
    admin: Admin,
    Path(name): Path<String>,
    Body(order): Body<ApplySource>,
) -> EndpointAnswer<Apply> {
    let apply = shared_state::ApplySource {
        actor: admin.cause(&api, None).await.actor,
        confirmed: order.yes,
    };
    asked(&api, &name, Some(apply)).await
}

async fn asked(
    api: &Api,
    name: &str,
    apply: Option<shared_state::ApplySource>,
) -> Result<Json<SourceReport>, Problem> {
    let unknown = || Problem::new(ProblemType::Unknown, format!("there is no source {name:?}"));
    let name: SourceName = name.parse().map_err(|_| unknown())?;
    let shared_state = api.shared_state();
    let is_known = shared_state.sources.contains_key(&name)
        || shared_state.configured_sources.contains(&name)
        || api
            .store
            .sources()
            .await?
            .iter()
            .any(|facts| facts.name == name);
    if !is_known {
        return Err(unknown());
    }
    if !shared_state.sources.contains_key(&name) && shared_state.configured_sources.contains(&name)
    {
        let standing = shared_state.cluster_standing();
        let leader = standing.as_ref().and_then(|standing| standing.leader());
        let leader = leader.map_or("nobody at the moment", NodeName::as_str);
        let why = format!(
            "another node reads the source {name}: ask there. Those without `nodes` are read by the one that leads ({leader})"
        );
        return Err(Problem::new(ProblemType::Conflict, why));
    }
    let (answer, answered) = oneshot::channel();
    let stopping = || {
        Problem::new(
            ProblemType::Conflict,
            "the daemon is stopping or reloading; try again",
        )
    };
    let command = Command::Source {
        name,
        apply,
        answer,
    };
    api.commands.send(command).await.map_err(|_| stopping())?;
    match answered.await.map_err(|_| stopping())? {
        Ok(report) => Ok(Json(report)),
        Err(reason) => Err(Problem::new(ProblemType::Refused, reason)),
    }
}

/// How long a source may be read, and its list be written.
const READING: Duration = Duration::from_mins(15);

impl DaemonClient {
    /// The sources of identities and how they are.
    pub async fn sources(&self) -> Result<Sources, ClientError> {
        self.call(ListSources, &[]).send().await
    }

    /// Reads a source and says what its list would change.
    pub async fn test_source(&self, name: &SourceName) -> Result<SourceReport, ClientError> {
        let call = self.call(TestSource, &[name]);
        call.within(READING).send().await
    }

    /// Takes a source's list over; `yes` sets `max_removal` aside.
    pub async fn apply_source(
        &self,
        name: &SourceName,
        yes: bool,
    ) -> Result<SourceReport, ClientError> {
        let call = self.call(Apply, &[name]).body(&ApplySource { yes });
        call.within(READING).send().await
    }
}
