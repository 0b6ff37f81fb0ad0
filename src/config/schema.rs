//! `config/renewd.schema.json`: the JSON Schema (draft 7) of a configuration, for editors and other programs, made
//! from the rows that the reader takes its bounds and defaults from. Rules across keys are `renewd check`'s.

use serde_json::{Map, Value, json};

use super::{
    keys::{Key, Preset, Table, Takes},
    reference::meaning,
    sections::ROOT,
};

/// Text that `quantity::duration` reads.
const DURATION: &str = "^([0-9]+[dhms])+$";
/// Text that `quantity::limit` reads.
const LIMIT: &str = "^ *[0-9]+ */ *(([0-9]+[dhms])+|[dhms]) *$";

/// The schema, as its file holds it.
pub fn schema() -> String {
    let mut root = table(&ROOT);
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
mod tests {
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
        assert_eq!(resource["required"], json!(["name", "connection_string"]));
        assert_eq!(resource["properties"]["max_in_flight"]["maximum"], 1000);
    }
}
