//! What the receiver was told, and how it treats deliveries that are right in themselves.

use std::collections::{BTreeMap, VecDeque};

use http::StatusCode;
use jiff::Timestamp;
use renewd_acs_wire::Secret;

use super::signature::Event;

/// The newest of what a subject was told, and how it came to that.
#[derive(Debug, Clone)]
pub struct Told {
    pub id: String,
    /// The event's type, such as `renewd.token.renewed`.
    pub kind: String,
    pub version: i64,
    /// The state in the document.
    pub state: Option<String>,
    /// The token, where one came along.
    pub token: Option<Secret>,
    /// When it was accepted.
    pub at: Timestamp,
    /// Deliveries that were accepted, this one included.
    pub count: u64,
    /// Deliveries of an id that was just there.
    pub repeated: u64,
    /// Deliveries of an older version than the one before; must never be.
    pub backwards: u64,
}

/// Everything that was received.
#[derive(Debug, Clone, Default)]
pub struct Received {
    /// By subject: what consumers hold.
    pub tokens: BTreeMap<String, Told>,
    /// Events without a version, oldest first: type and subject.
    pub notices: Vec<(String, String)>,
    /// Deliveries that were accepted.
    pub accepted: u64,
    /// Deliveries that were right and not taken, as the conduct said.
    pub turned_away: u64,
    /// Deliveries that were wrong, oldest first: why.
    pub refused: Vec<String>,
}

/// Notices and refusals that are remembered.
const REMEMBERED: usize = 10_000;

#[derive(Debug, Default)]
pub(super) struct Memory {
    tokens: BTreeMap<String, Told>,
    notices: VecDeque<(String, String)>,
    refused: VecDeque<String>,
    accepted: u64,
    turned_away: u64,
}

impl Memory {
    pub(super) fn take(&mut self, event: Event, at: Timestamp) {
        self.accepted += 1;
        let Some(version) = event.version else {
            push(&mut self.notices, (event.kind, event.subject));
            return;
        };
        let before = self.tokens.get(&event.subject);
        let (count, repeated, backwards) =
            before.map_or((0, 0, 0), |b| (b.count, b.repeated, b.backwards));
        let older = before.is_some_and(|before| version < before.version);
        let again = before.is_some_and(|before| event.id == before.id);
        let told = Told {
            id: event.id,
            kind: event.kind,
            version,
            state: event.state,
            token: event.token,
            at,
            count: count + 1,
            repeated: repeated + u64::from(again),
            backwards: backwards + u64::from(older),
        };
        self.tokens.insert(event.subject, told);
    }

    pub(super) fn turn_away(&mut self) {
        self.turned_away += 1;
    }

    pub(super) fn refuse(&mut self, why: String) {
        push(&mut self.refused, why);
    }

    pub(super) fn received(&self) -> Received {
        Received {
            tokens: self.tokens.clone(),
            notices: self.notices.iter().cloned().collect(),
            accepted: self.accepted,
            turned_away: self.turned_away,
            refused: self.refused.iter().cloned().collect(),
        }
    }
}

fn push<T>(list: &mut VecDeque<T>, item: T) {
    list.push_back(item);
    if list.len() > REMEMBERED {
        list.pop_front();
    }
}

/// How to treat deliveries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conduct {
    /// Take them: 204.
    Accept,
    /// Refuse so many with this status, then take them.
    Refuse { status: StatusCode, times: u64 },
    /// 410 from now on: the receiver is gone for good.
    Gone,
    /// Refuse so many with 429, then take them.
    Throttle {
        /// `Retry-After`.
        seconds: u64,
        times: u64,
    },
    /// Never answer so many, then take them.
    Hang { times: u64 },
}

/// What one delivery gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Response {
    Accept,
    Status(StatusCode, Option<u64>),
    Hang,
}

/// The conduct in force, and how often it still applies.
#[derive(Debug, Default)]
pub(super) struct Manners {
    response: Option<Response>,
    left: u64,
}

impl Manners {
    pub(super) fn set(&mut self, conduct: Conduct) {
        let status = |status, seconds| Some(Response::Status(status, seconds));
        (self.response, self.left) = match conduct {
            Conduct::Accept => (None, 0),
            Conduct::Refuse {
                status: code,
                times,
            } => (status(code, None), times),
            Conduct::Gone => (status(StatusCode::GONE, None), u64::MAX),
            Conduct::Throttle { seconds, times } => {
                (status(StatusCode::TOO_MANY_REQUESTS, Some(seconds)), times)
            }
            Conduct::Hang { times } => (Some(Response::Hang), times),
        };
    }

    /// What the next delivery gets.
    pub(super) fn next(&mut self) -> Response {
        match self.response {
            Some(response) if self.left > 0 => {
                self.left -= 1;
                response
            }
            _ => Response::Accept,
        }
    }
}
