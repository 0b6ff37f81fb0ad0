//! The hold on a resource, or on one operation of it, that refuses us.

use std::time::Duration;

use super::Steady;

const SHORTEST: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_mins(5);

/// While we are refused: one probe at a time, 5 s apart growing to 5 min, but
/// never further apart than a sixth of the life left to the most urgent identity (5 s at least). An
/// answer that accepts us ends it.
#[derive(Debug, Clone, Default)]
pub(super) struct KeyHold {
    held: Option<Held>,
}

#[derive(Debug, Clone)]
struct Held {
    because: String,
    gap: Duration,
    from: Steady,
}

impl KeyHold {
    /// Whether another call may start while `in_flight` are on their way. `left` is the life left
    /// to the most urgent identity that waits.
    pub(super) fn admits(&self, in_flight: usize, left: Option<Duration>, now: Steady) -> bool {
        match &self.held {
            None => true,
            Some(held) => in_flight == 0 && now >= held.until(left),
        }
    }

    /// The keys were refused. True when this began the hold.
    pub(super) fn refused(&mut self, because: &str, now: Steady) -> bool {
        if let Some(held) = &mut self.held {
            // What was in flight when it began is not a probe.
            if now >= held.from + SHORTEST {
                held.gap = (held.gap * 2).min(LONGEST);
                held.from = now;
                because.clone_into(&mut held.because);
            }
            return false;
        }
        self.held = Some(Held {
            because: because.to_owned(),
            gap: SHORTEST,
            from: now,
        });
        true
    }

    /// A key was accepted, or the keys were changed. True when this ended the hold.
    pub(super) fn accepted(&mut self) -> bool {
        self.held.take().is_some()
    }

    /// Until when, and why, while it holds.
    pub(super) fn until(&self, left: Option<Duration>) -> Option<(Steady, &str)> {
        let held = self.held.as_ref()?;
        Some((held.until(left), &held.because))
    }
}

impl Held {
    fn until(&self, left: Option<Duration>) -> Steady {
        let gap = left.map_or(self.gap, |left| self.gap.min((left / 6).max(SHORTEST)));
        self.from + gap
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn probes_grow_until_a_key_is_accepted() {
        let mut hold = KeyHold::default();
        assert!(hold.admits(31, None, S));
        assert!(hold.refused("Denied", S));
        assert!(!hold.refused("Denied", S), "in flight when it began");
        let (mut now, mut gaps) = (S, Vec::new());
        for _ in 0..8 {
            let (next, _) = hold.until(None).unwrap();
            gaps.push((next - now).as_secs());
            now = next;
            assert!(hold.admits(0, None, now) && !hold.admits(1, None, now));
            assert!(!hold.refused("Denied", now));
        }
        assert_eq!(gaps, [5, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(hold.until(Some(S * 60)).unwrap().0, now + S * 10);
        assert!(hold.accepted() && !hold.accepted());
        assert!(hold.admits(31, None, now));
    }
}
