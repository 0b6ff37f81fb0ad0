//! Builds, checks, spawns, reloads, shuts down: the only room that knows all others, and that says why the
//! daemon does not start, or ends.

mod check;
pub mod doctor;
mod external_heartbeat;
mod leadership;
mod loops;
mod membership;
mod reload;
mod run;
mod standby;
mod supervisor;
mod trust_files;
mod upkeep;

use self::supervisor::Supervisor;
use crate::{
    acs, api,
    config::Problems,
    model::{ResourceName, SinkName},
    sinks,
    store::{OpenError, StoreError},
    systemd::{ActivationError, HardeningError, NotifyError},
    transport::TransportSetupError,
};

pub use check::{SPARE, THREADS};
pub use check::{check, check_room};
pub use loops::{LoopEnded, Loops};
pub use run::run;

/// Why the daemon does not start, or ends; one clear message each.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The configuration cannot be used; every problem at once.
    #[error("the configuration cannot be used")]
    Config(Problems),
    /// Keys changed that a running daemon cannot follow.
    #[error("these keys need a restart: {0}")]
    NeedsRestart(String),
    /// The process could not give up what it must not have.
    #[error(transparent)]
    Harden(#[from] HardeningError),
    /// The service manager's socket.
    #[error(transparent)]
    Notify(#[from] NotifyError),
    /// A socket that the service manager passed.
    #[error(transparent)]
    Activation(#[from] ActivationError),
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The database, at the first use.
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Client(#[from] acs::SetupError),
    #[error("resource {name}: {source}")]
    Transport {
        name: ResourceName,
        source: TransportSetupError,
    },
    #[error("sink {name}: {source}")]
    Sink {
        name: SinkName,
        source: sinks::SinkError,
    },
    /// The local socket or the TCP listener.
    #[error(transparent)]
    Listen(#[from] api::ListenError),
    /// Signals cannot be received.
    #[error("cannot receive signals: {0}")]
    Signals(std::io::Error),
    /// The daemon ended although nobody will find what it had open.
    #[error(
        "renewd ended over a store that nobody will find: {what}; what was renewed since is lost"
    )]
    StoreMoved {
        /// What is wrong with the file of the store.
        what: String,
    },
    /// A loop ended that never should.
    #[error(transparent)]
    Loop(#[from] LoopEnded),
}

impl RunError {
    /// Whether only a person can mend it: exit 2, which the unit does not restart.
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::Config(_)
            | Self::NeedsRestart(_)
            | Self::Client(_)
            | Self::Transport { .. }
            | Self::Sink { .. }
            | Self::Activation(_) => true,
            Self::Open(error) => error.is_configuration(),
            Self::Listen(error) => error.is_configuration(),
            Self::Harden(_)
            | Self::Notify(_)
            | Self::Store(_)
            | Self::Signals(_)
            | Self::StoreMoved { .. }
            | Self::Loop(_) => false,
        }
    }
}
