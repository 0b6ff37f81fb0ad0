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
    away,
    handle::Api,
    peer::{Peer, Turns},
    problem::{Problem, ProblemType},
};
use crate::{
    model::{HealthView, Name, Record, RenewerView, State as Stored, TokenDocument, Version},
    schedule::{Grounds, Standing, TokenEnd, standing},
    store::Holding,
};

/// No wait is longer, whatever the caller asks.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// When to come again where nothing better is known.
const COME_AGAIN: Duration = Duration::from_secs(5);
/// Nobody is sent away for longer than this, as things may mend.
const COME_AGAIN_MOST: Duration = Duration::from_secs(60);

/// Between two looks at whether the sinks have a token: nobody is told of that.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Says how the token stands that is handed over: `good`, or `doubtful`.
const STANDING: HeaderName = HeaderName::from_static("x-renewd-standing");

#[derive(Debug, Default, Deserialize)]
pub(super) struct TokenQuery {
    /// Such as `55s`, or seconds without a unit.
    wait: Option<String>,
    /// Whether a token counts only once every sink of the identity has it.
    #[serde(default)]
    delivered: bool,
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
    fn is_news(&self, seen: &Seen) -> bool {
        match self {
            Self::Live(version, _) => !seen.has(*version),
            // There is nothing that `*` could mean.
            Self::Withheld(version, _) => matches!(seen, Seen::Any) || !seen.has(*version),
            Self::Missing(_) => false,
        }
    }
}

/// What `If-None-Match` says that the caller has.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    /// Whatever there is: `*`.
    Any,
    /// These versions; other tags match nothing.
    These(Vec<Version>),
}

impl Seen {
    /// Reads a list of entity tags, strong or weak, over as many lines as there are.
    fn of(headers: &HeaderMap) -> Self {
        let mut versions = Vec::new();
        for line in headers.get_all(header::IF_NONE_MATCH) {
            let mut rest = line.to_str().unwrap_or("").trim();
            if rest == "*" {
                return Self::Any;
            }
            while let Some((tag, after)) = next_tag(rest) {
                versions.extend(tag.parse().map(Version));
                rest = after;
            }
        }
        Self::These(versions)
    }

    fn has(&self, version: Version) -> bool {
        match self {
            Self::Any => true,
            Self::These(versions) => versions.contains(&version),
        }
    }
}

/// The text of the next entity tag of a list, and what follows it. What stands in a tag may hold commas.
fn next_tag(list: &str) -> Option<(&str, &str)> {
    let list = list.trim_start_matches([' ', '\t', ',']);
    let list = list.strip_prefix("W/").unwrap_or(list);
    list.strip_prefix('"')?.split_once('"')
}

pub(super) async fn token(
    State(api): State<Api>,
    peer: Option<Extension<Peer>>,
    turns: Option<Extension<Turns>>,
    Path(name): Path<String>,
    Query(asked): Query<TokenQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let wait = wait(asked.wait.as_deref())?;
    let seen = Seen::of(&headers);
    let bare = wants_bare(&headers);
    let name = name.parse().ok();
    let until = tokio::time::sleep(wait);
    let mut until = std::pin::pin!(until);
    // Subscribed before the first look, so that no commit falls in between.
    let mut watch = Watch::new(&api);
    loop {
        let turn = Turns::next(turns.as_deref()).await;
        let (record, mut outlook) = look(&api, peer.as_deref(), name.as_ref()).await?;
        let mut is_on_its_way = false;
        if asked.delivered
            && let Outlook::Live(..) = outlook
            && let Some(missing) = undelivered(&api, &record).await?
        {
            (outlook, is_on_its_way) = (Outlook::Missing(missing), true);
        }
        let over = wait.is_zero() || until.is_elapsed() || api.stop.is_cancelled();
        if over || outlook.is_news(&seen) {
            let response = answer(&api, &record, outlook, &seen, bare).await?;
            if let (StatusCode::OK, Some(Extension(peer))) = (response.status(), peer) {
                api.reads.count(peer, &record.spec.name, api.clock.now());
            }
            return Ok(response);
        }
        drop(turn);
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
            () = tokio::time::sleep(LOOK_AGAIN), if is_on_its_way => {}
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
    let record = api.rights.admit(peer.copied(), name).await?;
    let renewer = api.shared_state().renewer(&record.spec.resource);
    let outlook = match (
        outlook(&record, &renewer, api.clock.now()),
        api.store.away(),
    ) {
        (Outlook::Missing(problem), Some(away)) => {
            Outlook::Missing(away::waits(&format!("{problem}; {}", away.because)))
        }
        (outlook, _) => outlook,
    };
    Ok((record, outlook))
}

/// Which sinks do not have the newest token yet, if any.
async fn undelivered(api: &Api, record: &Record) -> Result<Option<Problem>, Problem> {
    let deliveries = api.store.deliveries_of(record.num).await?;
    let open = deliveries.iter().filter(|delivery| delivery.is_pending());
    let open: Vec<&str> = open.map(|delivery| delivery.sink.as_str()).collect();
    let why = format!(
        "{} has a live token, which is not delivered yet to {}",
        record.spec.name,
        open.join(", ")
    );
    let problem = || Problem::new(ProblemType::Pending, why).retry_after(COME_AGAIN);
    Ok((!open.is_empty()).then(problem))
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
    if !stands.may_be_served() {
        document.token = None;
        document.state = record.state_at(now);
    }
    (document, stands)
}

/// What a row means to a consumer.
fn outlook(record: &Record, renewer: &RenewerView, now: Timestamp) -> Outlook {
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
            let stands = standing(record, &Grounds::of(renewer), now);
            if stands.may_be_served() {
                Outlook::Live(record.version, stands)
            } else {
                Outlook::Missing(missing(record, renewer, stands, now))
            }
        }
    }
}

/// Why there is no live token, and when to come again.
fn missing(record: &Record, renewer: &RenewerView, stands: Standing, now: Timestamp) -> Problem {
    let operation = crate::schedule::operation(record).as_str();
    let name = &record.spec.name;
    let left = |at: Timestamp| Duration::try_from(at.duration_since(now)).unwrap_or_default();
    let bearer = renewer.bearer.as_ref();
    let without = bearer.filter(|bearer| bearer.usable_until(now).is_none());
    let without = without.and_then(|bearer| bearer.complaint(now));
    let (kind, why, wait) = match (without, renewer.health.get(operation)) {
        (Some(why), _) => (ProblemType::Unreachable, why, COME_AGAIN),
        (None, Some(HealthView::Probing { because, .. })) => (
            ProblemType::Unreachable,
            format!("ACS does not answer: {because}"),
            COME_AGAIN,
        ),
        (None, Some(HealthView::Held { until, because })) if now < *until => (
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
            how: TokenEnd::Revoked,
            ..
        } => "its token was revoked",
        Standing::Dead {
            how: TokenEnd::Expired,
            ..
        } => "its token has expired",
        Standing::Dead {
            how: TokenEnd::Dropped,
            ..
        } => "its token is not stored any more, or it is not known whether it lives",
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
    seen: &Seen,
    bare: bool,
) -> Result<Response, Problem> {
    match outlook {
        Outlook::Missing(problem) => Err(problem),
        Outlook::Withheld(version, problem) => {
            let mut response = problem.into_response();
            response.headers_mut().insert(header::ETAG, etag(version));
            Ok(response)
        }
        Outlook::Live(version, stands) if seen.has(version) => {
            let mut response = with_headers(StatusCode::NOT_MODIFIED, version, Body::empty());
            tell_standing(&mut response, stands);
            Ok(response)
        }
        Outlook::Live(..) => {
            let name = record.spec.name.clone();
            let found = api.store.holding(name).await?;
            let grounds = Grounds::of(&api.shared_state().renewer(&record.spec.resource));
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

/// Whether the caller would rather have the bare token than the document, by `Accept` (RFC 9110, 12.5.1): by
/// weight, whatever the case and the order. A tie is the document's.
fn wants_bare(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(header::ACCEPT).iter();
    let ranges: Vec<(String, u16)> = lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .filter_map(range)
        .collect();
    weight(&ranges, "text", "plain") > weight(&ranges, "application", "json")
}

/// A media range in lower case, and its weight in thousandths.
fn range(text: &str) -> Option<(String, u16)> {
    let mut parts = text.split(';').map(str::trim);
    let range = parts.next()?.to_ascii_lowercase();
    let mut weight = 1000;
    for (key, value) in parts.filter_map(|part| part.split_once('=')) {
        if key.trim().eq_ignore_ascii_case("q") {
            let q: f64 = value.trim().parse().ok()?;
            let q = (0.0..=1.0).contains(&q).then_some(q)?;
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "it lies between 0 and 1000"
            )]
            let thousandths = (q * 1000.0) as u16;
            weight = thousandths;
        }
    }
    range.contains('/').then_some((range, weight))
}

/// The weight of a type by the range that names it most closely; 0 where none does.
fn weight(ranges: &[(String, u16)], kind: &str, subtype: &str) -> u16 {
    let closest = [
        format!("{kind}/{subtype}"),
        format!("{kind}/*"),
        "*/*".to_owned(),
    ];
    let weights = closest.iter().filter_map(|wanted| {
        let fitting = ranges.iter().filter(|(range, _)| range == wanted);
        fitting.map(|(_, weight)| *weight).max()
    });
    weights.into_iter().next().unwrap_or(0)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &HeaderName, lines: &[&str]) -> HeaderMap {
        let lines = lines
            .iter()
            .map(|line| (name.clone(), line.parse().unwrap()));
        lines.collect()
    }

    #[test]
    fn the_bare_token_is_for_whoever_likes_text_better() {
        for (accept, bare) in [
            (&[][..], false),
            (&["text/plain"], true),
            (&["TEXT/Plain; charset=utf-8"], true),
            (&["text/*"], true),
            (&["*/*"], false),
            (&["application/json, text/plain, */*"], false),
            (&["text/plain, application/json"], false),
            (&["text/plain, application/json;q=0.9"], true),
            (&["text/plain;q=0.5, application/json;Q=0.4"], true),
            (&["text/plain;q=0.4", "application/json;q=0.5"], false),
            (&["text/plain;q=0"], false),
            (&["*/*;q=0.8, text/plain;q=0.9"], true),
            (&["*/*, text/plain;q=0.1"], false),
            (&["application/*;q=0.1, text/plain"], true),
            (&["application/json;q=0, */*"], true),
            (&["text/html"], false),
            (&["text/plain;q=2"], false),
            (&["nonsense;;,text/plain"], true),
        ] {
            assert_eq!(
                wants_bare(&headers(&header::ACCEPT, accept)),
                bare,
                "{accept:?}"
            );
        }
    }

    #[test]
    fn tags_come_in_lists_and_a_star_is_any() {
        let seen = |lines: &[&str]| Seen::of(&headers(&header::IF_NONE_MATCH, lines));
        assert_eq!(seen(&[" * "]), Seen::Any);
        for (lines, versions) in [
            (&[][..], &[][..]),
            (&["\"7\""], &[7]),
            (&["W/\"7\" , \"8\""], &[7, 8]),
            (&["\"a,b\", \"9\""], &[9]),
            (&["\"1\"", "\"2\",,W/\"3\""], &[1, 2, 3]),
            (&["7", "\"x\"", "\""], &[]),
        ] {
            let versions = versions.iter().copied().map(Version).collect();
            assert_eq!(seen(lines), Seen::These(versions), "{lines:?}");
        }
    }
}
