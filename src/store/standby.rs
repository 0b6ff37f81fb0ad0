//! The store while its database does not answer: this node serves what its mirror holds, and everything else has to
//! wait. A store in a file of this machine has no mirror, and nothing of this happens.

use std::sync::{Arc, OnceLock};

use tokio::sync::watch;

use super::{
    Store,
    db::{self, Db, signed},
    error::{Answer, Outcome, StoreError},
    identities::count,
    mirror::{Changes, Mirror},
    seal::Seal,
};
use crate::model::{DatabaseAway, Num, Timestamp};

/// The mirror, and whether the database answers.
#[derive(Debug, Default)]
pub(super) struct Standby {
    mirror: OnceLock<Arc<Mirror>>,
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
    pub(super) fn mirror(&self) -> Option<&Arc<Mirror>> {
        self.mirror.get()
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

impl Store {
    /// Keeps a mirror of the database for this node, whose cluster is named so, and follows the database with it.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn keep_mirror(&self, cluster: &str, now: Timestamp) -> Answer<()> {
        let seal = self.read("look at the seal key", |db| Ok(db.seal.clone()));
        self.open_mirror(cluster, seal.await?);
        self.follow(now).await
    }

    fn open_mirror(&self, cluster: &str, seal: Arc<Seal>) {
        let standby = self.standby();
        standby.mirror.get_or_init(|| {
            let whose = (cluster, self.settings().node.clone());
            let mirror = Mirror::open(self.state_dir(), whose, seal, self.is_durable());
            Arc::new(mirror)
        });
    }

    /// The database, while it does not answer; nothing while it does, and of a file.
    pub fn away(&self) -> Option<DatabaseAway> {
        let standby = self.standby();
        let silence = standby.silence.borrow().clone()?;
        let mirror = standby.mirror();
        let trouble = mirror.and_then(|mirror| mirror.trouble());
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

    /// Tells when the database goes or comes back.
    pub fn away_signal(&self) -> watch::Receiver<impl Sized + use<>> {
        self.standby().silence.subscribe()
    }

    /// The database answers.
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
                "the database is away, nothing is renewed or changed over this node, and {serves}: {because}"
            );
        }
    }

    /// Brings this node's mirror up to the database, where it has one.
    pub async fn follow(&self, now: Timestamp) -> Answer<()> {
        let Some(mirror) = self.standby().mirror().cloned() else {
            return Ok(());
        };
        self.read("bring this node's mirror up to date", move |db| {
            mirror.follow(db, Db::changed_since, now)
        })
        .await
    }

    /// Reads what this node may also serve from its mirror, while the database does not answer.
    pub(super) async fn read_mirrored<T, F>(&self, doing: &'static str, work: F) -> Answer<T>
    where
        T: Send + 'static,
        F: Fn(&Db) -> Outcome<T> + Send + Sync + 'static,
    {
        let Some(mirror) = self.standby().mirror().cloned() else {
            return self.read(doing, work).await;
        };
        let work = Arc::new(work);
        let again = work.clone();
        let answer = self.read(doing, move |db| again(db)).await;
        match answer {
            Err(StoreError::Away { .. }) => match mirror.read(|db| work(db)) {
                Some(found) => found.map_err(|fault| StoreError::new(doing, fault)),
                None => answer,
            },
            answer => answer,
        }
    }
}

/// A mirror that is further behind is compared row by row.
const BEHIND: usize = 10_000;

impl Db {
    /// Whose rows changed after this number, where all of it is still known.
    fn changed_since(&self, seq: u64) -> Outcome<Changes> {
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
            return Ok(Changes::Unknown);
        }
        let nums = changes.into_iter().map(|(_, num)| num);
        Ok(Changes::These(nums.filter(|num| *num > 0).collect()))
    }
}
