//! What the TCP side tells: for a page that does not know who looks.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Need;
use crate::model::{Consumers, ResourceName, SinkName, State};

/// `GET /api/status`: what a page may show without knowing who looks. No names of identities (but
/// in `needs`, with `[daemon] page_names`) and no texts of errors, which may quote anything.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PublicStatus {
    /// When this was true.
    pub at: Timestamp,
    /// The daemon's version.
    pub version: String,
    /// The daemon's name in events.
    pub instance: String,
    /// When its loops were started.
    pub since: Timestamp,
    /// Whether it is ready.
    pub ready: bool,
    /// What needs a person, the worst first.
    pub needs: Vec<Need>,
    /// Who holds a live token; `None` where that cannot be known.
    #[serde(default)]
    pub consumers: Option<Consumers>,
    /// One line for each resource.
    pub resources: Vec<PublicResource>,
    /// One line for each sink.
    pub sinks: Vec<PublicSink>,
}

/// A resource on the page.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PublicResource {
    /// Its name.
    pub name: ResourceName,
    /// `open`, or what is wrong in a sentence.
    pub health: String,
    /// Identities by state, those with a live token as `active`; empty where the store cannot be read.
    pub identities: BTreeMap<State, u64>,
    /// Identities without a live token that had one; `None` where that is not known.
    #[serde(default)]
    pub dead: Option<u64>,
    /// The earliest end of a current token.
    pub earliest_expiry: Option<Timestamp>,
    /// The next renewal.
    pub next_due: Option<Timestamp>,
    /// Calls in flight.
    pub in_flight: usize,
}

/// A sink on the page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicSink {
    /// Its name.
    pub name: SinkName,
    /// Deliveries that wait; `None` where that is not known.
    pub pending: Option<u64>,
    /// Delivered since the start.
    pub delivered: u64,
    /// Failed attempts since the start.
    pub failed: u64,
    /// What is wrong, if anything is: whether it is disabled or failing, without the error's text.
    pub trouble: Option<String>,
}
