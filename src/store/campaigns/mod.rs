//! Bulk operations: frozen into rows, so that they outlive restarts.
//!
//! A campaign is created with its [`Target`], expanded into items in chunks that a crash resumes (`orders`), worked
//! off by the runners (`items`), followed until the tokens that are to come are delivered (`reissues`), and reported
//! on for as long as the audit trail is kept.

mod items;
mod orders;
mod reissues;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    Cause, Store,
    aside::RowKind,
    db::{self, Db},
    error::{Answer, Outcome},
};
use crate::{
    model::{
        CampaignAction, CampaignId, IdentityId, Name, Notice, NoticeKind, Num, ResourceName,
        Selection, State, Then, Timestamp,
    },
    sql::{self, Row},
};

pub(super) use items::read_item;
#[cfg(test)]
pub(super) use items::{FAILED_AMONG_OTHERS, ITEMS};
pub use items::{FailedAmongOthers, ItemEnd, ItemNote};
pub use orders::Frozen;
pub(super) use orders::OPEN;
pub use orders::{Order, RowOrder, Stalled};
pub use reissues::Followed;

/// On what a campaign works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Every identity that the action applies to.
    All,
    /// Those of a selection that the action applies to; evaluated once, while it is frozen.
    Select(Selection),
    /// These, at most some thousands: they are one transaction.
    Items(Vec<Wanted>),
    /// Those that [`Store::add_items`] brings before [`Store::seal_campaign`]; it starts with that, and
    /// never when the daemon ended in between.
    ///
    /// [`Store::add_items`]: super::Store::add_items
    /// [`Store::seal_campaign`]: super::Store::seal_campaign
    Later,
}

/// One item that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    Row(Num),
    /// An id at ACS, whether a row has it or not; for revoking and deleting.
    Id(ResourceName, IdentityId),
}

/// A campaign that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewCampaign {
    pub action: CampaignAction,
    /// What follows a revocation.
    pub then: Option<Then>,
    pub target: Target,
    /// Whether it goes before everything but renewals that are urgent themselves.
    pub urgent: bool,
    /// Not before, where it is not to start at once.
    pub starts_at: Option<Timestamp>,
    pub actor: String,
    pub reason: Option<String>,
}

impl NewCampaign {
    /// A campaign that starts at once and is not urgent.
    pub fn new(action: CampaignAction, then: Option<Then>, target: Target, cause: Cause) -> Self {
        Self {
            action,
            then,
            target,
            urgent: false,
            starts_at: None,
            actor: cause.actor,
            reason: cause.reason,
        }
    }
}

/// Where a campaign stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum CampaignState {
    /// Its items are being listed.
    #[serde(rename = "freezing")]
    Expanding,
    /// It is being worked off, or waits for its time.
    #[serde(rename = "running")]
    Running,
    /// Stopped by a person, to be resumed.
    #[serde(rename = "paused")]
    Paused,
    /// Stopped by a person for good.
    #[serde(rename = "cancelled")]
    Cancelled,
    #[serde(rename = "done")]
    Done,
    /// It has ended, and some items failed.
    #[serde(rename = "done with failures")]
    DoneWithFailures,
}

impl CampaignState {
    /// The words in listings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Expanding => "freezing",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Cancelled => "cancelled",
            Self::Done => "done",
            Self::DoneWithFailures => "done with failures",
        }
    }
}

/// A campaign and how far it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Campaign {
    pub id: CampaignId,
    pub action: CampaignAction,
    /// What follows a revocation.
    pub then: Option<Then>,
    /// What was selected, in words.
    pub target: String,
    /// Whether it goes before everything but urgent renewals.
    pub urgent: bool,
    pub actor: String,
    pub reason: Option<String>,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When it starts, where that is not at once.
    pub starts_at: Option<Timestamp>,
    /// When its last item ended.
    pub ended_at: Option<Timestamp>,
    pub state: CampaignState,
    /// Items not acknowledged yet.
    pub pending: u64,
    /// Those of them that failed and are tried again.
    #[serde(default)]
    pub failing: u64,
    /// Items that ACS acknowledged, or that needed no call, and that wait for their next token.
    pub acknowledged: u64,
    /// Items whose token, or whose withholding, is not delivered everywhere yet.
    pub delivering: u64,
    /// Items that are done and delivered.
    pub done: u64,
    /// Items that failed for good: the quarantine.
    pub failed: u64,
    /// Items that were done, but not delivered everywhere within a quarter of an hour.
    pub undelivered: u64,
    /// Items that were cancelled before they were begun.
    pub cancelled: u64,
    /// SHA-256 of the report's lines, once it has ended.
    pub report_sha256: Option<String>,
}

impl Campaign {
    pub fn total(&self) -> u64 {
        self.left() + self.done + self.failed + self.undelivered + self.cancelled
    }

    /// Items that have not ended.
    pub fn left(&self) -> u64 {
        self.pending + self.acknowledged + self.delivering
    }

    /// How many items it has, as far as they are listed.
    pub fn items(&self) -> u64 {
        self.pending + self.done_so_far() + self.failed + self.cancelled
    }

    /// How many are done, whoever is still to be told.
    fn done_so_far(&self) -> u64 {
        self.acknowledged + self.delivering + self.done + self.undelivered
    }

    /// What is told of a revocation of many when it has ended.
    fn revoked(&self, at: Timestamp) -> Option<Notice> {
        let many = self.items() > 1 && self.done_so_far() > 0;
        if self.action != CampaignAction::Revoke || !many {
            return None;
        }
        let follows = match self.then {
            Some(Then::Hold) => "they are held until they are released",
            _ => "new ones follow",
        };
        let mut message = format!(
            "All tokens of {} identities were revoked by {} (campaign {}: {}); {follows}. ACS may take 15 minutes until \
             the old ones are refused everywhere.",
            self.done_so_far(),
            self.actor,
            self.id,
            self.target
        );
        if let Some(reason) = &self.reason {
            message.push_str(&format!(" Reason: {reason}."));
        }
        if self.failed + self.cancelled > 0 {
            let (failed, cancelled) = (self.failed, self.cancelled);
            message.push_str(&format!(
                " Not revoked: {failed} failed, {cancelled} cancelled."
            ));
        }
        message.push_str(&format!(
            " `renewd campaign report {}` names each.",
            self.id
        ));
        Some(Notice::new(NoticeKind::IdentityRevoked, at, message))
    }

    /// Whether ACS is called for its items.
    pub(super) fn calls(&self) -> bool {
        matches!(self.action, CampaignAction::Revoke | CampaignAction::Delete)
    }

    /// Whether what it does is kept in `withdrawn.jsonl`.
    pub(super) fn withdraws(&self) -> bool {
        self.action.withdraws()
    }

    /// Whether a token follows each of its items, so that it competes with renewals.
    pub fn reissues(&self) -> bool {
        match self.action {
            CampaignAction::Revoke => self.then != Some(Then::Hold),
            CampaignAction::Renew | CampaignAction::Release => true,
            CampaignAction::Hold | CampaignAction::Delete => false,
        }
    }
}

/// One item of a campaign that is to be begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CampaignItem {
    /// The row; below zero for an id that is not ours to renew.
    pub num: Num,
    /// Its name, if a row has or had one.
    pub name: Option<Name>,
    pub resource: ResourceName,
    /// Its id at ACS, where it has one.
    pub id: Option<IdentityId>,
    /// The state of the row, if there is one.
    pub state: Option<State>,
    /// Failed attempts so far.
    pub attempts: u32,
    pub next_at: Timestamp,
}

impl CampaignItem {
    /// What people call it.
    pub fn label(&self) -> &str {
        match (&self.name, &self.id) {
            (Some(name), _) => name.as_str(),
            (None, Some(id)) => id.as_str(),
            (None, None) => "?",
        }
    }
}

/// An item that has not ended, for saying what a campaign waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingItem {
    pub num: Num,
    /// What people call it.
    pub label: String,
    pub resource: ResourceName,
    pub state: ItemState,
}

/// Where an item stands: one word of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum ItemState {
    Pending,
    /// ACS was called at least once; no acknowledgement yet.
    Called,
    /// ACS acknowledged, or no call was needed; its next token is awaited.
    Acknowledged,
    /// Its consumers are being told.
    Delivering,
    /// Done, and every consumer has it.
    Done,
    Failed,
    /// Done, but a consumer could not be told within a quarter of an hour.
    Undelivered,
    /// Cancelled before it was begun.
    Cancelled,
}

impl ItemState {
    pub(super) const ALL: [Self; 8] = [
        Self::Pending,
        Self::Called,
        Self::Acknowledged,
        Self::Delivering,
        Self::Done,
        Self::Failed,
        Self::Undelivered,
        Self::Cancelled,
    ];

    /// The word of the report.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Called => "called",
            Self::Acknowledged => "acknowledged",
            Self::Delivering => "delivering",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Undelivered => "undelivered",
            Self::Cancelled => "cancelled",
        }
    }
}

/// One line of a campaign's report; its fields and their order are stable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ReportLine {
    /// For paging: the row, or a number below zero for an id that is not ours to renew.
    #[serde(skip)]
    pub num: Num,
    /// Its name, if a row has or had one.
    pub name: Option<Name>,
    pub resource: ResourceName,
    /// Its id at ACS, where it had one.
    pub id: Option<IdentityId>,
    pub state: ItemState,
    pub attempts: u32,
    /// When ACS was last called.
    pub called_at: Option<Timestamp>,
    /// When ACS acknowledged, or the step was taken.
    pub acknowledged_at: Option<Timestamp>,
    /// When the token that follows was committed.
    pub reissued_at: Option<Timestamp>,
    /// When every consumer had confirmed.
    pub delivered_at: Option<Timestamp>,
    /// Milliseconds without a live token: from the acknowledged revocation to the next token.
    pub gap_ms: Option<i64>,
    /// The service's request id.
    pub request_id: Option<String>,
    /// How the last attempt failed, or why nothing was done.
    pub error: Option<String>,
}

/// How an attempt at an item ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ItemOutcome {
    /// Done, acknowledged at this instant.
    Done {
        at: Timestamp,
        /// The service's request id, where ACS was called.
        request_id: Option<String>,
    },
    /// To be tried again.
    Retry {
        next_at: Timestamp,
        error: String,
        /// The service's request id.
        request_id: Option<String>,
    },
    /// Not answered although others were: to be tried again, and not counted.
    Unanswered {
        next_at: Timestamp,
        error: String,
        /// The request id that we sent.
        request_id: Option<String>,
    },
    Failed {
        error: String,
        /// The service's request id.
        request_id: Option<String>,
    },
}

/// Items that failed and are tried again.
pub(super) const FAILING: &str = "SELECT count(*) AS n FROM campaign_item INDEXED BY campaign_failing \
    WHERE campaign = ?1 AND attempts > 0 AND state = 'called'";

impl Store {
    /// A campaign and how far it is.
    pub async fn campaign(&self, id: CampaignId) -> Answer<Option<Campaign>> {
        self.read("look a campaign up", move |db| db.campaign(id))
            .await
    }

    /// Campaigns that have something left to do: urgent ones first, then the oldest.
    pub async fn open_campaigns(&self) -> Answer<Vec<Campaign>> {
        self.read("list campaigns", |db| db.open_campaigns()).await
    }

    /// Items of campaigns that are not over, by where they stand; all states are there.
    pub async fn open_items(&self) -> Answer<BTreeMap<ItemState, u64>> {
        self.read("count the items of campaigns", |db| {
            let mut items: BTreeMap<_, _> = ItemState::ALL.map(|state| (state, 0)).into();
            for (state, n) in db.all(RowKind::Counter, OPEN_ITEMS, [], |row| {
                Ok((db::word(row, "state")?, db::unsigned(row, "n")?))
            })? {
                items.insert(state, n);
            }
            Ok(items)
        })
        .await
    }

    /// A page of all campaigns, the newest first.
    pub async fn campaigns(
        &self,
        before: Option<CampaignId>,
        limit: usize,
    ) -> Answer<Vec<Campaign>> {
        self.read("list campaigns", move |db| {
            let sql = "SELECT * FROM campaign WHERE num < ?1 ORDER BY num DESC";
            let params = [before.unwrap_or(i64::MAX)];
            let found = db.page(RowKind::Campaign, limit, sql, params, read_campaign)?;
            found.into_iter().map(|one| db.counted(one)).collect()
        })
        .await
    }
}

/// Counters alone, however many items there are.
const OPEN_ITEMS: &str = "SELECT i.state, CAST(sum(i.n) AS BIGINT) AS n FROM campaign c CROSS JOIN item_count i ON i.campaign = c.num \
    WHERE c.ended_at IS NULL GROUP BY i.state";

impl Db {
    pub(in crate::store) fn campaign(&self, id: CampaignId) -> Outcome<Option<Campaign>> {
        let sql = "SELECT * FROM campaign WHERE num = ?1";
        let found = self.one(RowKind::Campaign, sql, [id], read_campaign)?;
        found.map(|campaign| self.counted(campaign)).transpose()
    }

    /// Campaigns that have something left to do: urgent ones first, then the oldest.
    pub(in crate::store) fn open_campaigns(&self) -> Outcome<Vec<Campaign>> {
        let sql = "SELECT * FROM campaign WHERE ended_at IS NULL ORDER BY urgent DESC, num";
        let found = self.all(RowKind::Campaign, sql, [], read_campaign)?;
        found.into_iter().map(|one| self.counted(one)).collect()
    }

    fn counted(&self, mut campaign: Campaign) -> Outcome<Campaign> {
        let sql = "SELECT state, n FROM item_count WHERE campaign = ?1";
        for (state, n) in self.all(RowKind::Counter, sql, [campaign.id], |row| {
            Ok((row.get::<_, String>(0)?, db::unsigned(row, "n")?))
        })? {
            *match state.as_str() {
                "acknowledged" => &mut campaign.acknowledged,
                "delivering" => &mut campaign.delivering,
                "done" => &mut campaign.done,
                "failed" => &mut campaign.failed,
                "undelivered" => &mut campaign.undelivered,
                "cancelled" => &mut campaign.cancelled,
                _ => &mut campaign.pending,
            } += n;
        }
        if campaign.pending > 0 {
            let failing = self.first(FAILING, [campaign.id], |row| db::unsigned(row, "n"))?;
            campaign.failing = failing.unwrap_or(0);
        }
        if campaign.state == CampaignState::Done && campaign.failed + campaign.undelivered > 0 {
            campaign.state = CampaignState::DoneWithFailures;
        }
        Ok(campaign)
    }
}

pub(in crate::store) fn read_campaign(row: &Row<'_>) -> sql::Result<Campaign> {
    let ended_at = db::maybe_instant(row, "ended_at")?;
    let phase: String = row.get("phase")?;
    let frozen = row.get::<_, Option<i64>>("cursor")?.is_none();
    let state = match phase.as_str() {
        "cancelled" => CampaignState::Cancelled,
        _ if ended_at.is_some() => CampaignState::Done,
        "paused" => CampaignState::Paused,
        _ if frozen => CampaignState::Running,
        _ => CampaignState::Expanding,
    };
    Ok(Campaign {
        id: row.get("num")?,
        action: db::word(row, "action")?,
        then: db::maybe_word(row, "after")?,
        target: row.get("target")?,
        urgent: row.get("urgent")?,
        actor: row.get("actor")?,
        reason: row.get("reason")?,
        created_at: db::instant_in(row, "created_at")?,
        starts_at: db::maybe_instant(row, "starts_at")?,
        ended_at,
        state,
        pending: 0,
        failing: 0,
        acknowledged: 0,
        delivering: 0,
        done: 0,
        failed: 0,
        undelivered: 0,
        cancelled: 0,
        report_sha256: row.get("report_sha256")?,
    })
}
