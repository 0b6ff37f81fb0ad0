//! Sinks as the ledger knows them: disabled or not, and how far behind.

use std::collections::BTreeMap;

use rusqlite::params;

use super::{
    aside::RowKind,
    columns::{self, micros},
    db::{Db, Txn},
    error::Outcome,
};
use crate::model::{Notice, NoticeKind, SinkName, Timestamp};

/// Why nothing goes out to a sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disabled {
    /// In one sentence.
    pub why: String,
    /// Whether a command said so: then only a command enables it. Otherwise its receiver did (410),
    /// and the next start tries it again.
    pub by_command: bool,
}

pub(super) const OLDEST: &str = "SELECT since, identity AS num, sink AS sink_num FROM delivery WHERE sink = ?1 AND wanted > delivered ORDER BY since";

impl Db {
    /// Why a sink is disabled, if it is.
    pub(super) fn sink_disabled(&self, sink: &str) -> Outcome<Option<Disabled>> {
        let sql = "SELECT disabled, paused, num, name FROM sink WHERE name = ?1";
        let found = self.one(RowKind::Sink, sql, [sink], |row| {
            let why: Option<String> = row.get(0)?;
            let by_command = row.get(1)?;
            Ok(why.map(|why| Disabled { why, by_command }))
        })?;
        Ok(found.flatten())
    }

    /// Since when the oldest pending delivery of each sink is pending.
    pub(super) fn oldest_pending(&self) -> Outcome<BTreeMap<SinkName, Timestamp>> {
        let sinks = self.all(
            RowKind::Sink,
            "SELECT num, name FROM sink WHERE configured = 1",
            [],
            |row| Ok((row.get::<_, i64>(0)?, columns::parsed(row, "name")?)),
        )?;
        let mut oldest = BTreeMap::new();
        for (num, name) in sinks {
            let since = self.some(RowKind::Delivery, 1, OLDEST, [num], |row| {
                columns::instant_in(row, "since").map(Some)
            })?;
            oldest.extend(since.first().map(|since| (name, *since)));
        }
        Ok(oldest)
    }
}

impl Txn<'_> {
    /// Disables a sink and tells every other one of it; a sink that is disabled already is not told
    /// of again. A command outlasts an answer of the receiver's.
    pub(super) fn disable_sink(
        &mut self,
        sink: &str,
        disabled: &Disabled,
        now: Timestamp,
    ) -> Outcome<()> {
        let was = self.sink_disabled(sink)?;
        self.run(
            "UPDATE sink SET disabled = ?2, paused = max(paused, ?3) WHERE name = ?1",
            params![sink, disabled.why, disabled.by_command],
        )?;
        if was.is_none() {
            self.tell_of_disabled(sink, &disabled.why, now)?;
        }
        self.effects.wanted = true;
        Ok(())
    }

    fn tell_of_disabled(&mut self, sink: &str, why: &str, now: Timestamp) -> Outcome<()> {
        self.raise(&[Notice {
            at: now,
            kind: NoticeKind::SinkDisabled,
            resource: None,
            name: None,
            key: Some(Notice::disabled_key(sink)),
            message: format!(
                "The sink {sink} is disabled: {why}. `renewd sink enable {sink}` ends it."
            ),
        }])?;
        let sql =
            "UPDATE notice SET not_to = (SELECT num FROM sink WHERE name = ?1) WHERE seq = ?2";
        self.run(sql, params![sink, self.conn.last_insert_rowid()])?;
        Ok(())
    }

    /// Enables a sink: what is pending and had been put off is due at once.
    pub(super) fn enable_sink(&mut self, sink: &str, now: Timestamp) -> Outcome<()> {
        let sql = "UPDATE sink SET disabled = NULL, paused = 0 WHERE name = ?1";
        self.run(sql, [sink])?;
        self.run(
            "UPDATE delivery SET next_at = ?2 WHERE sink = ?1 AND wanted > delivered AND next_at > ?2",
            [self.sink_num(sink)?, micros(now)],
        )?;
        self.tell_enabled(sink, "is enabled: what waited for it is tried at once", now)?;
        self.effects.wanted = true;
        Ok(())
    }

    /// That a sink is disabled is over.
    pub(super) fn tell_enabled(&mut self, sink: &str, how: &str, now: Timestamp) -> Outcome<()> {
        self.announce(&Notice {
            at: now,
            kind: NoticeKind::SinkEnabled,
            resource: None,
            name: None,
            key: Some(Notice::disabled_key(sink)),
            message: format!("The sink {sink} {how}."),
        })?;
        Ok(())
    }
}
