//! Decides, purely: no async, no IO, now and chance as arguments.
//!
//! Two kinds of time are used. What people see and what rows hold is a [`Timestamp`]. What must not
//! move when the wall clock is corrected (pace, health, breakers) is [`Steady`].

mod alarm;
mod cron;
mod decide;
mod evidence;
mod explanation;
mod fleet;
mod gate;
mod health;
mod key_probes;
mod level;
mod life;
mod pace;
mod plan;
mod rates;
mod retries;
mod standing;

use std::time::Duration;

use jiff::Timestamp;

pub use alarm::{Alarm, Facts, alarms, told};
pub use cron::{Cron, CronError, JobCall, call, check_jobs};
pub use decide::{Action, HeldBy, Situation, decide, operation, press};
pub use decide::{REFUSED_AGAIN, is_refused_again, waits_for_vouching};
pub use explanation::{Explanation, why};
pub use fleet::{Cohort, Fleet, WhatIf, cohorts};
pub use gate::{CallFinding, Gate, Ticket};
pub use health::Outage;
pub use key_probes::{KeyProbes, News, Word};
pub use level::{Load, RenewalWindow};
pub use life::{Life, Remaining, misplaced};
pub use life::{
    call_deadline, floor, hastened, item_gap, item_is_over, next_attempt, presses_at,
    quarantine_gap, refused_early,
};
pub use pace::{Pace, Press};
pub use plan::{
    Basis, Campaigns, Capacity, Declared, Hour, Plan, Plans, Room, Survival, check_room, plan,
    takes,
};
pub use rates::Rate;
pub use rates::{Fold, Repeat};
pub use rates::{awaiting, is_yielding, share_beside};
pub use retries::SecondChance;
pub use retries::{Breaker, delivery_gap, delivery_retry_at};
pub use standing::{Grounds, Standing, TokenEnd, standing, state, tier, token_standing};

/// An instant on a clock that never steps: time since some fixed moment, as `Clock::steady` gives
/// it.
pub type Steady = Duration;

/// An instant, on both clocks.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// What people see; it may step.
    pub wall: Timestamp,
    pub steady: Steady,
}

impl Moment {
    /// The wall-clock time of a steady instant before this moment.
    pub fn wall_before(self, at: Steady) -> Timestamp {
        let ago = self.steady.saturating_sub(at);
        self.wall.checked_sub(ago).unwrap_or(Timestamp::MIN)
    }

    /// The wall-clock time of a steady instant ahead of this moment.
    pub fn wall_at(self, at: Steady) -> Timestamp {
        let ahead = at.saturating_sub(self.steady);
        self.wall.checked_add(ahead).unwrap_or(Timestamp::MAX)
    }
}
