//! What is written from the rows that the reader takes its keys, bounds and defaults from: `config/renewd.toml` and
//! renewd.toml(5), with every key and what it means, and `config/renewd.schema.json`, the JSON Schema (draft 7) for
//! editors and other programs. Rules across keys are `renewd check`'s.

use std::{fmt::Write, time::Duration};

use serde_json::{Map, Value, json};

use super::{
    keys::{Key, Preset, Shown, Table, Takes},
    quantity::duration_text,
    sections::ROOT,
};

/// No comment is wider.
const WIDTH: usize = 100;

const PREFACE: &str = "\
#:schema ./renewd.schema.json
# renewd: every key, with its unit and its default.
#
# Read from /etc/renewd/renewd.toml (an ordinary user: $XDG_CONFIG_HOME/renewd/renewd.toml), then
# from conf.d/*.toml beside it in the order of their names. Files add to each other: [[…]] lists
# follow one another, and a key that is set in two files is an error.
#
#   renewd check                 says what is wrong, all at once, with line and column
#   systemctl reload renewd      takes a change over, all or nothing
#
# Only one [[resource]] is needed; every other section may be left out. Relative paths start at the
# directory of the file that names them. Durations are whole numbers with a unit: s, m, h or d, as
# in \"90s\", \"1h30m\", \"30d\".
#
# Secrets never stand in this file. A secret is one of
#   { file = \"/etc/renewd/contoso.cs\" }    a file, mode 0600; one line end after it is ignored
#   { credential = \"contoso\" }             LoadCredential= or LoadCredentialEncrypted= of the unit
#   { env = \"CONTOSO\" }                    an environment variable
";

pub fn reference() -> String {
    let mut out = PREFACE.to_owned();
    for section in ROOT.keys() {
        let title = format!("# ---- {} ", section.says);
        let _infallible = write!(out, "\n\n{title:-<WIDTH$}\n");
        if let Takes::Table(table) | Takes::Tables(table) = section.takes {
            write_table(&mut out, table, section.shown);
        }
    }
    out
}

fn write_table(out: &mut String, table: &Table, header: Shown) {
    if table.is_of_sections() {
        for key in table.keys() {
            if let Takes::Tables(inner) = key.takes {
                write_table(out, inner, header);
            }
        }
        return;
    }
    out.push('\n');
    write_comment(out, table.says, "");
    let off = |shown| match header == Shown::Comment || shown == Shown::Comment {
        true => "# ",
        false => "",
    };
    let _infallible = writeln!(out, "{}{}", off(header), table.header);
    for (at, key) in table
        .keys()
        .filter(|key| key.shown != Shown::Elsewhere)
        .enumerate()
    {
        let (does, default) = meaning(key);
        if at > 0 && !default.is_empty() {
            out.push('\n');
        }
        write_comment(out, &does, &default);
        let _infallible = writeln!(out, "{}{} = {}", off(key.shown), key.name, key.sample);
    }
    for inner in sections_inside(table) {
        write_table(out, inner, Shown::Comment);
    }
}

/// The tables of a section that have a header of their own; they do not go together with the rest of the sample.
fn sections_inside(table: &Table) -> impl Iterator<Item = &'static Table> {
    table.keys().filter_map(|key| match key.takes {
        Takes::Table(inner) if inner.header.starts_with('[') => Some(inner),
        _ => None,
    })
}

/// What it does and takes, and what holds without it; nothing where another section says it.
pub(super) fn meaning(key: &Key) -> (String, String) {
    let default = match key.preset {
        Preset::Required => "Required.".to_owned(),
        Preset::Nothing if key.says.is_empty() => return (String::new(), String::new()),
        Preset::Nothing => "Default: none".to_owned(),
        Preset::Is(value) => format!("Default: {value}"),
        Preset::Of(section) => format!("Default: what [{section}] says"),
        Preset::Said(words) => format!("Default: {words}"),
    };
    let bounds = bounds(key);
    let one_sentence = !key.says.trim_end_matches('.').contains(". ");
    let does = match (key.says, bounds.as_str()) {
        (says, "") => says.to_owned(),
        ("", bounds) => format!("{bounds}."),
        (says, bounds) if one_sentence => format!("{}: {bounds}.", says.trim_end_matches('.')),
        (says, bounds) => format!("{says} It is {bounds}."),
    };
    let restart = " A change needs a restart.";
    let restart = if key.restart { restart } else { "" };
    (format!("{does}{restart}"), default)
}

fn bounds(key: &Key) -> String {
    let secs = |secs| duration_text(Duration::from_secs(secs));
    match key.takes {
        Takes::Integer(least, most) => format!("{least} to {most}"),
        Takes::Share(least, most) => format!("{least} to {most}"),
        Takes::Duration(least, most) => format!("{} to {}", secs(least), secs(most)),
        Takes::Word(words) => {
            let one = |(word, means): &(&str, &str)| match *means {
                "" => (*word).to_owned(),
                means => format!("{word} ({means})"),
            };
            words.iter().map(one).collect::<Vec<_>>().join(", ")
        }
        _ => String::new(),
    }
}

/// Words as they fit into lines; what stands together begins a line where it does not fit on the last.
fn write_comment(out: &mut String, words: &str, together: &str) {
    let mut lines = wrapped(words);
    let last = lines.last().map_or(0, |line| line.chars().count() + 1);
    match lines.last_mut() {
        Some(line) if last + together.chars().count() + 2 <= WIDTH => {
            *line = format!("{line} {together}");
        }
        _ => lines.extend(wrapped(together)),
    }
    for line in lines {
        let _infallible = writeln!(out, "# {}", line.trim_end());
    }
}

fn wrapped(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + word.chars().count() + 3 <= WIDTH => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// The manual page renewd.toml(5), in roff.
pub fn manual_page() -> String {
    let mut page = concat!(
        ".TH renewd.toml 5 \"\" \"renewd ",
        env!("CARGO_PKG_VERSION"),
        "\"\n.SH NAME\nrenewd.toml \\- the configuration of renewd(8)\n.SH DESCRIPTION\n"
    )
    .to_owned();
    // The introduction of the reference file; lines that are set in there stay lines.
    for line in PREFACE.lines().skip(3) {
        let text = line.trim_start_matches('#');
        let text = text.strip_prefix(' ').unwrap_or(text);
        let before = match text {
            "" => ".PP",
            _ if text.starts_with(' ') => ".br\n",
            _ => "",
        };
        let _infallible = writeln!(page, "{before}{}", roff(text.trim_start()));
    }
    for section in ROOT.keys() {
        if let Takes::Table(table) | Takes::Tables(table) = section.takes {
            describe(&mut page, table, section.says);
        }
    }
    page.push_str(".SH SEE ALSO\n.BR renewd (8),\n.BR renewd\\-check (8)\n");
    page
}

/// A section of the manual page, with an entry for each key.
fn describe(page: &mut String, table: &Table, says: &str) {
    if table.is_of_sections() {
        for key in table.keys() {
            if let Takes::Tables(inner) = key.takes {
                describe(page, inner, says);
            }
        }
        return;
    }
    let _infallible = writeln!(page, ".SH {}\n{}.", roff(table.header), roff(says));
    if !table.says.is_empty() {
        let _infallible = writeln!(page, "{}", roff(table.says));
    }
    for key in table.keys() {
        let (does, default) = meaning(key);
        let text = format!("{does} {default}");
        let name = roff(key.name);
        let _infallible = writeln!(page, ".TP\n.B {name}\n{}", roff(text.trim()));
        if key.shown == Shown::Elsewhere {
            page.push_str("As in the section that says more of it.\n");
        } else {
            let _infallible = writeln!(page, ".br\nSample: {name} = {}", roff(key.sample));
        }
    }
    for inner in sections_inside(table) {
        describe(page, inner, says);
    }
}

/// A text in which roff sees nothing of its own.
pub fn roff(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    match text.starts_with(['.', '\'']) {
        true => format!("\\&{text}"),
        false => text,
    }
}

/// Text that `quantity::duration` reads.
const DURATION: &str = "^([0-9]+[dhms])+$";
/// Text that `quantity::limit` reads.
const LIMIT: &str = "^ *[0-9]+ */ *(([0-9]+[dhms])+|[dhms]) *$";

/// The schema, as its file holds it.
pub fn schema() -> String {
    let mut root = table(&ROOT);
    // A file in conf.d is a part of one, and need not hold everything.
    root.remove("required");
    let members = [
        ("$schema", json!("http://json-schema.org/draft-07/schema#")),
        ("title", json!("The configuration of renewd")),
        (
            "description",
            json!(
                "Made from the same rows that renewd reads it by. `renewd check` says more: what a schema cannot."
            ),
        ),
        ("definitions", json!({ "secret": secret() })),
    ];
    for (name, value) in members {
        root.insert(name.to_owned(), value);
    }
    let text = serde_json::to_string_pretty(&Value::Object(root));
    text.unwrap_or_default() + "\n"
}

/// A table with exactly the keys of its rows.
fn table(table: &Table) -> Map<String, Value> {
    let properties: Map<String, Value> = table
        .keys()
        .map(|key| (key.name.to_owned(), Value::Object(property(key))))
        .collect();
    let is_required = |key: &&Key| matches!(key.preset, Preset::Required);
    let required: Vec<&str> = table
        .keys()
        .filter(is_required)
        .map(|key| key.name)
        .collect();
    let mut schema = Map::new();
    schema.insert("type".to_owned(), json!("object"));
    schema.insert("additionalProperties".to_owned(), json!(false));
    if !required.is_empty() {
        schema.insert("required".to_owned(), json!(required));
    }
    schema.insert("properties".to_owned(), Value::Object(properties));
    schema
}

/// One key: what it takes, what it means, what holds without it.
fn property(key: &Key) -> Map<String, Value> {
    let mut schema = takes(key.takes);
    if !key.also.is_empty() {
        let other = json!({ "type": key.also });
        schema = object(json!({ "anyOf": [Value::Object(schema), other] }));
    }
    let (does, default) = meaning(key);
    let description = format!("{does} {default}").trim().to_owned();
    if !description.is_empty() {
        schema.insert("description".to_owned(), json!(description));
    }
    if let Preset::Is(text) = key.preset
        && let Some(value) = value_of(text)
    {
        schema.insert("default".to_owned(), value);
    }
    schema
}

fn takes(takes: Takes) -> Map<String, Value> {
    match takes {
        Takes::Table(inner) => return table(inner),
        Takes::Tables(inner) => {
            let items = Value::Object(table(inner));
            return object(json!({ "type": "array", "items": items }));
        }
        _ => {}
    }
    object(match takes {
        Takes::Boolean => json!({ "type": "boolean" }),
        Takes::Integer(least, most) => {
            json!({ "type": "integer", "minimum": least, "maximum": most })
        }
        Takes::Share(least, most) => json!({ "type": "number", "minimum": least, "maximum": most }),
        Takes::Duration(..) => json!({ "type": "string", "pattern": DURATION }),
        Takes::Limit(_) => json!({ "type": "string", "pattern": LIMIT }),
        Takes::Word(words) => {
            let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            json!({ "enum": words })
        }
        Takes::Names | Takes::Accounts | Takes::Texts => {
            json!({ "type": "array", "items": { "type": "string" } })
        }
        Takes::Free => json!({ "type": "object", "additionalProperties": { "type": "string" } }),
        Takes::Secret => json!({ "$ref": "#/definitions/secret" }),
        Takes::Secrets => {
            json!({ "type": "array", "minItems": 1, "items": { "$ref": "#/definitions/secret" } })
        }
        _ => json!({ "type": "string" }),
    })
}

/// A reference to a secret: exactly one of its keys.
fn secret() -> Value {
    let mut reference = table(&super::sections::SECRET_REFERENCE);
    let says = "Where the secret lies; it never stands in the configuration itself.";
    reference.insert("description".to_owned(), json!(says));
    reference.insert("minProperties".to_owned(), json!(1));
    reference.insert("maxProperties".to_owned(), json!(1));
    Value::Object(reference)
}

/// A default as it is written in TOML.
fn value_of(text: &str) -> Option<Value> {
    let table: Map<String, Value> = toml::from_str(&format!("value = {text}")).ok()?;
    table.into_iter().next().map(|(_, value)| value)
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod reference_tests {
    use super::*;

    #[test]
    fn the_manual_page_names_every_key_in_its_section() {
        let page = manual_page();
        assert!(page.starts_with(".TH renewd.toml 5"));
        for section in [
            ".SH [daemon]",
            ".SH [resource.entra]",
            ".SH [[sink.webhook]]",
            ".SH [[source.sqlite]]",
        ] {
            assert_eq!(page.matches(section).count(), 1, "{section}");
        }
        assert_eq!(page.matches(".B allow_private\n").count(), 1);
        assert!(page.contains("Default: \"24h\""), "{page}");
    }

    /// Rewrites the file where a row changed.
    #[test]
    fn the_reference_file_is_what_the_rows_say() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/config/renewd.toml");
        let said = reference();
        if std::fs::read_to_string(path).unwrap() != said {
            std::fs::write(path, said).unwrap();
            panic!(
                "config/renewd.toml was not what the rows say: it is written anew, look at the difference"
            );
        }
    }
}

#[cfg(test)]
mod schema_tests {
    use super::*;

    /// Rewrites the file where a row changed.
    #[test]
    fn the_schema_is_what_the_rows_say() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/config/renewd.schema.json");
        let said = schema();
        if std::fs::read_to_string(path).unwrap_or_default() != said {
            std::fs::write(path, said).unwrap();
            panic!(
                "config/renewd.schema.json was not what the rows say: it is written anew, look at the difference"
            );
        }
    }

    #[test]
    fn every_key_has_a_type_and_its_default_one() {
        let schema: Value = serde_json::from_str(&schema()).unwrap();
        let lifetime = &schema["properties"]["renewal"]["properties"]["lifetime"];
        assert_eq!(lifetime["default"], "24h");
        assert_eq!(lifetime["pattern"], DURATION);
        let resource = &schema["properties"]["resource"]["items"];
        assert_eq!(resource["required"], json!(["name"]));
        assert_eq!(resource["properties"]["max_in_flight"]["maximum"], 1000);
    }
}
