//! What was done and is not noted yet, kept until the store has it.
//!
//! Whoever obtains, revokes or delivers puts what became of it here; it is written in batches while the
//! next calls go on. A store that cannot be written is tried again at least every two seconds, and nothing is
//! let go of meanwhile. An entry that the store refuses by itself keeps no other back: the store takes
//! the rest of its batch, and hands this one out to be set aside by name, or put differently. What is
//! set aside is tried again after some minutes, and once more at the end.

use std::{fmt, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;

use crate::{
    schedule::Steady,
    store::{Each, StoreError},
};

const SHORTEST_TROUBLE: Duration = Duration::from_millis(500);
const LONGEST_TROUBLE: Duration = Duration::from_secs(2);
/// A store that works for a moment and fails again within this is still in the same trouble.
const RELAPSE: Duration = Duration::from_secs(30);
/// What the store refuses by itself is left alone for so long.
pub const ASIDE: Duration = Duration::from_mins(5);

/// How a write ended: for each entry, in order, or for none where the store cannot be written.
pub type Written<T> = Result<Each<T>, StoreError>;

/// Entries that wait to be noted, and those on their way.
pub struct Outbox<E, T> {
    /// What waits while the store is in trouble, for the log.
    waits: &'static str,
    waiting: Vec<E>,
    /// Being written, or to be tried again.
    batch: Arc<Vec<E>>,
    /// The entries of the batch from here on were refused before.
    refused_from: usize,
    writing: Option<BoxFuture<'static, Written<T>>>,
    began: Steady,
    aside: Vec<Aside<E>>,
    trouble: Option<Trouble>,
    /// When the last trouble ended, and the gap that it had grown to.
    relapse: Option<(Steady, Duration)>,
    /// A trouble that people were told of has ended, which they were not told yet.
    over: bool,
}

#[derive(Debug)]
struct Aside<E> {
    entry: E,
    until: Steady,
    reason: String,
}

#[derive(Debug)]
struct Trouble {
    reason: String,
    gap: Duration,
    retry_at: Steady,
    told: bool,
    /// Whether it was told by itself, not as part of the one before.
    begun: bool,
}

/// What became of a batch.
#[derive(Debug)]
pub struct Noted<E, T> {
    /// In the store, with what the store answers.
    pub done: Vec<(E, T)>,
    /// What the store refuses by itself.
    pub refused: Vec<Refused<E>>,
    /// How long the write took.
    pub took: Duration,
}

/// An entry that the store refuses by itself.
#[derive(Debug)]
pub struct Refused<E> {
    pub entry: E,
    pub error: StoreError,
    /// It had been set aside and was tried again.
    pub again: bool,
}

impl<E, T> fmt::Debug for Outbox<E, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox")
            .field("entries", &self.unnoted())
            .field("trouble", &self.trouble)
            .finish_non_exhaustive()
    }
}

impl<E, T> Outbox<E, T> {
    /// An empty one. `waits` says in the log what waits while the store is in trouble.
    pub fn new(waits: &'static str) -> Self {
        Self {
            waits,
            waiting: Vec::new(),
            batch: Arc::default(),
            refused_from: usize::MAX,
            writing: None,
            began: Steady::ZERO,
            aside: Vec::new(),
            trouble: None,
            relapse: None,
            over: false,
        }
    }

    pub fn add(&mut self, entry: E) {
        self.waiting.push(entry);
    }

    /// Drops the oldest of those that wait and match, where there are so many: they tell, and could be
    /// too many to keep.
    pub fn keep_at_most(&mut self, most: usize, matches: impl Fn(&E) -> bool) {
        if self.waiting.len() >= most
            && self.waiting.iter().filter(|one| matches(one)).count() >= most
            && let Some(oldest) = self.waiting.iter().position(matches)
        {
            self.waiting.remove(oldest);
        }
    }

    /// Everything that is not noted.
    pub fn all(&self) -> impl Iterator<Item = &E> {
        let aside = self.aside.iter().map(|aside| &aside.entry);
        self.waiting.iter().chain(self.batch.iter()).chain(aside)
    }

    /// What is set aside.
    pub fn aside(&self) -> impl Iterator<Item = &E> {
        self.aside.iter().map(|aside| &aside.entry)
    }

    /// How many entries are to be written soon: all but those that are set aside.
    pub fn pressing(&self) -> usize {
        self.waiting.len() + self.batch.len()
    }

    /// How many entries are not noted.
    pub fn unnoted(&self) -> usize {
        self.pressing() + self.aside.len()
    }

    /// Whether nothing is left to write but what is set aside.
    pub fn is_idle(&self) -> bool {
        self.writing.is_none() && self.pressing() == 0
    }

    /// Whether the store takes what is written, as far as is known.
    pub fn is_open(&self) -> bool {
        self.trouble.is_none()
    }

    /// Why the store takes nothing.
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_ref().map(|trouble| &*trouble.reason)
    }

    /// Why something is not noted, if anything is not.
    pub fn reason(&self) -> &str {
        let aside = self.aside.first().map(|aside| &*aside.reason);
        self.trouble().or(aside).unwrap_or("no time left")
    }

    /// The trouble that nobody was told of yet, once.
    pub fn untold_trouble(&mut self) -> Option<String> {
        let trouble = self.trouble.as_mut()?;
        trouble.begun |= !trouble.told;
        (!std::mem::replace(&mut trouble.told, true)).then(|| trouble.reason.clone())
    }

    /// Whether a trouble that people were told of has ended, once.
    pub fn ended_trouble(&mut self) -> bool {
        std::mem::take(&mut self.over)
    }

    /// An earlier process told of a trouble and not of its end, and the store works.
    pub fn inherit_trouble(&mut self) {
        self.over = true;
    }

    /// When there is something to do again that cannot be done now.
    pub fn wakes_at(&self) -> Option<Steady> {
        if self.writing.is_some() {
            return None;
        }
        let retry_at = self.trouble.as_ref().map(|trouble| trouble.retry_at);
        retry_at.or_else(|| self.aside.iter().map(|aside| aside.until).min())
    }

    /// The store failed, at a write of this or at anything else.
    pub fn failed(&mut self, error: &StoreError, now: Steady) {
        let relapse = self.relapse.take_if(|(ended, _)| now < *ended + RELAPSE);
        let longer = |gap: Duration| (gap * 2).min(LONGEST_TROUBLE);
        let (gap, told) = match (&self.trouble, relapse) {
            (Some(trouble), _) => (longer(trouble.gap), trouble.told),
            (None, Some((_, gap))) => (longer(gap), true),
            (None, None) => {
                tracing::error!(%error, waiting = self.unnoted(), "{}", self.waits);
                (SHORTEST_TROUBLE, false)
            }
        };
        let begun = self.trouble.as_ref().is_some_and(|trouble| trouble.begun);
        self.trouble = Some(Trouble {
            reason: error.to_string(),
            gap,
            retry_at: now + gap,
            told,
            begun,
        });
    }

    /// Begins to write what there is, unless a write is under way or it is too soon after one that
    /// failed. Whether one is under way.
    pub fn begin<F>(&mut self, now: Steady, write: F) -> bool
    where
        F: FnOnce(Arc<Vec<E>>) -> BoxFuture<'static, Written<T>>,
    {
        let too_soon = |trouble: &Trouble| now < trouble.retry_at;
        if self.writing.is_some() || self.trouble.as_ref().is_some_and(too_soon) {
            return self.writing.is_some();
        }
        if self.batch.is_empty() {
            let mut batch = std::mem::take(&mut self.waiting);
            self.refused_from = batch.len();
            let due = self.aside.extract_if(.., |aside| aside.until <= now);
            batch.extend(due.map(|aside| aside.entry));
            self.batch = Arc::new(batch);
        }
        if self.batch.is_empty() {
            // Whoever met the trouble at something else tries that again.
            self.recovered(now);
            return false;
        }
        self.began = now;
        self.writing = Some(write(self.batch.clone()));
        true
    }

    /// Waits for the write under way, for ever where there is none.
    pub async fn ended(&mut self) -> Written<T> {
        let Some(writing) = &mut self.writing else {
            return std::future::pending().await;
        };
        let written = writing.await;
        self.writing = None;
        written
    }

    /// Sets an entry aside that the store refuses: it is tried again later, and keeps nobody waiting.
    pub fn set_aside(&mut self, entry: E, error: &StoreError, now: Steady) {
        self.aside.push(Aside {
            entry,
            until: now + ASIDE,
            reason: error.to_string(),
        });
    }

    /// At the end: what is set aside is tried once more.
    pub fn try_all(&mut self) {
        for aside in &mut self.aside {
            aside.until = Steady::ZERO;
        }
    }

    fn recovered(&mut self, now: Steady) {
        if let Some(trouble) = self.trouble.take() {
            self.over |= trouble.begun;
            self.relapse = Some((now, trouble.gap));
        }
    }
}

impl<E: Clone, T> Outbox<E, T> {
    /// Takes the end of a write in. `None`: the store is in trouble, and the batch is tried again.
    pub fn settle(&mut self, written: Written<T>, now: Steady) -> Option<Noted<E, T>> {
        let each = match written {
            Ok(each) => each,
            Err(error) => {
                self.failed(&error, now);
                return None;
            }
        };
        if self.trouble.is_some() {
            tracing::info!("the store works again");
        }
        self.recovered(now);
        let batch = std::mem::take(&mut self.batch);
        let batch = Arc::try_unwrap(batch).unwrap_or_else(|batch| (*batch).clone());
        let mut noted = Noted {
            done: Vec::with_capacity(batch.len()),
            refused: Vec::new(),
            took: now.saturating_sub(self.began),
        };
        for (at, (entry, answer)) in batch.into_iter().zip(each).enumerate() {
            match answer {
                Ok(answer) => noted.done.push((entry, answer)),
                Err(error) => noted.refused.push(Refused {
                    entry,
                    error,
                    again: at >= self.refused_from,
                }),
            }
        }
        Some(noted)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn full() -> StoreError {
        StoreError::Full { doing: "write" }
    }

    fn refusal() -> StoreError {
        StoreError::Refused {
            doing: "write",
            reason: "no".to_owned(),
        }
    }

    /// A store that is full when it is told so, and refuses every entry that can be divided by 7.
    async fn round(outbox: &mut Outbox<u32, u32>, is_full: bool, now: Steady) -> Vec<u32> {
        let began = outbox.begin(now, |batch| {
            let answer = |n: &u32| {
                if n.is_multiple_of(7) {
                    Err(refusal())
                } else {
                    Ok(*n)
                }
            };
            let each = batch.iter().map(answer).collect();
            Box::pin(async move { if is_full { Err(full()) } else { Ok(each) } })
        });
        if !began {
            return Vec::new();
        }
        let written = outbox.ended().await;
        let Some(noted) = outbox.settle(written, now) else {
            return Vec::new();
        };
        for refused in noted.refused {
            outbox.set_aside(refused.entry, &refused.error, now);
        }
        noted.done.into_iter().map(|(n, _)| n).collect()
    }

    #[tokio::test]
    async fn what_cannot_be_written_is_tried_again_at_least_every_two_seconds() {
        let mut outbox = Outbox::new("nothing goes on");
        outbox.add(1);
        let (mut now, mut tries) = (S, Vec::new());
        while now < S * 60 {
            let before = outbox.trouble.as_ref().map(|trouble| trouble.retry_at);
            round(&mut outbox, true, now).await;
            if outbox.trouble.as_ref().map(|trouble| trouble.retry_at) != before {
                tries.push(now);
            }
            now += Duration::from_millis(100);
        }
        assert!((28..=34).contains(&tries.len()), "{tries:?}");
        assert!(!outbox.is_open() && outbox.unnoted() == 1);
        assert!(outbox.untold_trouble().is_some() && outbox.untold_trouble().is_none());
        assert_eq!(round(&mut outbox, false, S * 80).await, [1]);
        assert!(outbox.is_open() && outbox.is_idle());
    }

    #[tokio::test]
    async fn what_is_refused_by_itself_is_tried_again_later_and_at_the_end() {
        let mut outbox = Outbox::new("nothing goes on");
        (1..=10).for_each(|n| outbox.add(n));
        assert_eq!(round(&mut outbox, false, S).await.len(), 9);
        assert!(outbox.is_idle() && outbox.unnoted() == 1 && outbox.is_open());
        assert_eq!(outbox.wakes_at(), Some(S + ASIDE));
        let is_tried = |outbox: &mut Outbox<u32, u32>, now| {
            outbox.begin(now, |_| Box::pin(async { Ok(Vec::new()) }))
        };
        assert!(!is_tried(&mut outbox, S * 2));
        outbox.try_all();
        assert!(is_tried(&mut outbox, S * 3));
        let refused = outbox
            .settle(Ok(vec![Err(refusal())]), S * 3)
            .unwrap()
            .refused;
        assert!(refused[0].again && refused[0].entry == 7);
    }

    proptest! {
        /// Whatever the store does, each entry is noted once or still kept.
        #[test]
        fn nothing_is_lost_and_nothing_is_noted_twice(
            script in prop::collection::vec((0u32..20, any::<bool>(), 0u64..400), 1..40),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let mut outbox = Outbox::new("nothing goes on");
                let (mut next, mut now, mut seen) = (1, S, Vec::new());
                for (count, is_full, secs) in script {
                    for _ in 0..count {
                        outbox.add(next);
                        next += 1;
                    }
                    seen.extend(round(&mut outbox, is_full, now).await);
                    now += S * u32::try_from(secs).unwrap();
                }
                seen.extend(outbox.all().copied());
                seen.sort_unstable();
                assert_eq!(seen, (1..next).collect::<Vec<_>>());
            });
        }
    }
}
