//! `identities.jsonl`, beside the store: which name has which id at ACS, and the whole declaration of what
//! no configuration file and no source declares; without secrets. It outlives the database, so that a lost
//! or old one never makes a new person of an old name, and forgets nobody.
//!
//! Lines are appended, and of two lines of one name or one id the later one counts; the file is folded when
//! it has become twice too large.
//!
//! A start need not read it: the store notes how the file was when the two last agreed, and unsays that in the
//! very transaction that is about to change the file.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{self, BufRead as _, BufReader, BufWriter, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};
use tokio::sync::watch;

use super::{
    aside::RowKind,
    db::{self, Db, Effects, Txn},
    error::{Fault, Outcome},
    tables::update_identities,
    withdrawals::LAST,
};
use crate::{
    model::{Declaration, IdLine, IdentityId, Kept, Name, Num, Origin, without_mark},
    sql::{self, SqlError, params},
};

/// The name of the map in the state directory.
pub(super) const FILE: &str = "identities.jsonl";
/// Up to this size the map is written anew with each removal; above, when the daemon cleans up.
const SMALL: u64 = 1 << 20;

/// How the file was when it and the store last agreed, in `meta`.
const AGREED: &str = "map_agreed";

/// Where a map is kept of which not all could be taken over: `identities.jsonl.broken`, then with a number.
pub(super) fn aside(map: &Path, number: u32) -> PathBuf {
    match number {
        1 => map.with_extension("jsonl.broken"),
        _ => map.with_extension(format!("jsonl.broken{number}")),
    }
}

/// Whether two files hold the same, however long they are.
fn are_alike(one: &Path, other: &Path) -> io::Result<bool> {
    let (one, other) = (File::open(one)?, File::open(other)?);
    if one.metadata()?.len() != other.metadata()?.len() {
        return Ok(false);
    }
    let (mut one, mut other) = (BufReader::new(one), BufReader::new(other));
    loop {
        let (left, right) = (one.fill_buf()?, other.fill_buf()?);
        let both = left.len().min(right.len());
        if left[..both] != right[..both] {
            return Ok(false);
        }
        if both == 0 {
            return Ok(true);
        }
        one.consume(both);
        other.consume(both);
    }
}

/// Keeps the file as the store is.
pub(super) struct IdMap {
    path: PathBuf,
    durable: bool,
    behind: bool,
    /// How long the file is, and how long it was when it was last written anew.
    length: u64,
    folded: u64,
    sum: Sum,
    /// The store has noted that it agrees with the file as it is.
    agreed: bool,
    /// Why it cannot be written.
    trouble: watch::Sender<Option<String>>,
}

/// A file as it was, and its lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Agreed {
    length: u64,
    inode: u64,
    changed: i128,
    sum: Sum,
}

impl Agreed {
    fn of(path: &Path, sum: Sum) -> Option<Self> {
        let file = fs::metadata(path).ok()?;
        Some(Self {
            length: file.len(),
            inode: file.ino(),
            changed: i128::from(file.mtime()) * 1_000_000_000 + i128::from(file.mtime_nsec()),
            sum,
        })
    }

    fn noted(db: &Db) -> Option<Self> {
        let text: String = db::meta(&db.conn, AGREED).ok()??;
        let mut words = text.split(' ');
        let noted = Self {
            length: words.next()?.parse().ok()?,
            inode: words.next()?.parse().ok()?,
            changed: words.next()?.parse().ok()?,
            sum: Sum {
                lines: words.next()?.parse().ok()?,
                sum: words.next()?.parse().ok()?,
            },
        };
        Some(noted)
    }

    fn note(&self, db: &Db) -> Outcome<()> {
        let Self {
            length,
            inode,
            changed,
            sum: Sum { lines, sum },
        } = self;
        let text = format!("{length} {inode} {changed} {lines} {sum}");
        Ok(db::set_meta(&db.conn, AGREED, text)?)
    }
}

/// What the file said when the store was opened.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Names that the store has; `None` where the file has more.
    pub(super) known: Option<usize>,
    /// Lines that the store does not know; they are in `map_line`.
    pub(super) news: usize,
    /// Lines that could not be read; the file was kept under another name.
    pub(super) broken: usize,
}

impl IdMap {
    pub(super) fn beside(state_dir: &Path, durable: bool) -> Self {
        let path = state_dir.join(FILE);
        let length = fs::metadata(&path).map_or(0, |file| file.len());
        Self {
            path,
            durable,
            behind: false,
            length,
            folded: length,
            sum: Sum::default(),
            agreed: false,
            trouble: watch::Sender::new(None),
        }
    }

    /// Why it cannot be written, as that changes.
    pub(super) fn trouble(&self) -> watch::Receiver<Option<String>> {
        self.trouble.subscribe()
    }

    /// Whether somebody took the file away.
    pub(super) fn is_lost(&self) -> bool {
        self.length > 0 && !self.path.exists()
    }

    /// Compares the file with the store: what only the file knows is put into `map_line`, and the file is
    /// written anew if it differs. Where it is as it was when they last agreed, it is not read; where it has
    /// become longer since, only that is.
    pub(super) fn compare(&mut self, db: &Db) -> Outcome<Found> {
        match Agreed::noted(db) {
            Some(noted) if Agreed::of(&self.path, noted.sum) == Some(noted) => {
                (self.sum, self.agreed) = (noted.sum, true);
                Ok(Found {
                    known: Some(noted.sum.lines),
                    ..Found::default()
                })
            }
            Some(noted) if self.begins_with(&noted) => self.compare_after(db, noted),
            _ => self.compare_all(db),
        }
    }

    /// Whether something was only added to the file that was noted.
    fn begins_with(&self, noted: &Agreed) -> bool {
        let now = Agreed::of(&self.path, noted.sum);
        now.is_some_and(|now| now.inode == noted.inode && now.length > noted.length)
    }

    fn compare_after(&mut self, db: &Db, noted: Agreed) -> Outcome<Found> {
        let (mut sum, mut dropped) = (noted.sum, 0);
        let found = self.stage_from(db, noted.length, |line, text| {
            sum.add(text);
            dropped += u32::from(line.is_none_or(|line| line.dropped));
        })?;
        self.sum = sum;
        self.behind = found.broken > 0 || dropped > 0;
        Ok(Found {
            known: Some(sum.lines),
            ..found
        })
    }

    fn compare_all(&mut self, db: &Db) -> Outcome<Found> {
        let mut in_file = Sum::default();
        self.each_text(0, |text| in_file.add(text))
            .map_err(|e| self.unread(&e))?;
        let mut in_store = Sum::default();
        each_known(db, |line| {
            let mut text = Vec::new();
            // Writing into memory cannot fail.
            write_line(&mut text, &line).ok();
            in_store.add(text.trim_ascii_end());
        })?;
        self.sum = in_file;
        if in_file == in_store {
            return Ok(Found {
                known: Some(in_store.lines),
                ..Found::default()
            });
        }
        let found = self.stage_from(db, 0, |_, _| {})?;
        self.behind = true;
        Ok(found)
    }

    /// Puts what only the file knows, from a place in it on, into `map_line`.
    fn stage_from(
        &self,
        db: &Db,
        from: u64,
        mut see: impl FnMut(Option<&IdLine>, &[u8]),
    ) -> Outcome<Found> {
        let (mut found, mut result) = (Found::default(), Ok(()));
        self.each_text(from, |text| {
            let line = serde_json::from_slice::<IdLine>(text).ok();
            see(line.as_ref(), text);
            match line {
                Some(line) if result.is_ok() => result = stage(db, &line, text),
                Some(_) => {}
                None => found.broken += 1,
            }
        })
        .map_err(|e| self.unread(&e))?;
        result?;
        if found.broken > 0 {
            self.keep_aside()?;
        }
        let sql = "SELECT count(*) FROM map_line";
        let news = db.first(sql, [], |row| row.get::<_, u32>(0))?;
        found.news = usize::try_from(news.unwrap_or(0)).unwrap_or(usize::MAX);
        Ok(found)
    }

    fn unread(&self, error: &io::Error) -> Fault {
        Fault::Refused(format!("read {}: {error}", self.path.display()))
    }

    /// Within a transaction, before its commit: notes that store and file agree, or unsays it where the commit
    /// is about to change the file. What is noted then.
    pub(super) fn note_agreement(&self, db: &Db, effects: &Effects) -> Outcome<bool> {
        let changes = !effects.ids.is_empty() || effects.ids_replaced;
        if self.behind || changes {
            if self.agreed || changes {
                db.run("DELETE FROM meta WHERE key = ?1", [AGREED])?;
            }
            return Ok(false);
        }
        if self.agreed {
            return Ok(true);
        }
        match Agreed::of(&self.path, self.sum).filter(|file| file.length == self.length) {
            Some(agreed) => agreed.note(db).map(|()| true),
            None => Ok(false),
        }
    }

    pub(super) fn agrees(&mut self, agreed: bool) {
        self.agreed = agreed;
    }

    /// Keeps the file as it is under another name, because not all of it could be taken over. What was kept
    /// before stays.
    pub(super) fn keep_aside(&self) -> Outcome<()> {
        let failed = |e| Fault::Refused(format!("keep {}: {e}", self.path.display()));
        for number in 1_u32.. {
            let aside = aside(&self.path, number);
            if !aside.exists() {
                fs::copy(&self.path, aside).map_err(failed)?;
                break;
            }
            if are_alike(&self.path, &aside).map_err(failed)? {
                break;
            }
        }
        Ok(())
    }

    /// Before a commit: what the store is about to drop goes first, so that a crash between the two never
    /// brings it back.
    pub(super) fn lead(&mut self, effects: &mut Effects) {
        if !effects.ids.iter().any(|line| line.dropped) {
            return;
        }
        let (mut dropped, mut others) = (Vec::new(), Vec::<IdLine>::new());
        for line in std::mem::take(&mut effects.ids) {
            if line.dropped {
                others.retain(|before| before.name != line.name);
                dropped.push(line);
            } else {
                others.push(line);
            }
        }
        effects.ids = others;
        effects.ids_replaced = true;
        self.write(&dropped);
    }

    /// Whether it is written anew with each removal, and whether it is time to.
    pub(super) fn is_small(&self) -> bool {
        self.length <= SMALL
    }

    /// Whether it says something else than the store, and whether it could not be written.
    pub(super) fn is_behind(&self) -> bool {
        self.behind
    }

    pub(super) fn is_in_trouble(&self) -> bool {
        self.trouble.borrow().is_some()
    }

    pub(super) fn is_long(&self) -> bool {
        self.length > 2 * self.folded + SMALL
    }

    /// Appends lines that the store has left for all machines.
    pub(super) fn append_text(&mut self, text: &str) {
        if !text.is_empty()
            && let Err(error) = self.append_bytes(text.as_bytes(), self.sum)
        {
            self.failed(&error);
        }
    }

    /// Takes a commit's changes into the file.
    pub(super) fn follow(&mut self, db: &Db, effects: &Effects) {
        self.write(&effects.ids);
        let restated = |line: &IdLine| line.kept.origin == Some(Origin::Cli);
        self.behind |= effects.ids_replaced || effects.ids.iter().any(restated);
        let is_long = self.is_long();
        if (effects.ids_replaced && self.is_small()) || is_long || effects.cleaned {
            self.behind |= is_long;
            self.catch_up(db);
        }
    }

    fn write(&mut self, lines: &[IdLine]) {
        if !lines.is_empty()
            && let Err(error) = self.append(lines)
        {
            self.failed(&error);
        }
    }

    /// Writes the file anew if it is behind.
    pub(super) fn catch_up(&mut self, db: &Db) {
        if self.behind {
            match self.rewrite(db) {
                Ok(()) => {
                    self.behind = false;
                    self.trouble
                        .send_if_modified(|trouble| trouble.take().is_some());
                }
                Err(error) => self.failed(&error),
            }
        }
    }

    /// The store changed beside it: it is to be written anew.
    pub(super) fn fall_behind(&mut self) {
        self.behind = true;
    }

    fn failed(&mut self, error: &io::Error) {
        // The store itself holds the ids; the file is written anew as soon as it can be.
        self.behind = true;
        let said = format!("{}: {error}", self.path.display());
        let news = self
            .trouble
            .send_if_modified(|trouble| trouble.replace(said.clone()).as_ref() != Some(&said));
        if news {
            tracing::error!(path = %self.path.display(), %error, "the map of names to ids could not be written");
        }
    }

    fn append(&mut self, lines: &[IdLine]) -> io::Result<()> {
        let (mut text, mut sum) = (Vec::new(), self.sum);
        for line in lines {
            let from = text.len();
            write_line(&mut text, line)?;
            sum.add(text[from..].trim_ascii_end());
        }
        self.append_bytes(&text, sum)
    }

    fn append_bytes(&mut self, text: &[u8], sum: Sum) -> io::Result<()> {
        let mut file = private().append(true).create(true).open(&self.path)?;
        self.agreed = false;
        file.write_all(text)?;
        self.length += text.len() as u64;
        self.sum = sum;
        self.sync(&file)
    }

    fn rewrite(&mut self, db: &Db) -> io::Result<()> {
        let new = self.path.with_extension("jsonl.new");
        let file = private()
            .write(true)
            .create(true)
            .truncate(true)
            .open(&new)?;
        let (mut out, mut sum, mut text) = (BufWriter::new(file), Sum::default(), Vec::new());
        let mut result = Ok(());
        let n = db.node.is_some().then(|| db.number(LAST)).transpose();
        let n = n.map_err(|fault| io::Error::other(format!("{fault:?}")))?;
        let mut write = |out: &mut BufWriter<File>, line: &IdLine| {
            text.clear();
            write_line(&mut text, line)?;
            if let Some(n) = n {
                number(&mut text, n);
            }
            sum.add(text.trim_ascii_end());
            out.write_all(&text)
        };
        let hidden = each_known(db, |line| {
            if result.is_ok() {
                result = write(&mut out, &line);
            }
        })
        .map_err(|fault| io::Error::other(format!("{fault:?}")))?;
        result?;
        let mut result = Ok(());
        if !hidden.words.is_empty() {
            self.each_text(0, |text| {
                let line = serde_json::from_slice(text).ok();
                let kept = line.filter(|line| hidden.concerns(line));
                if let (Some(line), Ok(())) = (kept, &result) {
                    result = write(&mut out, &line);
                }
            })?;
        }
        result?;
        let file = out.into_inner().map_err(|e| e.into_error())?;
        self.sync(&file)?;
        self.length = file.metadata()?.len();
        self.folded = self.length;
        fs::rename(&new, &self.path)?;
        (self.sum, self.agreed) = (sum, false);
        match self.path.parent() {
            Some(dir) => self.sync(&File::open(dir)?),
            None => Ok(()),
        }
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        if self.durable {
            file.sync_all()
        } else {
            Ok(())
        }
    }

    /// Each line that is not empty, from a place in the file on. A missing file has none.
    fn each_text(&self, from: u64, see: impl FnMut(&[u8])) -> io::Result<()> {
        each_text_of(&self.path, from, see)
    }
}

pub(super) fn each_text_of(path: &Path, from: u64, mut see: impl FnMut(&[u8])) -> io::Result<()> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    };
    file.seek(SeekFrom::Start(from))?;
    for line in BufReader::new(file).split(b'\n') {
        let line = line?;
        let text = without_mark(&line).trim_ascii();
        if !text.is_empty() {
            see(text);
        }
    }
    Ok(())
}

impl Db {
    /// Whether the file holds other lines than those that the store has noted, although it looks as it did then.
    pub(super) fn map_was_altered(&self, state_dir: &Path) -> Outcome<bool> {
        let path = state_dir.join(FILE);
        let Some(noted) = Agreed::noted(self) else {
            return Ok(false);
        };
        let mut sum = Sum::default();
        each_text_of(&path, 0, |text| sum.add(text)).map_err(|e| Fault::file(&e))?;
        let is_same = |now: &Agreed| *now == noted;
        // What changed meanwhile, or is about to be unsaid, was not looked at.
        let still = Agreed::noted(self).as_ref().is_some_and(is_same)
            && Agreed::of(&path, noted.sum).as_ref().is_some_and(is_same);
        Ok(still && sum != noted.sum)
    }
}

impl Txn<'_> {
    /// The next start compares the whole file.
    pub(super) fn forget_agreement(&self) -> Outcome<()> {
        self.run("DELETE FROM meta WHERE key = ?1", [AGREED])?;
        Ok(())
    }
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

/// In a cluster, the number of the entry behind which a line was written: the last thing that the line says.
const NUMBER: &str = ",\"n\":";

fn number(line: &mut Vec<u8>, n: u64) {
    let end = line.trim_ascii_end().len().saturating_sub(1);
    line.truncate(end);
    line.extend_from_slice(format!("{NUMBER}{n}}}\n").as_bytes());
}

/// The number of a line, where it has one, and what stands before it.
pub(super) fn number_of(line: &str) -> Option<(u64, &str)> {
    let (says, number) = line.strip_suffix('}')?.rsplit_once(NUMBER)?;
    Some((number.parse().ok()?, says))
}

/// Whether a file ends with a whole line, or is not there.
pub(super) fn ends_whole(path: &Path) -> bool {
    let mut last = [b'\n'];
    let read = File::open(path).and_then(|mut file| {
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)
    });
    read.is_err() || last == [b'\n']
}

/// Lines, each with this number.
pub(super) fn numbered_lines(lines: &[IdLine], n: u64) -> String {
    let mut text = String::new();
    for line in lines {
        let mut bytes = Vec::new();
        // Writing into memory cannot fail.
        write_line(&mut bytes, line).ok();
        number(&mut bytes, n);
        text.push_str(&String::from_utf8_lossy(&bytes));
    }
    text
}

pub(super) fn write_line(out: &mut impl io::Write, line: &IdLine) -> io::Result<()> {
    serde_json::to_writer(&mut *out, line)?;
    out.write_all(b"\n")
}

/// What can be read of rows that cannot be read as a whole: their lines in the file stay.
#[derive(Debug, Default)]
struct Hidden {
    words: BTreeSet<String>,
}

impl Hidden {
    fn keep(&mut self, row: &sql::Row<'_>) {
        for column in ["name", "id"] {
            self.words.extend(row.get::<_, String>(column).ok());
        }
    }

    fn concerns(&self, line: &IdLine) -> bool {
        let id = line.id.as_ref().map_or("", IdentityId::as_str);
        self.words.contains(line.name.as_str()) || self.words.contains(id)
    }
}

/// What the map says of a row; whether it says anything (`known`).
const LINES: &str = "SELECT i.num, i.name, r.name AS resource, i.id, i.created_at, i.origin, i.wish, \
    i.removed <> 0 OR i.state = 'deleted' AS let_go, \
    CASE WHEN i.id IS NOT NULL THEN i.state <> 'deleted' OR i.removed = 2 \
    ELSE i.origin = 'cli' AND i.removed = 0 AND i.state <> 'deleted' END AS known \
    FROM identity i LEFT JOIN resource r ON r.num = i.resource";

/// Every name whose id the store knows, and every one that the store alone declares.
fn each_known(db: &Db, mut see: impl FnMut(IdLine)) -> Outcome<Hidden> {
    let mut hidden = Hidden::default();
    let sql = format!(
        "SELECT * FROM ({LINES}) known WHERE known \
         UNION ALL SELECT NULL, name, resource, id, created_at, NULL, NULL, TRUE, TRUE FROM remembered"
    );
    db.conn.each(&sql, [], None, |row| {
        match read_line(row) {
            Ok(line) => see(line),
            Err(error) if error.is_unreadable() => {
                db.aside.note(RowKind::Identity, row, &error);
                hidden.keep(row);
            }
            Err(error) => return Err(error),
        }
        Ok(true)
    })?;
    Ok(hidden)
}

impl Db {
    /// The new line of a row; `None` where the map need not say anything of it, or the row cannot be read.
    pub(super) fn id_line(&self, num: Num) -> Outcome<Option<IdLine>> {
        let sql = format!("{LINES} WHERE i.num = ?1");
        let line = self.readable_one(RowKind::Identity, &sql, [num], |row| {
            let was_known = row.get::<_, Option<String>>("id")?.is_some()
                || row
                    .get_ref("origin")?
                    .as_str()
                    .is_ok_and(|origin| origin == "cli");
            let dropped = !row.get::<_, Option<bool>>("known")?.unwrap_or(true);
            let line = read_line(row)?;
            Ok((!dropped || was_known).then_some(IdLine { dropped, ..line }))
        })?;
        Ok(line.flatten())
    }

    /// How many names the map has.
    pub(super) fn known_names(&self) -> Outcome<usize> {
        let sql = format!(
            "SELECT (SELECT count(*) FROM ({LINES}) lines WHERE known) + (SELECT count(*) FROM remembered)"
        );
        let known = self.first(&sql, [], |row| row.get::<_, u32>(0))?;
        Ok(usize::try_from(known.unwrap_or(0)).unwrap_or(usize::MAX))
    }
}

/// Puts a line of the file aside for a start to take over, if the store knows nothing of it.
pub(super) fn stage(db: &Db, line: &IdLine, text: &[u8]) -> Outcome<()> {
    let (name, id) = (line.name.as_str(), line.id.as_ref().map(IdentityId::as_str));
    if id.is_some() && !line.dropped {
        mend(db, line)?;
    }
    let is_news = "SELECT NOT EXISTS (SELECT 1 FROM identity WHERE id = ?2) \
         AND NOT EXISTS (SELECT 1 FROM identity WHERE name = ?1 AND (id IS NOT NULL OR ?2 IS NULL)) \
         AND NOT EXISTS (SELECT 1 FROM remembered WHERE id = ?2 OR (name = ?1 AND ?2 IS NULL))";
    let is_news = db.first(is_news, params![name, id], |row| row.get::<_, bool>(0))?;
    if line.dropped || is_news != Some(true) {
        db.run("DELETE FROM map_line WHERE name = ?1", [name])?;
        return Ok(());
    }
    let others = "DELETE FROM map_line WHERE name = ?1 OR id = ?2";
    db.run(others, params![name, id])?;
    let sql = "INSERT INTO map_line (name, id, line) VALUES (?1, ?2, ?3)";
    db.run(
        sql,
        params![name, id, std::str::from_utf8(text).unwrap_or_default()],
    )?;
    Ok(())
}

/// Gives a row its name or its id back, where one of the two can no longer be read and the file knows it.
fn mend(db: &Db, line: &IdLine) -> Outcome<()> {
    let name = line.name.as_str();
    let Some(id) = line.id.as_ref().map(IdentityId::as_str) else {
        return Ok(());
    };
    let sql = "SELECT num, name, id FROM identity WHERE name = ?1 OR id = ?2";
    let (mut hidden, mut others) = (None, 0);
    db.conn.each(sql, [name, id], None, |row| {
        let named = db::parsed::<Name>(row, "name");
        let known = db::maybe_parsed::<IdentityId>(row, "id");
        match (named, known) {
            (Err(_), _) | (_, Err(_)) => hidden = Some(row.get::<_, i64>("num")?),
            (Ok(_), Ok(_)) => others += 1,
        }
        Ok(true)
    })?;
    if let Some(num) = hidden.filter(|_| others == 0) {
        tracing::warn!(
            name,
            id,
            "the name or the id of a row could not be read; it has it back from identities.jsonl"
        );
        let sql = update_identities("SET name = ?2, id = ?3 WHERE num = ?1");
        db.run(&sql, params![num, name, id])?;
    }
    Ok(())
}

fn read_line(row: &sql::Row<'_>) -> sql::Result<IdLine> {
    let kept = match row.get::<_, bool>("let_go")? {
        true => Kept::default(),
        false => read_kept(row)?,
    };
    let line = read_remembered(row)?;
    Ok(IdLine { kept, ..line })
}

fn read_kept(row: &sql::Row<'_>) -> sql::Result<Kept> {
    let origin: Origin = db::word(row, "origin")?;
    let declaration = row.get_ref("wish")?.as_str().unwrap_or_default();
    Kept::of(origin, || Declaration::parse(declaration))
        .map_err(|e| SqlError::unreadable("wish", e))
}

/// The same without a declaration, as the rows of `remembered` are.
pub(super) fn read_remembered(row: &sql::Row<'_>) -> sql::Result<IdLine> {
    Ok(IdLine {
        name: db::parsed(row, "name")?,
        resource: db::parsed(row, "resource")?,
        id: db::maybe_parsed(row, "id")?,
        created_at: db::instant_in(row, "created_at")?,
        dropped: false,
        kept: Kept::default(),
    })
}

/// Remembers an id that the store does not hold; what the store says of a name or an id goes first.
pub(super) fn remember_unknown(db: &Db, line: &IdLine) -> Outcome<()> {
    let Some(id) = &line.id else { return Ok(()) };
    db.run(
        "INSERT INTO remembered (name, resource, id, created_at) SELECT ?1, ?2, ?3, ?4 \
         WHERE NOT EXISTS (SELECT 1 FROM identity WHERE id = ?3) \
         AND NOT EXISTS (SELECT 1 FROM identity WHERE name = ?1 AND id IS NOT NULL) \
         AND NOT EXISTS (SELECT 1 FROM remembered WHERE id = ?3) \
         ON CONFLICT DO NOTHING",
        params![
            line.name.as_str(),
            line.resource.as_str(),
            id.as_str(),
            db::micros(line.created_at)
        ],
    )?;
    Ok(())
}

/// A sum over lines that does not depend on their order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Sum {
    lines: usize,
    sum: u128,
}

impl Sum {
    fn add(&mut self, text: &[u8]) {
        let digest: [u8; 32] = Sha256::digest(text).into();
        let (half, _) = digest.split_first_chunk::<16>().unwrap_or((&[0; 16], &[]));
        self.lines += 1;
        self.sum = self.sum.wrapping_add(u128::from_le_bytes(*half));
    }
}
