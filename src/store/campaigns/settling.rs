//! Noting what became of items, together with the steps of their rows: one commit.

use std::sync::Arc;

use rusqlite::params;

use super::{
    super::{
        Cause, StepOn,
        aside::RowKind,
        columns::{micros, spelled},
        db::Txn,
        error::Outcome,
    },
    Campaign, CampaignAction, CampaignId, ItemOutcome, ItemState,
};
use crate::model::{Notice, Num, State, Timestamp};

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
    /// The campaign.
    pub campaign: Arc<Campaign>,
    /// The item.
    pub num: Num,
    /// The step that its row takes in the same commit.
    pub step: Option<StepOn>,
    /// What becomes of the item.
    pub outcome: ItemOutcome,
    /// What is told of it.
    pub notice: Option<Notice>,
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
            let mut outcomes = Vec::with_capacity(notes.len());
            for end in notes.iter().filter_map(ItemNote::end) {
                if let Some(step) = &end.step {
                    let cause = Cause {
                        actor: end.campaign.actor.clone(),
                        reason: end.campaign.reason.clone(),
                    };
                    self.step(std::slice::from_ref(step), &cause, now)?;
                }
                outcomes.push((end.num, end.outcome.clone()));
            }
            self.settle_items(id, &outcomes, now)?;
            for end in notes.iter().filter_map(ItemNote::end) {
                self.raise(end.notice.as_slice())?;
            }
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
            self.settle_item(&campaign, *num, outcome, now)?;
        }
        self.end_if_settled(id, now)
    }

    fn settle_item(
        &mut self,
        campaign: &Campaign,
        num: Num,
        outcome: &ItemOutcome,
        now: Timestamp,
    ) -> Outcome<()> {
        let (state, at, next_at, error, request_id) = match outcome {
            ItemOutcome::Done { at, request_id } => {
                let state = self.after_step(campaign, num)?;
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
        self.run(
            "UPDATE campaign_item SET state = ?3, acked_at = coalesce(?4, acked_at), \
             next_at = coalesce(?5, next_at), error = ?6, request_id = coalesce(?7, request_id), \
             attempts = attempts + ?8 \
             WHERE campaign = ?1 AND num = ?2 AND state IN ('pending', 'called')",
            params![
                campaign.id,
                num,
                spelled(&state),
                at.map(micros),
                next_at.map(micros),
                error,
                request_id,
                counts
            ],
        )?;
        if let ItemOutcome::Done { at, .. } = outcome {
            self.note_withdrawn(campaign, num);
            self.account_for_orphans(campaign, num, *at)?;
            if campaign.action == CampaignAction::Delete {
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
             WHERE t.campaign = ?1 AND ?2 IS NOT NULL AND {which} AND label IS NOT NULL"
        );
        let labels: Vec<String> = self.all(RowKind::CampaignItem, &sql, [id, num], |row| {
            row.get("label")
        })?;
        for label in labels {
            self.end_order_notice(&label, how, now)?;
        }
        Ok(())
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
    fn account_for_orphans(&self, campaign: &Campaign, num: Num, at: Timestamp) -> Outcome<()> {
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

    /// What an item that was done waits for: its next token, or its consumers.
    fn after_step(&self, campaign: &Campaign, num: Num) -> Outcome<ItemState> {
        let Some(row) = self.standing(num)? else {
            return Ok(ItemState::Done);
        };
        if campaign.reissues() && row.state.wants_token() && row.due_at.is_some() {
            return Ok(ItemState::Acknowledged);
        }
        Ok(match row.state {
            State::Gone => ItemState::Done,
            _ => ItemState::Delivering,
        })
    }

    /// Takes a failure each back: it was the beginning of what is known to be about the resource.
    pub(in crate::store) fn excuse_items(&self, resource: &str, nums: &[Num]) -> Outcome<()> {
        let resource = self.resource_num(resource)?;
        for num in nums {
            self.run(
                "UPDATE campaign_item SET attempts = max(attempts - 1, 0) WHERE num = ?1 AND resource = ?2 \
                 AND state IN ('called', 'failed') AND state = 'called'",
                [*num, resource],
            )?;
        }
        Ok(())
    }

    /// ACS is being called for these.
    pub(in crate::store) fn items_called(
        &self,
        called: &[(CampaignId, Num)],
        now: Timestamp,
    ) -> Outcome<()> {
        for (id, num) in called {
            self.run(
                "UPDATE campaign_item SET state = 'called', called_at = ?3 WHERE campaign = ?1 AND num = ?2 \
                 AND state IN ('pending', 'called')",
                [*id, *num, micros(now)],
            )?;
        }
        Ok(())
    }

    /// A token was committed: the items that waited for it go on to its delivery.
    pub(in crate::store) fn items_reissued(&self, num: Num, now: Timestamp) -> Outcome<()> {
        self.run(
            "UPDATE campaign_item SET state = 'delivering', reissued_at = ?2 \
             WHERE num = ?1 AND state = 'acknowledged'",
            [num, micros(now)],
        )?;
        Ok(())
    }

    /// Takes a row out of what is still to be done, when what it was to be revoked for is over.
    pub(in crate::store) fn spare(&mut self, num: Num, now: Timestamp) -> Outcome<()> {
        let sql = "UPDATE campaign_item SET state = 'cancelled', error = 'declared again' WHERE num = ?1 \
                   AND state = 'pending' AND campaign IN (SELECT num FROM campaign WHERE ended_at IS NULL \
                   AND actor = 'renewd') RETURNING campaign";
        self.let_off(sql, num, now)
    }

    /// A release undoes a deletion that was only planned.
    pub(in crate::store) fn spare_planned(&mut self, num: Num, now: Timestamp) -> Outcome<()> {
        let sql = "UPDATE campaign_item SET state = 'cancelled', error = 'released' WHERE num = ?1 \
                   AND state = 'pending' AND campaign IN (SELECT num FROM campaign WHERE ended_at IS NULL \
                   AND action = 'delete' AND starts_at IS NOT NULL) RETURNING campaign";
        self.let_off(sql, num, now)
    }

    fn let_off(&mut self, sql: &str, num: Num, now: Timestamp) -> Outcome<()> {
        self.effects.touched.rows.insert(num);
        for campaign in self.all(RowKind::Campaign, sql, [num], |row| row.get(0))? {
            self.end_if_settled(campaign, now)?;
        }
        Ok(())
    }

    pub(in crate::store) fn end_if_settled(
        &mut self,
        id: CampaignId,
        now: Timestamp,
    ) -> Outcome<()> {
        let sql = format!(
            "UPDATE campaign SET ended_at = ?2 WHERE num = ?1 AND ended_at IS NULL AND cursor IS NULL \
             AND NOT EXISTS (SELECT 1 FROM item_count WHERE campaign = ?1 AND n > 0 AND state NOT IN ({ENDED}))"
        );
        if self.run(&sql, [id, micros(now)])? > 0 {
            self.effects.campaigns = true;
        }
        Ok(())
    }
}
