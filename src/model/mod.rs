//! The words of the house: newtypes, secrets, events, snapshots. No IO, no clock, no async.

mod change;
mod document;
mod entry;
mod failure;
mod fields;
mod foreign;
mod identity;
mod job;
mod key;
mod names;
mod notice;
mod placed;
mod scope;
mod screen;
mod secret;
mod selection;
mod snapshot;
mod source;
mod store_standing;
mod token;

pub use change::*;
pub use document::*;
pub use entry::*;
pub use failure::*;
pub use fields::Fields;
pub use foreign::*;
pub use identity::*;
pub use job::*;
pub use key::*;
pub use names::*;
pub use notice::*;
pub use placed::*;
pub use scope::*;
pub use screen::*;
pub use secret::*;
pub use selection::{Facts, Selection, SelectionError};
pub use snapshot::*;
pub use source::*;
pub use store_standing::StoreStanding;
pub use token::*;

pub use jiff::Timestamp;
