//! A webhook receiver: verifies every delivery and remembers what each subject was told.
//!
//! It answers in this process or behind a socket, and can be told to refuse, throttle or hang. A
//! delivery is accepted only if its Standard Webhooks signature is right and its body a CloudEvents
//! 1.0 event with the same id; a version that goes backwards is accepted and counted, so that a
//! test can see it.

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

pub use memory::Conduct;
pub use memory::{Received, Told};
pub use signature::UnlikeAWebhookSecret;

use memory::Memory;
use memory::{Manners, Response as Manner};
use signature::Verifier;

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

    fn judge(&self, request: &Request<Bytes>) -> Result<signature::Event, String> {
        if request.method() != http::Method::POST {
            return Err(format!("{} is not POST", request.method()));
        }
        let headers: &HeaderMap = request.headers();
        let id = self
            .verifier
            .verify(headers, request.body(), self.clock.now())?;
        signature::read(headers, request.body(), id)
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
mod tests {
    //! Deliveries end to end, without a socket and with one.

    use std::time::Duration;

    use base64::{Engine, prelude::BASE64_STANDARD};
    use serde_json::{Value, json};

    use super::*;
    use crate::{REASON_HEADER, access_keys::hmac_sha256};

    const SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

    fn receiver() -> Arc<Receiver> {
        let clock = Clock::simulated("2026-11-22T12:00:00Z".parse().unwrap());
        Arc::new(Receiver::new(&[Secret::new(SECRET.to_owned())], clock).unwrap())
    }

    fn delivery(receiver: &Receiver, id: &str, data: &Value) -> Request<Bytes> {
        let event = json!({
            "specversion": "1.0", "id": id, "source": "renewd/i/r", "subject": "bot",
            "type": "renewd.token.renewed", "data": data,
        });
        let (at, body) = (receiver.clock.now().as_second(), event.to_string());
        let key = BASE64_STANDARD.decode(&SECRET["whsec_".len()..]).unwrap();
        let signature = hmac_sha256(&key, format!("{id}.{at}.{body}").as_bytes());
        Request::post("/")
            .header(
                "content-type",
                "application/cloudevents+json; charset=utf-8",
            )
            .header("webhook-id", id)
            .header("webhook-timestamp", at)
            .header(
                "webhook-signature",
                format!("v1,{}", BASE64_STANDARD.encode(signature)),
            )
            .body(Bytes::from(body))
            .unwrap()
    }

    async fn deliver(receiver: &Receiver, id: &str, version: i64) -> Option<u16> {
        let request = delivery(receiver, id, &json!({"version": version, "token": id}));
        Some(receiver.handle(request).await.status()?.as_u16())
    }

    #[tokio::test(start_paused = true)]
    async fn it_keeps_the_newest_and_sees_what_goes_backwards() {
        let receiver = receiver();
        for (id, version) in [("a", 5), ("a", 5), ("b", 7), ("c", 6)] {
            assert_eq!(deliver(&receiver, id, version).await, Some(204));
        }
        let told = receiver.received().tokens["bot"].clone();
        assert_eq!((told.count, told.repeated, told.backwards), (4, 1, 1));
        assert_eq!((told.id.as_str(), told.version), ("c", 6));
        assert_eq!(told.token, Some(Secret::new("c".to_owned())));
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_is_taken_by_either_content_type() {
        let receiver = receiver();
        for kind in [
            "application/cloudevents+json",
            "application/json",
            "Application/JSON ; charset=utf-8",
        ] {
            let mut request = delivery(&receiver, "a", &json!({"version": 1}));
            request
                .headers_mut()
                .insert("content-type", kind.parse().unwrap());
            let status = receiver.handle(request).await.status();
            assert_eq!(status, Some(StatusCode::NO_CONTENT), "{kind}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_no_version_is_a_notice() {
        let receiver = receiver();
        let request = delivery(&receiver, "n", &json!({"message": "x"}));
        receiver.handle(request).await;
        let received = receiver.received();
        assert_eq!(
            received.notices,
            [("renewd.token.renewed".to_owned(), "bot".to_owned())]
        );
        assert!(received.tokens.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn it_behaves_as_it_is_told_so_often() {
        let receiver = receiver();
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        receiver.behave(Conduct::Refuse { status, times: 2 });
        for expected in [500, 500, 204] {
            assert_eq!(deliver(&receiver, "a", 1).await, Some(expected));
        }
        receiver.behave(Conduct::Throttle {
            seconds: 7,
            times: 1,
        });
        let request = delivery(&receiver, "b", &json!({"version": 2}));
        match receiver.handle(request).await {
            Reply::Answer(answer) => assert_eq!(answer.headers()[RETRY_AFTER], "7"),
            other => panic!("{other:?}"),
        }
        receiver.behave(Conduct::Hang { times: 1 });
        assert_eq!(deliver(&receiver, "b", 2).await, None);
        receiver.behave(Conduct::Gone);
        for _ in 0..3 {
            assert_eq!(deliver(&receiver, "b", 2).await, Some(410));
        }
        let received = receiver.received();
        assert_eq!((received.accepted, received.turned_away), (1, 7));
    }

    #[tokio::test(start_paused = true)]
    async fn a_wrong_delivery_is_refused_with_a_reason() {
        let receiver = receiver();
        let mut request = delivery(&receiver, "a", &json!({"version": 1, "token": "canary"}));
        request
            .headers_mut()
            .insert("content-type", "text/plain".parse().unwrap());
        let Reply::Answer(answer) = receiver.handle(request).await else {
            panic!("an answer was due");
        };
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
        assert!(
            answer.headers()[REASON_HEADER]
                .to_str()
                .unwrap()
                .contains("content type")
        );
        let mut request = delivery(&receiver, "a", &json!({"version": 1}));
        *request.body_mut() = Bytes::from_static(b"{}");
        receiver.handle(request).await;
        let received = receiver.received();
        assert_eq!((received.refused.len(), received.accepted), (2, 0));
        assert!(!format!("{received:?}").contains("canary"));
    }

    #[tokio::test]
    async fn it_answers_behind_a_socket() {
        let secrets = [Secret::new(SECRET.to_owned())];
        let receiver = Arc::new(Receiver::new(&secrets, Clock::system()).unwrap());
        let bound = receiver.bind("127.0.0.1:0").await.unwrap();
        let address = bound.url()["http://".len()..]
            .trim_end_matches('/')
            .to_owned();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let task = tokio::spawn(bound.run_until(async {
            stopped.await.ok();
        }));
        let request = delivery(&receiver, "a", &json!({"version": 1}));
        let stream = tokio::net::TcpStream::connect(&address).await.unwrap();
        let io = hyper_util::rt::TokioIo::new(stream);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        let driver = tokio::spawn(connection);
        let answer = sender
            .send_request(request.map(http_body_util::Full::new))
            .await
            .unwrap();
        assert_eq!(answer.status(), StatusCode::NO_CONTENT);
        drop(sender);
        driver.await.unwrap().unwrap();
        assert_eq!(receiver.received().tokens["bot"].version, 1);
        stop.send(()).unwrap();
        tokio::time::timeout(Duration::from_secs(10), task)
            .await
            .unwrap()
            .unwrap();
    }
}
