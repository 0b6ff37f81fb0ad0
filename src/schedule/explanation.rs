//! What a person needs to understand what happens to one identity: what is decided about it, by the very function that
//! decides, and what that rests on, in words.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    Action, Gate, Grounds, HeldBy, Life, Moment, Situation, Standing, TokenEnd, decide,
    decide::held, operation, standing, state, tier,
};
use crate::model::{
    Attempt, Due, DueReason, HealthView, Name, Record, RenewerView, State, Tier, Version,
    short_duration,
};

/// Everything that a person needs to understand what happens to one identity.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Explanation {
    pub name: Name,
    pub state: State,
    pub version: Version,
    /// What is decided now.
    pub action: Action,
    /// The same in a sentence.
    pub sentence: String,
    /// When the next attempt is due, and by which rule.
    pub next: Option<Due>,
    /// How its token stands: `good`, `doubtful`, `dead` or `none`.
    pub standing: String,
    /// The same in a sentence, where it is not good.
    pub about_token: Option<String>,
    /// How pressing it is, where there is a token.
    pub tier: Option<Tier>,
    /// When the token ends.
    pub expires_at: Option<Timestamp>,
    /// Now, by the resource's clock, which tokens end by.
    #[serde(default)]
    pub service_time: Option<Timestamp>,
    /// The life left in seconds; once dead, less than zero: for how long it has been.
    pub left_secs: Option<i64>,
    /// Since when it fails by itself, while others of its resource succeed.
    #[serde(default)]
    pub failing_since: Option<Timestamp>,
    /// The same in a sentence: how the last attempt ended, and when the next is.
    #[serde(default)]
    pub about_failing: Option<String>,
    /// Failures in a row.
    pub failures: u32,
    /// The last attempts, newest last.
    pub attempts: Vec<Attempt>,
    /// What slows its renewer down at the moment, in sentences.
    #[serde(rename = "lane")]
    pub renewer: Vec<String>,
    /// What people ordered for it and is not carried out yet, or failed, in sentences.
    #[serde(default)]
    pub orders: Vec<String>,
    /// What is still to be delivered, by sink, in sentences.
    #[serde(default)]
    pub deliveries: Vec<String>,
}

impl Explanation {
    /// The same while nothing at all is issued, for this reason, whatever would be decided otherwise.
    #[must_use]
    pub fn withheld(mut self, because: &str) -> Self {
        self.action = held(HeldBy::Permission, because);
        self.sentence = format!("Nothing happens: {because}.");
        self.next = None;
        self
    }

    /// The same with what a call said, if that is what holds it back, in these words.
    #[must_use]
    pub fn retold(mut self, words: fn(&str) -> String) -> Self {
        if let Action::HeldBack {
            because,
            by: HeldBy::Health | HeldBy::Bearer,
            ..
        } = &mut self.action
        {
            let told = words(because);
            self.sentence = self.sentence.replace(because.as_str(), &told);
            *because = told;
        }
        self
    }

    /// The same beside orders that are not carried out yet, and what is still to be delivered: then it is
    /// not true that nothing happens.
    #[must_use]
    pub fn beside(mut self, orders: Vec<String>, deliveries: Vec<String>) -> Self {
        let is_all = orders.is_empty() && deliveries.is_empty();
        if let (Action::Rest { because }, false) = (&self.action, is_all) {
            self.sentence = format!("No token is obtained: {because}.");
        }
        self.orders = orders;
        self.deliveries = deliveries;
        self
    }
}

/// Explains what is decided about `record` at an instant.
pub fn why(record: &Record, renewer: &RenewerView, gate: &mut Gate, moment: Moment) -> Explanation {
    let grounds = Grounds::of(renewer);
    let mut situation = Situation {
        blocked: renewer.blocked.as_deref(),
        creation_refused: renewer.creation_refused.as_deref(),
        grounds: &grounds,
        headroom: renewer
            .headroom
            .get(&operation(record))
            .copied()
            .unwrap_or_default(),
        gate,
    };
    let action = decide(record, &mut situation, moment);
    let now = moment.wall;
    let stands = standing(record, &grounds, now);
    let life = record
        .token
        .as_ref()
        .map(|token| Life::of(token, grounds.skew));
    Explanation {
        name: record.spec.name.clone(),
        state: state(record, &grounds, now),
        version: record.version,
        sentence: sentence(record, &action, now),
        action,
        next: record.due,
        standing: stands.as_str().to_owned(),
        about_token: about_token(record, stands, now),
        tier: tier(record, &grounds, now),
        expires_at: record.token.as_ref().map(|token| token.expires_at),
        service_time: Some(renewer.service_time(now)),
        left_secs: match stands {
            Standing::Dead { since, .. } => Some(since.duration_since(now).as_secs()),
            _ => life.map(|life| life.to.duration_since(now).as_secs()),
        },
        failing_since: record.failing_since,
        about_failing: about_failing(record, now),
        failures: record.failures,
        attempts: record.attempts.iter().cloned().collect(),
        renewer: troubles(record, renewer),
        orders: Vec::new(),
        deliveries: Vec::new(),
    }
}

/// What is wrong with the token, if anything is.
fn about_token(record: &Record, stands: Standing, now: Timestamp) -> Option<String> {
    let ago =
        |since: Timestamp| short_duration(now.duration_since(since).try_into().unwrap_or_default());
    match stands {
        Standing::None | Standing::Good { .. } => None,
        Standing::Doubtful { since, .. } => {
            let key = record.token.as_ref().map_or("", |token| &token.minted_by);
            Some(format!(
                "its token may be dead: the access key {key} that minted it is refused or no longer configured, since \
                 {} ago; it is minted anew as soon as a key works, and served until then",
                ago(since)
            ))
        }
        Standing::Dead {
            since,
            how: TokenEnd::Expired,
        } => Some(format!(
            "its token expired {} ago; none is served until the next one is there",
            ago(since)
        )),
        Standing::Dead {
            since,
            how: TokenEnd::Revoked,
        } => Some(format!(
            "its token was revoked {} ago and is dead; none is served until the next one is there",
            ago(since)
        )),
        Standing::Dead {
            how: TokenEnd::Dropped,
            ..
        } => Some(
            "its token was dropped with a lost seal key, or it is not known whether it lives since the store was \
             restored; none is served until the next one is there, and consumers keep what they hold"
                .to_owned(),
        ),
    }
}

/// That it fails by itself, if it does.
fn about_failing(record: &Record, now: Timestamp) -> Option<String> {
    let long = |time: jiff::SignedDuration| short_duration(time.try_into().unwrap_or_default());
    let since = long(now.duration_since(record.failing_since?));
    let last = record.attempts.last().map_or(String::new(), |last| {
        format!(
            "; the last attempt, {} ago, ended with {}",
            long(now.duration_since(last.at)),
            last.result
        )
    });
    let next = match record.due {
        Some(due) if due.at > now => {
            format!(", the next is in {}", long(due.at.duration_since(now)))
        }
        _ => ", the next comes as soon as its turn does".to_owned(),
    };
    Some(format!(
        "it fails by itself since {since}, while {} answers other calls{last}{next}",
        record.spec.resource
    ))
}

fn sentence(record: &Record, action: &Action, now: Timestamp) -> String {
    match action {
        Action::Rest { because } => format!("Nothing happens: {because}."),
        Action::Wait { until, reason } => {
            let wait = until.duration_since(now).try_into().unwrap_or_default();
            format!("In {}: {}.", short_duration(wait), rule(*reason, record))
        }
        Action::HeldBack { until, because, .. } => match until {
            Some(until) => {
                let wait = until.duration_since(now).try_into().unwrap_or_default();
                format!(
                    "It is due, and has to wait for {}: {because}.",
                    short_duration(wait)
                )
            }
            None => format!("It is due, and has to wait: {because}."),
        },
        Action::Issue { reason } => format!(
            "Due now: {}; it is tried as soon as its turn comes, earliest expiry first.",
            rule(*reason, record)
        ),
        Action::Create { reason } => format!(
            "Due now: {}; it is created at ACS together with its token as soon as its turn comes.",
            rule(*reason, record)
        ),
    }
}

/// Shares of a life that differ by no more than this may do so by the service's clock.
const BY_CLOCKS: f64 = 0.01;

/// Where the due time was drawn from, as [`Load`](super::Load) does it.
fn renewal_rule(record: &Record) -> String {
    let (renew_at, spread) = (record.spec.declared.renew_at, record.spec.declared.spread);
    let share = record.token.as_ref().zip(record.due).map(|(token, due)| {
        let life = token.expires_at.duration_since(token.issued_at);
        due.at.duration_since(token.issued_at).as_secs_f64() / life.as_secs_f64()
    });
    match share {
        Some(share) if share < renew_at - spread - BY_CLOCKS => format!(
            "its token reaches {:.0} % of its life (before {:.0} %, because too many others are due then)",
            share * 100.0,
            renew_at * 100.0
        ),
        _ => format!(
            "its token reaches {:.0} % of its life (less a spread drawn once)",
            renew_at * 100.0
        ),
    }
}

/// The rule that set the due time, in words.
fn rule(reason: DueReason, record: &Record) -> String {
    match reason {
        DueReason::First => "it has no token yet".to_owned(),
        DueReason::Renewal => renewal_rule(record),
        DueReason::Retry => format!("the last attempt failed ({} in a row)", record.failures),
        DueReason::Changed => "its scopes or lifetime changed".to_owned(),
        DueReason::Requested => "somebody asked for it".to_owned(),
        DueReason::Revoked => "its tokens were revoked and one is to follow".to_owned(),
        DueReason::Released => "it was released from a hold".to_owned(),
        DueReason::KeyChange => "the access key that minted its token is replaced".to_owned(),
        DueReason::FutureToken => "its token says that it was issued in the future".to_owned(),
    }
}

/// What slows the renewer down for this record's operation.
fn troubles(record: &Record, renewer: &RenewerView) -> Vec<String> {
    let operation = operation(record).as_str();
    let mut troubles: Vec<String> = renewer.blocked.iter().cloned().collect();
    match renewer.health.get(operation) {
        Some(HealthView::Probing { since, because }) => troubles.push(format!(
            "{operation} has had no answer since {since:.0}: {because}; only probes go out, the most urgent identity first"
        )),
        Some(HealthView::Held { until, because }) => {
            troubles.push(format!("{operation} waits until {until:.0}: {because}"));
        }
        Some(HealthView::Open) | None => {}
    }
    if let Some((sent, allowed)) = renewer.pace.get(operation)
        && sent >= allowed
    {
        troubles.push(format!(
            "{operation} is at its pace: {sent} of {allowed} calls are sent in this window"
        ));
    }
    troubles
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{
        super::life::{
            ahead,
            tests::{noon, record, token},
        },
        *,
    };

    fn explained(record: &Record, renewer: &RenewerView) -> Explanation {
        let mut gate = Gate::new(&crate::config::Limits::default(), 100);
        let now = Moment {
            wall: noon(),
            steady: Duration::ZERO,
        };
        why(record, renewer, &mut gate, now)
    }

    #[test]
    fn it_says_what_is_decided() {
        let due = Due {
            at: ahead(noon(), Duration::from_mins(30)),
            why: DueReason::Renewal,
        };
        let row = record(Some(token(noon(), Duration::from_hours(1))), Some(due));
        let told = explained(&row, &RenewerView::default());
        assert_eq!(
            told.sentence,
            "In 30m: its token reaches 50 % of its life (less a spread drawn once)."
        );
        assert_eq!(told.left_secs, Some(3600));
        assert!(matches!(told.action, Action::Wait { .. }));
        let levelled = Due {
            at: ahead(noon(), Duration::from_mins(18)),
            ..due
        };
        let row = record(Some(token(noon(), Duration::from_hours(1))), Some(levelled));
        assert_eq!(
            explained(&row, &RenewerView::default()).sentence,
            "In 18m: its token reaches 30 % of its life (before 50 %, because too many others are due then)."
        );
    }

    #[test]
    fn it_says_that_an_identity_fails_by_itself() {
        let due = Due {
            at: ahead(noon(), Duration::from_secs(90)),
            why: DueReason::Retry,
        };
        let mut row = record(Some(token(noon(), Duration::from_hours(1))), Some(due));
        let told = |row: &Record| explained(row, &RenewerView::default()).about_failing;
        assert_eq!(told(&row), None);
        row.failing_since = Some(noon() - Duration::from_mins(14));
        row.attempts.push(Attempt {
            at: noon() - Duration::from_secs(30),
            result: "credentials 403".to_owned(),
            request_id: None,
        });
        let told = told(&row).unwrap();
        for part in [
            "since 14m",
            "30s ago",
            "credentials 403",
            "next is in 1m 30s",
        ] {
            assert!(told.contains(part), "{part}: {told}");
        }
    }

    #[test]
    fn it_names_what_holds_an_identity_back() {
        let due = Due {
            at: noon(),
            why: DueReason::Retry,
        };
        let row = record(Some(token(noon(), Duration::from_hours(1))), Some(due));
        let mut renewer = RenewerView::default();
        let probing = HealthView::Probing {
            since: noon(),
            because: "connection refused".to_owned(),
        };
        renewer.health.insert("issue".to_owned(), probing);
        renewer.pace.insert("issue".to_owned(), (970, 970));
        let told = explained(&row, &renewer);
        assert_eq!(told.renewer.len(), 2, "{:?}", told.renewer);
        assert!(told.renewer[0].contains("connection refused"));
    }
}
