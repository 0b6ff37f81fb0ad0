//! What commands show on a narrow screen, and in one line for monitoring.

use std::process::{Command, Output};

use serde_json::json;

use crate::stage::{Daemon, Emulator, RENEWD, Stage};

/// Names that fill a screen by themselves.
const BOT: &str = "the-bot-of-the-support-desk-in-the-building-by-the-river-first-floor";
const SINK: &str = "the-customer-relations-service-of-the-head-office";
const COLUMNS: usize = 80;

fn renewd(stage: &Stage, args: &[&str]) -> (i32, String) {
    let output: Output = Command::new(RENEWD)
        .args(args)
        .arg("--socket")
        .arg(stage.path("renewd.sock"))
        .env("COLUMNS", COLUMNS.to_string())
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.code().unwrap(),
        String::from_utf8(text).unwrap(),
    )
}

/// Whether a line is too wide though it could have been broken or cut.
fn is_too_wide(line: &str) -> bool {
    let longest = line
        .split_whitespace()
        .map(|word| word.chars().count())
        .max();
    let indent = line.chars().take_while(|c| *c == ' ').count();
    line.chars().count() > COLUMNS && longest.unwrap_or(0) + indent + 2 < COLUMNS / 2
}

#[tokio::test(flavor = "multi_thread")]
async fn on_eighty_columns_states_are_seen_beside_the_longest_names() {
    let emulator = Emulator::start(&[]);
    let stage = Stage::new(&emulator);
    let dir = stage.path("").display().to_string();
    let config = format!(
        "{}\n[[identity]]\nname = \"{BOT}\"\nscopes = [\"chat\", \"voip\"]\nsinks = [\"files\", \"{SINK}\"]\n\
         {}\n[[sink.webhook]]\nname = \"{SINK}\"\nurl = \"http://127.0.0.1:9/hooks/acs\"\n\
         secrets = [{{ file = \"{dir}/webhook.secret\" }}]\n\
         [[job]]\nname = \"every-night-everybody-gets-a-new-token\"\ncron = \"30 2 * * *\"\n\
         timezone = \"America/Argentina/ComodRivadavia\"\naction = \"renew\"\nselect = \"name ~ '*'\"\n",
        stage.base_config(),
        stage.sinks_config(None)
    );
    let daemon = Daemon::start(&stage.configure(&config)).await;
    stage.there(BOT).await;
    let reason = "because somebody with a very long story asked for it twice on a Friday afternoon";
    let (code, said) = renewd(&stage, &["renew", BOT, "--detach", "--reason", reason]);
    assert_eq!(code, 0, "{said}");
    renewd(
        &stage,
        &["job", "run", "every-night-everybody-gets-a-new-token"],
    );
    let begin = &BOT[..8];
    for (args, words) in [
        (&["status"][..], &["HEALTH", "open", "STATE", "failing"][..]),
        (&["why", BOT], &["active", BOT]),
        (&["identity", "list"], &["STATE", "active", begin]),
        (&["identity", "show", BOT], &["active", BOT]),
        (
            &["delivery", "list"],
            &["STATE", "delivered", "pending", begin],
        ),
        (&["delivery", "show", BOT], &["STATE", "delivered"]),
        (&["sink", "list"], &["STATE", "open", "failing", "files"]),
        (&["source", "list"], &["no sources"]),
        (&["job", "list"], &["every-nig", "renew", "in "]),
        (&["job", "history"], &["OUTCOME", "every-nig"]),
        (&["campaign", "list"], &["STATE", "renew"]),
        (&["campaign", "show", "1"], &["selected", "reason"]),
        (&["campaign", "report", "1"], &["STATE"]),
        (&["key", "status"], &["primary", "accepted", "signs"]),
        (&["audit", "list"], &["RESULT", "version", begin]),
        (&["audit", "reads"], &["nobody"]),
        (&["orphan", "list"], &["nothing"]),
        (&["doctor"], &["consumers"]),
    ] {
        let (_, text) = renewd(&stage, args);
        for line in text.lines() {
            assert!(!is_too_wide(line), "{args:?}: {line}\n{text}");
        }
        for word in words {
            assert!(text.contains(word), "{args:?}: {word}\n{text}");
        }
    }
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn monitoring_gets_one_line_and_an_exit_code() {
    let emulator = Emulator::start(&[]);
    let stage = Stage::new(&emulator);
    let all = crate::stage::identities("bot", 1, &["files"]);
    let config = stage.configure(&(stage.base_config() + &stage.sinks_config(None) + &all));
    let check = |code: i32, begins: &str| {
        let (found, line) = renewd(&stage, &["status", "--check"]);
        assert_eq!(found, code, "{line}");
        assert!(line.starts_with(begins), "{line}");
        assert_eq!(line.lines().count(), 1, "{line}");
    };
    check(3, "RENEWD UNKNOWN - no daemon answers on ");
    let daemon = Daemon::start(&config).await;
    stage.there("bot-0").await;
    stage.renewd(&["wait", "bot-0"]);
    let until = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while renewd(&stage, &["status", "--check"]).0 != 0 {
        let (_, line) = renewd(&stage, &["status", "--check"]);
        assert!(std::time::Instant::now() < until, "all is well: {line}");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    check(0, "RENEWD OK - 1 consumer: 1 holds a live token");
    assert!(stage.renewd(&["sink", "pause", "files"]).status.success());
    check(1, "RENEWD WARNING - files: ");
    assert!(stage.renewd(&["sink", "enable", "files"]).status.success());
    let fault = json!({"kind": "status", "status": 500});
    emulator.control("POST", "faults", Some(fault)).await;
    let revoked = stage.renewd(&["revoke", "bot-0", "--yes", "--detach"]);
    assert!(revoked.status.success(), "{revoked:?}");
    let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while renewd(&stage, &["status", "--check"]).0 != 2 {
        let (_, line) = renewd(&stage, &["status", "--check"]);
        assert!(
            std::time::Instant::now() < until,
            "the outage is critical: {line}"
        );
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    check(2, "RENEWD CRITICAL - ");
    daemon.kill();
    check(3, "RENEWD UNKNOWN - no daemon answers on ");
}
