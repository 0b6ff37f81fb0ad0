//! What was withdrawn (held, revoked, deleted) and what is to be: the steps that a bulk operation or a person
//! takes on single rows, and `withdrawn.jsonl` beside the store, with the highest version, without secrets. It is
//! synced before the store's commit and before ACS is called, so that a store that is put back from a copy
//! is brought up to it; see [`super::restore`].
//!
//! The lines of one transaction carry one number and count down: `left` is how many of them follow. What
//! a crash left of a transaction is dropped; the line of an identity says all that is withdrawn of it, so
//! that the last one is enough.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, OpenOptions},
    io::{self, BufRead as _, BufReader, BufWriter, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::model::{CampaignAction, CampaignId, IdentityId, Name, ResourceName, Then, Timestamp};

/// The name of the file in the state directory.
pub(super) const FILE: &str = "withdrawn.jsonl";
/// Up to this size the file is never folded; tests fold often.
const SMALL: u64 = if cfg!(test) { 4 << 10 } else { 1 << 20 };

/// The number of the last transaction that withdrew something, and of the one before it.
pub(super) const LAST: &str = "withdrawn";
pub(super) const BEFORE: &str = "withdrawn_before";
/// Numbers up to this one may be in the file.
pub(super) const BOUND: &str = "withdrawn_bound";

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Line {
    /// The store that it belongs to.
    store: String,
    /// The number of its transaction.
    n: u64,
    /// How many lines of the same transaction follow.
    left: u64,
    #[serde(flatten)]
    fact: Fact,
}

/// What a line says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "lowercase")]
pub(super) enum Fact {
    /// No version of the store was higher.
    High { version: u64 },
    /// How an identity stands.
    Identity(Withdrawal),
    /// How a campaign stands.
    Campaign(Order),
}

/// All that is withdrawn of one identity; nothing, where all is given back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Withdrawal {
    /// Its name; an id without a row has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<Name>,
    pub(super) resource: ResourceName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<IdentityId>,
    #[serde(default)]
    pub(super) version: u64,
    #[serde(default, skip_serializing_if = "is_false")]
    pub(super) held: bool,
    /// It is held because nothing declares it any more; a declaration ends that.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(super) removed: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    pub(super) deleted: bool,
    /// ACS does not know it any more.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(super) gone: bool,
    /// It was let go of; ACS keeps it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(super) forgotten: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) revoked_at: Option<Timestamp>,
    /// Campaigns that are still to revoke, hold or delete it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) pending: Vec<CampaignId>,
}

/// A campaign that withdraws.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) campaign: CampaignId,
    pub(super) action: CampaignAction,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) then: Option<Then>,
    pub(super) actor: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<String>,
    pub(super) created_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) starts_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "is_false")]
    pub(super) urgent: bool,
    pub(super) target: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) selection: Option<String>,
    pub(super) stage: Stage,
}

/// How far a campaign is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Stage {
    /// Somebody brings its items; it never begins unless they come whole.
    Brought,
    /// Its items are being listed.
    Listing,
    /// All items are listed.
    Listed,
    /// It was called off.
    Over,
}

impl Fact {
    pub(super) fn version(&self) -> u64 {
        match self {
            Self::High { version } => *version,
            Self::Identity(withdrawal) => withdrawal.version,
            Self::Campaign(_) => 0,
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks by reference")]
fn is_false(value: &bool) -> bool {
    !value
}

/// Where lines are kept: the file beside the store, and a copy elsewhere where one is configured.
pub(super) struct Withdrawals {
    file: Place,
    copy: Option<Place>,
    durable: bool,
    /// The store that lines are written for.
    store: String,
    /// The highest version that the file speaks of.
    high: u64,
    /// How long the file is.
    length: u64,
    /// What is wrong with the copy.
    trouble: watch::Sender<Option<String>>,
    /// In a cluster, why this machine's file does not follow.
    unwritten: watch::Sender<Option<String>>,
}

struct Place {
    path: PathBuf,
    /// Its length when it was last written anew.
    folded: u64,
    /// Whether it failed and has to be written anew.
    behind: bool,
}

/// What a file says.
#[derive(Debug, Default, Clone)]
pub(super) struct Found {
    /// The store that it belongs to; `None` where there is no line.
    pub(super) store: Option<String>,
    /// The last transaction that is whole.
    pub(super) last: u64,
    /// A transaction of which only the beginning is there, and how many of its lines are missing.
    pub(super) torn: Option<(u64, u64)>,
    /// Half a line at the end.
    pub(super) half: bool,
    /// Where the last whole transaction ends.
    pub(super) end: u64,
    /// What is wrong with it beyond its end.
    pub(super) damage: Option<String>,
    pub(super) high: u64,
}

impl Withdrawals {
    pub(super) fn beside(state_dir: &Path, copy: Option<&Path>, durable: bool) -> Self {
        let place = |path| Place {
            path,
            folded: 0,
            behind: false,
        };
        Self {
            file: place(state_dir.join(FILE)),
            copy: copy.map(|path| place(path.to_owned())),
            durable,
            store: String::new(),
            high: 0,
            length: 0,
            trouble: watch::Sender::new(None),
            unwritten: watch::Sender::new(None),
        }
    }

    /// Why the file does not follow what all machines write, as that changes.
    pub(super) fn unwritten(&self) -> watch::Receiver<Option<String>> {
        self.unwritten.subscribe()
    }

    /// Notes whether it does.
    pub(super) fn note_unwritten(&self, why: Option<String>) {
        let why = why.map(|why| format!("{}: {why}", self.file.path.display()));
        self.unwritten.send_if_modified(|before| {
            let is_news = *before != why;
            *before = why;
            is_news
        });
    }

    /// Reads the file and its copy; the one that goes further counts. Each whole transaction after
    /// `known` is handed to `see`, line by line.
    pub(super) fn look(&mut self, of: Option<&str>) -> io::Result<Found> {
        let found = read(&self.file.path, |_, _, _| {})?;
        let Some(copy) = &mut self.copy else {
            return Ok(found);
        };
        let other = match read(&copy.path, |_, _, _| {}) {
            Ok(other) => other,
            Err(error) => {
                copy.failed(&error, &self.trouble);
                return Ok(found);
            }
        };
        let ours = |found: &Found| {
            found.damage.is_none() && of.is_none_or(|of| found.store.as_deref() == Some(of))
        };
        let further = other.store.is_some()
            && ours(&other)
            && (!ours(&found) || found.store.is_none() || other.last > found.last);
        if further {
            tracing::warn!(path = %copy.path.display(), "the copy of the withdrawals goes further than the file beside the store, and counts");
            std::mem::swap(&mut self.file.path, &mut copy.path);
            let taken = self.copy_over();
            if let Some(copy) = &mut self.copy {
                std::mem::swap(&mut self.file.path, &mut copy.path);
            }
            taken?;
            return Ok(other);
        }
        Ok(found)
    }

    /// Writes what `file` holds in the place of the copy.
    fn copy_over(&self) -> io::Result<()> {
        let Some(copy) = &self.copy else {
            return Ok(());
        };
        let aside = copy.path.with_extension("jsonl.behind");
        if copy.path.exists() {
            fs::rename(&copy.path, aside)?;
        }
        let new = copy.path.with_extension("jsonl.new");
        fs::copy(&self.file.path, &new)?;
        if self.durable {
            File::open(&new)?.sync_all()?;
        }
        fs::rename(&new, &copy.path)?;
        self.sync_folder(&copy.path)
    }

    /// The last line of each identity with one of these names or ids.
    pub(super) fn last_of(&self, words: &BTreeSet<String>) -> io::Result<Vec<Fact>> {
        let mut last = BTreeMap::new();
        if words.is_empty() {
            return Ok(Vec::new());
        }
        read(&self.file.path, |_, _, facts| {
            for fact in facts {
                let Fact::Identity(line) = fact else { continue };
                let known = |word: &str| words.contains(word).then(|| word.to_owned());
                let name = line.name.as_ref().and_then(|name| known(name.as_str()));
                let id = || line.id.as_ref().and_then(|id| known(id.as_str()));
                if let Some(word) = name.or_else(id) {
                    last.insert(word, line);
                }
            }
        })?;
        Ok(last.into_values().map(Fact::Identity).collect())
    }

    /// Each fact of the whole transactions after `known`.
    pub(super) fn facts_after(&self, known: u64, mut see: impl FnMut(Fact)) -> io::Result<()> {
        read(&self.file.path, |n, _, facts| {
            if n > known {
                facts.into_iter().for_each(&mut see);
            }
        })?;
        Ok(())
    }

    /// Drops what a crash left of a transaction, and writes from now on for this store.
    pub(super) fn begin(&mut self, store: &str, found: &Found) -> io::Result<()> {
        store.clone_into(&mut self.store);
        self.high = found.high;
        let durable = self.durable;
        if found.torn.is_some() || found.half {
            cut(&self.file.path, found.end, durable)?;
        }
        self.file.folded = found.end;
        self.length = found.end;
        self.set_foreign_copy_aside()?;
        self.mend_copy();
        Ok(())
    }

    /// Whether a version is beyond what the file speaks of, so that it has to be told.
    pub(super) fn is_news(&self, version: u64, ahead: bool) -> bool {
        const HOUR: u64 = 3600;
        version > self.high && (ahead || version > self.high + HOUR)
    }

    /// Writes a transaction and syncs it. On failure nothing of it stays.
    pub(super) fn append(&mut self, n: u64, facts: &[Fact]) -> io::Result<Appended> {
        let text = self.text(n, facts)?;
        let highest = facts.iter().map(Fact::version).max();
        self.append_text(&text, highest.unwrap_or(0))
    }

    /// The same with lines that the store has left for all machines; they speak of no higher version.
    pub(super) fn append_text(&mut self, text: &str, high: u64) -> io::Result<Appended> {
        let text = text.as_bytes();
        let mut written = Appended {
            before: length(&self.file.path),
            copied: None,
        };
        if let Err(error) = add(&self.file.path, text, self.durable) {
            cut(&self.file.path, written.before, self.durable)?;
            return Err(error);
        }
        let durable = self.durable;
        let is_behind = self.copy.as_ref().is_some_and(|copy| copy.behind);
        if is_behind && self.mend_copy() {
            // Whole again as soon as it can be: the file has the new lines already.
            written.copied = Some(written.before);
        } else if let Some(copy) = self.copy.as_mut().filter(|copy| !copy.behind) {
            let before = length(&copy.path);
            match add(&copy.path, text, durable) {
                Ok(()) => written.copied = Some(before),
                Err(error) => copy.failed(&error, &self.trouble),
            }
        }
        self.high = self.high.max(high);
        self.length = written.before + text.len() as u64;
        Ok(written)
    }

    /// The store did not take the transaction: its lines go again.
    pub(super) fn take_back(&mut self, written: &Appended) -> io::Result<()> {
        cut(&self.file.path, written.before, self.durable)?;
        if let (Some(copy), Some(before)) = (&mut self.copy, written.copied)
            && let Err(error) = cut(&copy.path, before, self.durable)
        {
            copy.failed(&error, &self.trouble);
        }
        Ok(())
    }

    /// Writes the copy anew; whether there is one, and it is whole.
    pub(super) fn mend_copy(&mut self) -> bool {
        let copied = self.copy_anew();
        let Some(copy) = &mut self.copy else {
            return false;
        };
        match copied {
            Ok(()) => {
                copy.behind = false;
                self.trouble
                    .send_if_modified(|trouble| trouble.take().is_some());
                true
            }
            Err(error) => {
                copy.failed(&error, &self.trouble);
                false
            }
        }
    }

    /// A copy that another store wrote is not written over.
    fn set_foreign_copy_aside(&self) -> io::Result<()> {
        let Some(copy) = &self.copy else {
            return Ok(());
        };
        // What cannot be read now cannot be moved either, and fails when it is written.
        let found = read(&copy.path, |_, _, _| {}).unwrap_or_default();
        if found.store.is_some_and(|store| store != self.store) {
            tracing::error!(path = %copy.path.display(), "the copy of the withdrawals was that of another store; it is kept as .jsonl.other");
            fs::rename(&copy.path, copy.path.with_extension("jsonl.other"))?;
        }
        Ok(())
    }

    /// What is wrong with the copy, as it changes.
    pub(super) fn trouble(&self) -> watch::Receiver<Option<String>> {
        self.trouble.subscribe()
    }

    /// Whether the file has become twice as long as it need be; or, when it is time to clean up, its copy
    /// waits.
    pub(super) fn wants_fold(&self, cleaning: bool) -> bool {
        let behind = self.copy.as_ref().is_some_and(|copy| copy.behind);
        self.has_begun() && (self.is_long() || (cleaning && behind))
    }

    fn is_long(&self) -> bool {
        self.length > 2 * self.file.folded + SMALL
    }

    /// Whether it is known which store lines are written for.
    pub(super) fn has_begun(&self) -> bool {
        !self.store.is_empty()
    }

    /// Whether the file is there at all.
    pub(super) fn is_there(&self) -> bool {
        self.file.path.exists()
    }

    /// Whether somebody took the file away.
    pub(super) fn is_lost(&self) -> bool {
        self.has_begun() && self.length > 0 && !self.is_there()
    }

    /// Writes the file anew, with the number of the last transaction. `each` hands out all facts, twice.
    pub(super) fn rewrite<E: std::fmt::Debug>(
        &mut self,
        n: u64,
        each: impl Fn(&mut dyn FnMut(Fact)) -> Result<(), E>,
    ) -> io::Result<()> {
        let failed = |error: E| io::Error::other(format!("{error:?}"));
        let new = self.file.path.with_extension("jsonl.new");
        // First: where no file can be made, the whole store is not read for it again and again.
        let file = private()
            .write(true)
            .create(true)
            .truncate(true)
            .open(&new)?;
        let mut left = 0_u64;
        each(&mut |_| left += 1).map_err(failed)?;
        let mut out = BufWriter::new(file);
        let mut result = self.line(&mut out, n, left, Fact::High { version: self.high });
        each(&mut |fact| {
            left = left.saturating_sub(1);
            if result.is_ok() {
                result = self.line(&mut out, n, left, fact);
            }
        })
        .map_err(failed)?;
        result?;
        let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
        if self.durable {
            file.sync_all()?;
        }
        fs::rename(&new, &self.file.path)?;
        self.sync_folder(&self.file.path)?;
        self.file.folded = length(&self.file.path);
        self.length = self.file.folded;
        self.mend_copy();
        Ok(())
    }

    fn copy_anew(&self) -> io::Result<()> {
        let Some(copy) = &self.copy else {
            return Ok(());
        };
        let new = copy.path.with_extension("jsonl.new");
        let text = match fs::read(&self.file.path) {
            // Nothing was withdrawn yet.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            text => text?,
        };
        let mut file = private()
            .write(true)
            .create(true)
            .truncate(true)
            .open(&new)?;
        file.write_all(&text)?;
        if self.durable {
            file.sync_all()?;
        }
        fs::rename(&new, &copy.path)?;
        self.sync_folder(&copy.path)
    }

    /// Keeps a file that is not to be trusted under another name.
    pub(super) fn set_aside(&self) -> io::Result<()> {
        if self.is_there() {
            fs::rename(
                &self.file.path,
                self.file.path.with_extension("jsonl.distrusted"),
            )?;
        }
        Ok(())
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        match path.parent() {
            Some(folder) if self.durable => File::open(folder)?.sync_all(),
            _ => Ok(()),
        }
    }

    /// The lines of a transaction.
    pub(super) fn text(&self, n: u64, facts: &[Fact]) -> io::Result<String> {
        let mut text = Vec::new();
        for (left, fact) in (0..facts.len() as u64).rev().zip(facts) {
            self.line(&mut text, n, left, fact.clone())?;
        }
        String::from_utf8(text).map_err(io::Error::other)
    }

    fn line(&self, out: &mut impl io::Write, n: u64, left: u64, fact: Fact) -> io::Result<()> {
        let line = Line {
            store: self.store.clone(),
            n,
            left,
            fact,
        };
        serde_json::to_writer(&mut *out, &line)?;
        out.write_all(b"\n")
    }
}

/// Where lines were added, so that they can go again.
pub(super) struct Appended {
    before: u64,
    copied: Option<u64>,
}

impl Place {
    fn failed(&mut self, error: &io::Error, trouble: &watch::Sender<Option<String>>) {
        if !self.behind {
            tracing::error!(path = %self.path.display(), %error, "the copy of the withdrawals could not be written; it is written anew when it can be");
        }
        self.behind = true;
        let said = format!("{}: {error}", self.path.display());
        trouble.send_if_modified(|trouble| trouble.replace(said.clone()).as_ref() != Some(&said));
    }
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |found| found.len())
}

fn add(path: &Path, text: &[u8], durable: bool) -> io::Result<()> {
    let is_new = !path.exists();
    let mut file = private().append(true).create(true).open(path)?;
    file.write_all(text)?;
    if durable {
        file.sync_data()?;
        if let (true, Some(folder)) = (is_new, path.parent()) {
            File::open(folder)?.sync_all()?;
        }
    }
    Ok(())
}

fn cut(path: &Path, to: u64, durable: bool) -> io::Result<()> {
    let file = match OpenOptions::new().write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    file.set_len(to)?;
    if durable { file.sync_all() } else { Ok(()) }
}

/// Reads a file; each whole transaction is handed to `see`: its number, its lines as they stand there, and what they say.
pub(super) fn read(path: &Path, mut see: impl FnMut(u64, &str, Vec<Fact>)) -> io::Result<Found> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::default()),
        Err(error) => return Err(error),
    };
    let mut found = Found::default();
    let (mut group, mut whole) = (Vec::new(), String::new());
    let (mut at, mut number) = (0_u64, 0_u64);
    let mut lines = BufReader::new(file);
    let mut text = Vec::new();
    loop {
        text.clear();
        let count = lines.read_until(b'\n', &mut text)?;
        if count == 0 {
            break;
        }
        number += 1;
        if text.last() != Some(&b'\n') {
            found.half = true;
            break;
        }
        at += count as u64;
        let Ok(line) = serde_json::from_slice::<Line>(&text) else {
            found.damage = Some(format!(
                "line {number} of {} cannot be read",
                path.display()
            ));
            break;
        };
        if let Some(why) = found.misfit(&line, &group) {
            found.damage = Some(format!("line {number} of {} {why}", path.display()));
            break;
        }
        let Line { n, left, fact, .. } = line;
        found.note(&fact);
        group.push((n, left, fact));
        whole.push_str(&String::from_utf8_lossy(&text));
        if left == 0 {
            found.last = n;
            found.end = at;
            see(n, &whole, group.drain(..).map(|(.., fact)| fact).collect());
            whole.clear();
        }
    }
    if let Some((n, left, _)) = group.last() {
        found.torn = Some((*n, *left));
    }
    Ok(found)
}

impl Found {
    /// How a line does not follow those before it.
    fn misfit(&mut self, line: &Line, group: &[(u64, u64, Fact)]) -> Option<&'static str> {
        let store = self.store.get_or_insert_with(|| line.store.clone());
        if *store != line.store {
            return Some("belongs to another store than the lines before it");
        }
        let follows = match group.last() {
            Some((n, left, _)) => line.n == *n && line.left + 1 == *left,
            None => line.n > self.last || self.end == 0,
        };
        (!follows).then_some("does not follow the line before it: lines are missing")
    }

    fn note(&mut self, fact: &Fact) {
        self.high = self.high.max(fact.version());
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn where_no_file_can_be_made_the_store_is_not_read_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let gone = folder.path().join("gone");
        let mut withdrawals = Withdrawals::beside(&gone, None, false);
        let reads = Cell::new(0);
        let each = |_: &mut dyn FnMut(Fact)| {
            reads.set(reads.get() + 1);
            Ok::<(), io::Error>(())
        };
        assert!(withdrawals.rewrite(1, each).is_err());
        assert_eq!(reads.get(), 0);
        fs::create_dir(&gone).unwrap();
        withdrawals.rewrite(1, each).unwrap();
        assert_eq!(reads.get(), 2, "to count them, and to write them");
    }
}
