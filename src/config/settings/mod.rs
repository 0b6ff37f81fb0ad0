//! The configuration as plain, checked data: what every room takes its section of.

mod resource;
mod sink;
mod source;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use crate::model::{JobAction, JobName, Missed, Reader, Secret, Selection, Spec, Then};

pub use resource::{CreatePolicy, Limit, Limits, ResourceSettings};
pub use sink::{
    ContentType, ExecSinkSettings, FileFormat, FileSinkSettings, Include, SinkSettings, Template,
    WebhookSinkSettings, WriteMode,
};
pub use source::{MaxRemoval, SourceKind, SourceSettings};

/// Everything that the configuration says.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// `[daemon]`.
    pub daemon: DaemonSettings,
    /// `[store]`.
    pub store: StoreSettings,
    /// `[renewal]`.
    pub renewal: Renewal,
    /// `[[resource]]`, in the order of the files.
    pub resources: Vec<ResourceSettings>,
    /// `[[identity]]`, with the defaults of `[renewal]` filled in.
    pub identities: Vec<Spec>,
    /// `[[sink.*]]`, in the order of the files.
    pub sinks: Vec<SinkSettings>,
    /// `[[job]]`, in the order of the files.
    pub jobs: Vec<JobSettings>,
    /// `[[source.*]]`, in the order of the files.
    pub sources: Vec<SourceSettings>,
}

/// `[daemon]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DaemonSettings {
    /// Where the daemon keeps what must survive.
    pub state_dir: PathBuf,
    /// Health, metrics and page; `None` turns it off.
    pub listen: Option<SocketAddr>,
    /// The local socket.
    pub socket: PathBuf,
    /// This daemon's name in events.
    pub instance: String,
    /// Users and `group:` groups with control besides root and the daemon's own user.
    pub admins: Vec<Reader>,
    /// Whether the page may show names.
    pub page_names: bool,
}

/// `[store]`.
#[derive(Debug, Clone, PartialEq)]
pub struct StoreSettings {
    /// The database file.
    pub path: PathBuf,
    /// The key that seals secrets; `None`: a key file made beside the database, mode 0600.
    pub seal_key: Option<LoadedSecret>,
    /// How long routine renewals stay in the audit trail.
    pub keep_renewals: Duration,
    /// How long everything else stays.
    pub keep_other: Duration,
    /// A second place of `withdrawn.jsonl`, which is not put back together with the first.
    pub withdrawn_copy: Option<PathBuf>,
    /// What is known of the machine that the store would belong to.
    pub owner: Owner,
    /// Whether the database is saved before its schema is changed; only the command line says no.
    pub save_before_migration: bool,
}

/// Who a store belongs to, as far as it is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Owner {
    /// `[daemon] instance`, where it is set: a host's name alone says nothing, containers change it.
    pub instance: Option<String>,
    /// The machine, by a digest of its id.
    pub machine: Option<String>,
}

/// `[renewal]`: how tokens are renewed, where an identity does not say otherwise.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Renewal {
    /// The life asked of ACS.
    pub lifetime: Duration,
    /// The share of a token's life after which it is renewed.
    pub renew_at: f64,
    /// The share of a token's life by which renewals are spread, early only.
    pub spread: f64,
}

/// Where a secret lies. Secrets in the configuration are references, never bare strings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretRef {
    /// `{ file = "/path" }`.
    File(PathBuf),
    /// `{ credential = "name" }`, from `$CREDENTIALS_DIRECTORY`.
    Credential(String),
    /// `{ env = "NAME" }`.
    Env(String),
}

/// A secret and where it came from.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadedSecret {
    /// Where it lies.
    pub from: SecretRef,
    /// What was read there, without a trailing line end.
    pub secret: Secret,
}

/// `[[job]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobSettings {
    /// Its name.
    pub name: JobName,
    /// Five fields, or six with seconds first.
    pub cron: String,
    /// The IANA name of the zone in which the pattern is meant.
    pub timezone: String,
    /// What it starts.
    pub action: JobAction,
    /// Over which identities.
    pub select: Selection,
    /// What follows a revocation.
    pub then: Option<Then>,
    /// What becomes of instants that passed while nothing could run.
    pub missed: Missed,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// It can work, but is odd.
    Warning,
    /// It cannot work.
    Error,
}

/// Something that a room's `check` found in its section, naming a configuration path such as
/// `resource[0].connection_string`; [`crate::config`] turns paths into lines and carets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The configuration path; `PATH@12..20` means these bytes of the text there, or of the text in
    /// the file that is referred to there.
    pub path: String,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, in one sentence.
    pub message: String,
    /// What to do, if that is not plain.
    pub hint: Option<String>,
}
