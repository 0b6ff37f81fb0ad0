//! What is seen of the tokens, how it is told, and which promises it keeps: every number at the end comes from here.
//!
//! Every consumer's file is looked at several times a second, and the emulator is asked whether what it
//! holds is live: the daemon's own word is not taken for anything.

use std::{cell::RefCell, collections::BTreeMap, fs, io, time::Duration};

use jiff::{SignedDuration, Timestamp};
use renewd_acs_wire::Secret;
use renewd_clock::Clock;
use serde::Deserialize;

use super::{
    DemoError, Line, Teller, Tone,
    control::ControlClient,
    setup::{Folder, NAMES},
};

/// One look at what one consumer holds.
#[derive(Debug, Clone)]
pub(super) struct Look {
    pub(super) name: &'static str,
    pub(super) at: Timestamp,
    /// What its file holds, if it holds anything.
    pub(super) held: Option<Held>,
}

/// A token in a file, and what the emulator says of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Held {
    pub(super) version: u64,
    pub(super) expires_at: Timestamp,
    pub(super) live: bool,
}

/// A token that took the place of another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Renewal {
    pub(super) name: &'static str,
    /// The life that was left to the old one; negative when it was too late.
    pub(super) spare: SignedDuration,
}

#[derive(Debug, Default)]
pub(super) struct Observations {
    pub(super) looks: u64,
    /// Looks that found no live token where there should be one.
    pub(super) without: u64,
    /// Versions that went backwards.
    pub(super) backwards: u64,
    pub(super) renewals: Vec<Renewal>,
    newest: BTreeMap<&'static str, Held>,
    revoked: Option<Revoked>,
}

/// The identity whose tokens were revoked on purpose, and its version before.
#[derive(Debug, Clone, Copy)]
struct Revoked {
    name: &'static str,
    version: u64,
    back_at: Option<Timestamp>,
}

impl Observations {
    /// Takes a look in; a renewal that it shows is told.
    pub(super) fn note(&mut self, look: &Look) -> Option<Renewal> {
        self.looks += 1;
        let live = look.held.is_some_and(|held| held.live);
        if !live && !self.is_revoked(look.name) {
            self.without += 1;
        }
        let held = look.held?;
        let before = self.newest.insert(look.name, held);
        self.note_return(look, held);
        let before = before.filter(|before| before.version != held.version)?;
        self.backwards += u64::from(held.version < before.version);
        if self
            .revoked
            .is_some_and(|r| r.name == look.name && r.version == before.version)
        {
            return None;
        }
        let renewal = Renewal {
            name: look.name,
            spare: before.expires_at.duration_since(look.at),
        };
        self.renewals.push(renewal);
        Some(renewal)
    }

    /// From now on this identity may be without a live token, until it has a newer one.
    pub(super) fn revoke(&mut self, name: &'static str) {
        let version = self.newest.get(name).map_or(0, |held| held.version);
        self.revoked = Some(Revoked {
            name,
            version,
            back_at: None,
        });
    }

    /// When the revoked identity was first seen with a new live token.
    pub(super) fn back_at(&self) -> Option<Timestamp> {
        self.revoked.and_then(|revoked| revoked.back_at)
    }

    /// The newest version that each file held.
    pub(super) fn versions(&self) -> BTreeMap<&'static str, u64> {
        self.newest
            .iter()
            .map(|(name, held)| (*name, held.version))
            .collect()
    }

    /// How many of the files hold a live token, and the shortest life among them.
    pub(super) fn living(&self, now: Timestamp) -> (usize, SignedDuration) {
        let living = self.newest.values().filter(|held| held.live);
        let left = living
            .clone()
            .map(|held| held.expires_at.duration_since(now))
            .min();
        (living.count(), left.unwrap_or_default())
    }

    /// The renewal with the least life left, of those seen so far.
    pub(super) fn tightest(&self) -> Option<SignedDuration> {
        self.renewals.iter().map(|renewal| renewal.spare).min()
    }

    fn is_revoked(&self, name: &str) -> bool {
        self.revoked
            .is_some_and(|r| r.name == name && r.back_at.is_none())
    }

    fn note_return(&mut self, look: &Look, held: Held) {
        if let Some(revoked) = &mut self.revoked
            && revoked.name == look.name
            && held.live
            && held.version > revoked.version
        {
            revoked.back_at.get_or_insert(look.at);
        }
    }
}

/// Renewals that are seen within this time are one line.
const TOGETHER: Duration = Duration::from_millis(700);

/// The demo as it is told: one line for each thing that happens, with the seconds since the start.
pub(super) struct Story<'a> {
    teller: &'a dyn Teller,
    clock: Clock,
    began: Duration,
    /// Renewals that are still to be told, and since when.
    renewals: RefCell<(Duration, Vec<Renewal>)>,
}

impl<'a> Story<'a> {
    pub(super) fn new(clock: &Clock, teller: &'a dyn Teller) -> Self {
        Self {
            teller,
            clock: clock.clone(),
            began: clock.steady(),
            renewals: RefCell::default(),
        }
    }

    /// One line: when, what, and the rest.
    pub(super) fn tell(&self, tone: Tone, what: &str, words: &str) -> io::Result<()> {
        self.tell_renewals(true)?;
        self.line(tone, what, words, "")
    }

    fn seconds(&self) -> f64 {
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
    pub(super) fn tell_renewals(&self, at_once: bool) -> io::Result<()> {
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
        self.line(Tone::Good, "renewed", &names.join(", "), &spare(least))
    }

    /// What was promised, and what was seen of it.
    pub(super) fn end(&self, promises: &[Promise]) -> io::Result<()> {
        self.teller.ends(promises)
    }

    fn line(&self, tone: Tone, what: &str, words: &str, aside: &str) -> io::Result<()> {
        self.teller.happens(&Line {
            seconds: self.seconds(),
            tone,
            what,
            words,
            aside,
        })
    }
}

fn spare(left: SignedDuration) -> String {
    format!("with {:.1} s of life left", left.as_secs_f64())
}

/// Between two looks at all files.
const EVERY: Duration = Duration::from_millis(100);
/// While a gap is measured.
const CLOSELY: Duration = Duration::from_millis(5);

pub(super) struct Watcher<'a> {
    pub(super) folder: &'a Folder,
    pub(super) control: &'a ControlClient,
    pub(super) clock: &'a Clock,
    pub(super) story: &'a Story<'a>,
    pub(super) seen: RefCell<Observations>,
}

/// A token document in a file, as far as it matters here.
#[derive(Deserialize)]
struct Document {
    token: Option<String>,
    expires_at: Option<Timestamp>,
    version: u64,
}

impl Watcher<'_> {
    /// Looks, and looks again, until something is so.
    pub(super) async fn until(
        &self,
        longest: Duration,
        what: &'static str,
        mut so: impl FnMut(&Observations, Timestamp) -> bool,
    ) -> Result<(), DemoError> {
        self.looking(EVERY, longest, what, &mut so).await
    }

    /// The same, with a finer measure.
    pub(super) async fn closely_until(
        &self,
        longest: Duration,
        what: &'static str,
        mut so: impl FnMut(&Observations, Timestamp) -> bool,
    ) -> Result<(), DemoError> {
        self.looking(CLOSELY, longest, what, &mut so).await
    }

    async fn looking(
        &self,
        every: Duration,
        longest: Duration,
        what: &'static str,
        so: &mut dyn FnMut(&Observations, Timestamp) -> bool,
    ) -> Result<(), DemoError> {
        let ends = self.clock.steady() + longest;
        loop {
            self.look().await?;
            if so(&self.seen.borrow(), self.clock.now()) {
                return Ok(());
            }
            if self.clock.steady() > ends {
                let secs = longest.as_secs();
                return Err(DemoError::Late { what, secs });
            }
            tokio::time::sleep(every).await;
        }
    }

    /// One look at every file.
    async fn look(&self) -> Result<(), DemoError> {
        let documents: BTreeMap<&'static str, Document> = NAMES
            .iter()
            .filter_map(|name| Some((*name, self.read(name)?)))
            .collect();
        let tokens: Vec<(&'static str, Secret)> = documents
            .iter()
            .filter_map(|(name, document)| Some((*name, Secret::new(document.token.clone()?))))
            .collect();
        let at = self.clock.now();
        let secrets: Vec<&Secret> = tokens.iter().map(|(_, token)| token).collect();
        let verdicts = self.control.judge(&secrets).await?;
        let named = tokens.iter().map(|(name, _)| *name);
        let live: BTreeMap<_, _> = named
            .zip(verdicts.iter().map(|verdict| verdict.live))
            .collect();
        for name in NAMES {
            let held = documents.get(name).map(|document| Held {
                version: document.version,
                expires_at: document.expires_at.unwrap_or(at),
                live: live.get(name).copied().unwrap_or(false),
            });
            let renewal = self.seen.borrow_mut().note(&Look { name, at, held });
            if let Some(renewal) = renewal {
                self.story.renewed(renewal);
            }
        }
        Ok(self.story.tell_renewals(false)?)
    }

    fn read(&self, name: &str) -> Option<Document> {
        let text = fs::read(self.folder.token_file(name)).ok()?;
        serde_json::from_slice(&text).ok()
    }
}

/// What the whole demo measured.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    /// Identities that were wanted, and that the emulator says were created.
    pub(super) wanted: u64,
    pub(super) created: u64,
    pub(super) renewals: u64,
    /// The least life that was left to a token when its successor was seen.
    pub(super) tightest: Option<SignedDuration>,
    pub(super) looks: u64,
    pub(super) without: u64,
    pub(super) backwards: u64,
    /// How long the outage took, how many calls it broke, how many looks at files fell in it.
    pub(super) outage: SignedDuration,
    pub(super) broken_calls: u64,
    pub(super) outage_looks: u64,
    pub(super) outage_without: u64,
    /// From the revocation at the emulator to a live token in the file.
    pub(super) gap: Option<SignedDuration>,
    pub(super) events: u64,
    pub(super) bad_events: u64,
    /// Identities whose newest event carries the version of their file.
    pub(super) in_step: u64,
    /// How the daemon ended; `None` where it goes on.
    pub(super) ended: Option<bool>,
}

/// What was promised, and what was seen of it.
#[derive(Debug)]
pub struct Promise {
    /// Whether it was kept.
    pub kept: bool,
    pub what: &'static str,
    pub seen: String,
}

impl Facts {
    /// Each promise, and whether these facts keep it.
    pub(super) fn promises(&self) -> Vec<Promise> {
        let all = [created, ahead, living, outage, revocation, newest];
        all.iter()
            .map(|promise| promise(self))
            .chain(self.ended.map(end))
            .collect()
    }
}

fn created(of: &Facts) -> Promise {
    Promise {
        kept: of.created == of.wanted,
        what: "nobody is created twice",
        seen: format!("{} wanted, {} created", of.wanted, of.created),
    }
}

fn ahead(of: &Facts) -> Promise {
    let spare = of.tightest.unwrap_or_default();
    let left = secs(spare);
    Promise {
        kept: of.renewals >= 2 * of.wanted && spare.is_positive(),
        what: "renewed ahead of expiry",
        seen: format!("{} renewals, the tightest with {left} left", of.renewals),
    }
}

fn living(of: &Facts) -> Promise {
    Promise {
        kept: of.looks > 0 && of.without == 0,
        what: "a live token at every instant",
        seen: format!(
            "{} looks at {} files, {} without one",
            of.looks, of.wanted, of.without
        ),
    }
}

fn outage(of: &Facts) -> Promise {
    let (length, calls) = (secs(of.outage), of.broken_calls);
    let (looks, without) = (of.outage_looks, of.outage_without);
    Promise {
        kept: of.broken_calls > 0 && of.outage_looks > 0 && of.outage_without == 0,
        what: "an outage of ACS is not ours",
        seen: format!("{length}, {calls} calls broken, {without} of {looks} looks without a token"),
    }
}

fn revocation(of: &Facts) -> Promise {
    let seen = match of.gap {
        Some(gap) => format!("a new token in the file {} ms after it", gap.as_millis()),
        None => "no live token came back".to_owned(),
    };
    Promise {
        kept: of.gap.is_some(),
        what: "a revocation leaves a short gap",
        seen,
    }
}

fn newest(of: &Facts) -> Promise {
    let (events, bad, in_step) = (of.events, of.bad_events, of.in_step);
    Promise {
        kept: events > 0 && bad == 0 && in_step == of.wanted && of.backwards == 0,
        what: "every consumer has the newest",
        seen: format!(
            "{events} webhooks verified, {bad} refused; {in_step} of {} as their file",
            of.wanted
        ),
    }
}

fn end(kept: bool) -> Promise {
    let how = if kept {
        "ended with 0"
    } else {
        "did not end with 0"
    };
    Promise {
        kept,
        what: "SIGTERM is a clean end",
        seen: format!("the daemon {how}"),
    }
}

fn secs(duration: SignedDuration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_795_000_000 + second).unwrap()
    }

    fn look(second: i64, version: u64, live: bool) -> Look {
        let expires_at = at(i64::try_from(version).unwrap() * 10 + 20);
        let held = Held {
            version,
            expires_at,
            live,
        };
        Look {
            name: "bot",
            at: at(second),
            held: Some(held),
        }
    }

    #[test]
    fn a_look_without_a_live_token_is_counted() {
        let mut seen = Observations::default();
        seen.note(&look(0, 0, true));
        seen.note(&look(1, 0, false));
        seen.note(&Look {
            held: None,
            ..look(2, 0, true)
        });
        assert_eq!((seen.looks, seen.without), (3, 2));
    }

    #[test]
    fn a_renewal_tells_what_was_left() {
        let mut seen = Observations::default();
        assert_eq!(seen.note(&look(0, 0, true)), None);
        let renewal = seen.note(&look(12, 1, true)).unwrap();
        assert_eq!(renewal.spare, SignedDuration::from_secs(8));
        assert_eq!(seen.note(&look(13, 1, true)), None);
        seen.note(&look(14, 0, true));
        assert_eq!(seen.backwards, 1);
    }

    #[test]
    fn only_the_revoked_one_is_excused_and_only_until_it_is_back() {
        let mut seen = Observations::default();
        seen.note(&look(0, 0, true));
        seen.revoke("bot");
        seen.note(&look(1, 0, false));
        assert_eq!((seen.without, seen.back_at()), (0, None));
        assert_eq!(seen.note(&look(2, 1, true)), None);
        assert_eq!(seen.back_at(), Some(at(2)));
        seen.note(&look(3, 1, false));
        assert_eq!(seen.without, 1);
    }
}

#[cfg(test)]
mod promises_tests {
    use super::*;

    fn good() -> Facts {
        Facts {
            wanted: 5,
            created: 5,
            renewals: 15,
            tightest: Some(SignedDuration::from_millis(4100)),
            looks: 1500,
            outage: SignedDuration::from_secs(6),
            broken_calls: 9,
            outage_looks: 300,
            gap: Some(SignedDuration::from_millis(41)),
            events: 21,
            in_step: 5,
            ended: Some(true),
            ..Facts::default()
        }
    }

    #[test]
    fn a_good_run() {
        let promises = good().promises();
        assert!(promises.iter().all(|promise| promise.kept));
        let lines = promises.iter().map(|p| format!("{}: {}\n", p.what, p.seen));
        insta::assert_snapshot!(lines.collect::<String>());
    }

    #[test]
    fn each_promise_can_be_broken() {
        let broken: [fn(&mut Facts); 13] = [
            |f| f.created = 6,
            |f| f.renewals = 3,
            |f| f.tightest = Some(SignedDuration::from_secs(-1)),
            |f| f.without = 1,
            |f| f.looks = 0,
            |f| f.broken_calls = 0,
            |f| f.outage_looks = 0,
            |f| f.outage_without = 1,
            |f| f.gap = None,
            |f| f.bad_events = 1,
            |f| f.in_step = 4,
            |f| f.backwards = 1,
            |f| f.ended = Some(false),
        ];
        for (number, spoil) in broken.iter().enumerate() {
            let mut facts = good();
            spoil(&mut facts);
            let kept = facts.promises().iter().all(|promise| promise.kept);
            assert!(!kept, "fact {number}");
        }
    }
}
