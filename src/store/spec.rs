//! The declaration of an identity as its row keeps it: all of [`Spec`] that has no column of its own.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use crate::model::{
    IdentityId, Name, OnRemoval, Origin, Reader, ResourceName, Scope, SinkName, Spec,
};

/// What is wished of an identity. Equal wishes are equal as text, so that an unchanged declaration
/// is known without parsing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Wish {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<IdentityId>,
    pub(super) scopes: Vec<Scope>,
    pub(super) lifetime_secs: u64,
    pub(super) renew_at: f64,
    pub(super) spread: f64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) labels: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) readers: Vec<Reader>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) sinks: Vec<SinkName>,
    #[serde(default)]
    pub(super) on_removal: OnRemoval,
}

impl Wish {
    pub(super) fn of(spec: &Spec) -> Self {
        Self {
            id: spec.id.clone(),
            scopes: spec.scopes.clone(),
            lifetime_secs: spec.lifetime.as_secs(),
            renew_at: spec.renew_at,
            spread: spec.spread,
            labels: spec.labels.clone(),
            readers: spec.readers.clone(),
            sinks: spec.sinks.clone(),
            on_removal: spec.on_removal,
        }
    }

    pub(super) fn into_spec(self, name: Name, resource: ResourceName, origin: Origin) -> Spec {
        Spec {
            name,
            resource,
            id: self.id,
            scopes: self.scopes,
            lifetime: Duration::from_secs(self.lifetime_secs),
            renew_at: self.renew_at,
            spread: self.spread,
            labels: self.labels,
            readers: self.readers,
            sinks: self.sinks,
            on_removal: self.on_removal,
            origin,
        }
    }

    pub(super) fn parse(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    pub(super) fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}
