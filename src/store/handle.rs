//! The handle on the store: readers, the one writer, and the signals that wake others.
//!
//! [`Store`], the handle that everybody holds: hands verbs to the writer's thread and to the readers',
//! or runs them in place under simulated time.
//!
//! What the store tells others after a commit: rows became due, versions rose, a campaign began.
//!
//! One transaction for everything that is queued. Each operation has its own savepoint, so that one
//! that fails leaves no trace and hurts no other; whoever asked is answered after the commit.

use std::{
    collections::VecDeque,
    fmt, fs, io,
    os::unix::fs::MetadataExt as _,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::{
    db::{Changed, Db, Effects, Txn},
    error::{Fault, OpenError, Outcome, StoreError},
    idmap::IdMap,
    open::{self, Lock, Opened},
    reserve::{Disk, Reserve},
    withdrawals::Withdrawals,
};
use crate::{
    config::{Owner, StoreSettings},
    model::Timestamp,
};

/// Operations that may wait for the writer before callers wait too.
const QUEUE: usize = 1024;
/// Connections that read, each on a thread of its own.
const READERS: usize = 2;
/// Threads of an open store: the readers' and the writer's.
pub const THREADS: usize = READERS + 1;

/// A read, answering by itself.
type Read = Box<dyn FnOnce(&Db) + Send>;

/// The store. All clones are the same; it closes when the last one is dropped. A verb whose future is
/// dropped after it was queued is carried out all the same.
#[derive(Clone)]
pub struct Store(pub(super) Arc<Inner>);

pub(super) struct Inner {
    path: PathBuf,
    state_dir: PathBuf,
    settings: StoreSettings,
    /// Somebody wants the seal key replaced.
    pub(super) reseal: Notify,
    owner: Owner,
    mode: Option<Mode>,
    signals: Signals,
    /// The files that are open, by device and inode.
    files: Vec<(PathBuf, u64, u64)>,
    disk: watch::Receiver<Disk>,
    copy: watch::Receiver<Option<String>>,
    pub(super) keep: Keep,
    /// Reads that were made.
    #[cfg(test)]
    reads: std::sync::atomic::AtomicUsize,
    /// Released when everything else is closed.
    _lock: Lock,
}

/// How long the trails are kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keep {
    pub(super) renewals: Duration,
    pub(super) other: Duration,
}

impl Keep {
    /// What of it remains on such a disk: routine renewals go first, the rest only when nothing can be
    /// written any more.
    fn on(self, disk: Disk) -> Self {
        let (renewals, other) = match disk {
            Disk::Roomy => return self,
            Disk::OnReserve => (Duration::from_hours(1), self.other),
            Disk::Full => (Duration::ZERO, Duration::from_hours(30 * 24)),
        };
        Self {
            renewals: self.renewals.min(renewals),
            other: self.other.min(other),
        }
    }
}

enum Mode {
    Threaded {
        writer: mpsc::Sender<Operation>,
        readers: mpsc::Sender<Read>,
        threads: Vec<JoinHandle<()>>,
    },
    Inline(Box<Mutex<Writer>>),
}

impl Store {
    /// Opens the store for the daemon: one thread that writes, others that read. Blocks while the
    /// database and the id map are looked through.
    ///
    /// # Errors
    /// One clear message each; see [`OpenError`].
    pub fn open(
        settings: &StoreSettings,
        state_dir: &Path,
        now: Timestamp,
    ) -> Result<(Self, Opened), OpenError> {
        let parts = open::open(settings, state_dir, now, true)?;
        let other = |e: &dyn fmt::Display| OpenError::Other {
            path: settings.path.clone(),
            reason: e.to_string(),
        };
        let (writer, write_queue) = mpsc::channel(QUEUE);
        let (readers, read_queue) = mpsc::channel(QUEUE);
        let read_queue = Arc::new(Mutex::new(read_queue));
        let mut threads = Vec::new();
        for n in 0..READERS {
            let Db { seal, aside, .. } = &parts.writer.db;
            let db =
                Db::reader(&settings.path, seal.clone(), aside.clone()).map_err(|e| other(&e))?;
            let queue = read_queue.clone();
            let named = thread::Builder::new().name(format!("store-read-{n}"));
            threads.push(
                named
                    .spawn(move || serve_reads(&db, &queue))
                    .map_err(|e| other(&e))?,
            );
        }
        let tells = Tells::of(&parts.writer);
        let named = thread::Builder::new().name("store-write".to_owned());
        let spawned = named.spawn(move || parts.writer.serve(write_queue));
        threads.push(spawned.map_err(|e| other(&e))?);
        let mode = Mode::Threaded {
            writer,
            readers,
            threads,
        };
        let store = Self::made((settings, state_dir), mode, tells, parts.lock);
        Ok((store, parts.opened))
    }

    /// Opens the store for simulated time and short commands: every verb runs in place, without a
    /// thread, and nothing waits for the disk.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_inline(
        settings: &StoreSettings,
        state_dir: &Path,
        now: Timestamp,
    ) -> Result<(Self, Opened), OpenError> {
        let parts = open::open(settings, state_dir, now, false)?;
        let tells = Tells::of(&parts.writer);
        let mode = Mode::Inline(Box::new(Mutex::new(parts.writer)));
        let store = Self::made((settings, state_dir), mode, tells, parts.lock);
        Ok((store, parts.opened))
    }

    fn made(
        (settings, state_dir): (&StoreSettings, &Path),
        mode: Mode,
        Tells {
            signals,
            disk,
            copy,
        }: Tells,
        lock: Lock,
    ) -> Self {
        Self(Arc::new(Inner {
            files: open_files(&settings.path),
            path: settings.path.clone(),
            state_dir: state_dir.to_owned(),
            settings: settings.clone(),
            reseal: Notify::new(),
            owner: settings.owner.clone(),
            mode: Some(mode),
            signals,
            disk,
            copy,
            keep: Keep {
                renewals: settings.keep_renewals,
                other: settings.keep_other,
            },
            #[cfg(test)]
            reads: std::sync::atomic::AtomicUsize::new(0),
            _lock: lock,
        }))
    }

    /// The database file.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Whom the store belongs to once a person says so.
    pub(super) fn here(&self) -> &Owner {
        &self.0.owner
    }

    /// Where the files beside the database are.
    pub(super) fn state_dir(&self) -> &Path {
        &self.0.state_dir
    }

    /// What the configuration says of it.
    pub(super) fn settings(&self) -> &StoreSettings {
        &self.0.settings
    }

    /// What is wrong where the files of the store lie, if anything is: what is open goes on to work, but
    /// nobody finds it when it is closed.
    pub fn moved(&self) -> Option<String> {
        self.0.files.iter().find_map(|(path, device, inode)| {
            let shown = path.display();
            match fs::metadata(path) {
                Ok(found) if (found.dev(), found.ino()) == (*device, *inode) => None,
                Ok(_) => Some(format!(
                    "another file lies at {shown} than the one that renewd has open"
                )),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    Some(format!("the file {shown} is gone"))
                }
                Err(error) => Some(format!("the file {shown} cannot be looked at: {error}")),
            }
        })
    }

    /// Rises after each commit that made rows due, or due earlier.
    pub fn due_signal(&self) -> watch::Receiver<u64> {
        self.0.signals.due.subscribe()
    }

    /// Rises after each commit that raised `wanted` or a version.
    pub fn wanted_signal(&self) -> watch::Receiver<u64> {
        self.0.signals.wanted.subscribe()
    }

    /// Rises after each commit that made a campaign, or gave one more to do.
    pub fn campaign_signal(&self) -> watch::Receiver<u64> {
        self.0.signals.campaigns.subscribe()
    }

    /// The number of the newest change of a version, store-wide, over restarts.
    pub fn seq(&self) -> u64 {
        self.0.signals.seq()
    }

    /// The changes of versions after `seq`, oldest first; `None` when they are no longer all known
    /// (too long ago, or before a restart): then the watcher starts from the full state.
    pub fn changes_after(&self, seq: u64) -> Option<Vec<Changed>> {
        self.0.signals.after(seq)
    }

    pub(super) fn signals(&self) -> &Signals {
        &self.0.signals
    }

    /// How the disk of the store is.
    pub fn disk(&self) -> Disk {
        *self.0.disk.borrow()
    }

    /// What is wrong with the second place of the withdrawals (`[store] withdrawn_copy`), if something is.
    pub fn copy_trouble(&self) -> Option<String> {
        self.0.copy.borrow().clone()
    }

    /// Tells when that changes.
    pub fn disk_signal(&self) -> watch::Receiver<Disk> {
        self.0.disk.clone()
    }

    /// How long the trails are kept; shorter while the disk is full, so that renewals go on.
    pub(super) fn keep(&self) -> Keep {
        self.0.keep.on(self.disk())
    }

    /// Runs an operation in the writer's next transaction and answers after its commit.
    pub(super) async fn write<T, F>(&self, doing: &'static str, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Txn<'_>) -> Outcome<T> + Send + 'static,
    {
        self.queue(doing, false, work).await
    }

    /// The same for an operation that as a rule withdraws something. What is withdrawn by any operation is in
    /// `withdrawn.jsonl`, synced, before it answers; of this one the store notes beforehand that it may be,
    /// so that a crash in between is known for one. Without that a crash counts as a store that was put back,
    /// which costs new versions and nothing else.
    pub(super) async fn withdraw<T, F>(&self, doing: &'static str, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Txn<'_>) -> Outcome<T> + Send + 'static,
    {
        self.queue(doing, true, work).await
    }

    /// The same for an operation of which the caller knows whether it withdraws something.
    pub(super) async fn queue<T, F>(
        &self,
        doing: &'static str,
        withdraws: bool,
        work: F,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Txn<'_>) -> Outcome<T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let operation = Operation {
            withdraws,
            run: boxed(doing, work, reply),
        };
        match self.mode() {
            Mode::Inline(writer) => writer
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .apply(vec![operation]),
            Mode::Threaded { writer, .. } => {
                let sent = writer.send(operation).await;
                sent.map_err(|_| StoreError::Closed { doing })?;
            }
        }
        answer.await.unwrap_or_else(|_| Err(lost(doing)))
    }

    /// Runs a read on a connection of its own.
    pub(super) async fn read<T, F>(&self, doing: &'static str, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Db) -> Outcome<T> + Send + 'static,
    {
        #[cfg(test)]
        self.0
            .reads
            .fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let failed = move |fault| StoreError::new(doing, fault);
        match self.mode() {
            Mode::Inline(writer) => {
                let writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
                work(&writer.db).map_err(failed)
            }
            Mode::Threaded { readers, .. } => {
                let (reply, answer) = oneshot::channel();
                let read: Read = Box::new(move |db| {
                    // Whoever asked may have gone in the meantime.
                    reply.send(work(db).map_err(failed)).ok();
                });
                let sent = readers.send(read).await;
                sent.map_err(|_| StoreError::Closed { doing })?;
                answer.await.unwrap_or_else(|_| Err(lost(doing)))
            }
        }
    }

    /// How many reads were made so far.
    #[cfg(test)]
    pub(crate) fn reads_made(&self) -> usize {
        self.0.reads.load(std::sync::atomic::Ordering::SeqCst)
    }

    fn mode(&self) -> &Mode {
        #[expect(clippy::expect_used, reason = "only Drop takes the mode")]
        self.0.mode.as_ref().expect("the store is open")
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Store").field(&self.0.path).finish()
    }
}

impl Drop for Inner {
    /// Waits until everything queued is committed; then the lock may go.
    fn drop(&mut self) {
        match self.mode.take() {
            Some(Mode::Threaded {
                writer,
                readers,
                threads,
            }) => {
                drop((writer, readers));
                for thread in threads {
                    if thread.join().is_err() {
                        tracing::error!("a thread of the store panicked");
                    }
                }
            }
            Some(Mode::Inline(writer)) => writer
                .into_inner()
                .unwrap_or_else(PoisonError::into_inner)
                .close(),
            None => {}
        }
    }
}

/// What the writer tells of itself.
struct Tells {
    signals: Signals,
    disk: watch::Receiver<Disk>,
    copy: watch::Receiver<Option<String>>,
}

impl Tells {
    fn of(writer: &Writer) -> Self {
        Self {
            signals: writer.signals.clone(),
            disk: writer.reserve.disk(),
            copy: writer.withdrawals.trouble(),
        }
    }
}

/// The database and what SQLite keeps beside it.
fn open_files(database: &Path) -> Vec<(PathBuf, u64, u64)> {
    let beside = ["", "-wal", "-shm"].map(|ending| {
        let mut path = database.as_os_str().to_owned();
        path.push(ending);
        PathBuf::from(path)
    });
    let found = beside.into_iter().filter_map(|path| {
        let meta = fs::metadata(&path).ok()?;
        Some((path, meta.dev(), meta.ino()))
    });
    found.collect()
}

fn boxed<T, F>(doing: &'static str, work: F, reply: oneshot::Sender<Result<T, StoreError>>) -> Run
where
    T: Send + 'static,
    F: FnOnce(&mut Txn<'_>) -> Outcome<T> + Send + 'static,
{
    Box::new(move |txn| {
        let worked = txn.and_then(|txn| work(txn).map_err(|fault| StoreError::new(doing, fault)));
        match worked {
            Ok(value) => Ok(Box::new(move |ended: Result<(), StoreError>| {
                // Whoever asked may have gone in the meantime.
                reply.send(ended.map(|()| value)).ok();
            })),
            Err(error) => {
                reply.send(Err(error.clone())).ok();
                Err(error)
            }
        }
    })
}

fn serve_reads(db: &Db, queue: &Mutex<mpsc::Receiver<Read>>) {
    loop {
        let next = queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .blocking_recv();
        let Some(read) = next else { return };
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| read(db)));
        if caught.is_err() {
            tracing::error!("a read of the store panicked");
        }
    }
}

fn lost(doing: &'static str) -> StoreError {
    StoreError::Fault {
        doing,
        reason: "the operation panicked".to_owned(),
    }
}

/// How many changes are kept for those who resume a watch stream.
const KEPT: usize = 4096;

/// Counters that rise with what happened; cheap to clone.
#[derive(Clone)]
pub(super) struct Signals {
    pub(super) due: watch::Sender<u64>,
    pub(super) wanted: watch::Sender<u64>,
    pub(super) campaigns: watch::Sender<u64>,
    recent: Arc<Mutex<Recent>>,
}

struct Recent {
    /// Changes after this number are all in the list.
    since: u64,
    list: VecDeque<Changed>,
}

impl Signals {
    /// Starts after the last number of the watch stream.
    pub(super) fn since(seq: u64) -> Self {
        Self {
            due: watch::Sender::new(0),
            wanted: watch::Sender::new(0),
            campaigns: watch::Sender::new(0),
            recent: Arc::new(Mutex::new(Recent {
                since: seq,
                list: VecDeque::new(),
            })),
        }
    }

    pub(super) fn tell(&self, effects: Effects) {
        {
            let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
            recent.list.extend(effects.changed);
            while recent.list.len() > KEPT {
                recent.since = recent.list.pop_front().map_or(recent.since, |c| c.seq);
            }
        }
        for (signal, happened) in [
            (&self.due, effects.due),
            (&self.wanted, effects.wanted),
            (&self.campaigns, effects.campaigns),
        ] {
            if happened {
                signal.send_modify(|n| *n += 1);
            }
        }
    }

    /// The changes after `seq`, or `None` when they are no longer all known.
    pub(super) fn after(&self, seq: u64) -> Option<Vec<Changed>> {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if seq < recent.since {
            return None;
        }
        let at = recent.list.partition_point(|c| c.seq <= seq);
        Some(recent.list.range(at..).cloned().collect())
    }

    /// The number of the newest change.
    pub(super) fn seq(&self) -> u64 {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.list.back().map_or(recent.since, |c| c.seq)
    }
}

/// Answers whoever asked, once the transaction has ended.
pub(super) type Finish = Box<dyn FnOnce(Result<(), StoreError>) + Send>;
/// What an operation does. It answers by itself when it fails, or gets no transaction.
pub(super) type Run =
    Box<dyn FnOnce(Result<&mut Txn<'_>, StoreError>) -> Result<Finish, StoreError> + Send>;

/// One operation.
pub(super) struct Operation {
    /// Whether it may withdraw something.
    pub(super) withdraws: bool,
    pub(super) run: Run,
}

/// At most so many operations share a commit.
const GROUP: usize = 512;
/// From so many on the writer counts as under load and waits for more.
const LOAD: usize = 16;
/// The longest wait for more, in milliseconds.
const LONGEST_GATHER_MS: u32 = 20;

/// The writing end: the connection, the id map, and those who are told.
pub(super) struct Writer {
    pub(super) db: Db,
    pub(super) id_map: IdMap,
    pub(super) withdrawals: Withdrawals,
    /// A version that `withdrawn.jsonl` has to speak of, once a number for it is noted beforehand; or 0.
    pub(super) owed: u64,
    pub(super) reserve: Reserve,
    pub(super) signals: Signals,
}

impl Writer {
    /// Serves the queue until every handle is gone; the thread of the threaded store.
    pub(super) fn serve(mut self, mut queue: mpsc::Receiver<Operation>) {
        let mut last_group = 0;
        while let Some(first) = queue.blocking_recv() {
            let mut group = vec![first];
            gather(&mut queue, &mut group, last_group >= LOAD);
            last_group = group.len();
            self.apply(group);
        }
        self.close();
    }

    /// Applies operations in one transaction and answers them.
    pub(super) fn apply(&mut self, group: Vec<Operation>) {
        let promised = self.owed > 0 || group.iter().any(|operation| operation.withdraws);
        let (mut finishes, mut effects) = (Vec::with_capacity(group.len()), Effects::default());
        self.reserve.make_room();
        let promise = if promised { self.promise() } else { Ok(()) };
        let mut broken = promise.and_then(|()| self.sql("BEGIN IMMEDIATE")).err();
        for operation in group {
            if let Some(error) = &broken {
                // It answers its caller with the error; there is nothing more to do with it here.
                drop((operation.run)(Err(error.clone())));
                continue;
            }
            match self.one(operation.run) {
                Ok((finish, its_effects)) => {
                    finishes.push(finish);
                    effects.absorb(its_effects);
                }
                // A full disk makes SQLite roll the whole transaction back.
                Err(error) if self.db.conn.is_autocommit() => broken = Some(error),
                Err(_) => {}
            }
        }
        let result = match broken {
            Some(error) => Err(error),
            None => self.commit(&mut effects, promised),
        };
        if result.is_err() && !self.db.conn.is_autocommit() {
            self.sql("ROLLBACK").ok();
        }
        match &result {
            Ok(()) => {
                self.id_map.follow(&self.db, &effects);
                self.fold_if_long(effects.cleaned);
                if effects.cleaned {
                    self.hold_reserve();
                }
                self.signals.tell(effects);
            }
            Err(StoreError::Full { .. }) => self.reserve.was_full(),
            Err(_) => {}
        }
        for finish in finishes {
            finish(result.clone());
        }
    }

    /// Tells the file what is withdrawn, then commits; together or not at all.
    fn commit(&mut self, effects: &mut Effects, promised: bool) -> Result<(), StoreError> {
        let written = self.tell_withdrawals(effects, promised)?;
        self.id_map.lead(effects);
        let committed = self.sql("COMMIT");
        if committed.is_err() {
            self.id_map.fall_behind();
        }
        if let (Err(_), Some(written)) = (&committed, &written)
            && let Err(error) = self.withdrawals.take_back(written)
        {
            tracing::error!(%error, "withdrawn.jsonl says what the store did not take; the next start carries it out");
        }
        committed
    }

    fn fold_if_long(&mut self, cleaned: bool) {
        if self.withdrawals.wants_fold(cleaned)
            && let Err(fault) = self.fold_withdrawals()
        {
            let error = StoreError::new("fold withdrawn.jsonl", fault);
            tracing::warn!(%error, "it is tried again later");
        }
    }

    /// Holds the reserve again, for as many identities as there are.
    pub(super) fn hold_reserve(&mut self) {
        let identities = self
            .db
            .first("SELECT sum(n) FROM identity_count", [], |row| {
                row.get::<_, Option<i64>>(0)
            });
        // Without a count the reserve keeps its least size.
        let identities = identities.ok().flatten().flatten().unwrap_or(0);
        self.reserve.hold(identities.unsigned_abs());
    }

    fn one(&self, operation: Run) -> Result<(Finish, Effects), StoreError> {
        self.sql("SAVEPOINT operation")?;
        let ran = catch_unwind(AssertUnwindSafe(|| {
            let mut txn = Txn::on(&self.db);
            let finish = operation(Ok(&mut txn))?;
            match txn.finish() {
                Ok(effects) => Ok((finish, effects)),
                Err(fault) => {
                    let error = StoreError::new("number a change", fault);
                    finish(Err(error.clone()));
                    Err(error)
                }
            }
        }))
        .unwrap_or_else(|_| {
            Err(StoreError::Fault {
                doing: "run an operation",
                reason: "it panicked".to_owned(),
            })
        });
        if !self.db.conn.is_autocommit() {
            let end = if ran.is_ok() {
                "RELEASE operation"
            } else {
                "ROLLBACK TO operation; RELEASE operation"
            };
            self.sql(end)?;
        }
        ran
    }

    /// Leaves a tidy database behind: everything in one file, the id map written.
    pub(super) fn close(&mut self) {
        if self.owed > 0 {
            self.apply(Vec::new());
        }
        self.id_map.catch_up(&self.db);
        let tidied = self
            .db
            .conn
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        if let Err(error) = tidied {
            tracing::debug!(%error, "the store's log could not be folded in; the next start does it");
        }
    }

    fn sql(&self, sql: &str) -> Result<(), StoreError> {
        self.db
            .conn
            .execute_batch(sql)
            .map_err(|e| StoreError::new("commit to the store", Fault::Sql(e)))
    }
}

/// Takes everything that is queued; under load waits a little for more, so that a commit is shared.
fn gather(queue: &mut mpsc::Receiver<Operation>, group: &mut Vec<Operation>, load: bool) {
    let mut waited = 0;
    loop {
        while group.len() < GROUP {
            match queue.try_recv() {
                Ok(operation) => group.push(operation),
                Err(_) => break,
            }
        }
        if !load || group.len() >= LOAD || waited >= LONGEST_GATHER_MS {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
        waited += 1;
    }
}
