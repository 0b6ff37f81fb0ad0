//! `[[resource]]`: one ACS resource, who calls it and its limits.

use super::super::keys::{
    Key,
    Preset::{Is, Nothing, Said},
    Table, Takes, key,
};
use super::identity::NAME;
use super::{
    super::{
        CreatePolicy, CredentialSettings, KeySettings, Limits, LoadedSecret, ResourceSettings,
        problem::Note,
        quantity::{limit, shown},
        reader::{Item, Located, Section},
    },
    ResourceDraft,
    entra::{self, ENTRA},
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
            Nothing,
            "{ file = \"/etc/renewd/contoso.cs\" }",
            "endpoint=https://….communication.azure.com/;accesskey=… Plain http only to loopback. Required, unless `endpoint` and [resource.entra] stand in its place.",
        ),
        key(
            "secondary_connection_string",
            Takes::Secret,
            Nothing,
            "{ credential = \"contoso-secondary\" }",
            "The same with the other access key, to go on with while one is regenerated.",
        ),
        key(
            "endpoint",
            Takes::Text,
            Nothing,
            "\"https://contoso.communication.azure.com\"",
            "Where the resource listens, in place of connection strings: [resource.entra] says who calls. Plain http only to loopback.",
        )
        .commented(),
        key(
            "entra",
            Takes::Table(&ENTRA),
            Nothing,
            "{ managed_identity = true }",
            "Who calls by Entra ID, without access keys; it is written as the section [resource.entra].",
        )
        .elsewhere(),
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
    let credential = credential(&mut section);
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
    let settings = name
        .as_ref()
        .zip(credential)
        .map(|(name, credential)| ResourceSettings {
            name: name.value.clone(),
            credential,
            ca_file,
            proxy,
            api_version,
            create,
            limits,
            max_in_flight,
        });
    ResourceDraft { name, settings }
}

/// Connection strings, or `endpoint` with `[resource.entra]`.
fn credential(section: &mut Section<'_>) -> Option<CredentialSettings> {
    let primary = section.optional("connection_string");
    let secondary = section.optional("secondary_connection_string");
    let endpoint = section.optional("endpoint");
    let entra = section.optional("entra");
    match (primary, entra) {
        (_, Some(entra)) => {
            for other in [primary, secondary].into_iter().flatten() {
                let message = format!(
                    "a resource has either `{}` or [resource.entra], not both",
                    other.key()
                );
                let note = other.error(message).see(entra.span(), "the section is at");
                other.tell(note.hint("take out whichever is not meant"));
            }
            entra::read(entra, endpoint).map(CredentialSettings::Entra)
        }
        (Some(primary), None) => {
            if let Some(endpoint) = endpoint {
                endpoint.wrong::<()>(
                    "`endpoint` goes with [resource.entra]: a connection string holds its own",
                    "take out one of the two",
                );
            }
            keys(primary, secondary).map(CredentialSettings::Keys)
        }
        (None, None) => {
            let message =
                "[[resource]] needs `connection_string`, or `endpoint` with [resource.entra]";
            let (at, message) = match (secondary, endpoint) {
                (Some(_), _) => (section.head(), "[[resource]] needs `connection_string`"),
                (None, Some(endpoint)) => (
                    endpoint.span(),
                    "`endpoint` needs [resource.entra], which says who calls",
                ),
                (None, None) => (section.head(), message),
            };
            section.tell(Note::error(at, message).absence());
            None
        }
    }
}

fn keys(primary: Item<'_>, secondary: Option<Item<'_>>) -> Option<KeySettings> {
    let primary = references::secret(primary);
    let secondary = match secondary {
        Some(item) => Some(other_secret(item, primary.as_ref())?),
        None => None,
    };
    Some(KeySettings {
        connection_string: primary?,
        secondary_connection_string: secondary,
    })
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
