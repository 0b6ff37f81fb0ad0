//! `[[sink.file]]`: token files.

use super::super::keys::{
    Preset::{Is, Nothing, Required, Said},
    Table, Takes, key,
};
use super::cluster::{self, NODES, Nodes};
use super::identity::{NAME, READERS};
use super::{
    super::{
        FileFormat, FileSinkSettings, Template, WriteMode,
        quantity::{quoted, shown},
        reader::{Item, Located, Section, one_of},
        tree::Value,
    },
    references::{self, RATE},
};
use crate::model::{Reader, SinkName};

pub(super) static SINK_FILE: Table = Table {
    name: "sink.file",
    header: "[[sink.file]]",
    says: "Token files.",
    groups: &[&[
        NAME.again(Required, "\"bot-file\"", ""),
        key(
            "path",
            Takes::Text,
            Required,
            "\"/run/renewd/tokens/{name}.json\"",
            "Absolute, without \"..\". {name} and {resource} stand for the identity's; {name} must be in it where more than one identity uses the sink, unless it is a bundle.",
        )
        .quoted(),
        key(
            "format",
            Takes::Word(&[
                ("json", "the token document"),
                ("token", "the bare token"),
                ("env", "KEY='value' lines"),
                ("template", "your own"),
            ]),
            Said("\"json\", or \"template\" where there is one"),
            "\"json\"",
            "What the file holds.",
        ),
        key(
            "template",
            Takes::Table(&TEMPLATE),
            Nothing,
            "{ file = \"/etc/renewd/bot.conf.j2\" }",
            "For format = \"template\": the file, or the text itself, such as template = \"{{ token }}\". Minijinja (Jinja2) with name, resource, id, state, token, scopes, issued_at, expires_at, renews_at, version, and the filters json, shell and unix; docs/files.md has more.",
        )
        .commented()
        .or("string"),
        key(
            "mode",
            Takes::Text,
            Is("\"0600\""),
            "\"0600\"",
            "Permission bits in octal, as \"0600\" or 0o600; readers are let in by ACL on top.",
        )
        .quoted()
        .or("integer"),
        RATE.again(
            Said("no limit"),
            "\"500/s\"",
            "The most files written in any such time.",
        )
        .commented(),
        key(
            "owner",
            Takes::Text,
            Said("the daemon's user"),
            "\"bot\"",
            "To whom the file is given. Needs CAP_CHOWN, which the shipped unit does not have: `renewd check` names the drop-in. `readers` need nothing.",
        )
        .quoted()
        .commented(),
        key(
            "group",
            Takes::Text,
            Said("the daemon's group"),
            "\"bot\"",
            "As `owner`, for its group.",
        )
        .quoted()
        .commented(),
        key(
            "bundle",
            Takes::Boolean,
            Is("false"),
            "false",
            "One file with all identities of this sink: {\"identities\":{NAME:DOCUMENT,…}}, or a template that goes through `identities`.",
        ),
        READERS.again(
            Said("only those who may read each identity in it"),
            "[\"group:voip\"]",
            "Who may read a bundle.",
        )
        .commented(),
        key(
            "write",
            Takes::Word(&[
                ("replace", "rename a complete file over the old one"),
                ("in-place", "overwrite it; only for a single file that is mounted elsewhere"),
            ]),
            Is("\"replace\""),
            "\"replace\"",
            "How a file is changed.",
        ),
        NODES.commented(),
    ]],
};

pub(super) static TEMPLATE: Table = Table {
    name: "sink.file.template",
    header: "`template`",
    says: "",
    groups: &[&[key(
        "file",
        Takes::Path,
        Required,
        "\"/etc/renewd/bot.conf.j2\"",
        "",
    )]],
};

/// A file sink before the identities that use it are known.
#[derive(Debug)]
pub(in super::super) struct Draft {
    pub(in super::super) name: Option<Located<SinkName>>,
    pub(in super::super) path: Option<Located<String>>,
    pub(in super::super) bundle: bool,
    pub(in super::super) nodes: Nodes,
    settings: Option<FileSinkSettings>,
}

impl Draft {
    pub(in super::super) fn settings(self) -> Option<FileSinkSettings> {
        self.settings
    }
}

/// Reads one `[[sink.file]]`.
pub(super) fn read(mut section: Section<'_>) -> Draft {
    let name: Option<Located<SinkName>> = section.required("name").and_then(Item::name);
    let path = section.required("path").and_then(path);
    let keys = FileSinkKeys {
        format: section.optional("format"),
        template: section.optional("template"),
        owner: section.optional("owner"),
        bundle: section.optional("bundle"),
        readers: section.optional("readers"),
        write: section.optional("write"),
        path: section.optional("path"),
    };
    let (format, template) = content(&keys);
    let bundle = keys.bundle.and_then(Item::boolean).unwrap_or(false);
    if bundle {
        check_bundle(&keys, format);
    }
    let readers = keys.readers.and_then(|item| readers(item, bundle));
    let mode = section.or("mode", 0o600, mode);
    let write = section.word("write", [WriteMode::Replace, WriteMode::InPlace]);
    if write == WriteMode::InPlace {
        check_in_place(&keys, mode);
    }
    let owner = keys.owner.and_then(account);
    let group = section.optional("group").and_then(account);
    let rate = section.optional("rate").and_then(Item::limit);
    let nodes = section.optional("nodes").and_then(cluster::nodes);
    section.finish();
    let settings = name.as_ref().zip(path.as_ref()).map(|(name, path)| {
        let plain = FileSinkSettings::new(name.value.clone(), path.value.clone());
        FileSinkSettings {
            format,
            template,
            mode,
            owner,
            group,
            bundle,
            readers,
            write,
            rate,
            nodes: nodes
                .as_ref()
                .map(|nodes| nodes.value.clone())
                .unwrap_or_default(),
            ..plain
        }
    });
    Draft {
        name,
        path,
        bundle,
        nodes,
        settings,
    }
}

/// The keys that are held against each other.
struct FileSinkKeys<'a> {
    format: Option<Item<'a>>,
    template: Option<Item<'a>>,
    owner: Option<Item<'a>>,
    bundle: Option<Item<'a>>,
    readers: Option<Item<'a>>,
    write: Option<Item<'a>>,
    path: Option<Item<'a>>,
}

/// A template needs no `format` beside it, and no other format may stand there.
fn content(keys: &FileSinkKeys<'_>) -> (FileFormat, Option<Template>) {
    let read = keys.format.and_then(format);
    if let (Some(item), None) = (keys.template, keys.format) {
        return (FileFormat::Template, template(item));
    }
    match (read, keys.template, keys.format) {
        (Some(FileFormat::Template), Some(item), _) => (FileFormat::Template, template(item)),
        (Some(FileFormat::Template), None, Some(format)) => {
            let hint = "add template = { file = \"/etc/renewd/NAME.j2\" }";
            format.wrong::<()>("this format needs a `template`", hint);
            (FileFormat::Template, None)
        }
        (Some(other), Some(item), _) => {
            item.wrong::<()>(
                "a template is only for `format = \"template\"`",
                "take one of the two out",
            );
            (other, None)
        }
        (read, _, _) => (read.unwrap_or(FileFormat::Json), None),
    }
}

/// `{ file = "…" }`, or the text itself.
fn template(item: Item<'_>) -> Option<Template> {
    if let Value::Text(text) = item.value() {
        return Some(Template {
            text: text.clone(),
            file: None,
        });
    }
    references::template(
        item,
        "it holds what is to be written, with {{ token }} and the like in it",
    )
}

/// One file for all: its path has no place for one of them, and its format can hold many.
fn check_bundle(keys: &FileSinkKeys<'_>, format: FileFormat) {
    if matches!(format, FileFormat::Token | FileFormat::Env)
        && let Some(item) = keys.format
    {
        item.wrong::<()>(
            "this format holds one identity, and a bundle holds many",
            "write format = \"json\", or a template that goes through `identities`",
        );
    }
    if let Some(path) = keys.path
        && let Value::Text(text) = path.value()
        && PLACEHOLDERS.iter().any(|word| text.contains(word))
    {
        path.wrong::<()>(
            "a bundle is one file, so its path has no placeholders",
            "such as path = \"/run/renewd/tokens/all.json\"",
        );
    }
}

fn readers(item: Item<'_>, bundle: bool) -> Option<Vec<Reader>> {
    if bundle {
        return references::readers(item);
    }
    item.wrong(
        "`readers` of a sink are those of a bundle",
        "give each [[identity]] its `readers`, or say bundle = true",
    )
}

/// What a file that keeps its inode cannot have; and what its readers may see.
fn check_in_place(keys: &FileSinkKeys<'_>, mode: u32) {
    let Some(item) = keys.write else { return };
    item.tell(
        item.warning("a file that is written in place can be read half old, half new")
            .hint("only for a single file that is mounted elsewhere; mount its folder instead, where that can be"),
    );
    if let Some(owner) = keys.owner {
        owner.wrong::<()>(
            "a file that is given away cannot be written in place",
            "take out `owner`, or `write`",
        );
    }
    if mode & 0o200 == 0 {
        item.wrong::<()>(
            format!("with mode {mode:04o} the file cannot be written in place"),
            "the owner needs the right to write, such as mode = \"0600\"",
        );
    }
}

/// The name or the number of a user or a group.
fn account(item: Item<'_>) -> Option<String> {
    let text = item.text()?;
    let odd = |c: char| c.is_whitespace() || c.is_control() || ":/,".contains(c);
    if !text.is_empty() && text.len() <= 256 && !text.contains(odd) && !text.starts_with('-') {
        return Some(text.to_owned());
    }
    item.unlike_sample(format!(
        "{} is not the name of a user or a group",
        shown(text)
    ))
}

fn path(item: Item<'_>) -> Option<Located<String>> {
    let text = item.text()?;
    if !text.starts_with('/') {
        return item.unlike_sample("the path of a file sink must be absolute");
    }
    if text.split('/').any(|part| part == "..") {
        return item.wrong(
            "the path of a file sink must not contain `..`",
            "write the path without it",
        );
    }
    if text.ends_with('/') || text.contains(char::is_control) {
        return item.unlike_sample("this path names no file");
    }
    if let Some(wrong) = unknown_placeholder(text) {
        return item.wrong(
            match quoted(wrong) {
                Some(wrong) => format!("the path has no placeholder {wrong}"),
                None => "the path has a placeholder that is not known".to_owned(),
            },
            one_of(wrong, PLACEHOLDERS.into_iter()),
        );
    }
    Some(item.at(text.to_owned()))
}

const PLACEHOLDERS: [&str; 2] = ["{name}", "{resource}"];

/// The first part in braces that is no placeholder, or a brace that has no partner.
fn unknown_placeholder(path: &str) -> Option<&str> {
    let mut rest = path;
    while let Some(at) = rest.find(['{', '}']) {
        let from = &rest[at..];
        let known = PLACEHOLDERS
            .into_iter()
            .find(|known| from.starts_with(known));
        let Some(known) = known else {
            return Some(&from[..from.find('}').map_or(from.len(), |end| end + 1)]);
        };
        rest = &from[known.len()..];
    }
    None
}

fn format(item: Item<'_>) -> Option<FileFormat> {
    item.word(&[
        FileFormat::Json,
        FileFormat::Token,
        FileFormat::Env,
        FileFormat::Template,
    ])
}

fn mode(item: Item<'_>) -> Option<u32> {
    let hint = "write \"0600\" or 0o600";
    let mode = match item.value() {
        Value::Text(text) => Some(text.as_str())
            .filter(|text| {
                (3..=4).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())
            })
            .and_then(|text| u32::from_str_radix(text, 8).ok()),
        Value::Integer(Some(number), 8) => u32::try_from(*number).ok(),
        Value::Integer(..) => {
            return item.wrong(
                "`mode` is an octal number, this one is not written as one",
                hint,
            );
        }
        _ => return item.mistyped("an octal number"),
    };
    let Some(mode) = mode.filter(|mode| *mode <= 0o777 && mode & 0o400 != 0) else {
        return item.wrong(
            "`mode` must be permission bits that let the owner read",
            hint,
        );
    };
    if mode & 0o007 != 0 {
        item.tell(
            item.warning(format!(
                "with mode {mode:04o} every user of this machine gets at the tokens"
            ))
            .hint("mode 0600 and `readers` let exactly those read who should"),
        );
    }
    Some(mode)
}
