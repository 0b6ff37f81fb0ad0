//! What the emulator remembers of the calls: counts for ever, the last requests one by one.

use std::collections::{BTreeMap, VecDeque};

use jiff::Timestamp;
use serde::Serialize;

use crate::model::Operation;

/// One request and what became of it.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Entry {
    pub(super) number: u64,
    /// When it was answered, by the emulator's clock.
    pub(super) at: Timestamp,
    pub(super) operation: Option<Operation>,
    pub(super) method: String,
    /// The raw request target.
    pub(super) target: String,
    pub(super) id: Option<String>,
    pub(super) client_request_id: Option<String>,
    pub(super) user_agent: Option<String>,
    /// The key that signed it.
    pub(super) key: Option<&'static str>,
    /// None where no answer was sent.
    pub(super) status: Option<u16>,
    /// Why it was not a success.
    pub(super) reason: Option<String>,
}

/// Calls of one operation.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(super) struct Counts {
    calls: u64,
    succeeded: u64,
    /// 429.
    throttled: u64,
    /// 401.
    denied: u64,
    /// Every other status from 400 on.
    failed: u64,
    /// No whole answer: reset, hung.
    unanswered: u64,
}

/// Requests that are remembered one by one.
const REMEMBERED: usize = 10_000;

/// The memory.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    counts: BTreeMap<&'static str, Counts>,
    recent: VecDeque<Entry>,
    next: u64,
}

impl Ledger {
    pub(super) fn note(&mut self, mut entry: Entry) {
        self.next += 1;
        entry.number = self.next;
        let name = entry.operation.map_or("other", Operation::as_str);
        let counts = self.counts.entry(name).or_default();
        counts.calls += 1;
        match entry.status {
            Some(200..=299) => counts.succeeded += 1,
            Some(401) => counts.denied += 1,
            Some(429) => counts.throttled += 1,
            Some(_) => counts.failed += 1,
            None => counts.unanswered += 1,
        }
        self.recent.push_back(entry);
        if self.recent.len() > REMEMBERED {
            self.recent.pop_front();
        }
    }

    pub(super) fn counts(&self) -> &BTreeMap<&'static str, Counts> {
        &self.counts
    }

    /// The newest entries, oldest of them first.
    pub(super) fn recent(&self, limit: usize, operation: Option<Operation>) -> Vec<&Entry> {
        let mut found: Vec<&Entry> = self
            .recent
            .iter()
            .rev()
            .filter(|entry| operation.is_none() || entry.operation == operation)
            .take(limit)
            .collect();
        found.reverse();
        found
    }

    pub(super) fn forget_counts(&mut self) {
        self.counts.clear();
    }

    pub(super) fn forget_requests(&mut self) {
        self.recent.clear();
    }
}
