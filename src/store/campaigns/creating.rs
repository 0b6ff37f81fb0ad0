//! Making campaigns and listing their items.

use rusqlite::params;

use super::{
    super::{
        aside::RowKind,
        columns::{micros, spelled},
        db::Txn,
        error::{Fault, Outcome},
    },
    CampaignId, NewCampaign, Target, Wanted,
};
use crate::model::{AuditEntry, Num, Timestamp};

/// The cursor of a campaign whose items are brought from outside.
pub(in crate::store) const OPEN: i64 = -1;

impl Txn<'_> {
    pub(in crate::store) fn create_campaign(
        &mut self,
        new: &NewCampaign,
        now: Timestamp,
    ) -> Outcome<CampaignId> {
        let (target, selection, cursor) = match &new.target {
            Target::All => ("all".to_owned(), None, Some(0)),
            Target::Select(selection) => {
                let text = selection.to_string();
                (text.clone(), Some(text), Some(0))
            }
            Target::Items(items) => (format!("{} named", items.len()), None, None),
            Target::Later => ("a list that is being brought".to_owned(), None, Some(OPEN)),
        };
        self.run(
            "INSERT INTO campaign (action, after, actor, reason, created_at, urgent, starts_at, target, \
             selection, cursor, told_at, last_num) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?5, \
             (SELECT coalesce(max(num), 0) FROM identity))",
            params![
                spelled(&new.action),
                new.then.as_ref().map(spelled),
                new.actor,
                new.reason,
                micros(now),
                new.urgent,
                new.starts_at.map(micros),
                target,
                selection,
                cursor
            ],
        )?;
        let id = self.conn.last_insert_rowid();
        self.effects.touched.campaigns.insert(id);
        if let Target::Items(items) = &new.target {
            self.list(id, items, now)?;
        }
        self.audit(&AuditEntry {
            at: now,
            actor: new.actor.clone(),
            action: "campaign".to_owned(),
            name: None,
            reason: new.reason.clone(),
            request_id: None,
            result: format!("campaign {id}: {} {target}", new.action.as_str()),
        })?;
        self.end_if_settled(id, now)?;
        self.effects.campaigns = true;
        Ok(id)
    }

    /// Lists more items of a campaign whose items are brought from outside.
    pub(in crate::store) fn add_items(
        &mut self,
        id: CampaignId,
        items: &[Wanted],
        now: Timestamp,
    ) -> Outcome<()> {
        let sql = "UPDATE campaign SET told_at = ?3 WHERE num = ?1 AND cursor = ?2";
        if self.run(sql, [id, OPEN, micros(now)])? == 0 {
            return Err(takes_no_more(id));
        }
        self.list(id, items, now)
    }

    /// Lists items. One that is listed already is left as it is.
    fn list(&mut self, id: CampaignId, items: &[Wanted], now: Timestamp) -> Outcome<()> {
        let sql = "SELECT max(coalesce(starts_at, 0), ?2) FROM campaign WHERE num = ?1";
        let from = self.first(sql, [id, micros(now)], |row| row.get::<_, i64>(0))?;
        let from = from.ok_or_else(|| Fault::Refused(format!("there is no campaign {id}")))?;
        for item in items {
            match item {
                Wanted::Row(num) => self.add_row(id, *num, from)?,
                Wanted::Id(resource, identity) => {
                    let owner = "SELECT num FROM identity WHERE id = ?1";
                    match self.first(owner, [identity.as_str()], |row| row.get::<_, Num>(0))? {
                        Some(num) => self.add_row(id, num, from)?,
                        None => self.add_id(id, resource.as_str(), identity.as_str(), from)?,
                    }
                }
            }
        }
        Ok(())
    }

    pub(in crate::store) fn add_row(&mut self, id: CampaignId, num: Num, from: i64) -> Outcome<()> {
        self.effects.touched.listed.insert(num);
        self.run(
            "INSERT INTO campaign_item (campaign, num, resource, name, id, next_at) \
             SELECT ?1, num, resource, name, id, ?3 FROM identity WHERE num = ?2 ON CONFLICT DO NOTHING",
            [id, num, from],
        )?;
        Ok(())
    }

    /// Ids without a row count downwards from -1.
    pub(in crate::store) fn add_id(
        &mut self,
        campaign: CampaignId,
        resource: &str,
        id: &str,
        from: i64,
    ) -> Outcome<()> {
        let resource = self.resource_num_or_new(resource)?;
        self.run(
            "INSERT INTO campaign_item (campaign, num, resource, id, next_at) \
             SELECT ?1, (SELECT min(0, coalesce(min(num), 0)) - 1 FROM campaign_item WHERE campaign = ?1), \
             ?2, ?3, ?4 WHERE NOT EXISTS (SELECT 1 FROM campaign_item WHERE campaign = ?1 AND num < 0 AND id = ?3)",
            params![campaign, resource, id, from],
        )?;
        let item = "SELECT num FROM campaign_item WHERE campaign = ?1 AND num < 0 AND id = ?2";
        let item: Option<Num> = self.first(item, params![campaign, id], |row| row.get(0))?;
        self.effects
            .touched
            .ids
            .extend(item.map(|num| (campaign, num)));
        Ok(())
    }

    /// All items are listed: it may start.
    pub(in crate::store) fn seal_campaign(
        &mut self,
        id: CampaignId,
        target: &str,
        now: Timestamp,
    ) -> Outcome<()> {
        let sql = "UPDATE campaign SET cursor = NULL, target = ?3 WHERE num = ?1 AND cursor = ?2";
        if self.run(sql, params![id, OPEN, target])? == 0 {
            return Err(takes_no_more(id));
        }
        self.effects.campaigns = true;
        self.effects.touched.campaigns.insert(id);
        self.end_if_settled(id, now)
    }

    /// Ends those whose items are still being brought although nothing came since `silent_since`: their
    /// lists broke off, and nothing was done.
    pub(in crate::store) fn end_unsealed(
        &mut self,
        silent_since: Timestamp,
        now: Timestamp,
    ) -> Outcome<()> {
        let sql =
            "SELECT num FROM campaign WHERE cursor = ?1 AND coalesce(told_at, created_at) <= ?2";
        let broken: Vec<CampaignId> = self.all(
            RowKind::Campaign,
            sql,
            [OPEN, micros(silent_since)],
            |row| row.get(0),
        )?;
        for id in broken {
            self.call_off(id, "a list that never came whole", now)?;
        }
        Ok(())
    }

    /// Ends a campaign before it began; its items are let go of as those of any that is cancelled.
    pub(super) fn call_off(&mut self, id: CampaignId, target: &str, now: Timestamp) -> Outcome<()> {
        self.run(
            "UPDATE campaign SET phase = 'cancelled', cursor = NULL, told_at = ?3, target = ?2 WHERE num = ?1",
            params![id, target, micros(now)],
        )?;
        self.effects.campaigns = true;
        self.effects.touched.campaigns.insert(id);
        self.end_if_settled(id, now)
    }
}

fn takes_no_more(id: CampaignId) -> Fault {
    Fault::Refused(format!(
        "campaign {id} has ended, was cancelled, or has all its items; nothing was added, start a new one"
    ))
}
