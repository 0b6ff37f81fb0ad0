//! When an outage is announced: once when it begins, once when it ends.

use std::time::Duration;

use super::Steady;

/// An outage that follows the last one closer than this …
const RELAPSE: Duration = Duration::from_hours(1);
/// … is announced only when it lasts so long, and twice as long after each that was, so that a
/// half-broken service is not a flood.
const LASTING: Duration = Duration::from_secs(30);
const MOST_DOUBLED: u32 = 6;

/// Turns bad and good news into at most one announcement of each.
#[derive(Debug, Clone, Default)]
pub struct Outage {
    since: Option<Steady>,
    announced: bool,
    ended: Option<Steady>,
    /// Announced relapses, one after the other.
    relapses: u32,
    /// An earlier process announced it, and nothing was heard of the service since.
    inherited: bool,
}

impl Outage {
    /// One that an earlier process announced and did not see the end of. It ends with the first good
    /// news after an answer.
    pub fn inherited(now: Steady) -> Self {
        Self {
            since: Some(now),
            announced: true,
            inherited: true,
            ..Self::default()
        }
    }

    /// The service said something.
    pub fn heard(&mut self) {
        self.inherited = false;
    }

    /// Bad at this instant. True when the beginning is to be announced now.
    pub fn bad(&mut self, now: Steady) -> bool {
        let since = *self.since.get_or_insert(now);
        let relapse = self.ended.is_some_and(|ended| since < ended + RELAPSE);
        let lasting = LASTING * 2_u32.pow(self.relapses.min(MOST_DOUBLED));
        if self.announced || (relapse && now < since + lasting) {
            return false;
        }
        self.relapses = if relapse { self.relapses + 1 } else { 0 };
        self.announced = true;
        true
    }

    /// Good at this instant. True when the end is to be announced now.
    pub fn good(&mut self, now: Steady) -> bool {
        if self.inherited || self.since.take().is_none() {
            return false;
        }
        self.ended = Some(now);
        std::mem::take(&mut self.announced)
    }

    /// Whether one is going on that people know of.
    pub fn is_announced(&self) -> bool {
        self.announced
    }

    /// Whether one is going on, announced or not.
    pub fn is_on(&self) -> bool {
        self.since.is_some()
    }

    /// When the last one ended.
    pub fn ended(&self) -> Option<Steady> {
        self.ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn one_at_the_beginning_and_one_at_the_end() {
        let mut outage = Outage::default();
        assert!(!outage.good(S));
        assert!(outage.bad(S));
        assert!(!outage.bad(S * 2) && outage.is_announced());
        assert!(outage.good(S * 3) && !outage.good(S * 4));
    }

    #[test]
    fn what_an_earlier_process_announced_ends_when_the_service_was_heard() {
        let mut outage = Outage::inherited(S);
        assert!(outage.is_on() && !outage.good(S * 2) && outage.is_on());
        assert!(!outage.bad(S * 3), "it is announced already");
        outage.heard();
        assert!(outage.good(S * 4) && !outage.is_on());
    }

    #[test]
    fn a_flapping_service_is_not_a_flood() {
        let mut outage = Outage::default();
        let announced = (0..3600)
            .filter(|n| {
                if n % 2 == 0 {
                    outage.bad(S * *n)
                } else {
                    outage.good(S * *n)
                }
            })
            .count();
        assert_eq!(announced, 2);
        outage.bad(S * 3600);
        assert!(outage.bad(S * 3630), "this one lasts");
    }
}
