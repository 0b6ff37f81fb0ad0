//! What goes wrong in a world of three machines, and what is ordered there, in the order of time.

use std::time::Duration;

use rand::{RngExt, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;

use super::{IDENTITIES, NODES, Span};
use crate::life::{HOUR, MINUTE};

#[derive(Debug, Clone, Copy)]
pub(super) enum Trouble {
    /// The database is not reached.
    Cut,
    /// ACS is not reached.
    WithoutAcs,
    Frozen,
    Killed,
    Ended,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Event {
    Begins(usize, Trouble),
    Over(usize, Trouble),
    LosesAnswers(usize, u32),
    /// The wall clock of a machine steps by so many seconds.
    Steps(usize, i64),
    Drains(usize, bool),
    Holds(usize, usize),
    Releases(usize, usize),
    Revokes(usize, Option<usize>),
    Renews(usize),
    Look,
}

/// Everything that happens.
pub(super) fn plan(rng: &mut ChaCha8Rng, span: Span) -> Vec<(Duration, Event)> {
    let mut events = Vec::new();
    let secs = span.life.as_secs();
    let at = |rng: &mut ChaCha8Rng| Duration::from_secs(rng.random_range(60..secs - 400));
    // About as much in a month as in a week of hours.
    let count = if span.life > HOUR { 1500 } else { 14 };
    for _ in 0..count {
        let (at, node) = (at(rng), rng.random_range(0..NODES));
        let lasts = Duration::from_secs(rng.random_range(1..200));
        let kind = trouble(rng);
        if matches!(kind, Trouble::Frozen) {
            // It stops in the middle of work.
            let before = Duration::from_millis(rng.random_range(500..20_000));
            let work = match rng.random() {
                true => Event::Renews(node),
                false => Event::Revokes(node, None),
            };
            events.push((at.saturating_sub(before), work));
        }
        events.push((at, Event::Begins(node, kind)));
        events.push((at + lasts, Event::Over(node, kind)));
    }
    for _ in 0..count {
        let at = at(rng);
        ordered(rng, at, &mut events);
    }
    let mut look = span.looks;
    while look <= span.life {
        events.push((look, Event::Look));
        look += span.looks;
    }
    events.sort_by_key(|(at, _)| *at);
    events
}

fn trouble(rng: &mut ChaCha8Rng) -> Trouble {
    let kinds = [
        Trouble::Cut,
        Trouble::Cut,
        Trouble::WithoutAcs,
        Trouble::Frozen,
        Trouble::Frozen,
        Trouble::Killed,
        Trouble::Ended,
    ];
    *kinds.choose(rng).unwrap()
}

/// What somebody does, and undoes later.
fn ordered(rng: &mut ChaCha8Rng, at: Duration, events: &mut Vec<(Duration, Event)>) {
    let (node, who) = (rng.random_range(0..NODES), rng.random_range(0..IDENTITIES));
    let event = match rng.random_range(0..8) {
        0 => Event::LosesAnswers(node, rng.random_range(1..4)),
        1 => Event::Steps(node, rng.random_range(-600..600)),
        2 => {
            events.push((at + MINUTE * 2, Event::Drains(node, false)));
            Event::Drains(node, true)
        }
        3 => {
            let released = Event::Releases(rng.random_range(0..NODES), who);
            events.push((at + MINUTE * 3, released));
            Event::Holds(node, who)
        }
        4 | 5 => Event::Revokes(node, Some(who)),
        6 => Event::Revokes(node, None),
        _ => Event::Renews(node),
    };
    events.push((at, event));
}
