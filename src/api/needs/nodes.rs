//! What of a cluster needs a person: no node leads, one is dead, or one is not as the others are.

use std::time::Duration;

use super::{super::wire::Need, NeedKind, Observed, need};
use crate::model::{
    ClusterStanding, NodeName, NodeRow, NoticeKind, SinkAt, differing_parts, short_duration,
};

pub(super) fn node_needs(known: &Observed<'_>, needs: &mut Vec<Need>) {
    let Some(standing) = known.cluster else {
        return;
    };
    let is_told = standing.trouble.is_some() && known.away.is_some();
    if !is_told && (standing.leader().is_none() || standing.trouble.is_some()) {
        needs.push(no_leader(standing));
    }
    let database_is_off = standing.database_clock_off_ms();
    needs.extend(database_is_off.map(|by| database_clock(standing, by)));
    let leader = standing.nodes.iter().find(|row| row.leads);
    for row in &standing.nodes {
        if !row.alive {
            needs.push(dead(row));
            continue;
        }
        let mut amiss = amiss(row, leader);
        if database_is_off.is_none() {
            amiss.splice(0..0, clock_amiss(row));
        }
        if let Some(first) = amiss.first() {
            let command = Some("renewd node list".to_owned());
            needs.push(Need {
                because: (amiss.len() > 1).then(|| amiss[1..].join("; ")),
                command,
                ..need(NeedKind::NodeAmiss, row.name.as_str(), first.clone())
            });
        }
    }
}

/// What the node that leads has told of what its calls meet: no other one makes any.
pub(super) fn told_by_leader<'a>(known: &'a Observed<'_>) -> impl Iterator<Item = Need> + 'a {
    let leader = known.cluster.and_then(ClusterStanding::leader);
    let leader = leader.map_or("the node that led last", NodeName::as_str);
    known.told.iter().filter_map(move |(key, kind)| {
        let (kind, what) = match kind {
            NoticeKind::ResourceUnreachable => (NeedKind::Outage, "it is not reached"),
            NoticeKind::KeyRejected => (NeedKind::NoKey, "it refuses every access key"),
            NoticeKind::EntraUnreachable => (
                NeedKind::EntraUnreachable,
                "Entra ID gives no bearer for it, as it is not reached",
            ),
            NoticeKind::EntraRefused => (
                NeedKind::EntraRefused,
                "Entra ID gives no bearer for it, or it refuses that",
            ),
            _ => return None,
        };
        let subject = key.rsplit(' ').next().unwrap_or_default();
        let message = format!(
            "{what}, as {leader} has told, which makes all calls: `renewd status` there says more"
        );
        Some(need(kind, subject, message))
    })
}

/// Whether the machine is there that serves a sink: of one that is not, that is told.
pub(super) fn is_served(sink: &SinkAt, known: &Observed<'_>) -> bool {
    let mut nodes = known.cluster.iter().flat_map(|standing| &standing.nodes);
    let node = nodes.find(|row| Some(&row.name) == sink.node());
    sink.node().is_none() || node.is_some_and(|row| row.alive)
}

fn no_leader(standing: &ClusterStanding) -> Need {
    let message = match &standing.trouble {
        Some(_) => {
            "this node has no valid heartbeat in the database, so it does not lead and accepts no command; what it wrote and serves stays"
        }
        None => {
            "no node leads, so nothing is renewed or revoked: start one that is not drained, or end a drain with `renewd node drain --end NODE`"
        }
    };
    Need {
        because: standing.trouble.clone(),
        since: standing.trouble.as_ref().and(standing.heard_at),
        command: Some("renewd node list".to_owned()),
        ..need(
            NeedKind::NoLeader,
            standing.cluster.as_str(),
            message.to_owned(),
        )
    }
}

fn dead(row: &NodeRow) -> Need {
    let name = &row.name;
    let message = format!(
        "it no longer reports: its files are not brought up to date, and tokens that were withdrawn may still be in them. \
         Start renewd there, or run `renewd node forget {name}` if it will not come back"
    );
    Need {
        since: Some(row.heartbeat_at),
        command: Some("renewd node list".to_owned()),
        ..need(NeedKind::NodeDead, name.as_str(), message)
    }
}

/// That every machine's clock says so of the database's, by which all of them go.
fn database_clock(standing: &ClusterStanding, offset_ms: i64) -> Need {
    let message = format!(
        "the database's clock is {} those of all nodes, and tokens, jobs and signatures of webhooks go by it: set it right \
         on the database's machine",
        apart(-offset_ms)
    );
    Need {
        command: Some("renewd node list".to_owned()),
        ..need(NeedKind::NodeAmiss, standing.cluster.as_str(), message)
    }
}

fn clock_amiss(row: &NodeRow) -> Option<String> {
    row.clock_is_off().then(|| {
        let far = apart(row.offset_ms);
        format!(
            "its clock is {far} the database's, by which all nodes go: set right whichever is off"
        )
    })
}

/// How far ahead of another clock one is, or behind it.
fn apart(ahead_ms: i64) -> String {
    let far = short_duration(Duration::from_millis(ahead_ms.unsigned_abs()));
    let side = if ahead_ms > 0 { "ahead of" } else { "behind" };
    format!("{far} {side}")
}

/// What else is not as it should be at a machine that is there.
fn amiss(row: &NodeRow, leader: Option<&NodeRow>) -> Vec<String> {
    let mut amiss = Vec::new();
    if row.lacks > 0 {
        let words = "it does not reach all hosts of ACS, cannot write its files beside the store, or cannot begin to lead; a node \
                     that lacks less leads instead, if there is one: check its network, its disk and its log, and reload it";
        amiss.push(words.to_owned());
    }
    if let Some(leader) = leader.filter(|leader| leader.digest != row.digest) {
        let parts = differing_parts(&leader.digest, &row.digest);
        let differs = match parts.is_empty() {
            true => String::new(),
            false => format!(" (it differs in {})", parts.join(", ")),
        };
        amiss.push(format!(
            "its configuration is not that of {}, which leads{differs}: make them alike but for [daemon], paths and `nodes`, \
             and reload",
            leader.name
        ));
    }
    amiss
}
