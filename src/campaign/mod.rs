//! Carries bulk operations out: revokes and deletes at ACS, withholds and releases, and sets rows due;
//! the tokens that follow are issued by the engine, the one issuer.
//!
//! A campaign is rows in the store. A [`Runner`] per resource pulls pending items in chunks, urgent
//! campaigns first, starts the calls that keys, health and pace allow, keeps those under way in memory, and
//! settles each with its step (`settlement`); after a crash an item under way is
//! simply pending again, so each is acknowledged at least once and reported exactly once.
//!
//! | action | what happens to a row |
//! |---|---|
//! | revoke, then reissue | ACS revokes; the row becomes due now, for the engine to re-issue |
//! | revoke, then hold | withheld, confirmed by its consumers (5 s at most), then ACS revokes |
//! | hold | withheld |
//! | release | waits for a token again |
//! | renew | becomes due now, for the engine to renew |
//! | delete | ACS deletes, then it is withheld for ever |

mod item;
mod settlement;

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
    item::{ItemDone, ItemFlight, ItemLine, ItemNeed, ItemTurn, NOBODY, RunItem, need},
    settlement::Following,
};
use crate::{
    acs::Client,
    clock::Clock,
    config::ResourceSettings,
    entra::BearerNews,
    model::{Num, Operation},
    outbox::Outbox,
    permits::{Permits, ResourceDeps},
    schedule::{
        Fold, Moment, Press, Remaining, SecondChance, Steady, Ticket, awaiting, is_yielding,
        share_beside,
    },
    store::{
        Campaign, CampaignAction, CampaignItem, CampaignState, Frozen, ItemNote, Store, StoreError,
    },
    telemetry::Metrics,
    worker::{self, Wake, Worker},
};

/// Why a runner ended although nobody stopped it, or could not end well.
#[derive(Debug, thiserror::Error)]
pub enum RunnerError {
    /// The store is gone.
    #[error("the store was closed under the campaigns of {0}")]
    StoreClosed(String),
    /// What was done could not be noted; it is done once more at the next start.
    #[error(
        "{count} results of campaigns at {resource} could not be noted before the end: {reason}"
    )]
    Unsettled {
        resource: String,
        count: usize,
        reason: String,
    },
}

/// The loop of one resource.
#[derive(Debug)]
pub struct Runner {
    settings: ResourceSettings,
    client: Arc<Client>,
    permits: Permits,
    store: Store,
    clock: Clock,
    metrics: Metrics,
    rng: ChaCha8Rng,
    /// Items that wait for a call only.
    lines: [ItemLine; 2],
    tasks: JoinSet<ItemDone>,
    flights: BTreeMap<Id, ItemFlight>,
    /// Harmless calls that are on their way.
    trials: BTreeMap<Id, (Operation, Ticket)>,
    /// How often items were not answered although others were.
    unanswered: BTreeMap<Num, u32>,
    /// Rows under way or not settled yet.
    busy: BTreeSet<Num>,
    /// What was done and is not noted yet.
    outbox: Outbox<ItemNote, ()>,
    following: Following,
    /// What is told of orders that failed for good.
    failures: Fold,
    /// Items that failed for good while others failed as well.
    second_chance: SecondChance,
    /// Whether it is known which of those an earlier process left.
    remembers: bool,
    /// When items may be pending that are not under way.
    look_at: Option<Timestamp>,
    campaigns: watch::Receiver<u64>,
    bearer_news: BearerNews,
    decided: watch::Sender<Option<Timestamp>>,
}

/// What happens to a runner.
#[derive(Debug)]
pub(crate) enum RunnerEvent {
    /// What was done for an item has ended.
    Ended(Result<(Id, ItemDone), JoinError>),
    /// Campaigns may have changed.
    Changed,
    /// There is another bearer, or none.
    Bearer,
}

impl Worker for Runner {
    type Event = RunnerEvent;
    type Error = RunnerError;

    fn clock(&self) -> &Clock {
        &self.clock
    }

    async fn round(&mut self, _stop: &CancellationToken) -> Result<Timestamp, RunnerError> {
        if let Err(error) = self.settle_and_start().await {
            self.outbox.failed(&error, self.clock.steady());
            // What was not looked at is looked at once the store works.
            self.look_by(ahead(self.clock.now(), YIELD));
            self.following.look_by(self.clock.steady());
        }
        self.decided.send_replace(Some(self.clock.now()));
        Ok(self.wake())
    }

    async fn next(&mut self, ending: bool) -> Result<RunnerEvent, RunnerError> {
        tokio::select! {
            biased;
            Some(joined) = self.tasks.join_next_with_id() => Ok(RunnerEvent::Ended(joined)),
            changed = self.campaigns.changed(), if !ending => match changed {
                Ok(()) => Ok(RunnerEvent::Changed),
                Err(_) => Err(RunnerError::StoreClosed(self.settings.name.to_string())),
            },
            () = self.bearer_news.heard(), if !ending => Ok(RunnerEvent::Bearer),
            else => std::future::pending().await,
        }
    }

    async fn take(&mut self, event: RunnerEvent) {
        match event {
            RunnerEvent::Ended(joined) => {
                self.on_task(joined);
                while let Some(joined) = self.tasks.try_join_next_with_id() {
                    self.on_task(joined);
                }
            }
            RunnerEvent::Changed => {
                self.look_at = Some(Timestamp::MIN);
                self.following.look_again();
            }
            // The next round sees it.
            RunnerEvent::Bearer => {}
        }
    }

    async fn settle(&mut self, first: bool) -> bool {
        if first {
            self.outbox.try_all();
        }
        self.note_all().await;
        self.flights.values().all(|flight| flight.call.is_none()) && self.outbox.is_idle()
    }

    async fn end(&mut self) -> Result<(), RunnerError> {
        let is_result = |note: &&ItemNote| matches!(note, ItemNote::Ended(_));
        match self.outbox.all().filter(is_result).count() {
            0 => Ok(()),
            count => Err(RunnerError::Unsettled {
                resource: self.settings.name.to_string(),
                count,
                reason: self.outbox.reason().to_owned(),
            }),
        }
    }
}

impl Runner {
    /// A runner that has not begun.
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
            lines: [
                ItemLine::new(Operation::Revoke),
                ItemLine::new(Operation::Delete),
            ],
            tasks: JoinSet::new(),
            flights: BTreeMap::new(),
            trials: BTreeMap::new(),
            unanswered: BTreeMap::new(),
            busy: BTreeSet::new(),
            outbox: Outbox::new("campaigns wait until the store works"),
            following: Following::default(),
            failures: Fold::default(),
            second_chance: SecondChance::default(),
            remembers: false,
            look_at: Some(Timestamp::MIN),
            campaigns: store.campaign_signal(),
            bearer_news: client.bearer_news(),
            decided: watch::Sender::default(),
            settings,
            client,
            permits,
            store,
            clock,
            metrics,
        }
    }

    /// When the runner last made or reaffirmed its decision.
    pub fn decided(&self) -> watch::Receiver<Option<Timestamp>> {
        self.decided.subscribe()
    }

    /// Runs until `stop`; then waits a little for calls in flight and settles what they brought.
    ///
    /// # Errors
    /// When the store is gone, or results could not be noted at the end.
    pub async fn run(self, stop: CancellationToken) -> Result<(), RunnerError> {
        worker::run(self, stop).await
    }

    async fn settle_and_start(&mut self) -> Result<(), StoreError> {
        self.note_all().await;
        if !self.outbox.is_open() {
            return Ok(());
        }
        self.permits.note_holds().await?;
        self.remember().await?;
        self.take_items().await?;
        self.follow().await?;
        self.look_back().await?;
        self.store.has_written_withdrawals()?;
        self.start_calls().await?;
        // What needed no call is settled without waiting for another round.
        self.note_all().await;
        Ok(())
    }

    fn wake(&mut self) -> Timestamp {
        let now = self.moment();
        let mut wake = Wake::new(now);
        wake.by(self.outbox.wakes_at());
        if self.outbox.is_open() {
            wake.by_wall(self.look_at);
            wake.by(self.next_call(now.steady));
            wake.by(self.following.next());
            wake.by(self.failures.ends_at());
            wake.by(self.second_chance.wakes_at());
        }
        wake.at()
    }

    /// What waits for an operation.
    fn line(&mut self, operation: Operation) -> &mut ItemLine {
        let [revoke, delete] = &mut self.lines;
        match operation {
            Operation::Delete => delete,
            _ => revoke,
        }
    }

    fn moment(&self) -> Moment {
        Moment {
            wall: self.clock.now(),
            steady: self.clock.steady(),
        }
    }
}

/// Rows looked at in one transaction while a selection is frozen.
const CHUNK: usize = 1000;
/// A campaign that yields to renewals looks again after this.
const YIELD: Duration = Duration::from_millis(250);

fn ahead(now: Timestamp, by: Duration) -> Timestamp {
    now.checked_add(by).unwrap_or(now)
}

impl Runner {
    /// How many items are under way at once: some rounds' worth of calls.
    fn most(&self) -> usize {
        (4 * self.settings.max_in_flight).max(128)
    }

    /// Takes pending items of the oldest campaigns into hand, a chunk at a time; urgent ones first.
    async fn take_items(&mut self) -> Result<(), StoreError> {
        let now = self.clock.now();
        if self.look_at.is_none_or(|at| at > now) {
            return Ok(());
        }
        self.look_at = None;
        let open = self.store.open_campaigns().await?;
        self.let_go_of_stopped(&open);
        let waiting = self.waiting_renewals(&open, now).await?;
        for campaign in open {
            match campaign.state {
                CampaignState::Running => self.take_of(campaign, waiting, now).await?,
                CampaignState::Expanding => {
                    match self.store.expand(campaign.id, CHUNK, now).await? {
                        Frozen::More | Frozen::Whole => self.look_by(now),
                        Frozen::Brought(ends) => self.look_by(ends),
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    async fn take_of(
        &mut self,
        campaign: Campaign,
        waiting: usize,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let campaign = Arc::new(campaign);
        // Those that failed before have a hand of their own: neither part keeps the other out.
        let (failing, fresh) = self.in_hand(&campaign);
        let room = (self.most() / 2).saturating_sub(failing);
        self.take_some(&campaign, true, room, now).await?;
        let under_way = self.lines.iter().map(ItemLine::len).sum::<usize>() + self.flights.len();
        let may = self.room_for(&campaign, waiting, under_way).await?;
        if may == 0 {
            self.look_by(ahead(now, YIELD));
        }
        let room = self.most().saturating_sub(fresh).min(may);
        self.take_some(&campaign, false, room, now).await
    }

    async fn take_some(
        &mut self,
        campaign: &Arc<Campaign>,
        failing: bool,
        room: usize,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        if room == 0 {
            // Whatever ends makes room, and is followed by a look.
            return Ok(());
        }
        let (name, skip) = (&self.settings.name, &self.busy);
        let found = self
            .store
            .campaign_items(campaign.id, name, failing, room, skip);
        let items = found.await?;
        let is_due = |last: &CampaignItem| last.next_at <= now;
        if items.len() == room && items.last().is_some_and(is_due) {
            self.look_by(now);
        }
        for item in items {
            if item.next_at > now {
                self.look_by(item.next_at);
                break;
            }
            self.busy.insert(item.num);
            let unanswered = self.unanswered.get(&item.num).copied().unwrap_or(0);
            self.take(RunItem::new(campaign.clone(), item, unanswered));
        }
        Ok(())
    }

    /// How many items are in hand that compete with those of a campaign: those that failed before, and
    /// the others. What waits for another operation does not.
    fn in_hand(&self, campaign: &Campaign) -> (usize, usize) {
        let [revoke, delete] = &self.lines;
        let (own, other) = match campaign.action {
            CampaignAction::Delete => (delete, revoke),
            _ => (revoke, delete),
        };
        let calls = |operation| {
            let flights = self.flights.values();
            flights
                .filter(|flight| flight.call.as_ref().map(|call| call.0) == Some(operation))
                .count()
        };
        let others = other.len() + calls(other.operation);
        let all = self.busy.len().saturating_sub(others);
        (own.failing(), all.saturating_sub(own.failing()))
    }

    /// How many more items of a campaign may be begun: as many as tokens can follow. Those of identities
    /// that fail by themselves are not waited for.
    async fn room_for(
        &mut self,
        campaign: &Campaign,
        waiting: usize,
        under_way: usize,
    ) -> Result<usize, StoreError> {
        if campaign.urgent || !campaign.reissues() {
            return Ok(usize::MAX);
        }
        let awaited = usize::try_from(campaign.acknowledged).unwrap_or(usize::MAX);
        let name = &self.settings.name;
        let stuck = match awaited {
            0 => 0,
            _ => self.store.awaiting_failing(campaign.id, name).await?,
        };
        let limit = self.settings.limits.issue;
        let yields = is_yielding(waiting, self.settings.max_in_flight);
        let begun = awaited.saturating_sub(stuck).saturating_add(under_way);
        Ok(awaiting(limit, yields).saturating_sub(begun))
    }

    /// How many renewals wait beside campaigns that are to yield to them; sets their pace by it.
    async fn waiting_renewals(
        &mut self,
        open: &[Campaign],
        now: Timestamp,
    ) -> Result<usize, StoreError> {
        let yields = |one: &Campaign| one.reissues() && one.pending > 0;
        let mut running = open
            .iter()
            .filter(|one| one.state == CampaignState::Running && one.pending > 0);
        if !running.clone().any(yields) {
            self.permits.gate().pace(Operation::Revoke).cap(1.0);
            return Ok(0);
        }
        let most = 4 * self.settings.max_in_flight;
        let name = &self.settings.name;
        let waiting = self.store.waiting_renewals(name, most, now).await?;
        let limits = &self.settings.limits;
        // One that need not yield takes what it can.
        let free = running.any(|one| one.urgent || !one.reissues());
        let share = match is_yielding(waiting, self.settings.max_in_flight) && !free {
            true => share_beside(limits.issue, limits.revoke),
            false => 1.0,
        };
        self.permits.gate().pace(Operation::Revoke).cap(share);
        Ok(waiting)
    }

    /// Forgets items in hand of campaigns that were paused or cancelled, before they are begun.
    fn let_go_of_stopped(&mut self, open: &[Campaign]) {
        let runs = |id| {
            open.iter()
                .any(|one| one.id == id && one.state == CampaignState::Running)
        };
        for line in &mut self.lines {
            for num in line.let_go(runs) {
                self.busy.remove(&num);
            }
        }
    }

    /// Looks for items at this time at the latest.
    fn look_by(&mut self, at: Timestamp) {
        self.look_at = Some(self.look_at.map_or(at, |look| look.min(at)));
    }

    fn take(&mut self, item: RunItem) {
        let now = self.clock.now();
        match need(&item) {
            ItemNeed::Step(step) => {
                let verdict = item::stepped(&item, step, now);
                self.note(&item, verdict);
            }
            ItemNeed::Refusal(why) => {
                let verdict = item::refused(&item, why, now);
                self.note(&item, verdict);
            }
            ItemNeed::Withhold => {
                let work = item::withhold(self.store.clone(), self.clock.clone(), item.clone());
                let task = self.tasks.spawn(work);
                self.flights
                    .insert(task.id(), ItemFlight { item, call: None });
            }
            ItemNeed::Call(operation) => self.line(operation).push(item),
        }
    }

    /// Starts calls, as many as keys, health and pace allow.
    async fn start_calls(&mut self) -> Result<(), StoreError> {
        for operation in [Operation::Revoke, Operation::Delete] {
            while self.may_call(operation) {
                let turn = {
                    let (permits, now) = (self.permits.clone(), self.clock.steady());
                    let gate = permits.gate();
                    self.line(operation).next(&gate, now)
                };
                let Some(turn) = turn else { break };
                if !self.start(operation, turn).await? {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Whether one more call may start, pace aside.
    fn may_call(&mut self, operation: Operation) -> bool {
        let steady = self.clock.steady();
        self.line(operation).len() > 0
            && self.calls_in_flight() < self.settings.max_in_flight
            && self
                .permits
                .gate()
                .room(operation, Remaining::Never, steady)
                > 0
    }

    /// Takes the permit of a call and starts it; false where the pace allows none.
    async fn start(&mut self, operation: Operation, turn: ItemTurn) -> Result<bool, StoreError> {
        let who = match &turn {
            ItemTurn::Of(item) => item.item.num,
            ItemTurn::Nobody => NOBODY,
        };
        let waiting = self.line(operation).len() + 1;
        let permit = self
            .permits
            .take(operation, who, Press::Ordinary, waiting)
            .await;
        match (permit, turn) {
            (Ok(Some(ticket)), turn) => {
                self.launch(ticket, operation, turn);
                Ok(true)
            }
            (other, turn) => {
                match turn {
                    ItemTurn::Of(item) => self.line(operation).give_back(*item),
                    ItemTurn::Nobody => self.line(operation).tried_out(),
                }
                other.map(|_| false)
            }
        }
    }

    fn launch(&mut self, ticket: Ticket, operation: Operation, turn: ItemTurn) {
        let (client, clock) = (self.client.clone(), self.clock.clone());
        let ItemTurn::Of(item) = turn else {
            let task = self.tasks.spawn(item::try_out(client, clock, operation));
            self.trials.insert(task.id(), (operation, ticket));
            return;
        };
        let Some(id) = item.item.id.clone() else {
            // Only items with an id need a call.
            let steady = self.clock.steady();
            self.permits.gate().abandoned(ticket, 0, steady);
            return;
        };
        let called = ItemNote::Called(item.campaign.id, item.item.num);
        let task = match self.store.epoch() {
            None => {
                let task = self.tasks.spawn(item::call(client, clock, operation, id));
                self.outbox.add(called);
                task
            }
            // Whoever leads next has to know of it before it is made.
            Some(_) => {
                let noted = (self.store.clone(), self.settings.name.clone(), called);
                let call = item::call_noted(noted, client, clock, (operation, id));
                self.tasks.spawn(call)
            }
        };
        let call = Some((operation, ticket));
        self.flights
            .insert(task.id(), ItemFlight { item: *item, call });
    }

    fn calls_in_flight(&self) -> usize {
        let calls = self.flights.values();
        calls.filter(|flight| flight.call.is_some()).count() + self.trials.len()
    }

    /// When a call may start that could not now.
    fn next_call(&mut self, steady: Steady) -> Option<Steady> {
        if self.calls_in_flight() >= self.settings.max_in_flight {
            return None;
        }
        let waiting = self.lines.iter().filter(|line| line.len() > 0);
        if !self.client.may_call() {
            return waiting.map(|_| steady + YIELD).next();
        }
        let mut gate = self.permits.gate();
        waiting
            .filter_map(|line| {
                let urgency = (Press::Ordinary, Remaining::Never);
                gate.opens_at(line.operation, line.len(), urgency, steady)
            })
            .min()
    }
}
