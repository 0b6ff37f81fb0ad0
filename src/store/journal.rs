//! What the files beside the store are to say, in a cluster: each transaction that has something for them leaves an
//! entry, and every machine appends the entries in order to files of its own, the one that wrote before it answers,
//! the others as soon as they hear of it.
//!
//! A machine knows with which entry its files end. Where the database has another one of that number, or ends before
//! it, it has lost what it had acknowledged: a standby took over that was behind, or it was put back from a copy. Then
//! what the files say beyond the database is carried out once more and noted as taken, so that no other machine does
//! it again.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::atomic::Ordering,
};

use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use super::{
    BroughtUp, Store,
    db::{self, Db, Effects, Txn, micros, signed},
    error::{Answer, Fault, Outcome, StoreError},
    idmap::{self, IdMap},
    withdrawals::{self, BOUND, Fact, LAST, Withdrawals},
    writer::{BoxedAnswer, FilesEnd, Operation, Purpose, Writer},
};
use crate::{
    model::{IdLine, Notice, NoticeKind, Timestamp},
    sql::{Row, params},
};

/// Entries are kept so long for machines that are away; who comes back later writes its files anew.
const KEPT_MICROS: i64 = 24 * 3600 * 1_000_000;
/// A database whose newest version is older than this was put back from a copy; what a standby lacks is younger.
const LATELY_SECS: u64 = 600;
/// So many versions are raised in any case.
const FEW: i64 = 5_000;

/// What of the files has to be written anew, in a column.
const NOTHING: i64 = 0;
const MAP: i64 = 1;
const BOTH: i64 = 2;

/// What one transaction has to say to the files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Entry {
    n: u64,
    /// Lines of `identities.jsonl` and of `withdrawn.jsonl`.
    map: String,
    withdrawn: String,
    /// The highest version that is spoken of.
    high: u64,
    anew: i64,
}

impl Entry {
    fn read(row: &Row<'_>) -> crate::sql::Result<Self> {
        Ok(Self {
            n: db::unsigned(row, "n")?,
            map: row.get("map")?,
            withdrawn: row.get("withdrawn")?,
            high: db::unsigned(row, "high")?,
            anew: row.get("anew")?,
        })
    }

    fn digest(&self) -> [u8; 32] {
        let sum = Sha256::new().chain_update(&self.map);
        sum.chain_update([0])
            .chain_update(&self.withdrawn)
            .finalize()
            .into()
    }
}

/// What has to be done to the files.
#[derive(Debug, PartialEq, Eq)]
enum Course {
    Nothing,
    Append(Vec<Entry>),
    /// The entries in between are not kept any more.
    Anew,
    /// The database does not know what they say.
    Lost,
}

/// Compares where the files end with the entries that the database has from there on; `oldest` is the first that it
/// keeps, `last` the last that there was.
fn course(place: &FilesEnd, (oldest, last): (Option<u64>, u64), mut kept: Vec<Entry>) -> Course {
    if last < place.n {
        return Course::Lost;
    }
    match kept.first() {
        Some(first) if first.n == place.n => {
            let here = kept.remove(0);
            if place.said.is_some_and(|said| said != here.digest()) {
                return Course::Lost;
            }
        }
        // What the files end with was there so long that it is not kept any more; nothing lies between.
        Some(first) if first.n == place.n + 1 && oldest == Some(first.n) => {}
        _ => {
            return match oldest {
                Some(oldest) if oldest <= place.n => Course::Lost,
                None if last == place.n => Course::Nothing,
                _ => Course::Anew,
            };
        }
    }
    let follow = kept
        .iter()
        .zip(place.n + 1..)
        .all(|(entry, n)| entry.n == n);
    match kept.last() {
        None if last == place.n => Course::Nothing,
        Some(newest) if follow && newest.n == last => Course::Append(kept),
        _ => Course::Anew,
    }
}

/// What it came to that the files of a machine are to say what the store does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Followed {
    /// They say all of it.
    Whole,
    /// The database has lost what this machine has seen, or it is not known where the files end: they are looked through.
    Lost,
    /// They cannot be written, and why. The database has what they lack.
    Unwritten(String),
}

/// What it came to that a machine compared its files with the database.
#[derive(Debug, Default)]
pub struct FollowedFiles {
    /// What the database had lost and was carried out again.
    pub brought: Option<BroughtUp>,
    /// Why the files could not be written. The database has what they lack.
    pub unwritten: Option<String>,
}

/// What the files of a machine say and the database does not know.
#[derive(Debug, Default)]
pub(super) struct Lost {
    facts: Vec<Fact>,
    lines: Vec<IdLine>,
    /// All of it as it stands there.
    text: String,
    /// The map does not end with a whole line, or holds lines that are not of this cluster.
    is_torn: bool,
    /// With which entry each of the files begins and ends.
    map: Ends,
    withdrawn: Ends,
    high: u64,
}

#[derive(Debug, Default, Clone, Copy)]
struct Ends {
    first: Option<u64>,
    last: u64,
}

impl Ends {
    fn see(&mut self, n: u64) {
        self.first.get_or_insert(n);
        self.last = self.last.max(n);
    }
}

impl Lost {
    fn is_nothing(&self) -> bool {
        self.text.is_empty()
    }
}

/// What the database knows of entries.
struct Known {
    last: u64,
    entries: BTreeMap<u64, Entry>,
    /// What machines have carried out again.
    taken: String,
}

/// What a line of `withdrawn.jsonl` says, without whose it is and in which transaction: files that were written anew
/// say the same under another number.
fn what_it_says(line: &str) -> &str {
    line.find("\"is\":").map_or(line, |at| &line[at..])
}

impl Known {
    /// Whether it knows what stands in a file under a number. What a file begins with may stand for much that was
    /// written before, and what is older than all entries was seen by everybody.
    fn knows(&self, n: u64, first: Option<u64>, text: &str, of: fn(&Entry) -> &str) -> bool {
        let is_old = match self.entries.first_key_value() {
            Some((oldest, _)) => n < *oldest,
            None => n <= self.last,
        };
        let is_first = first == Some(n) && n <= self.last;
        let said = self
            .entries
            .get(&n)
            .is_some_and(|entry| of(entry).contains(text));
        is_old || is_first || said || self.taken.contains(text)
    }
}

/// The files of a machine.
#[derive(Debug, Clone)]
pub(super) struct Files {
    map: PathBuf,
    withdrawn: PathBuf,
}

impl Files {
    pub(super) fn in_folder(state_dir: &Path) -> Self {
        Self {
            map: state_dir.join(idmap::FILE),
            withdrawn: state_dir.join(withdrawals::FILE),
        }
    }

    /// What they say and the database does not know.
    fn lost(&self, known: &Known) -> Outcome<Lost> {
        let mut lost = Lost::default();
        let found = withdrawals::read(&self.withdrawn, |n, text, facts| {
            lost.withdrawn.see(n);
            if known.knows(n, lost.withdrawn.first, text, |entry| &entry.withdrawn) {
                return;
            }
            for (line, fact) in text.lines().zip(facts) {
                if !matches!(fact, Fact::High { .. }) && !known.taken.contains(what_it_says(line)) {
                    lost.facts.push(fact);
                    lost.text.push_str(line);
                    lost.text.push('\n');
                }
            }
        });
        lost.high = found.map_err(|e| Fault::file(&e))?.high;
        idmap::each_text_of(&self.map, 0, |text| {
            let text = String::from_utf8_lossy(text);
            let line = serde_json::from_str::<IdLine>(&text).ok();
            let numbered = idmap::number_of(&text).zip(line);
            // A line without a number is older than the cluster.
            let Some(((n, says), line)) = numbered else {
                lost.is_torn = true;
                return;
            };
            lost.map.see(n);
            if !known.knows(n, lost.map.first, says, |entry| &entry.map) {
                lost.lines.push(line);
                lost.text.push_str(&text);
                lost.text.push('\n');
            }
        })
        .map_err(|e| Fault::file(&e))?;
        lost.is_torn |= !idmap::ends_whole(&self.map);
        Ok(lost)
    }
}

impl Db {
    fn known_entries(&self) -> Outcome<Known> {
        let sql = "SELECT n, map, withdrawn, high, anew FROM journal ORDER BY n";
        let entries = self.every(sql, [], Entry::read)?;
        let taken = "SELECT taken FROM journal WHERE taken <> '' ORDER BY n";
        Ok(Known {
            last: self.number(LAST)?,
            entries: entries.into_iter().map(|entry| (entry.n, entry)).collect(),
            taken: self
                .every(taken, [], |row| row.get::<_, String>(0))?
                .concat(),
        })
    }

    /// What has to be done to files that end there.
    fn course_from(&self, place: &FilesEnd) -> Outcome<Course> {
        let oldest = "SELECT min(n) FROM journal";
        let oldest = self
            .first(oldest, [], |row| row.get::<_, Option<i64>>(0))?
            .flatten();
        let sql = "SELECT n, map, withdrawn, high, anew FROM journal WHERE n >= ?1 ORDER BY n";
        let kept = self.every(sql, [signed(place.n)], Entry::read)?;
        let known = (oldest.map(i64::unsigned_abs), self.number(LAST)?);
        Ok(course(place, known, kept))
    }

    /// The place of files that say all that the database does.
    fn newest_place(&self) -> Outcome<FilesEnd> {
        let n = self.number(LAST)?;
        let sql = "SELECT n, map, withdrawn, high, anew FROM journal WHERE n = ?1";
        let entry = self.first(sql, [signed(n)], Entry::read)?;
        let said = entry.map(|entry| entry.digest());
        Ok(FilesEnd { n, said })
    }

    /// Leaves an entry under the next number.
    fn leave(&self, mut entry: Entry, taken: &str) -> Outcome<()> {
        entry.n = self.number(LAST)? + 1;
        self.set_number(LAST, entry.n)?;
        self.set_number(BOUND, entry.n)?;
        let Entry {
            n,
            map,
            withdrawn,
            high,
            anew,
        } = entry;
        let sql = "INSERT INTO journal (n, map, withdrawn, high, anew, taken) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        self.run(
            sql,
            params![signed(n), map, withdrawn, signed(high), anew, taken],
        )?;
        Ok(())
    }
}

impl Txn<'_> {
    /// Drops entries that were known a day ago.
    pub(super) fn prune_journal(&self, now: Timestamp) -> Outcome<usize> {
        if self.node.is_none() {
            return Ok(0);
        }
        let now = micros(now);
        let dropped = self.run(
            "DELETE FROM journal WHERE known_at < ?1",
            [now - KEPT_MICROS],
        )?;
        self.run(
            "UPDATE journal SET known_at = ?1 WHERE known_at IS NULL",
            [now],
        )?;
        Ok(dropped)
    }

    /// Carries out what the files of this machine say and the database has lost. `seen` is the highest number of a
    /// change that this machine has seen, and `given` the highest version that it may have answered.
    fn take_up_lost(
        &mut self,
        files: &Files,
        (seen, given): (u64, u64),
        now: Timestamp,
    ) -> Outcome<Option<BroughtUp>> {
        let lost = files.lost(&self.known_entries()?)?;
        let was = self.seq()?;
        if lost.is_nothing() && was >= seen {
            return Ok(None);
        }
        let may_be_behind = self.versions_may_be_behind(now)?;
        let brought = self.bring_up(&lost.facts, (true, lost.high.max(given)), now)?;
        for line in &lost.lines {
            let mut text = Vec::new();
            // Writing into memory cannot fail.
            idmap::write_line(&mut text, line).ok();
            idmap::stage(self, line, text.trim_ascii_end())?;
        }
        if !lost.lines.is_empty() {
            self.take_map_over(false, now)?;
        }
        if may_be_behind {
            self.raise_versions(now)?;
        }
        db::set_meta(&self.conn, "seq", signed(self.seq()?.max(seen)))?;
        let ends = lost.map.last.max(lost.withdrawn.last);
        self.set_number(LAST, self.number(LAST)?.max(ends))?;
        self.leave(
            Entry {
                anew: BOTH,
                ..Entry::default()
            },
            &lost.text,
        )?;
        self.tell_of_loss(brought, now)?;
        Ok(Some(brought))
    }

    /// Whether versions may be lower than what was given out, so that all begin anew. Of very many a standby lacks only
    /// the last ones, and these are due: their next version is above all.
    fn versions_may_be_behind(&self, now: Timestamp) -> Outcome<bool> {
        let sql = "SELECT count(*), coalesce(max(version), 0) FROM identity";
        let found = self.first(sql, [], |row| {
            Ok((row.get::<_, i64>(0)?, db::unsigned(row, 1)?))
        })?;
        let (count, newest) = found.unwrap_or_default();
        let clock = u64::try_from(now.as_second()).unwrap_or(0);
        Ok(count <= FEW || newest + LATELY_SECS < clock)
    }

    fn tell_of_loss(&mut self, brought: BroughtUp, now: Timestamp) -> Outcome<()> {
        let node = self.node();
        let message = format!(
            "The database has lost its last commits: it ended before what {node} had seen of it. {brought}"
        );
        tracing::error!("{message}");
        self.raise(&[Notice::new(NoticeKind::StoreBroughtUp, now, message)])
    }
}

impl Writer {
    /// Whether other machines may use the store as well.
    pub(super) fn is_shared(&self) -> bool {
        self.db.is_shared()
    }

    /// Brings the files up to the store for those who only want that; whether there was anybody.
    pub(super) fn answer_followers(&mut self, group: Vec<Operation>) -> (Vec<Operation>, bool) {
        let follows = |operation: &Operation| {
            matches!(operation.purpose, Purpose::Follow | Purpose::WriteAnew)
        };
        let (followers, group): (Vec<_>, Vec<_>) = group.into_iter().partition(follows);
        let was_asked = !followers.is_empty();
        if was_asked {
            let anew = |one: &Operation| one.purpose == Purpose::WriteAnew;
            let begun = match followers.iter().any(anew) {
                // What the database has lost is taken up first.
                true if self.lacks_what_was_seen() => Ok(Followed::Lost),
                true => self.write_anew(),
                false => Ok(Followed::Whole),
            };
            let followed = match begun {
                Ok(Followed::Whole) => self.follow_journal(),
                other => other,
            };
            let followed = followed.map_err(|fault| StoreError::new("append to the files", fault));
            for operation in followers {
                let answer = followed.clone().map(|known| Box::new(known) as BoxedAnswer);
                // Whoever asked may have gone in the meantime.
                operation.reply.send(answer).ok();
            }
        }
        (group, was_asked)
    }

    /// Commits together with what the files of all machines are to say, then appends it to ours. Where that cannot be
    /// done, the files of the others have it, and ours get it as soon as they can be written.
    pub(super) fn commit_for_all(&mut self, effects: &mut Effects) -> Result<(), StoreError> {
        let has_entry = self.leave_entry(effects)?;
        self.commit_surely()?;
        if has_entry {
            match self.follow_journal() {
                // They could not be written at the start, and are looked through as soon as they can be.
                Ok(Followed::Lost) if self.place.is_none() => {}
                Ok(Followed::Lost) => tracing::error!(
                    "the database has lost its last commits; what this machine knows of them is taken up"
                ),
                Ok(Followed::Unwritten(why)) => {
                    tracing::error!(
                        "the files beside the store cannot be written ({why}); it is tried again"
                    );
                }
                Ok(Followed::Whole) => {}
                Err(fault) => {
                    let error = StoreError::new("look what the files lack", fault);
                    tracing::error!(%error, "it is tried again");
                }
            }
        }
        Ok(())
    }

    /// What it came to that the files of this machine were written. Whether they can be is noted: a machine that leads
    /// revokes nothing before its own are.
    fn written(&mut self, written: Outcome<()>) -> Outcome<Followed> {
        match written {
            Ok(()) => {
                self.withdrawals.note_unwritten(None);
                Ok(Followed::Whole)
            }
            Err(Fault::File(_, why)) => {
                self.withdrawals.note_unwritten(Some(why.clone()));
                Ok(Followed::Unwritten(why))
            }
            // It is about the database.
            Err(fault) => Err(fault),
        }
    }

    /// Before the commit: leaves what the files of all machines are to say. Whether there is something.
    fn leave_entry(&mut self, effects: &mut Effects) -> Result<bool, StoreError> {
        self.entry_of(effects)
            .map_err(|fault| StoreError::new("note what the files are to say", fault))
    }

    fn entry_of(&mut self, effects: &mut Effects) -> Outcome<bool> {
        if effects.accepted {
            self.begin_anew()?;
            let anew = BOTH;
            self.db.leave(
                Entry {
                    anew,
                    ..Entry::default()
                },
                "",
            )?;
            return Ok(true);
        }
        if self.withdrawals.is_news(effects.highest, effects.ahead) {
            effects.facts.push(Fact::High {
                version: effects.highest,
            });
        }
        let (facts, ids) = (
            std::mem::take(&mut effects.facts),
            std::mem::take(&mut effects.ids),
        );
        // What was put off because the map is large is made up for when it is time to clean up.
        let tidies = effects.cleaned && self.id_map.is_behind();
        if facts.is_empty() && ids.is_empty() && !effects.ids_replaced && !tidies {
            return Ok(false);
        }
        let n = self.db.number(LAST)? + 1;
        let entry = Entry {
            n,
            map: idmap::numbered_lines(&ids, n),
            withdrawn: self
                .withdrawals
                .text(n, &facts)
                .map_err(|e| Fault::file(&e))?,
            high: facts.iter().map(Fact::version).max().unwrap_or(0),
            anew: match effects.ids_replaced {
                _ if tidies => BOTH,
                true => MAP,
                false => NOTHING,
            },
        };
        self.db.leave(entry, "")?;
        Ok(true)
    }

    /// Whether the database ends before what this machine has seen of it.
    pub(super) fn lacks_what_was_seen(&self) -> bool {
        self.db.seq().is_ok_and(|upto| upto < self.signals.seq())
    }

    /// Brings the files of this machine up to the store.
    pub(super) fn follow_journal(&mut self) -> Outcome<Followed> {
        if self.lacks_what_was_seen() {
            return Ok(Followed::Lost);
        }
        let course = {
            let _same = self.db.conn.same_state()?;
            match &self.place {
                Some(place) => self.db.course_from(place)?,
                None => Course::Lost,
            }
        };
        let written = match course {
            Course::Nothing => Ok(()),
            Course::Append(entries) => self.append_entries(&entries),
            Course::Anew => self.write_files_anew(),
            Course::Lost => return Ok(Followed::Lost),
        };
        let followed = self.written(written)?;
        if let (Followed::Whole, Some(place)) = (&followed, &self.place) {
            self.signals.files_end_at.store(place.n, Ordering::SeqCst);
        }
        Ok(followed)
    }

    fn append_entries(&mut self, entries: &[Entry]) -> Outcome<()> {
        let of = |pick: fn(&Entry) -> &str| entries.iter().map(pick).collect::<String>();
        let high = entries.iter().map(|entry| entry.high).max().unwrap_or(0);
        let (map, withdrawn) = (of(|entry| &entry.map), of(|entry| &entry.withdrawn));
        if !withdrawn.is_empty() {
            self.withdrawals
                .append_text(&withdrawn, high)
                .map_err(|e| Fault::file(&e))?;
        }
        self.id_map.append_text(&map);
        if let Some(newest) = entries.last() {
            let said = Some(newest.digest());
            self.place = Some(FilesEnd { n: newest.n, said });
        }
        let anew = entries
            .iter()
            .map(|entry| entry.anew)
            .max()
            .unwrap_or(NOTHING);
        let is_long = self.id_map.is_long() || self.withdrawals.wants_fold(false);
        if anew == BOTH
            || is_long
            || self.id_map.is_in_trouble()
            || (anew == MAP && self.id_map.is_small())
        {
            return self.write_files_anew();
        }
        if anew == MAP {
            self.id_map.fall_behind();
        }
        Ok(())
    }

    fn write_anew(&mut self) -> Outcome<Followed> {
        let written = self.write_files_anew();
        self.written(written)
    }

    /// Writes both files anew from one state of the store.
    pub(super) fn write_files_anew(&mut self) -> Outcome<()> {
        let Self {
            db,
            id_map,
            withdrawals,
            place,
            ..
        } = self;
        let _same = db.conn.same_state()?;
        write_anew(db, (id_map, withdrawals))?;
        *place = Some(db.newest_place()?);
        Ok(())
    }

    /// The files of this machine are as the store says, or as good as they can be made: what happens at a start. Where they
    /// cannot be written, the database has what they lack, and they get it as soon as they can be.
    pub(super) fn take_place(&mut self, place: Option<FilesEnd>) -> Outcome<()> {
        self.place = place;
        let begun = match self.place {
            Some(_) => Followed::Whole,
            None => self.write_anew()?,
        };
        let followed = match begun {
            Followed::Whole => self.follow_journal()?,
            other => other,
        };
        if let Followed::Unwritten(why) = followed {
            tracing::error!(
                "the files beside the store cannot be written ({why}); it is tried again"
            );
        }
        Ok(())
    }
}

fn write_anew(db: &Db, (id_map, withdrawals): (&mut IdMap, &mut Withdrawals)) -> Outcome<()> {
    id_map.fall_behind();
    id_map.catch_up(db);
    db.fold(withdrawals)
}

/// What a start of a machine found in its files.
#[derive(Debug, Default)]
pub(super) struct Joined {
    pub(super) brought: Option<BroughtUp>,
    /// Where they end; nothing where they have to be written anew.
    pub(super) place: Option<FilesEnd>,
}

impl Txn<'_> {
    /// A machine of a cluster starts: what its files say and the database has lost is carried out.
    pub(super) fn join_with(&mut self, files: &Files, now: Timestamp) -> Outcome<Joined> {
        if let Some(brought) = self.take_up_lost(files, (0, 0), now)? {
            return Ok(Joined {
                brought: Some(brought),
                place: None,
            });
        }
        let known = self.known_entries()?;
        let lost = files.lost(&known)?;
        let n = lost.map.last.max(lost.withdrawn.last);
        // A file that ends sooner must have nothing to say of what lies between.
        let lacks_nothing = |file: Ends, says: fn(&Entry) -> &str| {
            let says_nothing = |entry: &Entry| says(entry).is_empty();
            (file.last + 1..=n).all(|at| known.entries.get(&at).is_some_and(says_nothing))
        };
        let is_whole = !lost.is_torn
            && lacks_nothing(lost.map, |entry| &entry.map)
            && lacks_nothing(lost.withdrawn, |entry| &entry.withdrawn);
        let said = known.entries.get(&n).map(Entry::digest);
        let place = (is_whole && n > 0).then_some(FilesEnd { n, said });
        Ok(Joined {
            brought: None,
            place,
        })
    }
}

impl Store {
    /// Brings the files of this machine up to the store, where other machines wrote; and the store up to them, where
    /// the database has lost its last commits.
    pub async fn follow_files(&self, now: Timestamp) -> Answer<FollowedFiles> {
        let mut done = FollowedFiles::default();
        if !self.is_shared() {
            return Ok(done);
        }
        self.raise_lost(now).await?;
        let mut followed = self.ask_to_follow(Purpose::Follow).await?;
        if followed == Followed::Lost {
            let files = Files::in_folder(self.state_dir());
            let given = self.standby().mirror().map_or(0, |mirror| mirror.highest());
            let seen = (self.seq(), given);
            let taking_up = self.purposely(
                "take up what the database has lost",
                Purpose::TakeUp,
                move |txn| txn.take_up_lost(&files, seen, now),
            );
            done.brought = taking_up.await?;
            followed = self.ask_to_follow(Purpose::WriteAnew).await?;
        }
        if let Followed::Unwritten(why) = followed {
            done.unwritten = Some(why);
        }
        Ok(done)
    }

    /// Raises the versions of those of whom this machine has answered newer ones than the database knows.
    async fn raise_lost(&self, now: Timestamp) -> Answer<()> {
        let Some(mirror) = self.standby().mirror() else {
            return Ok(());
        };
        let newer = mirror.newer();
        if newer.is_empty() {
            return Ok(());
        }
        let lost = newer.clone();
        let raising = self.purposely("raise versions", Purpose::TakeUp, move |txn| {
            let raised = txn.raise_above(&lost, now)?;
            if raised > 0 {
                let message = format!(
                    "The database has lost its last commits: {} has answered newer versions of {raised} identities than it \
                     knows. Each begins anew above them",
                    txn.node()
                );
                tracing::error!("{message}");
                txn.raise(&[Notice::new(NoticeKind::StoreBroughtUp, now, message)])?;
            }
            Ok(())
        });
        raising.await?;
        mirror.is_caught_up(&newer);
        Ok(())
    }

    pub(super) async fn ask_to_follow(&self, purpose: Purpose) -> Answer<Followed> {
        self.purposely("append to the files", purpose, |_| Ok(Followed::Whole))
            .await
    }

    /// Changes when a look at what other machines changed finds something to follow.
    pub fn files_signal(&self) -> watch::Receiver<u64> {
        self.signals().files_lag.subscribe()
    }

    /// Whether there is something to follow, by the cheapest look.
    pub async fn files_are_behind(&self) -> Answer<bool> {
        if !self.is_shared() {
            return Ok(false);
        }
        if self.withdrawn_trouble().is_some() {
            return Ok(true);
        }
        let mirror = self.standby().mirror();
        if mirror.is_some_and(|mirror| !mirror.newer().is_empty()) {
            return Ok(true);
        }
        let (end, seen) = (
            self.signals().files_end_at.load(Ordering::SeqCst),
            self.seq(),
        );
        self.read("look what the files lack", move |db| {
            let (upto, journal) = db.ends()?;
            Ok(journal != end || upto < seen)
        })
        .await
    }
}
