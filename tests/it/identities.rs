//! Identities over a running daemon: imported in bulk, exported, pinned; and a lost database.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output, Stdio},
};

use serde_json::Value;

use crate::stage::{Daemon, Emulator, RENEWD, Stage, identities, soak, until};

/// A daemon's folder whose ACS does not answer: nothing but imports keeps it busy.
fn quiet_stage(emulator: &Emulator) -> Stage {
    let stage = Stage::new(emulator);
    stage.write_private(
        "contoso.cs",
        "endpoint=http://127.0.0.1:9/;accesskey=c2VjcmV0LWtleQ==",
    );
    stage.configure(&stage.base_config());
    stage
}

fn ok(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

fn known(daemon: &Daemon, stage: &Stage) -> u64 {
    let status = daemon.status(&stage.path("renewd.sock"));
    let states = status["counts"]["identities"]["contoso"]
        .as_object()
        .cloned()
        .unwrap_or_default();
    states.values().filter_map(Value::as_u64).sum()
}

fn csv(path: &Path, rows: usize) {
    let mut file = std::io::BufWriter::new(fs::File::create(path).unwrap());
    writeln!(file, "name,id,scopes,label_team").unwrap();
    for n in 0..rows {
        writeln!(
            file,
            "agent-{n:07},8:acs:11111111-2222-3333-4444-555555555555_{n:012x},chat voip,blue"
        )
        .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_line_is_named_and_nothing_is_changed_unless_it_may_be_skipped() {
    let emulator = Emulator::start(&[]);
    let stage = quiet_stage(&emulator);
    let daemon = Daemon::start(&stage.path("renewd.toml")).await;
    let file = stage.path("agents.csv");
    csv(&file, 5_000);
    let good = fs::read_to_string(&file).unwrap();
    let bad = good.replace("agent-0002500,", "agent 0002500,");
    fs::write(&file, bad).unwrap();
    let path = file.display().to_string();
    let refused = stage.renewd(&["identity", "import", &path]);
    let said = String::from_utf8_lossy(&refused.stdout).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(
        said.contains("agents.csv:2502: name \"agent 0002500\""),
        "{said}"
    );
    assert_eq!(known(&daemon, &stage), 0, "nothing was changed");
    let skipped = stage.renewd(&["identity", "import", "--skip-bad", &path]);
    assert_eq!(skipped.status.code(), Some(4));
    assert_eq!(known(&daemon, &stage), 4_999);
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_survives_a_kill_and_is_completed_by_a_second_run() {
    let rows: usize = if soak() { 1_000_000 } else { 100_000 };
    let emulator = Emulator::start(&[]);
    let stage = quiet_stage(&emulator);
    let config = stage.path("renewd.toml");
    let daemon = Daemon::start(&config).await;
    let file = stage.path("agents.csv");
    csv(&file, rows);
    let path = file.display().to_string();
    let mut import = Command::new(RENEWD)
        .args(["identity", "import", &path, "--socket"])
        .arg(stage.path("renewd.sock"))
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    until("the first imported one", || known(&daemon, &stage) > 0).await;
    daemon.kill();
    let said: Vec<String> = BufReader::new(import.stderr.take().unwrap())
        .lines()
        .map(Result::unwrap)
        .collect();
    if !import.wait().unwrap().success() {
        assert!(
            said.join("\n").contains("run the same command again"),
            "{said:?}"
        );
    }
    let daemon = Daemon::start(&config).await;
    let before = known(&daemon, &stage);
    assert!(before > 0, "what was taken over before the kill stays");
    let result: Value =
        serde_json::from_str(&ok(&stage.renewd(&["identity", "import", &path, "--json"]))).unwrap();
    assert_eq!(known(&daemon, &stage), rows as u64);
    assert_eq!(result["added"].as_u64().unwrap() + before, rows as u64);
    assert_eq!(result["unchanged"], before);
    assert!(daemon.stop().success());
    let map = fs::read_to_string(stage.path("state/identities.jsonl")).unwrap();
    assert_eq!(map.lines().count(), rows, "each id is in the map");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_is_an_import_and_tokens_go_into_a_private_file_alone() {
    let emulator = Emulator::start(&[]);
    let stage = Stage::new(&emulator);
    let config = stage.configure(
        &(stage.base_config() + &stage.sinks_config(None) + &identities("bot", 2, &["files"])),
    );
    let daemon = Daemon::start(&config).await;
    stage.there("bot-0").await;
    stage.there("bot-1").await;
    let token = stage.token("bot-0");
    for format in ["jsonl", "csv"] {
        let text = ok(&stage.renewd(&["identity", "export", "--format", format]));
        assert!(text.contains("bot-0") && !text.contains(&token), "{text}");
        let path = stage.path(&format!("export.{format}"));
        fs::write(
            &path,
            text.replace("bot-", "copy-").replace("8:acs:", "8:acs:x"),
        )
        .unwrap();
        ok(&stage.renewd(&[
            "identity",
            "import",
            "--dry-run",
            &path.display().to_string(),
        ]));
    }
    let refused = stage.renewd(&["identity", "export", "--with-tokens"]);
    assert_eq!(refused.status.code(), Some(2));
    let path = stage.path("tokens.csv");
    fs::write(&path, "old").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    ok(&stage.renewd(&[
        "identity",
        "export",
        "--with-tokens",
        "--output",
        &path.display().to_string(),
    ]));
    assert!(fs::read_to_string(&path).unwrap().contains(&token));
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pin_adds_lines_alone_and_keeps_mode_and_comments() {
    let emulator = Emulator::start(&[]);
    let stage = Stage::new(&emulator);
    let text = stage.base_config()
        + &stage.sinks_config(None)
        + "\n# our bots\n[[identity]]\nname   = \"bot-0\"   # the first\nscopes = [\"chat\"]\nsinks  = [\"files\"]\n";
    let config = stage.configure(&text);
    fs::set_permissions(&config, fs::Permissions::from_mode(0o640)).unwrap();
    let daemon = Daemon::start(&config).await;
    stage.there("bot-0").await;
    let id = stage.document("bot-0").unwrap()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let at = config.display().to_string();
    let shown = ok(&stage.renewd(&["identity", "pin", "--dry-run", "--config", &at]));
    assert!(shown.contains(&format!("+id     = \"{id}\"")), "{shown}");
    assert_eq!(fs::read_to_string(&config).unwrap(), text);
    ok(&stage.renewd(&["identity", "pin", "--config", &at]));
    let line = "name   = \"bot-0\"   # the first\n";
    let wanted = text.replace(line, &format!("{line}id     = \"{id}\"\n"));
    assert_eq!(fs::read_to_string(&config).unwrap(), wanted);
    assert_eq!(
        fs::metadata(&config).unwrap().permissions().mode() & 0o777,
        0o640
    );
    daemon.signal(rustix::process::Signal::HUP);
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_lost_database_an_import_over_the_daemon_creates_nobody_anew() {
    let emulator = Emulator::start(&[]);
    let stage = Stage::new(&emulator);
    let config = stage.configure(
        &(stage.base_config() + &stage.sinks_config(None) + &identities("bot", 3, &["files"])),
    );
    let daemon = Daemon::start(&config).await;
    let rows =
        "name,scopes,sinks,label_team\nkept-0,chat,files,night\nkept-1,chat voip,files,day\n";
    let csv = stage.path("kept.csv").display().to_string();
    fs::write(&csv, rows).unwrap();
    ok(&stage.renewd(&["identity", "import", &csv]));
    let names = ["bot-0", "bot-1", "bot-2", "kept-0", "kept-1"];
    for name in names {
        stage.there(name).await;
    }
    assert!(daemon.stop().success());
    stage.lose_database();
    // And half of the map with it.
    let map = stage.path("state/identities.jsonl");
    let whole = stage.path("whole.jsonl");
    fs::copy(&map, &whole).unwrap();
    let text = fs::read_to_string(&map).unwrap();
    let half: Vec<&str> = text.lines().filter(|line| line.contains("-0\"")).collect();
    fs::write(&map, half.join("\n") + "\n").unwrap();
    let ids = || names.map(|name| stage.document(name).unwrap()["id"].clone());
    let before = ids();
    let tokens = names.map(|name| (name, stage.token(name)));
    let daemon = Daemon::start(&config).await;
    stage.reissued(tokens[0].0, &tokens[0].1).await;
    stage.reissued(tokens[3].0, &tokens[3].1).await;
    assert_eq!(stage.wait_to_be_created(&daemon), ["bot-1", "bot-2"]);
    let shown = ok(&stage.renewd(&["identity", "show", "kept-0", "--json"]));
    assert!(shown.contains("night"), "{shown}");
    let part = stage.path("part.jsonl");
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.contains("bot-2"))
        .collect();
    fs::write(&part, lines.join("\n") + "\n").unwrap();
    let said = ok(&stage.renewd(&["identity", "import", &part.display().to_string()]));
    assert!(
        said.contains("1 added") && said.contains("ids given back: 1"),
        "{said}"
    );
    assert!(
        said.contains("bot-2") && said.contains("renewd identity create"),
        "{said}"
    );
    let said = ok(&stage.renewd(&["identity", "import", &whole.display().to_string()]));
    assert!(said.contains("ids given back: 1"), "{said}");
    for (name, token) in &tokens {
        stage.reissued(name, token).await;
    }
    assert_eq!(ids(), before);
    assert_eq!(stage.wait_to_be_created(&daemon), Vec::<String>::new());
    let stats = emulator.control("GET", "stats", None).await;
    assert_eq!(
        stats["identities"]["created"], 5,
        "zero creations after the loss"
    );
    assert!(daemon.stop().success());
}

/// What an import counts, for comparing.
fn counts(output: &Output) -> Value {
    let mut said: Value = serde_json::from_slice(&output.stdout).unwrap();
    said.as_object_mut().unwrap().remove("applied").unwrap();
    said
}

/// What an import counts, which its dry run counted before; and the lines that it refused.
fn planned_and_done(stage: &Stage, name: &str, text: &str) -> (Value, Vec<u64>) {
    let path = stage.path(name);
    fs::write(&path, text).unwrap();
    let path = path.display().to_string();
    let args = ["identity", "import", &path, "--skip-bad", "--json"];
    let planned = stage.renewd(&[&args[..], &["--dry-run"]].concat());
    let done = stage.renewd(&args);
    assert_eq!(planned.status.code(), done.status.code(), "{name}");
    let done = counts(&done);
    assert_eq!(counts(&planned), done, "{name}");
    let refused = done["refused"].as_array().unwrap().iter();
    let lines = refused.map(|row| row["number"].as_u64().unwrap());
    let lines = lines.collect();
    (done, lines)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_counts_as_the_real_run_does_and_lines_are_the_files_own() {
    let emulator = Emulator::start(&[]);
    let stage = quiet_stage(&emulator);
    let daemon = Daemon::start(&stage.path("renewd.toml")).await;
    let (done, refused) = planned_and_done(
        &stage,
        "first.csv",
        "name,id,scopes\r\n\r\nanna,8:acs:a,chat\r\nb b,,chat\r\n\r\ncora,8:acs:c,\r\ndora,8:acs:a,chat\r\nemil,,voip\r\n",
    );
    assert_eq!(
        (&done["added"], &done["remembered"]),
        (&2.into(), &1.into())
    );
    assert_eq!(refused, [4, 7], "{done}");
    let (done, refused) = planned_and_done(
        &stage,
        "second.jsonl",
        "{\"name\":\"anna\",\"id\":\"8:acs:a\",\"scopes\":\"chat\"}\r{\"name\":\"emil\",\"scopes\":\"chat\"}\r\r\
         {\"name\":\"cora\",\"id\":\"8:acs:c\"}\r{\"name\":\"emil2\",\"id\":\"8:acs:e\"}\r{\"name\":\"fritz\",\"id\":\"8:acs:c\"}\r\
         {\"name\":\"gina\",\"id\":\"8:acs:g\",\"id\":\"8:acs:h\"}\r{\"name\":\"cora3\",\"scopes\":\"chat\"}\r{\"name\":\"anna\"}",
    );
    assert_eq!(
        (&done["changed"], &done["unchanged"]),
        (&1.into(), &2.into())
    );
    assert_eq!(refused, [6, 7, 9], "{done}");
    let (done, refused) = planned_and_done(
        &stage,
        "third.jsonl",
        "{\"name\":\"emil\",\"id\":\"8:acs:z\"}\n{\"name\":\"anna\",\"id\":\"8:acs:y\"}\n",
    );
    assert_eq!((&done["adopted"], refused), (&1.into(), vec![2]));
    assert!(daemon.stop().success());
}
