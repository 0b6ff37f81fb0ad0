//! What may exist at ACS without a row of ours: creations whose answer was lost, and tokens that came
//! too late. The intent to create is written before the call, so that a crash cannot hide one.

use rusqlite::{Row, params};
use serde::{Deserialize, Serialize};

use super::{
    Store,
    aside::{RowKind, is_unreadable},
    columns,
    db::Txn,
    error::{Answer, Outcome},
};
use crate::model::{IdentityId, Name, Num, ResourceName, Timestamp};

/// A token or an identity that may exist at ACS without a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Orphan {
    /// Its number in the list.
    pub num: Num,
    /// When it was noticed, or when the call began.
    pub at: Timestamp,
    /// `creation` (its id is not known), `identity` or `token`.
    pub kind: String,
    /// The resource.
    pub resource: ResourceName,
    /// For which of our names it was made.
    pub name: Name,
    /// Its id, where known.
    pub id: Option<IdentityId>,
    /// The service's request id, where known.
    pub request_id: Option<String>,
    /// When the token ends, and leaves the list. Creations and identities stay.
    pub expires_at: Option<Timestamp>,
    /// When the tokens of an identity were revoked; it is still there, to be deleted or dismissed.
    #[serde(default)]
    pub revoked_at: Option<Timestamp>,
}

/// An orphan that is being noted.
pub(super) struct Orphaned<'a> {
    pub(super) at: i64,
    pub(super) kind: &'static str,
    pub(super) num: Num,
    pub(super) id: Option<&'a str>,
    pub(super) request_id: Option<&'a str>,
    pub(super) expires_at: Option<i64>,
}

impl Store {
    /// Notes that these rows are about to be created at ACS; before the calls. Settled by
    /// [`Change::Issued`] with an id, or by [`Store::creation_failed`]; by a crash they become orphans.
    pub async fn intend_creations(&self, nums: Vec<Num>, now: Timestamp) -> Answer<()> {
        self.write("note a creation", move |txn| {
            for num in &nums {
                txn.not_while_held(*num)?;
                txn.run(
                    "INSERT INTO intent VALUES (?1, ?2) ON CONFLICT DO UPDATE SET at = ?2",
                    [*num, columns::micros(now)],
                )?;
            }
            Ok(())
        })
        .await
    }

    /// A creation gave no id; `maybe_created`: its answer was lost, so an identity may exist.
    pub async fn creation_failed(
        &self,
        num: Num,
        maybe_created: bool,
        request_id: Option<String>,
    ) -> Answer<()> {
        self.write("note a failed creation", move |txn| {
            let sql = "DELETE FROM intent WHERE identity = ?1 RETURNING at";
            let began = txn.first(sql, [num], |row| row.get(0))?;
            match began {
                Some(at) if maybe_created => txn.orphan(&Orphaned {
                    at,
                    kind: "creation",
                    num,
                    id: None,
                    request_id: request_id.as_deref(),
                    expires_at: None,
                }),
                _ => Ok(()),
            }
        })
        .await
    }

    /// A page of what may exist at ACS without a record.
    pub async fn orphans(&self, after: Num, limit: usize) -> Answer<Vec<Orphan>> {
        self.read("list orphans", move |db| {
            let sql = "SELECT * FROM orphan WHERE num > ?1 ORDER BY num";
            Ok(db.page(RowKind::Orphan, limit, sql, [after], read_orphan)?)
        })
        .await
    }

    /// Orphans by their numbers; those that are not on the list are left out.
    pub async fn orphans_by_num(&self, nums: Vec<Num>) -> Answer<Vec<Orphan>> {
        self.read("list orphans", move |db| {
            let sql = "SELECT * FROM orphan WHERE num = ?1";
            let mut found = Vec::new();
            for num in &nums {
                match db.one(RowKind::Orphan, sql, [num], read_orphan) {
                    Ok(orphan) => found.extend(orphan),
                    Err(error) if is_unreadable(&error) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Ok(found)
        })
        .await
    }

    /// Takes orphans off the list.
    pub async fn dismiss_orphans(&self, nums: Vec<Num>) -> Answer<()> {
        self.write("dismiss orphans", move |txn| {
            for num in &nums {
                txn.run("DELETE FROM orphan WHERE num = ?1", [num])?;
            }
            Ok(())
        })
        .await
    }
}

impl Txn<'_> {
    /// At start: every creation that was under way is a possible orphan. Answers with their number.
    pub(super) fn orphan_intents(&self, now: i64) -> Outcome<usize> {
        let open = self.all(
            RowKind::Intent,
            "SELECT identity, at FROM intent",
            [],
            |row| Ok((row.get(0)?, row.get::<_, i64>(1)?)),
        )?;
        for (num, at) in &open {
            self.orphan(&Orphaned {
                at: (*at).min(now),
                kind: "creation",
                num: *num,
                id: None,
                request_id: None,
                expires_at: None,
            })?;
        }
        self.run("DELETE FROM intent", [])?;
        Ok(open.len())
    }

    pub(super) fn orphan(&self, orphan: &Orphaned<'_>) -> Outcome<()> {
        self.run(
            "INSERT INTO orphan (at, kind, resource, name, id, request_id, expires_at) \
             SELECT ?1, ?2, coalesce(r.name, ''), i.name, ?4, ?5, ?6 FROM identity i LEFT JOIN resource r ON r.num = i.resource \
             WHERE i.num = ?3",
            params![
                orphan.at,
                orphan.kind,
                orphan.num,
                orphan.id,
                orphan.request_id,
                orphan.expires_at
            ],
        )?;
        Ok(())
    }

    /// An id was deleted: what may have existed of it is no more.
    pub(super) fn orphans_deleted(&self, id: &str) -> Outcome<()> {
        self.run("DELETE FROM orphan WHERE id = ?1", [id])?;
        Ok(())
    }

    /// All tokens of an id were revoked by a call that began at `called`: those noticed before it are
    /// dead. The identities remain, without tokens.
    pub(super) fn orphans_revoked(&self, id: &str, called: i64, at: i64) -> Outcome<()> {
        self.run(
            "DELETE FROM orphan WHERE id = ?1 AND kind = 'token' AND at <= ?2",
            params![id, called],
        )?;
        self.run(
            "UPDATE orphan SET revoked_at = ?3 WHERE id = ?1 AND kind = 'identity' AND at <= ?2",
            params![id, called, at],
        )?;
        Ok(())
    }
}

pub(super) fn read_orphan(row: &Row<'_>) -> rusqlite::Result<Orphan> {
    Ok(Orphan {
        num: row.get("num")?,
        at: columns::instant_in(row, "at")?,
        kind: row.get("kind")?,
        resource: columns::parsed(row, "resource")?,
        name: columns::parsed(row, "name")?,
        id: columns::maybe_parsed(row, "id")?,
        request_id: row.get("request_id")?,
        expires_at: columns::maybe_instant(row, "expires_at")?,
        revoked_at: columns::maybe_instant(row, "revoked_at")?,
    })
}
