//! One watcher's stream: the current state at once, then whatever is left at its seat, as fast as
//! its reader takes it.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    convert::Infallible,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::{Stream, stream};
use tokio::time::timeout;

use super::{
    super::{
        handle::Api,
        peer::{Peer, Right, Turns},
        problem::Problem,
        rights::not_for_you,
    },
    event::{self, Event},
    hub::Ticket,
    seat::{Interest, Taken},
};
use crate::{
    model::{Name, Version},
    store::{Holding, StoreError},
};

/// Between signs of life, where nothing happens.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Identities that are read at once while the full state is sent.
const PAGE: usize = 64;

/// One watcher.
#[derive(Debug)]
pub(super) struct Watcher {
    api: Api,
    peer: Peer,
    turns: Option<Turns>,
    interest: Interest,
    ticket: Ticket,
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
            ready: VecDeque::from([event::welcome()]),
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
                            return Some(event::heartbeat());
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
            Rest::After(_) => page.len() < PAGE,
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
            self.ready.push_back(event::place(walk.upto));
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
        let Ok(right) = rights.of(&self.api, self.peer, &event.readers).await else {
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
        self.ready.push_back(event::forbidden(name, &not_for_you()));
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
