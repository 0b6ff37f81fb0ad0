//! The only room that reads the time.
//!
//! Time is an anchor plus a clock that never steps (`CLOCK_BOOTTIME`, which goes on while the
//! machine sleeps). When the wall clock steps against it, the step is *held*: [`Clock::now`] goes on
//! as before until the date of an authenticated answer confirms the step ([`Clock::confirm`]). So a
//! wrong wall clock never makes a fleet look dead. Small corrections, as time daemons make, are
//! followed at once.
//!
//! Where machines share a database, its clock decides ([`Clock::follow`]): a machine whose wall clock is off tells the
//! time of the database nevertheless, so that what one of them writes is not ahead of the others.
//!
//! A simulated clock follows the runtime's paused time, so that a month can pass in seconds.

#![warn(missing_docs)]

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};

/// Differences up to this are corrections, not steps.
const FOLLOWED: SignedDuration = SignedDuration::from_secs(2);
/// How near an authenticated date must be to the stepped wall clock to confirm it.
const CONFIRMED: SignedDuration = SignedDuration::from_secs(60);
/// No wait is longer than this without reading the clock again.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Tells the time; cheap to clone, all clones are the same clock.
#[derive(Debug, Clone)]
pub struct Clock(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    source: Source,
    anchor: Mutex<Anchor>,
}

#[derive(Debug)]
enum Source {
    System,
    Simulated {
        start: tokio::time::Instant,
        base: Timestamp,
        step: Mutex<SignedDuration>,
    },
}

/// At `steady` the time was `wall`.
#[derive(Debug, Clone, Copy)]
struct Anchor {
    steady: Duration,
    wall: Timestamp,
    /// Another clock decides, and the wall clock does not agree with it.
    led: bool,
}

impl Clock {
    /// The machine's clock, which may step.
    pub fn system() -> Self {
        Self::anchored(Source::System)
    }

    /// A clock that starts at `base` and follows the runtime's time, paused or not. It must be made
    /// inside a runtime.
    #[expect(clippy::disallowed_methods, reason = "the clock room reads the time")]
    pub fn simulated(base: Timestamp) -> Self {
        let start = tokio::time::Instant::now();
        Self::anchored(Source::Simulated {
            start,
            base,
            step: Mutex::new(SignedDuration::ZERO),
        })
    }

    fn anchored(source: Source) -> Self {
        let anchor = Anchor {
            steady: source.steady(),
            wall: source.wall(),
            led: false,
        };
        Self(Arc::new(Inner {
            source,
            anchor: Mutex::new(anchor),
        }))
    }

    /// The time, never moved by an unconfirmed step of the wall clock.
    pub fn now(&self) -> Timestamp {
        let mut anchor = self.lock();
        let steady = self.0.source.steady();
        let ours = add(anchor.wall, steady.saturating_sub(anchor.steady));
        let wall = self.0.source.wall();
        if wall.duration_since(ours).abs() <= FOLLOWED {
            *anchor = Anchor {
                steady,
                wall,
                led: false,
            };
            return wall;
        }
        ours
    }

    /// From now on tells the time of another clock that decides, which said `date` just now, give or take `doubt`;
    /// smaller differences are left to time daemons. Returns by how much [`Clock::now`] has changed.
    pub fn follow(&self, date: Timestamp, doubt: Duration) -> Option<SignedDuration> {
        let by = date.duration_since(self.now());
        let doubt = SignedDuration::try_from(doubt).unwrap_or(SignedDuration::MAX);
        if by.abs() <= FOLLOWED.saturating_add(doubt) {
            return None;
        }
        *self.lock() = Anchor {
            steady: self.0.source.steady(),
            wall: date,
            led: true,
        };
        Some(by)
    }

    /// By how much the machine's wall clock is ahead of [`Clock::now`].
    pub fn wall_ahead(&self) -> SignedDuration {
        let now = self.now();
        self.0.source.wall().duration_since(now)
    }

    /// How far the wall clock has stepped against [`Clock::now`], while that is unconfirmed.
    pub fn held_step(&self) -> Option<SignedDuration> {
        let step = self.wall_ahead();
        (step.abs() > FOLLOWED && !self.lock().led).then_some(step)
    }

    /// Follows a held step when `date`, taken from an authenticated answer, agrees with the wall
    /// clock and not with [`Clock::now`]. Returns the step that was taken.
    pub fn confirm(&self, date: Timestamp) -> Option<SignedDuration> {
        let step = self.held_step()?;
        let wall = self.0.source.wall();
        let agrees = date.duration_since(wall).abs() <= CONFIRMED
            && date.duration_since(wall).abs() < date.duration_since(self.now()).abs();
        if !agrees {
            return None;
        }
        *self.lock() = Anchor {
            steady: self.0.source.steady(),
            wall,
            led: false,
        };
        Some(step)
    }

    /// Time since some fixed moment that no step moves; for measuring, not for telling the time.
    pub fn steady(&self) -> Duration {
        self.0.source.steady()
    }

    /// Whether this clock follows paused time: then nothing may wait on a thread or a socket.
    pub fn is_simulated(&self) -> bool {
        matches!(self.0.source, Source::Simulated { .. })
    }

    /// Waits until `at`, but at most 60 s: whoever waits reads the clock again and decides anew, so
    /// that neither a step nor a suspended machine can make it oversleep.
    pub async fn sleep_until(&self, at: Timestamp) {
        let wait = Duration::try_from(at.duration_since(self.now())).unwrap_or_default();
        tokio::time::sleep(wait.min(LONGEST_WAIT)).await;
    }

    /// Steps a simulated wall clock, as an operator or a bad time server would.
    ///
    /// # Panics
    /// On the machine's own clock.
    pub fn step_wall(&self, by: SignedDuration) {
        match &self.0.source {
            Source::System => panic!("only a simulated wall clock can be stepped"),
            Source::Simulated { step, .. } => {
                *step.lock().unwrap_or_else(PoisonError::into_inner) += by;
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Anchor> {
        self.0.anchor.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Until when something may be done, on the clock that no step moves: who gives it out sets that, and who asks sees
/// it at once. All clones are the same lease.
#[derive(Debug, Clone)]
pub struct Lease(Arc<AtomicU64>);

impl Lease {
    /// One without an end.
    pub fn unlimited() -> Self {
        Self(Arc::new(AtomicU64::new(u64::MAX)))
    }

    /// One that is over.
    pub fn over() -> Self {
        Self(Arc::default())
    }

    /// From now on it goes on until this moment of the clock that no step moves.
    pub fn ends_at(&self, steady: Duration) {
        let micros = u64::try_from(steady.as_micros()).unwrap_or(u64::MAX);
        self.0.store(micros, Ordering::SeqCst);
    }

    /// Nothing may be done under it any more.
    pub fn end(&self) {
        self.ends_at(Duration::ZERO);
    }

    /// Whether it goes on at this moment of the clock that no step moves.
    pub fn holds(&self, steady: Duration) -> bool {
        !self.left(steady).is_zero()
    }

    /// How long it goes on.
    pub fn left(&self, steady: Duration) -> Duration {
        Duration::from_micros(self.0.load(Ordering::SeqCst)).saturating_sub(steady)
    }
}

impl Source {
    #[expect(clippy::disallowed_methods, reason = "the clock room reads the time")]
    fn steady(&self) -> Duration {
        match self {
            Self::System => {
                let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
                Duration::new(
                    time.tv_sec.unsigned_abs(),
                    u32::try_from(time.tv_nsec).unwrap_or(0),
                )
            }
            Self::Simulated { start, .. } => tokio::time::Instant::now().duration_since(*start),
        }
    }

    #[expect(clippy::disallowed_methods, reason = "the clock room reads the time")]
    fn wall(&self) -> Timestamp {
        match self {
            Self::System => Timestamp::now(),
            Self::Simulated { base, step, .. } => {
                let step = *step.lock().unwrap_or_else(PoisonError::into_inner);
                let at = add(*base, self.steady());
                at.checked_add(step).unwrap_or(at)
            }
        }
    }
}

/// `at` plus `by`, kept within what a timestamp can hold.
fn add(at: Timestamp, by: Duration) -> Timestamp {
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> Timestamp {
        "2026-11-22T12:00:00Z".parse().unwrap()
    }

    #[test]
    fn a_lease_is_over_at_its_end() {
        let lease = Lease::over();
        let shared = lease.clone();
        assert!(!shared.holds(Duration::ZERO));
        lease.ends_at(Duration::from_secs(10));
        assert!(shared.holds(Duration::from_secs(9)));
        assert!(!shared.holds(Duration::from_secs(10)));
        lease.end();
        assert!(!shared.holds(Duration::from_secs(9)));
        assert!(Lease::unlimited().holds(Duration::from_secs(u64::from(u32::MAX))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_month_passes_in_no_time() {
        let clock = Clock::simulated(start());
        tokio::time::advance(Duration::from_hours(720)).await;
        assert_eq!(clock.now(), "2026-12-22T12:00:00Z".parse().unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn a_step_is_held_until_an_authenticated_date_confirms_it() {
        let clock = Clock::simulated(start());
        let day = SignedDuration::from_hours(24);
        clock.step_wall(day);
        assert_eq!(clock.now(), start());
        assert_eq!(clock.held_step(), Some(day));
        assert_eq!(
            clock.confirm(start()),
            None,
            "a date that agrees with us confirms nothing"
        );
        assert_eq!(clock.confirm(start() + day), Some(day));
        assert_eq!(clock.now(), start() + day);
        assert_eq!(clock.held_step(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn small_corrections_are_followed() {
        let clock = Clock::simulated(start());
        clock.step_wall(SignedDuration::from_millis(-1500));
        assert_eq!(clock.now(), start() - SignedDuration::from_millis(1500));
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_decides_is_followed_whatever_the_wall_clock_says() {
        let (clock, hour) = (Clock::simulated(start()), SignedDuration::from_hours(1));
        let second = Duration::from_secs(1);
        assert_eq!(clock.follow(start() + second, second), None);
        assert_eq!(clock.follow(start() + hour, second), Some(hour));
        assert_eq!(clock.now(), start() + hour);
        assert_eq!(clock.wall_ahead(), -hour);
        assert_eq!(clock.held_step(), None, "nobody has to confirm it");
        assert_eq!(clock.confirm(start()), None, "nobody else may lead it back");
        tokio::time::advance(Duration::from_mins(1)).await;
        assert_eq!(clock.now(), start() + hour + Duration::from_mins(1));
        // Once the wall clock is set right, it is followed as ever.
        clock.step_wall(hour + SignedDuration::from_secs(1));
        assert_eq!(clock.wall_ahead(), SignedDuration::ZERO);
        assert_eq!(clock.now(), start() + hour + Duration::from_secs(61));
    }

    #[tokio::test(start_paused = true)]
    async fn no_wait_is_longer_than_a_minute() {
        let clock = Clock::simulated(start());
        clock
            .sleep_until(start() + SignedDuration::from_hours(5))
            .await;
        assert!(clock.now() <= start() + SignedDuration::from_secs(61));
    }
}
