//! An identity that is added, checked against what there is: by the daemon, or by the command line
//! while none runs.

use std::{collections::BTreeSet, time::Duration};

use super::wire::NewIdentity;
use crate::{
    config::Renewal,
    model::{Origin, ResourceName, SinkName, Spec},
};

/// What an added identity may refer to, and what it takes where it says nothing.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// The resources that there are.
    pub resources: BTreeSet<ResourceName>,
    /// The sinks that there are.
    pub sinks: BTreeSet<SinkName>,
    /// `[renewal]`.
    pub renewal: Renewal,
}

impl NewIdentity {
    /// What is added, with the defaults of the configuration filled in.
    ///
    /// # Errors
    /// What is wrong with it, in a sentence.
    pub fn spec(self, within: &Surroundings) -> Result<Spec, String> {
        if let Some(unknown) = self.sinks.iter().find(|sink| !within.sinks.contains(*sink)) {
            return Err(format!("there is no sink {unknown}"));
        }
        let mut scopes = self.scopes;
        scopes.sort_unstable();
        scopes.dedup();
        if scopes.is_empty() {
            return Err("scopes is empty".to_owned());
        }
        let lifetime = match self.lifetime_seconds {
            None => within.renewal.lifetime,
            Some(seconds) if (3600..=86_400).contains(&seconds) && seconds % 60 == 0 => {
                Duration::from_secs(seconds)
            }
            Some(_) => {
                return Err(
                    "the lifetime must be whole minutes, 3600 to 86400 seconds (1 h to 24 h)"
                        .to_owned(),
                );
            }
        };
        Ok(Spec {
            resource: within.resource(self.resource)?,
            name: self.name,
            id: self.id,
            scopes,
            lifetime,
            renew_at: within.renewal.renew_at,
            spread: within.renewal.spread,
            labels: self.labels,
            readers: self.readers,
            sinks: self.sinks,
            on_removal: self.on_removal,
            origin: Origin::Cli,
        })
    }
}

impl Surroundings {
    /// The resource that is named, or the only one.
    pub(super) fn resource(&self, named: Option<ResourceName>) -> Result<ResourceName, String> {
        let only = || {
            self.resources
                .first()
                .filter(|_| self.resources.len() == 1)
                .cloned()
        };
        let chosen = match named {
            Some(name) => self.resources.contains(&name).then_some(name),
            None => only(),
        };
        chosen.ok_or_else(|| {
            let known: Vec<&str> = self.resources.iter().map(ResourceName::as_str).collect();
            format!("the resource must be one of {}", known.join(", "))
        })
    }
}
