//! Files after they were written: looked at again from time to time, and taken back when nobody speaks
//! of them any more.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

use renewd::{
    config::{FileSinkSettings, SinkSettings},
    engine::StrayFiles,
    sinks::FileSink,
};
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::{S, harness::Harness};

/// The loop that takes files back, for these sinks.
fn stray_files(
    harness: &Harness,
    sinks: &[&FileSinkSettings],
) -> (CancellationToken, JoinHandle<()>) {
    let sinks = sinks.iter().map(|settings| {
        (
            settings.name.clone().into(),
            FileSink::new(settings, true).unwrap(),
        )
    });
    let (_, sinks) = watch::channel(sinks.collect());
    let stray_files = StrayFiles::new(harness.store.clone(), harness.clock.clone(), sinks);
    let stop = CancellationToken::new();
    let told = stop.clone();
    let task = tokio::spawn(async move { stray_files.run(told).await });
    (stop, task)
}

fn settings(harness: &Harness, name: &str, below: &str) -> FileSinkSettings {
    let path = format!("{}/{below}", harness.dir.path().display());
    FileSinkSettings::new(name.parse().unwrap(), path)
}

fn listed(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test(start_paused = true)]
async fn drift_is_mended_without_a_new_token() {
    let names = ["gone", "mode", "content", "right"];
    let harness = Harness::new(&["a-first", "gone", "mode", "content", "right"], &["files"]).await;
    for name in ["a-first", "gone", "mode", "content", "right"] {
        harness.issue(name).await;
    }
    let dispatcher = harness.start(&SinkSettings::File(harness.file_settings("files")));
    harness.after(S * 3).await;
    let of = |name: &str| harness.dir.path().join("tokens").join(name);
    let tokens = names.map(|name| fs::read(of(name)).unwrap());
    let inode = fs::metadata(of("right")).unwrap().ino();
    fs::remove_file(of("gone")).unwrap();
    fs::set_permissions(of("mode"), fs::Permissions::from_mode(0o666)).unwrap();
    fs::write(of("content"), "x").unwrap();
    let delivered = dispatcher.view.borrow().delivered;
    // One whose token does not open keeps nobody else from being looked at.
    let store = rusqlite::Connection::open(harness.dir.path().join("renewd.db")).unwrap();
    let first = harness.num("a-first");
    let garbage = "UPDATE identity SET token = x'00' WHERE num = ?1";
    store.execute(garbage, [first]).unwrap();
    harness.after(S * 310).await;
    for (name, token) in names.iter().zip(&tokens) {
        assert_eq!(fs::read(of(name)).unwrap(), *token, "{name}");
        let mode = fs::metadata(of(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600, "{name}");
    }
    assert_eq!(fs::metadata(of("right")).unwrap().ino(), inode, "untouched");
    assert_eq!(
        dispatcher.view.borrow().delivered,
        delivered,
        "nothing new was delivered"
    );
    dispatcher.stop().await;
}

#[tokio::test(start_paused = true)]
async fn drift_that_cannot_be_mended_is_tried_like_a_delivery() {
    let harness = Harness::new(&["a"], &["files"]).await;
    harness.issue("a").await;
    let dispatcher = harness.start(&SinkSettings::File(harness.file_settings("files")));
    harness.after(S * 3).await;
    let path = harness.dir.path().join("tokens/a");
    let token = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    fs::create_dir_all(path.join("in/the/way")).unwrap();
    harness.after(S * 310).await;
    assert!(harness.delivery("a").await.is_pending());
    fs::remove_dir_all(&path).unwrap();
    harness.after(S * 60).await;
    assert_eq!(fs::read(&path).unwrap(), token);
    assert!(!harness.delivery("a").await.is_pending());
    dispatcher.stop().await;
}

#[tokio::test(start_paused = true)]
async fn who_leaves_a_sink_leaves_no_file_behind() {
    let harness = Harness::new(&["a", "b", "changed"], &["files"]).await;
    for name in ["a", "b", "changed"] {
        harness.issue(name).await;
    }
    let files = settings(&harness, "files", "tokens/{name}");
    let dispatcher = harness.start(&SinkSettings::File(files.clone()));
    harness.after(S * 3).await;
    let folder = harness.dir.path().join("tokens");
    fs::write(folder.join("changed"), "an operator's own").unwrap();
    // Nobody runs while it happens: it is noted, and done after the next start.
    dispatcher.stop().await;
    harness
        .declare(
            &[("a", &["files"]), ("b", &[]), ("changed", &[])],
            &["files"],
        )
        .await;
    assert_eq!(listed(&folder), ["a", "b", "changed"]);
    let (stop, task) = stray_files(&harness, &[&files]);
    harness.after(S).await;
    assert_eq!(listed(&folder), ["a", "changed"], "not ours any more");
    // And at once while it runs.
    harness
        .declare(&[("a", &[]), ("b", &[]), ("changed", &[])], &["files"])
        .await;
    harness.after(S).await;
    assert_eq!(listed(&folder), ["changed"]);
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn another_path_takes_the_old_file_along() {
    let harness = Harness::new(&["a"], &["files"]).await;
    harness.issue("a").await;
    for below in ["old/{name}.json", "new/{name}.json"] {
        let files = settings(&harness, "files", below);
        let (stop, task) = stray_files(&harness, &[&files]);
        let dispatcher = harness.start(&SinkSettings::File(files));
        harness.after(S * 3).await;
        dispatcher.stop().await;
        stop.cancel();
        task.await.unwrap();
    }
    assert_eq!(
        listed(&harness.dir.path().join("old")),
        Vec::<String>::new()
    );
    assert_eq!(listed(&harness.dir.path().join("new")), ["a.json"]);
}

/// The file of a sink that is called otherwise now is not removed under its readers, not even before
/// the new sink has looked at it.
#[tokio::test(start_paused = true)]
async fn a_sink_that_is_renamed_keeps_its_files() {
    let harness = Harness::new(&["a"], &["old"]).await;
    harness.issue("a").await;
    let dispatcher = harness.start(&SinkSettings::File(settings(
        &harness,
        "old",
        "tokens/{name}",
    )));
    harness.after(S * 3).await;
    dispatcher.stop().await;
    let path = harness.dir.path().join("tokens/a");
    let inode = fs::metadata(&path).unwrap().ino();
    let renamed = settings(&harness, "new", "tokens/{name}");
    harness.declare(&[("a", &["new"])], &["new"]).await;
    let (stop, task) = stray_files(&harness, &[&renamed]);
    harness.after(S * 5).await;
    assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
    let dispatcher = harness.start(&SinkSettings::File(renamed));
    harness.after(S * 5).await;
    assert_eq!(fs::metadata(&path).unwrap().ino(), inode, "untouched");
    dispatcher.stop().await;
    // And when that goes too, the file goes.
    harness.declare(&[("a", &[])], &[]).await;
    harness.after(S).await;
    assert!(!path.exists());
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_bundle_replaces_single_files_and_they_it() {
    let harness = Harness::new(&["a", "b"], &["files"]).await;
    harness.issue("a").await;
    harness.issue("b").await;
    let single = settings(&harness, "files", "tokens/{name}");
    let bundle = FileSinkSettings {
        bundle: true,
        ..settings(&harness, "files", "tokens/all")
    };
    for (now, expected) in [
        (&single, vec!["a", "b"]),
        (&bundle, vec!["all"]),
        (&single, vec!["a", "b"]),
    ] {
        let (stop, task) = stray_files(&harness, &[now]);
        let dispatcher = harness.start(&SinkSettings::File(now.clone()));
        harness.after(S * 70).await;
        assert_eq!(listed(&harness.dir.path().join("tokens")), expected);
        dispatcher.stop().await;
        stop.cancel();
        task.await.unwrap();
    }
}
