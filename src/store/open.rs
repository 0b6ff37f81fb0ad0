//! Opens the store: lock, database, schema, key, id map, and what a crash left half done.
//!
//! One owner: a kernel lock on a file beside the database, which `kill -9` and a power cut release.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
    sync::Arc,
};

use rustix::fs::{FlockOperation, flock};

use super::{
    backup,
    catch_up::BroughtUp,
    commit_mark::CommitMark,
    creations::TakenOver,
    db::{self, Db, Txn},
    disk::Reserve,
    error::{Fault, OpenError, Outcome, StoreError},
    idmap::{Found, IdMap},
    journal::Files,
    nodes, reseal, schema, seal,
    signals::Signals,
    trial,
    withdrawals::Withdrawals,
    writer::{FilesEnd, Writer},
};
use crate::{
    config::{Owner, StorePlace, StoreSettings},
    model::{StoreStanding, Timestamp},
    sql::{self, Connection, ErrorKind, Remote, Session, SqlError},
};

/// A database up to this size is read through for damage at each start.
const CHECKED: u64 = 64 << 20;

/// What was found when the store was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Opened {
    /// What was taken over from `identities.jsonl`, where the store did not know it.
    pub taken_over: Option<TakenOver>,
    /// Names whose id `identities.jsonl` knows.
    pub id_map: usize,
    /// Creations that were under way when the last process ended; they are possible orphans now.
    pub orphans: usize,
    /// Lines of `identities.jsonl` that could not be read; the file was kept as
    /// `identities.jsonl.broken`.
    pub broken_id_lines: usize,
    /// Whether the store may be used at all.
    pub standing: StoreStanding,
    /// What was taken over from `withdrawn.jsonl`, where the store did not know it.
    pub brought: Option<BroughtUp>,
}

impl Opened {
    /// What this start took over because the store did not know it, in words.
    pub fn told(&self) -> Option<String> {
        let taken = self.taken_over.map(|taken| taken.to_string());
        let brought = self.brought.map(|brought| brought.to_string());
        let told: Vec<String> = taken.into_iter().chain(brought).collect();
        (!told.is_empty()).then(|| told.join("; "))
    }
}

/// What a handle is made of.
pub(super) struct Parts {
    pub(super) writer: Writer,
    pub(super) lock: Lock,
    pub(super) opened: Opened,
}

pub(super) fn open(
    settings: &StoreSettings,
    state_dir: &Path,
    now: Timestamp,
    durable: bool,
) -> Result<Parts, OpenError> {
    open_under(
        lock(settings, state_dir)?,
        (settings, state_dir),
        now,
        durable,
    )
}

/// The same for who holds the lock already.
pub(super) fn open_under(
    lock: Lock,
    (settings, state_dir): (&StoreSettings, &Path),
    now: Timestamp,
    durable: bool,
) -> Result<Parts, OpenError> {
    let here = &settings.place.here(state_dir);
    let path = &settings.place.called();
    let file = settings.place.file();
    let mut reserve = Reserve::beside(here, durable && file.is_some());
    reserve.make_room();
    let (conn, created) = match file {
        Some(file) => {
            touch(file)?;
            of_file(settings, (file, state_dir), now, durable)
        }
        None => of_database(settings),
    }
    .map_err(|e| explained(path, &e))??;
    let key = |meta| db::meta::<String>(&conn, meta).map_err(|e| explained(path, &e));
    let (stored, successor) = (key("seal_key")?, key(reseal::SUCCESSOR)?);
    let keys = (stored.as_deref(), successor.as_deref());
    let seal = Arc::new(seal::seal(settings, state_dir, keys)?);
    let db = Db::on(conn, (seal, Arc::default()), settings.node.clone());
    let mut beside = Beside::of(settings, state_dir, durable);
    let settled = settle(&db, &mut beside, (created, &settings.owner), now);
    let (opened, left) = settled.map_err(|fault| not_settled(settings, &db, fault))?;
    if stored.is_none() {
        is_ours(settings, &db)?;
    }
    let Beside {
        mut id_map,
        withdrawals,
        ..
    } = beside;
    id_map.catch_up(&db);
    let seq = seq_of(&db, now).map_err(|_| other(path, "no sequence".to_owned()))?;
    let signals = Signals::since(seq);
    let mut writer = Writer {
        db,
        id_map,
        withdrawals,
        owed: 0,
        reserve,
        signals,
        witness: None,
        mark: CommitMark::of(settings),
        not_done: false,
        queue: None,
        place: None,
    };
    let written = bring_up_files(&mut writer, left);
    written.map_err(|fault| in_words(path, fault))?;
    writer.hold_reserve();
    Ok(Parts {
        writer,
        lock,
        opened,
    })
}

/// That no other machine was quicker to seal a new store with its own key.
fn is_ours(settings: &StoreSettings, db: &Db) -> Result<(), OpenError> {
    let path = settings.place.called();
    let stored = db::meta::<String>(&db.conn, "seal_key").map_err(|e| explained(&path, &e))?;
    let given = db.seal.key_id();
    match stored {
        Some(stored) if stored != given => Err(OpenError::WrongKey {
            path,
            from: "this machine".to_owned(),
            given,
            stored,
        }),
        _ => Ok(()),
    }
}

/// A shared store has many owners, each with files of its own.
pub(super) fn lock(settings: &StoreSettings, state_dir: &Path) -> Result<Lock, OpenError> {
    let here = &settings.place.here(state_dir);
    folders(here.parent().into_iter().chain([state_dir]))?;
    match &settings.node {
        None => Lock::take(here),
        Some(_) => Lock::take(&state_dir.join("renewd")),
    }
}

fn folders<'a>(dirs: impl Iterator<Item = &'a Path>) -> Result<(), OpenError> {
    for dir in dirs {
        let made = fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir);
        made.map_err(|e| io_error("make the directory", dir, e))?;
    }
    Ok(())
}

/// Makes the file if need be, for our eyes only; SQLite gives the files beside it the same mode.
pub(super) fn touch(path: &Path) -> Result<(), OpenError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|e| io_error("open the store", path, e))?;
    let mode = file.metadata().map_or(0o600, |m| m.permissions().mode());
    if mode & 0o077 != 0 {
        file.set_permissions(fs::Permissions::from_mode(0o600))
            .map_err(|e| io_error("close the store to others", path, e))?;
    }
    Ok(())
}

/// The connection, with the newest schema; and whether the database was made just now.
fn of_file(
    settings: &StoreSettings,
    (path, state_dir): (&Path, &Path),
    now: Timestamp,
    durable: bool,
) -> sql::Result<Result<(Connection, bool), OpenError>> {
    let conn = Connection::writer_of(path, durable)?;
    let found = schema::version(&conn)?;
    if let Some(why) = barred(&conn, found, path)? {
        return Ok(Err(why));
    }
    if found > 0 && fs::metadata(path).is_ok_and(|m| m.len() <= CHECKED) {
        let verdict = conn.first("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0))?;
        if let Some(reason) = verdict.filter(|verdict| verdict != "ok") {
            return Ok(Err(OpenError::Corrupt {
                path: path.to_owned(),
                reason,
            }));
        }
    }
    if found > 0 && found < schema::NEWEST && settings.save_before_migration {
        let saved = conn.file();
        match saved.map(|file| backup::before_migration(file, (path, state_dir), now)) {
            None => {}
            Some(Ok(place)) => {
                tracing::info!(backup = %place.display(), "the store was saved before it is brought up to date")
            }
            Some(Err(source)) => {
                return Ok(Err(OpenError::NotSaved {
                    path: path.to_owned(),
                    source,
                }));
            }
        }
    }
    if let Some(reason) = nodes::keep_from_migrating(&conn, (found, settings.node.as_ref()), now)? {
        return Ok(Err(other(path, reason)));
    }
    brought_up(&conn, found)?;
    Ok(Ok((conn, found == 0)))
}

/// The same in PostgreSQL. Of several machines that make it at once one does, and the others find it made.
fn of_database(settings: &StoreSettings) -> sql::Result<Result<(Connection, bool), OpenError>> {
    let conn = session(settings, "write")?;
    match made(settings, &conn) {
        Ok(created) => Ok(created.map(|created| (conn, created))),
        Err(error) => match without_right(settings, &conn, &error) {
            Some(why) => Ok(Err(why)),
            None => Err(error),
        },
    }
}

/// That the user of the database may not do what is needed.
fn without_right(
    settings: &StoreSettings,
    conn: &Connection,
    error: &SqlError,
) -> Option<OpenError> {
    let reason = trial::lacking(conn, settings.place.database()?, error)?;
    Some(OpenError::Away {
        reason,
        lasting: true,
    })
}

/// The tables, with the newest schema; whether they were made just now.
fn made(settings: &StoreSettings, conn: &Connection) -> sql::Result<Result<bool, OpenError>> {
    let found = schema::version(conn)?;
    if let Some(why) = barred(conn, found, &settings.place.called())? {
        return Ok(Err(why));
    }
    // Its own clock tells the time.
    let now = Timestamp::UNIX_EPOCH;
    if let Some(reason) = nodes::keep_from_migrating(conn, (found, settings.node.as_ref()), now)? {
        return Ok(Err(other(&settings.place.called(), reason)));
    }
    let Err(error) = brought_up(conn, found) else {
        return Ok(Ok(found == 0));
    };
    match schema::version(conn)? {
        made if found == 0 && made > 0 => brought_up(conn, made).map(|()| Ok(false)),
        _ => Err(error),
    }
}

/// A connection to the database that the store lies in; `purpose` is part of how the server lists it.
pub(super) fn session(settings: &StoreSettings, purpose: &str) -> sql::Result<Connection> {
    let StorePlace::Database(database) = &settings.place else {
        let why = "the store lies in a file";
        return Err(SqlError::Lost(why.to_owned()));
    };
    Ok(Session::open(Remote::new(database, application(settings, purpose)))?.into())
}

/// How the server lists who connects.
pub(super) fn application(settings: &StoreSettings, purpose: &str) -> String {
    format!("{}{} {purpose}", nodes::SESSIONS, settings.node_name())
}

/// Why what is there is not to be used: it is of a newer renewd, which does not let us, is only a part, or goes on
/// elsewhere.
fn barred(conn: &Connection, found: i64, path: &Path) -> sql::Result<Option<OpenError>> {
    let path = path.to_owned();
    let said: Option<String> = match found > schema::NEWEST {
        true => db::meta(conn, schema::USABLE_KEY)?,
        false => None,
    };
    if !schema::may_be_used(found, said.as_deref()) {
        let known = schema::NEWEST;
        return Ok(Some(OpenError::Newer { path, found, known }));
    }
    if found == 0 {
        return Ok(None);
    }
    if let Some(from) = backup::half_moved(conn)? {
        return Ok(Some(OpenError::HalfMoved { path, from }));
    }
    let at = db::meta::<i64>(conn, backup::RETIRED)?.map(db::instant);
    let to = db::meta::<String>(conn, db::MOVED_TO)?;
    Ok(at.map(|at| match to {
        Some(to) => OpenError::Moved { path, at, to },
        None => OpenError::Retired { path, at },
    }))
}

fn brought_up(conn: &Connection, found: i64) -> sql::Result<()> {
    schema::migrate(conn, found)?;
    if found > schema::NEWEST {
        tracing::info!(
            schema = found,
            known = schema::NEWEST,
            "a newer renewd made this store; it lets this version use it"
        );
        db::set_meta(conn, schema::USED_BY_OLDER, schema::NEWEST)?;
    }
    Ok(())
}

/// The last number of the watch stream.
fn seq_of(db: &Db, now: Timestamp) -> Outcome<u64> {
    match db.seq() {
        Err(fault) if fault.is_unreadable() => {
            // No watcher has seen a number as high as the time.
            let seq = db::micros(now);
            db::set_meta(&db.conn, "seq", seq)?;
            Ok(seq.unsigned_abs())
        }
        seq => seq,
    }
}

fn in_words(path: &Path, fault: Fault) -> OpenError {
    match fault {
        Fault::Sql(error) => explained(path, &error),
        fault => other(
            path,
            StoreError::new("take over what was left", fault).to_string(),
        ),
    }
}

fn not_settled(settings: &StoreSettings, db: &Db, fault: Fault) -> OpenError {
    let lacks = match &fault {
        Fault::Sql(error) => without_right(settings, &db.conn, error),
        _ => None,
    };
    lacks.unwrap_or_else(|| in_words(&settings.place.called(), fault))
}

/// The files beside the database.
struct Beside {
    id_map: IdMap,
    withdrawals: Withdrawals,
    files: Files,
}

impl Beside {
    fn of(settings: &StoreSettings, state_dir: &Path, durable: bool) -> Self {
        let copy = settings.withdrawn_copy.as_deref();
        Self {
            id_map: IdMap::beside(state_dir, durable),
            withdrawals: Withdrawals::beside(state_dir, copy, durable),
            files: Files::in_folder(state_dir),
        }
    }
}

/// Does what is still to be done to the files beside the database.
fn bring_up_files(writer: &mut Writer, left: Left) -> Outcome<()> {
    match left {
        Left { place, .. } if writer.is_shared() => writer.take_place(place),
        Left { rewrite: true, .. } => writer.fold_withdrawals(),
        Left { .. } => Ok(()),
    }
}

/// What is still to be done to the files beside the database.
#[derive(Debug, Default)]
struct Left {
    /// `withdrawn.jsonl` is to be written anew.
    rewrite: bool,
    /// In a cluster, where they end.
    place: Option<FilesEnd>,
}

/// Takes over what was left: the id map, what was withdrawn, creations that were under way, the id of the
/// key.
fn settle(
    db: &Db,
    beside: &mut Beside,
    (created, owner): (bool, &Owner),
    now: Timestamp,
) -> Outcome<(Opened, Left)> {
    db.conn.begin()?;
    let settled = match db.is_shared() {
        true if created => db
            .locked_duty()
            .and_then(|_| settle_in(db, beside, (created, owner), now)),
        true => db
            .locked_duty()
            .and_then(|_| settle_shared(db, beside, owner, now)),
        false => settle_in(db, beside, (created, owner), now),
    };
    match settled {
        Ok(_) => db.conn.commit()?,
        Err(_) => db.conn.batch("ROLLBACK")?,
    }
    settled
}

/// The same where other machines use the store as well: what only who leads may take over is left to that one, and what
/// is in this machine's files is carried out only where the database has lost it.
fn settle_shared(
    db: &Db,
    beside: &mut Beside,
    owner: &Owner,
    now: Timestamp,
) -> Outcome<(Opened, Left)> {
    if db::meta::<String>(&db.conn, "seal_key")?.is_none() {
        db::set_meta(&db.conn, "seal_key", db.seal.key_id())?;
    }
    db.load_floor()?;
    let mut txn = Txn::careful(db);
    let Beside {
        id_map,
        withdrawals,
        files,
    } = beside;
    let file = txn.look_at_withdrawals(withdrawals)?;
    let joined = txn.join_withdrawals((withdrawals, id_map), file, (files, now))?;
    txn.end_settled()?;
    txn.flush_counts()?;
    let opened = Opened {
        id_map: db.known_names()?,
        standing: db.usable(owner)?,
        brought: joined.brought,
        ..Opened::default()
    };
    let place = joined.place;
    Ok((
        opened,
        Left {
            rewrite: true,
            place,
        },
    ))
}

fn settle_in(
    db: &Db,
    beside: &mut Beside,
    (created, owner): (bool, &Owner),
    now: Timestamp,
) -> Outcome<(Opened, Left)> {
    // Of several machines that open a new store at once, the first one's key stays.
    db.run(
        "INSERT INTO meta (key, value) VALUES ('seal_key', ?1) ON CONFLICT DO NOTHING",
        [db.seal.key_id()],
    )?;
    db.load_floor()?;
    let mut txn = Txn::careful(db);
    let file = txn.look_at_withdrawals(&mut beside.withdrawals)?;
    let Found {
        known,
        news,
        broken,
    } = beside.id_map.compare(db)?;
    let lost = created && (news > 0 || file.is_known());
    if lost {
        txn.begin_wait()?;
    }
    let taken_over = match news {
        0 => None,
        _ => Some(txn.take_map_over(lost, now)?).filter(|taken| taken.is_news()),
    };
    if taken_over.is_some_and(|taken| taken.refused > 0) {
        beside.id_map.keep_aside()?;
    }
    // An older database was restored: its rows get back the ids that were given since.
    txn.adopt_remembered(now)?;
    let known = known.map_or_else(|| db.known_names(), Ok)?;
    let settled = txn.settle_withdrawals(&mut beside.withdrawals, file, (created, known), now)?;
    if settled.brought.is_some() {
        txn.forget_agreement()?;
        beside.id_map.fall_behind();
    }
    let taken = taken_over.map(|taken| taken.to_string());
    txn.raise(&settled.notices(taken, now))?;
    let orphans = txn.orphan_intents(db::micros(now))?;
    txn.end_settled()?;
    txn.count_after_older()?;
    txn.flush_counts()?;
    let opened = Opened {
        taken_over,
        id_map: known,
        orphans,
        broken_id_lines: broken,
        standing: db.usable(owner)?,
        brought: settled.brought,
    };
    let rewrite = settled.rewrite;
    Ok((
        opened,
        Left {
            rewrite,
            place: None,
        },
    ))
}

fn io_error(doing: &'static str, path: &Path, source: io::Error) -> OpenError {
    if source.raw_os_error() == Some(rustix::io::Errno::NOSPC.raw_os_error()) {
        return OpenError::Full {
            path: path.to_owned(),
        };
    }
    OpenError::Io {
        doing,
        path: path.to_owned(),
        source,
    }
}

fn other(path: &Path, reason: String) -> OpenError {
    OpenError::Other {
        path: path.to_owned(),
        reason,
    }
}

pub(super) fn explained(path: &Path, error: &SqlError) -> OpenError {
    let reason = error.to_string();
    if let SqlError::Away(away) = error {
        return OpenError::Away {
            lasting: away.is_configuration(),
            reason,
        };
    }
    if !matches!(error, SqlError::Sqlite(_)) {
        return other(path, reason);
    }
    match error.kind() {
        ErrorKind::Corrupt => OpenError::Corrupt {
            path: path.to_owned(),
            reason,
        },
        ErrorKind::Full => OpenError::Full {
            path: path.to_owned(),
        },
        ErrorKind::Busy => other(
            path,
            "another program holds the database for writing; close it".to_owned(),
        ),
        ErrorKind::NotWritable => OpenError::Closed {
            path: path.to_owned(),
            reason,
        },
        ErrorKind::Unreadable | ErrorKind::Other => other(path, reason),
    }
}

/// Held for as long as any of its clones lives.
#[derive(Debug, Clone)]
pub(super) struct Lock {
    _held: Arc<Locked>,
}

#[derive(Debug)]
struct Locked(File);

impl Drop for Locked {
    /// A program that is being started right now has the file open, too, until it is another program.
    fn drop(&mut self) {
        // Closing the file does the same a moment later.
        flock(&self.0, FlockOperation::Unlock).ok();
    }
}

impl Lock {
    /// Takes the lock of the store at `database`, and leaves our pid in it for others to read.
    pub(super) fn take(database: &Path) -> Result<Self, OpenError> {
        let path = database.with_extension("lock");
        let failed = |source| OpenError::Io {
            doing: "take the lock file",
            path: path.clone(),
            source,
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut text = String::new();
                file.read_to_string(&mut text).ok();
                return Err(OpenError::Locked {
                    path: database.to_owned(),
                    pid: text.trim().parse().ok(),
                });
            }
            Err(errno) => return Err(failed(errno.into())),
        }
        // The pid is a courtesy: a full disk must not keep the daemon from serving.
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .ok();
        let _held = Arc::new(Locked(file));
        Ok(Self { _held })
    }
}
