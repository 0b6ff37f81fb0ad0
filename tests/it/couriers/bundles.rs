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
    house::{House, Running},
};

fn path(house: &House) -> PathBuf {
    house.dir.path().join("tokens/all.json")
}

fn settings(house: &House) -> FileSinkSettings {
    FileSinkSettings {
        bundle: true,
        ..FileSinkSettings::new("files".parse().unwrap(), path(house).display().to_string())
    }
}

fn start(house: &House, settings: FileSinkSettings) -> Running {
    house.start(&SinkSettings::File(settings))
}

fn read(house: &House) -> Value {
    serde_json::from_slice(&fs::read(path(house)).unwrap()).unwrap()
}

fn names(bundle: &Value) -> Vec<&str> {
    let identities = bundle["identities"].as_object().unwrap();
    identities.keys().map(String::as_str).collect()
}

async fn hold(house: &House, name: &str) {
    step(house, name, Step::Withhold).await;
}

async fn step(house: &House, name: &str, step: Step) {
    let num = house.num(name);
    let on = StepOn {
        num,
        step,
        request_id: None,
    };
    let now = house.clock.now();
    house
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
    let house = House::new(&names, &["files"]).await;
    let courier = start(&house, settings(&house));
    house.after(S).await;
    assert!(!path(&house).exists(), "nobody has a token yet");
    let before = courier.view.borrow().delivered;
    for name in &names {
        house.issue(name).await;
    }
    house.after(S * 2).await;
    assert_eq!(courier.view.borrow().delivered, before + 1, "one write");
    assert_eq!(super::bundles::names(&read(&house)), names);
    for name in &names {
        assert!(!house.delivery(name).await.is_pending());
    }
    // A single renewal is one write more, and changes that one alone.
    let was = read(&house);
    house.issue("bot00007").await;
    house.after(S * 3).await;
    assert_eq!(courier.view.borrow().delivered, before + 2);
    let is = read(&house);
    let changed: Vec<_> = names
        .iter()
        .filter(|name| was["identities"][**name] != is["identities"][**name])
        .collect();
    assert_eq!(changed, [&"bot00007"]);
    courier.stop().await;
}

#[tokio::test(start_paused = true)]
async fn who_is_held_shows_it_and_who_leaves_is_gone() {
    let house = House::new(&["a", "b", "c"], &["files"]).await;
    for name in ["a", "b", "c"] {
        house.issue(name).await;
    }
    let courier = start(&house, settings(&house));
    house.after(S * 3).await;
    hold(&house, "b").await;
    house.after(S * 3).await;
    let bundle = read(&house);
    assert_eq!(names(&bundle), ["a", "b", "c"]);
    assert_eq!(bundle["identities"]["b"]["state"], "held");
    assert_eq!(bundle["identities"]["b"]["token"], Value::Null);
    house
        .declare(
            &[("a", &["files"]), ("b", &[]), ("c", &["files"])],
            &["files"],
        )
        .await;
    house.after(S * 3).await;
    assert_eq!(names(&read(&house)), ["a", "c"], "b uses the sink no more");
    house
        .declare(&[("a", &[]), ("b", &[]), ("c", &[])], &["files"])
        .await;
    house.after(S * 3).await;
    assert!(!path(&house).exists(), "nobody is left");
    courier.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_template_goes_through_all_that_have_a_token() {
    let house = House::new(&["a", "b"], &["files"]).await;
    house.issue("a").await;
    house.issue("b").await;
    let text = "{% for i in identities %}\n{{ i.name }} {{ i.expires_at|unix }}\n{% endfor %}\n";
    let courier = start(
        &house,
        FileSinkSettings {
            format: FileFormat::Template,
            template: Some(Template {
                text: text.to_owned(),
                file: None,
            }),
            ..settings(&house)
        },
    );
    house.after(S * 3).await;
    let line = |name| format!("{name} 1795435200\n");
    assert_eq!(
        fs::read_to_string(path(&house)).unwrap(),
        line("a") + &line("b")
    );
    hold(&house, "a").await;
    house.after(S * 3).await;
    assert_eq!(fs::read_to_string(path(&house)).unwrap(), line("b"));
    courier.stop().await;
}

/// Identities of the house name no readers, so nobody may read each of them.
#[tokio::test(start_paused = true)]
async fn only_those_named_for_the_bundle_or_for_all_of_it_may_read() {
    let house = House::new(&["a"], &["files"]).await;
    house.issue("a").await;
    for (readers, mode) in [
        (None, 0o600),
        (Some(vec![Reader::User("65534".into())]), 0o640),
    ] {
        let courier = start(
            &house,
            FileSinkSettings {
                readers,
                ..settings(&house)
            },
        );
        house.after(S * 3).await;
        let found = fs::metadata(path(&house)).unwrap().permissions().mode();
        assert_eq!(found & 0o7777, mode);
        courier.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_bundle_that_cannot_be_written_is_written_when_it_can() {
    let house = House::new(&["a"], &["files"]).await;
    fs::create_dir_all(path(&house).join("in/the/way")).unwrap();
    let courier = start(&house, settings(&house));
    house.issue("a").await;
    house.after(S * 5).await;
    let row = house.delivery("a").await;
    assert!(row.is_pending() && row.last_error.unwrap().contains("cannot replace"));
    fs::remove_dir_all(path(&house)).unwrap();
    house.after(S * 60).await;
    assert_eq!(names(&read(&house)), ["a"]);
    assert!(!house.delivery("a").await.is_pending());
    // What somebody does to it is mended without any change of a token.
    fs::write(path(&house), "{}").unwrap();
    house.after(S * 310).await;
    assert_eq!(names(&read(&house)), ["a"]);
    courier.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_revoked_member_is_never_put_back() {
    let house = House::new(&["a", "b"], &["files"]).await;
    house.issue("a").await;
    house.issue("b").await;
    let courier = start(&house, settings(&house));
    house.after(S * 3).await;
    assert_eq!(names(&read(&house)), ["a", "b"]);
    let at = house.clock.now();
    let then = Then::Reissue;
    step(&house, "b", Step::Revoked { at, then }).await;
    // Whatever else makes it be written, a lost file and a restart too.
    house.issue("a").await;
    house.after(S * 3).await;
    assert_eq!(names(&read(&house)), ["a"], "what is dead is not put back");
    courier.stop().await;
    fs::remove_file(path(&house)).unwrap();
    let courier = start(&house, settings(&house));
    house.after(S * 3).await;
    assert_eq!(names(&read(&house)), ["a"]);
    house.issue("b").await;
    house.after(S * 3).await;
    assert_eq!(names(&read(&house)), ["a", "b"], "its successor is");
    assert!(!house.delivery("b").await.is_pending());
    courier.stop().await;
}
