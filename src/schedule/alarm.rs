//! What wakes a person, decided purely: the same list as the alerts of docs/monitoring that are critical, for whoever
//! watches by the daemon's own heartbeat. Every threshold in time is a share of a token's life, with a floor.

use std::{fmt, time::Duration};

use jiff::{SignedDuration, Timestamp};

use crate::model::{Consumers, StoreStanding};

/// A consumer may be without a token for so long: its turn comes.
const WITHOUT: SignedDuration = SignedDuration::from_mins(1);
/// A withdrawal may be so late at ACS.
const WITHDRAWAL: SignedDuration = SignedDuration::from_mins(5);
/// A token that nobody replaced wakes a person such a part of its life before its end,
const PART: u32 = 10;
/// at least so long before,
const LEAST: Duration = Duration::from_mins(30);
/// and at most such a part of its life.
const MOST: u32 = 4;
/// How long a token lives of which that is not known.
const DAY: Duration = Duration::from_hours(24);

/// Something that wakes a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Alarm {
    /// Nothing is issued, delivered or served before a person says so.
    StoreUnusable(&'static str),
    /// What the store holds is not known, so nothing can be said to be well.
    StoreUnreadable,
    /// A loop does not decide any more.
    LoopStill(String),
    /// A consumer of this sink, or of the socket, holds no live token since then.
    WithoutToken(String, Timestamp),
    /// The token ends then that a consumer of this sink, or of the socket, holds.
    EndsSoon(String, Timestamp),
    /// A revocation or deletion should have been at ACS then.
    Withdrawal(Timestamp),
}

impl fmt::Display for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StoreUnusable(standing) => write!(f, "the store is {standing}"),
            Self::StoreUnreadable => f.write_str("the store cannot be read"),
            Self::LoopStill(name) => write!(f, "the loop {name} stands still"),
            Self::WithoutToken(by, since) => {
                write!(f, "a consumer of {by} holds no live token since {since:.0}")
            }
            Self::EndsSoon(by, at) => {
                write!(f, "a token that a consumer of {by} holds ends at {at:.0}")
            }
            Self::Withdrawal(due) => {
                write!(f, "a withdrawal should have been at ACS at {due:.0}")
            }
        }
    }
}

/// What is known at one instant.
#[derive(Debug, Clone)]
pub struct Facts<'a> {
    /// Whether the store may be used.
    pub standing: &'a StoreStanding,
    /// What the consumers of each sink hold, and those of the socket; `None` where that is not known.
    pub consumers: Option<Vec<(&'a str, Consumers)>>,
    /// When the oldest withdrawal that ACS has not acknowledged should have been there; `None` where that is not
    /// known.
    pub withdrawal_due: Option<Option<Timestamp>>,
    /// Loops that have not decided lately.
    pub still: Vec<String>,
}

/// Everything that wakes a person at `now`; nothing where all is well.
pub fn alarms(facts: &Facts<'_>, now: Timestamp) -> Vec<Alarm> {
    if !facts.standing.is_usable() {
        return vec![Alarm::StoreUnusable(facts.standing.as_str())];
    }
    let still = facts.still.iter().cloned().map(Alarm::LoopStill);
    let mut alarms: Vec<Alarm> = still.collect();
    let (Some(consumers), Some(withdrawal)) = (&facts.consumers, facts.withdrawal_due) else {
        alarms.push(Alarm::StoreUnreadable);
        return alarms;
    };
    for (by, held) in consumers {
        let since = held.without_since;
        let since = since.filter(|since| now.duration_since(*since) > WITHOUT);
        alarms.extend(since.map(|since| Alarm::WithoutToken((*by).to_owned(), since)));
        let end = held.next_end;
        let end = end.filter(|end| ends_soon(*end, held.next_life_secs, now));
        alarms.extend(end.map(|end| Alarm::EndsSoon((*by).to_owned(), end)));
    }
    let late = withdrawal.filter(|due| now.duration_since(*due) > WITHDRAWAL);
    alarms.extend(late.map(Alarm::Withdrawal));
    alarms
}

/// Whether a token of such a life ends so soon that a person is woken.
fn ends_soon(end: Timestamp, life_secs: Option<u64>, now: Timestamp) -> bool {
    let life = life_secs.map_or(DAY, Duration::from_secs);
    let left = Duration::try_from(end.duration_since(now)).unwrap_or_default();
    left < warning(life)
}

/// So long before its end a token that nobody replaced wakes a person.
fn warning(life: Duration) -> Duration {
    (life / PART).max(LEAST).min(life / MOST)
}

/// All of them in one line.
pub fn told(alarms: &[Alarm]) -> String {
    let words: Vec<String> = alarms.iter().map(ToString::to_string).collect();
    words.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noon() -> Timestamp {
        "2026-11-22T12:00:00Z".parse().unwrap()
    }

    fn after(minutes: i64) -> Timestamp {
        noon() + SignedDuration::from_mins(minutes)
    }

    fn found(change: impl FnOnce(&mut Consumers), due: Option<Timestamp>) -> Vec<Alarm> {
        let mut held = Consumers {
            live: 5,
            next_end: Some(after(600)),
            next_life_secs: Some(86_400),
            ..Consumers::default()
        };
        change(&mut held);
        let facts = Facts {
            standing: &StoreStanding::Own,
            consumers: Some(vec![("crm", held)]),
            withdrawal_due: Some(due),
            still: Vec::new(),
        };
        alarms(&facts, noon())
    }

    #[test]
    fn the_alerts_wake_at_the_same_thresholds() {
        let rules = include_str!("../../docs/monitoring/renewd.rules.yml");
        let expression = |alert: &str| {
            let rule = rules.split(&format!("- alert: {alert}\n")).nth(1).unwrap();
            let rule = rule.split("labels:").next().unwrap();
            rule.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        let part = |of: u32| {
            let part = 1.0 / f64::from(of);
            format!("- time() < {part} * renewd_consumer_next_end_life_seconds")
        };
        for (alert, threshold) in [
            (
                "RenewdConsumerWithoutToken",
                format!("> {} unless", WITHOUT.as_secs()),
            ),
            ("RenewdTokenEndsSoon", part(PART)),
            (
                "RenewdTokenEndsSoon",
                format!("- time() < {} )", LEAST.as_secs()),
            ),
            ("RenewdTokenEndsSoon", part(MOST)),
            (
                "RenewdWithdrawalNotAtAcs",
                format!("> {}", WITHDRAWAL.as_secs()),
            ),
        ] {
            let says = expression(alert);
            assert!(says.contains(&threshold), "{alert}: {threshold}: {says}");
        }
    }

    #[test]
    fn when_all_is_well_nobody_is_woken() {
        assert_eq!(found(|_| {}, None), []);
        assert_eq!(found(|held| held.without_since = Some(after(-1)), None), []);
        assert_eq!(found(|_| {}, Some(after(-5))), []);
        assert_eq!(found(|held| held.next_end = None, None), []);
    }

    #[test]
    fn a_person_is_woken_a_tenth_of_a_life_before_its_end() {
        for (life_hours, warned_minutes) in [(24, 144), (6, 36), (4, 30), (2, 30), (1, 15)] {
            let ends = |minutes| {
                let alarms = found(
                    |held| {
                        held.next_end = Some(after(minutes));
                        held.next_life_secs = Some(life_hours * 3600);
                    },
                    None,
                );
                !alarms.is_empty()
            };
            assert!(!ends(warned_minutes), "{life_hours} h");
            assert!(ends(warned_minutes - 1), "{life_hours} h");
        }
        let past = found(|held| held.next_end = Some(after(-30)), None);
        assert_eq!(past, [Alarm::EndsSoon("crm".to_owned(), after(-30))]);
    }

    #[test]
    fn whoever_is_without_or_late_wakes_a_person() {
        let without = found(|held| held.without_since = Some(after(-2)), None);
        assert_eq!(without, [Alarm::WithoutToken("crm".to_owned(), after(-2))]);
        let late = found(|_| {}, Some(after(-6)));
        assert_eq!(late, [Alarm::Withdrawal(after(-6))]);
        assert_eq!(
            told(&late),
            "a withdrawal should have been at ACS at 2026-11-22T11:54:00Z"
        );
    }

    #[test]
    fn what_is_not_known_is_not_well() {
        let unknown = Facts {
            standing: &StoreStanding::Own,
            consumers: None,
            withdrawal_due: Some(None),
            still: vec!["jobs".to_owned()],
        };
        let found = alarms(&unknown, noon());
        let expected = [Alarm::LoopStill("jobs".to_owned()), Alarm::StoreUnreadable];
        assert_eq!(found, expected);
        let restored = StoreStanding::Restored { why: String::new() };
        let facts = Facts {
            standing: &restored,
            ..unknown
        };
        assert_eq!(alarms(&facts, noon()), [Alarm::StoreUnusable("restored")]);
    }
}
