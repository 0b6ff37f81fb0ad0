//! `[[source.sqlite]]`, `[[source.exec]]`, `[[source.file]]`: identities that others own.

use std::{collections::BTreeMap, time::Duration};

use super::{
    super::{
        MaxRemoval, Renewal, SourceKind, SourceSettings,
        reader::{Item, Located, Section},
        tree::Span,
        vocabulary::MAX_REMOVAL,
    },
    entries_of, identity, references, renewal,
};
use crate::model::{OnRemoval, Reader, ResourceName, Scope, SinkName, SourceName};

/// Looked at no more often than this, and no more seldom than that.
const EVERY: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(24);
const USUAL: Duration = Duration::from_secs(30);
/// What is removed at once without a person's word.
const USUAL_REMOVAL: MaxRemoval = MaxRemoval {
    share: 0.2,
    count: 10,
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
    kind: Option<SourceKind>,
    every: Duration,
    scopes: Vec<Scope>,
    renewal: Renewal,
    labels: BTreeMap<String, String>,
    readers: Vec<Reader>,
    on_removal: OnRemoval,
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
            scopes: self.scopes,
            renewal: self.renewal,
            labels: self.labels,
            readers: self.readers,
            sinks: self.sinks.into_iter().map(|sink| sink.value).collect(),
            on_removal: self.on_removal,
            max_removal: self.max_removal,
            max_scopes: self.max_scopes,
            max_readers: self.max_readers,
            max_lifetime: self.max_lifetime,
            adopt_ids: self.adopt_ids,
        })
    }
}

/// Reads every source, those of a kind together.
pub(super) fn read_all(item: Option<Item<'_>>, defaults: &Renewal) -> Vec<Draft> {
    let Some(mut sources) = item.and_then(|item| item.section("source", "{}")) else {
        return Vec::new();
    };
    let mut drafts = entries_of(sources.optional("sqlite"), "source.sqlite", |section| {
        read(section, "[[source.sqlite]]", defaults, sqlite)
    });
    drafts.extend(entries_of(
        sources.optional("exec"),
        "source.exec",
        |section| read(section, "[[source.exec]]", defaults, exec),
    ));
    drafts.extend(entries_of(
        sources.optional("file"),
        "source.file",
        |section| read(section, "[[source.file]]", defaults, file),
    ));
    sources.finish();
    drafts
}

fn read(
    mut section: Section<'_>,
    header: &'static str,
    defaults: &Renewal,
    kind: impl FnOnce(&mut Section<'_>) -> Option<SourceKind>,
) -> Draft {
    let resource = section.optional("resource");
    let draft = Draft {
        head: section.head(),
        header,
        name: section
            .required("name")
            .and_then(|item| item.name("app-users")),
        kind: kind(&mut section),
        every: section.or("every", USUAL, |item| item.duration(EVERY)),
        resource_left_out: resource.is_none(),
        resource: resource.and_then(|item| item.name("contoso")),
        scopes: section.or("scopes", Vec::new(), identity::scopes),
        renewal: renewal::read(&mut section, defaults),
        labels: section.or("labels", BTreeMap::new(), identity::labels),
        readers: section.or("readers", Vec::new(), references::readers),
        sinks: section.or("sinks", Vec::new(), identity::sinks),
        on_removal: section.or("on_removal", OnRemoval::Hold, identity::on_removal),
        max_removal: section.or("max_removal", USUAL_REMOVAL, max_removal),
        max_scopes: section.optional("max_scopes").and_then(identity::scopes),
        max_readers: section
            .optional("max_readers")
            .and_then(references::readers),
        max_lifetime: section.optional("max_lifetime").and_then(renewal::lifetime),
        adopt_ids: section
            .optional("adopt_ids")
            .and_then(|item| item.boolean()),
    };
    section.finish();
    draft
}

fn sqlite(section: &mut Section<'_>) -> Option<SourceKind> {
    let path = section
        .required("path")
        .and_then(|item| item.path("/var/lib/app/app.db"));
    let query = section.required("query").and_then(query);
    Some(SourceKind::Sqlite {
        path: path?,
        query: query?,
    })
}

/// The query is tried when the source is read; here only what can be no query at all.
fn query(item: Item<'_>) -> Option<String> {
    let text = item
        .text("SELECT user_name AS name, acs_id AS id FROM users")?
        .trim();
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
    let timeout = section.or("timeout", Duration::from_secs(60), |item| {
        item.duration(Duration::from_secs(1)..=Duration::from_mins(10))
    });
    Some(SourceKind::Exec {
        command: command?,
        timeout,
    })
}

fn command(item: Item<'_>) -> Option<Vec<String>> {
    let example = "[\"/usr/local/bin/list-users\"]";
    let words: Vec<String> = item
        .items(example)?
        .filter_map(|item| item.text("/usr/local/bin/list-users"))
        .map(str::to_owned)
        .collect();
    match words.first() {
        Some(program) if program.starts_with('/') && !words.iter().any(|word| word.contains('\0')) => Some(words),
        _ => item.wrong(
            "`command` must begin with the absolute path of a program",
            format!("such as command = {example}; no shell runs it, each argument is an entry of its own"),
        ),
    }
}

fn file(section: &mut Section<'_>) -> Option<SourceKind> {
    let path = section
        .required("path")
        .and_then(|item| item.path("/var/lib/app/users.jsonl"))?;
    Some(SourceKind::File { path })
}

fn max_removal(item: Item<'_>) -> Option<MaxRemoval> {
    let mut section = item.section(MAX_REMOVAL, "{ share = 0.2, count = 10 }")?;
    let share = section.or("share", USUAL_REMOVAL.share, share);
    let count = section.or("count", 10, |item| item.integer(0..=1_000_000_000));
    section.finish();
    Some(MaxRemoval {
        share,
        count: count.unsigned_abs(),
    })
}

fn share(item: Item<'_>) -> Option<f64> {
    use super::super::tree::Value;
    let share = match item.value() {
        Value::Float(number) => *number,
        Value::Integer(Some(number @ 0..=1), _) => f64::from(u8::from(*number == 1)),
        _ => return item.mistyped("a number from 0 to 1", "0.2"),
    };
    if (0.0..=1.0).contains(&share) {
        return Some(share);
    }
    item.wrong(
        "`share` is out of range",
        "it is a share of the identities and must be between 0 and 1",
    )
}
