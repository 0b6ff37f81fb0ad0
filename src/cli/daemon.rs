//! Finds the daemon's socket, and turns its answers into exit codes.

use std::path::PathBuf;

use crate::api::client::{Client, ClientError, ProblemType};

use super::exit::{Exit, Failed};

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
            ClientError::Problem(_) | ClientError::Unreadable { .. } => Self::plain(error),
        }
    }
}
