//! What is said of resources, and which limits are kept there.

use std::{path::PathBuf, time::Duration};

use super::LoadedSecret;
use crate::{config::quantity, model::ResourceName};

/// `[[resource]]`.
#[derive(Debug, Clone, PartialEq)]
pub struct ResourceSettings {
    /// Its name.
    pub name: ResourceName,
    /// The primary connection string.
    pub connection_string: LoadedSecret,
    /// The secondary one.
    pub secondary_connection_string: Option<LoadedSecret>,
    /// Trust these certificates besides the system's.
    pub ca_file: Option<PathBuf>,
    /// The proxy that every call goes through, `http://host:port`.
    pub proxy: Option<String>,
    /// Such as `2023-10-01`.
    pub api_version: String,
    /// Whether missing identities are created.
    pub create: CreatePolicy,
    /// What this installation may use of what ACS allows, by operation.
    pub limits: Limits,
    /// Calls in flight at once.
    pub max_in_flight: usize,
}

/// `create =`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CreatePolicy {
    /// Create what has no id yet, unless the id map says that it should have one.
    Auto,
    /// Never create.
    Never,
}

/// So many calls in any window of this length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// Calls.
    pub calls: u32,
    /// Window.
    pub window: Duration,
}

impl std::fmt::Display for Limit {
    /// As it would be read: `50/1s`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let window = quantity::duration_text(self.window);
        write!(f, "{}/{window}", self.calls)
    }
}

/// `limits =`; what is left out keeps the documented limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Issue a token.
    pub issue: Limit,
    /// Create an identity.
    pub create: Limit,
    /// Create an identity with a token.
    pub create_with_token: Limit,
    /// Revoke an identity's tokens.
    pub revoke: Limit,
    /// Delete an identity.
    pub delete: Limit,
    /// Exchange a Teams token.
    pub exchange: Limit,
}

impl Limits {
    /// The part of them that one of several installations may use; never less than one call.
    pub fn shared(self, share: f64) -> Self {
        let part = |limit: Limit| Limit {
            calls: ((f64::from(limit.calls) * share).round() as u32).max(1),
            ..limit
        };
        Self {
            issue: part(self.issue),
            create: part(self.create),
            create_with_token: part(self.create_with_token),
            revoke: part(self.revoke),
            delete: part(self.delete),
            exchange: part(self.exchange),
        }
    }
}
