//! What the replacement of a key costs, before it is begun. Pure.

use std::time::Duration;

use crate::{
    api::client::wire::{KeyLine, KeyRole, KeyWork, ResourceKeys},
    model::short_duration,
};

/// What is known of it beforehand.
pub(super) struct Price<'a> {
    keys: &'a ResourceKeys,
    old: &'a KeyLine,
}

impl<'a> Price<'a> {
    /// The price of replacing this key, or the one in use; `None` where there is no such key.
    pub(super) fn of(keys: &'a ResourceKeys, role: Option<KeyRole>) -> Option<Self> {
        let role = role.unwrap_or(keys.in_use);
        let old = keys.keys.iter().find(|key| key.role == role)?;
        Some(Self { keys, old })
    }

    /// How long all of its tokens take to be issued anew.
    fn takes(&self) -> Duration {
        let per_minute = self.keys.issues_per_minute.max(1);
        Duration::from_secs((self.old.tokens * 60).div_ceil(per_minute))
    }

    /// A few lines for a person.
    pub(super) fn words(&self, work: KeyWork) -> String {
        let (old, other) = (self.old, self.old.role.other());
        let (n, takes) = (old.tokens, short_duration(self.takes()));
        let plan = format!(
            "{n} live tokens were minted by the {} key ({}). The {other} key mints them anew, {} a minute: about {takes}, \
             and the time that consumers take to accept them.\n",
            old.role, old.fingerprint, self.keys.issues_per_minute
        );
        match work {
            KeyWork::Roll => plan + "No consumer is without a live token at any moment.\n",
            KeyWork::Leak => format!(
                "{plan}Until the key is regenerated, whoever has it can use it: about {takes} more, and the time until \
                 you regenerate it. No consumer is without a live token at any moment.\n"
            ),
            KeyWork::LeakNow => format!(
                "{plan}The key is to be regenerated at once. That moment all {n} tokens die; each consumer is without \
                 a live one until its new one arrives, the last for about {takes}. Whoever has the key is out at once.\n"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::client::wire::KeyStanding;

    fn keys(tokens: u64) -> ResourceKeys {
        let line = |role: KeyRole, tokens| KeyLine {
            role,
            fingerprint: "0123456789ab".to_owned(),
            standing: KeyStanding::Accepted,
            tokens,
            regenerate: String::new(),
        };
        ResourceKeys {
            doubts: Vec::new(),
            none_works: None,
            resource: "contoso".parse().unwrap(),
            in_use: KeyRole::Primary,
            keys: vec![line(KeyRole::Primary, tokens), line(KeyRole::Secondary, 0)],
            issues_per_minute: 1940,
            change: None,
        }
    }

    #[test]
    fn a_hundred_thousand_take_most_of_an_hour() {
        let keys = keys(100_000);
        let price = Price::of(&keys, None).unwrap();
        let words = price.words(KeyWork::Leak);
        assert!(words.contains("about 51m 33s more"), "{words}");
        let words = price.words(KeyWork::LeakNow);
        assert!(words.contains("all 100000 tokens die"), "{words}");
    }
}
