//! Finds the daemon's socket, and turns its answers into exit codes.

use std::{path::PathBuf, time::Duration};

use crate::{
    api::client::{Client, ClientError, ProblemType},
    config::Source,
};

use super::{
    exit::{Exit, Failed},
    output,
};

/// A restart is waited for so long, and asked for so often.
const PATIENCE: Duration = Duration::from_mins(5);
const AGAIN: Duration = Duration::from_millis(300);

/// The daemon on this socket; without one that of the configuration that this user would run one with, else
/// whichever is there: see [`Source::socket_to_ask`].
pub(crate) fn daemon(socket: Option<PathBuf>) -> Client {
    let source = Source::of_process(None).with_socket(socket);
    Client::new(source.socket_to_ask())
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
                "the daemon does not answer ({error}); waiting until it is back, what was asked for goes on there"
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
                "is it running (systemctl status renewd, or renewd run)? Another place is named by --socket or \
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
