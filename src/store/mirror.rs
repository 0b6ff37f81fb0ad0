//! A node's own copy of what it may serve, for the time when the database cannot be reached: who there is, who may
//! read them, and their tokens, sealed as they lie in the database. It is a database file of the same schema, so that
//! whatever reads the store reads the copy as well, by the same texts and the same rules.
//!
//! Only the daemon of its node writes it. It follows the database by what changed since the two agreed, and row by row
//! where that is not known any more. What is withdrawn over this node is in it before whoever withdrew it is answered,
//! and so is what this node answers from the database: nothing that it gives is older than what was answered, over a
//! restart too. A row of which the database has an older version than the copy was lost there: the copy keeps its own
//! until the database has a version above it.
//! A copy of another cluster, under another seal key, of a newer schema or damaged is set aside and told, never served.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::{SignedDuration, Timestamp};

use super::{
    answers::AnsweredRow,
    backup::RESTORED,
    catch_up::STORE_ID,
    db::{self, Db, Txn, micros, signed},
    error::{Fault, Outcome, StoreError},
    identities::count,
    mirror_facts::{DatabaseFacts, SEAL_KEY, SEQ, unfit},
    mirror_rows::{CopiedRows, Newer, places},
    open::touch,
    reseal::SUCCESSOR,
    schema,
    seal::Seal,
    tables::update_identities,
};
use crate::{
    model::{NodeName, Num, Version},
    sql::{self, Connection, ErrorKind, ToSql},
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

/// A copy up to this size is read through for damage when it is opened.
const CHECKED: u64 = 64 << 20;
/// Rows that are taken over at once.
const PAGE: usize = 256;
/// Rows that one statement looks for.
const LISTED: usize = 32;
/// Agreement alone is noted on the disk so often: what is served after a kill counts as older by at most that.
const NOTED_EVERY: SignedDuration = SignedDuration::from_secs(10);
/// The small tables are compared so often, and what has ended is dropped.
const COMPARED_EVERY: SignedDuration = SignedDuration::from_mins(1);
/// A copy that cannot be kept is made anew so much later.
const AGAIN_AFTER: SignedDuration = SignedDuration::from_secs(10);
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
    /// Who brings rows over from the database, from reading them to writing them: one at a time, so that none puts what
    /// was before in the place of what is.
    turn: Mutex<()>,
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
    /// When the small tables were last compared.
    compared: Option<Timestamp>,
    /// When what has ended was last dropped.
    swept: Option<Timestamp>,
    /// The highest version that it ever had.
    highest: u64,
    /// Of whom it has a newer version than the database.
    newer: BTreeMap<String, Version>,
    /// Why there is none, or why the last one could not be used.
    trouble: Option<String>,
    /// When it was last tried in vain to make one.
    tried: Option<Timestamp>,
}

impl Copy {
    /// Whether so long has passed since; also where the clock was set back.
    fn is_past(since: Option<Timestamp>, every: SignedDuration, now: Timestamp) -> bool {
        since.is_none_or(|since| now.duration_since(since).abs() >= every)
    }
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
    let facts = DatabaseFacts::of(&db).ok()?;
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
            turn: Mutex::default(),
            copy: Mutex::default(),
        };
        let mut copy = mirror.copy();
        match mirror.found() {
            Ok(found) => *copy = found.unwrap_or_default(),
            Err(why) => mirror.give_up(&mut copy, why, Lost::Aside),
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

    /// It was opened at this instant: where the clock was set back since the two agreed, what it holds counts as of now.
    pub(super) fn begin_at(&self, now: Timestamp) {
        let mut copy = self.copy();
        copy.agreed = copy.agreed.map(|agreed| agreed.min(now));
    }

    /// Whether it has to follow a database that is at this number; where it has not, the two agree.
    pub(super) fn is_behind(&self, upto: u64, now: Timestamp) -> bool {
        let mut copy = self.copy();
        if copy.trouble.is_some() && copy.db.is_none() {
            return Copy::is_past(copy.tried, AGAIN_AFTER, now);
        }
        let due = Copy::is_past(copy.compared, COMPARED_EVERY, now)
            || Copy::is_past(copy.whole, WHOLE_EVERY, now);
        if due || copy.seq != upto || copy.agreed.is_none() {
            return true;
        }
        copy.agreed = Some(now);
        let is_noted = !Copy::is_past(copy.noted, NOTED_EVERY, now);
        drop(copy);
        if !is_noted {
            self.note_agreement();
        }
        false
    }

    /// Notes on the disk when the two last agreed.
    pub(super) fn note_agreement(&self) {
        let agreed = self.copy().agreed;
        let Some(agreed) = agreed else { return };
        let noted = self.write(|txn| Ok(db::set_meta(&txn.conn, AGREED, micros(agreed))?));
        match noted {
            Ok(_) => self.copy().noted = Some(agreed),
            Err(halt) => self.lose(halt),
        }
    }

    /// The number of the last change that it has.
    pub(super) fn seq(&self) -> u64 {
        self.copy().seq
    }

    /// The highest version that it ever had.
    pub(super) fn highest(&self) -> u64 {
        self.copy().highest
    }

    /// Of whom it has a newer version than the database.
    pub(super) fn newer(&self) -> BTreeMap<String, Version> {
        self.copy().newer.clone()
    }

    /// The database has versions above these.
    pub(super) fn is_caught_up(&self, newer: &BTreeMap<String, Version>) {
        let is_over = |name: &String, version: &Version| newer.get(name) == Some(version);
        self.copy()
            .newer
            .retain(|name, version| !is_over(name, version));
    }

    /// Reads from it, and when it last agreed with the database; nothing where it may not be served.
    pub(super) fn read<T>(
        &self,
        work: impl FnOnce(&Db) -> Outcome<T>,
    ) -> Option<(Outcome<T>, Timestamp)> {
        let mut copy = self.copy();
        let agreed = copy.agreed?;
        let found = copy.db.as_ref().map(work)?;
        if let Err(Fault::Sql(error)) = &found
            && error.kind() == ErrorKind::Corrupt
        {
            let why = error.to_string();
            self.give_up(&mut copy, why, Lost::Aside);
            return None;
        }
        Some((found, agreed))
    }

    /// Brings it as far as an answer from the database, before that goes out. False where it is further than the answer.
    /// Fails where the database does: then it is no answer.
    pub(super) fn reach(&self, db: &Db, answer: &[AnsweredRow]) -> Outcome<bool> {
        let reached = (|| {
            let (differing, _) = self.compared(answer)?;
            if differing.is_empty() {
                return Ok(true);
            }
            let mut nums = BTreeSet::new();
            for name in &differing {
                let here = self.with_db(|copy| copy.num_of(name))?.flatten();
                nums.extend(here.into_iter().chain(db.num_of(name)?));
            }
            self.take_with_resources(db, &nums)?;
            Ok(!self.compared(answer)?.1)
        })();
        match reached {
            Ok(reached) => Ok(reached),
            Err(Halt::Database(fault)) => Err(fault),
            Err(halt) => {
                self.lose(halt);
                Ok(true)
            }
        }
    }

    /// Of whom it says something else than the answer, and whether anything newer.
    fn compared(&self, answer: &[AnsweredRow]) -> Result<(Vec<String>, bool), Halt> {
        let compared = self.with_db(|copy| {
            let sql = "SELECT version, good_until = 0 AND expires_at IS NOT NULL, state FROM identity WHERE name = ?1";
            let (mut differing, mut is_newer) = (Vec::new(), false);
            for told in answer {
                let name = told.name.as_str();
                let here = copy.first(sql, [name], |row| {
                    let version = Version(db::unsigned(row, 0)?);
                    Ok((version, row.get::<_, bool>(1)?, row.get::<_, String>(2)?))
                })?;
                if !told.is_said_by(here.as_ref()) {
is_newer |= here.is_some_and(|here| told.is_older_than(&here));
                    differing.push(name.to_owned());
                }
            }
            Ok((differing, is_newer))
        });
        Ok(compared?.unwrap_or_default())
    }

    /// Looks into the copy, served or not.
    fn with_db<T>(&self, work: impl FnOnce(&Db) -> Outcome<T>) -> Result<Option<T>, Halt> {
        let copy = self.copy();
        let found = copy.db.as_ref().map(work).transpose();
        found.map_err(Halt::Copy)
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
        let taken = match self.take_with_resources(db, nums) {
            Err(Halt::Database(_)) => {
                let _turn = self.turn();
                let dropped = self.write(|txn| {
                    for num in nums {
                        let what = "SET token = NULL, good_until = 0 WHERE num = ?1";
                        txn.run(&update_identities(what), [num])?;
                    }
                    Ok(())
                });
                dropped.map(drop)
            }
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
            let is_due = Copy::is_past(copy.swept, COMPARED_EVERY, now);
            let Some(agreed) = copy.agreed.filter(|_| is_due) else {
                return;
            };
            copy.swept = Some(now);
            copy.noted.map_or(agreed, |noted| noted.max(agreed))
        };
        let written = self.write(|txn| {
            let what = "SET token = NULL WHERE token IS NOT NULL AND expires_at <= ?1";
            let dropped = txn.run(&update_identities(what), [micros(now.max(agreed))])?;
            if dropped > 0 {
                // The clock may have been wrong: it is compared row by row once the database is there.
                txn.run("DELETE FROM meta WHERE key = ?1", [WHOLE])?;
            }
            Ok(dropped)
        });
        match written {
            Ok(Some(1..)) => self.copy().whole = None,
            Ok(_) => {}
            // None of them is served all the same.
            Err(Halt::Database(fault) | Halt::Copy(fault)) => {
                let error = StoreError::new("drop what has ended from this node's mirror", fault);
                tracing::warn!(%error, "it is tried again");
            }
        }
    }

    /// It cannot be kept: what it lacks was answered already, so that nothing is served from it any more.
    fn lose(&self, (Halt::Database(fault) | Halt::Copy(fault)): Halt) {
        let why = StoreError::new("keep this node's mirror", fault);
        let lost = match why {
            StoreError::Full { .. } => Lost::ForRoom,
            _ => Lost::Aside,
        };
        self.give_up(&mut self.copy(), why.to_string(), lost);
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
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
        let facts = DatabaseFacts::of(&db).map_err(in_words)?;
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
        let highest = "SELECT coalesce(max(version), 0) FROM identity";
        let highest = db.first(highest, [], |row| db::unsigned(row, 0));
        Ok(Some(Copy {
            agreed: agreed.filter(|_| facts.restored.is_none()),
            noted: agreed,
            whole,
            seq: facts.seq,
            highest: highest.map_err(|e| in_words(e.into()))?.unwrap_or(0),
            db: Some(db),
            ..Copy::default()
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

    /// Takes what lies there out of the way; nothing is served from it any more.
    fn give_up(&self, copy: &mut Copy, why: String, lost: Lost) {
        let Copy {
            trouble: before,
            highest,
            newer,
            tried,
            ..
        } = std::mem::take(copy);
        (copy.highest, copy.newer, copy.tried) = (highest, newer, tried);
        // It is tried again and again.
        if before.as_ref() != Some(&why) {
            let path = self.state_dir.join(FILE);
            let done = match lost {
                Lost::Aside => format!("set aside as {ASIDE}"),
                Lost::ForRoom => "removed".to_owned(),
            };
            tracing::error!(
                "this node's mirror {} is {done}, and made anew from the database; until then nothing could be served \
                 while the database is away: {why}",
                path.display()
            );
        }
        if let Err(error) = out_of_the_way(&self.state_dir, lost) {
            tracing::error!(%error, "the mirror could not be taken out of the way; it is not used");
        }
        copy.trouble = Some(why);
    }

    fn followed(
        &self,
        db: &Db,
        changes: impl FnOnce(&Db, u64) -> Outcome<ChangedRows>,
        now: Timestamp,
    ) -> Result<(), Halt> {
        let theirs = DatabaseFacts::of(db)?;
        self.copy().tried = Some(now);
        let mine = self.begun()?;
        let (is_whole_due, is_due) = {
            let copy = self.copy();
            (
                Copy::is_past(copy.whole, WHOLE_EVERY, now),
                Copy::is_past(copy.compared, COMPARED_EVERY, now),
            )
        };
        let changes = match mine.goes_on_in(&theirs) && !is_whole_due {
            true => changes(db, mine.seq)?,
            false => ChangedRows::Unknown,
        };
        if mine == theirs && changes.are_none() && !is_due {
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
    fn begun(&self) -> Result<DatabaseFacts, Halt> {
        let mut copy = self.copy();
        if copy.db.is_none() {
            let made = self.opened(0).map_err(Halt::Copy)?;
            copy.db = Some(made.map_err(|why| Halt::Copy(Fault::Refused(why)))?);
        }
        match &copy.db {
            Some(db) => DatabaseFacts::of(db).map_err(Halt::Copy),
            None => Ok(DatabaseFacts::default()),
        }
    }

    /// Notes that it has everything up to this number.
    fn agree(&self, theirs: &DatabaseFacts, whole: bool, now: Timestamp) -> Result<(), Halt> {
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
        (copy.noted, copy.compared, copy.seq) = (Some(now), Some(now), theirs.seq);
        if copy.trouble.take().is_some() {
            tracing::info!("this node's mirror is whole again");
        }
        if whole {
            copy.whole = Some(now);
        }
        Ok(())
    }

    /// Writes to the copy, wholly or not at all; nothing where there is none.
    fn write<T>(&self, work: impl FnOnce(&mut Txn<'_>) -> Outcome<T>) -> Result<Option<T>, Halt> {
        let copy = self.copy();
        let Some(db) = &copy.db else { return Ok(None) };
        let written = (|| {
            db.conn.begin()?;
            let mut txn = Txn::on(db);
            let written = work(&mut txn)?;
            txn.flush_counts()?;
            db.conn.batch("COMMIT")?;
            Ok(Some(written))
        })();
        if written.is_err() && db.conn.is_in_transaction() {
            db.conn.batch("ROLLBACK").ok();
        }
        written.map_err(Halt::Copy)
    }

    /// The names of a table's columns, in order.
    fn columns(&self, table: &str) -> Result<Vec<String>, Halt> {
        let sql = "SELECT name FROM pragma_table_info(?1) ORDER BY cid";
        let columns = self.with_db(|copy| Ok(copy.every(sql, [table], |row| row.get(0))?));
        Ok(columns?.unwrap_or_default())
    }

    /// Takes the tables of resources and sinks over; whether other sinks are configured than before, so that others
    /// are bound to them.
    fn take_small(&self, db: &Db) -> Result<bool, Halt> {
        self.take_table(db, "resource", |_, _| Ok(()))?;
        let mut bound_anew = false;
        self.take_table(db, "sink", |txn, rows| {
            let sql = "SELECT num, configured FROM sink ORDER BY num";
            let before = txn.every(sql, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
            bound_anew = before != rows.numbers(["num", "configured"]);
            Ok(())
        })?;
        Ok(bound_anew)
    }

    /// Takes a small table over whole; `see` looks at its rows before they take the place of the others.
    fn take_table(
        &self,
        db: &Db,
        table: &'static str,
        mut see: impl FnMut(&mut Txn<'_>, &CopiedRows) -> Outcome<()>,
    ) -> Result<(), Halt> {
        let columns = self.columns(table)?;
        let _turn = self.turn();
        let rows = CopiedRows::of(table, columns, |select, read| {
            db.every(&format!("{select} ORDER BY num"), [], read)
        })?;
        self.write(|txn| {
            see(txn, &rows)?;
            txn.run(&format!("DELETE FROM {table}"), [])?;
            rows.insert(txn)
        })?;
        Ok(())
    }

    /// Takes these rows over at once, and the resources before them, where one of them is of a new resource.
    fn take_with_resources(&self, db: &Db, nums: &BTreeSet<Num>) -> Result<(), Halt> {
        let resources = |db: &Db| -> Outcome<Vec<Num>> {
            Ok(
                db.every("SELECT num FROM resource ORDER BY num", [], |row| {
                    row.get(0)
                })?,
            )
        };
        let theirs = resources(db)?;
        if self.with_db(resources)?.is_some_and(|here| here != theirs) {
            self.take_table(db, "resource", |_, _| Ok(()))?;
        }
        self.take_these(db, nums)
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
            let _turn = self.turn();
            let rows = CopiedRows::of("identity", identity.clone(), |select, read| {
                let sql = format!("{select} WHERE num IN ({})", places(LISTED));
                db.every(&sql, params.as_slice(), read)
            })?;
            let deliveries = CopiedRows::of("delivery", delivery.clone(), |select, read| {
                let sql = format!("{select} WHERE identity IN ({})", places(LISTED));
                db.every(&sql, params.as_slice(), read)
            })?;
            let list = wanted.iter().map(Num::to_string).collect::<Vec<_>>();
            self.put((rows, deliveries), &|column| {
                format!("{column} IN ({})", list.join(", "))
            })?;
        }
        Ok(())
    }

    /// Takes every row over, page by page; those of another store go first.
    fn take_all(&self, db: &Db, is_other: bool) -> Result<(), Halt> {
        let (identity, delivery) = (self.columns("identity")?, self.columns("delivery")?);
        if is_other {
            let _turn = self.turn();
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
            let _turn = self.turn();
            let rows = CopiedRows::of("identity", identity.clone(), |select, read| {
                let sql = format!("{select} WHERE num > ?1 ORDER BY num LIMIT ?2");
                db.every(&sql, [after, count(PAGE)], read)
            })?;
            let last = rows.last();
            let upto = last.filter(|_| rows.len() == PAGE).unwrap_or(Num::MAX);
            let deliveries = CopiedRows::of("delivery", delivery.clone(), |select, read| {
                let sql = format!("{select} WHERE identity > ?1 AND identity <= ?2");
                db.every(&sql, [after, upto], read)
            })?;
            self.put((rows, deliveries), &|column| {
                format!("{column} > {after} AND {column} <= {upto}")
            })?;
            if upto == Num::MAX {
                return Ok(());
            }
            after = upto;
        }
    }

    /// Puts rows in the place of those of the same stretch, which this condition on the number of an identity says; but
    /// for those of which the copy has a newer version.
    fn put(
        &self,
        (mut rows, mut deliveries): (CopiedRows, CopiedRows),
        stretch: &dyn Fn(&str) -> String,
    ) -> Result<(), Halt> {
        let newer = self.write(|txn| {
            let newer: Newer = rows.take_out_older(txn)?;
            deliveries.take_out(&newer, "identity");
            let of = |column| format!("{}{}", stretch(column), newer.spared(column));
            txn.drop_copied_identities(&of("num"), [])?;
            txn.drop_copied_deliveries(&of("identity"), [])?;
            rows.put(txn)?;
            deliveries.insert(txn)?;
            Ok(newer.versions)
        })?;
        let mut copy = self.copy();
        copy.highest = copy.highest.max(rows.highest());
        copy.newer.extend(newer.unwrap_or_default());
        Ok(())
    }
}

/// What becomes of a copy that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lost {
    /// It is kept for a person to look at.
    Aside,
    /// Its disk is full.
    ForRoom,
}

fn in_words(fault: Fault) -> String {
    StoreError::new("open it", fault).to_string()
}

/// Moves the copy out of the way, in place of the last one that was; or removes both.
fn out_of_the_way(state_dir: &Path, lost: Lost) -> io::Result<()> {
    let gone = |file: &str| match fs::remove_file(state_dir.join(file)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    for beside in ["-wal", "-shm"] {
        gone(&format!("{FILE}{beside}"))?;
    }
    if lost == Lost::ForRoom {
        gone(ASIDE)?;
        return gone(FILE);
    }
    match fs::rename(state_dir.join(FILE), state_dir.join(ASIDE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
