//! Builds, checks, spawns, reloads, shuts down: the only room that knows all others.

mod loops;

pub use loops::{LoopEnded, Loops};
