//! Identities over the socket: listed, shown, added, removed, revived.

use axum::extract::{Path, Query, State};
use http::StatusCode;

use super::{
    admin::{Admin, After, PAGE, record},
    body::Body,
    connection::{ClientError, DaemonClient},
    endpoint::{Endpoint as _, EndpointAnswer, Json, endpoints},
    handle::Api,
    imports::surroundings,
    problem::{Problem, ProblemType},
    wire::{Identity, NewIdentity, Page, Removed},
};
use crate::{
    model::{Name, OnRemoval, Origin, Record, ResourceName, Timestamp},
    schedule::Grounds,
    store::StoreError,
};

endpoints! {
    /// Identities in order of name.
    ListIdentities: GET "/v1/identities" ?after, () => Page<Identity>;
    ShowIdentity: GET "/v1/identities/{name}", () => Identity;
    /// Adds an identity to the store.
    AddIdentity: POST "/v1/identities", NewIdentity => Identity as CREATED;
    /// Removes an identity from the store.
    RemoveIdentity: DELETE "/v1/identities/{name}" ?reason, () => Removed;
    /// Asks for an identity that is gone again.
    ReviveIdentity: POST "/v1/identities/{name}/revive" ?reason, () => Identity;
    /// A person's word that what ACS says is gone of a resource is.
    ConfirmGone: POST "/v1/gone/{resource}/confirm" ?reason, () => Vec<Name>;
}

/// Identities in order of name.
pub(super) async fn list(
    State(api): State<Api>,
    _: Admin,
    Query(After { after }): Query<After>,
) -> EndpointAnswer<ListIdentities> {
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
        items: rows.iter().map(|row| shown(&api, row, now)).collect(),
        next,
    }))
}

/// A row as it is by what its renewer knows.
fn shown(api: &Api, row: &Record, now: Timestamp) -> Identity {
    let renewer = api.shared_state().renewer(&row.spec.resource);
    Identity::of(row, &Grounds::of(&renewer), now)
}

pub(super) async fn show(
    State(api): State<Api>,
    _: Admin,
    Path(name): Path<String>,
) -> EndpointAnswer<ShowIdentity> {
    let row = record(&api, &name).await?;
    Ok(Json(shown(&api, &row, api.clock.now())))
}

/// Adds an identity that no file declares; the engine obtains its token.
pub(super) async fn add(
    State(api): State<Api>,
    admin: Admin,
    Body(new): Body<NewIdentity>,
) -> Result<(StatusCode, Json<Identity>), Problem> {
    let spec = new
        .spec(&surroundings(&api).await?)
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
    Ok((AddIdentity::STATUS, Json(shown(&api, &row, now))))
}

/// Removes an identity that was added, as its `on_removal` says. ACS keeps it in any case.
pub(super) async fn remove(
    State(api): State<Api>,
    admin: Admin,
    Path(name): Path<String>,
    Query(Why { reason }): Query<Why>,
) -> EndpointAnswer<RemoveIdentity> {
    if let Some(name) = unreadable(&api, &name).await? {
        // Nothing else can be done with it; its id stays known, so it can be declared again.
        let names = vec![name.clone()];
        let how = OnRemoval::Forget;
        api.store.remove(names, Some(how), api.clock.now()).await?;
        let result = "dropped: its row could not be read";
        admin
            .audit(&api, "remove", Some(&name), reason, result)
            .await?;
        return Ok(Json(Removed {
            name,
            on_removal: how,
        }));
    }
    let row = record(&api, &name).await?;
    if let Origin::Source(source) = &row.spec.origin {
        let why = format!("{name} is listed by the source {source}: take it out there");
        return Err(Problem::new(ProblemType::Conflict, why));
    }
    if row.spec.origin == Origin::File {
        let why = format!("{name} is declared in the configuration: take it out there and reload");
        return Err(Problem::new(ProblemType::Conflict, why));
    }
    let (name, on_removal) = (row.spec.name, row.spec.declared.on_removal);
    let names = vec![name.clone()];
    api.store.remove(names, None, api.clock.now()).await?;
    let result = format!("{on_removal:?}").to_lowercase();
    admin
        .audit(&api, "remove", Some(&name), reason, &result)
        .await?;
    Ok(Json(Removed { name, on_removal }))
}

/// The name, where its row cannot be read.
async fn unreadable(api: &Api, name: &str) -> Result<Option<Name>, Problem> {
    let Ok(name) = name.parse::<Name>() else {
        return Ok(None);
    };
    match api.store.record(&name).await {
        Err(StoreError::Unreadable { .. }) => Ok(Some(name)),
        found => Ok(found.map(|_| None)?),
    }
}

/// Asks for one that is gone again, under the same id.
pub(super) async fn revive(
    State(api): State<Api>,
    admin: Admin,
    Path(name): Path<String>,
    Query(Why { reason }): Query<Why>,
) -> EndpointAnswer<ReviveIdentity> {
    let row = record(&api, &name).await?;
    let (cause, now) = (admin.cause(&api, reason).await, api.clock.now());
    api.store.revive(&row.spec.name, &cause, now).await?;
    let row = record(&api, &name).await?;
    Ok(Json(shown(&api, &row, now)))
}

/// A person's word: what ACS says is gone of a resource is.
pub(super) async fn confirm_gone(
    State(api): State<Api>,
    admin: Admin,
    Path(resource): Path<String>,
    Query(Why { reason }): Query<Why>,
) -> EndpointAnswer<ConfirmGone> {
    let known = api
        .shared_state()
        .resources()
        .find(|name| name.as_str() == resource)
        .cloned();
    let resource = known.ok_or_else(|| {
        Problem::new(
            ProblemType::Unknown,
            format!("there is no resource {resource:?}"),
        )
    })?;
    let (cause, now) = (admin.cause(&api, reason).await, api.clock.now());
    Ok(Json(api.store.confirm_gone(&resource, &cause, now).await?))
}

/// `?reason=…`.
#[derive(Debug, serde::Deserialize)]
pub(super) struct Why {
    reason: Option<String>,
}

impl DaemonClient {
    /// Identities in order of name, after this one.
    pub async fn identities(&self, after: Option<&str>) -> Result<Page<Identity>, ClientError> {
        self.call(ListIdentities, &[]).after(after).send().await
    }

    pub async fn identity(&self, name: &Name) -> Result<Identity, ClientError> {
        self.call(ShowIdentity, &[name]).send().await
    }

    /// Adds an identity to the store.
    pub async fn add(&self, new: &NewIdentity) -> Result<Identity, ClientError> {
        self.call(AddIdentity, &[]).body(new).send().await
    }

    /// Removes an identity from the store, as its `on_removal` says; ACS keeps it.
    pub async fn remove(&self, name: &Name, reason: Option<&str>) -> Result<Removed, ClientError> {
        let call = self.call(RemoveIdentity, &[name]);
        call.query([("reason", reason.map(str::to_owned))])
            .send()
            .await
    }

    /// Asks for an identity that is gone again, under the same id.
    pub async fn revive(&self, name: &Name, reason: Option<&str>) -> Result<Identity, ClientError> {
        let call = self.call(ReviveIdentity, &[name]);
        call.query([("reason", reason.map(str::to_owned))])
            .send()
            .await
    }

    /// A person's word that what ACS says is gone of a resource is; whom that withdraws.
    pub async fn confirm_gone(
        &self,
        resource: &ResourceName,
        reason: Option<&str>,
    ) -> Result<Vec<Name>, ClientError> {
        let call = self.call(ConfirmGone, &[resource]);
        call.query([("reason", reason.map(str::to_owned))])
            .send()
            .await
    }
}
