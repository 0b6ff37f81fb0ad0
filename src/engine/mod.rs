//! Carries decisions out: obtain → commit → deliver. The only room that issues tokens.
//!
//! A [`Lane`] per resource takes due rows from the store, earliest expiry first, as far as pace and
//! health allow, calls ACS, and commits what comes back. A [`Courier`] per sink hands over what the
//! store says is wanted and not yet delivered. What is in flight is a set in memory; after a crash
//! everything unfinished is simply due again.

mod courier;
mod intake;
mod lane;
mod merge;
mod restore;
mod withdrawer;

pub use courier::{Ask, Courier, CourierDeps, CourierError, LaneViews};
pub use intake::{Apply, Intake, IntakeDeps, SourceAsk};
pub use lane::{Lane, LaneDeps, LaneError};
pub use restore::{Restored, restore};
pub use withdrawer::{FileSinks, Withdrawer, WithdrawerError};
