//! Webhooks: signed as Standard Webhooks libraries expect, judged by the status alone, bounded.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use renewd::{
    config::{ContentType, EventBody, Include, LoadedSecret, SecretRef, WebhookSinkSettings},
    model::{Notice, NoticeKind, Secret, Timestamp},
    sinks::{DeliveryOutcome, WebhookSink},
    transport::{Transport, TransportError},
};

use crate::samples::{delivery, document, token};

const OLD: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
pub(crate) const NEW: &str = "whsec_//79/Pv6+fj39vX08/Lx8O/u7ezr6uno5+bl5OPi4eA=";

pub(crate) fn settings(url: &str, secrets: &[&str]) -> WebhookSinkSettings {
    let loaded = |text: &&str| LoadedSecret {
        from: SecretRef::Env("SECRET".to_owned()),
        secret: Secret::new((*text).to_owned()),
    };
    WebhookSinkSettings {
        rate: None,
        name: "crm".parse().unwrap(),
        url: url.to_owned(),
        allow_http: false,
        allow_private: false,
        proxy: None,
        secrets: secrets.iter().map(loaded).collect(),
        include: Include::Token,
        content_type: ContentType::CloudEvents,
        body: EventBody::Event,
        events: vec!["token.*".to_owned()],
        ca_file: None,
        timeout: Duration::from_secs(15),
    }
}

type Seen = Arc<Mutex<Vec<Request<Bytes>>>>;

/// A receiver in this process that keeps what it got and answers like this.
fn receiver(status: u16, headers: &'static [(&str, &str)], body: String) -> (Transport, Seen) {
    let seen = Seen::default();
    let kept = Arc::clone(&seen);
    let handler = Arc::new(move |request: Request<Bytes>| {
        kept.lock().unwrap().push(request);
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        let response = response.body(Bytes::from(body.clone())).unwrap();
        Box::pin(async move { Ok(response) }) as _
    });
    (Transport::InProcess(handler), seen)
}

fn sink(transport: Transport, secrets: &[&str]) -> WebhookSink {
    WebhookSink::new(
        &settings("https://crm.example/hooks", secrets),
        "web-1",
        Some(transport),
    )
    .unwrap()
}

#[tokio::test]
async fn the_official_library_accepts_either_secret_while_rotating() {
    let (transport, seen) = receiver(204, &[], String::new());
    let sink = sink(transport, &[NEW, OLD]);
    let outcome = sink
        .deliver(&delivery(document("bot", 7), &[]), Timestamp::now())
        .await
        .unwrap();
    assert_eq!(outcome, DeliveryOutcome::Accepted(204));
    let seen = seen.lock().unwrap();
    let request = &seen[0];
    assert_eq!(
        request.headers()["content-type"],
        "application/cloudevents+json; charset=utf-8"
    );
    for secret in [NEW, OLD] {
        let library = standardwebhooks::Webhook::new(secret).unwrap();
        library.verify(request.body(), request.headers()).unwrap();
    }
    let event: serde_json::Value = serde_json::from_slice(request.body()).unwrap();
    assert_eq!(
        event["id"],
        request.headers()["webhook-id"].to_str().unwrap()
    );
    assert_eq!(event["data"]["token"], token(7));
    let stranger = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
    let library = standardwebhooks::Webhook::new(stranger).unwrap();
    assert!(library.verify(request.body(), request.headers()).is_err());
}

#[tokio::test]
async fn as_plain_json_body_id_and_signature_are_the_same() {
    let (transport, seen) = receiver(204, &[], String::new());
    let now = Timestamp::from_second(1_795_366_800).unwrap();
    for content_type in [ContentType::CloudEvents, ContentType::Json] {
        let settings = WebhookSinkSettings {
            content_type,
            ..settings("https://crm.example/hooks", &[NEW])
        };
        let sink = WebhookSink::new(&settings, "web-1", Some(transport.clone())).unwrap();
        sink.deliver(&delivery(document("bot", 7), &[]), now)
            .await
            .unwrap();
    }
    let seen = seen.lock().unwrap();
    let (events, json) = (&seen[0], &seen[1]);
    assert_eq!(
        json.headers()["content-type"],
        "application/json; charset=utf-8"
    );
    assert_eq!(json.body(), events.body());
    for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
        assert_eq!(json.headers()[name], events.headers()[name], "{name}");
    }
}

#[tokio::test]
async fn every_attempt_is_signed_anew_under_the_same_id() {
    let (transport, seen) = receiver(200, &[], String::new());
    let sink = sink(transport, &[NEW]);
    let now = Timestamp::from_second(1_795_366_800).unwrap();
    for at in [now, now + Duration::from_secs(5)] {
        sink.deliver(&delivery(document("bot", 7), &[]), at)
            .await
            .unwrap();
    }
    let seen = seen.lock().unwrap();
    let header = |n: usize, name| seen[n].headers()[name].to_str().unwrap();
    assert_eq!(header(0, "webhook-id"), header(1, "webhook-id"));
    assert_eq!(header(0, "webhook-timestamp"), "1795366800");
    assert_eq!(header(1, "webhook-timestamp"), "1795366805");
    assert_ne!(
        header(0, "webhook-signature"),
        header(1, "webhook-signature")
    );
    assert_eq!(seen[0].body(), seen[1].body());
}

#[tokio::test]
async fn the_status_alone_decides_and_the_answer_is_never_quoted() {
    let echo = token(7);
    for (status, disable) in [(302, false), (401, false), (410, true), (500, false)] {
        let headers = &[
            ("location", "https://elsewhere.example/"),
            ("retry-after", "77"),
        ];
        let (transport, seen) = receiver(status, headers, echo.clone());
        let sink = sink(transport, &[NEW]);
        let failure = sink
            .deliver(&delivery(document("bot", 7), &[]), Timestamp::now())
            .await
            .unwrap_err();
        assert_eq!(failure.disable, disable, "{status}");
        assert_eq!(failure.retry_after, Some(Duration::from_secs(77)));
        assert!(failure.message.contains(&status.to_string()), "{failure}");
        assert!(!format!("{failure:?}").contains(&echo[..20]), "{failure}");
        assert_eq!(seen.lock().unwrap().len(), 1);
    }
}

#[tokio::test]
async fn events_that_are_not_wanted_are_left_out() {
    let (transport, seen) = receiver(200, &[], String::new());
    let mut wanted = settings("https://crm.example/hooks", &[NEW]);
    wanted.events = vec!["resource.*".to_owned()];
    let sink = WebhookSink::new(&wanted, "web-1", Some(transport)).unwrap();
    let outcome = sink
        .deliver(&delivery(document("bot", 7), &[]), Timestamp::now())
        .await;
    assert_eq!(outcome, Ok(DeliveryOutcome::LeftOut));
    let notice = |kind| Notice {
        at: Timestamp::now(),
        kind,
        resource: Some("contoso".parse().unwrap()),
        name: None,
        key: None,
        message: "contoso does not answer".to_owned(),
    };
    let now = Timestamp::now();
    let outcome = sink
        .announce(1, &notice(NoticeKind::KeyRejected), now)
        .await;
    assert_eq!(outcome, Ok(DeliveryOutcome::LeftOut));
    let outcome = sink
        .announce(2, &notice(NoticeKind::ResourceUnreachable), now)
        .await;
    assert_eq!(outcome, Ok(DeliveryOutcome::Accepted(200)));
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 1);
    let event: serde_json::Value = serde_json::from_slice(seen[0].body()).unwrap();
    assert_eq!(event["type"], "renewd.resource.unreachable");
    let library = standardwebhooks::Webhook::new(NEW).unwrap();
    library.verify(seen[0].body(), seen[0].headers()).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_hangs_is_given_up_at_the_deadline() {
    let handler = Arc::new(|_| Box::pin(std::future::pending()) as _);
    let sink = sink(Transport::InProcess(handler), &[NEW]);
    let began = tokio::time::Instant::now();
    let failure = sink
        .deliver(&delivery(document("bot", 7), &[]), Timestamp::now())
        .await
        .unwrap_err();
    assert_eq!(began.elapsed(), Duration::from_secs(15));
    assert!(
        failure
            .message
            .contains("https://crm.example: no complete answer within 15s"),
        "{failure}"
    );
}

#[tokio::test]
async fn transport_errors_name_the_receiver() {
    let handler =
        Arc::new(|_| Box::pin(async { Err(TransportError::Connect("refused".to_owned())) }) as _);
    let sink = sink(Transport::InProcess(handler), &[NEW]);
    let failure = sink
        .deliver(&delivery(document("bot", 7), &[]), Timestamp::now())
        .await
        .unwrap_err();
    assert_eq!(
        failure.message,
        "cannot post to https://crm.example: cannot connect: refused"
    );
}

#[test]
fn settings_that_cannot_work_are_refused_without_showing_them() {
    let new = |settings: &WebhookSinkSettings| {
        WebhookSink::new(settings, "web-1", Some(receiver(200, &[], String::new()).0)).map(|_| ())
    };
    let good = settings("https://crm.example/hooks", &[NEW]);
    assert!(new(&good).is_ok());
    for (secrets, why) in [
        (&[][..], "no secret"),
        (&["whsec_c2hvcnQ="], "24 to 64"),
        (&["hush-hush"], "whsec_"),
    ] {
        let error = new(&settings("https://crm.example/hooks", secrets))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(why) && !error.contains("hush") && !error.contains("c2hvcnQ"),
            "{error}"
        );
    }
    let error = new(&settings("http://crm.example/s3cret", &[NEW]))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("allow_http") && !error.contains("s3cret"),
        "{error}"
    );
}
