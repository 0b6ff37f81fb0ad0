//! Looks after what the daemon stands on, and tells by notices what needs a person and when it is over.

use std::{collections::BTreeMap, convert::Infallible, time::Duration};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    api::Api,
    clock::Clock,
    model::{Amiss, NoticeKind},
    store::Store,
};

/// Between two looks.
const EVERY: Duration = Duration::from_secs(5);

/// What is looked at, and where it is published.
pub(super) struct Footing {
    pub(super) api: Api,
    pub(super) store: Store,
    pub(super) clock: Clock,
    pub(super) moved: watch::Sender<Option<Amiss>>,
}

impl Footing {
    /// Looks until told to stop.
    pub(super) async fn watch(self, stop: CancellationToken) -> Result<(), Infallible> {
        let mut open: Option<BTreeMap<String, NoticeKind>> = None;
        loop {
            self.look_at_store();
            if open.is_none() {
                open = self.store.open_notices().await.ok();
            }
            if let Some(open) = &mut open {
                self.tell(open).await;
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(EVERY) => {}
            }
        }
    }

    fn look_at_store(&self) {
        let before = self.moved.borrow().clone();
        let now = Amiss::still(self.store.moved(), before.as_ref(), self.clock.now());
        if now == before {
            return;
        }
        match &now {
            Some(moved) => tracing::error!(
                "{}: renewing goes on over the open file, and is lost when renewd ends; `renewd store backup FILE` \
                 rescues it",
                moved.what
            ),
            None => tracing::info!("the file of the store is back"),
        }
        self.moved.send_replace(now);
    }

    /// Raises what is due; what cannot be written now is tried again at the next look.
    async fn tell(&self, open: &mut BTreeMap<String, NoticeKind>) {
        for notice in self.api.news(open).await {
            let (key, kind) = (notice.key.clone(), notice.kind);
            if let Err(error) = self.store.announce(notice).await {
                tracing::warn!(%error, "a notice waits until the store can be written");
                continue;
            }
            let Some(key) = key else { continue };
            if kind.ended_by().is_empty() {
                open.remove(&key);
            } else {
                open.insert(key, kind);
            }
        }
    }
}
