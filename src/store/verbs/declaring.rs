//! Verbs that say which identities there should be.

use super::Answer;
use crate::{
    model::{Name, OnRemoval, SinkName, Spec, Timestamp},
    store::{ImportLine, Imported, Reconciled, Refusal, Store},
};

impl Store {
    /// Makes the rows what the files declare, in one transaction; costs what they declare, and writes
    /// nothing when nothing changed. `sinks` are all that are configured.
    pub async fn reconcile(
        &self,
        specs: &[Spec],
        sinks: &[SinkName],
        now: Timestamp,
    ) -> Answer<Reconciled> {
        let (specs, sinks) = (specs.to_vec(), sinks.to_vec());
        self.write("take the declared identities over", move |txn| {
            txn.reconcile(&specs, &sinks, now)
        })
        .await
    }

    /// What [`Store::reconcile`] would do.
    pub async fn plan_reconcile(&self, specs: &[Spec], sinks: &[SinkName]) -> Answer<Reconciled> {
        let (specs, sinks) = (specs.to_vec(), sinks.to_vec());
        self.read("compare the declared identities", move |db| {
            Ok(db.plan_reconcile(&specs, &sinks)?.told())
        })
        .await
    }

    /// Adds identities, or changes them, without touching others; for those kept in the store alone.
    pub async fn declare(&self, specs: Vec<Spec>, now: Timestamp) -> Answer<Reconciled> {
        self.write("add identities", move |txn| txn.declare(&specs, now))
            .await
    }

    /// Removes identities, as `how` says or as each one's own `on_removal`.
    pub async fn remove(
        &self,
        names: Vec<Name>,
        how: Option<OnRemoval>,
        now: Timestamp,
    ) -> Answer<Reconciled> {
        self.withdraw("remove identities", move |txn| txn.remove(&names, how, now))
            .await
    }

    /// Takes a batch over in one transaction: ids given back first, then identities to keep.
    pub async fn take_batch(
        &self,
        specs: Vec<Spec>,
        ids: Vec<ImportLine>,
        now: Timestamp,
    ) -> Answer<(Reconciled, Imported)> {
        self.write("import identities", move |txn| {
            let imported = txn.import(&ids, now)?;
            Ok((txn.declare(&specs, now)?, imported))
        })
        .await
    }

    /// What [`Store::take_batch`] would refuse.
    pub async fn plan_import(
        &self,
        specs: Vec<Spec>,
        ids: Vec<ImportLine>,
    ) -> Answer<Vec<Refusal>> {
        self.read("check an import", move |db| {
            let mut refused = db.plan_declare(&specs)?.refused;
            refused.extend(db.plan_ids(&ids)?);
            Ok(refused)
        })
        .await
    }

    /// Takes names and ids over, such as the lines of `identities.jsonl`. The first call ends
    /// [`crate::store::Opened::fresh`].
    pub async fn import(&self, lines: Vec<ImportLine>, now: Timestamp) -> Answer<Imported> {
        self.write("import ids", move |txn| txn.import(&lines, now))
            .await
    }
}
