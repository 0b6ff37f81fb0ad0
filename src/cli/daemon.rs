//! Whom a verb asks: the daemon, over its socket, with its answers as exit codes; or, for the verbs that also work
//! while no daemon runs, the store itself.

use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::Timestamp;

use super::{
    Context, duration,
    exit::{Exit, Failed},
    output,
};
use crate::{
    accounts,
    api::client::{ClientError, DaemonClient, ProblemType, Surroundings},
    clock::Clock,
    config::{self, Loaded, Settings, Source},
    model::short_duration,
    store::{BackupError, OpenError, Opened, RestoreError, Store, StoreError},
};

/// A restart is waited for so long, and asked for so often.
const PATIENCE: Duration = Duration::from_mins(5);
const AGAIN: Duration = Duration::from_millis(300);

/// Nothing moves for so long: what is followed is left to the daemon.
const STILL: Duration = Duration::from_mins(5);

/// How long a command follows what it asked for.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub(crate) struct Patience {
    /// Return after so long at most, with 6, and leave the rest to the daemon [default: once nothing
    /// has moved for 5m]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    timeout: Option<Duration>,
}

impl Patience {
    /// Why nothing is followed any longer, after so long, the end of it without any change.
    fn ends(self, followed: Duration, still: Duration) -> Option<String> {
        match self.timeout {
            Some(most) if followed >= most => {
                Some(format!("it is not done after {}", short_duration(most)))
            }
            None if still >= STILL => {
                Some(format!("nothing has moved for {}", short_duration(STILL)))
            }
            _ => None,
        }
    }
}

/// Something that goes on in the daemon, and how far it was when it last moved.
#[derive(Debug)]
pub(crate) struct Followed<M> {
    clock: Clock,
    patience: Patience,
    began: Duration,
    stands: (M, Duration),
}

impl<M: PartialEq> Followed<M> {
    pub(crate) fn from(stands: M, clock: Clock, patience: Patience) -> Self {
        let began = clock.steady();
        Self {
            clock,
            patience,
            began,
            stands: (stands, began),
        }
    }

    /// Notes how far it is; whether it has moved.
    pub(crate) fn moved(&mut self, stands: M) -> bool {
        if self.stands.0 == stands {
            return false;
        }
        self.stands = (stands, self.clock.steady());
        true
    }

    /// For how long it has not moved.
    pub(crate) fn still(&self) -> Duration {
        self.clock.steady().saturating_sub(self.stands.1)
    }

    /// Why it is followed no longer, if it is not.
    pub(crate) fn ends(&self) -> Option<String> {
        let followed = self.clock.steady().saturating_sub(self.began);
        self.patience.ends(followed, self.still())
    }

    /// Waits until its option ends it.
    pub(crate) async fn over(&self) {
        let followed = self.clock.steady().saturating_sub(self.began);
        match self.patience.timeout {
            Some(most) => tokio::time::sleep(most.saturating_sub(followed)).await,
            None => std::future::pending().await,
        }
    }
}

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

/// Says how old the last answer was, where the database of the daemon does not answer it.
pub(crate) fn say_age(client: &DaemonClient) {
    if let Some(age) = client.age() {
        output::aside(&format!(
            "as of {} ago: the database does not answer this node; see `renewd status`",
            short_duration(age)
        ));
    }
}

/// Whether it may be restarting.
fn is_absent(error: &ClientError) -> bool {
    match error {
        ClientError::Unreachable { .. }
        | ClientError::Broken { .. }
        | ClientError::Silent { .. } => true,
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
        | Type::StoreUnusable
        | Type::Stale => true,
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
            ClientError::Silent { .. } | ClientError::Broken { .. } => {
                Self::new(Exit::Unreachable, error)
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_move_is_left_to_the_daemon_after_a_while_or_when_it_was_said() {
        let secs = Duration::from_secs;
        let usual = Patience::default();
        assert_eq!(usual.ends(secs(9000), secs(299)), None);
        let why = usual.ends(secs(9000), secs(300));
        assert_eq!(why.as_deref(), Some("nothing has moved for 5m"));
        let short = Patience {
            timeout: Some(secs(90)),
        };
        assert_eq!(short.ends(secs(89), secs(89)), None);
        let why = short.ends(secs(90), Duration::ZERO);
        assert_eq!(why.as_deref(), Some("it is not done after 1m 30s"));
        let long = Patience {
            timeout: Some(secs(9000)),
        };
        assert_eq!(long.ends(secs(8999), secs(8000)), None, "it was said");
    }
}
