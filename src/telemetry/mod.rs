//! Sets up logs and names metrics; both are built once, by `app` or `cli`, and handed down.

mod logs;
mod metrics;

pub use logs::{Format, InitError, init};
pub use metrics::{Metrics, Scrape};
