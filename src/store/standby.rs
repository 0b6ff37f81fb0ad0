//! The store while its database does not answer: this node serves what its mirror holds, and everything else has to
//! wait. A store in a file of this machine has no mirror, and nothing of this happens.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use tokio::sync::watch;

use super::{
    Store,
    db::{self, Db, signed},
    error::{Answer, Outcome, StoreError},
    identities::count,
    mirror::{self, ChangedRows, Mirror},
    seal,
    signals::Signals,
    writer::Witness,
};
use crate::{
    config::StoreSettings,
    model::{DatabaseAway, Num, Timestamp},
};

/// The mirror, and whether the database answers.
#[derive(Debug, Default)]
pub(super) struct Standby {
    mirror: RwLock<Option<Arc<Mirror>>>,
    silence: watch::Sender<Option<Silence>>,
}

/// Since when the database does not answer, and what was found out about it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Silence {
    since: Timestamp,
    because: String,
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

    /// Waits until the database does not answer.
    async fn fell_silent(&self) {
        let mut silence = self.silence.subscribe();
        // The sender lives as long as this.
        silence.wait_for(Option::is_some).await.ok();
    }

    /// That something can be asked of the database.
    pub(super) fn answers(&self, doing: &'static str) -> Answer<()> {
        match &*self.silence.borrow() {
            None => Ok(()),
            Some(silence) => Err(StoreError::Away {
                doing,
                reason: silence.because.clone(),
            }),
        }
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
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn keep_mirror(&self, cluster: &str) -> Answer<()> {
        let seal = self.read("look at the seal key", |db| Ok(db.seal.clone()));
        let (seal, whose) = (seal.await?, (cluster, self.settings().node.clone()));
        let mirror = Mirror::open(self.state_dir(), whose, seal, self.is_durable());
        self.standby().keep(mirror);
        Ok(())
    }

    /// The store of a node of this cluster, whose database does not answer, for the reason given: what its mirror
    /// holds is served until [`Store::join`]. Nothing where it has none that may be served.
    pub fn of_mirror(
        (settings, state_dir): (&StoreSettings, &Path),
        cluster: &str,
        why: &str,
        now: Timestamp,
    ) -> Option<Self> {
        let (key, successor) = mirror::keys(state_dir)?;
        let seal = seal::seal(settings, state_dir, (Some(&key), successor.as_deref()));
        let seal = seal
            .inspect_err(|error| tracing::error!(%error, "this node's mirror cannot be opened"))
            .ok()?;
        let whose = (cluster, settings.node.clone());
        let mirror = Mirror::open(state_dir, whose, Arc::new(seal), true);
        mirror.agreed()?;
        let (signals, standby) = (Signals::since(mirror.seq()), Standby::default());
        standby.keep(mirror);
        let store = Self::made((settings, state_dir), signals, Arc::new(standby));
        store.database_is_silent(why, now);
        Some(store)
    }

    /// The database, while it does not answer; nothing while it does, and of a file.
    pub fn away(&self) -> Option<DatabaseAway> {
        let standby = self.standby();
        let silence = standby.silence.borrow().clone()?;
        let mirror = standby.mirror();
        let trouble = mirror.as_ref().and_then(|mirror| mirror.trouble());
        Some(DatabaseAway {
            since: silence.since,
            because: match trouble {
                Some(trouble) => {
                    format!("{}; the mirror was set aside: {trouble}", silence.because)
                }
                None => silence.because,
            },
            mirror_of: mirror.and_then(|mirror| mirror.agreed()),
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

    /// Reads what this node may also serve from its mirror, while the database does not answer.
    pub(super) async fn read_mirrored<T, F>(&self, doing: &'static str, work: F) -> Answer<T>
    where
        T: Send + 'static,
        F: Fn(&Db) -> Outcome<T> + Send + Sync + 'static,
    {
        let Some(mirror) = self.standby().mirror() else {
            return self.read(doing, work).await;
        };
        let work = Arc::new(work);
        let again = work.clone();
        let answer = self.read(doing, move |db| again(db));
        let mut answer = std::pin::pin!(answer);
        let away = tokio::select! {
            biased;
            answer = &mut answer => match answer {
                Err(away @ StoreError::Away { .. }) => Some(away),
                answer => return answer,
            },
            () = self.standby().fell_silent() => None,
            () = tokio::time::sleep(PATIENCE) => None,
        };
        match (mirror.read(|db| work(db)), away) {
            (Some(found), _) => found.map_err(|fault| StoreError::new(doing, fault)),
            (None, Some(away)) => Err(away),
            (None, None) => answer.await,
        }
    }
}

/// Who may be served from the mirror waits for the database no longer than this.
const PATIENCE: Duration = Duration::from_secs(2);
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
