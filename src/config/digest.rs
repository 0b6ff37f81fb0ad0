//! What the machines of a cluster must say alike, in a word that can be compared: everything but `[daemon]`, paths and
//! `nodes` of sinks and sources. Of secrets it holds what only whoever has the seal key can compute, so that the word
//! shows nothing of them.

use std::path::PathBuf;

use sha2::{Digest as _, Sha256};

use super::{
    CredentialSettings, EntraKind, LoadedSecret, SecretRef, Settings, SinkSettings, SourceKind,
    Template,
};
use crate::model::digest_of_parts;

impl Settings {
    /// The same on all machines that are configured alike, but for their secrets.
    pub fn digest(&self) -> String {
        digest_of_parts(&self.parts_alike())
    }

    /// The same with their secrets, of each of which `mark` makes what shows nothing of it.
    pub fn digest_with(&self, mark: impl Fn(&[u8]) -> [u8; 32]) -> String {
        let marked = |secrets: Vec<&LoadedSecret>| -> [u8; 32] {
            let mut sum = Sha256::new();
            for secret in secrets {
                sum.update(mark(secret.secret.expose().as_bytes()));
            }
            sum.finalize().into()
        };
        let of_resources = self
            .resources
            .iter()
            .flat_map(|one| one.credential.secrets());
        let of_resources = of_resources.map(|(_, secret)| secret);
        let of_sinks = self.sinks.iter().filter_map(|sink| match sink {
            SinkSettings::Webhook(webhook) => Some(&webhook.secrets),
            SinkSettings::File(_) | SinkSettings::Exec(_) => None,
        });
        let mut parts = self.parts_alike();
        parts.push(marked(of_resources.collect()));
        parts.push(marked(of_sinks.flatten().collect()));
        digest_of_parts(&parts)
    }

    fn parts_alike(&self) -> Vec<[u8; 32]> {
        self.alike.clone().unwrap_or_else(|| self.alike())
    }

    /// The digests of the parts of [`crate::model::CONFIGURATION_PARTS`] that hold no secret, where nothing is left out of
    /// them yet.
    pub(super) fn alike(&self) -> Vec<[u8; 32]> {
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
        let cluster = self.cluster.as_ref().map(|one| (&one.name, &one.nodes));
        let kept = (self.store.keep_renewals, self.store.keep_other);
        let texts = [
            format!("{cluster:?}"),
            format!("{kept:?}"),
            format!("{:?}", alike.renewal),
            format!("{:?}", alike.resources),
            format!("{:?}", alike.identities),
            format!("{:?}", alike.sinks),
            format!("{:?}", alike.jobs),
            format!("{:?}", alike.sources),
        ];
        texts
            .iter()
            .map(|text| Sha256::digest(text).into())
            .collect()
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
