//! What persons ordered: campaigns as they are made, expanded, steered (paused, resumed, cancelled, tried again)
//! and sealed, and orders that are not carried out yet, or not wholly.
//!
//! A selection is expanded into items by walking the rows by their number, a chunk at a time, so that a crash
//! resumes where it was and no transaction is ever long.

use std::time::Duration;

use super::{
    super::{
        Cause, Store, StoreError,
        aside::RowKind,
        db::{self, Db, Txn, drawn, draws, instant, micros, spelled},
        error::{Answer, Fault, Outcome},
        identities::read_record,
    },
    Campaign, CampaignAction, CampaignId, CampaignState, ItemState, NewCampaign, Target, Wanted,
    items,
};
use crate::{
    model::{AuditEntry, Facts, Notice, NoticeKind, Num, Record, Selection, Then, Timestamp},
    sql::{self, Row, params},
};

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
    pub count: u64,
    /// What people call some of them.
    pub labels: Vec<String>,
    /// How one of them failed last.
    pub error: Option<String>,
}

/// What an order means for one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowOrder {
    pub campaign: CampaignId,
    pub action: CampaignAction,
    /// What follows a revocation.
    pub then: Option<Then>,
    pub actor: String,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When it begins, where that was set.
    pub starts_at: Option<Timestamp>,
    /// Whether a person stopped it for now.
    pub paused: bool,
    /// Where the row's item stands.
    pub state: ItemState,
    pub attempts: u32,
    pub next_at: Timestamp,
    /// How the last attempt failed.
    pub error: Option<String>,
}

impl Store {
    /// Makes a campaign; the answer is its number. The runners expand what was selected and begin.
    pub async fn create_campaign(&self, new: NewCampaign, now: Timestamp) -> Answer<CampaignId> {
        self.withdraw("make a campaign", move |txn| txn.create_campaign(&new, now))
            .await
    }

    /// Lists more items of a campaign that was made with [`Target::Later`](crate::store::Target::Later).
    pub async fn add_items(
        &self,
        id: CampaignId,
        items: Vec<Wanted>,
        now: Timestamp,
    ) -> Answer<()> {
        self.withdraw("list a campaign's items", move |txn| {
            let sql = "UPDATE campaign SET told_at = ?3 WHERE num = ?1 AND cursor = ?2";
            if txn.run(sql, [id, OPEN, micros(now)])? == 0 {
                return Err(takes_no_more(id));
            }
            txn.list(id, &items, now)
        })
        .await
    }

    /// All items are listed, `target` says in words what they are; the campaign starts.
    pub async fn seal_campaign(
        &self,
        id: CampaignId,
        target: String,
        now: Timestamp,
    ) -> Answer<()> {
        self.withdraw("start a campaign", move |txn| {
            let sql =
                "UPDATE campaign SET cursor = NULL, target = ?3 WHERE num = ?1 AND cursor = ?2";
            if txn.run(sql, params![id, OPEN, &target])? == 0 {
                return Err(takes_no_more(id));
            }
            txn.effects.campaigns = true;
            txn.effects.touched.campaigns.insert(id);
            txn.end_if_settled(id, now)
        })
        .await
    }

    /// Ends campaigns whose items were still being listed when the last process ended; when a process
    /// starts, before anybody can bring any.
    pub async fn end_unsealed(&self, now: Timestamp) -> Answer<()> {
        self.withdraw("end campaigns that never began", move |txn| {
            txn.end_unsealed(now, now)
        })
        .await
    }

    /// Freezes up to `chunk` more rows of a selection. A list that somebody brings ends here when
    /// nothing came for half a minute.
    pub async fn expand(&self, id: CampaignId, chunk: usize, now: Timestamp) -> Answer<Frozen> {
        self.withdraw("freeze a campaign", move |txn| txn.expand(id, chunk, now))
            .await
    }

    /// Orders that wait, or of which something failed for good and still matters; the oldest first.
    pub async fn orders(&self, now: Timestamp) -> Answer<Vec<Order>> {
        self.read("list what is still to be done", move |db| {
            let mut orders = Vec::new();
            for campaign in db.campaigns_that_failed()? {
                orders.push(Order {
                    failing: Stalled::default(),
                    failed: db.stalled(STILL_WANTED, campaign.id)?,
                    campaign,
                });
            }
            for campaign in db.open_campaigns()? {
                let waits = campaign.pending > 0
                    && campaign.state != CampaignState::Cancelled
                    && campaign.starts_at.is_none_or(|at| at <= now);
                if waits {
                    let failing = "t.attempts > 0 AND t.state = 'called'";
                    orders.push(Order {
                        failing: db.stalled(failing, campaign.id)?,
                        failed: db.stalled(STILL_WANTED, campaign.id)?,
                        campaign,
                    });
                }
            }
            orders.sort_by_key(|order| order.campaign.id);
            Ok(orders)
        })
        .await
    }

    /// What is still to be done to one row, or failed for good; the oldest order first.
    pub async fn orders_of(&self, num: Num, now: Timestamp) -> Answer<Vec<RowOrder>> {
        self.read("look up what is still to be done", move |db| {
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
                     WHERE t.num = ?1 AND {condition} AND CAST(?2 AS BIGINT) IS NOT NULL LIMIT {MOST}"
                );
                orders.extend(db.all(
                    RowKind::CampaignItem,
                    &sql,
                    params![num, micros(now)],
                    read_row_order,
                )?);
            }
            orders.sort_by_key(|order| order.campaign);
            Ok(orders)
        })
        .await
    }

    /// Items of a campaign that fail and are tried again.
    pub async fn failing_of(&self, id: CampaignId) -> Answer<Stalled> {
        self.read("look a campaign up", move |db| {
            db.stalled("t.attempts > 0 AND t.state = 'called'", id)
        })
        .await
    }

    /// Tries items again that failed for good while others failed as well; how many.
    pub async fn retry_items(
        &self,
        items: Vec<(CampaignId, Num)>,
        now: Timestamp,
    ) -> Answer<usize> {
        self.withdraw("try a campaign's items again", move |txn| {
            let mut again = 0;
            for (id, num) in &items {
                let which = "campaign = ?1 AND num = ?2 AND EXISTS (SELECT 1 FROM campaign WHERE num = ?1 \
                             AND phase <> 'cancelled' AND given_up_at IS NULL)";
                let (states, set) = (AGAIN, ", attempts = 0, next_at = ?3, again_at = NULL");
                let item = [*id, *num, micros(now)];
                if txn.move_items(*id, states, (set, which), item)? > 0 {
                    again += 1;
                    let sql =
                        "UPDATE campaign SET ended_at = NULL, report_sha256 = NULL WHERE num = ?1";
                    txn.run(sql, [id])?;
                    txn.effects.campaigns = true;
                    txn.effects.touched.campaigns.insert(*id);
                }
            }
            Ok(again)
        })
        .await
    }

    /// Stops a campaign for now, or lets it go on. False where there is nothing to stop or resume.
    pub async fn pause_campaign(
        &self,
        id: CampaignId,
        pause: bool,
        cause: &Cause,
        now: Timestamp,
    ) -> Answer<bool> {
        let cause = cause.clone();
        self.withdraw("pause a campaign", move |txn| {
            let (phase, from) = if pause {
                ("paused", "running")
            } else {
                ("running", "paused")
            };
            let sql = "UPDATE campaign SET phase = ?2, told_at = ?4 WHERE num = ?1 AND ended_at IS NULL AND phase = ?3";
            let told = txn.run(sql, params![id, phase, from, micros(now)])? > 0;
            if told {
                let what = if pause { "pause" } else { "resume" };
                txn.told_campaign(id, what, &cause, now)?;
            }
            Ok(told)
        })
        .await
    }

    /// Stops a campaign for good. False where it has ended.
    pub async fn cancel_campaign(
        &self,
        id: CampaignId,
        cause: &Cause,
        now: Timestamp,
    ) -> Answer<bool> {
        let cause = cause.clone();
        self.withdraw("cancel a campaign", move |txn| {
            let sql = "UPDATE campaign SET phase = 'cancelled', cursor = NULL, told_at = ?2 WHERE num = ?1 \
                       AND ended_at IS NULL AND phase <> 'cancelled'";
            txn.flush_counts()?;
            let stop = txn.run(sql, [id, micros(now)])? > 0;
            let sql = "UPDATE campaign SET given_up_at = ?2 WHERE num = ?1 AND ended_at IS NOT NULL \
                       AND given_up_at IS NULL AND EXISTS (SELECT 1 FROM item_count WHERE campaign = ?1 \
                       AND state = 'failed' AND n > 0)";
            let give_up = !stop && txn.run(sql, [id, micros(now)])? > 0;
            match (stop, give_up) {
                (true, _) => {
                    txn.told_campaign(id, "cancel", &cause, now)?;
                    txn.end_if_settled(id, now)?;
                }
                (false, true) => {
                    txn.told_campaign(id, "give_up", &cause, now)?;
                    let failed = ("t.state = 'failed'", 0);
                    txn.end_order_notices(id, failed, "is given up by a person's word", now)?;
                }
                (false, false) => {}
            }
            Ok(stop || give_up)
        })
        .await
    }

    /// Tries again what failed for good; how many.
    pub async fn retry_campaign(
        &self,
        id: CampaignId,
        cause: &Cause,
        now: Timestamp,
    ) -> Answer<usize> {
        let cause = cause.clone();
        self.withdraw("try a campaign again", move |txn| {
            let set = ", attempts = 0, next_at = ?2, again_at = NULL, error = NULL";
            let which = "campaign = ?1 AND NOT EXISTS (SELECT 1 FROM campaign WHERE num = ?1 \
                         AND phase = 'cancelled' AND ended_at IS NULL)";
            let again = txn.move_items(id, AGAIN, (set, which), [id, micros(now)])?;
            if again > 0 {
                txn.run(
                    "UPDATE campaign SET phase = CASE phase WHEN 'paused' THEN phase ELSE 'running' END, ended_at = NULL, report_sha256 = NULL, given_up_at = NULL \
                     WHERE num = ?1",
                    [id],
                )?;
                txn.told_campaign(id, "retry", &cause, now)?;
            }
            Ok(again)
        })
        .await
    }

    /// Notes what the report of an ended campaign hashes to, in the audit trail as well.
    pub async fn seal_report(&self, id: CampaignId, sha256: String, now: Timestamp) -> Answer<()> {
        self.write("seal a report", move |txn| {
            let sql = "UPDATE campaign SET report_sha256 = ?2 WHERE num = ?1 AND ended_at IS NOT NULL \
                       AND report_sha256 IS NULL";
            if txn.run(sql, params![id, &sha256])? > 0 {
                let said = format!("campaign {id} ended; its report has SHA-256 {sha256}");
                txn.note_word(
                    "campaign.report",
                    said,
                    &Cause::ours("the campaign ended"),
                    now,
                )?;
            }
            Ok(())
        })
        .await
    }
}

impl Db {
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
        let sql = format!("SELECT count(*) AS n FROM (SELECT 1 {from} LIMIT {COUNTED}) counted");
        let count = self.first(&sql, [id], |row| db::unsigned(row, "n"))?;
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
}

fn read_row_order(row: &Row<'_>) -> sql::Result<RowOrder> {
    Ok(RowOrder {
        campaign: row.get("campaign")?,
        action: db::word(row, "action")?,
        then: db::maybe_word(row, "after")?,
        actor: row.get("actor")?,
        created_at: db::instant_in(row, "created_at")?,
        starts_at: db::maybe_instant(row, "starts_at")?,
        paused: row.get("paused")?,
        state: db::word(row, "state")?,
        attempts: row.get("attempts")?,
        next_at: db::instant_in(row, "next_at")?,
        error: row.get("error")?,
    })
}

impl Txn<'_> {
    fn told_campaign(
        &mut self,
        id: CampaignId,
        what: &str,
        cause: &Cause,
        now: Timestamp,
    ) -> Outcome<()> {
        self.effects.campaigns = true;
        self.effects.touched.campaigns.insert(id);
        let action = format!("campaign.{what}");
        self.note_word(&action, format!("campaign {id}"), cause, now)
    }
}

/// What failed for good is tried again.
const AGAIN: (ItemState, ItemState) = (ItemState::Failed, ItemState::Pending);
/// The cursor of a campaign whose items are brought from outside.
pub(in crate::store) const OPEN: i64 = -1;

impl Txn<'_> {
    pub(in crate::store) fn create_campaign(
        &mut self,
        new: &NewCampaign,
        now: Timestamp,
    ) -> Outcome<CampaignId> {
        let (target, selection, cursor) = match &new.target {
            Target::All => ("all".to_owned(), None, Some(0)),
            Target::Select(selection) => {
                let text = selection.to_string();
                (text.clone(), Some(text), Some(0))
            }
            Target::Items(items) => (format!("{} named", items.len()), None, None),
            Target::Later => ("a list that is being brought".to_owned(), None, Some(OPEN)),
        };
        let id = self.number_of_new(
            concat!(
                draws!("campaign"),
                " (num, action, after, actor, reason, created_at, urgent, starts_at, target, selection, cursor, told_at, \
                 last_num) VALUES (",
                drawn!(),
                ", ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?5, (SELECT coalesce(max(num), 0) FROM identity)) RETURNING num"
            ),
            params![
                spelled(&new.action),
                new.then.as_ref().map(spelled),
                new.actor,
                new.reason,
                micros(now),
                new.urgent,
                new.starts_at.map(micros),
                target,
                selection,
                cursor
            ],
        )?;
        self.effects.touched.campaigns.insert(id);
        if let Target::Items(items) = &new.target {
            self.list(id, items, now)?;
        }
        self.audit(&AuditEntry {
            at: now,
            actor: new.actor.clone(),
            action: "campaign".to_owned(),
            name: None,
            reason: new.reason.clone(),
            request_id: None,
            result: format!("campaign {id}: {} {target}", new.action.as_str()),
        })?;
        self.end_if_settled(id, now)?;
        self.effects.campaigns = true;
        Ok(id)
    }

    /// Lists items. One that is listed already is left as it is.
    fn list(&mut self, id: CampaignId, items: &[Wanted], now: Timestamp) -> Outcome<()> {
        let sql = "SELECT CASE WHEN starts_at > ?2 THEN starts_at ELSE ?2 END, action IN ('revoke', 'hold', 'delete') FROM campaign WHERE num = ?1";
        let from = self.first(sql, [id, micros(now)], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let (from, withdraws) =
            from.ok_or_else(|| Fault::Refused(format!("there is no campaign {id}")))?;
        for item in items {
            match item {
                Wanted::Row(num) => self.add_rows((id, withdraws), &[*num], from)?,
                Wanted::Id(resource, identity) => {
                    let owner = "SELECT num FROM identity WHERE id = ?1";
                    match self.first(owner, [identity.as_str()], |row| row.get::<_, Num>(0))? {
                        Some(num) => self.add_rows((id, withdraws), &[num], from)?,
                        None => self.add_id(id, resource.as_str(), identity.as_str(), from)?,
                    }
                }
            }
        }
        Ok(())
    }

    /// Lists rows; where the campaign withdraws something, `withdrawn.jsonl` is told.
    pub(in crate::store) fn add_rows(
        &mut self,
        (id, withdraws): (CampaignId, bool),
        nums: &[Num],
        from: i64,
    ) -> Outcome<()> {
        if withdraws {
            self.effects.touched.listed.extend(nums);
        }
        self.add_items(id, nums, from)
    }

    /// Ids without a row count downwards from -1.
    pub(in crate::store) fn add_id(
        &mut self,
        campaign: CampaignId,
        resource: &str,
        id: &str,
        from: i64,
    ) -> Outcome<()> {
        let resource = self.resource_num_or_new(resource)?;
        self.add_item_of_id(campaign, (resource, id), from)?;
        let item = "SELECT num FROM campaign_item WHERE campaign = ?1 AND num < 0 AND id = ?2";
        let item: Option<Num> = self.first(item, params![campaign, id], |row| row.get(0))?;
        self.effects
            .touched
            .ids
            .extend(item.map(|num| (campaign, num)));
        Ok(())
    }

    /// Ends those whose items are still being brought although nothing came since `silent_since`: their
    /// lists broke off, and nothing was done.
    pub(in crate::store) fn end_unsealed(
        &mut self,
        silent_since: Timestamp,
        now: Timestamp,
    ) -> Outcome<()> {
        let sql =
            "SELECT num FROM campaign WHERE cursor = ?1 AND coalesce(told_at, created_at) <= ?2";
        let broken: Vec<CampaignId> = self.all(
            RowKind::Campaign,
            sql,
            [OPEN, micros(silent_since)],
            |row| row.get(0),
        )?;
        for id in broken {
            self.call_off(id, "a list that never came whole", now)?;
        }
        Ok(())
    }

    /// Ends a campaign before it began; its items are let go of as those of any that is cancelled.
    pub(super) fn call_off(&mut self, id: CampaignId, target: &str, now: Timestamp) -> Outcome<()> {
        self.run(
            "UPDATE campaign SET phase = 'cancelled', cursor = NULL, told_at = ?3, target = ?2 WHERE num = ?1",
            params![id, target, micros(now)],
        )?;
        self.effects.campaigns = true;
        self.effects.touched.campaigns.insert(id);
        self.end_if_settled(id, now)
    }
}

fn takes_no_more(id: CampaignId) -> Fault {
    Fault::Refused(format!(
        "campaign {id} has ended, was cancelled, or has all its items; nothing was added, start a new one"
    ))
}

/// A list of which nothing came for so long has broken off.
const SILENT: Duration = Duration::from_secs(30);

/// How far a campaign's items are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frozen {
    /// More rows are to be looked at.
    More,
    /// All items are listed, or there is nothing to list.
    Whole,
    /// Somebody brings them; unless more come, it ends then.
    Brought(Timestamp),
}

impl Txn<'_> {
    /// Looks at up to `chunk` more rows, or whether a list that somebody brings has broken off.
    pub(in crate::store) fn expand(
        &mut self,
        id: CampaignId,
        chunk: usize,
        now: Timestamp,
    ) -> Outcome<Frozen> {
        let sql =
            "SELECT coalesce(told_at, created_at) FROM campaign WHERE num = ?1 AND cursor = ?2";
        let told = self.first(sql, [id, OPEN], |row| row.get::<_, i64>(0))?;
        if let Some(told) = told {
            let ends = instant(told).checked_add(SILENT).unwrap_or(now);
            if ends > now {
                return Ok(Frozen::Brought(ends));
            }
            self.end_unsealed(instant(told), now)?;
            return Ok(Frozen::Whole);
        }
        let sql = "SELECT cursor, last_num, selection FROM campaign WHERE num = ?1 AND cursor >= 0 \
                   AND phase = 'running'";
        let found = self.first(sql, [id], |row| {
            Ok((
                row.get::<_, Num>(0)?,
                row.get::<_, Num>(1)?,
                row.get::<_, Option<String>>(2)?,
            ))
        })?;
        let Some((cursor, last, selection)) = found else {
            return Ok(Frozen::Whole);
        };
        // It was understood when the campaign was made. If it is not now, its row is damaged: never
        // everybody instead.
        let Ok(selection) = selection.as_deref().map(Selection::parse).transpose() else {
            self.call_off(id, "a selection that cannot be read any more", now)?;
            return Ok(Frozen::Whole);
        };
        let Some(campaign) = self.campaign(id)? else {
            return Ok(Frozen::Whole);
        };
        let from = micros(campaign.starts_at.unwrap_or(now).max(now));
        let (kind, sql) = (RowKind::Identity, items::ROWS_AFTER);
        let rows = self.page(kind, chunk, sql, [cursor, last], read_record)?;
        self.list_selected(&campaign, selection.as_ref(), (&rows, from), now)?;
        let next = rows
            .last()
            .filter(|_| rows.len() == chunk)
            .map(|row| row.num);
        let sql = "UPDATE campaign SET cursor = ?2 WHERE num = ?1";
        self.run(sql, params![id, next])?;
        if next.is_none() {
            self.effects.campaigns = true;
            self.effects.touched.campaigns.insert(id);
            self.end_if_settled(id, now)?;
        }
        Ok(match next {
            Some(_) => Frozen::More,
            None => Frozen::Whole,
        })
    }

    /// Lists those of some rows that are selected, from a time on.
    fn list_selected(
        &mut self,
        campaign: &Campaign,
        selection: Option<&Selection>,
        (rows, from): (&[Record], i64),
        now: Timestamp,
    ) -> Outcome<()> {
        let is_wanted = |record: &&Record| {
            let selected =
                selection.is_none_or(|selection| selection.matches(&Facts::of(record, now)));
            selected && campaign.action.applies(record).is_ok()
        };
        let wanted: Vec<&Record> = rows.iter().filter(is_wanted).collect();
        let listing = (campaign.id, campaign.withdraws());
        let listed = self.each("list an item", &wanted, |txn, wanted| {
            let nums: Vec<Num> = wanted.iter().map(|record| record.num).collect();
            txn.add_rows(listing, &nums, from)?;
            Ok(vec![(); wanted.len()])
        })?;
        for (record, listed) in wanted.iter().zip(listed) {
            if let Err(error) = listed {
                self.raise(&[not_listed(campaign, record, &error, now)])?;
            }
        }
        Ok(())
    }
}

/// The store refuses to list an identity: the others are, and somebody is told.
fn not_listed(campaign: &Campaign, record: &Record, error: &StoreError, at: Timestamp) -> Notice {
    let (id, name) = (campaign.id, &record.spec.name);
    let message = format!(
        "{name} is left out of campaign {id} ({}): {error}. What was ordered is not done to it.",
        campaign.action.as_str()
    );
    tracing::error!(campaign = id, "{message}");
    Notice::new(NoticeKind::OrderFailed, at, message)
        .about(&record.spec.resource)
        .of(name)
        .keyed(Notice::order_key(name.as_str()))
}
