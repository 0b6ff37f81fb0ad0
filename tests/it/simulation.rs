//! `renewd simulate`: the same to the byte, faults by chance that break no promise, and plans that come true.

use std::{process::Command, time::Duration};

use renewd::{
    config::{Limits, Renewal},
    schedule::{Basis, Cohort, Fleet, Room, plan},
    simulation::{PlannedFault, Report, Setting, random, simulate, svg},
};

use crate::stage::{RENEWD, soak};

const HOUR: Duration = Duration::from_hours(1);
const MINUTE: Duration = Duration::from_mins(1);

fn setting(identities: u64, lifetime: Duration, length: Duration) -> Setting {
    Setting {
        seed: 1,
        identities,
        lifetime,
        renew_at: 0.5,
        spread: 0.02,
        limits: Limits::default(),
        max_in_flight: 32,
        latency: Duration::from_millis(80),
        length,
        faults: Vec::new(),
    }
}

fn fault(line: &str) -> PlannedFault {
    line.parse().unwrap()
}

/// Faults by chance over two days of a small fleet, and how a person sees the same.
fn by_chance(seed: u64) -> (Setting, String) {
    let length = HOUR * 48;
    let mut setting = setting(30, HOUR * 6, length);
    setting.seed = seed;
    setting.faults = random(seed, length);
    let command = format!(
        "renewd simulate --identities 30 --lifetime 6h --days 2 --seed {seed} --random-faults"
    );
    (setting, command)
}

/// What was broken by the faults of a seed, with the command that replays it.
fn broken_by(seed: u64) -> Option<String> {
    let (setting, command) = by_chance(seed);
    broken_in(&setting, &command)
}

fn broken_in(setting: &Setting, command: &str) -> Option<String> {
    let told = match simulate(setting) {
        Ok(report) if report.broken == 0 && report.minted > 30 * 10 => return None,
        Ok(report) => format!(
            "{:#?}\n{:#?}, {} tokens",
            report.told, report.broken_told, report.minted
        ),
        Err(error) => error.to_string(),
    };
    Some(format!("replay: {command}\n{told}"))
}

#[test]
fn faults_by_chance_break_no_promise() {
    let seeds = if soak() { 1000 } else { 8 };
    let threads: u64 = if soak() { 2 } else { 1 };
    let broken: Vec<String> = std::thread::scope(|scope| {
        let of = |first| {
            (first..seeds)
                .step_by(threads as usize)
                .filter_map(broken_by)
        };
        let spawned: Vec<_> = (0..threads)
            .map(|first| scope.spawn(move || of(first).collect::<Vec<_>>()))
            .collect();
        spawned
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect()
    });
    assert!(
        broken.is_empty(),
        "{} of {seeds} seeds:\n{}",
        broken.len(),
        broken.join("\n")
    );
}

/// Where nothing is ever answered, what is asked of each seed is broken.
#[test]
fn a_seed_that_fails_is_told_with_the_command_that_replays_it() {
    let (setting, command) = by_chance(3);
    assert_eq!(broken_in(&setting, &command), None);
    let silent = Setting {
        faults: vec![fault("outage at=0s for=47h")],
        ..setting.clone()
    };
    let told = broken_in(&silent, &command).unwrap();
    let told = told.lines().next().unwrap();
    let replay = told.strip_prefix("replay: renewd ").unwrap();
    let replayed = Command::new(RENEWD)
        .args(replay.split(' '))
        .arg("--json")
        .output()
        .unwrap();
    assert!(replayed.status.success(), "{replayed:?}");
    let replayed: serde_json::Value = serde_json::from_slice(&replayed.stdout).unwrap();
    let report = serde_json::to_value(simulate(&setting).unwrap()).unwrap();
    for (key, value) in report.as_object().unwrap() {
        assert_eq!(&replayed[key], value, "{key}");
    }
}

#[test]
fn the_same_seed_is_the_same_to_the_byte() {
    let args = [
        "simulate",
        "--identities",
        "40",
        "--lifetime",
        "6h",
        "--days",
        "2",
        "--random-faults",
        "--json",
    ];
    let run = |seed: &str| {
        let dir = tempfile::tempdir().unwrap();
        let drawn = dir.path().join("week.svg");
        let output = Command::new(RENEWD)
            .args(args)
            .args(["--seed", seed, "--svg"])
            .arg(&drawn)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        (output.stdout, std::fs::read(drawn).unwrap())
    };
    let (first, picture) = run("5");
    assert_eq!((first.clone(), picture.clone()), run("5"));
    assert_ne!(first, run("6").0, "chance decides something");
    let report: Report = serde_json::from_slice(&first).unwrap();
    assert_eq!((report.schema, report.hours.len()), (1, 48));
    let picture = String::from_utf8(picture).unwrap();
    assert!(picture.starts_with("<svg ") && picture.ends_with("</svg>\n"));
    assert_eq!(picture, svg(&report));
}

#[test]
fn what_is_read_on_eighty_columns_and_what_is_refused() {
    let renewd = |args: &[&str]| {
        let output = Command::new(RENEWD)
            .arg("simulate")
            .args(args)
            .env("COLUMNS", "80")
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        (
            output.status.code().unwrap(),
            String::from_utf8(text).unwrap(),
        )
    };
    let few = ["--identities", "20", "--days", "2", "--lifetime", "6h"];
    let (code, text) = renewd(
        &[
            &few[..],
            &["--fault", "outage at=1d for=2h", "--fault", "revoke at=4h"],
        ]
        .concat(),
    );
    assert_eq!(code, 0, "{text}");
    for part in [
        "outage for 2h",
        "least life left",
        "every promise was kept",
        "campaign",
        "20 done",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(
        text.lines().all(|line| line.chars().count() <= 80),
        "{text}"
    );
    for (args, part) in [
        (&["--fault", "outgae at=1d for=1h"][..], "there are outage"),
        (
            &["--fault", "outage at=50d for=1h", "--days", "2"],
            "begins after",
        ),
        (&["--lifetime", "30m"], "from 1h to 24h"),
        (&["--faults", "/nonexistent"], "cannot read /nonexistent"),
    ] {
        let (code, text) = renewd(args);
        assert_eq!(code, 2, "{text}");
        assert!(text.contains(part), "{part}: {text}");
    }
}

/// A fleet whose load is level, and the plan for it.
fn level(identities: u64, lifetime: Duration, limits: Limits) -> renewd::schedule::Plan {
    let renewal = Renewal {
        lifetime,
        renew_at: 0.5,
        spread: 0.02,
    };
    let now = "2026-11-22T12:00:00Z".parse().unwrap();
    let fleet = Fleet::level(vec![Cohort::usual(&renewal, identities)], now);
    let room = Room {
        limits,
        max_in_flight: 32,
    };
    plan(
        &"contoso".parse().unwrap(),
        (&fleet, Basis::WhatIf),
        room,
        now,
    )
}

#[test]
fn the_outage_that_a_plan_promises_is_survived_and_no_much_longer_one_is() {
    let lifetime = HOUR * 2;
    let plan = level(300, lifetime, Limits::default());
    let promised = Duration::from_secs(plan.outage.level_seconds);
    // Ten lives, in which the load becomes level.
    let at = lifetime * 10;
    let after = |lasts: Duration| {
        let mut setting = setting(300, lifetime, at + HOUR * 6);
        setting.faults = vec![fault(&format!(
            "outage at={}s for={}s",
            at.as_secs(),
            lasts.as_secs()
        ))];
        simulate(&setting).unwrap()
    };
    let survived = after(promised);
    assert_eq!(
        survived.without_token_seconds, 0,
        "{promised:?}: {survived:?}"
    );
    assert!(
        survived.least_left_seconds < Some(240.0),
        "it was near: {:?}",
        survived.least_left_seconds
    );
    let longer = after(promised + MINUTE * 5);
    assert!(
        longer.without_token_seconds > 0,
        "{promised:?} is too little"
    );
    assert_eq!(longer.broken, 0);
}

#[test]
fn campaigns_take_as_long_as_a_plan_says() {
    let lifetime = HOUR * 6;
    for (revoke, issue) in [(50, 1000), (500, 60)] {
        let mut limits = Limits::default();
        limits.revoke.calls = revoke;
        limits.issue.calls = issue;
        let plan = level(400, lifetime, limits);
        let mut setting = setting(400, lifetime, HOUR * 40);
        setting.limits = limits;
        setting.faults = vec![fault("revoke at=30h")];
        let report = simulate(&setting).unwrap();
        let campaign = &report.campaigns[0];
        assert_eq!((campaign.done, campaign.failed), (400, 0));
        let (took, said) = (
            campaign.took_seconds.unwrap(),
            plan.campaigns.reissue_seconds.unwrap(),
        );
        assert!(
            took + 30 >= said && took <= said + 60,
            "{took} s, and {said} s were said: {limits:?}"
        );
        assert_eq!(
            (report.past_limit, report.broken),
            (0, 0),
            "{:?}",
            report.broken_told
        );
    }
}

#[test]
fn the_load_that_a_plan_says_is_what_comes() {
    let plan = level(600, HOUR * 4, Limits::default());
    let report = simulate(&setting(600, HOUR * 4, HOUR * 60)).unwrap();
    let later: u64 = report.hours[36..].iter().map(|hour| hour.minted).sum();
    let steady = later as f64 / 24.0;
    let apart = steady / plan.steady_per_hour;
    assert!(
        (0.97..1.06).contains(&apart),
        "{steady} and {}",
        plan.steady_per_hour
    );
}
