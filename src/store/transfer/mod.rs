//! Moves a store to the other engine: out of its file into PostgreSQL, or back. Rows are compared by pages and what
//! differs is written, first while the store is used, then once more when nobody uses it any more: so it can be cut off
//! at any point and begun again. What is sealed stays sealed. Nothing is deleted where the store was; it is marked, so
//! that no daemon goes on there by mistake, and so is the place that holds half of it.

mod table;

use self::table::{MovedTable, RowValues, Tally};
use super::{
    Cause,
    audit::add_entry,
    backup::{self, MOVING, MovedPart, RETIRED},
    db::{self, micros},
    error::OpenError,
    nodes,
    open::{self, Lock},
    reseal, schema, sinks,
};
use crate::{
    config::{StorePlace, StoreSettings},
    model::{AuditEntry, Timestamp},
    sql::{Connection, SqlError},
};

/// Rows that are compared at a time.
const PAGE: usize = 500;
/// How often everything is compared once nobody writes any more. The second time nothing differs.
const PASSES: usize = 5;

/// How far a move is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Moving {
    /// So many rows of a table were compared, and so many of them written.
    Table {
        name: String,
        compared: u64,
        written: u64,
    },
    /// Everything is there but for what changes now: the store is used, and the rest waits until it is not.
    InUse { by: String },
    /// Nobody uses the store any more: the rest is being written.
    Last,
}

/// A move that came to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// Where the store is now.
    pub to: String,
    /// Its tables with how many rows each has; on both sides the same, value for value.
    pub tables: Vec<(String, u64)>,
}

/// Why a store was not moved. It is used where it was, unless it says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    /// Where the store is, or is to be.
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("the store cannot be moved from {from}: {why}")]
    Refused { from: String, why: String },
    /// The place is not empty.
    #[error(
        "{to} holds a store already, or something else: name a database without tables, or a file that does not exist"
    )]
    There { to: String },
    /// Another store is on its way there.
    #[error(
        "{to} holds a part of another store, which was being moved there from {from}: end that move, or name another place"
    )]
    Another { to: String, from: String },
    /// A row that the other engine does not take.
    #[error(
        "a row of the table {table} ({key}) cannot be moved: {why}; `renewd status` names rows that cannot be read: mend \
         or drop it, then run this again"
    )]
    Row {
        table: String,
        key: String,
        why: String,
    },
    /// Somebody writes although nobody should.
    #[error(
        "the table {table} is not the same in both places although nobody uses the store: does something else write there?"
    )]
    Differs { table: String },
    /// Whoever watched it ended it.
    #[error("the move was ended before it was done; run the same command again to go on with it")]
    Ended,
    /// The answer to the last commit did not come.
    #[error(
        "it is not known whether the move came to its end in {to} ({why}): start renewd there; where it says that this \
         is only a part of the store, run the same again"
    )]
    Unsure { to: String, why: String },
    #[error("{place} failed: {reason}")]
    Database { place: String, reason: String },
}

impl MoveError {
    /// Whether the arguments or the surroundings have to be changed first.
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::Open(error) => error.is_configuration(),
            Self::Refused { .. } | Self::There { .. } | Self::Another { .. } => true,
            Self::Row { .. }
            | Self::Differs { .. }
            | Self::Ended
            | Self::Unsure { .. }
            | Self::Database { .. } => false,
        }
    }
}

/// One side of a move.
struct Side {
    conn: Connection,
    place: StorePlace,
    called: String,
}

impl Side {
    fn fails(&self) -> impl Fn(SqlError) -> MoveError + use<> {
        let place = self.called.clone();
        move |error| MoveError::Database {
            place: place.clone(),
            reason: error.to_string(),
        }
    }

    /// The file that it is on, where it is in one.
    fn in_file(&self) -> bool {
        self.conn.file().is_some()
    }
}

/// Moves the store of `settings` to another place. `watch` is told how far it is, and says whether to go on; while the
/// store is used it is asked again and again, and takes its time.
///
/// # Errors
/// When either side fails, or the place is not free; the store is still where it was.
pub fn move_store(
    settings: &StoreSettings,
    to: &StorePlace,
    cause: &Cause,
    now: Timestamp,
    watch: &mut dyn FnMut(&Moving) -> bool,
) -> Result<Moved, MoveError> {
    let origin = origin(settings)?;
    let (target, mark, _owned) = target(settings, to, &origin)?;
    let tables = tables(&origin, &target)?;
    let mut transfer = Transfer {
        node: settings.node.as_ref().map(ToString::to_string),
        origin,
        target,
        tables,
        mark,
        watch,
    };
    transfer.refuse_what_is_not_to_be_moved()?;
    transfer.pass(true)?;
    let _lock = transfer.wait_until_unused()?;
    transfer.tell(&Moving::Last)?;
    let had_been = transfer.retire(now)?;
    let moved = transfer.finish(cause, now);
    let is_unsure = matches!(moved, Err(MoveError::Unsure { .. }));
    if moved.is_err() && !had_been && !is_unsure {
        // It goes on where it was.
        transfer.take_back();
    }
    moved
}

fn origin(settings: &StoreSettings) -> Result<Side, MoveError> {
    let called = settings.place.called();
    let opened = match &settings.place {
        StorePlace::File(path) => {
            std::fs::metadata(path).map_err(|source| OpenError::Io {
                doing: "open the store",
                path: path.clone(),
                source,
            })?;
            Connection::to_file(path)
        }
        StorePlace::Database(_) => open::session(settings, "move"),
    };
    let conn = opened.map_err(|e| open::explained(&called, &e))?;
    Ok(Side {
        conn,
        place: settings.place.clone(),
        called: called.display().to_string(),
    })
}

/// The other side, made if need be; and the lock on it, where it is a file.
fn target(
    settings: &StoreSettings,
    to: &StorePlace,
    origin: &Side,
) -> Result<(Side, MovedPart, Option<Lock>), MoveError> {
    let called = to.called();
    let (opened, lock) = match to {
        StorePlace::File(path) => {
            let lock = Lock::take(path)?;
            open::touch(path)?;
            (Connection::writer_of(path, true), Some(lock))
        }
        StorePlace::Database(_) => {
            let there = StoreSettings {
                place: to.clone(),
                ..settings.clone()
            };
            (open::session(&there, "move"), None)
        }
    };
    let target = Side {
        conn: opened.map_err(|e| open::explained(&called, &e))?,
        place: to.clone(),
        called: called.display().to_string(),
    };
    let (fails, origin_fails) = (target.fails(), origin.fails());
    let mark = MovedPart {
        from: origin.called.clone(),
        seal_key: db::meta(&origin.conn, "seal_key")
            .map_err(origin_fails)?
            .unwrap_or_default(),
        table: String::new(),
    };
    let found = schema::version(&target.conn).map_err(&fails)?;
    let said = match found {
        0 => None,
        _ => db::meta::<String>(&target.conn, MOVING).map_err(&fails)?,
    };
    match said.as_deref().map(serde_json::from_str::<MovedPart>) {
        Some(Ok(there)) if there.seal_key == mark.seal_key => {
            schema::migrate(&target.conn, found).map_err(&fails)?;
            return Ok((target, there, lock));
        }
        Some(Ok(MovedPart { from, .. })) => {
            let to = target.called.clone();
            return Err(MoveError::Another { to, from });
        }
        None if found == 0 && is_empty(&target).map_err(&fails)? => {}
        _ => {
            let to = target.called.clone();
            return Err(MoveError::There { to });
        }
    }
    let text = text_of(&mark);
    let noted = |conn: &Connection| db::set_meta(conn, MOVING, text);
    schema::make(&target.conn, noted).map_err(&fails)?;
    Ok((target, mark, lock))
}

/// Whether there is nothing at all, ours or another's.
fn is_empty(side: &Side) -> Result<bool, SqlError> {
    let sql = match side.in_file() {
        true => "SELECT 1 FROM sqlite_schema LIMIT 1",
        false => {
            "SELECT 1 FROM information_schema.tables WHERE table_schema = current_schema() LIMIT 1"
        }
    };
    Ok(side.conn.first(sql, [], |_| Ok(()))?.is_none())
}

fn text_of(mark: &MovedPart) -> String {
    serde_json::to_string(mark).unwrap_or_default()
}

/// What both sides have, as the file of the two says it.
fn tables(origin: &Side, target: &Side) -> Result<Vec<MovedTable>, MoveError> {
    let in_file = if origin.in_file() { origin } else { target };
    MovedTable::all(&in_file.conn).map_err(in_file.fails())
}

/// A move under way.
struct Transfer<'a> {
    /// How this machine is called in a database.
    node: Option<String>,
    origin: Side,
    target: Side,
    tables: Vec<MovedTable>,
    mark: MovedPart,
    watch: &'a mut dyn FnMut(&Moving) -> bool,
}

impl Transfer<'_> {
    fn tell(&mut self, moving: &Moving) -> Result<(), MoveError> {
        match (self.watch)(moving) {
            true => Ok(()),
            false => Err(MoveError::Ended),
        }
    }

    fn refuse_what_is_not_to_be_moved(&self) -> Result<(), MoveError> {
        let (conn, fails) = (&self.origin.conn, self.origin.fails());
        let refused = |why: String| MoveError::Refused {
            from: self.origin.called.clone(),
            why,
        };
        let found = schema::version(conn).map_err(&fails)?;
        if found != schema::NEWEST {
            return Err(refused(format!(
                "its schema is {found}, and this renewd moves {}: start this renewd there once, then run this again",
                schema::NEWEST
            )));
        }
        if let Some(from) = backup::half_moved(conn).map_err(&fails)? {
            return Err(refused(format!(
                "it is only a part of the store that is being moved there from {from}"
            )));
        }
        let retired = db::meta::<i64>(conn, RETIRED).map_err(&fails)?;
        let to = db::meta::<String>(conn, db::MOVED_TO).map_err(&fails)?;
        if let Some(at) = retired.filter(|_| to.as_ref() != Some(&self.target.called)) {
            return Err(refused(format!(
                "it was retired at {:.0} and goes on elsewhere; `renewd store adopt` takes it back",
                db::instant(at)
            )));
        }
        if db::meta::<String>(conn, reseal::SUCCESSOR)
            .map_err(&fails)?
            .is_some()
        {
            return Err(refused(
                "its seal key is being replaced: run this again in a minute, see `renewd key reseal`"
                    .to_owned(),
            ));
        }
        Ok(())
    }

    /// Compares everything, and writes what differs; how many rows that were. What was there already when the move was
    /// cut off is passed over (`resumes`): the last pass looks at it again.
    fn pass(&mut self, resumes: bool) -> Result<u64, MoveError> {
        let tables = std::mem::take(&mut self.tables);
        let begun = tables
            .iter()
            .position(|table| table.name == self.mark.table);
        let first = begun.filter(|_| resumes).unwrap_or(0);
        let written = tables[first..]
            .iter()
            .try_fold(0, |sum, table| Ok(sum + self.carry_over(table)?));
        self.tables = tables;
        written
    }

    fn carry_over(&mut self, table: &MovedTable) -> Result<u64, MoveError> {
        let (mut after, mut compared, mut written) = (None, 0, 0);
        loop {
            let page = table.page(&self.origin.conn, after.as_ref(), PAGE);
            let page = page.map_err(self.origin.fails())?;
            let is_last = page.len() < PAGE;
            let next = page.last().map(|row| table.key_of(row)).or(after.clone());
            let there = table.between(
                &self.target.conn,
                after.as_ref(),
                next.as_ref().filter(|_| !is_last),
            );
            let there = there.map_err(self.target.fails())?;
            compared += page.len() as u64;
            written += self.write(table, page, there)?;
            self.tell(&Moving::Table {
                name: table.name.clone(),
                compared,
                written,
            })?;
            if is_last {
                return Ok(written);
            }
            after = next;
        }
    }

    /// Makes the rows of a part of the target what they are at the origin, in one transaction.
    fn write(
        &mut self,
        table: &MovedTable,
        ours: Vec<RowValues>,
        there: Vec<RowValues>,
    ) -> Result<u64, MoveError> {
        let (put, dropped) = table.difference(ours, there);
        let written = (put.len() + dropped.len()) as u64;
        if written == 0 {
            return Ok(0);
        }
        table.name.clone_into(&mut self.mark.table);
        let (conn, fails) = (&self.target.conn, self.target.fails());
        conn.begin().map_err(&fails)?;
        let done = self
            .keep_mark()
            .and_then(|()| table.drop_rows(conn, &dropped).map_err(&fails))
            .and_then(|()| table.put_rows(conn, &put))
            .and_then(|()| conn.commit().map_err(&fails));
        if done.is_err() && conn.is_in_transaction() {
            // Why it failed is what is told.
            conn.batch("ROLLBACK").ok();
        }
        done.map(|()| written)
    }

    /// Notes how far it is, where the target still waits for the rest: another move may have come to its end there.
    fn keep_mark(&self) -> Result<(), MoveError> {
        let sql = "UPDATE meta SET value = ?2 WHERE key = ?1";
        let params = (MOVING, text_of(&self.mark));
        match self
            .target
            .conn
            .execute(sql, params)
            .map_err(self.target.fails())?
        {
            0 => Err(MoveError::There {
                to: self.target.called.clone(),
            }),
            _ => Ok(()),
        }
    }

    /// Waits until no daemon uses the store; the lock on its file keeps others away from then on. What changes
    /// meanwhile is carried over.
    fn wait_until_unused(&mut self) -> Result<Option<Lock>, MoveError> {
        loop {
            let by = match self.origin.place.file() {
                Some(path) => match Lock::take(path) {
                    Ok(lock) => return Ok(Some(lock)),
                    Err(OpenError::Locked { pid, .. }) => {
                        pid.map_or("a daemon".to_owned(), |pid| format!("the process {pid}"))
                    }
                    Err(error) => return Err(error.into()),
                },
                None => match sessions(&self.origin).map_err(self.origin.fails())? {
                    0 => return Ok(None),
                    1 => "a session of renewd in the database".to_owned(),
                    sessions => format!("renewd ({sessions} sessions in the database)"),
                },
            };
            self.tell(&Moving::InUse { by })?;
            self.pass(false)?;
        }
    }

    /// Marks the store as one that goes on elsewhere; whether it was marked so before.
    fn retire(&mut self, now: Timestamp) -> Result<bool, MoveError> {
        let (origin, fails) = (&self.origin, self.origin.fails());
        let had_been = db::meta::<i64>(&origin.conn, RETIRED)
            .map_err(&fails)?
            .is_some();
        origin.conn.begin().map_err(&fails)?;
        let marked = db::set_meta(&origin.conn, RETIRED, micros(now))
            .and_then(|()| db::set_meta(&origin.conn, db::MOVED_TO, &*self.target.called))
            .and_then(|()| nodes::let_nobody_lead(&origin.conn, true))
            .and_then(|()| origin.conn.commit());
        marked.map_err(&fails)?;
        // Whoever came just before the mark was written is seen by now.
        if !origin.in_file() && sessions(origin).map_err(&fails)? > 0 && !had_been {
            self.take_back();
            let (from, why) = (
                self.origin.called.clone(),
                "a daemon was started again".to_owned(),
            );
            return Err(MoveError::Refused { from, why });
        }
        Ok(had_been)
    }

    fn take_back(&self) {
        let taken = backup::unretire(&self.origin.conn);
        if let Err(error) = taken {
            tracing::error!(%error, "the store is still marked as moved: `renewd store adopt` takes it back");
        }
    }

    /// Writes what is left, looks whether both are the same, and makes the target a store.
    fn finish(&mut self, cause: &Cause, now: Timestamp) -> Result<Moved, MoveError> {
        let mut differs = String::new();
        for _ in 0..PASSES {
            self.pass(false)?;
            match self.compare()? {
                Ok(tables) => {
                    self.open_up(cause, now)?;
                    let to = self.target.called.clone();
                    return Ok(Moved { to, tables });
                }
                Err(table) => differs = table,
            }
        }
        Err(MoveError::Differs { table: differs })
    }

    /// The tables with how many rows each has on both sides; or the first that is not the same.
    fn compare(&self) -> Result<Result<Vec<(String, u64)>, String>, MoveError> {
        let mut tables = Vec::new();
        for table in &self.tables {
            let here = table
                .tally(&self.origin.conn)
                .map_err(self.origin.fails())?;
            let there = table
                .tally(&self.target.conn)
                .map_err(self.target.fails())?;
            if here != there {
                return Ok(Err(table.name.clone()));
            }
            let Tally { rows, .. } = here;
            tables.push((table.name.clone(), rows));
        }
        Ok(Ok(tables))
    }

    /// The target may be used from here on.
    fn open_up(&self, cause: &Cause, now: Timestamp) -> Result<(), MoveError> {
        let (from, to, fails) = (&self.origin.conn, &self.target.conn, self.target.fails());
        let mut last = Vec::new();
        for table in self
            .tables
            .iter()
            .filter(|table| table.never_reuses_numbers())
        {
            last.push((table, table.last_drawn(from).map_err(self.origin.fails())?));
        }
        to.begin().map_err(&fails)?;
        let written = self.keep_mark().and_then(|()| {
            let opened = last
                .iter()
                .try_for_each(|(table, last)| table.go_on_from(to, *last))
                .and_then(|()| self.sign(cause, now))
                .and_then(|()| to.execute("DELETE FROM meta WHERE key = ?1", [MOVING]));
            opened.map_err(&fails)
        });
        let opened = written.and_then(|_| to.commit().map_err(|error| self.at_the_end(error)));
        if opened.is_err() && to.is_in_transaction() {
            to.batch("ROLLBACK").ok();
        }
        opened
    }

    /// What the target says of its own before it is a store.
    fn sign(&self, cause: &Cause, now: Timestamp) -> Result<(), SqlError> {
        if let Some(node) = self.node.as_ref().filter(|_| self.target.in_file()) {
            sinks::are_of_one(&self.target.conn, node)?;
        }
        add_entry(
            &self.target.conn,
            &AuditEntry {
                at: now,
                actor: cause.actor.clone(),
                action: "move".to_owned(),
                name: None,
                reason: cause.reason.clone(),
                request_id: None,
                result: format!("the store was moved from {}", self.origin.called),
            },
        )
    }

    /// Why the last commit failed; where its answer did not come, nobody knows where the store is.
    fn at_the_end(&self, error: SqlError) -> MoveError {
        match error {
            SqlError::Unsure(why) => MoveError::Unsure {
                to: self.target.called.clone(),
                why,
            },
            error => self.target.fails()(error),
        }
    }
}

/// Other sessions of ours in a database: daemons, on whichever machine.
fn sessions(side: &Side) -> Result<i64, SqlError> {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() \
               AND application_name LIKE 'renewd %'";
    let found = side.conn.first(sql, [], |row| row.get(0))?;
    Ok(found.unwrap_or(0))
}
