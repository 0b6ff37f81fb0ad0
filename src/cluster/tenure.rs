//! Whether this machine leads, decided purely from readings of the clock that never steps and what the database said.
//!
//! What is not known is not so: a request whose answer is lost has extended nothing. The lease counts from before a
//! request was sent, by a clock that goes on while the machine sleeps, and the database gives it to nobody else
//! before the same time has passed on its own clock since it saw that request. So whoever looks at the lease before a
//! call starts has [`QUIET`] in hand before anybody else may lead, however long it was frozen before it looked.

use std::time::Duration;

use crate::{
    model::{DutySeen, NodeName, NodeRow, Role},
    schedule::Steady,
};

/// For so long the database gives the lease to nobody else.
pub const LEASE: Duration = Duration::from_secs(15);
/// So often it is asked for again.
pub(super) const RENEWED_EVERY: Duration = Duration::from_secs(4);
/// What failed is tried again after this.
pub(super) const TRIED_AGAIN: Duration = Duration::from_secs(1);
/// In the last part of a lease no call starts.
pub const QUIET: Duration = Duration::from_secs(5);
/// After somebody yielded nobody else does for so long.
const SETTLED: Duration = Duration::from_mins(1);
/// Who had better not lead leaves others so long to.
const DEFERENCE: Duration = Duration::from_secs(8);
/// Another one has to lack less for so long: what fails for everybody is noticed by all of them within this time.
const LASTING: Duration = Duration::from_secs(12);
/// An answer counts as what is so now for so long.
const FRESH: Duration = Duration::from_secs(3);

/// What this machine knows of the lease.
#[derive(Debug, Clone)]
pub(super) struct Tenure {
    node: NodeName,
    held: Option<Held>,
    seen: Option<Seen>,
    /// How much it lacks to lead.
    pub(super) lacks: u32,
    /// Since when another one lacks less.
    worse_since: Option<Steady>,
}

/// A lease of its own, as it knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Held {
    epoch: u64,
    /// Until when, counted from before it was asked for.
    until: Steady,
}

#[derive(Debug, Clone)]
struct Seen {
    /// When the answer came.
    at: Steady,
    duty: DutySeen,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Move {
    /// Nothing but to say that one is there.
    Stay,
    /// Nobody leads, as far as is known: the database decides. With the epoch in which one led last, which goes on
    /// where nobody led since.
    TakeOver { had: Option<u64> },
    /// Another one should lead.
    Yield { epoch: u64, why: Reason },
}

/// Why another one should lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// A person said so.
    Drained,
    /// Hosts of ACS do not answer it, or it lacks something else, and another one lacks less.
    CutOff,
}

impl Tenure {
    pub(super) fn new(node: NodeName) -> Self {
        Self {
            node,
            held: None,
            seen: None,
            lacks: 0,
            worse_since: None,
        }
    }

    /// The epoch in which it leads, for what it says of itself.
    pub(super) fn epoch(&self) -> Option<u64> {
        self.held.map(|held| held.epoch)
    }

    pub(super) fn role(&self) -> Role {
        match (self.held, &self.seen) {
            (Some(Held { epoch, .. }), _) => Role::Leads { epoch },
            (None, seen) => Role::Follows {
                leader: seen.as_ref().and_then(|seen| seen.leader().cloned()),
            },
        }
    }

    /// Until when calls may start.
    pub(super) fn calls_until(&self) -> Steady {
        self.held
            .map_or(Steady::ZERO, |held| held.until.saturating_sub(QUIET))
    }

    /// What the database answered to what was sent at `sent`.
    pub(super) fn heard(&mut self, sent: Steady, now: Steady, duty: DutySeen) {
        if let Some(held) = &mut self.held {
            let is_ours = duty.holder.as_ref() == Some(&self.node) && duty.epoch == held.epoch;
            match (is_ours && !duty.displaced, duty.renewed) {
                (true, true) => held.until = held.until.max(sent + LEASE),
                // It ran out at the database: as good as over.
                (true, false) => held.until = held.until.min(sent),
                (false, _) => self.held = None,
            }
        }
        let seen = Seen { at: now, duty };
        let is_worse = self.is_worse(&seen);
        self.worse_since = is_worse.then(|| self.worse_since.unwrap_or(now));
        self.seen = Some(seen);
    }

    /// The database gave it the lease, or did not.
    pub(super) fn took(&mut self, sent: Steady, now: Steady, duty: DutySeen) {
        let is_ours = duty.renewed && duty.holder.as_ref() == Some(&self.node);
        self.held = is_ours.then_some(Held {
            epoch: duty.epoch,
            until: sent + LEASE,
        });
        self.seen = Some(Seen { at: now, duty });
    }

    /// It leads no more, by its own will.
    pub(super) fn let_go(&mut self) {
        self.held = None;
        // What was seen speaks of a holder who is none any more.
        self.seen = None;
    }

    pub(super) fn decide(&self, now: Steady) -> Move {
        let Some(seen) = &self.seen else {
            return Move::Stay;
        };
        let is_fresh = now <= seen.at + FRESH;
        match self.held {
            Some(held) => match self.should_yield(seen, now) {
                Some(why) if is_fresh => Move::Yield {
                    epoch: held.epoch,
                    why,
                },
                None if is_fresh && held.until <= now => Move::TakeOver {
                    had: Some(held.epoch),
                },
                _ => Move::Stay,
            },
            None if is_fresh && self.may_take(seen, now) => Move::TakeOver { had: None },
            None => Move::Stay,
        }
    }

    fn should_yield(&self, seen: &Seen, now: Steady) -> Option<Reason> {
        if self.own(seen).is_some_and(|row| row.drained_at.is_some()) {
            return Some(Reason::Drained);
        }
        let settled = seen.duty.yielded_at.is_none_or(|at| {
            let ago = Duration::try_from(seen.duty.now.duration_since(at));
            ago.is_ok_and(|ago| ago >= SETTLED)
        });
        let lasted = self.worse_since.is_some_and(|since| now >= since + LASTING);
        let is_cut_off = lasted && self.is_worse(seen);
        (is_cut_off && settled).then_some(Reason::CutOff)
    }

    /// Whether another one lacks less.
    fn is_worse(&self, seen: &Seen) -> bool {
        self.others(seen).any(|row| row.lacks < self.lacks)
    }

    /// Whether nobody leads who could, and this one should.
    fn may_take(&self, seen: &Seen, now: Steady) -> bool {
        let drained = self.own(seen).is_some_and(|row| row.drained_at.is_some());
        if drained || seen.duty.displaced {
            return false;
        }
        let Some(vacant) = seen.vacant_for(now) else {
            return false;
        };
        let yielded =
            seen.duty.yielded_by.as_ref() == Some(&self.node) && seen.duty.holder.is_none();
        let is_as_good = |row: &NodeRow| row.lacks <= self.lacks;
        let gives_way = self.is_worse(seen) || yielded && self.others(seen).any(is_as_good);
        vacant >= DEFERENCE || !gives_way
    }

    /// When the lease of whoever holds it will have run out, if nothing else happens.
    pub(super) fn vacant_at(&self) -> Option<Steady> {
        let seen = self.seen.as_ref().filter(|_| self.held.is_none())?;
        let left = seen.duty.lease_until.duration_since(seen.duty.now);
        Some(seen.at + Duration::try_from(left).unwrap_or_default())
    }

    fn own<'a>(&self, seen: &'a Seen) -> Option<&'a NodeRow> {
        seen.duty.nodes.iter().find(|row| row.name == self.node)
    }

    fn others<'a>(&'a self, seen: &'a Seen) -> impl Iterator<Item = &'a NodeRow> {
        let nodes = seen.duty.nodes.iter();
        nodes.filter(|row| row.name != self.node && row.alive && row.drained_at.is_none())
    }
}

impl Seen {
    /// Who leads, unless its lease had run out when that was answered.
    fn leader(&self) -> Option<&NodeName> {
        let holder = self.duty.holder.as_ref();
        holder.filter(|_| self.duty.lease_until > self.duty.now)
    }

    /// How long nobody has led, as far as is known for certain; `None` where somebody may.
    fn vacant_for(&self, now: Steady) -> Option<Duration> {
        let Some(_) = &self.duty.holder else {
            let since = self.duty.yielded_at.unwrap_or(self.duty.now);
            let was = Duration::try_from(self.duty.now.duration_since(since)).unwrap_or_default();
            return Some(was + now.saturating_sub(self.at));
        };
        // The database's clock is at least there now.
        let at_least = self.duty.now + now.saturating_sub(self.at);
        let over = at_least.duration_since(self.duty.lease_until);
        Duration::try_from(over).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::model::Timestamp;

    const NODES: usize = 3;
    /// One step of the model.
    const TICK: u64 = 100;

    fn name(node: usize) -> NodeName {
        format!("node-{node}").parse().unwrap()
    }

    /// The database, by its own clock in milliseconds.
    #[derive(Debug, Clone)]
    struct Database {
        epoch: u64,
        holder: Option<usize>,
        lease_until: u64,
        yielded: Option<(u64, usize)>,
        alive_until: [u64; NODES],
        lacks: [u32; NODES],
        drained: [bool; NODES],
    }

    #[derive(Debug, Clone, Copy)]
    enum Ask {
        Beat { epoch: Option<u64>, lacks: u32 },
        Take { had: Option<u64> },
        Yield { epoch: u64 },
    }

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_millisecond(ms.try_into().unwrap()).unwrap()
    }

    impl Database {
        fn answer(&mut self, node: usize, ask: Ask, now: u64) -> DutySeen {
            let term = now + LEASE.as_millis() as u64;
            let mut renewed = false;
            match ask {
                Ask::Beat { epoch, lacks } => {
                    self.alive_until[node] = term;
                    self.lacks[node] = lacks;
                    renewed = self.holder == Some(node)
                        && epoch == Some(self.epoch)
                        && self.lease_until > now;
                    if renewed {
                        self.lease_until = term;
                    }
                }
                Ask::Take { had } => {
                    let goes_on = self.holder == Some(node) && had == Some(self.epoch);
                    let vacant = self.holder.is_none() || self.lease_until <= now;
                    renewed = goes_on || vacant;
                    if renewed {
                        self.epoch += u64::from(!goes_on);
                        self.holder = Some(node);
                        self.lease_until = term;
                    }
                }
                Ask::Yield { epoch } => {
                    if self.holder == Some(node) && self.epoch == epoch {
                        self.holder = None;
                        self.yielded = Some((now, node));
                    }
                }
            }
            let row = |node: usize| NodeRow {
                name: name(node),
                leads: self.holder == Some(node),
                alive: self.alive_until[node] > now,
                drained_at: self.drained[node].then(|| at(0)),
                since: at(0),
                heartbeat_at: at(0),
                age_ms: 0,
                seen_seq: 0,
                version: String::new(),
                schema: 1,
                offset_ms: 0,
                digest: String::new(),
                socket: String::new(),
                lacks: self.lacks[node],
            };
            DutySeen {
                now: at(now),
                epoch: self.epoch,
                holder: self.holder.map(name),
                lease_until: at(self.lease_until),
                renewed,
                yielded_at: self.yielded.map(|(ms, _)| at(ms)),
                yielded_by: self.yielded.map(|(_, node)| name(node)),
                displaced: false,
                nodes: (0..NODES).map(row).collect(),
            }
        }
    }

    /// What is on its way: to the database, or back.
    #[derive(Debug)]
    enum Message {
        Request(Ask),
        Answer(Ask, DutySeen),
    }

    struct Node {
        tenure: Tenure,
        /// Its clock that never steps: how far it is ahead, and by how much it is too fast in a million.
        ahead: u64,
        drift: i64,
        frozen_until: u64,
        /// When it sent what it waits for, by the model and by its own clock.
        waits: Option<(u64, u64, Steady)>,
        beat_at: u64,
    }

    impl Node {
        fn steady(&self, now: u64) -> Steady {
            let drifted = i64::try_from(now).unwrap() * self.drift / 1_000_000;
            Duration::from_millis((now + self.ahead).saturating_add_signed(drifted))
        }
    }

    /// A call that was started: when, by whom, in which epoch.
    type Started = (u64, usize, u64);

    struct Model {
        rng: ChaCha8Rng,
        now: u64,
        database: Database,
        nodes: Vec<Node>,
        /// When it arrives, for whom, the number of the question.
        wire: Vec<(u64, usize, u64, Message)>,
        asked: u64,
        calls: Vec<Started>,
        /// When each epoch began, and whether the one before was given up.
        began: Vec<(u64, u64, bool)>,
        faults: bool,
    }

    impl Model {
        fn new(seed: u64) -> Self {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let mut node = |n| Node {
                tenure: Tenure::new(name(n)),
                ahead: rng.random_range(0..1_000_000_000),
                drift: rng.random_range(-200..200),
                frozen_until: 0,
                waits: None,
                beat_at: rng.random_range(0..4000),
            };
            let nodes = (0..NODES).map(&mut node).collect();
            Self {
                rng,
                now: 0,
                database: Database {
                    epoch: 0,
                    holder: None,
                    lease_until: 0,
                    yielded: None,
                    alive_until: [0; NODES],
                    lacks: [0; NODES],
                    drained: [false; NODES],
                },
                nodes,
                wire: Vec::new(),
                asked: 0,
                calls: Vec::new(),
                began: Vec::new(),
                faults: true,
            }
        }

        fn chance(&mut self, in_thousand: u32) -> bool {
            self.faults && self.rng.random_range(0..1000) < in_thousand
        }

        /// How long something is on its way; `None` where it is lost.
        fn way(&mut self) -> Option<u64> {
            match self.rng.random_range(0..100) {
                _ if !self.faults => Some(TICK),
                0..70 => Some(self.rng.random_range(1..300)),
                70..85 => Some(self.rng.random_range(300..40_000)),
                _ => None,
            }
        }

        fn tick(&mut self) {
            self.now += TICK;
            self.deliver();
            for n in 0..NODES {
                if self.chance(4) {
                    self.nodes[n].frozen_until = self.now + self.rng.random_range(100..60_000);
                }
                if self.chance(3) {
                    self.nodes[n].tenure.lacks = self.rng.random_range(0..3);
                }
                if self.chance(1) {
                    self.database.drained[n] ^= true;
                }
                if self.nodes[n].frozen_until <= self.now {
                    self.act(n);
                }
            }
        }

        fn deliver(&mut self) {
            let now = self.now;
            let mut due: Vec<_> = self.wire.extract_if(.., |(at, ..)| *at <= now).collect();
            due.sort_by_key(|(at, ..)| *at);
            for (_, n, number, message) in due {
                match message {
                    Message::Request(ask) => {
                        let (epoch, yielded) =
                            (self.database.epoch, self.database.holder.is_none());
                        let answer = self.database.answer(n, ask, self.now + 5_000_000);
                        if self.database.epoch != epoch {
                            self.began.push((self.now, self.database.epoch, yielded));
                        }
                        if let Some(way) = self.way() {
                            let at = self.now + way;
                            self.wire
                                .push((at, n, number, Message::Answer(ask, answer)));
                        }
                    }
                    // One that is frozen reads it when it wakes; one that is late is not waited for any more.
                    Message::Answer(ask, answer) => match self.nodes[n].waits {
                        Some((waited, _, _)) if waited != number => {}
                        None => {}
                        Some(_) if self.nodes[n].frozen_until > self.now => {
                            let at = self.nodes[n].frozen_until;
                            self.wire
                                .push((at, n, number, Message::Answer(ask, answer)));
                        }
                        Some((_, _, sent)) => {
                            let now = self.nodes[n].steady(self.now);
                            let tenure = &mut self.nodes[n].tenure;
                            match ask {
                                Ask::Take { .. } => tenure.took(sent, now, answer),
                                Ask::Yield { .. } => {}
                                Ask::Beat { .. } => tenure.heard(sent, now, answer),
                            }
                            self.nodes[n].waits = None;
                        }
                    },
                }
            }
        }

        fn act(&mut self, n: usize) {
            let (now, steady) = (self.now, self.nodes[n].steady(self.now));
            if let Some(epoch) = self.nodes[n].tenure.epoch()
                && steady < self.nodes[n].tenure.calls_until()
            {
                self.calls.push((now, n, epoch));
            }
            match self.nodes[n].waits {
                Some((_, since, _)) if now < since + 3000 => return,
                _ => self.nodes[n].waits = None,
            }
            let ask = match self.nodes[n].tenure.decide(steady) {
                Move::TakeOver { had } => Ask::Take { had },
                Move::Yield { epoch, .. } => {
                    self.nodes[n].tenure.let_go();
                    Ask::Yield { epoch }
                }
                Move::Stay if self.nodes[n].beat_at <= now => {
                    self.nodes[n].beat_at = now + RENEWED_EVERY.as_millis() as u64;
                    Ask::Beat {
                        epoch: self.nodes[n].tenure.epoch(),
                        lacks: self.nodes[n].tenure.lacks,
                    }
                }
                Move::Stay => return,
            };
            self.asked += 1;
            self.nodes[n].waits = Some((self.asked, now, steady));
            if let Some(way) = self.way() {
                self.wire
                    .push((now + way, n, self.asked, Message::Request(ask)));
            }
        }

        /// No call was started by one who leads no more, nor within seconds before somebody took over who had not
        /// been given the lease.
        fn check(&self) {
            for (at, node, epoch) in &self.calls {
                let next = self.began.iter().find(|(_, began, _)| began > epoch);
                let Some((began, _, given)) = next else {
                    continue;
                };
                assert!(
                    at < began,
                    "node {node} calls in epoch {epoch} at {at}, and the next began at {began}"
                );
                let quiet = QUIET.as_millis() as u64 - 200;
                assert!(
                    *given || at + quiet <= *began,
                    "no quiet before {began}: {at}"
                );
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        #[test]
        fn never_do_two_call_whatever_clocks_pauses_and_answers_do(seed: u64) {
            let mut model = Model::new(seed);
            for _ in 0..6000 {
                model.tick();
            }
            model.check();
            prop_assert!(model.began.len() < 200, "they do not wrest it from each other without end");
            // When all is well again, one leads, and only one.
            model.faults = false;
            model.database.drained = [false; NODES];
            for node in &mut model.nodes {
                node.tenure.lacks = 0;
                node.frozen_until = 0;
            }
            for _ in 0..600 {
                model.tick();
            }
            model.check();
            let calling = |node: &&Node| node.steady(model.now) < node.tenure.calls_until();
            prop_assert_eq!(model.nodes.iter().filter(calling).count(), 1);
        }
    }

    #[test]
    fn who_is_cut_off_from_acs_lets_another_lead_and_not_twice_in_a_minute() {
        let mut model = Model::new(1);
        model.faults = false;
        let run = |model: &mut Model, ticks| (0..ticks).for_each(|_| model.tick());
        run(&mut model, 200);
        let first = model.database.holder.unwrap();
        // One host answers nobody; a second one does not answer who leads.
        let cut_off = |node: &mut Node| node.tenure.lacks = 1;
        cut_off(&mut model.nodes[first]);
        run(&mut model, 60);
        model.nodes.iter_mut().for_each(cut_off);
        run(&mut model, 200);
        assert_eq!(model.database.holder, Some(first), "nobody is better");
        model.nodes[first].tenure.lacks = 2;
        run(&mut model, 200);
        let second = model.database.holder.unwrap();
        assert_ne!(first, second);
        model.nodes[first].tenure.lacks = 0;
        model.nodes[second].tenure.lacks = 1;
        run(&mut model, 300);
        assert_eq!(model.database.holder, Some(second), "not so soon again");
        run(&mut model, 500);
        assert_ne!(model.database.holder, Some(second));
        model
            .nodes
            .iter_mut()
            .for_each(|node| node.tenure.lacks = 1);
        let epoch = model.database.epoch;
        run(&mut model, 2000);
        assert_eq!(
            model.database.epoch, epoch,
            "where nobody reaches it, nobody else is better"
        );
    }
}
