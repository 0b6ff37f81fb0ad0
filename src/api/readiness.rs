//! Whether the daemon is ready, decided from data alone.
//!
//! Ready means: what was on disk before the start is there again, and every loop decides. It says
//! nothing about the provider: in an outage the daemon is ready, and its tokens are served.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::model::{DispatcherView, RenewerView, ResourceName, SinkAt, decided_lately};

/// How far the daemon's life has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DaemonLife {
    /// When its loops were started.
    pub since: Timestamp,
    /// Whether every live token of the store is on disk again.
    pub restored: bool,
    /// Whether it is ending.
    pub stopping: bool,
}

/// The answer, with a reason for each part that is not ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readiness {
    /// Whether all is ready.
    pub ready: bool,
    /// Whether only what a node's mirror holds is served, because the database is away; ready all the same.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub degraded: bool,
    /// Each part: `daemon`, `store`, `renewer NAME`, `campaigns NAME`, `sink NAME`; and `needs`, while
    /// something does not work for which it is no less ready, such as an outage of the provider.
    pub parts: Vec<Part>,
}

/// One part of the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    pub part: String,
    /// Whether it is ready.
    pub ready: bool,
    /// Why it is not; or what a person may want to know although it is.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
}

/// How the store is, as far as it matters for readiness.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum StoreReadiness {
    #[default]
    Ready,
    /// Only what the mirror of a node holds is served; why.
    Degraded(String),
    /// It cannot be read or written, or not be used; why.
    Failed(String),
}

/// Decides for `now`.
pub fn readiness(
    life: DaemonLife,
    store: StoreReadiness,
    renewers: &BTreeMap<ResourceName, RenewerView>,
    runners: &BTreeMap<ResourceName, Option<Timestamp>>,
    dispatchers: &BTreeMap<SinkAt, DispatcherView>,
    now: Timestamp,
) -> Readiness {
    let degraded = matches!(store, StoreReadiness::Degraded(_));
    let mut parts = vec![
        daemon(life),
        Part {
            part: "store".into(),
            ready: !matches!(store, StoreReadiness::Failed(_)),
            reason: match store {
                StoreReadiness::Ready => None,
                StoreReadiness::Degraded(why) | StoreReadiness::Failed(why) => Some(why),
            },
        },
    ];
    let since = life.since;
    parts.extend(renewers.iter().map(|(name, renewer)| {
        deciding(
            format!("renewer {name}"),
            renewer.decided_at,
            since,
            now,
            renewer.blocked.clone(),
        )
    }));
    parts.extend(runners.iter().map(|(name, decided_at)| {
        deciding(format!("campaigns {name}"), *decided_at, since, now, None)
    }));
    parts.extend(dispatchers.iter().map(|(name, dispatcher)| {
        deciding(
            format!("sink {name}"),
            dispatcher.decided_at,
            since,
            now,
            dispatcher.disabled.clone(),
        )
    }));
    Readiness {
        ready: parts.iter().all(|part| part.ready),
        degraded,
        parts,
    }
}

impl Readiness {
    /// The same with what a person should know although it is ready.
    #[must_use]
    pub fn beside(mut self, remark: Option<String>) -> Self {
        self.parts.extend(remark.map(|reason| Part {
            part: "needs".into(),
            ready: true,
            reason: Some(reason),
        }));
        self
    }
}

fn daemon(life: DaemonLife) -> Part {
    let reason = if life.stopping {
        Some("it is stopping")
    } else if !life.restored {
        Some("it is starting: not every live token is in its file again")
    } else {
        None
    };
    Part {
        part: "daemon".into(),
        ready: reason.is_none(),
        reason: reason.map(str::to_owned),
    }
}

fn deciding(
    part: String,
    decided_at: Option<Timestamp>,
    since: Timestamp,
    now: Timestamp,
    remark: Option<String>,
) -> Part {
    let alive = decided_at.is_some() && decided_lately(decided_at, since, now);
    let reason = match decided_at {
        _ if alive => remark,
        None => Some("it has not decided anything yet".into()),
        Some(at) => Some(format!("it has not decided anything since {at:.0}")),
    };
    Part {
        part,
        ready: alive,
        reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_795_000_000 + seconds).unwrap()
    }

    fn renewers(decided_at: Option<Timestamp>) -> BTreeMap<ResourceName, RenewerView> {
        let renewer = RenewerView {
            decided_at,
            blocked: Some("the disk is full".into()),
            ..RenewerView::default()
        };
        BTreeMap::from([("contoso".parse().unwrap(), renewer)])
    }

    const LIFE: fn(bool) -> DaemonLife = |restored| DaemonLife {
        since: Timestamp::UNIX_EPOCH,
        restored,
        stopping: false,
    };

    #[test]
    fn a_blocked_renewer_that_decides_is_ready_and_says_why_it_is_blocked() {
        let found = readiness(
            LIFE(true),
            StoreReadiness::Ready,
            &renewers(Some(at(0))),
            &BTreeMap::new(),
            &BTreeMap::new(),
            at(60),
        );
        assert!(found.ready);
        assert_eq!(found.parts[2].reason.as_deref(), Some("the disk is full"));
    }

    #[test]
    fn each_missing_condition_alone_is_a_reason() {
        let (idle, none, ok) = (BTreeMap::new(), BTreeMap::new(), StoreReadiness::default);
        let part = |found: Readiness| {
            assert!(!found.ready);
            let not: Vec<_> = found.parts.into_iter().filter(|part| !part.ready).collect();
            assert_eq!(not.len(), 1, "{not:?}");
            not[0].part.clone()
        };
        let fresh = renewers(Some(at(0)));
        assert_eq!(
            part(readiness(LIFE(false), ok(), &fresh, &idle, &none, at(1))),
            "daemon"
        );
        let broken = StoreReadiness::Failed("it cannot be read".to_owned());
        assert_eq!(
            part(readiness(LIFE(true), broken, &fresh, &idle, &none, at(1))),
            "store"
        );
        assert_eq!(
            part(readiness(LIFE(true), ok(), &fresh, &idle, &none, at(91))),
            "renewer contoso"
        );
        assert_eq!(
            part(readiness(
                LIFE(true),
                ok(),
                &renewers(None),
                &idle,
                &none,
                at(1)
            )),
            "renewer contoso"
        );
        let ending = DaemonLife {
            stopping: true,
            ..LIFE(true)
        };
        assert_eq!(
            part(readiness(ending, ok(), &fresh, &idle, &none, at(1))),
            "daemon"
        );
    }
    #[test]
    fn a_node_that_serves_its_mirror_is_ready_and_says_that_it_is_degraded() {
        let away = StoreReadiness::Degraded("the database is away".to_owned());
        let (idle, none) = (BTreeMap::new(), BTreeMap::new());
        let found = readiness(LIFE(true), away, &BTreeMap::new(), &idle, &none, at(1));
        assert!(found.ready && found.degraded, "{found:?}");
        assert_eq!(
            found.parts[1].reason.as_deref(),
            Some("the database is away")
        );
        let well = readiness(
            LIFE(true),
            StoreReadiness::Ready,
            &BTreeMap::new(),
            &idle,
            &none,
            at(1),
        );
        assert!(!serde_json::to_string(&well).unwrap().contains("degraded"));
    }
}
