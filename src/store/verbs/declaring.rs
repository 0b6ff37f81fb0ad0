//! Verbs that say which identities there should be.

use super::Answer;
use crate::{
    model::{Name, OnRemoval, SinkName, Spec, Timestamp},
    store::{Cause, ImportLine, Imported, Reconciled, Refusal, Store},
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
        // Nothing is written where nothing changed: not even that something may be withdrawn.
        let withdraws = !self.plan_reconcile(specs, sinks).await?.is_unchanged();
        let (specs, sinks) = (specs.to_vec(), sinks.to_vec());
        self.queue("take the declared identities over", withdraws, move |txn| {
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
        self.withdraw("add identities", move |txn| txn.declare(&specs, now))
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
        mut specs: Vec<Spec>,
        mut ids: Vec<ImportLine>,
        now: Timestamp,
    ) -> Answer<(Reconciled, Imported)> {
        self.withdraw("import identities", move |txn| {
            txn.leave_to_others(&mut specs, &mut ids)?;
            let mut imported = txn.import(&ids, now)?;
            let declared = txn.declare(&specs, now)?;
            imported.missing = txn.creations_waiting()?;
            Ok((declared, imported))
        })
        .await
    }

    /// What [`Store::take_batch`] would do.
    pub async fn plan_import(
        &self,
        mut specs: Vec<Spec>,
        mut ids: Vec<ImportLine>,
    ) -> Answer<(Reconciled, Imported)> {
        self.read("check an import", move |db| {
            db.leave_to_others(&mut specs, &mut ids)?;
            Ok((db.plan_declare(&specs)?, db.plan_ids(&ids)?))
        })
        .await
    }

    /// A person's word: these identities, which wait because the store had been lost, are created, or all
    /// that wait. How many, and who does not wait.
    pub async fn create_by_word(
        &self,
        names: Option<Vec<Name>>,
        cause: &Cause,
        now: Timestamp,
    ) -> Answer<(u64, Vec<Refusal>)> {
        let cause = cause.clone();
        self.write("let identities be created", move |txn| {
            txn.create_by_word(names.as_deref(), &cause, now)
        })
        .await
    }

    /// Takes names and ids over, such as lines of `identities.jsonl`.
    pub async fn import(&self, lines: Vec<ImportLine>, now: Timestamp) -> Answer<Imported> {
        self.write("import ids", move |txn| txn.import(&lines, now))
            .await
    }
}
