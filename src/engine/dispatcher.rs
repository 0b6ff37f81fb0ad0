//! One sink's dispatcher: the loop that hands over what the store says is wanted and not yet delivered.
//!
//! Each time round it starts what may start and judges how attempts ended (`attempt`, `bundle`), looks after
//! files and says what it knows (`upkeep`), settles results in batches (`Outbox`), and sleeps until the next
//! thing can happen. The document is read when the attempt begins, so the newest goes out, and an identity has
//! one attempt in flight at most, so an older one never follows a newer.

mod attempt;
mod bundle;
mod upkeep;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use jiff::Timestamp;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use tokio::{
    sync::{mpsc, watch},
    task::{Id, JoinError, JoinSet},
};
use tokio_util::sync::CancellationToken;

pub use self::upkeep::Ask;
use self::{
    attempt::{Notices, TokenPayload},
    bundle::{Bundle, BundleLoad},
    upkeep::{FileLook, Test, Verifying},
};
use super::restore::{self, RenewerViews, dead, restore};
use crate::{
    clock::Clock,
    config::Limit,
    model::{DispatcherView, Num, SinkAt},
    outbox::{Outbox, Refused, Written},
    schedule::{Breaker, Moment, Rate, Repeat, Steady},
    sinks::{Receipt, Sink, SinkFailure},
    store::{self, Consignment, Disabled, Settled, Store},
    telemetry::Metrics,
    worker::{self, Wake, Worker},
};

/// Between two tries to begin while the store cannot be used.
const BEGIN_AGAIN: Duration = Duration::from_secs(2);

/// What a dispatcher works with.
#[derive(Debug)]
pub struct DispatcherDeps {
    /// The sink's name, as in the store.
    pub name: SinkAt,
    pub sink: Sink,
    pub store: Store,
    pub clock: Clock,
    /// What the renewers publish: by it is judged how a token stands.
    pub renewers: RenewerViews,
    /// Where deliveries are measured.
    pub metrics: Metrics,
    /// The most attempts that the sink may see in any such time.
    pub rate: Option<Limit>,
    /// Where chance starts: the same seed, the same run.
    pub seed: u64,
}

/// Why a dispatcher ended although nobody stopped it, or could not end well.
#[derive(Debug, thiserror::Error)]
pub enum DispatcherError {
    /// The store is gone.
    #[error("the store was closed under the dispatcher of {0}")]
    StoreClosed(SinkAt),
    /// What was delivered could not be noted; it will be delivered once more.
    #[error("{count} deliveries of {sink} could not be settled before the end: {reason}")]
    Unsettled {
        sink: SinkAt,
        count: usize,
        reason: String,
    },
}

/// The loop of one sink.
#[derive(Debug)]
pub struct Dispatcher {
    name: SinkAt,
    sink: Sink,
    store: Store,
    clock: Clock,
    renewers: RenewerViews,
    metrics: Metrics,
    rng: ChaCha8Rng,
    breaker: Breaker,
    /// What the log said of failures.
    said: Repeat,
    /// Until when the receiver asked not to be asked.
    quiet_until: Option<Steady>,
    disabled: Option<Disabled>,
    limit: Option<Limit>,
    rate: Rate,
    /// Whether every file is as the store says; receivers have nothing to restore.
    restored: bool,
    /// Read from the store, to be started.
    queue: VecDeque<store::Delivery>,
    /// Both clocks at the last decision.
    seen: Option<upkeep::ClocksSeen>,
    /// Whether the store may hold more than was read.
    look: bool,
    /// Whether somebody may have disabled the sink, or enabled it, since that was looked up.
    heard: bool,
    /// Whether the receiver is back, and what waited for it is not due yet.
    is_back: bool,
    /// When the store's next delivery is to be attempted.
    next_at: Option<Timestamp>,
    notices: Notices,
    bundle: Bundle,
    verifying: Verifying,
    attempts: JoinSet<Result<Receipt, SinkFailure>>,
    payload: BTreeMap<Id, Payload>,
    tests: BTreeMap<Id, Test>,
    /// Rows in the queue, in flight, not settled yet or passed over.
    busy: BTreeSet<Num>,
    /// Rows that were looked at for a probe in vain.
    passed: Vec<Num>,
    /// How attempts ended, to be settled in the store.
    outbox: Outbox<Settled, ()>,
    wanted: watch::Receiver<u64>,
    counts: AttemptCounts,
    view: watch::Sender<DispatcherView>,
    commands: mpsc::Sender<Ask>,
    asks: mpsc::Receiver<Ask>,
}

/// What is told since the start.
#[derive(Debug, Default)]
struct AttemptCounts {
    delivered: u64,
    failed: u64,
    last_error: Option<String>,
}

/// What an attempt carries.
#[derive(Debug, Clone)]
enum Payload {
    /// A version of an identity.
    Token(TokenPayload),
    /// The notice with this number.
    Notice(u64),
    /// One file for all.
    Bundle(BundleLoad),
    /// A file that is only looked at.
    Look(FileLook),
}

/// What happens to a dispatcher.
#[derive(Debug)]
pub(crate) enum DispatcherEvent {
    /// Results were settled, or could not be.
    Settled(Written<()>),
    /// An attempt has ended.
    Attempted(Result<(Id, Result<Receipt, SinkFailure>), JoinError>),
    Asked(Ask),
    /// Something may be wanted.
    Wanted,
}

impl Worker for Dispatcher {
    type Event = DispatcherEvent;
    type Error = DispatcherError;

    fn clock(&self) -> &Clock {
        &self.clock
    }

    async fn begin(&mut self, stop: &CancellationToken) {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = self.line_up() => {}
        }
        self.enable().await;
    }

    async fn round(&mut self, stop: &CancellationToken) -> Result<Timestamp, DispatcherError> {
        if !self.restored && !self.is_paused() {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(self.clock.now()),
                () = self.put_right() => {}
            }
        }
        self.heed_the_clock().await;
        if let Err(error) = self.start_what_may().await {
            self.outbox.failed(&error, self.clock.steady());
        }
        self.begin_write();
        self.publish();
        Ok(self.wake())
    }

    async fn next(&mut self, ending: bool) -> Result<DispatcherEvent, DispatcherError> {
        tokio::select! {
            biased;
            written = self.outbox.ended() => Ok(DispatcherEvent::Settled(written)),
            Some(joined) = self.attempts.join_next_with_id() => Ok(DispatcherEvent::Attempted(joined)),
            Some(ask) = self.asks.recv(), if !ending => Ok(DispatcherEvent::Asked(ask)),
            changed = self.wanted.changed(), if !ending => match changed {
                Ok(()) => Ok(DispatcherEvent::Wanted),
                Err(_) => Err(DispatcherError::StoreClosed(self.name.clone())),
            },
        }
    }

    async fn take(&mut self, event: DispatcherEvent) {
        match event {
            DispatcherEvent::Settled(written) => self.on_settled(written),
            DispatcherEvent::Attempted(joined) => {
                self.land(joined).await;
                while let Some(joined) = self.attempts.try_join_next_with_id() {
                    self.land(joined).await;
                }
            }
            DispatcherEvent::Asked(ask) => self.asked(ask),
            DispatcherEvent::Wanted => {
                self.forget_passed();
                self.look_anew();
            }
        }
    }

    fn rested(&mut self) {
        self.look_anew();
    }

    async fn settle(&mut self, first: bool) -> bool {
        if first {
            self.outbox.try_all();
        }
        self.begin_write();
        self.attempts.is_empty() && self.outbox.is_idle()
    }

    /// What had not ended is attempted again after the next start.
    async fn end(&mut self) -> Result<(), DispatcherError> {
        match self.outbox.unnoted() {
            0 => Ok(()),
            count => Err(DispatcherError::Unsettled {
                sink: self.name.clone(),
                count,
                reason: self.outbox.reason().to_owned(),
            }),
        }
    }
}

impl Dispatcher {
    /// A dispatcher that has not begun.
    pub fn new(deps: DispatcherDeps) -> Self {
        let DispatcherDeps {
            name,
            sink,
            store,
            clock,
            renewers,
            metrics,
            rate,
            seed,
        } = deps;
        let (commands, asks) = mpsc::channel(upkeep::WAITING);
        Self {
            rng: ChaCha8Rng::seed_from_u64(seed),
            breaker: Breaker::default(),
            said: Repeat::default(),
            quiet_until: None,
            disabled: None,
            limit: rate,
            rate: Rate::new(rate),
            restored: false,
            queue: VecDeque::new(),
            seen: None,
            look: true,
            heard: true,
            is_back: false,
            next_at: None,
            notices: Notices::default(),
            bundle: Bundle::default(),
            verifying: Verifying::default(),
            attempts: JoinSet::new(),
            payload: BTreeMap::new(),
            tests: BTreeMap::new(),
            busy: BTreeSet::new(),
            passed: Vec::new(),
            outbox: Outbox::new("deliveries wait for the store"),
            wanted: store.wanted_signal(),
            counts: AttemptCounts::default(),
            view: watch::Sender::default(),
            commands,
            asks,
            name,
            sink,
            store,
            clock,
            renewers,
            metrics,
        }
    }

    /// What the dispatcher publishes, each time round.
    pub fn view(&self) -> watch::Receiver<DispatcherView> {
        self.view.subscribe()
    }

    /// Where it can be asked something while it runs.
    pub fn commands(&self) -> mpsc::Sender<Ask> {
        self.commands.clone()
    }

    /// Puts the files of a file sink right, then delivers until `stop`; then waits a little for
    /// attempts in flight and settles how they ended.
    ///
    /// # Errors
    /// When the store is gone, or results could not be settled at the end.
    pub async fn run(self, stop: CancellationToken) -> Result<(), DispatcherError> {
        worker::run(self, stop).await
    }

    /// Restores the files before the first delivery, so that nothing older is written after it.
    async fn put_right(&mut self) {
        let Sink::File(files) = &self.sink else {
            self.restored = true;
            return;
        };
        let began = self.clock.steady();
        loop {
            self.publish();
            let (view, clock) = (&self.view, &self.clock);
            let reaffirm = |_: &_| view.send_modify(|view| view.decided_at = Some(clock.now()));
            match restore(
                &self.store,
                &self.name,
                files,
                (clock, &self.renewers),
                reaffirm,
            )
            .await
            {
                Ok(done) => {
                    let restore::RestoredFiles {
                        seen,
                        mended,
                        failed,
                        swept,
                    } = done;
                    tracing::info!(sink = %self.name, seen, mended, failed, swept, "files are as the store says");
                    break;
                }
                Err(error) => {
                    tracing::error!(sink = %self.name, %error, "cannot restore the files; trying again");
                    tokio::time::sleep(BEGIN_AGAIN).await;
                }
            }
        }
        let steady = self.clock.steady();
        self.verifying.rest(steady, steady.saturating_sub(began));
        self.restored = true;
    }

    /// Why the token of a consignment is dead, if it is.
    fn dead(&self, consignment: &Consignment) -> Option<&'static str> {
        dead(consignment, &self.renewers, self.clock.now())
    }

    /// Takes its place behind the sinks that it waits for, before it asks what is pending.
    async fn line_up(&mut self) {
        while let Err(error) = self.store.set_after(&self.name, self.sink.after()).await {
            tracing::error!(sink = %self.name, %error, "cannot note what the sink waits for; trying again");
            tokio::time::sleep(BEGIN_AGAIN).await;
        }
    }

    /// A start, or new settings, are the operator's word to try a sink again whose receiver wanted
    /// nothing more; one that a command disabled waits for a command.
    async fn enable(&mut self) {
        match self.store.sink_disabled(&self.name).await {
            Ok(Some(disabled)) if disabled.by_command => {
                tracing::warn!(sink = %self.name, why = disabled.why, "the sink stays disabled until `renewd sink enable`");
                self.disabled = Some(disabled);
            }
            Ok(Some(Disabled { why, .. })) => {
                tracing::info!(sink = %self.name, why, "trying a sink again that was disabled");
                let enabled = self.store.enable_sink(&self.name, self.clock.now()).await;
                if let Err(error) = enabled {
                    self.outbox.failed(&error, self.clock.steady());
                }
            }
            // If the store is in trouble, the first look meets it again.
            Ok(None) | Err(_) => {}
        }
    }

    /// Looks for deliveries, and whether the sink is disabled.
    fn look_anew(&mut self) {
        self.look = true;
        self.heard = true;
    }

    fn is_paused(&self) -> bool {
        self.disabled.as_ref().is_some_and(|d| d.by_command)
    }

    fn begin_write(&mut self) {
        let (store, now) = (self.store.clone(), self.clock.now());
        self.outbox.begin(self.clock.steady(), |settled| {
            Box::pin(async move { store.settle(settled, now).await })
        });
    }

    /// Results are settled; a row that the store refuses is left alone for a while, so that it is not
    /// delivered over and over.
    fn on_settled(&mut self, written: Written<()>) {
        self.look = true;
        let steady = self.clock.steady();
        let Some(noted) = self.outbox.settle(written, steady) else {
            return;
        };
        for refused in noted.refused {
            let Refused {
                entry,
                error,
                again,
            } = refused;
            let (sink, row) = (&self.name, num_of(&entry));
            tracing::error!(%sink, row, %error, "how a delivery ended is set aside, because the store refuses it");
            match again {
                // What is newest is handed over all the same.
                true => _ = self.busy.remove(&row),
                false => {
                    self.busy.insert(row);
                    self.outbox.set_aside(entry, &error, steady);
                }
            }
        }
        let aside: BTreeSet<Num> = self.outbox.aside().map(num_of).collect();
        for (settled, ()) in noted.done {
            let num = num_of(&settled);
            if !aside.contains(&num) {
                self.busy.remove(&num);
            }
        }
    }

    /// The latest instant at which something may have to be done.
    fn wake(&self) -> Timestamp {
        let now = self.moment();
        let gates = [
            self.quiet_until,
            self.breaker.probe_at(),
            self.rate.opens_at(now.steady),
        ];
        let gate = gates.into_iter().flatten().max();
        let gate = gate.filter(|at| *at > now.steady);
        let mut wake = Wake::new(now);
        wake.by(self.outbox.wakes_at());
        if !self.restored && !self.is_paused() {
            // A pause has ended: its files are put right first.
            wake.by(Some(now.steady));
        }
        // Behind a gate everything waits for the gate.
        wake.by(gate);
        if gate.is_none() && self.may_start() {
            // Who waits for a bundle waits for its next write.
            if self.bundle.write_at.is_none() && !self.bundle.is_writing {
                wake.by_wall(self.next_at);
            }
            wake.by(self.notices.retry_at());
            wake.by(self.bundle.write_at);
            wake.by(self.verifying.wakes_at());
        }
        wake.at()
    }

    fn moment(&self) -> Moment {
        Moment {
            wall: self.clock.now(),
            steady: self.clock.steady(),
        }
    }
}

fn num_of(settled: &Settled) -> Num {
    match settled {
        Settled::Delivered { num, .. }
        | Settled::Failed { num, .. }
        | Settled::Placed { num, .. } => *num,
    }
}
