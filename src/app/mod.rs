//! Builds, checks, spawns, reloads, shuts down: the only room that knows all others.

mod allowance;
mod check;
mod delta;
pub mod doctor;
mod error;
mod footing;
mod heart;
mod house;
mod intakes;
mod janitor;
mod loops;
mod reload;
mod run;
mod signals;

pub use allowance::THREADS;
pub use check::check;
pub use error::RunError;
pub use loops::{LoopEnded, Loops};
pub use run::run;

use house::House;
