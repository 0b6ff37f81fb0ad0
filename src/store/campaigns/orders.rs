//! Orders that are not carried out yet, or not wholly: what waits for ACS, what fails and is tried
//! again, and what failed for good and still matters.

use rusqlite::{Row, params};

use super::{
    super::{
        aside::RowKind,
        columns::{self, micros},
        db::Db,
        error::Outcome,
    },
    Campaign, CampaignAction, CampaignId, CampaignState, ItemState,
};
use crate::model::{Num, Then, Timestamp};

/// At most so many orders of each kind are told, and so many items of each are named.
const MOST: i64 = 20;
/// Items that failed for good are counted up to this.
const COUNTED: i64 = 10_000;

/// What failed for good and is still to be done: not what was deleted, is gone, or was revoked since.
const STILL_WANTED: &str = "t.state = 'failed' AND c.given_up_at IS NULL AND c.action IN ('revoke', 'delete') \
    AND (i.num IS NULL OR (i.state NOT IN ('deleted', 'gone') \
    AND (c.action = 'delete' OR coalesce(i.revoked_at, 0) < c.created_at)))";

/// An order that is not carried out yet, or not wholly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// The campaign that carries it out.
    pub campaign: Campaign,
    /// What fails and is tried again.
    pub failing: Stalled,
    /// What failed for good and still matters.
    pub failed: Stalled,
}

/// Items that do not go on as they should.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stalled {
    /// How many.
    pub count: u64,
    /// What people call some of them.
    pub labels: Vec<String>,
    /// How one of them failed last.
    pub error: Option<String>,
}

/// What an order means for one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowOrder {
    /// The campaign.
    pub campaign: CampaignId,
    /// What it does.
    pub action: CampaignAction,
    /// What follows a revocation.
    pub then: Option<Then>,
    /// Who wanted it.
    pub actor: String,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When it begins, where that was set.
    pub starts_at: Option<Timestamp>,
    /// Whether a person stopped it for now.
    pub paused: bool,
    /// Where the row's item stands.
    pub state: ItemState,
    /// Failed attempts.
    pub attempts: u32,
    /// The next attempt.
    pub next_at: Timestamp,
    /// How the last attempt failed.
    pub error: Option<String>,
}

impl Db {
    /// Every order that waits at this instant, or of which something failed for good; the oldest first.
    pub(in crate::store) fn orders(&self, now: Timestamp) -> Outcome<Vec<Order>> {
        let mut orders = Vec::new();
        for campaign in self.campaigns_that_failed()? {
            orders.push(Order {
                failing: Stalled::default(),
                failed: self.stalled(STILL_WANTED, campaign.id)?,
                campaign,
            });
        }
        for campaign in self.open_campaigns()? {
            let waits = campaign.pending > 0
                && campaign.state != CampaignState::Cancelled
                && campaign.starts_at.is_none_or(|at| at <= now);
            if waits {
                let failing = "t.attempts > 0 AND t.state = 'called'";
                orders.push(Order {
                    failing: self.stalled(failing, campaign.id)?,
                    failed: self.stalled(STILL_WANTED, campaign.id)?,
                    campaign,
                });
            }
        }
        orders.sort_by_key(|order| order.campaign.id);
        Ok(orders)
    }

    /// Campaigns that ended with something that failed for good and still matters.
    fn campaigns_that_failed(&self) -> Outcome<Vec<Campaign>> {
        let sql = format!(
            "SELECT DISTINCT t.campaign AS num FROM campaign_item t JOIN campaign c ON c.num = t.campaign \
             LEFT JOIN identity i ON i.num = t.num WHERE {STILL_WANTED} AND c.ended_at IS NOT NULL ORDER BY t.campaign LIMIT ?1"
        );
        let ids: Vec<CampaignId> =
            self.all(RowKind::Campaign, &sql, [MOST], |row| row.get("num"))?;
        let mut found = Vec::with_capacity(ids.len());
        for id in ids {
            match self.campaign(id) {
                Err(fault) if fault.is_unreadable() => {}
                campaign => found.extend(campaign?),
            }
        }
        Ok(found)
    }

    fn stalled(&self, condition: &str, id: CampaignId) -> Outcome<Stalled> {
        let from = format!(
            "FROM campaign_item t JOIN campaign c ON c.num = t.campaign LEFT JOIN identity i ON i.num = t.num \
             WHERE t.campaign = ?1 AND {condition}"
        );
        let sql = format!("SELECT count(*) AS n FROM (SELECT 1 {from} LIMIT {COUNTED})");
        let count = self.first(&sql, [id], |row| columns::unsigned(row, "n"))?;
        let count = count.unwrap_or(0);
        if count == 0 {
            return Ok(Stalled::default());
        }
        let sql = format!(
            "SELECT t.campaign, t.num, coalesce(t.name, t.id, '?') AS label, t.error {from} ORDER BY t.num LIMIT {MOST}"
        );
        let some = self.all(RowKind::CampaignItem, &sql, [id], |row| {
            let error: Option<String> = row.get("error")?;
            Ok((row.get::<_, String>("label")?, error))
        })?;
        Ok(Stalled {
            count,
            error: some.first().and_then(|(_, error)| error.clone()),
            labels: some.into_iter().map(|(label, _)| label).collect(),
        })
    }

    /// Items that fail and are tried again.
    pub(in crate::store) fn failing_of(&self, id: CampaignId) -> Outcome<Stalled> {
        self.stalled("t.attempts > 0 AND t.state = 'called'", id)
    }

    /// What is still to be done to one row, or failed for good: the oldest order first.
    pub(in crate::store) fn orders_of(&self, num: Num, now: Timestamp) -> Outcome<Vec<RowOrder>> {
        let waiting = "t.state = 'pending' AND c.ended_at IS NULL AND c.phase <> 'cancelled'";
        let begun = format!(
            "t.state IN ('called', 'failed') AND ((t.state = 'called' AND c.ended_at IS NULL) \
             OR ({STILL_WANTED}))"
        );
        let mut orders = Vec::new();
        for condition in [waiting, &begun] {
            let sql = format!(
                "SELECT t.campaign, t.num, c.action, c.after, c.actor, c.created_at, c.starts_at, c.phase = 'paused' AS paused, \
                 t.state, t.attempts, t.next_at, t.error FROM campaign_item t JOIN campaign c \
                 ON c.num = t.campaign LEFT JOIN identity i ON i.num = t.num \
                 WHERE t.num = ?1 AND {condition} AND ?2 IS NOT NULL LIMIT {MOST}"
            );
            orders.extend(self.all(
                RowKind::CampaignItem,
                &sql,
                params![num, micros(now)],
                read_row_order,
            )?);
        }
        orders.sort_by_key(|order| order.campaign);
        Ok(orders)
    }
}

fn read_row_order(row: &Row<'_>) -> rusqlite::Result<RowOrder> {
    Ok(RowOrder {
        campaign: row.get("campaign")?,
        action: columns::word(row, "action")?,
        then: columns::maybe_word(row, "after")?,
        actor: row.get("actor")?,
        created_at: columns::instant_in(row, "created_at")?,
        starts_at: columns::maybe_instant(row, "starts_at")?,
        paused: row.get("paused")?,
        state: columns::word(row, "state")?,
        attempts: row.get("attempts")?,
        next_at: columns::instant_in(row, "next_at")?,
        error: row.get("error")?,
    })
}
