//! Revocations that a leader had noted as called when another machine took over. They are made again, and as the
//! former leader may still send its own (frozen between looking at its lease and writing), whoever they are about gets
//! a new token every half a minute, until ACS takes no signature of that time any more.

use std::time::Duration;

use super::{
    Store,
    db::{self, Txn, micros, signed},
    error::{Answer, Outcome},
};
use crate::{
    model::{Num, Timestamp},
    sql::params,
};

/// So long at most is somebody without a live token because of it.
const EVERY: Duration = Duration::from_secs(30);
/// ACS refuses a signature whose date is five minutes off: after so many nothing can come any more.
const TIMES: i64 = 11;

impl Store {
    /// Who is to get a new token again, because a former leader may have revoked the one that they hold.
    pub async fn late_calls(&self, now: Timestamp) -> Answer<Vec<Num>> {
        self.read("look for late revocations", move |db| {
            let every = i64::try_from(EVERY.as_micros()).unwrap_or(i64::MAX);
            let sql =
                "SELECT num FROM late_call WHERE called_at + (done + 1) * ?2 <= ?1 ORDER BY num";
            Ok(db.every(sql, [micros(now), every], |row| row.get(0))?)
        })
        .await
    }

    /// Notes that a new token was asked for once more; after the last time they are forgotten.
    pub async fn late_calls_answered(&self, nums: Vec<Num>) -> Answer<()> {
        self.write("note late revocations", move |txn| {
            for num in &nums {
                txn.run("UPDATE late_call SET done = done + 1 WHERE num = ?1", [num])?;
                let over = "DELETE FROM late_call WHERE num = ?1 AND done >= ?2";
                txn.run(over, [*num, TIMES])?;
            }
            Ok(())
        })
        .await
    }
}

impl Txn<'_> {
    /// Notes what a former leader left called.
    pub(super) fn note_late_calls(&self) -> Outcome<()> {
        let sql = "SELECT t.num, max(t.called_at) AS called_at FROM campaign_item t JOIN campaign c ON c.num = t.campaign \
                   WHERE t.state = 'called' AND t.epoch < ?1 AND t.called_at IS NOT NULL AND c.action = 'revoke' \
                   AND EXISTS (SELECT 1 FROM identity i WHERE i.num = t.num) GROUP BY t.num";
        let left = self.every(sql, [signed(self.epoch.get())], |row| {
            Ok((row.get::<_, Num>("num")?, db::instant_in(row, "called_at")?))
        })?;
        for (num, called_at) in left {
            let sql = "INSERT INTO late_call (num, called_at, done) VALUES (?1, ?2, 0) \
                       ON CONFLICT (num) DO UPDATE SET called_at = excluded.called_at, done = 0";
            self.run(sql, params![num, micros(called_at)])?;
        }
        Ok(())
    }
}
