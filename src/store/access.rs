//! Who took tokens over the socket, counted by the hour, and which version each consumer said that
//! it uses.

use rusqlite::params;
use serde::{Deserialize, Serialize};

use super::{
    Each, Store,
    aside::RowKind,
    columns::{self, micros},
    db::Txn,
    error::{Answer, Outcome},
};
use crate::model::{Name, Num, Reader, Timestamp, Version};

/// Consumers of one identity that are remembered of each user, the latest to speak.
const HOLDERS_OF_USER: i64 = 64;
/// Consumers of one identity that are remembered at all: beyond it goes whoever speaks with the most names,
/// so that nobody pushes the one consumer of another user out.
const HOLDERS: i64 = 1024;

/// A consumer's word that it uses a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acknowledgement {
    /// The identity's row.
    pub num: Num,
    /// The user that said so.
    pub uid: u32,
    /// What it calls itself.
    pub client: String,
    /// The version.
    pub version: Version,
}

/// A consumer and the version that it uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The identity.
    pub name: Name,
    /// The user that said so.
    pub uid: u32,
    /// What it calls itself.
    pub client: String,
    /// The version that it uses.
    pub version: Version,
    /// The version that it should use.
    pub current: Version,
    /// When it said so.
    pub at: Timestamp,
}

/// Tokens that one user took of one identity within an hour.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenReads {
    /// The start of the hour.
    pub hour: Timestamp,
    /// The identity.
    pub name: Name,
    /// The user.
    pub uid: u32,
    /// How often.
    pub count: u64,
}

/// Which counts of reads to show, the latest hour first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReadsQuery {
    /// Only of this identity.
    pub name: Option<Name>,
    /// Only of hours that start at or after this instant.
    pub since: Option<Timestamp>,
    /// Only what comes after this one in the listing: the last of the page before.
    pub after: Option<(Timestamp, Name, u32)>,
    /// At most so many.
    pub limit: usize,
}

impl Store {
    /// Notes which version a consumer uses; false where the identity never had it, as far as is remembered.
    /// Of each user the latest 64 consumers of an identity are kept.
    pub async fn acknowledge(&self, ack: Acknowledgement, now: Timestamp) -> Answer<bool> {
        self.write("note an acknowledgement", move |txn| {
            let version = columns::signed(ack.version.0);
            let sql = "SELECT 1 FROM identity WHERE num = ?1 AND (version = ?2 OR prev_version = ?2 \
                       OR instr(' ' || past, ' ' || ?2 || ' ') > 0)";
            if txn.first(sql, [ack.num, version], |_| Ok(()))?.is_none() {
                return Ok(false);
            }
            let sql = "INSERT INTO holder VALUES (?1, ?2, ?3, ?4, ?5) \
                       ON CONFLICT DO UPDATE SET version = ?4, at = ?5";
            txn.run(
                sql,
                params![ack.num, ack.uid, ack.client, version, micros(now)],
            )?;
            txn.run(
                "DELETE FROM holder WHERE identity = ?1 AND uid = ?2 AND client IN \
                 (SELECT client FROM holder WHERE identity = ?1 AND uid = ?2 ORDER BY at DESC LIMIT -1 OFFSET ?3)",
                [ack.num, i64::from(ack.uid), HOLDERS_OF_USER],
            )?;
            txn.run(
                "DELETE FROM holder WHERE identity = ?1 AND (uid, client) IN (SELECT uid, client FROM ( \
                 SELECT uid, client, at, row_number() OVER (PARTITION BY uid ORDER BY at DESC) AS nth \
                 FROM holder WHERE identity = ?1) ORDER BY nth, at DESC LIMIT -1 OFFSET ?2)",
                [ack.num, HOLDERS],
            )?;
            Ok(true)
        })
        .await
    }

    /// Whether any of these users and groups may read any identity.
    pub async fn may_any_read(&self, readers: Vec<Reader>) -> Answer<bool> {
        self.read("look for readers", move |db| {
            for reader in &readers {
                let sql = "SELECT 1 FROM reader WHERE name = ?1";
                if db.first(sql, [reader.to_string()], |_| Ok(()))?.is_some() {
                    return Ok(true);
                }
            }
            Ok(false)
        })
        .await
    }

    /// Consumers of an identity, or of all, in the order of names; those that use an old version
    /// alone, if so wished.
    pub async fn holders(
        &self,
        num: Option<Num>,
        only_old: bool,
        limit: usize,
    ) -> Answer<Vec<Holder>> {
        self.read("list consumers", move |db| {
            let sql = "SELECT h.identity, i.name, h.uid, h.client, h.version, i.version AS current, h.at \
                       FROM holder h JOIN identity i ON i.num = h.identity \
                       WHERE (?1 IS NULL OR h.identity = ?1) AND (NOT ?2 OR h.version < i.version) \
                       ORDER BY i.name, h.uid, h.client";
            let holders = db.page(RowKind::Holder, limit, sql, params![num, only_old], |row| {
                Ok(Holder {
                    name: columns::parsed(row, "name")?,
                    uid: row.get("uid")?,
                    client: row.get("client")?,
                    version: Version(columns::unsigned(row, "version")?),
                    current: Version(columns::unsigned(row, "current")?),
                    at: columns::instant_in(row, "at")?,
                })
            })?;
            Ok(holders)
        })
        .await
    }

    /// Adds to the counts of tokens that were taken. Each is answered; one that the store refuses keeps no
    /// other back.
    pub async fn note_reads(&self, reads: Vec<TokenReads>) -> Answer<Each<()>> {
        self.write("count token reads", move |txn| {
            txn.each("count a token read", &reads, |txn, reads| {
                txn.note_reads(reads)?;
                Ok(vec![(); reads.len()])
            })
        })
        .await
    }

    /// The counts of tokens that were taken, the latest hour first.
    pub async fn token_reads(&self, query: ReadsQuery) -> Answer<Vec<TokenReads>> {
        self.read("list token reads", move |db| {
            let sql = "SELECT hour, name, uid, n FROM token_read \
                       WHERE (?1 IS NULL OR name = ?1) AND hour >= ?2 \
                       AND (?3 IS NULL OR hour < ?3 OR (hour = ?3 AND (name, uid) > (?4, ?5))) \
                       ORDER BY hour DESC, name, uid";
            let after = query.after.as_ref();
            let params = params![
                query.name.as_ref().map(Name::as_str),
                query.since.map_or(i64::MIN, micros),
                after.map(|(hour, ..)| micros(*hour)),
                after.map(|(_, name, _)| name.as_str()),
                after.map(|(.., uid)| *uid)
            ];
            let reads = db.page(RowKind::TokenRead, query.limit, sql, params, |row| {
                Ok(TokenReads {
                    hour: columns::instant_in(row, "hour")?,
                    name: columns::parsed(row, "name")?,
                    uid: row.get("uid")?,
                    count: columns::unsigned(row, "n")?,
                })
            })?;
            Ok(reads)
        })
        .await
    }
}

impl Txn<'_> {
    pub(super) fn note_reads(&self, reads: &[TokenReads]) -> Outcome<()> {
        let sql =
            "INSERT INTO token_read VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO UPDATE SET n = n + ?4";
        for read in reads {
            let n = columns::signed(read.count);
            self.run(
                sql,
                params![micros(read.hour), read.name.as_str(), read.uid, n],
            )?;
        }
        Ok(())
    }

    /// Drops counts of hours, and consumers that have been silent, since before these instants.
    pub(super) fn prune_access(
        &self,
        (reads, holders): (i64, i64),
        batch: i64,
    ) -> Outcome<(usize, usize)> {
        let old_reads = "DELETE FROM token_read WHERE (hour, name, uid) IN \
                         (SELECT hour, name, uid FROM token_read WHERE hour < ?1 LIMIT ?2)";
        let old_holders = "DELETE FROM holder WHERE (identity, uid, client) IN \
                           (SELECT identity, uid, client FROM holder WHERE at < ?1 LIMIT ?2)";
        Ok((
            self.run(old_reads, [reads, batch])?,
            self.run(old_holders, [holders, batch])?,
        ))
    }
}
