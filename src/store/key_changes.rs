//! Access keys that are being replaced, by their stages.
//!
//! Changes of access keys: how far each is, and the identities whose tokens the old key minted.
//!
//! What a change of keys tells as it goes on: each stage in the audit trail, and what a person should
//! know as a notice, in the transaction that notes the stage.

use std::collections::BTreeMap;

use super::{
    Store,
    aside::RowKind,
    db::{self, Db, Txn, drawn, draws, micros, spelled},
    error::{Answer, Fault, Outcome},
    identities::count,
    sinks::waited_for,
    tables::Counting,
};
use crate::{
    model::{
        AuditEntry, DueReason, KeyChange, KeyItem, KeyRole, KeyStage, KeyWork, NotedKeys, Notice,
        NoticeKind, Num, ResourceName, Timestamp,
    },
    sql::{self, Row, params},
};

/// A change of keys that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewKeyChange {
    pub resource: ResourceName,
    /// Why, and in which order.
    pub work: KeyWork,
    /// Which key is replaced.
    pub role: KeyRole,
    pub old_key: String,
    pub actor: String,
    /// Why, in their words.
    pub reason: Option<String>,
}

/// What a page of a change's identities brought.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KeyPage {
    /// Identities that were found to hold a token of the old key.
    pub marked: u64,
    /// Where the next page starts; `None` after the last.
    pub next: Option<Num>,
}

/// Where in `meta` it is noted what calls a resource.
fn keys_of(resource: &ResourceName) -> String {
    format!("keys {resource}")
}

const CHANGE: &str = "SELECT * FROM key_change";
/// Identities that hold a live token of the old key.
const MINTED: &str = "num > ?2 AND num <= ?3 AND minted_by = ?4 AND state = 'active' AND expires_at > ?5 \
    AND resource = (SELECT num FROM resource WHERE name = ?6)";
/// Those whose consumers hold one although they have another by now. By `+` the rows of the page alone are looked at.
pub(super) const STILL_HELD: &str = "INSERT INTO key_item (change, identity, state, version) \
    SELECT ?1, i.num, 'issued', i.version FROM identity i WHERE i.num IN (SELECT d.identity FROM delivery d \
    WHERE d.identity > ?2 AND d.identity <= ?3 AND d.live_key = ?4 AND d.live_until > ?5) AND i.minted_by <> ?4 \
    AND i.state = 'active' AND +i.resource = (SELECT num FROM resource WHERE name = ?6) ON CONFLICT DO NOTHING";

impl Store {
    /// Begins a change of keys; refused while another of the same resource is not over.
    pub async fn begin_key_change(&self, new: NewKeyChange, now: Timestamp) -> Answer<KeyChange> {
        self.write("begin to replace a key", move |txn| {
            if let Some(open) = txn.open_key_change(new.resource.as_str())? {
                return Err(Fault::Refused(format!(
                    "the {} key of {} is already being replaced since {:.0}; see `renewd key status {}`",
                    open.role, open.resource, open.started_at, open.resource
                )));
            }
            let id = txn.number_of_new(
                concat!(
                    draws!("key_change"),
                    " (num, resource, work, role, old_key, actor, reason, stage, started_at) VALUES (",
                    drawn!(),
                    ", ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) RETURNING num"
                ),
                params![
                    new.resource.as_str(),
                    spelled(&new.work),
                    new.role.as_str(),
                    new.old_key,
                    new.actor,
                    new.reason,
                    spelled(&KeyStage::Checking),
                    micros(now)
                ],
            )?;
            txn.effects.campaigns = true;
            let sql = format!("{CHANGE} WHERE num = ?1");
            let begun = txn.one(RowKind::KeyChange, &sql, [id], read_change)?;
            let begun = begun.ok_or_else(|| Fault::Refused("it was not kept".to_owned()))?;
            txn.tell_stage(&begun, &new.actor, now)?;
            Ok(begun)
        })
        .await
    }

    /// Calls the open change off; what was re-minted stays.
    pub async fn cancel_key_change(
        &self,
        resource: &ResourceName,
        actor: String,
        now: Timestamp,
    ) -> Answer<KeyChange> {
        let resource = resource.clone();
        self.write("call the replacement of a key off", move |txn| {
            let Some(mut change) = txn.open_key_change(resource.as_str())? else {
                return Err(Fault::Refused(format!(
                    "no key of {resource} is being replaced"
                )));
            };
            change.stage = KeyStage::Cancelled;
            change.ended_at = Some(now);
            txn.run(
                "UPDATE key_change SET stage = ?2, ended_at = ?3 WHERE num = ?1",
                params![change.id, spelled(&change.stage), micros(now)],
            )?;
            txn.effects.campaigns = true;
            txn.tell_stage(&change, &actor, now)?;
            Ok(change)
        })
        .await
    }

    /// Notes how far a change is; one that is over stays as it is.
    pub async fn note_key_change(&self, change: KeyChange, now: Timestamp) -> Answer<()> {
        self.write("note how far a key is replaced", move |txn| {
            let sql = "SELECT stage, trouble FROM key_change WHERE num = ?1 AND ended_at IS NULL";
            let before: Option<(KeyStage, Option<String>)> = txn.first(sql, [change.id], |row| {
                Ok((db::word(row, "stage")?, row.get("trouble")?))
            })?;
            let Some((before, trouble)) = before else {
                return Ok(());
            };
            txn.run(
                "UPDATE key_change SET stage = ?2, trouble = ?3, reminted_at = ?4, accepted_at = ?5, \
                 refused_at = ?6, ended_at = ?7 WHERE num = ?1",
                params![
                    change.id,
                    spelled(&change.stage),
                    change.trouble,
                    change.reminted_at.map(micros),
                    change.accepted_at.map(micros),
                    change.refused_at.map(micros),
                    change.ended_at.map(micros)
                ],
            )?;
            if trouble.is_some() && change.trouble.is_none() {
                txn.tell_resumed(&change, now)?;
            }
            if before != change.stage {
                txn.tell_stage(&change, "renewd", now)?;
            } else if trouble.is_none() {
                txn.tell_trouble(&change, now)?;
            }
            Ok(())
        })
        .await
    }

    /// Sets identities due that hold a live token of the old key, among the next `page` rows.
    pub async fn mark_minted(
        &self,
        change: &KeyChange,
        after: Num,
        page: usize,
        now: Timestamp,
    ) -> Answer<KeyPage> {
        let change = change.clone();
        self.write("set tokens of a key due", move |txn| {
            let sql =
                "SELECT max(num) FROM (SELECT num FROM identity WHERE num > ?1 ORDER BY num LIMIT ?2) page";
            let upto: Option<Num> = txn
                .first(sql, [after, count(page)], |row| row.get(0))?
                .flatten();
            let Some(upto) = upto else {
                return Ok(KeyPage::default());
            };
            let marked = txn.rows_apart("mark a row", (after, upto), |txn, after, upto| {
                txn.mark_rows(&change, (after, upto), now)
            })?;
            txn.effects.due |= marked > 0;
            Ok(KeyPage {
                marked,
                next: Some(upto),
            })
        })
        .await
    }

    /// Notes which of the next `page` identities of a change have their new token, and which of
    /// those with every consumer. Answers where the next page starts.
    pub async fn settle_key_items(
        &self,
        change: &KeyChange,
        after: Num,
        page: usize,
        now: Timestamp,
    ) -> Answer<Option<Num>> {
        let change = change.clone();
        self.write("follow tokens of a key", move |txn| {
            let sql = "SELECT max(identity) FROM (SELECT identity FROM key_item WHERE change = ?1 \
                       AND identity > ?2 ORDER BY identity LIMIT ?3) page";
            let params = [change.id, after, count(page)];
            let upto: Option<Num> = txn.first(sql, params, |row| row.get(0))?.flatten();
            let Some(upto) = upto else {
                return Ok(None);
            };
            let again = txn.rows_apart("follow a row", (after, upto), |txn, after, upto| {
                txn.follow_rows(&change, (after, upto), now)
            })?;
            txn.effects.due |= again > 0;
            Ok(Some(upto))
        })
        .await
    }

    /// The change of a resource's keys that is not over.
    pub async fn open_key_change(&self, resource: &ResourceName) -> Answer<Option<KeyChange>> {
        let resource = resource.clone();
        self.read("look a replacement of keys up", move |db| {
            db.open_key_change(resource.as_str())
        })
        .await
    }

    /// Notes what calls a resource, for machines of a cluster that do not.
    pub async fn note_keys(&self, resource: &ResourceName, noted: &NotedKeys) -> Answer<()> {
        let (key, noted) = (keys_of(resource), serde_json::json!(noted).to_string());
        self.write("note how keys are", move |txn| {
            Ok(db::set_meta(&txn.conn, &key, &noted)?)
        })
        .await
    }

    /// What calls a resource, as whoever leads last noted it.
    pub async fn noted_keys(&self, resource: &ResourceName) -> Answer<Option<NotedKeys>> {
        let key = keys_of(resource);
        self.read("look up how keys are", move |db| {
            let noted = db::meta::<String>(&db.conn, &key)?;
            // What another version noted is noted anew.
            Ok(noted.and_then(|noted| serde_json::from_str(&noted).ok()))
        })
        .await
    }

    /// Every change of keys that is not over, without its counts.
    pub async fn open_key_changes(&self) -> Answer<Vec<KeyChange>> {
        self.read("look replacements of keys up", |db| {
            let sql = format!("{CHANGE} WHERE ended_at IS NULL ORDER BY num");
            Ok(db.all(RowKind::KeyChange, &sql, [], read_change)?)
        })
        .await
    }

    /// The newest change of a resource's keys, over or not.
    pub async fn last_key_change(&self, resource: &ResourceName) -> Answer<Option<KeyChange>> {
        let resource = resource.clone();
        self.read("look a replacement of keys up", move |db| {
            let sql = format!("{CHANGE} WHERE resource = ?1 ORDER BY num DESC LIMIT 1");
            let found = db.one(RowKind::KeyChange, &sql, [resource.as_str()], read_change)?;
            found.map(|change| db.counted_change(change)).transpose()
        })
        .await
    }

    /// How many live tokens each key minted, by its fingerprint; reads the identities through.
    pub async fn minted(
        &self,
        resource: &ResourceName,
        now: Timestamp,
    ) -> Answer<BTreeMap<String, u64>> {
        let resource = resource.clone();
        self.read("count the tokens of keys", move |db| {
            let sql = "SELECT minted_by, count(*) AS n, min(num) AS num FROM identity WHERE resource = ?1 AND minted_by IS NOT NULL \
                       AND expires_at > ?2 GROUP BY minted_by";
            let params = [db.resource_num(resource.as_str())?, micros(now)];
            let rows = db.all(RowKind::Identity, sql, params, |row| {
                Ok((row.get("minted_by")?, db::unsigned(row, "n")?))
            })?;
            Ok(rows.into_iter().collect())
        })
        .await
    }

    /// A page of a change's identities, in the order of their names.
    pub async fn key_items(
        &self,
        change: &KeyChange,
        after: &str,
        limit: usize,
    ) -> Answer<Vec<KeyItem>> {
        let (change, after) = (change.clone(), after.to_owned());
        self.read("list the tokens of a key", move |db| {
            let sql = "SELECT k.change, k.identity, i.name, k.state, k.delivered_at FROM key_item k JOIN identity i ON i.num = k.identity \
                       WHERE k.change = ?1 AND i.name > ?2 ORDER BY i.name";
            let read = |row: &Row<'_>| {
                let delivered_at = db::maybe_instant(row, "delivered_at")?;
                let gap = delivered_at.and_then(|at| change.gap(at));
                Ok(KeyItem {
                    name: db::parsed(row, "name")?,
                    state: row.get("state")?,
                    delivered_at,
                    gap_ms: gap.map(|gap| gap.most_ms),
                    gap_least_ms: gap.map(|gap| gap.least_ms),
                })
            };
            Ok(db.page(
                RowKind::KeyItem,
                limit,
                sql,
                params![change.id, &after],
                read,
            )?)
        })
        .await
    }
}

impl Txn<'_> {
    fn mark_rows(
        &mut self,
        change: &KeyChange,
        (after, upto): (Num, Num),
        now: Timestamp,
    ) -> Outcome<usize> {
        let (id, old, now, resource) = (
            change.id,
            &change.old_key,
            micros(now),
            change.resource.as_str(),
        );
        let marked = self.run(
            &format!(
                "INSERT INTO key_item (change, identity, state) SELECT ?1, num, 'pending' FROM identity \
                 WHERE {MINTED} ON CONFLICT (change, identity) DO UPDATE SET state = 'pending', version = NULL, delivered_at = NULL"
            ),
            params![id, after, upto, old, now, resource],
        )?;
        // Renewed by now, but a consumer still holds the token of before.
        let held = self.run(STILL_HELD, params![id, after, upto, old, now, resource])?;
        let why = spelled(&DueReason::KeyChange);
        self.write_identities(
            &format!("SET due_at = ?5, due_why = ?1 WHERE {MINTED} AND due_at > ?5"),
            params![why, after, upto, old, now, resource],
            Counting::Nothing,
        )?;
        Ok(marked + held)
    }

    /// How many the old key minted once more.
    fn follow_rows(
        &mut self,
        change: &KeyChange,
        (after, upto): (Num, Num),
        now: Timestamp,
    ) -> Outcome<usize> {
        self.run(
            "UPDATE key_item SET state = 'issued', version = i.version FROM identity i \
             WHERE change = ?1 AND identity > ?2 AND identity <= ?3 AND key_item.state = 'pending' \
             AND i.num = key_item.identity AND i.minted_by <> ?4",
            params![change.id, after, upto, change.old_key],
        )?;
        // The old key minted it once more, because the other one was refused for a while.
        let again = self.write_identities(
            "SET due_at = ?5, due_why = ?6 WHERE num IN (SELECT identity FROM key_item \
             WHERE change = ?1 AND identity > ?2 AND identity <= ?3 AND state = 'pending') \
             AND minted_by = ?4 AND due_why = 'renewal' AND due_at > ?5",
            params![
                change.id,
                after,
                upto,
                change.old_key,
                micros(now),
                spelled(&DueReason::KeyChange)
            ],
            Counting::Nothing,
        )?;
        self.run(
            "UPDATE key_item SET state = CASE WHEN EXISTS (SELECT 1 FROM identity i \
             WHERE i.num = key_item.identity AND i.state = 'active') THEN 'ended' ELSE 'over' END WHERE change = ?1 AND identity > ?2 AND identity <= ?3 \
             AND state = 'pending' AND NOT EXISTS (SELECT 1 FROM identity i WHERE i.num = key_item.identity \
             AND i.state = 'active' AND i.expires_at > ?4)",
            params![change.id, after, upto, micros(now)],
        )?;
        self.run(
            concat!(
                "UPDATE key_item SET state = 'delivered', delivered_at = ?4 WHERE change = ?1 AND identity > ?2 \
                 AND identity <= ?3 AND state = 'issued' AND NOT EXISTS (SELECT 1 FROM delivery d \
                 JOIN sink s ON s.num = d.sink WHERE d.identity = key_item.identity \
                 AND d.delivered < key_item.version AND ",
                waited_for!(),
                ")"
            ),
            params![change.id, after, upto, micros(now)],
        )?;
        Ok(again)
    }
}

impl Db {
    /// The change of a resource's keys that is not over.
    pub(super) fn open_key_change(&self, resource: &str) -> Outcome<Option<KeyChange>> {
        let sql = format!("{CHANGE} WHERE resource = ?1 AND ended_at IS NULL");
        let found = self.one(RowKind::KeyChange, &sql, [resource], read_change)?;
        found.map(|change| self.counted_change(change)).transpose()
    }

    fn counted_change(&self, mut change: KeyChange) -> Outcome<KeyChange> {
        let sql = "SELECT state, count(*) AS n FROM key_item WHERE change = ?1 GROUP BY state";
        for (state, n) in self.all(RowKind::KeyItem, sql, [change.id], |row| {
            Ok((row.get::<_, String>(0)?, db::unsigned(row, "n")?))
        })? {
            match state.as_str() {
                "pending" => change.pending = n,
                "issued" => change.issued = n,
                "delivered" => change.delivered = n,
                _ => change.over += n,
            }
        }
        Ok(change)
    }
}

pub(super) fn read_change(row: &Row<'_>) -> sql::Result<KeyChange> {
    Ok(KeyChange {
        id: row.get("num")?,
        resource: db::parsed(row, "resource")?,
        work: db::word(row, "work")?,
        role: db::word(row, "role")?,
        old_key: row.get("old_key")?,
        actor: row.get("actor")?,
        reason: row.get("reason")?,
        stage: db::word(row, "stage")?,
        trouble: row.get("trouble")?,
        started_at: db::instant_in(row, "started_at")?,
        reminted_at: db::maybe_instant(row, "reminted_at")?,
        accepted_at: db::maybe_instant(row, "accepted_at")?,
        refused_at: db::maybe_instant(row, "refused_at")?,
        ended_at: db::maybe_instant(row, "ended_at")?,
        pending: 0,
        issued: 0,
        delivered: 0,
        over: 0,
        still_held: BTreeMap::new(),
    })
}

impl Txn<'_> {
    /// A stage was reached.
    pub(super) fn tell_stage(
        &mut self,
        change: &KeyChange,
        actor: &str,
        now: Timestamp,
    ) -> Outcome<()> {
        self.audit(&AuditEntry {
            at: now,
            actor: actor.to_owned(),
            action: format!("key.{}", spelled(&change.work)),
            name: None,
            reason: change.reason.clone(),
            request_id: None,
            result: format!(
                "{} key {} of {}: {}",
                change.role,
                change.old_key,
                change.resource,
                spelled(&change.stage)
            ),
        })?;
        match news(change, actor) {
            Some((NoticeKind::KeyReplaceable, message)) => {
                let held = self.holding_key(&change.old_key, now)?;
                let still = held.iter().map(|(sink, count)| {
                    let why = match sink.node() {
                        None => "which is disabled",
                        Some(_) => "which is disabled or whose machine is away",
                    };
                    format!(" But {count} consumers of {sink}, {why}, still hold a token of it.")
                });
                let message = still.fold(message, |message, still| message + &still);
                self.raise(&[notice(change, NoticeKind::KeyReplaceable, message, now)])
            }
            Some((kind, message)) => self.raise(&[notice(change, kind, message, now)]),
            None => Ok(()),
        }
    }

    /// It is held up no more, in the stage that it was in.
    pub(super) fn tell_resumed(&mut self, change: &KeyChange, now: Timestamp) -> Outcome<()> {
        let message = format!(
            "The replacement of the {} key of {} goes on.",
            change.role, change.resource
        );
        self.announce(&notice(change, NoticeKind::KeyResumed, message, now))?;
        Ok(())
    }

    /// It is held up.
    pub(super) fn tell_trouble(&mut self, change: &KeyChange, now: Timestamp) -> Outcome<()> {
        let Some(trouble) = &change.trouble else {
            return Ok(());
        };
        let message = format!(
            "The replacement of the {} key of {} cannot go on: {trouble}.",
            change.role, change.resource
        );
        self.raise(&[notice(change, NoticeKind::KeyStuck, message, now)])
    }
}

/// What a stage is to a person, if it is anything.
fn news(change: &KeyChange, actor: &str) -> Option<(NoticeKind, String)> {
    let (role, resource, other) = (change.role, &change.resource, change.role.other());
    let (kind, message) = match change.stage {
        KeyStage::Checking => (NoticeKind::KeyReplacing, begun(change, actor)),
        KeyStage::Regenerate => (
            NoticeKind::KeyReplaceable,
            format!(
                "The {role} key of {resource} may be regenerated now: every consumer that can be reached \
                 holds another token. `renewd key status {resource}` shows the command."
            ),
        ),
        KeyStage::Done => (
            NoticeKind::KeyReplaced,
            format!("The {role} key of {resource} is replaced: the new one works."),
        ),
        KeyStage::Refused => (
            NoticeKind::KeyKept,
            format!(
                "The {role} key of {resource} is not replaced: {}.",
                change
                    .trouble
                    .as_deref()
                    .unwrap_or("the other key does not work")
            ),
        ),
        KeyStage::Cancelled => (
            NoticeKind::KeyKept,
            format!(
                "{actor} called the replacement of the {role} key of {resource} off. What the {other} key \
                 minted stays."
            ),
        ),
        KeyStage::Reminting | KeyStage::Replace => return None,
    };
    Some((kind, message))
}

fn begun(change: &KeyChange, actor: &str) -> String {
    let (role, resource, other) = (change.role, &change.resource, change.role.other());
    let what = match change.work {
        KeyWork::Roll => "It may be regenerated when they are delivered, not before.",
        KeyWork::Leak => {
            "Somebody else has it; it may be regenerated when they are delivered, not before."
        }
        KeyWork::LeakNow => {
            "Somebody else has it: regenerate it at once; consumers are without a live token until \
             their new one arrives."
        }
    };
    let reason = change.reason.as_ref();
    let reason = reason.map_or(String::new(), |reason| format!(" Reason: {reason}."));
    format!(
        "{actor} replaces the {role} key of {resource}: the {other} key mints its tokens anew. {what}{reason}"
    )
}

fn notice(change: &KeyChange, kind: NoticeKind, message: String, at: Timestamp) -> Notice {
    Notice::new(kind, at, message)
        .about(&change.resource)
        .keyed(format!("key {} {}", change.resource, change.role))
}
