//! `/v1/keys`: which keys there are, what they minted, and their replacement.

use axum::{
    Json,
    extract::{Path, Query, State},
};
use http::StatusCode;

use super::{
    super::{
        handle::Api,
        problem::{Problem, ProblemType},
        wire::{KeyChange, KeyItem, KeyLine, Page, ReplaceKey, ResourceKeys},
    },
    Admin, After, Body, PAGE,
};
use crate::{
    model::{KeyStage, KeysView, ResourceName},
    store::NewKeyChange,
};

/// The keys of every resource.
pub(super) async fn list(
    State(api): State<Api>,
    _: Admin,
) -> Result<Json<Vec<ResourceKeys>>, Problem> {
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
) -> Result<Json<ResourceKeys>, Problem> {
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
    Ok((StatusCode::ACCEPTED, Json(begun)))
}

/// Calls it off.
pub(super) async fn cancel(
    State(api): State<Api>,
    admin: Admin,
    Path(resource): Path<String>,
) -> Result<Json<KeyChange>, Problem> {
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
) -> Result<Json<Page<KeyItem>>, Problem> {
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
    found.ok_or_else(|| {
        Problem::new(
            ProblemType::Unknown,
            format!("there is no resource {resource:?}"),
        )
    })
}
