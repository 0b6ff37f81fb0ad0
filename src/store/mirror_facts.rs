//! What a database says of itself, by which a node's mirror is known for one of it: which store it is, which key sealed
//! it, and how far it goes.

use super::{backup::RESTORED, catch_up::STORE_ID, db::Db, error::Outcome, reseal::SUCCESSOR};
use crate::sql::ValueRef;

pub(super) const SEAL_KEY: &str = "seal_key";
pub(super) const SEQ: &str = "seq";

/// What a store says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct DatabaseFacts {
    pub(super) store: Option<String>,
    pub(super) seal_key: Option<String>,
    pub(super) successor: Option<String>,
    /// Why it may not be served from before a person says so.
    pub(super) restored: Option<String>,
    pub(super) seq: u64,
}

impl DatabaseFacts {
    pub(super) fn of(db: &Db) -> Outcome<Self> {
        let sql = "SELECT key, value FROM meta WHERE key IN (?1, ?2, ?3, ?4, ?5)";
        let keys = [STORE_ID, SEAL_KEY, SUCCESSOR, RESTORED, SEQ];
        let mut facts = Self::default();
        for (key, value) in db.every(sql, keys, |row| {
            Ok((row.get::<_, String>(0)?, text_of(row.get_ref(1)?)))
        })? {
            match key.as_str() {
                STORE_ID => facts.store = value,
                SEAL_KEY => facts.seal_key = value,
                SUCCESSOR => facts.successor = value,
                RESTORED => facts.restored = value,
                _ => facts.seq = value.and_then(|seq| seq.parse().ok()).unwrap_or(0),
            }
        }
        Ok(facts)
    }

    /// Whether a copy with these facts goes on where it is in a database with those.
    pub(super) fn goes_on_in(&self, theirs: &Self) -> bool {
        self.store == theirs.store && self.seal_key == theirs.seal_key && self.seq <= theirs.seq
    }
}

/// A single fact as text, whichever way the engine keeps it.
fn text_of(value: ValueRef<'_>) -> Option<String> {
    match value {
        ValueRef::Integer(number) => Some(number.to_string()),
        ValueRef::Text(text) => Some(String::from_utf8_lossy(text).into_owned()),
        ValueRef::Null | ValueRef::Real(_) | ValueRef::Blob(_) => None,
    }
}

/// Why a copy may not be used here, under the key with this id, if it may not.
pub(super) fn unfit(
    (copy, of): (&DatabaseFacts, Option<&str>),
    (cluster, key): (&str, &str),
) -> Option<String> {
    match (of, copy.seal_key.as_deref()) {
        // It never was whole.
        (None, _) | (_, None) => None,
        (Some(of), _) if of != cluster => {
            Some(format!("it is of the cluster {of}, and this is {cluster}"))
        }
        (_, Some(sealed)) if sealed != key && copy.successor.as_deref() != Some(key) => Some(
            format!("it is sealed with {sealed}, and the seal key is {key}"),
        ),
        _ => None,
    }
}
