//! `GET /v1/tokens/{name}`: the newest token for those who may read it, at once or as a long poll.
//!
//! A caller that names the version it has (`If-None-Match`) and a `wait` is answered as soon as
//! there is something newer: a token, or the fact that there is none any more. One that names no
//! version is answered at once if there is a live token, else as soon as there is one.

use std::time::Duration;

use axum::{
    Extension,
    body::Body,
    extract::{Path, Query, State},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use jiff::Timestamp;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::{
    handle::Api,
    peer::{self, Peer, Right},
    problem::{Problem, ProblemType},
};
use crate::{
    model::{HealthView, LaneView, Name, Record, State as Stored, TokenDocument, Version},
    schedule::{Ended, Grounds, Standing, standing},
    store::Holding,
};

/// No wait is longer, whatever the caller asks.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// When to come again where nothing better is known.
const COME_AGAIN: Duration = Duration::from_secs(5);
/// Nobody is sent away for longer than this, as things may mend.
const COME_AGAIN_MOST: Duration = Duration::from_secs(60);

/// Says how the token stands that is handed over: `good`, or `doubtful`.
const STANDING: HeaderName = HeaderName::from_static("x-renewd-standing");

/// The query.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Asked {
    /// Such as `55s`, or seconds without a unit.
    wait: Option<String>,
}

/// What a consumer would get now.
#[derive(Debug, Clone, PartialEq)]
enum Outlook {
    /// A token of this version that is not known to be dead.
    Live(Version, Standing),
    /// No token on purpose, since this version.
    Withheld(Version, Problem),
    /// There should be a token, and there is none that lives.
    Missing(Problem),
}

impl Outlook {
    /// Whether a caller that has seen `seen` need not wait any longer.
    fn is_news(&self, seen: Option<Version>) -> bool {
        match self {
            Self::Live(version, _) | Self::Withheld(version, _) => seen != Some(*version),
            Self::Missing(_) => false,
        }
    }
}

/// The endpoint.
pub(super) async fn token(
    State(api): State<Api>,
    peer: Option<Extension<Peer>>,
    Path(name): Path<String>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let wait = wait(asked.wait.as_deref())?;
    let seen = seen(&headers);
    let name = name.parse().ok();
    let until = tokio::time::sleep(wait);
    let mut until = std::pin::pin!(until);
    // Subscribed before the first look, so that no commit falls in between.
    let mut watch = Watch::new(&api);
    loop {
        let (record, outlook) = look(&api, peer.as_deref(), name.as_ref()).await?;
        let over = wait.is_zero() || until.is_elapsed() || api.stop.is_cancelled();
        if over || outlook.is_news(seen) {
            let response = answer(&api, &record, outlook, seen, bare(&headers)).await?;
            if let (StatusCode::OK, Some(Extension(peer))) = (response.status(), peer) {
                api.reads.count(peer, &record.spec.name, api.clock.now());
            }
            return Ok(response);
        }
        // An expiry is no commit: nobody tells, so the wait ends with the token's life.
        let dead = async {
            match &outlook {
                Outlook::Live(_, Standing::Good { left } | Standing::Doubtful { left, .. }) => {
                    let end = api.clock.now().checked_add(*left);
                    api.clock.sleep_until(end.unwrap_or(Timestamp::MAX)).await;
                }
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = &mut until => {}
            () = api.stop.cancelled() => {}
            changed = watch.changed(&record) => changed?,
            () = dead => {}
        }
    }
}

/// Waits for commits that concern one identity.
struct Watch<'a> {
    api: &'a Api,
    signal: tokio::sync::watch::Receiver<u64>,
    seq: u64,
}

impl<'a> Watch<'a> {
    fn new(api: &'a Api) -> Self {
        Self {
            api,
            signal: api.store.wanted_signal(),
            seq: api.store.seq(),
        }
    }

    /// Returns after a commit that may have changed this row. Thousands may wait while hundreds of
    /// other identities are renewed each second, so the list of changes is looked at first.
    async fn changed(&mut self, record: &Record) -> Result<(), Problem> {
        loop {
            if self.signal.changed().await.is_err() {
                return Err(Problem::new(ProblemType::Internal, "the store is closed"));
            }
            // Read first: what is committed in between is looked at again, not missed.
            let newest = self.api.store.seq();
            let changes = self.api.store.changes_after(self.seq);
            self.seq = newest;
            match changes {
                Some(changes) if changes.iter().all(|change| change.num != record.num) => {}
                _ => return Ok(()),
            }
        }
    }
}

/// The row and what it means, if this caller may know. Rights are asked anew at each look: a long
/// poll does not outlive them.
async fn look(
    api: &Api,
    peer: Option<&Peer>,
    name: Option<&Name>,
) -> Result<(Record, Outlook), Problem> {
    let record = match name {
        Some(name) => api.store.record(name).await?,
        None => None,
    };
    let scene = api.scene();
    let readers = record
        .as_ref()
        .map_or_else(Vec::new, |record| record.spec.readers.clone());
    let right = match peer {
        Some(peer) => peer::decide(*peer, scene.daemon.admins.clone(), readers).await,
        None => Right::None,
    };
    let Some(record) = permitted(record, right)? else {
        return Err(Problem::new(
            ProblemType::Unknown,
            "there is no identity of this name",
        ));
    };
    let lane = scene.lane(&record.spec.resource);
    let outlook = outlook(&record, &lane, api.clock.now());
    Ok((record, outlook))
}

/// The row for those who may read it. Only admins learn that there is none: to everybody else the
/// answer is the same as for somebody else's identity.
fn permitted(record: Option<Record>, right: Right) -> Result<Option<Record>, Problem> {
    match right {
        Right::Control => Ok(record),
        Right::Read if record.is_some() => Ok(record),
        Right::Read | Right::None => Err(not_for_you()),
    }
}

/// The same for somebody else's identity and for one that does not exist.
pub(super) fn not_for_you() -> Problem {
    Problem::new(
        ProblemType::Forbidden,
        "there is no identity of this name that you may read: ask for your user or group to be \
         put into its `readers`",
    )
}

/// The document as it may be shown now, and how its token stands: a dead one is left out.
pub(super) fn shown(
    holding: Holding,
    grounds: &Grounds,
    now: Timestamp,
) -> (TokenDocument, Standing) {
    let Holding {
        record,
        mut document,
    } = holding;
    let stands = standing(&record, grounds, now);
    if document.token.is_some() && !stands.may_be_served() {
        document.token = None;
        document.state = record.state_at(now);
    }
    (document, stands)
}

/// What a row means to a consumer.
fn outlook(record: &Record, lane: &LaneView, now: Timestamp) -> Outlook {
    let name = &record.spec.name;
    match record.state {
        Stored::Held => Outlook::Withheld(
            record.version,
            Problem::new(
                ProblemType::Held,
                format!("{name} is held: it has no token on purpose, until it is released"),
            ),
        ),
        Stored::Gone | Stored::Deleted => Outlook::Withheld(
            record.version,
            Problem::new(ProblemType::Deleted, format!("{name} is {}", record.state)),
        ),
        Stored::New | Stored::Active | Stored::Late => {
            let stands = standing(record, &Grounds::of(lane), now);
            if stands.may_be_served() {
                Outlook::Live(record.version, stands)
            } else {
                Outlook::Missing(missing(record, lane, stands, now))
            }
        }
    }
}

/// Why there is no live token, and when to come again.
fn missing(record: &Record, lane: &LaneView, stands: Standing, now: Timestamp) -> Problem {
    let operation = crate::schedule::operation(record).as_str();
    let name = &record.spec.name;
    let left = |at: Timestamp| Duration::try_from(at.duration_since(now)).unwrap_or_default();
    let (kind, why, wait) = match lane.health.get(operation) {
        Some(HealthView::Probing { because, .. }) => (
            ProblemType::Unreachable,
            format!("ACS does not answer: {because}"),
            COME_AGAIN,
        ),
        Some(HealthView::Held { until, because }) if now < *until => (
            ProblemType::Throttled,
            format!("ACS made us wait: {because}"),
            left(*until),
        ),
        _ => match record.due {
            Some(due) if now < due.at => (
                ProblemType::Pending,
                "it is tried again soon".to_owned(),
                left(due.at),
            ),
            _ => (
                ProblemType::Pending,
                "it is about to be issued".to_owned(),
                Duration::ZERO,
            ),
        },
    };
    let had = match stands {
        Standing::Dead {
            how: Ended::Revoked,
            ..
        } => "its token was revoked",
        Standing::Dead {
            how: Ended::Expired,
            ..
        } => "its token has expired",
        Standing::None | Standing::Good { .. } | Standing::Doubtful { .. } => "it has no token yet",
    };
    Problem::new(kind, format!("{name} has no live token: {had}; {why}"))
        .retry_after(wait.min(COME_AGAIN_MOST))
}

/// The answer to `outlook`.
async fn answer(
    api: &Api,
    record: &Record,
    outlook: Outlook,
    seen: Option<Version>,
    bare: bool,
) -> Result<Response, Problem> {
    match outlook {
        Outlook::Missing(problem) => Err(problem),
        Outlook::Withheld(version, problem) => {
            let mut response = problem.into_response();
            response.headers_mut().insert(header::ETAG, etag(version));
            Ok(response)
        }
        Outlook::Live(version, stands) if seen == Some(version) => {
            let mut response = with_headers(StatusCode::NOT_MODIFIED, version, Body::empty());
            tell_standing(&mut response, stands);
            Ok(response)
        }
        Outlook::Live(..) => {
            let name = record.spec.name.clone();
            let found = api.store.holdings(vec![name]).await?.pop();
            let grounds = Grounds::of(&api.scene().lane(&record.spec.resource));
            let now = api.clock.now();
            found
                .and_then(|holding| handed_over(holding, &grounds, bare, now))
                .ok_or_else(|| {
                    let why = format!("{} changed at this very moment", record.spec.name);
                    Problem::new(ProblemType::Pending, why).retry_after(Duration::ZERO)
                })
        }
    }
}

/// The document or its bare token; never a dead one. Row and document are of one read, so what is
/// handed over is what was judged.
fn handed_over(
    holding: Holding,
    grounds: &Grounds,
    bare: bool,
    now: Timestamp,
) -> Option<Response> {
    let (document, stands) = shown(holding, grounds, now);
    let token = document.token.as_ref()?;
    let (bytes, content) = if bare {
        (
            Zeroizing::new(token.expose().as_bytes().to_vec()),
            "text/plain; charset=utf-8",
        )
    } else {
        (document.to_json(), "application/json")
    };
    // Wiped when the last part of it has been written.
    let body = Body::from(Bytes::from_owner(bytes));
    let mut response = with_headers(StatusCode::OK, document.version, body);
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(content));
    tell_standing(&mut response, stands);
    Some(response)
}

fn tell_standing(response: &mut Response, stands: Standing) {
    let word = HeaderValue::from_static(stands.as_str());
    response.headers_mut().insert(STANDING, word);
}

fn with_headers(status: StatusCode, version: Version, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::ETAG, etag(version));
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn etag(version: Version) -> HeaderValue {
    HeaderValue::from_str(&format!("\"{version}\"")).unwrap_or(HeaderValue::from_static("\"0\""))
}

/// The version in `If-None-Match`; anything else there matches nothing.
fn seen(headers: &HeaderMap) -> Option<Version> {
    let text = headers.get(header::IF_NONE_MATCH)?.to_str().ok()?.trim();
    let text = text.strip_prefix("W/").unwrap_or(text);
    text.strip_prefix('"')?
        .strip_suffix('"')?
        .parse()
        .ok()
        .map(Version)
}

/// Whether the caller wants the bare token.
fn bare(headers: &HeaderMap) -> bool {
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok());
    accept.is_some_and(|accept| accept.contains("text/plain"))
}

/// How long to wait: `55s`, `55`, or nothing.
fn wait(text: Option<&str>) -> Result<Duration, Problem> {
    let Some(text) = text else {
        return Ok(Duration::ZERO);
    };
    match text.strip_suffix('s').unwrap_or(text).parse() {
        Ok(seconds) => Ok(Duration::from_secs(seconds).min(LONGEST_WAIT)),
        Err(_) => Err(Problem::new(
            ProblemType::Invalid,
            "wait must be whole seconds, such as wait=55s; at most 60 s are granted",
        )),
    }
}
