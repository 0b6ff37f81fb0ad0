//! Freezing a selection into items: rows are walked by their number, a chunk at a time, so that a
//! crash resumes where it was and no transaction is ever long.

use rusqlite::params;

use super::{
    super::{
        columns::micros,
        db::Txn,
        error::Outcome,
        identities::{count, read_record},
    },
    CampaignId, reading,
};
use crate::model::{Facts, Num, Selection, Timestamp};

impl Txn<'_> {
    /// Looks at up to `chunk` more rows; true while there are more.
    pub(in crate::store) fn freeze(
        &mut self,
        id: CampaignId,
        chunk: usize,
        now: Timestamp,
    ) -> Outcome<bool> {
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
            return Ok(false);
        };
        // It was understood when the campaign was made.
        let selection = selection.and_then(|text| Selection::parse(&text).ok());
        let Some(campaign) = self.campaign(id)? else {
            return Ok(false);
        };
        let from = micros(campaign.starts_at.unwrap_or(now).max(now));
        let params = params![cursor, last, count(chunk)];
        let rows = self.all(reading::ROWS_AFTER, params, read_record)?;
        for record in &rows {
            let wanted = selection
                .as_ref()
                .is_none_or(|selection| selection.matches(&Facts::of(record, now)));
            if wanted && campaign.action.applies(record).is_ok() {
                self.add_row(id, record.num, from)?;
            }
        }
        let next = rows
            .last()
            .filter(|_| rows.len() == chunk)
            .map(|row| row.num);
        let sql = "UPDATE campaign SET cursor = ?2 WHERE num = ?1";
        self.run(sql, params![id, next])?;
        if next.is_none() {
            self.effects.campaigns = true;
            self.end_if_settled(id, now)?;
        }
        Ok(next.is_some())
    }
}
