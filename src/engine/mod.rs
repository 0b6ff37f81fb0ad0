//! Carries decisions out: obtain → commit → deliver. The only room that issues tokens.
//!
//! A [`Renewer`] per resource takes due rows from the store, earliest expiry first, as far as pace and
//! health allow, calls ACS, and commits what comes back. A [`Dispatcher`] per sink hands over what the
//! store says is wanted and not yet delivered. What is in flight is a set in memory; after a crash
//! everything unfinished is simply due again.

mod dispatcher;
mod renewer;
mod restore;
mod source_sync;
mod standby;

pub use dispatcher::{Ask, Dispatcher, DispatcherDeps, DispatcherError};
pub use renewer::{Renewer, RenewerError};
pub use restore::{FileSinks, RenewerViews, RestoredFiles, StrayFiles, restore};
pub use source_sync::{Apply, SourceAsk, SourceSync, SourceSyncDeps};
pub use standby::put_back;
