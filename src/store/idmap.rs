//! `identities.jsonl`, beside the store: which name has which id at ACS, without secrets. It outlives
//! the database, so that a lost or old one never makes a new person of an old name.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{self, BufRead as _, BufReader, BufWriter, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use rusqlite::params;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    aside::{RowKind, is_unreadable},
    columns,
    db::{Db, Effects},
    error::{Fault, Outcome},
};
use crate::model::{IdentityId, Name, ResourceName, Timestamp, without_mark};

/// The name of the map in the state directory.
const FILE: &str = "identities.jsonl";
/// Up to this size the map is written anew with each removal; above, when the daemon cleans up.
const SMALL: u64 = 1 << 20;

/// One line of the map.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdLine {
    /// Our name.
    pub name: Name,
    /// Its resource.
    pub resource: ResourceName,
    /// What ACS calls it.
    pub id: IdentityId,
    /// When renewd first knew of it.
    pub created_at: Timestamp,
}

/// Keeps the file as the store is.
pub(super) struct IdMap {
    path: PathBuf,
    durable: bool,
    behind: bool,
}

/// What the file said when the store was opened.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Names with an id.
    pub(super) known: usize,
    /// Lines that could not be read; the file was kept under another name.
    pub(super) broken: usize,
}

impl IdMap {
    pub(super) fn beside(state_dir: &Path, durable: bool) -> Self {
        Self {
            path: state_dir.join(FILE),
            durable,
            behind: false,
        }
    }

    /// Compares the file with the store: what only the file knows is remembered in the store, and
    /// the file is written anew if it differs.
    pub(super) fn compare(&mut self, db: &Db) -> Outcome<Found> {
        let (mut in_file, mut found) = (Sum::default(), Found::default());
        self.each_line(|line| match line {
            Some(line) => in_file.add(&line),
            None => found.broken += 1,
        })
        .map_err(|e| Fault::Refused(format!("read {}: {e}", self.path.display())))?;
        let mut in_store = Sum::default();
        each_known(db, |line| in_store.add(&line))?;
        if in_file == in_store && found.broken == 0 {
            found.known = in_store.lines;
            return Ok(found);
        }
        if found.broken > 0 {
            let aside = self.path.with_extension("jsonl.broken");
            fs::copy(&self.path, aside)
                .map_err(|e| Fault::Refused(format!("keep {}: {e}", self.path.display())))?;
        }
        let mut result = Ok(());
        self.each_line(|line| {
            if let (Some(line), Ok(())) = (line, &result) {
                result = mend(db, &line).and_then(|()| remember_unknown(db, &line));
            }
        })
        .map_err(|e| Fault::Refused(format!("read {}: {e}", self.path.display())))?;
        result?;
        self.behind = true;
        found.known = 0;
        each_known(db, |_| found.known += 1)?;
        Ok(found)
    }

    /// Takes a commit's changes into the file.
    pub(super) fn follow(&mut self, db: &Db, effects: &Effects) {
        if !effects.ids.is_empty()
            && let Err(error) = self.append(&effects.ids)
        {
            self.failed(&error);
        }
        if effects.ids_removed {
            self.behind = true;
            let size = fs::metadata(&self.path).map_or(0, |m| m.len());
            if size <= SMALL {
                self.catch_up(db);
            }
        }
        if effects.cleaned {
            self.catch_up(db);
        }
    }

    /// Writes the file anew if it is behind.
    pub(super) fn catch_up(&mut self, db: &Db) {
        if self.behind {
            match self.rewrite(db) {
                Ok(()) => self.behind = false,
                Err(error) => self.failed(&error),
            }
        }
    }

    /// The store changed beside it: it is to be written anew.
    pub(super) fn fall_behind(&mut self) {
        self.behind = true;
    }

    fn failed(&mut self, error: &io::Error) {
        // The store itself holds the ids; the next clean-up or start writes the file anew.
        self.behind = true;
        tracing::error!(path = %self.path.display(), %error, "the map of names to ids could not be written");
    }

    fn append(&self, lines: &[IdLine]) -> io::Result<()> {
        let mut text = Vec::new();
        for line in lines {
            write_line(&mut text, line)?;
        }
        let mut file = private().append(true).create(true).open(&self.path)?;
        file.write_all(&text)?;
        self.sync(&file)
    }

    fn rewrite(&self, db: &Db) -> io::Result<()> {
        let new = self.path.with_extension("jsonl.new");
        let file = private()
            .write(true)
            .create(true)
            .truncate(true)
            .open(&new)?;
        let mut out = BufWriter::new(file);
        let mut result = Ok(());
        let hidden = each_known(db, |line| {
            if result.is_ok() {
                result = write_line(&mut out, &line);
            }
        })
        .map_err(|fault| io::Error::other(format!("{fault:?}")))?;
        result?;
        let mut result = Ok(());
        self.each_line(|line| {
            let kept = line.filter(|line| hidden.concerns(line));
            if let (Some(line), Ok(())) = (kept, &result) {
                result = write_line(&mut out, &line);
            }
        })?;
        result?;
        let file = out.into_inner().map_err(|e| e.into_error())?;
        self.sync(&file)?;
        fs::rename(&new, &self.path)?;
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

    /// Each line; `None` for one that cannot be read. A missing file has none.
    fn each_line(&self, mut see: impl FnMut(Option<IdLine>)) -> io::Result<()> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(e),
        };
        for line in BufReader::new(file).split(b'\n') {
            let line = line?;
            if !line.trim_ascii().is_empty() {
                see(serde_json::from_slice(without_mark(&line)).ok());
            }
        }
        Ok(())
    }
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

fn write_line(out: &mut impl io::Write, line: &IdLine) -> io::Result<()> {
    serde_json::to_writer(&mut *out, line)?;
    out.write_all(b"\n")
}

/// What can be read of rows that cannot be read as a whole: their lines in the file stay.
#[derive(Debug, Default)]
struct Hidden {
    words: BTreeSet<String>,
}

impl Hidden {
    fn keep(&mut self, row: &rusqlite::Row<'_>) {
        for column in ["name", "id"] {
            self.words.extend(row.get::<_, String>(column).ok());
        }
    }

    fn concerns(&self, line: &IdLine) -> bool {
        self.words.contains(line.name.as_str()) || self.words.contains(line.id.as_str())
    }
}

/// Every name whose id the store knows.
fn each_known(db: &Db, mut see: impl FnMut(IdLine)) -> Outcome<Hidden> {
    let mut hidden = Hidden::default();
    let mut statement = db.conn.prepare_cached(
        "SELECT i.num, i.name, r.name AS resource, i.id, i.created_at FROM identity i \
         LEFT JOIN resource r ON r.num = i.resource WHERE i.id IS NOT NULL AND (i.state <> 'deleted' OR i.removed = 2) \
         UNION ALL SELECT NULL, name, resource, id, created_at FROM remembered",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        match read_line(row) {
            Ok(line) => see(line),
            Err(error) if is_unreadable(&error) => {
                db.aside.note(RowKind::Identity, row, &error);
                hidden.keep(row);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(hidden)
}

/// Gives a row its name or its id back, where one of the two can no longer be read and the file knows it.
fn mend(db: &Db, line: &IdLine) -> Outcome<()> {
    let (name, id) = (line.name.as_str(), line.id.as_str());
    let sql = "SELECT num, name, id FROM identity WHERE name = ?1 OR id = ?2";
    let mut statement = db.conn.prepare_cached(sql)?;
    let mut rows = statement.query([name, id])?;
    let (mut hidden, mut others) = (None, 0);
    while let Some(row) = rows.next()? {
        let named = columns::parsed::<Name>(row, "name");
        let known = columns::maybe_parsed::<IdentityId>(row, "id");
        match (named, known) {
            (Err(_), _) | (_, Err(_)) => hidden = Some(row.get::<_, i64>("num")?),
            (Ok(_), Ok(_)) => others += 1,
        }
    }
    if let Some(num) = hidden.filter(|_| others == 0) {
        tracing::warn!(
            name,
            id,
            "the name or the id of a row could not be read; it has it back from identities.jsonl"
        );
        let sql = "UPDATE identity SET name = ?2, id = ?3 WHERE num = ?1";
        db.run(sql, params![num, name, id])?;
    }
    Ok(())
}

pub(super) fn read_line(row: &rusqlite::Row<'_>) -> rusqlite::Result<IdLine> {
    Ok(IdLine {
        name: columns::parsed(row, "name")?,
        resource: columns::parsed(row, "resource")?,
        id: columns::parsed(row, "id")?,
        created_at: columns::instant_in(row, "created_at")?,
    })
}

/// Remembers a line that the store does not hold; what the store says of a name or an id goes first.
pub(super) fn remember_unknown(db: &Db, line: &IdLine) -> Outcome<()> {
    db.run(
        "INSERT INTO remembered SELECT ?1, ?2, ?3, ?4 \
         WHERE NOT EXISTS (SELECT 1 FROM identity WHERE id = ?3) \
         AND NOT EXISTS (SELECT 1 FROM identity WHERE name = ?1 AND id IS NOT NULL) \
         AND NOT EXISTS (SELECT 1 FROM remembered WHERE id = ?3) \
         ON CONFLICT DO NOTHING",
        params![
            line.name.as_str(),
            line.resource.as_str(),
            line.id.as_str(),
            columns::micros(line.created_at)
        ],
    )?;
    Ok(())
}

/// A sum over lines that does not depend on their order.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sum {
    lines: usize,
    sum: u128,
}

impl Sum {
    fn add(&mut self, line: &IdLine) {
        let mut text = Vec::new();
        // Writing into memory cannot fail.
        write_line(&mut text, line).ok();
        let digest: [u8; 32] = Sha256::digest(&text).into();
        let (half, _) = digest.split_first_chunk::<16>().unwrap_or((&[0; 16], &[]));
        self.lines += 1;
        self.sum = self.sum.wrapping_add(u128::from_le_bytes(*half));
    }
}
