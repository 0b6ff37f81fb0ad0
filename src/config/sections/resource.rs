//! `[[resource]]`: one ACS resource, its keys and its limits.

use super::super::keys::{
    Key,
    Preset::{Is, Nothing, Required, Said},
    Table, Takes, key,
};
use super::identity::NAME;
use super::{
    super::{
        CreatePolicy, Limits, LoadedSecret, ResourceSettings,
        quantity::{limit, shown},
        reader::{Item, Located, Section},
    },
    ResourceDraft,
    references::{self, CA_FILE, PROXY},
};
use crate::model::ResourceName;

pub(super) static RESOURCE: Table = Table {
    name: "resource",
    header: "[[resource]]",
    says: "",
    groups: &[&[
        NAME,
        key(
            "connection_string",
            Takes::Secret,
            Required,
            "{ file = \"/etc/renewd/contoso.cs\" }",
            "endpoint=https://….communication.azure.com/;accesskey=… Plain http only to loopback.",
        ),
        key(
            "secondary_connection_string",
            Takes::Secret,
            Nothing,
            "{ credential = \"contoso-secondary\" }",
            "The same with the other access key, to go on with while one is regenerated.",
        ),
        CA_FILE,
        PROXY,
        key(
            "api_version",
            Takes::Text,
            Is("\"2023-10-01\""),
            "\"2023-10-01\"",
            "The version of the ACS API.",
        )
        .quoted(),
        key(
            "create",
            Takes::Word(&[("auto", ""), ("never", "")]),
            Is("\"auto\""),
            "\"auto\"",
            "Whether identities without an id are created.",
        ),
        key(
            "limits",
            Takes::Table(&LIMITS),
            Said("the documented limits, which are shown here"),
            "{ issue = \"1000/30s\", create = \"1000/30s\", create_with_token = \"1000/30s\", revoke = \"500/30s\", delete = \"500/30s\", exchange = \"500/30s\" }",
            "What Azure allows this resource: calls in any window of that length. An entry that is left out keeps its default.",
        ),
        key(
            "share",
            Takes::Share(0.001, 1.0),
            Is("1"),
            "1",
            "The part of these limits that this installation uses, where several use one resource: 0.3 leaves the rest to the others.",
        ),
        key(
            "max_in_flight",
            Takes::Integer(1, 1000),
            Is("32"),
            "32",
            "Calls in flight at once.",
        ),
    ]],
};

/// One of the documented limits. Source: azure-docs, service limits of Communication Services.
pub(super) const fn documented(name: &'static str, limit: &'static str) -> Key {
    key(name, Takes::Limit(1_000_000), Is(limit), limit, "")
}

pub(super) static LIMITS: Table = Table {
    name: "resource.limits",
    header: "`limits`",
    says: "",
    groups: &[&[
        documented("issue", "\"1000/30s\""),
        documented("create", "\"1000/30s\""),
        documented("create_with_token", "\"1000/30s\""),
        documented("revoke", "\"500/30s\""),
        documented("delete", "\"500/30s\""),
        documented("exchange", "\"500/30s\""),
    ]],
};

/// Reads one `[[resource]]`.
pub(super) fn read(mut section: Section<'_>) -> ResourceDraft {
    let name: Option<Located<ResourceName>> = section.required("name").and_then(Item::name);
    let primary = section
        .required("connection_string")
        .and_then(references::secret);
    let secondary = match section.optional("secondary_connection_string") {
        Some(item) => other_secret(item, primary.as_ref()).map(Some),
        None => Some(None),
    };
    let ca_file = section.optional("ca_file").and_then(references::ca_file);
    let proxy = section.optional("proxy").and_then(references::proxy);
    let api_version = section.or("api_version", "2023-10-01".to_owned(), api_version);
    let create = section.word("create", [CreatePolicy::Auto, CreatePolicy::Never]);
    let limits_item = section.optional("limits");
    let share = section.share("share");
    let limits = limits_item
        .and_then(limits)
        .unwrap_or_default()
        .shared(share);
    let max_in_flight = section.integer("max_in_flight");
    section.finish();
    let settings = name.as_ref().zip(primary).zip(secondary).map(
        |((name, connection_string), secondary_connection_string)| ResourceSettings {
            name: name.value.clone(),
            connection_string,
            secondary_connection_string,
            ca_file,
            proxy,
            api_version,
            create,
            limits,
            max_in_flight,
        },
    );
    ResourceDraft { name, settings }
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

fn api_version(item: Item<'_>) -> Option<String> {
    let text = item.text()?;
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
    item.unlike_sample(format!("{} is not an API version", shown(text)))
}

fn limits(item: Item<'_>) -> Option<Limits> {
    let mut section = item.section()?;
    let known = Limits::default();
    let limits = Limits {
        issue: section.or("issue", known.issue, Item::limit),
        create: section.or("create", known.create, Item::limit),
        create_with_token: section.or("create_with_token", known.create_with_token, Item::limit),
        revoke: section.or("revoke", known.revoke, Item::limit),
        delete: section.or("delete", known.delete, Item::limit),
        exchange: section.or("exchange", known.exchange, Item::limit),
    };
    section.finish();
    Some(limits)
}

impl Default for Limits {
    fn default() -> Self {
        let of = |name| LIMITS.preset(name, limit);
        Self {
            issue: of("issue"),
            create: of("create"),
            create_with_token: of("create_with_token"),
            revoke: of("revoke"),
            delete: of("delete"),
            exchange: of("exchange"),
        }
    }
}
