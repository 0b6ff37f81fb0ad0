//! `renewd demo`: a real emulator, a real daemon, a real receiver, and trouble on purpose. What it
//! claims at the end it has measured, from outside the daemon.

mod child;
mod door;
mod folder;
mod mailbox;
mod observations;
mod promises;
mod setup;
mod story;
mod watcher;

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::{
    Context,
    exit::{Exit, Failed, Outcome},
    output::{self, BAD, GOOD, PLAIN, STRONG, WARN, paint},
};
use folder::{Folder, NAMES};
use observations::Observations;
use promises::Facts;
use setup::Setup;
use story::Story;
use watcher::Watcher;

/// Whose tokens are revoked.
const REVOKED: &str = "sales-bot";
/// How long every call to ACS is refused.
const OUTAGE: SignedDuration = SignedDuration::from_secs(6);
/// How long is looked on after the last act.
const CALM: Duration = Duration::from_secs(2);
/// Longer than anything here should take.
const PATIENCE: Duration = Duration::from_secs(40);

/// Watch it work: emulator, daemon and receiver in a temporary folder, in under a minute
#[derive(Debug, clap::Args)]
pub(crate) struct Demo {
    /// Leave it running afterwards, to play with, until Ctrl-C
    #[arg(long)]
    keep: bool,
}

impl Demo {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let mut folder = Folder::new()?;
        let story = Story::new(&context.clock);
        output::print(&format!(
            "{}, in {}\n\n",
            paint(STRONG, "a real emulator, a real daemon, a real receiver"),
            folder.path().display()
        ))?;
        let played = tokio::select! {
            biased;
            told = setup::told_to_stop() => {
                told?;
                return Err(Failed::plain("interrupted; everything is cleaned up"));
            }
            played = play(&folder, &story, &context, self.keep) => played,
        };
        if played.is_err() {
            folder.keep();
            let path = folder.path().display();
            output::aside(&format!(
                "the logs stay in {path}: emulator.log, daemon.log"
            ));
        }
        let (exit, setup) = played?;
        match setup {
            Some(setup) => setup.keep(&folder).await,
            None => Ok(exit),
        }
    }
}

/// All acts and the closing table; the setup comes back where it is to be kept.
async fn play(
    folder: &Folder,
    story: &Story,
    context: &Context,
    keep: bool,
) -> Result<(Exit, Option<Setup>), Failed> {
    let mut setup = Setup::set(folder, story, &context.clock, keep).await?;
    let watcher = Watcher {
        folder,
        door: &setup.door,
        clock: &context.clock,
        story,
        seen: Observations::default().into(),
    };
    let acted = acts(&watcher).await;
    let seen = watcher.seen.into_inner();
    // Where one of the programs has ended, that is the reason for whatever went wrong.
    setup.still_runs()?;
    let mut facts = acted?;
    facts.in_step = setup.mailbox.in_step(&seen.versions(), CALM).await;
    (facts.created, _) = setup.door.counts().await?;
    take_over(&mut facts, &seen);
    (facts.events, facts.bad_events) = setup.mailbox.counts();
    let kept_setup = if keep {
        Some(setup)
    } else {
        story.tell(PLAIN, "end", "the daemon is asked to, by SIGTERM")?;
        facts.ended = Some(setup.end().await?);
        None
    };
    let (table, kept) = promises::render(&facts, output::width());
    output::print(&format!("\n{table}"))?;
    Ok((if kept { Exit::Done } else { Exit::Failed }, kept_setup))
}

async fn acts(watcher: &Watcher<'_>) -> Result<Facts, Failed> {
    let mut facts = Facts::default();
    renewals(watcher).await?;
    outage(watcher, &mut facts).await?;
    revocation(watcher, &mut facts).await?;
    calm(watcher).await?;
    Ok(facts)
}

/// Every token is renewed once in peace.
async fn renewals(watcher: &Watcher<'_>) -> Result<(), Failed> {
    let all = |seen: &Observations, _: Timestamp| seen.renewals.len() >= NAMES.len();
    watcher
        .until(PATIENCE, "the first renewal of every token", all)
        .await?;
    watcher.story.tell_renewals(true)
}

/// Every call is refused while the next renewals fall due.
async fn outage(watcher: &Watcher<'_>, facts: &mut Facts) -> Result<(), Failed> {
    // Half of the life is left when a renewal falls due: the outage begins just before.
    let soon = |seen: &Observations, now: Timestamp| seen.living(now).1.as_secs_f64() < 11.0;
    watcher
        .until(PATIENCE, "the approach of the next renewals", soon)
        .await?;
    let (_, broken_before) = watcher.door.counts().await?;
    let (looks, without) = counts(watcher);
    let fault = watcher.door.begin_outage().await?;
    watcher
        .story
        .tell(BAD, "outage", "from now on ACS resets every connection")?;
    let over = watcher.clock.steady() + OUTAGE.unsigned_abs();
    let passed = |_: &Observations, _: Timestamp| watcher.clock.steady() >= over;
    watcher
        .until(PATIENCE, "the end of the outage", passed)
        .await?;
    watcher.door.end_outage(fault).await?;
    let (_, broken) = watcher.door.counts().await?;
    facts.outage = OUTAGE;
    facts.broken_calls = broken - broken_before;
    facts.outage_looks = counts(watcher).0 - looks;
    facts.outage_without = counts(watcher).1 - without;
    let (living, left) = watcher.seen.borrow().living(watcher.clock.now());
    watcher.story.tell(
        WARN,
        "over",
        &format!(
            "{living} of {} tokens live, the shortest for another {:.1} s; {} calls were broken",
            NAMES.len(),
            left.as_secs_f64(),
            facts.broken_calls
        ),
    )?;
    let back = |seen: &Observations, now: Timestamp| seen.living(now).1.as_secs_f64() > 10.0;
    watcher.until(PATIENCE, "the recovery", back).await?;
    watcher.story.tell_renewals(true)
}

/// One identity's tokens are revoked by the command that an operator would use.
async fn revocation(watcher: &Watcher<'_>, facts: &mut Facts) -> Result<(), Failed> {
    watcher.seen.borrow_mut().revoke(REVOKED);
    let said = format!("$ renewd revoke {REVOKED}");
    watcher.story.tell(STRONG, "revoke", &said)?;
    let socket = folder_socket(watcher.folder);
    let command = ["--socket", &socket, "revoke", REVOKED];
    let revoking = child::say(&command);
    let back = |seen: &Observations, _: Timestamp| seen.back_at().is_some();
    let looking = watcher.closely_until(PATIENCE, "a new token after the revocation", back);
    let (said, looked) = tokio::join!(revoking, looking);
    said?;
    looked?;
    let revoked_at = watcher.door.revoked_at().await?;
    facts.gap = watcher
        .seen
        .borrow()
        .back_at()
        .map(|at| at.duration_since(revoked_at));
    let gap = facts.gap.unwrap_or_default().as_millis();
    let words = format!("{REVOKED} has a live token again, {gap} ms after ACS killed the old one");
    watcher.story.tell(GOOD, "reissued", &words)
}

/// A little longer, to see that it stays so.
async fn calm(watcher: &Watcher<'_>) -> Result<(), Failed> {
    let over = watcher.clock.steady() + CALM;
    let passed = |_: &Observations, _: Timestamp| watcher.clock.steady() >= over;
    watcher.until(PATIENCE, "a moment of calm", passed).await
}

fn counts(watcher: &Watcher<'_>) -> (u64, u64) {
    let seen = watcher.seen.borrow();
    (seen.looks, seen.without)
}

fn folder_socket(folder: &Folder) -> String {
    folder.inside("renewd.sock")
}

fn take_over(facts: &mut Facts, seen: &Observations) {
    facts.wanted = NAMES.len() as u64;
    facts.renewals = seen.renewals.len() as u64;
    facts.tightest = seen.tightest();
    facts.looks = seen.looks;
    facts.without = seen.without;
    facts.backwards = seen.backwards;
}
