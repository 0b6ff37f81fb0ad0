//! What admins and the public read, as it goes over the wire.
//!
//! Sources of identities: how they are, and a wish that a list be taken over.
//!
//! What is said about the store itself.
//!
//! Scheduled work on the wire.
//!
//! Identities and ids that are taken over in batches.
//!
//! What the TCP side tells: for a page that does not know who looks.
//!
//! What `doctor` found, as JSON.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Need;
use crate::{
    config::{Finding, Severity},
    model::{
        Consumers, Entry, JobAction, JobName, Missed, Name, RefusedRow, ResourceName, Selection,
        Served, SinkName, SourceView, State, Then,
    },
};

pub use crate::store::{JobRun, RunOutcome};

/// `GET /v1/sources`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sources {
    /// Those that are configured, and those that no longer are and still list identities.
    pub sources: Vec<SourceView>,
}

/// `POST /v1/sources/{name}/apply`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApplySource {
    /// Whether `max_removal`, and what protects like it, is set aside this once.
    #[serde(default)]
    pub yes: bool,
}

/// The header of a backup that says when it was made, in microseconds since 1970.
pub const MADE_AT_HEADER: &str = "x-renewd-made-at";

/// `POST /v1/store/accept`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreWord {
    /// Why, for the audit trail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What followed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreUsed {
    /// Identities whose tokens are of unknown standing and are renewed now.
    pub renewing: u64,
    /// What another word is needed for, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub still: Option<String>,
}

/// `POST /v1/store/backed-up`: a backup reached its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackedUp {
    /// When it was made, as [`MADE_AT_HEADER`] said.
    pub made_at: Timestamp,
    /// Where it is, for the audit trail.
    pub place: String,
}

pub use crate::store::Resealing;

/// `POST /v1/store/reseal`: the seal key is being replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResealStarted {
    /// Where the key that is replaced will be.
    pub former: String,
    /// How far it is.
    pub now: Resealing,
}

/// One job, as `GET /v1/jobs` lists it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Its name.
    pub name: JobName,
    /// The pattern.
    pub cron: String,
    /// The zone in which it is meant.
    pub timezone: String,
    /// What it starts.
    pub action: JobAction,
    /// What follows a revocation.
    pub then: Option<Then>,
    /// Over which identities.
    pub select: Selection,
    /// What becomes of instants that passed while nothing could run.
    pub missed: Missed,
    /// The next instants.
    pub next: Vec<Timestamp>,
    /// The last run.
    pub last: Option<JobRun>,
}

/// `GET /v1/jobs`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Jobs {
    /// In the order of the configuration.
    pub jobs: Vec<Job>,
}

/// `GET /v1/jobs/runs`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobRuns {
    /// Newest first.
    pub runs: Vec<JobRun>,
}

/// `POST /v1/import`: a line with scopes is an identity to be kept, one without gives an id back.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Import {
    /// Only say what would be done and what is wrong; nothing is changed.
    #[serde(default)]
    pub check: bool,
    /// The lines, each name once.
    pub lines: Vec<Line>,
}

/// A line and its number in the file that it comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// From 1.
    pub number: u64,
    /// What it says.
    pub entry: Entry,
}

/// What an import did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Imported {
    /// New identities.
    pub added: u64,
    /// Identities of which something changed.
    pub changed: u64,
    /// Identities and ids that are as they were.
    pub unchanged: u64,
    /// Identities that got their id back.
    pub adopted: u64,
    /// Ids that are kept for when their names are declared.
    pub remembered: u64,
    /// Identities that are still without an id and wait for a person's word before they are created,
    /// because the store had been lost.
    #[serde(default)]
    pub missing: u64,
    /// Some of them.
    #[serde(default)]
    pub missing_names: Vec<Name>,
    /// Lines that were not taken.
    pub refused: Vec<RefusedRow>,
}

/// `POST /v1/create`: a person's word that identities that wait may be created.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateMissing {
    /// These.
    #[serde(default)]
    pub names: Vec<Name>,
    /// All that wait.
    #[serde(default)]
    pub all_missing: bool,
    /// Why, for the audit trail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreationsAllowed {
    /// How many may be created.
    pub allowed: u64,
    /// Names that do not wait, and why.
    pub refused: Vec<RefusedRow>,
}

impl Imported {
    /// Adds what the next batch did.
    pub fn absorb(&mut self, next: Self) {
        self.added += next.added;
        self.changed += next.changed;
        self.unchanged += next.unchanged;
        self.adopted += next.adopted;
        self.remembered += next.remembered;
        (self.missing, self.missing_names) = (next.missing, next.missing_names);
        self.refused.extend(next.refused);
    }
}

/// `GET /api/status`: what a page may show without knowing who looks. No names of identities (but
/// in `needs`, with `[daemon] page_names`) and no texts of errors, which may quote anything.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PublicStatus {
    /// When this was true.
    pub at: Timestamp,
    /// The daemon's version.
    pub version: String,
    /// The daemon's name in events.
    pub instance: String,
    /// When its loops were started.
    pub since: Timestamp,
    /// Whether it is ready.
    pub ready: bool,
    /// What needs a person, the worst first.
    pub needs: Vec<Need>,
    /// Who holds a live token; `None` where that cannot be known.
    #[serde(default)]
    pub consumers: Option<Consumers>,
    /// One line for each resource.
    pub resources: Vec<PublicResource>,
    /// One line for each sink.
    pub sinks: Vec<PublicSink>,
}

/// A resource on the page.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PublicResource {
    /// Its name.
    pub name: ResourceName,
    /// `open`, or what is wrong in a sentence.
    pub health: String,
    /// Identities by state, those with a live token as `active`; empty where the store cannot be read.
    pub identities: BTreeMap<State, u64>,
    /// Identities without a live token that had one; `None` where that is not known.
    #[serde(default)]
    pub dead: Option<u64>,
    /// The earliest end of a current token.
    pub earliest_expiry: Option<Timestamp>,
    /// The next renewal.
    pub next_due: Option<Timestamp>,
    /// Calls in flight.
    pub in_flight: usize,
}

/// A sink on the page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicSink {
    /// Its name.
    pub name: SinkName,
    /// Deliveries that wait; `None` where that is not known.
    pub pending: Option<u64>,
    /// Delivered since the start.
    pub delivered: u64,
    /// Failed attempts since the start.
    pub failed: u64,
    /// What is wrong, if anything is: whether it is disabled or failing, without the error's text.
    pub trouble: Option<String>,
}

/// `GET /v1/doctor`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Examination {
    /// Who looked.
    pub by: Examiner,
    /// The user that looked: what may be read and written depends on it.
    pub user: String,
    /// Who holds a live token; `None` where no daemon was asked, or it does not know.
    #[serde(default)]
    pub consumers: Option<Served>,
    /// What needs a person by what the daemon knows, the worst first; `None` where no daemon was asked.
    #[serde(default)]
    pub needs: Option<Vec<Need>>,
    /// What is wrong around it, the worst first.
    pub findings: Vec<Ailment>,
}

/// Who looked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Examiner {
    /// The daemon, from inside its sandbox.
    Daemon,
    /// The command, with what its own user may see.
    Command,
}

/// One thing that is wrong, with its remedy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ailment {
    /// Whether it cannot work, or only looks odd.
    pub severity: Gravity,
    /// The key of the configuration that it is about, such as `sink.file[0].path`.
    pub at: String,
    /// What is wrong, in one sentence.
    pub message: String,
    /// What to do: a command or the lines of a drop-in.
    pub fix: Option<String>,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gravity {
    /// It can work, but is odd.
    Warning,
    /// It cannot work.
    Error,
}

impl Examination {
    /// Whether anything cannot work.
    pub fn any_error(&self) -> bool {
        let mut findings = self.findings.iter();
        let mut needs = self.needs.iter().flatten();
        findings.any(|finding| finding.severity == Gravity::Error)
            || needs.any(|need| need.kind.is_grave())
    }
}

impl From<Finding> for Ailment {
    fn from(finding: Finding) -> Self {
        Self {
            severity: match finding.severity {
                Severity::Warning => Gravity::Warning,
                Severity::Error => Gravity::Error,
            },
            at: finding.path,
            message: finding.message,
            fix: finding.hint,
        }
    }
}
