//! A node's own copy of what it may serve, for the time when the database cannot be reached: who there is, who may
//! read them, and their tokens, sealed as they lie in the database. It is a database file of the same schema, so that
//! whatever reads the store reads the copy as well, by the same texts and the same rules.
//!
//! Only the daemon of its node writes it. It follows the database by what changed since the two agreed, and row by row
//! where that is not known any more; what is withdrawn over this node is in it before whoever withdrew it is answered.
//! A copy of another cluster, under another seal key, of a newer schema or damaged is set aside and told, never served.

use std::{
    collections::BTreeSet,
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::{SignedDuration, Timestamp};

use super::{
    backup::RESTORED,
    catch_up::STORE_ID,
    db::{self, Db, Txn, micros, signed},
    error::{Fault, Outcome, StoreError},
    identities::count,
    open::touch,
    reseal::SUCCESSOR,
    schema,
    seal::Seal,
    tables::update_identities,
};
use crate::{
    model::{NodeName, Num},
    sql::{self, Connection, ErrorKind, ToSql, Value, ValueRef, params},
};

/// The copy, in the state directory.
const FILE: &str = "mirror.db";
/// Where the last one is kept that could not be used.
const ASIDE: &str = "mirror.db.aside";

/// Whose copy it is.
const CLUSTER: &str = "mirror_of";
/// When it and the database last agreed, and when it was last compared row by row.
const AGREED: &str = "mirror_agreed";
const WHOLE: &str = "mirror_whole";
const SEAL_KEY: &str = "seal_key";
const SEQ: &str = "seq";

/// A copy up to this size is read through for damage when it is opened.
const CHECKED: u64 = 64 << 20;
/// Rows that are taken over at once.
const PAGE: usize = 256;
/// Rows that one statement looks for.
const LISTED: usize = 32;
/// Agreement alone is noted on the disk so often, and the small tables are compared.
const NOTED_EVERY: SignedDuration = SignedDuration::from_mins(1);
/// Whatever was missed is taken over after so long.
const WHOLE_EVERY: SignedDuration = SignedDuration::from_hours(24);

/// What changed in a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ChangedRows {
    /// These rows, and no others.
    These(BTreeSet<Num>),
    /// It is not known any more.
    Unknown,
}

impl ChangedRows {
    fn are_none(&self) -> bool {
        matches!(self, Self::These(nums) if nums.is_empty())
    }
}

/// The copy of this node.
pub(super) struct Mirror {
    state_dir: PathBuf,
    cluster: String,
    node: Option<NodeName>,
    seal: Arc<Seal>,
    /// Whether it has to outlive a power cut.
    durable: bool,
    copy: Mutex<Copy>,
}

#[derive(Default)]
struct Copy {
    db: Option<Db>,
    /// When it last agreed with the database; before it first did, nothing is served.
    agreed: Option<Timestamp>,
    /// The same, as it lies on the disk.
    noted: Option<Timestamp>,
    /// The number of the last change that it has.
    seq: u64,
    /// When it was last compared row by row.
    whole: Option<Timestamp>,
    /// When what has ended was last dropped.
    swept: Option<Timestamp>,
    /// Why there is none, or why the last one could not be used.
    trouble: Option<String>,
}

impl fmt::Debug for Mirror {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, agreed) = (self.state_dir.join(FILE), self.agreed());
        f.debug_struct("Mirror")
            .field("path", &path)
            .field("agreed", &agreed)
            .finish_non_exhaustive()
    }
}

/// What a store says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Facts {
    store: Option<String>,
    seal_key: Option<String>,
    successor: Option<String>,
    /// Why it may not be served from before a person says so.
    restored: Option<String>,
    seq: u64,
}

impl Facts {
    fn of(db: &Db) -> Outcome<Self> {
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
    fn goes_on_in(&self, theirs: &Self) -> bool {
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

/// Why following had to end.
enum Halt {
    /// The database did not answer.
    Database(Fault),
    /// The copy cannot be kept.
    Copy(Fault),
}

impl From<Fault> for Halt {
    fn from(fault: Fault) -> Self {
        Self::Database(fault)
    }
}

impl From<sql::SqlError> for Halt {
    fn from(error: sql::SqlError) -> Self {
        Self::Database(error.into())
    }
}

/// The keys that sealed the copy of this node and take over from it, by their ids; nothing where there is none that can
/// be read.
pub(super) fn keys(state_dir: &Path) -> Option<(String, Option<String>)> {
    let path = state_dir.join(FILE);
    if !path.exists() {
        return None;
    }
    let conn = Connection::reader_of(&path).ok()?;
    let db = Db::on(conn, (Arc::new(Seal::new(&[0; 32])), Arc::default()), None);
    let facts = Facts::of(&db).ok()?;
    Some((facts.seal_key?, facts.successor))
}

impl Mirror {
    /// The copy that lies there, or a new one. Trouble with it is told, and costs nothing but the copy.
    pub(super) fn open(
        state_dir: &Path,
        (cluster, node): (&str, Option<NodeName>),
        seal: Arc<Seal>,
        durable: bool,
    ) -> Self {
        let mirror = Self {
            state_dir: state_dir.to_owned(),
            cluster: cluster.to_owned(),
            node,
            seal,
            durable,
            copy: Mutex::default(),
        };
        let mut copy = mirror.copy();
        match mirror.found() {
            Ok(found) => *copy = found.unwrap_or_default(),
            Err(why) => mirror.give_up(&mut copy, why),
        }
        drop(copy);
        mirror
    }

    /// When it last agreed with the database; `None` where it may not be served.
    pub(super) fn agreed(&self) -> Option<Timestamp> {
        self.copy().agreed
    }

    /// Why there is none, or why the last one could not be used.
    pub(super) fn trouble(&self) -> Option<String> {
        self.copy().trouble.clone()
    }

    /// Whether it has to follow a database that is at this number; where it has not, the two agree.
    pub(super) fn is_behind(&self, upto: u64, now: Timestamp) -> bool {
        let due = self.is_due(now) || self.is_whole_due(now);
        let mut copy = self.copy();
        let is_behind = due || copy.seq != upto || copy.agreed.is_none();
        if !is_behind {
            copy.agreed = Some(now);
        }
        is_behind
    }

    /// The number of the last change that it has.
    pub(super) fn seq(&self) -> u64 {
        self.copy().seq
    }

    /// Reads from it; nothing where it may not be served.
    pub(super) fn read<T>(&self, work: impl FnOnce(&Db) -> Outcome<T>) -> Option<Outcome<T>> {
        let mut copy = self.copy();
        copy.agreed?;
        let found = copy.db.as_ref().map(work);
        if let Some(Err(Fault::Sql(error))) = &found
            && error.kind() == ErrorKind::Corrupt
        {
            let why = error.to_string();
            self.give_up(&mut copy, why);
            return None;
        }
        found
    }

    /// Takes over what changed in the database since the two agreed. Fails where the database does; trouble with the
    /// copy is told.
    pub(super) fn follow(
        &self,
        db: &Db,
        changes: impl FnOnce(&Db, u64) -> Outcome<ChangedRows>,
        now: Timestamp,
    ) -> Outcome<()> {
        match self.followed(db, changes, now) {
            Ok(()) => Ok(()),
            Err(Halt::Database(fault)) => Err(fault),
            Err(halt) => {
                self.lose(halt);
                Ok(())
            }
        }
    }

    /// Takes these rows over, which were withdrawn over this node. Where the database does not answer any more, their
    /// tokens are dropped.
    pub(super) fn take(&self, db: &Db, nums: &BTreeSet<Num>) {
        if nums.is_empty() || self.copy().db.is_none() {
            return;
        }
        let taken = match self.take_these(db, nums) {
            Err(Halt::Database(_)) => self.write(|txn| {
                for num in nums {
                    let what = "SET token = NULL, good_until = 0 WHERE num = ?1";
                    txn.run(&update_identities(what), [num])?;
                }
                Ok(())
            }),
            taken => taken,
        };
        if let Err(halt) = taken {
            self.lose(halt);
        }
    }

    /// Drops every token that has ended, so that it does not come back where the clock is set back. An instant before
    /// the last agreement is no instant.
    pub(super) fn forget_dead(&self, now: Timestamp) {
        let agreed = {
            let mut copy = self.copy();
            let is_due = copy
                .swept
                .is_none_or(|swept| now.duration_since(swept).abs() >= NOTED_EVERY);
            let Some(agreed) = copy.agreed.filter(|_| is_due) else {
                return;
            };
            copy.swept = Some(now);
            agreed
        };
        let mut dropped = 0;
        let written = self.write(|txn| {
            let what = "SET token = NULL WHERE token IS NOT NULL AND expires_at <= ?1";
            dropped = txn.run(&update_identities(what), [micros(now.max(agreed))])?;
            if dropped > 0 {
                // The clock may have been wrong: it is compared row by row once the database is there.
                txn.run("DELETE FROM meta WHERE key = ?1", [WHOLE])?;
            }
            Ok(())
        });
        match written {
            Ok(()) if dropped > 0 => self.copy().whole = None,
            Ok(()) => {}
            // None of them is served all the same.
            Err(Halt::Database(fault) | Halt::Copy(fault)) => {
                let error = StoreError::new("drop what has ended from this node's mirror", fault);
                tracing::warn!(%error, "it is tried again");
            }
        }
    }

    /// It cannot be kept.
    fn lose(&self, (Halt::Database(fault) | Halt::Copy(fault)): Halt) {
        let why = StoreError::new("keep this node's mirror", fault).to_string();
        self.give_up(&mut self.copy(), why);
    }

    fn copy(&self) -> MutexGuard<'_, Copy> {
        self.copy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The copy that lies there; why it may not be used.
    fn found(&self) -> Result<Option<Copy>, String> {
        let path = self.state_dir.join(FILE);
        let Ok(meta) = fs::metadata(&path) else {
            return Ok(None);
        };
        let db = self.opened(meta.len()).map_err(in_words)??;
        let facts = Facts::of(&db).map_err(in_words)?;
        let cluster: Option<String> =
            db::meta(&db.conn, CLUSTER).map_err(|e| in_words(e.into()))?;
        if let Some(why) = unfit(
            (&facts, cluster.as_deref()),
            (&self.cluster, &self.seal.key_id()),
        ) {
            return Err(why);
        }
        let at = |key| {
            let at = db::meta::<i64>(&db.conn, key).map_err(|e| in_words(e.into()));
            at.map(|at| at.map(db::instant))
        };
        let (agreed, whole) = (at(AGREED)?, at(WHOLE)?);
        Ok(Some(Copy {
            agreed: agreed.filter(|_| facts.restored.is_none()),
            noted: agreed,
            whole,
            seq: facts.seq,
            swept: None,
            trouble: None,
            db: Some(db),
        }))
    }

    /// The file as a database of today's schema, made where there is none.
    fn opened(&self, size: u64) -> Outcome<Result<Db, String>> {
        let path = self.state_dir.join(FILE);
        touch(&path).map_err(|error| Fault::Refused(error.to_string()))?;
        let conn = Connection::writer_of(&path, self.durable)?;
        let schema = schema::version(&conn)?;
        if schema > schema::NEWEST {
            return Ok(Err(format!(
                "its schema is {schema}, a newer renewd wrote it"
            )));
        }
        if schema > 0 && size <= CHECKED {
            let verdict = conn.first("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0))?;
            if verdict.as_deref() != Some("ok") {
                return Ok(Err(format!(
                    "it is damaged ({})",
                    verdict.unwrap_or_default()
                )));
            }
        }
        schema::migrate(&conn, schema)?;
        let kept = (self.seal.clone(), Arc::default());
        Ok(Ok(Db::on(conn, kept, self.node.clone())))
    }

    /// Sets what lies there aside; nothing is served from it any more.
    fn give_up(&self, copy: &mut Copy, why: String) {
        let before = std::mem::take(copy).trouble;
        // It is tried again and again.
        if before.as_ref() != Some(&why) {
            tracing::error!(
                "this node's mirror {} is set aside as {ASIDE}, and made anew from the database: {why}",
                self.state_dir.join(FILE).display()
            );
        }
        if let Err(error) = set_aside(&self.state_dir) {
            tracing::error!(%error, "the mirror could not be set aside; it is not used");
        }
        copy.trouble = Some(why);
    }

    fn followed(
        &self,
        db: &Db,
        changes: impl FnOnce(&Db, u64) -> Outcome<ChangedRows>,
        now: Timestamp,
    ) -> Result<(), Halt> {
        let theirs = Facts::of(db)?;
        let mine = self.begun()?;
        let changes = match mine.goes_on_in(&theirs) && !self.is_whole_due(now) {
            true => changes(db, mine.seq)?,
            false => ChangedRows::Unknown,
        };
        if mine == theirs && changes.are_none() && !self.is_due(now) {
            self.copy().agreed = Some(now).filter(|_| theirs.restored.is_none());
            return Ok(());
        }
        let are_bound_anew = self.take_small(db)?;
        let whole = changes == ChangedRows::Unknown || are_bound_anew;
        match changes {
            ChangedRows::These(nums) if !are_bound_anew => self.take_these(db, &nums)?,
            _ => self.take_all(db, mine.store != theirs.store)?,
        }
        self.agree(&theirs, whole, now)
    }

    /// What the copy says of itself; a new one is made where there is none.
    fn begun(&self) -> Result<Facts, Halt> {
        let mut copy = self.copy();
        if copy.db.is_none() {
            let made = self.opened(0).map_err(Halt::Copy)?;
            copy.db = Some(made.map_err(|why| Halt::Copy(Fault::Refused(why)))?);
        }
        match &copy.db {
            Some(db) => Facts::of(db).map_err(Halt::Copy),
            None => Ok(Facts::default()),
        }
    }

    /// Whether agreement is to be noted on the disk, and the small tables compared.
    fn is_due(&self, now: Timestamp) -> bool {
        let noted = self.copy().noted;
        noted.is_none_or(|noted| now.duration_since(noted).abs() >= NOTED_EVERY)
    }

    fn is_whole_due(&self, now: Timestamp) -> bool {
        let whole = self.copy().whole;
        whole.is_none_or(|whole| now.duration_since(whole).abs() >= WHOLE_EVERY)
    }

    /// Notes that it has everything up to this number.
    fn agree(&self, theirs: &Facts, whole: bool, now: Timestamp) -> Result<(), Halt> {
        self.write(|txn| {
            for (key, value) in [
                (STORE_ID, &theirs.store),
                (SEAL_KEY, &theirs.seal_key),
                (SUCCESSOR, &theirs.successor),
                (RESTORED, &theirs.restored),
                (CLUSTER, &Some(self.cluster.clone())),
            ] {
                match value {
                    Some(value) => db::set_meta(&txn.conn, key, value.as_str())?,
                    None => _ = txn.run("DELETE FROM meta WHERE key = ?1", [key])?,
                }
            }
            db::set_meta(&txn.conn, SEQ, signed(theirs.seq))?;
            db::set_meta(&txn.conn, AGREED, micros(now))?;
            if whole {
                db::set_meta(&txn.conn, WHOLE, micros(now))?;
            }
            Ok(())
        })?;
        let mut copy = self.copy();
        copy.agreed = Some(now).filter(|_| theirs.restored.is_none());
        (copy.noted, copy.seq) = (Some(now), theirs.seq);
        copy.trouble = None;
        if whole {
            copy.whole = Some(now);
        }
        Ok(())
    }

    /// Writes to the copy, wholly or not at all.
    fn write(&self, work: impl FnOnce(&mut Txn<'_>) -> Outcome<()>) -> Result<(), Halt> {
        let copy = self.copy();
        let Some(db) = &copy.db else { return Ok(()) };
        let written = (|| {
            db.conn.begin()?;
            let mut txn = Txn::on(db);
            work(&mut txn)?;
            txn.flush_counts()?;
            Ok(db.conn.batch("COMMIT")?)
        })();
        if written.is_err() && db.conn.is_in_transaction() {
            db.conn.batch("ROLLBACK").ok();
        }
        written.map_err(Halt::Copy)
    }

    /// The names of a table's columns, in order.
    fn columns(&self, table: &str) -> Result<Vec<String>, Halt> {
        let copy = self.copy();
        let Some(db) = &copy.db else {
            return Ok(Vec::new());
        };
        let sql = "SELECT name FROM pragma_table_info(?1) ORDER BY cid";
        let columns = db.every(sql, [table], |row| row.get(0));
        columns.map_err(|error| Halt::Copy(error.into()))
    }

    /// Takes the tables of resources and sinks over; whether other sinks are configured than before, so that others
    /// are bound to them.
    fn take_small(&self, db: &Db) -> Result<bool, Halt> {
        let mut bound_anew = false;
        for table in ["resource", "sink"] {
            let rows = Rows::of(table, self.columns(table)?, |select, read| {
                db.every(&format!("{select} ORDER BY num"), [], read)
            })?;
            self.write(|txn| {
                if table == "sink" {
                    let sql = "SELECT num, configured FROM sink ORDER BY num";
                    let before = txn.every(sql, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
                    bound_anew = before != rows.numbers(["num", "configured"]);
                }
                txn.run(&format!("DELETE FROM {table}"), [])?;
                rows.insert(txn)
            })?;
        }
        Ok(bound_anew)
    }

    /// Takes these rows over.
    fn take_these(&self, db: &Db, nums: &BTreeSet<Num>) -> Result<(), Halt> {
        let (identity, delivery) = (self.columns("identity")?, self.columns("delivery")?);
        let nums: Vec<Num> = nums.iter().copied().collect();
        for listed in nums.chunks(LISTED) {
            // No row has the number 0.
            let wanted: Vec<Num> = listed
                .iter()
                .copied()
                .chain([0; LISTED])
                .take(LISTED)
                .collect();
            let params: Vec<&dyn ToSql> = wanted.iter().map(|num| num as &dyn ToSql).collect();
            let rows = Rows::of("identity", identity.clone(), |select, read| {
                let sql = format!("{select} WHERE num IN ({})", places(LISTED));
                db.every(&sql, params.as_slice(), read)
            })?;
            let deliveries = Rows::of("delivery", delivery.clone(), |select, read| {
                let sql = format!("{select} WHERE identity IN ({})", places(LISTED));
                db.every(&sql, params.as_slice(), read)
            })?;
            self.write(|txn| {
                for num in listed {
                    txn.drop_copied_identities("num = ?1", [num])?;
                    txn.drop_copied_deliveries("identity = ?1", [num])?;
                }
                rows.put(txn)?;
                deliveries.insert(txn)
            })?;
        }
        Ok(())
    }

    /// Takes every row over, page by page; those of another store go first.
    fn take_all(&self, db: &Db, is_other: bool) -> Result<(), Halt> {
        let (identity, delivery) = (self.columns("identity")?, self.columns("delivery")?);
        if is_other {
            self.copy().agreed = None;
            self.write(|txn| {
                txn.drop_copied_identities("num > ?1", [0])?;
                txn.drop_copied_deliveries("identity > ?1", [0])?;
                txn.run("DELETE FROM meta WHERE key = ?1", [AGREED])?;
                Ok(())
            })?;
        }
        let mut after: Num = 0;
        loop {
            let rows = Rows::of("identity", identity.clone(), |select, read| {
                let sql = format!("{select} WHERE num > ?1 ORDER BY num LIMIT ?2");
                db.every(&sql, [after, count(PAGE)], read)
            })?;
            let last = rows.last();
            let upto = last.filter(|_| rows.rows.len() == PAGE).unwrap_or(Num::MAX);
            let deliveries = Rows::of("delivery", delivery.clone(), |select, read| {
                let sql = format!("{select} WHERE identity > ?1 AND identity <= ?2");
                db.every(&sql, [after, upto], read)
            })?;
            self.write(|txn| {
                txn.drop_copied_identities("num > ?1 AND num <= ?2", [after, upto])?;
                txn.drop_copied_deliveries("identity > ?1 AND identity <= ?2", [after, upto])?;
                rows.put(txn)?;
                deliveries.insert(txn)
            })?;
            if upto == Num::MAX {
                return Ok(());
            }
            after = upto;
        }
    }
}

/// Rows of a table, as they are.
struct Rows {
    table: &'static str,
    columns: Vec<String>,
    rows: Vec<Vec<Value>>,
}

impl Rows {
    fn of(
        table: &'static str,
        columns: Vec<String>,
        find: impl FnOnce(&str, WholeRow<'_>) -> sql::Result<Vec<Vec<Value>>>,
    ) -> Result<Self, Halt> {
        let (select, width) = (
            format!("SELECT {} FROM {table}", columns.join(", ")),
            columns.len(),
        );
        let rows = find(&select, &|row| {
            (0..width).map(|place| row.get(place)).collect()
        })?;
        Ok(Self {
            table,
            columns,
            rows,
        })
    }

    fn place(&self, column: &str) -> Option<usize> {
        self.columns.iter().position(|one| one == column)
    }

    /// What these two columns hold, row by row.
    fn numbers(&self, columns: [&str; 2]) -> Vec<(i64, i64)> {
        let number = |row: &[Value], column| match self.place(column).and_then(|at| row.get(at)) {
            Some(Value::Integer(number)) => *number,
            _ => 0,
        };
        let rows = self.rows.iter();
        rows.map(|row| (number(row, columns[0]), number(row, columns[1])))
            .collect()
    }

    /// The number of the last row.
    fn last(&self) -> Option<Num> {
        match self.rows.last()?.first()? {
            Value::Integer(num) => Some(*num),
            _ => None,
        }
    }

    fn insert(&self, txn: &Txn<'_>) -> Outcome<()> {
        let (table, columns, places) = (
            self.table,
            self.columns.join(", "),
            places(self.columns.len()),
        );
        let sql = format!("INSERT INTO {table} ({columns}) VALUES ({places})");
        for row in &self.rows {
            let params: Vec<&dyn ToSql> = row.iter().map(|value| value as &dyn ToSql).collect();
            txn.run(&sql, params.as_slice())?;
        }
        Ok(())
    }

    /// Puts rows of identities in the place of whoever has their names or ids here.
    fn put(&self, txn: &mut Txn<'_>) -> Outcome<()> {
        let column = |name| self.place(name).unwrap_or_default();
        let (name, id, wish) = (column("name"), column("id"), column("wish"));
        for row in &self.rows {
            let (Some(name), Some(id), Some(wish)) = (row.get(name), row.get(id), row.get(wish))
            else {
                continue;
            };
            txn.drop_copied_identities("name = ?1 OR id = ?2", params![name, id])?;
            if let Value::Text(wish) = wish {
                txn.count_readers("", wish);
            }
        }
        self.insert(txn)
    }
}

/// Reads every column of a row.
type WholeRow<'a> = &'a dyn Fn(&sql::Row<'_>) -> sql::Result<Vec<Value>>;

/// So many parameters, as a list.
fn places(count: usize) -> String {
    let places: Vec<String> = (1..=count).map(|n| format!("?{n}")).collect();
    places.join(", ")
}

fn in_words(fault: Fault) -> String {
    StoreError::new("open it", fault).to_string()
}

/// Why a copy may not be used here, under the key with this id, if it may not.
fn unfit((copy, of): (&Facts, Option<&str>), (cluster, key): (&str, &str)) -> Option<String> {
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

/// Moves the copy out of the way, in place of the last one that was.
fn set_aside(state_dir: &Path) -> io::Result<()> {
    for beside in ["-wal", "-shm"] {
        match fs::remove_file(state_dir.join(format!("{FILE}{beside}"))) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    match fs::rename(state_dir.join(FILE), state_dir.join(ASIDE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
