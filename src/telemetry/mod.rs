//! Sets up logs and names metrics; both are built once, by `app` or `cli`, and handed down.

mod logging;
mod metrics;

pub use logging::{Format, InitError, init};
pub use metrics::{Metrics, Scrape};
