//! `GET /v1/watch?name=…`: every new version of the watched identities, pushed as server-sent events.
//!
//! Each event holds the whole state (a token document; `"token":null` where there is none), so a
//! reader that is slow or was away misses nothing by getting the newest alone. `id` is the
//! store-wide sequence: a reader that comes again with `Last-Event-ID` gets what changed since.
//!
//! One loop ([`run`]) looks at the store once per change and leaves the rendered event at every seat of the
//! [`Hub`](super::hub::Hub) that wants it; each watcher's stream gives the current state at once, then whatever
//! is left at its seat, as fast as its reader takes it.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    convert::Infallible,
    sync::Arc,
    time::Duration,
};

use axum::{
    Extension,
    body::Body,
    extract::{RawQuery, State},
    response::Response,
};
use bytes::Bytes;
use futures_util::{Stream, stream};
use http::{HeaderMap, HeaderValue, header};
use percent_encoding::percent_decode_str;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{
    handle::Api,
    hub::{self, Event, Interest, Taken, WatchTicket},
    peer::{Peer, Right, Turns},
    problem::{Problem, ProblemType},
    rights::not_for_you,
    tokens::shown,
};
use crate::{
    model::{Name, Version},
    schedule::Grounds,
    store::{Changed, Holding, StoreError},
};

/// Names that one watcher may list; admins may watch all.
const MOST_NAMES: usize = 1000;
/// Names that are looked up at once.
const AT_ONCE: usize = 16;

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
        return match api.rights.of(peer, &[]).await? {
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
            if api.rights.permit(peer, Some(led)).await?.is_none() {
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
    let plain = value.replace('+', " ");
    let text = percent_decode_str(&plain).decode_utf8().ok()?;
    Some(text.into_owned())
}

/// The `id` of the last event that the reader saw; 0 and anything that is no number are none.
fn last_event_id(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get("last-event-id")?.to_str().ok()?;
    text.trim().parse().ok().filter(|seq| *seq > 0)
}

/// Identities that are read from the store at once.
const BATCH: usize = 64;

/// Serves the watchers until `stop`. It looks from this call on, not from the first poll, so
/// that whoever sits down after the call misses nothing.
pub(super) fn run(api: Api, stop: CancellationToken) -> impl Future<Output = ()> {
    let mut signal = api.store.wanted_signal();
    let mut seen = api.store.seq();
    async move {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                changed = signal.changed() => if changed.is_err() { return },
            }
            // Read first: what is committed in between is looked at again, not missed.
            let newest = api.store.seq();
            match api.store.changes_after(seen) {
                Some(changes) => tell(&api, changes).await,
                None => api.hub.lose_all(),
            }
            seen = newest;
        }
    }
}

/// Reads what changed and is watched, and leaves it at the seats.
async fn tell(api: &Api, changes: Vec<Changed>) {
    let mut newest: BTreeMap<Name, u64> = BTreeMap::new();
    for change in changes {
        if api.hub.is_watched(&change.name) {
            newest.insert(change.name, change.seq);
        }
    }
    let names: Vec<Name> = newest.keys().cloned().collect();
    for batch in names.chunks(BATCH) {
        match api.store.holdings(batch.to_vec()).await {
            Ok(holdings) => {
                for holding in holdings {
                    let seq = newest.get(&holding.record.spec.name).copied();
                    let event = api.event(holding, seq.unwrap_or(0));
                    api.hub.leave(&Arc::new(event));
                }
            }
            Err(error) => {
                tracing::warn!(%error, "watchers cannot be told of a change; they read everything again");
                api.hub.lose_all();
            }
        }
    }
}

impl Api {
    /// What a watcher may be told of a row now.
    fn event(&self, holding: Holding, seq: u64) -> Event {
        let renewer = self.shared_state().renewer(&holding.record.spec.resource);
        let readers = holding.record.spec.declared.readers.clone();
        let now = self.clock.now();
        Event::of(
            shown(holding, &Grounds::of(&renewer), now),
            readers,
            seq,
            now,
        )
    }
}

/// Between signs of life, where nothing happens.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Identities that are read at once while the full state is sent.
const PAGE: usize = 64;

#[derive(Debug)]
pub(super) struct Watcher {
    api: Api,
    peer: Peer,
    turns: Option<Turns>,
    interest: Interest,
    ticket: WatchTicket,
    ready: VecDeque<Bytes>,
    walk: Option<Walk>,
    /// The version that was sent last of each of the named; all of a fleet would be too many.
    sent: BTreeMap<Name, Version>,
    /// The number from which on the reader can come again without a loss.
    place: u64,
    ended: bool,
}

/// Sending the full state, page by page, as it was at number `upto` or later.
#[derive(Debug)]
struct Walk {
    rest: Rest,
    upto: u64,
}

#[derive(Debug)]
enum Rest {
    These(VecDeque<Name>),
    After(Option<Name>),
}

impl Watcher {
    /// A watcher that saw everything up to `last`, where that is known.
    ///
    /// # Errors
    /// When as much is watched as may be.
    pub(super) fn new(
        api: Api,
        (peer, turns): (Peer, Option<Turns>),
        interest: Interest,
        last: Option<u64>,
    ) -> Result<Self, Problem> {
        // Seated before the first look, so that no commit falls in between.
        let ticket = api.hub.sit(peer.uid, interest.clone())?;
        let upto = api.store.seq();
        let place = last.filter(|last| *last <= upto);
        let changed = place.and_then(|last| api.store.changes_after(last));
        let rest = match (changed, &interest) {
            (Some(changes), interest) => {
                let changed: BTreeSet<Name> = changes.into_iter().map(|one| one.name).collect();
                let wanted = changed.into_iter().filter(|name| match interest {
                    Interest::These(names) => names.contains(name),
                    Interest::All => true,
                });
                Rest::These(wanted.collect())
            }
            (None, interest) => Rest::everything(interest),
        };
        Ok(Self {
            api,
            peer,
            turns,
            interest,
            ticket,
            ready: VecDeque::from([hub::welcome()]),
            walk: Some(Walk { rest, upto }),
            sent: BTreeMap::new(),
            place: place.unwrap_or(0),
            ended: false,
        })
    }

    /// The body of the answer. It ends when the daemon does, or when nothing is left that this
    /// reader may see.
    pub(super) fn frames(self) -> impl Stream<Item = Result<Bytes, Infallible>> {
        stream::unfold(self, |mut watcher| async move {
            let frame = watcher.next().await?;
            Some((Ok(frame), watcher))
        })
    }

    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(frame) = self.ready.pop_front() {
                return Some(frame);
            }
            if self.ended || self.api.stop.is_cancelled() {
                return None;
            }
            if let Some(walk) = self.walk.take() {
                self.step(walk).await;
                continue;
            }
            match self.ticket.seat.take() {
                Taken::Event(event) => self.pass_on(&event).await,
                Taken::Lost => {
                    self.walk = Some(Walk {
                        rest: Rest::everything(&self.interest),
                        upto: self.api.store.seq(),
                    });
                }
                Taken::Nothing => {
                    let stop = self.api.stop.clone();
                    tokio::select! {
                        biased;
                        () = stop.cancelled() => return None,
                        woken = timeout(HEARTBEAT, self.ticket.seat.woken()) => if woken.is_err() {
                            return Some(hub::heartbeat());
                        },
                    }
                }
            }
        }
    }

    /// Reads the next page of the full state. The numbers of its events stay where the reader was:
    /// only at the end has it seen everything.
    async fn step(&mut self, mut walk: Walk) {
        let turn = Turns::next(self.turns.as_ref()).await;
        let page = self.page(&mut walk.rest).await;
        drop(turn);
        let page = match page {
            Ok(page) => page,
            Err(error) => {
                tracing::warn!(%error, "a watcher cannot be told the state; it comes again");
                self.ended = true;
                return;
            }
        };
        let over = match &walk.rest {
            Rest::These(names) => names.is_empty(),
            Rest::After(_) => page.is_empty(),
        };
        let last = page.len().saturating_sub(1);
        for (at, holding) in page.into_iter().enumerate() {
            let end = over && at == last;
            let id = if end { walk.upto } else { self.place };
            let event = self.api.event(holding, id);
            self.send(&event, id).await;
        }
        if over {
            self.place = walk.upto;
            self.ready.push_back(hub::place(walk.upto));
        } else {
            self.walk = Some(walk);
        }
    }

    async fn page(&self, rest: &mut Rest) -> Result<Vec<Holding>, StoreError> {
        match rest {
            Rest::These(names) => {
                let some = names.drain(..names.len().min(PAGE)).collect();
                self.api.store.holdings(some).await
            }
            Rest::After(after) => {
                let page = self.api.store.holdings_page(after.as_ref(), PAGE).await?;
                if let Some(last) = page.last() {
                    *after = Some(last.record.spec.name.clone());
                }
                Ok(page)
            }
        }
    }

    /// Sends a change, as it is by now.
    async fn pass_on(&mut self, event: &Arc<Event>) {
        self.place = event.seq;
        if event.is_good(self.api.clock.now()) {
            return self.send(event, event.seq).await;
        }
        // The reader was so slow that the token has ended in the meantime.
        match self.api.store.holdings(vec![event.name.clone()]).await {
            Ok(holdings) => {
                for holding in holdings {
                    let event = self.api.event(holding, event.seq);
                    self.send(&event, event.seq).await;
                }
            }
            Err(_) => self.ended = true,
        }
    }

    /// Sends an event, unless the reader has it or may no longer see it. Rights are asked anew each
    /// time: a stream does not outlive them.
    async fn send(&mut self, event: &Event, id: u64) {
        let rights = self.api.rights.clone();
        let Ok(right) = rights.of(self.peer, &event.readers).await else {
            // Nobody knows who it is at the moment; it comes again.
            self.ended = true;
            return;
        };
        match (&mut self.interest, right) {
            (Interest::All, Right::Control) => {}
            (Interest::All, _) => {
                self.shut_out(&event.name);
                self.ended = true;
                return;
            }
            (Interest::These(names), Right::None) => {
                // Once told, an identity that was shut out stays so on this connection.
                let watched = names.remove(&event.name);
                self.ended = names.is_empty();
                if watched {
                    self.shut_out(&event.name);
                }
                return;
            }
            (Interest::These(names), _) => {
                let known = self.sent.insert(event.name.clone(), event.version);
                if known == Some(event.version) || !names.contains(&event.name) {
                    return;
                }
            }
        }
        if event.ends_at.is_some() {
            self.api
                .reads
                .count(self.peer, &event.name, self.api.clock.now());
        }
        self.ready.push_back(event.frame(id));
    }

    fn shut_out(&mut self, name: &Name) {
        self.ready.push_back(hub::forbidden(name, &not_for_you()));
    }
}

impl Rest {
    fn everything(interest: &Interest) -> Self {
        match interest {
            Interest::These(names) => Self::These(names.iter().cloned().collect()),
            Interest::All => Self::After(None),
        }
    }
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
