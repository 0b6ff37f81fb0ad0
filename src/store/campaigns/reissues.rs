//! What items wait for once ACS has acknowledged them: their next token, and every consumer that is to have it.

use std::time::Duration;

use super::{
    super::{
        Store,
        aside::RowKind,
        db::{self, CurrentRow, Txn, list, listed, micros},
        error::{Answer, Each, Outcome},
        identities::count,
        sinks::waited_for,
    },
    CampaignId, ItemState,
};
use crate::{
    model::{FailureClass, Num, ResourceName, State, Timestamp},
    sql::params,
};

/// A consumer that was not told within this is reported; its dispatcher goes on trying.
const DELIVERED_WITHIN: Duration = Duration::from_mins(15);
/// The same where only machines are waited for that are away.
const AWAY_FOR: Duration = Duration::from_mins(1);
/// A token that did not follow within this, although others are issued, is reported; the engine goes on
/// trying.
const ISSUED_WITHIN: Duration = Duration::from_mins(5);
/// So many failures in a row are more than an accident.
const FAILED_OFTEN: usize = 5;
/// Whether any item waits for a token.
const AWAITED: &str = "SELECT EXISTS (SELECT 1 FROM campaign_item WHERE state = 'acknowledged')";

/// Whether the consumers of any item are being told.
const DELIVERING: &str = "SELECT EXISTS (SELECT 1 FROM campaign_item WHERE state = 'delivering')";

/// How a look at the items of a campaign went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Followed {
    /// Where to go on; `None` when all were looked at.
    pub next: Option<Num>,
    /// Whether any of them went on: then more may, and it is looked again at once.
    pub moved: bool,
}

struct Waiting {
    num: Num,
    awaits_token: bool,
    since: Timestamp,
}

impl Store {
    /// How many items of a campaign wait for the token of an identity that fails again and again.
    pub async fn awaiting_failing(&self, id: CampaignId, resource: &ResourceName) -> Answer<usize> {
        let resource = resource.clone();
        self.read("count what waits", move |db| {
            let sql = "SELECT count(*) FROM identity i INDEXED BY identity_failing CROSS JOIN campaign_item t \
                       ON t.campaign = ?1 AND t.num = i.num AND t.state = 'acknowledged' \
                       WHERE i.resource = ?2 AND i.failures > 0 AND (i.failures >= ?3 OR i.failing_since IS NOT NULL)";
            let often = count(FAILED_OFTEN);
            let params = [id, db.resource_num(resource.as_str())?, often];
            let waiting = db.first(sql, params, |row| row.get::<_, u32>(0))?;
            Ok(waiting.unwrap_or(0) as usize)
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
                    since: db::instant_in(row, "since")?,
                })
            })?;
            let looked = txn.each("follow an item", &waiting, |txn, items| {
                let look = |item: &Waiting| match item.awaits_token {
                    true => txn.look_for_token(id, item, calm, now),
                    false => txn.look_for_delivery(id, item, now),
                };
                items.iter().map(look).collect()
            })?;
            let moved = looked.iter().any(|moved| matches!(moved, Ok(true)));
            told_refused(id, &waiting, looked);
            txn.end_if_settled(id, now)?;
            let full = waiting.len() == limit;
            let next = waiting.last().filter(|_| full).map(|item| item.num);
            Ok(Followed { next, moved })
        })
        .await
    }
}

impl Txn<'_> {
    /// A token was committed: the items that waited for it go on to its delivery.
    ///
    /// Where the socket alone hands it out, they are done with it.
    pub(in crate::store) fn items_reissued(
        &mut self,
        row: &CurrentRow,
        now: Timestamp,
    ) -> Outcome<()> {
        let awaited = match self.awaited {
            Some(awaited) => awaited,
            None => self.first(AWAITED, [], |row| row.get(0))? == Some(true),
        };
        self.awaited = Some(awaited);
        if !awaited {
            return Ok(());
        }
        let key = (row.by_socket, now);
        self.reissued.entry(key).or_default().push(row.num);
        Ok(())
    }

    /// Moves the items on whose tokens were committed, all of them by the same statement.
    pub(in crate::store) fn move_reissued(&mut self) -> Outcome<()> {
        for ((by_socket, now), nums) in std::mem::take(&mut self.reissued) {
            let (to, set) = match by_socket {
                true => (ItemState::Done, ", reissued_at = ?2, delivered_at = ?2"),
                false => (ItemState::Delivering, ", reissued_at = ?2"),
            };
            self.delivering = self.delivering.filter(|known| *known || by_socket);
            let which = concat!("num IN (SELECT value FROM ", listed!("?1"), " one)");
            let params = params![list(&nums), micros(now)];
            let moved =
                self.move_items_of_all((ItemState::Acknowledged, to), (set, which), params)?;
            if by_socket {
                self.settled.extend(moved.into_iter().map(|id| (id, now)));
            }
        }
        Ok(())
    }

    /// A consumer has what it should have: where all of an identity do, the items that waited for it are done.
    pub(in crate::store) fn items_delivered(&mut self, num: Num, now: Timestamp) -> Outcome<()> {
        let delivering = match self.delivering {
            Some(delivering) => delivering,
            None => self.first(DELIVERING, [], |row| row.get(0))? == Some(true),
        };
        self.delivering = Some(delivering);
        if !delivering {
            return Ok(());
        }
        let set = ", delivered_at = ?2, error = NULL";
        let which = "num = ?1 AND NOT EXISTS (SELECT 1 FROM delivery d JOIN sink s ON s.num = d.sink \
                     WHERE d.identity = ?1 AND d.wanted > d.delivered AND s.disabled IS NULL AND s.configured = 1)";
        let states = (ItemState::Delivering, ItemState::Done);
        let moved = self.move_items_of_all(states, (set, which), [num, micros(now)])?;
        self.settled.extend(moved.into_iter().map(|id| (id, now)));
        Ok(())
    }

    /// The commit of the token says so itself; this finds what it cannot: a row that wants none any
    /// more. When a token was issued is no proof: by the clock of ACS, one from just before may be
    /// younger than what was asked for.
    ///
    /// And a row that fails by itself while tokens are issued (`calm`): its campaign does not wait for it.
    fn look_for_token(
        &mut self,
        id: CampaignId,
        item: &Waiting,
        calm: bool,
        now: Timestamp,
    ) -> Outcome<bool> {
        let row = self.readable(item.num)?;
        let (state, error) = match row {
            Some(row) if row.state.wants_token() => {
                let waited = now.duration_since(item.since).unsigned_abs();
                match self.why_no_token(&row).filter(|_| calm) {
                    Some(why) if waited > ISSUED_WITHIN => (ItemState::Undelivered, Some(why)),
                    _ => return Ok(false),
                }
            }
            Some(row) if row.state == State::Gone => {
                let why = "no token follows: ACS says that the identity does not exist, or belongs to another resource";
                (ItemState::Undelivered, Some(why.to_owned()))
            }
            _ => (ItemState::Delivering, None),
        };
        let item = params![id, item.num, error];
        let from = &[ItemState::Acknowledged];
        self.move_item(id, (from, state), ", error = ?3", item)
    }

    /// Why a row that wants a token may not get one soon, while others do.
    fn why_no_token(&self, row: &CurrentRow) -> Option<String> {
        if row.id.is_none() {
            return Some("no token follows: it has no id and is not created".to_owned());
        }
        let attempts = row.attempts.read();
        let last = attempts.last().filter(|last| last.result != "ok")?;
        let failed = attempts.iter().rev();
        let failed = failed.take_while(|one| one.result != "ok").count();
        let refused = last.result.starts_with(FailureClass::Refuse.as_str());
        let often = failed >= if refused { 2 } else { FAILED_OFTEN };
        often.then(|| format!("no token follows yet, the last attempt: {}", last.result))
    }

    fn look_for_delivery(
        &mut self,
        id: CampaignId,
        item: &Waiting,
        now: Timestamp,
    ) -> Outcome<bool> {
        let untold = self.every(UNTOLD, [item.num], |row| {
            let sink = db::sink_at(row, ("name", "node"))?;
            Ok((sink.to_string(), row.get::<_, bool>("waited_for")?))
        })?;
        let waited = now.duration_since(item.since).unsigned_abs();
        let is_over = match untold.iter().any(|(_, waited_for)| *waited_for) {
            true => waited > DELIVERED_WITHIN,
            false => waited > AWAY_FOR,
        };
        let (state, delivered, error) = match untold.is_empty() {
            true => (ItemState::Done, Some(micros(now)), None),
            false if is_over => (ItemState::Undelivered, None, Some(said_untold(&untold))),
            false => return Ok(false),
        };
        let item = params![id, item.num, delivered, error];
        let (from, set) = (&[ItemState::Delivering], ", delivered_at = ?3, error = ?4");
        self.move_item(id, (from, state), set, item)
    }
}

/// Sinks that do not have what they should of an identity, and whether their machine is there.
const UNTOLD: &str = concat!(
    "SELECT s.num, s.name, s.node, ",
    waited_for!(),
    " AS waited_for FROM delivery d JOIN sink s ON s.num = d.sink \
     WHERE d.identity = ?1 AND d.wanted > d.delivered AND s.disabled IS NULL AND s.configured = 1 ORDER BY s.name, s.node"
);

/// Which sinks are not known to have it.
fn said_untold(untold: &[(String, bool)]) -> String {
    let of = |there: bool| {
        let names = untold.iter().filter(|(_, waited_for)| *waited_for == there);
        names
            .map(|(sink, _)| sink.as_str())
            .collect::<Vec<_>>()
            .join(", ")
    };
    let (behind, away) = (of(true), of(false));
    let behind = Some(format!("not delivered to {behind}")).filter(|_| !behind.is_empty());
    let away =
        Some(format!("not confirmed by {away}: the machine is away")).filter(|_| !away.is_empty());
    behind
        .into_iter()
        .chain(away)
        .collect::<Vec<_>>()
        .join("; ")
}

/// Items that the store refuses to move on: the others do.
fn told_refused(campaign: CampaignId, items: &[Waiting], looked: Each<bool>) {
    for (item, refused) in items.iter().zip(looked) {
        if let Err(error) = refused {
            tracing::error!(campaign, row = item.num, %error, "an item of a campaign cannot be followed");
        }
    }
}
