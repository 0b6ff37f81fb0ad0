//! `[store]`: the database, its key, and how long the audit trail stays.

use super::super::keys::{
    DAY, HOUR,
    Preset::{Is, Nothing, Said},
    Table, Takes, key,
};
use super::{
    super::{
        DaemonSettings, Owner, StoreSettings,
        reader::{Item, Section},
    },
    references,
};

pub(super) static STORE: Table = Table {
    name: "store",
    header: "[store]",
    says: "",
    groups: &[&[
        key(
            "path",
            Takes::Path,
            Said("renewd.db in state_dir"),
            "\"/var/lib/renewd/renewd.db\"",
            "The database.",
        )
        .restart(),
        key(
            "seal_key",
            Takes::Secret,
            Said("a key file made in state_dir, mode 0600"),
            "{ credential = \"seal-key\" }",
            "The key that seals every token in the database.",
        )
        .restart(),
        key(
            "retention",
            Takes::Table(&RETENTION),
            Is("{ renewals = \"7d\", other = \"400d\" }"),
            "{ renewals = \"7d\", other = \"400d\" }",
            "How long the audit trail is kept, 1h to 3650d: routine renewals, and all else. A change needs a restart.",
        ),
        key(
            "withdrawn_copy",
            Takes::Path,
            Nothing,
            "\"/mnt/elsewhere/renewd-withdrawn.jsonl\"",
            "A second place of withdrawn.jsonl, the list of what was held, revoked and deleted, on a disk that is not put back together with state_dir. At a start the longer of the two counts.",
        )
        .restart(),
    ]],
};

pub(super) const KEPT: Takes = Takes::Duration(HOUR, 3650 * DAY);

pub(super) static RETENTION: Table = Table {
    name: "store.retention",
    header: "`retention`",
    says: "",
    groups: &[&[
        key("renewals", KEPT, Is("\"7d\""), "\"7d\"", "").restart(),
        key("other", KEPT, Is("\"400d\""), "\"400d\"", "").restart(),
    ]],
};

/// Reads `[store]`; nothing comes of it when the seal key cannot be read.
pub(super) fn read(
    mut section: Section<'_>,
    (daemon, owner): (&DaemonSettings, Owner),
) -> Option<StoreSettings> {
    let path = section.or("path", daemon.state_dir.join("renewd.db"), Item::path);
    let seal_key = match section.optional("seal_key") {
        Some(item) => references::secret(item).map(Some),
        None => Some(None),
    };
    let mut retention = section.inner("retention");
    let keep_renewals = retention.duration("renewals");
    let keep_other = retention.duration("other");
    retention.finish();
    let withdrawn_copy = section.optional("withdrawn_copy").and_then(Item::path);
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
