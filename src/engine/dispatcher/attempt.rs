//! An attempt, from its start to what follows from its outcome.
//!
//! The longest waiting goes first, as far as breaker, receiver and slots allow. Notices go in order and one at
//! a time, to sinks that asked for them.

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use rand::Rng;
use tokio::task::{Id, JoinError};

use super::{Dispatcher, Payload};
use crate::{
    model::{Name, Num, Version},
    schedule::{Steady, delivery_gap, delivery_retry_at, quarantine_gap},
    sinks::{self, DeliveryOutcome, Receipt, Sink, SinkFailure},
    store::{self, Consignment, Disabled, Pending, Settled, StoreError},
};

/// A version that expired undelivered is looked at again so much later, in case a clock was wrong;
/// the next version comes at once.
const PARKED: Duration = Duration::from_hours(1);
/// A receiver that asks for more quiet is asked again all the same: it may have been restarted.
const LONGEST_QUIET: Duration = Duration::from_mins(10);

/// A receiver that asks for quiet beyond a token's end is asked again after so much of what is left of it.
const BEFORE_THE_END: f64 = 0.8;

/// An attempt that panicked.
const OURS: &str = "renewd itself failed at it; see the log";

/// A version of an identity on its way.
#[derive(Debug, Clone)]
pub(super) struct TokenPayload {
    num: Num,
    name: Name,
    version: Version,
    /// Since when the consumer is behind.
    since: Timestamp,
    /// Failed attempts at it before this one.
    failures: u32,
    /// When there is nothing left to deliver.
    expires_at: Option<Timestamp>,
}

impl TokenPayload {
    pub(super) fn new(
        delivery: &store::Delivery,
        version: Version,
        expires_at: Option<Timestamp>,
    ) -> Self {
        // A version that came since the row was read is on its first attempt.
        let is_same = version == delivery.wanted;
        Self {
            num: delivery.num,
            name: delivery.name.clone(),
            version,
            since: delivery.since,
            failures: if is_same { delivery.attempts } else { 0 },
            expires_at,
        }
    }
}

/// The longest wait for a receiver that leaves time for another attempt before a token ends.
fn wait_within(end: Timestamp, now: Timestamp) -> Duration {
    let left = Duration::try_from(end.duration_since(now)).unwrap_or_default();
    left.mul_f64(BEFORE_THE_END)
}

impl Dispatcher {
    pub(super) async fn land(
        &mut self,
        joined: Result<(Id, Result<Receipt, SinkFailure>), JoinError>,
    ) {
        let id = joined.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        if self.land_test(id, &joined) {
            return;
        }
        let Some(payload) = self.payload.remove(&id) else {
            return;
        };
        if let Payload::Look(look) = payload {
            let found = joined.map_or_else(|_| Err(SinkFailure::new(OURS)), |(_, found)| found);
            return self.looked(look, found).await;
        }
        match joined {
            Ok((_, Ok(receipt))) => self.arrived(payload, receipt).await,
            Ok((_, Err(failure))) => self.failed(payload, &failure).await,
            // Where it panicked is in the log already; the payload could hold anything.
            Err(_) => self.quarantine(payload, OURS.to_owned()),
        }
    }

    async fn arrived(&mut self, payload: Payload, receipt: Receipt) {
        let Receipt { outcome, placed } = receipt;
        if outcome != DeliveryOutcome::LeftOut {
            self.counts.delivered += 1;
            self.counts.last_error = None;
            self.close_breaker();
        }
        match payload {
            Payload::Notice(seq) => self.notices.arrived(seq),
            Payload::Bundle(load) => self.bundle_arrived(load, placed).await,
            Payload::Look(_) => {}
            Payload::Token(TokenPayload {
                num,
                name,
                version,
                since,
                ..
            }) => {
                tracing::debug!(sink = %self.name, identity = %name, %version, ?outcome, "delivered");
                if outcome != DeliveryOutcome::LeftOut {
                    let lag = self.clock.now().duration_since(since);
                    self.metrics
                        .delivered(&self.name, lag.try_into().unwrap_or_default());
                }
                let sink = self.name.clone();
                self.outbox.add(Settled::Delivered { sink, num, version });
                if matches!(self.sink, Sink::File(_)) {
                    let sink = self.name.clone();
                    self.outbox.add(Settled::Placed { sink, num, placed });
                }
            }
        }
    }

    /// A success: everything that waited for the receiver is due.
    fn close_breaker(&mut self) {
        if !self.breaker.succeeded() {
            return;
        }
        tracing::info!(sink = %self.name, "the sink works again; everything pending goes out");
        self.empty_queue();
        self.is_back = true;
    }

    async fn failed(&mut self, payload: Payload, failure: &SinkFailure) {
        let steady = self.clock.steady();
        let subject = payload.subject();
        match self.said.is_news(&failure.message, steady) {
            true => {
                tracing::warn!(sink = %self.name, %subject, error = %failure, "a delivery failed")
            }
            false => {
                tracing::debug!(sink = %self.name, %subject, error = %failure, "a delivery failed")
            }
        }
        self.note_failure(&failure.message);
        if self.breaker.failed(steady) {
            tracing::warn!(sink = %self.name, "ten deliveries in a row failed; only probes go out");
            self.empty_queue();
        }
        if let Some(wait) = failure.retry_after {
            let now = self.clock.now();
            let within = match &payload {
                Payload::Token(payload) => payload.expires_at.map(|end| wait_within(end, now)),
                Payload::Notice(_) | Payload::Bundle(_) | Payload::Look(_) => None,
            };
            let wait = wait.min(LONGEST_QUIET).min(within.unwrap_or(LONGEST_QUIET));
            self.quiet_until = Some(steady + wait);
        }
        if failure.disable {
            self.disable(&failure.message).await;
        }
        match payload {
            Payload::Notice(_) => self.set_back_notice(failure.retry_after),
            Payload::Bundle(load) => self.bundle_failed(load, &failure.message),
            Payload::Look(_) => {}
            Payload::Token(payload) => {
                let next_at = self.next_attempt(&payload, failure.retry_after);
                self.set_back(&payload, next_at, failure.message.clone());
            }
        }
    }

    /// The usual wait or the one that was asked for, whichever is longer; beyond the token's end
    /// there is nothing to attempt.
    fn next_attempt(&mut self, payload: &TokenPayload, retry_after: Option<Duration>) -> Timestamp {
        let (now, end) = (self.clock.now(), payload.expires_at);
        let usual = delivery_retry_at(payload.failures + 1, end, now, &mut self.rng);
        // However long a receiver asks us to wait: it is asked again while the token lives.
        let asked = retry_after.map(|wait| end.map_or(wait, |end| wait.min(wait_within(end, now))));
        let asked = asked.and_then(|wait| now.checked_add(wait).ok());
        let next_at = usual.map(|at| at.max(asked.unwrap_or(at)));
        match (next_at, end) {
            (Some(at), None) => at,
            (Some(at), Some(end)) if at < end => at,
            (_, end) => end.unwrap_or(now) + PARKED,
        }
    }

    /// The token ended before it could be delivered. Nobody is served by it, so it is kept back; the
    /// next version goes out at once.
    pub(super) fn park(&mut self, payload: &TokenPayload, why: &str) {
        let next_at = self.clock.now() + PARKED;
        self.set_back(payload, next_at, why.to_owned());
    }

    /// A fault that lies with us and not with the receiver: this one waits, longer each time.
    pub(super) fn quarantine(&mut self, payload: Payload, error: String) {
        let subject = payload.subject();
        tracing::error!(sink = %self.name, %subject, %error, "a delivery is set aside for a while");
        self.note_failure(&error);
        match payload {
            Payload::Notice(_) => self.set_back_notice(None),
            Payload::Bundle(load) => self.bundle_failed(load, &error),
            Payload::Look(_) => {}
            Payload::Token(payload) => {
                let gap = quarantine_gap(payload.failures, &mut self.rng);
                self.set_back(&payload, self.clock.now() + gap, error);
            }
        }
    }

    fn note_failure(&mut self, error: &str) {
        self.counts.failed += 1;
        self.counts.last_error = Some(error.to_owned());
    }

    fn set_back(&mut self, payload: &TokenPayload, next_at: Timestamp, error: String) {
        self.outbox.add(Settled::Failed {
            sink: self.name.clone(),
            num: payload.num,
            version: payload.version,
            next_at,
            error,
        });
    }

    fn set_back_notice(&mut self, retry_after: Option<Duration>) {
        let steady = self.clock.steady();
        self.notices.failed(steady, retry_after, &mut self.rng);
    }

    /// The receiver wants nothing more. The notice goes to every other sink that asked for such.
    async fn disable(&mut self, why: &str) {
        let disabled = Disabled {
            why: why.to_owned(),
            by_command: false,
        };
        self.disabled = Some(disabled.clone());
        self.empty_queue();
        tracing::error!(sink = %self.name, why, "the sink is disabled");
        let now = self.clock.now();
        if let Err(error) = self.store.disable_sink(&self.name, disabled, now).await {
            self.outbox.failed(&error, self.clock.steady());
        }
    }
}

impl Payload {
    /// The identity, or the notice's number, for the log.
    fn subject(&self) -> String {
        match self {
            Self::Token(payload) => payload.name.to_string(),
            Self::Notice(seq) => format!("notice {seq}"),
            Self::Bundle(_) => "the bundle".to_owned(),
            Self::Look(_) => "a look at a file".to_owned(),
        }
    }
}

/// Rows read at once, behind those that are under way or not settled yet.
const PAGE: usize = 256;
/// So many results that are not settled, and nothing new is attempted.
const UNSETTLED: usize = 1024;
/// Rows read while only a probe may go out.
const PROBE_PAGE: usize = 64;
/// So many looked at for one probe in vain, and the next one goes on behind them.
const PASSED: usize = 1024;

impl Dispatcher {
    pub(super) async fn start_what_may(&mut self) -> Result<(), StoreError> {
        if !self.has_room() {
            return Ok(());
        }
        if std::mem::take(&mut self.heard) {
            match self.store.sink_disabled(&self.name).await {
                // Nobody can say: it goes on as it was. The store has told of it.
                Err(StoreError::Unreadable { .. }) => {}
                disabled => self.disabled = disabled.inspect_err(|_| self.heard = true)?,
            }
        }
        if self.is_back {
            self.store.hasten(&self.name, self.clock.now()).await?;
            self.is_back = false;
        }
        self.start_notice().await?;
        if let Sink::File(files) = &self.sink
            && files.is_bundle()
        {
            let files = files.clone();
            self.start_bundle(files).await?;
            return self.look_at_files().await;
        }
        let passed = self.passed.len();
        while self.may_start() {
            let chosen = self.next_deliveries().await?;
            let is_over = chosen.is_empty();
            self.start(chosen).await?;
            if is_over || self.passed.len() >= passed + PASSED {
                self.put_probe_off();
                break;
            }
        }
        self.look_at_files().await
    }

    /// Where all that was looked at for a probe serves nobody, the next one comes later. It goes on behind them, or begins
    /// anew where there are no more.
    fn put_probe_off(&mut self) {
        if self.passed.is_empty() || !self.attempts.is_empty() {
            return;
        }
        self.breaker.put_off(self.clock.steady());
        if self.queue.is_empty() && !self.look {
            self.forget_passed();
        }
        self.look = true;
    }

    /// Whoever was looked at for a probe in vain may be again.
    pub(super) fn forget_passed(&mut self) {
        for num in self.passed.drain(..) {
            self.busy.remove(&num);
        }
    }

    /// Whether how one more attempt ends could be kept: what could not be noted would be delivered again
    /// after a crash.
    fn has_room(&self) -> bool {
        self.outbox.is_open() && self.outbox.unnoted() < UNSETTLED
    }

    /// Whether one more attempt may go out.
    pub(super) fn may_start(&self) -> bool {
        let steady = self.clock.steady();
        self.disabled.is_none()
            && self.attempts.len() < self.sink.max_in_flight()
            && self.has_room()
            && self.quiet_until.is_none_or(|until| steady >= until)
            && self.rate.opens_at(steady).is_none()
            && self.breaker.admits(self.attempts.len(), steady)
    }

    /// What is to be started at once: all that there is room for, or one where each start decides about the next.
    async fn next_deliveries(&mut self) -> Result<Vec<store::Delivery>, StoreError> {
        if self.queue.is_empty() && self.look {
            self.read_queue().await?;
        }
        let room = match self.limit.is_some() || self.breaker.probe_at().is_some() {
            true => 1,
            false => self.sink.max_in_flight() - self.attempts.len(),
        };
        let room = room.min(self.queue.len());
        Ok(self.queue.drain(..room).collect())
    }

    async fn read_queue(&mut self) -> Result<(), StoreError> {
        let now = self.clock.now();
        // A probe asks whether the receiver is back, whoever's turn it is.
        let (until, limit) = match self.breaker.probe_at() {
            Some(_) => (Timestamp::MAX, PROBE_PAGE),
            None => (now, PAGE),
        };
        let Pending {
            deliveries,
            next_at,
        } = self
            .store
            .pending(&self.name, until, limit, &self.busy)
            .await?;
        self.look = next_at.is_some_and(|at| at <= until);
        self.next_at = next_at;
        let nums = deliveries.iter().map(|delivery| delivery.num);
        self.busy.extend(nums);
        self.queue.extend(deliveries);
        Ok(())
    }

    /// Begins an attempt at what is newest now of each of these.
    async fn start(&mut self, chosen: Vec<store::Delivery>) -> Result<(), StoreError> {
        if chosen.is_empty() {
            return Ok(());
        }
        let nums = chosen.iter().map(|delivery| delivery.num).collect();
        let read = match self.store.consignments(nums).await {
            Ok(read) => read,
            Err(error) => {
                chosen
                    .into_iter()
                    .rev()
                    .for_each(|one| self.queue.push_front(one));
                return Err(error);
            }
        };
        for (delivery, consignment) in chosen.into_iter().zip(read) {
            match consignment {
                Ok(Some(consignment)) => self.attempt(&delivery, consignment),
                // The identity is gone, and its row of the delivery table with it.
                Ok(None) => _ = self.busy.remove(&delivery.num),
                Err(_) if self.has_time(&delivery) => self.passed.push(delivery.num),
                Err(error) => {
                    let (version, end) = (delivery.wanted, delivery.expires_at);
                    let payload = TokenPayload::new(&delivery, version, end);
                    self.quarantine(Payload::Token(payload), error.to_string());
                }
            }
        }
        Ok(())
    }

    /// Whether it is looked at for a probe alone: where that serves nobody, it stays as it is.
    fn has_time(&self, delivery: &store::Delivery) -> bool {
        delivery.next_at > self.clock.now()
    }

    fn attempt(&mut self, delivery: &store::Delivery, consignment: Consignment) {
        let now = self.clock.now();
        let dead = self.dead(&consignment);
        let document = Arc::new(consignment.document);
        let expires_at = document.token.as_ref().and(document.expires_at);
        let payload = TokenPayload::new(delivery, document.version, expires_at);
        if let Some(why) = dead {
            match self.has_time(delivery) {
                true => self.passed.push(delivery.num),
                false => self.park(&payload, why),
            }
            return;
        }
        let (sink, readers) = (self.sink.clone(), consignment.readers);
        let attempt = async move {
            sink.deliver(sinks::SinkDelivery { document, readers }, now)
                .await
        };
        let id = self.attempts.spawn(attempt).id();
        self.rate.began(self.clock.steady());
        self.payload.insert(id, Payload::Token(payload));
    }

    /// Gives back what was read and not started, so that it is read anew when its time comes.
    pub(super) fn empty_queue(&mut self) {
        self.forget_passed();
        for delivery in self.queue.drain(..) {
            self.busy.remove(&delivery.num);
        }
        self.look = true;
    }
}

/// Notices looked at in one go.
const ANNOUNCING_PAGE: usize = 64;
/// A notice that could not be told for so long is let go, so that newer ones are heard.
const TOLD_WITHIN: SignedDuration = SignedDuration::from_hours(72);

/// How far the sink has been told.
#[derive(Debug, Default)]
pub(super) struct Notices {
    /// The last notice that is dealt with; unknown before the first look.
    cursor: Option<u64>,
    /// How much of that the store knows.
    noted: u64,
    is_telling: bool,
    failures: u32,
    not_before: Option<Steady>,
}

impl Notices {
    pub(super) fn arrived(&mut self, seq: u64) {
        *self = Self {
            cursor: Some(seq),
            noted: self.noted,
            ..Self::default()
        };
    }

    pub(super) fn failed(
        &mut self,
        now: Steady,
        retry_after: Option<Duration>,
        rng: &mut impl Rng,
    ) {
        self.is_telling = false;
        self.failures = self.failures.saturating_add(1);
        let gap = delivery_gap(self.failures, rng);
        self.not_before = Some(now + gap.max(retry_after.unwrap_or_default()));
    }

    /// When the notice that failed is told again.
    pub(super) fn retry_at(&self) -> Option<Steady> {
        self.not_before.filter(|_| !self.is_telling)
    }
}

impl Dispatcher {
    /// Begins to tell the next notice, if it is time for one.
    pub(super) async fn start_notice(&mut self) -> Result<(), StoreError> {
        if !self.sink.hears_notices() {
            return Ok(());
        }
        let steady = self.clock.steady();
        let is_early = self.notices.not_before.is_some_and(|at| steady < at);
        if !self.notices.is_telling && !is_early && self.may_start() {
            self.tell_next().await?;
        }
        self.note_cursor().await
    }

    async fn tell_next(&mut self) -> Result<(), StoreError> {
        let after = match self.notices.cursor {
            Some(cursor) => cursor,
            None => self.store.notice_cursor(&self.name).await?,
        };
        self.notices.cursor = Some(after);
        let now = self.clock.now();
        for (seq, notice) in self
            .store
            .notices_for(&self.name, after, ANNOUNCING_PAGE)
            .await?
        {
            let is_stale = now.duration_since(notice.at) > TOLD_WITHIN;
            let is_wanted = self.sink.wants_notice(notice.kind);
            if is_wanted && is_stale {
                tracing::warn!(sink = %self.name, notice = seq, "a notice could not be told in 72 h and is dropped");
            }
            if is_wanted && !is_stale {
                let sink = self.sink.clone();
                let attempt = async move {
                    let told = sink.announce(seq, &notice, now).await;
                    told.map(Receipt::from)
                };
                let id = self.attempts.spawn(attempt).id();
                self.rate.began(self.clock.steady());
                self.payload.insert(id, Payload::Notice(seq));
                self.notices.is_telling = true;
                return Ok(());
            }
            self.notices.cursor = Some(seq);
            self.notices.failures = 0;
        }
        self.notices.not_before = None;
        Ok(())
    }

    async fn note_cursor(&mut self) -> Result<(), StoreError> {
        match self.notices.cursor {
            Some(cursor) if cursor > self.notices.noted => {
                self.store.advance_cursor(&self.name, cursor).await?;
                self.notices.noted = cursor;
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
