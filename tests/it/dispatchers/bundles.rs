//! Bundles: one file for all identities of a sink, written once for a burst of changes.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use renewd::{
    config::{FileFormat, FileSinkSettings, SinkSettings, Template},
    model::{Reader, Step, Then},
    store::{Cause, StepOn},
};
use serde_json::Value;

use super::{
    S,
    harness::{Harness, Running},
};

fn path(harness: &Harness) -> PathBuf {
    harness.dir.path().join("tokens/all.json")
}

fn settings(harness: &Harness) -> FileSinkSettings {
    FileSinkSettings {
        bundle: true,
        ..FileSinkSettings::new(
            "files".parse().unwrap(),
            path(harness).display().to_string(),
        )
    }
}

fn start(harness: &Harness, settings: FileSinkSettings) -> Running {
    harness.start(&SinkSettings::File(settings))
}

fn read(harness: &Harness) -> Value {
    serde_json::from_slice(&fs::read(path(harness)).unwrap()).unwrap()
}

fn names(bundle: &Value) -> Vec<&str> {
    let identities = bundle["identities"].as_object().unwrap();
    identities.keys().map(String::as_str).collect()
}

async fn hold(harness: &Harness, name: &str) {
    step(harness, name, Step::Withhold).await;
}

async fn step(harness: &Harness, name: &str, step: Step) {
    let num = harness.num(name);
    let on = StepOn {
        num,
        step,
        request_id: None,
    };
    let now = harness.clock.now();
    harness
        .store
        .step(vec![on], &Cause::ours("test"), now)
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_burst_of_changes_is_one_write_that_settles_all() {
    let is_soak = std::env::var_os("RENEWD_TEST_SCALE").is_some();
    let count = if is_soak { 10_000 } else { 500 };
    let names: Vec<String> = (0..count).map(|n| format!("bot{n:05}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let harness = Harness::new(&names, &["files"]).await;
    let dispatcher = start(&harness, settings(&harness));
    harness.after(S).await;
    assert!(!path(&harness).exists(), "nobody has a token yet");
    let before = dispatcher.view.borrow().delivered;
    for name in &names {
        harness.issue(name).await;
    }
    harness.after(S * 2).await;
    assert_eq!(dispatcher.view.borrow().delivered, before + 1, "one write");
    assert_eq!(super::bundles::names(&read(&harness)), names);
    for name in &names {
        assert!(!harness.delivery(name).await.is_pending());
    }
    // A single renewal is one write more, and changes that one alone.
    let was = read(&harness);
    harness.issue("bot00007").await;
    harness.after(S * 3).await;
    assert_eq!(dispatcher.view.borrow().delivered, before + 2);
    let is = read(&harness);
    let changed: Vec<_> = names
        .iter()
        .filter(|name| was["identities"][**name] != is["identities"][**name])
        .collect();
    assert_eq!(changed, [&"bot00007"]);
    dispatcher.stop().await;
}

#[tokio::test(start_paused = true)]
async fn who_is_held_shows_it_and_who_leaves_is_gone() {
    let harness = Harness::new(&["a", "b", "c"], &["files"]).await;
    for name in ["a", "b", "c"] {
        harness.issue(name).await;
    }
    let dispatcher = start(&harness, settings(&harness));
    harness.after(S * 3).await;
    hold(&harness, "b").await;
    harness.after(S * 3).await;
    let bundle = read(&harness);
    assert_eq!(names(&bundle), ["a", "b", "c"]);
    assert_eq!(bundle["identities"]["b"]["state"], "held");
    assert_eq!(bundle["identities"]["b"]["token"], Value::Null);
    harness
        .declare(
            &[("a", &["files"]), ("b", &[]), ("c", &["files"])],
            &["files"],
        )
        .await;
    harness.after(S * 3).await;
    assert_eq!(
        names(&read(&harness)),
        ["a", "c"],
        "b uses the sink no more"
    );
    harness
        .declare(&[("a", &[]), ("b", &[]), ("c", &[])], &["files"])
        .await;
    harness.after(S * 3).await;
    assert!(!path(&harness).exists(), "nobody is left");
    dispatcher.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_template_goes_through_all_that_have_a_token() {
    let harness = Harness::new(&["a", "b"], &["files"]).await;
    harness.issue("a").await;
    harness.issue("b").await;
    let text = "{% for i in identities %}\n{{ i.name }} {{ i.expires_at|unix }}\n{% endfor %}\n";
    let dispatcher = start(
        &harness,
        FileSinkSettings {
            format: FileFormat::Template,
            template: Some(Template {
                text: text.to_owned(),
                file: None,
            }),
            ..settings(&harness)
        },
    );
    harness.after(S * 3).await;
    let line = |name| format!("{name} 1795435200\n");
    assert_eq!(
        fs::read_to_string(path(&harness)).unwrap(),
        line("a") + &line("b")
    );
    hold(&harness, "a").await;
    harness.after(S * 3).await;
    assert_eq!(fs::read_to_string(path(&harness)).unwrap(), line("b"));
    dispatcher.stop().await;
}

/// Identities of the harness name no readers, so nobody may read each of them.
#[tokio::test(start_paused = true)]
async fn only_those_named_for_the_bundle_or_for_all_of_it_may_read() {
    let harness = Harness::new(&["a"], &["files"]).await;
    harness.issue("a").await;
    for (readers, mode) in [
        (None, 0o600),
        (Some(vec![Reader::User("65534".into())]), 0o640),
    ] {
        let dispatcher = start(
            &harness,
            FileSinkSettings {
                readers,
                ..settings(&harness)
            },
        );
        harness.after(S * 3).await;
        let found = fs::metadata(path(&harness)).unwrap().permissions().mode();
        assert_eq!(found & 0o7777, mode);
        dispatcher.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_bundle_that_cannot_be_written_is_written_when_it_can() {
    let harness = Harness::new(&["a"], &["files"]).await;
    fs::create_dir_all(path(&harness).join("in/the/way")).unwrap();
    let dispatcher = start(&harness, settings(&harness));
    harness.issue("a").await;
    harness.after(S * 5).await;
    let row = harness.delivery("a").await;
    assert!(row.is_pending() && row.last_error.unwrap().contains("cannot replace"));
    fs::remove_dir_all(path(&harness)).unwrap();
    harness.after(S * 60).await;
    assert_eq!(names(&read(&harness)), ["a"]);
    assert!(!harness.delivery("a").await.is_pending());
    // What somebody does to it is mended without any change of a token.
    fs::write(path(&harness), "{}").unwrap();
    harness.after(S * 310).await;
    assert_eq!(names(&read(&harness)), ["a"]);
    dispatcher.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_bundle_that_waits_for_its_next_write_is_not_looked_at_meanwhile() {
    let harness = Harness::new(&["a", "b", "c"], &["files"]).await;
    fs::create_dir_all(path(&harness).join("in/the/way")).unwrap();
    let dispatcher = start(&harness, settings(&harness));
    harness.after(S * 300).await;
    for name in ["a", "b", "c"] {
        harness.issue(name).await;
    }
    let rounds = dispatcher.rounds(S * 600).await;
    assert!(rounds < 120, "{rounds} in ten minutes");
    dispatcher.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_revoked_member_is_never_put_back() {
    let harness = Harness::new(&["a", "b"], &["files"]).await;
    harness.issue("a").await;
    harness.issue("b").await;
    let dispatcher = start(&harness, settings(&harness));
    harness.after(S * 3).await;
    assert_eq!(names(&read(&harness)), ["a", "b"]);
    let at = harness.clock.now();
    let then = Then::Reissue;
    step(&harness, "b", Step::Revoked { at, then }).await;
    // Whatever else makes it be written, a lost file and a restart too.
    harness.issue("a").await;
    harness.after(S * 3).await;
    assert_eq!(
        names(&read(&harness)),
        ["a"],
        "what is dead is not put back"
    );
    dispatcher.stop().await;
    fs::remove_file(path(&harness)).unwrap();
    let dispatcher = start(&harness, settings(&harness));
    harness.after(S * 3).await;
    assert_eq!(names(&read(&harness)), ["a"]);
    harness.issue("b").await;
    harness.after(S * 3).await;
    assert_eq!(names(&read(&harness)), ["a", "b"], "its successor is");
    assert!(!harness.delivery("b").await.is_pending());
    dispatcher.stop().await;
}
