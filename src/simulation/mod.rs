//! Runs the parts of the daemon for days in seconds: the real store, renewer, campaigns and keys against a modelled
//! service in simulated time, with faults that a script names or chance draws. The same setting is the same life, to
//! the byte.
//!
//! What a simulation has no part in: sinks, sources, the socket. A fleet larger than [`Setting::SIMULATED`] is simulated
//! by a part of it, with limits that are smaller by as much.

mod course;
mod faults;
mod findings;
mod picture;
mod provider;
mod report;

use std::{path::PathBuf, time::Duration};

use jiff::Timestamp;

use crate::config::{Limit, Limits};

pub use course::{Daemon, DaemonParts, unlocked};
pub use faults::{FaultError, FaultKind, PlannedFault, random, script, told};
pub use findings::HourSeen;
pub use picture::svg;
pub use provider::{Call, Deed, Manner, NOBODY, Provider};
pub use report::{CampaignSeen, Report};

#[derive(Debug, Clone, PartialEq)]
pub struct Setting {
    pub seed: u64,
    /// So many identities, all alike.
    pub identities: u64,
    /// How long their tokens live.
    pub lifetime: Duration,
    /// The share of that after which they are renewed.
    pub renew_at: f64,
    /// The share by which that is spread.
    pub spread: f64,
    /// What the service allows, and what we keep.
    pub limits: Limits,
    pub max_in_flight: usize,
    /// How long an answer takes.
    pub latency: Duration,
    /// How long it goes on.
    pub length: Duration,
    pub faults: Vec<PlannedFault>,
}

impl Setting {
    /// No more are simulated one by one.
    pub const SIMULATED: u64 = 20_000;

    /// How many identities one that is simulated stands for.
    pub fn scale(&self) -> u64 {
        self.identities.div_ceil(Self::SIMULATED).max(1)
    }

    /// How many are simulated one by one.
    pub fn simulated(&self) -> u64 {
        self.identities.div_ceil(self.scale())
    }

    /// Whether a key is regenerated.
    fn loses_keys(&self) -> bool {
        let loses = |fault: &PlannedFault| matches!(fault.kind, FaultKind::KeyLoss { .. });
        self.faults.iter().any(loses)
    }

    /// The part of it that is simulated.
    fn part(&self) -> Self {
        let scale = self.scale();
        let part = |limit: Limit| Limit {
            calls: u32::try_from(u64::from(limit.calls) / scale)
                .unwrap_or(1)
                .max(1),
            ..limit
        };
        let limits = &self.limits;
        Self {
            identities: self.simulated(),
            limits: Limits {
                issue: part(limits.issue),
                create: part(limits.create),
                create_with_token: part(limits.create_with_token),
                revoke: part(limits.revoke),
                delete: part(limits.delete),
                exchange: part(limits.exchange),
            },
            ..self.clone()
        }
    }
}

/// Why a simulation did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum SimulationError {
    #[error("the simulation cannot start: {0}")]
    Runtime(#[from] std::io::Error),
    /// No folder for the store.
    #[error("the simulation has no room for its store in {path}: {source}")]
    Folder {
        path: PathBuf,
        source: std::io::Error,
    },
    /// The store cannot be opened.
    #[error("the store of the simulation: {0}")]
    Open(#[from] crate::store::OpenError),
    /// The store does not work.
    #[error("the store of the simulation: {0}")]
    Store(#[from] crate::store::StoreError),
    #[error("the client of the simulation: {0}")]
    Client(#[from] crate::acs::SetupError),
    /// A part of the daemon ended by itself.
    #[error("{part} ended after {at:?} of simulated time: {why}")]
    Ended {
        part: &'static str,
        at: Duration,
        why: String,
    },
}

/// When every simulation begins.
fn start() -> Timestamp {
    Timestamp::from_second(1_795_348_800).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Lets a fleet live.
///
/// # Errors
/// When it does not come to its end; a broken promise is in the report.
pub fn simulate(setting: &Setting) -> Result<Report, SimulationError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()?;
    let folder = course::ScratchFolder::new()?;
    let part = setting.part();
    let findings = runtime.block_on(Box::pin(course::run(&part, folder.path())))?;
    Ok(Report::of(setting, findings))
}
