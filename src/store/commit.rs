//! Commits what the engine decided. Token, version, next due time, `wanted` of every sink, attempts,
//! counters and trail are one transaction.

use std::time::Duration;

use super::{
    Store,
    aside::RowKind,
    counters::Counted,
    creations::Orphaned,
    db::{
        self, Changed, CurrentRow, Db, PackedAttempts, Txn, listed, micros, next_number, signed,
        spelled,
    },
    error::{Answer, Outcome},
    identities::token_place,
    notices::CameTo,
    tables::Counting,
};
use crate::{
    model::{
        Applied, Attempt, AuditEntry, Blame, Change, Due, DueReason, IdLine, IdentityId, Kind,
        Name, Notice, NoticeKind, Num, State, Timestamp, Token, Version, is_entra_minter,
    },
    sql::{self, Row, params},
};

/// A token that was obtained; see [`Change::Issued`].
struct Issue<'a> {
    call_began: i64,
    id: Option<&'a IdentityId>,
    token: &'a Token,
    due: Due,
    late_at: Timestamp,
    attempt: &'a Attempt,
}

impl Store {
    /// Commits a batch of decisions; one answer each, in order. A token that comes too late
    /// ([`Applied::Stale`]) is listed as an orphan until it expires.
    pub async fn commit(&self, changes: Vec<Change>, now: Timestamp) -> Answer<Vec<Applied>> {
        let withdraws = changes.iter().any(Change::is_gone);
        self.queue("commit results", withdraws, move |txn| {
            txn.read_ahead(changes.iter())?;
            changes
                .iter()
                .map(|change| txn.apply(change, now))
                .collect()
        })
        .await
    }

    /// Keeps ids of identities that were just made in the map beside the store alone: the last resort for
    /// what the database does not take. The next start gives them back to their names.
    pub async fn keep_ids(&self, ids: Vec<(Num, IdentityId)>) -> Answer<()> {
        self.write("keep ids", move |txn| {
            ids.iter().try_for_each(|(num, id)| txn.note_id(*num, id))
        })
        .await
    }
}

/// What is written with as now may be so much earlier than what was written before: each was read when its writing began,
/// and none lasts longer.
const WRITES_LAST: Duration = Duration::from_secs(10);

/// The latest instant that may have been noted by now. One ahead of it is from before the clock was set back, and says
/// nothing about order.
pub(super) fn latest(now: Timestamp) -> i64 {
    micros(now.checked_add(WRITES_LAST).unwrap_or(now))
}

/// An identity that was created under the id of another one is tried again so much later.
const AFTER_REFUSED_ID: Duration = Duration::from_mins(10);

/// A row takes a new token; the rest of what is said of it as in the second.
macro_rules! take_token {
    ($rest:literal) => {
        concat!(
            "SET past = substr(version || ' ' || past, 1, 90), prev_version = version, prev_until = good_until, \
             prev_key = minted_by, version = ?2, kind = ?3, next_kind = 'renewed', due_at = ?4, due_why = ?5, renews_at = ?4, \
             good_until = ?6, expires_at = ?6, issued_at = ?7, minted_by = ?8, late_at = ?9, attempts = ?10, token = ?11",
            $rest,
            " WHERE num = ?1"
        )
    };
}

/// One that was active and in order stays so.
pub(super) const RENEWED: &str = take_token!("");
const OBTAINED: &str =
    take_token!(", state = 'active', late_notified = 0, failures = 0, failing_since = NULL");

impl Store {
    /// What a machine obtained that does not lead any more: an id is given to its row where that still has none, and
    /// what else may exist at ACS is listed as an orphan.
    pub async fn disown(&self, changes: Vec<Change>, now: Timestamp) -> Answer<()> {
        self.write("note what a former leader obtained", move |txn| {
            changes
                .iter()
                .try_for_each(|change| txn.disowned(change, now))
        })
        .await
    }
}

impl Txn<'_> {
    fn disowned(&mut self, change: &Change, now: Timestamp) -> Outcome<()> {
        let (num, id, token, attempt) = match change {
            Change::Issued {
                num,
                id,
                token,
                attempt,
                ..
            } => (*num, id.as_ref(), Some(token), attempt),
            Change::Adopted { num, id, attempt } => (*num, Some(id), None, attempt),
            _ => return Ok(()),
        };
        let Some(row) = self.standing(num)? else {
            return Ok(());
        };
        let named = self.adopt_id(&row, id, now)?;
        if id.is_some() {
            self.know_creation(num, attempt.at)?;
        }
        if named && token.is_none() {
            return Ok(());
        }
        self.orphan(&Orphaned {
            at: micros(now),
            kind: if named { "token" } else { "identity" },
            num,
            id: id.or(row.id.as_ref()).map(IdentityId::as_str),
            request_id: attempt.request_id.as_deref(),
            expires_at: token.map(|token| micros(token.meta.expires_at)),
        })
    }

    pub(super) fn apply(&mut self, change: &Change, now: Timestamp) -> Outcome<Applied> {
        if !matches!(change, Change::Issued { .. }) {
            // It may be about an item that waits no more.
            self.move_reissued()?;
        }
        match change {
            Change::Issued {
                num,
                call_began,
                id,
                token,
                due,
                late_at,
                attempt,
            } => {
                let issue = Issue {
                    call_began: micros(*call_began),
                    id: id.as_ref(),
                    token,
                    due: *due,
                    late_at: *late_at,
                    attempt,
                };
                self.issued(*num, &issue, now)
            }
            Change::Adopted { num, id, attempt } => self.adopted(*num, id, attempt, now),
            Change::Failed {
                num,
                attempt,
                due,
                blame,
            } => self.failed(*num, attempt, *due, (*blame, now)),
            Change::Excused { num } => self.excused(*num, now),
            Change::Gone {
                num,
                attempt,
                because,
            } => match self.readable(*num)?.filter(|row| row.state.wants_token()) {
                Some(row) => {
                    let version = self.claimed_gone(row, attempt, because, now)?;
                    Ok(Applied::Done(version))
                }
                None => Ok(Applied::Stale),
            },
            Change::Due { num, due } => self.moved(*num, *due),
            Change::LateNotified { num } => self.late_notified(*num, now),
        }
    }

    /// Where each question is a way there and back, those about rows that got tokens are asked at once.
    pub(super) fn read_ahead<'c>(
        &mut self,
        changes: impl Iterator<Item = &'c Change>,
    ) -> Outcome<()> {
        if !self.is_shared() {
            return Ok(());
        }
        let nums = changes.filter_map(|change| match change {
            Change::Issued { num, .. } => Some(*num),
            _ => None,
        });
        let nums: Vec<Num> = nums.collect();
        if nums.is_empty() {
            return Ok(());
        }
        let list = [db::list(&nums)];
        let rows = self.all(RowKind::Identity, STANDING_OF_ALL, &list, read_standing)?;
        self.ahead = rows.into_iter().map(|row| (row.num, row)).collect();
        if self.ahead.values().all(|row| row.by_socket) {
            return Ok(());
        }
        for (num, sink) in self.idle_sinks(&list)? {
            if let Some(row) = self.ahead.get_mut(&num) {
                row.idle.get_or_insert_default().push(sink);
            }
        }
        Ok(())
    }

    fn issued(&mut self, num: Num, issue: &Issue<'_>, now: Timestamp) -> Outcome<Applied> {
        let row = match self.ahead.remove(&num) {
            Some(row) => Some(row),
            None => self.standing(num)?,
        };
        if issue.id.is_some() {
            self.run("DELETE FROM intent WHERE identity = ?1", [num])?;
        }
        let Some(row) = row else {
            // Forgotten in between: no row names it any more, so neither can an orphan.
            return Ok(Applied::Stale);
        };
        if let Some(id) = issue.id
            && self.is_anothers(id, num)?
        {
            return self.refused_id(num, &row.name, issue.attempt, now);
        }
        let named = self.adopt_id(&row, issue.id, now)?;
        if !named || !row.takes(issue, now) {
            self.orphan_token(&row, named, issue, now)?;
            return Ok(Applied::Stale);
        }
        let kind = row.kind_of(issue.token);
        if row.marked || row.next_kind == Kind::Issued {
            self.end_notices_of(num, CameTo::Token, now)?;
        }
        let version = self.next_version(row.version, now);
        self.store_token(&row, issue, kind, version)?;
        self.want(&row, version, micros(now))?;
        self.trail(&row, issue, kind, version, now)?;
        self.items_reissued(&row, now)?;
        self.not_gone(&row, now)?;
        Ok(Applied::Done(version))
    }

    fn store_token(
        &mut self,
        row: &CurrentRow,
        issue: &Issue<'_>,
        kind: Kind,
        version: Version,
    ) -> Outcome<()> {
        let Token { secret, meta } = issue.token;
        let place = token_place(&row.name, version.0);
        let sealed = self
            .seal
            .seal(place, secret.expose().as_bytes())
            .map_err(|e| super::error::Fault::Refused(e.to_string()))?;
        let expires_at = micros(meta.expires_at);
        // A column that keeps its value is not written: its indexes cost more than the rest.
        let sql = match row.state == State::Active && !row.marked && row.due_at.is_some() {
            true => RENEWED,
            false => OBTAINED,
        };
        let life = Some((micros(issue.due.at), micros(issue.late_at)));
        let is = row.counted().into(State::Active, row.by_socket);
        self.write_identities(
            sql,
            params![
                row.num,
                signed(version.0),
                kind.as_str(),
                micros(issue.due.at),
                spelled(&issue.due.why),
                expires_at,
                micros(meta.issued_at),
                meta.minted_by,
                micros(issue.late_at),
                row.attempts.and(issue.attempt).as_str(),
                sealed,
            ],
            Counting::Known {
                num: row.num,
                was: row.counted(),
                is: is.living(life),
            },
        )?;
        Ok(())
    }

    /// A routine renewal leaves one narrow line, everything else a full entry.
    fn trail(
        &mut self,
        row: &CurrentRow,
        issue: &Issue<'_>,
        kind: Kind,
        version: Version,
        now: Timestamp,
    ) -> Outcome<()> {
        let request_id = issue.attempt.request_id.as_deref();
        if kind == Kind::Renewed {
            self.send(
                concat!(
                    "INSERT INTO renewal (seq, at, identity, version, why, request_id) VALUES (",
                    next_number!("renewal", "seq"),
                    ", ?1, ?2, ?3, ?4, ?5)"
                ),
                params![
                    micros(now),
                    row.num,
                    signed(version.0),
                    row.due_why,
                    request_id
                ],
            )?;
            return Ok(());
        }
        self.audit(&AuditEntry {
            at: now,
            actor: "renewd".to_owned(),
            action: if kind == Kind::Reissued {
                "reissue"
            } else {
                "issue"
            }
            .to_owned(),
            name: Some(row.name.clone()),
            reason: row.due_why.clone(),
            request_id: request_id.map(str::to_owned),
            result: format!("version {version}"),
        })
    }

    /// Gives a row the id that was made for it, whatever else can be read of the row: so no second person
    /// is made. Its token is due at once, if it wants one.
    fn adopted(
        &mut self,
        num: Num,
        id: &IdentityId,
        attempt: &Attempt,
        now: Timestamp,
    ) -> Outcome<Applied> {
        self.run("DELETE FROM intent WHERE identity = ?1", [num])?;
        if self.is_anothers(id, num)? {
            let named = self.standing(num)?.map(|row| row.name);
            return match named {
                Some(name) => self.refused_id(num, &name, attempt, now),
                None => Ok(Applied::Stale),
            };
        }
        let taken = self.write_identities(
            "SET id = ?2, due_at = CASE WHEN state IN ('new', 'active', 'late') THEN ?3 ELSE due_at END, \
             due_why = CASE WHEN state IN ('new', 'active', 'late') THEN 'first' ELSE due_why END \
             WHERE num = ?1 AND (id IS NULL OR id = ?2) AND state IS DISTINCT FROM 'deleted'",
            params![num, id.as_str(), micros(now)],
            Counting::OfRow(num),
        )?;
        if taken == 0 {
            self.orphan(&Orphaned {
                at: micros(now),
                kind: "identity",
                num,
                id: Some(id.as_str()),
                request_id: attempt.request_id.as_deref(),
                expires_at: None,
            })?;
            return Ok(Applied::Stale);
        }
        self.effects.due = true;
        self.note_id(num, id)?;
        Ok(Applied::Done(Version::default()))
    }

    /// Whether an id belongs to another row.
    fn is_anothers(&self, id: &IdentityId, num: Num) -> Outcome<bool> {
        let sql = "SELECT 1 FROM identity WHERE id = ?1 AND num <> ?2";
        Ok(self
            .first(sql, params![id.as_str(), num], |_| Ok(()))?
            .is_some())
    }

    /// What was to be a new identity is one that there is already: nothing was made, and asking again at once would
    /// bring no other. It is the row's own failure, and told.
    fn refused_id(
        &mut self,
        num: Num,
        name: &Name,
        attempt: &Attempt,
        now: Timestamp,
    ) -> Outcome<Applied> {
        tracing::warn!(%name, "ACS created it under the id of another identity, which is not taken over");
        let attempt = Attempt {
            result: "ACS created it under the id of another identity".to_owned(),
            ..attempt.clone()
        };
        let due = Due {
            at: now.checked_add(AFTER_REFUSED_ID).unwrap_or(now),
            why: DueReason::Retry,
        };
        self.failed(num, &attempt, due, (Blame::RowAlone, now))?;
        Ok(Applied::Stale)
    }

    /// The map of names to ids follows after the commit.
    pub(super) fn note_id(&mut self, num: Num, id: &IdentityId) -> Outcome<()> {
        if let Some(line) = self.id_line(num)? {
            self.effects.ids.push(IdLine {
                id: Some(id.clone()),
                dropped: false,
                ..line
            });
            return Ok(());
        }
        let sql = "SELECT i.name, r.name AS resource, i.created_at FROM identity i \
                   LEFT JOIN resource r ON r.num = i.resource WHERE i.num = ?1";
        let line = self.first(sql, [num], |row| {
            let line = || -> sql::Result<IdLine> {
                let named = (db::parsed(row, "name")?, db::parsed(row, "resource")?);
                let created_at = db::instant_in(row, "created_at")?;
                Ok(IdLine::of_id(named, id.clone(), created_at))
            };
            Ok(line().ok())
        })?;
        self.effects.ids.extend(line.flatten());
        Ok(())
    }

    /// Gives a row the id that was made for it, even when the token that came with it is too late: so
    /// no second person is made. The map follows after the commit. False: the id cannot be the row's.
    fn adopt_id(
        &mut self,
        row: &CurrentRow,
        id: Option<&IdentityId>,
        now: Timestamp,
    ) -> Outcome<bool> {
        let id = match (id, &row.id) {
            (None, _) => return Ok(true),
            (Some(id), Some(ours)) => return Ok(id == ours),
            (Some(id), None) => id,
        };
        let sql = "SELECT 1 FROM identity WHERE id = ?1";
        let owned = self.first(sql, [id.as_str()], |_| Ok(()))?.is_some();
        if owned || row.state == State::Deleted {
            return Ok(false);
        }
        self.set_id(row.num, Some(id))?;
        self.tell_if_strange(row, id, now)?;
        self.run(
            "DELETE FROM remembered WHERE name = ?1 OR id = ?2",
            [row.name.as_str(), id.as_str()],
        )?;
        self.effects.mapped.insert(row.num);
        Ok(true)
    }

    /// Ids carry the id of the resource that made them: one that differs from all others of its resource
    /// was made by another one, and so by the wrong connection string.
    fn tell_if_strange(
        &mut self,
        row: &CurrentRow,
        id: &IdentityId,
        now: Timestamp,
    ) -> Outcome<()> {
        let maker = |id: &str| id.rsplit_once('_').map(|(maker, _)| maker.to_owned());
        let sql =
            "SELECT id FROM identity WHERE resource = ?1 AND num <> ?2 AND id IS NOT NULL LIMIT 1";
        let other: Option<String> = self.first(sql, [row.resource, row.num], |row| row.get(0))?;
        let (ours, theirs) = (maker(id.as_str()), other.as_deref().and_then(maker));
        let (Some(ours), Some(theirs)) = (ours, theirs) else {
            return Ok(());
        };
        if ours == theirs {
            return Ok(());
        }
        let name = &row.name;
        let message = format!(
            "{name} was created as {id}, by another resource than the others of its own, whose ids begin with \
             {theirs}: look at the connection string. If it is the wrong one, put the right one in its place, then \
             `renewd identity remove {name}` and declare it again."
        );
        tracing::warn!("{message}");
        self.raise(&[Notice::new(NoticeKind::IdentityCreated, now, message).of(name)])
    }

    fn orphan_token(
        &mut self,
        row: &CurrentRow,
        named: bool,
        issue: &Issue<'_>,
        now: Timestamp,
    ) -> Outcome<()> {
        self.orphan(&Orphaned {
            at: micros(now),
            kind: if named { "token" } else { "identity" },
            num: row.num,
            id: issue.id.or(row.id.as_ref()).map(IdentityId::as_str),
            request_id: issue.attempt.request_id.as_deref(),
            expires_at: Some(micros(issue.token.meta.expires_at)),
        })
    }

    fn failed(
        &mut self,
        num: Num,
        attempt: &Attempt,
        due: Due,
        (blame, now): (Blame, Timestamp),
    ) -> Outcome<Applied> {
        let Some(row) = self.readable(num)?.filter(|row| row.state.wants_token()) else {
            return Ok(Applied::Stale);
        };
        let attempts = row.attempts.and(attempt);
        let (at, why) = (micros(due.at), Some(spelled(&due.why)));
        // Made due by somebody else while the call was under way: the earlier time stands.
        let newly_asked = row
            .due_at
            .filter(|asked| *asked > micros(attempt.at) && *asked < at);
        let (at, why) = match newly_asked {
            Some(asked) => (asked, row.due_why),
            None => (at, why),
        };
        let due = row.due_at.is_some();
        self.write_identities(
            "SET due_at = ?2, due_why = ?3, failures = failures + ?5, attempts = ?4, \
             failing_since = CASE WHEN CAST(?6 AS BIGINT) = 1 THEN coalesce(failing_since, ?7) ELSE failing_since END WHERE num = ?1",
            params![
                num,
                at,
                why,
                attempts.as_str(),
                blame != Blame::Resource,
                blame == Blame::RowAlone,
                micros(now)
            ],
            Counting::of_due(num, due),
        )?;
        self.effects.due = true;
        Ok(Applied::Done(row.version))
    }

    fn excused(&mut self, num: Num, now: Timestamp) -> Outcome<Applied> {
        let Some(row) = self.standing(num)?.filter(|row| row.state.wants_token()) else {
            return Ok(Applied::Stale);
        };
        self.write_identities(
            "SET failures = CASE WHEN failures > 1 THEN failures - 1 ELSE 0 END, \
             due_at = CASE WHEN due_at > ?2 THEN ?2 ELSE due_at END WHERE num = ?1 AND due_why = ?3",
            params![num, micros(now), spelled(&DueReason::Retry)],
            Counting::Nothing,
        )?;
        self.effects.due = true;
        Ok(Applied::Done(row.version))
    }

    fn moved(&mut self, num: Num, due: Due) -> Outcome<Applied> {
        let Some(row) = self.readable(num)?.filter(|row| row.state.wants_token()) else {
            return Ok(Applied::Stale);
        };
        // Made due by somebody else since it was decided: the earlier time stands.
        if row.due_at.is_some_and(|at| at < micros(due.at)) {
            return Ok(Applied::Stale);
        }
        self.set_due(&row, micros(due.at), &spelled(&due.why))?;
        Ok(Applied::Done(row.version))
    }

    fn late_notified(&mut self, num: Num, now: Timestamp) -> Outcome<Applied> {
        let Some(row) = self.readable(num)?.filter(|row| row.state.wants_token()) else {
            return Ok(Applied::Stale);
        };
        // Renewed while it was found to be late: then nothing is told.
        let told = self.write_identities(
            "SET late_notified = 1 WHERE num = ?1 AND (late_at <= ?2 OR good_until <= 0)",
            [num, micros(now)],
            Counting::Nothing,
        )?;
        Ok(match told {
            0 => Applied::Stale,
            _ => Applied::Done(row.version),
        })
    }

    /// Takes the token away: a new version without one, told to every sink.
    pub(super) fn withdraw(
        &mut self,
        row: &CurrentRow,
        state: State,
        kind: Kind,
        now: Timestamp,
    ) -> Outcome<Version> {
        let version = self.next_version(row.version, now);
        self.end_notices_of(row.num, CameTo::None, now)?;
        if state != State::Gone {
            self.claim_ends(row.num, now)?;
        }
        if matches!(state, State::Gone | State::Deleted) {
            let how = "needs nobody any more: it does not exist";
            self.end_order_notice(row.name.as_str(), how, now)?;
        }
        let is = row.counted().into(state, false).living(None);
        self.write_identities(
            "SET past = substr(version || ' ' || past, 1, 90), prev_version = version, prev_until = 0, prev_key = NULL, \
             state = ?2, version = ?3, kind = ?4, next_kind = 'issued', withdrawn_at = ?5, due_at = NULL, \
             due_why = NULL, renews_at = NULL, good_until = 0, issued_at = NULL, expires_at = NULL, \
             minted_by = NULL, late_at = NULL, late_notified = 0, failures = 0, failing_since = NULL, token = NULL WHERE num = ?1",
            params![row.num, state.as_str(), signed(version.0), kind.as_str(), micros(now)],
            Counting::Known {
                num: row.num,
                was: row.counted(),
                is,
            },
        )?;
        self.want(row, version, micros(now))?;
        if !row.by_socket {
            self.expect_none(row.num)?;
        }
        self.effects.touched.rows.insert(row.num);
        if state == State::Deleted {
            self.effects.mapped.insert(row.num);
        }
        Ok(version)
    }

    /// Makes a row due. One that waits for a person's word before it is created is left as it is.
    pub(super) fn set_due(&mut self, row: &CurrentRow, at: i64, why: &str) -> Outcome<()> {
        self.set_due_of(row.num, row.due_at.is_some(), at, why)
    }

    /// The same of a row of which it is known whether it has a due time.
    pub(super) fn set_due_of(
        &mut self,
        num: Num,
        has_due: bool,
        at: i64,
        why: &str,
    ) -> Outcome<()> {
        let what = "SET due_at = ?2, due_why = ?3 WHERE num = ?1 \
                    AND NOT (id IS NULL AND state = 'new' AND due_at IS NULL AND due_why IS NOT DISTINCT FROM 'first')";
        self.write_identities(what, params![num, at, why], Counting::of_due(num, has_due))?;
        self.effects.due = true;
        Ok(())
    }

    /// Gives a row an id, or takes it.
    pub(super) fn set_id(&mut self, num: Num, id: Option<&IdentityId>) -> Outcome<()> {
        let id = id.map(IdentityId::as_str);
        let what = "SET id = ?2 WHERE num = ?1";
        self.write_identities(what, params![num, id], Counting::Nothing)?;
        Ok(())
    }
}

macro_rules! standing {
    ($which:expr) => {
        concat!(
            "SELECT num, name, resource, state, id, version, next_kind, due_at, due_why, minted_by, \
             revoked_at, asked_at, attempts, by_socket = 1 AS by_socket, renews_at, late_at, \
             (failures <> 0 OR late_notified <> 0 OR failing_since IS NOT NULL) AS marked FROM identity WHERE num ",
            $which
        )
    };
}

const STANDING: &str = standing!("= ?1");
const STANDING_OF_ALL: &str = standing!(concat!("IN (SELECT value FROM ", listed!("?1"), " one)"));

impl Db {
    /// What a decision about a row depends on.
    pub(super) fn standing(&self, num: Num) -> Outcome<Option<CurrentRow>> {
        Ok(self.one(RowKind::Identity, STANDING, [num], read_standing)?)
    }

    /// The same, `None` also where it cannot be read: such a row is left as it is.
    pub(super) fn readable(&self, num: Num) -> Outcome<Option<CurrentRow>> {
        match self.standing(num) {
            Err(fault) if fault.is_unreadable() => Ok(None),
            standing => standing,
        }
    }
}

impl CurrentRow {
    /// What is counted of it.
    pub(super) fn counted(&self) -> Counted {
        let by_socket = self.by_socket && self.due_at.is_some();
        Counted::new(self.resource, by_socket)
            .into(self.state, by_socket)
            .living(self.renews_at.zip(self.late_at))
    }

    /// Whether the row is still waiting for this very token.
    fn takes(&self, issue: &Issue<'_>, now: Timestamp) -> bool {
        let overtaken =
            |at: Option<i64>| at.is_some_and(|at| issue.call_began <= at && at <= latest(now));
        self.state.wants_token() && !overtaken(self.revoked_at) && !overtaken(self.asked_at)
    }

    fn kind_of(&self, token: &Token) -> Kind {
        match (self.next_kind, &self.minted_by) {
            // What a bearer minted is good, whatever mints the next.
            (Kind::Renewed, Some(key)) if is_entra_minter(key) => Kind::Renewed,
            (Kind::Renewed, Some(key)) if *key != token.meta.minted_by => Kind::Reissued,
            (kind, _) => kind,
        }
    }
}

impl Txn<'_> {
    /// Tells every sink of a row, and all who watch, that it has a new version.
    pub(super) fn want(&mut self, row: &CurrentRow, version: Version, now: i64) -> Outcome<()> {
        match row.by_socket {
            true => {}
            false => self.want_version(row.num, version, now, row.idle.as_deref())?,
        }
        self.note_version(row.num, &row.name, version);
        Ok(())
    }

    /// The same of a row of which it is not known whether it has a sink.
    pub(super) fn want_of(
        &mut self,
        num: Num,
        name: &Name,
        version: Version,
        now: i64,
    ) -> Outcome<()> {
        self.want_version(num, version, now, None)?;
        self.note_version(num, name, version);
        Ok(())
    }

    fn note_version(&mut self, num: Num, name: &Name, version: Version) {
        self.effects.wanted = true;
        self.effects.changed.push(Changed {
            seq: 0,
            num,
            name: name.clone(),
            version,
        });
    }
}

/// The columns in the order of [`STANDING`].
fn read_standing(row: &Row<'_>) -> sql::Result<CurrentRow> {
    Ok(CurrentRow {
        num: row.get(0)?,
        name: db::parsed(row, 1)?,
        resource: row.get(2)?,
        state: db::word(row, 3)?,
        id: db::maybe_parsed(row, 4)?,
        version: Version(db::unsigned(row, 5)?),
        next_kind: db::word(row, 6)?,
        due_at: row.get(7)?,
        due_why: row.get(8)?,
        minted_by: row.get(9)?,
        revoked_at: row.get(10)?,
        asked_at: row.get(11)?,
        attempts: PackedAttempts::of(row, 12)?,
        marked: row.get(16)?,
        by_socket: row.get(13)?,
        renews_at: row.get(14)?,
        late_at: row.get(15)?,
        idle: None,
    })
}
