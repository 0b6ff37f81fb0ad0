//! What commands show on a narrow screen, and in one line for monitoring.

use std::process::{Command, Output};

use serde_json::json;

use crate::stage::{Daemon, Emulator, RENEWD, Stage};

/// Names that fill a screen by themselves.
const BOT: &str = "the-bot-of-the-support-desk-in-the-building-by-the-river-first-floor";
const SINK: &str = "the-customer-relations-service-of-the-head-office";
const COLUMNS: usize = 80;

fn renewd(stage: &Stage, args: &[&str]) -> (i32, String) {
    renewd_before(stage, args, &[], COLUMNS)
}

/// The same of a verb that takes a program after its own arguments.
fn renewd_before(stage: &Stage, args: &[&str], program: &[&str], columns: usize) -> (i32, String) {
    let output: Output = Command::new(RENEWD)
        .args(args)
        .arg("--socket")
        .arg(stage.path("renewd.sock"))
        .args(program)
        .env("COLUMNS", columns.to_string())
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

/// Commands that cannot do what they are asked for: without a daemon, and with one.
const WITHOUT: &[&str] = &[
    "status",
    "token bot-0",
    "store backup DIR/ids --config DIR/renewd.toml",
    "store backup DIR/backup --with-key --config DIR/renewd.toml",
    "store backup - --with-key --config DIR/renewd.toml",
    "store verify DIR/ids",
    "store distrust --since 2999-01-01T00:00:00Z --config DIR/renewd.toml",
    "store restore DIR/ids --config DIR/renewd.toml",
    "key set nowhere --config DIR/renewd.toml",
    "key set contoso --config DIR/renewd.toml",
    "key set contoso --key secondary --config DIR/renewd.toml",
    "acs create-user",
];
const WITH: &[&str] = &[
    "renew --all",
    "renew --all --dry-run",
    "revoke bot-0 --then hold --dry-run",
    "renew nobody-at-all",
    "renew --ids DIR/ids",
    "renew --ids DIR/nobody",
    "renew --ids DIR/nowhere",
    "offboard bot-0",
    "identity delete bot-0",
    "identity show nobody-at-all",
    "identity remove bot-0",
    "identity add bot-0",
    "identity create --all-missing",
    "identity create bot-0",
    "identity revive bot-0",
    "identity confirm-gone contoso",
    "identity confirm-gone nowhere",
    "identity import DIR/import.csv",
    "campaign show 77",
    "campaign pause 77",
    "job run nothing",
    "sink pause nothing",
    "sink test nothing",
    "source test list",
    "source test nothing",
    "source apply list",
    "orphan dismiss 7",
    "orphan revoke 7",
    "orphan delete --all",
    "delivery retry nothing",
    "key roll contoso",
    "key roll contoso --key secondary --yes",
    "key roll contoso --cancel",
    "key leak contoso --now",
    "key status nowhere",
    "store accept",
    "store adopt",
    "why nobody-at-all",
    "token nobody-at-all",
    "exec bot-0 -- /nowhere/program",
    "audit list --since yesterday",
];

/// What they say, as a person reads it on eighty columns, each with its exit code.
fn refusals(stage: &Stage, commands: &[&str]) -> String {
    let dir = stage.path("").display().to_string();
    let dir = dir.trim_end_matches('/');
    let mut told = String::new();
    for command in commands {
        let args = command.replace("DIR", dir);
        let args: Vec<&str> = args.split(' ').collect();
        let before = args.iter().position(|arg| *arg == "--");
        let (args, program) = args.split_at(before.unwrap_or(args.len()));
        let (_, text) = renewd_before(stage, args, program, COLUMNS);
        for line in text.lines() {
            assert!(!is_too_wide(line), "{command}: {line}\n{text}");
        }
        // Where a line is broken depends on how long the path of the folder is.
        let (code, text) = renewd_before(stage, args, program, 10 * COLUMNS);
        told += &format!("$ renewd {command}\n{text}[{code}]\n\n");
    }
    // The emulator's key is another one each time.
    let key = told.split("primary key (").nth(1);
    let key = key.and_then(|rest| rest.split(')').next()).unwrap_or("KEY");
    told.replace(key, "KEY").replace(dir, "DIR")
}

/// Nobody can confirm anything here, and what is asked for is nowhere.
#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_told_in_plain_words() {
    let emulator = Emulator::start(&[]);
    let stage = Stage::new(&emulator);
    let list = stage.path("none.jsonl").display().to_string();
    let config = stage.configure(&format!(
        "{}{}{}\n[[source.file]]\nname = \"list\"\npath = \"{list}\"\nscopes = [\"chat\"]\n",
        stage.base_config(),
        stage.sinks_config(None),
        crate::stage::identities("bot", 2, &["files"]),
    ));
    for (name, text) in [
        ("ids", "bot-0\na b\n{\"nme\":1}\n"),
        ("nobody", "# nobody\n"),
        ("import.csv", "name,scopes\nbot-9,fax\n"),
    ] {
        std::fs::write(stage.path(name), text).unwrap();
    }
    insta::assert_snapshot!("refusals_without_a_daemon", refusals(&stage, WITHOUT));
    let daemon = Daemon::start(&config).await;
    stage.there("bot-0").await;
    stage.there("bot-1").await;
    insta::assert_snapshot!("refusals_of_a_daemon", refusals(&stage, WITH));
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
