//! The store while its database does not answer: this node serves what its mirror holds, and everything else has to
//! wait. A store in a file of this machine has no mirror, and nothing of this happens.

use std::{
    cell::Cell,
    collections::BTreeSet,
    path::Path,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::sync::watch;

use super::{
    Store,
    answers::{Answered, AnsweredRow},
    db::{self, Db, signed},
    error::{Answer, OpenError, Outcome, StoreError},
    identities::count,
    mirror::{self, ChangedRows, Mirror},
    open, seal,
    signals::Signals,
    writer::Witness,
};
use crate::{
    config::StoreSettings,
    model::{DatabaseAway, Name, Num, Timestamp},
};

tokio::task_local! {
    /// When the mirror last agreed with the database, where what was read last came from it.
    static READ_FROM_MIRROR: Cell<Option<Timestamp>>;
}

/// Runs this, and tells when the mirror last agreed with the database, where what it read last came from the mirror.
pub async fn noting_mirror<T>(work: impl Future<Output = T>) -> (T, Option<Timestamp>) {
    let noted = async { (work.await, READ_FROM_MIRROR.with(Cell::get)) };
    READ_FROM_MIRROR.scope(Cell::default(), noted).await
}

fn note_read(agreed: Option<Timestamp>) {
    // Nobody may want to know.
    READ_FROM_MIRROR.try_with(|noted| noted.set(agreed)).ok();
}

/// The mirror, and whether the database answers.
#[derive(Debug, Default)]
pub(super) struct Standby {
    mirror: RwLock<Option<Arc<Mirror>>>,
    silence: watch::Sender<Option<Silence>>,
    /// It did not answer a read in time: until it answers another, nobody waits for it any more who may be served from
    /// the mirror.
    is_slow: AtomicBool,
}

/// Since when the database does not answer, and what was found out about it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Silence {
    since: Timestamp,
    because: String,
}

impl Silence {
    fn error(&self, doing: &'static str) -> StoreError {
        StoreError::Away {
            doing,
            reason: self.because.clone(),
        }
    }
}

impl Standby {
    /// The mirror of this node, if it has one.
    pub(super) fn mirror(&self) -> Option<Arc<Mirror>> {
        let mirror = self.mirror.read().unwrap_or_else(PoisonError::into_inner);
        mirror.clone()
    }

    fn keep(&self, mirror: Mirror) {
        let mut kept = self.mirror.write().unwrap_or_else(PoisonError::into_inner);
        *kept = Some(Arc::new(mirror));
    }

    /// The database answered a read.
    pub(super) fn is_prompt(&self) {
        self.is_slow.store(false, Ordering::Relaxed);
    }

    /// Waits until the database does not answer; why not.
    pub(super) async fn fell_silent(&self, doing: &'static str) -> StoreError {
        let mut silence = self.silence.subscribe();
        let fell = silence.wait_for(Option::is_some).await;
        match fell.as_deref() {
            Ok(Some(silence)) => silence.error(doing),
            // The sender lives as long as this.
            _ => StoreError::Closed { doing },
        }
    }

    /// That something can be asked of the database.
    pub(super) fn answers(&self, doing: &'static str) -> Answer<()> {
        let silence = self.silence.borrow();
        let error = silence.as_ref().map(|silence| silence.error(doing));
        error.map_or(Ok(()), Err)
    }
}

impl Witness for Standby {
    fn withdrawn(&self, db: &Db, nums: &BTreeSet<Num>) {
        if let Some(mirror) = self.mirror() {
            mirror.take(db, nums);
        }
    }
}

impl Store {
    /// Keeps a mirror of the database for this node, whose cluster is named so.
    pub fn keep_mirror(&self, cluster: &str) {
        if let Some(seal) = self.seal() {
            let whose = (cluster, self.settings().node.clone());
            let mirror = Mirror::open(self.state_dir(), whose, seal, self.is_durable());
            self.standby().keep(mirror);
        }
    }

    /// The store of a node of this cluster, whose database does not answer, for the reason given: what its mirror
    /// holds is served until [`Store::join`]. Nothing where it has none that may be served.
    ///
    /// # Errors
    /// When another daemon of this node runs.
    pub fn of_mirror(
        (settings, state_dir): (&StoreSettings, &Path),
        cluster: &str,
        why: &str,
        now: Timestamp,
    ) -> Result<Option<Self>, OpenError> {
        let lock = open::lock(settings, state_dir)?;
        let Some((key, successor)) = mirror::keys(state_dir) else {
            return Ok(None);
        };
        let seal = seal::seal(settings, state_dir, (Some(&key), successor.as_deref()));
        let seal = match seal {
            Ok(seal) => Arc::new(seal),
            Err(error) => {
                tracing::error!(%error, "this node's mirror cannot be opened");
                return Ok(None);
            }
        };
        let whose = (cluster, settings.node.clone());
        let mirror = Mirror::open(state_dir, whose, seal, true);
        if mirror.agreed().is_none() {
            return Ok(None);
        }
        mirror.begin_at(now);
        let (signals, standby) = (Signals::since(mirror.seq()), Standby::default());
        standby.keep(mirror);
        let store = Self::made((settings, state_dir), signals, Arc::new(standby));
        store.keep_lock(lock);
        store.database_is_silent(why, now);
        Ok(Some(store))
    }

    /// As if it had not answered a read in time.
    #[cfg(test)]
    pub(crate) fn database_is_slow(&self) {
        self.standby().is_slow.store(true, Ordering::Relaxed);
    }

    /// Why this node has no mirror, where it should have one.
    pub fn mirror_trouble(&self) -> Option<String> {
        self.standby().mirror()?.trouble()
    }

    /// Notes in the mirror what is known at the end of this process.
    pub async fn end_mirror(&self, now: Timestamp) {
        let Some(mirror) = self.standby().mirror() else {
            return;
        };
        tokio::time::timeout(LAST_LOOK, self.heed_others(now))
            .await
            .ok();
        mirror.note_agreement();
    }

    /// The database, while it does not answer; nothing while it does, and of a file.
    pub fn away(&self) -> Option<DatabaseAway> {
        let standby = self.standby();
        let silence = standby.silence.borrow().clone()?;
        Some(DatabaseAway {
            since: silence.since,
            because: silence.because,
            mirror_of: standby.mirror().and_then(|mirror| mirror.agreed()),
        })
    }

    /// The database answered: from now on it is asked again.
    pub fn database_answers(&self) {
        let back = self
            .standby()
            .silence
            .send_if_modified(|silence| silence.take().is_some());
        if back {
            tracing::info!("the database answers again");
        }
    }

    /// The database does not answer: until it does, what can be served comes from the mirror, and nothing else is asked
    /// of it. Said again and again while that goes on.
    pub fn database_is_silent(&self, because: &str, now: Timestamp) {
        let standby = self.standby();
        let gone = standby.silence.send_if_modified(|silence| {
            let is_new = silence.is_none();
            let since = silence.as_ref().map_or(now, |silence| silence.since);
            *silence = Some(Silence {
                since,
                because: because.to_owned(),
            });
            is_new
        });
        if let Some(mirror) = standby.mirror() {
            mirror.forget_dead(now);
        }
        if gone {
            let mirror = standby.mirror().and_then(|mirror| mirror.agreed());
            let serves = match mirror {
                Some(agreed) => format!("what this node knew at {agreed:.0} is served"),
                None => "nothing is served".to_owned(),
            };
            tracing::error!(
                "the database is away, nothing is renewed or changed through this node, and {serves}: {because}"
            );
        }
    }

    /// Reads what this node may also serve from its mirror, while the database does not answer. Of these names it is
    /// told what there is; those that are not in the answer are not there.
    pub(super) async fn read_mirrored<T, F>(
        &self,
        doing: &'static str,
        names: Vec<Name>,
        work: F,
    ) -> Answer<T>
    where
        T: Answered + Send + 'static,
        F: Fn(&Db) -> Outcome<T> + Send + Sync + 'static,
    {
        let Some(mirror) = self.standby().mirror() else {
            return self.read(doing, work).await;
        };
        let work = Arc::new(work);
        let why = match self.standby().is_slow.load(Ordering::Relaxed) {
            true => None,
            false => match self.asked(doing, &mirror, (names, work.clone())).await {
                Asked::Answered(answer) => {
                    note_read(None);
                    return answer;
                }
                Asked::Away(away) => Some(away),
                Asked::Older => None,
            },
        };
        if let Some((found, agreed)) = mirror.read(|db| work(db)) {
            note_read(Some(agreed));
            return found.map_err(|fault| StoreError::new(doing, fault));
        }
        match why {
            Some(away) => Err(away),
            None => self.read(doing, move |db| work(db)).await,
        }
    }

    /// Asks the database, and brings the mirror as far as its answer.
    async fn asked<T, F>(
        &self,
        doing: &'static str,
        mirror: &Arc<Mirror>,
        (names, work): (Vec<Name>, Arc<F>),
    ) -> Asked<T>
    where
        T: Answered + Send + 'static,
        F: Fn(&Db) -> Outcome<T> + Send + Sync + 'static,
    {
        let reached = mirror.clone();
        let answer = self.read(doing, move |db| {
            let found = work(db)?;
            let mut told = Vec::new();
            found.tell(&mut told);
            let absent = names
                .iter()
                .filter(|name| told.iter().all(|one| one.name != **name));
            let absent: Vec<AnsweredRow> = absent.cloned().map(AnsweredRow::absent).collect();
            told.extend(absent);
            Ok(reached.reach(db, &told)?.then_some(found))
        });
        let answer = tokio::select! {
            biased;
            answer = answer => answer,
            () = tokio::time::sleep(PATIENCE), if mirror.agreed().is_some() => {
                self.standby().is_slow.store(true, Ordering::Relaxed);
                return Asked::Older;
            }
        };
        match answer {
            Ok(Some(found)) => Asked::Answered(Ok(found)),
            Ok(None) => Asked::Older,
            Err(error) if error.is_unwritable() || matches!(error, StoreError::Fault { .. }) => {
                Asked::Away(error)
            }
            Err(error) => Asked::Answered(Err(error)),
        }
    }
}

/// What the database came to.
enum Asked<T> {
    Answered(Answer<T>),
    /// It cannot be asked.
    Away(StoreError),
    /// It did not answer in time, or knows less than was answered before.
    Older,
}

/// Who may be served from the mirror waits for the database no longer than this.
const PATIENCE: Duration = Duration::from_secs(2);
/// The same at the end of this process.
const LAST_LOOK: Duration = Duration::from_secs(1);
/// A mirror that is further behind is compared row by row.
const BEHIND: usize = 10_000;

impl Db {
    /// Whose rows changed after this number, where all of it is still known.
    pub(super) fn changed_since(&self, seq: u64) -> Outcome<ChangedRows> {
        let newest = self.seq()?;
        let sql = "SELECT seq, num FROM change WHERE seq > ?1 ORDER BY seq LIMIT ?2";
        let changes = self.every(sql, [signed(seq), count(BEHIND)], |row| {
            Ok((db::unsigned(row, 0)?, row.get::<_, Num>(1)?))
        })?;
        let is_whole = changes
            .iter()
            .zip(seq + 1..)
            .all(|((found, _), next)| *found == next);
        let upto = changes.last().map_or(seq, |(seq, _)| *seq);
        if !is_whole || upto < newest || changes.len() == BEHIND {
            return Ok(ChangedRows::Unknown);
        }
        let nums = changes.into_iter().map(|(_, num)| num);
        Ok(ChangedRows::These(nums.filter(|num| *num > 0).collect()))
    }
}
