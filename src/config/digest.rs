//! What the machines of a cluster must say alike, in a word that can be compared: everything but `[daemon]`, paths,
//! secrets and `nodes`.

use std::path::PathBuf;

use sha2::{Digest as _, Sha256};

use super::{
    CredentialSettings, EntraKind, LoadedSecret, SecretRef, Settings, SinkSettings, SourceKind,
    Template,
};
use crate::model::hex;

/// So much of a digest tells two configurations apart.
const SHOWN: usize = 6;

impl Settings {
    /// The same on all machines that are configured alike.
    pub fn digest(&self) -> String {
        let mut alike = self.clone();
        for resource in &mut alike.resources {
            resource.ca_file = None;
            match &mut resource.credential {
                CredentialSettings::Keys(keys) => {
                    forget(&mut keys.connection_string);
                    keys.secondary_connection_string.iter_mut().for_each(forget);
                }
                CredentialSettings::Entra(entra) => {
                    entra.kind.secret_mut().into_iter().for_each(forget);
                    if let EntraKind::WorkloadIdentity { token_file, .. } = &mut entra.kind {
                        *token_file = PathBuf::new();
                    }
                }
            }
        }
        alike.sinks.iter_mut().for_each(without_places);
        for source in &mut alike.sources {
            source.nodes.clear();
            match &mut source.kind {
                SourceKind::Sqlite { path, .. } | SourceKind::File { path } => {
                    *path = PathBuf::new()
                }
                SourceKind::Exec { .. } => {}
            }
        }
        let Self {
            renewal,
            resources,
            identities,
            sinks,
            jobs,
            sources,
            ..
        } = &alike;
        let name = self.cluster.as_ref().map(|cluster| &cluster.name);
        let kept = (self.store.keep_renewals, self.store.keep_other);
        let text = format!(
            "{name:?} {kept:?} {renewal:?} {resources:?} {identities:?} {sinks:?} {jobs:?} {sources:?}"
        );
        hex(&Sha256::digest(text)[..SHOWN])
    }
}

fn forget(secret: &mut LoadedSecret) {
    secret.from = SecretRef::Env(String::new());
}

fn without_places(sink: &mut SinkSettings) {
    let nowhere = |template: &mut Template| template.file = None;
    match sink {
        SinkSettings::File(file) => {
            file.path = String::new();
            file.template.iter_mut().for_each(nowhere);
            file.nodes.clear();
        }
        SinkSettings::Webhook(webhook) => {
            webhook.ca_file = None;
            webhook.secrets.iter_mut().for_each(forget);
        }
        SinkSettings::Exec(exec) => exec.nodes.clear(),
    }
}
