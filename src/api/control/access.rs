//! `GET /v1/holders`, `/v1/reads`, `/v1/orphans`: who uses which version, who took tokens, and what
//! may exist at ACS without a record.

use std::collections::{BTreeMap, BTreeSet};

use axum::{
    Json,
    extract::{Query, State},
};
use jiff::Timestamp;
use serde::Deserialize;

use super::{
    super::{
        handle::Api,
        problem::{Problem, ProblemType},
        wire::{DismissOrphans, Dismissed, HolderRow, Orphan, Page, ReadsRow},
    },
    Admin, After, Body, PAGE,
    listings::{bad_cursor, instant},
    record,
};
use crate::{
    accounts,
    model::Name,
    pool,
    store::{Holder, ReadsQuery},
};

/// The most consumers that are listed: as many as matter to a person.
const HOLDERS: usize = 10_000;
/// Of those that use an old version, so many are in the status.
const BEHIND: usize = 20;

/// `?name=…&old=true`.
#[derive(Debug, Deserialize)]
pub(super) struct WhichHolders {
    name: Option<String>,
    #[serde(default)]
    old: bool,
}

/// Consumers and the versions that they use.
pub(super) async fn holders(
    State(api): State<Api>,
    _: Admin,
    Query(which): Query<WhichHolders>,
) -> Result<Json<Page<HolderRow>>, Problem> {
    let num = match &which.name {
        Some(name) => Some(record(&api, name).await?.num),
        None => None,
    };
    let items = named(api.store.holders(num, which.old, HOLDERS).await?).await;
    Ok(Json(Page { items, next: None }))
}

/// Consumers that use an old version, for the status: as many as fit on a screen.
pub(super) async fn behind(api: &Api) -> Result<Vec<HolderRow>, Problem> {
    let holders = api.store.holders(None, true, BEHIND).await?;
    Ok(named(holders).await)
}

async fn named(holders: Vec<Holder>) -> Vec<HolderRow> {
    let users = users(holders.iter().map(|holder| holder.uid)).await;
    let named = holders.into_iter().map(|holder| HolderRow {
        user: users.get(&holder.uid).cloned().unwrap_or_default(),
        holder,
    });
    named.collect()
}

/// `?name=…&since=…&after=…`.
#[derive(Debug, Deserialize)]
pub(super) struct WhichReads {
    name: Option<Name>,
    since: Option<String>,
    after: Option<String>,
}

/// Tokens taken over the socket, the latest hour first. A cursor is `HOUR/NAME/UID`.
pub(super) async fn reads(
    State(api): State<Api>,
    _: Admin,
    Query(which): Query<WhichReads>,
) -> Result<Json<Page<ReadsRow>>, Problem> {
    // What was counted a moment ago belongs into the answer.
    api.reads.write(&api.store).await;
    let after = match which.after.as_deref().map(place) {
        None => None,
        Some(place) => Some(place.ok_or_else(bad_cursor)?),
    };
    let query = ReadsQuery {
        name: which.name,
        since: instant("since", which.since)?,
        after,
        limit: PAGE,
    };
    let reads = api.store.token_reads(query).await?;
    let last = reads.last().filter(|_| reads.len() == PAGE);
    let next = last.map(|last| format!("{}/{}/{}", last.hour, last.name, last.uid));
    let users = users(reads.iter().map(|read| read.uid)).await;
    let named = reads.into_iter().map(|reads| ReadsRow {
        user: users.get(&reads.uid).cloned().unwrap_or_default(),
        reads,
    });
    let items = named.collect();
    Ok(Json(Page { items, next }))
}

/// The names of users; asked where blocking is allowed, as a directory server may be slow.
async fn users(uids: impl Iterator<Item = u32>) -> BTreeMap<u32, String> {
    let uids: BTreeSet<u32> = uids.collect();
    let names = move || {
        let named = uids
            .into_iter()
            .map(|uid| (uid, accounts::user_of(uid).name));
        named.collect()
    };
    pool::ACCOUNTS.run(names).await.unwrap_or_default()
}

fn place(cursor: &str) -> Option<(Timestamp, Name, u32)> {
    let (rest, uid) = cursor.rsplit_once('/')?;
    let (hour, name) = rest.split_once('/')?;
    Some((hour.parse().ok()?, name.parse().ok()?, uid.parse().ok()?))
}

/// Possible orphans, in the order in which they were noticed. A cursor is a number.
pub(super) async fn orphans(
    State(api): State<Api>,
    _: Admin,
    Query(After { after }): Query<After>,
) -> Result<Json<Page<Orphan>>, Problem> {
    let after = after.as_deref().unwrap_or("0");
    let after = after.parse().map_err(|_| bad_cursor())?;
    let items = api.store.orphans(after, PAGE).await?;
    let last = items.last().filter(|_| items.len() == PAGE);
    let next = last.map(|last| last.num.to_string());
    Ok(Json(Page { items, next }))
}

/// Takes orphans off the list; ACS is not called.
pub(super) async fn dismiss(
    State(api): State<Api>,
    admin: Admin,
    Body(asked): Body<DismissOrphans>,
) -> Result<Json<Dismissed>, Problem> {
    let known = api.store.orphans_by_num(asked.nums.clone()).await?;
    if known.len() < asked.nums.len() {
        let unknown = asked
            .nums
            .iter()
            .find(|num| known.iter().all(|one| one.num != **num));
        let why = format!(
            "there is no orphan {}: see `renewd orphan list`; nothing was done",
            unknown.copied().unwrap_or_default()
        );
        return Err(Problem::new(ProblemType::Unknown, why));
    }
    api.store.dismiss_orphans(asked.nums).await?;
    for orphan in &known {
        let what = format!("{} {}", orphan.kind, orphan.num);
        admin
            .audit(
                &api,
                "dismiss-orphan",
                Some(&orphan.name),
                asked.reason.clone(),
                &what,
            )
            .await?;
    }
    Ok(Json(Dismissed {
        dismissed: known.len(),
    }))
}
