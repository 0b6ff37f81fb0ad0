//! The store itself, for the verbs that also work while no daemon runs.

use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use jiff::Timestamp;

use crate::{
    api::client::{Client, Surroundings},
    config::{self, Settings, Source},
    store::{BackupError, OpenError, Opened, RestoreError, Store, StoreError},
};

use super::{
    Context,
    daemon::daemon,
    exit::{Exit, Failed},
    output,
};

/// The store of a configuration, opened by this process.
pub(crate) struct Offline {
    pub(crate) settings: Settings,
    pub(crate) store: Store,
}

impl Offline {
    /// Opens the store that the configuration names; it is refused while a daemon runs, and to
    /// anybody but its owner, whose files would end up in other hands.
    pub(crate) fn open(config: Option<PathBuf>, now: Timestamp) -> Result<Self, Failed> {
        let (offline, opened) = Self::opened(config, now)?;
        match opened.standing.refusal() {
            None => Ok(offline),
            Some(why) => Err(Failed::plain(why)),
        }
    }

    /// The same whether the store may be used or not: for a person's word about the store itself.
    pub(crate) fn open_whatever(config: Option<PathBuf>, now: Timestamp) -> Result<Self, Failed> {
        Ok(Self::opened(config, now)?.0)
    }

    fn opened(config: Option<PathBuf>, now: Timestamp) -> Result<(Self, Opened), Failed> {
        let settings = settings(config)?;
        let state_dir = &settings.daemon.state_dir;
        let found = std::fs::metadata(state_dir).map_err(|error| {
            Failed::plain(format!("cannot open {}: {error}", state_dir.display()))
                .hint("the daemon makes it when it first runs")
        })?;
        if found.uid() != rustix::process::geteuid().as_raw() {
            return Err(Failed::plain(format!(
                "{} belongs to another user (uid {})",
                state_dir.display(),
                found.uid()
            ))
            .hint("run this as that user: runuser -u renewd -- renewd …"));
        }
        let (store, opened) = Store::open(&settings.store, state_dir, now)?;
        Ok((Self { settings, store }, opened))
    }

    /// What an identity that is added may refer to.
    pub(crate) fn surroundings(&self) -> Surroundings {
        let (resources, sinks) = (self.settings.resources.iter(), self.settings.sinks.iter());
        Surroundings {
            resources: resources.map(|resource| resource.name.clone()).collect(),
            sinks: sinks.map(|sink| sink.name().clone()).collect(),
            renewal: self.settings.renewal,
        }
    }
}

/// The daemon of a configuration that is named, else as [`daemon`] finds it.
pub(crate) fn daemon_of(context: &Context, config: Option<&Path>) -> Result<Client, Failed> {
    let configured = match (&context.socket, config) {
        (None, Some(path)) => Some(settings(Some(path.to_owned()))?.daemon.socket),
        _ => None,
    };
    Ok(daemon(context.socket.clone().or(configured)))
}

/// The configuration, or every mistake in it on the screen.
pub(crate) fn settings(config: Option<PathBuf>) -> Result<Settings, Failed> {
    let source = Source::of_process(config);
    match config::load(&source) {
        Ok(loaded) => Ok(loaded.settings),
        Err(problems) => {
            output::aside(config::render(&problems, true).trim_end());
            Err(Failed::usage(format!(
                "the configuration cannot be used: {}",
                problems.summary()
            )))
        }
    }
}

impl From<OpenError> for Failed {
    fn from(error: OpenError) -> Self {
        Self::new(exit(error.is_configuration()), error)
    }
}

impl From<BackupError> for Failed {
    fn from(error: BackupError) -> Self {
        Self::new(exit(error.is_configuration()), error)
    }
}

impl From<RestoreError> for Failed {
    fn from(error: RestoreError) -> Self {
        Self::new(exit(error.is_configuration()), error)
    }
}

/// What a person has to change first ends with 2.
fn exit(is_configuration: bool) -> Exit {
    if is_configuration {
        Exit::Usage
    } else {
        Exit::Failed
    }
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        Self::plain(error)
    }
}
