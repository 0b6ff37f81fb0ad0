//! One identity as a foreign row says it: a line of CSV or JSON, a row of a query. Whatever stands
//! there is checked here, so that a row can never choose more than the words it is allowed.
//!
//! The fields of a JSON object are read as they stand there: a key that stands twice is noticed, at any depth, where
//! a map would keep the last one and forget the other.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use jiff::Timestamp;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::Value;

use super::{
    Declaration, IdentityId, Name, OnRemoval, Reader, ResourceName, Scope, SinkName, screen::acts,
};

/// The longest text of a label, in bytes.
const LONGEST_LABEL: usize = 256;
/// What exports hold besides, for people's eyes.
const IGNORED: [&str; 6] = [
    "state",
    "version",
    "origin",
    "issued_at",
    "expires_at",
    "token",
];
const KNOWN: &str = "name, id, resource, scopes, lifetime, renew_at, spread, labels (or label_KEY), readers, sinks, on_removal, \
    created_at";

/// What a row says; what it leaves out is `None` or empty.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Our name of it.
    pub name: Name,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<ResourceName>,
    /// What ACS calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<IdentityId>,
    /// What its tokens may be used for; sorted, each once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scopes: Option<Vec<Scope>>,
    /// The life asked of ACS, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifetime_seconds: Option<u64>,
    /// The share of a token's own life after which it is renewed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renew_at: Option<f64>,
    /// The share of a token's own life by which renewals are spread.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spread: Option<f64>,
    /// Free words to select by.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Who may read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readers: Option<Vec<Reader>>,
    /// Where its tokens go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sinks: Option<Vec<SinkName>>,
    /// What happens when it is no longer named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_removal: Option<OnRemoval>,
    /// When it was made, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Timestamp>,
    /// The name is known no more; such lines are of `identities.jsonl`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dropped: bool,
}

/// Why a row is no entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct EntryError {
    /// Its name, where that is valid.
    pub name: Option<Name>,
    /// Whether no identity can be meant, as none can have such a name: then nobody stands there who would be
    /// missed. A row without a name that can be read may be anybody's.
    pub is_nobody: bool,
    pub reason: String,
}

impl EntryError {
    /// A row that may be anybody's.
    pub fn nameless(reason: impl Into<String>) -> Self {
        Self {
            name: None,
            is_nobody: false,
            reason: reason.into(),
        }
    }

    /// A row of this identity.
    pub fn of(name: Name, reason: impl Into<String>) -> Self {
        Self {
            name: Some(name),
            is_nobody: false,
            reason: reason.into(),
        }
    }
}

impl Entry {
    /// Reads a row of columns with their values; empty ones count as left out.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn of<'a>(
        fields: impl IntoIterator<Item = (&'a str, &'a Value)>,
    ) -> Result<Self, EntryError> {
        let (mut name, mut rest) = (None, Vec::new());
        let (mut seen, mut twice) = (BTreeSet::new(), None);
        for (column, value) in fields {
            let meant = match column {
                "lifetime_seconds" => "lifetime",
                column => column,
            };
            if !seen.insert(meant) {
                twice.get_or_insert(meant);
            }
            match column {
                "name" => {
                    let text = text(value);
                    name =
                        Some(text.ok_or_else(|| EntryError::nameless("its name is not a text"))?);
                }
                _ if value.is_null() || value.as_str() == Some("") => {}
                _ => rest.push((column, value)),
            }
        }
        if twice == Some("name") {
            return Err(EntryError::nameless("its name stands there twice"));
        }
        let name = name
            .filter(|name| !name.is_empty())
            .ok_or_else(|| EntryError::nameless("it has no name"))?;
        let name = valid(&name)?;
        if let Some(column) = twice {
            return Err(EntryError::of(name, stands_twice(column)));
        }
        let mut entry = Self::named(name.clone());
        for (column, value) in rest {
            let taken = entry.take(column, value);
            taken.map_err(|reason| EntryError::of(name.clone(), reason))?;
        }
        Ok(entry)
    }

    /// Reads an object of JSON.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn of_object(fields: &Fields) -> Result<Self, EntryError> {
        let entry = Self::of(fields.iter())?;
        match fields.twice_within() {
            None => Ok(entry),
            Some(key) => Err(EntryError::of(entry.name, stands_twice(key))),
        }
    }

    /// A name and nothing else.
    pub fn named(name: Name) -> Self {
        Self {
            name,
            resource: None,
            id: None,
            scopes: None,
            lifetime_seconds: None,
            renew_at: None,
            spread: None,
            labels: BTreeMap::new(),
            readers: None,
            sinks: None,
            on_removal: None,
            created_at: None,
            dropped: false,
        }
    }

    fn take(&mut self, column: &str, value: &Value) -> Result<(), String> {
        match column {
            "resource" => self.resource = Some(parsed(column, value)?),
            "id" => self.id = Some(parsed(column, value)?),
            "scopes" => self.scopes = Some(scopes(value)?),
            "lifetime" | "lifetime_seconds" => self.lifetime_seconds = Some(lifetime(value)?),
            "renew_at" => self.renew_at = Some(share(column, value, 0.05..=0.75)?),
            "spread" => self.spread = Some(share(column, value, 0.0..=0.5)?),
            "dropped" => self.dropped = value.as_bool().unwrap_or(false),
            "labels" => {
                for (key, value) in labels(value)? {
                    self.label(key, value)?;
                }
            }
            "readers" => {
                self.readers = Some(
                    words(column, value)?
                        .into_iter()
                        .map(reader)
                        .collect::<Result<_, _>>()?,
                )
            }
            "sinks" => {
                let sinks = words(column, value)?;
                let sinks: Result<_, super::NameError> =
                    sinks.iter().map(|sink| sink.parse()).collect();
                self.sinks = Some(sinks.map_err(|error| error.to_string())?);
            }
            "on_removal" => {
                let wrong = |_| "on_removal is one of hold, forget, revoke".to_owned();
                self.on_removal = Some(serde_json::from_value(value.clone()).map_err(wrong)?);
            }
            "created_at" => {
                let at = text(value).and_then(|text| text.parse().ok());
                self.created_at =
                    Some(at.ok_or("created_at is not an instant such as 2026-11-22T12:00:00Z")?);
            }
            _ if IGNORED.contains(&column) => {}
            _ => match column.strip_prefix("label_") {
                Some(key) => {
                    let (key, value) = label(key, value)?;
                    self.label(key, value)?;
                }
                None => return Err(format!("there is no column {column:?}; known are {KNOWN}")),
            },
        }
        Ok(())
    }

    fn label(&mut self, key: String, value: String) -> Result<(), String> {
        if self.labels.contains_key(&key) {
            return Err(format!("the label {key} stands there twice"));
        }
        self.labels.insert(key, value);
        Ok(())
    }
}

impl Declaration {
    /// The same with what a row says in the place of its own.
    #[must_use]
    pub fn said(mut self, entry: Entry) -> Self {
        self.id = entry.id.or(self.id);
        self.scopes = entry.scopes.unwrap_or(self.scopes);
        self.lifetime = entry
            .lifetime_seconds
            .map_or(self.lifetime, Duration::from_secs);
        self.renew_at = entry.renew_at.unwrap_or(self.renew_at);
        self.spread = entry.spread.unwrap_or(self.spread);
        self.labels.extend(entry.labels);
        self.readers = entry.readers.unwrap_or(self.readers);
        self.sinks = entry.sinks.unwrap_or(self.sinks);
        self.on_removal = entry.on_removal.unwrap_or(self.on_removal);
        self
    }
}

/// A name; of one that is not valid, whether somebody's stands there with something around it.
fn valid(text: &str) -> Result<Name, EntryError> {
    text.parse().map_err(|error: super::NameError| {
        let around = |c: char| c.is_whitespace() || acts(c);
        let within = text.trim_matches(around).chars();
        let within: String = within.filter(|c| !acts(*c)).collect();
        EntryError {
            name: None,
            is_nobody: within == text || within.parse::<Name>().is_err(),
            reason: error.to_string(),
        }
    })
}

fn stands_twice(key: &str) -> String {
    format!("{key:?} stands there twice, so nobody knows which is meant")
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn parsed<T: std::str::FromStr<Err = super::NameError>>(
    column: &str,
    value: &Value,
) -> Result<T, String> {
    let text = text(value).ok_or_else(|| format!("{column} is not a text"))?;
    text.parse()
        .map_err(|error: super::NameError| error.to_string())
}

/// A list, as JSON, as JSON in a text, or as words with spaces, commas or semicolons between them.
fn words(column: &str, value: &Value) -> Result<Vec<String>, String> {
    let wrong = || format!("{column} must be words, or a JSON list of them");
    match value {
        Value::Array(items) => items
            .iter()
            .map(|item| text(item).ok_or_else(wrong))
            .collect(),
        Value::String(written) if written.trim_start().starts_with('[') => {
            let list: Value = serde_json::from_str(written).map_err(|_| wrong())?;
            words(column, &list)
        }
        Value::String(written) => Ok(written
            .split([' ', ',', ';'])
            .filter(|word| !word.is_empty())
            .map(str::to_owned)
            .collect()),
        _ => Err(wrong()),
    }
}

fn scopes(value: &Value) -> Result<Vec<Scope>, String> {
    let mut scopes = words("scopes", value)?
        .iter()
        .map(|word| word.parse())
        .collect::<Result<Vec<Scope>, _>>()?;
    scopes.sort_unstable();
    scopes.dedup();
    if scopes.is_empty() {
        return Err("scopes is empty".to_owned());
    }
    Ok(scopes)
}

/// Seconds, or a text such as `24h`; ACS takes whole minutes from 1 h to 24 h.
fn lifetime(value: &Value) -> Result<u64, String> {
    let seconds = match value {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => text.parse().ok().or_else(|| hours_and_minutes(text)),
        _ => None,
    };
    let fits = |secs: &u64| (3600..=86_400).contains(secs) && secs.is_multiple_of(60);
    seconds.filter(fits).ok_or_else(|| {
        "the lifetime must be whole minutes from 1h to 24h, such as 24h, 90m or 3600 (seconds)"
            .to_owned()
    })
}

/// A share of a token's life, as `[renewal]` takes it.
fn share(
    column: &str,
    value: &Value,
    within: std::ops::RangeInclusive<f64>,
) -> Result<f64, String> {
    let share = match value {
        Value::String(text) => text.parse().ok(),
        value => value.as_f64(),
    };
    share.filter(|share| within.contains(share)).ok_or_else(|| {
        format!(
            "{column} must be a share of a token's life from {} to {}",
            within.start(),
            within.end()
        )
    })
}

fn hours_and_minutes(text: &str) -> Option<u64> {
    let (mut total, mut rest) = (Duration::ZERO, text);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let count: u32 = rest[..digits].parse().ok()?;
        let unit = match rest.as_bytes()[digits] {
            b's' => Duration::from_secs(1),
            b'm' => Duration::from_mins(1),
            b'h' => Duration::from_hours(1),
            _ => return None,
        };
        total = total.checked_add(unit.checked_mul(count)?)?;
        rest = &rest[digits + 1..];
    }
    Some(total.as_secs())
}

fn labels(value: &Value) -> Result<BTreeMap<String, String>, String> {
    let wrong =
        || "labels must be a JSON object of texts, such as {\"team\":\"support\"}".to_owned();
    let parsed: serde_json::Map<String, Value>;
    let fields = match value {
        Value::Object(fields) => fields,
        Value::String(text) => {
            let fields = Fields::read(text.as_bytes()).map_err(|_| wrong())?;
            let mut keys = BTreeSet::new();
            if let Some((key, _)) = fields.iter().find(|(key, _)| !keys.insert(*key)) {
                return Err(stands_twice(key));
            }
            parsed = fields
                .iter()
                .map(|(key, value)| (key.to_owned(), value.clone()))
                .collect();
            &parsed
        }
        _ => return Err(wrong()),
    };
    fields
        .iter()
        .map(|(key, value)| label(key, value))
        .collect()
}

fn label(key: &str, value: &Value) -> Result<(String, String), String> {
    if !is_label_key(key) {
        return Err(format!(
            "{key:?} is not a valid label: a letter, then letters, digits, _ or -, at most 63"
        ));
    }
    let value = text(value).ok_or_else(|| format!("the label {key} is not a text"))?;
    if value.len() > LONGEST_LABEL || value.contains(char::is_control) {
        return Err(format!(
            "the label {key} must be at most {LONGEST_LABEL} bytes on one line"
        ));
    }
    Ok((key.to_owned(), value))
}

fn reader(text: String) -> Result<Reader, String> {
    let name = text.strip_prefix("group:").unwrap_or(&text);
    let odd = |c: char| c.is_whitespace() || c.is_control() || ":/,".contains(c);
    if name.is_empty() || name.len() > 256 || name.contains(odd) || name.starts_with('-') {
        return Err(format!(
            "{text:?} is neither a user nor a group; a group is written group:NAME"
        ));
    }
    Ok(Reader::from(text))
}

/// Whether a word can be the key of a label: selections speak of `label.KEY`.
pub fn is_label_key(key: &str) -> bool {
    key.len() <= 63
        && key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && key
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// The fields of an object, in their order.
#[derive(Debug, Clone, PartialEq)]
pub struct Fields {
    fields: Vec<(String, Value)>,
    twice_within: Option<String>,
}

impl Fields {
    /// Reads an object.
    ///
    /// # Errors
    /// When it is none.
    pub fn read(text: &[u8]) -> serde_json::Result<Self> {
        let Pairs(fields) = serde_json::from_slice(text)?;
        let mut twice_within = None;
        if fields.iter().any(|(_, value)| !is_plain(value)) {
            let mut from = serde_json::Deserializer::from_slice(text);
            Twice {
                found: &mut twice_within,
                depth: 0,
            }
            .deserialize(&mut from)?;
        }
        Ok(Self {
            fields,
            twice_within,
        })
    }

    /// Keys with their values; a key may stand there twice.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.fields.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// The value of a key; an error where it stands twice.
    ///
    /// # Errors
    /// Which key.
    pub fn only(&self, key: &'static str) -> Result<Option<&Value>, &'static str> {
        let mut found = self.fields.iter().filter(|(name, _)| name == key);
        let value = found.next().map(|(_, value)| value);
        found.next().map_or(Ok(value), |_| Err(key))
    }

    /// A key that stands twice in one of the objects within this one.
    pub fn twice_within(&self) -> Option<&str> {
        self.twice_within.as_deref()
    }
}

fn is_plain(value: &Value) -> bool {
    !matches!(value, Value::Object(_) | Value::Array(_))
}

struct Pairs(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(OfPairs)
    }
}

struct OfPairs;

impl<'de> Visitor<'de> for OfPairs {
    type Value = Pairs;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = map.next_entry()? {
            pairs.push(pair);
        }
        Ok(Pairs(pairs))
    }
}

/// Looks through a value for a key that stands twice in an object below the outermost.
struct Twice<'a> {
    found: &'a mut Option<String>,
    depth: usize,
}

impl Twice<'_> {
    fn below(&mut self) -> Twice<'_> {
        Twice {
            found: &mut *self.found,
            depth: self.depth + 1,
        }
    }
}

impl<'de> DeserializeSeed<'de> for Twice<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Twice<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        let mut keys = BTreeSet::new();
        while let Some(key) = map.next_key::<String>()? {
            if !keys.insert(key.clone()) && self.depth > 0 {
                self.found.get_or_insert(key);
            }
            map.next_value_seed(self.below())?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(self.below())?.is_some() {}
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        IgnoredAny::deserialize(from).map(drop)
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod entry_tests {
    use serde_json::json;

    use super::*;

    fn of(row: &Value) -> Result<Entry, EntryError> {
        Entry::of(
            row.as_object()
                .unwrap()
                .iter()
                .map(|(key, value)| (key.as_str(), value)),
        )
    }

    #[test]
    fn a_name_that_nobody_can_have_is_told_from_one_that_cannot_be_read() {
        for (name, is_nobody) in [
            ("../x", true),
            ("a b", true),
            ("-rf", true),
            ("", false),
            ("\u{feff}anna", false),
            ("anna ", false),
            ("anna\r", false),
            ("\u{a0}anna\u{200b}", false),
        ] {
            let error = of(&json!({ "name": name })).unwrap_err();
            assert_eq!((error.name, error.is_nobody), (None, is_nobody), "{name:?}");
        }
    }

    #[test]
    fn what_stands_twice_is_refused() {
        for (row, name, word) in [
            (r#"{"name":"a","name":"b"}"#, None, "twice"),
            (
                r#"{"name":"a","scopes":"chat","scopes":"voip"}"#,
                Some("a"),
                "scopes",
            ),
            (
                r#"{"scopes":null,"name":"a","scopes":"voip"}"#,
                Some("a"),
                "scopes",
            ),
            (
                r#"{"name":"a","labels":{"k":"1","k":"2"}}"#,
                Some("a"),
                "\"k\"",
            ),
            (
                r#"{"name":"a","labels":"{\"k\":\"1\",\"k\":\"2\"}"}"#,
                Some("a"),
                "\"k\"",
            ),
        ] {
            let error = Entry::of_object(&Fields::read(row.as_bytes()).unwrap()).unwrap_err();
            assert_eq!(error.name.as_ref().map(Name::as_str), name, "{row}");
            assert!(error.reason.contains(word) && !error.is_nobody, "{error}");
        }
    }

    #[test]
    fn lists_labels_and_lifetimes_are_read_however_they_are_written() {
        let plain = of(&json!({"name": "a", "scopes": ["voip", "chat"], "labels": {"team": "x"}, "lifetime": "90m"})).unwrap();
        let texts = of(&json!({"name": "a", "scopes": "chat;voip", "labels": "{\"team\":\"x\"}", "lifetime": 5400, "id": null})).unwrap();
        let columns = of(&json!({"name": "a", "scopes": "[\"chat\",\"voip\"]", "label_team": "x", "lifetime": "5400", "token": "t"})).unwrap();
        assert_eq!(plain, texts);
        assert_eq!(plain, columns);
    }

    #[test]
    fn a_column_that_stands_twice_is_refused_even_if_one_is_empty() {
        let (name, empty, id) = (json!("a"), json!(null), json!("8:acs:x"));
        for columns in [
            [("name", &name), ("id", &empty), ("id", &id)],
            [("name", &name), ("name", &name), ("id", &id)],
            [
                ("name", &name),
                ("lifetime", &empty),
                ("lifetime_seconds", &empty),
            ],
        ] {
            let error = Entry::of(columns).unwrap_err();
            assert!(error.reason.contains("stands there twice"), "{error}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_the_name() {
        for (row, word) in [
            (json!({"id": "8:acs:x"}), "no name"),
            (json!({"name": "../etc/passwd"}), "../etc/passwd"),
            (json!({"name": "a", "id": "7:x"}), "8:"),
            (json!({"name": "a", "scopes": "chat calls"}), "calls"),
            (json!({"name": "a", "lifetime": "25h"}), "24h"),
            (json!({"name": "a", "colour": "red"}), "colour"),
            (json!({"name": "a", "label_a b": "red"}), "a b"),
            (json!({"name": "a", "readers": "group:"}), "group:"),
            (
                json!({"name": "a", "label_x": "1", "labels": {"x": "1"}}),
                "label x stands there twice",
            ),
        ] {
            let error = of(&row).unwrap_err();
            assert!(error.reason.contains(word), "{row}: {error}");
            assert_eq!(error.name.is_some(), row["name"] == "a", "{row}");
        }
    }
}

#[cfg(test)]
mod fields_tests {
    use super::*;

    #[test]
    fn a_key_that_stands_twice_is_kept_twice_or_named() {
        let fields = Fields::read(br#"{"a":1,"b":{"c":[null,true,-1,0.5,"x"]},"a":2}"#).unwrap();
        let keys: Vec<&str> = fields.iter().map(|(key, _)| key).collect();
        assert_eq!(
            (keys.as_slice(), fields.twice_within()),
            (&["a", "b", "a"][..], None)
        );
        for (text, twice) in [
            (r#"{"a":{"b":1,"c":2,"b":3}}"#, "b"),
            (r#"{"a":[{"d":1,"d":1}]}"#, "d"),
        ] {
            let fields = Fields::read(text.as_bytes()).unwrap();
            assert_eq!(fields.twice_within(), Some(twice));
        }
        for text in ["[]", "7", "{\"a\":1", "{\"a\":1},"] {
            assert!(Fields::read(text.as_bytes()).is_err(), "{text}");
        }
    }
}
