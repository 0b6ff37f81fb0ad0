//! The configuration as plain, checked data: what every room takes its section of.
//!
//! What is said of resources, and which limits are kept there.
//!
//! What is said of sinks.
//!
//! What is said of sources: identities that others own.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    config::{DatabaseSettings, quantity},
    model::{
        BearerKind, ClusterName, Declaration, JobAction, JobName, KeyRole, Missed, NodeName,
        NodePattern, OnRemoval, Reader, ResourceName, Scope, Secret, Selection, SinkAt, SinkName,
        SourceName, Spec, Then,
    },
};

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

impl ClusterSettings {
    /// Whether a machine may join.
    pub fn admits(&self, node: &NodeName) -> bool {
        is_home(&self.nodes, node)
    }
}

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
        let is_ours = |sink: &SinkSettings| sink.nodes().is_none_or(|nodes| is_home(nodes, node));
        let elsewhere = self.sinks.iter().filter(|sink| !is_ours(sink));
        self.sinks_elsewhere = elsewhere.map(|sink| sink.name().clone()).collect();
        self.sinks.retain(is_ours);
        self.sources.retain(|source| is_home(&source.nodes, node));
        self
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

/// `[[resource]]`.
#[derive(Debug, Clone, PartialEq)]
pub struct ResourceSettings {
    pub name: ResourceName,
    pub credential: CredentialSettings,
    /// Trust these certificates besides the system's, of the resource and of Entra ID.
    pub ca_file: Option<PathBuf>,
    /// The proxy that every call goes through, `http://host:port`; one to a metadata service never does.
    pub proxy: Option<String>,
    /// Such as `2023-10-01`.
    pub api_version: String,
    /// Whether missing identities are created.
    pub create: CreatePolicy,
    /// What this installation may use of what ACS allows, by operation.
    pub limits: Limits,
    /// Calls in flight at once.
    pub max_in_flight: usize,
}

/// What proves to a resource who calls.
#[derive(Debug, Clone, PartialEq)]
pub enum CredentialSettings {
    Keys(KeySettings),
    Entra(EntraSettings),
}

impl CredentialSettings {
    pub fn keys(&self) -> Option<&KeySettings> {
        match self {
            Self::Keys(keys) => Some(keys),
            Self::Entra(_) => None,
        }
    }

    pub fn entra(&self) -> Option<&EntraSettings> {
        match self {
            Self::Keys(_) => None,
            Self::Entra(entra) => Some(entra),
        }
    }

    /// Its secrets, each with the key that names it, as seen from `[[resource]]`.
    pub fn secrets(&self) -> Vec<(&'static str, &LoadedSecret)> {
        match self {
            Self::Keys(keys) => {
                let secondary = keys.secondary_connection_string.as_ref();
                std::iter::once(("connection_string", &keys.connection_string))
                    .chain(secondary.map(|secret| ("secondary_connection_string", secret)))
                    .collect()
            }
            Self::Entra(entra) => entra.kind.secret().into_iter().collect(),
        }
    }
}

/// The access keys of a resource.
#[derive(Debug, Clone, PartialEq)]
pub struct KeySettings {
    /// With the primary key.
    pub connection_string: LoadedSecret,
    pub secondary_connection_string: Option<LoadedSecret>,
}

impl KeySettings {
    pub fn of(&self, role: KeyRole) -> Option<&LoadedSecret> {
        match role {
            KeyRole::Primary => Some(&self.connection_string),
            KeyRole::Secondary => self.secondary_connection_string.as_ref(),
        }
    }
}

/// `endpoint =` and `[resource.entra]`. Addresses end with their host, without a slash.
#[derive(Debug, Clone, PartialEq)]
pub struct EntraSettings {
    /// Where the resource listens.
    pub endpoint: String,
    pub kind: EntraKind,
    /// Where Entra ID gives bearers out.
    pub authority: String,
    /// What a bearer is asked for, with `/.default` at its end.
    pub scope: String,
}

/// What proves to Entra ID who asks for a bearer.
#[derive(Debug, Clone, PartialEq)]
pub enum EntraKind {
    /// The machine: its metadata service says so.
    ManagedIdentity { selector: Option<IdentitySelector> },
    /// A token of Kubernetes, read from this file each time.
    WorkloadIdentity {
        tenant: String,
        client_id: String,
        token_file: PathBuf,
    },
    ClientSecret {
        tenant: String,
        client_id: String,
        secret: LoadedSecret,
    },
    ClientCertificate {
        tenant: String,
        client_id: String,
        /// PEM: the certificate, those above it, and its RSA key.
        certificate: LoadedSecret,
    },
}

impl EntraSettings {
    /// Whether both ask the same authority for bearers of the same caller, whatever proves who that is.
    pub fn asks_like(&self, other: &Self) -> bool {
        let place = |entra: &Self| (entra.authority.clone(), entra.scope.clone());
        place(self) == place(other)
            && self.kind.name() == other.kind.name()
            && self.kind.caller() == other.kind.caller()
    }
}

impl EntraKind {
    /// Tenant and client id, or which identity of the machine.
    fn caller(&self) -> (Option<[&str; 2]>, Option<&IdentitySelector>) {
        match self {
            Self::ManagedIdentity { selector } => (None, selector.as_ref()),
            Self::WorkloadIdentity {
                tenant, client_id, ..
            }
            | Self::ClientSecret {
                tenant, client_id, ..
            }
            | Self::ClientCertificate {
                tenant, client_id, ..
            } => (Some([tenant, client_id]), None),
        }
    }

    /// The key that says it.
    pub fn name(&self) -> BearerKind {
        match self {
            Self::ManagedIdentity { .. } => BearerKind::ManagedIdentity,
            Self::WorkloadIdentity { .. } => BearerKind::WorkloadIdentity,
            Self::ClientSecret { .. } => BearerKind::ClientSecret,
            Self::ClientCertificate { .. } => BearerKind::ClientCertificate,
        }
    }

    /// What of it is secret, with the key that names it, as seen from `[[resource]]`.
    pub fn secret(&self) -> Option<(&'static str, &LoadedSecret)> {
        match self {
            Self::ManagedIdentity { .. } | Self::WorkloadIdentity { .. } => None,
            Self::ClientSecret { secret, .. } => Some(("entra.client_secret", secret)),
            Self::ClientCertificate { certificate, .. } => {
                Some(("entra.client_certificate", certificate))
            }
        }
    }

    pub fn secret_mut(&mut self) -> Option<&mut LoadedSecret> {
        match self {
            Self::ManagedIdentity { .. } | Self::WorkloadIdentity { .. } => None,
            Self::ClientSecret { secret, .. } => Some(secret),
            Self::ClientCertificate { certificate, .. } => Some(certificate),
        }
    }
}

/// Which of a machine's identities calls, where it is not the machine's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdentitySelector {
    ClientId(String),
    ObjectId(String),
    ResourceId(String),
}

/// `create =`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CreatePolicy {
    /// Create what has no id yet, unless the id map says that it should have one.
    Auto,
    Never,
}

/// So many calls in any window of this length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    pub calls: u32,
    pub window: Duration,
}

impl std::fmt::Display for Limit {
    /// As it would be read: `50/1s`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let window = quantity::duration_text(self.window);
        write!(f, "{}/{window}", self.calls)
    }
}

/// `limits =`; what is left out keeps the documented limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub issue: Limit,
    pub create: Limit,
    /// Create an identity with a token.
    pub create_with_token: Limit,
    /// Revoke an identity's tokens.
    pub revoke: Limit,
    pub delete: Limit,
    /// Exchange a Teams token.
    pub exchange: Limit,
}

impl Limits {
    /// The part of them that one of several installations may use; never less than one call.
    pub fn shared(self, share: f64) -> Self {
        let part = |limit: Limit| Limit {
            calls: ((f64::from(limit.calls) * share).round() as u32).max(1),
            ..limit
        };
        Self {
            issue: part(self.issue),
            create: part(self.create),
            create_with_token: part(self.create_with_token),
            revoke: part(self.revoke),
            delete: part(self.delete),
            exchange: part(self.exchange),
        }
    }
}

/// One `[[sink.*]]`.
#[derive(Debug, Clone, PartialEq)]
pub enum SinkSettings {
    /// `[[sink.file]]`.
    File(FileSinkSettings),
    /// `[[sink.webhook]]`.
    Webhook(WebhookSinkSettings),
    /// `[[sink.exec]]`.
    Exec(ExecSinkSettings),
}

impl SinkSettings {
    /// Trust these certificates besides the system's.
    pub fn ca_file(&self) -> Option<&PathBuf> {
        match self {
            Self::Webhook(settings) => settings.ca_file.as_ref(),
            Self::File(_) | Self::Exec(_) => None,
        }
    }

    pub fn name(&self) -> &SinkName {
        match self {
            Self::File(sink) => &sink.name,
            Self::Webhook(sink) => &sink.name,
            Self::Exec(sink) => &sink.name,
        }
    }

    /// As the store knows it, on this machine of a cluster.
    pub fn at(&self, node: Option<&NodeName>) -> SinkAt {
        SinkAt::new(self.name().clone(), self.nodes().and(node).cloned())
    }

    /// The machines on which it is at home, none for all; `None` for one that the leader serves.
    pub fn nodes(&self) -> Option<&[NodePattern]> {
        match self {
            Self::File(sink) => Some(&sink.nodes),
            Self::Exec(sink) => Some(&sink.nodes),
            Self::Webhook(_) => None,
        }
    }

    /// The most attempts that it may see in any such time.
    pub fn rate(&self) -> Option<Limit> {
        match self {
            Self::File(sink) => sink.rate,
            Self::Webhook(sink) => sink.rate,
            Self::Exec(sink) => sink.rate,
        }
    }
}

/// `[[sink.file]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSinkSettings {
    pub name: SinkName,
    /// The path, with `{name}` (and `{resource}`) for the identity's.
    pub path: String,
    /// What the file holds.
    pub format: FileFormat,
    /// The template, for [`FileFormat::Template`].
    pub template: Option<Template>,
    /// The permission bits; readers are granted by ACL on top.
    pub mode: u32,
    /// The most files that may be written in any such time.
    pub rate: Option<Limit>,
    /// Whose the file is to be; needs CAP_CHOWN where it is not the daemon's own user.
    pub owner: Option<String>,
    /// Which group it is to have; needs CAP_CHOWN where the daemon's user is not in it.
    pub group: Option<String>,
    /// Whether one file holds all identities of this sink.
    pub bundle: bool,
    /// Who may read a bundle; `None`: those who may read each of its identities.
    pub readers: Option<Vec<Reader>>,
    /// How a file is changed.
    pub write: WriteMode,
    /// In a cluster, on which machines; none for all.
    pub nodes: Vec<NodePattern>,
}

impl FileSinkSettings {
    /// A sink with the defaults of all that may be left out.
    pub fn new(name: SinkName, path: impl Into<String>) -> Self {
        Self {
            name,
            path: path.into(),
            format: FileFormat::Json,
            template: None,
            mode: 0o600,
            rate: None,
            owner: None,
            group: None,
            bundle: false,
            readers: None,
            write: WriteMode::Replace,
            nodes: Vec::new(),
        }
    }
}

/// `template =`: the text, and the file that it was read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    pub text: String,
    /// The file; `None` where the text stands in the configuration itself.
    pub file: Option<PathBuf>,
}

/// `write =`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteMode {
    /// A complete file is renamed over the old one: readers see one or the other.
    Replace,
    /// The old file is overwritten and keeps its inode, for single files that are mounted elsewhere.
    InPlace,
}

/// `format =`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileFormat {
    Json,
    /// The bare token, no line end.
    Token,
    /// `KEY='value'` lines for a shell or systemd's `EnvironmentFile=`.
    Env,
    /// What a template of the operator's makes of it.
    Template,
}

/// `[[sink.webhook]]`.
#[derive(Debug, Clone, PartialEq)]
pub struct WebhookSinkSettings {
    pub name: SinkName,
    /// Where to post; plain http only to loopback, unless `allow_http`.
    pub url: String,
    /// Whether plain http may leave the machine.
    pub allow_http: bool,
    /// Whether the host's name may resolve to an address that is not public.
    pub allow_private: bool,
    /// The proxy that everything goes through, `http://host:port`.
    pub proxy: Option<String>,
    /// `whsec_…` secrets; the first signs first, two while rotating.
    pub secrets: Vec<LoadedSecret>,
    /// Whether the event carries the token.
    pub include: Include,
    pub body: EventBody,
    /// How the body is declared.
    pub content_type: ContentType,
    /// Patterns of event types without the `renewd.` prefix, such as `token.*`.
    pub events: Vec<String>,
    /// Trust these certificates besides the system's.
    pub ca_file: Option<PathBuf>,
    /// Total deadline of one attempt, answer included.
    pub timeout: Duration,
    /// The most attempts that the receiver may see in any such time.
    pub rate: Option<Limit>,
}

/// `[[sink.exec]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecSinkSettings {
    pub name: SinkName,
    /// The program, by its absolute path, and its arguments. No shell has a part in it.
    pub command: Vec<String>,
    /// How long one run may take, before its whole process group is ended.
    pub timeout: Duration,
    /// Additions to the clean environment that the program gets.
    pub environment: BTreeMap<String, String>,
    pub max_in_flight: usize,
    /// The most runs in any such time.
    pub rate: Option<Limit>,
    /// The program is run for a version once these sinks have delivered it.
    pub after: Vec<SinkName>,
    /// In a cluster, on which machines; none for all.
    pub nodes: Vec<NodePattern>,
}

/// `content_type =`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentType {
    /// `application/cloudevents+json`.
    CloudEvents,
    /// `application/json`.
    Json,
    /// `text/plain`.
    Text,
}

/// `body =`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventBody {
    Event,
    /// Notices as alerts for Alertmanager.
    Alertmanager,
    /// Notices as a template of the operator's writes them.
    Template(Template),
}

impl ContentType {
    /// As a header says it.
    pub fn header(self) -> &'static str {
        match self {
            Self::CloudEvents => "application/cloudevents+json; charset=utf-8",
            Self::Json => "application/json; charset=utf-8",
            Self::Text => "text/plain; charset=utf-8",
        }
    }
}

/// `include =`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Include {
    /// The event carries the token.
    Token,
    /// The event names the version; the app fetches the token itself.
    Reference,
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
