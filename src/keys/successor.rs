//! Takes the new key up once it works.

use super::{Keys, round::DEADLINE};
use crate::{
    acs::{AccessKey, ConnectionString, Proof},
    config::{Environment, LoadedSecret, SecretRef, reload_secret},
    model::{KeyChange, KeyRole, KeyStage},
};

impl Keys {
    /// Looks where the configuration says: a file is read again; what came from the environment or
    /// as a credential was read when the process started.
    pub(super) async fn look_for_successor(&mut self, change: &mut KeyChange) {
        let role = change.role;
        let Some(loaded) = self.secret_of(role) else {
            return;
        };
        let found = match &loaded.from {
            SecretRef::File(_) => reload_secret(&loaded.from, &Environment::of_process()),
            SecretRef::Credential(_) | SecretRef::Env(_) => Ok(loaded.clone()),
        };
        let read = match found {
            Ok(found) => ConnectionString::parse(&found.secret).map_err(|e| e.to_string()),
            Err(error) => Err(error.to_string()),
        };
        let key = match read {
            Ok(string) => string.key,
            Err(why) => {
                change.trouble = Some(format!(
                    "the new {role} connection string cannot be read: {why}"
                ));
                return;
            }
        };
        if key.fingerprint() == change.old_key {
            change.trouble = awaited(change, &loaded.from);
            return;
        }
        match self.client.prove_new(role, &key, DEADLINE).await {
            Proof::Accepted => self.take_up(change, key),
            Proof::Denied(why) => {
                change.trouble = Some(format!("the new {role} key is refused: {why}"));
            }
            Proof::Unknown(why) => {
                change.trouble = Some(format!("the new {role} key could not be proved yet: {why}"));
            }
        }
    }

    fn take_up(&self, change: &mut KeyChange, key: AccessKey) {
        self.client.take_up(change.role, key);
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
