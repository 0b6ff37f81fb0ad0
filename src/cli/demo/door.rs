//! The emulator's control door: where the demo asks which tokens live, and makes trouble.

use std::{path::PathBuf, time::Duration};

use bytes::Bytes;
use http::{Method, Request};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    model::Secret,
    transport::{NetworkOptions, Transport},
};

use super::super::exit::Failed;

/// Far more than any answer here.
const LARGEST: usize = 4 * 1024 * 1024;
/// How long the emulator may take.
const DEADLINE: Duration = Duration::from_secs(5);

pub(super) struct Door {
    transport: Transport,
    /// `https://127.0.0.1:PORT`, without a slash.
    endpoint: String,
}

/// What the emulator says of one token.
#[derive(Debug, Deserialize)]
pub(super) struct Verdict {
    pub(super) live: bool,
}

impl Door {
    pub(super) fn new(endpoint: &str, ca_file: PathBuf) -> Result<Self, Failed> {
        let options = NetworkOptions {
            ca_file: Some(ca_file),
            ..NetworkOptions::default()
        };
        Ok(Self {
            transport: Transport::network(&options).map_err(Failed::plain)?,
            endpoint: endpoint.trim_end_matches('/').to_owned(),
        })
    }

    /// Which of these tokens live, in their order.
    pub(super) async fn judge(&self, tokens: &[&Secret]) -> Result<Vec<Verdict>, Failed> {
        let tokens: Vec<&str> = tokens.iter().map(|token| token.expose()).collect();
        let mut answer = self
            .ask(Method::POST, "tokens", &json!({ "tokens": tokens }))
            .await?;
        read(answer["results"].take())
    }

    /// From now on every call to ACS has its connection reset; the number ends it.
    pub(super) async fn begin_outage(&self) -> Result<u64, Failed> {
        let mut answer = self
            .ask(Method::POST, "faults", &json!({ "kind": "outage" }))
            .await?;
        read(answer["number"].take())
    }

    pub(super) async fn end_outage(&self, number: u64) -> Result<(), Failed> {
        let door = format!("faults/{number}");
        self.ask(Method::DELETE, &door, &Value::Null)
            .await
            .map(drop)
    }

    /// How many identities were created, and how many calls of all got no answer.
    pub(super) async fn counts(&self) -> Result<(u64, u64), Failed> {
        let answer = self.ask(Method::GET, "stats", &Value::Null).await?;
        let operations = answer["operations"].as_object();
        let unanswered = operations
            .into_iter()
            .flat_map(|operations| operations.values());
        let unanswered = unanswered
            .filter_map(|counts| counts["unanswered"].as_u64())
            .sum();
        Ok((read(answer["identities"]["created"].clone())?, unanswered))
    }

    /// When the last revocation took place, by the emulator's clock.
    pub(super) async fn revoked_at(&self) -> Result<Timestamp, Failed> {
        let door = "requests?limit=1&operation=revoke";
        let mut answer = self.ask(Method::GET, door, &Value::Null).await?;
        read(answer["requests"][0]["at"].take())
    }

    async fn ask(&self, method: Method, door: &str, body: &Value) -> Result<Value, Failed> {
        let cannot = |why: &dyn std::fmt::Display| {
            Failed::plain(format!(
                "the emulator's control door does not answer: {why}"
            ))
        };
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let request = Request::builder()
            .method(method)
            .uri(format!("{}/_emulator/v1/{door}", self.endpoint))
            .header("content-type", "application/json")
            .body(Bytes::from(body))
            .map_err(|error| cannot(&error))?;
        let reply = self.transport.send(request, LARGEST, DEADLINE).await;
        let reply = reply.map_err(|error| cannot(&error))?;
        if !reply.status.is_success() {
            return Err(cannot(&reply.status));
        }
        serde_json::from_slice(&reply.body).map_err(|error| cannot(&error))
    }
}

fn read<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, Failed> {
    serde_json::from_value(value).map_err(|error| {
        Failed::plain(format!(
            "the emulator's control door says something unexpected: {error}"
        ))
    })
}
