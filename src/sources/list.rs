//! A list as it is held by whoever reads it: every row by its name, in the order of names, so that the
//! reader of the rows needs no more memory for a million than for one.
//!
//! A row is kept as one line of JSON in one long text; what else is known of it takes 32 bytes. Rows that
//! stand against each other (one name twice, one id under two names) become refused ones here, because
//! only here all rows are seen.

use std::{
    borrow::Cow,
    hash::{BuildHasher as _, RandomState},
};

use serde::{Deserialize, Serialize};

use super::SourceError;
use crate::model::{Entry, EntryError, Name, RefusedRow, one_line};

/// The most rows that a source may list.
const MOST_ROWS: u32 = 1_000_000;
/// The most that its rows may take.
const MOST_BYTES: usize = 256 << 20;
/// At most so many rows without a name are kept for people's eyes.
const SHOWN: usize = 1000;
/// No twin.
const ALONE: u32 = u32::MAX;

/// What is known of a list before its rows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Rows that were read.
    pub rows: u64,
    /// How many of them have no name that can be read: who stands there, nobody knows.
    pub unnamed: u64,
    /// The first of those.
    pub shown: Vec<RefusedRow>,
    /// How many have a name that no identity can have: nobody stands there.
    pub invalid: u64,
    /// The first of those.
    pub nobodies: Vec<RefusedRow>,
}

/// A row of a list, as it comes out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Item {
    /// What a row says.
    Row(u64, Box<Entry>),
    /// A row that cannot be an identity, and has a name.
    Refused(RefusedRow),
}

/// Rows, in the order of their names.
#[derive(Debug, Default)]
pub(super) struct List {
    pub(super) head: Head,
    text: Vec<u8>,
    places: Vec<Place>,
    twins: Vec<String>,
}

/// Where a row stands in the text, and what is known of it.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// Its name begins here, its JSON after the name.
    start: usize,
    json: u32,
    name: u8,
    number: u32,
    /// How many rows have its name.
    times: u32,
    /// Why its id cannot be its own.
    twin: u32,
}

/// A list that is being read.
#[derive(Debug)]
pub(super) struct Collector {
    what: String,
    list: List,
    ids: Vec<(u64, u64, u32)>,
    hashers: (RandomState, RandomState),
}

impl Collector {
    /// For the list of this file or program.
    pub(super) fn new(what: String) -> Self {
        Self {
            what,
            list: List::default(),
            ids: Vec::new(),
            hashers: (RandomState::new(), RandomState::new()),
        }
    }

    /// Takes a row.
    ///
    /// # Errors
    /// When there are more than a source may list.
    pub(super) fn push(
        &mut self,
        number: u64,
        row: Result<Entry, EntryError>,
    ) -> Result<(), SourceError> {
        let list = &mut self.list;
        list.head.rows += 1;
        if list.head.rows > u64::from(MOST_ROWS) {
            return Err(self.too_long("1,000,000 rows"));
        }
        let (name, item) = match row {
            Ok(entry) => {
                if let Some(id) = &entry.id {
                    let (one, other) = &self.hashers;
                    let row = u32::try_from(list.places.len()).unwrap_or(ALONE);
                    let id = id.as_str();
                    self.ids.push((one.hash_one(id), other.hash_one(id), row));
                }
                (entry.name.clone(), Item::Row(number, Box::new(entry)))
            }
            Err(error) => {
                let is_nobody = error.is_nobody;
                let row = RefusedRow {
                    number,
                    name: error.name,
                    reason: one_line(&error.reason).into_owned(),
                };
                let Some(name) = row.name.clone() else {
                    let head = &mut list.head;
                    let (count, shown) = match is_nobody {
                        true => (&mut head.invalid, &mut head.nobodies),
                        false => (&mut head.unnamed, &mut head.shown),
                    };
                    *count += 1;
                    if shown.len() < SHOWN {
                        shown.push(row);
                    }
                    return Ok(());
                };
                (name, Item::Refused(row))
            }
        };
        let start = list.text.len();
        list.text.extend_from_slice(name.as_str().as_bytes());
        let json = list.text.len();
        // Plain data of strings and numbers can always be written.
        serde_json::to_writer(&mut list.text, &item).ok();
        list.places.push(Place {
            start,
            json: u32::try_from(list.text.len() - json).unwrap_or_default(),
            name: u8::try_from(name.as_str().len()).unwrap_or_default(),
            number: u32::try_from(number).unwrap_or_default(),
            times: 1,
            twin: ALONE,
        });
        if list.text.len() > MOST_BYTES {
            return Err(self.too_long("256 MiB of rows"));
        }
        Ok(())
    }

    fn too_long(&self, most: &str) -> SourceError {
        SourceError::Long {
            what: self.what.clone(),
            most: most.to_owned(),
        }
    }

    /// The list, in the order of names.
    pub(super) fn finish(mut self) -> List {
        self.mark_twins();
        let List { text, places, .. } = &mut self.list;
        places.sort_unstable_by(|a, b| (a.name(text), a.number).cmp(&(b.name(text), b.number)));
        let mut at = 0;
        while at < places.len() {
            let name = places[at].name(text);
            let same = places[at..]
                .iter()
                .take_while(|place| place.name(text) == name);
            let count = same.count();
            for place in &mut places[at..at + count] {
                place.times = u32::try_from(count).unwrap_or(u32::MAX);
            }
            at += count;
        }
        self.list
    }

    /// Finds ids that stand under more than one name; nobody can say which row is right.
    fn mark_twins(&mut self) {
        let List {
            text,
            places,
            twins,
            ..
        } = &mut self.list;
        self.ids.sort_unstable();
        for same in self.ids.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)) {
            if same.len() == 1 {
                continue;
            }
            let mut names: Vec<&[u8]> = same
                .iter()
                .filter_map(|(.., row)| Some(places.get(*row as usize)?.name(text)))
                .collect();
            names.sort_unstable();
            names.dedup();
            if names.len() == 1 {
                continue;
            }
            let some: Vec<_> = names
                .iter()
                .take(3)
                .map(|name| String::from_utf8_lossy(name))
                .collect();
            let reason = some.join(", ");
            for (.., row) in same {
                if let Some(place) = places.get_mut(*row as usize) {
                    place.twin = u32::try_from(twins.len()).unwrap_or(ALONE);
                }
            }
            twins.push(reason);
        }
    }
}

impl Place {
    fn name<'a>(&self, text: &'a [u8]) -> &'a [u8] {
        &text[self.start..self.start + usize::from(self.name)]
    }
}

impl List {
    /// The row at a place in the order of names, as a line of JSON; `None` after the last.
    pub(super) fn line(&self, at: usize) -> Option<Cow<'_, [u8]>> {
        let place = self.places.get(at)?;
        let json = place.start + usize::from(place.name);
        let json = &self.text[json..json + place.json as usize];
        let name = String::from_utf8_lossy(place.name(&self.text));
        let reason = if place.times > 1 {
            format!("the name {name} stands in {} rows", place.times)
        } else if let Some(names) = self.twins.get(place.twin as usize) {
            let id = match serde_json::from_slice(json) {
                Ok(Item::Row(_, entry)) => entry.id.map_or_else(String::new, |id| id.to_string()),
                _ => String::new(),
            };
            format!("the id {id} stands under more than one name: {names}")
        } else {
            return Some(Cow::Borrowed(json));
        };
        let refused = Item::Refused(RefusedRow {
            number: u64::from(place.number),
            name: name.parse::<Name>().ok(),
            reason,
        });
        Some(Cow::Owned(serde_json::to_vec(&refused).unwrap_or_default()))
    }
}
