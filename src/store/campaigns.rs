//! Bulk operations: frozen into rows, so that they outlive restarts.

use std::collections::BTreeSet;

use rusqlite::{Row, params};
use serde::{Deserialize, Serialize};

use super::{
    columns::{self, micros, spelled},
    db::{Db, Txn},
    error::Outcome,
    identities::count,
};
use crate::model::{IdentityId, Name, Num, ResourceName, State, Then, Timestamp};

/// What a campaign does to each of its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CampaignAction {
    /// Revokes all tokens.
    Revoke,
    /// Withholds the token.
    Hold,
    /// Ends a hold.
    Release,
    /// Deletes at ACS.
    Delete,
}

/// A campaign that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewCampaign {
    /// What to do.
    pub action: CampaignAction,
    /// What follows a revocation.
    pub then: Option<Then>,
    /// On which rows.
    pub nums: Vec<Num>,
    /// Who wants it.
    pub actor: String,
    /// Why.
    pub reason: Option<String>,
}

/// The number of a campaign.
pub type CampaignId = i64;

/// A campaign and how far it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Campaign {
    /// Its number.
    pub id: CampaignId,
    /// What it does.
    pub action: CampaignAction,
    /// What follows a revocation.
    pub then: Option<Then>,
    /// Who wanted it.
    pub actor: String,
    /// Why.
    pub reason: Option<String>,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When its last item ended.
    pub ended_at: Option<Timestamp>,
    /// Items not yet settled.
    pub pending: u64,
    /// Items that are done.
    pub done: u64,
    /// Items that failed for good.
    pub failed: u64,
}

/// One row of a campaign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CampaignItem {
    /// The row.
    pub num: Num,
    /// Its name.
    pub name: Name,
    /// Its resource.
    pub resource: ResourceName,
    /// Its id at ACS, where it has one.
    pub id: Option<IdentityId>,
    /// The state of the row.
    pub state: State,
    /// `pending`, `done` or `failed`.
    pub item_state: String,
    /// Failed attempts so far.
    pub attempts: u32,
    /// The next attempt, while pending.
    pub next_at: Timestamp,
    /// When ACS acknowledged.
    pub acked_at: Option<Timestamp>,
    /// The service's request id.
    pub request_id: Option<String>,
    /// How the last attempt failed.
    pub error: Option<String>,
}

/// How an attempt at an item ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ItemOutcome {
    /// Done, acknowledged at this instant.
    Done {
        /// When.
        at: Timestamp,
        /// The service's request id, where ACS was called.
        request_id: Option<String>,
    },
    /// To be tried again.
    Retry {
        /// When.
        next_at: Timestamp,
        /// Why it failed.
        error: String,
        /// The service's request id.
        request_id: Option<String>,
    },
    /// Failed for good.
    Failed {
        /// Why.
        error: String,
        /// The service's request id.
        request_id: Option<String>,
    },
}

pub(super) const ITEMS: &str = "SELECT t.identity AS num, i.name, r.name AS resource, i.id, i.state, \
    t.state AS item_state, t.attempts, t.next_at, t.acked_at, t.request_id, t.error \
    FROM campaign_item t JOIN identity i ON i.num = t.identity JOIN resource r ON r.num = i.resource \
    WHERE t.campaign = ?1 AND t.state = 'pending' AND r.name = ?3 ORDER BY t.next_at, t.identity LIMIT ?2";

impl Txn<'_> {
    pub(super) fn create_campaign(
        &mut self,
        new: &NewCampaign,
        now: Timestamp,
    ) -> Outcome<CampaignId> {
        self.run(
            "INSERT INTO campaign (action, after, actor, reason, created_at) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![
                spelled(&new.action),
                new.then.as_ref().map(spelled),
                new.actor,
                new.reason,
                micros(now)
            ],
        )?;
        let id = self.conn.last_insert_rowid();
        for num in &new.nums {
            self.run(
                "INSERT INTO campaign_item (campaign, identity, next_at) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
                [id, *num, micros(now)],
            )?;
        }
        self.end_if_settled(id, now)?;
        self.effects.campaigns = true;
        Ok(id)
    }

    pub(super) fn settle_items(
        &mut self,
        id: CampaignId,
        outcomes: &[(Num, ItemOutcome)],
        now: Timestamp,
    ) -> Outcome<()> {
        for (num, outcome) in outcomes {
            let (state, at, next_at, error, request_id) = match outcome {
                ItemOutcome::Done { at, request_id } => ("done", Some(*at), None, None, request_id),
                ItemOutcome::Retry {
                    next_at,
                    error,
                    request_id,
                } => ("pending", None, Some(*next_at), Some(error), request_id),
                ItemOutcome::Failed { error, request_id } => {
                    ("failed", None, None, Some(error), request_id)
                }
            };
            self.run(
                "UPDATE campaign_item SET state = ?3, acked_at = coalesce(?4, acked_at), \
                 next_at = coalesce(?5, next_at), error = ?6, request_id = ?7, \
                 attempts = attempts + (?6 IS NOT NULL) \
                 WHERE campaign = ?1 AND identity = ?2 AND state = 'pending'",
                params![
                    id,
                    num,
                    state,
                    at.map(micros),
                    next_at.map(micros),
                    error,
                    request_id
                ],
            )?;
        }
        self.end_if_settled(id, now)
    }

    /// Takes a row out of what is still to be done, when what it was to be revoked for is over.
    pub(super) fn spare(&mut self, num: Num, now: Timestamp) -> Outcome<()> {
        let sql = "UPDATE campaign_item SET state = 'done', error = 'declared again' WHERE identity = ?1 \
                   AND state = 'pending' AND campaign IN (SELECT num FROM campaign WHERE ended_at IS NULL \
                   AND actor = 'renewd') RETURNING campaign";
        for campaign in self.all(sql, [num], |row| row.get(0))? {
            self.end_if_settled(campaign, now)?;
        }
        Ok(())
    }

    fn end_if_settled(&self, id: CampaignId, now: Timestamp) -> Outcome<()> {
        self.run(
            "UPDATE campaign SET ended_at = ?2 WHERE num = ?1 AND ended_at IS NULL AND NOT EXISTS \
             (SELECT 1 FROM campaign_item WHERE campaign = ?1 AND state = 'pending')",
            [id, micros(now)],
        )?;
        Ok(())
    }
}

impl Db {
    pub(super) fn campaign(&self, id: CampaignId) -> Outcome<Option<Campaign>> {
        let sql = "SELECT * FROM campaign WHERE num = ?1";
        let found = self.first(sql, [id], read_campaign)?;
        found.map(|campaign| self.counted(campaign)).transpose()
    }

    /// Campaigns that have something left to do, oldest first.
    pub(super) fn open_campaigns(&self) -> Outcome<Vec<Campaign>> {
        let sql = "SELECT * FROM campaign WHERE ended_at IS NULL ORDER BY num";
        let found = self.all(sql, [], read_campaign)?;
        found.into_iter().map(|one| self.counted(one)).collect()
    }

    pub(super) fn campaign_items(
        &self,
        id: CampaignId,
        resource: &str,
        limit: usize,
        skip: &BTreeSet<Num>,
    ) -> Outcome<Vec<CampaignItem>> {
        let params = params![id, count(limit.saturating_add(skip.len())), resource];
        let mut items = self.all(ITEMS, params, read_item)?;
        items.retain(|item| !skip.contains(&item.num));
        items.truncate(limit);
        Ok(items)
    }

    /// A campaign's items in the order of their rows, settled or not.
    pub(super) fn campaign_report(
        &self,
        id: CampaignId,
        after: Num,
        limit: usize,
    ) -> Outcome<Vec<CampaignItem>> {
        let sql = "SELECT t.identity AS num, i.name, r.name AS resource, i.id, i.state, t.state AS item_state, \
            t.attempts, t.next_at, t.acked_at, t.request_id, t.error \
            FROM campaign_item t JOIN identity i ON i.num = t.identity JOIN resource r ON r.num = i.resource \
            WHERE t.campaign = ?1 AND t.identity > ?2 ORDER BY t.identity LIMIT ?3";
        Ok(self.all(sql, [id, after, count(limit)], read_item)?)
    }

    fn counted(&self, mut campaign: Campaign) -> Outcome<Campaign> {
        let sql = "SELECT state, n FROM item_count WHERE campaign = ?1";
        for (state, n) in self.all(sql, [campaign.id], |row| {
            Ok((row.get::<_, String>(0)?, columns::unsigned(row, "n")?))
        })? {
            match state.as_str() {
                "done" => campaign.done = n,
                "failed" => campaign.failed = n,
                _ => campaign.pending = n,
            }
        }
        Ok(campaign)
    }
}

fn read_campaign(row: &Row<'_>) -> rusqlite::Result<Campaign> {
    Ok(Campaign {
        id: row.get("num")?,
        action: columns::word(row, "action")?,
        then: columns::maybe_word(row, "after")?,
        actor: row.get("actor")?,
        reason: row.get("reason")?,
        created_at: columns::instant_in(row, "created_at")?,
        ended_at: columns::maybe_instant(row, "ended_at")?,
        pending: 0,
        done: 0,
        failed: 0,
    })
}

fn read_item(row: &Row<'_>) -> rusqlite::Result<CampaignItem> {
    Ok(CampaignItem {
        num: row.get("num")?,
        name: columns::parsed(row, "name")?,
        resource: columns::parsed(row, "resource")?,
        id: columns::maybe_parsed(row, "id")?,
        state: columns::word(row, "state")?,
        item_state: row.get("item_state")?,
        attempts: row.get("attempts")?,
        next_at: columns::instant_in(row, "next_at")?,
        acked_at: columns::maybe_instant(row, "acked_at")?,
        request_id: row.get("request_id")?,
        error: row.get("error")?,
    })
}
