//! The signals that the daemon hears.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::RunError;

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// SIGTERM, SIGINT: end well.
    End,
    /// SIGHUP: read the configuration again.
    Reload,
}

/// Hears signals; those that arrive before they are asked for are kept.
#[derive(Debug)]
pub(super) struct Signals {
    term: Signal,
    int: Signal,
    hup: Signal,
}

impl Signals {
    /// Starts to hear.
    pub(super) fn hear() -> Result<Self, RunError> {
        let hear = |kind| signal(kind).map_err(RunError::Signals);
        Ok(Self {
            term: hear(SignalKind::terminate())?,
            int: hear(SignalKind::interrupt())?,
            hup: hear(SignalKind::hangup())?,
        })
    }

    /// The next one. Several SIGHUPs that wait together are one.
    pub(super) async fn next(&mut self) -> Asked {
        tokio::select! {
            biased;
            _ = self.term.recv() => Asked::End,
            _ = self.int.recv() => Asked::End,
            _ = self.hup.recv() => Asked::Reload,
        }
    }
}
