//! Trouble on purpose: which request gets which.

use std::time::Duration;

use http::StatusCode;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::model::Operation;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum FaultKind {
    /// An answer with a status of choice.
    Status,
    /// The answer is late, and otherwise as it would have been.
    Delay,
    /// No answer, and the connection stays open.
    Hang,
    /// The connection is reset.
    Reset,
    /// Every request of every operation has its connection reset.
    Outage,
    /// The answer's body is not JSON; the operation took place.
    Malformed,
    /// The answer breaks off in its body; the operation took place.
    Truncated,
}

/// A fault as it is asked for at the control door.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FaultSpec {
    pub(super) kind: FaultKind,
    /// Only this operation; all if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) operation: Option<Operation>,
    /// Only requests for this id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<String>,
    /// For `status`; 503 if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) status: Option<u16>,
    /// For `status`: `Retry-After` in seconds; none if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) retry_after: Option<u64>,
    /// For `delay`; 1,000 if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) delay_ms: Option<u64>,
    /// How many requests it hits; until cleared if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) count: Option<u64>,
    /// The share of requests that it hits; all if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) probability: Option<f64>,
    /// For `probability`: the same seed hits the same requests of a sequence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) seed: Option<u64>,
    /// Whether the operation takes place first, so that only its answer is lost.
    #[serde(default)]
    pub(super) after: bool,
}

/// A fault in force.
#[derive(Debug, Serialize)]
pub(super) struct Fault {
    pub(super) number: u64,
    #[serde(flatten)]
    spec: FaultSpec,
    /// How many requests it hit.
    hits: u64,
    #[serde(skip)]
    rng: ChaCha8Rng,
}

/// What a request is to suffer.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Trouble {
    pub(super) delay: Duration,
    pub(super) blow: Option<Blow>,
}

/// What happens instead of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Blow {
    pub(super) fault: u64,
    pub(super) harm: Harm,
    /// Whether the operation takes place first.
    pub(super) after: bool,
}

/// The kinds of [`Blow`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Harm {
    Status(StatusCode, Option<u64>),
    Hang,
    Reset,
    Malformed,
    Truncated,
}

/// The faults in force, in the order in which they were asked for.
#[derive(Debug)]
pub(super) struct Faults {
    list: Vec<Fault>,
    next: u64,
    rng: ChaCha8Rng,
}

impl Faults {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            list: Vec::new(),
            next: 1,
            rng: ChaCha8Rng::seed_from_u64(seed),
        }
    }

    pub(super) fn list(&self) -> &[Fault] {
        &self.list
    }

    /// Takes a fault, or says what is wrong with it.
    pub(super) fn add(&mut self, spec: FaultSpec) -> Result<u64, String> {
        if spec.status.is_some_and(|s| !(200..=599).contains(&s)) {
            return Err("status must be from 200 to 599".to_owned());
        }
        if spec.probability.is_some_and(|p| !(0.0..=1.0).contains(&p)) {
            return Err("probability must be from 0 to 1".to_owned());
        }
        let seed = spec.seed.unwrap_or_else(|| self.rng.random());
        let number = self.next;
        self.next += 1;
        self.list.push(Fault {
            number,
            spec,
            hits: 0,
            rng: ChaCha8Rng::seed_from_u64(seed),
        });
        Ok(number)
    }

    pub(super) fn clear(&mut self) {
        self.list.clear();
    }

    /// Takes one back; whether it was there.
    pub(super) fn remove(&mut self, number: u64) -> bool {
        let before = self.list.len();
        self.list.retain(|fault| fault.number != number);
        before != self.list.len()
    }

    /// What this request is to suffer: delays add up, and of the rest the first one counts.
    pub(super) fn strike(&mut self, operation: Operation, id: Option<&str>) -> Trouble {
        let mut trouble = Trouble::default();
        for fault in &mut self.list {
            let delays = fault.spec.kind == FaultKind::Delay;
            if trouble.blow.is_some() && !delays || !fault.hits(operation, id) {
                continue;
            }
            if delays {
                trouble.delay += Duration::from_millis(fault.spec.delay_ms.unwrap_or(1000));
            } else {
                trouble.blow = fault.blow();
            }
        }
        self.list
            .retain(|fault| fault.spec.count.is_none_or(|count| fault.hits < count));
        trouble
    }
}

impl Fault {
    fn hits(&mut self, operation: Operation, id: Option<&str>) -> bool {
        let spec = &self.spec;
        let applies = spec.kind == FaultKind::Outage
            || spec.operation.is_none_or(|o| o == operation)
                && spec.id.as_deref().is_none_or(|wanted| Some(wanted) == id);
        let used_up = spec.count.is_some_and(|count| self.hits >= count);
        let hit = applies
            && !used_up
            && spec
                .probability
                .is_none_or(|p| self.rng.random::<f64>() < p);
        self.hits += u64::from(hit);
        hit
    }

    fn blow(&self) -> Option<Blow> {
        let harm = match self.spec.kind {
            FaultKind::Delay => return None,
            FaultKind::Status => {
                let status = StatusCode::from_u16(self.spec.status.unwrap_or(503));
                let status = status.unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
                Harm::Status(status, self.spec.retry_after)
            }
            FaultKind::Hang => Harm::Hang,
            FaultKind::Reset | FaultKind::Outage => Harm::Reset,
            FaultKind::Malformed => Harm::Malformed,
            FaultKind::Truncated => Harm::Truncated,
        };
        let after = matches!(harm, Harm::Malformed | Harm::Truncated) || self.spec.after;
        Some(Blow {
            fault: self.number,
            harm,
            after,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(json: &str) -> FaultSpec {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_counted_fault_hits_its_operation_so_often_and_is_gone() {
        let mut faults = Faults::new(1);
        faults
            .add(spec(
                r#"{"kind":"status","status":500,"operation":"issue","count":2}"#,
            ))
            .unwrap();
        let mut hit = |operation| faults.strike(operation, None).blow.is_some();
        assert!(!hit(Operation::Revoke));
        assert!(hit(Operation::Issue) && hit(Operation::Issue) && !hit(Operation::Issue));
        assert!(faults.list().is_empty());
    }

    #[test]
    fn the_same_seed_hits_the_same_requests() {
        let sequence = |own: u64| {
            let mut faults = Faults::new(own);
            faults
                .add(spec(r#"{"kind":"reset","probability":0.3,"seed":7}"#))
                .unwrap();
            (0..200)
                .map(|_| faults.strike(Operation::Issue, None).blow.is_some())
                .collect::<Vec<_>>()
        };
        assert_eq!(sequence(1), sequence(2));
        let hits = sequence(1).iter().filter(|hit| **hit).count();
        assert!((30..=90).contains(&hits), "{hits}");
    }

    #[test]
    fn delays_add_up_with_whatever_else_happens() {
        let mut faults = Faults::new(1);
        faults.add(spec(r#"{"kind":"hang","id":"8:x"}"#)).unwrap();
        faults
            .add(spec(r#"{"kind":"delay","delay_ms":200}"#))
            .unwrap();
        faults
            .add(spec(r#"{"kind":"delay","delay_ms":50}"#))
            .unwrap();
        let trouble = faults.strike(Operation::Issue, Some("8:x"));
        assert_eq!(trouble.delay, Duration::from_millis(250));
        assert_eq!(trouble.blow.map(|b| b.harm), Some(Harm::Hang));
        assert_eq!(faults.strike(Operation::Issue, Some("8:y")).blow, None);
    }

    #[test]
    fn nonsense_is_refused() {
        let mut faults = Faults::new(1);
        assert!(
            faults
                .add(spec(r#"{"kind":"status","status":99}"#))
                .is_err()
        );
        assert!(
            faults
                .add(spec(r#"{"kind":"reset","probability":1.5}"#))
                .is_err()
        );
        assert!(serde_json::from_str::<FaultSpec>(r#"{"kind":"reset","cuont":1}"#).is_err());
    }
}
