//! Statements that were sent to the server before the answers to earlier ones were there, so that a round trip is paid
//! once for many. What went wrong with one of them is told to whoever waits next.

use std::{
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::time::{error::Elapsed, timeout};
use tokio_postgres::Error;

type Sent = Pin<Box<dyn Future<Output = Result<u64, Error>> + Send>>;

/// In the order in which they were sent, which is that of their answers.
#[derive(Default)]
pub(super) struct Pipeline(Vec<Sent>);

impl Pipeline {
    /// Sends one: the connection passes it on once somebody waits for anything. An error: it could not be sent.
    pub(super) fn send(&mut self, statement: Sent) -> Result<(), Error> {
        let (mut statement, mut nobody) = (statement, Context::from_waker(Waker::noop()));
        match statement.as_mut().poll(&mut nobody) {
            Poll::Ready(answer) => answer.map(drop),
            Poll::Pending => {
                self.0.push(statement);
                Ok(())
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Waits for all answers, for each of them so long. The first error of them: after that the server takes nothing more.
    pub(super) async fn drain(self, deadline: Duration) -> Result<Result<(), Error>, Elapsed> {
        let mut first = Ok(());
        for sent in self.0 {
            let answer = timeout(deadline, sent).await?;
            first = first.and(answer.map(drop));
        }
        Ok(first)
    }
}
