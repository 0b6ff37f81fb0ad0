//! How far a bulk operation is: a bar on a terminal, plain lines elsewhere.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    api::client::wire::{CampaignId, CampaignProgress, CampaignState, ReportLine},
    clock::Clock,
};

use super::super::{
    exit::Failed,
    output::{self, BAD, DIM, GOOD, WARN, paint},
};

/// At most so many failures are printed; the daemon keeps them all.
const SHOWN: usize = 20;
/// A plain line for every so many percent, and at least so often while something moves.
const STEP: u64 = 10;
const PATIENCE: Duration = Duration::from_secs(30);
/// Nothing moved for so long: it is said why.
const STUCK: Duration = Duration::from_secs(2);

pub(super) struct Progress {
    verb: &'static str,
    bar: Option<ProgressBar>,
    last_step: u64,
    clock: Clock,
    last_line: Duration,
    began: Option<(Duration, u64)>,
    announced: bool,
    id: CampaignId,
    /// How far it was when it last moved, since when, and what was said of its waiting.
    stands: (u64, Duration),
    said: Vec<String>,
}

impl Progress {
    pub(super) fn new(clock: Clock, verb: &'static str, id: CampaignId) -> Self {
        let style = "{bar:32.green} {msg}";
        let bar = output::on_terminal().then(|| {
            let bar = ProgressBar::no_length();
            if let Ok(style) = ProgressStyle::with_template(style) {
                bar.set_style(style);
            }
            bar
        });
        Self {
            verb,
            bar,
            last_step: 0,
            last_line: clock.steady(),
            began: None,
            announced: false,
            id,
            stands: (0, clock.steady()),
            said: Vec::new(),
            clock,
        }
    }

    pub(super) fn show(&mut self, of: &CampaignProgress) {
        // What is small is over before anybody needs its number.
        if !self.announced && of.total > 1 && of.left > 0 {
            self.announced = true;
            self.aside(&format!("campaign {}", self.id));
        }
        let ended = of.total - of.left;
        self.say_why(of, ended);
        let words = self.words(of, ended);
        if let Some(bar) = &self.bar {
            // Empty, not full, as long as nothing is found yet.
            bar.set_length(of.total.max(1));
            bar.set_position(ended);
            bar.set_message(words);
            return;
        }
        let step = (ended * 100 / of.total.max(1)) / STEP;
        let late = self.since(self.last_line) >= PATIENCE;
        if (step > self.last_step || late) && of.left > 0 {
            output::aside(&words);
            self.last_line = self.clock.steady();
        }
        self.last_step = step;
    }

    /// Once nothing has moved for a while: why, each reason once until something moves again.
    fn say_why(&mut self, of: &CampaignProgress, ended: u64) {
        if self.stands.0 != ended {
            self.stands = (ended, self.clock.steady());
            self.said.clear();
            return;
        }
        if of.left == 0 || self.since(self.stands.1) < STUCK {
            return;
        }
        for wait in &of.waits {
            if self.said.contains(wait) {
                continue;
            }
            self.aside(&format!("waiting: {wait}"));
            self.said.push(wait.clone());
        }
    }

    /// A line above the bar.
    fn aside(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| output::aside(line)),
            None => output::aside(line),
        }
    }

    fn words(&mut self, of: &CampaignProgress, ended: u64) -> String {
        let one = &of.campaign;
        if one.state == CampaignState::Freezing {
            return format!("{} found, looking for more to be {}", of.total, self.verb);
        }
        let mut words = vec![format!("{ended}/{} {}", of.total, self.verb)];
        if one.failing > 0 {
            words.push(format!("{} failing, tried again", one.failing));
        }
        if one.failed > 0 {
            words.push(format!("{} failed", one.failed));
        }
        if one.acknowledged > 0 {
            words.push(format!("{} wait for their tokens", one.acknowledged));
        }
        if one.delivering > 0 {
            words.push(format!("{} being delivered", one.delivering));
        }
        words.extend(self.pace(of));
        words.join(", ")
    }

    /// The rate and the time left, once there is something to reckon with.
    fn pace(&mut self, of: &CampaignProgress) -> Option<String> {
        let begun = of.total - of.campaign.pending;
        let (since, from) = *self.began.get_or_insert((self.clock.steady(), begun));
        let secs = self.since(since).as_secs_f64();
        let rate = begun.saturating_sub(from) as f64 / secs;
        if secs < 1.0 || rate <= 0.0 {
            return None;
        }
        let left = of.campaign.pending as f64 / rate;
        Some(format!("{rate:.0}/s, {left:.0} s left"))
    }

    fn since(&self, then: Duration) -> Duration {
        self.clock.steady().saturating_sub(then)
    }

    /// Says where it goes on.
    pub(super) fn leave(&self, of: &CampaignProgress) {
        self.clear();
        let (id, ended) = (of.campaign.id, of.total - of.left);
        output::aside(&format!(
            "left it running in the daemon as campaign {id}: {ended} of {} {}; renewd campaign watch {id} comes back to it",
            of.total, self.verb
        ));
    }

    /// The result: what was done, and each failure with its reason.
    pub(super) fn end(&self, of: &CampaignProgress) -> Result<(), Failed> {
        output::print(&result(of, self.verb))
    }

    pub(super) fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// What became of a campaign.
fn result(of: &CampaignProgress, verb: &str) -> String {
    let one = &of.campaign;
    let done = one.done + one.undelivered;
    let mut parts = vec![match one.failed {
        0 => format!("{} {verb}", paint(GOOD, done)),
        _ => format!("{done} {verb}"),
    }];
    if one.failed > 0 {
        parts.push(paint(BAD, format!("{} failed", one.failed)));
    }
    if one.undelivered > 0 {
        parts.push(paint(
            WARN,
            format!("{} not delivered everywhere", one.undelivered),
        ));
    }
    if one.cancelled > 0 {
        parts.push(format!("{} cancelled", one.cancelled));
    }
    let id = one.id;
    let mut text = match one.state {
        CampaignState::Paused => {
            format!(
                "{}, {} left: campaign {id} is paused; renewd campaign resume {id}\n",
                parts.join(", "),
                of.left
            )
        }
        _ => format!("{}\n", parts.join(", ")),
    };
    for failure in of.failures.iter().take(SHOWN) {
        text.push_str(&failed(failure));
    }
    if one.failed > 0 {
        text.push_str(&format!(
            "renewd campaign retry {id} tries them again, renewd campaign report {id} lists all\n"
        ));
    }
    text
}

/// One failure on a line.
pub(crate) fn failed(line: &ReportLine) -> String {
    let name = line.name.as_ref().map(ToString::to_string);
    let id = line.id.as_ref().map(ToString::to_string);
    format!(
        "  {} {} {}\n",
        name.or(id).unwrap_or_default(),
        line.error.as_deref().unwrap_or("no reason given"),
        paint(
            DIM,
            format!(
                "(request id {})",
                line.request_id.as_deref().unwrap_or("none")
            )
        )
    )
}
