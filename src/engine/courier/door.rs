//! What a courier can be asked while it runs: to go on at once, and to try its sink out.

use tokio::{
    sync::oneshot,
    task::{Id, JoinError},
};

use super::Courier;
use crate::{
    model::{ResourceName, Tested},
    schedule::Steady,
    sinks::{Outcome, Receipt, SinkFailure},
};

/// Asks that wait to be heard.
pub(super) const WAITING: usize = 16;

/// What a courier can be asked.
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

impl Courier {
    pub(super) fn asked(&mut self, ask: Ask) {
        match ask {
            Ask::GoOn => {
                self.quiet_until = None;
                self.breaker.probe_now(self.clock.steady());
                self.look = true;
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
fn words(outcome: Outcome) -> String {
    match outcome {
        Outcome::Written => "a file was written, and removed again".to_owned(),
        Outcome::Accepted(status) => format!("the receiver took it with status {status}"),
        Outcome::Ran => "the program took it and ended well".to_owned(),
        Outcome::Unchanged | Outcome::Removed | Outcome::LeftOut => {
            "nothing had to be handed over".to_owned()
        }
    }
}
