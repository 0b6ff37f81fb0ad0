//! Following what was done: tokens and deliveries that are to come; and sealing the reports of
//! campaigns that ended.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use sha2::{Digest, Sha256};

use super::{act::Done, runner::Runner};
use crate::{
    clock::Clock,
    model::{Num, Operation},
    schedule::Steady,
    store::{Campaign, CampaignId, CampaignState, Store, StoreError},
};

/// How often it is looked whether tokens came and were delivered.
const EVERY: Duration = Duration::from_secs(1);
/// Tokens have to be issued for so long before one that does not follow is about its identity.
const CALM: Duration = Duration::from_mins(2);
/// Items looked at in one transaction.
const CHUNK: usize = 1000;

/// When to look next, and where.
#[derive(Debug)]
pub(super) struct Following {
    at: Option<Steady>,
    /// Where the last look at a campaign ended.
    cursors: BTreeMap<CampaignId, Num>,
    sealing: BTreeSet<CampaignId>,
    /// Since when nothing holds the issuing of tokens, as far as it was looked.
    issued_since: Option<Steady>,
}

impl Default for Following {
    /// Looks at once: an earlier process may have left something.
    fn default() -> Self {
        Self {
            at: Some(Steady::ZERO),
            cursors: BTreeMap::new(),
            sealing: BTreeSet::new(),
            issued_since: None,
        }
    }
}

impl Following {
    /// A campaign was made, stopped or ended.
    pub(super) fn look_again(&mut self) {
        self.at = Some(Steady::ZERO);
    }

    /// Something was settled that may have to be followed.
    pub(super) fn look_by(&mut self, now: Steady) {
        let by = now + EVERY;
        self.at = Some(self.at.map_or(by, |at| at.min(by)));
    }

    /// Whether tokens have been issued for a while.
    fn is_calm(&mut self, issued: bool, now: Steady) -> bool {
        match issued {
            true => now >= *self.issued_since.get_or_insert(now) + CALM,
            false => {
                self.issued_since = None;
                false
            }
        }
    }

    /// A report could not be sealed: later.
    pub(super) fn unsealed(&mut self, id: CampaignId) {
        self.sealing.remove(&id);
    }

    pub(super) fn next(&self) -> Option<Steady> {
        self.at
    }
}

impl Runner {
    /// Whether nothing holds up what the lane does.
    fn tokens_are_issued(&self) -> bool {
        let gate = self.permits.gate();
        let lane = [Operation::Issue, Operation::CreateWithToken];
        !lane.iter().any(|operation| gate.is_probing(*operation))
    }

    pub(super) async fn follow(&mut self) -> Result<(), StoreError> {
        let (now, steady) = (self.clock.now(), self.clock.steady());
        if self.following.at.is_none_or(|at| at > steady) {
            return Ok(());
        }
        self.following.at = None;
        let calm = self.following.is_calm(self.tokens_are_issued(), steady);
        let mut more = false;
        for campaign in self.store.open_campaigns().await? {
            if !is_followed(&campaign) {
                continue;
            }
            more = true;
            if campaign.state == CampaignState::Cancelled && campaign.pending > 0 {
                let (name, busy) = (&self.settings.name, &self.busy);
                let swept = self
                    .store
                    .sweep_cancelled(campaign.id, name, busy, CHUNK, now);
                swept.await?;
            }
            let after = self.following.cursors.remove(&campaign.id);
            let followed = self
                .store
                .follow_items(campaign.id, after, CHUNK, calm, now);
            if let Some(next) = followed.await?.next {
                self.following.cursors.insert(campaign.id, next);
            }
        }
        if more {
            self.following.at = Some(steady + EVERY);
        }
        self.seal_reports().await
    }

    async fn seal_reports(&mut self) -> Result<(), StoreError> {
        let ended = self.store.unsealed_reports().await?;
        self.following.sealing.retain(|id| ended.contains(id));
        for id in ended {
            if self.following.sealing.insert(id) {
                let (store, clock) = (self.store.clone(), self.clock.clone());
                self.tasks.spawn(seal(store, clock, id));
            }
        }
        Ok(())
    }
}

fn is_followed(campaign: &Campaign) -> bool {
    let stopped = campaign.state == CampaignState::Cancelled && campaign.pending > 0;
    stopped || campaign.acknowledged + campaign.delivering > 0
}

/// Hashes the lines of a report and notes it.
async fn seal(store: Store, clock: Clock, id: CampaignId) -> Done {
    let result = match hashed(&store, id).await {
        Ok(sha256) => store.seal_report(id, sha256, clock.now()).await,
        Err(error) => Err(error),
    };
    Done::Sealed(id, result)
}

/// SHA-256 of the report as JSON lines: what `renewd campaign report --format jsonl` prints.
async fn hashed(store: &Store, id: CampaignId) -> Result<String, StoreError> {
    let (mut hash, mut after) = (Sha256::new(), None);
    loop {
        let lines = store.campaign_report(id, after, false, CHUNK).await?;
        let Some(last) = lines.last() else {
            break;
        };
        after = Some(last.num);
        for line in &lines {
            // A line holds texts and times only: it can always be written.
            hash.update(serde_json::to_vec(line).unwrap_or_default());
            hash.update(b"\n");
        }
    }
    let bytes = hash.finalize();
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
