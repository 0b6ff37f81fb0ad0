//! `GET /v1/watch?name=…`: every new version of the watched identities, pushed as server-sent events.
//!
//! Each event holds the whole state (a token document; `"token":null` where there is none), so a
//! reader that is slow or was away misses nothing by getting the newest alone. `id` is the
//! store-wide sequence: a reader that comes again with `Last-Event-ID` gets what changed since.
//!
//! One loop ([`Hub::run`]) looks at the store once per change and hands the rendered event to every
//! seat that wants it; each watcher's stream takes from its own seat, at its reader's pace.

mod event;
mod hub;
mod seat;
mod stream;

use std::collections::BTreeSet;

use axum::{
    Extension,
    body::Body,
    extract::{RawQuery, State},
    response::Response,
};
use http::{HeaderMap, HeaderValue, header};

pub(super) use self::hub::{Hub, MOST_WATCHED};
use self::{seat::Interest, stream::Watcher};
use super::{
    handle::Api,
    peer::{Peer, Right, Turns},
    problem::{Problem, ProblemType},
    rights::not_for_you,
};
use crate::model::Name;

/// Names that one watcher may list; admins may watch all.
const MOST_NAMES: usize = 1000;
/// Names that are looked up at once.
const AT_ONCE: usize = 16;

/// The endpoint.
pub(super) async fn watch(
    State(api): State<Api>,
    peer: Option<Extension<Peer>>,
    turns: Option<Extension<Turns>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Some(Extension(peer)) = peer else {
        return Err(not_for_you());
    };
    let names = names(query.as_deref().unwrap_or(""))?;
    let turns = turns.map(|Extension(turns)| turns);
    {
        let _turn = Turns::next(turns.as_ref()).await;
        permit(&api, peer, &names).await?;
    }
    let interest = match names.is_empty() {
        true => Interest::All,
        false => Interest::These(names),
    };
    let watcher = Watcher::new(api, (peer, turns), interest, last_event_id(&headers))?;
    let mut response = Response::new(Body::from_stream(watcher.frames()));
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// Refuses, as for tokens, unless this peer may read every one of them; no names are all of them.
async fn permit(api: &Api, peer: Peer, names: &BTreeSet<Name>) -> Result<(), Problem> {
    if names.is_empty() {
        return match api.rights.of(api, peer, &[]).await? {
            Right::Control => Ok(()),
            Right::Read | Right::None => Err(Problem::new(
                ProblemType::Forbidden,
                "only admins watch everything; say which with name=",
            )),
        };
    }
    let mut unknown = Vec::new();
    let names: Vec<&Name> = names.iter().collect();
    // In pieces: whoever asks for many that are not theirs costs no more than for one, and holds no reader up.
    for piece in names.chunks(AT_ONCE) {
        let asked = piece.iter().map(|name| (*name).clone()).collect();
        let led = api.store.led_to(asked).await?;
        for (name, led) in piece.iter().zip(led) {
            if api.rights.permit(api, peer, Some(led)).await?.is_none() {
                unknown.push(name.as_str());
            }
        }
    }
    if unknown.is_empty() {
        return Ok(());
    }
    unknown.truncate(10);
    let why = format!("there is no identity of this name: {}", unknown.join(", "));
    Err(Problem::new(ProblemType::Unknown, why))
}

/// Every `name=` of the query.
fn names(query: &str) -> Result<BTreeSet<Name>, Problem> {
    let invalid = |why: String| Problem::new(ProblemType::Invalid, why);
    let mut names = BTreeSet::new();
    for (key, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
        if key == "name" {
            let text = decoded(value).ok_or_else(|| invalid("name= is not UTF-8".to_owned()))?;
            let name = text.parse::<Name>();
            names.insert(name.map_err(|error| invalid(error.to_string()))?);
        }
    }
    if names.len() > MOST_NAMES {
        return Err(invalid(format!(
            "at most {MOST_NAMES} names can be watched by one request; admins may leave them out and watch all"
        )));
    }
    Ok(names)
}

/// A value of a query in the clear.
fn decoded(value: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let [first, tail @ ..] = rest {
        let (byte, after) = match (first, tail) {
            (b'%', [high, low, after @ ..]) => {
                let digits = std::str::from_utf8(&[*high, *low]).ok()?.to_owned();
                (u8::from_str_radix(&digits, 16).ok()?, after)
            }
            (b'+', after) => (b' ', after),
            (byte, after) => (*byte, after),
        };
        bytes.push(byte);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

/// The `id` of the last event that the reader saw; 0 and anything that is no number are none.
fn last_event_id(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get("last-event-id")?.to_str().ok()?;
    text.trim().parse().ok().filter(|seq| *seq > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_from_the_query() {
        let list = |query: &str| {
            let names = names(query).unwrap();
            names.iter().map(Name::as_str).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(list(""), "");
        assert_eq!(list("name=bot&other=1&name=an%6ea"), "anna bot");
        assert_eq!(list("name=a%2Bb"), "a+b");
        for bad in ["name=", "name=%ff", "name=a%2", "name=a+b"] {
            assert_eq!(names(bad).unwrap_err().status, 400, "{bad}");
        }
        let many: Vec<String> = (0..=MOST_NAMES).map(|n| format!("name=n{n}")).collect();
        assert_eq!(names(&many.join("&")).unwrap_err().status, 400);
    }
}
