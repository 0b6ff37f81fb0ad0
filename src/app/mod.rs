//! Builds, checks, spawns, reloads, shuts down: the only room that knows all others.

mod allowance;
mod check;
mod delta;
pub mod doctor;
mod error;
mod loops;
mod reload;
mod run;
mod signals;
mod source_syncs;
mod supervisor;
mod upkeep;

pub use allowance::{SPARE, THREADS};
pub use check::check;
pub use error::RunError;
pub use loops::{LoopEnded, Loops};
pub use run::run;

use supervisor::Supervisor;
