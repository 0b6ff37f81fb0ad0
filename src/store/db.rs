//! One connection and one transaction on it, and how words and times lie in columns: what this room is written on.

use std::{
    borrow::Cow,
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    ops::Deref,
    str::FromStr,
    sync::Arc,
};

use serde::{
    Deserialize, Serialize,
    de::{DeserializeOwned, value::StrDeserializer},
};

use super::{
    aside::{Aside, RowKind},
    error::{Fault, INSTEAD_OF_BACKUPS, Outcome},
    seal::Seal,
    withdrawals::Fact,
};
use crate::{
    model::{
        Attempt, Attempts, CampaignId, IdLine, IdentityId, Kind, Name, NodeName, Num, SinkAt,
        State, Timestamp, Version,
    },
    sql::{self, Column, Connection, FromSql, Params, Row, SqlError, ToSql, ValueRef},
};

/// A connection with what its verbs need.
pub(super) struct Db {
    pub(super) conn: Connection,
    pub(super) seal: Arc<Seal>,
    /// Rows that cannot be read.
    pub(super) aside: Arc<Aside>,
    /// Versions begin above this one.
    pub(super) floor: Cell<u64>,
    /// Which machine of a cluster uses it; none where nobody else does.
    pub(super) node: Option<NodeName>,
    /// The epoch of who leads, while a transaction of a shared store goes on; else 0.
    pub(super) epoch: Cell<u64>,
    /// What the clock of the database says, where it has none of its own: set by whoever asks.
    pub(super) clock: Cell<Timestamp>,
    /// Statements that were run, and rows that were read of those that a page is made of.
    #[cfg(test)]
    pub(super) statements: Cell<usize>,
    #[cfg(test)]
    pub(super) rows: Cell<usize>,
}

impl Db {
    /// With what all connections of a store share.
    pub(super) fn on(
        conn: Connection,
        (seal, aside): (Arc<Seal>, Arc<Aside>),
        node: Option<NodeName>,
    ) -> Self {
        Self {
            node,
            conn,
            seal,
            aside,
            floor: Cell::default(),
            epoch: Cell::default(),
            clock: Cell::default(),
            #[cfg(test)]
            statements: Cell::default(),
            #[cfg(test)]
            rows: Cell::default(),
        }
    }

    /// What the column `node` holds of what is this machine's own.
    pub(super) fn node(&self) -> &str {
        self.node.as_ref().map_or("", NodeName::as_str)
    }

    /// Whether other machines write to it as well.
    pub(super) fn is_shared(&self) -> bool {
        self.node.is_some()
    }

    /// The file that it is, for what only a file can.
    pub(super) fn file(&self) -> Outcome<&rusqlite::Connection> {
        self.conn.file().ok_or_else(|| {
            Fault::Refused(format!(
                "the store lies in PostgreSQL: {INSTEAD_OF_BACKUPS}"
            ))
        })
    }

    /// Runs one statement; how many rows it changed.
    pub(super) fn run(&self, sql: &str, params: impl Params) -> sql::Result<usize> {
        self.count_statement();
        self.conn.execute(sql, params)
    }

    /// Runs one statement of a transaction where it does not matter how many rows it changes; an error of it may be told
    /// by a later one ([`Connection::send`]).
    pub(super) fn send(&self, sql: &str, params: impl Params) -> sql::Result<()> {
        self.count_statement();
        self.conn.send(sql, params)
    }

    /// The first row, if there is one.
    pub(super) fn first<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> sql::Result<T>,
    ) -> sql::Result<Option<T>> {
        self.count_statement();
        self.conn.first(sql, params, read)
    }

    /// Every row, where none can be such that it cannot be read.
    pub(super) fn every<T>(
        &self,
        sql: &str,
        params: impl Params,
        mut read: impl FnMut(&Row<'_>) -> sql::Result<T>,
    ) -> sql::Result<Vec<T>> {
        self.count_statement();
        let mut found = Vec::new();
        self.conn.each(sql, params, None, |row| {
            found.push(read(row)?);
            Ok(true)
        })?;
        Ok(found)
    }

    fn count_statement(&self) {
        #[cfg(test)]
        self.statements.set(self.statements.get() + 1);
    }

    /// The first row, if there is one; one that cannot be read is set aside.
    pub(super) fn one<T>(
        &self,
        kind: RowKind,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> sql::Result<T>,
    ) -> sql::Result<Option<T>> {
        self.first(sql, params, |row| {
            read(row).inspect_err(|error| {
                if error.is_unreadable() {
                    self.aside.note(kind, row, error);
                }
            })
        })
    }

    /// The same, nothing also where the row cannot be read: who tells of many goes on without it.
    pub(super) fn readable_one<T>(
        &self,
        kind: RowKind,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> sql::Result<T>,
    ) -> sql::Result<Option<T>> {
        match self.one(kind, sql, params, read) {
            Err(error) if error.is_unreadable() => Ok(None),
            found => found,
        }
    }

    /// All rows that can be read; the others are set aside.
    pub(super) fn all<T>(
        &self,
        kind: RowKind,
        sql: &str,
        params: impl Params,
        read: impl FnMut(&Row<'_>) -> sql::Result<T>,
    ) -> sql::Result<Vec<T>> {
        self.page(kind, usize::MAX, sql, params, read)
    }

    /// The first `limit` rows that can be read, in the way of [`Db::some`].
    pub(super) fn page<T>(
        &self,
        kind: RowKind,
        limit: usize,
        sql: &str,
        params: impl Params,
        mut read: impl FnMut(&Row<'_>) -> sql::Result<T>,
    ) -> sql::Result<Vec<T>> {
        self.some(kind, limit, sql, params, |row| read(row).map(Some))
    }

    /// The first rows that can be read and are not passed over (`None`), at most `limit`. The query has
    /// no limit of its own and finds its rows in order, so that however many cannot be read, those
    /// behind them are reached, and no more is read than is needed.
    pub(super) fn some<T>(
        &self,
        kind: RowKind,
        limit: usize,
        sql: &str,
        params: impl Params,
        mut read: impl FnMut(&Row<'_>) -> sql::Result<Option<T>>,
    ) -> sql::Result<Vec<T>> {
        self.count_statement();
        let mut found = Vec::new();
        if limit == 0 {
            return Ok(found);
        }
        self.conn.each(
            sql,
            params,
            Some(limit).filter(|limit| *limit < usize::MAX),
            |row| {
                #[cfg(test)]
                self.rows.set(self.rows.get() + 1);
                match read(row) {
                    Ok(one) => found.extend(one),
                    Err(error) if error.is_unreadable() => self.aside.note(kind, row, &error),
                    Err(error) => return Err(error),
                }
                Ok(found.len() < limit)
            },
        )?;
        Ok(found)
    }

    /// Adds a row by a statement that returns its number.
    pub(super) fn number_of_new(&self, sql: &str, params: impl Params) -> sql::Result<Num> {
        let num = self.first(sql, params, |row| row.get(0))?;
        num.ok_or_else(|| sql::SqlError::unreadable("num", "a row was added and has no number"))
    }

    /// The number of a resource; 0, which no row has, when the store has never heard of it.
    pub(super) fn resource_num(&self, name: &str) -> sql::Result<Num> {
        let num = self.first("SELECT num FROM resource WHERE name = ?1", [name], |row| {
            row.get(0)
        })?;
        Ok(num.unwrap_or(0))
    }

    /// The number of a sink; 0 when the store has never heard of it.
    pub(super) fn sink_num(&self, sink: &SinkAt) -> sql::Result<Num> {
        let sql = "SELECT num FROM sink WHERE name = ?1 AND node = ?2";
        let num = self.first(sql, [sink.name().as_str(), node_of(sink)], |row| row.get(0))?;
        Ok(num.unwrap_or(0))
    }
}

/// A change of what consumers should hold, for those who watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// Store-wide and rising; the `id` of the event stream.
    pub seq: u64,
    pub num: Num,
    pub name: Name,
    pub version: Version,
}

/// What a committed operation means to others.
#[derive(Debug, Default)]
pub(super) struct Effects {
    pub(super) due: bool,
    /// `wanted` or versions were raised.
    pub(super) wanted: bool,
    /// A campaign was made.
    pub(super) campaigns: bool,
    /// Versions that changed, in order.
    pub(super) changed: Vec<Changed>,
    /// Rows of which the map has to say something new; said in [`Effects::ids`] once the operation ends.
    pub(super) mapped: BTreeSet<Num>,
    /// New lines of the map.
    pub(super) ids: Vec<IdLine>,
    /// Lines of the map do not count any more.
    pub(super) ids_replaced: bool,
    /// It was a clean-up: time to catch up with what was put off.
    pub(super) cleaned: bool,
    /// Whose withdrawal changed; said in [`Effects::facts`] once the operation ends.
    pub(super) touched: Touched,
    /// What `withdrawn.jsonl` has to say before the commit.
    pub(super) facts: Vec<Fact>,
    /// The highest version that was given out, and whether it ran ahead of the clock.
    pub(super) highest: u64,
    pub(super) ahead: bool,
    /// A person accepted a store of which it was not known what was withdrawn.
    pub(super) accepted: bool,
}

/// Whose withdrawal an operation changed.
#[derive(Debug, Default)]
pub(super) struct Touched {
    /// Rows that were held, released, revoked, deleted, or let go of.
    pub(super) rows: BTreeSet<Num>,
    /// Rows that became items of a campaign.
    pub(super) listed: BTreeSet<Num>,
    /// Items without a row.
    pub(super) ids: BTreeSet<(CampaignId, Num)>,
    pub(super) campaigns: BTreeSet<CampaignId>,
}

impl Touched {
    fn absorb(&mut self, next: Self) {
        self.rows.extend(next.rows);
        self.listed.extend(next.listed);
        self.ids.extend(next.ids);
        self.campaigns.extend(next.campaigns);
    }
}

impl Effects {
    /// Adds those of the next operation, or of the next part of one.
    pub(super) fn absorb(&mut self, next: Self) {
        self.due |= next.due;
        self.wanted |= next.wanted;
        self.campaigns |= next.campaigns;
        self.changed.extend(next.changed);
        self.mapped.extend(next.mapped);
        self.ids.extend(next.ids);
        self.ids_replaced |= next.ids_replaced;
        self.cleaned |= next.cleaned;
        self.touched.absorb(next.touched);
        self.facts.extend(next.facts);
        self.highest = self.highest.max(next.highest);
        self.ahead |= next.ahead;
        self.accepted |= next.accepted;
    }
}

/// What a decision about a row depends on.
#[derive(Debug, Clone)]
pub(super) struct CurrentRow {
    pub(super) num: Num,
    pub(super) name: Name,
    pub(super) resource: Num,
    pub(super) state: State,
    pub(super) id: Option<IdentityId>,
    pub(super) version: Version,
    pub(super) next_kind: Kind,
    pub(super) due_at: Option<i64>,
    pub(super) due_why: Option<String>,
    pub(super) minted_by: Option<String>,
    pub(super) revoked_at: Option<i64>,
    pub(super) asked_at: Option<i64>,
    pub(super) attempts: PackedAttempts,
    /// Whether it has failed, or people were told that it is late, since its last token.
    pub(super) marked: bool,
    /// Whether no sink takes its tokens.
    pub(super) by_socket: bool,
    /// When its token is to be renewed, and from when on that is late.
    pub(super) renews_at: Option<i64>,
    pub(super) late_at: Option<i64>,
    /// Its sinks for which nothing is pending, where they were asked for with it.
    pub(super) idle: Option<Vec<Num>>,
}

/// By how much the counters change with what an operation has written so far.
#[derive(Debug, Default)]
pub(super) struct Deltas {
    /// Identities by resource and state.
    pub(super) identities: BTreeMap<(Num, Cow<'static, str>), i64>,
    /// Tokens by resource and the minutes in which they are to be renewed and are late.
    pub(super) lives: BTreeMap<(Num, i64, i64), i64>,
    /// Deliveries that are pending, by sink.
    pub(super) pending: BTreeMap<Num, i64>,
    /// Who is to hold a token, by sink; 0 is the socket.
    pub(super) consumers: BTreeMap<Num, i64>,
    /// Items by campaign and state.
    pub(super) items: BTreeMap<(CampaignId, &'static str), i64>,
    /// Identities by who may read them.
    pub(super) readers: BTreeMap<String, i64>,
    pub(super) orphans: i64,
}

/// One operation inside the writer's transaction; reads what the connection reads.
pub(super) struct Txn<'a> {
    db: &'a Db,
    pub(super) effects: Effects,
    /// Entries that may be refused alone are written under savepoints.
    pub(super) careful: bool,
    /// Rows that were read ahead of the decisions about them.
    pub(super) ahead: BTreeMap<Num, CurrentRow>,
    /// By how much counters are to change.
    pub(super) deltas: Deltas,
    /// Rows whose token was committed while items waited for one, by whether the socket alone hands it out, and when.
    pub(super) reissued: BTreeMap<(bool, Timestamp), Vec<Num>>,
    /// Campaigns of which an item was settled, and when: they may have ended.
    pub(super) settled: BTreeMap<CampaignId, Timestamp>,
    /// Whether any item of a campaign waits for a token; looked up when it is first asked.
    pub(super) awaited: Option<bool>,
    /// Whether the consumers of any item are being told; the same.
    pub(super) delivering: Option<bool>,
    /// Whether it was told of any order that it failed; the same.
    pub(super) orders_told: Option<bool>,
    /// Whether there is any orphan; the same.
    pub(super) orphans: Option<bool>,
    /// An entry was refused that may be refused alone, and there was no savepoint: it has to run again.
    pub(super) torn: bool,
}

impl Deref for Txn<'_> {
    type Target = Db;

    fn deref(&self) -> &Db {
        self.db
    }
}

impl<'a> Txn<'a> {
    /// Without savepoints: where it fails, the whole transaction is taken back.
    pub(super) fn on(db: &'a Db) -> Self {
        Self {
            db,
            effects: Effects::default(),
            careful: false,
            ahead: BTreeMap::new(),
            deltas: Deltas::default(),
            reissued: BTreeMap::new(),
            settled: BTreeMap::new(),
            awaited: None,
            delivering: None,
            orphans: None,
            orders_told: None,
            torn: false,
        }
    }

    /// What is refused alone is taken back alone.
    pub(super) fn careful(db: &'a Db) -> Self {
        Self {
            careful: true,
            ..Self::on(db)
        }
    }

    /// Whether it has to run again, carefully.
    pub(super) fn is_torn(&self) -> bool {
        self.torn
    }

    /// Ends the operation: notes what was counted, and numbers its changes in the store-wide sequence.
    pub(super) fn finish(&mut self) -> Outcome<Effects> {
        self.move_reissued()?;
        self.end_settled()?;
        self.flush_counts()?;
        if self.is_shared() {
            self.number_shared()?;
        } else if !self.effects.changed.is_empty() {
            let mut seq = self.seq()?;
            for changed in &mut self.effects.changed {
                seq += 1;
                changed.seq = seq;
            }
            set_meta(&self.db.conn, "seq", signed(seq))?;
        }
        self.effects.facts = self.facts()?;
        for num in std::mem::take(&mut self.effects.mapped) {
            let line = self.id_line(num)?;
            self.effects.ids.extend(line);
        }
        Ok(std::mem::take(&mut self.effects))
    }

    /// The number of a resource, which is noted if it is new.
    pub(super) fn resource_num_or_new(&self, name: &str) -> sql::Result<Num> {
        match self.resource_num(name)? {
            0 => {
                let sql = concat!(
                    "INSERT INTO resource (num, name) VALUES (",
                    next_number!("resource", "num"),
                    ", ?1) RETURNING num"
                );
                self.number_of_new(sql, [name])
            }
            num => Ok(num),
        }
    }
}

impl Db {
    /// The last number of the watch stream.
    pub(super) fn seq(&self) -> Outcome<u64> {
        let seq = meta::<i64>(&self.conn, "seq")?;
        Ok(seq.unwrap_or(0).unsigned_abs())
    }
}

/// Microseconds since 1970.
pub(super) fn micros(at: Timestamp) -> i64 {
    at.as_microsecond()
}

/// The instant of a stored number; what cannot be an instant is the latest one.
pub(super) fn instant(micros: i64) -> Timestamp {
    Timestamp::from_microsecond(micros).unwrap_or(Timestamp::MAX)
}

/// The instant in a column that may be empty.
pub(super) fn maybe_instant(row: &Row<'_>, column: impl Column) -> sql::Result<Option<Timestamp>> {
    let place = column.place(row)?;
    let micros: Option<i64> = row.get(place)?;
    micros.map(|micros| exact(row, place, micros)).transpose()
}

/// The instant in a column.
pub(super) fn instant_in(row: &Row<'_>, column: impl Column) -> sql::Result<Timestamp> {
    let place = column.place(row)?;
    exact(row, place, row.get(place)?)
}

fn exact(row: &Row<'_>, place: usize, micros: i64) -> sql::Result<Timestamp> {
    Timestamp::from_microsecond(micros).map_err(|e| row.broken_at(place, e))
}

/// A name or id in a column.
pub(super) fn parsed<T>(row: &Row<'_>, column: impl Column) -> sql::Result<T>
where
    T: FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    let place = column.place(row)?;
    let text = row.get_ref(place)?.as_str();
    let text = text.map_err(|e| row.broken_at(place, e))?;
    text.parse().map_err(|e: T::Err| row.broken_at(place, e))
}

/// Names in a column, with spaces between them; none where it is empty.
pub(super) fn parsed_all<T>(row: &Row<'_>, column: &str) -> sql::Result<Vec<T>>
where
    T: FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    let text: Option<String> = row.get(column)?;
    let words = text.iter().flat_map(|text| text.split(' '));
    words
        .map(|word| {
            word.parse()
                .map_err(|e: T::Err| SqlError::unreadable(column, e))
        })
        .collect()
}

/// What the column `node` of a sink holds: nothing where it is nobody's own.
pub(super) fn node_of(sink: &SinkAt) -> &str {
    sink.node().map_or("", NodeName::as_str)
}

/// The sink in two columns.
pub(super) fn sink_at(
    row: &Row<'_>,
    (name, node): (impl Column, impl Column),
) -> sql::Result<SinkAt> {
    let name = parsed(row, name)?;
    let place = node.place(row)?;
    let node = row.get_ref(place)?.as_str();
    let node = node.map_err(|e| row.broken_at(place, e))?;
    Ok(match node {
        "" => SinkAt::from(name),
        node => SinkAt::new(
            name,
            Some(node.parse().map_err(|e| row.broken_at(place, e))?),
        ),
    })
}

/// A name or id in a column that may be empty.
pub(super) fn maybe_parsed<T>(row: &Row<'_>, column: impl Column) -> sql::Result<Option<T>>
where
    T: FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    let place = column.place(row)?;
    match row.get_ref(place)?.as_str_or_null() {
        Ok(Some(text)) => text
            .parse()
            .map(Some)
            .map_err(|e: T::Err| row.broken_at(place, e)),
        Ok(None) => Ok(None),
        Err(e) => Err(row.broken_at(place, e)),
    }
}

/// A state, a kind, a reason … in a column.
pub(super) fn word<T: DeserializeOwned>(row: &Row<'_>, column: impl Column) -> sql::Result<T> {
    let place = column.place(row)?;
    let text = row.get_ref(place)?.as_str();
    let text = text.map_err(|e| row.broken_at(place, e))?;
    unspelled(text).map_err(|e| row.broken_at(place, e))
}

/// A word in a column that may be empty.
pub(super) fn maybe_word<T: DeserializeOwned>(
    row: &Row<'_>,
    column: impl Column,
) -> sql::Result<Option<T>> {
    let place = column.place(row)?;
    match row.get_ref(place)?.as_str_or_null() {
        Ok(Some(text)) => unspelled(text)
            .map(Some)
            .map_err(|e| row.broken_at(place, e)),
        Ok(None) => Ok(None),
        Err(e) => Err(row.broken_at(place, e)),
    }
}

/// A version or a counter, which SQLite keeps as a signed number.
pub(super) fn unsigned(row: &Row<'_>, column: impl Column) -> sql::Result<u64> {
    let place = column.place(row)?;
    let number: i64 = row.get(place)?;
    u64::try_from(number).map_err(|e| row.broken_at(place, e))
}

/// An unsigned number as SQLite keeps it.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The number of a row that is added: one above those that are there. SQLite draws it itself.
macro_rules! next_number {
    ($table:literal, $column:literal) => {
        concat!(
            "/*sqlite*/NULL/*postgres (SELECT coalesce(max(",
            $column,
            "), 0) + 1 FROM ",
            $table,
            ")*/"
        )
    };
}

/// An `INSERT` whose rows draw numbers that no row had before: what SQLite keeps of tables with AUTOINCREMENT stands
/// in `meta` elsewhere. The number itself is [`drawn!`].
macro_rules! draws {
    ($table:literal) => {
        concat!(
            "/*postgres WITH drawn AS (UPDATE meta SET value = CAST(CAST(value AS BIGINT) + 1 AS TEXT) WHERE key = 'last_",
            $table,
            "' RETURNING CAST(value AS BIGINT) AS num) */INSERT INTO ",
            $table
        )
    };
}

macro_rules! drawn {
    () => {
        "/*sqlite*/NULL/*postgres (SELECT num FROM drawn)*/"
    };
}

/// Numbers of a list (`list`) as a table: `value` is the number. A statement that ends with [`in_order!`] finds rows in
/// the order of the list; SQLite does without.
macro_rules! listed {
    ($list:literal) => {
        concat!(
            "/*sqlite*/json_each(",
            $list,
            ")/*postgres (SELECT CAST(value AS BIGINT) AS value, place FROM json_array_elements_text(CAST(CAST(",
            $list,
            " AS TEXT) AS JSON)) WITH ORDINALITY one (value, place))*/"
        )
    };
}

macro_rules! in_order {
    ($list:literal) => {
        concat!("/*postgres  ORDER BY ", $list, ".place*/")
    };
}

pub(super) use {drawn, draws, in_order, listed, next_number};

/// Numbers as [`listed!`] takes them.
pub(super) fn list(nums: &[Num]) -> String {
    let words: Vec<String> = nums.iter().map(Num::to_string).collect();
    format!("[{}]", words.join(","))
}

/// How a word is stored.
pub(super) fn spelled<T: Serialize>(word: &T) -> String {
    match serde_json::to_value(word) {
        Ok(serde_json::Value::String(text)) => text,
        other => unreachable!("a word of the model is spelled as a string, not {other:?}"),
    }
}

fn unspelled<T: DeserializeOwned>(text: &str) -> Result<T, serde_json::Error> {
    T::deserialize(StrDeserializer::new(text))
}

/// The last attempts of a row as they lie there, `[[micros, result, request id], …]`: read where somebody asks for them.
#[derive(Debug, Clone)]
pub(super) struct PackedAttempts(String);

impl PackedAttempts {
    pub(super) fn of(row: &Row<'_>, column: impl Column) -> sql::Result<Self> {
        let text = row.get_ref(column.place(row)?)?.as_str();
        Ok(Self(text.unwrap_or_default().to_owned()))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn read(&self) -> Attempts {
        unpacked(&self.0)
    }

    /// The same with one more.
    pub(super) fn and(&self, attempt: &Attempt) -> Self {
        let mut attempts = self.read();
        attempts.push(attempt.clone());
        let list: Vec<Packed<'_>> = attempts
            .iter()
            .map(|a| {
                Packed(
                    micros(a.at),
                    (&*a.result).into(),
                    a.request_id.as_deref().map(Into::into),
                )
            })
            .collect();
        Self(serde_json::to_string(&list).unwrap_or_else(|_| "[]".to_owned()))
    }

    /// Whether the result of the last one begins so.
    pub(super) fn last_is(&self, word: &str) -> bool {
        let last = |attempts: Attempts| attempts.last().is_some_and(|a| a.result.starts_with(word));
        self.0.contains(word) && last(self.read())
    }
}

/// The attempts of a row.
pub(super) fn attempts(row: &Row<'_>, column: impl Column) -> sql::Result<Attempts> {
    let text = row.get_ref(column.place(row)?)?.as_str();
    Ok(unpacked(text.unwrap_or_default()))
}

/// A list that cannot be read counts as empty, it is only for people's eyes.
fn unpacked(text: &str) -> Attempts {
    let list: Vec<Packed<'_>> = serde_json::from_str(text).unwrap_or_default();
    let mut attempts = Attempts::default();
    for Packed(at, result, request_id) in list {
        attempts.push(Attempt {
            at: instant(at),
            result: result.into_owned(),
            request_id: request_id.map(Into::into),
        });
    }
    attempts
}

#[derive(Serialize, Deserialize)]
struct Packed<'a>(
    i64,
    #[serde(borrow)] std::borrow::Cow<'a, str>,
    #[serde(borrow)] Option<std::borrow::Cow<'a, str>>,
);

/// Where in `meta` it stands where a store goes on that was moved there.
pub(super) const MOVED_TO: &str = "moved_to";

/// A single fact of the table `meta`.
pub(super) fn meta<T: FromSql>(conn: &Connection, key: &str) -> sql::Result<Option<T>> {
    conn.first("SELECT value FROM meta WHERE key = ?1", [key], |row| {
        // Where the column has one type, a number lies there as a text.
        let number = match row.get_ref(0_usize)? {
            ValueRef::Text(text) => std::str::from_utf8(text)
                .ok()
                .and_then(|text| text.parse().ok()),
            _ => None,
        };
        row.get(0).or_else(|error| {
            let number = number.and_then(|n| T::column_result(ValueRef::Integer(n)).ok());
            number.ok_or(error)
        })
    })
}

/// Sets a single fact.
pub(super) fn set_meta(conn: &Connection, key: &str, value: impl ToSql) -> sql::Result<()> {
    let sql =
        "INSERT INTO meta (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = ?2";
    conn.send(sql, (key, value))
}
