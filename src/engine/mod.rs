//! Carries decisions out: obtain → commit → deliver. The only room that issues tokens.
//!
//! A [`Courier`] per sink hands over what the store says is wanted and not yet delivered.

mod courier;
mod restore;

pub use courier::{Courier, CourierDeps, CourierError};
pub use restore::{Restored, restore};
