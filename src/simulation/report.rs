//! What a simulation says in the end, in a stable form.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    Setting,
    faults::{PlannedFault, told},
    findings::{Findings, HourSeen},
};
use crate::store::Campaign;

/// What a simulation has found.
#[derive(Debug)]
pub(super) struct CourseSeen {
    pub(super) findings: Findings,
    pub(super) campaigns: Vec<CampaignSeen>,
}

/// What became of an order that a script gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CampaignSeen {
    /// `revoke` or `renew`.
    pub action: String,
    /// When it was given, in seconds from the start.
    pub at_seconds: u64,
    /// How long it took, in seconds; absent where it has not ended.
    pub took_seconds: Option<u64>,
    /// Items that are done.
    pub done: u64,
    /// Items that failed for good.
    pub failed: u64,
}

impl CampaignSeen {
    pub(super) fn of(fault: PlannedFault, campaign: Option<&Campaign>) -> Self {
        let took = campaign.and_then(|campaign| {
            let took = campaign.ended_at?.duration_since(campaign.created_at);
            u64::try_from(took.as_secs()).ok()
        });
        Self {
            action: fault.word().to_owned(),
            at_seconds: fault.at.as_secs(),
            took_seconds: took,
            done: campaign.map_or(0, |campaign| campaign.done),
            failed: campaign.map_or(0, |campaign| campaign.failed),
        }
    }
}

/// What `renewd simulate --json` prints. Counts are of the whole fleet: where only a part was simulated, they are
/// multiplied by `scale`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The form of this document; it grows when a meaning changes.
    pub schema: u32,
    pub seed: u64,
    pub identities: u64,
    /// How many of them one stood for that was simulated.
    pub scale: u64,
    /// How long their tokens live.
    pub lifetime_seconds: u64,
    /// How long was simulated.
    pub length_seconds: u64,
    /// Calls of `issue` that are allowed in any `window_seconds`.
    pub issue_limit: u64,
    pub window_seconds: u64,
    /// What went wrong, as a script says it.
    pub faults: Vec<String>,
    /// The same in words.
    pub told: Vec<String>,
    /// Tokens that were minted.
    pub minted: u64,
    /// The least life that a token had left when its successor came, in seconds; zero where one had ended.
    pub least_left_seconds: Option<f64>,
    /// Seconds that identities were without a live token, all together; before the first one does not count.
    pub without_token_seconds: u64,
    /// The longest time that one of them was, in seconds.
    pub longest_without_seconds: u64,
    /// When the last identity had its first token, in seconds from the start.
    pub all_had_one_seconds: u64,
    pub calls: BTreeMap<String, u64>,
    /// Calls that were answered 429.
    pub throttled: u64,
    /// Those of them that went past a limit; the others were the script's.
    pub past_limit: u64,
    /// Calls that failed otherwise.
    pub failed: u64,
    /// The most calls in any window, by operation.
    pub peak_in_window: BTreeMap<String, u64>,
    /// The most calls in any second.
    pub peak_in_second: u64,
    pub campaigns: Vec<CampaignSeen>,
    /// Promises that were broken although nothing stood in the way: how often, and some of them.
    pub broken: u64,
    pub broken_told: Vec<String>,
    pub hours: Vec<HourSeen>,
}

impl Report {
    /// The form that this program writes.
    pub const SCHEMA: u32 = 1;

    pub(super) fn of(setting: &Setting, found: CourseSeen) -> Self {
        let CourseSeen {
            findings: of,
            campaigns,
        } = found;
        let scale = setting.scale();
        let scaled = |counts: &BTreeMap<&'static str, u64>| -> BTreeMap<String, u64> {
            let all = counts.iter();
            all.map(|(word, count)| ((*word).to_owned(), count * scale))
                .collect()
        };
        let hour = |hour: &HourSeen| HourSeen {
            minted: hour.minted * scale,
            calls: hour.calls * scale,
            throttled: hour.throttled * scale,
            failed: hour.failed * scale,
            without: hour.without * scale,
            ..*hour
        };
        let campaign = |campaign: CampaignSeen| CampaignSeen {
            done: campaign.done * scale,
            failed: campaign.failed * scale,
            ..campaign
        };
        Self {
            schema: Self::SCHEMA,
            seed: setting.seed,
            identities: setting.identities,
            scale,
            lifetime_seconds: setting.lifetime.as_secs(),
            length_seconds: setting.length.as_secs(),
            issue_limit: u64::from(setting.limits.issue.calls),
            window_seconds: setting.limits.issue.window.as_secs(),
            faults: setting.faults.iter().map(ToString::to_string).collect(),
            told: setting.faults.iter().map(told).collect(),
            minted: of.minted * scale,
            least_left_seconds: of.least_left.as_ref().map(Duration::as_secs_f64),
            without_token_seconds: of.without.as_secs() * scale,
            longest_without_seconds: of.longest.as_secs(),
            all_had_one_seconds: of.all_had_one.as_secs(),
            calls: scaled(&of.calls),
            throttled: of.throttled * scale,
            past_limit: of.past_limit * scale,
            failed: of.failed * scale,
            peak_in_window: scaled(&of.peaks),
            peak_in_second: of.peak_second * scale,
            campaigns: campaigns.into_iter().map(campaign).collect(),
            broken: of.broken_count,
            broken_told: of.broken,
            hours: of.hours.iter().map(hour).collect(),
        }
    }
}
