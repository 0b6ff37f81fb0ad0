//! `[[resource]]`: one ACS resource, its keys and its limits.

use std::{path::PathBuf, time::Duration};

use super::{
    super::{
        CreatePolicy, Limit, Limits, LoadedSecret, ResourceSettings,
        quantity::limit,
        reader::{Item, Located, Section},
        suspicion::shown,
    },
    ResourceDraft, references,
};
use crate::model::ResourceName;

/// Reads one `[[resource]]`.
pub(super) fn read(mut section: Section<'_>) -> ResourceDraft {
    let name: Option<Located<ResourceName>> = section
        .required("name")
        .and_then(|item| item.name("contoso"));
    let primary = section
        .required("connection_string")
        .and_then(references::secret);
    let secondary = match section.optional("secondary_connection_string") {
        Some(item) => other_secret(item, primary.as_ref()).map(Some),
        None => Some(None),
    };
    let ca_file = section.optional("ca_file").and_then(ca_file);
    let api_version = section.or("api_version", "2023-10-01".to_owned(), api_version);
    let create = section.or("create", CreatePolicy::Auto, |item| {
        item.choice(&[("auto", CreatePolicy::Auto), ("never", CreatePolicy::Never)])
    });
    let limits_item = section.optional("limits");
    let limits = limits_item.and_then(limits).unwrap_or_default();
    let max_in_flight = section.or("max_in_flight", 32, |item| {
        item.integer(1..=1000).and_then(|n| usize::try_from(n).ok())
    });
    let limits_at = limits_item.map_or(section.head(), Item::span);
    section.finish();
    let settings = name.as_ref().zip(primary).zip(secondary).map(
        |((name, connection_string), secondary_connection_string)| ResourceSettings {
            name: name.value.clone(),
            connection_string,
            secondary_connection_string,
            ca_file,
            api_version,
            create,
            limits,
            max_in_flight,
        },
    );
    ResourceDraft {
        name,
        limits_at,
        limits,
        settings,
    }
}

fn other_secret(item: Item<'_>, primary: Option<&LoadedSecret>) -> Option<LoadedSecret> {
    let secondary = references::secret(item)?;
    if primary.is_some_and(|primary| primary.secret == secondary.secret) {
        item.tell(
            item.warning("the secondary connection string is the same as the primary")
                .hint("it is for the other access key, to go on with while one is regenerated"),
        );
    }
    Some(secondary)
}

/// A file of certificates, which must be there: whoever connects reads it again.
pub(super) fn ca_file(item: Item<'_>) -> Option<PathBuf> {
    let path = item.path("/etc/renewd/ca.pem")?;
    match std::fs::File::open(&path) {
        Ok(_) => Some(path),
        Err(error) => {
            let message = format!("cannot read the CA file {}: {error}", shown_path(&path));
            item.wrong(
                message,
                "it holds certificates in PEM, trusted besides the system's",
            )
        }
    }
}

fn shown_path(path: &std::path::Path) -> String {
    let shown = shown(&path.display().to_string());
    shown.trim_matches('"').to_owned()
}

fn api_version(item: Item<'_>) -> Option<String> {
    let text = item.text("2023-10-01")?;
    let date = text.strip_suffix("-preview").unwrap_or(text);
    let digits = |part: &str, n| part.len() == n && part.bytes().all(|b| b.is_ascii_digit());
    let parts: Vec<_> = date.split('-').collect();
    if let [year, month, day] = parts[..]
        && digits(year, 4)
        && digits(month, 2)
        && digits(day, 2)
    {
        return Some(text.to_owned());
    }
    item.wrong(
        format!("{} is not an API version", shown(text)),
        "such as \"2023-10-01\"",
    )
}

fn limits(item: Item<'_>) -> Option<Limits> {
    let mut section = item.section("resource.limits", "{ issue = \"1000/30s\" }")?;
    let known = Limits::default();
    let limits = Limits {
        issue: section.or("issue", known.issue, one_limit),
        create: section.or("create", known.create, one_limit),
        create_with_token: section.or("create_with_token", known.create_with_token, one_limit),
        revoke: section.or("revoke", known.revoke, one_limit),
        delete: section.or("delete", known.delete, one_limit),
        exchange: section.or("exchange", known.exchange, one_limit),
    };
    section.finish();
    Some(limits)
}

fn one_limit(item: Item<'_>) -> Option<Limit> {
    let text = item.text("1000/30s")?;
    let example = format!("so many calls in so long: {} = \"1000/30s\"", item.key());
    let Some(limit) = limit(text) else {
        return item.wrong(format!("{} is not a limit", shown(text)), example);
    };
    let windows = Duration::from_secs(1)..=Duration::from_hours(1);
    if (1..=1_000_000).contains(&limit.calls) && windows.contains(&limit.window) {
        return Some(limit);
    }
    item.wrong(
        format!("the limit {} is out of range", shown(text)),
        "1 to 1000000 calls in 1s to 1h",
    )
}
