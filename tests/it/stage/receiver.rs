//! A webhook receiver that trusts nothing: signatures are verified by the `standardwebhooks` library,
//! and a version that goes backwards is written down.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::Bytes,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use serde_json::Value;

use super::WEBHOOK_SECRET;

#[derive(Default)]
pub struct Received {
    /// Newest event by subject.
    pub newest: BTreeMap<String, Value>,
    /// Every event type, counted.
    pub types: BTreeMap<String, u64>,
    /// What should never happen, in words.
    pub wrong: Vec<String>,
    /// Answer this status instead of 204 for so many requests.
    pub refuse: Option<(StatusCode, u32)>,
}

pub struct Receiver {
    pub url: String,
    pub received: Arc<Mutex<Received>>,
    server: tokio::task::JoinHandle<()>,
}

impl Receiver {
    pub async fn start() -> Self {
        let received = Arc::new(Mutex::new(Received::default()));
        let state = received.clone();
        let app =
            Router::new().route(
                "/hook",
                post(move |headers: HeaderMap, body: Bytes| async move {
                    receive(&state, &headers, &body)
                }),
            );
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self {
            url,
            received,
            server,
        }
    }
}

fn receive(state: &Mutex<Received>, headers: &HeaderMap, body: &[u8]) -> StatusCode {
    let mut received = state.lock().unwrap();
    if let Some((status, left)) = received.refuse.take() {
        if left > 1 {
            received.refuse = Some((status, left - 1));
        }
        return status;
    }
    let webhook = standardwebhooks::Webhook::new(WEBHOOK_SECRET).unwrap();
    if let Err(error) = webhook.verify(body, headers) {
        received.wrong.push(format!("bad signature: {error}"));
        return StatusCode::UNAUTHORIZED;
    }
    let event: Value = serde_json::from_slice(body).unwrap();
    if event["id"] != headers["webhook-id"].to_str().unwrap() {
        received
            .wrong
            .push(format!("event id {} is not the webhook-id", event["id"]));
    }
    *received
        .types
        .entry(event["type"].as_str().unwrap().to_owned())
        .or_default() += 1;
    if let Some(version) = event["data"]["version"].as_u64() {
        let subject = event["subject"].as_str().unwrap().to_owned();
        let before = received
            .newest
            .get(&subject)
            .and_then(|e| e["data"]["version"].as_u64());
        if before.is_some_and(|before| version < before) {
            received
                .wrong
                .push(format!("{subject}: version {version} after {before:?}"));
        }
        received.newest.insert(subject, event);
    }
    StatusCode::NO_CONTENT
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.server.abort();
    }
}
