//! A start while the database is away, or does not let this node in: it serves what its mirror holds, and joins the others
//! once the database takes it.

use std::time::Duration;

use super::{Supervisor, supervisor::Built};
use crate::{
    clock::Clock,
    config::Settings,
    engine::put_back,
    pool,
    store::{OpenError, Opened, Store},
};

/// The database is looked for so often.
const AGAIN: Duration = Duration::from_secs(2);

/// The store of this node without its database, where it has a mirror that may be served.
pub(super) fn without_database(
    settings: &Settings,
    clock: &Clock,
    why: &str,
) -> Result<Option<Store>, OpenError> {
    let Some(cluster) = &settings.cluster else {
        return Ok(None);
    };
    let place = (&settings.store, settings.daemon.state_dir.as_path());
    Store::of_mirror(place, cluster.name.as_str(), why, clock.now())
}

/// Keeps a mirror of a store that machines share.
pub(super) fn keep_mirror(store: &Store, settings: &Settings) {
    if let Some(cluster) = &settings.cluster {
        store.keep_mirror(cluster.name.as_str());
    }
}

/// Waits until the database answers, and opens it. What only a person can mend is waited for as well: who serves goes on.
pub(super) async fn joined(store: Store, clock: Clock) -> Opened {
    loop {
        tokio::time::sleep(AGAIN).await;
        let (joining, now) = (store.clone(), clock.now());
        let why = match pool::LOOKS.run(move || joining.join(now)).await {
            Ok(Ok(opened)) => return opened,
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        store.database_is_silent(&why, clock.now());
    }
}

impl Supervisor {
    /// The database answers: from now on this node is as any other.
    pub(super) async fn joined(&mut self, opened: Opened, settings: &Settings) {
        self.store.database_answers();
        keep_mirror(&self.store, settings);
        self.was_opened(opened);
    }

    /// Puts the files of this node back that are gone, from its mirror.
    pub(super) async fn put_files_back(&self, built: &Built) {
        for (name, sink) in built.files(|settings| self.runs(settings), |one| self.at(one)) {
            match put_back(&self.store, &name, sink, &self.clock).await {
                Ok(files) => {
                    tracing::info!(sink = %name, files, "files that were gone were put back from the mirror")
                }
                Err(error) => {
                    tracing::warn!(sink = %name, %error, "files could not be put back from the mirror")
                }
            }
        }
    }
}
