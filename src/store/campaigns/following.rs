//! Following what was done to its end: until the next token is there and every consumer has it.

use std::time::Duration;

use rusqlite::params;

use super::{
    super::{
        columns::{self, micros},
        db::Txn,
        error::Outcome,
        identities::count,
    },
    CampaignId,
};
use crate::model::{Num, Timestamp};

/// A consumer that was not told within this is reported; its courier goes on trying.
const DELIVERED_WITHIN: Duration = Duration::from_mins(15);

/// How a look at the items of a campaign went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Followed {
    /// Where to go on; `None` when all were looked at.
    pub next: Option<Num>,
}

struct Waiting {
    num: Num,
    awaits_token: bool,
    since: Timestamp,
}

impl Txn<'_> {
    /// Looks at up to `limit` items that wait for their token or for their consumers, and at as many
    /// of a cancelled campaign that were not begun.
    pub(in crate::store) fn follow_items(
        &mut self,
        id: CampaignId,
        after: Option<Num>,
        limit: usize,
        now: Timestamp,
    ) -> Outcome<Followed> {
        let swept = self.sweep_cancelled(id, limit)?;
        let sql = "SELECT num, state = 'acknowledged' AS awaits, coalesce(reissued_at, acked_at) AS since \
                   FROM campaign_item \
                   WHERE campaign = ?1 AND num > ?2 AND state IN ('acknowledged', 'delivering') \
                   ORDER BY num LIMIT ?3";
        let params = params![id, after.unwrap_or(i64::MIN), count(limit)];
        let waiting = self.all(sql, params, |row| {
            Ok(Waiting {
                num: row.get("num")?,
                awaits_token: row.get("awaits")?,
                since: columns::instant_in(row, "since")?,
            })
        })?;
        for item in &waiting {
            if item.awaits_token {
                self.look_for_token(id, item)?;
            } else {
                self.look_for_delivery(id, item, now)?;
            }
        }
        self.end_if_settled(id, now)?;
        let full = waiting.len() == limit;
        let next = waiting.last().filter(|_| full).map(|item| item.num);
        Ok(Followed {
            next: next.or(swept.then_some(i64::MIN)),
        })
    }

    /// The commit of the token says so itself; this finds what it cannot: a row that wants none any
    /// more. When a token was issued is no proof: by the clock of ACS, one from just before may be
    /// younger than what was asked for.
    fn look_for_token(&self, id: CampaignId, item: &Waiting) -> Outcome<()> {
        let row = self.standing(item.num)?;
        if row.is_some_and(|row| row.state.wants_token()) {
            return Ok(());
        }
        self.run(
            "UPDATE campaign_item SET state = 'delivering' WHERE campaign = ?1 AND num = ?2",
            params![id, item.num],
        )?;
        Ok(())
    }

    fn look_for_delivery(&self, id: CampaignId, item: &Waiting, now: Timestamp) -> Outcome<()> {
        let sql = "SELECT group_concat(s.name, ', ') FROM delivery d JOIN sink s ON s.num = d.sink \
                   WHERE d.identity = ?1 AND d.wanted > d.delivered AND s.disabled IS NULL AND s.configured";
        let untold = self.first(sql, [item.num], |row| row.get::<_, Option<String>>(0))?;
        let (state, delivered, error) = match untold.flatten() {
            None => ("done", Some(micros(now)), None),
            Some(sinks) if now.duration_since(item.since).unsigned_abs() > DELIVERED_WITHIN => (
                "undelivered",
                None,
                Some(format!("not delivered to {sinks}")),
            ),
            Some(_) => return Ok(()),
        };
        self.run(
            "UPDATE campaign_item SET state = ?3, delivered_at = ?4, error = ?5 WHERE campaign = ?1 AND num = ?2",
            params![id, item.num, state, delivered, error],
        )?;
        Ok(())
    }

    /// True while there may be more.
    fn sweep_cancelled(&self, id: CampaignId, limit: usize) -> Outcome<bool> {
        let swept = self.run(
            "UPDATE campaign_item SET state = 'cancelled' WHERE campaign = ?1 AND num IN (SELECT num \
             FROM campaign_item WHERE campaign = ?1 AND state = 'pending' LIMIT ?2) \
             AND (SELECT phase FROM campaign WHERE num = ?1) = 'cancelled'",
            params![id, count(limit)],
        )?;
        Ok(swept == limit)
    }
}
