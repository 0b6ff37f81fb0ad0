//! The steps of a change, one stage after the other.

use std::time::Duration;

use super::Keys;
use crate::{
    acs::Proof,
    model::{KeyChange, KeyStage, KeyWork},
    schedule::Steady,
    store::StoreError,
};

/// A proof may take so long.
pub(super) const DEADLINE: Duration = Duration::from_secs(10);
/// Between two proofs of the old key.
const PROVE: Duration = Duration::from_secs(2);
/// The same where somebody must be out at once.
const PROVE_NOW: Duration = Duration::from_millis(500);

impl Keys {
    /// Takes the step that is next; how long to rest after it.
    pub(super) async fn step(&mut self, change: &mut KeyChange) -> Result<Duration, StoreError> {
        if change.stage == KeyStage::Checking {
            self.check_other(change).await?;
            return Ok(match change.stage {
                KeyStage::Checking => PROVE,
                _ => Duration::ZERO,
            });
        }
        self.client.avoid_key(Some(&change.old_key));
        let mut rest = PROVE;
        if change.stage == KeyStage::Reminting {
            let (over, soon) = self.sweep(change).await?;
            rest = soon;
            change.trouble = self.fallen_back(change);
            if over && self.is_proved_once_more(change).await? {
                change.reminted_at = Some(self.clock.now());
                change.stage = KeyStage::Regenerate;
            }
        }
        self.look_at_old_key(change).await?;
        if change.stage == KeyStage::Regenerate && change.refused_at.is_some() {
            change.stage = KeyStage::Replace;
        }
        if matches!(change.stage, KeyStage::Regenerate | KeyStage::Replace) {
            rest = rest.min(PROVE);
        }
        Ok(rest)
    }

    /// Nothing is begun before the key that is to sign is known to work.
    async fn check_other(&mut self, change: &mut KeyChange) -> Result<(), StoreError> {
        let other = change.role.other();
        match self.permits.prove(&self.client, other, DEADLINE).await? {
            Some(Proof::Accepted) => {
                change.trouble = None;
                self.client.avoid_key(Some(&change.old_key));
                change.stage = KeyStage::Reminting;
            }
            Some(Proof::Denied(why)) => {
                change.trouble = Some(format!(
                    "the {other} key is refused, so nothing was changed: {why}"
                ));
                change.stage = KeyStage::Refused;
            }
            Some(Proof::Unknown(why)) => {
                change.trouble = Some(format!("the {other} key could not be proved yet: {why}"));
            }
            None => {
                change.trouble = Some(format!("there is no {other} key"));
                change.stage = KeyStage::Refused;
            }
        }
        Ok(())
    }

    /// The other key was refused in the meantime, and the old one is back in use.
    fn fallen_back(&self, change: &KeyChange) -> Option<String> {
        let status = self.client.key_status();
        let signs = status.keys.iter().find(|key| key.role == status.in_use)?;
        (signs.fingerprint == change.old_key).then(|| {
            format!(
                "the {} key is refused, so the old one signs again: put a valid one in place and reload",
                change.role.other()
            )
        })
    }

    /// Nobody holds a token of the old key any more: whether one of them was dead before is known only by
    /// a proof after the last was replaced.
    async fn is_proved_once_more(&mut self, change: &mut KeyChange) -> Result<bool, StoreError> {
        let since = self.clock.now();
        self.prove_at = Steady::ZERO;
        self.look_at_old_key(change).await?;
        let held = self.client.key_status().keys;
        let is_held = held.iter().any(|key| key.fingerprint == change.old_key);
        Ok(!is_held || change.refused_at.is_some() || change.accepted_at >= Some(since))
    }

    /// Proves the old key from time to time, and looks for its successor.
    async fn look_at_old_key(&mut self, change: &mut KeyChange) -> Result<(), StoreError> {
        let eager = change.work == KeyWork::LeakNow;
        let waiting = matches!(change.stage, KeyStage::Regenerate | KeyStage::Replace);
        let now = self.clock.steady();
        if now < self.prove_at {
            return Ok(());
        }
        let pause = if eager { PROVE_NOW } else { PROVE };
        self.prove_at = now + pause;
        if change.refused_at.is_none() {
            self.prove_old(change).await?;
        }
        if waiting {
            self.look_for_successor(change).await?;
        }
        Ok(())
    }

    async fn prove_old(&self, change: &mut KeyChange) -> Result<(), StoreError> {
        let held = self.client.key_status().keys;
        let is_ours = |key: &crate::model::KeyView| {
            key.role == change.role && key.fingerprint == change.old_key
        };
        if !held.iter().any(is_ours) {
            return Ok(());
        }
        let asked = self.clock.now();
        let proof = self.permits.prove(&self.client, change.role, DEADLINE);
        match proof.await? {
            Some(Proof::Accepted) if needs_evidence(change) => change.accepted_at = Some(asked),
            Some(Proof::Denied(_)) => change.refused_at = Some(self.clock.now()),
            Some(Proof::Accepted | Proof::Unknown(_)) | None => {}
        }
        Ok(())
    }
}

/// Whether it matters until when the old key was accepted: while a consumer may hold a token of it.
fn needs_evidence(change: &KeyChange) -> bool {
    change.work == KeyWork::LeakNow
        || change
            .reminted_at
            .is_none_or(|reminted| change.accepted_at.is_none_or(|at| at < reminted))
}
