//! The delivery table and the sinks, as operators see them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    model::{DispatcherView, Name, SinkName, Version},
    store::Listed,
};

/// One row of `GET /v1/deliveries`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryRow {
    /// The identity.
    pub name: Name,
    /// The sink.
    pub sink: SinkName,
    /// The version that the consumer should hold.
    pub wanted: Version,
    /// The version that it confirmed; 0 before the first.
    pub delivered: Version,
    /// Whether `wanted` is still to be delivered.
    pub pending: bool,
    /// Since when the consumer is behind, while pending.
    #[serde(default)]
    pub since: Option<Timestamp>,
    /// Failed attempts at `wanted`.
    pub attempts: u32,
    /// The next attempt, while pending.
    pub next_at: Option<Timestamp>,
    /// Sinks that come before this one (`after`) and have not delivered this version yet.
    #[serde(default)]
    pub waits_for: Vec<SinkName>,
    /// How the last attempt at `wanted` failed.
    pub last_error: Option<String>,
    /// When the identity's token ends.
    pub expires_at: Option<Timestamp>,
}

impl From<Listed> for DeliveryRow {
    fn from(listed: Listed) -> Self {
        let delivery = listed.delivery;
        let pending = delivery.is_pending();
        Self {
            name: delivery.name,
            sink: delivery.sink,
            wanted: delivery.wanted,
            delivered: delivery.delivered,
            pending,
            since: pending.then_some(delivery.since),
            attempts: delivery.attempts,
            next_at: pending.then_some(delivery.next_at),
            waits_for: listed.waits_for,
            last_error: delivery.last_error,
            expires_at: delivery.expires_at,
        }
    }
}

/// `POST /v1/deliveries/retry` and `/replay`: either names, or all of a choice.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AskDeliveries {
    /// Of these identities.
    #[serde(default)]
    pub names: Vec<Name>,
    /// Of every identity.
    #[serde(default)]
    pub all: bool,
    /// Of this sink alone.
    #[serde(default)]
    pub sink: Option<SinkName>,
    /// Only those that nothing is attempted for by itself.
    #[serde(default)]
    pub dead: bool,
    /// Why, for the audit trail.
    #[serde(default)]
    pub reason: Option<String>,
}

/// How many were asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskedDeliveries {
    /// So many are due now.
    pub due: u64,
    /// Sinks among the chosen that are disabled: theirs wait until they are enabled.
    pub disabled: Vec<SinkName>,
}

/// `GET /v1/sinks`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sinks {
    /// When this was true.
    pub at: Timestamp,
    /// In the order of their names.
    pub sinks: Vec<SinkRow>,
}

/// One sink.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SinkRow {
    /// Its name.
    pub name: SinkName,
    /// How it is, in one word.
    pub state: SinkState,
    /// Deliveries that wait or are on their way.
    pub pending: u64,
    /// Since when the oldest of them is pending.
    pub oldest_pending: Option<Timestamp>,
    /// How long that is, in seconds.
    pub lag_seconds: Option<f64>,
    /// What its dispatcher published.
    #[serde(flatten)]
    pub dispatcher: DispatcherView,
}

/// How a sink is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SinkState {
    /// Deliveries go out.
    Open,
    /// The last ones failed.
    Failing,
    /// Its receiver wants nothing more (410).
    Disabled,
    /// A command stopped it.
    Paused,
}

impl SinkState {
    /// What a dispatcher's view says.
    pub fn of(dispatcher: &DispatcherView) -> Self {
        match dispatcher {
            DispatcherView { paused: true, .. } => Self::Paused,
            DispatcherView {
                disabled: Some(_), ..
            } => Self::Disabled,
            DispatcherView {
                failures_in_row: 0, ..
            } => Self::Open,
            DispatcherView { .. } => Self::Failing,
        }
    }
}

/// `POST /v1/sinks/{name}/pause`, `/enable` and `/test`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AskSink {
    /// Why, for the audit trail.
    #[serde(default)]
    pub reason: Option<String>,
}

/// How `POST /v1/sinks/{name}/test` ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SinkTested {
    /// The sink.
    pub sink: SinkName,
    /// What kind it is.
    pub kind: String,
    /// Where it leads.
    pub target: String,
    /// Whether the synthetic document arrived.
    pub arrived: bool,
    /// How it arrived, or why it did not, in one sentence.
    pub answer: String,
    /// From the attempt's beginning to its end.
    pub took_ms: u64,
}
