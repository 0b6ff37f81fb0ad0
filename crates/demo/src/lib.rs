//! A real emulator, a real daemon, a real receiver, and trouble on purpose. What is claimed at the end was
//! measured from outside the daemon: in the consumers' files, at the receiver, and by asking the emulator.
//!
//! Programs are started as an operator would start them: this very binary, with another verb. Nothing here
//! knows a screen: what happens goes to a [`Teller`].

mod control;
mod observations;
mod setup;

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use renewd_clock::Clock;

pub use observations::Promise;

use observations::Watcher;
use observations::{Facts, Observations, Story};
use setup::Setup;
use setup::{Folder, NAMES};

/// Whose tokens are revoked.
const REVOKED: &str = "sales-bot";
/// How long every call to ACS is refused.
const OUTAGE: SignedDuration = SignedDuration::from_secs(6);
/// How long is looked on after the last act.
const CALM: Duration = Duration::from_secs(2);
/// Longer than anything here should take.
const PATIENCE: Duration = Duration::from_secs(40);

/// How a line of the story is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    Plain,
    /// It is done on purpose.
    Strong,
    Good,
    /// It deserves a look.
    Warning,
    Bad,
}

/// One thing that happened.
#[derive(Debug)]
pub struct Line<'a> {
    /// Seconds since the start.
    pub seconds: f64,
    /// How it is meant.
    pub tone: Tone,
    /// A word for it.
    pub what: &'a str,
    pub words: &'a str,
    /// What adds to that and matters less.
    pub aside: &'a str,
}

/// What goes on running, and where it is.
#[derive(Debug)]
pub struct Kept {
    pub socket: String,
    pub config: String,
    /// The folder of the token files.
    pub tokens: String,
    /// Its page: `HOST:PORT`.
    pub page: String,
}

/// How it is played.
#[derive(Debug, Clone, Copy)]
pub struct How {
    /// It is left running afterwards.
    pub keep: bool,
    /// The daemon has no access key: it calls by Entra ID.
    pub entra: bool,
}

/// Tells people what happens.
pub trait Teller {
    /// It begins, in this folder.
    fn begins(&self, folder: &Path) -> io::Result<()>;
    fn happens(&self, line: &Line<'_>) -> io::Result<()>;
    /// It is over; what was promised, and what was seen of it.
    fn ends(&self, promises: &[Promise]) -> io::Result<()>;
    /// It goes on until Ctrl-C.
    fn goes_on(&self, kept: &Kept) -> io::Result<()>;
    /// It failed; the logs stay in this folder.
    fn leaves(&self, folder: &Path);
}

/// Why the demo could not be played to its end.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    #[error("interrupted; everything is cleaned up")]
    Interrupted,
    /// A file of the folder cannot be written.
    #[error("cannot write {path}: {source}")]
    Folder { path: PathBuf, source: io::Error },
    /// A program did not do its part.
    #[error("{0}")]
    Program(String),
    /// The emulator's control API did not do its part.
    #[error("{0}")]
    Control(String),
    /// Something that was waited for did not happen.
    #[error("{what} did not happen within {secs} s")]
    Late {
        what: &'static str,
        /// In how many seconds.
        secs: u64,
    },
    /// What happened cannot be told, or the system refused something.
    #[error(transparent)]
    System(#[from] io::Error),
}

/// Plays the whole demo; whether every promise was kept. With `keep` everything goes on afterwards, until
/// Ctrl-C.
///
/// # Errors
/// When it could not be played to its end; the folder with the logs then stays.
pub async fn play(how: How, clock: &Clock, teller: &dyn Teller) -> Result<bool, DemoError> {
    let mut folder = Folder::new()?;
    let story = Story::new(clock, teller);
    teller.begins(folder.path())?;
    let played = tokio::select! {
        biased;
        told = setup::told_to_stop() => {
            told?;
            return Err(DemoError::Interrupted);
        }
        played = all(&folder, &story, clock, how) => played,
    };
    if played.is_err() {
        folder.keep();
        teller.leaves(folder.path());
    }
    let (well, setup) = played?;
    match setup {
        Some(setup) => setup.keep(&folder, teller).await,
        None => Ok(well),
    }
}

/// All acts and the closing table; the setup comes back where it is to be kept.
async fn all(
    folder: &Folder,
    story: &Story<'_>,
    clock: &Clock,
    how: How,
) -> Result<(bool, Option<Setup>), DemoError> {
    let mut setup = Setup::set(folder, story, clock, how).await?;

    let watcher = Watcher {
        folder,
        control: &setup.control,
        clock,
        story,
        seen: Observations::default().into(),
    };
    let acted = acts(&watcher).await;
    let seen = watcher.seen.into_inner();
    // Where one of the programs has ended, that is the reason for whatever went wrong.
    setup.still_runs()?;
    let mut facts = acted?;
    facts.in_step = setup.mailbox.in_step(&seen.versions(), CALM).await;
    (facts.created, _) = setup.control.counts().await?;
    take_over(&mut facts, &seen);
    (facts.events, facts.bad_events) = setup.mailbox.counts();
    let kept_setup = if how.keep {
        Some(setup)
    } else {
        story.tell(Tone::Plain, "end", "the daemon is asked to, by SIGTERM")?;
        facts.ended = Some(setup.end().await?);
        None
    };
    let promises = facts.promises();
    story.end(&promises)?;
    Ok((promises.iter().all(|promise| promise.kept), kept_setup))
}

async fn acts(watcher: &Watcher<'_>) -> Result<Facts, DemoError> {
    let mut facts = Facts::default();
    renewals(watcher).await?;
    outage(watcher, &mut facts).await?;
    revocation(watcher, &mut facts).await?;
    calm(watcher).await?;
    Ok(facts)
}

/// Every token is renewed once in peace.
async fn renewals(watcher: &Watcher<'_>) -> Result<(), DemoError> {
    let all = |seen: &Observations, _: Timestamp| seen.renewals.len() >= NAMES.len();
    watcher
        .until(PATIENCE, "the first renewal of every token", all)
        .await?;
    Ok(watcher.story.tell_renewals(true)?)
}

/// Every call is refused while the next renewals fall due.
async fn outage(watcher: &Watcher<'_>, facts: &mut Facts) -> Result<(), DemoError> {
    // Half of the life is left when a renewal falls due: the outage begins just before.
    let soon = |seen: &Observations, now: Timestamp| seen.living(now).1.as_secs_f64() < 11.0;
    watcher
        .until(PATIENCE, "the approach of the next renewals", soon)
        .await?;
    let (_, broken_before) = watcher.control.counts().await?;
    let (looks, without) = counts(watcher);
    let fault = watcher.control.begin_outage().await?;
    watcher.story.tell(
        Tone::Bad,
        "outage",
        "from now on ACS resets every connection",
    )?;
    let over = watcher.clock.steady() + OUTAGE.unsigned_abs();
    let passed = |_: &Observations, _: Timestamp| watcher.clock.steady() >= over;
    watcher
        .until(PATIENCE, "the end of the outage", passed)
        .await?;
    watcher.control.end_outage(fault).await?;
    let (_, broken) = watcher.control.counts().await?;
    facts.outage = OUTAGE;
    facts.broken_calls = broken - broken_before;
    facts.outage_looks = counts(watcher).0 - looks;
    facts.outage_without = counts(watcher).1 - without;
    let (living, left) = watcher.seen.borrow().living(watcher.clock.now());
    watcher.story.tell(
        Tone::Warning,
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
    Ok(watcher.story.tell_renewals(true)?)
}

/// One identity's tokens are revoked by the command that an operator would use.
async fn revocation(watcher: &Watcher<'_>, facts: &mut Facts) -> Result<(), DemoError> {
    watcher.seen.borrow_mut().revoke(REVOKED);
    let said = format!("$ renewd revoke {REVOKED}");
    watcher.story.tell(Tone::Strong, "revoke", &said)?;
    let socket = watcher.folder.inside("renewd.sock");
    let command = ["--socket", &socket, "revoke", REVOKED];
    let revoking = setup::say(&command);
    let back = |seen: &Observations, _: Timestamp| seen.back_at().is_some();
    let looking = watcher.closely_until(PATIENCE, "a new token after the revocation", back);
    let (said, looked) = tokio::join!(revoking, looking);
    said?;
    looked?;
    let revoked_at = watcher.control.revoked_at().await?;
    facts.gap = watcher
        .seen
        .borrow()
        .back_at()
        .map(|at| at.duration_since(revoked_at));
    let gap = facts.gap.unwrap_or_default().as_millis();
    let words = format!("{REVOKED} has a live token again, {gap} ms after ACS killed the old one");
    Ok(watcher.story.tell(Tone::Good, "reissued", &words)?)
}

/// A little longer, to see that it stays so.
async fn calm(watcher: &Watcher<'_>) -> Result<(), DemoError> {
    let over = watcher.clock.steady() + CALM;
    let passed = |_: &Observations, _: Timestamp| watcher.clock.steady() >= over;
    watcher.until(PATIENCE, "a moment of calm", passed).await
}

fn counts(watcher: &Watcher<'_>) -> (u64, u64) {
    let seen = watcher.seen.borrow();
    (seen.looks, seen.without)
}

fn take_over(facts: &mut Facts, seen: &Observations) {
    facts.wanted = NAMES.len() as u64;
    facts.renewals = seen.renewals.len() as u64;
    facts.tightest = seen.tightest();
    facts.looks = seen.looks;
    facts.without = seen.without;
    facts.backwards = seen.backwards;
}
