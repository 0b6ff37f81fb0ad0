//! Where nobody else waits: whether it is the row or the resource that fails is asked by a harmless
//! signed call, so that no token is minted only to find out.

use std::{fmt, time::Duration};

use futures_util::future::BoxFuture;

use super::{Lane, Moment, queue::Line};
use crate::{
    acs::Proof,
    model::{Operation, Record},
    schedule::{Steady, call_deadline},
    store::StoreError,
};

/// As long as between two attempts.
const REST: Duration = Duration::from_secs(1);

/// How such a call ended.
pub(super) type Asked = (Operation, Result<Option<Proof>, StoreError>);

/// What is being asked.
#[derive(Default)]
pub(super) struct Doubts {
    asking: Option<BoxFuture<'static, Asked>>,
    /// So long those that led to the question wait after its answer.
    pub(super) rest: Steady,
    /// How the last call failed, in the words that people are told.
    pub(super) because: String,
}

impl fmt::Debug for Doubts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Doubts")
            .field("asking", &self.asking.is_some())
            .finish_non_exhaustive()
    }
}

impl Doubts {
    /// Whether an answer is waited for.
    pub(super) fn is_asking(&self) -> bool {
        self.asking.is_some()
    }

    /// Waits for the answer, for ever where nothing is asked.
    pub(super) async fn answered(&mut self) -> Asked {
        let Some(asking) = &mut self.asking else {
            return std::future::pending().await;
        };
        let asked = asking.await;
        self.asking = None;
        asked
    }
}

impl Lane {
    /// Whether this row, whose turn it is, must wait until it is known what its failures are about;
    /// finds out.
    pub(super) fn is_doubtful(
        &mut self,
        operation: Operation,
        record: &Record,
        now: Moment,
    ) -> bool {
        let (alone, testified, doubted) = {
            let gate = self.permits.gate();
            let has_testified = |row: &Record| gate.has_testified(operation, row.num);
            let alone = self
                .queue_of(Line::main(operation))
                .ready
                .iter()
                .all(has_testified);
            let doubted = alone && gate.is_doubted(operation, record.num);
            (alone, has_testified(record), doubted)
        };
        // Where others wait they are witnesses, but so may be the next that fails by itself.
        let asks = doubted || !alone && self.permits.gate().is_forbidding(operation);
        if asks && self.doubts.asking.is_none() {
            self.ask(operation, record, now);
        }
        doubted || alone && testified && now.steady < self.doubts.rest
    }

    /// Whether this row, whose turn it is, must wait because a harmless call is the next probe; makes it as
    /// soon as a probe may go out.
    pub(super) fn awaits_proof(
        &mut self,
        operation: Operation,
        record: &Record,
        now: Moment,
    ) -> bool {
        if !self.permits.gate().wants_proof(operation) {
            return false;
        }
        let remaining = self.remaining(record, now);
        let room = self.permits.gate().room(operation, remaining, now.steady);
        if room > 0 && self.doubts.asking.is_none() {
            self.ask(operation, record, now);
        }
        true
    }

    fn ask(&mut self, operation: Operation, record: &Record, now: Moment) {
        let (permits, client) = (self.permits.clone(), self.client.clone());
        let deadline = call_deadline(self.remaining(record, now));
        self.doubts.asking = Some(Box::pin(async move {
            (operation, permits.prove_in_use(&client, deadline).await)
        }));
    }

    /// The harmless call has ended.
    pub(super) fn on_proof(&mut self, (operation, proof): Asked) {
        let now = self.moment();
        self.doubts.rest = now.steady + REST;
        match proof {
            Ok(Some(Proof::Accepted)) => {
                let finding = self.permits.gate().proved(operation, now);
                if finding.opened {
                    self.hastening = Some(now.wall);
                }
            }
            Ok(Some(Proof::Denied(why))) => {
                self.conclude(operation, &why, now);
                self.permits.gate().keys_refused(&why, now.steady);
            }
            Ok(Some(Proof::Unknown(why))) => self.conclude(operation, &why, now),
            // There was no permit: it is asked again.
            Ok(None) => {}
            Err(error) => self.outbox.failed(&error, now.steady),
        }
    }

    /// It is about the resource, for the reason that the harmless call gave.
    fn conclude(&mut self, operation: Operation, because: &str, now: Moment) {
        if self.permits.gate().is_probing(operation) {
            let mut gate = self.permits.gate();
            return gate.disproved(operation, because, now.steady);
        }
        let finding = self.permits.gate().conclude(operation, because, now);
        self.take_back(&finding);
    }
}
