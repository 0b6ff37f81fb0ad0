//! Keeps the lease: one machine of those that share a store leads, and knows when it does not.
//!
//! [`Tenure`](tenure) decides, purely; a [`LeaseKeeper`] says every few seconds that this machine is there, takes the duty
//! where nobody has it, and gives it up where another one should. Who works under a lease asks it before each call,
//! and the store refuses what an earlier leader wants to write: so nobody need be told in time.
//!
//! Nothing of this runs where the store is a file of one machine.

mod keeper;
mod late_calls;
mod tenure;

pub use keeper::{Charge, LeaseHandle, LeaseKeeper, LeaseKeeperDeps};
pub use late_calls::LateCalls;
pub use tenure::{LEASE, QUIET};
