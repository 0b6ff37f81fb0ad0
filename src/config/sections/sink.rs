//! What all kinds of sinks have in common.

use std::time::Duration;

use super::super::{Limit, quantity::limit, reader::Item, suspicion::shown};

/// The most attempts that a sink may see: `rate = "50/s"`.
pub(super) fn rate(item: Item<'_>) -> Option<Limit> {
    let text = item.text("50/s")?;
    let Some(limit) = limit(text) else {
        return item.wrong(
            format!("{} is not a rate", shown(text)),
            "so many attempts in so long: rate = \"50/s\" or \"600/10m\"",
        );
    };
    let windows = Duration::from_secs(1)..=Duration::from_hours(1);
    if (1..=10_000).contains(&limit.calls) && windows.contains(&limit.window) {
        return Some(limit);
    }
    item.wrong(
        format!("the rate {} is out of range", shown(text)),
        "1 to 10000 attempts in 1s to 1h",
    )
}
