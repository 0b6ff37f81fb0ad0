//! What waits in hand for one operation, and whose turn it is: a plain decision.
//!
//! Items that came so far without a failure go first; those that fail get every tenth turn while others
//! wait. Where nothing but items that fail waits, nobody else can tell whether it is they or the service,
//! so the same operation is tried out now and then on an id that nobody has.

use std::collections::{BTreeSet, VecDeque};

use super::act::Item;
use crate::{
    model::{Num, Operation},
    schedule::{Gate, Steady},
    store::CampaignId,
};

/// The row of the harmless call: no item has it.
pub(super) const NOBODY: Num = Num::MIN;
/// While others wait, one turn of so many goes to an item that fails.
const SHARE: u32 = 10;
/// Between two harmless calls, where not only probes go out.
const EVERY: Steady = Steady::from_secs(1);

/// Whose turn it is.
#[derive(Debug)]
pub(super) enum Turn {
    /// This item's.
    Of(Box<Item>),
    /// The operation is tried out on nobody.
    Nobody,
}

/// What waits for one operation.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) operation: Operation,
    fresh: VecDeque<Item>,
    failing: VecDeque<Item>,
    /// Turns since the last one of an item that fails.
    turns: u32,
    /// The harmless call is on its way.
    trying: bool,
    tried: Option<Steady>,
}

impl Line {
    pub(super) fn new(operation: Operation) -> Self {
        Self {
            operation,
            fresh: VecDeque::new(),
            failing: VecDeque::new(),
            turns: 0,
            trying: false,
            tried: None,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.fresh.len() + self.failing.len()
    }

    /// At the end of its part, also when it comes back because something holds the operation: what is
    /// gated never blocks the head.
    pub(super) fn push(&mut self, item: Item) {
        match item.fails() {
            true => self.failing.push_back(item),
            false => self.fresh.push_back(item),
        }
    }

    /// Items that fail.
    pub(super) fn failing(&self) -> usize {
        self.failing.len()
    }

    /// Back to where it was: its call could not start.
    pub(super) fn give_back(&mut self, item: Item) {
        match item.fails() {
            true => self.failing.push_front(item),
            false => self.fresh.push_front(item),
        }
    }

    /// Lets go of the items of campaigns that do not run any more; their rows.
    pub(super) fn let_go(&mut self, runs: impl Fn(CampaignId) -> bool) -> Vec<Num> {
        let mut gone = Vec::new();
        for part in [&mut self.fresh, &mut self.failing] {
            part.retain(|item| {
                let keep = runs(item.campaign.id);
                if !keep {
                    gone.push(item.item.num);
                }
                keep
            });
        }
        gone
    }

    /// Whose turn it is; the caller has seen that a call may start.
    pub(super) fn next(&mut self, gate: &Gate, now: Steady) -> Option<Turn> {
        if self.len() == 0 {
            return None;
        }
        if gate.is_probing(self.operation) {
            return self.probe(gate.passed_over(self.operation));
        }
        let blind = self.fresh.iter().all(|item| item.tried);
        let due = self.tried.is_none_or(|at| now >= at + EVERY);
        if blind && due && !self.trying {
            return Some(self.try_out(now));
        }
        let turn = self.failing.is_empty() || (self.turns + 1 < SHARE && !self.fresh.is_empty());
        let item = match turn {
            true => self.fresh.pop_front(),
            false => self.failing.pop_front(),
        };
        self.turns = if turn { self.turns + 1 } else { 0 };
        item.map(|item| Turn::Of(Box::new(item)))
    }

    /// The next probe: by turns the first item and one that was not tried since only probes go out; once
    /// all were, nobody.
    fn probe(&mut self, passed: Option<&BTreeSet<Num>>) -> Option<Turn> {
        let fresh = |item: &Item| {
            !item.tried && passed.is_none_or(|probed| !probed.contains(&item.item.num))
        };
        let untried = self.fresh.iter().position(fresh);
        let all_tried = self.fresh.iter().all(|item| item.tried);
        let nobodys = passed.is_none_or(|probed| !probed.contains(&NOBODY));
        match (untried, passed) {
            (Some(at), Some(_)) => self.fresh.remove(at),
            _ if all_tried && nobodys && !self.trying => return Some(self.try_out(Steady::ZERO)),
            _ if self.fresh.is_empty() => self.failing.pop_front(),
            _ => self.fresh.pop_front(),
        }
        .map(|item| Turn::Of(Box::new(item)))
    }

    fn try_out(&mut self, now: Steady) -> Turn {
        self.trying = true;
        self.tried = Some(now);
        Turn::Nobody
    }

    /// The harmless call could not start, or has ended.
    pub(super) fn tried_out(&mut self) {
        self.trying = false;
    }
}
