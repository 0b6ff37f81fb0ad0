//! The words of the configuration: which keys each section knows, which of them hold secrets, and
//! what a misspelt word was probably meant to be.

/// Every section with its keys. The reader checks unknown keys against this, the mask decides by it
/// which values may be shown.
const SECTIONS: &[(&str, &[&str])] = &[
    (
        "",
        &[
            "daemon", "store", "renewal", "resource", "identity", "sink", "source", "job",
        ],
    ),
    (
        "daemon",
        &[
            "state_dir",
            "listen",
            "socket",
            "instance",
            "admins",
            "page_names",
        ],
    ),
    (
        "store",
        &["path", "seal_key", "retention", "withdrawn_copy"],
    ),
    ("store.retention", &["renewals", "other"]),
    ("renewal", &["lifetime", "renew_at", "spread"]),
    (
        "resource",
        &[
            "name",
            "connection_string",
            "secondary_connection_string",
            "ca_file",
            "api_version",
            "create",
            "limits",
            "max_in_flight",
        ],
    ),
    (
        "resource.limits",
        &[
            "issue",
            "create",
            "create_with_token",
            "revoke",
            "delete",
            "exchange",
        ],
    ),
    (
        "identity",
        &[
            "name",
            "resource",
            "id",
            "scopes",
            "lifetime",
            "renew_at",
            "spread",
            "labels",
            "readers",
            "sinks",
            "on_removal",
        ],
    ),
    ("sink", &["file", "webhook", "exec"]),
    (
        "sink.file",
        &[
            "name", "path", "format", "template", "mode", "owner", "group", "bundle", "readers",
            "write", "rate",
        ],
    ),
    ("sink.file.template", &["file"]),
    (
        "sink.webhook",
        &[
            "name",
            "url",
            "allow_http",
            "allow_private",
            "proxy",
            "secrets",
            "include",
            "events",
            "ca_file",
            "timeout",
            "rate",
        ],
    ),
    (
        "sink.exec",
        &[
            "name",
            "command",
            "timeout",
            "environment",
            "max_in_flight",
            "rate",
            "after",
        ],
    ),
    (
        "job",
        &[
            "name", "cron", "timezone", "action", "select", "then", "missed",
        ],
    ),
    ("source", &["sqlite", "exec", "file"]),
    (
        "source.sqlite",
        &[
            "name",
            "path",
            "query",
            "every",
            "resource",
            "scopes",
            "lifetime",
            "renew_at",
            "spread",
            "labels",
            "readers",
            "sinks",
            "on_removal",
            "max_removal",
            "max_scopes",
            "max_readers",
            "max_lifetime",
            "adopt_ids",
        ],
    ),
    (
        "source.exec",
        &[
            "name",
            "command",
            "timeout",
            "every",
            "resource",
            "scopes",
            "lifetime",
            "renew_at",
            "spread",
            "labels",
            "readers",
            "sinks",
            "on_removal",
            "max_removal",
            "max_scopes",
            "max_readers",
            "max_lifetime",
            "adopt_ids",
        ],
    ),
    (
        "source.file",
        &[
            "name",
            "path",
            "every",
            "resource",
            "scopes",
            "lifetime",
            "renew_at",
            "spread",
            "labels",
            "readers",
            "sinks",
            "on_removal",
            "max_removal",
            "max_scopes",
            "max_readers",
            "max_lifetime",
            "adopt_ids",
        ],
    ),
    (MAX_REMOVAL, &["share", "count"]),
    (SECRET_REFERENCE, &["file", "credential", "env"]),
];

/// The keys whose values are secrets, or would be if somebody wrote them in the clear.
const SECRET_KEYS: &[&str] = &[
    "connection_string",
    "secondary_connection_string",
    "secrets",
    "seal_key",
];

/// The name of the table `max_removal` of a source, as a section.
pub(super) const MAX_REMOVAL: &str = "source.max_removal";

/// The name of the inline table that refers to a secret, as a section.
pub(super) const SECRET_REFERENCE: &str = "a secret's reference";

/// The keys that a section knows; none for a section that does not exist.
pub(super) fn keys_of(section: &str) -> &'static [&'static str] {
    SECTIONS
        .iter()
        .find(|(name, _)| *name == section)
        .map_or(&[], |(_, keys)| keys)
}

/// The sections that know a key, for "this belongs in …".
pub(super) fn homes_of(key: &str) -> Vec<&'static str> {
    SECTIONS
        .iter()
        .filter(|(name, keys)| !name.is_empty() && *name != SECRET_REFERENCE && keys.contains(&key))
        .map(|(name, _)| *name)
        .collect()
}

/// A section as an operator writes its header.
pub(super) fn header(section: &str) -> String {
    match section {
        "" => "the top level".to_owned(),
        SECRET_REFERENCE => SECRET_REFERENCE.to_owned(),
        MAX_REMOVAL => "`max_removal`".to_owned(),
        "resource" | "identity" | "job" | "sink.file" | "sink.webhook" | "sink.exec"
        | "source.sqlite" | "source.exec" | "source.file" => format!("[[{section}]]"),
        "resource.limits" => "`limits`".to_owned(),
        "sink.file.template" => "`template`".to_owned(),
        "store.retention" => "`retention`".to_owned(),
        _ => format!("[{section}]"),
    }
}

/// Whether a word is a key of some section.
pub(super) fn is_known(word: &str) -> bool {
    SECTIONS.iter().any(|(_, keys)| keys.contains(&word))
}

/// Whether what stands under this key may be shown: it is, or was probably meant to be, a key that
/// holds no secret. Anything else might be a misspelt secret key.
pub(super) fn may_show(key: &str) -> bool {
    if is_known(key) {
        return !SECRET_KEYS.contains(&key);
    }
    let every = SECTIONS.iter().flat_map(|(_, keys)| keys.iter().copied());
    nearest(key, every).is_some_and(|meant| !SECRET_KEYS.contains(&meant))
        && nearest(key, SECRET_KEYS.iter().copied()).is_none()
}

/// The candidate that a misspelt word was probably meant to be: at most a third of it is wrong.
pub(super) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let plain = |text: &str| text.to_ascii_lowercase().replace(['-', ' '], "_");
    let word = plain(word);
    candidates
        .into_iter()
        .map(|candidate| {
            (
                strsim::damerau_levenshtein(&word, &plain(candidate)),
                candidate,
            )
        })
        .filter(|(distance, candidate)| {
            *distance <= (word.chars().count().max(candidate.len()) / 3).max(1)
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelt_words_find_their_meaning() {
        let keys = keys_of("sink.file");
        assert_eq!(nearest("paht", keys.iter().copied()), Some("path"));
        assert_eq!(nearest("Path", keys.iter().copied()), Some("path"));
        assert_eq!(nearest("colour", keys.iter().copied()), None);
    }

    #[test]
    fn the_reference_file_shows_every_key() {
        let reference = include_str!("../../config/renewd.toml");
        let is_shown = |key: &str| {
            let words = ["", "# "].map(|start| format!("\n{start}{key} "));
            let inner = [" ", "{ "].map(|start| format!("{start}{key} = "));
            let headers = ["[", "."].map(|start| format!("{start}{key}"));
            words
                .iter()
                .chain(&inner)
                .chain(&headers)
                .any(|text| reference.contains(text))
        };
        for key in SECTIONS.iter().flat_map(|(_, keys)| *keys) {
            assert!(is_shown(key), "{key}");
        }
    }

    #[test]
    fn what_might_be_a_secret_is_not_shown() {
        for key in [
            "connection_string",
            "conection_string",
            "connection-string",
            "secret",
            "secrets",
            "seal_key",
            "sealkey",
            "password",
            "accesskey",
        ] {
            assert!(!may_show(key), "{key}");
        }
        for key in ["name", "nmae", "listne", "scopes", "renew_att"] {
            assert!(may_show(key), "{key}");
        }
    }
}
