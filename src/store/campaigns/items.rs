//! The items of campaigns: taken, settled together with the steps of their rows in one commit, counted, listed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use super::{
    super::{
        Cause, StepOn, Store, StoreError,
        aside::RowKind,
        db::{self, Txn, micros, signed},
        error::{Answer, Each, Outcome},
        identities::{count, select_record},
        steps::Stand,
        tables::BEGUN,
    },
    Campaign, CampaignAction, CampaignId, CampaignItem, ItemOutcome, ItemState, ReportLine,
    WaitingItem,
};
use crate::{
    model::{DueReason, IdentityId, Notice, Num, ResourceName, Step, Timestamp},
    sql::{self, Row, params},
};

const ENDED: &str = "'done', 'failed', 'undelivered', 'cancelled'";

/// No call takes so long, noting its result included.
const UNDER_WAY: Duration = Duration::from_mins(2);

/// What is to be noted of an item.
#[derive(Debug, Clone)]
pub enum ItemNote {
    /// ACS is being called for it.
    Called(CampaignId, Num),
    /// How an attempt at it ended.
    Ended(Box<ItemEnd>),
    /// A failure of it is taken back: it was the beginning of what is known to be about the resource.
    Excused(Num),
}

/// How an attempt at an item ended.
#[derive(Debug, Clone)]
pub struct ItemEnd {
    pub campaign: Arc<Campaign>,
    pub num: Num,
    /// The step that its row takes in the same commit.
    pub step: Option<StepOn>,
    /// What becomes of the item.
    pub outcome: ItemOutcome,
    /// What is told of it.
    pub notice: Option<Notice>,
    /// It failed for good while others failed as well: when it is tried again by itself at the latest.
    pub again_at: Option<Timestamp>,
}

/// An item that failed for good while others failed as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FailedAmongOthers {
    pub campaign: CampaignId,
    pub num: Num,
    /// How often it was given another chance.
    pub chances: u32,
    /// When it is tried again at the latest, while it waits for that.
    pub again_at: Option<Timestamp>,
}

impl ItemEnd {
    fn cause(&self) -> Cause {
        Cause {
            actor: self.campaign.actor.clone(),
            reason: self.campaign.reason.clone(),
        }
    }

    /// Why its row is made due, where that is all there is to it.
    fn renews(&self) -> Option<&DueReason> {
        let step = self.step.as_ref().filter(|step| step.num == self.num)?;
        let is_all = self.notice.is_none()
            && self.again_at.is_none()
            && matches!(
                self.outcome,
                ItemOutcome::Done {
                    request_id: None,
                    ..
                }
            );
        match &step.step {
            Step::Due(why) if is_all && step.request_id.is_none() => Some(why),
            _ => None,
        }
    }
}

impl ItemNote {
    /// The row of the item.
    pub fn num(&self) -> Num {
        match self {
            Self::Called(_, num) | Self::Excused(num) => *num,
            Self::Ended(end) => end.num,
        }
    }

    /// Whether it may withdraw something.
    pub(in crate::store) fn withdraws(&self) -> bool {
        matches!(self, Self::Ended(end) if matches!(end.outcome, ItemOutcome::Done { .. }) || end.step.is_some())
    }

    fn end(&self) -> Option<&ItemEnd> {
        match self {
            Self::Ended(end) => Some(end),
            Self::Called(..) | Self::Excused(_) => None,
        }
    }
}

impl Store {
    /// One item of each kind that waits: to be called, for its token or its consumers.
    pub async fn waiting_items(&self, id: CampaignId) -> Answer<Vec<WaitingItem>> {
        self.read("look a campaign up", move |db| {
            const COLUMNS: &str = "SELECT t.campaign, t.num, coalesce(t.name, t.id, '?') AS label, t.state, r.name AS resource \
                FROM campaign_item t LEFT JOIN resource r ON r.num = t.resource";
            let mut waiting = Vec::new();
            let resources: Vec<i64> = db.all(
                RowKind::Resource,
                "SELECT num FROM resource ORDER BY num",
                [],
                |row| row.get(0),
            )?;
            for resource in resources {
                let sql = format!(
                    "{COLUMNS} WHERE t.campaign = ?1 AND t.resource = ?2 AND t.state IN ('pending', 'called') \
                     ORDER BY t.next_at"
                );
                waiting.extend(db.page(
                    RowKind::CampaignItem,
                    1,
                    &sql,
                    [id, resource],
                    read_waiting,
                )?);
            }
            for state in ["acknowledged", "delivering"] {
                let sql = format!(
                    "{COLUMNS} WHERE t.campaign = ?1 AND t.state IN ('acknowledged', 'delivering') \
                     AND t.state = '{state}'"
                );
                waiting.extend(db.page(RowKind::CampaignItem, 1, &sql, [id], read_waiting)?);
            }
            Ok(waiting)
        })
        .await
    }

    /// Which rows have these ids; ids that no row has are left out.
    pub async fn owners(&self, ids: Vec<IdentityId>) -> Answer<BTreeMap<IdentityId, Num>> {
        self.read("look ids up", move |db| {
            let sql = "SELECT num FROM identity WHERE id = ?1";
            let mut owners = BTreeMap::new();
            for id in &ids {
                if let Some(num) = db.first(sql, [id.as_str()], |row| row.get(0))? {
                    owners.insert(id.clone(), num);
                }
            }
            Ok(owners)
        })
        .await
    }

    /// Items of one resource that are to be begun, those that failed before or the others, but for those
    /// in flight (`skip`), the earliest `next_at` first; it may lie in the future.
    pub async fn campaign_items(
        &self,
        id: CampaignId,
        resource: &ResourceName,
        failing: bool,
        limit: usize,
        skip: &BTreeSet<Num>,
    ) -> Answer<Vec<CampaignItem>> {
        let (resource, skip) = (resource.clone(), skip.clone());
        self.read("list a campaign's items", move |db| {
            let params = [id, db.resource_num(resource.as_str())?];
            let sql = if failing { FAILING } else { ITEMS };
            Ok(
                db.some(RowKind::CampaignItem, limit, sql, params, |row| match skip
                    .contains(&row.get("num")?)
                {
                    true => Ok(None),
                    false => read_item(row).map(Some),
                })?,
            )
        })
        .await
    }

    /// A page of a campaign's report in the order of the rows: of the quarantine (`failed`), or of all.
    pub async fn campaign_report(
        &self,
        id: CampaignId,
        after: Option<Num>,
        failed: bool,
        limit: usize,
    ) -> Answer<Vec<ReportLine>> {
        self.read("report on a campaign", move |db| {
            let all = "SELECT t.*, r.name AS resource_name FROM campaign_item t LEFT JOIN resource r ON r.num = t.resource \
                       WHERE t.campaign = ?1 AND t.num > ?2 ORDER BY t.num";
            let quarantine = "SELECT t.*, r.name AS resource_name FROM campaign_item t LEFT JOIN resource r \
                       ON r.num = t.resource WHERE t.campaign = ?1 AND t.num > ?2 AND t.state = 'failed' \
                       ORDER BY t.num";
            let params = [id, after.unwrap_or(i64::MIN)];
            let sql = if failed { quarantine } else { all };
            Ok(db.page(RowKind::CampaignItem, limit, sql, params, read_line)?)
        })
        .await
    }

    /// How many renewals of a resource wait now, counted up to `most`: what a campaign yields to.
    pub async fn waiting_renewals(
        &self,
        resource: &ResourceName,
        most: usize,
        now: Timestamp,
    ) -> Answer<usize> {
        let resource = resource.clone();
        self.read("count what waits", move |db| {
            let sql = "SELECT count(*) FROM (SELECT 1 FROM identity WHERE resource = ?1 AND id IS NOT NULL \
                       AND due_at <= ?2 AND good_until > 0 AND due_why NOT IN ('requested', 'released') LIMIT ?3) waiting";
            let params = params![db.resource_num(resource.as_str())?, micros(now), count(most)];
            let found = db.first(sql, params, |row| row.get::<_, i64>(0))?;
            Ok(usize::try_from(found.unwrap_or(0)).unwrap_or(0))
        })
        .await
    }

    /// Notes what became of items of one resource: the steps of their rows, how attempts ended, what is told
    /// of it; a campaign ends with its last item. Each is answered; one that the store refuses keeps no
    /// other back.
    pub async fn note_items(
        &self,
        resource: &ResourceName,
        notes: Arc<Vec<ItemNote>>,
        now: Timestamp,
    ) -> Answer<Each<()>> {
        let (resource, withdraws) = (resource.clone(), notes.iter().any(ItemNote::withdraws));
        let note = move |txn: &mut Txn<'_>| {
            txn.each("note an item", &notes, |txn, notes| {
                txn.note_items(resource.as_str(), notes, now)?;
                Ok(vec![(); notes.len()])
            })
        };
        match withdraws {
            true => self.withdraw("note a campaign's results", note).await,
            false => self.write("note a campaign's results", note).await,
        }
    }

    /// Items of a resource that failed for good while others failed as well, as an earlier process left them.
    pub async fn failed_among_others(
        &self,
        resource: &ResourceName,
    ) -> Answer<Vec<FailedAmongOthers>> {
        let resource = resource.clone();
        self.read("look for items to be tried again", move |db| {
            let params = [db.resource_num(resource.as_str())?];
            let read = |row: &Row<'_>| {
                Ok(FailedAmongOthers {
                    campaign: row.get("campaign")?,
                    num: row.get("num")?,
                    chances: row.get("chances")?,
                    again_at: db::maybe_instant(row, "again_at")?,
                })
            };
            Ok(db.all(RowKind::CampaignItem, FAILED_AMONG_OTHERS, params, read)?)
        })
        .await
    }

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
                    txn.move_item(id, (BEGUN, ItemState::Cancelled), "", [id, *num])
                };
                left.iter().map(cancel).collect()
            })?;
            txn.end_if_settled(id, now)?;
            Ok(more)
        })
        .await
    }

    /// Campaigns that have ended and whose report is not sealed yet.
    pub async fn unsealed_reports(&self) -> Answer<Vec<CampaignId>> {
        self.read("look for ended campaigns", |db| {
            let sql = "SELECT num FROM campaign WHERE ended_at IS NOT NULL AND report_sha256 IS NULL ORDER BY num";
            Ok(db.all(RowKind::Campaign, sql, [], |row| row.get("num"))?)
        })
        .await
    }
}

impl Txn<'_> {
    /// Notes what became of items, in order: neighbours of one campaign together.
    pub(in crate::store) fn note_items(
        &mut self,
        resource: &str,
        notes: &[ItemNote],
        now: Timestamp,
    ) -> Outcome<()> {
        let campaign = |note: &ItemNote| note.end().map(|end| end.campaign.id);
        for notes in notes.chunk_by(|one, next| campaign(one) == campaign(next)) {
            let Some(id) = notes.first().and_then(campaign) else {
                for note in notes {
                    match note {
                        ItemNote::Called(id, num) => self.items_called(&[(*id, *num)], now)?,
                        ItemNote::Excused(num) => self.excuse_items(resource, &[*num])?,
                        ItemNote::Ended(_) => {}
                    }
                }
                continue;
            };
            for end in self.note_renewals(notes.iter().filter_map(ItemNote::end).collect(), now)? {
                let stand = match &end.step {
                    Some(step) => {
                        let taken = self.step_one(step, &end.cause(), now)?;
                        taken.map(|(_, stand)| stand)
                    }
                    None => self.standing(end.num)?.map(|row| row.stand()),
                };
                self.settle_item(&end.campaign, (end.num, stand), &end.outcome, now)?;
                self.raise(end.notice.as_slice())?;
                if let Some(at) = end.again_at {
                    self.write_items(
                        "again_at = ?3, chances = chances + 1 WHERE campaign = ?1 AND num = ?2 AND state = 'failed'",
                        [id, end.num, micros(at)],
                    )?;
                }
            }
            self.settled.insert(id, now);
        }
        Ok(())
    }

    /// Of the ends of items of one campaign those that only make their rows due now, all by the same statements; answers
    /// with the others.
    fn note_renewals<'e>(
        &mut self,
        ends: Vec<&'e ItemEnd>,
        now: Timestamp,
    ) -> Outcome<Vec<&'e ItemEnd>> {
        let Some((campaign, why)) = ends
            .first()
            .and_then(|end| Some((&end.campaign, end.renews()?)))
        else {
            return Ok(ends);
        };
        let alike = |end: &&&ItemEnd| end.renews() == Some(why);
        let nums: Vec<Num> = ends.iter().filter(alike).map(|end| end.num).collect();
        let renewed = self.renew(&nums, why, now)?;
        let (mut items, mut others) = (BTreeMap::<ItemState, Vec<Num>>::new(), Vec::new());
        for end in ends {
            match (renewed.get(&end.num), &end.step) {
                (Some(row), Some(step)) if end.renews() == Some(why) => {
                    self.tell_step(step, (&row.name, row.version), &end.cause(), now)?;
                    let state = after_step(campaign, Some(row.stand));
                    items.entry(state).or_default().push(end.num);
                }
                _ => others.push(end),
            }
        }
        // Nothing was called: they are done when it is noted.
        let from = &[ItemState::Pending, ItemState::Called];
        for (to, nums) in items {
            let set = match to {
                ItemState::Done => ", acked_at = ?3, error = NULL, delivered_at = ?3",
                _ => ", acked_at = ?3, error = NULL",
            };
            self.move_listed_items(campaign.id, (from, to), (set, &nums), now)?;
        }
        Ok(others)
    }

    pub(in crate::store) fn settle_item(
        &mut self,
        campaign: &Campaign,
        (num, stand): (Num, Option<Stand>),
        outcome: &ItemOutcome,
        now: Timestamp,
    ) -> Outcome<()> {
        let (state, at, next_at, error, request_id) = match outcome {
            ItemOutcome::Done { at, request_id } => {
                let state = after_step(campaign, stand);
                (state, Some(*at), None, None, request_id)
            }
            ItemOutcome::Retry {
                next_at,
                error,
                request_id,
            }
            | ItemOutcome::Unanswered {
                next_at,
                error,
                request_id,
            } => (
                ItemState::Called,
                None,
                Some(*next_at),
                Some(error),
                request_id,
            ),
            ItemOutcome::Failed { error, request_id } => {
                (ItemState::Failed, None, None, Some(error), request_id)
            }
        };
        let counts = matches!(
            outcome,
            ItemOutcome::Retry { .. } | ItemOutcome::Failed { .. }
        );
        let from: &[ItemState] = match campaign.calls() {
            true => &[ItemState::Called, ItemState::Pending],
            false => &[ItemState::Pending, ItemState::Called],
        };
        // Where nobody is to be told, it is done with the step.
        let set = ", acked_at = coalesce(?3, acked_at), next_at = coalesce(?4, next_at), error = ?5, \
                   request_id = coalesce(?6, request_id), attempts = attempts + ?7, \
                   delivered_at = coalesce(?8, delivered_at)";
        let delivered_at = (state == ItemState::Done).then(|| micros(now));
        let item = params![
            campaign.id,
            num,
            at.map(micros),
            next_at.map(micros),
            error,
            request_id,
            counts,
            delivered_at
        ];
        self.move_item(campaign.id, (from, state), set, item)?;
        if let ItemOutcome::Done { at, .. } = outcome {
            self.note_withdrawn(campaign, num);
            self.account_for_orphans(campaign, num, *at)?;
            let told = campaign.action == CampaignAction::Delete
                || (campaign.action == CampaignAction::Revoke && campaign.items() > 1);
            if told && self.any_order_told()? {
                let which = "t.num = ?2";
                self.end_order_notices(campaign.id, (which, num), "is done after all", now)?;
            }
        }
        Ok(())
    }

    /// Tells of items of which it was told that they failed that this is over.
    pub(super) fn end_order_notices(
        &mut self,
        id: CampaignId,
        (which, num): (&str, Num),
        how: &str,
        now: Timestamp,
    ) -> Outcome<()> {
        let sql = format!(
            "SELECT t.campaign, t.num, coalesce(t.name, t.id) AS label FROM campaign_item t \
             WHERE t.campaign = ?1 AND CAST(?2 AS BIGINT) IS NOT NULL AND {which} AND coalesce(t.name, t.id) IS NOT NULL"
        );
        let labels: Vec<String> = self.all(RowKind::CampaignItem, &sql, [id, num], |row| {
            row.get("label")
        })?;
        for label in labels {
            self.end_order_notice(&label, how, now)?;
        }
        Ok(())
    }

    /// Whether it was ever told of an order that it failed.
    fn any_order_told(&mut self) -> Outcome<bool> {
        if self.orders_told.is_none() {
            let sql =
                "SELECT EXISTS (SELECT 1 FROM notice WHERE key >= 'order ' AND key < 'order!')";
            self.orders_told = self.first(sql, [], |row| row.get(0))?;
        }
        Ok(self.orders_told != Some(false))
    }

    /// An item that withdraws something is written to the withdrawals with this commit.
    fn note_withdrawn(&mut self, campaign: &Campaign, num: Num) {
        let touched = &mut self.effects.touched;
        match campaign.action {
            CampaignAction::Revoke | CampaignAction::Hold | CampaignAction::Delete if num >= 1 => {
                touched.rows.insert(num);
            }
            CampaignAction::Revoke | CampaignAction::Hold | CampaignAction::Delete => {
                touched.ids.insert((campaign.id, num));
            }
            CampaignAction::Renew | CampaignAction::Release => {}
        }
    }

    /// What may exist without a record under an item's id was revoked or deleted with it.
    fn account_for_orphans(&mut self, campaign: &Campaign, num: Num, at: Timestamp) -> Outcome<()> {
        if !campaign.calls() || !self.any_orphans()? {
            return Ok(());
        }
        let sql = "SELECT coalesce(i.id, t.id), coalesce(t.called_at, ?3) FROM campaign_item t \
                   LEFT JOIN identity i ON i.num = t.num WHERE t.campaign = ?1 AND t.num = ?2";
        let params = [campaign.id, num, micros(at)];
        let found = self.first(sql, params, |row| {
            // When it was called is not known: then nothing is.
            Ok((
                row.get::<_, Option<String>>(0),
                row.get(1).unwrap_or(i64::MIN),
            ))
        })?;
        let Some((Ok(Some(id)), called)) = found else {
            return Ok(());
        };
        match campaign.action {
            CampaignAction::Delete => self.orphans_deleted(&id),
            CampaignAction::Revoke => self.orphans_revoked(&id, called, micros(at)),
            CampaignAction::Hold | CampaignAction::Release | CampaignAction::Renew => Ok(()),
        }
    }

    /// Takes a failure each back: it was the beginning of what is known to be about the resource.
    pub(in crate::store) fn excuse_items(&self, resource: &str, nums: &[Num]) -> Outcome<()> {
        let resource = self.resource_num(resource)?;
        for num in nums {
            self.write_items(
                "attempts = CASE WHEN attempts > 1 THEN attempts - 1 ELSE 0 END WHERE num = ?1 AND resource = ?2 \
                 AND state IN ('called', 'failed') AND state = 'called'",
                [*num, resource],
            )?;
        }
        Ok(())
    }

    /// ACS is being called for these.
    pub(in crate::store) fn items_called(
        &mut self,
        called: &[(CampaignId, Num)],
        now: Timestamp,
    ) -> Outcome<()> {
        for (id, num) in called {
            let from = &[ItemState::Pending, ItemState::Called];
            let item = [*id, *num, micros(now), signed(self.epoch.get())];
            let set = ", called_at = ?3, epoch = ?4";
            self.move_item(*id, (from, ItemState::Called), set, item)?;
        }
        Ok(())
    }

    /// Campaigns whose last item was settled end.
    pub(in crate::store) fn end_settled(&mut self) -> Outcome<()> {
        for (id, now) in std::mem::take(&mut self.settled) {
            self.end_if_settled(id, now)?;
        }
        Ok(())
    }

    /// Takes a row out of what is still to be done, when what it was to be revoked for is over.
    pub(in crate::store) fn spare(&mut self, num: Num, now: Timestamp) -> Outcome<()> {
        let which = "num = ?1 AND campaign IN (SELECT num FROM campaign WHERE ended_at IS NULL AND actor = 'renewd')";
        self.let_off((", error = 'declared again'", which), num, now)
    }

    /// A release undoes a deletion that was only planned.
    pub(in crate::store) fn spare_planned(&mut self, num: Num, now: Timestamp) -> Outcome<()> {
        let which = "num = ?1 AND campaign IN (SELECT num FROM campaign WHERE ended_at IS NULL \
                     AND action = 'delete' AND starts_at IS NOT NULL)";
        self.let_off((", error = 'released'", which), num, now)
    }

    fn let_off(&mut self, which: (&str, &str), num: Num, now: Timestamp) -> Outcome<()> {
        self.effects.touched.rows.insert(num);
        let states = (ItemState::Pending, ItemState::Cancelled);
        for campaign in self.move_items_of_all(states, which, [num])? {
            self.end_if_settled(campaign, now)?;
        }
        Ok(())
    }

    pub(in crate::store) fn end_if_settled(
        &mut self,
        id: CampaignId,
        now: Timestamp,
    ) -> Outcome<()> {
        self.flush_counts()?;
        let sql = format!(
            "UPDATE campaign SET ended_at = ?2 WHERE num = ?1 AND ended_at IS NULL AND cursor IS NULL \
             AND NOT EXISTS (SELECT 1 FROM item_count WHERE campaign = ?1 AND n > 0 AND state NOT IN ({ENDED}))"
        );
        if self.run(&sql, [id, micros(now)])? > 0 {
            self.effects.campaigns = true;
            let revoked = self
                .campaign(id)?
                .and_then(|campaign| campaign.revoked(now));
            let told = self.raise(revoked.as_slice());
            if !self.conn.is_in_transaction() {
                return told;
            }
            if let Err(fault) = told {
                let error = StoreError::new("tell of a revocation", fault);
                tracing::error!(campaign = id, %error, "nobody is told that a campaign has revoked all");
            }
        }
        Ok(())
    }
}

/// What an item that was done waits for: its next token, or its consumers.
fn after_step(campaign: &Campaign, stand: Option<Stand>) -> ItemState {
    match stand {
        None => ItemState::Done,
        Some(stand) if campaign.reissues() && stand.awaits_token => ItemState::Acknowledged,
        Some(stand) if stand.is_gone || stand.by_socket => ItemState::Done,
        Some(_) => ItemState::Delivering,
    }
}

pub(super) const ROWS_AFTER: &str =
    select_record!("WHERE i.num > ?1 AND i.num <= ?2 ORDER BY i.num");
pub(in crate::store) const ITEMS: &str = "SELECT t.campaign, t.num, t.name, r.name AS resource, coalesce(i.id, t.id) AS id, \
    i.state AS row_state, t.attempts, t.next_at \
    FROM campaign_item t LEFT JOIN resource r ON r.num = t.resource LEFT JOIN identity i ON i.num = t.num \
    WHERE t.campaign = ?1 AND t.resource = ?2 AND t.state IN ('pending', 'called') \
    AND t.attempts = 0 ORDER BY t.next_at, t.num";
pub(in crate::store) const FAILED_AMONG_OTHERS: &str = "SELECT campaign, num, chances, again_at FROM campaign_item \
    INDEXED BY campaign_again WHERE resource = ?1 AND chances > 0";
/// The same of those that failed before.
const FAILING: &str = "SELECT t.campaign, t.num, t.name, r.name AS resource, coalesce(i.id, t.id) AS id, \
    i.state AS row_state, t.attempts, t.next_at \
    FROM campaign_item t LEFT JOIN resource r ON r.num = t.resource LEFT JOIN identity i ON i.num = t.num \
    WHERE t.campaign = ?1 AND t.resource = ?2 AND t.attempts > 0 AND t.state = 'called' \
    ORDER BY t.next_at, t.num";

fn read_waiting(row: &Row<'_>) -> sql::Result<WaitingItem> {
    Ok(WaitingItem {
        num: row.get("num")?,
        label: row.get("label")?,
        resource: db::parsed(row, "resource")?,
        state: db::word(row, "state")?,
    })
}

pub(in crate::store) fn read_item(row: &Row<'_>) -> sql::Result<CampaignItem> {
    Ok(CampaignItem {
        num: row.get("num")?,
        name: db::maybe_parsed(row, "name")?,
        resource: db::parsed(row, "resource")?,
        id: db::maybe_parsed(row, "id")?,
        state: db::maybe_word(row, "row_state")?,
        attempts: row.get("attempts")?,
        next_at: db::instant_in(row, "next_at")?,
    })
}

fn read_line(row: &Row<'_>) -> sql::Result<ReportLine> {
    let acknowledged_at = db::maybe_instant(row, "acked_at")?;
    let reissued_at = db::maybe_instant(row, "reissued_at")?;
    let request_id: Option<String> = row.get("request_id")?;
    // Only a call ends the old token; what needed none leaves no gap.
    let gap = acknowledged_at
        .zip(reissued_at)
        .filter(|_| request_id.is_some())
        .map(|(from, to)| to.duration_since(from).as_millis().max(0));
    Ok(ReportLine {
        num: row.get("num")?,
        name: db::maybe_parsed(row, "name")?,
        resource: db::parsed(row, "resource_name")?,
        id: db::maybe_parsed(row, "id")?,
        state: db::word(row, "state")?,
        attempts: row.get("attempts")?,
        called_at: db::maybe_instant(row, "called_at")?,
        acknowledged_at,
        reissued_at,
        delivered_at: db::maybe_instant(row, "delivered_at")?,
        gap_ms: gap.map(|ms| i64::try_from(ms).unwrap_or(i64::MAX)),
        request_id,
        error: row.get("error")?,
    })
}
