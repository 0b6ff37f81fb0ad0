//! What of a cluster needs a person: nobody leads, a machine is gone, or one is not as the others are.

use std::time::Duration;

use super::{super::wire::Need, NeedKind, Observed, need};
use crate::model::{ClusterStanding, NodeRow, short_duration};

/// A clock that is farther off than this from the database's is told.
const FARTHEST_MS: u64 = 2000;

pub(super) fn node_needs(known: &Observed<'_>, needs: &mut Vec<Need>) {
    let Some(standing) = known.cluster else {
        return;
    };
    let is_told = standing.trouble.is_some() && known.away.is_some();
    if !is_told && (standing.leader().is_none() || standing.trouble.is_some()) {
        needs.push(no_leader(standing));
    }
    let leader = standing.nodes.iter().find(|row| row.leads);
    for row in &standing.nodes {
        if !row.alive {
            needs.push(dead(row));
            continue;
        }
        let amiss = amiss(row, leader);
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

fn no_leader(standing: &ClusterStanding) -> Need {
    let message = match &standing.trouble {
        Some(_) => {
            "this node cannot say that it is there, so it does not lead and takes no command; what it wrote and serves stays"
        }
        None => {
            "nobody leads, so nothing is renewed or revoked: no node is there that may and does"
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
        "it has said nothing for a while: its files are not brought up to date, and what is withdrawn may still lie there. \
         Start renewd there, or `renewd node forget {name}` if it will not come back"
    );
    Need {
        since: Some(row.heartbeat_at),
        command: Some("renewd node list".to_owned()),
        ..need(NeedKind::NodeDead, name.as_str(), message)
    }
}

/// What is not as it should be at a machine that is there.
fn amiss(row: &NodeRow, leader: Option<&NodeRow>) -> Vec<String> {
    let mut amiss = Vec::new();
    let offset = row.offset_ms;
    if offset.unsigned_abs() > FARTHEST_MS {
        let far = short_duration(Duration::from_millis(offset.unsigned_abs()));
        let side = if offset > 0 { "ahead of" } else { "behind" };
        amiss.push(format!(
            "its clock is {far} {side} the database's: set it right"
        ));
    }
    if !row.reaches {
        amiss.push("it does not reach ACS, so it had better not lead".to_owned());
    }
    if let Some(leader) = leader.filter(|leader| leader.digest != row.digest) {
        amiss.push(format!(
            "its configuration is not that of {}, which leads: make them alike but for [daemon], paths and `nodes`",
            leader.name
        ));
    }
    amiss
}
