//! Following what was done to its end: until the next token is there and every consumer has it.

use std::{collections::BTreeSet, time::Duration};

use rusqlite::params;

use super::{
    super::{
        Store,
        aside::{Each, RowKind},
        columns::{self, micros},
        commit::Standing,
        db::Txn,
        error::{Answer, Outcome},
        identities::count,
    },
    CampaignId,
};
use crate::model::{FailureClass, Num, ResourceName, State, Timestamp};

/// A consumer that was not told within this is reported; its dispatcher goes on trying.
const DELIVERED_WITHIN: Duration = Duration::from_mins(15);
/// A token that did not follow within this, although others are issued, is reported; the engine goes on
/// trying.
const ISSUED_WITHIN: Duration = Duration::from_mins(5);
/// So many failures in a row are more than an accident.
const FAILED_OFTEN: usize = 5;
/// No call takes so long, noting its result included.
const UNDER_WAY: Duration = Duration::from_mins(2);

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

impl Store {
    /// Ends up to `limit` items of a cancelled campaign that are not acknowledged: those of one resource,
    /// but for what is in hand there (`skip`), and after some minutes those of every other, for which
    /// nobody may work any more. True while there may be more.
    pub async fn sweep_cancelled(
        &self,
        id: CampaignId,
        resource: &ResourceName,
        skip: &BTreeSet<Num>,
        limit: usize,
        now: Timestamp,
    ) -> Answer<bool> {
        let (resource, skip) = (resource.clone(), skip.clone());
        self.write("end what was cancelled", move |txn| {
            let long_ago = now.checked_sub(UNDER_WAY).unwrap_or(now);
            let sql = "SELECT t.campaign, t.num FROM campaign_item t JOIN campaign c ON c.num = t.campaign \
                       WHERE t.campaign = ?1 AND t.state IN ('pending', 'called') AND c.phase = 'cancelled' \
                       AND (t.resource = ?2 OR coalesce(c.told_at, c.created_at) <= ?3) LIMIT ?4";
            let most = count(limit.saturating_add(skip.len()));
            let params = params![id, txn.resource_num(resource.as_str())?, micros(long_ago), most];
            let mut left: Vec<Num> =
                txn.all(RowKind::CampaignItem, sql, params, |row| row.get("num"))?;
            let more = left.len() >= limit;
            left.retain(|num| !skip.contains(num));
            txn.each("cancel an item", &left, |txn, left| {
                let cancel = |num: &Num| {
                    let sql =
                        "UPDATE campaign_item SET state = 'cancelled' WHERE campaign = ?1 AND num = ?2";
                    Ok(txn.run(sql, [id, *num])?)
                };
                left.iter().map(cancel).collect()
            })?;
            txn.end_if_settled(id, now)?;
            Ok(more)
        })
        .await
    }

    /// Looks at up to `limit` items that wait for a token or for a consumer. `calm` says that tokens have
    /// been issued for a while: then a row that fails by itself is waited for no longer.
    pub async fn follow_items(
        &self,
        id: CampaignId,
        after: Option<Num>,
        limit: usize,
        calm: bool,
        now: Timestamp,
    ) -> Answer<Followed> {
        self.write("follow a campaign", move |txn| {
            let sql = "SELECT campaign, num, state = 'acknowledged' AS awaits, coalesce(reissued_at, acked_at) AS since \
                       FROM campaign_item \
                       WHERE campaign = ?1 AND num > ?2 AND state IN ('acknowledged', 'delivering') \
                       ORDER BY num";
            let params = [id, after.unwrap_or(i64::MIN)];
            let waiting = txn.page(RowKind::CampaignItem, limit, sql, params, |row| {
                Ok(Waiting {
                    num: row.get("num")?,
                    awaits_token: row.get("awaits")?,
                    since: columns::instant_in(row, "since")?,
                })
            })?;
            let looked = txn.each("follow an item", &waiting, |txn, items| {
                let look = |item: &Waiting| match item.awaits_token {
                    true => txn.look_for_token(id, item, calm, now),
                    false => txn.look_for_delivery(id, item, now),
                };
                items.iter().map(look).collect()
            })?;
            told_refused(id, &waiting, looked);
            txn.end_if_settled(id, now)?;
            let full = waiting.len() == limit;
            let next = waiting.last().filter(|_| full).map(|item| item.num);
            Ok(Followed { next })
        })
        .await
    }
}

impl Txn<'_> {
    /// The commit of the token says so itself; this finds what it cannot: a row that wants none any
    /// more. When a token was issued is no proof: by the clock of ACS, one from just before may be
    /// younger than what was asked for.
    ///
    /// And a row that fails by itself while tokens are issued (`calm`): its campaign does not wait for it.
    fn look_for_token(
        &self,
        id: CampaignId,
        item: &Waiting,
        calm: bool,
        now: Timestamp,
    ) -> Outcome<()> {
        let row = self.readable(item.num)?;
        let (state, error) = match row {
            Some(row) if row.state.wants_token() => {
                let waited = now.duration_since(item.since).unsigned_abs();
                match self.why_no_token(&row).filter(|_| calm) {
                    Some(why) if waited > ISSUED_WITHIN => ("undelivered", Some(why)),
                    _ => return Ok(()),
                }
            }
            Some(row) if row.state == State::Gone => {
                let why = "no token follows: ACS says that the identity does not exist, or belongs to another resource";
                ("undelivered", Some(why.to_owned()))
            }
            _ => ("delivering", None),
        };
        self.run(
            "UPDATE campaign_item SET state = ?3, error = ?4 WHERE campaign = ?1 AND num = ?2",
            params![id, item.num, state, error],
        )?;
        Ok(())
    }

    /// Why a row that wants a token may not get one soon, while others do.
    fn why_no_token(&self, row: &Standing) -> Option<String> {
        if row.id.is_none() {
            return Some("no token follows: it has no id and is not created".to_owned());
        }
        let last = row.attempts.last().filter(|last| last.result != "ok")?;
        let failed = row.attempts.iter().rev();
        let failed = failed.take_while(|one| one.result != "ok").count();
        let refused = last.result.starts_with(FailureClass::Refuse.as_str());
        let often = failed >= if refused { 2 } else { FAILED_OFTEN };
        often.then(|| format!("no token follows yet, the last attempt: {}", last.result))
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
}

/// Items that the store refuses to move on: the others do.
fn told_refused(campaign: CampaignId, items: &[Waiting], looked: Each<()>) {
    for (item, refused) in items.iter().zip(looked) {
        if let Err(error) = refused {
            tracing::error!(campaign, row = item.num, %error, "an item of a campaign cannot be followed");
        }
    }
}
