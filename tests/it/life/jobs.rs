//! Jobs by the calendar, beside the renewer and the campaigns that they start.

use renewd::{
    config::JobSettings,
    jobs::Jobs,
    model::{JobAction, Missed, Then, Timestamp},
    store::{JobRun, RunOutcome},
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{
    MINUTE, SECOND,
    service::Fault,
    world::{Setting, World},
};

fn job(name: &str, cron: &str, timezone: &str, missed: Missed) -> JobSettings {
    JobSettings {
        name: name.parse().unwrap(),
        cron: cron.to_owned(),
        timezone: timezone.to_owned(),
        action: JobAction::Revoke,
        select: "name ~ 'bot-*'".parse().unwrap(),
        then: Some(Then::Reissue),
        missed,
    }
}

/// The loop of these jobs; dropping it is as `kill -9`.
struct Loop {
    task: JoinHandle<()>,
    _stop: CancellationToken,
}

impl Loop {
    fn start(world: &World, jobs: &[JobSettings]) -> Self {
        let stop = CancellationToken::new();
        let jobs = Jobs::new(jobs, world.store().clone(), world.clock.clone());
        let run = jobs.run(stop.clone());
        Self {
            task: tokio::spawn(async move { run.await.unwrap() }),
            _stop: stop,
        }
    }

    async fn kill(self) {
        self.task.abort();
        assert!(self.task.await.is_err());
    }
}

async fn runs(world: &World) -> Vec<JobRun> {
    let mut runs = world.store().job_runs(None, 5000).await.unwrap();
    runs.reverse();
    runs
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// What ran, in UTC, from an instant on for so many hours; each at its instant and with a campaign.
async fn scheduled(cron: &str, zone: &str, start: &str, hours: u32) -> Vec<String> {
    let world = World::start_at(Setting::of(2), at(start)).await;
    let _jobs = Loop::start(&world, &[job("daily", cron, zone, Missed::Skip)]);
    world.pass(MINUTE * 60 * hours).await;
    let runs = runs(&world).await;
    for run in &runs {
        assert_eq!(run.outcome, RunOutcome::Started, "{run:?}");
        let late = run.started_at.duration_since(run.scheduled_at);
        assert!(late.as_secs() == 0 && !late.is_negative(), "{run:?}");
        assert!(run.ended_at.is_some(), "{run:?}");
    }
    let word = |run: &JobRun| run.scheduled_at.strftime("%m-%dT%H:%M").to_string();
    runs.iter().map(word).collect()
}

#[tokio::test(start_paused = true)]
async fn daily_at_half_past_two_over_both_clock_changes() {
    for (zone, start, expected) in [
        (
            "Europe/Prague",
            "2027-03-27T00:00:00Z",
            ["03-27T01:30", "03-28T01:00", "03-29T00:30"],
        ),
        (
            "Europe/Prague",
            "2026-10-24T00:00:00Z",
            ["10-24T00:30", "10-25T00:30", "10-26T01:30"],
        ),
        (
            "America/New_York",
            "2027-03-13T06:00:00Z",
            ["03-13T07:30", "03-14T07:00", "03-15T06:30"],
        ),
        (
            "America/New_York",
            "2026-10-31T05:00:00Z",
            ["10-31T06:30", "11-01T07:30", "11-02T07:30"],
        ),
    ] {
        assert_eq!(
            scheduled("30 2 * * *", zone, start, 72).await,
            expected,
            "{zone} {start}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn every_half_hour_around_the_clock_changes() {
    for (zone, start, expected) in [
        (
            "Europe/Prague",
            "2027-03-28T00:15:00Z",
            ["03-28T00:30", "03-28T01:00", "03-28T01:30", "03-28T02:00"].as_slice(),
        ),
        (
            "Europe/Prague",
            "2026-10-25T00:15:00Z",
            ["10-25T00:30", "10-25T02:00"].as_slice(),
        ),
        (
            "America/New_York",
            "2027-03-14T06:15:00Z",
            ["03-14T06:30", "03-14T07:00", "03-14T07:30", "03-14T08:00"].as_slice(),
        ),
        (
            "America/New_York",
            "2026-11-01T05:15:00Z",
            ["11-01T05:30", "11-01T07:00"].as_slice(),
        ),
    ] {
        assert_eq!(
            scheduled("*/30 * * * *", zone, start, 2).await,
            expected,
            "{zone} {start}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn what_passed_while_nothing_ran_is_one_run_or_none() {
    let mut world = World::start(Setting::of(3)).await;
    let jobs = [
        job("once", "0 * * * *", "UTC", Missed::RunOnce),
        job("never", "0 * * * *", "UTC", Missed::Skip),
    ];
    let running = Loop::start(&world, &jobs);
    world.pass(MINUTE * 90).await;
    assert_eq!(runs(&world).await.len(), 2);
    running.kill().await;
    world.down().await.unwrap();
    world.pass(MINUTE * 60 * 30).await;
    world.up().await;
    let running = Loop::start(&world, &jobs);
    world.pass(MINUTE).await;
    let told: Vec<_> = runs(&world).await.split_off(2);
    let told: Vec<_> = told
        .iter()
        .map(|run| (run.job.as_str(), run.outcome, run.scheduled_at))
        .collect();
    let first_missed = at("2026-11-22T14:00:00Z");
    assert_eq!(
        told,
        [
            ("once", RunOutcome::Started, first_missed),
            ("never", RunOutcome::Skipped, first_missed)
        ]
    );
    // And then by the calendar again, from the instants of the pattern.
    world.pass(MINUTE * 60).await;
    let last = runs(&world).await.split_off(4);
    assert_eq!(last.len(), 2);
    assert!(
        last.iter()
            .all(|run| run.scheduled_at == at("2026-11-23T20:00:00Z")),
        "{last:?}"
    );
    running.kill().await;
}

#[tokio::test(start_paused = true)]
async fn a_job_never_runs_beside_its_own_last_run() {
    let world = World::start(Setting::of(2)).await;
    world.pass(MINUTE).await;
    world.service.fail(|_| Some(Fault::Hang));
    let _jobs = Loop::start(&world, &[job("often", "* * * * *", "UTC", Missed::RunOnce)]);
    world.pass(MINUTE * 3 + SECOND).await;
    let told: Vec<_> = runs(&world).await.iter().map(|run| run.outcome).collect();
    assert_eq!(
        told,
        [
            RunOutcome::Started,
            RunOutcome::Skipped,
            RunOutcome::Skipped
        ]
    );
    let skipped = runs(&world).await.pop().unwrap();
    assert!(skipped.reason.unwrap().contains("is not over"));
}

#[tokio::test(start_paused = true)]
async fn a_thousand_jobs_of_one_second_run_once_each() {
    let world = World::start(Setting::of(1)).await;
    let jobs: Vec<_> = (0..1000)
        .map(|n| {
            job(
                &format!("job-{n}"),
                "15 30 14 * * *",
                "Europe/Prague",
                Missed::Skip,
            )
        })
        .collect();
    let _jobs = Loop::start(&world, &jobs);
    world.pass(MINUTE * 60 * 2).await;
    let runs = runs(&world).await;
    let names: std::collections::BTreeSet<_> = runs.iter().map(|run| run.job.clone()).collect();
    assert_eq!((runs.len(), names.len()), (1000, 1000));
    let instant = at("2026-11-22T13:30:15Z");
    assert!(
        runs.iter()
            .all(|run| run.scheduled_at == instant && run.outcome == RunOutcome::Started)
    );
}
