//! At each start the store is compared with `withdrawn.jsonl` and brought up to it; where that cannot be
//! done, a person is waited for ([`super::restore`]).
//!
//! The store commits the number of a transaction before its lines are written. So a file that goes no
//! further than that was overtaken by a crash, and its last lines are applied; a file that goes further
//! belongs to a store that was put back from a copy: it is brought up to the file, and every version
//! begins anew above the highest. A file that ends before what the store knows of lost its end: then
//! nothing is done until a person accepts.

use std::collections::BTreeMap;

use super::{
    aside::RowKind,
    campaigns::ItemState,
    commit::latest,
    db::{self, CurrentRow, Db, Txn, micros, signed, spelled},
    error::{Fault, Outcome},
    facts::PENDING,
    identities::token_place,
    idmap::IdMap,
    journal::{Files, Joined},
    reconcile::REMOVED,
    tables::{BEGUN, Counting},
    withdrawals::{BEFORE, BOUND, Fact, Found, LAST, Order, Stage, Withdrawal, Withdrawals},
};
use crate::{
    model::{
        CampaignId, Kind, Notice, NoticeKind, Num, OnRemoval, State, Then, Timestamp, Version, hex,
    },
    sql::{self, Row, params},
};

/// Which store this is; the file says the same.
pub(super) const STORE_ID: &str = "store_id";
/// No version is given out at or below this one.
const FLOOR: &str = "version_floor";
const OPEN_CAMPAIGN: &str = "SELECT num FROM campaign WHERE num = ?1 AND phase <> 'cancelled'";
/// Rows whose versions are raised at once.
const PAGE: i64 = 1000;

/// What a start took over from `withdrawn.jsonl`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BroughtUp {
    /// The store had been put back from an older copy, or made anew.
    pub older: bool,
    /// Identities that are held.
    pub held: usize,
    /// Identities whose hold had ended, or which ACS knew again.
    pub released: usize,
    /// Identities that were deleted.
    pub deleted: usize,
    /// Identities that ACS did not know any more.
    pub gone: usize,
    /// Identities that were revoked and get a new token.
    pub revoked: usize,
    /// Identities that campaigns are still to withdraw.
    pub pending: usize,
}

impl BroughtUp {
    fn is_something(self) -> bool {
        self.held + self.released + self.deleted + self.gone + self.revoked + self.pending > 0
    }
}

impl std::fmt::Display for BroughtUp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.older {
            true => "the store was older than withdrawn.jsonl and was brought up to it",
            false => "what a crash left in withdrawn.jsonl was carried out",
        })?;
        let parts = [
            (self.held, "held"),
            (self.released, "released"),
            (self.deleted, "deleted"),
            (self.gone, "gone at ACS"),
            (self.revoked, "revoked and minted anew"),
            (self.pending, "still to be withdrawn by campaigns"),
        ];
        for (at, (count, what)) in parts.iter().filter(|(count, _)| *count > 0).enumerate() {
            write!(f, "{} {count} {what}", if at == 0 { ":" } else { "," })?;
        }
        if self.older {
            f.write_str("; every version begins above the highest that was given out")?;
        }
        Ok(())
    }
}

/// What is known of the file beside what is known of the store.
#[derive(Debug, PartialEq, Eq)]
enum Comparison {
    /// It says nothing of use, and the store itself knows.
    Missing {
        /// It should have been there.
        lost: bool,
    },
    /// Lines after this number are applied.
    Sound { after: u64, older: bool },
    /// It cannot be known what was withdrawn.
    Doubt(String),
}

/// The file, and what the store knows of it.
#[derive(Debug)]
pub(super) struct Seen {
    known: Known,
    found: Found,
}

impl Seen {
    /// Whether there is a file that some store wrote.
    pub(super) fn is_known(&self) -> bool {
        self.found.store.is_some()
    }
}

/// What tells a store from every other one.
fn fresh_id() -> String {
    hex(rand::random::<[u8; 8]>())
}

fn unread(error: &std::io::Error) -> Fault {
    Fault::Refused(format!("read withdrawn.jsonl: {error}"))
}

/// What the store knows of the file.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) id: Option<String>,
    pub(super) last: u64,
    before: u64,
    pub(super) bound: u64,
}

fn judge(created: bool, names: usize, known: &Known, found: &Found, is_there: bool) -> Comparison {
    let file = "withdrawn.jsonl";
    if let Some(damage) = &found.damage {
        return Comparison::Doubt(damage.clone());
    }
    let Some(of) = &found.store else {
        if created && names > 0 {
            return Comparison::Doubt(format!(
                "the database is new, {file} beside it is missing, and identities.jsonl knows of {names} identities"
            ));
        }
        if is_there && known.last > 0 {
            return Comparison::Doubt(format!("{file} is empty"));
        }
        let lost = known.id.is_some();
        return Comparison::Missing { lost };
    };
    if known.id.as_ref().is_some_and(|id| id != of) {
        return Comparison::Doubt(format!("{file} belongs to another store"));
    }
    if found.last >= known.last {
        return Comparison::Sound {
            after: known.last,
            older: found.last > known.bound,
        };
    }
    let only_the_last_line = match found.torn {
        Some((n, left)) => n == known.last && left <= 1,
        None => found.half && found.last == known.before,
    };
    if only_the_last_line {
        return Comparison::Sound {
            after: known.last,
            older: false,
        };
    }
    Comparison::Doubt(format!(
        "{file} is cut off: it ends with the transaction {}, and the store knows of {}",
        found.last, known.last
    ))
}

/// How a start left store and file.
#[derive(Debug, Default)]
pub(super) struct Settled {
    pub(super) brought: Option<BroughtUp>,
    /// The file has to be written anew.
    pub(super) rewrite: bool,
    /// It was missing although it should have been there.
    pub(super) lost: bool,
}

/// The list of what is withdrawn was gone, and is written anew.
pub(super) fn rewritten(at: Timestamp) -> Notice {
    let message = "withdrawn.jsonl was missing and was written anew from the store: where it lay until then may be \
                   known, and with it what a copy of the store will lack";
    Notice::new(NoticeKind::WithdrawalsRewritten, at, message)
}

impl Settled {
    /// What people are told of it, and of what was taken over before.
    pub(super) fn notices(&self, taken: Option<String>, now: Timestamp) -> Vec<Notice> {
        let notice = |kind, message| Notice::new(kind, now, message);
        let brought = self.brought.map(|brought| brought.to_string());
        let brought = taken.into_iter().chain(brought);
        let brought = brought.map(|said| notice(NoticeKind::StoreBroughtUp, said));
        let lost = self.lost.then(|| rewritten(now));
        brought.chain(lost).collect()
    }
}

impl Db {
    /// With which number the changes end, and with which the journal: every machine looks for them all the time, in one
    /// question.
    pub(super) fn ends(&self) -> Outcome<(u64, u64)> {
        let sql = "SELECT (SELECT CAST(value AS BIGINT) FROM meta WHERE key = ?1), \
                   (SELECT CAST(value AS BIGINT) FROM meta WHERE key = ?2)";
        let ends = self.first(sql, ["seq", LAST], |row| {
            let end = |at: usize| row.get::<_, Option<i64>>(at);
            Ok((end(0)?, end(1)?))
        })?;
        let (seq, journal) = ends.unwrap_or_default();
        let number = |end: Option<i64>| end.unwrap_or(0).unsigned_abs();
        Ok((number(seq), number(journal)))
    }

    pub(super) fn number(&self, key: &str) -> Outcome<u64> {
        let number = db::meta::<i64>(&self.conn, key)?;
        Ok(number.unwrap_or(0).unsigned_abs())
    }

    pub(super) fn set_number(&self, key: &str, number: u64) -> Outcome<()> {
        if self.number(key)? != number {
            db::set_meta(&self.conn, key, signed(number))?;
        }
        Ok(())
    }

    /// Versions begin above this one.
    pub(super) fn load_floor(&self) -> Outcome<()> {
        self.floor.set(self.number(FLOOR)?);
        Ok(())
    }

    pub(super) fn known_of_the_file(&self) -> Outcome<Known> {
        Ok(Known {
            id: db::meta::<String>(&self.conn, STORE_ID)?,
            last: self.number(LAST)?,
            before: self.number(BEFORE)?,
            bound: self.number(BOUND)?,
        })
    }
}

impl Txn<'_> {
    /// Reads the file, and what the store knows of it.
    pub(super) fn look_at_withdrawals(&self, file: &mut Withdrawals) -> Outcome<Seen> {
        let known = self.known_of_the_file()?;
        let found = file.look(known.id.as_deref()).map_err(|e| unread(&e))?;
        Ok(Seen { known, found })
    }

    /// A machine of a cluster starts: its own file is no measure of what the others wrote, but what it says beyond that
    /// is carried out.
    pub(super) fn join_withdrawals(
        &mut self,
        (file, map): (&mut Withdrawals, &IdMap),
        Seen { known, mut found }: Seen,
        (files, now): (&Files, Timestamp),
    ) -> Outcome<Joined> {
        let id = known.id.unwrap_or_else(fresh_id);
        db::set_meta(&self.conn, STORE_ID, id.as_str())?;
        let is_foreign = found.store.as_ref().is_some_and(|of| *of != id);
        if is_foreign {
            tracing::error!(
                "the files beside the store are those of another store; they are kept as .distrusted and .broken"
            );
            map.keep_aside()?;
        }
        let mut joined = match is_foreign {
            true => Joined::default(),
            false => self.join_with(files, now)?,
        };
        if is_foreign || found.damage.is_some() {
            file.set_aside().map_err(|e| unread(&e))?;
            (found, joined.place) = (Found::default(), None);
        }
        file.begin(&id, &found).map_err(|e| unread(&e))?;
        Ok(joined)
    }

    /// Compares the store with the file and brings it up to it. `names` are those that the map knows.
    pub(super) fn settle_withdrawals(
        &mut self,
        file: &mut Withdrawals,
        Seen { mut known, found }: Seen,
        (created, names): (bool, usize),
        now: Timestamp,
    ) -> Outcome<Settled> {
        let unread = |e: std::io::Error| unread(&e);
        let id = known.id.clone().or_else(|| found.store.clone());
        let id = id.unwrap_or_else(fresh_id);
        if known.id.is_none() {
            db::set_meta(&self.conn, STORE_ID, id.as_str())?;
        }
        if self.restored()?.is_some() {
            return Ok(Settled::default());
        }
        let verdict = judge(created, names, &known, &found, file.is_there());
        let mut settled = Settled::default();
        match verdict {
            Comparison::Doubt(why) => {
                self.doubt(&why)?;
                return Ok(settled);
            }
            Comparison::Missing { lost } => {
                known.last += 1;
                (settled.lost, settled.rewrite) = (lost, true);
            }
            Comparison::Sound { after, older } => {
                file.begin(&id, &found).map_err(unread)?;
                settled.rewrite = found.last < after;
                if found.last > after || older {
                    let mut facts = Vec::new();
                    file.facts_after(after, |fact| facts.push(fact))
                        .map_err(unread)?;
                    let brought = self.bring_up(&facts, (older, found.high), now)?;
                    if older {
                        self.raise_versions(now)?;
                    }
                    settled.rewrite = true;
                    // A store that was made anew beside a file that withdraws nothing is no news.
                    settled.brought = (!created || brought.is_something()).then_some(brought);
                    known.last = found.last;
                }
            }
        }
        if settled.rewrite {
            file.begin(&id, &found).map_err(unread)?;
        }
        if settled.rewrite {
            self.set_number(LAST, known.last)?;
            self.set_number(BEFORE, known.last)?;
            self.set_number(BOUND, known.last.max(known.bound))?;
        }
        Ok(settled)
    }

    /// Carries out what a file says; `older` than that is what the store knows, and `high` the highest version that is
    /// spoken of.
    pub(super) fn bring_up(
        &mut self,
        facts: &[Fact],
        (older, high): (bool, u64),
        now: Timestamp,
    ) -> Outcome<BroughtUp> {
        // What was given out and never noted was no further than the clock of that moment.
        let clock = u64::try_from(now.as_second()).unwrap_or(0);
        let floor = self.number(FLOOR)?.max(high).max(clock);
        self.set_number(FLOOR, floor)?;
        self.load_floor()?;
        let mut brought = BroughtUp {
            older,
            ..BroughtUp::default()
        };
        // First how each campaign ended up: what was called off withdraws nobody.
        let (mut orders, mut campaigns) = (BTreeMap::new(), BTreeMap::new());
        for fact in facts {
            if let Fact::Campaign(order) = fact {
                orders.insert(order.campaign, order);
            }
        }
        for order in orders.values() {
            self.take_order(order, &mut campaigns)?;
        }
        for fact in facts {
            if let Fact::Identity(line) = fact {
                self.take_line(line, &campaigns, &mut brought, now)?;
            }
        }
        Ok(brought)
    }

    /// A campaign as the file knows it: found again, or made again under its number where that is free.
    fn take_order(
        &mut self,
        order: &Order,
        campaigns: &mut BTreeMap<CampaignId, CampaignId>,
    ) -> Outcome<()> {
        let same = self.same_campaign(order)?;
        let num = match (same, order.stage) {
            (Some(num), _) => num,
            (None, Stage::Over) => return Ok(()),
            (None, _) => self.make_again(order)?,
        };
        if order.stage != Stage::Over {
            campaigns.insert(order.campaign, num);
        }
        match order.stage {
            Stage::Over => self.run(
                "UPDATE campaign SET phase = 'cancelled', cursor = NULL WHERE num = ?1 AND ended_at IS NULL",
                [num],
            )?,
            Stage::Listed => self.run("UPDATE campaign SET cursor = NULL WHERE num = ?1", [num])?,
            Stage::Brought | Stage::Listing => 0,
        };
        Ok(())
    }

    /// The campaign of the store that an order is: by its number, for many may be made at one instant; or
    /// by who made it and when, where it was made again under another number because that was taken.
    fn same_campaign(&self, order: &Order) -> Outcome<Option<CampaignId>> {
        let sql =
            "SELECT created_at = ?2 AND action = ?3 AND actor = ?4 FROM campaign WHERE num = ?1";
        let told = params![
            order.campaign,
            micros(order.created_at),
            spelled(&order.action),
            order.actor
        ];
        match self.first(sql, told, |row| row.get::<_, bool>(0))? {
            None => Ok(None),
            Some(true) => Ok(Some(order.campaign)),
            Some(false) => {
                let sql = "SELECT num FROM campaign WHERE num > ?1 AND created_at = ?2 AND action = ?3 AND actor = ?4";
                Ok(self.first(sql, told, |row| row.get(0))?)
            }
        }
    }

    fn make_again(&self, order: &Order) -> Outcome<CampaignId> {
        let cursor = match order.stage {
            Stage::Brought => Some(super::campaigns::OPEN),
            Stage::Listing => Some(0),
            Stage::Listed | Stage::Over => None,
        };
        let taken = "SELECT 1 FROM campaign WHERE num = ?1";
        let taken = self.first(taken, [order.campaign], |_| Ok(()))?.is_some();
        let num = self.number_of_new(
            "/*postgres WITH drawn AS (UPDATE meta SET value = CAST(CASE WHEN CAST(?1 AS BIGINT) IS NULL THEN CAST(value AS BIGINT) + 1 \
             WHEN ?1 > CAST(value AS BIGINT) THEN ?1 ELSE CAST(value AS BIGINT) END AS TEXT) \
             WHERE key = 'last_campaign' RETURNING CAST(value AS BIGINT) AS num) */\
             INSERT INTO campaign (num, action, after, actor, reason, created_at, urgent, starts_at, target, selection, \
             cursor, told_at, last_num) VALUES (/*sqlite*/?1/*postgres coalesce(?1, (SELECT num FROM drawn))*/, \
             ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?6, (SELECT coalesce(max(num), 0) FROM identity)) RETURNING num",
            params![
                (!taken).then_some(order.campaign),
                spelled(&order.action),
                order.then.as_ref().map(spelled),
                order.actor,
                order.reason,
                micros(order.created_at),
                order.urgent,
                order.starts_at.map(micros),
                order.target,
                order.selection,
                cursor
            ],
        )?;
        Ok(num)
    }

    fn take_line(
        &mut self,
        line: &Withdrawal,
        campaigns: &BTreeMap<CampaignId, CampaignId>,
        brought: &mut BroughtUp,
        now: Timestamp,
    ) -> Outcome<()> {
        let mut pending: Vec<CampaignId> = Vec::new();
        for campaign in &line.pending {
            pending.extend(match campaigns.get(campaign) {
                Some(ours) => Some(*ours),
                // Ordered before the copy was taken, so that the store has it under the same number.
                None => self.first(OPEN_CAMPAIGN, [*campaign], |row| {
                    row.get::<_, CampaignId>(0)
                })?,
            });
        }
        let row = match &line.name {
            Some(name) => self.num_of(name.as_str())?,
            None => None,
        };
        let row = match row {
            Some(num) => self.readable(num)?,
            None => None,
        };
        let Some(row) = row else {
            return self.take_line_without_row(line, &pending, brought, now);
        };
        if line.id.is_some() && row.id.is_some() && line.id != row.id {
            // The name belongs to another identity by now.
            return Ok(());
        }
        // What a crash left half done is done once more by its item, so that its report is whole; what a copy of the
        // store does not know of was done long ago.
        if brought.older {
            self.settle_done(row.num, &pending, now)?;
        }
        for campaign in &pending {
            self.take_up_item(*campaign, row.num, now)?;
            brought.pending += 1;
        }
        self.bring_row(&row, line, brought, now)
    }

    /// Makes one row what the file says of it.
    fn bring_row(
        &mut self,
        row: &CurrentRow,
        line: &Withdrawal,
        brought: &mut BroughtUp,
        now: Timestamp,
    ) -> Outcome<()> {
        let is_newer = |at: Timestamp| {
            let ahead = |was: i64| was > latest(now) && was != micros(at);
            row.revoked_at
                .is_none_or(|was| was < micros(at) || ahead(was))
        };
        if let Some(at) = line.revoked_at.filter(|at| is_newer(*at)) {
            self.revoked(row, at, Then::Reissue, now)?;
            // Whatever the row holds is from before: it ended with the revocation.
            let what = "SET expires_at = CASE WHEN expires_at > ?2 THEN ?2 ELSE expires_at END WHERE num = ?1";
            self.write_identities(what, [row.num, micros(at)], Counting::Nothing)?;
            brought.revoked += usize::from(!line.held && !line.deleted && !line.gone);
        }
        let Some(row) = &self.readable(row.num)? else {
            return Ok(());
        };
        if line.deleted {
            if row.state != State::Deleted {
                self.withdraw(row, State::Deleted, Kind::Deleted, now)?;
                brought.deleted += 1;
            }
        } else if line.forgotten {
            let sql = "SELECT 1 FROM identity WHERE num = ?1 AND declared = 0 AND removed = 0";
            if self.first(sql, [row.num], |_| Ok(()))?.is_some() {
                self.let_go(row.num, OnRemoval::Forget, now)?;
            }
        } else if line.held {
            if row.state.wants_token() {
                self.withdraw(row, State::Held, Kind::Held, now)?;
                brought.held += 1;
            }
            if line.removed {
                let what = "SET removed = ?2, declared = 0 WHERE num = ?1";
                self.write_identities(what, params![row.num, REMOVED], Counting::Nothing)?;
            }
        } else if line.gone {
            if row.state.wants_token() {
                self.withdraw(row, State::Gone, Kind::Held, now)?;
                brought.gone += 1;
            }
        } else if matches!(row.state, State::Held | State::Gone) {
            self.release(row, now)?;
            brought.released += 1;
        }
        Ok(())
    }

    /// Nobody has this name yet: what is said of it waits until somebody does; its campaigns go on by its id.
    fn take_line_without_row(
        &mut self,
        line: &Withdrawal,
        pending: &[CampaignId],
        brought: &mut BroughtUp,
        now: Timestamp,
    ) -> Outcome<()> {
        if let Some(id) = &line.id {
            for campaign in pending {
                self.add_id(*campaign, line.resource.as_str(), id.as_str(), micros(now))?;
                brought.pending += 1;
            }
        }
        let Some(name) = &line.name else {
            return Ok(());
        };
        let mut line = line.clone();
        line.held |= self.are_to_hold(pending)?;
        line.pending.clear();
        if (line.held && !line.removed) || line.deleted || line.gone {
            let sql = "INSERT INTO withdrawal (name, line) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET line = excluded.line";
            let text = serde_json::to_string(&line).unwrap_or_default();
            self.run(sql, [name.as_str(), &text])?;
        } else {
            self.run("DELETE FROM withdrawal WHERE name = ?1", [name.as_str()])?;
        }
        Ok(())
    }

    fn are_to_hold(&self, campaigns: &[CampaignId]) -> Outcome<bool> {
        for campaign in campaigns {
            let sql = "SELECT 1 FROM campaign WHERE num = ?1 AND (action IN ('hold', 'delete') OR after = 'hold')";
            if self.first(sql, [*campaign], |_| Ok(()))?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// A row that was made just now, if something was said of its name before.
    pub(super) fn take_waiting(&mut self, num: Num, name: &str, now: Timestamp) -> Outcome<()> {
        let sql = "SELECT line FROM withdrawal WHERE name = ?1";
        let Some(text) = self.first(sql, [name], |row| row.get::<_, String>(0))? else {
            return Ok(());
        };
        self.run("DELETE FROM withdrawal WHERE name = ?1", [name])?;
        let line: Option<Withdrawal> = serde_json::from_str(&text).ok();
        if let (Some(line), Some(row)) = (line, self.readable(num)?) {
            if line.id.is_some() && row.id.is_some() && line.id != row.id {
                return Ok(());
            }
            self.bring_row(&row, &line, &mut BroughtUp::default(), now)?;
        }
        Ok(())
    }

    /// Items of a row that the file knows to be done.
    fn settle_done(&mut self, num: Num, pending: &[CampaignId], now: Timestamp) -> Outcome<()> {
        for campaign in self.all(RowKind::CampaignItem, PENDING, [num], |row| {
            row.get::<_, CampaignId>(0)
        })? {
            if !pending.contains(&campaign) {
                let set = ", acked_at = coalesce(acked_at, ?3), delivered_at = ?3, error = NULL";
                let from = &[ItemState::Failed, ItemState::Called, ItemState::Pending];
                let item = [campaign, num, micros(now)];
                self.move_item(campaign, (from, ItemState::Done), set, item)?;
                self.end_if_settled(campaign, now)?;
            }
        }
        Ok(())
    }

    fn take_up_item(&mut self, campaign: CampaignId, num: Num, now: Timestamp) -> Outcome<()> {
        let sql = "SELECT CASE WHEN starts_at > ?2 THEN starts_at ELSE ?2 END FROM campaign WHERE num = ?1";
        let from = self.first(sql, [campaign, micros(now)], |row| row.get::<_, i64>(0))?;
        self.add_rows(
            (campaign, true),
            &[num],
            from.unwrap_or_else(|| micros(now)),
        )?;
        let others = ItemState::ALL.iter().copied();
        let others: Vec<ItemState> = others.filter(|one| !BEGUN.contains(one)).collect();
        let set = ", attempts = 0, error = NULL";
        if self.move_item(
            campaign,
            (&others, ItemState::Pending),
            set,
            [campaign, num],
        )? {
            let sql = "UPDATE campaign SET ended_at = NULL, report_sha256 = NULL WHERE num = ?1";
            self.run(sql, [campaign])?;
        }
        Ok(())
    }

    /// Every version begins anew above the floor, so that none that was given out before comes again.
    pub(super) fn raise_versions(&mut self, now: Timestamp) -> Outcome<()> {
        let sql = "SELECT num, name, version, token FROM identity WHERE num > ?1 AND version > 0 ORDER BY num LIMIT ?2";
        let mut after = 0;
        loop {
            let rows = self.all(RowKind::Identity, sql, [after, PAGE], read_version)?;
            let Some((last, ..)) = rows.last() else {
                return Ok(());
            };
            after = *last;
            for row in rows {
                self.raise_version(row, now)?;
            }
        }
    }

    /// The version of one row begins anew above the floor, with the token that it has.
    fn raise_version(
        &mut self,
        (num, name, was, token): (Num, crate::model::Name, Version, Option<Vec<u8>>),
        now: Timestamp,
    ) -> Outcome<()> {
        let version = self.next_version(was, now);
        // One that does not open stays so: whoever looks everything through has it replaced.
        let sealed =
            token.map(|token| self.seal_anew(&token, &name, was, version).unwrap_or(token));
        self.write_identities(
            "SET prev_version = version, prev_until = good_until, prev_key = minted_by, \
             version = ?2, token = ?3 WHERE num = ?1",
            params![num, signed(version.0), sealed],
            Counting::Nothing,
        )?;
        self.want_of(num, &name, version, micros(now))
    }

    /// These versions were given out and are lost: what the database has of those identities begins anew above them. How
    /// many there are.
    pub(super) fn raise_above(
        &mut self,
        lost: &BTreeMap<String, Version>,
        now: Timestamp,
    ) -> Outcome<usize> {
        let highest = lost.values().map(|version| version.0).max().unwrap_or(0);
        self.set_number(FLOOR, self.number(FLOOR)?.max(highest))?;
        self.load_floor()?;
        let sql = "SELECT num, name, version, token FROM identity WHERE name = ?1 AND version > 0 AND version < ?2";
        let mut raised = 0;
        for (name, version) in lost {
            let params = params![name, signed(version.0)];
            if let Some(row) = self.first(sql, params, read_version)? {
                self.raise_version(row, now)?;
                raised += 1;
            }
        }
        Ok(raised)
    }

    /// A token under its new version, if it opens.
    fn seal_anew(
        &self,
        token: &[u8],
        name: &crate::model::Name,
        was: Version,
        version: Version,
    ) -> Option<Vec<u8>> {
        let open = self.seal.open(token_place(name, was.0), token).ok()?;
        self.seal.seal(token_place(name, version.0), &open).ok()
    }

    /// The version that follows; above all that were ever given out.
    pub(super) fn next_version(&mut self, was: Version, now: Timestamp) -> Version {
        let version = Version(was.0.max(self.floor.get())).next(now);
        let seconds = u64::try_from(now.as_second()).unwrap_or(0);
        self.effects.highest = self.effects.highest.max(version.0);
        self.effects.ahead |= version.0 > seconds;
        version
    }
}

/// A row by its number and name, with its version and the token of that.
fn read_version(row: &Row<'_>) -> sql::Result<(Num, crate::model::Name, Version, Option<Vec<u8>>)> {
    Ok((
        row.get("num")?,
        db::parsed(row, "name")?,
        Version(db::unsigned(row, "version")?),
        row.get("token")?,
    ))
}
