//! Reads identities and what their consumers should hold: by name, by row, in pages.

use super::{
    Each, Store,
    aside::RowKind,
    db::{self, Db, in_order, listed},
    error::{Answer, Fault, Outcome, StoreError},
    seal::SealPlace,
};
use crate::{
    model::{
        Declaration, Due, Kind, Name, Num, Reader, Record, Secret, Spec, State, TokenDocument,
        TokenMeta, Version,
    },
    sql::{self, Column, Row, SqlError},
};

/// The columns that a [`Record`] is read from.
macro_rules! record_columns {
    () => {
        "i.num, i.name, r.name AS resource, i.origin, i.state, i.id, i.version, i.due_at, i.due_why, \
         i.late_at, i.late_notified, i.failures, i.issued_at, i.expires_at, i.minted_by, i.revoked_at, \
         (i.good_until = 0 AND i.expires_at IS NOT NULL) AS revoked, \
         coalesce(i.good_until < 0, FALSE) AS doubted, i.attempts, i.wish, i.failing_since, \
         coalesce(i.next_kind = 'reissued', FALSE) AS known_dead"
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
    /// Whether its token is not to be used any more, and the successor is still to come.
    pub revoked: bool,
    /// Whether that is known to be dead, as ACS revoked it.
    pub is_known_dead: bool,
}

/// A row and what its consumers should hold, both of one version.
#[derive(Debug, Clone)]
pub struct Holding {
    pub record: Record,
    /// What a consumer should hold, with the token.
    pub document: TokenDocument,
}

/// What a name leads to.
#[derive(Debug, Clone, PartialEq)]
pub enum Led {
    There(Box<Record>),
    /// There is none of this name; the readers of another, to be looked at with the same work.
    Nowhere(Option<Vec<Reader>>),
}

impl Consignment {
    /// Why it may not be delivered or put back, if its token was revoked or is not stored any more: what consumers hold
    /// stays until the successor comes.
    pub fn awaits_successor(&self) -> Option<&'static str> {
        match &self.document.token {
            Some(_) if self.revoked && self.is_known_dead => {
                Some("the token was revoked before it could be delivered")
            }
            Some(_) if self.revoked => {
                Some("it is not known whether the token lives, and its successor is still to come")
            }
            None if self.has_lost_its_token() => {
                Some("its token is not stored any more, and the successor is still to come")
            }
            _ => None,
        }
    }

    /// Whether consumers may hold a live token that the store cannot give them again: it was dropped with the seal key
    /// that was lost, or is of unknown standing since the store was restored.
    pub fn has_lost_its_token(&self) -> bool {
        let unknown = self.document.token.is_none() || self.revoked && !self.is_known_dead;
        self.document.state == State::Active && unknown
    }
}

impl Store {
    /// An identity by name.
    pub async fn record(&self, name: &Name) -> Answer<Option<Record>> {
        let name = name.clone();
        self.read_mirrored("look an identity up", vec![name.clone()], move |db| {
            db.record(name.as_str())
        })
        .await
    }

    /// What each of these names leads to, by the same work whether it leads anywhere.
    pub async fn led_to(&self, names: Vec<Name>) -> Answer<Vec<Led>> {
        self.read_mirrored("look identities up", names.clone(), move |db| {
            let next = select_record!("WHERE i.name >= ?1 ORDER BY i.name LIMIT 1");
            let first = select_record!(
                "WHERE i.name >= '' AND CAST(?1 AS TEXT) = ?1 ORDER BY i.name LIMIT 1"
            );
            let mut led = Vec::with_capacity(names.len());
            for name in &names {
                let mut found = db.one(RowKind::Identity, next, [name.as_str()], read_record);
                if matches!(found, Ok(None)) {
                    found = db.one(RowKind::Identity, first, [name.as_str()], read_record);
                }
                led.push(match found {
                    Ok(Some(record)) if record.spec.name == *name => Led::There(Box::new(record)),
                    Ok(found) => Led::Nowhere(found.map(|other| other.spec.declared.readers)),
                    // It may be this one or the next that cannot be read.
                    Err(error) if error.is_unreadable() => match db.record(name.as_str())? {
                        Some(record) => Led::There(Box::new(record)),
                        None => Led::Nowhere(None),
                    },
                    Err(error) => return Err(error.into()),
                });
            }
            Ok(led)
        })
        .await
    }

    /// Identities by name; those that do not exist or cannot be read are left out.
    pub async fn records(&self, names: &[Name]) -> Answer<Vec<Record>> {
        let names = names.to_vec();
        self.read_mirrored("look identities up", names.clone(), move |db| {
            db.records(&names)
        })
        .await
    }

    /// An identity by its row.
    pub async fn record_of(&self, num: Num) -> Answer<Option<Record>> {
        self.read_mirrored("look an identity up", Vec::new(), move |db| {
            Ok(db.record_of(num)?)
        })
        .await
    }

    /// A page of identities in the order of their names.
    pub async fn list(&self, after: Option<&Name>, limit: usize) -> Answer<Vec<Record>> {
        let after = after.map_or(String::new(), ToString::to_string);
        self.read_mirrored("list identities", Vec::new(), move |db| {
            db.list(&after, limit)
        })
        .await
    }

    /// The document and the readers of a row, in one read.
    pub async fn consignment(&self, num: Num) -> Answer<Option<Consignment>> {
        self.read_mirrored("read a token", Vec::new(), move |db| db.consignment(num))
            .await
    }

    /// The same of many rows, each answered by itself.
    pub async fn consignments(&self, nums: Vec<Num>) -> Answer<Each<Option<Consignment>>> {
        let doing = "read a token";
        self.read_mirrored(doing, Vec::new(), move |db| {
            let read = |num: &Num| db.consignment(*num);
            let each = nums.iter().map(read);
            Ok(each
                .map(|found| found.map_err(|fault| StoreError::new(doing, fault)))
                .collect())
        })
        .await
    }

    /// Holdings by name; those that do not exist or cannot be read are left out.
    pub async fn holdings(&self, names: Vec<Name>) -> Answer<Vec<Holding>> {
        self.read_mirrored("read tokens", names.clone(), move |db| {
            let _same_state = db.conn.same_state()?;
            let found = db.records(&names)?;
            db.held(found)
        })
        .await
    }

    /// The same of one, of which it is told why it cannot be read.
    pub async fn holding(&self, name: Name) -> Answer<Option<Holding>> {
        self.read_mirrored("read a token", vec![name.clone()], move |db| {
            let _same_state = db.conn.same_state()?;
            let Some(record) = db.records(std::slice::from_ref(&name))?.pop() else {
                return Ok(None);
            };
            let found = db.consignment(record.num)?;
            Ok(found.map(|Consignment { document, .. }| Holding { record, document }))
        })
        .await
    }

    /// A page of holdings in the order of their names; none only at the end.
    pub async fn holdings_page(&self, after: Option<&Name>, limit: usize) -> Answer<Vec<Holding>> {
        let after = after.map_or(String::new(), ToString::to_string);
        self.read_mirrored("read tokens", Vec::new(), move |db| {
            let _same_state = db.conn.same_state()?;
            let mut after = after.clone();
            loop {
                let found = db.list(&after, limit)?;
                let Some(last) = found.last() else {
                    return Ok(Vec::new());
                };
                after = last.spec.name.to_string();
                let held = db.held(found)?;
                if !held.is_empty() {
                    return Ok(held);
                }
            }
        })
        .await
    }
}

impl Db {
    pub(super) fn record(&self, name: &str) -> Outcome<Option<Record>> {
        let sql = select_record!("WHERE i.name = ?1");
        Ok(self.one(RowKind::Identity, sql, [name], read_record)?)
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

    pub(super) fn record_of(&self, num: Num) -> sql::Result<Option<Record>> {
        let sql = select_record!("WHERE i.num = ?1");
        self.one(RowKind::Identity, sql, [num], read_record)
    }

    /// The records of these rows, in order, at most `limit`; those that cannot be read are passed over.
    pub(super) fn records_of(&self, nums: &[Num], limit: usize) -> Outcome<Vec<Record>> {
        let list = [db::list(nums)];
        Ok(self.page(RowKind::Identity, limit, RECORDS_OF, list, read_record)?)
    }

    pub(super) fn list(&self, after: &str, limit: usize) -> Outcome<Vec<Record>> {
        let sql = select_record!("WHERE i.name > ?1 ORDER BY i.name");
        Ok(self.page(RowKind::Identity, limit, sql, [after], read_record)?)
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

    pub(super) fn held(&self, records: Vec<Record>) -> Outcome<Vec<Holding>> {
        let mut holdings = Vec::with_capacity(records.len());
        for record in records {
            // One that cannot be read is noted, and keeps nobody else from being told.
            match self.consignment(record.num) {
                Ok(Some(Consignment { document, .. })) => {
                    holdings.push(Holding { record, document })
                }
                Ok(None) | Err(Fault::Unseal(_)) => {}
                Err(fault) if fault.is_unreadable() => {}
                Err(fault) => return Err(fault),
            }
        }
        Ok(holdings)
    }

    /// Notes a row whose document cannot be read.
    pub(super) fn note_consignment(&self, row: &Row<'_>, fault: &Fault) {
        match fault {
            Fault::Sql(error) if error.is_unreadable() => {
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
        let name: Name = db::parsed(row, "name")?;
        let version = db::unsigned(row, "version")?;
        let declaration = read_declaration(row, "wish")?;
        let token = match row.get_ref("token")?.as_blob_or_null() {
            Ok(Some(sealed)) => Some(self.unseal(&name, version, sealed)?),
            _ => None,
        };
        Ok(Consignment {
            revoked: row.get::<_, Option<i64>>("good_until")? == Some(0),
            // Only a revocation says so of the token to come.
            is_known_dead: row.get::<_, Option<String>>("next_kind")?.as_deref()
                == Some(Kind::Reissued.as_str()),
            document: TokenDocument {
                resource: db::parsed(row, "resource_name")?,
                id: db::maybe_parsed(row, "id")?,
                state: db::word(row, "state")?,
                token,
                scopes: declaration.scopes,
                issued_at: db::maybe_instant(row, "issued_at")?,
                expires_at: db::maybe_instant(row, "expires_at")?,
                renews_at: db::maybe_instant(row, "renews_at")?,
                version: Version(version),
                kind: db::word(row, "kind")?,
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
}

/// Many rows by one statement, in the order of the list.
pub(super) const RECORDS_OF: &str = concat!(
    "SELECT ",
    record_columns!(),
    " FROM ",
    listed!("?1"),
    " j CROSS JOIN identity i ON i.num = j.value LEFT JOIN resource r ON r.num = i.resource",
    in_order!("j")
);

/// Where the token of a row is sealed.
pub(super) fn token_place(name: &Name, version: u64) -> SealPlace<'_> {
    SealPlace {
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

fn read_declaration(row: &Row<'_>, column: impl Column) -> sql::Result<Declaration> {
    let text = row
        .get_ref(column.place(row)?)?
        .as_str()
        .map_err(|e| SqlError::unreadable("wish", e))?;
    Declaration::parse(text).map_err(|e| SqlError::unreadable("wish", e))
}

/// The columns in the order of `record_columns`.
pub(super) fn read_record(row: &Row<'_>) -> sql::Result<Record> {
    let state: State = db::word(row, 4)?;
    let due = db::maybe_instant(row, 7)?
        .zip(db::maybe_word(row, 8)?)
        .map(|(at, why)| Due { at, why });
    let token = db::maybe_instant(row, 12)?
        .zip(db::maybe_instant(row, 13)?)
        .map(|(issued_at, expires_at)| {
            Ok::<_, SqlError>(TokenMeta {
                issued_at,
                expires_at,
                minted_by: row.get::<_, Option<String>>(14)?.unwrap_or_default(),
            })
        })
        .transpose()?;
    Ok(Record {
        num: row.get(0)?,
        spec: Spec {
            name: db::parsed(row, 1)?,
            resource: db::parsed(row, 2)?,
            declared: read_declaration(row, 19)?,
            origin: db::word(row, 3)?,
        },
        id: db::maybe_parsed(row, 5)?,
        state,
        version: Version(db::unsigned(row, 6)?),
        token,
        due,
        late_at: db::maybe_instant(row, 9)?,
        attempts: db::attempts(row, 18)?,
        failures: row.get(11)?,
        failing_since: db::maybe_instant(row, 20)?,
        revoked_at: db::maybe_instant(row, 15)?,
        revoked: row.get(16)?,
        known_dead: row.get(21)?,
        doubted: row.get(17)?,
        late_notified: row.get(10)?,
    })
}
