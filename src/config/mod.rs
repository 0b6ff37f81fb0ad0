//! Reads the configuration: TOML files become [`Settings`], mistakes become [`ConfigProblem`]s that are
//! shown with file, line, column and a caret. It builds nothing.
//!
//! One load goes: files → [`syntax`] → one tree that remembers where everything stands → one file
//! per section in [`sections`], each taking its keys off the tree with the [`reader`] → links
//! between the sections ([`load`]) → [`Settings`]. Mistakes are collected on the way, never the first alone,
//! and an [`excerpt`] shows of a line only what may be shown. [`Places`] keeps the tree, so that what other rooms find
//! in their section ([`Finding`]) is shown in the same way.

mod database;
mod digest;
mod excerpt;
mod file;
mod keys;
mod load;
mod pin;
mod places;
mod problem;
mod quantity;
mod reader;
mod reference;
mod secret;
mod sections;
mod settings;
mod source;
mod syntax;
mod tree;

pub use database::{
    AddressMistake, ChannelBinding, ClientFiles, DatabaseHost, DatabaseSettings, HostPlace,
};
pub use excerpt::Excerpt;
pub use file::{open_regular, read_regular};
pub use load::{Loaded, load};
pub use pin::{Pinned, pin};
pub use places::Places;
pub use problem::render;
pub use problem::{ConfigProblem, Place, Problems};
pub use reference::schema;
pub use reference::{manual_page, reference, roff};
pub use secret::{SecretError, reload_secret};
pub use sections::{
    entra_of_environment, entra_with_secret, is_guid, is_tenant, judge_origin, restart_keys,
};
pub use settings::*;
pub use source::{Environment, Source};
