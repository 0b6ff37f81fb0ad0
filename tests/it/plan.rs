//! `renewd plan` by its three ways, and what `check`, `run` and a reload say of a fleet that is too large.

use std::{collections::BTreeSet, fs, path::Path, process::Command, time::Duration};

use serde_json::Value;

use crate::stage::{Daemon, Emulator, RENEWD, Stage, identities};

/// How it ended, and what it said where.
fn renewd(args: &[&str]) -> (i32, String, String) {
    let output = Command::new(RENEWD)
        .args(args)
        .env("COLUMNS", "80")
        .env_remove("RENEWD_SOCKET")
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}

fn planned(config: &Path, args: &[&str]) -> Value {
    let mut all = vec!["plan", "--json", "--config", config.to_str().unwrap()];
    all.extend(args);
    let (code, out, err) = renewd(&all);
    assert_eq!(code, 0, "{args:?}: {err}");
    let plans: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(plans["schema"], 1);
    plans
}

/// Names and sizes of what lies in the folder of the store.
fn lies_in(folder: &Path) -> BTreeSet<(String, u64)> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let told = entries.map(|entry| {
        let name = entry.file_name().into_string().unwrap();
        (name, entry.metadata().unwrap().len())
    });
    told.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_asks_the_daemon_else_the_store_else_the_configuration() {
    let emulator = Emulator::start(&[]);
    let stage = Stage::new(&emulator);
    let all = identities("bot", 7, &["files"]);
    let config = stage.configure(&(stage.base_config() + &stage.sinks_config(None) + &all));

    let plans = planned(&config, &[]);
    let plan = &plans["resources"][0];
    assert_eq!(
        (&plan["resource"], &plan["basis"]),
        (&"contoso".into(), &"configuration".into())
    );
    assert_eq!(
        (&plan["identities"], &plan["to_create"]),
        (&7.into(), &7.into())
    );
    assert_eq!(plan["hours"].as_array().unwrap().len(), 48);

    let daemon = Daemon::start(&config).await;
    for bot in 0..7 {
        stage.there(&format!("bot-{bot}")).await;
    }
    let by_daemon = planned(&config, &[]);
    assert!(daemon.stop().success());
    let before = lies_in(&stage.path("state"));
    let by_store = planned(&config, &[]);
    assert_eq!(
        lies_in(&stage.path("state")),
        before,
        "reading changes nothing"
    );
    for plans in [by_daemon, by_store] {
        let plan = &plans["resources"][0];
        assert_eq!(plan["basis"], "store", "{plan}");
        assert_eq!(
            (&plan["identities"], &plan["to_create"]),
            (&7.into(), &0.into())
        );
        // Fresh tokens of a day: an outage of nearly a day is survived by all.
        let now = plan["outage"]["now_seconds"].as_u64().unwrap();
        assert!((86_400 - 300..86_400).contains(&now), "{plan}");
        let steady = plan["steady_per_hour"].as_f64().unwrap();
        assert!((steady - 7.0 / 11.76).abs() < 1e-9, "{steady}");
        let renewals: u64 = plan["hours"].as_array().unwrap()[..13]
            .iter()
            .map(|hour| hour["renewals"].as_u64().unwrap())
            .sum();
        assert_eq!(
            renewals, 7,
            "each is renewed once in the first half day: {plan}"
        );
    }

    // What a kill leaves behind is read as well.
    let daemon = Daemon::start(&config).await;
    daemon.kill();
    assert_eq!(planned(&config, &[])["resources"][0]["identities"], 7);
}

#[test]
fn what_ifs_need_no_daemon_and_no_store() {
    let (code, out, err) = renewd(&[
        "plan",
        "--identities",
        "250000",
        "--lifetime",
        "6h",
        "--json",
    ]);
    assert_eq!(code, 0, "{err}");
    let plans: Value = serde_json::from_str(&out).unwrap();
    let plan = &plans["resources"][0];
    assert_eq!(
        (&plan["basis"], &plan["identities"]),
        (&"what_if".into(), &250_000.into())
    );
    let number = |key: &str| plan[key].as_f64().unwrap();
    // 250,000 in 49 % of 6 h; 970 in 30 s.
    assert!((number("steady_per_hour") - 250_000.0 / 2.94).abs() < 0.01);
    assert!((number("headroom") - (1.0 - 250_000.0 / 2.94 / 116_400.0)).abs() < 1e-6);
    // 250,000 in windows of 485.
    assert_eq!(plan["campaigns"]["revoke_seconds"], 515 * 30);
    let (code, _, err) = renewd(&["plan", "--lifetime", "30h"]);
    assert_eq!(code, 2);
    assert!(err.contains("from 1h to 24h"), "{err}");

    let (code, out, _) = renewd(&["plan", "--identities", "2000000", "--lifetime", "1h"]);
    assert_eq!(code, 0);
    let words: Vec<&str> = out.split_whitespace().collect();
    assert!(words.join(" ").contains("can never keep up"), "{out}");
    assert!(out.lines().all(|line| line.chars().count() <= 80), "{out}");
}

/// Over the socket and from the store the same: for each of several resources by its own limits, or for one alone.
#[tokio::test(flavor = "multi_thread")]
async fn what_ifs_of_several_resources_say_the_same_with_a_daemon_and_without() {
    let emulator = Emulator::start(&[]);
    let stage = Stage::new(&emulator);
    let dir = stage.path("").display().to_string();
    let second = format!(
        "[[resource]]\nname = \"fabrikam\"\nconnection_string = {{ file = \"{dir}/contoso.cs\" }}\n\
         limits = {{ issue = \"100/30s\" }}\n"
    );
    let identity = |name: &str, resource: &str| {
        format!(
            "[[identity]]\nname = \"{name}\"\nresource = \"{resource}\"\nscopes = [\"chat\"]\nsinks = [\"files\"]\n"
        )
    };
    let text = [
        stage.base_config(),
        second,
        stage.sinks_config(None),
        identity("bot-0", "contoso"),
        identity("bot-1", "fabrikam"),
    ];
    let config = stage.configure(&text.join("\n"));
    let daemon = Daemon::start(&config).await;
    for name in ["bot-0", "bot-1"] {
        stage.there(name).await;
    }
    let asked = ["--identities", "90000", "--lifetime", "12h"];
    let one = [&asked[..], &["fabrikam"]].concat();
    let ask = || [planned(&config, &asked), planned(&config, &one)];
    let by_daemon = ask();
    assert!(daemon.stop().success());
    for [both, alone] in [by_daemon, ask()] {
        let both = both["resources"].as_array().unwrap();
        assert_eq!(both.len(), 2);
        // 97 % of 1,000 and of 100 in 30 s; 90,000 in 49 % of 12 h are 15,306 an hour.
        for (plan, name, allowed) in [
            (&both[0], "contoso", 116_400.0),
            (&both[1], "fabrikam", 11_640.0),
        ] {
            let told = (&plan["resource"], &plan["basis"], &plan["identities"]);
            assert_eq!(told, (&name.into(), &"what_if".into(), &90_000.into()));
            assert_eq!(
                plan["allowed_per_hour"].as_f64().unwrap(),
                allowed,
                "{plan}"
            );
            let steady = plan["steady_per_hour"].as_f64().unwrap();
            assert!((steady - 90_000.0 / 5.88).abs() < 0.01, "{plan}");
            assert_eq!(plan["keeps_up"], steady < allowed, "{plan}");
        }
        let alone = alone["resources"].as_array().unwrap();
        let parts = ["resource", "headroom", "campaigns", "answers_within_ms"];
        assert_eq!(alone.len(), 1);
        for part in parts {
            assert_eq!(alone[0][part], both[1][part], "{part}");
        }
    }
    let unknown = [&asked[..], &["nowhere"]].concat();
    let mut args = vec!["plan", "--config", config.to_str().unwrap()];
    args.extend(unknown);
    let (code, _, err) = renewd(&args);
    assert_eq!(code, 1);
    assert!(err.contains("there is no resource nowhere"), "{err}");
}

/// Two identities of an hour, which need 4.08 renewals an hour.
fn two_of_an_hour(stage: &Stage, limits: &str) -> std::path::PathBuf {
    let identity = |n| {
        format!(
            "[[identity]]\nname = \"bot-{n}\"\nscopes = [\"chat\"]\nlifetime = \"1h\"\nsinks = [\"files\"]\n"
        )
    };
    let text = stage.base_config()
        + limits
        + "\n"
        + &stage.sinks_config(None)
        + &identity(0)
        + &identity(1);
    stage.configure(&text)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_that_never_keeps_up_is_a_mistake_and_a_narrow_one_is_odd() {
    let emulator = Emulator::start(&[]);
    let stage = Stage::new(&emulator);
    for (limits, code, told) in [
        // 97 % of 5 are 4, of 6 are 5, of 8 are 7.
        ("limits = { issue = \"5/1h\" }", 2, "they can never keep up"),
        (
            "limits = { issue = \"16/1h\" }\nshare = 0.3",
            2,
            "they can never keep up",
        ),
        ("limits = { issue = \"6/1h\" }", 0, "18 % are left"),
        ("limits = { issue = \"8/1h\" }", 0, ""),
        ("limits = { issue = \"16/1h\" }\nshare = 0.5", 0, ""),
        ("", 0, ""),
    ] {
        let config = two_of_an_hour(&stage, limits);
        let (found, _, err) = renewd(&["check", "--config", config.to_str().unwrap()]);
        assert_eq!(found, code, "{limits}: {err}");
        assert!(err.contains(told), "{limits}: {err}");
        assert_eq!(
            told.is_empty(),
            !err.contains("of this resource need"),
            "{limits}: {err}"
        );
        if !told.is_empty() {
            assert!(err.contains("limits = {"), "the place is shown: {err}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn run_and_reload_warn_and_go_on() {
    let emulator = Emulator::start(&[]);
    let stage = Stage::new(&emulator);
    let config = two_of_an_hour(&stage, "limits = { issue = \"3/1h\" }");
    let daemon = Daemon::start(&config).await;
    stage.there("bot-1").await;
    let told = |daemon: &Daemon| daemon.log().matches("they can never keep up").count();
    assert_eq!(told(&daemon), 1, "{}", daemon.log());
    // Beyond what is declared, the store is counted.
    two_of_an_hour(&stage, "limits = { issue = \"9/1h\" }");
    for name in ["extra-1", "extra-2", "extra-3"] {
        let added = stage.renewd(&[
            "identity",
            "add",
            name,
            "--scope",
            "chat",
            "--lifetime",
            "1h",
        ]);
        assert!(added.status.success(), "{added:?}");
    }
    daemon.signal(rustix::process::Signal::HUP);
    let until = std::time::Instant::now() + Duration::from_secs(20);
    while !daemon.log().contains("configuration reloaded") {
        assert!(
            std::time::Instant::now() < until,
            "no reload:\n{}",
            daemon.log()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(
        told(&daemon),
        1,
        "two declared ones have room: {}",
        daemon.log()
    );
    assert!(daemon.stop().success());
}
