//! Which of a resource's two access keys is in use. Plain state, no IO.

use std::sync::Arc;

use serde::Serialize;

use super::AccessKey;

/// The names that Azure gives to a resource's two keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyRole {
    /// From `connection_string`.
    Primary,
    /// From `secondary_connection_string`.
    Secondary,
}

/// What the service last said of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyStanding {
    /// Not tried yet.
    Untried,
    /// It was accepted.
    Accepted,
    /// It was refused, and not because of a clock.
    Denied,
}

/// One key as people see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeyView {
    /// Which of the two.
    pub role: KeyRole,
    /// Its one-way name.
    pub fingerprint: String,
    /// What the service last said of it.
    pub standing: KeyStanding,
}

/// A resource's keys as people see them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeyStatus {
    /// Which one signs.
    pub in_use: KeyRole,
    /// All of them, the primary first.
    pub keys: Vec<KeyView>,
}

/// The keys of a resource and which one signs.
#[derive(Debug)]
pub(super) struct Keys {
    primary: Held,
    secondary: Option<Held>,
    in_use: KeyRole,
}

#[derive(Debug)]
struct Held {
    key: Arc<AccessKey>,
    standing: KeyStanding,
}

impl Keys {
    pub(super) fn new(primary: AccessKey, secondary: Option<AccessKey>) -> Self {
        let held = |key| Held {
            key: Arc::new(key),
            standing: KeyStanding::Untried,
        };
        Self {
            secondary: secondary.filter(|key| *key != primary).map(held),
            primary: held(primary),
            in_use: KeyRole::Primary,
        }
    }

    /// The key that signs now.
    pub(super) fn in_use(&self) -> (KeyRole, Arc<AccessKey>) {
        let held = match (self.in_use, &self.secondary) {
            (KeyRole::Secondary, Some(secondary)) => secondary,
            _ => &self.primary,
        };
        (self.in_use, Arc::clone(&held.key))
    }

    /// The key to try when this one is refused.
    pub(super) fn other(&self, role: KeyRole) -> Option<(KeyRole, Arc<AccessKey>)> {
        let secondary = self.secondary.as_ref()?;
        Some(match role {
            KeyRole::Primary => (KeyRole::Secondary, Arc::clone(&secondary.key)),
            KeyRole::Secondary => (KeyRole::Primary, Arc::clone(&self.primary.key)),
        })
    }

    /// Notes what the service said of a key.
    pub(super) fn note(&mut self, role: KeyRole, standing: KeyStanding) {
        match (role, &mut self.secondary) {
            (KeyRole::Primary, _) => self.primary.standing = standing,
            (KeyRole::Secondary, Some(secondary)) => secondary.standing = standing,
            (KeyRole::Secondary, None) => {}
        }
    }

    /// Signs with this key from now on; whether that is new. Only for a key that succeeded where the
    /// other was refused: a late answer to the old key must not bring that one back.
    pub(super) fn switch_to(&mut self, role: KeyRole) -> bool {
        std::mem::replace(&mut self.in_use, role) != role
    }

    pub(super) fn status(&self) -> KeyStatus {
        let view = |role, held: &Held| KeyView {
            role,
            fingerprint: held.key.fingerprint().to_owned(),
            standing: held.standing,
        };
        let primary = Some(view(KeyRole::Primary, &self.primary));
        let secondary = self.secondary.as_ref();
        KeyStatus {
            in_use: self.in_use,
            keys: primary
                .into_iter()
                .chain(secondary.map(|held| view(KeyRole::Secondary, held)))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> AccessKey {
        AccessKey::new(text.as_bytes().to_vec())
    }

    #[test]
    fn a_switch_is_new_once_and_remembered() {
        let mut keys = Keys::new(key("one"), Some(key("two")));
        assert_eq!(keys.in_use().0, KeyRole::Primary);
        assert_eq!(*keys.other(KeyRole::Primary).unwrap().1, key("two"));
        assert!(keys.switch_to(KeyRole::Secondary));
        assert!(!keys.switch_to(KeyRole::Secondary));
        assert_eq!(*keys.in_use().1, key("two"));
        assert_eq!(*keys.other(KeyRole::Secondary).unwrap().1, key("one"));
    }

    #[test]
    fn the_same_key_twice_is_one_key() {
        let keys = Keys::new(key("one"), Some(key("one")));
        assert!(keys.other(KeyRole::Primary).is_none());
        assert_eq!(keys.status().keys.len(), 1);
    }

    #[test]
    fn the_status_tells_what_was_said_of_each() {
        let mut keys = Keys::new(key("one"), Some(key("two")));
        keys.note(KeyRole::Primary, KeyStanding::Denied);
        let status = keys.status();
        assert_eq!(status.keys[0].standing, KeyStanding::Denied);
        assert_eq!(status.keys[1].standing, KeyStanding::Untried);
    }
}
