//! The emulator's control API: where the demo asks which tokens live, and makes trouble.

use std::{path::Path, time::Duration};

use jiff::Timestamp;
use renewd_acs_wire::Secret;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::DemoError;

/// How long the emulator may take.
const DEADLINE: Duration = Duration::from_secs(5);

pub(super) struct ControlClient {
    http: reqwest::Client,
    /// `https://127.0.0.1:PORT`, without a slash.
    endpoint: String,
}

/// What the emulator says of one token.
#[derive(Debug, Deserialize)]
pub(super) struct Verdict {
    pub(super) live: bool,
}

impl ControlClient {
    pub(super) fn new(endpoint: &str, ca_file: &Path) -> Result<Self, DemoError> {
        let cannot = |why: &dyn std::fmt::Display| {
            DemoError::Control(format!("cannot speak to the emulator: {why}"))
        };
        // A second call finds the provider installed already, which is just as well.
        rustls::crypto::ring::default_provider()
            .install_default()
            .ok();
        let pem = std::fs::read(ca_file).map_err(|error| cannot(&error))?;
        let authority = reqwest::Certificate::from_pem_bundle(&pem);
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(DEADLINE)
            .tls_certs_merge(authority.map_err(|error| cannot(&error))?)
            .build();
        Ok(Self {
            http: http.map_err(|error| cannot(&error))?,
            endpoint: endpoint.trim_end_matches('/').to_owned(),
        })
    }

    /// Which of these tokens live, in their order.
    pub(super) async fn judge(&self, tokens: &[&Secret]) -> Result<Vec<Verdict>, DemoError> {
        let tokens: Vec<&str> = tokens.iter().map(|token| token.expose()).collect();
        let mut answer = self
            .ask(Method::POST, "tokens", &json!({ "tokens": tokens }))
            .await?;
        read(answer["results"].take())
    }

    /// From now on every call to ACS has its connection reset; the number ends it.
    pub(super) async fn begin_outage(&self) -> Result<u64, DemoError> {
        let mut answer = self
            .ask(Method::POST, "faults", &json!({ "kind": "outage" }))
            .await?;
        read(answer["number"].take())
    }

    pub(super) async fn end_outage(&self, number: u64) -> Result<(), DemoError> {
        let path = format!("faults/{number}");
        self.ask(Method::DELETE, &path, &Value::Null)
            .await
            .map(drop)
    }

    /// How many identities were created, and how many calls of all got no answer.
    pub(super) async fn counts(&self) -> Result<(u64, u64), DemoError> {
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
    pub(super) async fn revoked_at(&self) -> Result<Timestamp, DemoError> {
        let path = "requests?limit=1&operation=revoke";
        let mut answer = self.ask(Method::GET, path, &Value::Null).await?;
        read(answer["requests"][0]["at"].take())
    }

    async fn ask(&self, method: Method, path: &str, body: &Value) -> Result<Value, DemoError> {
        let cannot = |why: &dyn std::fmt::Display| {
            DemoError::Control(format!("the emulator's control API does not answer: {why}"))
        };
        let url = format!("{}/_emulator/v1/{path}", self.endpoint);
        let mut request = self.http.request(method, url);
        request = request.header("content-type", "application/json");
        if !body.is_null() {
            request = request.body(body.to_string());
        }
        let answer = request.send().await.map_err(|error| cannot(&error))?;
        if !answer.status().is_success() {
            return Err(cannot(&answer.status()));
        }
        let text = answer.bytes().await.map_err(|error| cannot(&error))?;
        serde_json::from_slice(&text).map_err(|error| cannot(&error))
    }
}

fn read<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, DemoError> {
    serde_json::from_value(value).map_err(|error| {
        DemoError::Control(format!(
            "the emulator's control API says something unexpected: {error}"
        ))
    })
}
