//! Takes over what a source lists: looks, compares, and writes only what differs. Whatever goes wrong,
//! the last good list stays, and somebody is told once.

use std::{convert::Infallible, time::Duration};

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    config::{SourceKind, SourceSettings},
    model::{
        AuditEntry, Lapse, Notice, NoticeKind, RefusedRow, SourceName, SourceReport, SourceView,
        Timestamp,
    },
    sources::{Difference, Listing, Look, Source},
    store::{SourceChange, SourceEnd, Store, StoreError},
};

/// Rows in one transaction.
const BATCH: usize = 2000;
/// At most so many refused rows are kept for people's eyes.
const SHOWN: usize = 1000;
/// After a fault of the store.
const AFTER_FAULT: Duration = Duration::from_secs(5);

/// What an intake is made of.
#[derive(Debug)]
pub struct IntakeDeps {
    /// The source.
    pub settings: SourceSettings,
    /// Where its identities are kept.
    pub store: Store,
    /// The time.
    pub clock: Clock,
}

/// What a person asks of a source.
#[derive(Debug)]
pub struct SourceAsk {
    /// Who asks; `None` for a look that changes nothing.
    pub apply: Option<Apply>,
    /// What came of it; the text says why nothing did.
    pub answer: oneshot::Sender<Result<SourceReport, String>>,
}

/// A wish that a list be taken over now.
#[derive(Debug, Clone)]
pub struct Apply {
    /// For the audit trail.
    pub actor: String,
    /// Whether `max_removal` and what protects like it is set aside this once.
    pub confirmed: bool,
}

/// The loop of one source.
#[derive(Debug)]
pub struct Intake {
    source: Source,
    store: Store,
    clock: Clock,
    asks: mpsc::Receiver<SourceAsk>,
    view: watch::Sender<SourceView>,
    /// Which file the last good list came from.
    file: Option<String>,
    /// The last read did not come to an end: the next look reads, whatever it finds.
    again: bool,
}

/// Why a look came to nothing.
enum Trouble {
    /// The source.
    Source(String),
    /// Our own store.
    Store(StoreError),
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Intake {
    /// The loop, and where to ask it something.
    pub fn new(deps: IntakeDeps) -> (Self, mpsc::Sender<SourceAsk>) {
        let (asks, asked) = mpsc::channel(4);
        let view = watch::Sender::new(view_of(&deps.settings));
        let intake = Self {
            source: Source::new(deps.settings, &deps.clock),
            store: deps.store,
            clock: deps.clock,
            asks: asked,
            view,
            file: None,
            again: true,
        };
        (intake, asks)
    }

    /// How the source is, as it changes.
    pub fn view(&self) -> watch::Receiver<SourceView> {
        self.view.subscribe()
    }

    /// Looks every so often until told to stop.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), Infallible> {
        let every = self.source.settings().every;
        let mut wait = Duration::ZERO;
        while self.recall().await.is_err() {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(AFTER_FAULT) => {}
            }
        }
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                Some(ask) = self.asks.recv() => {
                    self.answer(ask).await;
                    continue;
                }
                () = tokio::time::sleep(wait) => {}
            }
            wait = every;
            let ended = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                ended = self.round() => ended,
            };
            if let Err(error) = ended {
                tracing::warn!(source = %self.name(), %error, "what a source lists could not be taken over; trying again");
                self.again = true;
                wait = every.min(AFTER_FAULT);
            }
        }
    }

    /// Takes up what was known when the daemon ended.
    async fn recall(&mut self) -> Result<(), StoreError> {
        let known = self.store.sources().await?;
        if let Some(facts) = known.into_iter().find(|facts| facts.name == *self.name()) {
            self.file.clone_from(&facts.file);
            self.view.send_modify(|view| {
                view.taken_at = facts.taken_at;
                view.identities = facts.identities;
                view.refused = facts.refused;
                view.lapse = facts.lapse;
            });
        }
        Ok(())
    }

    /// One look, and what follows from it.
    async fn round(&mut self) -> Result<(), StoreError> {
        let ended = match self.source.look().await {
            Ok(look) if !look.changed && !self.again => {
                self.looked();
                return Ok(());
            }
            Ok(look) => self.take(&look, None).await,
            Err(error) => Err(Trouble::Source(error.to_string())),
        };
        self.looked();
        match ended {
            Ok(_) => Ok(()),
            Err(Trouble::Source(reason)) => {
                self.again = true;
                self.lapse(reason).await
            }
            Err(Trouble::Store(error)) => Err(error),
        }
    }

    async fn answer(&mut self, ask: SourceAsk) {
        let asked = match self.source.look().await {
            Ok(look) => match &ask.apply {
                Some(apply) => self.take(&look, Some(apply)).await,
                None => self.compare(&look).await.map(|(report, ..)| report),
            },
            Err(error) => Err(Trouble::Source(error.to_string())),
        };
        let answer = asked.map_err(|trouble| match trouble {
            Trouble::Source(reason) => reason,
            Trouble::Store(error) => error.to_string(),
        });
        // Whoever asked may have gone in the meantime.
        ask.answer.send(answer).ok();
    }

    /// Reads the list and says what it would change.
    async fn compare(&mut self, look: &Look) -> Result<(SourceReport, Difference), Trouble> {
        // Whatever is read here has not been taken over: the next look reads it again.
        self.again = true;
        let listing = self
            .source
            .read()
            .await
            .map_err(|error| Trouble::Source(error.to_string()))?;
        let known = self.store.source_rows(self.name()).await?;
        let difference = Difference::between(&known, &listing);
        let replaced = self.file.is_some() && look.file.is_some() && self.file != look.file;
        let blocked =
            difference.blocked(self.source.settings().max_removal, listing.rows, replaced);
        Ok((report(listing, &difference, blocked), difference))
    }

    /// Reads the list and takes it over, unless it is blocked and nobody has said yes.
    async fn take(&mut self, look: &Look, asked: Option<&Apply>) -> Result<SourceReport, Trouble> {
        let (mut report, difference) = self.compare(look).await?;
        if let Some(reason) = &report.blocked
            && !asked.is_some_and(|apply| apply.confirmed)
        {
            let reason = format!(
                "{reason}; nothing was changed: see `renewd source test {name}`, and if it is right, \
                 `renewd source apply {name} --yes`",
                name = self.name()
            );
            self.again = false;
            self.lapse(reason).await?;
            return Ok(report);
        }
        let changed = !difference.is_empty();
        let refused = self.write(difference).await?;
        report.refused.extend(refused);
        report.applied = true;
        let count = report.refused.len() as u64;
        self.taken(look.file.clone(), count).await?;
        if changed {
            self.told(&report, asked).await?;
        }
        self.again = false;
        report.refused.truncate(SHOWN);
        Ok(report)
    }

    /// Writes what differs, in batches: what was written stays, should the process end between two.
    async fn write(&self, difference: Difference) -> Result<Vec<RefusedRow>, StoreError> {
        let mut refused = Vec::new();
        let mut specs = difference.changed;
        specs.extend(difference.added);
        // Removals first, so that ids of forgotten rows are free.
        for gone in difference.removed.chunks(BATCH) {
            let change = SourceChange {
                gone: gone.to_vec(),
                ..SourceChange::default()
            };
            self.store
                .take_source(self.name(), change, self.clock.now())
                .await?;
        }
        for part in specs.chunks(BATCH) {
            let change = SourceChange {
                specs: part.to_vec(),
                ..SourceChange::default()
            };
            let done = self
                .store
                .take_source(self.name(), change, self.clock.now())
                .await?;
            refused.extend(done.refused.into_iter().map(RefusedRow::from));
        }
        Ok(refused)
    }

    /// Notes that a list was taken over, and tells of the end of a lapse.
    async fn taken(&mut self, file: Option<String>, refused: u64) -> Result<(), StoreError> {
        let now = self.clock.now();
        let end = SourceEnd::Taken {
            file: file.clone(),
            refused,
        };
        let message = format!(
            "the source {} is read again, and its list is taken over",
            self.name()
        );
        let notice = self.notice(NoticeKind::SourceRecovered, message.clone(), now);
        if self.store.end_look(self.name(), end, notice, now).await? {
            tracing::info!(source = %self.name(), "{message}");
        }
        let identities = self.store.source_rows(self.name()).await?.len() as u64;
        self.file = file.or(self.file.take());
        self.view.send_modify(|view| {
            view.taken_at = Some(now);
            view.identities = identities;
            view.refused = refused;
            view.lapse = None;
        });
        Ok(())
    }

    /// Notes why the list is not taken over; told once per lapse.
    async fn lapse(&mut self, reason: String) -> Result<(), StoreError> {
        let now = self.clock.now();
        if self
            .view
            .borrow()
            .lapse
            .as_ref()
            .is_some_and(|lapse| lapse.reason == reason)
        {
            return Ok(());
        }
        let message = format!(
            "the source {} is not taken over, its last good list stays: {reason}",
            self.name()
        );
        let notice = self.notice(NoticeKind::SourceLapsed, message.clone(), now);
        let end = SourceEnd::Lapsed(reason.clone());
        if self.store.end_look(self.name(), end, notice, now).await? {
            tracing::warn!(source = %self.name(), "{message}");
        }
        self.view.send_modify(|view| {
            let since = view.lapse.as_ref().map_or(now, |lapse| lapse.since);
            view.lapse = Some(Lapse { reason, since });
        });
        Ok(())
    }

    /// What was changed, in the audit trail.
    async fn told(&self, report: &SourceReport, asked: Option<&Apply>) -> Result<(), StoreError> {
        let result = format!(
            "+{} ~{} -{}, {} refused",
            report.added.len(),
            report.changed.len(),
            report.removed.len(),
            report.refused.len()
        );
        tracing::info!(source = %self.name(), result, "a source's list was taken over");
        let entry = AuditEntry {
            at: self.clock.now(),
            actor: asked.map_or_else(|| "renewd".to_owned(), |apply| apply.actor.clone()),
            action: "source".to_owned(),
            name: None,
            reason: Some(format!("source {}", self.name())),
            request_id: None,
            result,
        };
        self.store.audit(vec![entry]).await
    }

    fn looked(&self) {
        let now = self.clock.now();
        self.view.send_modify(|view| view.looked_at = Some(now));
    }

    fn notice(&self, kind: NoticeKind, message: String, at: Timestamp) -> Notice {
        Notice {
            at,
            kind,
            resource: None,
            name: None,
            key: Some(format!("source {}", self.name())),
            message,
        }
    }

    fn name(&self) -> &SourceName {
        &self.source.settings().name
    }
}

fn view_of(settings: &SourceSettings) -> SourceView {
    SourceView {
        name: settings.name.clone(),
        kind: settings.kind.word().to_owned(),
        reads: match &settings.kind {
            SourceKind::Sqlite { path, .. } | SourceKind::File { path } => {
                path.display().to_string()
            }
            SourceKind::Exec { command, .. } => command.first().cloned().unwrap_or_default(),
        },
        every_seconds: settings.every.as_secs(),
        looked_at: None,
        taken_at: None,
        identities: 0,
        refused: 0,
        lapse: None,
    }
}

fn report(listing: Listing, difference: &Difference, blocked: Option<String>) -> SourceReport {
    let names = |specs: &[(crate::model::Spec, [u8; 16])]| {
        specs.iter().map(|(spec, _)| spec.name.clone()).collect()
    };
    SourceReport {
        rows: listing.rows,
        refused: listing.refused,
        added: names(&difference.added),
        changed: names(&difference.changed),
        removed: difference.removed.clone(),
        unchanged: difference.unchanged,
        blocked,
        applied: false,
    }
}
