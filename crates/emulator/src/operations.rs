//! The operations themselves, on the world: authenticated, admitted, still to be validated.
//!
//! Order of checks as recorded: token of the Teams body or ownership of the id, then the model,
//! then ranges.

use std::{sync::Arc, time::Duration};

use http::HeaderMap;
use jiff::Timestamp;

use renewd_acs_wire::{CreateRequest, ExchangeRequest, IssueRequest};

use super::{
    access_keys::KeyStamp,
    answer::{self, Problem},
    call::Route,
    entra,
    options::EmulatorOptions,
    world::{Grant, Standing, World, expiry},
};

/// What an operation is done with.
pub(super) struct Ask<'a> {
    pub(super) options: &'a EmulatorOptions,
    pub(super) now: Timestamp,
    pub(super) key: KeyStamp,
    pub(super) version: &'a str,
    pub(super) headers: &'a HeaderMap,
    pub(super) body: &'a [u8],
}

/// What an operation came to.
#[derive(Debug)]
pub(super) enum Outcome {
    Created(Arc<str>, Option<Grant>),
    Granted(Grant),
    Exchanged(Grant),
    Done,
}

/// Since this version the lifetime can be chosen; before it was always a day.
const CHOOSABLE_LIFETIME: &str = "2022-10-01";
/// Since this version there are more scopes than two.
const FINE_SCOPES: &str = "2023-10-01";
const A_DAY: i64 = 1440;

/// Does what the route asks for.
pub(super) fn perform(world: &mut World, route: &Route, ask: &Ask<'_>) -> Result<Outcome, Problem> {
    match route {
        Route::Create => create(world, ask),
        Route::Issue(id) => issue(world, id, ask),
        Route::Revoke(id) => {
            existing(world, id, ask)?;
            world.revoke(id, ask.now);
            Ok(Outcome::Done)
        }
        Route::Delete(id) => {
            existing(world, id, ask)?;
            world.delete(id, ask.now);
            Ok(Outcome::Done)
        }
        Route::Exchange => exchange(world, ask),
        Route::WrongMethod | Route::Unknown => Err(answer::not_found("")),
    }
}

/// Without scopes, or with none in the list, only an identity is made (the latter is not
/// established) and the lifetime is not looked at.
fn create(world: &mut World, ask: &Ask<'_>) -> Result<Outcome, Problem> {
    let request: CreateRequest = answer::read(ask.headers, ask.body)?.unwrap_or_default();
    let scopes = request.create_token_with_scopes.unwrap_or_default();
    if scopes.is_empty() {
        return Ok(Outcome::Created(world.create(ask.now), None));
    }
    let lifetime = lifetime(request.expires_in_minutes, ask.version)?;
    check_scopes(&scopes, ask.version)?;
    let id = world.create(ask.now);
    let grant = grant(world, &id, &scopes, lifetime, ask);
    Ok(Outcome::Created(id, Some(grant)))
}

fn issue(world: &mut World, id: &str, ask: &Ask<'_>) -> Result<Outcome, Problem> {
    existing(world, id, ask)?;
    let request: Option<IssueRequest> = answer::read(ask.headers, ask.body)?;
    let request = request.ok_or_else(answer::body_required)?;
    let scopes = request.scopes.ok_or_else(answer::scopes_required)?;
    if scopes.is_empty() {
        return Err(answer::scopes_empty());
    }
    let lifetime = lifetime(request.expires_in_minutes, ask.version)?;
    check_scopes(&scopes, ask.version)?;
    Ok(Outcome::Granted(grant(world, id, &scopes, lifetime, ask)))
}

fn grant(
    world: &mut World,
    id: &str,
    scopes: &[String],
    lifetime: Duration,
    ask: &Ask<'_>,
) -> Grant {
    let expires_at = expiry(ask.now, lifetime, ask.options.token_ttl);
    world.grant(id, scopes, ask.key, ask.now, expires_at)
}

/// The token lives as long as the user's own. Its scopes are not established.
fn exchange(world: &mut World, ask: &Ask<'_>) -> Result<Outcome, Problem> {
    let request: Option<ExchangeRequest> = answer::read(ask.headers, ask.body)?;
    let request = request.ok_or_else(answer::body_required)?;
    let text = request.token.as_ref().map_or("", |token| token.expose());
    let token = entra::read(text, ask.now).map_err(answer::invalid_access_token)?;
    let app_id = request.app_id.filter(|text| !text.is_empty());
    let app_id = app_id.ok_or_else(answer::app_id_required)?;
    let user_id = request.user_id.filter(|text| !text.is_empty());
    let user_id = user_id.ok_or_else(answer::user_id_required)?;
    if uuid::Uuid::try_parse(&app_id).is_err() {
        return Err(answer::app_id_format());
    }
    if !app_id.eq_ignore_ascii_case(&token.app_id) {
        return Err(answer::app_id_unexpected());
    }
    if !user_id.eq_ignore_ascii_case(&token.user_id) {
        return Err(answer::user_id_unexpected());
    }
    let own = token.expires_at.duration_since(ask.now);
    let own = Duration::try_from(own).unwrap_or_default();
    let expires_at = expiry(ask.now, own, ask.options.token_ttl.map(|ttl| ttl.min(own)));
    let owner = format!("8:orgid:{}", token.user_id);
    let scopes = ["chat".to_owned(), "voip".to_owned()];
    let grant = world.grant(&owner, &scopes, ask.key, ask.now, expires_at);
    Ok(Outcome::Exchanged(grant))
}

fn existing(world: &mut World, id: &str, ask: &Ask<'_>) -> Result<(), Problem> {
    let status = ask.options.deleted_status;
    match world.standing(id) {
        Standing::Exists => Ok(()),
        Standing::Foreign => Err(answer::identity_not_owned(id, &world.prefix())),
        Standing::Deleted => Err(answer::identity_not_found(status, "it was deleted")),
        Standing::Unknown => Err(answer::identity_not_found(
            status,
            "no such identity was created here",
        )),
    }
}

fn lifetime(minutes: Option<i64>, version: &str) -> Result<Duration, Problem> {
    let minutes = match minutes {
        Some(minutes) if version >= CHOOSABLE_LIFETIME => minutes,
        _ => A_DAY,
    };
    if !(60..=A_DAY).contains(&minutes) {
        return Err(answer::lifetime_out_of_range(minutes));
    }
    Ok(Duration::from_secs(minutes.unsigned_abs() * 60))
}

fn check_scopes(scopes: &[String], version: &str) -> Result<(), Problem> {
    let known: &[&str] = if version >= FINE_SCOPES {
        &[
            "chat",
            "voip",
            "chat.join",
            "chat.join.limited",
            "voip.join",
        ]
    } else {
        &["chat", "voip"]
    };
    match scopes.iter().find(|scope| !known.contains(&scope.as_str())) {
        Some(unknown) => Err(answer::scope_unknown(unknown)),
        None => Ok(()),
    }
}
