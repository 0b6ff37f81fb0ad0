//! What ACS says is gone. A single one is withdrawn when it says so twice; many at once, or one whose
//! token this very resource has minted and that now is said not to be its own, are more likely the
//! connection string of another resource: then nothing is withdrawn, and a person decides.

use super::{
    Cause, Store,
    aside::RowKind,
    db::{self, CurrentRow, Txn, micros, spelled},
    error::{Answer, Fault, Outcome},
    tables::Counting,
};
use crate::{
    model::{
        Attempt, AuditEntry, DueReason, GoneHeld, Kind, Name, Notice, NoticeKind, Num,
        ResourceName, State, Timestamp, Version,
    },
    sql::{self, Row, params},
};

/// ACS is asked again after so long.
const CONFIRM: i64 = 2_000_000;
/// So long one that is gone counts among those that are gone at once.
const AT_ONCE: i64 = 600_000_000;
/// So many may be gone at once, or a hundredth of all.
const FEW: u64 = 3;
/// One that is held is asked for again after so long, doubling.
const SHORTEST_HOLD: i64 = 60_000_000;
const LONGEST_HOLD: i64 = 3_600_000_000;
/// At most so many are named.
const NAMED: i64 = 20;

/// What becomes of a row that ACS says is gone.
enum GoneVerdict {
    /// It is: twice said.
    Withdraw,
    /// ACS is asked once more.
    Ask,
    /// Its deletion is under way, and ACS may have done it although the answer was lost: that ends it.
    Deleting,
    /// Not before a person says so; why.
    Hold(String),
}

impl Store {
    /// Where ACS says of too many identities that they are gone; a person decides.
    pub async fn held_gone(&self) -> Answer<Vec<GoneHeld>> {
        self.read("look for what is said to be gone", |db| {
            let sql = "SELECT r.name, count(*) AS n, min(c.first_at) AS since, r.num FROM gone_claim c \
                       JOIN resource r ON r.num = c.resource WHERE c.held = 1 GROUP BY r.num ORDER BY r.name";
            let mut all = db.all(RowKind::Identity, sql, [], read_held)?;
            for (num, held) in &mut all {
                let sql = "SELECT i.name FROM gone_claim c JOIN identity i ON i.num = c.identity \
                           WHERE c.resource = ?1 AND c.held = 1 ORDER BY c.identity LIMIT ?2";
                held.names = db.all(RowKind::Identity, sql, [*num, NAMED], |row| {
                    db::parsed(row, "name")
                })?;
            }
            Ok(all.into_iter().map(|(_, held)| held).collect())
        })
        .await
    }

    /// A person's word that what ACS says is gone is; answers with whom that withdraws.
    pub async fn confirm_gone(
        &self,
        resource: &ResourceName,
        cause: &Cause,
        now: Timestamp,
    ) -> Answer<Vec<Name>> {
        let (resource, cause) = (resource.clone(), cause.clone());
        self.withdraw("withdraw what is gone", move |txn| {
            let num = txn.resource_num(resource.as_str())?;
            let sql = "SELECT identity FROM gone_claim WHERE resource = ?1 AND withdrawn = 0 ORDER BY identity";
            let claimed: Vec<Num> = txn.all(RowKind::Identity, sql, [num], |row| row.get(0))?;
            let mut names = Vec::new();
            for row in claimed {
                let Some(row) = txn.standing(row)?.filter(|row| row.state.wants_token()) else {
                    continue;
                };
                let version = txn.withdraw(&row, State::Gone, Kind::Held, now)?;
                txn.audit(&entry(&cause, "gone", &row.name, version, now))?;
                names.push(row.name);
            }
            txn.run("DELETE FROM gone_claim WHERE resource = ?1", [num])?;
            txn.tell_if_settled(num, now)?;
            Ok(names)
        })
        .await
    }

    /// A person's word that one that is gone is known again, under the same id: it becomes due.
    pub async fn revive(&self, name: &Name, cause: &Cause, now: Timestamp) -> Answer<Version> {
        let (name, cause) = (name.clone(), cause.clone());
        self.withdraw("revive an identity", move |txn| {
            let num = txn.num_of(name.as_str())?;
            let row = num.map(|num| txn.standing(num)).transpose()?.flatten();
            let Some(row) = row else {
                return Err(Fault::Refused(format!("there is no identity {name}")));
            };
            if row.state != State::Gone {
                return Err(Fault::Refused(format!(
                    "{name} is {}, not gone: there is nothing to revive",
                    row.state
                )));
            }
            txn.drop_claim(row.num)?;
            txn.write_identities(
                "SET state = 'new', next_kind = 'issued', failures = 0 WHERE num = ?1",
                [row.num],
                Counting::OfRow(row.num),
            )?;
            txn.effects.touched.rows.insert(row.num);
            txn.set_due(&row, micros(now), &spelled(&DueReason::Requested))?;
            txn.audit(&entry(&cause, "revive", &row.name, row.version, now))?;
            Ok(row.version)
        })
        .await
    }

    /// A resource is called anew, perhaps by another connection string: those that it said are gone, and
    /// that wait for a person's word, are asked for at once.
    pub async fn ask_held_again(&self, resource: &ResourceName, now: Timestamp) -> Answer<()> {
        let resource = resource.clone();
        self.write("ask again for what is said to be gone", move |txn| {
            let asked = txn.write_identities(
                "SET due_at = CASE WHEN due_at > ?2 THEN ?2 ELSE due_at END WHERE due_at IS NOT NULL AND num IN \
                 (SELECT identity FROM gone_claim WHERE resource = ?1 AND held = 1)",
                params![txn.resource_num(resource.as_str())?, micros(now)],
                Counting::Nothing,
            )?;
            txn.effects.due |= asked > 0;
            Ok(())
        })
        .await
    }
}

impl Txn<'_> {
    /// ACS says that a row is gone: it is withdrawn, or asked for again, or held for a person.
    pub(super) fn claimed_gone(
        &mut self,
        mut row: CurrentRow,
        attempt: &Attempt,
        because: &str,
        now: Timestamp,
    ) -> Outcome<Version> {
        row.attempts = row.attempts.and(attempt);
        self.write_identities(
            "SET attempts = ?2 WHERE num = ?1",
            params![row.num, row.attempts.as_str()],
            Counting::Nothing,
        )?;
        match self.judge_claim(&row, attempt, now)? {
            GoneVerdict::Withdraw => self.withdraw_gone(&row, attempt, because, now),
            GoneVerdict::Ask => {
                let soon = micros(now) + CONFIRM;
                self.set_due(&row, soon, &spelled(&DueReason::Retry))?;
                Ok(row.version)
            }
            GoneVerdict::Deleting => {
                let later = micros(now) + SHORTEST_HOLD;
                self.set_due(&row, later, &spelled(&DueReason::Retry))?;
                Ok(row.version)
            }
            GoneVerdict::Hold(why) => {
                self.hold_claim(&row, &why, now)?;
                Ok(row.version)
            }
        }
    }

    fn judge_claim(
        &self,
        row: &CurrentRow,
        attempt: &Attempt,
        now: Timestamp,
    ) -> Outcome<GoneVerdict> {
        if self.is_being_deleted(row.num)? {
            return Ok(GoneVerdict::Deleting);
        }
        let sql = "INSERT INTO gone_claim (identity, resource, first_at) VALUES (?1, ?2, ?3) \
                   ON CONFLICT (identity) DO UPDATE SET resource = excluded.resource, \
                   first_at = CASE gone_claim.withdrawn WHEN 1 THEN excluded.first_at ELSE gone_claim.first_at END, withdrawn = 0 RETURNING first_at, held";
        let claim = self.first(sql, params![row.num, row.resource, micros(now)], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, bool>(1)?))
        })?;
        let (first_at, held) = claim.unwrap_or((micros(now), false));
        if attempt.result == "gone 401" && self.was_minted_here(row)? {
            return Ok(GoneVerdict::Hold(
                "it minted tokens for it before, and now says that it is not its own".to_owned(),
            ));
        }
        let count = self.claims_at_once(row.resource, now)?;
        let sql = "SELECT CAST(coalesce(sum(n), 0) AS BIGINT) AS n FROM identity_count WHERE resource = ?1";
        let all = self.first(sql, [row.resource], |row| db::unsigned(row, "n"))?;
        if count > FEW.max(all.unwrap_or(0) / 100) {
            return Ok(GoneVerdict::Hold(format!("it says so of {count} at once")));
        }
        if held || micros(now) < first_at + CONFIRM {
            return Ok(GoneVerdict::Ask);
        }
        Ok(GoneVerdict::Withdraw)
    }

    /// Whether ACS was called to delete a row, and it is not known what became of that.
    fn is_being_deleted(&self, num: Num) -> Outcome<bool> {
        // The list of states lets SQLite use the index of what was begun.
        let sql = "SELECT 1 FROM campaign_item t JOIN campaign c ON c.num = t.campaign WHERE t.num = ?1 \
                   AND t.state IN ('called', 'failed') AND t.state = 'called' AND c.action = 'delete' LIMIT 1";
        Ok(self.first(sql, [num], |_| Ok(()))?.is_some())
    }

    /// Nobody asks for a token of a row any more, so it matters to nobody whether it is gone.
    pub(super) fn claim_ends(&mut self, num: Num, now: Timestamp) -> Outcome<()> {
        let sql = "DELETE FROM gone_claim WHERE identity = ?1 AND withdrawn = 0 RETURNING resource";
        match self.first(sql, [num], |row| row.get(0))? {
            Some(resource) => self.tell_if_settled(resource, now),
            None => Ok(()),
        }
    }

    /// Whether this resource minted the row's token under the id that it has now.
    fn was_minted_here(&self, row: &CurrentRow) -> Outcome<bool> {
        let sql = "SELECT minted_by IS NOT NULL AND coalesce(asked_at, 0) / 1000000 <= version FROM identity \
                   WHERE num = ?1";
        Ok(self
            .first(sql, [row.num], |row| row.get(0))?
            .unwrap_or(false))
    }

    fn claims_at_once(&self, resource: Num, now: Timestamp) -> Outcome<u64> {
        let sql = "DELETE FROM gone_claim WHERE resource = ?1 AND withdrawn = 1 AND first_at < ?2";
        let before = micros(now) - AT_ONCE;
        self.run(sql, [resource, before])?;
        let sql = "SELECT count(*) AS n FROM gone_claim WHERE resource = ?1";
        let count = self.first(sql, [resource], |row| db::unsigned(row, "n"))?;
        Ok(count.unwrap_or(0))
    }

    fn withdraw_gone(
        &mut self,
        row: &CurrentRow,
        attempt: &Attempt,
        because: &str,
        now: Timestamp,
    ) -> Outcome<Version> {
        self.run(
            "UPDATE gone_claim SET withdrawn = 1, held = 0 WHERE identity = ?1",
            [row.num],
        )?;
        let version = self.withdraw(row, State::Gone, Kind::Held, now)?;
        self.audit(&AuditEntry {
            at: now,
            actor: "renewd".to_owned(),
            action: "gone".to_owned(),
            name: Some(row.name.clone()),
            reason: Some(attempt.result.clone()),
            request_id: attempt.request_id.clone(),
            result: format!("version {version}"),
        })?;
        let message = format!(
            "ACS does not know {0} any more ({because}). It is kept and shown, and renewd never creates it again by \
             itself: remove it, give it another id, or, if ACS knows it again, `renewd identity revive {0}`.",
            row.name
        );
        let resource = self.resource_name(row.resource)?;
        self.raise(&[Notice {
            at: now,
            kind: NoticeKind::IdentityGone,
            resource,
            key: Some(Notice::gone_key(&row.name)),
            name: Some(row.name.clone()),
            message,
        }])?;
        Ok(version)
    }

    /// Nothing is withdrawn; the row keeps what it has and is asked for again, ever more seldom.
    fn hold_claim(&mut self, row: &CurrentRow, why: &str, now: Timestamp) -> Outcome<()> {
        let sql = "SELECT count(*) AS n FROM gone_claim WHERE resource = ?1 AND held = 1";
        let before = self.first(sql, [row.resource], |row| db::unsigned(row, "n"))?;
        self.run(
            "UPDATE gone_claim SET held = 1 WHERE resource = ?1 AND withdrawn = 0",
            [row.resource],
        )?;
        self.write_identities(
            "SET failures = failures + 1, due_why = 'retry', \
             due_at = ?2 + CASE WHEN failures > 6 OR CAST(?3 AS BIGINT) << CAST(failures AS INTEGER) > ?4 THEN ?4 \
             ELSE CAST(?3 AS BIGINT) << CAST(failures AS INTEGER) END WHERE num = ?1",
            params![row.num, micros(now), SHORTEST_HOLD, LONGEST_HOLD],
            Counting::of_due(row.num, row.due_at.is_some()),
        )?;
        self.effects.due = true;
        let Some(resource) = self.resource_name(row.resource)? else {
            return Ok(());
        };
        if before.unwrap_or(0) > 0 {
            return Ok(());
        }
        let message = format!(
            "{resource} says that {} does not exist or is not its own, and {why}: nothing is withdrawn, as that looks \
             like the connection string of another resource. If it is, put the right one in its place and reload; if \
             they are really gone: `renewd identity confirm-gone {resource}`.",
            row.name
        );
        self.raise(&[held_notice(NoticeKind::GoneHeld, &resource, message, now)])
    }

    /// A token came: it is not gone after all.
    pub(super) fn not_gone(&mut self, row: &CurrentRow, now: Timestamp) -> Outcome<()> {
        if !row.attempts.last_is("gone") {
            return Ok(());
        }
        self.drop_claim(row.num)?;
        self.tell_if_settled(row.resource, now)
    }

    /// Of a row nothing is claimed any more.
    pub(super) fn drop_claim(&self, num: Num) -> Outcome<()> {
        self.run("DELETE FROM gone_claim WHERE identity = ?1", [num])?;
        Ok(())
    }

    fn tell_if_settled(&mut self, resource: Num, now: Timestamp) -> Outcome<()> {
        let Some(resource) = self.resource_name(resource)? else {
            return Ok(());
        };
        let sql = "SELECT 1 FROM gone_claim c JOIN resource r ON r.num = c.resource WHERE r.name = ?1 AND c.held = 1";
        let held = self.first(sql, [resource.as_str()], |_| Ok(()))?;
        let sql = "SELECT kind FROM notice WHERE resource = ?1 AND name IS NULL \
                   AND kind IN ('gone.held', 'gone.settled') ORDER BY seq DESC LIMIT 1";
        let last: Option<NoticeKind> =
            self.first(sql, [resource.as_str()], |row| db::word(row, "kind"))?;
        if held.is_some() || last != Some(NoticeKind::GoneHeld) {
            return Ok(());
        }
        let message =
            format!("Nothing of {resource} waits any more for a word on whether it is gone.");
        self.raise(&[held_notice(
            NoticeKind::GoneSettled,
            &resource,
            message,
            now,
        )])
    }

    /// Nobody is created at what may be another resource.
    pub(super) fn not_while_held(&self, num: Num) -> Outcome<()> {
        let sql = "SELECT 1 FROM gone_claim WHERE held = 1 AND resource = (SELECT resource FROM identity WHERE num = ?1)";
        match self.first(sql, [num], |_| Ok(()))? {
            Some(()) => Err(Fault::Refused(
                "it may be another resource: it says of identities that they are gone, and a person has not looked \
                 yet; see `renewd status`"
                    .to_owned(),
            )),
            None => Ok(()),
        }
    }

    fn resource_name(&self, num: Num) -> Outcome<Option<ResourceName>> {
        let sql = "SELECT name FROM resource WHERE num = ?1";
        Ok(self.first(sql, [num], |row| db::parsed(row, "name"))?)
    }
}

fn read_held(row: &Row<'_>) -> sql::Result<(Num, GoneHeld)> {
    Ok((
        row.get("num")?,
        GoneHeld {
            resource: db::parsed(row, "name")?,
            count: db::unsigned(row, "n")?,
            since: db::instant_in(row, "since")?,
            names: Vec::new(),
        },
    ))
}

fn entry(cause: &Cause, action: &str, name: &Name, version: Version, at: Timestamp) -> AuditEntry {
    AuditEntry {
        at,
        actor: cause.actor.clone(),
        action: action.to_owned(),
        name: Some(name.clone()),
        reason: cause.reason.clone(),
        request_id: None,
        result: format!("version {version}"),
    }
}

fn held_notice(
    kind: NoticeKind,
    resource: &ResourceName,
    message: String,
    at: Timestamp,
) -> Notice {
    Notice::new(kind, at, message)
        .about(resource)
        .keyed(format!("gone {resource}"))
}
