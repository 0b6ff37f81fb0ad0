//! What is said of sinks: where tokens go, and in which form.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use super::{Limit, LoadedSecret};
use crate::model::{NodeName, NodePattern, Reader, SinkAt, SinkName};

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
