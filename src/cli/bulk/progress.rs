//! How far a bulk operation is: a bar on a terminal, plain lines elsewhere.

use std::cell::Cell;

use indicatif::{ProgressBar, ProgressStyle};

use super::{
    super::{
        exit::Failed,
        output::{self, BAD, DIM, GOOD, paint},
    },
    Campaign,
};

/// At most so many failures are printed; the daemon keeps them all.
const SHOWN: usize = 20;
/// A plain line for every so many percent.
const STEP: u64 = 10;

pub(super) struct Progress {
    verb: &'static str,
    bar: Option<ProgressBar>,
    last_step: Cell<u64>,
}

impl Progress {
    pub(super) fn new(verb: &'static str) -> Self {
        let style = "{bar:32.green} {pos}/{len} {msg}  {per_sec:.dim}  {eta:.dim}";
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
            last_step: Cell::new(0),
        }
    }

    pub(super) fn show(&self, of: &Campaign) {
        let (ended, all) = (of.done + of.failed, of.pending + of.done + of.failed);
        if let Some(bar) = &self.bar {
            bar.set_length(all);
            bar.set_position(ended);
            bar.set_message(self.words(of));
            return;
        }
        let step = (ended * 100 / all.max(1)) / STEP;
        if step > self.last_step.replace(step) && of.pending > 0 {
            output::aside(&format!("{ended}/{all} {}", self.words(of)));
        }
    }

    fn words(&self, of: &Campaign) -> String {
        match of.failed {
            0 => self.verb.to_owned(),
            failed => format!("{}, {failed} failed", self.verb),
        }
    }

    /// Says where it goes on.
    pub(super) fn leave(&self, of: &Campaign) {
        self.clear();
        output::aside(&format!(
            "left it running in the daemon as campaign {}: {} of {} {}",
            of.id,
            of.done,
            of.pending + of.done + of.failed,
            self.verb
        ));
    }

    /// The result: what was done, and each failure with its reason.
    pub(super) fn end(&self, of: &Campaign) -> Result<(), Failed> {
        self.clear();
        let mut text = format!("{} {}\n", paint(GOOD, of.done), self.verb);
        if of.failed > 0 {
            text = format!(
                "{} {}, {}\n",
                of.done,
                self.verb,
                paint(BAD, format!("{} failed", of.failed))
            );
        }
        for failure in of.failures.iter().take(SHOWN) {
            let id = failure.request_id.as_deref().unwrap_or("none");
            text.push_str(&format!(
                "  {} {} {}\n",
                failure.name,
                failure.error.as_deref().unwrap_or("no reason given"),
                paint(DIM, format!("(request id {id})"))
            ));
        }
        output::print(&text)
    }

    fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
