//! Takes the new key up once it works.

use super::{Keys, round::DEADLINE};
use crate::{
    acs::{AccessKey, ConnectionString, Proof},
    config::{Environment, LoadedSecret, SecretRef, reload_secret},
    model::{KeyChange, KeyRole, KeyStage},
    store::StoreError,
};

/// What lies in the place of a key.
pub(super) enum Found {
    /// The same key as before.
    Same,
    /// Another one, which works.
    Works(AccessKey),
    /// Something that cannot be used; why.
    Unusable(String),
}

impl Keys {
    /// Looks where the configuration says: a file is read again; what came from the environment or
    /// as a credential was read when the process started.
    pub(super) async fn successor(&self, role: KeyRole, before: &str) -> Result<Found, StoreError> {
        let Some(loaded) = self.secret_of(role) else {
            return Ok(Found::Same);
        };
        let found = match &loaded.from {
            SecretRef::File(_) => reload_secret(&loaded.from, &Environment::of_process()),
            SecretRef::Credential(_) | SecretRef::Env(_) => Ok(loaded.clone()),
        };
        let read = match found {
            Ok(found) => ConnectionString::parse(&found.secret).map_err(|e| e.to_string()),
            Err(error) => Err(error.to_string()),
        };
        let ours = ConnectionString::parse(&self.settings.connection_string.secret);
        let key = match (read, ours) {
            (Ok(string), Ok(ours)) if string.endpoint != ours.endpoint => {
                return Ok(Found::Unusable(format!(
                    "the new {role} connection string is one of {}, not of {}: another resource is taken up by a \
                     reload alone",
                    string.endpoint, ours.endpoint
                )));
            }
            (Ok(string), _) => string.key,
            (Err(why), _) => {
                return Ok(Found::Unusable(format!(
                    "the new {role} connection string cannot be read: {why}"
                )));
            }
        };
        if key.fingerprint() == before {
            return Ok(Found::Same);
        }
        let (permits, client) = (&self.permits, &self.client);
        let proof = permits.prove_new(client, role, &key, DEADLINE).await?;
        Ok(match proof {
            Proof::Accepted => Found::Works(key),
            Proof::Denied(why) => Found::Unusable(format!("the new {role} key is refused: {why}")),
            Proof::Unknown(why) => {
                Found::Unusable(format!("the new {role} key could not be proved yet: {why}"))
            }
        })
    }

    /// Takes the successor up that a change waits for, if it is there.
    pub(super) async fn look_for_successor(
        &self,
        change: &mut KeyChange,
    ) -> Result<(), StoreError> {
        match self.successor(change.role, &change.old_key).await? {
            Found::Works(key) => self.take_up(change, key),
            Found::Unusable(why) => change.trouble = Some(why),
            Found::Same => {
                let from = self.secret_of(change.role).map(|loaded| &loaded.from);
                change.trouble = from.and_then(|from| awaited(change, from));
            }
        }
        Ok(())
    }

    fn take_up(&self, change: &mut KeyChange, key: AccessKey) {
        self.client.take_up(change.role, key);
        self.permits.gate().keys_accepted();
        // The successor works, so the old key is no more.
        change.refused_at.get_or_insert(self.clock.now());
        change.trouble = None;
        change.stage = KeyStage::Done;
    }

    fn secret_of(&self, role: KeyRole) -> Option<&LoadedSecret> {
        match role {
            KeyRole::Primary => Some(&self.settings.connection_string),
            KeyRole::Secondary => self.settings.secondary_connection_string.as_ref(),
        }
    }
}

/// What the operator has to do, once the old key is refused.
fn awaited(change: &KeyChange, from: &SecretRef) -> Option<String> {
    change.refused_at?;
    let (role, resource) = (change.role, &change.resource);
    Some(match from {
        SecretRef::File(path) => format!(
            "the new {role} connection string is awaited in {}: renewd key set {resource} --key {role}",
            path.display()
        ),
        SecretRef::Credential(name) => format!(
            "the new {role} connection string is awaited as the credential {name}: put it there and restart the \
             daemon; tokens and socket survive that"
        ),
        SecretRef::Env(name) => format!(
            "the new {role} connection string is awaited in the variable {name}: set it and restart the daemon; \
             tokens and socket survive that"
        ),
    })
}
