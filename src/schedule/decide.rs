//! What to do about one identity now: a plain function of its row, what its lane knows, and the
//! time. The engine acts on it; `why` prints the same.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::model::{DueReason, HealthView, LaneView, Operation, Record, State};

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Action {
    /// Nothing, on purpose.
    Rest {
        /// Why, in a sentence.
        because: String,
    },
    /// Nothing until then.
    Wait {
        /// The due time.
        until: Timestamp,
        /// What happens then.
        reason: DueReason,
    },
    /// It is due, but something holds it back.
    HeldBack {
        /// Until when, where that is known.
        until: Option<Timestamp>,
        /// What holds it, in a sentence.
        because: String,
    },
    /// Issue a token.
    Issue {
        /// Why now.
        reason: DueReason,
    },
    /// Create the identity together with its first token.
    Create {
        /// Why now.
        reason: DueReason,
    },
}

/// The operation that gives this record its next token.
pub fn operation(record: &Record) -> Operation {
    match record.id {
        Some(_) => Operation::Issue,
        None => Operation::CreateWithToken,
    }
}

/// What to do about one identity at an instant, given what its lane publishes. `Issue` and `Create`
/// mean that nothing stands against it but the order of those that wait and their pace.
pub fn decide(record: &Record, lane: &LaneView, now: Timestamp) -> Action {
    if !record.state.wants_token() {
        return rest(record.state);
    }
    let Some(due) = record.due else {
        if record.state == State::New && record.id.is_none() {
            let name = &record.spec.name;
            return held(
                None,
                &format!(
                    "its id is not known, because the store had been lost, and it may exist at ACS: import its id, or \
                 `renewd identity create {name}` lets it be created"
                ),
            );
        }
        return Action::Rest {
            because: "nothing is due".to_owned(),
        };
    };
    if now < due.at {
        return Action::Wait {
            until: due.at,
            reason: due.why,
        };
    }
    let operation = operation(record);
    if let Some(because) = &lane.blocked {
        return held(None, because);
    }
    if operation == Operation::CreateWithToken
        && let Some(because) = &lane.creation_refused
    {
        return held(None, because);
    }
    match lane.health.get(operation.as_str()) {
        Some(HealthView::Held { until, because }) if now < *until => held(Some(*until), because),
        _ if operation == Operation::Issue => Action::Issue { reason: due.why },
        _ => Action::Create { reason: due.why },
    }
}

fn held(until: Option<Timestamp>, because: &str) -> Action {
    Action::HeldBack {
        until,
        because: because.to_owned(),
    }
}

fn rest(state: State) -> Action {
    let because = match state {
        State::Held => "it is held: without a token on purpose, until it is released",
        State::Gone => {
            "ACS says that it does not exist or is not ours; it is never re-created by itself"
        }
        State::Deleted => "it was deleted by command",
        State::New | State::Active | State::Late => "nothing is due",
    };
    Action::Rest {
        because: because.to_owned(),
    }
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
    use crate::model::Due;

    fn due_now() -> Record {
        let due = Due {
            at: noon(),
            why: DueReason::Renewal,
        };
        record(Some(token(noon(), Duration::from_hours(1))), Some(due))
    }

    #[test]
    fn what_is_due_is_issued_or_created() {
        let lane = LaneView::default();
        assert_eq!(
            decide(&due_now(), &lane, noon()),
            Action::Issue {
                reason: DueReason::Renewal
            }
        );
        let new = Record {
            id: None,
            ..due_now()
        };
        assert_eq!(
            decide(&new, &lane, noon()),
            Action::Create {
                reason: DueReason::Renewal
            }
        );
        let early = noon() - Duration::from_secs(1);
        assert!(
            matches!(decide(&new, &lane, early), Action::Wait { until, .. } if until == noon())
        );
    }

    #[test]
    fn some_states_rest() {
        for state in [State::Held, State::Gone, State::Deleted] {
            let row = Record { state, ..due_now() };
            assert!(matches!(
                decide(&row, &LaneView::default(), noon()),
                Action::Rest { .. }
            ));
        }
    }

    #[test]
    fn refused_creation_holds_only_those_without_an_id() {
        let lane = LaneView {
            creation_refused: Some("import first".to_owned()),
            ..LaneView::default()
        };
        assert!(matches!(
            decide(&due_now(), &lane, noon()),
            Action::Issue { .. }
        ));
        let new = Record {
            id: None,
            ..due_now()
        };
        assert!(matches!(
            decide(&new, &lane, noon()),
            Action::HeldBack { until: None, .. }
        ));
    }

    #[test]
    fn a_hold_ends_by_itself() {
        let until = ahead(noon(), Duration::from_secs(10));
        let mut lane = LaneView::default();
        lane.health.insert(
            "issue".to_owned(),
            HealthView::Held {
                until,
                because: "throttled".to_owned(),
            },
        );
        assert!(matches!(
            decide(&due_now(), &lane, noon()),
            Action::HeldBack { .. }
        ));
        assert!(matches!(
            decide(&due_now(), &lane, until),
            Action::Issue { .. }
        ));
    }
}
