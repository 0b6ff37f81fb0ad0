//! A list of identities as it is held by whoever reads it, how it differs from the last one, and the stamps of
//! files that tell that it may have changed without reading it.
//!
//! Every row stands by its name, in the order of names, so that the reader of the rows needs no more memory for
//! a million than for one: a row is kept as one line of JSON in one long text; what else is known of it takes 32
//! bytes. Rows that stand against each other (one name twice, one id under two names) become refused ones here,
//! because only here all rows are seen.
//!
//! A row is an identity as it is wanted, within what the configuration lets a list grant. A row that
//! asks for more is refused, never cut to what is allowed: who gets less than the list says would not notice.

use std::{
    borrow::Cow,
    fs::Metadata,
    hash::{BuildHasher as _, RandomState},
    io::{self, BufRead, BufReader, Cursor, Read},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::{
    task::{JoinError, JoinHandle},
    time::timeout,
};

use super::SourceError;
use crate::{
    config::{MaxRemoval, SourceSettings},
    model::{
        Entry, EntryError, Fields, Name, NotText, Origin, RefusedRow, Scope, Spec, is_utf16,
        one_line, short_duration, without_mark,
    },
    pool,
};

/// Within so long of a change a file may change again without a new time: the clocks of file systems are
/// that coarse (vfat counts in steps of 2 s).
const COARSE: i64 = 2;
/// A look at a file takes no longer, unless its file system hangs.
const LOOK: Duration = Duration::from_secs(10);

/// What tells one content of a path from another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    written: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            written: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

impl Stamp {
    /// Only what writing changes: SQLite, run by root, gives a `-wal` to its owner whenever it opens it.
    fn of_writing(self) -> Self {
        Self {
            changed: self.written,
            ..self
        }
    }
}

/// The stamps of a list: of the file, and of the database's `-wal` beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stamps {
    main: Stamp,
    wal: Option<Stamp>,
}

impl Stamps {
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let main = std::fs::metadata(path)?;
        if !main.is_file() {
            return Err(not_a_file());
        }
        let wal = std::fs::metadata(beside(path, "-wal"));
        Ok(Self {
            main: Stamp::of(&main),
            wal: wal.ok().map(|wal| Stamp::of(&wal).of_writing()),
        })
    }

    /// Which file it is, whatever it holds.
    pub(super) fn file(&self) -> String {
        format!("{}:{}", self.main.device, self.main.inode)
    }

    /// Whether the files may have changed since without the stamps showing it.
    pub(super) fn is_young(&self, now: Timestamp) -> bool {
        let youngest = [Some(&self.main), self.wal.as_ref()].into_iter().flatten();
        let youngest = youngest
            .map(|stamp| stamp.changed.0.max(stamp.written.0))
            .max();
        youngest.is_none_or(|changed| changed >= now.as_second() - COARSE)
    }
}

/// A file beside a database.
pub(super) fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

fn not_a_file() -> io::Error {
    io::Error::other("it is not a regular file")
}

/// Takes stamps without ever being stuck: a look that hangs is left to itself, and no other begins before
/// it ended.
#[derive(Debug, Default)]
pub(super) struct Looker(Option<JoinHandle<Result<io::Result<Stamps>, JoinError>>>);

impl Looker {
    /// The stamps of a path, taken in place under simulated time.
    pub(super) async fn look(&mut self, path: &Path, inline: bool) -> io::Result<Stamps> {
        if inline {
            return Stamps::of(path);
        }
        let path = path.to_owned();
        let under_way = self
            .0
            .get_or_insert_with(|| tokio::spawn(pool::LISTS.run(move || Stamps::of(&path))));
        match timeout(LOOK, under_way).await {
            Ok(ended) => {
                self.0 = None;
                let ended = ended.and_then(|ended| ended);
                ended.unwrap_or_else(|error| Err(io::Error::other(error)))
            }
            Err(_) => Err(io::Error::other(
                "the file system does not answer; it is tried again",
            )),
        }
    }
}

/// The most rows that a source may list.
const MOST_ROWS: u32 = 1_000_000;
/// The most that its rows may take.
const MOST_BYTES: usize = 256 << 20;
/// At most so many rows without a name are kept for people's eyes.
const SHOWN: usize = 1000;
/// The twin of a row that has none.
const ALONE: u32 = u32::MAX;

/// What is known of a list before its rows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Rows that were read.
    pub rows: u64,
    /// How many of them have no name that can be read: who stands there, nobody knows.
    pub unnamed: u64,
    /// The first of those.
    pub shown: Vec<RefusedRow>,
    /// How many have a name that no identity can have: nobody stands there.
    pub invalid: u64,
    /// The first of those.
    pub nobodies: Vec<RefusedRow>,
}

/// A row of a list, as it comes out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ListItem {
    /// What a row says.
    Row(u64, Box<Entry>),
    /// A row that cannot be an identity, and has a name.
    Refused(RefusedRow),
}

/// Rows, in the order of their names.
#[derive(Debug, Default)]
pub(super) struct List {
    pub(super) head: Head,
    text: Vec<u8>,
    places: Vec<Place>,
    twins: Vec<String>,
}

/// Where a row stands in the text, and what is known of it.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// Its name begins here, its JSON after the name.
    start: usize,
    json: u32,
    name: u8,
    number: u32,
    /// How many rows have its name.
    times: u32,
    /// Why its id cannot be its own.
    twin: u32,
}

/// A list that is being read.
#[derive(Debug)]
pub(super) struct Collector {
    what: String,
    list: List,
    ids: Vec<(u64, u64, u32)>,
    hashers: (RandomState, RandomState),
}

impl Collector {
    /// For the list of this file or program.
    pub(super) fn new(what: String) -> Self {
        Self {
            what,
            list: List::default(),
            ids: Vec::new(),
            hashers: (RandomState::new(), RandomState::new()),
        }
    }

    /// Takes a row.
    ///
    /// # Errors
    /// When there are more than a source may list.
    pub(super) fn push(
        &mut self,
        number: u64,
        row: Result<Entry, EntryError>,
    ) -> Result<(), SourceError> {
        let list = &mut self.list;
        list.head.rows += 1;
        if list.head.rows > u64::from(MOST_ROWS) {
            return Err(self.too_long("1,000,000 rows"));
        }
        let (name, item) = match row {
            Ok(entry) => {
                if let Some(id) = &entry.id {
                    let (one, other) = &self.hashers;
                    let row = u32::try_from(list.places.len()).unwrap_or(ALONE);
                    let id = id.as_str();
                    self.ids.push((one.hash_one(id), other.hash_one(id), row));
                }
                (entry.name.clone(), ListItem::Row(number, Box::new(entry)))
            }
            Err(error) => {
                let is_nobody = error.is_nobody;
                let row = RefusedRow {
                    number,
                    name: error.name,
                    reason: one_line(&error.reason).into_owned(),
                };
                let Some(name) = row.name.clone() else {
                    let head = &mut list.head;
                    let (count, shown) = match is_nobody {
                        true => (&mut head.invalid, &mut head.nobodies),
                        false => (&mut head.unnamed, &mut head.shown),
                    };
                    *count += 1;
                    if shown.len() < SHOWN {
                        shown.push(row);
                    }
                    return Ok(());
                };
                (name, ListItem::Refused(row))
            }
        };
        let start = list.text.len();
        list.text.extend_from_slice(name.as_str().as_bytes());
        let json = list.text.len();
        // Plain data of strings and numbers can always be written.
        serde_json::to_writer(&mut list.text, &item).ok();
        list.places.push(Place {
            start,
            json: u32::try_from(list.text.len() - json).unwrap_or_default(),
            name: u8::try_from(name.as_str().len()).unwrap_or_default(),
            number: u32::try_from(number).unwrap_or_default(),
            times: 1,
            twin: ALONE,
        });
        if list.text.len() > MOST_BYTES {
            return Err(self.too_long("256 MiB of rows"));
        }
        Ok(())
    }

    fn too_long(&self, most: &str) -> SourceError {
        SourceError::Long {
            what: self.what.clone(),
            most: most.to_owned(),
        }
    }

    /// The list, in the order of names.
    pub(super) fn finish(mut self) -> List {
        self.mark_twins();
        let List { text, places, .. } = &mut self.list;
        places.sort_unstable_by(|a, b| (a.name(text), a.number).cmp(&(b.name(text), b.number)));
        let mut at = 0;
        while at < places.len() {
            let name = places[at].name(text);
            let same = places[at..]
                .iter()
                .take_while(|place| place.name(text) == name);
            let count = same.count();
            for place in &mut places[at..at + count] {
                place.times = u32::try_from(count).unwrap_or(u32::MAX);
            }
            at += count;
        }
        self.list
    }

    /// Finds ids that stand under more than one name; nobody can say which row is right.
    fn mark_twins(&mut self) {
        let List {
            text,
            places,
            twins,
            ..
        } = &mut self.list;
        self.ids.sort_unstable();
        for same in self.ids.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)) {
            if same.len() == 1 {
                continue;
            }
            let mut names: Vec<&[u8]> = same
                .iter()
                .filter_map(|(.., row)| Some(places.get(*row as usize)?.name(text)))
                .collect();
            names.sort_unstable();
            names.dedup();
            if names.len() == 1 {
                continue;
            }
            let some: Vec<_> = names
                .iter()
                .take(3)
                .map(|name| String::from_utf8_lossy(name))
                .collect();
            let reason = some.join(", ");
            for (.., row) in same {
                if let Some(place) = places.get_mut(*row as usize) {
                    place.twin = u32::try_from(twins.len()).unwrap_or(ALONE);
                }
            }
            twins.push(reason);
        }
    }
}

impl Place {
    fn name<'a>(&self, text: &'a [u8]) -> &'a [u8] {
        &text[self.start..self.start + usize::from(self.name)]
    }
}

impl List {
    /// The row at a place in the order of names, as a line of JSON; `None` after the last.
    pub(super) fn line(&self, at: usize) -> Option<Cow<'_, [u8]>> {
        let place = self.places.get(at)?;
        let json = place.start + usize::from(place.name);
        let json = &self.text[json..json + place.json as usize];
        let name = String::from_utf8_lossy(place.name(&self.text));
        let reason = if place.times > 1 {
            format!("the name {name} stands in {} rows", place.times)
        } else if let Some(names) = self.twins.get(place.twin as usize) {
            let id = match serde_json::from_slice(json) {
                Ok(ListItem::Row(_, entry)) => {
                    entry.id.map_or_else(String::new, |id| id.to_string())
                }
                _ => String::new(),
            };
            format!("the id {id} stands under more than one name: {names}")
        } else {
            return Some(Cow::Borrowed(json));
        };
        let refused = ListItem::Refused(RefusedRow {
            number: u64::from(place.number),
            name: name.parse::<Name>().ok(),
            reason,
        });
        Some(Cow::Owned(serde_json::to_vec(&refused).unwrap_or_default()))
    }
}

/// The most that is read.
const LARGEST: u64 = 512 << 20;
/// The longest line that is read.
const LONGEST: u64 = 1 << 20;
/// So much of the beginning says how a text is written.
const START: u64 = 64;

/// Takes every line that is not empty, with its number.
pub(super) fn rows(
    mut from: impl Read,
    what: &str,
    list: &mut Collector,
) -> Result<(), SourceError> {
    let failed = |error: std::io::Error| SourceError::Program {
        program: what.to_owned(),
        reason: error.to_string(),
    };
    let mut start = Vec::new();
    from.by_ref()
        .take(START)
        .read_to_end(&mut start)
        .map_err(failed)?;
    if is_utf16(&start) {
        return Err(SourceError::Program {
            program: what.to_owned(),
            reason: NotText::Utf16.to_string(),
        });
    }
    let start = Cursor::new(without_mark(&start));
    let mut lines = BufReader::with_capacity(1 << 16, start.chain(from)).take(LARGEST + 1);
    let (mut number, mut line) = (0, Vec::new());
    loop {
        line.clear();
        let read = lines
            .by_ref()
            .take(LONGEST)
            .read_until(b'\n', &mut line)
            .map_err(failed)?;
        if lines.limit() == 0 {
            return Err(SourceError::Long {
                what: what.to_owned(),
                most: "512 MiB".to_owned(),
            });
        }
        if read == 0 {
            return Ok(());
        }
        number += 1;
        if read as u64 == LONGEST && !line.ends_with(b"\n") {
            lines.skip_until(b'\n').map_err(failed)?;
            list.push(number, Err(wrong("it is longer than 1 MiB".to_owned())))?;
        } else if !line.trim_ascii().is_empty() {
            list.push(number, row(line.trim_ascii()))?;
        }
    }
}

fn row(line: &[u8]) -> Result<Entry, EntryError> {
    let fields = Fields::read(line).map_err(|error| {
        let why = match (line.first(), line.last()) {
            (Some(b'['), _) | (_, Some(b']')) => {
                "it belongs to a JSON array, and one object a line is wanted".to_owned()
            }
            (Some(b'{'), Some(b',')) => {
                "a comma follows it, and one object a line without any is wanted".to_owned()
            }
            (Some(b'{'), _) if error.is_eof() => "its end is missing".to_owned(),
            // The message says what was expected and where; it repeats nothing of the line.
            _ => error.to_string(),
        };
        wrong(format!("it is not a JSON object: {why}"))
    })?;
    Entry::of_object(&fields)
}

fn wrong(reason: String) -> EntryError {
    EntryError::nameless(reason)
}

/// The identity that a row asks for.
///
/// # Errors
/// Why it cannot be one.
pub(super) fn spec(entry: Entry, settings: &SourceSettings) -> Result<Spec, String> {
    if entry.renew_at.is_some() || entry.spread.is_some() || entry.dropped {
        return Err(
            "renew_at and spread are for the configuration to say, not for a row".to_owned(),
        );
    }
    if entry.sinks.is_some() || entry.on_removal.is_some() {
        return Err(
            "sinks and on_removal are for the configuration to say, not for a row".to_owned(),
        );
    }
    if entry
        .resource
        .as_ref()
        .is_some_and(|resource| *resource != settings.resource)
    {
        return Err(format!(
            "this source is for the resource {}",
            settings.resource
        ));
    }
    within_bounds(&entry, settings)?;
    let name = entry.name.clone();
    let declared = settings.rows.clone().said(entry);
    if declared.scopes.is_empty() {
        return Err("it says no scopes, and neither does the source".to_owned());
    }
    Ok(Spec {
        name,
        resource: settings.resource.clone(),
        declared,
        origin: Origin::Source(settings.name.clone()),
    })
}

/// Whether a row asks for no more than a list may grant.
fn within_bounds(entry: &Entry, settings: &SourceSettings) -> Result<(), String> {
    let (scopes, readers) = (
        entry.scopes.iter().flatten(),
        entry.readers.iter().flatten(),
    );
    if let Some(most) = &settings.max_scopes {
        let beyond: Vec<&str> = scopes
            .filter(|scope| !most.contains(scope))
            .map(|scope| Scope::as_str(*scope))
            .collect();
        if !beyond.is_empty() {
            return Err(format!(
                "it asks for the scopes {}, which max_scopes does not let this source grant",
                beyond.join(" ")
            ));
        }
    }
    if let Some(most) = &settings.max_readers
        && let Some(beyond) = readers.into_iter().find(|reader| !most.contains(reader))
    {
        return Err(format!(
            "it asks for the reader {beyond}, which max_readers does not let this source grant"
        ));
    }
    let lifetime = entry.lifetime_seconds.map(Duration::from_secs);
    match (lifetime, settings.max_lifetime) {
        (Some(asked), Some(most)) if asked > most => Err(format!(
            "it asks for a lifetime of {}, and max_lifetime lets this source grant {}",
            short_duration(asked),
            short_duration(most)
        )),
        _ => Ok(()),
    }
}

/// What differs between the last list and a new one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Difference {
    pub added: u64,
    pub changed: u64,
    /// Names that are no longer listed, not even in a refused row.
    pub removed: u64,
    /// Rows that are as they were.
    pub unchanged: u64,
}

impl Difference {
    /// Why a person has to say yes before anything of this is taken over, if so. `listed` is how many rows
    /// there are now, `wrong` the first that was refused, `replaced` whether they come from another file
    /// than before.
    pub fn blocked(
        &self,
        listed: u64,
        wrong: Option<&RefusedRow>,
        replaced: bool,
    ) -> Option<String> {
        let removed = self.removed;
        let known = removed + self.changed + self.unchanged;
        if removed == 0 {
            return None;
        }
        if listed == 0 {
            return Some(format!("it is empty, and listed {known} before"));
        }
        if self.added + self.changed + self.unchanged == 0 {
            return Some(format!(
                "not one of its {listed} rows can be an identity, and it listed {known} before{}",
                wrong.map_or_else(String::new, |row| format!(
                    " (row {}: {})",
                    row.number, row.reason
                ))
            ));
        }
        replaced.then(|| {
            format!(
                "the file was replaced by another one, in which {removed} of {known} are missing"
            )
        })
    }

    /// Why so many may not go without a person's word, if so.
    pub fn removes_too_many(&self, most: MaxRemoval) -> Option<String> {
        let removed = self.removed;
        let known = removed + self.changed + self.unchanged;
        // Both are counts of rows, far below where a float rounds.
        #[expect(
            clippy::cast_precision_loss,
            reason = "rows are counted in millions at most"
        )]
        let too_large_a_share = removed as f64 > most.share * known as f64;
        (removed > most.count && too_large_a_share).then(|| {
            format!(
                "{removed} of {known} are missing, more than max_removal allows (a share of {}, or {})",
                most.share, most.count
            )
        })
    }
}

/// What tells two rows apart: everything that is wished of the identity.
pub fn digest(spec: &Spec) -> [u8; 16] {
    let wished = (&spec.name, &spec.resource, &spec.origin, &spec.declared);
    let text = serde_json::to_vec(&wished).unwrap_or_default();
    let whole: [u8; 32] = Sha256::digest(&text).into();
    whole.first_chunk().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{super::list::List, *};

    fn list(text: &[u8]) -> Result<List, SourceError> {
        let mut list = Collector::new("a".to_owned());
        rows(text, "a", &mut list)?;
        Ok(list.finish())
    }

    #[test]
    fn a_mark_is_skipped_and_what_is_no_row_is_explained() {
        let good = list("\u{feff}{\"name\":\"b\"}\r\n\n{\"name\":\"a\"}".as_bytes()).unwrap();
        assert_eq!((good.head.rows, good.head.unnamed), (2, 0));
        assert_eq!(&*good.line(0).unwrap(), b"{\"row\":[3,{\"name\":\"a\"}]}");
        for (text, word) in [
            (&b"{\"name\":\"a\"},\n"[..], "a comma follows it"),
            (b"[\n", "a JSON array"),
            (b"{\"name\":\"a\"", "its end is missing"),
            (b"{\"name\":null}", "its name is not a text"),
            (b"{\"name\":\"a\",\"name\":\"b\"}", "stands there twice"),
            (b"{\"name\":\"\xc2\xa0a\"}", "is not valid"),
        ] {
            let list = list(text).unwrap();
            assert_eq!(list.head.unnamed, 1);
            assert!(list.head.shown[0].reason.contains(word), "{:?}", list.head);
        }
        let strange = list(b"{\"name\":\"../x\"}\n{\"name\":\"a\"}\n").unwrap();
        assert_eq!(
            (
                strange.head.rows,
                strange.head.unnamed,
                strange.head.invalid
            ),
            (2, 0, 1)
        );
        let said = &strange.head.nobodies[0];
        assert!(
            said.number == 1 && said.reason.contains("\"../x\""),
            "{said:?}"
        );
        let long = [&b"x".repeat(3 << 20)[..], b"\n{\"name\":\"a\"}\n"].concat();
        let long = list(&long).unwrap();
        assert_eq!((long.head.rows, long.head.shown[0].number), (2, 1));
        let error = list(b"\xff\xfe{\0\"\0").unwrap_err();
        assert!(error.to_string().contains("UTF-16"), "{error}");
    }

    #[test]
    fn rows_come_in_the_order_of_names_and_twins_are_refused() {
        let text = b"{\"name\":\"d\",\"id\":\"8:acs:1\"}\n{\"name\":\"c\"}\n{\"name\":\"b\",\"id\":\"8:acs:1\"}\n\
                     {\"name\":\"c\"}\n{\"name\":\"a\",\"scopes\":\"x\"}\n";
        let list = list(text).unwrap();
        let lines: Vec<String> = (0..)
            .map_while(|at| Some(String::from_utf8(list.line(at)?.into_owned()).unwrap()))
            .collect();
        let wanted = [
            ("\"a\"", "\"x\""),
            ("\"b\"", "8:acs:1 stands under more than one name: b, d"),
            ("\"c\"", "stands in 2 rows"),
            ("\"c\"", "stands in 2 rows"),
            ("\"d\"", "b, d"),
        ];
        assert_eq!(lines.len(), wanted.len());
        for (line, (name, reason)) in lines.iter().zip(wanted) {
            assert!(line.contains("refused") && line.contains(name), "{line}");
            assert!(line.contains(reason) || reason == "\"x\"", "{line}");
        }
    }
}
