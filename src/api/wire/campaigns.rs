//! Campaigns on the wire.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::{IdentityId, Name, ResourceName, State, Then, Timestamp};
pub use crate::store::{
    Campaign, CampaignAction, CampaignId, CampaignState, ItemState, ReportLine,
};

/// `POST /v1/campaigns`, and `POST /v1/campaigns/plan` for what it would do: names and ids, or
/// `select`, or `all`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewCampaign {
    /// What to do.
    pub action: CampaignAction,
    /// What follows a revocation.
    #[serde(default)]
    pub then: Option<Then>,
    /// To which identities.
    #[serde(default)]
    pub names: Vec<Name>,
    /// To which ids at ACS, whether renewd manages them or not; for `revoke` and `delete`.
    #[serde(default)]
    pub ids: Vec<IdentityId>,
    /// Whose ids these are, where there are several resources.
    #[serde(default)]
    pub resource: Option<ResourceName>,
    /// To those of a selection.
    #[serde(default)]
    pub select: Option<String>,
    /// To every identity.
    #[serde(default)]
    pub all: bool,
    /// Before everything but renewals that are urgent themselves.
    #[serde(default)]
    pub urgent: bool,
    /// Not before.
    #[serde(default)]
    pub starts_at: Option<Timestamp>,
    /// Why, for the audit trail.
    #[serde(default)]
    pub reason: Option<String>,
}

impl NewCampaign {
    /// Nothing selected yet.
    pub fn new(action: CampaignAction, then: Option<Then>) -> Self {
        Self {
            action,
            then,
            names: Vec::new(),
            ids: Vec::new(),
            resource: None,
            select: None,
            all: false,
            urgent: false,
            starts_at: None,
            reason: None,
        }
    }
}

/// What a campaign would do.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CampaignPlan {
    /// Items it would have.
    pub total: u64,
    /// By resource.
    pub resources: BTreeMap<ResourceName, PlannedResource>,
    /// By state.
    pub states: BTreeMap<State, u64>,
    /// Ids that renewd does not manage.
    pub unmanaged: u64,
    /// Selected ones to which the action means nothing, by reason.
    pub skipped: BTreeMap<String, u64>,
    /// At the limit it takes at least so long, in seconds.
    pub seconds: f64,
}

/// The part of one resource.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PlannedResource {
    /// Items.
    pub items: u64,
    /// What the resource allows, such as `500/30s`; nothing where no call is needed.
    pub limit: Option<String>,
    /// At the limit it takes at least so long, in seconds.
    pub seconds: f64,
}

/// A campaign and how far it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CampaignProgress {
    /// The campaign.
    #[serde(flatten)]
    pub campaign: Campaign,
    /// All its items.
    pub total: u64,
    /// Items that have not ended.
    pub left: u64,
    /// Some of those that failed for good.
    #[serde(default)]
    pub failures: Vec<ReportLine>,
    /// Why it does not move, where something holds it up; not told in listings.
    #[serde(default)]
    pub waits: Vec<String>,
}

impl From<Campaign> for CampaignProgress {
    fn from(campaign: Campaign) -> Self {
        Self {
            total: campaign.total(),
            left: campaign.left(),
            campaign,
            failures: Vec::new(),
            waits: Vec::new(),
        }
    }
}

/// What a person tells a campaign: the last part of `POST /v1/campaigns/{id}/{order}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CampaignOrder {
    /// Stop for now.
    Pause,
    /// Go on.
    Resume,
    /// Stop for good.
    Cancel,
    /// Try again what failed for good.
    Retry,
}

impl CampaignOrder {
    /// The word in the path.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Cancel => "cancel",
            Self::Retry => "retry",
        }
    }
}

/// Why something is ordered, for the audit trail.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WithReason {
    /// Why.
    #[serde(default)]
    pub reason: Option<String>,
}
