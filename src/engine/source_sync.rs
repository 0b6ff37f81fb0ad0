//! Takes over what a source lists: looks, compares, and writes only what differs. Whatever goes wrong,
//! the last good list stays, and somebody is told once.
//!
//! The new list lies beside the last one, both in the order of names, and what differs comes out row by row: a
//! million rows take no more memory than one page of them.

use std::{
    cmp::Ordering,
    collections::{BTreeSet, VecDeque},
    convert::Infallible,
    time::Duration,
};

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    config::{SourceKind, SourceSettings},
    model::{
        AuditEntry, IdentityId, Lapse, Name, Notice, NoticeKind, RefusedRow, SourceName,
        SourceReport, SourceView, Spec, Timestamp,
    },
    schedule::Steady,
    sources::{Difference, Head, ListRead, ListSource, Look, Reading, SourceError, digest},
    store::{Digest, SourceChange, SourceEnd, Store, StoreError},
    worker::{self, Worker},
};

/// At most so many refused rows are kept for people's eyes.
const SHOWN: usize = 1000;
/// After a fault of the store.
const AFTER_FAULT: Duration = Duration::from_secs(5);

/// What a source sync is made of.
#[derive(Debug)]
pub struct SourceSyncDeps {
    pub settings: SourceSettings,
    /// Where its identities are kept.
    pub store: Store,
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

/// The order to take a list over now.
#[derive(Debug, Clone)]
pub struct Apply {
    /// For the audit trail.
    pub actor: String,
    /// Whether `max_removal` and what protects like it is set aside this once.
    pub confirmed: bool,
}

/// The loop of one source.
#[derive(Debug)]
pub struct SourceSync {
    source: ListSource,
    store: Store,
    clock: Clock,
    asks: mpsc::Receiver<SourceAsk>,
    view: watch::Sender<SourceView>,
    /// Which file the last good list came from.
    file: Option<String>,
    /// The last read did not come to an end: the next look reads, whatever it finds.
    again: bool,
    /// The source was known before ids had to be allowed.
    adopted_before: bool,
    /// When it is looked next.
    look_at: Steady,
}

/// What a new list comes to, before anything of it is taken over.
struct Compared {
    reading: Reading,
    difference: Difference,
    report: SourceReport,
}

impl Worker for SourceSync {
    type Event = SourceAsk;
    type Error = Infallible;

    fn clock(&self) -> &Clock {
        &self.clock
    }

    async fn begin(&mut self, stop: &CancellationToken) {
        while self.recall().await.is_err() {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(AFTER_FAULT) => {}
            }
        }
    }

    async fn round(&mut self, stop: &CancellationToken) -> Result<Timestamp, Infallible> {
        if self.clock.steady() >= self.look_at {
            let ended = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(self.clock.now()),
                ended = self.look() => ended,
            };
            let every = self.source.settings().every;
            let wait = match ended {
                Ok(()) => every,
                Err(error) => {
                    tracing::warn!(source = %self.name(), %error, "what a source lists could not be taken over; trying again");
                    self.again = true;
                    every.min(AFTER_FAULT)
                }
            };
            self.look_at = self.clock.steady() + wait;
        }
        let left = self.look_at.saturating_sub(self.clock.steady());
        Ok(self.clock.now() + left)
    }

    async fn next(&mut self, ending: bool) -> Result<SourceAsk, Infallible> {
        tokio::select! {
            biased;
            Some(ask) = self.asks.recv(), if !ending => Ok(ask),
            else => std::future::pending().await,
        }
    }

    async fn take(&mut self, ask: SourceAsk) {
        self.answer(ask).await;
    }
}

impl SourceSync {
    /// The loop, and where to ask it something.
    pub fn new(deps: SourceSyncDeps) -> (Self, mpsc::Sender<SourceAsk>) {
        let (asks, asked) = mpsc::channel(4);
        let view = watch::Sender::new(view_of(&deps.settings));
        let source_sync = Self {
            source: ListSource::new(deps.settings, &deps.clock),
            store: deps.store,
            clock: deps.clock,
            asks: asked,
            view,
            file: None,
            again: true,
            adopted_before: false,
            look_at: Steady::ZERO,
        };
        (source_sync, asks)
    }

    /// How the source is, as it changes.
    pub fn view(&self) -> watch::Receiver<SourceView> {
        self.view.subscribe()
    }

    /// Looks every so often until told to stop.
    pub async fn run(self, stop: CancellationToken) -> Result<(), Infallible> {
        worker::run(self, stop).await
    }

    /// Takes up what was known when the daemon ended.
    async fn recall(&mut self) -> Result<(), StoreError> {
        let known = self.store.sources().await?;
        if let Some(facts) = known.into_iter().find(|facts| facts.name == *self.name()) {
            self.file.clone_from(&facts.file);
            self.adopted_before = facts.adopts;
            let advice = self.advice();
            if let Some(advice) = &advice {
                tracing::warn!(source = %self.name(), "{advice}");
            }
            self.view.send_modify(|view| {
                view.advice = advice;
                view.taken_at = facts.taken_at;
                view.identities = facts.identities;
                view.refused = facts.refused;
                view.lapse = facts.lapse;
            });
        }
        Ok(())
    }

    /// What somebody should write into the section of a source that goes on as it did before.
    fn advice(&self) -> Option<String> {
        let is_silent = self.source.settings().adopt_ids.is_none() && self.adopted_before;
        is_silent.then(|| {
            format!(
                "the source {} may bring ids along that renewd does not hold, as it always could: write \
                 `adopt_ids = true` into its section if it shall, else `adopt_ids = false`",
                self.name()
            )
        })
    }

    /// One look, and what follows from it.
    async fn look(&mut self) -> Result<(), StoreError> {
        if !self.store.reads(&self.source.settings().nodes).await? {
            // Should it be ours one day, it is read whatever it looks like.
            self.again = true;
            self.looked();
            return Ok(());
        }
        let ended = match self.source.look().await {
            Ok(look) if !look.changed && !self.again => {
                self.looked();
                return Ok(());
            }
            Ok(look) => self.take(&look, None).await,
            Err(error) => Err(error.into()),
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
                None => self.compare(&look).await.map(|compared| compared.report),
            },
            Err(error) => Err(error.into()),
        };
        let answer = asked.map_err(|trouble| match trouble {
            Trouble::Source(reason) => reason,
            Trouble::Store(error) => error.to_string(),
        });
        // Whoever asked may have gone in the meantime.
        ask.answer.send(answer).ok();
    }

    /// Reads the list and says what it would change.
    async fn compare(&mut self, look: &Look) -> Result<Compared, Trouble> {
        // Whatever is read here has not been taken over: the next look reads it again.
        self.again = true;
        let since = Some(self.clock.now());
        self.view.send_modify(|view| view.reading_since = since);
        let read = self.source.read(look).await;
        self.view.send_modify(|view| view.reading_since = None);
        let mut reading = read?;
        let mut report = SourceReport {
            rows: reading.head().rows,
            refused: refused_before(reading.head()),
            ..SourceReport::default()
        };
        report.totals.refused = reading.head().unnamed + reading.head().invalid;
        let adopts = self.adopts();
        let mut merge = Merge::new(&self.store, self.name(), &mut reading, adopts).await?;
        loop {
            let steps = merge.next().await?;
            if steps.is_empty() {
                break;
            }
            steps.into_iter().for_each(|step| count(&mut report, step));
        }
        report.refused.sort_by_key(|row| row.number);
        let totals = report.totals;
        let difference = Difference {
            added: totals.added,
            changed: totals.changed,
            removed: totals.removed,
            unchanged: report.unchanged,
        };
        let replaced = self.file.is_some() && look.file.is_some() && self.file != look.file;
        report.blocked = difference.blocked(report.rows, report.refused.first(), replaced);
        report.doubt = doubt(reading.head());
        if report.blocked.is_none() && report.doubt.is_none() {
            report.blocked = difference.removes_too_many(self.source.settings().max_removal);
        }
        Ok(Compared {
            reading,
            difference,
            report,
        })
    }

    /// Whether a row may bring an id along that nobody here holds.
    fn adopts(&self) -> bool {
        let said = self.source.settings().adopt_ids;
        said.unwrap_or(self.adopted_before)
    }

    /// Reads the list and takes it over, unless it is blocked and nobody has said yes.
    async fn take(&mut self, look: &Look, asked: Option<&Apply>) -> Result<SourceReport, Trouble> {
        let Compared {
            mut reading,
            difference,
            mut report,
        } = self.compare(look).await?;
        let confirmed = asked.is_some_and(|apply| apply.confirmed);
        if let Some(reason) = report.blocked.as_ref().filter(|_| !confirmed) {
            let reason = format!("{reason}; nothing was changed: {}", self.remedy());
            self.again = false;
            self.lapse(reason).await?;
            return Ok(report);
        }
        if confirmed {
            report.doubt = None;
        }
        let removes = difference.removed > 0 && report.doubt.is_none();
        let mut refused = Vec::new();
        if removes {
            refused.extend(self.remove(&mut reading).await?);
        }
        let writes = difference.added + difference.changed > 0;
        if writes {
            refused.extend(self.write(&mut reading).await?);
        }
        report.totals.refused += refused.len() as u64;
        report.refused.extend(refused);
        report.applied = true;
        let doubt = report
            .doubt
            .as_ref()
            .map(|reason| format!("{reason}: {}", self.remedy()));
        self.taken(look.file.clone(), report.totals.refused, doubt)
            .await?;
        if removes || writes {
            self.told(&report, removes, asked).await?;
        }
        self.again = false;
        report.refused.truncate(SHOWN);
        Ok(report)
    }

    fn remedy(&self) -> String {
        format!(
            "see `renewd source test {name}`, and if it is right, `renewd source apply {name} --yes`",
            name = self.name()
        )
    }

    /// Lets go who is no longer listed, in batches; first of all, so that ids of forgotten rows are free.
    async fn remove(&self, reading: &mut Reading) -> Result<Vec<RefusedRow>, Trouble> {
        let mut refused = Vec::new();
        let mut merge = Merge::new(&self.store, self.name(), reading, true).await?;
        loop {
            let steps = merge.next().await?;
            if steps.is_empty() {
                return Ok(refused);
            }
            let gone = steps.into_iter().filter_map(|step| match step {
                MergeStep::Removed(name) => Some(name),
                _ => None,
            });
            let change = SourceChange {
                gone: gone.collect(),
                ..SourceChange::default()
            };
            if !change.gone.is_empty() {
                let now = self.clock.now();
                let done = self.store.take_source(self.name(), change, now).await?;
                refused.extend(done.refused.into_iter().map(RefusedRow::from));
            }
        }
    }

    /// Writes what is new or differs, in batches: what was written stays, should the process end between two.
    async fn write(&self, reading: &mut Reading) -> Result<Vec<RefusedRow>, Trouble> {
        let mut refused = Vec::new();
        let mut merge = Merge::new(&self.store, self.name(), reading, self.adopts()).await?;
        loop {
            let steps = merge.next().await?;
            if steps.is_empty() {
                return Ok(refused);
            }
            let specs = steps.into_iter().filter_map(|step| match step {
                MergeStep::Wanted(row) => Some((row.spec, row.digest)),
                _ => None,
            });
            let change = SourceChange {
                specs: specs.collect(),
                ..SourceChange::default()
            };
            if !change.specs.is_empty() {
                let now = self.clock.now();
                let done = self.store.take_source(self.name(), change, now).await?;
                refused.extend(done.refused.into_iter().map(RefusedRow::from));
            }
        }
    }

    /// Notes that a list was taken over, and tells of the end of a lapse; where nobody was removed because
    /// of a doubt, of a lapse's beginning.
    async fn taken(
        &mut self,
        file: Option<String>,
        refused: u64,
        doubt: Option<String>,
    ) -> Result<(), StoreError> {
        let now = self.clock.now();
        let (kind, message, end) = match doubt.clone() {
            None => (
                NoticeKind::SourceRecovered,
                format!(
                    "the source {} is read again, and its list is taken over",
                    self.name()
                ),
                SourceEnd::Taken {
                    file: file.clone(),
                    refused,
                },
            ),
            Some(reason) => (
                NoticeKind::SourceLapsed,
                format!(
                    "the source {} is taken over only in part: {reason}",
                    self.name()
                ),
                SourceEnd::Partly {
                    file: file.clone(),
                    refused,
                    reason,
                },
            ),
        };
        let notice = self.notice(kind, message.clone(), now);
        if self.store.end_look(self.name(), end, notice, now).await? {
            tracing::info!(source = %self.name(), "{message}");
        }
        let identities = self.store.source_count(self.name()).await?;
        self.file = file.or(self.file.take());
        self.view.send_modify(|view| {
            let since = view.lapse.as_ref().map_or(now, |lapse| lapse.since);
            view.taken_at = Some(now);
            view.identities = identities;
            view.refused = refused;
            view.lapse = doubt.map(|reason| Lapse { reason, since });
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
    async fn told(
        &self,
        report: &SourceReport,
        removed: bool,
        asked: Option<&Apply>,
    ) -> Result<(), StoreError> {
        let totals = report.totals;
        let result = format!(
            "+{} ~{} -{}, {} refused",
            totals.added,
            totals.changed,
            if removed { totals.removed } else { 0 },
            totals.refused
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
        Notice::new(kind, at, message).keyed(format!("source {}", self.name()))
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
        reading_since: None,
        advice: None,
    }
}

/// Counts a step into a report; the first of each kind are named.
fn count(report: &mut SourceReport, step: MergeStep) {
    let (total, names, name) = match step {
        MergeStep::Unchanged => {
            report.unchanged += 1;
            return;
        }
        MergeStep::Refused(row) => {
            report.totals.refused += 1;
            if report.refused.len() < SHOWN {
                report.refused.push(row);
            }
            return;
        }
        MergeStep::Removed(name) => (&mut report.totals.removed, &mut report.removed, name),
        MergeStep::Wanted(row) if row.is_new => {
            (&mut report.totals.added, &mut report.added, row.spec.name)
        }
        MergeStep::Wanted(row) => (
            &mut report.totals.changed,
            &mut report.changed,
            row.spec.name,
        ),
    };
    *total += 1;
    if names.len() < SHOWN {
        names.push(name);
    }
}

/// The rows of which it is known before the others that they cannot be identities.
fn refused_before(head: &Head) -> Vec<RefusedRow> {
    let rows = head.shown.iter().chain(&head.nobodies);
    rows.take(SHOWN).cloned().collect()
}

/// Why the list may not be whole, if so: whoever stands in a row that cannot be read is not missing.
fn doubt(head: &Head) -> Option<String> {
    let first = head.shown.first()?;
    let others = match head.unnamed - 1 {
        0 => String::new(),
        others => format!(", nor can {others} more"),
    };
    Some(format!(
        "row {} has no name that can be read ({}){others}, so nobody was removed who may stand there",
        first.number, first.reason
    ))
}

/// Names of the last list that are read at once, and rows that are asked about or written at once.
pub(super) const BATCH: usize = 2000;

/// Why a look came to nothing.
pub(super) enum Trouble {
    Source(String),
    Store(StoreError),
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<SourceError> for Trouble {
    fn from(error: SourceError) -> Self {
        Self::Source(crate::model::one_line(&error.to_string()).into_owned())
    }
}

/// What a row of the new list, or the lack of one, means.
#[derive(Debug)]
pub(super) enum MergeStep {
    /// A row that is new or differs.
    Wanted(WantedRow),
    Unchanged,
    /// It cannot be an identity; whoever has its name stays.
    Refused(RefusedRow),
    /// It is no longer listed.
    Removed(Name),
}

/// A row that is new or differs.
#[derive(Debug)]
pub(super) struct WantedRow {
    pub(super) spec: Spec,
    pub(super) digest: Digest,
    pub(super) number: u64,
    pub(super) is_new: bool,
}

/// One way through both lists.
pub(super) struct Merge<'a> {
    store: &'a Store,
    source: SourceName,
    reading: &'a mut Reading,
    /// Whether a row may bring an id along that nobody here holds.
    adopts: bool,
    known: VecDeque<(Name, Digest)>,
    after: Option<Name>,
    known_ends: bool,
    row: Option<ListRead>,
    rows_end: bool,
    /// Steps that are ready.
    ready: VecDeque<MergeStep>,
}

impl<'a> Merge<'a> {
    pub(super) async fn new(
        store: &'a Store,
        source: &SourceName,
        reading: &'a mut Reading,
        adopts: bool,
    ) -> Result<Self, Trouble> {
        reading.begin().await?;
        Ok(Self {
            store,
            source: source.clone(),
            reading,
            adopts,
            known: VecDeque::new(),
            after: None,
            known_ends: false,
            row: None,
            rows_end: false,
            ready: VecDeque::new(),
        })
    }

    /// The next steps, at most so many; none at the end.
    pub(super) async fn next(&mut self) -> Result<VecDeque<MergeStep>, Trouble> {
        while self.ready.len() < BATCH {
            match self.compared().await? {
                Some(step) => self.ready.push_back(step),
                None => break,
            }
        }
        if !self.adopts {
            self.refuse_strangers().await?;
        }
        Ok(std::mem::take(&mut self.ready))
    }

    /// The next row of either list, against the other.
    async fn compared(&mut self) -> Result<Option<MergeStep>, Trouble> {
        if self.known.is_empty() && !self.known_ends {
            self.page().await?;
        }
        if self.row.is_none() && !self.rows_end {
            self.row = self.reading.next().await?;
            self.rows_end = self.row.is_none();
        }
        let order = match (self.known.front(), &self.row) {
            (None, None) => return Ok(None),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((name, _)), Some(row)) => name.cmp(&row.name),
        };
        let known = match order {
            Ordering::Greater => None,
            Ordering::Less | Ordering::Equal => self.known.pop_front(),
        };
        if order == Ordering::Less {
            return Ok(known.map(|(name, _)| MergeStep::Removed(name)));
        }
        let Some(row) = self.row.take() else {
            return Ok(None);
        };
        Ok(Some(match row.spec {
            Err(refused) => MergeStep::Refused(refused),
            Ok(spec) => {
                let digest = digest(&spec);
                match known {
                    Some((_, was)) if was == digest => MergeStep::Unchanged,
                    known => MergeStep::Wanted(WantedRow {
                        spec: *spec,
                        digest,
                        number: row.number,
                        is_new: known.is_none(),
                    }),
                }
            }
        }))
    }

    async fn page(&mut self) -> Result<(), Trouble> {
        let after = self.after.clone();
        let page = self.store.source_rows(&self.source, after, BATCH).await?;
        self.known_ends = page.len() < BATCH;
        self.after = page
            .last()
            .map(|(name, _)| name.clone())
            .or(self.after.take());
        self.known = page.into();
        Ok(())
    }

    /// Rows with an id that nobody here holds: tokens of that user would be minted on the list's word.
    async fn refuse_strangers(&mut self) -> Result<(), Trouble> {
        let ids: Vec<(Name, IdentityId)> = self
            .ready
            .iter()
            .filter_map(|step| match step {
                MergeStep::Wanted(WantedRow { spec, .. }) => {
                    Some((spec.name.clone(), spec.declared.id.clone()?))
                }
                _ => None,
            })
            .collect();
        if ids.is_empty() {
            return Ok(());
        }
        let strange = self.store.strange_ids(ids).await?;
        let strange: BTreeSet<Name> = strange.into_iter().collect();
        for step in &mut self.ready {
            if let MergeStep::Wanted(WantedRow { spec, number, .. }) = step
                && strange.contains(&spec.name)
            {
                let id = spec.declared.id.as_ref().map_or("", IdentityId::as_str);
                *step = MergeStep::Refused(RefusedRow {
                    number: *number,
                    name: Some(spec.name.clone()),
                    reason: format!(
                        "it brings the id {id} along, which renewd does not hold; a source may do that with \
                         `adopt_ids = true`"
                    ),
                });
            }
        }
        Ok(())
    }
}
