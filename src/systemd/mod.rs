//! Speaks to the service manager: what it is told (ready, reloading, stopping, alive) and what the
//! process does to itself before it holds a secret. Without a service manager all of it is silent.

mod notify;

pub use notify::{ActivationError, Passed};
pub use notify::{Given, HardeningError, harden, make_private};
pub use notify::{Notifier, NotifyError};
pub use notify::{Verdict, Watchdog};
