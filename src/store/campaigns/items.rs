//! The items of campaigns: taken, settled together with the steps of their rows in one commit, followed until the
//! next token is there and every consumer has it, counted, listed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use super::{
    super::{
        Cause, StepOn, Store, StoreError,
        aside::RowKind,
        commit::CurrentRow,
        db::{self, Txn, micros, signed},
        error::{Answer, Each, Outcome},
        identities::{count, select_record},
        sinks::waited_for,
        steps::Stand,
        tables::BEGUN,
    },
    Campaign, CampaignAction, CampaignId, CampaignItem, ItemOutcome, ItemState, ReportLine,
    WaitingItem,
};
use crate::{
    model::{FailureClass, IdentityId, Notice, Num, ResourceName, State, Timestamp},
    sql::{self, Row, params},
};

const ENDED: &str = "'done', 'failed', 'undelivered', 'cancelled'";

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

/// Whether any item waits for a token.
pub(in crate::store) const AWAITED: &str =
    "SELECT EXISTS (SELECT 1 FROM campaign_item WHERE state = 'acknowledged')";

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

    /// Takes the steps of rows, notes how attempts at their items ended and tells it, in one commit; the
    /// campaign ends with its last item.
    pub async fn settle_items(
        &self,
        id: CampaignId,
        steps: Vec<StepOn>,
        cause: &Cause,
        outcomes: Vec<(Num, ItemOutcome)>,
        notices: Vec<Notice>,
        now: Timestamp,
    ) -> Answer<()> {
        let cause = cause.clone();
        self.withdraw("note a campaign's results", move |txn| {
            txn.step(&steps, &cause, now)?;
            txn.settle_items(id, &outcomes, now)?;
            txn.raise(&notices)
        })
        .await
    }

    /// How many items of a campaign wait for the token of an identity that fails again and again.
    pub async fn awaiting_failing(&self, id: CampaignId, resource: &ResourceName) -> Answer<usize> {
        let resource = resource.clone();
        self.read("count what waits", move |db| {
            let sql = "SELECT count(*) FROM identity i INDEXED BY identity_failing CROSS JOIN campaign_item t \
                       ON t.campaign = ?1 AND t.num = i.num AND t.state = 'acknowledged' \
                       WHERE i.resource = ?2 AND i.failures > 0 AND (i.failures >= ?3 OR i.failing_since IS NOT NULL)";
            let params = [id, db.resource_num(resource.as_str())?, FAILED_OFTEN];
            let waiting = db.first(sql, params, |row| row.get::<_, u32>(0))?;
            Ok(waiting.unwrap_or(0) as usize)
        })
        .await
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
            for end in notes.iter().filter_map(ItemNote::end) {
                let stand = match &end.step {
                    Some(step) => {
                        let cause = Cause {
                            actor: end.campaign.actor.clone(),
                            reason: end.campaign.reason.clone(),
                        };
                        self.step_one(step, &cause, now)?.map(|(_, stand)| stand)
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

    pub(in crate::store) fn settle_items(
        &mut self,
        id: CampaignId,
        outcomes: &[(Num, ItemOutcome)],
        now: Timestamp,
    ) -> Outcome<()> {
        let Some(campaign) = self.campaign(id)? else {
            return Ok(());
        };
        for (num, outcome) in outcomes {
            let stand = self.standing(*num)?.map(|row| row.stand());
            self.settle_item(&campaign, (*num, stand), outcome, now)?;
        }
        self.end_if_settled(id, now)
    }

    fn settle_item(
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
        let (to, set) = match row.by_socket {
            true => (ItemState::Done, ", reissued_at = ?2, delivered_at = ?2"),
            false => (ItemState::Delivering, ", reissued_at = ?2"),
        };
        self.delivering = self.delivering.filter(|known| *known || row.by_socket);
        let which = (set, "num = ?1");
        let moved =
            self.move_items_of_all((ItemState::Acknowledged, to), which, [row.num, micros(now)])?;
        if row.by_socket {
            self.settled.extend(moved.into_iter().map(|id| (id, now)));
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

/// Whether the consumers of any item are being told.
const DELIVERING: &str = "SELECT EXISTS (SELECT 1 FROM campaign_item WHERE state = 'delivering')";

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

/// So many failures in a row are more than an accident.
const FAILED_OFTEN: i64 = 5;

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

/// A consumer that was not told within this is reported; its dispatcher goes on trying.
const DELIVERED_WITHIN: Duration = Duration::from_mins(15);
/// The same where only machines are waited for that are away.
const AWAY_FOR: Duration = Duration::from_mins(1);
/// A token that did not follow within this, although others are issued, is reported; the engine goes on
/// trying.
const ISSUED_WITHIN: Duration = Duration::from_mins(5);
/// So many failures in a row are more than an accident.
const REISSUES_FAILED_OFTEN: usize = 5;
/// No call takes so long, noting its result included.
const UNDER_WAY: Duration = Duration::from_mins(2);

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
        let often = failed >= if refused { 2 } else { REISSUES_FAILED_OFTEN };
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
