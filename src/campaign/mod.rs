//! Carries bulk operations out: revokes and deletes at ACS, withholds and releases, and sets rows due;
//! the tokens that follow are issued by the engine, the one issuer.
//!
//! A campaign is rows in the store. A [`Runner`] per resource pulls pending items in chunks, keeps
//! those under way in memory, and settles each with its step; after a crash an item under way is
//! simply pending again, so each is acknowledged at least once and reported exactly once.
//!
//! | action | what happens to a row |
//! |---|---|
//! | revoke, then reissue | ACS revokes; the row becomes due now, for the engine to re-issue |
//! | revoke, then hold | withheld, confirmed by its consumers (5 s at most), then ACS revokes |
//! | hold | withheld |
//! | release | waits for a token again |
//! | renew | becomes due now, for the engine to renew |
//! | delete | ACS deletes, then it is withheld for ever |

mod item;
mod runner;
mod settlement;

pub use runner::{Runner, RunnerError};
