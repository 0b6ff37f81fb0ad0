//! One transaction for everything that is queued. Each operation has its own savepoint, so that one
//! that fails leaves no trace and hurts no other; whoever asked is answered after the commit.

use std::panic::{AssertUnwindSafe, catch_unwind};

use tokio::sync::mpsc;

use super::{
    db::{Db, Effects, Txn},
    error::{Fault, StoreError},
    idmap::IdMap,
    reserve::Reserve,
    signals::Signals,
    withdrawals::Withdrawals,
};

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
