//! `[[sink.exec]]`: programs that are run with each new version.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use super::super::keys::{
    MINUTE,
    Preset::{Is, Required, Said},
    Table, Takes, key,
};
use super::cluster::{self, NODES, Nodes};
use super::identity::NAME;
use super::{
    super::{
        ExecSinkSettings, Limit,
        reader::{Item, Located, Section},
        secret::looks_secret,
        tree::{Span, Value},
    },
    Note,
    references::RATE,
};
use crate::model::SinkName;

pub(super) static SINK_EXEC: Table = Table {
    name: "sink.exec",
    header: "[[sink.exec]]",
    says: "A program that is run with each new version: the token document on standard input, no shell. The version is delivered when it ends with status 0; else it is run again, at growing intervals.",
    groups: &[&[
        NAME.again(Required, "\"reload\"", ""),
        key(
            "command",
            Takes::Texts,
            Required,
            "[\"/usr/local/bin/on-token\"]",
            "The program by its absolute path, then its arguments. Under the shipped unit it needs a drop-in, which `renewd check` prints.",
        ),
        key(
            "timeout",
            Takes::Duration(1, 10 * MINUTE),
            Is("\"30s\""),
            "\"30s\"",
            "One run altogether; then the program and what it started are ended.",
        ),
        key(
            "environment",
            Takes::Free,
            Is("{}"),
            "{ APP_HOME = \"/opt/app\" }",
            "Additions to its environment: PATH, LANG, RENEWD_NAME, RENEWD_RESOURCE, RENEWD_STATE, RENEWD_EVENT, RENEWD_VERSION, RENEWD_EXPIRES_AT and RENEWD_SINK. Nothing else is passed on.",
        ),
        key(
            "max_in_flight",
            Takes::Integer(1, 16),
            Is("4"),
            "4",
            "Runs at once, each for another identity.",
        ),
        RATE.again(
            Said("no limit"),
            "\"10/s\"",
            "The most runs in any such time.",
        )
        .commented(),
        key(
            "after",
            Takes::Names,
            Is("[]"),
            "[\"bot-file\"]",
            "Run it for a version once these sinks have delivered that version.",
        ),
        NODES.commented(),
    ]],
};

/// An exec sink before its name and those it waits for are held against the others.
#[derive(Debug)]
pub(in super::super) struct Draft {
    pub(in super::super) name: Option<Located<SinkName>>,
    pub(in super::super) after: Vec<Located<SinkName>>,
    pub(in super::super) nodes: Nodes,
    command: Option<Vec<String>>,
    timeout: Duration,
    environment: BTreeMap<String, String>,
    max_in_flight: usize,
    rate: Option<Limit>,
}

impl Draft {
    pub(in super::super) fn settings(self) -> Option<ExecSinkSettings> {
        Some(ExecSinkSettings {
            name: self.name?.value,
            command: self.command?,
            timeout: self.timeout,
            environment: self.environment,
            max_in_flight: self.max_in_flight,
            rate: self.rate,
            after: self.after.into_iter().map(|sink| sink.value).collect(),
            nodes: self.nodes.map(|nodes| nodes.value).unwrap_or_default(),
        })
    }
}

/// Reads one `[[sink.exec]]`.
pub(super) fn read(mut section: Section<'_>) -> Draft {
    let draft = Draft {
        name: section.required("name").and_then(Item::name),
        command: section.required("command").and_then(command),
        timeout: section.duration("timeout"),
        environment: section.or("environment", BTreeMap::new(), environment),
        max_in_flight: section.integer("max_in_flight"),
        after: section.or("after", Vec::new(), after),
        rate: section.optional("rate").and_then(Item::limit),
        nodes: section.optional("nodes").and_then(cluster::nodes),
    };
    section.finish();
    draft
}

fn command(item: Item<'_>) -> Option<Vec<String>> {
    if let Value::Text(_) = item.value() {
        return item.wrong(
            "`command` must be a list: the program, then each of its arguments",
            format!("there is no shell to split it; {}", item.sample()),
        );
    }
    let items: Vec<Item<'_>> = item.items()?.collect();
    let Some(program) = items.first() else {
        return item.unlike_sample("`command` names no program");
    };
    let mut words = vec![absolute(*program)];
    words.extend(items[1..].iter().map(|item| word(*item)));
    words.into_iter().collect()
}

/// The program: its place is written out, so that no search path decides which one is run.
fn absolute(item: Item<'_>) -> Option<String> {
    let text = word(item)?;
    let path = PathBuf::from(&text);
    if path.is_absolute() && path.file_name().is_some() && !text.ends_with('/') {
        return Some(text);
    }
    item.wrong(
        "the program must be an absolute path",
        "write where it lies; `command -v NAME` tells",
    )
}

fn word(item: Item<'_>) -> Option<String> {
    let text = item.text()?;
    if text.contains('\0') {
        return item.wrong("an argument cannot hold a NUL byte", "take it out");
    }
    if looks_secret(text) {
        return item.wrong(
            "this argument looks like a secret, and every user of the machine can read arguments",
            "let the program read its secrets from a file",
        );
    }
    Some(text.to_owned())
}

/// Additions to the environment. Ours are known and kept apart, secrets have no place there.
fn environment(item: Item<'_>) -> Option<BTreeMap<String, String>> {
    let Value::Table(fields) = item.value() else {
        return item.mistyped("a table of strings");
    };
    let tell = |span: Span, message: String, hint: &str| {
        item.tell(Note::error(span, message).hint(hint));
    };
    let mut environment = BTreeMap::new();
    for (key, field) in fields {
        let named = item.reading().vocabulary.of_user(key);
        if !is_variable(key) {
            let message = format!("{named} is not a name for a variable");
            tell(
                field.key,
                message,
                "a letter or _, then letters, digits or _",
            );
        } else if key.starts_with("RENEWD_") {
            let message = format!("{named} is renewd's own to set");
            tell(
                field.key,
                message,
                "choose a name that does not begin with RENEWD_",
            );
        } else {
            match &field.node.value {
                Value::Text(text) if looks_secret(text) => tell(
                    field.node.span,
                    format!("the value of {named} looks like a secret"),
                    "let the program read its secrets from a file",
                ),
                Value::Text(text) if !text.contains('\0') && text.len() <= 4096 => {
                    environment.insert(key.clone(), text.clone());
                }
                Value::Text(_) => tell(
                    field.node.span,
                    format!("the value of {named} cannot be passed on"),
                    "at most 4096 bytes, none of them NUL",
                ),
                other => tell(
                    field.node.span,
                    format!(
                        "the value of {named} must be a string, not {}",
                        other.kind()
                    ),
                    "put it in quotes",
                ),
            }
        }
    }
    Some(environment)
}

fn is_variable(key: &str) -> bool {
    let mut bytes = key.bytes();
    bytes
        .next()
        .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && key.len() <= 128
}

fn after(item: Item<'_>) -> Option<Vec<Located<SinkName>>> {
    let items = item.items()?;
    Some(items.filter_map(Item::name).collect())
}
