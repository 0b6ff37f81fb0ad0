//! What people tell a campaign: pause, resume, cancel, try again; and the seal on its report.

use rusqlite::params;

use super::{
    super::{Cause, columns::micros, db::Txn, error::Outcome},
    CampaignId,
};
use crate::model::{AuditEntry, Num, Timestamp};

impl Txn<'_> {
    /// Stops it for now, or lets it go on. False where it has ended.
    pub(in crate::store) fn pause_campaign(
        &mut self,
        id: CampaignId,
        pause: bool,
        cause: &Cause,
        now: Timestamp,
    ) -> Outcome<bool> {
        let (phase, from) = if pause {
            ("paused", "running")
        } else {
            ("running", "paused")
        };
        let sql = "UPDATE campaign SET phase = ?2, told_at = ?4 WHERE num = ?1 AND ended_at IS NULL AND phase = ?3";
        let told = self.run(sql, params![id, phase, from, micros(now)])? > 0;
        if told {
            let what = if pause { "pause" } else { "resume" };
            self.told_campaign(id, what, cause, now)?;
        }
        Ok(told)
    }

    /// Stops it for good; what was begun is noted, what was not is not begun any more. Of one that has
    /// ended, what failed is given up: it is not shown any more as what is still to be done.
    pub(in crate::store) fn cancel_campaign(
        &mut self,
        id: CampaignId,
        cause: &Cause,
        now: Timestamp,
    ) -> Outcome<bool> {
        let sql = "UPDATE campaign SET phase = 'cancelled', cursor = NULL, told_at = ?2 WHERE num = ?1 \
                   AND ended_at IS NULL AND phase <> 'cancelled'";
        let stop = self.run(sql, [id, micros(now)])? > 0;
        let sql = "UPDATE campaign SET given_up_at = ?2 WHERE num = ?1 AND ended_at IS NOT NULL \
                   AND given_up_at IS NULL AND EXISTS (SELECT 1 FROM item_count WHERE campaign = ?1 \
                   AND state = 'failed' AND n > 0)";
        let give_up = !stop && self.run(sql, [id, micros(now)])? > 0;
        match (stop, give_up) {
            (true, _) => {
                self.told_campaign(id, "cancel", cause, now)?;
                self.end_if_settled(id, now)?;
            }
            (false, true) => {
                self.told_campaign(id, "give_up", cause, now)?;
                let failed = ("t.state = 'failed'", 0);
                self.end_order_notices(id, failed, "is given up by a person's word", now)?;
            }
            (false, false) => {}
        }
        Ok(stop || give_up)
    }

    /// Takes what failed out of quarantine and tries it again; how many.
    pub(in crate::store) fn retry_campaign(
        &mut self,
        id: CampaignId,
        cause: &Cause,
        now: Timestamp,
    ) -> Outcome<usize> {
        let sql = "UPDATE campaign_item SET state = 'pending', attempts = 0, next_at = ?2, error = NULL \
                   WHERE campaign = ?1 AND state = 'failed' AND NOT EXISTS (SELECT 1 FROM campaign \
                   WHERE num = ?1 AND phase = 'cancelled' AND ended_at IS NULL)";
        let again = self.run(sql, [id, micros(now)])?;
        if again > 0 {
            self.run(
                "UPDATE campaign SET phase = iif(phase = 'paused', 'paused', 'running'), ended_at = NULL, report_sha256 = NULL, given_up_at = NULL \
                 WHERE num = ?1",
                [id],
            )?;
            self.told_campaign(id, "retry", cause, now)?;
        }
        Ok(again)
    }

    /// Takes items out of quarantine that failed while others did as well, and tries them again; how many.
    pub(in crate::store) fn retry_items(
        &mut self,
        items: &[(CampaignId, Num)],
        now: Timestamp,
    ) -> Outcome<usize> {
        let mut again = 0;
        for (id, num) in items {
            let sql = "UPDATE campaign_item SET state = 'pending', attempts = 0, next_at = ?3 WHERE campaign = ?1 \
                       AND num = ?2 AND state = 'failed' AND EXISTS (SELECT 1 FROM campaign WHERE num = ?1 \
                       AND phase <> 'cancelled' AND given_up_at IS NULL)";
            if self.run(sql, [*id, *num, micros(now)])? > 0 {
                again += 1;
                let sql =
                    "UPDATE campaign SET ended_at = NULL, report_sha256 = NULL WHERE num = ?1";
                self.run(sql, [id])?;
                self.effects.campaigns = true;
                self.effects.touched.campaigns.insert(*id);
            }
        }
        Ok(again)
    }

    /// Notes what the report of an ended campaign hashes to.
    pub(in crate::store) fn seal_report(
        &mut self,
        id: CampaignId,
        sha256: &str,
        now: Timestamp,
    ) -> Outcome<()> {
        let sql = "UPDATE campaign SET report_sha256 = ?2 WHERE num = ?1 AND ended_at IS NOT NULL \
                   AND report_sha256 IS NULL";
        if self.run(sql, params![id, sha256])? > 0 {
            let said = format!("campaign {id} ended; its report has SHA-256 {sha256}");
            self.write_trail(
                "campaign.report",
                said,
                &Cause::ours("the campaign ended"),
                now,
            )?;
        }
        Ok(())
    }

    fn told_campaign(
        &mut self,
        id: CampaignId,
        what: &str,
        cause: &Cause,
        now: Timestamp,
    ) -> Outcome<()> {
        self.effects.campaigns = true;
        self.effects.touched.campaigns.insert(id);
        let action = format!("campaign.{what}");
        self.write_trail(&action, format!("campaign {id}"), cause, now)
    }

    fn write_trail(
        &mut self,
        action: &str,
        result: String,
        cause: &Cause,
        now: Timestamp,
    ) -> Outcome<()> {
        self.audit(&AuditEntry {
            at: now,
            actor: cause.actor.clone(),
            action: action.to_owned(),
            name: None,
            reason: cause.reason.clone(),
            request_id: None,
            result,
        })
    }
}
