//! The one writer: takes what is queued, runs it in one transaction, commits, answers, and tells others.
//!
//! An operation may run twice: first all of a group run together, and only where one fails that had
//! changed something is the transaction taken back and each run again under a savepoint of its own.
//!
//! Of many entries of one operation one that the store refuses hurts no other: what is refused together is then tried
//! in halves, each under a savepoint of its own, until the one is found.

use std::{
    any::Any,
    collections::BTreeSet,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use tokio::sync::{mpsc, oneshot};

use super::{
    commit_mark::CommitMark,
    db::{Db, Effects, Txn},
    disk::Reserve,
    error::{Each, Fault, Outcome, StoreError},
    idmap::IdMap,
    signals::Signals,
    withdrawals::Withdrawals,
};
use crate::{
    model::{Num, Timestamp},
    sql::SqlError,
};

/// What an operation answers, whatever its type.
pub(super) type BoxedAnswer = Box<dyn Any + Send>;
/// What an operation does; safe to run twice.
pub(super) type Work = Box<dyn Fn(&mut Txn<'_>) -> Outcome<BoxedAnswer> + Send>;

pub(super) struct Operation {
    pub(super) doing: &'static str,
    pub(super) purpose: Purpose,
    /// The epoch in which it was begun by who leads; written only while that goes on.
    pub(super) fence: Option<u64>,
    /// What the database's clock says, where it has none of its own.
    pub(super) clock: Timestamp,
    pub(super) work: Work,
    /// Answered once the transaction has ended.
    pub(super) reply: oneshot::Sender<Result<BoxedAnswer, StoreError>>,
}

/// What one operation answers, once its transaction is committed.
type AnswerOf = Result<BoxedAnswer, StoreError>;

const COMMITTING: &str = "commit to the store";

/// What an operation is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Write,
    /// It may withdraw something.
    Withdraw,
    /// In a cluster, to take up what the database has lost: nothing else is written before that.
    TakeUp,
    /// In a cluster, to bring the files of this machine up to the store: nothing is written.
    Follow,
    /// The same, by writing them anew.
    WriteAnew,
}

/// What operations came to, before the commit.
#[derive(Default)]
struct Ran {
    answers: Vec<AnswerOf>,
    effects: Effects,
}

impl Ran {
    fn note(&mut self, answer: Result<(BoxedAnswer, Effects), StoreError>) {
        self.answers.push(answer.map(|(value, effects)| {
            self.effects.absorb(effects);
            value
        }));
    }
}

pub(super) fn lost(doing: &'static str) -> StoreError {
    StoreError::Fault {
        doing,
        reason: "the operation panicked".to_owned(),
    }
}

/// At most so many operations share a commit: in a file, and in PostgreSQL, where each may need a savepoint of its own
/// and more than 64 are written to disk.
const GROUP: usize = 512;
const GROUP_IN_POSTGRES: usize = 50;
/// How often a transaction is begun again that failed for a reason outside of it, and the longest rest between.
const TRIES: u32 = 5;
const LONGEST_REST: Duration = Duration::from_millis(50);
/// How long the writer rests between two looks for what became of a commit, and how often it looks without a queue, and
/// at its end. A look at a frozen host takes seconds.
const REST_IN_DOUBT: Duration = Duration::from_millis(200);
const LOOKS_IN_DOUBT: u32 = 30;
const LAST_LOOKS_IN_DOUBT: u32 = 3;
/// From so many on the writer counts as under load and waits for more.
const LOAD: usize = 16;
/// The longest wait for more, in milliseconds.
const LONGEST_GATHER_MS: u32 = 20;

/// Who is told what was withdrawn or given back, before whoever did that is answered.
pub(super) trait Witness: Send + Sync {
    fn withdrawn(&self, db: &Db, nums: &BTreeSet<Num>);
}

/// With which entry of the journal the files of this machine end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct FilesEnd {
    pub(super) n: u64,
    /// What that entry said, where it is known.
    pub(super) said: Option<[u8; 32]>,
}

/// The writing end: the connection, the id map, and those who are told.
pub(super) struct Writer {
    pub(super) db: Db,
    pub(super) id_map: IdMap,
    pub(super) withdrawals: Withdrawals,
    /// A version that `withdrawn.jsonl` has to speak of, once a number for it is noted beforehand; or 0.
    pub(super) owed: u64,
    pub(super) reserve: Reserve,
    pub(super) signals: Signals,
    pub(super) witness: Option<Arc<dyn Witness>>,
    /// In a cluster, where the files of this machine end, if that is known.
    pub(super) place: Option<FilesEnd>,
    pub(super) mark: CommitMark,
    /// A commit was found not to have come about.
    pub(super) not_done: bool,
    /// Who waits, while it serves a queue.
    pub(super) queue: Option<mpsc::Receiver<Operation>>,
}

impl Writer {
    /// Serves the queue until every handle is gone; the thread of the threaded store.
    pub(super) fn serve(mut self, queue: mpsc::Receiver<Operation>) {
        let most = match self.db.conn.file() {
            Some(_) => GROUP,
            None => GROUP_IN_POSTGRES,
        };
        let queue = self.queue.insert(queue);
        let mut next = queue.blocking_recv();
        let mut last_group = 0;
        while let (Some(first), Some(queue)) = (next.take(), &mut self.queue) {
            let mut group = vec![first];
            gather(queue, &mut group, (most, last_group >= LOAD));
            last_group = group.len();
            self.apply(group);
            next = self.queue.as_mut().and_then(mpsc::Receiver::blocking_recv);
        }
        self.close();
    }

    /// Applies operations in one transaction and answers them.
    pub(super) fn apply(&mut self, group: Vec<Operation>) {
        self.mend_beside();
        let (group, was_asked) = self.answer_followers(group);
        if was_asked && group.is_empty() {
            return;
        }
        self.reserve.make_room();
        let mut tries = 1;
        let (answers, result) = loop {
            let tried = self.transact(&group);
            let again = std::mem::take(&mut self.not_done) || self.db.conn.may_do_again();
            if tried.1.is_ok() || tries == TRIES || !again {
                break tried;
            }
            tries += 1;
            // Those that are in each other's way are of other processes.
            let part = std::process::id().wrapping_mul(7).wrapping_add(tries) % 10;
            std::thread::sleep(LONGEST_REST / 10 * part);
        };
        if let Err(StoreError::Full { .. }) = &result {
            self.reserve.was_full();
        }
        let mut answers = answers.into_iter();
        for operation in group {
            let answer = match (answers.next(), &result) {
                (Some(Err(error)), _) => Err(error),
                (Some(answer), Ok(())) => answer,
                (_, Err(error)) => Err(error.clone()),
                (None, Ok(())) => Err(lost(operation.doing)),
            };
            // Whoever asked may have gone in the meantime.
            operation.reply.send(answer).ok();
        }
    }

    /// Runs operations in one transaction and commits; what each answers where that came about.
    fn transact(&mut self, group: &[Operation]) -> (Vec<AnswerOf>, Result<(), StoreError>) {
        let withdraws = |operation: &Operation| operation.purpose == Purpose::Withdraw;
        let promised = !self.is_shared() && (self.owed > 0 || group.iter().any(withdraws));
        let promise = if promised { self.promise() } else { Ok(()) };
        let (answers, result) = match promise.and_then(|()| self.run(group)) {
            Ok(Ran { answers, effects }) => (answers, self.end(effects, promised)),
            Err(error) => (Vec::new(), Err(error)),
        };
        if result.is_err() {
            // Where none is open any more, there is nothing to take back.
            self.sql("ROLLBACK").ok();
        }
        (answers, result)
    }

    /// Files beside the database that somebody took away are written anew from it.
    fn mend_beside(&mut self) {
        if !self.withdrawals.has_begun() {
            return;
        }
        if self.is_shared() {
            let is_lost = self.id_map.is_lost() || self.withdrawals.is_lost();
            if is_lost && !self.lacks_what_was_seen() {
                match self.write_files_anew() {
                    Ok(()) => tracing::warn!(
                        "a file beside the store was gone; both are written anew from it"
                    ),
                    Err(fault) => {
                        let error = StoreError::new("write the files beside the store anew", fault);
                        tracing::warn!(%error, "it is tried again");
                    }
                }
            }
            return;
        }
        if self.id_map.is_lost() {
            self.id_map.fall_behind();
            self.id_map.catch_up(&self.db);
            if !self.id_map.is_lost() {
                tracing::warn!("identities.jsonl was gone; it is written anew from the store");
            }
        }
        if self.withdrawals.is_lost() {
            match self.fold_withdrawals() {
                Ok(()) => {
                    tracing::warn!("withdrawn.jsonl was gone; it is written anew from the store")
                }
                Err(fault) => {
                    let error = StoreError::new("write withdrawn.jsonl anew", fault);
                    tracing::warn!(%error, "it is tried again");
                }
            }
        }
    }

    /// Runs operations: together, as long as none of them leaves half of what it wanted; else each by itself,
    /// so that one that fails leaves no trace and hurts no other.
    fn run(&self, group: &[Operation]) -> Result<Ran, StoreError> {
        let epoch = self.begin(group)?;
        if let Some(ran) = self.together(group, epoch)? {
            return Ok(ran);
        }
        self.sql("ROLLBACK")?;
        let epoch = self.begin(group)?;
        let mut ran = Ran::default();
        for operation in group {
            self.sql("SAVEPOINT operation")?;
            let answer = self.attempt(operation, &mut Txn::careful(&self.db), epoch);
            // A full disk makes SQLite roll the whole transaction back; what PostgreSQL could not put in a row with
            // other transactions is done again as a whole.
            if !self.db.conn.is_in_transaction() || self.db.conn.may_do_again() {
                return Err(answer.err().unwrap_or_else(|| lost(operation.doing)));
            }
            self.sql(match answer {
                Ok(_) => "RELEASE operation",
                Err(_) => "ROLLBACK TO operation; RELEASE operation",
            })?;
            ran.note(answer);
        }
        Ok(ran)
    }

    /// Begins a transaction: of those that several machines write the only one, and what is remembered of the
    /// store is as the others left it. The epoch of who leads.
    fn begin(&self, group: &[Operation]) -> Result<Option<u64>, StoreError> {
        let failed = |fault| StoreError::new("begin to write", fault);
        let begun = self.db.conn.begin();
        begun.map_err(|e| failed(Fault::Sql(e)))?;
        if !self.db.is_shared() {
            return Ok(None);
        }
        let clock = group.iter().map(|operation| operation.clock).max();
        self.db.clock.set(clock.unwrap_or_default());
        let read = self.db.locked_duty().and_then(|duty| {
            self.db.load_floor()?;
            self.db.epoch.set(duty.epoch);
            Ok(duty.epoch)
        });
        let epoch = read.map_err(failed)?;
        self.refuse_after_loss(group)?;
        Ok(Some(epoch))
    }

    /// Nothing new is built on a database that has lost what this machine has seen of it, before that is taken up.
    fn refuse_after_loss(&self, group: &[Operation]) -> Result<(), StoreError> {
        let takes_up = |operation: &Operation| operation.purpose == Purpose::TakeUp;
        if group.iter().any(takes_up) {
            return Ok(());
        }
        let failed = |fault| StoreError::new("begin to write", fault);
        let lost = "the database has lost its last commits, and what this machine knows of them is taken up first: try again";
        match self.db.seq().map_err(failed)? < self.signals.seq() {
            true => Err(failed(Fault::Refused(lost.to_owned()))),
            false => Ok(()),
        }
    }

    /// Runs operations without savepoints, which cost more the longer the transaction is. Nothing where one
    /// failed that had changed something.
    fn together(&self, group: &[Operation], epoch: Option<u64>) -> Result<Option<Ran>, StoreError> {
        let mut ran = Ran::default();
        for operation in group {
            let (mut txn, before) = (Txn::on(&self.db), self.db.conn.changed());
            match self.attempt(operation, &mut txn, epoch) {
                Err(error) if !self.db.conn.is_in_transaction() => return Err(error),
                Err(_)
                    if txn.is_torn()
                        || self.db.conn.is_aborted()
                        || self.db.conn.changed() != before =>
                {
                    return Ok(None);
                }
                answer => ran.note(answer),
            }
        }
        // What was sent is answered before anything is said of it.
        match self.db.conn.await_sent() {
            Err(error) if !self.db.conn.is_in_transaction() => {
                Err(StoreError::new("write to the store", Fault::Sql(error)))
            }
            Err(_) => Ok(None),
            Ok(()) => Ok(Some(ran)),
        }
    }

    fn attempt(
        &self,
        operation: &Operation,
        txn: &mut Txn<'_>,
        epoch: Option<u64>,
    ) -> Result<(BoxedAnswer, Effects), StoreError> {
        let doing = operation.doing;
        if epoch.is_some() && operation.fence.is_some() && operation.fence != epoch {
            return Err(StoreError::NotLeader { doing });
        }
        let failed = |fault| StoreError::new(doing, fault);
        catch_unwind(AssertUnwindSafe(|| {
            let value = (operation.work)(txn).map_err(failed)?;
            self.await_careful(txn).map_err(failed)?;
            let numbered = txn.finish();
            let effects = numbered.map_err(|fault| StoreError::new("number a change", fault))?;
            self.await_careful(txn).map_err(failed)?;
            Ok((value, effects))
        }))
        .unwrap_or_else(|_| Err(lost(operation.doing)))
    }

    /// Where an operation is to fail by itself alone, all that it sent is answered.
    fn await_careful(&self, txn: &Txn<'_>) -> Outcome<()> {
        if txn.careful {
            self.db.conn.await_sent()?;
        }
        Ok(())
    }

    /// Commits, and tells others what it means to them.
    fn end(&mut self, mut effects: Effects, promised: bool) -> Result<(), StoreError> {
        match self.is_shared() {
            true => self.commit_for_all(&mut effects)?,
            false => {
                self.commit(&mut effects, promised)?;
                self.id_map.follow(&self.db, &effects);
                self.fold_if_long(effects.cleaned);
            }
        }
        if let Some(witness) = &self.witness {
            witness.withdrawn(&self.db, &effects.touched.rows);
        }
        if effects.cleaned {
            self.hold_reserve();
        }
        match self.db.is_shared() {
            // In the order of the numbers, between those of others.
            true => self.heed(),
            false => self.signals.tell(effects),
        }
        Ok(())
    }

    /// Tells of what changed since it was last told, whoever changed it.
    fn heed(&self) {
        match self.db.news(self.signals.seq()) {
            Ok(news) => self.signals.heed(news),
            // The next look tells it.
            Err(fault) => {
                let error = StoreError::new("look what changed", fault);
                tracing::warn!(%error, "it is told later");
            }
        }
    }

    /// Commits, and finds out whether it is committed where no answer came.
    pub(super) fn commit_surely(&mut self) -> Result<(), StoreError> {
        let mark = self.mark.leave(&self.db.conn);
        let mark = mark.map_err(|fault| StoreError::new(COMMITTING, fault))?;
        match self.db.conn.commit() {
            Err(SqlError::Unsure(why)) => self.settle_doubt(mark.as_deref(), &why),
            committed => committed.map_err(|e| StoreError::new(COMMITTING, Fault::Sql(e))),
        }
    }

    /// Tells the file what is withdrawn, then commits; together or not at all.
    fn commit(&mut self, effects: &mut Effects, promised: bool) -> Result<(), StoreError> {
        let agreed = self.id_map.note_agreement(&self.db, effects);
        let agreed = agreed.map_err(|fault| StoreError::new(COMMITTING, fault))?;
        let written = self.tell_withdrawals(effects, promised)?;
        self.id_map.lead(effects);
        let committed = self.commit_surely();
        match committed {
            Ok(()) => self.id_map.agrees(agreed),
            Err(_) => self.id_map.fall_behind(),
        }
        if let (Err(_), Some(written)) = (&committed, &written)
            && let Err(error) = self.withdrawals.take_back(written)
        {
            tracing::error!(%error, "withdrawn.jsonl says what the store did not take; the next start carries it out");
        }
        committed
    }

    /// The answer to a commit did not come: looks for what became of it, however long that takes. Meanwhile whoever
    /// waits for something else is told that nothing can be written.
    fn settle_doubt(&mut self, mark: Option<&str>, why: &str) -> Result<(), StoreError> {
        tracing::warn!("{why}: the database is asked whether it has the last transaction");
        let (mark, mut looks) = (mark.unwrap_or_default(), 0);
        let unknown = |reason: String| StoreError::NotWritable {
            doing: COMMITTING,
            reason,
        };
        loop {
            match self.mark.is_committed(&self.db.conn, mark) {
                Ok(true) => {
                    tracing::info!("the database has the last transaction");
                    return Ok(());
                }
                Ok(false) => {
                    tracing::info!("the database does not have the last transaction");
                    self.not_done = true;
                    return Err(unknown(why.to_owned()));
                }
                Err(error) => {
                    looks += 1;
                    let error = unknown(error.to_string());
                    if looks >= self.refuse_queue(&error) {
                        return Err(unknown(format!(
                            "it is not known whether it was done: {why}"
                        )));
                    }
                }
            }
            std::thread::sleep(REST_IN_DOUBT);
        }
    }

    /// Answers all who wait in the queue; how often to look for what became of a commit.
    fn refuse_queue(&mut self, error: &StoreError) -> u32 {
        let Some(queue) = &mut self.queue else {
            return LOOKS_IN_DOUBT;
        };
        loop {
            match queue.try_recv() {
                // Whoever asked may have gone in the meantime.
                Ok(operation) => operation.reply.send(Err(error.clone())).ok(),
                Err(mpsc::error::TryRecvError::Empty) => return u32::MAX,
                Err(mpsc::error::TryRecvError::Disconnected) => return LAST_LOOKS_IN_DOUBT,
            };
        }
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
        let identities = self.db.first(
            "SELECT CAST(sum(n) AS BIGINT) FROM identity_count",
            [],
            |row| row.get::<_, Option<i64>>(0),
        );
        // Without a count the reserve keeps its least size.
        let identities = identities.ok().flatten().flatten().unwrap_or(0);
        self.reserve.hold(identities.unsigned_abs());
    }

    /// Leaves a tidy database behind: everything in one file, the id map written.
    pub(super) fn close(&mut self) {
        if self.is_shared() {
            // What it lacks, the next start finds.
            self.follow_journal().ok();
            return;
        }
        if self.owed > 0 {
            self.apply(Vec::new());
        }
        self.id_map.catch_up(&self.db);
        // Where it cannot be noted, the next start reads the map.
        self.id_map
            .note_agreement(&self.db, &Effects::default())
            .ok();
        let folded = self.db.conn.file().map_or(Ok(()), |file| {
            file.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        });
        if let Err(error) = folded {
            tracing::debug!(%error, "the store's log could not be folded in; the next start does it");
        }
    }

    fn sql(&self, sql: &str) -> Result<(), StoreError> {
        let ran = self.db.conn.batch(sql);
        ran.map_err(|e| StoreError::new(COMMITTING, Fault::Sql(e)))
    }
}

/// Takes what is queued, up to so many; under load waits a little for more, so that a commit is shared.
fn gather(
    queue: &mut mpsc::Receiver<Operation>,
    group: &mut Vec<Operation>,
    (most, load): (usize, bool),
) {
    let mut waited = 0;
    loop {
        while group.len() < most {
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

/// What was written, part by part, and what was refused alone.
type Parts<T> = Vec<(Range<i64>, Result<T, StoreError>)>;

/// What was written of a range, and what is to become of the rest of it.
struct Halves<'a, T> {
    doing: &'static str,
    write: &'a mut dyn FnMut(&mut Txn<'_>, Range<i64>) -> Outcome<T>,
    /// What was written, and what was refused alone, in order.
    parts: Parts<T>,
}

impl Txn<'_> {
    /// Writes entries, which answer one by one. A refused one is answered with why.
    pub(super) fn each<E, T>(
        &mut self,
        doing: &'static str,
        entries: &[E],
        mut write: impl FnMut(&mut Txn<'_>, &[E]) -> Outcome<Vec<T>>,
    ) -> Outcome<Each<T>> {
        let parts = self.apart(doing, 0..entries.len() as i64, |txn, range| {
            let part = range.start as usize..range.end as usize;
            write(txn, entries.get(part).unwrap_or_default())
        })?;
        let mut each = Vec::with_capacity(entries.len());
        for (_, part) in parts {
            match part {
                Ok(answers) => each.extend(answers.into_iter().map(Ok)),
                Err(error) => each.push(Err(error)),
            }
        }
        Ok(each)
    }

    /// Writes whatever lies within a range of numbers; the parts that were written, and the numbers that
    /// were refused, in order.
    pub(super) fn apart<T>(
        &mut self,
        doing: &'static str,
        range: Range<i64>,
        mut write: impl FnMut(&mut Txn<'_>, Range<i64>) -> Outcome<T>,
    ) -> Outcome<Parts<T>> {
        let mut halves = Halves {
            doing,
            write: &mut write,
            parts: Vec::new(),
        };
        match (range.is_empty(), self.careful) {
            (true, _) => {}
            (false, true) => self.write_in_halves(range, &mut halves)?,
            (false, false) => {
                let written = (halves.write)(self, range.clone());
                self.torn |= written.is_err();
                halves.parts.push((range, Ok(written?)));
            }
        }
        Ok(halves.parts)
    }

    /// Writes the rows after one number up to another; how many changed. Rows that are refused are named and
    /// left as they are.
    pub(super) fn rows_apart(
        &mut self,
        doing: &'static str,
        (after, upto): (Num, Num),
        mut write: impl FnMut(&mut Txn<'_>, Num, Num) -> Outcome<usize>,
    ) -> Outcome<u64> {
        let parts = self.apart(doing, after + 1..upto + 1, |txn, range| {
            write(txn, range.start - 1, range.end - 1)
        })?;
        let mut written = 0;
        for (rows, part) in parts {
            match part {
                Ok(changed) => written += changed as u64,
                Err(error) => {
                    tracing::error!(row = rows.start, %error, "a row is left as it is, because the store refuses to change it");
                }
            }
        }
        Ok(written)
    }

    fn write_in_halves<T>(&mut self, range: Range<i64>, halves: &mut Halves<'_, T>) -> Outcome<()> {
        let error = match self.write_part(range.clone(), halves) {
            Ok(written) => {
                halves.parts.push((range, Ok(written)));
                return Ok(());
            }
            Err(fault) => StoreError::new(halves.doing, fault),
        };
        // A full disk makes SQLite roll the whole transaction back.
        if error.is_unwritable() || !self.conn.is_in_transaction() {
            return Err(Fault::Told(error));
        }
        let length = range.end - range.start;
        if length == 1 {
            halves.parts.push((range, Err(error)));
            return Ok(());
        }
        let middle = range.start + length / 2;
        self.write_in_halves(range.start..middle, halves)?;
        self.write_in_halves(middle..range.end, halves)
    }

    /// Writes one part wholly or not at all.
    fn write_part<T>(&mut self, range: Range<i64>, halves: &mut Halves<'_, T>) -> Outcome<T> {
        self.flush_counts()?;
        self.run("SAVEPOINT part", [])?;
        let before = std::mem::take(&mut self.effects);
        let written = catch_unwind(AssertUnwindSafe(|| (halves.write)(self, range)))
            .unwrap_or_else(|_| Err(Fault::Refused("renewd itself failed at it".to_owned())));
        let written = written.and_then(|written| {
            self.move_reissued()?;
            self.flush_counts()?;
            self.conn.await_sent()?;
            Ok(written)
        });
        let effects = std::mem::replace(&mut self.effects, before);
        if written.is_ok() {
            self.effects.absorb(effects);
            self.run("RELEASE part", [])?;
        } else if self.conn.is_in_transaction() {
            self.forget_counts();
            self.run("ROLLBACK TO part", [])?;
            self.run("RELEASE part", [])?;
        }
        written
    }
}
