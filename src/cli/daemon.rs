//! Whom a verb asks: the daemon, over its socket, with its answers as exit codes; or, for the verbs that also work
//! while no daemon runs, the store itself.

use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::Timestamp;

use super::{
    Context,
    exit::{Exit, Failed},
    output,
};
use crate::{
    accounts,
    api::client::{ClientError, DaemonClient, ProblemType, Surroundings},
    config::{self, Loaded, Settings, Source},
    store::{BackupError, OpenError, Opened, RestoreError, Store, StoreError},
};

/// A restart is waited for so long, and asked for so often.
const PATIENCE: Duration = Duration::from_mins(5);
const AGAIN: Duration = Duration::from_millis(300);

/// The daemon on this socket; without one that of the configuration that this user would run one with, else
/// whichever is there: see [`Source::socket_to_ask`].
pub(crate) fn daemon(socket: Option<PathBuf>) -> DaemonClient {
    let source = Source::of_process(None).with_socket(socket);
    DaemonClient::new(source.socket_to_ask())
}

/// The daemon of a configuration that is named, else as [`daemon`] finds it.
pub(crate) fn daemon_of(context: &Context, config: Option<&Path>) -> Result<DaemonClient, Failed> {
    let configured = match (&context.socket, config) {
        (None, Some(path)) => Some(settings(Some(path.to_owned()))?.daemon.socket),
        _ => None,
    };
    Ok(daemon(context.socket.clone().or(configured)))
}

/// Asks for something that goes on in the daemon, and waits through a restart of it. What is asked must
/// change nothing.
pub(crate) async fn through_restart<T>(
    ask: impl AsyncFn() -> Result<T, ClientError>,
) -> Result<T, Failed> {
    let mut waited = Duration::ZERO;
    loop {
        let error = match ask().await {
            Ok(answer) => return Ok(answer),
            Err(error) if is_absent(&error) && waited < PATIENCE => error,
            Err(error) => return Err(error.into()),
        };
        if waited.is_zero() {
            output::aside(&format!(
                "{error}; waiting until it is back, what was asked for goes on in the daemon"
            ));
        }
        tokio::time::sleep(AGAIN).await;
        waited += AGAIN;
    }
}

/// Whether it may be restarting.
fn is_absent(error: &ClientError) -> bool {
    match error {
        ClientError::Unreachable { .. }
        | ClientError::Broken { .. }
        | ClientError::Silent { .. }
        | ClientError::Ended { .. } => true,
        ClientError::Problem(_) | ClientError::Unreadable { .. } => false,
    }
}

/// How a question for a token ends when there is none to be had: the exit code 5 is for that alone.
pub(crate) fn no_token(error: ClientError) -> Failed {
    match &error {
        ClientError::Problem(problem) if withholds_token(problem.kind) => {
            Failed::new(Exit::NoToken, problem)
        }
        _ => error.into(),
    }
}

fn withholds_token(kind: ProblemType) -> bool {
    use ProblemType as Type;
    match kind {
        Type::Held
        | Type::Deleted
        | Type::Unreachable
        | Type::Throttled
        | Type::Pending
        | Type::StoreUnusable => true,
        Type::Unknown
        | Type::Forbidden
        | Type::Invalid
        | Type::HeaderMissing
        | Type::HeaderRefused
        | Type::MethodNotAllowed
        | Type::Timeout
        | Type::TooLarge
        | Type::TargetTooLong
        | Type::UnsupportedMedia
        | Type::HeadersTooLarge
        | Type::Busy
        | Type::Conflict
        | Type::Refused
        | Type::Internal => false,
    }
}

impl From<ClientError> for Failed {
    fn from(error: ClientError) -> Self {
        match &error {
            ClientError::Unreachable { path, source } => Self::new(
                Exit::Unreachable,
                format!("no daemon answers on {}: {source}", path.display()),
            )
            .hint(
                "is it running (`systemctl status renewd`, or `renewd run`)? Another place is named by `--socket` or \
                 RENEWD_SOCKET; the daemon's first log line says where it listens",
            ),
            ClientError::Silent { .. }
            | ClientError::Broken { .. }
            | ClientError::Ended { .. } => Self::new(Exit::Unreachable, error),
            ClientError::Problem(problem) if problem.kind == ProblemType::Invalid => {
                Self::usage(problem)
            }
            ClientError::Problem(problem) if problem.kind == ProblemType::Busy => {
                Self::new(Exit::Unreachable, problem)
            }
            ClientError::Problem(_) | ClientError::Unreadable { .. } => Self::plain(error),
        }
    }
}

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
            let owner = accounts::user_of(found.uid()).name;
            return Err(Failed::plain(format!(
                "{} belongs to the user {owner}, and this is {}",
                state_dir.display(),
                accounts::user_of(accounts::own_uid()).name
            ))
            .hint(format!(
                "run this as that user: `runuser -u {owner} -- renewd …`"
            )));
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

/// The configuration, or every mistake in it on the screen.
pub(crate) fn settings(config: Option<PathBuf>) -> Result<Settings, Failed> {
    Ok(loaded(&Source::of_process(config))?.settings)
}

/// The configuration, or every mistake in it on the screen.
pub(crate) fn loaded(source: &Source) -> Result<Loaded, Failed> {
    match config::load(source) {
        Ok(loaded) => Ok(loaded),
        Err(problems) => {
            output::aside_lines(config::render(&problems, true).trim_end());
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
