//! The sources while the daemon runs: one source sync each, and where to ask it something.

use std::{collections::BTreeMap, time::Duration};

use tokio::sync::{mpsc, oneshot, watch};

use super::Supervisor;
use crate::{
    api::ApplySource,
    clock::Clock,
    config::SourceSettings,
    engine::{Apply, SourceAsk, SourceSync, SourceSyncDeps},
    model::{Name, RefusedRow, SourceName, SourceReport, SourceView},
    store::{SourceChange, Store, StoreError},
};

/// A source sync that a reload stops gets so long.
const GRACE: Duration = Duration::from_secs(5);
/// Names in one transaction.
const BATCH: usize = 1000;

/// The source syncs, by the names of their sources.
#[derive(Debug, Default)]
pub(super) struct SourceSyncs(BTreeMap<SourceName, Door>);

#[derive(Debug)]
struct Door {
    view: watch::Receiver<SourceView>,
    asks: mpsc::Sender<SourceAsk>,
}

type Answer = oneshot::Sender<Result<SourceReport, String>>;

impl SourceSyncs {
    /// What each publishes.
    pub(super) fn views(&self) -> BTreeMap<SourceName, watch::Receiver<SourceView>> {
        let doors = self.0.iter();
        doors
            .map(|(name, door)| (name.clone(), door.view.clone()))
            .collect()
    }
}

impl Supervisor {
    /// Starts the source syncs of these sources in place of those that run. All begin anew, with a whole
    /// read: a reload may have freed a name that a source lists.
    pub(super) async fn restart_sources(&mut self, sources: &[SourceSettings]) {
        self.loops
            .stop_all(GRACE, |name| name.starts_with("source "))
            .await;
        self.source_syncs.0.clear();
        for settings in sources {
            let name = settings.name.clone();
            let (source_sync, asks) = SourceSync::new(SourceSyncDeps {
                settings: settings.clone(),
                store: self.store.clone(),
                clock: self.clock.clone(),
            });
            let view = source_sync.view();
            self.source_syncs
                .0
                .insert(name.clone(), Door { view, asks });
            self.loops
                .spawn(format!("source {name}"), |stop| source_sync.run(stop));
        }
    }

    /// Passes a question on; the source sync answers when it has read the source.
    pub(super) fn ask_source(&self, name: &SourceName, apply: Option<ApplySource>, answer: Answer) {
        if let Some(door) = self.source_syncs.0.get(name) {
            let apply = apply.map(|wish| Apply {
                actor: wish.actor,
                confirmed: wish.confirmed,
            });
            if let Err(full) = door.asks.try_send(SourceAsk { apply, answer }) {
                let busy = "it is being read; try again in a moment".to_owned();
                full.into_inner().answer.send(Err(busy)).ok();
            }
            return;
        }
        let (store, clock, name) = (self.store.clone(), self.clock.clone(), name.clone());
        let confirmed = apply.is_some_and(|wish| wish.confirmed);
        tokio::spawn(async move {
            let ended = let_go(&store, &clock, &name, confirmed).await;
            // Whoever asked may have gone in the meantime.
            answer.send(ended.map_err(|error| error.to_string())).ok();
        });
    }
}

/// Lets the identities of a source go that is no longer configured, if a person said so.
async fn let_go(
    store: &Store,
    clock: &Clock,
    source: &SourceName,
    confirmed: bool,
) -> Result<SourceReport, StoreError> {
    let names = async |after: Option<Name>| -> Result<Vec<Name>, StoreError> {
        let rows = store.source_rows(source, after, BATCH).await?;
        Ok(rows.into_iter().map(|(name, _)| name).collect())
    };
    let mut report = SourceReport::default();
    report.totals.removed = store.source_count(source).await?;
    report.removed = names(None).await?;
    if !confirmed {
        report.blocked = Some("it is no longer configured".to_owned());
        return Ok(report);
    }
    let mut gone = report.removed.clone();
    while !gone.is_empty() {
        let after = gone.last().cloned();
        let change = SourceChange {
            gone,
            ..SourceChange::default()
        };
        let done = store.take_source(source, change, clock.now()).await?;
        report.totals.refused += done.refused.len() as u64;
        let refused = done.refused.into_iter().map(RefusedRow::from);
        report.refused.extend(refused);
        // What was refused stays on the list: it is not met again.
        gone = names(after).await?;
    }
    store.forget_source(source).await?;
    report.applied = true;
    Ok(report)
}
