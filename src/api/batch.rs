//! A batch of an import: sorted into identities and ids, then taken over in one transaction; by the
//! daemon, or by the command line while none runs.

use std::collections::BTreeMap;

use super::{
    addition::Surroundings,
    wire::{Imported, Line, NewIdentity},
};
use crate::{
    model::{Entry, Name, RefusedRow, Spec, Timestamp},
    store::{ImportLine, Imported as Taken, Reconciled, Refusal, Store, StoreError},
};

/// Renewed earlier than this, a token would hardly be used.
const EARLIEST: f64 = 0.0499;

/// A batch whose lines make sense by themselves, and those that do not.
#[derive(Debug, Default)]
pub struct Batch {
    specs: Vec<Spec>,
    ids: Vec<ImportLine>,
    refused: Vec<RefusedRow>,
    numbers: BTreeMap<Name, u64>,
}

impl Batch {
    /// Sorts lines; what they leave out is taken from the configuration.
    pub fn of(lines: Vec<Line>, within: &Surroundings) -> Self {
        let mut batch = Self::default();
        for Line { number, entry } in lines {
            let name = entry.name.clone();
            if batch.numbers.insert(name.clone(), number).is_some() {
                // Of two lines of a map the later one counts.
                batch.specs.retain(|spec| spec.name != name);
                batch.ids.retain(|line| line.name != name);
            }
            if let Err(reason) = batch.take(entry, within) {
                batch.refused.push(RefusedRow {
                    number,
                    name: Some(name),
                    reason,
                });
            }
        }
        batch
    }

    fn take(&mut self, entry: Entry, within: &Surroundings) -> Result<(), String> {
        if let Some(scopes) = entry.scopes {
            let (renew_at, spread) = (entry.renew_at, entry.spread);
            let new = NewIdentity {
                name: entry.name,
                resource: entry.resource,
                id: entry.id,
                scopes,
                lifetime_seconds: entry.lifetime_seconds,
                labels: entry.labels,
                readers: entry.readers.unwrap_or_default(),
                sinks: entry.sinks.unwrap_or_default(),
                on_removal: entry.on_removal.unwrap_or_default(),
            };
            let mut spec = new.spec(within)?;
            spec.renew_at = renew_at.unwrap_or(spec.renew_at);
            spec.spread = spread.unwrap_or(spec.spread);
            if spec.renew_at - spec.spread < EARLIEST {
                return Err(format!(
                    "renew_at {} less spread {} leaves less than {EARLIEST} of a token's life",
                    spec.renew_at, spec.spread
                ));
            }
            self.specs.push(spec);
            return Ok(());
        }
        let id = entry
            .id
            .ok_or("it says neither scopes, for an identity to keep, nor an id to give back")?;
        self.ids.push(ImportLine {
            name: entry.name,
            resource: within.resource(entry.resource)?,
            id,
            created_at: entry.created_at,
        });
        Ok(())
    }

    /// What would be done and refused; nothing is changed.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn check(mut self, store: &Store) -> Result<Imported, StoreError> {
        let (specs, ids) = self.parts();
        let (declared, imported) = store.plan_import(specs, ids).await?;
        Ok(self.told(declared, imported))
    }

    /// Takes the batch over, all that can be, in one transaction.
    ///
    /// # Errors
    /// When the store cannot be written; then nothing of it was taken.
    pub async fn apply(mut self, store: &Store, now: Timestamp) -> Result<Imported, StoreError> {
        let (specs, ids) = self.parts();
        let (declared, imported) = store.take_batch(specs, ids, now).await?;
        Ok(self.told(declared, imported))
    }

    fn parts(&mut self) -> (Vec<Spec>, Vec<ImportLine>) {
        (
            std::mem::take(&mut self.specs),
            std::mem::take(&mut self.ids),
        )
    }

    fn told(mut self, declared: Reconciled, imported: Taken) -> Imported {
        self.refuse(declared.refused);
        self.refuse(imported.refused);
        let missing = imported.missing;
        Imported {
            missing: missing.iter().map(|waiting| waiting.count).sum(),
            missing_names: missing
                .into_iter()
                .flat_map(|waiting| waiting.names)
                .collect(),
            added: declared.create as u64,
            changed: (declared.update + declared.reissue + declared.release) as u64,
            unchanged: (declared.unchanged + imported.unchanged) as u64,
            adopted: imported.adopted as u64,
            remembered: imported.remembered as u64,
            refused: self.refused,
        }
    }

    fn refuse(&mut self, refusals: Vec<Refusal>) {
        for refusal in refusals {
            self.refused.push(RefusedRow {
                number: self.numbers.get(&refusal.name).copied().unwrap_or(0),
                name: Some(refusal.name),
                reason: refusal.reason,
            });
        }
    }
}
