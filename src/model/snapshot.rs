//! What the parts of the daemon publish for people's eyes, never a secret; whether the store that was found may be
//! used at all; and what a source of identities looks like from outside.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{BearerView, DoubtedKeys, Name, Operation, ResourceName, SinkAt, SourceName, State};

/// What is known of one (resource, operation).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "health", rename_all = "lowercase")]
pub enum HealthView {
    #[default]
    Open,
    /// Only probes go out, because of this, since then.
    Probing {
        since: Timestamp,
        /// Why, in a sentence.
        because: String,
    },
    /// Nothing goes out until then, because of this.
    Held {
        until: Timestamp,
        /// Why, in a sentence.
        because: String,
    },
}

/// What one engine renewer publishes: one per resource.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct RenewerView {
    /// When the renewer last made or reaffirmed its decision; feeds watchdog and readiness.
    pub decided_at: Option<Timestamp>,
    /// What is known of the operations it uses, by name (`issue`, `create_with_token`).
    pub health: BTreeMap<String, HealthView>,
    pub in_flight: usize,
    /// Calls sent within the current window and the limit that renewd keeps, by operation.
    pub pace: BTreeMap<String, (u32, u32)>,
    /// The earliest due time, where one is known.
    pub next_due: Option<Timestamp>,
    /// When a token was last obtained, since the start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_success: Option<Timestamp>,
    /// How far the resource's clock is ahead of ours, in milliseconds.
    pub skew_ms: Option<i64>,
    /// When the certificate of the endpoint ends, as it was shown last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer_ends: Option<Timestamp>,
    /// Access keys whose tokens may be dead.
    pub doubted: DoubtedKeys,
    /// What is known of the bearer, for a resource without access keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bearer: Option<BearerView>,
    /// Why nothing can be obtained at the moment, if so (an unwritable store).
    pub blocked: Option<String>,
    /// Why identities without an id are not created, if so, and how to import them.
    pub creation_refused: Option<String>,
    /// That somebody else uses the resource, as 429s far below our own pace say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contention: Option<Contention>,
    /// Calls by result since the start (`ok`, `throttled`, `transport` …).
    pub calls: BTreeMap<String, u64>,
    /// What it has room for, by operation: `schedule::decide` reads it.
    #[serde(skip)]
    pub headroom: BTreeMap<Operation, Headroom>,
}

/// What a renewer has room for in one operation, and what it is finding out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Headroom {
    /// No more calls may be in flight, or hold results that are not committed.
    pub full: bool,
    /// The same of calls for rows that fail by themselves.
    pub full_of_failing: bool,
    /// So many rows wait, the one that is decided about included.
    pub waiting: usize,
    /// Another failure of any row that waits could tell nothing new of the resource.
    pub testified: bool,
    /// So long, on the clock that never steps, rows that led to a harmless call wait after its answer.
    pub rests_until: Duration,
    /// Everybody who waits was refused again and again, and harmless calls say whether anybody else would be.
    pub vouching: bool,
}

/// ACS answered 429 although we had sent far less than we may.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Contention {
    pub since: Timestamp,
    pub operation: String,
    /// What we had sent within the window when the last 429 came.
    pub sent: u32,
    /// What we may send within it.
    pub allowed: u32,
    pub window_secs: u64,
}

/// What one dispatcher publishes: one per sink.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct DispatcherView {
    /// When the dispatcher last made or reaffirmed its decision.
    pub decided_at: Option<Timestamp>,
    /// Whether every file is as the store says, after a start; true for receivers at once.
    pub restored: bool,
    pub in_flight: usize,
    /// Failures in a row; at ten the breaker opens.
    pub failures_in_row: u32,
    /// Since when it fails, while it does.
    pub failing_since: Option<Timestamp>,
    /// While the breaker is open: when the next probe goes out.
    pub probe_at: Option<Timestamp>,
    /// Whether it is disabled (by a 410 or a command), and why.
    pub disabled: Option<String>,
    /// Whether a command disabled it: then only a command enables it.
    pub paused: bool,
    /// What kind of sink it is: `file`, `webhook`, `exec`.
    pub kind: String,
    /// Where it leads, without secrets.
    pub target: String,
    /// When the certificate of its receiver ends, as it was shown last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer_ends: Option<Timestamp>,
    /// The most attempts that it may see in any such time, such as `50/1s`.
    pub rate: Option<String>,
    /// The last error, in a sentence.
    pub last_error: Option<String>,
    /// Delivered since the start.
    pub delivered: u64,
    /// Failed attempts since the start.
    pub failed: u64,
}

/// What the daemon stands on, as far as something is wrong with it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SelfCheckFindings {
    /// The file of the store is gone, or another one lies in its place.
    pub store: Option<Amiss>,
    /// The file of the local socket is gone and cannot be made again, or another one lies there.
    pub socket: Option<Amiss>,
    /// The last reload was refused.
    pub reload: Option<Amiss>,
    /// The second place of what was withdrawn cannot be written or read; why.
    pub withdrawn_copy: Option<String>,
    /// `identities.jsonl` cannot be written; why.
    pub map: Option<String>,
    /// `withdrawn.jsonl` of a machine of a cluster cannot be written; why.
    pub withdrawn: Option<String>,
    /// Why this machine of a cluster keeps no mirror of the database.
    pub mirror: Option<String>,
    /// Where a map is kept of which not all could be taken over.
    pub map_aside: Option<PathBuf>,
    /// The file of the seal key, where it is gone.
    pub seal_key_gone: Option<PathBuf>,
    /// Whom the configuration declares, and who is not taken over; why.
    pub not_taken: Vec<(Name, String)>,
}

impl RenewerView {
    /// The time by the resource's clock, which tokens end by.
    pub fn service_time(&self, now: Timestamp) -> Timestamp {
        let ahead = SignedDuration::from_millis(self.skew_ms.unwrap_or(0));
        now.checked_add(ahead).unwrap_or(now)
    }
}

/// The time by the clock of the resource that is furthest ahead.
pub fn service_time(renewers: &BTreeMap<ResourceName, RenewerView>, now: Timestamp) -> Timestamp {
    let times = renewers.values().map(|renewer| renewer.service_time(now));
    times.max().unwrap_or(now)
}

/// A file of certificates that are trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustFile {
    /// When the first of them ends, as it was read last.
    pub ends: Option<Timestamp>,
    /// Why it cannot be read, if so; what was read before is trusted still.
    pub trouble: Option<String>,
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Amiss {
    pub what: String,
    /// Since when that is known.
    pub since: Timestamp,
}

impl Amiss {
    /// What is wrong at `now`, if something is, given what was wrong before.
    pub fn still(what: Option<String>, before: Option<&Self>, now: Timestamp) -> Option<Self> {
        let since = before.map_or(now, |before| before.since);
        what.map(|what| Self { what, since })
    }
}

/// How a sink was tried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tested {
    /// From the attempt's beginning to its end.
    pub took: Duration,
    /// How it arrived, or why it did not, in one sentence.
    pub result: Result<String, String>,
}

/// Counts that the store keeps in its commits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Counts {
    /// Identities by resource and stored state.
    pub identities: BTreeMap<ResourceName, BTreeMap<State, u64>>,
    /// Pending deliveries by sink.
    pub pending: BTreeMap<SinkAt, u64>,
    /// Since when the oldest pending delivery of each sink is pending: how far its consumers are behind.
    #[serde(default)]
    pub oldest_pending: BTreeMap<SinkAt, Timestamp>,
    /// Possible orphans: creations and tokens whose answer was lost.
    pub orphans: u64,
    /// Rows that cannot be read, by what they are.
    #[serde(default)]
    pub set_aside: Vec<SetAside>,
}

/// Tokens of one resource that are alike to the minute (since 1970).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenGroup {
    /// When they are due.
    pub due: i64,
    pub ends: i64,
    /// How many minutes they live.
    pub life: i64,
    pub count: u64,
}

/// What a store knows of the identities of one resource that want a token.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stock {
    /// Those that hold a live one.
    pub tokens: Vec<TokenGroup>,
    /// Those that have an id and hold none, or one that may be dead.
    pub without: u64,
    /// Those that are to be created.
    pub unmade: u64,
}

/// Tokens of one resource that are due and late in the same minutes (since 1970).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CountedLife {
    /// When they are due.
    pub due: i64,
    /// When a quarter of their life is left.
    pub late: i64,
    pub count: u64,
}

/// What the counters of a store know of the tokens of one resource.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lives {
    pub groups: Vec<CountedLife>,
    /// How many minutes some of them live.
    pub lengths: BTreeSet<i64>,
    /// Identities that are to be created.
    pub unmade: u64,
}

/// Rows of one kind that cannot be read and are set aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SetAside {
    /// What they are, in a word: `identity`, `delivery`, `campaign` …
    pub kind: String,
    pub rows: u64,
    /// Identities among them, or concerned by them, whose name can be read; some, where there are many.
    pub names: Vec<Name>,
    /// The first of them: its table, its key, and what is wrong with it.
    pub because: String,
}

/// Identities of one resource by how they stand, those whose token ended apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standings {
    /// By state; `active` are those with a live token.
    pub states: BTreeMap<State, u64>,
    /// Those whose token ended or was revoked, and whose next one is awaited.
    pub dead: u64,
}

/// The tokens of one resource by how they stand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Tokens {
    /// Those that work as far as is known.
    pub good: u64,
    /// They may be dead, because of the access key that minted them, and are minted anew.
    pub doubtful: u64,
    /// They ended or were revoked, and their successors are awaited.
    pub dead: u64,
}

impl Counts {
    /// The tokens of a resource by how they stand, `doubtful` of which may be dead.
    pub fn tokens(&self, resource: &ResourceName, served: &Served, doubtful: u64) -> Tokens {
        let standing = self.standing(resource, served);
        let live = standing.states.get(&State::Active).copied().unwrap_or(0);
        let doubtful = doubtful.min(live + standing.dead);
        Tokens {
            good: live.saturating_sub(doubtful),
            doubtful,
            dead: standing.dead,
        }
    }

    /// How the identities of a resource stand.
    pub fn standing(&self, resource: &ResourceName, served: &Served) -> Standings {
        let mut states = self.identities.get(resource).cloned().unwrap_or_default();
        let without = served.without.get(resource).copied().unwrap_or(0);
        let new = states.get(&State::New).copied().unwrap_or(0);
        let dead = without.saturating_sub(new);
        if let Some(active) = states.get_mut(&State::Active) {
            *active = active.saturating_sub(dead);
        }
        Standings { states, dead }
    }
}

/// Consumers by what they hold: a sink of an identity is one, and so is the socket for an identity
/// that has no sink.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Consumers {
    /// Hold a live token, by the version that was delivered last.
    pub live: u64,
    /// Hold none that lives.
    pub without: u64,
    /// What they hold is not known.
    pub unknown: u64,
    /// Of those that hold a live token, so many hold one that may be dead, because of its access key.
    pub doubtful: u64,
    /// When the next token ends that one of them holds.
    pub next_end: Option<Timestamp>,
    /// How long the life of that token is, in seconds, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_life_secs: Option<u64>,
    /// Since when the first of those that hold none that lives holds none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub without_since: Option<Timestamp>,
}

impl Consumers {
    pub fn total(&self) -> u64 {
        self.live + self.without + self.unknown
    }

    #[must_use]
    pub fn and(self, others: Self) -> Self {
        let sooner = |this: &Self, other: &Self| match (this.next_end, other.next_end) {
            (Some(ours), Some(theirs)) => ours <= theirs,
            (ours, _) => ours.is_some(),
        };
        let next = if sooner(&self, &others) { self } else { others };
        let since = self.without_since.into_iter().chain(others.without_since);
        Self {
            live: self.live + others.live,
            without: self.without + others.without,
            unknown: self.unknown + others.unknown,
            doubtful: self.doubtful + others.doubtful,
            next_end: next.next_end,
            next_life_secs: next.next_life_secs,
            without_since: since.min(),
        }
    }
}

/// Who is served and who is not; identities that are without a token on purpose are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Served {
    pub sinks: BTreeMap<SinkAt, Consumers>,
    /// By the socket alone.
    pub socket: Consumers,
    /// Identities for which the store itself has no live token, by resource.
    pub without: BTreeMap<ResourceName, u64>,
}

impl Served {
    pub fn all(&self) -> Consumers {
        let sinks = self.sinks.values();
        sinks.fold(self.socket, |sum, one| sum.and(*one))
    }
}

/// A loop that has not made or reaffirmed its decision for so long is stuck. No loop waits longer
/// than 60 s at a time, so half of that is left for the work in between.
pub const DECISION_BOUND: SignedDuration = SignedDuration::from_secs(90);

/// Whether a loop that began at `since` and last decided at `decided_at` is alive at `now`; what
/// watchdog and readiness mean by it.
pub fn decided_lately(decided_at: Option<Timestamp>, since: Timestamp, now: Timestamp) -> bool {
    let last = decided_at.map_or(since, |at| at.max(since));
    now.duration_since(last) <= DECISION_BOUND
}

/// A number with its thousands apart; a small one with one digit after the point.
pub fn grouped(number: f64) -> String {
    if number < 10.0 && number.fract() > 0.0 {
        return format!("{number:.1}");
    }
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// How much a life is worth to a person: `1d 2h`, `3m 20s`, `0s`.
pub fn short_duration(duration: Duration) -> String {
    let secs = duration.as_secs();
    let (d, h, m, s) = (secs / 86_400, secs / 3600 % 24, secs / 60 % 60, secs % 60);
    match (d, h, m, s) {
        (0, 0, 0, s) => format!("{s}s"),
        (0, 0, m, 0) => format!("{m}m"),
        (0, 0, m, s) => format!("{m}m {s}s"),
        (0, h, 0, _) => format!("{h}h"),
        (0, h, m, _) => format!("{h}h {m}m"),
        (d, 0, _, _) => format!("{d}d"),
        (d, h, _, _) => format!("{d}d {h}h"),
    }
}

/// What a start found out about its store. While it is not [`StoreStanding::Own`] nothing is issued,
/// delivered, revoked or served: the daemon only says why, and waits for a person.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase", tag = "standing")]
pub enum StoreStanding {
    /// It is this daemon's own, and it knows what was withdrawn.
    #[default]
    Own,
    /// It may not know what was withdrawn; until `renewd store accept`.
    Restored {
        /// Why that is not known.
        why: String,
    },
    /// It belongs to another machine; until `renewd store adopt`.
    Passive {
        /// How that was found out.
        why: String,
    },
}

impl StoreStanding {
    /// Whether tokens may be issued, delivered and served from it.
    pub fn is_usable(&self) -> bool {
        matches!(self, Self::Own)
    }

    /// Why it may not be used, and what a person can do; `None` where it may.
    pub fn refusal(&self) -> Option<String> {
        match self {
            Self::Own => None,
            Self::Restored { why } => Some(format!(
                "nothing is issued, delivered or served, because it is not known what was withdrawn: {why}; \
                 once everything that was revoked or held since is looked after, `renewd store accept` goes on \
                 and renews every token"
            )),
            Self::Passive { why } => Some(format!(
                "nothing is issued, delivered or served, because the store belongs to another machine: {why}; \
                 where this machine takes its place, `renewd store adopt` goes on"
            )),
        }
    }

    /// The verb of `renewd store` by which a person lets it be used.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Own => "verify",
            Self::Restored { .. } => "accept",
            Self::Passive { .. } => "adopt",
        }
    }

    /// Every word of [`StoreStanding::as_str`].
    pub const WORDS: [&str; 3] = ["own", "restored", "passive"];

    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Restored { .. } => "restored",
            Self::Passive { .. } => "passive",
        }
    }
}

/// A database that other machines share, and that does not answer this one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DatabaseAway {
    /// Since when it does not, as far as this machine noticed.
    pub since: Timestamp,
    /// What was found out about it.
    pub because: String,
    /// When this node's mirror last agreed with it; `None` where there is none that may be served.
    pub mirror_of: Option<Timestamp>,
}

impl DatabaseAway {
    /// How old it is what is served meanwhile.
    pub fn age(&self, now: Timestamp) -> Option<Duration> {
        self.mirror_of.map(|agreed| mirror_age(agreed, now))
    }
}

/// How old it is what comes from a mirror that agreed with the database then. A clock that was set back makes it no
/// younger than now.
pub fn mirror_age(agreed: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(agreed)).unwrap_or_default()
}

/// A source as it is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SourceView {
    pub name: SourceName,
    /// `sqlite`, `exec` or `file`; empty for one that is no longer configured.
    pub kind: String,
    /// What is read: a path or a program.
    pub reads: String,
    /// Seconds between two looks.
    pub every_seconds: u64,
    /// When it was looked at last; `None` before the first look of this process.
    pub looked_at: Option<Timestamp>,
    /// When its list was last taken over.
    pub taken_at: Option<Timestamp>,
    /// Identities that it lists, as far as they were taken over.
    pub identities: u64,
    /// Rows of its last list that were refused.
    pub refused: u64,
    /// Why its list is not taken over at the moment, or only in part; what was taken before stays.
    pub lapse: Option<Lapse>,
    /// Since when it is being read; `None` while it is not.
    #[serde(default)]
    pub reading_since: Option<Timestamp>,
    /// What somebody should write into its section, in one sentence.
    #[serde(default)]
    pub advice: Option<String>,
}

/// Why, and since when, a source's list is not taken over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Lapse {
    /// One sentence: what is wrong, and what can be done.
    pub reason: String,
    pub since: Timestamp,
}

/// A row that cannot be an identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RefusedRow {
    /// Its place in the list, from 1: the row of a query, or the line of a file.
    pub number: u64,
    /// Its name, where it has a valid one.
    pub name: Option<Name>,
    /// Why, in one sentence.
    pub reason: String,
}

/// What a source lists, in numbers, against what was taken over before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SourceTotals {
    pub refused: u64,
    /// Names that are new.
    pub added: u64,
    /// Names whose row changed.
    pub changed: u64,
    /// Names that are no longer listed.
    pub removed: u64,
}

/// What a source lists, against what was taken over before. Of each kind of rows the first thousand are named.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SourceReport {
    /// Rows that were read.
    pub rows: u64,
    /// How many of each there are.
    #[serde(default)]
    pub totals: SourceTotals,
    pub refused: Vec<RefusedRow>,
    /// Names that are new.
    pub added: Vec<Name>,
    /// Names whose row changed.
    pub changed: Vec<Name>,
    /// Names that are no longer listed.
    pub removed: Vec<Name>,
    /// Names whose row is as it was.
    pub unchanged: u64,
    /// Why the list is not taken over without a person's word.
    pub blocked: Option<String>,
    /// Why nobody is removed without a person's word, although the rest can be taken over.
    #[serde(default)]
    pub doubt: Option<String>,
    /// Whether it was taken over now.
    pub applied: bool,
}
