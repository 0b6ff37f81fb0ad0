//! The configuration as plain, checked data: what every room takes its section of. Resources and sinks have a file each.

mod resource;
mod sink;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    config::DatabaseSettings,
    model::{
        ClusterName, Declaration, JobAction, JobName, Missed, NodeName, NodePattern, OnRemoval,
        Reader, ResourceName, Scope, Secret, Selection, SinkAt, SinkName, SourceName, Spec, Then,
    },
};

pub use resource::*;
pub use sink::*;

/// Everything that the configuration says.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// `[daemon]`.
    pub daemon: DaemonSettings,
    /// `[store]`.
    pub store: StoreSettings,
    /// `[cluster]`, where the store is shared.
    pub cluster: Option<ClusterSettings>,
    /// `[renewal]`.
    pub renewal: Renewal,
    /// `[[resource]]`, in the order of the files.
    pub resources: Vec<ResourceSettings>,
    /// `[[identity]]`, with the defaults of `[renewal]` filled in.
    pub identities: Vec<Spec>,
    /// `[[sink.*]]`, in the order of the files.
    pub sinks: Vec<SinkSettings>,
    /// Those of them that only other machines have, once they were left out.
    pub sinks_elsewhere: Vec<SinkName>,
    /// `[[job]]`, in the order of the files.
    pub jobs: Vec<JobSettings>,
    /// `[[source.*]]`, in the order of the files.
    pub sources: Vec<SourceSettings>,
    /// Those of them that only other machines read, once they were left out.
    pub sources_elsewhere: Vec<SourceName>,
    /// Of each part the digest of what all machines must say alike, once something was left out.
    pub alike: Option<Vec<[u8; 32]>>,
    /// Where all of this was read: the files, and the folder of those beside the main one, where there is one.
    pub read_from: Vec<PathBuf>,
}

/// `[daemon]`.
#[derive(Debug, Clone, PartialEq)]
pub struct DaemonSettings {
    /// Where the daemon keeps what must survive.
    pub state_dir: PathBuf,
    /// Health, metrics and page; `None` turns it off.
    pub listen: Option<SocketAddr>,
    pub socket: PathBuf,
    /// This daemon's name in events.
    pub instance: String,
    /// Users and `group:` groups with control besides root and the daemon's own user.
    pub admins: Vec<Reader>,
    /// Whether the page may show names.
    pub page_names: bool,
    /// Somebody outside who listens whether all is well.
    pub heartbeat: Option<HeartbeatSettings>,
}

/// `heartbeat =`.
#[derive(Debug, Clone, PartialEq)]
pub struct HeartbeatSettings {
    /// The address that is asked; whoever knows it could keep up the appearance that all is well.
    pub url: LoadedSecret,
    pub every: Duration,
}

/// `[store]`.
#[derive(Debug, Clone, PartialEq)]
pub struct StoreSettings {
    pub place: StorePlace,
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
    /// Which machine of a cluster uses it; none where nobody else does.
    pub node: Option<NodeName>,
}

/// `[cluster]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterSettings {
    pub name: ClusterName,
    /// What this machine is called among them.
    pub node: NodeName,
    /// Which may join; none for any.
    pub nodes: Vec<NodePattern>,
}

impl ClusterSettings {}

impl Settings {
    /// The names of all sinks, also of those that only other machines have.
    pub fn sink_names(&self) -> Vec<SinkName> {
        let here = self.sinks.iter().map(|sink| sink.name().clone());
        here.chain(self.sinks_elsewhere.iter().cloned()).collect()
    }

    /// Leaves out what only other machines of the cluster have: their sinks, and the sources that they read.
    #[must_use]
    pub fn of_this_node(mut self) -> Self {
        let Some(node) = &self.store.node else {
            return self;
        };
        self.alike = Some(self.alike());
        let is_ours = |sink: &SinkSettings| sink.nodes().is_none_or(|nodes| is_home(nodes, node));
        let elsewhere = self.sinks.iter().filter(|sink| !is_ours(sink));
        self.sinks_elsewhere = elsewhere.map(|sink| sink.name().clone()).collect();
        self.sinks.retain(is_ours);
        let (ours, others) = self
            .sources
            .into_iter()
            .partition(|source| is_home(&source.nodes, node));
        let others: Vec<SourceSettings> = others;
        self.sources_elsewhere = others.into_iter().map(|source| source.name).collect();
        self.sources = ours;
        self
    }

    /// The names of all sources, also of those that only other machines read.
    pub fn source_names(&self) -> Vec<SourceName> {
        let here = self.sources.iter().map(|source| source.name.clone());
        here.chain(self.sources_elsewhere.iter().cloned()).collect()
    }

    /// The sinks that this machine serves, or would if it led, as the store knows them.
    pub fn sinks_at(&self) -> Vec<SinkAt> {
        let node = self.store.node.as_ref();
        self.sinks.iter().map(|sink| sink.at(node)).collect()
    }
}

/// Whether something is at home on a machine: on any where none is named.
pub fn is_home(nodes: &[NodePattern], node: &NodeName) -> bool {
    nodes.is_empty() || nodes.iter().any(|pattern| pattern.is_of(node))
}

impl StoreSettings {
    /// Whether several machines may use it.
    pub fn is_shared(&self) -> bool {
        self.place.database().is_some()
    }
}

/// Where a store lies.
#[derive(Debug, Clone, PartialEq)]
pub enum StorePlace {
    /// SQLite, in this file.
    File(PathBuf),
    /// PostgreSQL, at this address.
    Database(Box<DatabaseSettings>),
}

impl StoreSettings {
    /// How this machine is called in a database that it shares.
    pub fn node_name(&self) -> &str {
        self.node.as_ref().map_or("renewd", NodeName::as_str)
    }
}

impl StorePlace {
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Database(_) => None,
        }
    }

    pub fn database(&self) -> Option<&DatabaseSettings> {
        match self {
            Self::File(_) => None,
            Self::Database(database) => Some(database),
        }
    }

    /// How it is called where a path is shown: its file, or hosts and name of its database.
    pub fn called(&self) -> PathBuf {
        match self {
            Self::File(path) => path.clone(),
            Self::Database(database) => PathBuf::from(database.to_string()),
        }
    }

    /// Its file, or where that would be: what belongs to the store on this machine lies beside it.
    pub fn here(&self, state_dir: &Path) -> PathBuf {
        match self {
            Self::File(path) => path.clone(),
            Self::Database(_) => state_dir.join("renewd.db"),
        }
    }
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

impl Renewal {
    /// A declaration that says nothing else.
    pub fn declaration(self) -> Declaration {
        Declaration {
            id: None,
            scopes: Vec::new(),
            lifetime: self.lifetime,
            renew_at: self.renew_at,
            spread: self.spread,
            labels: BTreeMap::new(),
            readers: Vec::new(),
            sinks: Vec::new(),
            on_removal: OnRemoval::default(),
        }
    }
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

impl SecretRef {
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Credential(_) | Self::Env(_) => None,
        }
    }
}

/// A secret and where it came from.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadedSecret {
    pub from: SecretRef,
    /// What was read there, without a trailing line end.
    pub secret: Secret,
}

/// `[[job]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobSettings {
    pub name: JobName,
    /// Five fields, or six with seconds first.
    pub cron: String,
    /// The IANA name of the zone in which the pattern is meant.
    pub timezone: String,
    pub action: JobAction,
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

/// One `[[source.*]]`: identities that others own.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceSettings {
    pub name: SourceName,
    /// What is read, and how.
    pub kind: SourceKind,
    pub every: Duration,
    /// The resource of its identities.
    pub resource: ResourceName,
    /// What a row leaves out; without an id, and without scopes where every row must say its own. A row's own labels
    /// win over these, of the same key.
    pub rows: Declaration,
    /// How many may go at once without a person's word.
    pub max_removal: MaxRemoval,
    /// The scopes that a row may ask for; `None` for any.
    pub max_scopes: Option<Vec<Scope>>,
    /// The readers that a row may ask for; `None` for any.
    pub max_readers: Option<Vec<Reader>>,
    /// The longest lifetime that a row may ask for; `None` for any.
    pub max_lifetime: Option<Duration>,
    /// Whether a row may bring an id along that nobody here holds; `None` where it is not said.
    pub adopt_ids: Option<bool>,
    /// In a cluster, on which machines it is read; none for the one that leads.
    pub nodes: Vec<NodePattern>,
}

/// What a source reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceKind {
    /// `[[source.sqlite]]`: a query on a database that another program owns.
    Sqlite {
        path: PathBuf,
        /// One `SELECT`.
        query: String,
    },
    /// `[[source.exec]]`: a program that prints JSON lines.
    Exec {
        /// The program and its arguments.
        command: Vec<String>,
        /// How long it may run.
        timeout: Duration,
    },
    /// `[[source.file]]`: a file of JSON lines.
    File { path: PathBuf },
}

impl SourceKind {
    /// The word in the section's header.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Sqlite { .. } => "sqlite",
            Self::Exec { .. } => "exec",
            Self::File { .. } => "file",
        }
    }
}

/// `max_removal =`: more than both may not go without a person's word.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MaxRemoval {
    /// The share of the identities that the source listed before.
    pub share: f64,
    /// So many in any case.
    pub count: u64,
}
