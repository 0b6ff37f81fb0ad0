//! How a store reaches its database, under simulated time: a database without a clock of its own, whose answers can
//! be cut off or lost.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, Ordering},
};

use super::StoreError;
use crate::{clock::Clock, model::Timestamp};

/// The way to a database of one machine; all clones are the same.
#[derive(Debug, Clone)]
pub struct Link(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Tells the time of the database.
    clock: Clock,
    cut: AtomicBool,
    /// So many answers are lost from now on.
    loses: AtomicU32,
}

impl Link {
    /// To a database with this clock.
    pub fn to(clock: Clock) -> Self {
        Self(Arc::new(Inner {
            clock,
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

    pub(super) fn reach(&self, doing: &'static str) -> Result<(), StoreError> {
        match self.0.cut.load(Ordering::SeqCst) {
            true => Err(away(doing)),
            false => Ok(()),
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
