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
