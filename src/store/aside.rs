//! Rows that are set aside because they cannot be read. Whoever meets one passes it over and notes it here, so that
//! it stops nobody, is logged once, and is shown until it can be read again or is gone.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
};

use crate::{
    model::{CampaignId, Name, Num, SetAside},
    sql::{Row, SqlError, ValueRef},
};

/// Of so many rows it is remembered what is wrong with each; of more only which they are, as far as they have numbers.
const REMEMBERED: usize = if cfg!(test) { 100 } else { 10_000 };
/// So many are named.
const NAMED: usize = 20;

/// What a row is, and which columns of a query tell it from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum RowKind {
    Identity,
    Token,
    RememberedId,
    Intent,
    Orphan,
    Delivery,
    Stray,
    Sink,
    Resource,
    Reservation,
    Notice,
    AuditEntry,
    Campaign,
    CampaignItem,
    Job,
    JobRun,
    Source,
    SourceRow,
    KeyChange,
    DoubtedKey,
    KeyItem,
    Holder,
    TokenRead,
    Counter,
}

impl RowKind {
    /// In a word, for people.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Token => "token",
            Self::RememberedId => "remembered id",
            Self::Intent => "intended creation",
            Self::Orphan => "orphan",
            Self::Delivery => "delivery",
            Self::Stray => "file left behind",
            Self::Sink => "sink",
            Self::Resource => "resource",
            Self::Reservation => "reservation",
            Self::Notice => "notice",
            Self::AuditEntry => "audit entry",
            Self::Campaign => "campaign",
            Self::CampaignItem => "campaign item",
            Self::Job => "job",
            Self::JobRun => "job run",
            Self::Source => "source",
            Self::SourceRow => "source row",
            Self::KeyChange => "key change",
            Self::DoubtedKey => "doubted key",
            Self::KeyItem => "key change item",
            Self::Holder => "consumer",
            Self::TokenRead => "count of reads",
            Self::Counter => "counter",
        }
    }

    /// The table and the columns of its key, by the names that queries give them.
    fn key(self) -> (&'static str, &'static [&'static str]) {
        match self {
            Self::Identity | Self::Token => ("identity", &["num"]),
            Self::RememberedId => ("remembered", &["name"]),
            Self::Intent => ("intent", &["identity"]),
            Self::Orphan => ("orphan", &["num"]),
            Self::Delivery => ("delivery", &["num", "sink_num"]),
            Self::Stray => ("stray", &["num"]),
            Self::Sink => ("sink", &["num"]),
            Self::Resource => ("resource", &["num"]),
            Self::Reservation => ("reservation", &["num"]),
            Self::Notice => ("notice", &["seq"]),
            Self::AuditEntry => ("audit", &["seq"]),
            Self::Campaign => ("campaign", &["num"]),
            Self::CampaignItem => ("campaign_item", &["campaign", "num"]),
            Self::Job => ("job", &["name"]),
            Self::JobRun => ("job_run", &["num"]),
            Self::Source => ("source", &["num"]),
            Self::SourceRow => ("source_row", &["source", "name"]),
            Self::KeyChange => ("key_change", &["num"]),
            Self::DoubtedKey => ("doubted_key", &["resource", "fingerprint"]),
            Self::KeyItem => ("key_item", &["change", "identity"]),
            Self::Holder => ("holder", &["identity", "uid", "client"]),
            Self::TokenRead => ("token_read", &["hour", "name", "uid"]),
            Self::Counter => ("identity_count", &["resource", "state"]),
        }
    }
}

/// One row, as it is told from others.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Which {
    kind: RowKind,
    key: String,
}

#[derive(Debug)]
struct Found {
    num: Option<Num>,
    name: Option<Name>,
    /// It has a name that cannot be read.
    nameless: bool,
    reason: String,
    /// The look at everything in which it was last met.
    seen: u64,
}

/// The rows that were set aside; one list for all connections.
#[derive(Debug, Default)]
pub(super) struct Aside(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    look: u64,
    rows: BTreeMap<Which, Found>,
    more: BTreeMap<RowKind, Numbers>,
}

/// Rows beyond those that are remembered, by their numbers alone.
#[derive(Debug, Default)]
struct Numbers {
    met: BTreeSet<Num>,
    /// Not met since the look at everything began, if one goes on.
    before: BTreeSet<Num>,
}

impl Numbers {
    fn all(&self) -> impl Iterator<Item = Num> {
        self.met.union(&self.before).copied()
    }
}

impl Aside {
    /// Notes a row that cannot be read; logged when it is first met.
    pub(super) fn note(&self, kind: RowKind, row: &Row<'_>, error: &SqlError) {
        let (_, columns) = kind.key();
        let key: Vec<String> = columns.iter().map(|column| shown(row, column)).collect();
        let num = row.get_ref("num").ok().and_then(|v| v.as_i64().ok());
        let name = row
            .get_ref("name")
            .ok()
            .map(|v| v.as_str().ok().and_then(|name| name.parse().ok()));
        let found = Found {
            num,
            nameless: name == Some(None),
            name: name.flatten(),
            reason: error.plain(),
            seen: 0,
        };
        self.keep(kind, key.join("/"), found);
    }

    /// Notes a row that is known by its number.
    pub(super) fn note_num(&self, kind: RowKind, num: Num, name: Option<Name>, reason: String) {
        let found = Found {
            num: Some(num),
            name,
            nameless: false,
            reason,
            seen: 0,
        };
        self.keep(kind, num.to_string(), found);
    }

    fn keep(&self, kind: RowKind, key: String, mut found: Found) {
        let mut inner = self.lock();
        found.seen = inner.look;
        let which = Which { kind, key };
        if let Some(known) = inner.rows.get_mut(&which) {
            // Not every query reads the name.
            found.name = found.name.or(known.name.take());
            found.nameless |= known.nameless && found.name.is_none();
            *known = found;
            return;
        }
        if inner.rows.len() >= REMEMBERED {
            if let Some(num) = found.num {
                inner.more.entry(kind).or_default().met.insert(num);
            }
            return;
        }
        tracing::error!(
            what = kind.word(),
            table = kind.key().0,
            row = which.key,
            name = found.name.as_ref().map(Name::as_str),
            "a row of the store cannot be read and is set aside: {}",
            found.reason
        );
        if let (Some(more), Some(num)) = (inner.more.get_mut(&kind), found.num) {
            more.met.remove(&num);
            more.before.remove(&num);
        }
        inner.rows.insert(which, found);
    }

    /// The numbers of rows of a kind that were set aside: who takes rows in order passes them over.
    pub(super) fn nums(&self, kind: RowKind) -> Vec<Num> {
        let inner = self.lock();
        let of_kind = inner.rows.iter().filter(|(which, _)| which.kind == kind);
        let more = inner.more.get(&kind).into_iter().flat_map(Numbers::all);
        let remembered = of_kind.filter_map(|(_, found)| found.num);
        remembered.chain(more).collect()
    }

    /// Whether a row of an identity is set aside whose name cannot be read.
    pub(super) fn hides_a_name(&self) -> bool {
        let inner = self.lock();
        let mut rows = inner.rows.iter();
        rows.any(|(which, found)| which.kind == RowKind::Identity && found.nameless)
    }

    /// The items of campaigns that were set aside; `None` for one whose row is not known.
    pub(super) fn items(&self) -> Vec<(CampaignId, Option<Num>)> {
        let inner = self.lock();
        let items = inner
            .rows
            .iter()
            .filter(|(which, _)| which.kind == RowKind::CampaignItem);
        items
            .filter_map(|(which, found)| {
                let (campaign, _) = which.key.split_once('/')?;
                Some((campaign.parse().ok()?, found.num))
            })
            .collect()
    }

    /// A look at everything begins.
    pub(super) fn begin_look(&self) {
        let mut inner = self.lock();
        inner.look += 1;
        for Numbers { met, before } in inner.more.values_mut() {
            before.append(met);
        }
    }

    /// A look at everything has ended: what was not met in it can be read again, or is gone. Whether
    /// there was such a row.
    pub(super) fn end_look(&self) -> bool {
        let mut inner = self.lock();
        let (look, before) = (inner.look, inner.rows.len());
        inner.rows.retain(|_, found| found.seen >= look);
        let mut mended = before - inner.rows.len();
        for Numbers { met, before } in inner.more.values_mut() {
            mended += before.difference(met).count();
            before.clear();
        }
        if mended > 0 {
            tracing::info!(
                rows = mended,
                "rows of the store that were set aside can be read again, or are gone"
            );
        }
        mended > 0
    }

    /// What is set aside, for people.
    pub(super) fn told(&self) -> Vec<SetAside> {
        let inner = self.lock();
        let mut kinds: BTreeMap<RowKind, SetAside> = BTreeMap::new();
        for (which, found) in &inner.rows {
            let (table, _) = which.kind.key();
            let told = kinds.entry(which.kind).or_insert_with(|| SetAside {
                kind: which.kind.word().to_owned(),
                rows: 0,
                names: Vec::new(),
                because: format!("table {table}, row {}: {}", which.key, found.reason),
            });
            told.rows += 1;
            if let Some(name) = found.name.as_ref().filter(|_| told.names.len() < NAMED) {
                told.names.push(name.clone());
            }
        }
        for (kind, more) in &inner.more {
            let Some(first) = more.all().next() else {
                continue;
            };
            let told = kinds.entry(*kind).or_insert_with(|| SetAside {
                kind: kind.word().to_owned(),
                rows: 0,
                names: Vec::new(),
                because: format!("table {}, row {first}: it cannot be read", kind.key().0),
            });
            told.rows += more.all().count() as u64;
        }
        kinds.into_values().collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn shown(row: &Row<'_>, column: &str) -> String {
    match row.get_ref(column) {
        Ok(ValueRef::Integer(number)) => number.to_string(),
        Ok(ValueRef::Real(number)) => number.to_string(),
        Ok(ValueRef::Text(text)) => String::from_utf8_lossy(text).chars().take(80).collect(),
        Ok(ValueRef::Blob(_)) => "(bytes)".to_owned(),
        Ok(ValueRef::Null) => "(nothing)".to_owned(),
        Err(_) => "?".to_owned(),
    }
}
