//! Machines that share a store: who leads, and what each says of itself.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use sha2::{Digest as _, Sha256};

use super::{ClusterName, NodeName, Timestamp, hex};

/// Whether this machine leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// It renews, revokes, replaces keys, runs jobs and calls webhooks. Where nobody shares the store the epoch is 0.
    Leads { epoch: u64 },
    /// Another one does, as far as is known.
    Follows { leader: Option<NodeName> },
}

/// How a machine stands in its cluster, as far as it knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterStanding {
    pub cluster: ClusterName,
    pub node: NodeName,
    pub role: Role,
    /// When the database last answered.
    pub heard_at: Option<Timestamp>,
    /// Why it did not since.
    pub trouble: Option<String>,
    /// By how much its clock is ahead of the database's.
    pub offset_ms: i64,
    /// Until when it may call ACS, on its clock that never steps.
    pub calls_until: Duration,
    /// How much it lacks to lead.
    pub lacks: u32,
    /// All machines, as the database knew them then.
    pub nodes: Vec<NodeRow>,
}

impl ClusterStanding {
    /// The epoch in which it leads.
    pub fn epoch(&self) -> Option<u64> {
        match self.role {
            Role::Leads { epoch } => Some(epoch),
            Role::Follows { .. } => None,
        }
    }

    /// Who leads, as far as is known.
    pub fn leader(&self) -> Option<&NodeName> {
        match &self.role {
            Role::Leads { .. } => Some(&self.node),
            Role::Follows { leader } => leader.as_ref(),
        }
    }
}

/// The parts of a configuration that must be alike on all machines, in the order of their digests.
pub const CONFIGURATION_PARTS: [&str; 10] = [
    "[cluster]",
    "[store]",
    "[renewal]",
    "[[resource]]",
    "[[identity]]",
    "[[sink]]",
    "[[job]]",
    "[[source]]",
    "the secrets of [[resource]]",
    "the secrets of [[sink]]",
];
/// So much of a digest tells two configurations apart, and two of their parts.
const OF_ALL: usize = 6;
const OF_PART: usize = 2;

/// One word for the digests of the parts of a configuration: of all of them, then of each.
pub fn digest_of_parts(parts: &[[u8; 32]]) -> String {
    let all = Sha256::digest(parts.concat());
    let each: String = parts.iter().map(|part| hex(&part[..OF_PART])).collect();
    format!("{}-{each}", hex(&all[..OF_ALL]))
}

/// In which parts two configurations differ, by their digests, as far as that can be seen.
pub fn differing_parts(one: &str, other: &str) -> Vec<&'static str> {
    let each = |digest: &str| -> Vec<String> {
        let parts = digest.split_once('-').map_or("", |(_, parts)| parts);
        let parts: Vec<char> = parts.chars().collect();
        parts
            .chunks(2 * OF_PART)
            .map(|part| part.iter().collect())
            .collect()
    };
    let (one, other) = (each(one), each(other));
    if one.len() != other.len() {
        return Vec::new();
    }
    let differs = one.iter().zip(&other).map(|(one, other)| one != other);
    let named = CONFIGURATION_PARTS.into_iter().zip(differs);
    named
        .filter_map(|(part, differs)| differs.then_some(part))
        .collect()
}

/// What is known of one machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct NodeRow {
    pub name: NodeName,
    pub leads: bool,
    /// Whether it said something in the last seconds.
    pub alive: bool,
    /// A person wants it not to lead, since then.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub drained_at: Option<Timestamp>,
    /// When its process began.
    #[cfg_attr(test, schemars(with = "String"))]
    pub since: Timestamp,
    /// When it last said something.
    #[cfg_attr(test, schemars(with = "String"))]
    pub heartbeat_at: Timestamp,
    /// How old that was when it was looked.
    pub age_ms: u64,
    /// Changes up to this number are in its files.
    pub seen_seq: u64,
    pub version: String,
    /// The newest schema that it knows.
    pub schema: u64,
    /// By how much its clock is ahead of the database's.
    pub offset_ms: i64,
    /// Of its configuration, but for what differs between machines.
    pub digest: String,
    pub socket: String,
    /// How much it lacks to lead: hosts of the configured resources that do not answer it, one more where it cannot write its
    /// files beside the store; more than there are where it cannot begin to lead. Whoever leads yields to one that lacks less.
    pub lacks: u32,
}

/// A clock that is farther off than this from the database's is told.
const FARTHEST_MS: u64 = 2000;

impl NodeRow {
    /// Whether its clock is so far off that a person has to set it right.
    pub fn clock_is_off(&self) -> bool {
        is_far(self.offset_ms)
    }
}

fn is_far(offset_ms: i64) -> bool {
    offset_ms.unsigned_abs() > FARTHEST_MS
}

impl ClusterStanding {
    /// By how many milliseconds the clocks of all machines are ahead of the database's, where several are as far off as
    /// each other: then it is the database's that is off.
    pub fn database_clock_off_ms(&self) -> Option<i64> {
        let alive = self.nodes.iter().filter(|row| row.alive);
        let offsets: Vec<i64> = alive.map(|row| row.offset_ms).collect();
        let (least, most) = (*offsets.iter().min()?, *offsets.iter().max()?);
        let agree = offsets.len() > 1 && most.abs_diff(least) <= FARTHEST_MS;
        let are_off =
            least.signum() == most.signum() && offsets.iter().all(|offset| is_far(*offset));
        (agree && are_off).then(|| least.midpoint(most))
    }
}

/// What a machine says of itself, every few seconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beat {
    pub node: NodeName,
    /// When its process began.
    pub since: Timestamp,
    /// The epoch in which it leads.
    pub epoch: Option<u64>,
    pub offset_ms: i64,
    pub digest: String,
    pub socket: String,
    pub lacks: u32,
}

/// What the database answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DutySeen {
    /// By the clock of the database, which alone decides who leads.
    pub now: Timestamp,
    pub epoch: u64,
    pub holder: Option<NodeName>,
    /// Until when the holder leads.
    pub lease_until: Timestamp,
    /// Whether who asked leads for another term from now on.
    pub renewed: bool,
    pub yielded_at: Option<Timestamp>,
    pub yielded_by: Option<NodeName>,
    /// A later process has the name of the one who asked.
    pub displaced: bool,
    pub nodes: Vec<NodeRow>,
}
