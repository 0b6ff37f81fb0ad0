//! Access keys whose tokens may be dead: refused ones, and those that minted live tokens and are no
//! longer configured. Their tokens are minted anew before all others; once the key is accepted again,
//! what is left of them goes back to its own time.

use super::{
    Store,
    aside::RowKind,
    db::{self, Db, Txn, micros, spelled},
    error::{Answer, Outcome},
    identities::count,
    key_changes::KeyPage,
    tables::Counting,
};
use crate::{
    model::{
        Attempts, DueReason, FailureClass, KeyDoubt, Notice, Num, ResourceName, Timestamp,
        is_entra_minter,
    },
    sql::{self, Row, params},
};

/// Taken from the end of a doubtful token, this puts it before all others, the earliest end first.
const BEFORE_ALL: i64 = 1 << 60;
/// A row whose last attempt failed is hastened no nearer to it than this.
const AFTER_ATTEMPT: i64 = 5_000_000;

/// Rows whose tokens a key minted, in pages.
pub(super) const MINTED_PAGE: &str = "SELECT max(num) FROM (SELECT num FROM identity WHERE resource = ?1 AND minted_by = ?2 \
    AND num > ?3 ORDER BY num LIMIT ?4) page";
/// Every key that minted a token which is still there, without a scan.
pub(super) const MINTERS: &str = "WITH RECURSIVE minter(key) AS ( \
    SELECT min(minted_by) FROM identity WHERE resource = ?1 AND minted_by IS NOT NULL \
    UNION ALL SELECT (SELECT min(i.minted_by) FROM identity i WHERE i.resource = ?1 AND i.minted_by > minter.key) \
    FROM minter WHERE minter.key IS NOT NULL) SELECT key FROM minter WHERE key IS NOT NULL";
/// How many of a key's tokens are in doubt, and when the first of them ends.
pub(super) const IN_DOUBT: &str = "SELECT count(*) AS n, min(expires_at) AS first_end FROM identity \
    WHERE resource = ?1 AND minted_by = ?2 AND state = 'active' AND good_until <> 0 AND expires_at > ?3";

/// Rows of a page whose doubtful token goes before all others.
macro_rules! hastened {
    () => {
        "WHERE resource = ?1 AND minted_by = ?2 AND num > ?3 AND num <= ?4 AND state = 'active' \
         AND good_until > 0 AND expires_at > ?5 AND due_at IS NOT NULL"
    };
}

/// Those of them that failed and wait for their next attempt.
const RETRIED: &str = concat!(
    "SELECT num, due_at, attempts FROM identity ",
    hastened!(),
    " AND due_why = 'retry' AND due_at > ?5"
);
/// The earliest end first, before all other work.
const FIRST: &str = concat!(
    "SET good_until = expires_at - ?6, due_at = CASE WHEN due_at <= ?5 OR due_why = 'retry' THEN due_at ELSE ?5 END, \
     due_why = CASE WHEN due_at <= ?5 OR due_why = 'retry' THEN due_why ELSE ?7 END ",
    hastened!()
);
const SPARED: &str = "SET good_until = expires_at, \
    due_at = CASE WHEN due_why IN (?6, 'retry') AND renews_at > ?5 THEN renews_at ELSE due_at END, \
    due_why = CASE WHEN due_why IN (?6, 'retry') AND renews_at > ?5 THEN 'renewal' ELSE due_why END \
    WHERE resource = ?1 AND minted_by = ?2 AND num > ?3 AND num <= ?4 AND good_until < 0";

/// Rows after one number up to another whose tokens one key minted.
struct Minted<'a> {
    resource: Num,
    fingerprint: &'a str,
    after: Num,
    upto: Num,
}

impl Store {
    /// The keys of a resource whose tokens may be dead, each with how many it minted.
    pub async fn doubted_keys(
        &self,
        resource: &ResourceName,
        now: Timestamp,
    ) -> Answer<Vec<KeyDoubt>> {
        let resource = resource.clone();
        self.read("look for tokens in doubt", move |db| {
            db.doubted_keys(resource.as_str(), now)
        })
        .await
    }

    /// Takes in which keys a resource has; answers with those whose tokens may be dead.
    pub async fn take_keys(
        &self,
        resource: &ResourceName,
        configured: Vec<String>,
        now: Timestamp,
    ) -> Answer<Vec<KeyDoubt>> {
        let resource = resource.clone();
        self.write("look for tokens of other keys", move |txn| {
            let resource = resource.as_str();
            let num = txn.resource_num(resource)?;
            let minters: Vec<String> = txn.all(RowKind::Identity, MINTERS, [num], |row| row.get(0))?;
            // What a bearer minted does not hang on any access key, nor on which bearer is used now.
            let missing = minters
                .iter()
                .filter(|key| !configured.contains(key) && !is_entra_minter(key));
            for key in missing {
                txn.run(
                    "INSERT INTO doubted_key (resource, fingerprint, why, since) VALUES (?1, ?2, 'unconfigured', ?3) \
                     ON CONFLICT DO NOTHING",
                    params![resource, key, micros(now)],
                )?;
            }
            let doubts = txn.doubted_keys(resource, now)?;
            for doubt in doubts.iter().filter(|doubt| doubt.tokens == 0) {
                if !configured.contains(&doubt.fingerprint) {
                    txn.drop_doubt(resource, &doubt.fingerprint)?;
                }
            }
            txn.doubted_keys(resource, now)
        })
        .await
    }

    /// Notes a key whose tokens may be dead, or that people were told of it, with the notice.
    pub async fn note_doubt(
        &self,
        resource: &ResourceName,
        doubt: KeyDoubt,
        notice: Option<Notice>,
    ) -> Answer<()> {
        let resource = resource.clone();
        self.write("note a key in doubt", move |txn| {
            let notice = notice.as_ref();
            txn.run(
                "INSERT INTO doubted_key (resource, fingerprint, role, why, since, told) VALUES (?1, ?2, ?3, ?4, ?5, ?6) \
                 ON CONFLICT (resource, fingerprint) DO UPDATE SET role = coalesce(excluded.role, doubted_key.role), why = excluded.why, told = excluded.told",
                params![
                    resource.as_str(),
                    doubt.fingerprint,
                    doubt.role.map(|role| role.as_str()),
                    spelled(&doubt.why),
                    micros(doubt.since),
                    doubt.told
                ],
            )?;
            txn.raise(notice.map_or(&[], std::slice::from_ref))
        })
        .await
    }

    /// A key is no longer in doubt, with the notice of that.
    pub async fn end_doubt(
        &self,
        resource: &ResourceName,
        fingerprint: &str,
        notice: Option<Notice>,
    ) -> Answer<()> {
        let (resource, fingerprint) = (resource.clone(), fingerprint.to_owned());
        self.write("note that a key is out of doubt", move |txn| {
            let notice = notice.as_ref();
            txn.drop_doubt(resource.as_str(), &fingerprint)?;
            txn.raise(notice.map_or(&[], std::slice::from_ref))
        })
        .await
    }

    /// Puts the doubtful tokens of a key, among its next `page`, before all other work.
    pub async fn hasten_doubtful(
        &self,
        resource: &ResourceName,
        fingerprint: &str,
        after: Num,
        page: usize,
        now: Timestamp,
    ) -> Answer<KeyPage> {
        let key = (resource.clone(), fingerprint.to_owned());
        self.write("put doubtful tokens first", move |txn| {
            txn.change_minted("put a row first", &key, (after, page), |txn, minted| {
                txn.hasten_retries(&minted, micros(now))?;
                let first = params![
                    minted.resource,
                    minted.fingerprint,
                    minted.after,
                    minted.upto,
                    micros(now),
                    BEFORE_ALL,
                    spelled(&DueReason::KeyChange)
                ];
                txn.write_identities(FIRST, first, Counting::Nothing)
            })
        })
        .await
    }

    /// Gives the tokens of a key, among its next `page`, their own time back.
    pub async fn spare_doubtful(
        &self,
        resource: &ResourceName,
        fingerprint: &str,
        after: Num,
        page: usize,
        now: Timestamp,
    ) -> Answer<KeyPage> {
        let key = (resource.clone(), fingerprint.to_owned());
        self.write("give tokens their own time back", move |txn| {
            txn.change_minted(
                "give a row its time back",
                &key,
                (after, page),
                |txn, minted| {
                    let spared = params![
                        minted.resource,
                        minted.fingerprint,
                        minted.after,
                        minted.upto,
                        micros(now),
                        spelled(&DueReason::KeyChange)
                    ];
                    txn.write_identities(SPARED, spared, Counting::Nothing)
                },
            )
        })
        .await
    }
}

impl Db {
    /// The keys of a resource whose tokens may be dead, each with what it minted.
    pub(super) fn doubted_keys(&self, resource: &str, now: Timestamp) -> Outcome<Vec<KeyDoubt>> {
        let sql = "SELECT * FROM doubted_key WHERE resource = ?1 ORDER BY since, fingerprint";
        let mut doubts = self.all(RowKind::DoubtedKey, sql, [resource], read_doubt)?;
        for doubt in &mut doubts {
            self.count_doubt(resource, doubt, now)?;
        }
        Ok(doubts)
    }

    fn count_doubt(&self, resource: &str, doubt: &mut KeyDoubt, now: Timestamp) -> Outcome<()> {
        let params = params![self.resource_num(resource)?, doubt.fingerprint, micros(now)];
        let counted = self.first(IN_DOUBT, params, |row| {
            Ok((
                db::unsigned(row, "n")?,
                db::maybe_instant(row, "first_end").unwrap_or(None),
            ))
        })?;
        (doubt.tokens, doubt.first_end) = counted.unwrap_or_default();
        Ok(())
    }
}

impl Txn<'_> {
    fn drop_doubt(&mut self, resource: &str, fingerprint: &str) -> Outcome<()> {
        let sql = "DELETE FROM doubted_key WHERE resource = ?1 AND fingerprint = ?2";
        self.run(sql, [resource, fingerprint])?;
        Ok(())
    }

    /// Changes the tokens that a key minted, among the next `page` of them; rows that the store refuses are left.
    fn change_minted(
        &mut self,
        doing: &'static str,
        (resource, fingerprint): &(ResourceName, String),
        (after, page): (Num, usize),
        mut change: impl FnMut(&mut Txn<'_>, Minted<'_>) -> Outcome<usize>,
    ) -> Outcome<KeyPage> {
        let resource = self.resource_num(resource.as_str())?;
        let Some(upto) = self.minted_page(resource, fingerprint, after, page)? else {
            return Ok(KeyPage::default());
        };
        let marked = self.rows_apart(doing, (after, upto), |txn, after, upto| {
            let minted = Minted {
                resource,
                fingerprint,
                after,
                upto,
            };
            change(txn, minted)
        })?;
        self.effects.due |= marked > 0;
        Ok(KeyPage {
            marked,
            next: Some(upto),
        })
    }

    /// What failed is tried again sooner; what was refused waits until it may be tried.
    fn hasten_retries(&mut self, minted: &Minted<'_>, now: i64) -> Outcome<()> {
        let params = params![
            minted.resource,
            minted.fingerprint,
            minted.after,
            minted.upto,
            now
        ];
        let waiting = self.all(RowKind::Identity, RETRIED, params, |row| {
            let (num, due) = (row.get::<_, Num>(0)?, row.get::<_, i64>(1)?);
            Ok((num, due, db::attempts(row, 2_usize)?))
        })?;
        for (num, due, attempts) in waiting {
            let sooner = hastened(due, &attempts, now);
            if sooner < due {
                let what = "SET due_at = ?2 WHERE num = ?1";
                self.write_identities(what, [num, sooner], Counting::Nothing)?;
            }
        }
        Ok(())
    }

    fn minted_page(
        &self,
        resource: Num,
        fingerprint: &str,
        after: Num,
        page: usize,
    ) -> Outcome<Option<Num>> {
        let params = params![resource, fingerprint, after, count(page)];
        Ok(self.first(MINTED_PAGE, params, |row| row.get(0))?.flatten())
    }
}

/// When a row that failed is tried again for its doubtful token.
fn hastened(due: i64, attempts: &Attempts, now: i64) -> i64 {
    let Some(last) = attempts.last() else {
        return due.min(now);
    };
    match last.result.starts_with(FailureClass::Refuse.as_str()) || last.result == "panic" {
        true => due,
        false => due.min(now.max(micros(last.at) + AFTER_ATTEMPT)),
    }
}

pub(super) fn read_doubt(row: &Row<'_>) -> sql::Result<KeyDoubt> {
    Ok(KeyDoubt {
        fingerprint: row.get("fingerprint")?,
        role: db::maybe_word(row, "role")?,
        why: db::word(row, "why")?,
        since: db::instant_in(row, "since")?,
        told: row.get("told")?,
        tokens: 0,
        first_end: None,
    })
}
