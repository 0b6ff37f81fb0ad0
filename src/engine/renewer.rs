//! One resource's renewer: the loop that turns due rows into committed tokens.
//!
//! Each time round it starts what may start (`calls`), says what it knows (`notices`), publishes a view and
//! sleeps until the next thing can happen. What calls brought is judged (`outcome`) and committed in
//! batches (`Outbox`). While results cannot be committed, nothing more is obtained.

mod bearers;
mod calls;
mod doubts;
mod notices;
mod outcome;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use tokio::{
    sync::watch,
    task::{Id, JoinError, JoinSet},
};
use tokio_util::sync::CancellationToken;

use self::{
    calls::{CallDone, Flight, Line, Queue, Queues, Scan},
    doubts::{Doubts, ProofAnswer},
    notices::{Failing, LateWatch},
};
use crate::{
    acs::Client,
    clock::Clock,
    config::{CreatePolicy, ResourceSettings},
    entra::{BearerNews, Bearers},
    model::{Applied, BearerCause, Change, Headroom, NoticeKind, Num, Operation, RenewerView},
    outbox::{Outbox, Written},
    permits::{Permits, ResourceDeps},
    schedule::{Load, Moment, Outage, Press, Repeat, Steady, is_refused_again, press, presses_at},
    store::{Decided, Posting, Store, StoreError},
    telemetry::Metrics,
    worker::{self, Wake, Worker},
};

/// How many renewals each minute holds is read so often.
const LOAD_READ_EVERY: Duration = Duration::from_hours(1);

/// Why a renewer ended although nobody stopped it, or could not end well.
#[derive(Debug, thiserror::Error)]
pub enum RenewerError {
    /// The store is gone.
    #[error("the store was closed under the renewer of {0}")]
    StoreClosed(String),
    /// Results could not be committed before the end.
    #[error("{count} results of {resource} could not be committed before the end: {reason}")]
    Uncommitted {
        resource: String,
        count: usize,
        reason: String,
    },
}

/// The loop of one resource.
#[derive(Debug)]
pub struct Renewer {
    settings: ResourceSettings,
    client: Arc<Client>,
    permits: Permits,
    store: Store,
    clock: Clock,
    metrics: Metrics,
    rng: ChaCha8Rng,
    issue: Queues,
    create: Queues,
    doubts: Doubts,
    outage: Outage,
    key_outage: Outage,
    bearer_outage: Outage,
    bearer_refusal: Outage,
    /// Why the last refusal that was told was one.
    bearer_cause: Option<BearerCause>,
    bearer_news: BearerNews,
    /// How often the outage was told again: when the first token ended, when all had. Unknown after a
    /// start.
    told_again: Option<u32>,
    /// When it was last looked whether tokens ended.
    looked_for_ended: Steady,
    /// When the last announced outage ended.
    recovered: Option<Moment>,
    /// What the log said of an outage that goes on, and of failed connections.
    said: Repeat,
    said_unconnected: Repeat,
    /// The service answers again: what failed meanwhile and is due after this is to be hastened.
    hastening: Option<Timestamp>,
    /// Others succeed again: what was refused while nobody did is to be tried again, too.
    hastening_refused: bool,
    creation_refused: Option<String>,
    creation_refusal_told: bool,
    /// When it is looked next whether anybody waits for a creation that was refused.
    creation_waits_at: Steady,
    late: LateWatch,
    failing: Failing,
    scan: Scan,
    /// How many renewals each minute ahead holds, and when that is read anew.
    load: Load,
    load_read_at: Steady,
    /// Results that are not committed, and what is told of them.
    outbox: Outbox<Posting, Option<Applied>>,
    calls: JoinSet<CallDone>,
    flights: BTreeMap<Id, Flight>,
    /// Rows in flight or not committed yet.
    busy: BTreeSet<Num>,
    /// Those of them that were when something became due last: whether it was one of them shows once it is not busy.
    busy_then: BTreeSet<Num>,
    /// Rows that are left alone for a while, because the store refused what became of them.
    resting: BTreeMap<Num, Steady>,
    /// Whether it is known what an earlier process announced.
    restored: bool,
    /// Another machine leads by now, so that nothing is committed any more.
    is_deposed: bool,
    due: watch::Receiver<u64>,
    results: BTreeMap<String, u64>,
    /// When a token was last obtained.
    last_success: Option<Timestamp>,
    view: watch::Sender<RenewerView>,
}

/// What happens to a renewer.
#[derive(Debug)]
pub(crate) enum RenewerEvent {
    /// Results were committed, or could not be.
    Committed(Written<Option<Applied>>),
    /// A call has ended.
    Called(Result<(Id, CallDone), JoinError>),
    /// The answer of a harmless call.
    Proved(Result<ProofAnswer, JoinError>),
    /// Rows may have become due.
    Due,
    /// There is another bearer, or none.
    Bearer,
}

impl Worker for Renewer {
    type Event = RenewerEvent;
    type Error = RenewerError;

    fn clock(&self) -> &Clock {
        &self.clock
    }

    async fn round(&mut self, _stop: &CancellationToken) -> Result<Timestamp, RenewerError> {
        if let Some(bearers) = self.client.bearers() {
            bearers.tend();
        }
        if let Err(error) = self.start_what_may().await {
            self.outbox.failed(&error, self.moment().steady);
        }
        self.tell().await;
        self.begin_write();
        self.publish();
        Ok(self.wake())
    }

    async fn next(&mut self, ending: bool) -> Result<RenewerEvent, RenewerError> {
        tokio::select! {
            biased;
            written = self.outbox.ended() => Ok(RenewerEvent::Committed(written)),
            Some(joined) = self.calls.join_next_with_id() => Ok(RenewerEvent::Called(joined)),
            asked = self.doubts.answered(), if !ending => Ok(RenewerEvent::Proved(asked)),
            changed = self.due.changed(), if !ending => match changed {
                Ok(()) => Ok(RenewerEvent::Due),
                Err(_) => Err(RenewerError::StoreClosed(self.name())),
            },
            () = self.bearer_news.heard(), if !ending => Ok(RenewerEvent::Bearer),
        }
    }

    async fn take(&mut self, event: RenewerEvent) {
        match event {
            RenewerEvent::Committed(written) => self.on_commit(written),
            RenewerEvent::Called(joined) => {
                self.on_call(joined);
                while let Some(joined) = self.calls.try_join_next_with_id() {
                    self.on_call(joined);
                }
            }
            RenewerEvent::Proved(asked) => self.on_proof(asked),
            RenewerEvent::Due => {
                self.busy_then.clone_from(&self.busy);
                self.look_again();
            }
            // The next round sees it.
            RenewerEvent::Bearer => {}
        }
    }

    async fn settle(&mut self, first: bool) -> bool {
        if first {
            self.outbox.try_all();
        }
        if self.is_deposed {
            // Nothing of it is taken any more.
            return self.calls.is_empty();
        }
        self.begin_write();
        self.calls.is_empty() && self.outbox.is_idle()
    }

    async fn end(&mut self) -> Result<(), RenewerError> {
        self.last_word().await
    }
}

impl Renewer {
    /// A renewer that has not begun.
    pub fn new(deps: ResourceDeps) -> Self {
        let ResourceDeps {
            settings,
            client,
            permits,
            store,
            clock,
            metrics,
            seed,
        } = deps;
        Self {
            rng: ChaCha8Rng::seed_from_u64(seed),
            issue: Queues::new(settings.limits.issue),
            create: Queues::new(settings.limits.create_with_token),
            doubts: Doubts::default(),
            outage: Outage::default(),
            key_outage: Outage::default(),
            bearer_outage: Outage::default(),
            bearer_refusal: Outage::default(),
            bearer_cause: None,
            bearer_news: client.bearer_news(),
            told_again: None,
            looked_for_ended: Steady::ZERO,
            recovered: None,
            said: Repeat::default(),
            said_unconnected: Repeat::default(),
            hastening: None,
            hastening_refused: false,
            creation_refused: (settings.create == CreatePolicy::Never)
                .then(|| notices::CREATE_NEVER.to_owned()),
            creation_refusal_told: false,
            creation_waits_at: Steady::ZERO,
            late: LateWatch::default(),
            failing: Failing::default(),
            scan: Scan::new(&clock),
            load: Load::default(),
            load_read_at: Steady::ZERO,
            outbox: Outbox::new("nothing is obtained until the store works"),
            calls: JoinSet::new(),
            flights: BTreeMap::new(),
            busy: BTreeSet::new(),
            busy_then: BTreeSet::new(),
            resting: BTreeMap::new(),
            restored: false,
            is_deposed: false,
            due: store.due_signal(),
            results: BTreeMap::new(),
            last_success: None,
            view: watch::Sender::default(),
            settings,
            client,
            permits,
            store,
            clock,
            metrics,
        }
    }

    /// What the renewer publishes, each time round.
    pub fn view(&self) -> watch::Receiver<RenewerView> {
        self.view.subscribe()
    }

    /// Runs until `stop`; then waits a little for calls in flight and commits what they brought.
    ///
    /// # Errors
    /// When the store is gone, or results could not be committed at the end.
    pub async fn run(self, stop: CancellationToken) -> Result<(), RenewerError> {
        worker::run(self, stop).await
    }

    async fn start_what_may(&mut self) -> Result<(), StoreError> {
        self.release_rested();
        if !self.outbox.is_open() {
            return Ok(());
        }
        if !self.restored {
            self.restore().await?;
        }
        self.permits.note_holds().await?;
        self.mend_due_times().await?;
        self.read_load().await?;
        self.hasten_failed().await?;
        self.start_queue(Operation::Issue).await?;
        self.review_refused_creation().await?;
        self.start_queue(Operation::CreateWithToken).await?;
        self.look_for_late().await
    }

    /// Takes over the outage that an earlier process announced.
    async fn restore(&mut self) -> Result<(), StoreError> {
        let now = self.moment();
        match self.store.announced_trouble(&self.settings.name).await? {
            Some(NoticeKind::ResourceUnreachable) => self.outage = Outage::inherited(now.steady),
            Some(NoticeKind::KeyRejected) => self.key_outage = Outage::inherited(now.steady),
            _ => {}
        }
        let told = self.store.open_notices().await?;
        self.restore_bearer_outages(&told, now);
        let is_told = |word: &str| told.contains_key(&format!("{word} {}", self.settings.name));
        self.late.many_told = is_told(notices::LATE);
        self.failing.many_told = is_told(notices::FAILING);
        self.creation_refusal_told = is_told(notices::CREATE);
        if is_told(notices::STORE) {
            self.outbox.inherit_trouble();
        }
        self.restored = true;
        Ok(())
    }

    /// Counts anew what is due in each minute, in case much was renewed before its time.
    async fn read_load(&mut self) -> Result<(), StoreError> {
        let now = self.moment();
        if now.steady < self.load_read_at {
            return Ok(());
        }
        let minutes = self
            .store
            .renewals_by_minute(&self.settings.name, now.wall)
            .await?;
        self.load = Load::counted(minutes);
        self.load_read_at = now.steady + LOAD_READ_EVERY;
        Ok(())
    }

    /// What could not be committed by the end is said. Where other machines share the store, one of which may lead by
    /// now, it is noted as what a former leader obtained; ids that the database refuses are kept in `identities.jsonl`.
    async fn last_word(&mut self) -> Result<(), RenewerError> {
        let decided = |posting: &Posting| match posting {
            Posting::Decided(Decided { change, .. }) => Some(change.clone()),
            Posting::Notice(_) | Posting::Audit(_) => None,
        };
        let left: Vec<Change> = self.outbox.all().filter_map(decided).collect();
        if self.store.epoch().is_some() && !left.is_empty() {
            let now = self.clock.now();
            match self.store.plain().disown(left.clone(), now).await {
                Ok(()) => {
                    let is_token = |change: &&Change| matches!(change, Change::Issued { .. });
                    let tokens = left.iter().filter(is_token).count();
                    if tokens > 0 {
                        tracing::warn!(
                            resource = %self.settings.name, tokens,
                            "another node leads by now: what came meanwhile is listed by `renewd orphan list`"
                        );
                    }
                    return Ok(());
                }
                Err(error) => {
                    tracing::error!(resource = %self.settings.name, %error, "what was obtained could not be noted");
                }
            }
        }
        let ids = left.iter().filter_map(|change| match change {
            Change::Adopted { num, id, .. }
            | Change::Issued {
                num, id: Some(id), ..
            } => Some((*num, id.clone())),
            _ => None,
        });
        let ids: Vec<_> = ids.collect();
        if !ids.is_empty()
            && let Err(error) = self.store.plain().keep_ids(ids).await
        {
            tracing::error!(resource = %self.settings.name, %error, "ids of new identities could not be kept");
        }
        if left.is_empty() {
            return Ok(());
        }
        Err(RenewerError::Uncommitted {
            resource: self.name(),
            count: left.len(),
            reason: self.outbox.reason().to_owned(),
        })
    }

    fn moment(&self) -> Moment {
        Moment {
            wall: self.clock.now(),
            steady: self.clock.steady(),
        }
    }

    fn begin_write(&mut self) {
        let now = self.moment();
        let store = self.store.clone();
        self.outbox.begin(now.steady, |postings| {
            Box::pin(async move { store.post(postings, now.wall).await })
        });
    }

    fn name(&self) -> String {
        self.settings.name.to_string()
    }

    fn queues(&mut self, operation: Operation) -> &mut Queues {
        match operation {
            Operation::CreateWithToken => &mut self.create,
            _ => &mut self.issue,
        }
    }

    fn queue(&mut self, line: Line) -> &mut Queue {
        self.queues(line.operation).line_mut(line)
    }

    fn queue_of(&self, line: Line) -> &Queue {
        match line.operation {
            Operation::CreateWithToken => self.create.line(line),
            _ => self.issue.line(line),
        }
    }

    fn lines(&mut self) -> impl Iterator<Item = &mut Queue> {
        self.issue.both().into_iter().chain(self.create.both())
    }

    /// Rows may have become due.
    fn look_again(&mut self) {
        self.lines().for_each(Queue::look_again);
    }
}

/// While a question is open, whether others wait beside it is looked at so often.
const LOOK_BESIDE: std::time::Duration = std::time::Duration::from_secs(1);

/// What a renewer calls.
const OPERATIONS: [Operation; 2] = [Operation::Issue, Operation::CreateWithToken];

/// What campaigns call; the gate knows how those are, too.
const CAMPAIGNS: [Operation; 2] = [Operation::Revoke, Operation::Delete];

impl Renewer {
    /// Publishes what the renewer knows.
    fn publish(&mut self) {
        let now = self.moment();
        let mut view = RenewerView {
            decided_at: Some(now.wall),
            in_flight: self.calls.len(),
            next_due: self
                .lines()
                .filter_map(|line| line.next_due(now.wall))
                .min(),
            skew_ms: self
                .client
                .measured_skew()
                .map(|skew| skew.as_millis() as i64),
            doubted: self.client.doubted_keys(),
            bearer: self.client.bearer_view(),
            blocked: self.outbox.trouble().map(str::to_owned),
            creation_refused: self.creation_refused.clone(),
            last_success: self.last_success,
            peer_ends: self.client.peer_ends(),
            calls: self.results.clone(),
            headroom: OPERATIONS
                .map(|operation| {
                    let headroom = Headroom {
                        full_of_failing: self.is_full_of_failing(),
                        ..self.headroom(Line::main(operation))
                    };
                    (operation, headroom)
                })
                .into(),
            ..RenewerView::default()
        };
        {
            let mut gate = self.permits.gate();
            for operation in OPERATIONS.into_iter().chain(CAMPAIGNS) {
                let name = operation.as_str().to_owned();
                let pace = gate.pace(operation).view(now.steady);
                view.pace.insert(name.clone(), pace);
                view.contention = view.contention.or(gate.contention(operation, now));
                view.health.insert(name, gate.view(operation, now));
            }
        }
        self.view.send_replace(view);
    }

    /// When to decide again at the latest.
    fn wake(&mut self) -> Timestamp {
        let now = self.moment();
        let mut wake = Wake::new(now);
        wake.by(self.late.fold.ends_at());
        wake.by(self.failing.ends_at());
        wake.by(self.resting.values().min().copied());
        wake.by(self.outbox.wakes_at());
        wake.by(self.client.bearers().and_then(Bearers::due_at));
        if self.outbox.is_open() {
            wake.by(Some(self.doubts.rest).filter(|rest| *rest > now.steady));
            wake.by(self.may_scan().then_some(now.steady));
            for operation in OPERATIONS {
                wake.by(self.queue_wake(Line::main(operation), now));
                wake.by(self.queue_wake(Line::alone(operation), now));
            }
        }
        wake.at()
    }

    /// When something of this operation may start that could not now; `None` while only an ended
    /// call can make room.
    fn queue_wake(&mut self, line: Line, now: Moment) -> Option<Steady> {
        let operation = line.operation;
        if operation == Operation::CreateWithToken && self.creation_refused.is_some() {
            return None;
        }
        // Behind those that may not start yet nobody looks who else is due.
        if line.alone && !self.queue_of(Line::main(operation)).ready.is_empty() {
            return None;
        }
        let Some(head) = self.queue_of(line).ready.front() else {
            let look_at = self.queue_of(line).look_at?;
            let wait =
                std::time::Duration::try_from(look_at.duration_since(now.wall)).unwrap_or_default();
            return Some(now.steady + wait);
        };
        if self.room() == 0 || line.alone && self.is_full_of_failing() {
            return None;
        }
        let is_in_doubt = self.doubts.is_asking() || !line.alone && now.steady < self.doubts.rest;
        if is_in_doubt || !self.client.may_call() {
            return Some(now.steady + LOOK_BESIDE);
        }
        if now.steady < self.doubts.refusal_rest && !line.alone && is_refused_again(head) {
            return Some(self.doubts.refusal_rest);
        }
        let grounds = self.grounds();
        let (remaining, press) = (self.remaining(head, now), press(head, &grounds, now.wall));
        let waiting = self.queue_of(line).ready.len();
        let mut gate = self.permits.gate();
        if gate.without_bearer().is_some() {
            // What happens to the bearer wakes it.
            return None;
        }
        let opens = gate.opens_at(operation, waiting, (press, remaining), now.steady);
        let is_open = opens.is_some_and(|at| at <= now.steady);
        if is_open || press != Press::Ordinary || gate.is_probing(operation) {
            return opens;
        }
        // One that waits for a lowered pace need not, once it presses.
        let late = self.queue_of(line).ready.iter();
        let late = late
            .filter_map(|row| presses_at(row, &grounds, now.wall))
            .min();
        let late = late.map(|at| {
            let wait = at.duration_since(now.wall);
            now.steady + std::time::Duration::try_from(wait).unwrap_or_default()
        });
        opens.into_iter().chain(late).min()
    }
}

impl Queue {
    fn next_due(&self, now: Timestamp) -> Option<Timestamp> {
        match self.ready.front() {
            Some(record) => self
                .earliest
                .into_iter()
                .chain(record.due.map(|due| due.at))
                .min(),
            None => self.look_at.map(|at| at.max(now)),
        }
    }
}
