//! What is asked about deliveries and sinks.

use std::time::Duration;

use http::Method;

use super::{Client, ClientError, encoded};
use crate::{
    api::wire::{AskDeliveries, AskSink, AskedDeliveries, DeliveryRow, Page, SinkTested, Sinks},
    model::{Name, SinkName},
};

/// A sink's own deadline is the limit of its test; the longest is that of a program.
const LONGEST_TEST: Duration = Duration::from_mins(10);

/// Which rows of the delivery table are listed.
#[derive(Debug, Clone, Default)]
pub struct DeliveryTable {
    /// Of this identity.
    pub name: Option<Name>,
    /// Of this sink.
    pub sink: Option<SinkName>,
    /// Those that are still to be delivered.
    pub pending: bool,
    /// Those that nothing is attempted for by itself.
    pub dead: bool,
}

impl Client {
    /// The delivery table, in pages.
    pub async fn deliveries(
        &self,
        of: &DeliveryTable,
        after: Option<&str>,
    ) -> Result<Page<DeliveryRow>, ClientError> {
        let mut path = format!("/v1/deliveries?pending={}&dead={}", of.pending, of.dead);
        if let Some(name) = &of.name {
            path.push_str(&format!("&name={}", encoded(name.as_str())));
        }
        if let Some(sink) = &of.sink {
            path.push_str(&format!("&sink={}", encoded(sink.as_str())));
        }
        self.page(&path, after).await
    }

    /// Attempts pending deliveries now.
    pub async fn retry(&self, ask: &AskDeliveries) -> Result<AskedDeliveries, ClientError> {
        let path = "/v1/deliveries/retry";
        self.call(Method::POST, path, Some(ask)).await
    }

    /// Delivers current versions once more.
    pub async fn replay(&self, ask: &AskDeliveries) -> Result<AskedDeliveries, ClientError> {
        let path = "/v1/deliveries/replay";
        self.call(Method::POST, path, Some(ask)).await
    }

    /// Every sink.
    pub async fn sinks(&self) -> Result<Sinks, ClientError> {
        self.get("/v1/sinks").await
    }

    /// Stops deliveries to a sink until it is enabled.
    pub async fn pause(&self, sink: &SinkName, ask: &AskSink) -> Result<Sinks, ClientError> {
        let path = format!("/v1/sinks/{sink}/pause");
        self.call(Method::POST, &path, Some(ask)).await
    }

    /// Lets deliveries go out again.
    pub async fn enable(&self, sink: &SinkName, ask: &AskSink) -> Result<Sinks, ClientError> {
        let path = format!("/v1/sinks/{sink}/enable");
        self.call(Method::POST, &path, Some(ask)).await
    }

    /// Tries a sink out with a synthetic document.
    pub async fn test(&self, sink: &SinkName, ask: &AskSink) -> Result<SinkTested, ClientError> {
        let path = format!("/v1/sinks/{sink}/test");
        self.call_within(Method::POST, &path, Some(ask), LONGEST_TEST)
            .await
    }
}
