//! What is told too often: news of one kind, at most ten a minute one by one and the rest in one; and the
//! same line again, once an hour.

use std::time::Duration;

use super::Steady;

const ONE_BY_ONE: u32 = 10;
const MINUTE: Duration = Duration::from_mins(1);
/// The same is said again after so long.
const AGAIN: Duration = Duration::from_hours(1);

/// Folds news above ten a minute into one.
#[derive(Debug, Clone, Default)]
pub struct Fold {
    minute: Option<Steady>,
    told: u32,
    folded: u32,
}

impl Fold {
    /// One more. Whether it is told by itself.
    pub fn tells(&mut self, now: Steady) -> bool {
        self.minute.get_or_insert(now);
        let by_itself = self.told < ONE_BY_ONE;
        match by_itself {
            true => self.told += 1,
            false => self.folded += 1,
        }
        by_itself
    }

    /// At the end of a minute: how many were not told by themselves, if any.
    pub fn rest(&mut self, now: Steady) -> Option<u32> {
        if now < self.ends_at()? {
            return None;
        }
        let folded = std::mem::take(self).folded;
        (folded > 0).then_some(folded)
    }

    /// When the current minute ends.
    pub fn ends_at(&self) -> Option<Steady> {
        Some(self.minute? + MINUTE)
    }
}

/// Says the same once an hour.
#[derive(Debug, Clone, Default)]
pub struct Repeat {
    last: Option<(String, Steady)>,
}

impl Repeat {
    /// Whether to say it: it is another text than the last, or that is an hour ago.
    pub fn is_news(&mut self, text: &str, now: Steady) -> bool {
        let known = self.last.as_ref();
        let known = known.is_some_and(|(last, at)| last == text && now < *at + AGAIN);
        if !known {
            self.last = Some((text.to_owned(), now));
        }
        !known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_said_once_an_hour() {
        let mut repeat = Repeat::default();
        let start = Duration::from_secs(100);
        assert!(repeat.is_news("a", start));
        assert!(!repeat.is_news("a", start + AGAIN / 2));
        assert!(repeat.is_news("b", start + AGAIN / 2));
        assert!(!repeat.is_news("b", start + AGAIN));
        assert!(repeat.is_news("b", start + AGAIN / 2 + AGAIN));
    }

    #[test]
    fn ten_a_minute_and_the_rest_in_one() {
        let mut fold = Fold::default();
        let start = Duration::from_secs(100);
        let told = (0..50).filter(|_| fold.tells(start)).count();
        assert_eq!(told, 10);
        assert_eq!(fold.rest(start + MINUTE / 2), None);
        assert_eq!(fold.rest(start + MINUTE), Some(40));
        assert_eq!(fold.rest(start + MINUTE * 2), None);
        assert!(fold.tells(start + MINUTE));
    }
}
