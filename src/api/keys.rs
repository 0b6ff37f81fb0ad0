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
    model::{BearerView, KeyDoubt, KeysView, NoneWorks, ResourceName},
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
    let names: Vec<ResourceName> = api.shared_state().keys.keys().cloned().collect();
    let mut all = Vec::with_capacity(names.len());
    for name in names {
        all.push(keys_of(&api, name).await?);
    }
    Ok(Json(all))
}

/// The keys of one resource.
pub(super) async fn show(
    State(api): State<Api>,
    _: Admin,
    Path(resource): Path<String>,
) -> EndpointAnswer<ShowKeys> {
    let (name, _) = view(&api, &resource)?;
    Ok(Json(keys_of(&api, name).await?))
}

/// Begins to replace a key.
pub(super) async fn replace(
    State(api): State<Api>,
    admin: Admin,
    Path(resource): Path<String>,
    Body(asked): Body<ReplaceKey>,
) -> Result<(StatusCode, Json<KeyChange>), Problem> {
    let (resource, view) = view(&api, &resource)?;
    if let Some(bearer) = bearer(&api, &resource) {
        let why = format!(
            "{resource} has no access keys, so none can be replaced: it is called by {}. To kill tokens, revoke them \
             (`renewd revoke NAME`); {}",
            bearer.kind,
            bearer.replacement(&resource)
        );
        return Err(Problem::new(ProblemType::Conflict, why));
    }
    let role = asked.role.unwrap_or(view.status.in_use);
    let key = |role| view.status.keys.iter().find(|key| key.role == role);
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
    let (resource, _) = view(&api, &resource)?;
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
    let (resource, _) = view(&api, &resource)?;
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

/// What is known of the bearer of a resource without access keys.
fn bearer(api: &Api, resource: &ResourceName) -> Option<BearerView> {
    let shared_state = api.shared_state();
    let renewer = shared_state.renewers.get(resource)?;
    renewer.borrow().bearer.clone()
}

async fn keys_of(api: &Api, resource: ResourceName) -> Result<ResourceKeys, Problem> {
    let (_, view) = view(api, resource.as_str())?;
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
        bearer: bearer(api, &resource),
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

fn view(api: &Api, resource: &str) -> Result<(ResourceName, KeysView), Problem> {
    let shared_state = api.shared_state();
    let found = shared_state
        .keys
        .iter()
        .find(|(name, _)| name.as_str() == resource)
        .map(|(name, view)| (name.clone(), view.borrow().clone()));
    if found.is_none() && shared_state.follows() {
        let standing = shared_state.cluster_standing();
        let leader = standing.as_ref().and_then(|standing| standing.leader());
        let why = match leader {
            Some(leader) => {
                format!("access keys are watched where calls are made: ask {leader}, which leads")
            }
            None => "access keys are watched by the node that leads, and none does at the moment"
                .to_owned(),
        };
        return Err(Problem::new(ProblemType::Conflict, why));
    }
    found.ok_or_else(|| {
        Problem::new(
            ProblemType::Unknown,
            format!("there is no resource {resource:?}"),
        )
    })
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
