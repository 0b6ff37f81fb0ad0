//! Whether it is known what was withdrawn, and a person's word where it is not.

use rusqlite::params;

use super::{
    Cause, Store,
    columns::{self, micros, spelled},
    db::{Db, Txn},
    error::{Answer, Fault, Outcome},
};
use crate::{
    config::Owner,
    model::{DueReason, StoreStanding, Timestamp},
};

/// Why it is not known what was withdrawn; kept over restarts, until a person accepts.
pub(super) const RESTORED: &str = "restored";

/// The instance and the machine that the store belongs to.
pub(super) const INSTANCE: &str = "instance";
pub(super) const MACHINE: &str = "machine";

/// Why a store that belongs to one machine may not be used on another; `None` where nothing says that
/// they differ.
fn elsewhere(store: &Owner, here: &Owner) -> Option<String> {
    match (&store.instance, &here.instance) {
        (Some(store), Some(here)) if store != here => {
            return Some(format!(
                "it is that of the instance {store}, and [daemon] instance is {here}"
            ));
        }
        _ => {}
    }
    match (&store.machine, &here.machine) {
        (Some(store), Some(here)) if store != here => Some(format!(
            "it was last used on another machine ({store}; this one is {here}, by a digest of /etc/machine-id)"
        )),
        _ => None,
    }
}

impl Store {
    /// Goes on with a store of which it is not known what was withdrawn; how many tokens of unknown
    /// standing are renewed now.
    pub async fn accept(&self, cause: &Cause, now: Timestamp) -> Answer<u64> {
        let cause = cause.clone();
        self.withdraw("accept the store", move |txn| {
            if txn.restored()?.is_none() {
                return Err(Fault::Refused(
                    "there is nothing to accept: it is known what was withdrawn".to_owned(),
                ));
            }
            txn.raise_versions(now)?;
            let renewing = txn.run(
                "UPDATE identity SET good_until = 0, due_at = ?1, by_socket = by_socket, due_why = ?2 WHERE state = 'active'",
                params![micros(now), spelled(&DueReason::Requested)],
            )?;
            txn.run("DELETE FROM meta WHERE key = ?1", [RESTORED])?;
            txn.effects.due = true;
            txn.effects.accepted = true;
            let said = format!("{renewing} tokens of unknown standing are renewed");
            txn.note_word("store.accept", said, &cause, now)?;
            Ok(u64::try_from(renewing).unwrap_or(u64::MAX))
        })
        .await
    }

    /// Takes a store over that belonged to another machine; whether it may be used then.
    pub async fn adopt(&self, cause: &Cause, now: Timestamp) -> Answer<StoreStanding> {
        let (here, cause) = (self.here().clone(), cause.clone());
        self.write("adopt the store", move |txn| {
            let StoreStanding::Passive { why } = txn.usable(&here)? else {
                return Err(Fault::Refused(
                    "there is nothing to adopt: the store belongs here".to_owned(),
                ));
            };
            txn.belong(&here)?;
            txn.note_word("store.adopt", why, &cause, now)?;
            txn.usable(&here)
        })
        .await
    }

    /// Notes a person's word that the store knows nothing of what was withdrawn since an instant.
    pub async fn distrust(&self, since: Timestamp, cause: &Cause, now: Timestamp) -> Answer<()> {
        let cause = cause.clone();
        self.write("distrust the store", move |txn| {
            let said = format!(
                "it was said that the store knows nothing of what was withdrawn since {since:.0}"
            );
            txn.doubt(&said)?;
            txn.note_word("store.distrust", said, &cause, now)
        })
        .await
    }
}

impl Db {
    /// Whether the store may be used here. What it did not know of its machine so far, it knows then.
    pub(super) fn usable(&self, here: &Owner) -> Outcome<StoreStanding> {
        let store = Owner {
            instance: columns::meta(&self.conn, INSTANCE)?,
            machine: columns::meta(&self.conn, MACHINE)?,
        };
        if let Some(why) = elsewhere(&store, here) {
            return Ok(StoreStanding::Passive { why });
        }
        if store.machine.is_some() && here.machine.is_none() {
            tracing::warn!(
                "this machine has no id (/etc/machine-id), so that it is not known whether the store is its own"
            );
        }
        self.belong(&Owner {
            instance: store.instance.or_else(|| here.instance.clone()),
            machine: store.machine.or_else(|| here.machine.clone()),
        })?;
        let restored = self.restored()?;
        Ok(restored.map_or(StoreStanding::Own, |why| StoreStanding::Restored { why }))
    }

    fn belong(&self, owner: &Owner) -> Outcome<()> {
        for (key, value) in [(INSTANCE, &owner.instance), (MACHINE, &owner.machine)] {
            match value {
                Some(value) if columns::meta(&self.conn, key)?.as_ref() != Some(value) => {
                    columns::set_meta(&self.conn, key, value)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Why it is not known what was withdrawn, where it is not.
    pub(super) fn restored(&self) -> Outcome<Option<String>> {
        Ok(columns::meta::<String>(&self.conn, RESTORED)?)
    }
}

impl Txn<'_> {
    /// From now on, over restarts, it is not known what was withdrawn.
    pub(super) fn doubt(&self, why: &str) -> Outcome<()> {
        Ok(columns::set_meta(&self.conn, RESTORED, why)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_known_of_both_and_differs_makes_a_store_another_machines() {
        let owner = |instance: &str, machine: &str| {
            let known = |text: &str| (!text.is_empty()).then(|| text.to_owned());
            Owner {
                instance: known(instance),
                machine: known(machine),
            }
        };
        for (store, here, differs) in [
            (owner("", ""), owner("web-1", "a"), false),
            (owner("web-1", "a"), owner("", ""), false),
            (owner("web-1", "a"), owner("web-1", "a"), false),
            (owner("web-1", "a"), owner("", "a"), false),
            (owner("web-1", "a"), owner("web-2", "a"), true),
            (owner("web-1", "a"), owner("web-1", "b"), true),
            (owner("", "a"), owner("web-1", "b"), true),
            (owner("web-1", ""), owner("web-1", "b"), false),
        ] {
            assert_eq!(
                elsewhere(&store, &here).is_some(),
                differs,
                "{store:?} {here:?}"
            );
        }
    }
}
