//! What a dispatcher does besides delivering.
//!
//! It looks at every file again from time to time: somebody may have changed it, its mode or its ACL, or removed
//! it; what is not as the store says is mended, what is right is only read. It sees to it that a wall clock that
//! was set back makes nobody wait for a time that was near before. It publishes its view, and answers commands:
//! to go on at once, and to try its sink out.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::{
    sync::oneshot,
    task::{Id, JoinError},
};

use super::{Dispatcher, Payload};
use crate::{
    model::{DispatcherView, Name, Num, ResourceName, Tested},
    schedule::Steady,
    sinks::{self, DeliveryOutcome, Receipt, Sink, SinkFailure},
    store::{self, Settled, StoreError},
};

/// Between two looks at all files.
const EVERY: Duration = Duration::from_mins(5);
/// All looks together take a hundredth of the time at most.
const SHARE: u32 = 100;
/// Files looked at at once; deliveries find room beside them.
const AT_ONCE: usize = 4;

/// How far the look at all files is.
#[derive(Debug, Default)]
pub(super) struct Verifying {
    /// When the next one begins.
    begins_at: Option<Steady>,
    /// The last row that was looked at, while one is going on.
    after: Option<Num>,
    began: Steady,
    in_flight: usize,
}

/// A file that is being looked at.
#[derive(Debug, Clone)]
pub(super) struct FileLook {
    num: Num,
    name: Name,
}

impl Verifying {
    /// The files are right now; the next look is due after the usual time.
    pub(super) fn rest(&mut self, now: Steady, took: Duration) {
        self.after = None;
        self.begins_at = Some(now + EVERY.max(took.saturating_mul(SHARE)));
    }

    /// When there is something to do.
    pub(super) fn wakes_at(&self) -> Option<Steady> {
        match self.after {
            Some(_) => (self.in_flight == 0).then_some(self.began),
            None => self.begins_at,
        }
    }
}

impl Dispatcher {
    /// Looks at some files, if it is time to and nothing else waits.
    pub(super) async fn look_at_files(&mut self) -> Result<(), StoreError> {
        let steady = self.clock.steady();
        let Sink::File(files) = &self.sink else {
            return Ok(());
        };
        let is_time = self.verifying.wakes_at().is_some_and(|at| steady >= at);
        if !is_time || !self.may_start() || !self.queue.is_empty() {
            return Ok(());
        }
        if files.is_bundle() {
            self.want_bundle(Duration::ZERO);
            self.verifying.rest(steady, Duration::ZERO);
            return Ok(());
        }
        let after = match self.verifying.after {
            Some(after) => after,
            None => {
                self.verifying.began = steady;
                0
            }
        };
        let page = self
            .store
            .delivered_page(&self.name, after, AT_ONCE)
            .await?;
        let Some(last) = page.last() else {
            let took = steady.saturating_sub(self.verifying.began);
            self.verifying.rest(steady, took);
            return Ok(());
        };
        self.verifying.after = Some(last.num);
        for row in page {
            self.look_at(row).await?;
        }
        Ok(())
    }

    async fn look_at(&mut self, row: store::Delivery) -> Result<(), StoreError> {
        if row.is_pending() || self.busy.contains(&row.num) {
            return Ok(());
        }
        let consignment = match self.store.consignment(row.num).await {
            Ok(Some(consignment)) => consignment,
            // One that cannot be read is told elsewhere, and keeps nobody else from being looked at.
            Ok(None) | Err(StoreError::Unseal { .. } | StoreError::Unreadable { .. }) => {
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let now = self.clock.now();
        if self.dead(&consignment).is_some() {
            return Ok(());
        }
        let document = Arc::new(consignment.document);
        let (sink, readers) = (self.sink.clone(), consignment.readers);
        let delivery = sinks::SinkDelivery { document, readers };
        let look = async move { sink.deliver(delivery, now).await };
        let id = self.attempts.spawn(look).id();
        let (num, name) = (row.num, row.name);
        self.busy.insert(num);
        self.verifying.in_flight += 1;
        self.payload
            .insert(id, Payload::Look(FileLook { num, name }));
        Ok(())
    }

    /// How a look ended. What could not be mended is delivered anew, with the retries of a delivery.
    pub(super) async fn looked(&mut self, look: FileLook, found: Result<Receipt, SinkFailure>) {
        let FileLook { num, name } = look;
        self.verifying.in_flight = self.verifying.in_flight.saturating_sub(1);
        self.look |= self.verifying.in_flight == 0;
        match found {
            Ok(Receipt {
                outcome: DeliveryOutcome::Unchanged,
                ..
            }) => {
                self.busy.remove(&num);
            }
            Ok(Receipt { placed, .. }) => {
                tracing::warn!(sink = %self.name, identity = %name, "a file was not as it should be and has been mended");
                let sink = self.name.clone();
                self.outbox.add(Settled::Placed { sink, num, placed });
            }
            Err(failure) => {
                tracing::warn!(sink = %self.name, identity = %name, error = %failure, "a file is not as it should be");
                let (sink, now) = (Some(self.name.clone()), self.clock.now());
                if let Err(error) = self.store.redeliver(num, sink, now).await {
                    self.outbox.failed(&error, self.clock.steady());
                }
                self.busy.remove(&num);
            }
        }
    }
}

/// So far, in seconds, the two clocks may drift apart between two decisions.
const DRIFT: f64 = 2.0;

/// Both clocks at the last decision.
pub(super) type ClocksSeen = (Timestamp, Steady);

impl Dispatcher {
    /// Makes what is pending due when the wall clock went back since the last decision, and at the
    /// first one: who knows what the clock did while nobody looked.
    pub(super) async fn heed_the_clock(&mut self) {
        let seen = (self.clock.now(), self.clock.steady());
        if self.seen.is_none_or(|last| went_back(last, seen)) {
            self.empty_queue();
            if let Err(error) = self.store.hasten(&self.name, seen.0).await {
                self.outbox.failed(&error, seen.1);
                return;
            }
        }
        self.seen = Some(seen);
    }
}

fn went_back((was, then): ClocksSeen, (is, now): ClocksSeen) -> bool {
    let passed = now.saturating_sub(then).as_secs_f64();
    is.duration_since(was).as_secs_f64() < passed - DRIFT
}

impl Dispatcher {
    /// Publishes the state after a decision.
    pub(super) fn publish(&self) {
        let (now, steady) = (self.clock.now(), self.clock.steady());
        let probe_at = self.breaker.probe_at();
        self.view.send_replace(DispatcherView {
            decided_at: Some(now),
            // A sink that is paused keeps its files as they lie, and nobody waits for them.
            restored: self.restored || self.is_paused(),
            in_flight: self.attempts.len(),
            failures_in_row: self.breaker.failures_in_row(),
            failing_since: self.breaker.failing_since().map(|at| {
                let ago = steady.saturating_sub(at);
                now.checked_sub(ago).unwrap_or(now)
            }),
            probe_at: probe_at.map(|at| now + at.saturating_sub(steady)),
            disabled: self.disabled.as_ref().map(|d| d.why.clone()),
            paused: self.disabled.as_ref().is_some_and(|d| d.by_command),
            kind: self.sink.kind().to_owned(),
            target: self.sink.target(),
            peer_ends: self.sink.peer_ends(),
            rate: self.limit.map(|limit| limit.to_string()),
            last_error: self.counts.last_error.clone(),
            delivered: self.counts.delivered,
            failed: self.counts.failed,
        });
    }
}

/// Asks that wait to be heard.
pub(super) const WAITING: usize = 16;

/// What a dispatcher can be asked.
#[derive(Debug)]
pub enum Ask {
    /// Attempt what is due now, whatever breaker and receiver said.
    GoOn,
    /// Hand a synthetic document over, even if the sink is disabled.
    Test {
        /// The resource that the document names.
        resource: ResourceName,
        /// Who wants to know. Dropped without an answer where renewd itself failed.
        answer: oneshot::Sender<Tested>,
    },
}

/// A test on its way.
#[derive(Debug)]
pub(super) struct Test {
    began: Steady,
    answer: oneshot::Sender<Tested>,
}

impl Dispatcher {
    pub(super) fn asked(&mut self, ask: Ask) {
        match ask {
            Ask::GoOn => {
                self.quiet_until = None;
                self.breaker.probe_now(self.clock.steady());
                self.look_anew();
            }
            Ask::Test { resource, answer } => self.begin_test(resource, answer),
        }
    }

    /// A test goes down the real path and leaves no trace in the store: neither breaker nor schedule
    /// learn from it. The receiver's rate counts it, as the receiver does.
    fn begin_test(&mut self, resource: ResourceName, answer: oneshot::Sender<Tested>) {
        let (now, began) = (self.clock.now(), self.clock.steady());
        let sink = self.sink.clone();
        let attempt = async move {
            let tried = sink.try_out(&resource, now).await;
            tried.map(Receipt::from)
        };
        let id = self.attempts.spawn(attempt).id();
        self.rate.began(began);
        self.tests.insert(id, Test { began, answer });
    }

    /// Answers if what ended was a test.
    pub(super) fn land_test(
        &mut self,
        id: Id,
        joined: &Result<(Id, Result<Receipt, SinkFailure>), JoinError>,
    ) -> bool {
        let Some(test) = self.tests.remove(&id) else {
            return false;
        };
        if let Ok((_, result)) = joined {
            let took = self.clock.steady().saturating_sub(test.began);
            let result = match result {
                Ok(receipt) => Ok(words(receipt.outcome)),
                Err(failure) => Err(failure.message.clone()),
            };
            // Whoever asked may have gone in the meantime.
            test.answer.send(Tested { took, result }).ok();
        }
        true
    }
}

/// How a test arrived.
fn words(outcome: DeliveryOutcome) -> String {
    match outcome {
        DeliveryOutcome::Written => "a file was written, and removed again".to_owned(),
        DeliveryOutcome::Accepted(status) => format!("the receiver took it with status {status}"),
        DeliveryOutcome::Ran => "the program took it and ended well".to_owned(),
        DeliveryOutcome::Unchanged | DeliveryOutcome::Removed | DeliveryOutcome::LeftOut => {
            "nothing had to be handed over".to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn only_a_step_back_counts() {
        let noon: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        let minute = Duration::from_mins(1);
        let last = (noon, minute);
        for (wall, wanted) in [
            (60, false),
            (59, false),
            (3600, false),
            (0, true),
            (-600, true),
        ] {
            let is = Timestamp::from_second(noon.as_second() + wall).unwrap();
            assert_eq!(went_back(last, (is, minute * 2)), wanted, "{wall}");
        }
    }
}
