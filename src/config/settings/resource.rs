//! What is said of resources: what proves to them who calls, and which limits are kept there.

use std::{path::PathBuf, time::Duration};

use super::LoadedSecret;
use crate::{
    config::quantity,
    model::{BearerKind, KeyRole, ResourceName},
};

/// `[[resource]]`.
#[derive(Debug, Clone, PartialEq)]
pub struct ResourceSettings {
    pub name: ResourceName,
    pub credential: CredentialSettings,
    /// Trust these certificates besides the system's, of the resource and of Entra ID.
    pub ca_file: Option<PathBuf>,
    /// The proxy that every call goes through, `http://host:port`; one to a metadata service never does.
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

/// What proves to a resource who calls.
#[derive(Debug, Clone, PartialEq)]
pub enum CredentialSettings {
    Keys(KeySettings),
    Entra(EntraSettings),
}

impl CredentialSettings {
    pub fn keys(&self) -> Option<&KeySettings> {
        match self {
            Self::Keys(keys) => Some(keys),
            Self::Entra(_) => None,
        }
    }

    pub fn entra(&self) -> Option<&EntraSettings> {
        match self {
            Self::Keys(_) => None,
            Self::Entra(entra) => Some(entra),
        }
    }

    /// Its secrets, each with the key that names it, as seen from `[[resource]]`.
    pub fn secrets(&self) -> Vec<(&'static str, &LoadedSecret)> {
        match self {
            Self::Keys(keys) => {
                let secondary = keys.secondary_connection_string.as_ref();
                std::iter::once(("connection_string", &keys.connection_string))
                    .chain(secondary.map(|secret| ("secondary_connection_string", secret)))
                    .collect()
            }
            Self::Entra(entra) => entra.kind.secret().into_iter().collect(),
        }
    }
}

/// The access keys of a resource.
#[derive(Debug, Clone, PartialEq)]
pub struct KeySettings {
    /// With the primary key.
    pub connection_string: LoadedSecret,
    pub secondary_connection_string: Option<LoadedSecret>,
}

impl KeySettings {
    pub fn of(&self, role: KeyRole) -> Option<&LoadedSecret> {
        match role {
            KeyRole::Primary => Some(&self.connection_string),
            KeyRole::Secondary => self.secondary_connection_string.as_ref(),
        }
    }
}

/// `endpoint =` and `[resource.entra]`. Addresses end with their host, without a slash.
#[derive(Debug, Clone, PartialEq)]
pub struct EntraSettings {
    /// Where the resource listens.
    pub endpoint: String,
    pub kind: EntraKind,
    /// Where Entra ID gives bearers out.
    pub authority: String,
    /// What a bearer is asked for, with `/.default` at its end.
    pub scope: String,
}

/// What proves to Entra ID who asks for a bearer.
#[derive(Debug, Clone, PartialEq)]
pub enum EntraKind {
    /// The machine: its metadata service says so.
    ManagedIdentity { selector: Option<IdentitySelector> },
    /// A token of Kubernetes, read from this file each time.
    WorkloadIdentity {
        tenant: String,
        client_id: String,
        token_file: PathBuf,
    },
    ClientSecret {
        tenant: String,
        client_id: String,
        secret: LoadedSecret,
    },
    ClientCertificate {
        tenant: String,
        client_id: String,
        /// PEM: the certificate, those above it, and its RSA key.
        certificate: LoadedSecret,
    },
}

impl EntraSettings {
    /// Whether both ask the same authority for bearers of the same caller, whatever proves who that is.
    pub fn asks_like(&self, other: &Self) -> bool {
        let place = |entra: &Self| (entra.authority.clone(), entra.scope.clone());
        place(self) == place(other)
            && self.kind.name() == other.kind.name()
            && self.kind.caller() == other.kind.caller()
    }
}

impl EntraKind {
    /// Tenant and client id, or which identity of the machine.
    fn caller(&self) -> (Option<[&str; 2]>, Option<&IdentitySelector>) {
        match self {
            Self::ManagedIdentity { selector } => (None, selector.as_ref()),
            Self::WorkloadIdentity {
                tenant, client_id, ..
            }
            | Self::ClientSecret {
                tenant, client_id, ..
            }
            | Self::ClientCertificate {
                tenant, client_id, ..
            } => (Some([tenant, client_id]), None),
        }
    }

    /// The key that says it.
    pub fn name(&self) -> BearerKind {
        match self {
            Self::ManagedIdentity { .. } => BearerKind::ManagedIdentity,
            Self::WorkloadIdentity { .. } => BearerKind::WorkloadIdentity,
            Self::ClientSecret { .. } => BearerKind::ClientSecret,
            Self::ClientCertificate { .. } => BearerKind::ClientCertificate,
        }
    }

    /// What of it is secret, with the key that names it, as seen from `[[resource]]`.
    pub fn secret(&self) -> Option<(&'static str, &LoadedSecret)> {
        match self {
            Self::ManagedIdentity { .. } | Self::WorkloadIdentity { .. } => None,
            Self::ClientSecret { secret, .. } => Some(("entra.client_secret", secret)),
            Self::ClientCertificate { certificate, .. } => {
                Some(("entra.client_certificate", certificate))
            }
        }
    }

    pub fn secret_mut(&mut self) -> Option<&mut LoadedSecret> {
        match self {
            Self::ManagedIdentity { .. } | Self::WorkloadIdentity { .. } => None,
            Self::ClientSecret { secret, .. } => Some(secret),
            Self::ClientCertificate { certificate, .. } => Some(certificate),
        }
    }
}

/// Which of a machine's identities calls, where it is not the machine's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdentitySelector {
    ClientId(String),
    ObjectId(String),
    ResourceId(String),
}

/// `create =`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CreatePolicy {
    /// Create what has no id yet, unless the id map says that it should have one.
    Auto,
    Never,
}

/// So many calls in any window of this length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    pub calls: u32,
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
    pub issue: Limit,
    pub create: Limit,
    /// Create an identity with a token.
    pub create_with_token: Limit,
    /// Revoke an identity's tokens.
    pub revoke: Limit,
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
