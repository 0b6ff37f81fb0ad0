//! What bulk work shows before, while and after it runs.
//!
//! How far a bulk operation is: a bar on a terminal, plain lines elsewhere.
//!
//! Following a campaign to its end. Ctrl-C leaves it running: it is the daemon's.
//!
//! What a bulk operation would do, for `--dry-run` and before it asks.

use std::time::Duration;

use indicatif::ProgressBar;

use super::{
    super::{
        daemon::{Followed, Patience, through_restart},
        exit::{Exit, Failed, Outcome},
        output::{self, BAD, DIM, GOOD, WARN, paint},
    },
    Task, counted,
};
use crate::{
    api::client::{
        DaemonClient,
        wire::{
            CampaignAction, CampaignId, CampaignPlan, CampaignProgress, CampaignState, ReportLine,
        },
    },
    clock::Clock,
    model::Then,
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
    /// How many items had ended when it last moved, and what was said of its waiting since.
    followed: Followed<u64>,
    said: Vec<String>,
}

impl Progress {
    pub(super) fn new(
        clock: Clock,
        patience: Patience,
        verb: &'static str,
        id: CampaignId,
    ) -> Self {
        let bar = output::bar("{bar:32.green} {msg}");
        Self {
            verb,
            bar,
            last_step: 0,
            last_line: clock.steady(),
            began: None,
            announced: false,
            id,
            followed: Followed::from(0, clock.clone(), patience),
            said: Vec::new(),
            clock,
        }
    }

    pub(super) fn show(&mut self, of: &CampaignProgress) {
        // What is small is over before anybody needs its number.
        if !self.announced && of.total > 1 && of.left > 0 {
            self.announced = true;
            self.aside(&format!("campaign {} has begun", self.id));
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
        if self.followed.moved(ended) {
            self.said.clear();
            return;
        }
        if of.left == 0 || self.followed.still() < STUCK {
            return;
        }
        self.say(&of.waits);
    }

    /// What is waited for, each reason once.
    fn say(&mut self, waits: &[String]) {
        for wait in waits {
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
        if one.state == CampaignState::Expanding {
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
        match of.campaign.pending {
            // Everything is begun: what is waited for now is told by other words.
            0 => None,
            pending => {
                let left = (pending as f64 / rate).ceil().max(1.0);
                Some(format!("{rate:.0}/s, {left} s left"))
            }
        }
    }

    fn since(&self, then: Duration) -> Duration {
        self.clock.steady().saturating_sub(then)
    }

    /// Says where it goes on, and why it is not waited for.
    pub(super) fn leave(&self, of: &CampaignProgress, why: Option<&str>) {
        self.clear();
        let (id, ended) = (of.campaign.id, of.total - of.left);
        let why = why.map_or(String::new(), |why| format!("{why}: "));
        output::aside(&format!(
            "{why}campaign {id} goes on in the daemon, {ended} of {} {} so far; `renewd campaign watch {id}` follows it",
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
                "{}, {} left: campaign {id} is paused; `renewd campaign resume {id}` lets it go on\n",
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
            "`renewd campaign retry {id}` tries what failed again, `renewd campaign report {id}` lists everything\n"
        ));
    }
    text
}

/// One failure on a line.
pub(crate) fn failed(line: &ReportLine) -> String {
    let name = line.name.as_ref().map(ToString::to_string);
    let id = line.id.as_ref().map(ToString::to_string);
    let request = line.request_id.as_ref();
    let request = request.map(|id| paint(DIM, format!(" (request id {id})")));
    let told = format!(
        "{}: {}{}",
        name.or(id).unwrap_or_default(),
        line.error.as_deref().unwrap_or("no reason was noted"),
        request.unwrap_or_default()
    );
    output::item(&told, output::width()) + "\n"
}

/// How often progress is asked for.
const EVERY: Duration = Duration::from_millis(250);

/// Shows progress until the campaign has ended, or stands still until a person acts.
pub(crate) async fn follow(
    client: &DaemonClient,
    clock: Clock,
    mut of: CampaignProgress,
    verb: &'static str,
    (patience, json): (Patience, bool),
) -> Outcome {
    let mut progress = Progress::new(clock, patience, verb, of.campaign.id);
    // What holds it up from the beginning need not be waited for.
    progress.say(&of.waits);
    loop {
        progress.show(&of);
        if of.campaign.ended_at.is_some() || of.campaign.state == CampaignState::Paused {
            break;
        }
        if let Some(why) = progress.followed.ends() {
            progress.leave(&of, Some(&why));
            if json {
                output::print_json(&of)?;
            }
            return Ok(Exit::Unfinished);
        }
        let id = of.campaign.id;
        let next = async {
            tokio::time::sleep(EVERY).await;
            through_restart(async || client.campaign(id).await).await
        };
        tokio::select! {
            biased;
            _ = tokio::signal::ctrl_c() => {
                progress.leave(&of, None);
                return Ok(Exit::Done);
            }
            () = progress.followed.over() => {}
            next = next => of = next?,
        }
    }
    progress.clear();
    if json {
        output::print_json(&of)?;
    } else {
        progress.end(&of)?;
    }
    Ok(exit(&of))
}

/// How the command ends for a campaign that stands so.
fn exit(of: &CampaignProgress) -> Exit {
    let one = &of.campaign;
    let amiss = one.failed + one.undelivered + one.cancelled;
    match (amiss, one.done + one.undelivered) {
        (0, _) => Exit::Done,
        (_, 0) => Exit::Failed,
        _ => Exit::Partly,
    }
}

/// Says that it runs, and how to see more of it.
pub(crate) fn said(of: &CampaignProgress, json: bool) -> Outcome {
    if json {
        output::print_json(of)?;
        return Ok(Exit::Done);
    }
    let id = of.campaign.id;
    let when = match of.campaign.starts_at {
        Some(at) => format!("starts at {at:.0}"),
        None => "runs in the daemon".to_owned(),
    };
    output::print(&format!(
        "campaign {id} {when}; `renewd campaign watch {id}` follows it, `renewd campaign cancel {id}` stops it\n"
    ))?;
    Ok(Exit::Done)
}

pub(super) fn render(plan: &CampaignPlan, task: Task, width: Option<usize>) -> String {
    let mut text = format!("{} would be {}\n", counted(plan.total), task.verb);
    if plan.unmanaged > 0 {
        let ids = output::plural(plan.unmanaged, "id", "ids");
        text.push_str(&format!("  {ids} that renewd does not manage\n"));
    }
    let states: Vec<String> = plan
        .states
        .iter()
        .map(|(state, n)| format!("{n} {state}"))
        .collect();
    if !states.is_empty() {
        text.push_str(&format!("  now: {}\n", states.join(", ")));
    }
    for (name, part) in &plan.resources {
        let limit = part
            .limit
            .as_ref()
            .map_or(String::new(), |limit| format!(" at {limit}"));
        text.push_str(&format!(
            "  resource {name}: {}, {}{limit}\n",
            part.items,
            span(part.seconds)
        ));
    }
    for (why, n) in &plan.skipped {
        text.push_str(&format!("  left out: {n} {why}\n"));
    }
    if plan.total > 0 {
        let told = format!("apps: {}", noticed(task));
        text.push_str(&(output::item(&told, width) + "\n"));
    }
    text
}

/// What apps notice of it.
fn noticed(task: Task) -> &'static str {
    match (task.action, task.then) {
        (CampaignAction::Revoke, Some(Then::Hold)) => {
            "their token is withdrawn, then refused by ACS (within 15 minutes); none follows until release"
        }
        (CampaignAction::Revoke, _) => {
            "their token is refused by ACS (within 15 minutes); the next one is delivered at once"
        }
        (CampaignAction::Hold, _) => {
            "their token is withdrawn; ACS accepts copies of it until it expires (`renewd revoke --then hold` ends them)"
        }
        (CampaignAction::Release, _) => "they get a token again",
        (CampaignAction::Renew, _) => "nothing: the old token stays good until it expires",
        (CampaignAction::Delete, _) => {
            "the identity is gone for good with its chats; its tokens are refused and never come back"
        }
    }
}

fn span(seconds: f64) -> String {
    match seconds {
        s if s < 1.0 => "a moment".to_owned(),
        s if s < 120.0 => format!("at least {s:.0} s"),
        s if s < 7200.0 => format!("at least {:.0} min", s / 60.0),
        s => format!("at least {:.1} h", s / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{api::client::wire::PlannedResource, model::State};

    #[test]
    fn it_says_how_many_how_long_and_what_apps_notice() {
        let part = PlannedResource {
            items: 100_000,
            limit: Some("500/30s".to_owned()),
            seconds: 6180.0,
        };
        let plan = CampaignPlan {
            total: 100_000,
            resources: [("contoso".parse().unwrap(), part)].into(),
            states: [(State::Active, 99_990), (State::Late, 9)].into(),
            unmanaged: 1,
            skipped: [("deleted".to_owned(), 7)].into(),
            seconds: 6180.0,
        };
        let task = Task::new(CampaignAction::Revoke, Some(Then::Reissue), "revoked");
        insta::assert_snapshot!(render(&plan, task, Some(80)), @r"
        100000 identities would be revoked
          1 id that renewd does not manage
          now: 99990 active, 9 late
          resource contoso: 100000, at least 103 min at 500/30s
          left out: 7 deleted
          apps: their token is refused by ACS (within 15 minutes); the next one is
            delivered at once
        ");
    }
}
