//! Looks at every consumer's file several times a second and asks the emulator whether what it holds
//! is live: the daemon's own word is not taken for anything.

use std::{cell::RefCell, collections::BTreeMap, fs, time::Duration};

use jiff::Timestamp;
use renewd_acs_wire::Secret;
use renewd_clock::Clock;
use serde::Deserialize;

use super::{
    DemoError,
    door::Door,
    folder::{Folder, NAMES},
    observations::{Held, Look, Observations, Story},
};

/// Between two looks at all files.
const EVERY: Duration = Duration::from_millis(100);
/// While a gap is measured.
const CLOSELY: Duration = Duration::from_millis(5);

pub(super) struct Watcher<'a> {
    pub(super) folder: &'a Folder,
    pub(super) door: &'a Door,
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
        let verdicts = self.door.judge(&secrets).await?;
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
