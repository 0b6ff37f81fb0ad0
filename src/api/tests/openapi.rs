//! The description of the socket, written from its endpoints and the types that go over it: `docs/openapi.json` for
//! programs, `docs/api.md` for people. The tests rewrite both where they are no longer true.

use std::{collections::BTreeMap, fmt::Write};

use schemars::{SchemaGenerator, generate::Contract, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::super::{
    endpoint::Description,
    local,
    problem::Problem,
    wire::{CLIENT_HEADER, SCHEMA_VERSION},
};
use crate::api::client::wire::CampaignOrder;

/// A name in a path or a query.
const NAME: &str = "^[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}$";

/// Method and path of each row of the table in the header of the room, with whom it is for and what it does.
fn table() -> Vec<(String, String, String)> {
    let text = include_str!("../mod.rs");
    let rows = text.lines().filter_map(|line| line.strip_prefix("//! | `"));
    let rows = rows.map(|row| {
        let cells: Vec<&str> = row.split(" | ").collect();
        let name = cells[0].trim_end_matches('`').to_owned();
        let says = cells[2].trim_end_matches(" |").to_owned();
        (name, cells[1].to_owned(), says)
    });
    rows.collect()
}

/// A generator whose types are shared by all that is described with it.
fn answers() -> SchemaGenerator {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.contract = Contract::Serialize;
        settings.meta_schema = None;
    });
    settings.into_generator()
}

/// A generator for what is sent, which is written where it is used: more may be left out of it.
fn bodies() -> SchemaGenerator {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    settings.into_generator()
}

fn in_path(name: &str) -> Value {
    let schema = match name {
        "id" => json!({ "type": "integer", "minimum": 0, "maximum": i64::MAX }),
        "order" => bodies().subschema_for::<CampaignOrder>().to_value(),
        _ => json!({ "type": "string", "pattern": NAME }),
    };
    json!({ "name": name, "in": "path", "required": true, "schema": schema })
}

fn in_query(key: &str) -> Value {
    let (says, schema) = match key {
        "after" => ("`next` of the page before", json!({ "type": "string" })),
        "name" | "sink" | "resource" => (
            "only of this one",
            json!({ "type": "string", "pattern": NAME }),
        ),
        "since" => (
            "not before",
            json!({ "type": "string", "format": "date-time" }),
        ),
        "until" => ("before", json!({ "type": "string", "format": "date-time" })),
        "reason" => ("why, for the audit trail", json!({ "type": "string" })),
        "actor" => ("only what they did", json!({ "type": "string" })),
        "action" => ("only this", json!({ "type": "string" })),
        "limit" => (
            "at most so many",
            json!({ "type": "integer", "minimum": 0 }),
        ),
        "identities" => (
            "as if there were so many",
            json!({ "type": "integer", "minimum": 0 }),
        ),
        "lifetime_seconds" => (
            "as if tokens lived so long",
            json!({ "type": "integer", "minimum": 0 }),
        ),
        "failed" | "pending" | "dead" | "old" | "without_renewals" => {
            ("these alone, or without them", json!({ "type": "boolean" }))
        }
        other => panic!("{other}: say what it is"),
    };
    json!({ "name": key, "in": "query", "description": says, "schema": schema })
}

/// One operation of a path.
fn operation(of: &Description, says: &str, whom: &str, generator: &mut SchemaGenerator) -> Value {
    let inside = of.path.split('/').filter_map(|part| part.strip_prefix('{'));
    let places = inside.map(|part| in_path(part.trim_end_matches('}')));
    let mut parameters: Vec<Value> = places
        .chain(of.query.iter().map(|key| in_query(key)))
        .collect();
    parameters.push(client());
    let answer = (of.answer)(generator).to_value();
    let is_list = answer["type"] == "array";
    let answer = match is_list {
        true => answer,
        false => json!({ "allOf": [{ "$ref": "#/components/schemas/Versioned" }, answer] }),
    };
    let mut operation = json!({
        "operationId": operation_id(of),
        "summary": says,
        "tags": [whom],
        "parameters": parameters,
        "responses": {
            of.status.as_str(): { "description": "Done.", "content": { "application/json": { "schema": answer } } },
            "default": problem(),
        },
    });
    if let Some(body) = of.body {
        let schema = body(&mut bodies()).to_value();
        operation["requestBody"] =
            json!({ "required": true, "content": { "application/json": { "schema": schema } } });
    }
    operation
}

/// Such as `get_v1_identities_name`.
fn operation_id(of: &Description) -> String {
    let path = of.path.replace(['{', '}'], "").replace(['/', '-'], "_");
    format!("{}{path}", of.method.as_str().to_lowercase())
}

fn problem() -> Value {
    json!({ "$ref": "#/components/responses/Problem" })
}

fn client() -> Value {
    json!({ "$ref": "#/components/parameters/Client" })
}

fn in_header(name: &str, says: &str) -> Value {
    json!({ "name": name, "in": "header", "description": says, "schema": { "type": "string" } })
}

fn fetch() -> Value {
    json!({
        "operationId": "get_v1_tokens_name",
        "parameters": [
            in_path("name"),
            {
                "name": "wait", "in": "query", "schema": { "type": "string", "pattern": "^([0-5]?[0-9]|60)s?$" },
                "description": "How long to wait for a newer version than those of If-None-Match, such as `55s`; 60 s at most.",
            },
            {
                "name": "delivered", "in": "query", "schema": { "type": "boolean" },
                "description": "Whether a token counts only once every sink of the identity has it.",
            },
            in_header("If-None-Match", "The versions that the caller has, as entity tags; `*` is any."),
            client(),
        ],
        "responses": {
            "200": {
                "description": "The current token. `ETag` is its version, `X-Renewd-Standing` how it stands: `good` or `doubtful`; with `X-Renewd-Age` it is from a mirror, so many seconds old.",
                "content": {
                    "application/json": { "schema": { "$ref": "#/components/schemas/Token" } },
                    "text/plain": { "schema": { "type": "string" } },
                },
            },
            "304": { "description": "Nothing newer by then." },
            "default": problem(),
        },
    })
}

fn watch() -> Value {
    json!({
        "operationId": "get_v1_watch",
        "parameters": [
            {
                "name": "name", "in": "query",
                "schema": { "type": "array", "items": { "type": "string", "pattern": NAME } },
                "description": "Whose tokens, up to 1,000; admins may leave it out and are told of all.",
            },
            in_header("Last-Event-ID", "Go on after this event."),
            client(),
        ],
        "responses": {
            "200": {
                "description": "Server-sent events without end. `event: token` holds a token document, `event: forbidden` is the last of one that may no longer be read.",
                "content": { "text/event-stream": { "schema": { "type": "string" } } },
            },
            "default": problem(),
        },
    })
}

fn back_up() -> Value {
    json!({
        "operationId": "post_v1_store_backup",
        "parameters": [client()],
        "responses": {
            "200": {
                "description": "The backup, as its bytes.",
                "content": { "application/vnd.sqlite3": { "schema": { "type": "string", "format": "binary" } } },
            },
            "default": problem(),
        },
    })
}

/// The endpoints that answer in other ways than with one JSON document.
fn written_out() -> [(&'static str, &'static str, Value); 3] {
    [
        ("/v1/tokens/{name}", "get", fetch()),
        ("/v1/watch", "get", watch()),
        ("/v1/store/backup", "post", back_up()),
    ]
}

/// The token document; `token` is null where there is none on purpose.
fn token() -> Value {
    let instant = json!({ "type": ["string", "null"], "format": "date-time" });
    json!({
        "type": "object",
        "description": "What a consumer gets, the same on every channel.",
        "required": ["name", "resource", "id", "state", "token", "scopes", "version"],
        "properties": {
            "name": { "type": "string", "pattern": NAME },
            "resource": { "type": "string", "pattern": NAME },
            "id": { "type": ["string", "null"] },
            "state": { "type": "string" },
            "token": { "type": ["string", "null"] },
            "scopes": { "type": "array", "items": { "type": "string" } },
            "issued_at": instant, "expires_at": instant, "renews_at": instant,
            "version": { "type": "integer", "description": "It only ever grows." },
        },
    })
}

/// Every path with its operations.
fn paths(generator: &mut SchemaGenerator) -> Value {
    let told = table();
    let says = |name: &str| {
        let row = told.iter().find(|(row, ..)| row == name);
        let (_, whom, says) = row.unwrap_or_else(|| panic!("{name} is not in the table"));
        (whom.clone(), says.clone())
    };
    let mut paths: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    for of in local::described() {
        let (whom, words) = says(&format!("{} {}", of.method, of.path));
        let method = of.method.as_str().to_lowercase();
        let operation = operation(&of, &words, &whom, generator);
        let at = paths.entry(of.path.to_owned()).or_default();
        at.insert(method, operation);
    }
    for (path, method, mut operation) in written_out() {
        let (whom, words) = says(&format!("{} {path}", method.to_uppercase()));
        operation["summary"] = json!(words);
        operation["tags"] = json!([whom]);
        let at = paths.entry(path.to_owned()).or_default();
        at.insert(method.to_owned(), operation);
    }
    json!(paths)
}

/// What paths refer to.
fn components(mut generator: SchemaGenerator) -> Value {
    let problem = generator.subschema_for::<Problem>().to_value();
    let mut schemas = generator.take_definitions(true);
    schemas.insert("Token".to_owned(), token());
    let versioned = json!({
        "type": "object",
        "required": ["schema_version"],
        "properties": { "schema_version": {
            "const": SCHEMA_VERSION,
            "description": "Raised when a key goes away or changes its meaning. New keys may come at any time.",
        } },
    });
    schemas.insert("Versioned".to_owned(), versioned);
    json!({
        "parameters": { "Client": {
            "name": CLIENT_HEADER, "in": "header", "required": true,
            "description": "Any value; what `renewd` shows as the consumer's name.",
            "schema": { "type": "string" },
        } },
        "responses": { "Problem": {
            "description": "Why not.",
            "content": { "application/problem+json": { "schema": problem } },
        } },
        "schemas": schemas,
    })
}

fn document() -> Value {
    let mut generator = answers();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "The local socket of renewd",
            "version": SCHEMA_VERSION.to_string(),
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
            "description": "HTTP/1.1 over a Unix socket, usually /run/renewd/renewd.sock. The kernel says who calls: readers of an identity get its token, admins everything else. Written from the endpoints themselves.",
        },
        "servers": [{ "url": "http://localhost", "description": "over the Unix socket; the host is of no account" }],
        "tags": [
            { "name": "readers", "description": "whoever may read the identity" },
            { "name": "admins", "description": "root, the daemon's own user, `[daemon] admins`" },
        ],
        "paths": paths(&mut generator),
        "components": components(generator),
    })
}

/// What is held against what is committed, and written anew where that differs.
fn held(name: &str, said: &str) {
    let path = format!("{}/docs/{name}", env!("CARGO_MANIFEST_DIR"));
    if std::fs::read_to_string(&path).unwrap_or_default() != said {
        std::fs::write(&path, said).unwrap();
        panic!(
            "docs/{name} was not what the endpoints say: it is written anew, look at the difference"
        );
    }
}

#[test]
fn the_description_for_programs_is_what_the_endpoints_say() {
    held(
        "openapi.json",
        &(serde_json::to_string_pretty(&document()).unwrap() + "\n"),
    );
}

#[test]
fn the_description_for_people_is_what_the_endpoints_say() {
    held("api.md", &page(&document()));
}

const PREFACE: &str = "\
# The local socket, endpoint by endpoint

Written from the endpoints themselves; the same for programs is [`openapi.json`](openapi.json) (OpenAPI 3.1), which
`renewd api schema` prints. How to ask, with examples, is on [the page of the socket](socket.md).

HTTP/1.1 over a Unix socket. Every request carries `X-Renewd-Client`. *Readers* are who may read the identity; *admins* are
root, the daemon's own user and `[daemon] admins`. A refusal is `application/problem+json` with a stable `type`.

**The form is stable.** Each document that is an object, here and from every command with `--json`, begins with
`schema_version`. It is raised when a key goes away or changes its meaning; new keys, and new words where a key takes words,
may come at any time. `/readyz` and `/api/status`, over TCP, do the same. The token document, which goes to files and receivers
as well, has no such key: it does not change. A document that is a list has no place for one, and wrapping it would break
whoever reads it: what it lists keeps to the same rule.
";

fn page(document: &Value) -> String {
    let mut out = PREFACE.to_owned();
    for whom in ["readers", "admins"] {
        write!(out, "\n## For {whom}\n").unwrap();
        for (path, operations) in document["paths"].as_object().unwrap() {
            for (method, operation) in operations.as_object().unwrap() {
                if operation["tags"][0] == whom {
                    write_operation(&mut out, method, path, operation);
                }
            }
        }
    }
    out += "\n## What goes over it\n";
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        write!(
            out,
            "\n### {name}\n\n{}\n",
            paragraph(&schema["description"])
        )
        .unwrap();
        write_properties(&mut out, schema);
    }
    out
}

fn write_operation(out: &mut String, method: &str, path: &str, operation: &Value) {
    let summary = operation["summary"].as_str().unwrap();
    write!(
        out,
        "\n### `{} {path}`\n\n{summary}\n",
        method.to_uppercase()
    )
    .unwrap();
    let parameters = operation["parameters"].as_array().unwrap().iter();
    let rows: Vec<String> = parameters
        .filter(|one| one["in"] == "query" || one["in"] == "header")
        .map(|one| {
            let name = one["name"].as_str().unwrap();
            let name = if one["in"] == "query" {
                format!("?{name}=")
            } else {
                name.to_owned()
            };
            format!(
                "| `{name}` | {} | {} |\n",
                kind(&one["schema"]),
                paragraph(&one["description"])
            )
        })
        .collect();
    if !rows.is_empty() {
        *out += "\n| parameter | takes | |\n|---|---|---|\n";
        out.extend(rows);
    }
    let body = &operation["requestBody"]["content"]["application/json"]["schema"];
    if body.is_object() {
        *out += "\nIt is sent:\n";
        write_properties(out, body);
    }
    let responses = operation["responses"].as_object().unwrap();
    for (status, answer) in responses.iter().filter(|(status, _)| *status != "default") {
        let kinds: Vec<String> = answer["content"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(media, one)| match media.as_str() {
                "application/json" => kind(&one["schema"]),
                media => format!("`{media}`"),
            })
            .collect();
        let says = answer["description"].as_str().unwrap_or_default();
        let says = if says == "Done." {
            String::new()
        } else {
            format!(". {says}")
        };
        let what = if kinds.is_empty() {
            "nothing".to_owned()
        } else {
            kinds.join(" or ")
        };
        writeln!(out, "\n{status}: {what}{says}").unwrap();
    }
}

fn paragraph(text: &Value) -> String {
    let text = text.as_str().unwrap_or_default();
    text.split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .replace('|', "\\|")
}

fn write_properties(out: &mut String, schema: &Value) {
    let Some(properties) = schema["properties"].as_object() else {
        write!(out, "\nIt is {}.\n", kind(schema)).unwrap();
        return;
    };
    let is_required = |key: &str| {
        let required = schema["required"].as_array();
        required.is_some_and(|keys| keys.iter().any(|one| one == key))
    };
    *out += "\n| key | is | |\n|---|---|---|\n";
    for (key, property) in properties {
        let open = if is_required(key) {
            ""
        } else {
            ", may be missing"
        };
        writeln!(
            out,
            "| `{key}` | {}{open} | {} |",
            kind(property),
            paragraph(&property["description"])
        )
        .unwrap();
    }
}

/// What a schema takes, in a few words.
fn kind(schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str() {
        let name = name.rsplit('/').next().unwrap();
        return format!("[{name}](#{})", name.to_lowercase());
    }
    if let Some(parts) = schema["allOf"].as_array() {
        let others = parts
            .iter()
            .filter(|part| part["$ref"] != "#/components/schemas/Versioned");
        return others.map(kind).collect::<Vec<_>>().join(" and ");
    }
    for key in ["anyOf", "oneOf"] {
        if let Some(parts) = schema[key].as_array() {
            return parts.iter().map(kind).collect::<Vec<_>>().join(" or ");
        }
    }
    if let Some(words) = schema["enum"].as_array() {
        return words
            .iter()
            .map(|word| format!("`{}`", word.as_str().unwrap_or("null")))
            .collect::<Vec<_>>()
            .join(", ");
    }
    if let Some(word) = schema.get("const") {
        return format!(
            "`{}`",
            word.as_str()
                .map_or_else(|| word.to_string(), str::to_owned)
        );
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(all) => all.iter().filter_map(Value::as_str).collect(),
        _ => vec!["anything"],
    };
    let words = types.into_iter().map(|one| match one {
        "array" => format!("list of {}", kind(&schema["items"])),
        "string" if schema["format"] == "date-time" => "instant".to_owned(),
        "object" if schema["additionalProperties"].is_object() => {
            format!("map to {}", kind(&schema["additionalProperties"]))
        }
        other => other.to_owned(),
    });
    words.collect::<Vec<_>>().join(" or ")
}
