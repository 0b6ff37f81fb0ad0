//! [`Store`], the handle that everybody holds; what carries its operations out are the threads behind it. What each
//! operation does stands in the file of its noun.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use jiff::SignedDuration;
use tokio::sync::{Notify, oneshot, watch};

use super::{
    catch_up,
    cleanup::Keep,
    db::{Changed, Db, Txn},
    disk::{Disk, open_files},
    error::{OpenError, Outcome, StoreError},
    idmap,
    journal::Followed,
    link::Link,
    open::{self, Lock, Opened, Parts},
    seal::Seal,
    signals::Signals,
    standby::Standby,
    threads::{ReadWork, Threads},
    withdrawals,
    writer::{BoxedAnswer, Operation, Purpose, Work, Writer, lost},
};
use crate::{
    config::{Owner, StoreSettings},
    model::{NodeName, Timestamp},
    telemetry::Metrics,
};

/// Who counts how long operations take.
struct Measure {
    metrics: Metrics,
    elapsed: Box<dyn Fn() -> Duration + Send + Sync>,
}

/// The store. All clones are the same; it closes when the last one is dropped. A verb whose future is
/// dropped after it was queued is carried out all the same.
#[derive(Clone)]
pub struct Store(pub(super) Arc<Inner>, Option<u64>);

pub(super) struct Inner {
    path: PathBuf,
    state_dir: PathBuf,
    settings: StoreSettings,
    /// Somebody wants the seal key replaced.
    pub(super) reseal: Notify,
    owner: Owner,
    /// What there is once it is open.
    pub(super) open: OnceLock<Open>,
    /// Held before it is open, where only its mirror is served.
    held: OnceLock<Lock>,
    signals: Signals,
    standby: Arc<Standby>,
    pub(super) keep: Keep,
    measure: OnceLock<Measure>,
    /// The map of names to ids was looked at since the start.
    looked_at_map: AtomicBool,
    /// Reads that were made.
    #[cfg(test)]
    reads: std::sync::atomic::AtomicUsize,
    /// By how many microseconds the clock of this machine is ahead of the database's, where others share it.
    pub(super) ahead: AtomicI64,
    /// How it reaches its database, where that is simulated.
    link: OnceLock<Link>,
}

/// What there is of an open store.
pub(super) struct Open {
    threads: Threads,
    /// The files that are open, by device and inode.
    pub(super) files: Vec<(PathBuf, u64, u64)>,
    pub(super) disk: watch::Receiver<Disk>,
    pub(super) copy: watch::Receiver<Option<String>>,
    pub(super) map: watch::Receiver<Option<String>>,
    pub(super) unwritten: watch::Receiver<Option<String>>,
    seal: Arc<Seal>,
    /// Released when everything else is closed.
    _lock: Lock,
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
        let mut parts = open::open(settings, state_dir, now, true)?;
        let (signals, standby) = (parts.writer.signals.clone(), Arc::<Standby>::default());
        parts.writer.witness = Some(standby.clone());
        let store = Self::made((settings, state_dir), signals, standby);
        let opened = store.take_up(parts)?;
        Ok((store, opened))
    }

    /// Opens the database of a store that was made without it ([`Store::of_mirror`]); from then on it is as any other.
    /// Blocks as [`Store::open`] does.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn join(&self, now: Timestamp) -> Result<Opened, OpenError> {
        let place = (self.settings(), self.state_dir());
        let mut parts = match self.0.held.get() {
            Some(lock) => open::open_under(lock.clone(), place, now, true)?,
            None => open::open(place.0, place.1, now, true)?,
        };
        self.0.signals.begin_at(parts.writer.signals.seq());
        parts.writer.signals = self.0.signals.clone();
        parts.writer.witness = Some(self.0.standby.clone());
        self.take_up(parts)
    }

    /// Keeps other daemons of this machine away before it is open.
    pub(super) fn keep_lock(&self, lock: Lock) {
        // Whoever came first stays.
        self.0.held.set(lock).ok();
    }

    /// What seals its secrets, once it is open.
    pub(super) fn seal(&self) -> Option<Arc<Seal>> {
        self.0.open.get().map(|open| open.seal.clone())
    }

    /// Whether its database was opened.
    pub fn is_open(&self) -> bool {
        self.0.open.get().is_some()
    }

    /// Starts the threads of a store.
    fn take_up(&self, parts: Parts) -> Result<Opened, OpenError> {
        let made = Open::of(&parts.writer, self.settings());
        let threads = Threads::start(parts.writer, self.settings())?;
        // Whoever came first stays.
        self.0.open.set(made(threads, parts.lock)).ok();
        Ok(parts.opened)
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
        let mut parts = open::open(settings, state_dir, now, false)?;
        let (signals, standby) = (parts.writer.signals.clone(), Arc::<Standby>::default());
        parts.writer.witness = Some(standby.clone());
        let made = Open::of(&parts.writer, settings);
        let store = Self::made((settings, state_dir), signals, standby);
        let threads = Threads::inline(parts.writer);
        store.0.open.set(made(threads, parts.lock)).ok();
        Ok((store, parts.opened))
    }

    /// From now on nobody else can look into the file, and what would undo a change is in memory alone: for a simulation
    /// with many small transactions, whose store goes with it.
    #[cfg(feature = "simulation")]
    pub fn keep_to_itself(&self) {
        if let Some(open) = self.0.open.get() {
            open.threads.keep_to_itself();
        }
    }

    pub(super) fn made(
        (settings, state_dir): (&StoreSettings, &Path),
        signals: Signals,
        standby: Arc<Standby>,
    ) -> Self {
        let inner = Arc::new(Inner {
            path: settings.place.here(state_dir),
            state_dir: state_dir.to_owned(),
            settings: settings.clone(),
            reseal: Notify::new(),
            owner: settings.owner.clone(),
            open: OnceLock::new(),
            held: OnceLock::new(),
            signals,
            standby,
            keep: Keep {
                renewals: settings.keep_renewals,
                other: settings.keep_other,
            },
            measure: OnceLock::new(),
            looked_at_map: AtomicBool::new(false),
            #[cfg(test)]
            reads: std::sync::atomic::AtomicUsize::new(0),
            ahead: AtomicI64::default(),
            link: OnceLock::new(),
        });
        Self(inner, None)
    }

    /// The same store for who leads in an epoch: what it writes is written only while that goes on.
    #[must_use]
    pub fn leading(&self, epoch: u64) -> Self {
        Self(self.0.clone(), Some(epoch).filter(|_| self.is_shared()))
    }

    /// The same store for whoever asks or delivers, whether this machine leads or not.
    #[must_use]
    pub fn plain(&self) -> Self {
        Self(self.0.clone(), None)
    }

    /// The epoch of who leads, where several machines share the store and this is its handle.
    pub fn epoch(&self) -> Option<u64> {
        self.1
    }

    /// From now on the database is reached over this.
    pub fn reached_by(&self, link: Link) {
        // Whoever came first stays.
        self.0.link.set(link).ok();
    }

    /// The time, for a database without a clock of its own.
    pub(super) fn database_clock(&self) -> Timestamp {
        self.0.link.get().map_or(Timestamp::UNIX_EPOCH, Link::now)
    }

    /// A time of this machine as another one will read it: by the clock of the database.
    pub(super) fn by_database(&self, at: Timestamp) -> Timestamp {
        let ahead = SignedDuration::from_micros(self.0.ahead.load(Ordering::Relaxed));
        at.checked_sub(ahead).unwrap_or(at)
    }

    /// The other way round.
    pub(super) fn by_ours(&self) -> impl Fn(Timestamp) -> Timestamp + Send + use<> {
        let ahead = SignedDuration::from_micros(self.0.ahead.load(Ordering::Relaxed));
        move |at| at.checked_add(ahead).unwrap_or(at)
    }

    /// Looks what other machines changed, and tells who waits for it here; this node's mirror first.
    pub async fn heed_others(&self, now: Timestamp) -> Result<(), StoreError> {
        let (heard, mirror) = (self.seq(), self.standby().mirror());
        let news = self.read("look what changed", move |db| {
            let news = db.news(heard)?;
            if let Some(mirror) = mirror.filter(|mirror| mirror.is_behind(news.upto, now)) {
                mirror.follow(db, Db::changed_since, now)?;
            }
            Ok(news)
        });
        let news = news.await?;
        self.standby().is_prompt();
        self.0.signals.heed(news);
        Ok(())
    }

    /// Its file, or where that would be: what belongs to it on this machine lies beside it.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// What compares secrets on machines that have the same seal key, and shows nothing of them to others.
    pub fn mark(&self, secret: &[u8]) -> [u8; 32] {
        let open = self.0.open.get();
        open.map_or([0; 32], |open| open.seal.mark(secret))
    }

    /// How this machine is called among those that share it.
    pub fn node(&self) -> Option<&NodeName> {
        self.settings().node.as_ref()
    }

    /// Whether other machines may use it as well.
    pub fn is_shared(&self) -> bool {
        self.settings().node.is_some()
    }

    /// The server that has it, where it lies in PostgreSQL and one takes writes.
    pub async fn server(&self) -> Option<String> {
        self.settings().place.database()?;
        let asked = self.read("ask which server has the store", |db| {
            db.first("SELECT 1", [], |_| Ok(()))?;
            Ok(db.conn.server())
        });
        asked.await.ok().flatten()
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

    /// What there is for the time when the database does not answer.
    pub(super) fn standby(&self) -> &Standby {
        &self.0.standby
    }

    /// Whether what is written has to outlive a power cut.
    pub(super) fn is_durable(&self) -> bool {
        !matches!(
            self.0.open.get().map(|open| &open.threads),
            Some(Threads::Inline(_))
        )
    }

    pub(super) fn signals(&self) -> &Signals {
        &self.0.signals
    }

    /// Writes the files beside the database anew that somebody took away, or that could not be written, where
    /// there are any. Told where the list of what is withdrawn was one of them; whether it was.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn mend_beside(&self, now: Timestamp) -> Result<bool, StoreError> {
        let there = |file: &str| self.state_dir().join(file).exists();
        let withdrawn = there(withdrawals::FILE);
        if withdrawn && there(idmap::FILE) && self.map_trouble().is_none() {
            return Ok(false);
        }
        if withdrawn && self.is_shared() {
            // Those of the other machines are as they are.
            let doing = "write the files beside the store anew";
            return match self.ask_to_follow(Purpose::WriteAnew).await? {
                Followed::Unwritten(reason) => Err(StoreError::NotWritable { doing, reason }),
                Followed::Whole | Followed::Lost => Ok(false),
            };
        }
        let (doing, again) = ("write the files beside the store anew", self.map_trouble());
        self.write(doing, move |txn| {
            txn.effects.ids_replaced |= again.is_some();
            Ok(())
        })
        .await?;
        if withdrawn || !there(withdrawals::FILE) {
            return Ok(false);
        }
        self.raise(vec![catch_up::rewritten(now)]).await?;
        Ok(true)
    }

    /// Runs an operation in the writer's next transaction and answers after its commit. It may run twice.
    pub(super) fn write<T, F>(
        &self,
        doing: &'static str,
        work: F,
    ) -> impl Future<Output = Result<T, StoreError>> + Send
    where
        T: Send + 'static,
        F: Fn(&mut Txn<'_>) -> Outcome<T> + Send + 'static,
    {
        self.purposely(doing, Purpose::Write, work)
    }

    /// The same for an operation that as a rule withdraws something. What is withdrawn by any operation is in
    /// `withdrawn.jsonl`, synced, before it answers; of this one the store notes beforehand that it may be,
    /// so that a crash in between is known for one. Without that a crash counts as a store that was put back,
    /// which costs new versions and nothing else.
    pub(super) fn withdraw<T, F>(
        &self,
        doing: &'static str,
        work: F,
    ) -> impl Future<Output = Result<T, StoreError>> + Send
    where
        T: Send + 'static,
        F: Fn(&mut Txn<'_>) -> Outcome<T> + Send + 'static,
    {
        self.purposely(doing, Purpose::Withdraw, work)
    }

    /// The same for an operation of which the caller knows whether it withdraws something.
    pub(super) fn queue<T, F>(
        &self,
        doing: &'static str,
        withdraws: bool,
        work: F,
    ) -> impl Future<Output = Result<T, StoreError>> + Send
    where
        T: Send + 'static,
        F: Fn(&mut Txn<'_>) -> Outcome<T> + Send + 'static,
    {
        let purpose = if withdraws {
            Purpose::Withdraw
        } else {
            Purpose::Write
        };
        self.purposely(doing, purpose, work)
    }

    pub(super) fn purposely<T, F>(
        &self,
        doing: &'static str,
        purpose: Purpose,
        work: F,
    ) -> impl Future<Output = Result<T, StoreError>> + Send
    where
        T: Send + 'static,
        F: Fn(&mut Txn<'_>) -> Outcome<T> + Send + 'static,
    {
        let work: Work = Box::new(move |txn| Ok(Box::new(work(txn)?) as BoxedAnswer));
        typed(doing, self.queued(doing, purpose, work))
    }

    /// Runs a read on a connection of its own.
    pub(super) fn read<T, F>(
        &self,
        doing: &'static str,
        work: F,
    ) -> impl Future<Output = Result<T, StoreError>> + Send
    where
        T: Send + 'static,
        F: FnOnce(&Db) -> Outcome<T> + Send + 'static,
    {
        let work: ReadWork = Box::new(move |db| Ok(Box::new(work(db)?) as BoxedAnswer));
        typed(doing, self.looked(doing, work))
    }

    async fn queued(
        &self,
        doing: &'static str,
        purpose: Purpose,
        work: Work,
    ) -> Result<BoxedAnswer, StoreError> {
        self.standby().answers(doing)?;
        let began = self.now();
        self.is_reached(doing)?;
        let (reply, answer) = oneshot::channel();
        let operation = Operation {
            doing,
            purpose,
            fence: self.1,
            clock: self.database_clock(),
            work,
            reply,
        };
        self.threads(doing)?.write(operation).await?;
        let answer = answer.await.unwrap_or_else(|_| Err(lost(doing)));
        // One after the other, as they were queued; what became of them is found out, however long that takes.
        self.heard_of().await;
        self.measured(doing, began, answer)
    }

    async fn looked(&self, doing: &'static str, work: ReadWork) -> Result<BoxedAnswer, StoreError> {
        #[cfg(test)]
        self.0.reads.fetch_add(1, Ordering::SeqCst);
        self.standby().answers(doing)?;
        let began = self.now();
        let read = async {
            self.reach(doing).await?;
            let work = self.by_its_clock(work);
            let found = self.threads(doing)?.read(doing, work).await;
            self.reach(doing).await.and(found)
        };
        let answer = match self.is_shared() {
            false => read.await,
            true => tokio::select! {
                biased;
                answer = read => answer,
                // Nobody waits for as long as a host that is frozen keeps a connection.
                why = self.standby().fell_silent(doing) => Err(why),
            },
        };
        self.measured(doing, began, answer)
    }

    /// Runs something short beside all that is written, on a connection of its own where there is one.
    pub(super) fn pulse<T, F>(
        &self,
        doing: &'static str,
        work: F,
    ) -> impl Future<Output = Result<T, StoreError>> + Send
    where
        T: Send + 'static,
        F: FnOnce(&Db) -> Outcome<T> + Send + 'static,
    {
        let work: ReadWork = Box::new(move |db| Ok(Box::new(work(db)?) as BoxedAnswer));
        typed(doing, self.pulsed(doing, work))
    }

    async fn pulsed(&self, doing: &'static str, work: ReadWork) -> Result<BoxedAnswer, StoreError> {
        self.reach(doing).await?;
        let work = self.by_its_clock(work);
        let answer = self.threads(doing)?.pulse(doing, work).await;
        self.reach(doing).await?;
        self.answered(doing).and(answer)
    }

    /// The same work on a connection that knows what the database's clock says now, where that is simulated.
    fn by_its_clock(&self, work: ReadWork) -> ReadWork {
        let clock = self.database_clock();
        Box::new(move |db| {
            db.clock.set(clock);
            work(db)
        })
    }

    /// Fails where the answer is lost, as far as that is simulated.
    pub(super) fn answered(&self, doing: &'static str) -> Result<(), StoreError> {
        let link = self.0.link.get();
        link.map_or(Ok(()), |link| link.answered(doing))
    }

    /// Fails where the database is not reached, as far as that is simulated.
    fn is_reached(&self, doing: &'static str) -> Result<(), StoreError> {
        self.0.link.get().map_or(Ok(()), |link| link.passes(doing))
    }

    /// The question, or the answer, is on its way, as far as that is simulated; fails where nothing passes.
    async fn reach(&self, doing: &'static str) -> Result<(), StoreError> {
        match self.0.link.get() {
            Some(link) => link.carry(doing).await,
            None => Ok(()),
        }
    }

    /// The answer to what was written is on its way: where nothing passes, it is asked for until something does.
    async fn heard_of(&self) {
        if let Some(link) = self.0.link.get() {
            link.carry_at_last().await;
        }
    }

    /// From now on counts how long each operation takes and how it ends, by what it does.
    pub fn measure(
        &self,
        metrics: Metrics,
        elapsed: impl Fn() -> Duration + Send + Sync + 'static,
    ) {
        let measure = Measure {
            metrics,
            elapsed: Box::new(elapsed),
        };
        // Whoever came first counts on.
        self.0.measure.set(measure).ok();
    }

    /// Whether the map of names to ids was looked at before; it counts as looked at from now on.
    pub(super) fn looked_at_map(&self) -> bool {
        self.0.looked_at_map.swap(true, Ordering::Relaxed)
    }

    fn now(&self) -> Duration {
        let measure = self.0.measure.get();
        measure.map_or(Duration::ZERO, |measure| (measure.elapsed)())
    }

    fn measured(
        &self,
        doing: &'static str,
        began: Duration,
        answer: Result<BoxedAnswer, StoreError>,
    ) -> Result<BoxedAnswer, StoreError> {
        if let Some(measure) = self.0.measure.get() {
            let took = (measure.elapsed)().saturating_sub(began);
            measure.metrics.store_operation(doing, took, answer.is_ok());
        }
        answer
    }

    /// How many reads were made so far.
    #[cfg(test)]
    pub(crate) fn reads_made(&self) -> usize {
        self.0.reads.load(Ordering::SeqCst)
    }

    fn threads(&self, doing: &'static str) -> Result<&Threads, StoreError> {
        let open = self.0.open.get().map(|open| &open.threads);
        open.ok_or_else(|| StoreError::Away {
            doing,
            reason: "it was not opened yet".to_owned(),
        })
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
        if let Some(Open { threads, _lock, .. }) = self.open.take() {
            threads.end();
        }
    }
}

impl Open {
    /// With what the writer tells of itself.
    fn of(writer: &Writer, settings: &StoreSettings) -> impl FnOnce(Threads, Lock) -> Self + use<> {
        let (disk, copy) = (writer.reserve.disk(), writer.withdrawals.trouble());
        let (map, seal) = (writer.id_map.trouble(), writer.db.seal.clone());
        let unwritten = writer.withdrawals.unwritten();
        let files = settings.place.file().map_or_else(Vec::new, open_files);
        move |threads, lock| Self {
            threads,
            files,
            disk,
            copy,
            map,
            unwritten,
            seal,
            _lock: lock,
        }
    }
}

/// The answer as what it is.
async fn typed<T: 'static>(
    doing: &'static str,
    answer: impl Future<Output = Result<BoxedAnswer, StoreError>>,
) -> Result<T, StoreError> {
    let value = answer.await?.downcast();
    value.map(|value| *value).map_err(|_| lost(doing))
}
