//! `[[source.sqlite]]`, `[[source.exec]]`, `[[source.file]]`: identities that others own.

use std::time::Duration;

use super::super::keys::{
    DAY, Key, MINUTE,
    Preset::{Is, Nothing, Required, Said},
    Table, Takes, key,
};
use super::cluster::{self, NODES, Nodes};
use super::identity::{
    LABELS, LIFETIME, NAME, ON_REMOVAL, READERS, RENEW_AT, SCOPES, SINKS, SPREAD, THE_RESOURCE,
};
use super::{
    super::{
        MaxRemoval, Renewal, SourceKind, SourceSettings,
        reader::{Item, Located, Section},
        tree::Span,
    },
    entries, identity, references,
};
use crate::model::{Declaration, Reader, ResourceName, Scope, SinkName, SourceName};

pub(super) static SOURCE: Table = Table {
    name: "source",
    header: "[source]",
    says: "",
    groups: &[&[
        key("sqlite", Takes::Tables(&SOURCE_SQLITE), Nothing, "[{}]", ""),
        key("exec", Takes::Tables(&SOURCE_EXEC), Nothing, "[{}]", ""),
        key("file", Takes::Tables(&SOURCE_FILE), Nothing, "[{}]", ""),
    ]],
};

pub(super) const EVERY: Key = key(
    "every",
    Takes::Duration(1, DAY),
    Is("\"30s\""),
    "\"30s\"",
    "Between two looks; only a change is read again.",
);

pub(super) const MAX_REMOVAL: Key = key(
    "max_removal",
    Takes::Table(&REMOVAL),
    Is("{ share = 0.2, count = 10 }"),
    "{ share = 0.2, count = 10 }",
    "More than both may not go at once without `renewd source apply NAME --yes`: the share of those that were listed, and so many in any case.",
);

pub(super) const OF_ROWS: Key = SCOPES.again(
    Said("none, so every row must say its own."),
    "[\"chat\"]",
    "For rows that say no scopes.",
);

pub(super) const TO_SINKS: Key = SINKS.again(
    Said("as there"),
    "[\"bot-file\"]",
    "As in [[identity]]: resource, lifetime, renew_at, spread, labels, readers, sinks, on_removal. A row's own lifetime, labels and readers win.",
);

pub(super) const MAX_SCOPES: Key = key(
    "max_scopes",
    Takes::Texts,
    Said("anything"),
    "[\"chat\"]",
    "Who writes the list can mint: it says whose tokens are made, what they may do and who may read them. The scopes that a row may ask for; one that asks for more is refused.",
)
        .quoted();

pub(super) const MAX_READERS: Key = key(
    "max_readers",
    Takes::Accounts,
    Said("anybody"),
    "[\"bot\"]",
    "The readers that a row may ask for.",
);

pub(super) const MAX_LIFETIME: Key = key(
    "max_lifetime",
    LIFETIME.takes,
    Said("any"),
    "\"24h\"",
    "The longest lifetime that a row may ask for.",
);

pub(super) const ADOPT_IDS: Key = key(
    "adopt_ids",
    Takes::Boolean,
    Is("false"),
    "true",
    "Whether a row may bring an id along that renewd does not hold yet.",
);

pub(super) const HOME: Key = NODES.again(
    Said("the one that leads"),
    "[\"web-1\"]",
    "In a cluster, on which of its machines it is read: names, or patterns such as \"web-*\".",
);

pub(super) static SOURCE_SQLITE: Table = Table {
    name: "source.sqlite",
    header: "[[source.sqlite]]",
    says: "An application's own SQLite database, read only. The columns of the query: name, and as wanted id, scopes (\"chat voip\" or JSON), lifetime (\"24h\"), labels (JSON) or label_KEY, readers.",
    groups: &[&[
        NAME.again(Required, "\"app-users\"", ""),
        key(
            "path",
            Takes::Path,
            Required,
            "\"/var/lib/app/app.db\"",
            "The database.",
        ),
        key(
            "query",
            Takes::Text,
            Required,
            "\"SELECT user_name AS name, acs_id AS id, 'chat' AS scopes FROM users WHERE active\"",
            "One SELECT.",
        ),
        EVERY,
        THE_RESOURCE.elsewhere(),
        OF_ROWS,
        LIFETIME.elsewhere(),
        RENEW_AT.elsewhere(),
        SPREAD.elsewhere(),
        LABELS.elsewhere(),
        READERS.elsewhere(),
        TO_SINKS,
        ON_REMOVAL.elsewhere(),
        MAX_REMOVAL,
        MAX_SCOPES,
        MAX_READERS,
        MAX_LIFETIME,
        ADOPT_IDS,
        HOME.commented(),
    ]],
};

/// What the other kinds know besides their own, explained at [[source.sqlite]].
const LISTED: &[Key] = &[
    EVERY.elsewhere(),
    THE_RESOURCE.elsewhere(),
    OF_ROWS.again(Nothing, "[\"chat\"]", ""),
    LIFETIME.elsewhere(),
    RENEW_AT.elsewhere(),
    SPREAD.elsewhere(),
    LABELS.elsewhere(),
    READERS.elsewhere(),
    SINKS.elsewhere(),
    ON_REMOVAL.elsewhere(),
    MAX_REMOVAL.elsewhere(),
    MAX_SCOPES.again(Nothing, "[\"chat\"]", ""),
    MAX_READERS.again(Nothing, "[]", ""),
    MAX_LIFETIME.again(Nothing, "\"24h\"", ""),
    ADOPT_IDS.elsewhere(),
    HOME.elsewhere(),
];

pub(super) static SOURCE_EXEC: Table = Table {
    name: "source.exec",
    header: "[[source.exec]]",
    says: "A program that prints JSON lines, such as {\"name\":\"anna\",\"scopes\":[\"chat\"]}. No shell runs it. The other keys are those of [[source.sqlite]].",
    groups: &[
        &[
            NAME.again(Required, "\"directory\"", ""),
            key(
                "command",
                Takes::Texts,
                Required,
                "[\"/usr/local/bin/list-users\", \"--active\"]",
                "The absolute path of the program, then its arguments.",
            ),
            key(
                "timeout",
                Takes::Duration(1, 10 * MINUTE),
                Is("\"1m\""),
                "\"1m\"",
                "It is ended, with all it started, after so long.",
            ),
        ],
        LISTED,
    ],
};

pub(super) static SOURCE_FILE: Table = Table {
    name: "source.file",
    header: "[[source.file]]",
    says: "A file of JSON lines, which another program replaces (write beside it, then rename). The other keys are those of [[source.sqlite]].",
    groups: &[
        &[
            NAME.again(Required, "\"partners\"", ""),
            key(
                "path",
                Takes::Path,
                Required,
                "\"/var/lib/app/partners.jsonl\"",
                "The file.",
            ),
        ],
        LISTED,
    ],
};

pub(super) static REMOVAL: Table = Table {
    name: "source.max_removal",
    header: "`max_removal`",
    says: "",
    groups: &[&[
        key("share", Takes::Share(0.0, 1.0), Is("0.2"), "0.2", ""),
        key(
            "count",
            Takes::Integer(0, 1_000_000_000),
            Is("10"),
            "10",
            "",
        ),
    ]],
};

/// A source before its resource and its sinks are looked up.
#[derive(Debug)]
pub(in super::super) struct Draft {
    pub(in super::super) head: Span,
    pub(in super::super) header: &'static str,
    pub(in super::super) name: Option<Located<SourceName>>,
    pub(in super::super) resource: Option<Located<ResourceName>>,
    pub(in super::super) resource_left_out: bool,
    pub(in super::super) sinks: Vec<Located<SinkName>>,
    pub(in super::super) nodes: Nodes,
    kind: Option<SourceKind>,
    every: Duration,
    rows: Declaration,
    max_removal: MaxRemoval,
    max_scopes: Option<Vec<Scope>>,
    max_readers: Option<Vec<Reader>>,
    max_lifetime: Option<Duration>,
    adopt_ids: Option<bool>,
}

impl Draft {
    /// The source, complete; `None` where something was wrong and told of.
    pub(in super::super) fn settings(
        self,
        resource: Option<ResourceName>,
    ) -> Option<SourceSettings> {
        Some(SourceSettings {
            name: self.name?.value,
            kind: self.kind?,
            every: self.every,
            resource: resource?,
            rows: Declaration {
                sinks: self.sinks.into_iter().map(|sink| sink.value).collect(),
                ..self.rows
            },
            max_removal: self.max_removal,
            max_scopes: self.max_scopes,
            max_readers: self.max_readers,
            max_lifetime: self.max_lifetime,
            adopt_ids: self.adopt_ids,
            nodes: self.nodes.map(|nodes| nodes.value).unwrap_or_default(),
        })
    }
}

/// Reads every source, those of a kind together.
pub(super) fn read_all(mut sources: Section<'_>, defaults: &Renewal) -> Vec<Draft> {
    let mut drafts = entries(&mut sources, "sqlite", |section| {
        read(section, defaults, sqlite)
    });
    drafts.extend(entries(&mut sources, "exec", |section| {
        read(section, defaults, exec)
    }));
    drafts.extend(entries(&mut sources, "file", |section| {
        read(section, defaults, file)
    }));
    sources.finish();
    drafts
}

fn read(
    mut section: Section<'_>,
    defaults: &Renewal,
    kind: impl FnOnce(&mut Section<'_>) -> Option<SourceKind>,
) -> Draft {
    let resource = section.optional("resource");
    let draft = Draft {
        head: section.head(),
        header: section.header(),
        name: section.required("name").and_then(Item::name),
        kind: kind(&mut section),
        every: section.duration("every"),
        resource_left_out: resource.is_none(),
        resource: resource.and_then(Item::name),
        rows: Declaration {
            scopes: section.or("scopes", Vec::new(), identity::scopes),
            ..identity::read_declaration(&mut section, defaults)
        },
        sinks: section.or("sinks", Vec::new(), identity::sinks),
        max_removal: max_removal(section.inner("max_removal")),
        max_scopes: section.optional("max_scopes").and_then(identity::scopes),
        max_readers: section
            .optional("max_readers")
            .and_then(references::readers),
        max_lifetime: section
            .optional("max_lifetime")
            .and_then(identity::lifetime),
        adopt_ids: section.optional("adopt_ids").and_then(Item::boolean),
        nodes: section.optional("nodes").and_then(cluster::nodes),
    };
    section.finish();
    draft
}

fn sqlite(section: &mut Section<'_>) -> Option<SourceKind> {
    let path = section.required("path").and_then(Item::path);
    let query = section.required("query").and_then(query);
    Some(SourceKind::Sqlite {
        path: path?,
        query: query?,
    })
}

/// The query is tried when the source is read; here only what can be no query at all.
fn query(item: Item<'_>) -> Option<String> {
    let text = item.text()?.trim();
    let first = text
        .split(|c: char| !c.is_ascii_alphabetic())
        .next()
        .unwrap_or_default();
    if ["select", "with", "values"].contains(&first.to_ascii_lowercase().as_str()) {
        return Some(text.trim_end_matches(';').to_owned());
    }
    item.wrong(
        "`query` must be one SELECT",
        "its columns are name, and as wanted id, scopes, lifetime, labels (JSON) or label_KEY, readers",
    )
}

fn exec(section: &mut Section<'_>) -> Option<SourceKind> {
    let command = section.required("command").and_then(command);
    let timeout = section.duration("timeout");
    Some(SourceKind::Exec {
        command: command?,
        timeout,
    })
}

fn command(item: Item<'_>) -> Option<Vec<String>> {
    let words: Vec<String> = item
        .items()?
        .filter_map(Item::text)
        .map(str::to_owned)
        .collect();
    match words.first() {
        Some(program)
            if program.starts_with('/') && !words.iter().any(|word| word.contains('\0')) =>
        {
            Some(words)
        }
        _ => item.wrong(
            "`command` must begin with the absolute path of a program",
            format!(
                "{}; no shell runs it, each argument is an entry of its own",
                item.sample()
            ),
        ),
    }
}

fn file(section: &mut Section<'_>) -> Option<SourceKind> {
    let path = section.required("path").and_then(Item::path)?;
    Some(SourceKind::File { path })
}

fn max_removal(mut section: Section<'_>) -> MaxRemoval {
    let removal = MaxRemoval {
        share: section.share("share"),
        count: section.integer("count"),
    };
    section.finish();
    removal
}
