//! The fields of a JSON object as they stand there: a key that stands twice is noticed, at any depth, where a
//! map would keep the last one and forget the other.

use std::{collections::BTreeSet, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::Value;

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
mod tests {
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
