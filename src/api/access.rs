//! What happened and who takes part: the audit trail, notices, who took tokens, who uses which version, and what
//! may exist at ACS without a record.
//!
//! `PUT /v1/tokens/{name}/ack`: a consumer says which version it uses, so that an operator sees who
//! still holds an old one.

use std::collections::{BTreeMap, BTreeSet};

use axum::{
    Extension,
    extract::{FromRequest, Path, Query, Request, State},
};
use http::HeaderMap;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{
    admin::{Admin, After, PAGE, bad_cursor, instant, record},
    body::{self, Body},
    connection::{ClientError, DaemonClient},
    endpoint::{EndpointAnswer, Json, endpoints},
    handle::Api,
    peer::{Peer, Turns},
    problem::{Problem, ProblemType},
    rights::not_for_you,
    wire::{CLIENT_HEADER, HolderRow, NoticeRow, Page},
};
use crate::{
    accounts,
    model::{AuditEntry, Name, NameError, Num, Version},
    pool,
    store::{Acknowledgement, AuditQuery, ReadsQuery},
};

pub use crate::store::{Holder, Orphan, TokenReads};

endpoints! {
    /// A consumer says which version it uses.
    Acknowledge: PUT "/v1/tokens/{name}/ack", Ack => Acked;
    /// Consumers and the versions that they use.
    ListHolders: GET "/v1/holders" ?name old, () => Page<HolderRow>;
    /// Tokens that were taken, by the hour.
    ListReads: GET "/v1/reads" ?name since after, () => Page<ReadsRow>;
    /// What may exist at ACS without a record.
    ListOrphans: GET "/v1/orphans" ?after, () => Page<Orphan>;
    /// Takes orphans off the list.
    Dismiss: POST "/v1/orphans/dismiss", DismissOrphans => Dismissed;
    /// All notices, the oldest first.
    ListNotices: GET "/v1/notices" ?after, () => Page<NoticeRow>;
    /// The audit trail, newest first.
    ListAudit: GET "/v1/audit" ?name actor action since until without_renewals after, () => Page<AuditEntry>;
}

/// `PUT /v1/tokens/{name}/ack`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Ack {
    /// The version that the consumer uses.
    pub version: Version,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Acked {
    /// The version that the consumer uses.
    pub version: Version,
    /// The version that it should use.
    pub current: Version,
}

/// One row of `GET /v1/reads`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ReadsRow {
    #[serde(flatten)]
    pub reads: TokenReads,
    /// The name of the user.
    pub user: String,
}

/// `POST /v1/orphans/dismiss`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DismissOrphans {
    pub nums: Vec<Num>,
    /// Why, for the audit trail.
    #[serde(default)]
    pub reason: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Dismissed {
    /// So many were taken off the list.
    pub dismissed: usize,
}

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
) -> EndpointAnswer<ListHolders> {
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
) -> EndpointAnswer<ListReads> {
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
) -> EndpointAnswer<ListOrphans> {
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
) -> EndpointAnswer<Dismiss> {
    let known = api.store.orphans_by_num(asked.nums.clone()).await?;
    if known.len() < asked.nums.len() {
        let unknown = asked
            .nums
            .iter()
            .find(|num| known.iter().all(|one| one.num != **num));
        let why = format!(
            "there is no orphan {}, so nothing was done: `renewd orphan list` shows which there are",
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

/// The largest page of the audit trail, for the entries of one instant.
const AUDIT_MOST: usize = 200_000;

/// Notices after a number, or the latest ones; oldest first.
pub(super) async fn notices(
    State(api): State<Api>,
    _: Admin,
    Query(After { after }): Query<After>,
) -> EndpointAnswer<ListNotices> {
    let rows = match after {
        Some(after) => {
            let after = after.parse().map_err(|_| bad_cursor())?;
            api.store.notices(after, PAGE).await?
        }
        None => {
            let mut latest = api.store.latest_notices(PAGE).await?;
            latest.reverse();
            latest
        }
    };
    // A caller that follows along comes again with the last number, whether or not there is more.
    let next = rows.last().map(|(seq, _)| seq.to_string());
    let items = rows
        .into_iter()
        .map(|(seq, notice)| NoticeRow { seq, notice })
        .collect();
    Ok(Json(Page { items, next }))
}

/// Which entries of the audit trail.
#[derive(Debug, Deserialize)]
pub(super) struct WhichEntries {
    name: Option<String>,
    actor: Option<String>,
    action: Option<String>,
    since: Option<String>,
    until: Option<String>,
    #[serde(default)]
    without_renewals: bool,
    after: Option<String>,
}

/// The audit trail, newest first. A cursor is the instant before which to go on.
pub(super) async fn audit(
    State(api): State<Api>,
    _: Admin,
    Query(which): Query<WhichEntries>,
) -> EndpointAnswer<ListAudit> {
    let invalid = |error: NameError| Problem::new(ProblemType::Invalid, error.to_string());
    let name = which
        .name
        .map(|name| name.parse::<Name>())
        .transpose()
        .map_err(invalid)?;
    let cursor = which
        .after
        .map(|at| at.parse::<Timestamp>())
        .transpose()
        .map_err(|_| bad_cursor())?;
    let wanted = AuditQuery {
        name,
        actor: which.actor,
        action: which.action,
        since: instant("since", which.since)?,
        before: cursor.or(instant("until", which.until)?),
        without_renewals: which.without_renewals,
        limit: 0,
    };
    let mut limit = PAGE;
    loop {
        let query = AuditQuery {
            limit,
            ..wanted.clone()
        };
        let entries = api.store.audit_trail(query).await?;
        let full = entries.len() == limit;
        match cut(entries, full) {
            Some(page) => return Ok(Json(page)),
            None if limit < AUDIT_MOST => limit *= 4,
            None => {
                return Err(Problem::new(
                    ProblemType::Internal,
                    "too many entries of one instant",
                ));
            }
        }
    }
}

/// Cuts a full page where one instant ends, so that the next page begins with a whole instant;
/// `None` when all of it is one instant.
fn cut(mut entries: Vec<AuditEntry>, full: bool) -> Option<Page<AuditEntry>> {
    let Some(last) = entries.last().map(|entry| entry.at).filter(|_| full) else {
        return Some(Page {
            items: entries,
            next: None,
        });
    };
    entries.retain(|entry| entry.at > last);
    if entries.is_empty() {
        return None;
    }
    let next = last
        .checked_add(SignedDuration::from_micros(1))
        .unwrap_or(last);
    Some(Page {
        items: entries,
        next: Some(next.to_string()),
    })
}

/// Which entries of the audit trail; what is left out does not matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditFilter {
    pub name: Option<Name>,
    /// By those whose description holds this text.
    pub actor: Option<String>,
    pub action: Option<String>,
    /// At or after this instant.
    pub since: Option<Timestamp>,
    /// Only what was before this instant.
    pub until: Option<Timestamp>,
    pub without_renewals: bool,
}

impl AuditFilter {
    fn pairs(&self) -> [(&'static str, Option<String>); 6] {
        let time = |at: Option<Timestamp>| at.map(|at| at.to_string());
        [
            ("name", self.name.as_ref().map(ToString::to_string)),
            ("actor", self.actor.clone()),
            ("action", self.action.clone()),
            ("since", time(self.since)),
            ("until", time(self.until)),
            (
                "without_renewals",
                self.without_renewals.then(|| "true".to_owned()),
            ),
        ]
    }
}

impl DaemonClient {
    /// Says which version this consumer uses. `label` is what it calls itself, such as
    /// `renewd-exec`.
    pub async fn acknowledge(
        &self,
        name: &Name,
        version: Version,
        label: &str,
    ) -> Result<Acked, ClientError> {
        let call = self.call(Acknowledge, &[name]).body(&Ack { version });
        call.labelled(label).send().await
    }

    /// Consumers and the versions that they use, of one identity or of all; those that use an old
    /// one alone, if so wished.
    pub async fn holders(
        &self,
        name: Option<&Name>,
        only_old: bool,
    ) -> Result<Page<HolderRow>, ClientError> {
        let pairs = [
            ("name", name.map(ToString::to_string)),
            ("old", only_old.then(|| "true".to_owned())),
        ];
        self.call(ListHolders, &[]).query(pairs).send().await
    }

    /// The audit trail, newest first.
    pub async fn audit(
        &self,
        filter: &AuditFilter,
        after: Option<&str>,
    ) -> Result<Page<AuditEntry>, ClientError> {
        let call = self.call(ListAudit, &[]).query(filter.pairs());
        call.after(after).send().await
    }

    /// Tokens that were taken over the socket, counted by the hour, the latest first.
    pub async fn token_reads(
        &self,
        name: Option<&Name>,
        since: Option<Timestamp>,
        after: Option<&str>,
    ) -> Result<Page<ReadsRow>, ClientError> {
        let pairs = [
            ("name", name.map(ToString::to_string)),
            ("since", since.map(|at| at.to_string())),
        ];
        let call = self.call(ListReads, &[]).query(pairs);
        call.after(after).send().await
    }

    /// What may exist at ACS without a record.
    pub async fn orphans(&self, after: Option<&str>) -> Result<Page<Orphan>, ClientError> {
        self.call(ListOrphans, &[]).after(after).send().await
    }

    /// Takes orphans off the list; ACS is not called.
    pub async fn dismiss_orphans(
        &self,
        dismiss: &DismissOrphans,
    ) -> Result<Dismissed, ClientError> {
        self.call(Dismiss, &[]).body(dismiss).send().await
    }
}

/// The longest name of a consumer that is kept.
const LONGEST_LABEL: usize = 64;

/// The endpoint; for those who may read the token. Nothing of the body is read before that is known.
pub(super) async fn acknowledge(
    State(api): State<Api>,
    peer: Option<Extension<Peer>>,
    turns: Option<Extension<Turns>>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Json<Acked>, Problem> {
    let Some(Extension(peer)) = peer else {
        return Err(not_for_you());
    };
    let turns = turns.as_deref();
    let record = {
        let _turn = Turns::next(turns).await;
        let name = name.parse().ok();
        api.rights.admit(Some(peer), name.as_ref()).await?
    };
    let client = label(request.headers());
    let (request, _room) = body::read(&api.room, request, body::ACKNOWLEDGEMENT).await?;
    let Body(ack) = Body::<Ack>::from_request(request, &api).await?;
    let name = &record.spec.name;
    let version = ack.version;
    if version > record.version {
        let why = format!(
            "{name} has no version {version} yet: the newest is {}",
            record.version
        );
        return Err(Problem::new(ProblemType::Invalid, why));
    }
    let noted = Acknowledgement {
        num: record.num,
        uid: peer.uid,
        client,
        version,
    };
    let _turn = Turns::next(turns).await;
    if !api.store.acknowledge(noted, api.clock.now()).await? {
        let why = format!(
            "{name} never had a version {version}, as far as its last few are remembered: the newest is {}",
            record.version
        );
        return Err(Problem::new(ProblemType::Invalid, why));
    }
    Ok(Json(Acked {
        version,
        current: record.version,
    }))
}

/// What the consumer calls itself: the header that every request carries anyway.
fn label(headers: &HeaderMap) -> String {
    let text = headers.get(CLIENT_HEADER).map(|value| value.as_bytes());
    String::from_utf8_lossy(text.unwrap_or_default())
        .chars()
        .filter(|c| !c.is_control())
        .take(LONGEST_LABEL)
        .collect()
}

#[cfg(test)]
mod listings_tests {
    use super::*;

    fn entries(seconds: &[i64]) -> Vec<AuditEntry> {
        let at = |second: &i64| AuditEntry {
            at: Timestamp::from_second(*second).unwrap(),
            actor: "renewd".into(),
            action: "renew".into(),
            name: None,
            reason: None,
            request_id: None,
            result: "ok".into(),
        };
        seconds.iter().map(at).collect()
    }

    #[test]
    fn a_page_never_splits_an_instant() {
        let page = cut(entries(&[9, 8, 7, 7]), true).unwrap();
        assert_eq!(page.items.len(), 2);
        let before: Timestamp = page.next.unwrap().parse().unwrap();
        assert!(
            before > Timestamp::from_second(7).unwrap(),
            "the next page holds both of 7"
        );
        assert!(cut(entries(&[7, 7]), true).is_none());
        assert_eq!(cut(entries(&[7, 7]), false).unwrap().next, None);
    }
}

#[cfg(test)]
mod access_tests {
    use super::*;

    #[test]
    fn only_what_matters_is_asked_for() {
        let asked = |filter: &AuditFilter| {
            let client = DaemonClient::new("/nowhere");
            client
                .call(ListAudit, &[])
                .query(filter.pairs())
                .target()
                .to_owned()
        };
        assert_eq!(asked(&AuditFilter::default()), "/v1/audit");
        let filter = AuditFilter {
            actor: Some("uid 7 (a&b)".into()),
            without_renewals: true,
            ..AuditFilter::default()
        };
        assert_eq!(
            asked(&filter),
            "/v1/audit?actor=uid%207%20%28a%26b%29&without_renewals=true"
        );
    }
}
