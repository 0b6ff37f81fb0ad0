//! The declaration of an identity as its row keeps it: all of [`Spec`] that has no column of its own; and
//! as `identities.jsonl` keeps it, where the store alone has it.

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

/// What `identities.jsonl` keeps of a declaration, in the words of an import: all of it where the store
/// alone has it, who makes it where a source does, and nothing where a configuration file does.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// Who declares it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// What its tokens may be used for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scopes: Option<Vec<Scope>>,
    /// The life asked of ACS, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifetime_seconds: Option<u64>,
    /// The share of a token's own life after which it is renewed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renew_at: Option<f64>,
    /// The share of a token's own life by which renewals are spread.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spread: Option<f64>,
    /// Free words to select by.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Who may read it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub readers: Vec<Reader>,
    /// Where its tokens go.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sinks: Vec<SinkName>,
    /// What happens when it is no longer named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_removal: Option<OnRemoval>,
}

impl Kept {
    pub(super) fn of(
        origin: Origin,
        wish: impl FnOnce() -> Result<Wish, serde_json::Error>,
    ) -> Result<Self, serde_json::Error> {
        Ok(match origin {
            Origin::File => Self::default(),
            Origin::Source(_) => Self {
                origin: Some(origin),
                ..Self::default()
            },
            Origin::Cli => {
                let wish = wish()?;
                Self {
                    origin: Some(origin),
                    scopes: Some(wish.scopes),
                    lifetime_seconds: Some(wish.lifetime_secs),
                    renew_at: Some(wish.renew_at),
                    spread: Some(wish.spread),
                    labels: wish.labels,
                    readers: wish.readers,
                    sinks: wish.sinks,
                    on_removal: Some(wish.on_removal),
                }
            }
        })
    }

    /// The whole declaration, where it is one.
    pub(super) fn into_spec(self, name: Name, resource: ResourceName) -> Option<Spec> {
        let origin = self.origin.filter(|origin| *origin == Origin::Cli)?;
        let wish = Wish {
            id: None,
            scopes: self.scopes?,
            lifetime_secs: self.lifetime_seconds?,
            renew_at: self.renew_at?,
            spread: self.spread?,
            labels: self.labels,
            readers: self.readers,
            sinks: self.sinks,
            on_removal: self.on_removal.unwrap_or_default(),
        };
        Some(wish.into_spec(name, resource, origin))
    }
}
