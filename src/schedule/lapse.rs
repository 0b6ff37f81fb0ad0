//! `renewal.late`: once per lapse, at most ten a minute one by one, the rest folded.

use std::time::Duration;

use super::Steady;
use crate::model::Name;

const ONE_BY_ONE: u32 = 10;
const MINUTE: Duration = Duration::from_mins(1);

/// What to tell about late renewals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LateNotice {
    /// This one is late.
    One(Name),
    /// So many more are late.
    Many(u32),
}

/// Folds late renewals above ten a minute into one notice.
#[derive(Debug, Clone, Default)]
pub struct LateFold {
    minute: Option<Steady>,
    told: u32,
    folded: u32,
}

impl LateFold {
    /// One more is late. The notice to raise for it, unless it is folded.
    pub fn late(&mut self, name: &Name, now: Steady) -> Option<LateNotice> {
        self.minute.get_or_insert(now);
        if self.told < ONE_BY_ONE {
            self.told += 1;
            return Some(LateNotice::One(name.clone()));
        }
        self.folded += 1;
        None
    }

    /// At the end of a minute: the notice for those that were folded, if any.
    pub fn fold(&mut self, now: Steady) -> Option<LateNotice> {
        if now < self.ends_at()? {
            return None;
        }
        let folded = std::mem::take(self).folded;
        (folded > 0).then_some(LateNotice::Many(folded))
    }

    /// When the current minute ends.
    pub fn ends_at(&self) -> Option<Steady> {
        Some(self.minute? + MINUTE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_a_minute_and_the_rest_in_one() {
        let mut fold = LateFold::default();
        let name: Name = "bot".parse().unwrap();
        let start = Duration::from_secs(100);
        let told = (0..50)
            .filter(|_| fold.late(&name, start).is_some())
            .count();
        assert_eq!(told, 10);
        assert_eq!(fold.fold(start + MINUTE / 2), None);
        assert_eq!(fold.fold(start + MINUTE), Some(LateNotice::Many(40)));
        assert_eq!(fold.fold(start + MINUTE * 2), None);
        assert_eq!(
            fold.late(&name, start + MINUTE),
            Some(LateNotice::One(name.clone()))
        );
    }
}
