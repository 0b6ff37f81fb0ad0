//! Access keys on the wire.

use serde::{Deserialize, Serialize};

pub use crate::model::{KeyChange, KeyItem, KeyRole, KeyStage, KeyStanding, KeyWork};
use crate::model::{KeyDoubt, NoneWorks, ResourceName};

/// `GET /v1/keys/{resource}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceKeys {
    /// The resource.
    pub resource: ResourceName,
    /// Which key signs.
    pub in_use: KeyRole,
    /// Its keys, the primary first.
    pub keys: Vec<KeyLine>,
    /// Tokens that can be issued in a minute.
    pub issues_per_minute: u64,
    /// Keys whose tokens may be dead, with how many are not replaced yet.
    #[serde(default)]
    pub doubts: Vec<KeyDoubt>,
    /// Since when no key works, if none does.
    #[serde(default)]
    pub none_works: Option<NoneWorks>,
    /// The newest replacement, over or not.
    pub change: Option<KeyChange>,
}

/// One key of a resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyLine {
    /// Which of the two.
    pub role: KeyRole,
    /// Its one-way name.
    pub fingerprint: String,
    /// What the service last said of it.
    pub standing: KeyStanding,
    /// Live tokens that it minted.
    pub tokens: u64,
    /// The command that regenerates it at Azure; the resource group is not known here.
    pub regenerate: String,
}

/// `POST /v1/keys/{resource}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplaceKey {
    /// Why, and in which order.
    pub work: KeyWork,
    /// Which key; left out: the one in use.
    #[serde(default)]
    pub role: Option<KeyRole>,
    /// Why, for the audit trail.
    #[serde(default)]
    pub reason: Option<String>,
}
