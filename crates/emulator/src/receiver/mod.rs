//! A webhook receiver: verifies every delivery and remembers what each subject was told.
//!
//! It answers in this process or behind a socket, and can be told to refuse, throttle or hang. A
//! delivery is accepted only if its Standard Webhooks signature is right and its body a CloudEvents
//! 1.0 event with the same id; a version that goes backwards is accepted and counted, so that a
//! test can see it.

mod conduct;
mod event;
mod memory;
mod signature;

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header::RETRY_AFTER};
use tokio::net::TcpListener;

use renewd_acs_wire::Secret;
use renewd_clock::Clock;

use super::{
    answer::{self, Answering, Reply},
    socket::{self, Replying},
};

pub use conduct::Conduct;
pub use memory::{Received, Told};
pub use signature::UnlikeAWebhookSecret;

use conduct::{Manners, Response as Manner};
use memory::Memory;
use signature::Verifier;

/// A webhook receiver.
#[derive(Debug)]
pub struct Receiver {
    verifier: Verifier,
    clock: Clock,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    memory: Memory,
    manners: Manners,
}

impl Receiver {
    /// A receiver that takes signatures by any of these secrets (`whsec_…`).
    ///
    /// # Errors
    /// When one is not such a secret.
    pub fn new(secrets: &[Secret], clock: Clock) -> Result<Self, UnlikeAWebhookSecret> {
        Ok(Self {
            verifier: Verifier::new(secrets)?,
            clock,
            state: Mutex::default(),
        })
    }

    /// Answers one delivery: 204, or as [`Receiver::behave`] says; 4xx with a reason where the
    /// delivery itself is wrong, whatever the conduct.
    pub async fn handle(&self, request: Request<Bytes>) -> Reply {
        let judged = self.judge(&request);
        let mut state = self.state();
        let event = match judged {
            Ok(event) => event,
            Err(why) => {
                tracing::warn!("a delivery was refused: {why}");
                let mut refusal = respond(StatusCode::BAD_REQUEST);
                answer::explain(refusal.headers_mut(), &why);
                state.memory.refuse(why);
                return Reply::Answer(refusal);
            }
        };
        match state.manners.next() {
            Manner::Accept => {
                state.memory.take(event, self.clock.now());
                Reply::Answer(respond(StatusCode::NO_CONTENT))
            }
            Manner::Status(status, retry_after) => {
                state.memory.turn_away();
                let mut refusal = respond(status);
                if let Some(seconds) = retry_after {
                    refusal.headers_mut().insert(RETRY_AFTER, seconds.into());
                }
                Reply::Answer(refusal)
            }
            Manner::Hang => {
                state.memory.turn_away();
                Reply::Hang
            }
        }
    }

    /// How to treat deliveries from now on.
    pub fn behave(&self, conduct: Conduct) {
        self.state().manners.set(conduct);
    }

    /// Everything that was told, by subject and in its order.
    pub fn received(&self) -> Received {
        self.state().memory.received()
    }

    /// The receiver as a function for a transport in this process; as for the emulator.
    pub fn as_handler<E: 'static>(
        self: &Arc<Self>,
        broken: impl Fn(&'static str) -> E + Clone + Send + Sync + 'static,
    ) -> Answering<E> {
        let receiver = Arc::clone(self);
        Arc::new(move |request| {
            let (receiver, broken) = (Arc::clone(&receiver), broken.clone());
            Box::pin(async move { receiver.handle(request).await.settle(broken).await })
        })
    }

    /// Binds an address (port 0 takes a free one); `http://…/` is then its URL.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub async fn bind(self: &Arc<Self>, listen: &str) -> io::Result<BoundReceiver> {
        let listener = TcpListener::bind(listen).await?;
        Ok(BoundReceiver {
            url: format!("http://{}/", listener.local_addr()?),
            listener,
            receiver: Arc::clone(self),
        })
    }

    fn judge(&self, request: &Request<Bytes>) -> Result<event::Event, String> {
        if request.method() != http::Method::POST {
            return Err(format!("{} is not POST", request.method()));
        }
        let headers: &HeaderMap = request.headers();
        let id = self
            .verifier
            .verify(headers, request.body(), self.clock.now())?;
        event::read(headers, request.body(), id)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A receiver that is bound to its address.
#[derive(Debug)]
pub struct BoundReceiver {
    url: String,
    listener: TcpListener,
    receiver: Arc<Receiver>,
}

impl BoundReceiver {
    /// Where to deliver to.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Serves until `stop`.
    pub async fn run_until(self, stop: impl Future<Output = ()>) {
        let receiver = self.receiver;
        let replying: Replying = Arc::new(move |request| {
            let receiver = Arc::clone(&receiver);
            Box::pin(async move { receiver.handle(request).await })
        });
        socket::serve(self.listener, None, replying, stop).await;
    }
}

fn respond(status: StatusCode) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests;
