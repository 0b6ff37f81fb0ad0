//! Reads the configuration: TOML files become [`Settings`], mistakes become [`Finding`]s that are
//! shown with file, line, column and a caret. It builds nothing.

mod settings;

pub use settings::*;
