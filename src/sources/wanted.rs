//! A source's list: rows become identities as they are wanted, or are refused with a reason.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{
    config::{Renewal, SourceSettings},
    model::{Entry, EntryError, IdentityId, Name, Origin, RefusedRow, Spec},
};

/// The most rows that a source may list.
pub(super) const MOST_ROWS: usize = 1_000_000;

/// A row with its place in the list, from 1.
pub(super) type Row = (u64, Result<Entry, EntryError>);

/// What a source lists.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Listing {
    /// Rows that were read.
    pub rows: u64,
    /// The identities, in the order of the list.
    pub specs: Vec<Spec>,
    /// Rows that cannot be identities.
    pub refused: Vec<RefusedRow>,
}

impl Listing {
    /// Checks rows, each for itself and against the others.
    pub(super) fn of(rows: Vec<Row>, settings: &SourceSettings) -> Self {
        let mut listing = Self {
            rows: rows.len() as u64,
            ..Self::default()
        };
        let mut good = Vec::with_capacity(rows.len());
        for (number, row) in rows {
            let spec = row.and_then(|entry| {
                let name = entry.name.clone();
                spec(entry, settings).map_err(|reason| EntryError {
                    name: Some(name),
                    reason,
                })
            });
            match spec {
                Ok(spec) => good.push((number, spec)),
                Err(error) => listing.refuse(number, error.name, error.reason),
            }
        }
        let twice = Twice::among(&good);
        for (number, spec) in good {
            match twice.reason(&spec) {
                Some(reason) => listing.refuse(number, Some(spec.name), reason),
                None => listing.specs.push(spec),
            }
        }
        listing.refused.sort_by_key(|refused| refused.number);
        listing
    }

    /// Names that stand in the list although their row is refused: they are not missing.
    pub fn refused_names(&self) -> BTreeSet<&Name> {
        self.refused
            .iter()
            .filter_map(|row| row.name.as_ref())
            .collect()
    }

    fn refuse(&mut self, number: u64, name: Option<Name>, reason: String) {
        self.refused.push(RefusedRow {
            number,
            name,
            reason,
        });
    }
}

/// Names and ids that stand in more than one row; nobody can say which row is right.
struct Twice {
    names: BTreeMap<Name, u64>,
    ids: BTreeMap<IdentityId, BTreeSet<Name>>,
}

impl Twice {
    fn among(rows: &[(u64, Spec)]) -> Self {
        let mut names: BTreeMap<Name, u64> = BTreeMap::new();
        let mut ids: BTreeMap<IdentityId, BTreeSet<Name>> = BTreeMap::new();
        for (_, spec) in rows {
            *names.entry(spec.name.clone()).or_default() += 1;
            if let Some(id) = &spec.id {
                ids.entry(id.clone()).or_default().insert(spec.name.clone());
            }
        }
        names.retain(|_, times| *times > 1);
        ids.retain(|_, names| names.len() > 1);
        Self { names, ids }
    }

    fn reason(&self, spec: &Spec) -> Option<String> {
        if let Some(times) = self.names.get(&spec.name) {
            return Some(format!("the name {} stands in {times} rows", spec.name));
        }
        let id = spec.id.as_ref()?;
        let others: Vec<&str> = self.ids.get(id)?.iter().take(3).map(Name::as_str).collect();
        Some(format!(
            "the id {id} stands under more than one name: {}",
            others.join(", ")
        ))
    }
}

fn spec(entry: Entry, settings: &SourceSettings) -> Result<Spec, String> {
    if entry.sinks.is_some() || entry.on_removal.is_some() {
        return Err(
            "sinks and on_removal are for the configuration to say, not for a row".to_owned(),
        );
    }
    if entry
        .resource
        .as_ref()
        .is_some_and(|resource| *resource != settings.resource)
    {
        return Err(format!(
            "this source is for the resource {}",
            settings.resource
        ));
    }
    let scopes = entry.scopes.unwrap_or_else(|| settings.scopes.clone());
    if scopes.is_empty() {
        return Err("it says no scopes, and neither does the source".to_owned());
    }
    let Renewal {
        lifetime,
        renew_at,
        spread,
    } = settings.renewal;
    let mut labels = settings.labels.clone();
    labels.extend(entry.labels);
    Ok(Spec {
        name: entry.name,
        resource: settings.resource.clone(),
        id: entry.id,
        scopes,
        lifetime: entry.lifetime_seconds.map_or(lifetime, Duration::from_secs),
        renew_at,
        spread,
        labels,
        readers: entry.readers.unwrap_or_else(|| settings.readers.clone()),
        sinks: settings.sinks.clone(),
        on_removal: settings.on_removal,
        origin: Origin::Source(settings.name.clone()),
    })
}
