//! One resource's runner: the loop that carries campaigns out.

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
    task::{Id, JoinSet},
};
use tokio_util::sync::CancellationToken;

use super::{
    act::{Done, Flight},
    following::Following,
    line::Line,
};
use crate::{
    acs::Client,
    clock::Clock,
    config::ResourceSettings,
    model::{Num, Operation},
    outbox::Outbox,
    permits::Permits,
    schedule::{Fold, Moment, SecondChance, Steady, Ticket},
    store::{ItemNote, Store, StoreError},
    telemetry::Metrics,
};

/// A runner reaffirms its decision at least this often.
const LONGEST_REST: Duration = Duration::from_secs(15);
/// A round that found nothing to start is not repeated sooner than this.
const SHORTEST_REST: Duration = Duration::from_millis(20);
/// At stop, calls in flight and unsettled items get so long.
const GRACE: Duration = Duration::from_secs(8);

/// What a runner works with.
#[derive(Debug)]
pub struct RunnerDeps {
    /// The resource.
    pub settings: ResourceSettings,
    /// Its client.
    pub client: Arc<Client>,
    /// What lets its calls start.
    pub permits: Permits,
    /// The store.
    pub store: Store,
    /// The clock.
    pub clock: Clock,
    /// Where calls are counted.
    pub metrics: Metrics,
    /// Where chance starts: the same seed, the same run.
    pub seed: u64,
}

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
        /// The resource.
        resource: String,
        /// How many.
        count: usize,
        /// Why.
        reason: String,
    },
}

/// The loop of one resource.
#[derive(Debug)]
pub struct Runner {
    pub(super) settings: ResourceSettings,
    pub(super) client: Arc<Client>,
    pub(super) permits: Permits,
    pub(super) store: Store,
    pub(super) clock: Clock,
    pub(super) metrics: Metrics,
    pub(super) rng: ChaCha8Rng,
    /// Items that wait for a call only.
    pub(super) lines: [Line; 2],
    pub(super) tasks: JoinSet<Done>,
    pub(super) flights: BTreeMap<Id, Flight>,
    /// Harmless calls that are on their way.
    pub(super) trials: BTreeMap<Id, (Operation, Ticket)>,
    /// How often items were not answered although others were.
    pub(super) unanswered: BTreeMap<Num, u32>,
    /// Rows under way or not settled yet.
    pub(super) busy: BTreeSet<Num>,
    /// What was done and is not noted yet.
    pub(super) outbox: Outbox<ItemNote, ()>,
    pub(super) following: Following,
    /// What is told of orders that failed for good.
    pub(super) failures: Fold,
    /// Items that failed for good while others failed as well.
    pub(super) second_chance: SecondChance,
    /// When items may be pending that are not under way.
    pub(super) look_at: Option<Timestamp>,
    campaigns: watch::Receiver<u64>,
    decided: watch::Sender<Option<Timestamp>>,
}

impl Runner {
    /// A runner that has not begun.
    pub fn new(deps: RunnerDeps) -> Self {
        let RunnerDeps {
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
            lines: [Line::new(Operation::Revoke), Line::new(Operation::Delete)],
            tasks: JoinSet::new(),
            flights: BTreeMap::new(),
            trials: BTreeMap::new(),
            unanswered: BTreeMap::new(),
            busy: BTreeSet::new(),
            outbox: Outbox::new("campaigns wait until the store works"),
            following: Following::default(),
            failures: Fold::default(),
            second_chance: SecondChance::default(),
            look_at: Some(Timestamp::MIN),
            campaigns: store.campaign_signal(),
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
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), RunnerError> {
        loop {
            let wake = self.round().await;
            tokio::select! {
                biased;
                () = stop.cancelled() => return self.drain().await,
                Some(joined) = self.tasks.join_next_with_id() => {
                    self.on_task(joined);
                    while let Some(joined) = self.tasks.try_join_next_with_id() {
                        self.on_task(joined);
                    }
                }
                changed = self.campaigns.changed() => {
                    let name = self.settings.name.to_string();
                    changed.map_err(|_| RunnerError::StoreClosed(name))?;
                    self.look_at = Some(Timestamp::MIN);
                    self.following.look_again();
                }
                () = self.clock.sleep_until(wake) => {}
            }
        }
    }

    /// One decision: what is known is settled, what may start is started.
    async fn round(&mut self) -> Timestamp {
        if let Err(error) = self.settle_and_start().await {
            self.outbox.failed(&error, self.clock.steady());
        }
        self.decided.send_replace(Some(self.clock.now()));
        self.wake()
    }

    async fn settle_and_start(&mut self) -> Result<(), StoreError> {
        self.settle().await;
        if !self.outbox.is_open() {
            return Ok(());
        }
        self.take_items().await?;
        self.follow().await?;
        self.look_back().await?;
        self.start_calls().await?;
        // What needed no call is settled without waiting for another round.
        self.settle().await;
        Ok(())
    }

    async fn drain(&mut self) -> Result<(), RunnerError> {
        let ends = tokio::time::sleep(GRACE);
        tokio::pin!(ends);
        self.outbox.try_all();
        loop {
            self.settle().await;
            if self.flights.values().all(|flight| flight.call.is_none()) && self.outbox.is_idle() {
                break;
            }
            let again = self.clock.now() + SHORTEST_REST * 10;
            tokio::select! {
                biased;
                Some(joined) = self.tasks.join_next_with_id() => self.on_task(joined),
                () = &mut ends => break,
                () = self.clock.sleep_until(again) => {}
            }
        }
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

    fn wake(&mut self) -> Timestamp {
        let (now, steady) = (self.clock.now(), self.clock.steady());
        let mut at = steady + LONGEST_REST;
        let mut sooner = |other: Option<Steady>| at = other.map_or(at, |other| at.min(other));
        sooner(self.outbox.wakes_at());
        if self.outbox.is_open() {
            sooner(self.next_look(now, steady));
            sooner(self.next_call(steady));
            sooner(self.following.next());
            sooner(self.failures.ends_at());
            sooner(self.second_chance.wakes_at());
        }
        let wait = at.max(steady + SHORTEST_REST) - steady;
        now.checked_add(wait).unwrap_or(now)
    }

    /// What waits for an operation.
    pub(super) fn line(&mut self, operation: Operation) -> &mut Line {
        let [revoke, delete] = &mut self.lines;
        match operation {
            Operation::Delete => delete,
            _ => revoke,
        }
    }

    pub(super) fn moment(&self) -> Moment {
        Moment {
            wall: self.clock.now(),
            steady: self.clock.steady(),
        }
    }
}
