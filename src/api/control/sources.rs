//! Sources of identities: listed, tried, taken over on a person's word.

use axum::{
    Json,
    extract::{Path, State},
};
use tokio::sync::oneshot;

use super::{
    super::{
        handle::{Api, ApplySource, Command},
        problem::{Problem, ProblemType},
        wire,
    },
    Admin, Body,
};
use crate::model::{Lapse, SourceName, SourceReport, SourceView};

/// The sources in the order of their names.
pub(super) async fn list(State(api): State<Api>, _: Admin) -> Result<Json<wire::Sources>, Problem> {
    let shared_state = api.shared_state();
    let mut sources: Vec<SourceView> = shared_state
        .sources
        .values()
        .map(|view| view.borrow().clone())
        .collect();
    for facts in api.store.sources().await? {
        if !shared_state.sources.contains_key(&facts.name) && facts.identities > 0 {
            let reason = format!(
                "it is no longer configured; its {} identities stay as they are until \
                 `renewd source apply {} --yes` lets them go",
                facts.identities, facts.name
            );
            sources.push(SourceView {
                kind: String::new(),
                reads: String::new(),
                every_seconds: 0,
                looked_at: None,
                taken_at: facts.taken_at,
                identities: facts.identities,
                refused: facts.refused,
                lapse: Some(Lapse {
                    reason,
                    since: facts.taken_at.unwrap_or(api.clock.now()),
                }),
                name: facts.name,
                reading_since: None,
                advice: None,
            });
        }
    }
    sources.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Json(wire::Sources { sources }))
}

/// What the list of a source would change; nothing is changed.
pub(super) async fn test(
    State(api): State<Api>,
    _: Admin,
    Path(name): Path<String>,
) -> Result<Json<SourceReport>, Problem> {
    asked(&api, &name, None).await
}

/// Takes the list over now.
pub(super) async fn apply(
    State(api): State<Api>,
    admin: Admin,
    Path(name): Path<String>,
    Body(wish): Body<wire::ApplySource>,
) -> Result<Json<SourceReport>, Problem> {
    let apply = ApplySource {
        actor: admin.cause(&api, None).await.actor,
        confirmed: wish.yes,
    };
    asked(&api, &name, Some(apply)).await
}

async fn asked(
    api: &Api,
    name: &str,
    apply: Option<ApplySource>,
) -> Result<Json<SourceReport>, Problem> {
    let unknown = || Problem::new(ProblemType::Unknown, format!("there is no source {name:?}"));
    let name: SourceName = name.parse().map_err(|_| unknown())?;
    let is_known = api.shared_state().sources.contains_key(&name)
        || api
            .store
            .sources()
            .await?
            .iter()
            .any(|facts| facts.name == name);
    if !is_known {
        return Err(unknown());
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
