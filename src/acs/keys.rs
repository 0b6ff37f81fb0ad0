//! Which of a resource's two access keys is in use, and what a harmless signed call says of one. Plain state, no IO.

use std::{sync::Arc, time::Duration};

use super::{AccessKey, Error, ErrorCause};
use crate::model::{FailureClass, KeyRole, KeyStanding, KeyStatus, KeyView};

/// The keys of a resource and which one signs.
#[derive(Debug)]
pub(super) struct KeyPair {
    primary: Held,
    secondary: Option<Held>,
    in_use: KeyRole,
    /// The fingerprint of a key that signs only where nothing else is left.
    avoided: Option<String>,
}

#[derive(Debug)]
struct Held {
    key: Arc<AccessKey>,
    standing: KeyStanding,
    /// When it was last accepted.
    accepted_at: Option<Duration>,
    /// How often it was refused.
    denials: u64,
}

impl Held {
    fn new(key: AccessKey) -> Self {
        Self {
            key: Arc::new(key),
            standing: KeyStanding::Untried,
            accepted_at: None,
            denials: 0,
        }
    }
}

impl KeyPair {
    pub(super) fn new(primary: AccessKey, secondary: Option<AccessKey>) -> Self {
        Self {
            secondary: secondary.filter(|key| *key != primary).map(Held::new),
            primary: Held::new(primary),
            in_use: KeyRole::Primary,
            avoided: None,
        }
    }

    /// One of the two.
    pub(super) fn get(&self, role: KeyRole) -> Option<Arc<AccessKey>> {
        let held = match role {
            KeyRole::Primary => Some(&self.primary),
            KeyRole::Secondary => self.secondary.as_ref(),
        };
        held.map(|held| Arc::clone(&held.key))
    }

    /// Signs with the other key from now on, wherever this one would; `None` ends it.
    pub(super) fn avoid(&mut self, fingerprint: Option<&str>) {
        self.avoided = fingerprint.map(str::to_owned);
        let signs = self.in_use();
        let avoided = self.avoided.as_deref() == Some(signs.1.fingerprint());
        if avoided && let Some((role, _)) = self.other(signs.0) {
            self.in_use = role;
        }
    }

    /// Takes a key's successor up.
    pub(super) fn take_up(&mut self, role: KeyRole, key: AccessKey) {
        let held = Held {
            standing: KeyStanding::Accepted,
            ..Held::new(key)
        };
        match role {
            KeyRole::Primary => self.primary = held,
            KeyRole::Secondary => self.secondary = Some(held),
        }
    }

    /// How many calls are under way that this key signed.
    pub(super) fn in_flight(&self, fingerprint: &str) -> usize {
        self.all()
            .filter(|held| held.key.fingerprint() == fingerprint)
            .map(|held| Arc::strong_count(&held.key) - 1)
            .sum()
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

    /// Notes what the service said of the key of this fingerprint, unless it was replaced meanwhile.
    pub(super) fn note(&mut self, fingerprint: &str, standing: KeyStanding, now: Duration) {
        let found = [Some(&mut self.primary), self.secondary.as_mut()];
        for held in found.into_iter().flatten() {
            if held.key.fingerprint() != fingerprint {
                continue;
            }
            held.standing = standing;
            match standing {
                KeyStanding::Accepted => held.accepted_at = Some(now),
                KeyStanding::Denied => held.denials += 1,
                KeyStanding::Untried => {}
            }
        }
    }

    /// How often the key of this fingerprint was refused, and when it was last accepted.
    pub(super) fn record_of(&self, fingerprint: &str) -> (u64, Option<Duration>) {
        self.all()
            .find(|held| held.key.fingerprint() == fingerprint)
            .map_or((0, None), |held| (held.denials, held.accepted_at))
    }

    fn all(&self) -> impl Iterator<Item = &Held> {
        [Some(&self.primary), self.secondary.as_ref()]
            .into_iter()
            .flatten()
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

/// Nobody has this id: asking for its token proves the key and makes nothing.
pub(super) const NOBODY: &str =
    "8:acs:00000000-0000-0000-0000-000000000000_00000000-0000-0000-0000-000000000000";

/// What is known of a key, or of a bearer, after a call was made with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// The service accepts it, and looks for the identity that nobody has.
    Accepted,
    /// The service accepts it, and refuses the call all the same, so that it may refuse everybody's; why, in a
    /// sentence.
    Unserved(String),
    /// The service refuses it, and not because of a clock.
    Denied(String),
    /// The service did not say; why, in a sentence.
    Unknown(String),
}

/// Reads what came of the call.
pub(super) fn read(answer: Result<(), Error>) -> Proof {
    match answer {
        Ok(()) => Proof::Accepted,
        Err(error) => match &error.cause {
            ErrorCause::Rejected(rejection) if rejection.proves_key() => {
                match error.cause.class() {
                    FailureClass::Gone => Proof::Accepted,
                    _ => Proof::Unserved(error.reason()),
                }
            }
            ErrorCause::Rejected(rejection)
                if (rejection.status, rejection.code.as_str()) == (401, "Denied") =>
            {
                Proof::Denied(error.reason())
            }
            _ if error.refuses_bearer() => Proof::Denied(error.reason()),
            _ => Proof::Unknown(error.reason()),
        },
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
        let mut keys = KeyPair::new(key("one"), Some(key("two")));
        assert_eq!(keys.in_use().0, KeyRole::Primary);
        assert_eq!(*keys.other(KeyRole::Primary).unwrap().1, key("two"));
        assert!(keys.switch_to(KeyRole::Secondary));
        assert!(!keys.switch_to(KeyRole::Secondary));
        assert_eq!(*keys.in_use().1, key("two"));
        assert_eq!(*keys.other(KeyRole::Secondary).unwrap().1, key("one"));
    }

    #[test]
    fn the_same_key_twice_is_one_key() {
        let keys = KeyPair::new(key("one"), Some(key("one")));
        assert!(keys.other(KeyRole::Primary).is_none());
        assert_eq!(keys.status().keys.len(), 1);
    }

    #[test]
    fn an_avoided_key_signs_only_where_nothing_else_is_left() {
        let mut keys = KeyPair::new(key("one"), Some(key("two")));
        let one = key("one").fingerprint().to_owned();
        let under_way = keys.in_use().1;
        assert_eq!(keys.in_flight(&one), 1);
        keys.avoid(Some(&one));
        assert_eq!(keys.in_use().0, KeyRole::Secondary);
        assert_eq!(keys.in_flight(&one), 1);
        drop(under_way);
        assert_eq!(keys.in_flight(&one), 0);
        keys.take_up(KeyRole::Primary, key("three"));
        keys.avoid(None);
        assert_eq!(keys.in_use().0, KeyRole::Secondary);
        assert_eq!(*keys.other(KeyRole::Secondary).unwrap().1, key("three"));
        let mut alone = KeyPair::new(key("one"), None);
        alone.avoid(Some(&one));
        assert_eq!(*alone.in_use().1, key("one"));
    }

    #[test]
    fn the_status_tells_what_was_said_of_each() {
        let mut keys = KeyPair::new(key("one"), Some(key("two")));
        let one = key("one").fingerprint().to_owned();
        keys.note(&one, KeyStanding::Denied, Duration::ZERO);
        assert_eq!(keys.record_of(&one), (1, None));
        let status = keys.status();
        assert_eq!(status.keys[0].standing, KeyStanding::Denied);
        assert_eq!(status.keys[1].standing, KeyStanding::Untried);
    }
}
