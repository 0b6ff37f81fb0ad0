//! How a store reaches its database, under simulated time: a database without a clock of its own, whose answers can
//! take their time, be cut off or be lost.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use super::StoreError;
use crate::{clock::Clock, model::Timestamp};

/// The way to a database of one machine; all clones are the same.
#[derive(Debug, Clone)]
pub struct Link(Arc<Inner>);

/// How long the next question, or answer, is on its way.
type Ways = Box<dyn Fn() -> Duration + Send + Sync>;

struct Inner {
    /// Tells the time of the database.
    clock: Clock,
    /// Nothing, where all is there at once.
    ways: Option<Ways>,
    cut: AtomicBool,
    /// So many answers are lost from now on.
    loses: AtomicU32,
}

/// It is asked again so long after an answer did not come.
const AGAIN: Duration = Duration::from_millis(200);

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("cut", &self.cut)
            .finish_non_exhaustive()
    }
}

impl Link {
    /// To a database with this clock, which is asked and answers at once.
    pub fn to(clock: Clock) -> Self {
        Self::made(clock, None)
    }

    /// To a database with this clock, where each question and each answer is on its way for as long as `ways` says; what is
    /// written is there at once, in the order in which it was queued, and only the answer is on its way.
    pub fn carried(clock: Clock, ways: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        Self::made(clock, Some(Box::new(ways)))
    }

    fn made(clock: Clock, ways: Option<Ways>) -> Self {
        Self(Arc::new(Inner {
            clock,
            ways,
            cut: AtomicBool::default(),
            loses: AtomicU32::default(),
        }))
    }

    /// From now on nothing passes, or all does.
    pub fn cut(&self, cut: bool) {
        self.0.cut.store(cut, Ordering::SeqCst);
    }

    /// What the next questions about the lease ask for is done, and they do not hear it.
    pub fn lose(&self, answers: u32) {
        self.0.loses.store(answers, Ordering::SeqCst);
    }

    pub(super) fn now(&self) -> Timestamp {
        self.0.clock.now()
    }

    /// Carries one message. It does not arrive where nothing passes by then.
    pub(super) async fn carry(&self, doing: &'static str) -> Result<(), StoreError> {
        if let Some(ways) = &self.0.ways {
            tokio::time::sleep(ways()).await;
        }
        self.passes(doing)
    }

    /// Whether anything passes now.
    pub(super) fn passes(&self, doing: &'static str) -> Result<(), StoreError> {
        match self.0.cut.load(Ordering::SeqCst) {
            true => Err(away(doing)),
            false => Ok(()),
        }
    }

    /// Carries the answer to what was written, until it arrives.
    pub(super) async fn carry_at_last(&self) {
        while self.0.ways.is_some() && self.carry("hear of a commit").await.is_err() {
            tokio::time::sleep(AGAIN).await;
        }
    }

    pub(super) fn answered(&self, doing: &'static str) -> Result<(), StoreError> {
        let lost = |left: u32| left.checked_sub(1);
        let update = self
            .0
            .loses
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, lost);
        update.map_or(Ok(()), |_| Err(away(doing)))
    }
}

fn away(doing: &'static str) -> StoreError {
    StoreError::Away {
        doing,
        reason: "the database is not reached".to_owned(),
    }
}
