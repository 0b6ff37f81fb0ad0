//! Speaks to the service manager: what it is told (ready, reloading, stopping, alive) and what the
//! process does to itself before it holds a secret. Without a service manager all of it is silent.

mod activation;
mod hardening;
mod notify;
mod watchdog;

pub use activation::{ActivationError, Passed};
pub use hardening::{Given, HardeningError, harden, make_private};
pub use notify::{Notifier, NotifyError};
pub use watchdog::{Verdict, Watchdog};
