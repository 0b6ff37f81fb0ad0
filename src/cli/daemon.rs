//! Finds the daemon's socket, and turns its answers into exit codes.

use std::{path::PathBuf, time::Duration};

use crate::api::client::{Client, ClientError, ProblemType};

use super::{
    exit::{Exit, Failed},
    output,
};

/// A restart is waited for so long, and asked for so often.
const PATIENCE: Duration = Duration::from_mins(5);
const AGAIN: Duration = Duration::from_millis(300);

/// Where a daemon that serves the system listens.
const SYSTEM_SOCKET: &str = "/run/renewd/renewd.sock";

/// The daemon on this socket; without one an ordinary user's own daemon where there is one, else the
/// system's.
pub(crate) fn daemon(socket: Option<PathBuf>) -> Client {
    Client::new(
        socket
            .or_else(own_socket)
            .unwrap_or_else(|| SYSTEM_SOCKET.into()),
    )
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

fn own_socket() -> Option<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return None;
    }
    let folder = std::env::var_os("XDG_RUNTIME_DIR")?;
    let socket = PathBuf::from(folder).join("renewd/renewd.sock");
    socket.exists().then_some(socket)
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
            .hint("is it running? systemctl status renewd; --socket or RENEWD_SOCKET name another place"),
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
