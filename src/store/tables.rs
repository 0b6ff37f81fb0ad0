//! The tables that are counted: identities, deliveries, items of campaigns. Each is written by one function here, and
//! nowhere else, so that what a write does to the counters (`counters`) stands beside it; and so that the file of whoever
//! leaves a sink or its name is left as a stray (`sinks`).

use super::{
    aside::RowKind,
    campaigns::ItemState,
    counters::{Counted, add, text},
    db::{Db, Txn, drawn, draws, list, listed, micros, signed},
    error::Outcome,
};
use crate::{
    model::{CampaignId, Num, Placed, Timestamp, Version},
    sql::{Params, Row, params},
};

/// What a write of identities does to what is counted of them.
#[derive(Debug)]
pub(super) enum Counting {
    Nothing,
    /// One row, which was read in this transaction, changes from the first to the second.
    Known {
        num: Num,
        was: Counted,
        is: Counted,
    },
    /// One row, which is looked at before and afterwards.
    OfRow(Num),
    /// Many get their first due time or lose it, or change between the socket and a sink: these are counted anew.
    Anew,
}

impl Counting {
    /// A row gets a due time, which it has already or not.
    pub(super) fn of_due(num: Num, has_due: bool) -> Self {
        match has_due {
            true => Self::Nothing,
            false => Self::OfRow(num),
        }
    }
}

/// Columns of an identity that are written only with what is counted of them in mind.
const COUNTED: [&str; 5] = ["state", "resource", "by_socket", "renews_at", "late_at"];

/// The statement that changes identities: `what` goes on after the name of the table.
pub(super) fn update_identities(what: &str) -> String {
    format!("UPDATE identity {what}")
}

impl Txn<'_> {
    /// Changes identities: `what` are the columns and the rows (`SET … WHERE …`). How many changed.
    pub(super) fn write_identities(
        &mut self,
        what: &str,
        params: impl Params,
        counting: Counting,
    ) -> Outcome<usize> {
        debug_assert!(
            !matches!(counting, Counting::Nothing)
                || COUNTED.iter().all(|column| !sets(what, column)),
            "{what}"
        );
        let was = match counting {
            Counting::OfRow(num) => self.counted_row(num)?,
            _ => None,
        };
        let sql = update_identities(what);
        if let Counting::Known { num, was, is } = counting {
            self.ahead.remove(&num);
            self.send(&sql, params)?;
            self.count(Some(was), Some(is));
            return Ok(1);
        }
        self.ahead.clear();
        let changed = self.run(&sql, params)?;
        match counting {
            Counting::OfRow(num) if changed > 0 => {
                let is = self.counted_row(num)?;
                self.count(was, is);
            }
            Counting::Anew if changed > 0 => self.count_by_socket()?,
            _ => {}
        }
        Ok(changed)
    }

    /// Adds a row; `row` says what is counted of it, `wish` what is declared.
    pub(super) fn add_identity(&mut self, row: &NewRow<'_>) -> Outcome<Num> {
        let num = self.number_of_new(
            concat!(
                draws!("identity"),
                " (num, name, resource, origin, declared, state, id, created_at, due_at, due_why, by_socket, wish) VALUES (",
                drawn!(),
                ", ?1, ?2, ?3, ?4, 'new', ?5, ?6, ?7, ?8, ?9, ?10) RETURNING num"
            ),
            params![
                row.name,
                row.resource,
                row.origin,
                row.declared,
                row.id,
                row.created_at,
                row.due_at,
                row.due_why,
                row.by_socket,
                row.wish
            ],
        )?;
        let by_socket = row.by_socket && row.due_at.is_some();
        self.count(None, Some(Counted::new(row.resource, by_socket)));
        self.count_readers("", row.wish);
        Ok(num)
    }

    /// Drops a row with all that hangs on it.
    pub(super) fn remove_identity(&mut self, num: Num) -> Outcome<()> {
        self.write_deliveries_of(num, |txn| {
            txn.leave_files(OF_IDENTITY, [num])?;
            for (sink, ..) in txn.deliveries_counted(num)? {
                txn.note_losses(sink, 1)?;
            }
            Ok(txn.run("DELETE FROM delivery WHERE identity = ?1", [num])?)
        })?;
        let (was, wish) = (self.counted_row(num)?, self.wish(num)?);
        self.run("DELETE FROM identity WHERE num = ?1", [num])?;
        self.count(was, None);
        self.count_readers(&wish, "");
        self.forget_holders(num)?;
        self.drop_claim(num)
    }

    /// Changes what is declared of a row.
    pub(super) fn declare_row(
        &mut self,
        num: Num,
        (wish, origin, declared): (&str, &str, bool),
    ) -> Outcome<()> {
        let was = self.wish(num)?;
        self.count_readers(&was, wish);
        let what = "SET wish = ?2, origin = ?3, declared = ?4 WHERE num = ?1";
        let params = params![num, wish, origin, declared];
        self.write_identities(what, params, Counting::Nothing)?;
        Ok(())
    }

    /// Gives every row without an id the one that its name had before.
    pub(super) fn adopt_all_remembered(&mut self, now: i64, why: &str) -> Outcome<usize> {
        let adopted = self.run(
            "UPDATE identity SET id = m.id, created_at = m.created_at, due_at = coalesce(due_at, ?1), \
             due_why = coalesce(due_why, ?2) FROM remembered m JOIN resource r ON r.name = m.resource \
             WHERE identity.name = m.name AND identity.resource = r.num AND identity.id IS NULL \
             AND identity.state = 'new' AND NOT EXISTS (SELECT 1 FROM identity o WHERE o.id = m.id) \
             AND NOT EXISTS (SELECT 1 FROM remembered e JOIN identity o ON o.name = e.name \
             WHERE e.id = m.id AND e.name < m.name AND o.id IS NULL AND o.state = 'new')",
            params![now, why],
        )?;
        if adopted > 0 {
            self.count_by_socket()?;
        }
        Ok(adopted)
    }
}

/// Of a copy of somebody else's rows, in which nothing is counted but who may read them.
impl Txn<'_> {
    pub(super) fn drop_copied_identities(
        &mut self,
        which: &str,
        params: impl Params,
    ) -> Outcome<()> {
        let sql = format!("DELETE FROM identity WHERE {which} RETURNING wish");
        for wish in self.every(&sql, params, |row| row.get::<_, Option<String>>(0))? {
            self.count_readers(wish.as_deref().unwrap_or_default(), "");
        }
        Ok(())
    }

    pub(super) fn drop_copied_deliveries(&self, which: &str, params: impl Params) -> Outcome<()> {
        self.run(&format!("DELETE FROM delivery WHERE {which}"), params)?;
        Ok(())
    }
}

/// A row that is to be added.
#[derive(Debug)]
pub(super) struct NewRow<'a> {
    pub(super) name: &'a str,
    pub(super) resource: Num,
    pub(super) origin: &'a str,
    pub(super) declared: bool,
    pub(super) id: Option<&'a str>,
    pub(super) created_at: i64,
    pub(super) due_at: Option<i64>,
    pub(super) due_why: &'a str,
    pub(super) by_socket: bool,
    pub(super) wish: &'a str,
}

/// Whether a statement sets a column.
fn sets(what: &str, column: &str) -> bool {
    let set = what.split(" WHERE ").next().unwrap_or_default();
    let mut words = set.split([',', ' ']).filter(|word| !word.is_empty());
    let mut last = "";
    words.any(|word| {
        let found = word == "=" && last == column;
        last = word;
        found
    })
}

impl Db {
    fn wish(&self, num: Num) -> Outcome<String> {
        let sql = "SELECT wish FROM identity WHERE num = ?1";
        Ok(self
            .first(sql, [num], |row| Ok(text(row, 0)))?
            .unwrap_or_default())
    }
}

/// Deliveries of one identity, or one of them, in the statements that let go of files.
pub(super) const OF_IDENTITY: &str = "d.identity = ?1";
pub(super) const OF_BOTH: &str = "d.identity = ?1 AND d.sink = ?2";
pub(super) const OF_SINK: &str = "d.sink = ?1";

/// A consumer came to hold the version that it should have, and had not; and what else is noted of that.
macro_rules! arrived {
    ($set:literal, $which:literal) => {
        concat!(
            "SET delivered = ?3, attempts = 0, last_error = NULL, (live_until, live_key) = (SELECT \
             CASE WHEN delivery.live_until IS NULL THEN NULL ELSE coalesce(CASE ?3 WHEN i.version THEN i.good_until \
             WHEN i.prev_version THEN i.prev_until END, -1) END, \
             CASE ?3 WHEN i.version THEN i.minted_by WHEN i.prev_version THEN i.prev_key END \
             FROM (SELECT 1) one LEFT JOIN identity i ON i.num = ?1)",
            $set,
            " WHERE identity = ?1 AND sink = ?2 AND delivered < wanted AND wanted <= ?3",
            $which
        )
    };
}

/// What a consumer came to hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Handed {
    pub(super) sink: Num,
    pub(super) num: Num,
    pub(super) version: Version,
}

impl Txn<'_> {
    /// Changes deliveries in what nothing is counted by: neither what is wanted nor what was delivered, nor whether a
    /// token is to be held. `what` are the columns and the rows (`AS d SET … WHERE …`).
    pub(super) fn write_deliveries(&self, what: &str, params: impl Params) -> Outcome<usize> {
        Ok(self.run(&format!("UPDATE delivery {what}"), params)?)
    }

    /// The same where it is counted: the deliveries of one identity are looked at before and afterwards.
    pub(super) fn write_deliveries_of(
        &mut self,
        num: Num,
        write: impl FnOnce(&mut Self) -> Outcome<usize>,
    ) -> Outcome<usize> {
        let was = self.deliveries_counted(num)?;
        let changed = write(self)?;
        if changed > 0 {
            let is = self.deliveries_counted(num)?;
            for (counted, by) in [(was, -1), (is, 1)] {
                for (sink, is_pending, is_consumer) in counted {
                    if is_pending {
                        add(&mut self.deltas.pending, sink, by);
                    }
                    if is_consumer {
                        add(&mut self.deltas.consumers, sink, by);
                    }
                }
            }
        }
        Ok(changed)
    }

    /// Wants a new version of an identity delivered to each of its sinks; `idle` are those for which nothing is pending,
    /// where that was read in this transaction.
    pub(super) fn want_version(
        &mut self,
        num: Num,
        version: Version,
        now: i64,
        idle: Option<&[Num]>,
    ) -> Outcome<()> {
        let idle = match idle {
            Some(idle) => idle.to_vec(),
            None => {
                let sql =
                    "SELECT sink FROM delivery WHERE identity = ?1 AND NOT wanted > delivered";
                self.every(sql, [num], |row| row.get(0))?
            }
        };
        self.send(
            "UPDATE delivery SET since = CASE WHEN wanted > delivered THEN since ELSE ?3 END, wanted = ?2, attempts = 0, next_at = ?3, \
             last_error = NULL WHERE identity = ?1",
            (num, signed(version.0), now),
        )?;
        for sink in idle {
            add(&mut self.deltas.pending, sink, 1);
        }
        Ok(())
    }

    /// The sinks for which nothing is pending, of each identity of a list.
    pub(super) fn idle_sinks(&self, identities: &[String; 1]) -> Outcome<Vec<(Num, Num)>> {
        let sql = concat!(
            "SELECT identity, sink FROM delivery WHERE identity IN (SELECT value FROM ",
            listed!("?1"),
            " one) AND NOT wanted > delivered"
        );
        let read = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?));
        Ok(self.every(sql, identities, read)?)
    }

    /// Notes that a consumer has a version; whether it is the one that it should have, and it had not.
    pub(super) fn note_delivered(
        &mut self,
        Handed { sink, num, version }: Handed,
    ) -> Outcome<bool> {
        let version = signed(version.0);
        let up_to_date = self.write_deliveries(arrived!("", ""), [num, sink, version])?;
        if up_to_date > 0 {
            add(&mut self.deltas.pending, sink, -1);
            return Ok(true);
        }
        // An older version than is wanted, or one that was noted before.
        self.write_deliveries(
            "SET delivered = CASE WHEN delivered > ?3 THEN delivered ELSE ?3 END, \
             live_until = CASE WHEN ?3 < delivered OR live_until IS NULL THEN live_until ELSE coalesce((SELECT CASE ?3 \
             WHEN i.version THEN i.good_until WHEN i.prev_version THEN i.prev_until END \
             FROM identity i WHERE i.num = ?1), -1) END, \
             live_key = CASE WHEN ?3 < delivered THEN live_key ELSE (SELECT CASE ?3 \
             WHEN i.version THEN i.minted_by WHEN i.prev_version THEN i.prev_key END \
             FROM identity i WHERE i.num = ?1) END, \
             attempts = CASE WHEN ?3 >= wanted THEN 0 ELSE attempts END, \
             last_error = CASE WHEN ?3 >= wanted THEN NULL ELSE last_error END \
             WHERE identity = ?1 AND sink = ?2 AND NOT (delivered < wanted AND wanted <= ?3)",
            [num, sink, version],
        )?;
        Ok(false)
    }

    /// The same where a file lies that lay there before with other content; whether all of that is so, or nothing is
    /// noted.
    pub(super) fn note_replaced(
        &mut self,
        Handed { sink, num, version }: Handed,
        Placed { path, digest }: &Placed,
    ) -> Outcome<bool> {
        let params = params![num, sink, signed(version.0), path.to_string_lossy(), digest];
        let noted = self.write_deliveries(arrived!(", digest = ?5", " AND path = ?4"), params)? > 0;
        if noted {
            add(&mut self.deltas.pending, sink, -1);
        }
        Ok(noted)
    }

    /// Wants what these rows should have delivered once more; `which` says which, with `d` for the delivery, and the
    /// last parameter, `?5`, is the instant.
    pub(super) fn deliver_again(
        &mut self,
        which: &str,
        params: impl Params + Copy,
    ) -> Outcome<usize> {
        let idle = format!(
            "SELECT d.sink, count(*) FROM delivery d WHERE d.wanted > 0 AND NOT d.wanted > d.delivered AND CAST(?5 AS BIGINT) = ?5 \
             AND {which} GROUP BY d.sink"
        );
        let idle = self.all(RowKind::Delivery, &idle, params, |row| {
            Ok((row.get::<_, Num>(0)?, row.get::<_, i64>(1)?))
        })?;
        let again = self.write_deliveries(
            &format!(
                "AS d SET since = CASE WHEN d.wanted > d.delivered THEN d.since ELSE ?5 END, \
                 delivered = CASE WHEN d.delivered < d.wanted THEN d.delivered ELSE d.wanted - 1 END, \
                 attempts = 0, next_at = ?5, last_error = NULL WHERE d.wanted > 0 AND {which}"
            ),
            params,
        )?;
        for (sink, n) in idle {
            add(&mut self.deltas.pending, sink, n);
        }
        Ok(again)
    }

    /// Adds a delivery of a version that is wanted from now on.
    pub(super) fn add_delivery(
        &mut self,
        Handed { sink, num, version }: Handed,
        now: i64,
    ) -> Outcome<()> {
        let sql = "INSERT INTO delivery (identity, sink, wanted, next_at, since, live_until) VALUES (?1, ?2, ?3, ?4, ?4, \
                   (SELECT CASE WHEN due_at IS NULL THEN NULL ELSE 0 END FROM identity WHERE num = ?1)) RETURNING live_until IS NOT NULL";
        let params = params![num, sink, signed(version.0), now];
        let is_consumer = self.first(sql, params, |row| row.get::<_, bool>(0))?;
        if version > Version(0) {
            add(&mut self.deltas.pending, sink, 1);
        }
        if is_consumer == Some(true) {
            add(&mut self.deltas.consumers, sink, 1);
        }
        Ok(())
    }

    /// Drops the delivery of an identity to a sink; its file is left.
    pub(super) fn remove_delivery(&mut self, num: Num, sink: Num) -> Outcome<()> {
        self.write_deliveries_of(num, |txn| {
            txn.leave_files(OF_BOTH, [num, sink])?;
            txn.note_losses(sink, 1)?;
            let sql = "DELETE FROM delivery WHERE identity = ?1 AND sink = ?2";
            Ok(txn.run(sql, [num, sink])?)
        })?;
        Ok(())
    }

    /// Adds deliveries to a sink for all who name it in their declaration.
    pub(super) fn add_deliveries_to(&mut self, sink: Num, name: &str, now: i64) -> Outcome<usize> {
        let bound = self.run(
            "INSERT INTO delivery (identity, sink, wanted, next_at, since, live_until) \
             SELECT i.num, ?1, i.version, ?3, ?3, CASE WHEN i.due_at IS NULL THEN NULL ELSE 0 END FROM identity i\
             /*sqlite*/, json_each(iif(json_valid(i.wish), i.wish, '{}'), '$.sinks') s WHERE s.value = ?2\
             /*postgres  WHERE strpos(substring(i.wish FROM '\"sinks\":\\[([^]]*)\\]'), '\"' || ?2 || '\"') > 0*/ \
             ON CONFLICT DO NOTHING",
            params![sink, name, now],
        )?;
        self.count_sink(sink)?;
        let what = "SET by_socket = 0 WHERE by_socket = 1 AND num IN (SELECT identity FROM delivery WHERE sink = ?1)";
        self.write_identities(what, [sink], Counting::Anew)?;
        Ok(bound)
    }

    /// Drops all deliveries to a sink; their files are left.
    pub(super) fn remove_deliveries_to(&mut self, sink: Num) -> Outcome<()> {
        self.write_identities(
            "SET by_socket = 1 WHERE by_socket = 0 AND num IN (SELECT identity FROM delivery WHERE sink = ?1) \
             AND NOT EXISTS (SELECT 1 FROM delivery d WHERE d.identity = identity.num AND d.sink <> ?1)",
            [sink],
            Counting::Anew,
        )?;
        self.leave_files(OF_SINK, [sink])?;
        let left = self.run("DELETE FROM delivery WHERE sink = ?1", [sink])?;
        self.note_losses(sink, i64::try_from(left).unwrap_or(0))?;
        self.count_sink(sink)
    }
}

impl Db {
    /// Of each delivery of an identity: the sink, whether it is pending, and whether a token is to be held.
    fn deliveries_counted(&self, num: Num) -> Outcome<Vec<(Num, bool, bool)>> {
        let sql = "SELECT sink, wanted > delivered, live_until IS NOT NULL FROM delivery WHERE identity = ?1";
        Ok(self.every(sql, [num], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })?)
    }
}

/// The states of an item that are looked for one after the other, where it is not known which one it is in.
pub(super) const BEGUN: &[ItemState] = &[ItemState::Called, ItemState::Pending];

impl Txn<'_> {
    /// Changes items of a campaign in what nothing is counted by.
    pub(super) fn write_items(&self, what: &str, params: impl Params) -> Outcome<usize> {
        Ok(self.run(&format!("UPDATE campaign_item SET {what}"), params)?)
    }

    /// Lists rows as items of a campaign, unless they are.
    pub(super) fn add_items(
        &mut self,
        campaign: CampaignId,
        nums: &[Num],
        from: i64,
    ) -> Outcome<()> {
        let added = self.run(
            concat!(
                "INSERT INTO campaign_item (campaign, num, resource, name, id, next_at) \
                 SELECT ?1, num, resource, name, id, ?3 FROM identity WHERE num IN (SELECT value FROM ",
                listed!("?2"),
                " one) ON CONFLICT DO NOTHING"
            ),
            params![campaign, list(nums), from],
        )?;
        self.items_moved(campaign, None, ItemState::Pending, added);
        Ok(())
    }

    /// Lists an id that no row has, unless it is an item. Such items count downwards from -1.
    pub(super) fn add_item_of_id(
        &mut self,
        campaign: CampaignId,
        (resource, id): (Num, &str),
        from: i64,
    ) -> Outcome<()> {
        let added = self.run(
            "INSERT INTO campaign_item (campaign, num, resource, id, next_at) \
             SELECT ?1, (SELECT coalesce(min(num), 0) - 1 FROM campaign_item WHERE campaign = ?1 AND num < 0), \
             ?2, ?3, ?4 WHERE NOT EXISTS (SELECT 1 FROM campaign_item WHERE campaign = ?1 AND num < 0 AND id = ?3)",
            params![campaign, resource, id, from],
        )?;
        self.items_moved(campaign, None, ItemState::Pending, added);
        Ok(())
    }

    /// Moves one item of a campaign (`?1`, `?2`) from any of these states to another; `set` and its parameters from
    /// `?3` on are written with it. Whether it was in one of them.
    pub(super) fn move_item(
        &mut self,
        campaign: CampaignId,
        (from, to): (&[ItemState], ItemState),
        set: &str,
        params: impl Params + Copy,
    ) -> Outcome<bool> {
        let which = "campaign = ?1 AND num = ?2";
        for from in from {
            if self.move_items(campaign, (*from, to), (set, which), params)? > 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Moves items of a campaign, by the numbers of their rows, from any of these states to another; `set` is written
    /// with it, where `?3` is now.
    pub(super) fn move_listed_items(
        &mut self,
        campaign: CampaignId,
        (from, to): (&[ItemState], ItemState),
        (set, nums): (&str, &[Num]),
        now: Timestamp,
    ) -> Outcome<()> {
        let which = concat!(
            "campaign = ?1 AND num IN (SELECT value FROM ",
            listed!("?2"),
            " one)"
        );
        let (list, mut left) = (list(nums), nums.len());
        for from in from.iter().filter(|from| **from != to) {
            if left > 0 {
                let params = params![campaign, list, micros(now)];
                left -= self.move_items(campaign, (*from, to), (set, which), params)?;
            }
        }
        Ok(())
    }

    /// Moves those items of a campaign that are in a state to another one.
    pub(super) fn move_items(
        &mut self,
        campaign: CampaignId,
        (from, to): (ItemState, ItemState),
        (set, which): (&str, &str),
        params: impl Params,
    ) -> Outcome<usize> {
        let (was, is) = (from.as_str(), to.as_str());
        let what = format!("state = '{is}'{set} WHERE {which} AND state = '{was}'");
        let moved = self.write_items(&what, params)?;
        self.items_moved(campaign, Some(from), to, moved);
        Ok(moved)
    }

    /// The same for items of whichever campaign; answers with the campaigns.
    pub(super) fn move_items_of_all(
        &mut self,
        (from, to): (ItemState, ItemState),
        (set, which): (&str, &str),
        params: impl Params,
    ) -> Outcome<Vec<CampaignId>> {
        let (was, is) = (from.as_str(), to.as_str());
        let sql = format!(
            "UPDATE campaign_item SET state = '{is}'{set} WHERE {which} AND state = '{was}' RETURNING campaign"
        );
        let campaigns = self.all(RowKind::CampaignItem, &sql, params, |row| row.get(0))?;
        for campaign in &campaigns {
            self.items_moved(*campaign, Some(from), to, 1);
        }
        Ok(campaigns)
    }

    /// Drops items; answers with how many.
    pub(super) fn remove_items(&mut self, which: &str, params: impl Params) -> Outcome<usize> {
        let sql = format!("DELETE FROM campaign_item WHERE {which} RETURNING campaign, state");
        let gone = self.all(RowKind::CampaignItem, &sql, params, |row| {
            Ok((row.get::<_, CampaignId>(0)?, text(row, 1)))
        })?;
        for (campaign, state) in &gone {
            if let Some(state) = ItemState::ALL.iter().find(|one| one.as_str() == state) {
                add(&mut self.deltas.items, (*campaign, state.as_str()), -1);
            }
        }
        Ok(gone.len())
    }

    fn items_moved(
        &mut self,
        campaign: CampaignId,
        from: Option<ItemState>,
        to: ItemState,
        moved: usize,
    ) {
        let moved = i64::try_from(moved).unwrap_or(0);
        if moved == 0 || from == Some(to) {
            return;
        }
        if let Some(from) = from {
            add(&mut self.deltas.items, (campaign, from.as_str()), -moved);
        }
        add(&mut self.deltas.items, (campaign, to.as_str()), moved);
    }
}
