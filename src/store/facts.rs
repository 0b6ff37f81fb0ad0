//! What the store has to say to `withdrawn.jsonl`: of what an operation touched before its commit, and of
//! everything when the file is written anew.

use std::collections::BTreeSet;

use super::{
    aside::RowKind,
    campaigns,
    db::{self, Db, Effects, Txn},
    error::{Fault, Outcome, StoreError},
    reconcile::{FORGOTTEN, REMOVED},
    withdrawals::{
        Appended, BEFORE, BOUND, Fact, Found, LAST, Order, Stage, Withdrawal, Withdrawals,
    },
    writer::Writer,
};
use crate::{
    model::{CampaignId, Num, State, Then},
    sql::{self, Row, SqlError},
};

/// Campaigns that are still to withdraw a row.
macro_rules! pending {
    ($num:literal) => {
        concat!(
            "SELECT t.campaign FROM campaign_item t JOIN campaign c ON c.num = t.campaign WHERE t.num = ",
            $num,
            " AND t.state IN ('pending', 'called', 'failed') AND c.action IN ('revoke', 'hold', 'delete') \
             AND c.phase <> 'cancelled' AND c.given_up_at IS NULL ORDER BY t.campaign"
        )
    };
}

pub(super) const PENDING: &str = pending!("?1");

/// All that is withdrawn of rows, with the campaigns that are still to withdraw them.
macro_rules! withdrawals {
    ($which:literal) => {
        concat!(
            "SELECT i.num, i.name, r.name AS resource, i.id, i.version, i.state, i.removed, i.revoked_at, \
             (SELECT string_agg(CAST(campaign AS TEXT), ' ') FROM (",
            pending!("i.num"),
            ") campaigns) AS pending FROM identity i LEFT JOIN resource r ON r.num = i.resource WHERE ",
            $which
        )
    };
}

const OF_ROW: &str = withdrawals!("i.num = ?1");
const OF_ALL: &str = withdrawals!(
    "i.num IN (SELECT num FROM identity WHERE state NOT IN ('new', 'active') OR revoked_at IS NOT NULL \
     UNION SELECT num FROM campaign_item WHERE state IN ('pending', 'called', 'failed') AND num > 0)"
);

impl Db {
    /// All that the file has to say, campaigns first.
    pub(super) fn each_withdrawal(&self, see: &mut dyn FnMut(Fact)) -> Outcome<()> {
        let open = "SELECT num FROM campaign WHERE action IN ('revoke', 'hold', 'delete') AND ended_at IS NULL \
                    OR num IN (SELECT campaign FROM campaign_item WHERE state = 'failed')";
        for campaign in self.all(RowKind::Campaign, open, [], |row| {
            row.get::<_, CampaignId>(0)
        })? {
            if let Some(order) = self.order(campaign)? {
                see(Fact::Campaign(order));
            }
        }
        self.conn.each(OF_ALL, [], None, |row| {
            match read_withdrawal(row) {
                Ok(withdrawal) => see(Fact::Identity(withdrawal)),
                Err(error) if error.is_unreadable() => {
                    self.aside.note(RowKind::Identity, row, &error);
                }
                Err(error) => return Err(error),
            }
            Ok(true)
        })?;
        let ids = "SELECT campaign, num FROM campaign_item WHERE state IN ('pending', 'called', 'failed') AND num < 0";
        for (campaign, num) in self.all(RowKind::CampaignItem, ids, [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })? {
            if let Some(withdrawal) = self.withdrawal_of_id(campaign, num)? {
                see(Fact::Identity(withdrawal));
            }
        }
        let waiting = "SELECT line FROM withdrawal ORDER BY name";
        for line in self.all(RowKind::Identity, waiting, [], |row| {
            row.get::<_, String>(0)
        })? {
            if let Ok(withdrawal) = serde_json::from_str(&line) {
                see(Fact::Identity(withdrawal));
            }
        }
        Ok(())
    }

    /// Names and ids of rows of which it cannot be told what is withdrawn: what the file says of them stays.
    fn untold(&self) -> Outcome<BTreeSet<String>> {
        let sql = "SELECT i.name, i.id FROM identity i WHERE i.state IS NULL OR /*sqlite*/typeof(i.state) <> 'text'/*postgres FALSE*/ \
                   OR i.state NOT IN ('new', 'active', 'held', 'gone', 'deleted') \
                   OR i.resource NOT IN (SELECT num FROM resource)";
        let mut words = BTreeSet::new();
        self.conn.each(sql, [], None, |row| {
            for column in ["name", "id"] {
                words.extend(row.get::<_, String>(column).ok());
            }
            Ok(true)
        })?;
        Ok(words)
    }

    /// All that is withdrawn of a row.
    fn withdrawal(&self, num: Num) -> Outcome<Option<Withdrawal>> {
        Ok(self.readable_one(RowKind::Identity, OF_ROW, [num], read_withdrawal)?)
    }

    fn withdrawal_of_id(&self, campaign: CampaignId, num: Num) -> Outcome<Option<Withdrawal>> {
        let sql = "SELECT t.campaign, t.num, r.name AS resource, t.id, t.state IN ('pending', 'called', 'failed') AS open \
                   FROM campaign_item t LEFT JOIN resource r ON r.num = t.resource \
                   WHERE t.campaign = ?1 AND t.num = ?2";
        Ok(
            self.readable_one(RowKind::CampaignItem, sql, [campaign, num], |row| {
                Ok(Withdrawal {
                    name: None,
                    resource: db::parsed(row, "resource")?,
                    id: db::maybe_parsed(row, "id")?,
                    version: 0,
                    held: false,
                    removed: false,
                    deleted: false,
                    gone: false,
                    forgotten: false,
                    revoked_at: None,
                    pending: row
                        .get::<_, bool>("open")?
                        .then_some(campaign)
                        .into_iter()
                        .collect(),
                })
            })?,
        )
    }

    fn order(&self, id: CampaignId) -> Outcome<Option<Order>> {
        let sql = "SELECT num, action, after, actor, reason, created_at, starts_at, urgent, target, selection, cursor, \
                   phase = 'cancelled' OR given_up_at IS NOT NULL AS over FROM campaign \
                   WHERE num = ?1 AND action IN ('revoke', 'hold', 'delete')";
        Ok(self.readable_one(RowKind::Campaign, sql, [id], |row| {
            let cursor: Option<i64> = row.get("cursor")?;
            Ok(Order {
                campaign: id,
                action: db::word(row, "action")?,
                then: row
                    .get::<_, Option<String>>("after")?
                    .and_then(|then| then.parse::<Then>().ok()),
                actor: row.get("actor")?,
                reason: row.get("reason")?,
                created_at: db::instant_in(row, "created_at")?,
                starts_at: db::maybe_instant(row, "starts_at")?,
                urgent: row.get("urgent")?,
                target: row.get("target")?,
                selection: row.get("selection")?,
                stage: match cursor {
                    _ if row.get("over")? => Stage::Over,
                    None => Stage::Listed,
                    Some(campaigns::OPEN) => Stage::Brought,
                    Some(_) => Stage::Listing,
                },
            })
        })?)
    }
}

impl Txn<'_> {
    /// What the file has to say of all that was touched.
    pub(super) fn facts(&self) -> Outcome<Vec<Fact>> {
        let touched = &self.effects.touched;
        let mut facts = Vec::new();
        for campaign in &touched.campaigns {
            facts.extend(self.order(*campaign)?.map(Fact::Campaign));
        }
        for num in touched.rows.union(&touched.listed) {
            let line = self.withdrawal(*num)?;
            let line = line.filter(|line| touched.rows.contains(num) || !line.pending.is_empty());
            facts.extend(line.map(Fact::Identity));
        }
        for (campaign, num) in &touched.ids {
            facts.extend(self.withdrawal_of_id(*campaign, *num)?.map(Fact::Identity));
        }
        Ok(facts)
    }
}

impl Writer {
    /// Before an operation that withdraws: commits that a number may be in the file. What follows is known
    /// to be a crash's by it.
    pub(super) fn promise(&self) -> Result<(), StoreError> {
        let promise = || {
            let bound = self.db.number(BOUND)?;
            self.db.set_number(BOUND, bound + 1)
        };
        let committed = || {
            self.db.conn.begin()?;
            promise()?;
            Ok(self.db.conn.commit()?)
        };
        // In PostgreSQL every write begins on a connection that lives; a number more does no harm.
        let promised = match self.db.conn.file() {
            Some(_) => promise(),
            None => match committed() {
                Err(Fault::Sql(SqlError::Unsure(_))) => committed(),
                promised => promised,
            },
        };
        promised.map_err(|fault| StoreError::new("prepare a withdrawal", fault))
    }

    /// Before the commit: writes what is withdrawn into the file and syncs it.
    pub(super) fn tell_withdrawals(
        &mut self,
        effects: &mut Effects,
        promised: bool,
    ) -> Result<Option<Appended>, StoreError> {
        let failed = |fault| StoreError::new("note what is withdrawn", fault);
        if effects.accepted {
            return self.begin_anew().map_err(failed).map(|()| None);
        }
        let highest = effects.highest.max(self.owed);
        if self
            .withdrawals
            .is_news(highest, effects.ahead || self.owed > 0)
        {
            // A number that nobody noted beforehand would look like that of a store that was put back.
            match promised {
                true => effects.facts.push(Fact::High { version: highest }),
                false => self.owed = highest,
            }
        }
        if effects.facts.is_empty() || !self.withdrawals.has_begun() {
            return Ok(None);
        }
        let facts = std::mem::take(&mut effects.facts);
        let written = self.number_and_append(&facts, promised).map_err(failed)?;
        if promised {
            self.owed = 0;
        }
        Ok(Some(written))
    }

    fn number_and_append(&mut self, facts: &[Fact], promised: bool) -> Outcome<Appended> {
        let bound = self.db.number(BOUND)?;
        let n = if promised { bound } else { bound + 1 };
        self.db.set_number(BEFORE, self.db.number(LAST)?)?;
        self.db.set_number(LAST, n)?;
        self.db.set_number(BOUND, n)?;
        self.withdrawals
            .append(n, facts)
            .map_err(|e| Fault::file(&e))
    }

    /// A person accepted: the file is what the store knows from here on.
    pub(super) fn begin_anew(&mut self) -> Outcome<()> {
        let known = self.db.known_of_the_file()?;
        let n = known.bound.max(known.last) + 1;
        self.withdrawals.set_aside().map_err(|e| Fault::file(&e))?;
        let id = known.id.unwrap_or_default();
        let found = Found {
            high: self.db.floor.get(),
            ..Found::default()
        };
        self.withdrawals
            .begin(&id, &found)
            .map_err(|e| Fault::file(&e))?;
        for key in [LAST, BEFORE, BOUND] {
            self.db.set_number(key, n)?;
        }
        self.fold_withdrawals()
    }

    /// Writes the file anew from what the store knows.
    pub(super) fn fold_withdrawals(&mut self) -> Outcome<()> {
        self.db.fold(&mut self.withdrawals)
    }
}

impl Db {
    /// Writes the file anew from what the store knows.
    pub(super) fn fold(&self, file: &mut Withdrawals) -> Outcome<()> {
        let n = self.number(LAST)?;
        let kept = file.last_of(&self.untold()?);
        let kept = kept.map_err(|e| Fault::file(&e))?;
        let folded = file.rewrite(n, |see| {
            self.each_withdrawal(see)?;
            kept.iter().cloned().for_each(see);
            Ok::<_, Fault>(())
        });
        folded.map_err(|e| Fault::file(&e))
    }
}

fn read_withdrawal(row: &Row<'_>) -> sql::Result<Withdrawal> {
    let pending = db::parsed_all(row, "pending")?;
    let state: State = db::word(row, "state")?;
    // What is withdrawn is told although something else cannot be read.
    let removed: u8 = row.get("removed").unwrap_or(0);
    let forgotten = removed == FORGOTTEN;
    Ok(Withdrawal {
        name: db::maybe_parsed(row, "name").unwrap_or(None),
        resource: db::parsed(row, "resource")?,
        id: db::maybe_parsed(row, "id").unwrap_or(None),
        version: db::unsigned(row, "version").unwrap_or(0),
        held: state == State::Held,
        removed: state == State::Held && removed == REMOVED,
        deleted: state == State::Deleted && !forgotten,
        gone: state == State::Gone,
        forgotten,
        revoked_at: db::maybe_instant(row, "revoked_at").unwrap_or(None),
        pending,
    })
}
