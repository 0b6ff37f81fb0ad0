//! Identities: listed, shown, added to the store, removed from it, set due.

use axum::{
    Json,
    extract::{Path, Query, State},
};
use http::StatusCode;

use super::{
    super::{
        addition::Surroundings,
        handle::{Api, Scene},
        problem::{Problem, ProblemType},
        wire::{Identity, NewIdentity, Page, Removed, Renew, Renewing},
    },
    Admin, After, Body, PAGE, record, records,
};
use crate::{
    model::{DueReason, Name, Origin, Record, Step},
    store::{Cause, StepOn},
};

/// Identities in order of name.
pub(super) async fn list(
    State(api): State<Api>,
    _: Admin,
    Query(After { after }): Query<After>,
) -> Result<Json<Page<Identity>>, Problem> {
    let after = after
        .map(|name| name.parse::<Name>())
        .transpose()
        .map_err(|error| Problem::new(ProblemType::Invalid, error.to_string()))?;
    let rows = api.store.list(after.as_ref(), PAGE).await?;
    let now = api.clock.now();
    let next = rows
        .last()
        .filter(|_| rows.len() == PAGE)
        .map(|row| row.spec.name.to_string());
    Ok(Json(Page {
        items: rows.iter().map(|row| Identity::of(row, now)).collect(),
        next,
    }))
}

/// One identity.
pub(super) async fn show(
    State(api): State<Api>,
    _: Admin,
    Path(name): Path<String>,
) -> Result<Json<Identity>, Problem> {
    let row = record(&api, &name).await?;
    Ok(Json(Identity::of(&row, api.clock.now())))
}

/// Adds an identity that no file declares; the engine obtains its token.
pub(super) async fn add(
    State(api): State<Api>,
    admin: Admin,
    Body(new): Body<NewIdentity>,
) -> Result<(StatusCode, Json<Identity>), Problem> {
    let spec = new
        .spec(&surroundings(&api.scene()))
        .map_err(|why| Problem::new(ProblemType::Invalid, why))?;
    let name = spec.name.clone();
    if api.store.record(&name).await?.is_some() {
        let why = format!("{name} exists already");
        return Err(Problem::new(ProblemType::Conflict, why));
    }
    let now = api.clock.now();
    api.store.declare(vec![spec], now).await?;
    admin.audit(&api, "add", Some(&name), None, "added").await?;
    let row = record(&api, name.as_str()).await?;
    Ok((StatusCode::CREATED, Json(Identity::of(&row, now))))
}

/// Removes an identity that was added, as its `on_removal` says. ACS keeps it in any case.
pub(super) async fn remove(
    State(api): State<Api>,
    admin: Admin,
    Path(name): Path<String>,
    Query(Why { reason }): Query<Why>,
) -> Result<Json<Removed>, Problem> {
    let row = record(&api, &name).await?;
    if let Origin::Source(source) = &row.spec.origin {
        let why = format!("{name} is listed by the source {source}: take it out there");
        return Err(Problem::new(ProblemType::Conflict, why));
    }
    if row.spec.origin == Origin::File {
        let why = format!("{name} is declared in the configuration: take it out there and reload");
        return Err(Problem::new(ProblemType::Conflict, why));
    }
    let (name, on_removal) = (row.spec.name, row.spec.on_removal);
    let names = vec![name.clone()];
    api.store.remove(names, None, api.clock.now()).await?;
    let result = format!("{on_removal:?}").to_lowercase();
    admin
        .audit(&api, "remove", Some(&name), reason, &result)
        .await?;
    Ok(Json(Removed { name, on_removal }))
}

/// `?reason=…`.
#[derive(Debug, serde::Deserialize)]
pub(super) struct Why {
    reason: Option<String>,
}

/// Sets identities due now; the engine renews them in the order of their expiry.
pub(super) async fn renew(
    State(api): State<Api>,
    admin: Admin,
    Body(asked): Body<Renew>,
) -> Result<Json<Renewing>, Problem> {
    if asked.all == asked.names.is_empty() {
        let cause = admin.cause(asked.reason).await;
        let due = match asked.all {
            true => renew_all(&api, &cause).await?,
            false => set_due(&api, records(&api, &asked.names).await?, &cause).await?,
        };
        return Ok(Json(Renewing { due }));
    }
    Err(Problem::new(ProblemType::Invalid, "either names or all"))
}

async fn renew_all(api: &Api, cause: &Cause) -> Result<u64, Problem> {
    let mut due = 0;
    let mut after = None;
    loop {
        let rows = api.store.list(after.as_ref(), PAGE).await?;
        let Some(last) = rows.last() else {
            return Ok(due);
        };
        after = Some(last.spec.name.clone());
        due += set_due(api, rows, cause).await?;
    }
}

/// Counts those that want a token; the others are left alone.
async fn set_due(api: &Api, rows: Vec<Record>, cause: &Cause) -> Result<u64, Problem> {
    let steps: Vec<StepOn> = rows
        .iter()
        .filter(|row| row.state.wants_token())
        .map(|row| StepOn {
            num: row.num,
            step: Step::Due(DueReason::Requested),
            request_id: None,
        })
        .collect();
    let due = steps.len() as u64;
    api.store.step(steps, cause, api.clock.now()).await?;
    Ok(due)
}

/// What an added identity may refer to.
pub(super) fn surroundings(scene: &Scene) -> Surroundings {
    Surroundings {
        resources: scene.lanes.keys().cloned().collect(),
        sinks: scene.couriers.keys().cloned().collect(),
        renewal: scene.renewal,
    }
}
