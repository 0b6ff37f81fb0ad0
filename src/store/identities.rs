//! Reads identities: by name, in pages, and as the engine wants them, the most pressing first.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Row, params};

use super::{
    aside::{RowKind, is_unreadable},
    columns,
    db::Db,
    declarations::Declaration,
    error::{Fault, Outcome, StoreError},
    idmap::{self, IdLine},
    seal::Place,
};
use crate::model::{
    Due, IdentityId, Name, Num, Reader, Record, ResourceName, Secret, State, Timestamp,
    TokenDocument, TokenMeta, Version,
};

/// The columns that a [`Record`] is read from.
macro_rules! record_columns {
    () => {
        "i.num, i.name, r.name AS resource, i.origin, i.state, i.id, i.version, i.due_at, i.due_why, \
         i.late_at, i.late_notified, i.failures, i.issued_at, i.expires_at, i.minted_by, i.revoked_at, \
         (i.good_until = 0 AND i.expires_at IS NOT NULL) AS revoked, \
         coalesce(i.good_until < 0, 0) AS doubted, i.attempts, i.wish, i.failing_since"
    };
}

/// The same with the order of the joins.
macro_rules! select_record {
    ($rest:literal) => {
        concat!(
            "SELECT ",
            $crate::store::identities::record_columns!(),
            " FROM identity i LEFT JOIN resource r ON r.num = i.resource ",
            $rest
        )
    };
}

pub(super) use record_columns;
pub(super) use select_record;

/// A document and whom it is for.
#[derive(Debug, Clone, PartialEq)]
pub struct Consignment {
    /// What the consumer should hold.
    pub document: TokenDocument,
    /// Who may read it.
    pub readers: Vec<Reader>,
    /// Whether its token was revoked and the successor is still to come.
    pub revoked: bool,
}

/// What a name leads to.
#[derive(Debug, Clone, PartialEq)]
pub enum Led {
    /// An identity.
    There(Box<Record>),
    /// There is none of this name; the readers of another, to be looked at with the same work.
    Nowhere(Option<Vec<Reader>>),
}

impl Consignment {
    /// Why its token may not be delivered or put back, if it was revoked: what consumers hold stays until
    /// the successor comes.
    pub fn revoked(&self) -> Option<&'static str> {
        (self.document.token.is_some() && self.revoked)
            .then_some("the token was revoked before it could be delivered")
    }
}

/// The two queues of a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Rows with an id, which wait for a token.
    Issue,
    /// Rows without one, which wait to be created.
    Create,
}

impl Db {
    pub(super) fn record(&self, name: &str) -> Outcome<Option<Record>> {
        let sql = select_record!("WHERE i.name = ?1");
        Ok(self.one(RowKind::Identity, sql, [name], read_record)?)
    }

    /// What these names lead to. Where there is no such identity another is read in its place, so that an
    /// answer takes the same work whether there is one or not.
    pub(super) fn led_to(&self, names: &[Name]) -> Outcome<Vec<Led>> {
        let next = select_record!("WHERE i.name >= ?1 ORDER BY i.name LIMIT 1");
        let first = select_record!("WHERE i.name >= '' AND ?1 = ?1 ORDER BY i.name LIMIT 1");
        let mut led = Vec::with_capacity(names.len());
        for name in names {
            let mut found = self.one(RowKind::Identity, next, [name.as_str()], read_record);
            if matches!(found, Ok(None)) {
                found = self.one(RowKind::Identity, first, [name.as_str()], read_record);
            }
            led.push(match found {
                Ok(Some(record)) if record.spec.name == *name => Led::There(Box::new(record)),
                Ok(found) => Led::Nowhere(found.map(|other| other.spec.readers)),
                // It may be this one or the next that cannot be read.
                Err(error) if is_unreadable(&error) => match self.record(name.as_str())? {
                    Some(record) => Led::There(Box::new(record)),
                    None => Led::Nowhere(None),
                },
                Err(error) => return Err(error.into()),
            });
        }
        Ok(led)
    }

    /// Identities by name; those that cannot be read are passed over.
    pub(super) fn records(&self, names: &[Name]) -> Outcome<Vec<Record>> {
        let mut records = Vec::with_capacity(names.len());
        for name in names {
            match self.record(name.as_str()) {
                Err(fault) if fault.is_unreadable() => {}
                record => records.extend(record?),
            }
        }
        Ok(records)
    }

    pub(super) fn record_of(&self, num: Num) -> rusqlite::Result<Option<Record>> {
        let sql = select_record!("WHERE i.num = ?1");
        self.one(RowKind::Identity, sql, [num], read_record)
    }

    /// The records of these rows, in order, at most `limit`; those that cannot be read are passed over.
    fn records_of(&self, nums: &[Num], limit: usize) -> Outcome<Vec<Record>> {
        let mut records = Vec::new();
        for num in nums {
            if records.len() == limit {
                break;
            }
            match self.record_of(*num) {
                Ok(record) => records.extend(record),
                Err(error) if is_unreadable(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(records)
    }

    pub(super) fn list(&self, after: &str, limit: usize) -> Outcome<Vec<Record>> {
        let sql = select_record!("WHERE i.name > ?1 ORDER BY i.name");
        Ok(self.page(RowKind::Identity, limit, sql, [after], read_record)?)
    }

    /// The rows that are due, earliest end of life first; rows without a good token before all.
    pub(super) fn due(
        &self,
        resource: &str,
        (work, alone): (Work, bool),
        now: Timestamp,
        limit: usize,
        skip: &BTreeSet<Num>,
    ) -> Outcome<Vec<Record>> {
        let resource = self.resource_num(resource)?;
        let mut skip = self.and_set_aside(skip);
        loop {
            let most = limit.saturating_add(skip.len());
            let params = params![
                resource,
                columns::micros(now),
                count(most),
                work == Work::Create,
                alone
            ];
            let found = self.all(RowKind::Identity, DUE, params, |row| row.get::<_, Num>(0))?;
            let full = found.len() >= most;
            let nums: Vec<Num> = found
                .into_iter()
                .filter(|num| !skip.contains(num))
                .collect();
            let records = self.records_of(&nums, limit)?;
            // A page of rows that cannot be read hides nobody behind it.
            if !records.is_empty() || !full {
                return Ok(records);
            }
            skip.extend(nums);
        }
    }

    /// These rows and those that were set aside.
    fn and_set_aside(&self, skip: &BTreeSet<Num>) -> BTreeSet<Num> {
        let mut skip = skip.clone();
        skip.extend(self.aside.nums(RowKind::Identity));
        skip
    }

    /// Rows that failed and wait for their next attempt, the earliest first.
    pub(super) fn failing(
        &self,
        resource: &str,
        now: Timestamp,
        limit: usize,
    ) -> Outcome<Vec<Record>> {
        let sql = select_record!(
            "WHERE i.failures > 0 AND i.resource = ?1 AND i.due_at > ?2 ORDER BY i.due_at"
        );
        let params = params![self.resource_num(resource)?, columns::micros(now)];
        Ok(self.page(RowKind::Identity, limit, sql, params, read_record)?)
    }

    /// The earliest due time of those that are not to be skipped.
    pub(super) fn next_due(
        &self,
        resource: &str,
        (work, alone): (Work, bool),
        skip: &BTreeSet<Num>,
    ) -> Outcome<Option<Timestamp>> {
        let skip = self.and_set_aside(skip);
        let params = params![self.resource_num(resource)?, work == Work::Create, alone];
        let heads = self.some(RowKind::Identity, 1, NEXT_DUE, params, |row| {
            let at = columns::instant_in(row, "due_at")?;
            Ok((!skip.contains(&row.get("num")?)).then_some(at))
        })?;
        Ok(heads.first().copied())
    }

    /// The newest document of a row, and its readers.
    pub(super) fn consignment(&self, num: Num) -> Outcome<Option<Consignment>> {
        let sql = "SELECT i.*, r.name AS resource_name FROM identity i \
                   LEFT JOIN resource r ON r.num = i.resource WHERE i.num = ?1";
        let found = self.first(sql, [num], |row| {
            let read = self.read_consignment(row);
            if let Err(fault) = &read {
                self.note_consignment(row, fault);
            }
            Ok(read)
        })?;
        found.transpose()
    }

    /// Notes a row whose document cannot be read.
    pub(super) fn note_consignment(&self, row: &Row<'_>, fault: &Fault) {
        match fault {
            Fault::Sql(error) if is_unreadable(error) => {
                self.aside.note(RowKind::Identity, row, error)
            }
            Fault::Unseal(name) => {
                let reason = StoreError::Unseal { name: name.clone() }.to_string();
                if let Ok(num) = row.get("num") {
                    self.aside
                        .note_num(RowKind::Token, num, Some(name.clone()), reason);
                }
            }
            Fault::Sql(_) | Fault::Refused(_) | Fault::File(..) | Fault::Told(_) => {}
        }
    }

    pub(super) fn num_of(&self, name: &str) -> Outcome<Option<Num>> {
        let sql = "SELECT num FROM identity WHERE name = ?1";
        Ok(self.first(sql, [name], |row| row.get(0))?)
    }

    pub(super) fn read_consignment(&self, row: &Row<'_>) -> Outcome<Consignment> {
        let name: Name = columns::parsed(row, "name")?;
        let version = columns::unsigned(row, "version")?;
        let declaration = read_declaration(row)?;
        let token = match row.get_ref("token")?.as_blob_or_null() {
            Ok(Some(sealed)) => Some(self.unseal(&name, version, sealed)?),
            _ => None,
        };
        Ok(Consignment {
            revoked: row.get::<_, Option<i64>>("good_until")? == Some(0),
            document: TokenDocument {
                resource: columns::parsed(row, "resource_name")?,
                id: columns::maybe_parsed(row, "id")?,
                state: columns::word(row, "state")?,
                token,
                scopes: declaration.scopes,
                issued_at: columns::maybe_instant(row, "issued_at")?,
                expires_at: columns::maybe_instant(row, "expires_at")?,
                renews_at: columns::maybe_instant(row, "renews_at")?,
                version: Version(version),
                kind: columns::word(row, "kind")?,
                name,
            },
            readers: declaration.readers,
        })
    }

    fn unseal(&self, name: &Name, version: u64, sealed: &[u8]) -> Outcome<Secret> {
        let plain = self
            .seal
            .open(token_place(name, version), sealed)
            .map_err(|_| Fault::Unseal(name.clone()))?;
        let text = std::str::from_utf8(&plain).map_err(|_| Fault::Unseal(name.clone()))?;
        Ok(Secret::new(text.to_owned()))
    }

    /// The id of a name, from its row or from the id map.
    pub(super) fn known_id(&self, name: &str) -> Outcome<Option<IdentityId>> {
        let sql = "SELECT id FROM identity WHERE name = ?1 AND id IS NOT NULL \
                   AND (state <> 'deleted' OR removed = 2) \
                   UNION ALL SELECT id FROM remembered WHERE name = ?1";
        Ok(self.first(sql, [name], |row| columns::parsed(row, "id"))?)
    }

    /// Names that only the id map knows.
    pub(super) fn remembered(&self, after: &str, limit: usize) -> Outcome<Vec<IdLine>> {
        let sql = "SELECT * FROM remembered WHERE name > ?1 ORDER BY name";
        Ok(self.page(
            RowKind::RememberedId,
            limit,
            sql,
            [after],
            idmap::read_remembered,
        )?)
    }

    /// How many are late, by resource: of those overdue and those that fail, without a scan.
    pub(super) fn late(&self, now: Timestamp) -> Outcome<BTreeMap<ResourceName, u64>> {
        let rows = self.all(RowKind::Resource, LATE, [columns::micros(now)], |row| {
            Ok((columns::parsed(row, "name")?, columns::unsigned(row, "n")?))
        })?;
        Ok(rows.into_iter().filter(|(_, n)| *n > 0).collect())
    }

    /// The earliest end of a current token, by resource; of those that renew.
    pub(super) fn earliest_expiry(&self) -> Outcome<BTreeMap<ResourceName, Timestamp>> {
        let rows = self.all(RowKind::Resource, EARLIEST_EXPIRY, [], |row| {
            Ok((
                columns::parsed(row, "name")?,
                columns::maybe_instant(row, "at")?,
            ))
        })?;
        Ok(rows
            .into_iter()
            .filter_map(|(name, at)| Some((name, at?)))
            .collect())
    }

    /// Those that need a person: late ones, failing ones and those without a token for long.
    pub(super) fn troubled(&self, now: Timestamp, limit: usize) -> Outcome<Vec<Record>> {
        let skip = self.and_set_aside(&BTreeSet::new());
        let params = params![
            columns::micros(now),
            count(limit.saturating_add(skip.len()))
        ];
        let nums = self.all(RowKind::Identity, TROUBLED, params, |row| {
            row.get::<_, Num>(0)
        })?;
        let nums: Vec<Num> = nums.into_iter().filter(|num| !skip.contains(num)).collect();
        self.records_of(&nums, limit)
    }
}

/// Identities of one resource that fail by themselves, while others succeed.
#[derive(Debug, Clone, PartialEq)]
pub struct FailingAlone {
    /// How many.
    pub count: u64,
    /// Since when the first of them does.
    pub since: Timestamp,
    /// Those that have for the longest.
    pub some: Vec<Record>,
}

impl Db {
    /// Those that fail by themselves, by resource; of each some are named.
    pub(super) fn failing_alone(
        &self,
        limit: usize,
    ) -> Outcome<BTreeMap<ResourceName, FailingAlone>> {
        let counted = self.all(RowKind::Resource, FAILING_ALONE, [], |row| {
            let failing = FailingAlone {
                count: columns::unsigned(row, "n")?,
                since: columns::instant_in(row, "since")?,
                some: Vec::new(),
            };
            Ok((
                row.get::<_, Num>("num")?,
                columns::parsed(row, "name")?,
                failing,
            ))
        })?;
        let mut all = BTreeMap::new();
        for (resource, name, mut failing) in counted {
            let params = params![resource, count(limit)];
            let nums = self.all(RowKind::Identity, LONGEST_FAILING, params, |row| {
                row.get::<_, Num>("num")
            })?;
            failing.some = self.records_of(&nums, limit)?;
            all.insert(name, failing);
        }
        Ok(all)
    }
}

pub(super) const FAILING_ALONE: &str = "SELECT r.num, r.name, count(*) AS n, min(i.failing_since) AS since \
    FROM resource r CROSS JOIN identity i INDEXED BY identity_alone ON i.resource = r.num \
    AND i.failing_since IS NOT NULL GROUP BY r.num";
pub(super) const LONGEST_FAILING: &str = "SELECT num FROM identity INDEXED BY identity_alone WHERE resource = ?1 \
    AND failing_since IS NOT NULL ORDER BY failing_since LIMIT ?2";

/// Renewals that are late go before all; then rows without a good token, then the earliest end.
pub(super) const DUE: &str = "SELECT num FROM identity WHERE resource = ?1 AND (id IS NULL) = ?4 AND due_at <= ?2 \
    AND (failing_since IS NOT NULL) = ?5 \
    ORDER BY (good_until > 0 AND late_at <= ?2) DESC, good_until, due_at, num LIMIT ?3";
pub(super) const NEXT_DUE: &str = "SELECT due_at, num FROM identity WHERE resource = ?1 AND (id IS NULL) = ?2 \
    AND (failing_since IS NOT NULL) = ?3 AND due_at IS NOT NULL ORDER BY due_at";
/// Whatever is late is overdue, or failed and waits for its next attempt.
pub(super) const LATE: &str = "SELECT r.num, r.name, \
    (SELECT count(*) FROM identity i WHERE i.resource = r.num AND (i.id IS NULL) IN (0, 1) AND i.due_at <= ?1 AND i.late_at <= ?1) \
    + (SELECT count(*) FROM identity i WHERE i.resource = r.num AND i.failures > 0 AND i.due_at > ?1 \
       AND i.late_at <= ?1) AS n FROM resource r";
pub(super) const EARLIEST_EXPIRY: &str = "SELECT r.num, r.name, (SELECT min(iif(i.good_until < 0, \
    i.good_until + (1 << 60), i.good_until)) FROM identity i WHERE i.resource = r.num AND i.due_at IS NOT NULL \
    AND i.good_until <> 0) AS at FROM resource r";
pub(super) const TROUBLED: &str = "SELECT num FROM ( \
    SELECT i.num, i.good_until FROM resource r CROSS JOIN identity i \
    ON i.resource = r.num AND (i.id IS NULL) IN (0, 1) AND i.due_at <= ?1 AND i.late_at <= ?1 \
    UNION SELECT i.num, i.good_until FROM resource r CROSS JOIN identity i INDEXED BY identity_failing \
    ON i.resource = r.num WHERE i.failures > 0) \
    ORDER BY good_until, num LIMIT ?2";

/// Where the token of a row is sealed.
pub(super) fn token_place(name: &Name, version: u64) -> Place<'_> {
    Place {
        table: "identity",
        column: "token",
        name: name.as_str(),
        version,
    }
}

/// A limit as SQLite takes it.
pub(super) fn count(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

fn read_declaration(row: &Row<'_>) -> rusqlite::Result<Declaration> {
    let text = row
        .get_ref("wish")?
        .as_str()
        .map_err(|e| columns::broken("wish", e))?;
    Declaration::parse(text).map_err(|e| columns::broken("wish", e))
}

pub(super) fn read_record(row: &Row<'_>) -> rusqlite::Result<Record> {
    let state: State = columns::word(row, "state")?;
    let declaration = read_declaration(row)?;
    let due = columns::maybe_instant(row, "due_at")?
        .zip(columns::maybe_word(row, "due_why")?)
        .map(|(at, why)| Due { at, why });
    let token = columns::maybe_instant(row, "issued_at")?
        .zip(columns::maybe_instant(row, "expires_at")?)
        .map(|(issued_at, expires_at)| {
            Ok::<_, rusqlite::Error>(TokenMeta {
                issued_at,
                expires_at,
                minted_by: row
                    .get::<_, Option<String>>("minted_by")?
                    .unwrap_or_default(),
            })
        })
        .transpose()?;
    Ok(Record {
        num: row.get("num")?,
        spec: declaration.into_spec(
            columns::parsed(row, "name")?,
            columns::parsed(row, "resource")?,
            columns::word(row, "origin")?,
        ),
        id: columns::maybe_parsed(row, "id")?,
        state,
        version: Version(columns::unsigned(row, "version")?),
        token,
        due,
        late_at: columns::maybe_instant(row, "late_at")?,
        attempts: columns::unpacked(row, "attempts")?,
        failures: row.get("failures")?,
        failing_since: columns::maybe_instant(row, "failing_since")?,
        revoked_at: columns::maybe_instant(row, "revoked_at")?,
        revoked: row.get("revoked")?,
        doubted: row.get("doubted")?,
        late_notified: row.get("late_notified")?,
    })
}
