//! What the receiver was told.

use std::collections::{BTreeMap, VecDeque};

use jiff::Timestamp;

use renewd_acs_wire::Secret;

use super::event::Event;

/// The newest of what a subject was told, and how it came to that.
#[derive(Debug, Clone)]
pub struct Told {
    /// The event's id.
    pub id: String,
    /// The event's type, such as `renewd.token.renewed`.
    pub kind: String,
    /// The version.
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
