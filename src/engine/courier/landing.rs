//! How an attempt ended, and what follows from it.

use std::time::Duration;

use jiff::Timestamp;
use tokio::task::{Id, JoinError};

use super::{Courier, bundle::Load, verifying::Look};
use crate::{
    model::{Name, Num, Version},
    schedule::{delivery_retry_at, quarantine_gap},
    sinks::{Outcome, Receipt, Sink, SinkFailure},
    store::{self, Disabled, Settled},
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

/// What an attempt carries.
#[derive(Debug, Clone)]
pub(super) enum Cargo {
    /// A version of an identity.
    Parcel(Parcel),
    /// The notice with this number.
    Notice(u64),
    /// One file for all.
    Bundle(Load),
    /// A file that is only looked at.
    Look(Look),
}

/// A version of an identity on its way.
#[derive(Debug, Clone)]
pub(super) struct Parcel {
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

impl Parcel {
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

impl Courier {
    pub(super) async fn land(
        &mut self,
        joined: Result<(Id, Result<Receipt, SinkFailure>), JoinError>,
    ) {
        let id = joined.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        if self.land_test(id, &joined) {
            return;
        }
        let Some(cargo) = self.cargo.remove(&id) else {
            return;
        };
        if let Cargo::Look(look) = cargo {
            let found = joined.map_or_else(|_| Err(SinkFailure::new(OURS)), |(_, found)| found);
            return self.looked(look, found).await;
        }
        match joined {
            Ok((_, Ok(receipt))) => self.arrived(cargo, receipt).await,
            Ok((_, Err(failure))) => self.failed(cargo, &failure).await,
            // Where it panicked is in the log already; the payload could hold anything.
            Err(_) => self.quarantine(cargo, OURS.to_owned()),
        }
    }

    async fn arrived(&mut self, cargo: Cargo, receipt: Receipt) {
        let Receipt { outcome, placed } = receipt;
        if outcome != Outcome::LeftOut {
            self.counts.delivered += 1;
            self.counts.last_error = None;
            self.close_breaker().await;
        }
        match cargo {
            Cargo::Notice(seq) => self.notices.arrived(seq),
            Cargo::Bundle(load) => self.bundle_arrived(load, placed).await,
            Cargo::Look(_) => {}
            Cargo::Parcel(Parcel {
                num,
                name,
                version,
                since,
                ..
            }) => {
                tracing::debug!(sink = %self.name, identity = %name, %version, ?outcome, "delivered");
                if outcome != Outcome::LeftOut {
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
    async fn close_breaker(&mut self) {
        if !self.breaker.succeeded() {
            return;
        }
        tracing::info!(sink = %self.name, "the sink works again; everything pending goes out");
        self.empty_queue();
        if let Err(error) = self.store.hasten(&self.name, self.clock.now()).await {
            self.outbox.failed(&error, self.clock.steady());
        }
    }

    async fn failed(&mut self, cargo: Cargo, failure: &SinkFailure) {
        let steady = self.clock.steady();
        let subject = cargo.subject();
        tracing::warn!(sink = %self.name, %subject, error = %failure, "a delivery failed");
        self.note_failure(&failure.message);
        if self.breaker.failed(steady) {
            tracing::warn!(sink = %self.name, "ten deliveries in a row failed; only probes go out");
            self.empty_queue();
        }
        if let Some(wait) = failure.retry_after {
            let now = self.clock.now();
            let within = match &cargo {
                Cargo::Parcel(parcel) => parcel.expires_at.map(|end| wait_within(end, now)),
                Cargo::Notice(_) | Cargo::Bundle(_) | Cargo::Look(_) => None,
            };
            let wait = wait.min(LONGEST_QUIET).min(within.unwrap_or(LONGEST_QUIET));
            self.quiet_until = Some(steady + wait);
        }
        if failure.disable {
            self.disable(&failure.message).await;
        }
        match cargo {
            Cargo::Notice(_) => self.set_back_notice(failure.retry_after),
            Cargo::Bundle(load) => self.bundle_failed(load, &failure.message),
            Cargo::Look(_) => {}
            Cargo::Parcel(parcel) => {
                let next_at = self.next_attempt(&parcel, failure.retry_after);
                self.set_back(&parcel, next_at, failure.message.clone());
            }
        }
    }

    /// The usual wait or the one that was asked for, whichever is longer; beyond the token's end
    /// there is nothing to attempt.
    fn next_attempt(&mut self, parcel: &Parcel, retry_after: Option<Duration>) -> Timestamp {
        let (now, end) = (self.clock.now(), parcel.expires_at);
        let usual = delivery_retry_at(parcel.failures + 1, end, now, &mut self.rng);
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
    pub(super) fn park(&mut self, parcel: &Parcel, why: &str) {
        let next_at = self.clock.now() + PARKED;
        self.set_back(parcel, next_at, why.to_owned());
    }

    /// A fault that lies with us and not with the receiver: this one waits, longer each time.
    pub(super) fn quarantine(&mut self, cargo: Cargo, error: String) {
        let subject = cargo.subject();
        tracing::error!(sink = %self.name, %subject, %error, "a delivery is set aside for a while");
        self.note_failure(&error);
        match cargo {
            Cargo::Notice(_) => self.set_back_notice(None),
            Cargo::Bundle(load) => self.bundle_failed(load, &error),
            Cargo::Look(_) => {}
            Cargo::Parcel(parcel) => {
                let gap = quarantine_gap(parcel.failures, &mut self.rng);
                self.set_back(&parcel, self.clock.now() + gap, error);
            }
        }
    }

    fn note_failure(&mut self, error: &str) {
        self.counts.failed += 1;
        self.counts.last_error = Some(error.to_owned());
    }

    fn set_back(&mut self, parcel: &Parcel, next_at: Timestamp, error: String) {
        self.outbox.add(Settled::Failed {
            sink: self.name.clone(),
            num: parcel.num,
            version: parcel.version,
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

impl Cargo {
    /// The identity, or the notice's number, for the log.
    fn subject(&self) -> String {
        match self {
            Self::Parcel(parcel) => parcel.name.to_string(),
            Self::Notice(seq) => format!("notice {seq}"),
            Self::Bundle(_) => "the bundle".to_owned(),
            Self::Look(_) => "a look at a file".to_owned(),
        }
    }
}
