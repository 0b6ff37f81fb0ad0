//! Scheduled work: up to when each job is decided, and what became of its runs.

use serde::{Deserialize, Serialize};

use super::{
    CampaignAction, CampaignId, Cause, NewCampaign, Store, Target,
    aside::RowKind,
    db::{self, Db, Txn, micros, next_number, spelled},
    error::{Answer, Each, Fault, Outcome},
};
use crate::{
    config::JobSettings,
    model::{JobAction, JobName, Timestamp},
    sql::{self, Row, params},
};

/// Runs of a job that are kept.
const KEPT: i64 = 1000;

/// A job as the store knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobSchedule {
    pub name: JobName,
    /// Pattern and zone, in any words that change when they change.
    pub schedule: String,
}

/// A run that is wanted.
#[derive(Debug, Clone, PartialEq)]
pub struct NewRun {
    pub job: JobName,
    pub scheduled_at: Timestamp,
    /// Every instant until then is decided with it; `None` for a run by hand.
    pub decided_until: Option<Timestamp>,
    /// The campaign to start, or why there is none.
    pub what: Result<NewCampaign, String>,
}

impl NewCampaign {
    /// What a job starts, in the job's own name.
    pub fn of_job(job: &JobSettings) -> Self {
        let action = match job.action {
            JobAction::Revoke => CampaignAction::Revoke,
            JobAction::Renew => CampaignAction::Renew,
            JobAction::Hold => CampaignAction::Hold,
        };
        let cause = Cause {
            actor: format!("job {}", job.name),
            reason: Some(format!("scheduled by {} {}", job.cron, job.timezone)),
        };
        Self::new(action, job.then, Target::Select(job.select.clone()), cause)
    }
}

/// What became of a run at its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum RunOutcome {
    /// Its campaign was made.
    Started,
    /// It was left out.
    Skipped,
    /// Its campaign could not be made.
    Failed,
}

/// A run of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct JobRun {
    pub job: JobName,
    /// The instant of the pattern, or of the command.
    pub scheduled_at: Timestamp,
    /// When it was decided.
    pub started_at: Timestamp,
    /// What became of it.
    pub outcome: RunOutcome,
    /// Why it was left out or failed.
    pub reason: Option<String>,
    pub campaign: Option<CampaignId>,
    /// When the campaign ended.
    pub ended_at: Option<Timestamp>,
}

const RUNS: &str = "SELECT r.job, r.scheduled_at, r.started_at, r.outcome, r.reason, r.campaign, c.ended_at, r.num \
    FROM job_run r LEFT JOIN campaign c ON c.num = r.campaign";

/// Whatever is kept of each job's runs.
const RAN: &str = "WITH ran AS (SELECT max(r.num) AS num, r.job, max(r.started_at) AS last, max(CASE WHEN r.outcome = 'started' \
    AND c.ended_at IS NOT NULL AND c.phase <> 'cancelled' AND NOT EXISTS (SELECT 1 FROM item_count f \
    WHERE f.campaign = c.num AND f.state = 'failed' AND f.n > 0) THEN c.ended_at END) AS succeeded \
    FROM job_run r LEFT JOIN campaign c ON c.num = r.campaign GROUP BY r.job) \
    SELECT ran.*, (SELECT min(x.started_at) FROM job_run x WHERE x.job = ran.job \
    AND x.started_at > coalesce(ran.succeeded, -1)) AS in_vain FROM ran";

/// How a job went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobRan {
    pub job: JobName,
    /// When its last run began.
    pub last: Timestamp,
    /// When a run last came to its end without a failure.
    pub succeeded: Option<Timestamp>,
    /// When the first run after that began.
    pub in_vain_since: Option<Timestamp>,
}

impl Store {
    /// Up to when the instants of these jobs are decided, in their order. A job that is new, or whose
    /// pattern or zone changed, starts now.
    pub async fn job_states(
        &self,
        jobs: Vec<JobSchedule>,
        now: Timestamp,
    ) -> Answer<Vec<Timestamp>> {
        self.write("take the jobs over", move |txn| {
            let sql = "INSERT INTO job (name, schedule, decided_until) VALUES (?1, ?2, ?3) ON CONFLICT (name) \
                       DO UPDATE SET decided_until = CASE job.schedule WHEN excluded.schedule THEN job.decided_until ELSE excluded.decided_until END, \
                       schedule = excluded.schedule RETURNING decided_until";
            let state = |job: &JobSchedule| {
                let params = params![job.name.as_str(), job.schedule, micros(now)];
                match txn.first(sql, params, |row| db::instant_in(row, "decided_until")) {
                    Ok(until) => Ok(until.unwrap_or(now)),
                    Err(error) if error.is_unreadable() => txn.start_anew(job, now),
                    Err(error) => Err(error.into()),
                }
            };
            jobs.iter().map(state).collect()
        })
        .await
    }

    /// Decides runs and makes their campaigns, in one transaction: so each instant starts at most one
    /// campaign, over crashes too. A run whose job has a campaign that is not over is left out. Each is
    /// answered; one that the store refuses keeps no other back.
    pub async fn run_jobs(&self, runs: Vec<NewRun>, now: Timestamp) -> Answer<Each<JobRun>> {
        self.withdraw("start jobs", move |txn| {
            txn.each("start a job", &runs, |txn, runs| {
                runs.iter().map(|run| txn.run_job(run, now)).collect()
            })
        })
        .await
    }

    /// The runs of a job, or of all jobs, newest first.
    pub async fn job_runs(&self, job: Option<&JobName>, limit: usize) -> Answer<Vec<JobRun>> {
        let job = job.map(ToString::to_string);
        self.read("list the runs of jobs", move |db| {
            let sql = format!(
                "{RUNS} WHERE CAST(?1 AS TEXT) IS NULL OR r.job = ?1 ORDER BY r.started_at DESC, r.num DESC"
            );
            Ok(db.page(
                RowKind::JobRun,
                limit,
                &sql,
                params![job.as_deref()],
                read_run,
            )?)
        })
        .await
    }

    /// When each job that ever ran did so last, and when it last came to its end without a failure.
    pub async fn jobs_ran(&self) -> Answer<Vec<JobRan>> {
        self.read("look up how jobs went", |db| {
            Ok(db.all(RowKind::JobRun, RAN, [], |row| {
                Ok(JobRan {
                    job: db::parsed(row, "job")?,
                    last: db::instant_in(row, "last")?,
                    succeeded: db::maybe_instant(row, "succeeded")?,
                    in_vain_since: db::maybe_instant(row, "in_vain")?,
                })
            })?)
        })
        .await
    }

    /// The last run of each job that ever ran.
    pub async fn last_runs(&self) -> Answer<Vec<JobRun>> {
        self.read("list the last runs of jobs", |db| {
            let sql = format!(
                "{RUNS} WHERE r.num IN (SELECT max(num) FROM job_run GROUP BY job) ORDER BY r.job"
            );
            Ok(db.all(RowKind::JobRun, &sql, [], read_run)?)
        })
        .await
    }
}

impl Txn<'_> {
    /// Up to when a job was decided cannot be read any more: it starts now, as a new one does.
    fn start_anew(&self, job: &JobSchedule, now: Timestamp) -> Outcome<Timestamp> {
        tracing::error!(
            job = %job.name,
            "up to when the job was decided cannot be read from the store: runs from before now are not made up for"
        );
        let sql = "UPDATE job SET decided_until = ?2 WHERE name = ?1";
        self.run(sql, params![job.name.as_str(), micros(now)])?;
        Ok(now)
    }

    fn run_job(&mut self, run: &NewRun, now: Timestamp) -> Outcome<JobRun> {
        let (outcome, campaign, reason) = match (&run.what, self.campaign_of(&run.job)?) {
            (Err(why), _) => (RunOutcome::Skipped, None, Some(why.clone())),
            (Ok(_), Some(id)) => {
                let why = format!("campaign {id} of an earlier run is not over");
                (RunOutcome::Skipped, None, Some(why))
            }
            (Ok(new), None) => match self.create_campaign(new, now) {
                Ok(id) => (RunOutcome::Started, Some(id), None),
                Err(Fault::Refused(why)) => (RunOutcome::Failed, None, Some(why)),
                Err(fault) => return Err(fault),
            },
        };
        let done = JobRun {
            job: run.job.clone(),
            scheduled_at: run.scheduled_at,
            started_at: now,
            outcome,
            reason,
            campaign,
            ended_at: None,
        };
        self.note_run(&done, run.decided_until)?;
        Ok(done)
    }

    fn note_run(&self, run: &JobRun, decided_until: Option<Timestamp>) -> Outcome<()> {
        let job = run.job.as_str();
        self.run(
            concat!(
                "INSERT INTO job_run (num, job, scheduled_at, started_at, campaign, outcome, reason) VALUES (",
                next_number!("job_run", "num"),
                ", ?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO NOTHING"
            ),
            params![
                job,
                micros(run.scheduled_at),
                micros(run.started_at),
                run.campaign,
                spelled(&run.outcome),
                run.reason
            ],
        )?;
        if let Some(until) = decided_until {
            let sql = "UPDATE job SET decided_until = ?2 WHERE name = ?1 AND decided_until < ?2";
            self.run(sql, params![job, micros(until)])?;
        }
        self.run(
            "DELETE FROM job_run WHERE job = ?1 AND num <= \
             (SELECT num FROM job_run WHERE job = ?1 ORDER BY num DESC LIMIT 1 OFFSET ?2)",
            params![job, KEPT],
        )?;
        Ok(())
    }
}

impl Db {
    /// The campaign of a job that is not over.
    fn campaign_of(&self, job: &JobName) -> Outcome<Option<CampaignId>> {
        let sql = "SELECT c.num FROM job_run r JOIN campaign c ON c.num = r.campaign \
                   WHERE r.job = ?1 AND c.ended_at IS NULL LIMIT 1";
        Ok(self.first(sql, [job.as_str()], |row| row.get(0))?)
    }
}

pub(super) fn read_run(row: &Row<'_>) -> sql::Result<JobRun> {
    Ok(JobRun {
        job: db::parsed(row, "job")?,
        scheduled_at: db::instant_in(row, "scheduled_at")?,
        started_at: db::instant_in(row, "started_at")?,
        outcome: db::word(row, "outcome")?,
        reason: row.get("reason")?,
        campaign: row.get("campaign")?,
        ended_at: db::maybe_instant(row, "ended_at")?,
    })
}
