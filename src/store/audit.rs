//! The audit trail: every issue, revocation, hold, deletion and key change with request id and
//! reason. Routine renewals are narrow rows of their own, so that they cost little and may go early.

use super::{
    Cause, Store,
    aside::RowKind,
    db::{self, Txn, micros, next_number},
    error::{Answer, Outcome},
    identities::count,
};
use crate::{
    model::{AuditEntry, Name, Timestamp},
    sql::{self, Connection, Row, params},
};

/// Which entries to show, newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditQuery {
    /// Only on this identity.
    pub name: Option<Name>,
    /// Only at or after this instant.
    pub since: Option<Timestamp>,
    /// Only before this instant; for the next page.
    pub before: Option<Timestamp>,
    /// Only by those whose description holds this text, such as a user's name.
    pub actor: Option<String>,
    pub action: Option<String>,
    /// Whether to leave routine renewals out.
    pub without_renewals: bool,
    /// At most so many.
    pub limit: usize,
}

impl Store {
    /// Adds entries to the audit trail.
    pub async fn audit(&self, entries: Vec<AuditEntry>) -> Answer<()> {
        self.write("write the audit trail", move |txn| {
            entries.iter().try_for_each(|entry| txn.audit(entry))
        })
        .await
    }

    /// The audit trail, newest first.
    pub async fn audit_trail(&self, query: AuditQuery) -> Answer<Vec<AuditEntry>> {
        self.read("read the audit trail", move |db| {
            // Both trails are in the order of time: each is read backwards, and only as far as needed.
            let sql = "SELECT at, seq, actor, action, name, reason, request_id, result FROM ( \
                SELECT * FROM (SELECT at, seq, actor, action, name, reason, request_id, result FROM audit \
                WHERE (CAST(?1 AS TEXT) IS NULL OR name = ?1) AND at >= ?2 AND at < ?3 \
                AND (CAST(?6 AS TEXT) IS NULL OR /*sqlite*/instr/*postgres strpos*/(actor, ?6) > 0) AND (CAST(?7 AS TEXT) IS NULL OR action = ?7) \
                ORDER BY seq DESC LIMIT ?5) a \
                UNION ALL SELECT * FROM ( \
                SELECT l.at, l.seq, 'renewd', 'renew', i.name, l.why, l.request_id, 'version ' || l.version \
                FROM renewal l LEFT JOIN identity i ON i.num = l.identity \
                WHERE CAST(?4 AS BIGINT) = 1 AND (CAST(?1 AS TEXT) IS NULL OR i.name = ?1) AND l.at >= ?2 AND l.at < ?3 \
                AND (CAST(?6 AS TEXT) IS NULL OR /*sqlite*/instr/*postgres strpos*/('renewd', ?6) > 0) AND (CAST(?7 AS TEXT) IS NULL OR ?7 = 'renew') \
                ORDER BY l.seq DESC LIMIT ?5) l) both_trails \
                ORDER BY at DESC, seq DESC LIMIT ?5";
            let params = params![
                query.name.as_ref().map(Name::as_str),
                query.since.map_or(i64::MIN, micros),
                query.before.map_or(i64::MAX, micros),
                !query.without_renewals,
                count(query.limit),
                query.actor,
                query.action
            ];
            Ok(db.all(RowKind::AuditEntry, sql, params, read_entry)?)
        })
        .await
    }
}

impl Txn<'_> {
    /// What somebody ordered that concerns no single identity.
    pub(super) fn note_word(
        &mut self,
        action: &str,
        result: String,
        cause: &Cause,
        now: Timestamp,
    ) -> Outcome<()> {
        self.audit(&AuditEntry {
            at: now,
            actor: cause.actor.clone(),
            action: action.to_owned(),
            name: None,
            reason: cause.reason.clone(),
            request_id: None,
            result,
        })
    }

    pub(super) fn audit(&mut self, entry: &AuditEntry) -> Outcome<()> {
        Ok(add_entry(&self.conn, entry)?)
    }
}

/// Adds an entry by whichever connection.
pub(super) fn add_entry(conn: &Connection, entry: &AuditEntry) -> sql::Result<()> {
    let sql = concat!(
        "INSERT INTO audit (seq, at, actor, action, name, reason, request_id, result) VALUES (",
        next_number!("audit", "seq"),
        ", ?1, ?2, ?3, ?4, ?5, ?6, ?7)"
    );
    let params = params![
        micros(entry.at),
        entry.actor,
        entry.action,
        entry.name.as_ref().map(Name::as_str),
        entry.reason,
        entry.request_id,
        entry.result
    ];
    conn.send(sql, params)
}

fn read_entry(row: &Row<'_>) -> sql::Result<AuditEntry> {
    Ok(AuditEntry {
        at: db::instant_in(row, "at")?,
        actor: row.get("actor")?,
        action: row.get("action")?,
        name: db::maybe_parsed(row, "name")?,
        reason: row.get("reason")?,
        request_id: row.get("request_id")?,
        result: row.get("result")?,
    })
}
