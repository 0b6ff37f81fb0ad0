//! Access keys over the socket: how they are, and their replacement.

use axum::extract::{Path, Query, State};
use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::{
    admin::{Admin, After, PAGE},
    body::Body,
    connection::{ClientError, DaemonClient},
    endpoint::{Endpoint as _, EndpointAnswer, Json, endpoints},
    handle::Api,
    problem::{Problem, ProblemType},
    wire::Page,
};
use crate::{
    model::{BearerView, KeyDoubt, NoneWorks, NotedKeys, ResourceName},
    store::NewKeyChange,
};

pub use crate::model::{KeyChange, KeyItem, KeyRole, KeyStage, KeyStanding, KeyWork};

endpoints! {
    /// The keys of every resource.
    ListKeys: GET "/v1/keys", () => Vec<ResourceKeys>;
    /// The keys of one resource.
    ShowKeys: GET "/v1/keys/{resource}", () => ResourceKeys;
    /// Begins to replace a key.
    Replace: POST "/v1/keys/{resource}", ReplaceKey => KeyChange as ACCEPTED;
    /// Calls a replacement off.
    Cancel: DELETE "/v1/keys/{resource}", () => KeyChange;
    /// The identities of the newest replacement.
    ListKeyItems: GET "/v1/keys/{resource}/identities" ?after, () => Page<KeyItem>;
}

/// `GET /v1/keys/{resource}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ResourceKeys {
    pub resource: ResourceName,
    pub in_use: KeyRole,
    /// Its keys, the primary first; none where Entra ID says who calls.
    pub keys: Vec<KeyLine>,
    /// What is known of the bearer in place of keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bearer: Option<BearerView>,
    /// Tokens that can be issued in a minute.
    pub issues_per_minute: u64,
    /// Keys whose tokens may be dead, with how many are not replaced yet.
    #[serde(default)]
    pub doubts: Vec<KeyDoubt>,
    /// Since when no key works, if none does.
    #[serde(default)]
    pub none_works: Option<NoneWorks>,
    /// The newest replacement, over or not.
    pub change: Option<KeyChange>,
}

/// One key of a resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct KeyLine {
    /// Which of the two.
    pub role: KeyRole,
    pub fingerprint: String,
    /// What the service last said of it.
    pub standing: KeyStanding,
    /// Live tokens that it minted.
    pub tokens: u64,
    /// The command that regenerates it at Azure; the resource group is not known here.
    pub regenerate: String,
}

/// `POST /v1/keys/{resource}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ReplaceKey {
    /// Why, and in which order.
    pub work: KeyWork,
    /// Which key; left out: the one in use.
    #[serde(default)]
    pub role: Option<KeyRole>,
    /// Why, for the audit trail.
    #[serde(default)]
    pub reason: Option<String>,
}

/// The keys of every resource.
pub(super) async fn list(State(api): State<Api>, _: Admin) -> EndpointAnswer<ListKeys> {
    let (mut all, mut unknown) = (Vec::new(), None);
    for name in names(&api) {
        match keys_of(&api, name.as_str()).await {
            Ok(keys) => all.push(keys),
            Err(problem) => unknown = Some(problem),
        }
    }
    match (all.is_empty(), unknown) {
        (true, Some(problem)) => Err(problem),
        _ => Ok(Json(all)),
    }
}

/// The keys of one resource.
pub(super) async fn show(
    State(api): State<Api>,
    _: Admin,
    Path(resource): Path<String>,
) -> EndpointAnswer<ShowKeys> {
    Ok(Json(keys_of(&api, &resource).await?))
}

/// Begins to replace a key.
pub(super) async fn replace(
    State(api): State<Api>,
    admin: Admin,
    Path(resource): Path<String>,
    Body(asked): Body<ReplaceKey>,
) -> Result<(StatusCode, Json<KeyChange>), Problem> {
    let (resource, known) = known(&api, &resource).await?;
    if let Some(bearer) = &known.bearer {
        let why = format!(
            "{resource} has no access keys, so none can be replaced: it is called by {}. To kill tokens, revoke them \
             (`renewd revoke NAME`); {}",
            bearer.kind,
            bearer.replacement(&resource)
        );
        return Err(Problem::new(ProblemType::Conflict, why));
    }
    let status = &known.keys.status;
    let role = asked.role.unwrap_or(status.in_use);
    let key = |role| status.keys.iter().find(|key| key.role == role);
    let (Some(old), Some(_)) = (key(role), key(role.other())) else {
        let why = format!(
            "{resource} has one access key only: give it a secondary_connection_string, so that something signs \
             while the other key is replaced"
        );
        return Err(Problem::new(ProblemType::Conflict, why));
    };
    let cause = admin.cause(&api, asked.reason).await;
    let new = NewKeyChange {
        resource,
        work: asked.work,
        role,
        old_key: old.fingerprint.clone(),
        actor: cause.actor,
        reason: cause.reason,
    };
    let begun = api.store.begin_key_change(new, api.clock.now()).await?;
    Ok((Replace::STATUS, Json(begun)))
}

pub(super) async fn cancel(
    State(api): State<Api>,
    admin: Admin,
    Path(resource): Path<String>,
) -> EndpointAnswer<Cancel> {
    let resource = named(&api, &resource)?;
    let actor = admin.cause(&api, None).await.actor;
    let ended = api
        .store
        .cancel_key_change(&resource, actor, api.clock.now());
    Ok(Json(ended.await?))
}

/// The identities of the newest replacement, with the length of each one's gap.
pub(super) async fn identities(
    State(api): State<Api>,
    _: Admin,
    Path(resource): Path<String>,
    Query(After { after }): Query<After>,
) -> EndpointAnswer<ListKeyItems> {
    let resource = named(&api, &resource)?;
    let Some(change) = api.store.last_key_change(&resource).await? else {
        return Ok(Json(Page {
            items: Vec::new(),
            next: None,
        }));
    };
    let after = after.unwrap_or_default();
    let items = api.store.key_items(&change, &after, PAGE).await?;
    let full = items.len() == PAGE;
    let next = items
        .last()
        .filter(|_| full)
        .map(|last| last.name.to_string());
    Ok(Json(Page { items, next }))
}

async fn keys_of(api: &Api, resource: &str) -> Result<ResourceKeys, Problem> {
    let (resource, NotedKeys { keys: view, bearer }) = known(api, resource).await?;
    let minted = api.store.minted(&resource, api.clock.now()).await?;
    let keys = view.status.keys.into_iter().map(|key| KeyLine {
        tokens: minted.get(&key.fingerprint).copied().unwrap_or(0),
        regenerate: format!(
            "az communication regenerate-key --name {} --resource-group GROUP --key-type {}",
            view.azure_name, key.role
        ),
        role: key.role,
        fingerprint: key.fingerprint,
        standing: key.standing,
    });
    Ok(ResourceKeys {
        in_use: view.status.in_use,
        keys: keys.collect(),
        bearer,
        issues_per_minute: view.issues_per_minute,
        doubts: view.doubts,
        none_works: view.none_works,
        change: change_of(api, &resource).await?,
        resource,
    })
}

/// The newest change, with those who still hold a token of the old key where it waits for a person.
async fn change_of(api: &Api, resource: &ResourceName) -> Result<Option<KeyChange>, Problem> {
    let Some(mut change) = api.store.last_key_change(resource).await? else {
        return Ok(None);
    };
    if matches!(change.stage, KeyStage::Regenerate | KeyStage::Replace) {
        let (key, now) = (change.old_key.clone(), api.clock.now());
        change.still_held = api.store.holding_key(key, now).await?;
    }
    Ok(Some(change))
}

/// The resources whose keys are known: by what is published here, else by what whoever leads has noted.
fn names(api: &Api) -> Vec<ResourceName> {
    let shared_state = api.shared_state();
    match shared_state.keys.is_empty() && shared_state.cluster.is_some() {
        true => shared_state.resources().cloned().collect(),
        false => shared_state.keys.keys().cloned().collect(),
    }
}

/// The one of this name.
fn named(api: &Api, resource: &str) -> Result<ResourceName, Problem> {
    let names = names(api);
    let asked = resource.parse().ok();
    let is_known = |name: &ResourceName| match names.is_empty() {
        true => api.shared_state().follows(),
        false => names.contains(name),
    };
    asked.filter(is_known).ok_or_else(|| {
        let why = format!("there is no resource {resource:?}");
        Problem::new(ProblemType::Unknown, why)
    })
}

/// What calls a resource: as it is published here, or where another machine leads, as that one noted it.
async fn known(api: &Api, resource: &str) -> Result<(ResourceName, NotedKeys), Problem> {
    let (name, shared_state) = (named(api, resource)?, api.shared_state());
    if let Some(view) = shared_state.keys.get(&name) {
        let keys = view.borrow().clone();
        let bearer = shared_state.renewer(&name).bearer;
        return Ok((name, NotedKeys { keys, bearer }));
    }
    let noted = api.store.noted_keys(&name).await?;
    let noted = noted.ok_or_else(|| {
        let standing = shared_state.cluster_standing();
        let leader = standing.as_ref().and_then(|standing| standing.leader());
        let who = leader.map_or_else(
            || "nobody leads at the moment, and whoever does".to_owned(),
            |leader| format!("{leader}, which leads,"),
        );
        let why = format!(
            "it is not known here yet how the access keys of {name} are: {who} notes that within seconds"
        );
        Problem::new(ProblemType::Conflict, why)
    })?;
    Ok((name, noted))
}

impl DaemonClient {
    /// The keys of every resource.
    pub async fn all_keys(&self) -> Result<Vec<ResourceKeys>, ClientError> {
        self.call(ListKeys, &[]).send().await
    }

    /// The keys of one resource, and how far a replacement is.
    pub async fn keys(&self, resource: &ResourceName) -> Result<ResourceKeys, ClientError> {
        self.call(ShowKeys, &[resource]).send().await
    }

    /// Begins to replace a key.
    pub async fn replace_key(
        &self,
        resource: &ResourceName,
        asked: &ReplaceKey,
    ) -> Result<KeyChange, ClientError> {
        self.call(Replace, &[resource]).body(asked).send().await
    }

    /// Calls a replacement off.
    pub async fn cancel_key(&self, resource: &ResourceName) -> Result<KeyChange, ClientError> {
        self.call(Cancel, &[resource]).send().await
    }

    /// The identities of the newest replacement, in order of name, after this one.
    pub async fn key_items(
        &self,
        resource: &ResourceName,
        after: Option<&str>,
    ) -> Result<Page<KeyItem>, ClientError> {
        let call = self.call(ListKeyItems, &[resource]);
        call.after(after).send().await
    }
}
