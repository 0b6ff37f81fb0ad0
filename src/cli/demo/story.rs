//! The demo as it is told: one line for each thing that happens, with the seconds since the start.

use std::{cell::RefCell, time::Duration};

use anstyle::Style;
use jiff::SignedDuration;

use crate::clock::Clock;

use super::{
    super::{
        exit::Failed,
        output::{self, DIM, GOOD, paint},
    },
    observations::Renewal,
};

/// Renewals that are seen within this time are one line.
const TOGETHER: Duration = Duration::from_millis(700);

pub(super) struct Story {
    clock: Clock,
    began: Duration,
    /// Renewals that are still to be told, and since when.
    renewals: RefCell<(Duration, Vec<Renewal>)>,
}

impl Story {
    pub(super) fn new(clock: &Clock) -> Self {
        Self {
            clock: clock.clone(),
            began: clock.steady(),
            renewals: RefCell::default(),
        }
    }

    /// One line: when, what, and the rest.
    pub(super) fn tell(&self, style: Style, what: &str, words: &str) -> Result<(), Failed> {
        self.tell_renewals(true)?;
        self.line(style, what, words)
    }

    pub(super) fn seconds(&self) -> f64 {
        self.clock.steady().saturating_sub(self.began).as_secs_f64()
    }

    pub(super) fn renewed(&self, renewal: Renewal) {
        let mut waiting = self.renewals.borrow_mut();
        if waiting.1.is_empty() {
            waiting.0 = self.clock.steady();
        }
        waiting.1.push(renewal);
    }

    /// Tells of renewals that happened together once no more are to be expected, or at once.
    pub(super) fn tell_renewals(&self, at_once: bool) -> Result<(), Failed> {
        let (since, told) = {
            let waiting = self.renewals.borrow();
            (waiting.0, waiting.1.clone())
        };
        let young = self.clock.steady().saturating_sub(since) < TOGETHER;
        if told.is_empty() || (young && !at_once) {
            return Ok(());
        }
        self.renewals.borrow_mut().1.clear();
        let names: Vec<&str> = told.iter().map(|renewal| renewal.name).collect();
        let least = told
            .iter()
            .map(|renewal| renewal.spare)
            .min()
            .unwrap_or_default();
        let words = format!("{} {}", names.join(", "), paint(DIM, spare(least)));
        self.line(GOOD, "renewed", &words)
    }

    fn line(&self, style: Style, what: &str, words: &str) -> Result<(), Failed> {
        let seconds = paint(DIM, format!("{:>5.1} s", self.seconds()));
        let what = paint(style, format!("{what:<9}"));
        output::print(&format!("{seconds}  {what}  {words}\n"))
    }
}

fn spare(left: SignedDuration) -> String {
    format!("with {:.1} s of life left", left.as_secs_f64())
}
