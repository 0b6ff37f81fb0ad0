//! `[[identity]]`: one identity as it is wanted; and `[renewal]`, when tokens are renewed, whose three keys may stand
//! in an identity too.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    super::{
        keys::{
            DAY, HOUR, Key,
            Preset::{self, Is, Required, Said},
            Table, Takes, key,
        },
        problem::Note,
        quantity::{duration, quoted, shown},
        reader::{Item, Located, Section, one_of},
        tree::{Span, Value},
    },
    Renewal, references,
};
use crate::model::{
    Declaration, IdentityId, Name, OnRemoval, Origin, ResourceName, Scope, SinkName, Spec,
    is_label_key,
};

pub(super) const NAME: Key = key(
    "name",
    Takes::Name,
    Required,
    "\"contoso\"",
    "Letters, digits and . _ @ + -, at most 128, starting with a letter or digit.",
);

pub(super) const OF_IDENTITY: &str = "As in [renewal], for this identity.";

pub(super) const OF_RENEWAL: Preset = Preset::Of("renewal");

pub(super) const THE_RESOURCE: Key = key(
    "resource",
    Takes::Name,
    Said("the only one, where there is one"),
    "\"contoso\"",
    "Which resource it belongs to.",
);

pub(super) const SCOPES: Key = key(
    "scopes",
    Takes::Texts,
    Required,
    "[\"chat\", \"voip\"]",
    "What its tokens are good for: chat, chat.join, chat.join.limited, voip, voip.join.",
)
.quoted();

pub(super) const LABELS: Key = key(
    "labels",
    Takes::Free,
    Is("{}"),
    "{ team = \"support\" }",
    "Free words to select by, as in `label.team = 'support'`.",
);

pub(super) const READERS: Key = key(
    "readers",
    Takes::Accounts,
    Is("[]"),
    "[\"bot\", \"group:voip\"]",
    "Who may read its file and fetch its token over the socket: users, and groups as \"group:NAME\".",
);

pub(super) const SINKS: Key = key(
    "sinks",
    Takes::Names,
    Is("[]"),
    "[\"bot-file\", \"crm\"]",
    "Where its tokens go, by the names of sinks below.",
);

pub(super) const ON_REMOVAL: Key = key(
    "on_removal",
    Takes::Word(&[
        ("hold", "keep it, withhold its token"),
        ("forget", "drop it here; Azure keeps it"),
        ("revoke", "its tokens end, then hold"),
    ]),
    Is("\"hold\""),
    "\"hold\"",
    "What happens when it is taken out of this file.",
);

pub(super) static IDENTITY: Table = Table {
    name: "identity",
    header: "[[identity]]",
    says: "",
    groups: &[&[
        NAME.again(
            Required,
            "\"support-bot\"",
            "Our name for it; the same rule as for a resource.",
        ),
        THE_RESOURCE,
        key(
            "id",
            Takes::Name,
            Said("it is created on first run and remembered."),
            "\"8:acs:00000000-0000-0000-0000-000000000000_00000000-0000-0000-0000-000000000000\"",
            "What Azure calls it.",
        )
        .commented(),
        SCOPES,
        LIFETIME.again(OF_RENEWAL, "\"12h\"", OF_IDENTITY),
        RENEW_AT.again(OF_RENEWAL, "0.4", OF_IDENTITY),
        SPREAD.again(OF_RENEWAL, "0.05", OF_IDENTITY),
        LABELS,
        READERS,
        SINKS,
        ON_REMOVAL,
    ]],
};

/// An identity before its resource and its sinks are looked up.
#[derive(Debug)]
pub(in super::super) struct Draft {
    pub(in super::super) head: Span,
    pub(in super::super) name: Option<Located<Name>>,
    pub(in super::super) resource: Option<Located<ResourceName>>,
    pub(in super::super) resource_left_out: bool,
    pub(in super::super) id: Option<Located<IdentityId>>,
    pub(in super::super) sinks: Vec<Located<SinkName>>,
    /// Without its id and its sinks; `None` where its scopes are wrong.
    declared: Option<Declaration>,
}

impl Draft {
    /// The identity, complete; `None` where something was wrong and told of.
    pub(in super::super) fn spec(self, resource: Option<ResourceName>) -> Option<Spec> {
        Some(Spec {
            name: self.name?.value,
            resource: resource?,
            declared: Declaration {
                id: self.id.map(|id| id.value),
                sinks: self.sinks.into_iter().map(|sink| sink.value).collect(),
                ..self.declared?
            },
            origin: Origin::File,
        })
    }
}

/// Reads one `[[identity]]`.
pub(super) fn read(mut section: Section<'_>, defaults: &Renewal) -> Draft {
    let resource = section.optional("resource");
    let name = section.required("name").and_then(Item::name);
    let scopes = section.required("scopes").and_then(scopes);
    let declared = read_declaration(&mut section, defaults);
    let draft = Draft {
        head: section.head(),
        name,
        resource_left_out: resource.is_none(),
        resource: resource.and_then(Item::name),
        id: section.optional("id").and_then(Item::name),
        sinks: section.or("sinks", Vec::new(), sinks),
        declared: scopes.map(|scopes| Declaration { scopes, ..declared }),
    };
    section.finish();
    draft
}

/// Reads what an identity and the rows of a source have in common, without scopes and sinks.
pub(super) fn read_declaration(section: &mut Section<'_>, defaults: &Renewal) -> Declaration {
    let renewal = read_renewal(section, defaults);
    Declaration {
        labels: section.or("labels", BTreeMap::new(), labels),
        readers: section.or("readers", Vec::new(), references::readers),
        on_removal: on_removal(section),
        ..renewal.declaration()
    }
}

fn on_removal(section: &mut Section<'_>) -> OnRemoval {
    section.word(
        "on_removal",
        [OnRemoval::Hold, OnRemoval::Forget, OnRemoval::Revoke],
    )
}

pub(super) fn sinks(item: Item<'_>) -> Option<Vec<Located<SinkName>>> {
    let mut seen = BTreeSet::new();
    let mut sinks = Vec::new();
    for item in item.items()? {
        let Some(sink) = item.name::<SinkName>() else {
            continue;
        };
        if seen.insert(sink.value.clone()) {
            sinks.push(sink);
        } else {
            let name = quoted(sink.value.as_str()).map_or(String::new(), |name| format!(" {name}"));
            item.tell(item.warning(format!("the sink{name} is named twice")));
        }
    }
    Some(sinks)
}

pub(super) fn scopes(item: Item<'_>) -> Option<Vec<Scope>> {
    let mut scopes = BTreeSet::new();
    for item in item.items()? {
        let Some(text) = item.text() else {
            continue;
        };
        match text.parse::<Scope>() {
            Ok(scope) if !scopes.insert(scope) => {
                item.tell(item.warning(format!("the scope {scope} is named twice")));
            }
            Ok(_) => {}
            Err(_) => {
                let known = Scope::ALL.iter().map(|scope| scope.as_str());
                item.wrong::<()>(
                    format!("{} is not a scope", shown(text)),
                    one_of(text, known),
                );
            }
        }
    }
    if matches!(item.value(), Value::Array(items) if items.is_empty()) {
        return item.unlike_sample("an identity needs at least one scope");
    }
    Some(scopes.into_iter().collect())
}

fn labels(item: Item<'_>) -> Option<BTreeMap<String, String>> {
    let Value::Table(fields) = item.value() else {
        return item.mistyped("a table of words");
    };
    let mut labels = BTreeMap::new();
    for (key, field) in fields {
        if !is_label_key(key) {
            item.tell(
                super::Note::error(
                    field.key,
                    format!(
                        "{} is not a valid label",
                        item.reading().vocabulary.of_user(key)
                    ),
                )
                .hint("a letter, then letters, digits, _ or -, at most 63"),
            );
            continue;
        }
        match &field.node.value {
            Value::Text(text) if text.len() <= 256 && !text.contains(char::is_control) => {
                labels.insert(key.clone(), text.clone());
            }
            Value::Text(_) => item.tell(
                super::Note::error(
                    field.node.span,
                    format!(
                        "the label {} is too long or not one line",
                        item.reading().vocabulary.of_user(key)
                    ),
                )
                .hint("at most 256 bytes on one line"),
            ),
            other => item.tell(
                super::Note::error(
                    field.node.span,
                    format!(
                        "the label {} must be a string, not {}",
                        item.reading().vocabulary.of_user(key),
                        other.kind()
                    ),
                )
                .hint("put it in quotes"),
            ),
        }
    }
    Some(labels)
}

pub(super) const LIFETIME: Key = key(
    "lifetime",
    // Source: ACS REST 2023-10-01, `expiresInMinutes`, 60 to 1440.
    Takes::Duration(HOUR, DAY),
    Is("\"24h\""),
    "\"24h\"",
    "The life asked of Azure, in whole minutes.",
);

pub(super) const RENEW_AT: Key = key(
    "renew_at",
    // Renewed earlier than this, a token would hardly be used; from 0.75 on a renewal is urgent.
    Takes::Share(EARLIEST, 0.75),
    Is("0.5"),
    "0.5",
    "Renew after this share of a token's own life. What is left then is the time that an outage of Azure may take without anybody noticing.",
);

pub(super) const SPREAD: Key = key(
    "spread",
    Takes::Share(0.0, 0.5),
    Is("0.02"),
    "0.02",
    "Spread the renewals over this share of the life, early only; where too many would fall into one minute, over more, down to half of renew_at. renew_at less spread must stay at 0.05 or more.",
);

pub(super) static RENEWAL: Table = Table {
    name: "renewal",
    header: "[renewal]",
    says: "Each of these three may also be set in an [[identity]], for that one alone.",
    groups: &[&[LIFETIME, RENEW_AT, SPREAD]],
};

/// Renewed earlier than this, a token would hardly be used.
const EARLIEST: f64 = 0.05;

impl Default for Renewal {
    fn default() -> Self {
        let share = |text: &str| text.parse().ok();
        Self {
            lifetime: RENEWAL.preset("lifetime", duration),
            renew_at: RENEWAL.preset("renew_at", share),
            spread: RENEWAL.preset("spread", share),
        }
    }
}

/// Reads `[renewal]`.
pub(super) fn read_defaults(mut section: Section<'_>) -> Renewal {
    let renewal = read_renewal(&mut section, &Renewal::default());
    section.finish();
    renewal
}

/// Reads the three keys, each with its default.
fn read_renewal(section: &mut Section<'_>, defaults: &Renewal) -> Renewal {
    let (renew_at, spread) = (section.optional("renew_at"), section.optional("spread"));
    let renewal = Renewal {
        lifetime: section.or("lifetime", defaults.lifetime, lifetime),
        renew_at: renew_at.and_then(Item::share).unwrap_or(defaults.renew_at),
        spread: spread.and_then(Item::share).unwrap_or(defaults.spread),
    };
    if let Some(item) = spread.or(renew_at)
        && renewal.renew_at - renewal.spread < EARLIEST - f64::EPSILON
    {
        let message = format!(
            "renew_at {} less spread {} leaves less than {EARLIEST} of a token's life",
            renewal.renew_at, renewal.spread
        );
        item.tell(Note::error(item.span(), message).hint("make spread smaller or renew_at larger"));
    }
    renewal
}

pub(super) fn lifetime(item: Item<'_>) -> Option<Duration> {
    let lifetime = item.duration()?;
    if lifetime.as_secs().is_multiple_of(60) {
        return Some(lifetime);
    }
    item.wrong(
        "`lifetime` must be whole minutes",
        "ACS takes minutes, between 1h and 24h",
    )
}
