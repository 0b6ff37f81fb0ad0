//! Freezing a selection into items: rows are walked by their number, a chunk at a time, so that a
//! crash resumes where it was and no transaction is ever long.

use std::time::Duration;

use rusqlite::params;

use super::{
    super::{
        StoreError,
        aside::RowKind,
        columns::{instant, micros},
        db::Txn,
        error::Outcome,
        identities::read_record,
    },
    Campaign, CampaignId, creating, reading,
};
use crate::model::{Facts, Notice, NoticeKind, Num, Record, Selection, Timestamp};

/// A list of which nothing came for so long has broken off.
const SILENT: Duration = Duration::from_secs(30);

/// How far a campaign's items are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frozen {
    /// More rows are to be looked at.
    More,
    /// All items are listed, or there is nothing to list.
    Whole,
    /// Somebody brings them; unless more come, it ends then.
    Brought(Timestamp),
}

impl Txn<'_> {
    /// Looks at up to `chunk` more rows, or whether a list that somebody brings has broken off.
    pub(in crate::store) fn freeze(
        &mut self,
        id: CampaignId,
        chunk: usize,
        now: Timestamp,
    ) -> Outcome<Frozen> {
        let sql =
            "SELECT coalesce(told_at, created_at) FROM campaign WHERE num = ?1 AND cursor = ?2";
        let told = self.first(sql, [id, creating::OPEN], |row| row.get::<_, i64>(0))?;
        if let Some(told) = told {
            let ends = instant(told).checked_add(SILENT).unwrap_or(now);
            if ends > now {
                return Ok(Frozen::Brought(ends));
            }
            self.end_unsealed(instant(told), now)?;
            return Ok(Frozen::Whole);
        }
        let sql = "SELECT cursor, last_num, selection FROM campaign WHERE num = ?1 AND cursor >= 0 \
                   AND phase = 'running'";
        let found = self.first(sql, [id], |row| {
            Ok((
                row.get::<_, Num>(0)?,
                row.get::<_, Num>(1)?,
                row.get::<_, Option<String>>(2)?,
            ))
        })?;
        let Some((cursor, last, selection)) = found else {
            return Ok(Frozen::Whole);
        };
        // It was understood when the campaign was made. If it is not now, its row is damaged: never
        // everybody instead.
        let Ok(selection) = selection.as_deref().map(Selection::parse).transpose() else {
            self.call_off(id, "a selection that cannot be read any more", now)?;
            return Ok(Frozen::Whole);
        };
        let Some(campaign) = self.campaign(id)? else {
            return Ok(Frozen::Whole);
        };
        let from = micros(campaign.starts_at.unwrap_or(now).max(now));
        let (kind, sql) = (RowKind::Identity, reading::ROWS_AFTER);
        let rows = self.page(kind, chunk, sql, [cursor, last], read_record)?;
        self.list_selected(&campaign, selection.as_ref(), (&rows, from), now)?;
        let next = rows
            .last()
            .filter(|_| rows.len() == chunk)
            .map(|row| row.num);
        let sql = "UPDATE campaign SET cursor = ?2 WHERE num = ?1";
        self.run(sql, params![id, next])?;
        if next.is_none() {
            self.effects.campaigns = true;
            self.effects.touched.campaigns.insert(id);
            self.end_if_settled(id, now)?;
        }
        Ok(match next {
            Some(_) => Frozen::More,
            None => Frozen::Whole,
        })
    }

    /// Lists those of some rows that are selected, from a time on.
    fn list_selected(
        &mut self,
        campaign: &Campaign,
        selection: Option<&Selection>,
        (rows, from): (&[Record], i64),
        now: Timestamp,
    ) -> Outcome<()> {
        let is_wanted = |record: &&Record| {
            let selected =
                selection.is_none_or(|selection| selection.matches(&Facts::of(record, now)));
            selected && campaign.action.applies(record).is_ok()
        };
        let wanted: Vec<&Record> = rows.iter().filter(is_wanted).collect();
        let listed = self.each("list an item", &wanted, |txn, wanted| {
            wanted
                .iter()
                .map(|record| txn.add_row(campaign.id, record.num, from))
                .collect()
        })?;
        for (record, listed) in wanted.iter().zip(listed) {
            if let Err(error) = listed {
                self.raise(&[not_listed(campaign, record, &error, now)])?;
            }
        }
        Ok(())
    }
}

/// The store refuses to list an identity: the others are, and somebody is told.
fn not_listed(campaign: &Campaign, record: &Record, error: &StoreError, at: Timestamp) -> Notice {
    let (id, name) = (campaign.id, &record.spec.name);
    let message = format!(
        "{name} is left out of campaign {id} ({}): {error}. What was ordered is not done to it.",
        campaign.action.as_str()
    );
    tracing::error!(campaign = id, "{message}");
    Notice {
        at,
        kind: NoticeKind::OrderFailed,
        resource: Some(record.spec.resource.clone()),
        name: Some(name.clone()),
        key: Some(Notice::order_key(name.as_str())),
        message,
    }
}
