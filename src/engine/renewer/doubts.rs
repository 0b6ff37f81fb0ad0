//! Whether it is a row or its resource that fails: where nobody else waits, a harmless signed call tells, so that no
//! token is minted only to find out.

use std::time::Duration;

use tokio::task::{JoinError, JoinSet};

use super::{Moment, Renewer, calls::Line};
use crate::{
    acs::Proof,
    model::{Operation, Record},
    schedule::{Action, HeldBy, Steady, call_deadline, is_refused_again, waits_for_vouching},
    store::StoreError,
};

/// Harmless calls are made for those that are refused again and again where so many at most fail.
const FEW: usize = 3;
/// Before such a call, between two, and before the row's own turn.
const CALL_REST: Duration = Duration::from_mins(1);
/// As long as between two attempts.
const REST: Duration = Duration::from_secs(1);

/// How such a call ended.
pub(super) type ProofAnswer = (Operation, Result<Option<Proof>, StoreError>);

/// What is being asked.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    /// Goes on by itself: what it waits for at the store, the renewer may be waiting for behind it.
    asking: JoinSet<ProofAnswer>,
    /// It is asked because of a row that is refused, which may not be called for before this.
    of_refusal: bool,
    pub(super) refusal_rest: Steady,
    /// So long those that led to the question wait after its answer.
    pub(super) rest: Steady,
    /// How the last call failed, in the words that people are told.
    pub(super) because: String,
}

impl Doubts {
    /// Whether those that are refused again and again wait for harmless calls.
    pub(super) fn vouches(&self, now: Steady) -> bool {
        self.of_refusal || now < self.refusal_rest
    }

    /// Whether an answer is waited for.
    pub(super) fn is_asking(&self) -> bool {
        !self.asking.is_empty()
    }

    /// Waits for the answer, for ever where nothing is asked.
    pub(super) async fn answered(&mut self) -> Result<ProofAnswer, JoinError> {
        match self.asking.join_next().await {
            Some(answered) => answered,
            None => std::future::pending().await,
        }
    }
}

impl Renewer {
    /// Makes the harmless call that tells what failures are about, where that is in question: for the row whose
    /// turn it is, or, where others wait who are witnesses, for the next that may fail by itself. Whether the
    /// row has to wait for it although it was decided that it may go.
    pub(super) async fn find_out(
        &mut self,
        line: Line,
        record: &Record,
        action: &Action,
        now: Moment,
    ) -> Result<bool, StoreError> {
        let operation = line.operation;
        let by = match action {
            Action::HeldBack { by, .. } => Some(*by),
            _ => None,
        };
        let asks = match by {
            // As soon as a probe may go out.
            // Nothing can be found out without one.
            Some(HeldBy::Bearer) => return Ok(true),
            Some(HeldBy::Proof) => {
                let remaining = self.remaining(record, now);
                self.permits.gate().room(operation, remaining, now.steady) > 0
            }
            Some(HeldBy::Doubt) => self.permits.gate().is_doubted(operation, record.num),
            _ if record.failing_since.is_some() => false,
            _ => {
                let forbidding = self.permits.gate().is_forbidding(operation);
                forbidding && !self.headroom(Line::main(operation)).testified
            }
        };
        if asks && !self.doubts.is_asking() {
            self.ask(operation, record, now);
        }
        match by {
            Some(HeldBy::Proof | HeldBy::Doubt) => Ok(true),
            _ => self.asks_for_vouching(line, record, now).await,
        }
    }

    /// Makes the harmless call that says whether anybody else than a row that was refused again and again would
    /// be, where nobody else waits. Then it waits.
    async fn asks_for_vouching(
        &mut self,
        line: Line,
        record: &Record,
        now: Moment,
    ) -> Result<bool, StoreError> {
        let operation = line.operation;
        let mut beside = self.queue_of(line).ready.iter();
        // Where others wait, it is seen what becomes of them.
        let asks = !line.alone
            && waits_for_vouching(record, self.remaining(record, now))
            && beside.all(is_refused_again)
            && self.permits.gate().asks_for_vouching(operation, record.num);
        if !asks || self.doubts.is_asking() {
            return Ok(false);
        }
        let name = &self.settings.name;
        if self.store.failing_among_others(name, FEW + 1).await? > FEW {
            return Ok(false);
        }
        self.ask(operation, record, now);
        self.doubts.of_refusal = true;
        Ok(true)
    }

    fn ask(&mut self, operation: Operation, record: &Record, now: Moment) {
        let (permits, client) = (self.permits.clone(), self.client.clone());
        let deadline = call_deadline(self.remaining(record, now));
        self.doubts
            .asking
            .spawn(async move { (operation, permits.prove_in_use(&client, deadline).await) });
    }

    /// The harmless call has ended.
    pub(super) fn on_proof(&mut self, asked: Result<ProofAnswer, JoinError>) {
        let now = self.moment();
        let (operation, proof) = match asked {
            Ok(answer) => answer,
            Err(error) => {
                tracing::error!(resource = %self.settings.name, %error, "a harmless call failed by itself; it is made again");
                self.doubts.of_refusal = false;
                self.doubts.rest = now.steady + CALL_REST;
                return;
            }
        };
        if std::mem::take(&mut self.doubts.of_refusal) {
            return self.on_vouched(operation, proof, now);
        }
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
            // An answer that nobody is served with vouches for nobody.
            Ok(Some(Proof::Unserved(why) | Proof::Unknown(why))) => {
                self.conclude(operation, &why, now);
            }
            // There was no permit: it is asked again.
            Ok(None) => {}
            Err(error) => self.outbox.failed(&error, now.steady),
        }
    }

    /// The same of a call that was made because of a row that is refused.
    fn on_vouched(
        &mut self,
        operation: Operation,
        proof: Result<Option<Proof>, StoreError>,
        now: Moment,
    ) {
        self.doubts.refusal_rest = now.steady + CALL_REST;
        let mut gate = self.permits.gate();
        match proof {
            Ok(Some(Proof::Accepted)) => gate.vouches(operation, true),
            Ok(Some(Proof::Unserved(_) | Proof::Unknown(_))) => gate.vouches(operation, false),
            Ok(Some(Proof::Denied(why))) => {
                gate.vouches(operation, false);
                gate.keys_refused(&why, now.steady);
            }
            Ok(None) => {}
            Err(error) => {
                drop(gate);
                self.outbox.failed(&error, now.steady);
            }
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
