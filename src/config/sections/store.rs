//! `[store]`: the database, its key, and how long the audit trail stays.

use std::time::Duration;

use super::{
    super::{DaemonSettings, Owner, StoreSettings, reader::Section},
    references,
};

const DAY: u64 = 24;
/// The audit trail of routine renewals and of all else: design, "One owner; an audit trail".
const KEEP_RENEWALS: Duration = Duration::from_hours(7 * DAY);
const KEEP_OTHER: Duration = Duration::from_hours(400 * DAY);

/// Reads `[store]`; nothing comes of it when the seal key cannot be read.
pub(super) fn read(
    mut section: Section<'_>,
    (daemon, owner): (&DaemonSettings, Owner),
) -> Option<StoreSettings> {
    let path = section.or("path", daemon.state_dir.join("renewd.db"), |item| {
        item.path("/var/lib/renewd/renewd.db")
    });
    let seal_key = match section.optional("seal_key") {
        Some(item) => references::secret(item).map(Some),
        None => Some(None),
    };
    let (keep_renewals, keep_other) =
        section.or("retention", (KEEP_RENEWALS, KEEP_OTHER), |item| {
            let mut retention =
                item.section("store.retention", "{ renewals = \"7d\", other = \"400d\" }")?;
            let range = Duration::from_hours(1)..=Duration::from_hours(3650 * DAY);
            let renewals = retention.or("renewals", KEEP_RENEWALS, |item| {
                item.duration(range.clone())
            });
            let other = retention.or("other", KEEP_OTHER, |item| item.duration(range));
            retention.finish();
            Some((renewals, other))
        });
    let withdrawn_copy = section
        .optional("withdrawn_copy")
        .and_then(|item| item.path("/mnt/elsewhere/renewd-withdrawn.jsonl"));
    section.finish();
    Some(StoreSettings {
        withdrawn_copy,
        path,
        seal_key: seal_key?,
        keep_renewals,
        keep_other,
        owner,
        save_before_migration: true,
    })
}
