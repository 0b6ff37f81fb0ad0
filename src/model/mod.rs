//! The words that all rooms share: newtypes, secrets, events, snapshots. No IO, no clock, no async.

mod campaign;
mod cluster;
mod entra;
mod entry;
mod failure;
mod identity;
mod key;
mod names;
mod notice;
mod screen;
mod selection;
mod snapshot;
mod token;

pub use campaign::*;
pub use cluster::*;
pub use entra::*;
pub use entry::Fields;
pub use entry::*;
pub use failure::*;
pub use identity::*;
pub use key::*;
pub use names::*;
pub use notice::*;
pub use screen::*;
pub use selection::{Facts, Selection, SelectionError};
pub use snapshot::StoreStanding;
pub use snapshot::*;
pub use token::*;

pub use jiff::Timestamp;
