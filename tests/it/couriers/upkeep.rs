//! Files after they were written: looked at again from time to time, and taken back when nobody speaks
//! of them any more.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

use renewd::{
    config::{FileSinkSettings, SinkSettings},
    engine::Withdrawer,
    sinks::FileSink,
};
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::{S, house::House};

/// The loop that takes files back, for these sinks.
fn withdrawer(house: &House, sinks: &[&FileSinkSettings]) -> (CancellationToken, JoinHandle<()>) {
    let sinks = sinks.iter().map(|settings| {
        (
            settings.name.clone(),
            FileSink::new(settings, true).unwrap(),
        )
    });
    let (_, sinks) = watch::channel(sinks.collect());
    let withdrawer = Withdrawer {
        store: house.store.clone(),
        clock: house.clock.clone(),
        sinks,
    };
    let stop = CancellationToken::new();
    let told = stop.clone();
    let task = tokio::spawn(async move { withdrawer.run(told).await.unwrap() });
    (stop, task)
}

fn settings(house: &House, name: &str, below: &str) -> FileSinkSettings {
    let path = format!("{}/{below}", house.dir.path().display());
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
    let house = House::new(&names, &["files"]).await;
    for name in names {
        house.issue(name).await;
    }
    let courier = house.start(&SinkSettings::File(house.file_settings("files")));
    house.after(S * 3).await;
    let of = |name: &str| house.dir.path().join("tokens").join(name);
    let tokens = names.map(|name| fs::read(of(name)).unwrap());
    let inode = fs::metadata(of("right")).unwrap().ino();
    fs::remove_file(of("gone")).unwrap();
    fs::set_permissions(of("mode"), fs::Permissions::from_mode(0o666)).unwrap();
    fs::write(of("content"), "x").unwrap();
    let delivered = courier.view.borrow().delivered;
    house.after(S * 310).await;
    for (name, token) in names.iter().zip(&tokens) {
        assert_eq!(fs::read(of(name)).unwrap(), *token, "{name}");
        let mode = fs::metadata(of(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600, "{name}");
    }
    assert_eq!(fs::metadata(of("right")).unwrap().ino(), inode, "untouched");
    assert_eq!(
        courier.view.borrow().delivered,
        delivered,
        "nothing new was delivered"
    );
    courier.stop().await;
}

#[tokio::test(start_paused = true)]
async fn drift_that_cannot_be_mended_is_tried_like_a_delivery() {
    let house = House::new(&["a"], &["files"]).await;
    house.issue("a").await;
    let courier = house.start(&SinkSettings::File(house.file_settings("files")));
    house.after(S * 3).await;
    let path = house.dir.path().join("tokens/a");
    let token = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    fs::create_dir_all(path.join("in/the/way")).unwrap();
    house.after(S * 310).await;
    assert!(house.delivery("a").await.is_pending());
    fs::remove_dir_all(&path).unwrap();
    house.after(S * 60).await;
    assert_eq!(fs::read(&path).unwrap(), token);
    assert!(!house.delivery("a").await.is_pending());
    courier.stop().await;
}

#[tokio::test(start_paused = true)]
async fn who_leaves_a_sink_leaves_no_file_behind() {
    let house = House::new(&["a", "b", "changed"], &["files"]).await;
    for name in ["a", "b", "changed"] {
        house.issue(name).await;
    }
    let files = settings(&house, "files", "tokens/{name}");
    let courier = house.start(&SinkSettings::File(files.clone()));
    house.after(S * 3).await;
    let folder = house.dir.path().join("tokens");
    fs::write(folder.join("changed"), "an operator's own").unwrap();
    // Nobody runs while it happens: it is noted, and done after the next start.
    courier.stop().await;
    house
        .declare(
            &[("a", &["files"]), ("b", &[]), ("changed", &[])],
            &["files"],
        )
        .await;
    assert_eq!(listed(&folder), ["a", "b", "changed"]);
    let (stop, task) = withdrawer(&house, &[&files]);
    house.after(S).await;
    assert_eq!(listed(&folder), ["a", "changed"], "not ours any more");
    // And at once while it runs.
    house
        .declare(&[("a", &[]), ("b", &[]), ("changed", &[])], &["files"])
        .await;
    house.after(S).await;
    assert_eq!(listed(&folder), ["changed"]);
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn another_path_takes_the_old_file_along() {
    let house = House::new(&["a"], &["files"]).await;
    house.issue("a").await;
    for below in ["old/{name}.json", "new/{name}.json"] {
        let files = settings(&house, "files", below);
        let (stop, task) = withdrawer(&house, &[&files]);
        let courier = house.start(&SinkSettings::File(files));
        house.after(S * 3).await;
        courier.stop().await;
        stop.cancel();
        task.await.unwrap();
    }
    assert_eq!(listed(&house.dir.path().join("old")), Vec::<String>::new());
    assert_eq!(listed(&house.dir.path().join("new")), ["a.json"]);
}

/// The file of a sink that is called otherwise now is not removed under its readers, not even before
/// the new sink has looked at it.
#[tokio::test(start_paused = true)]
async fn a_sink_that_is_renamed_keeps_its_files() {
    let house = House::new(&["a"], &["old"]).await;
    house.issue("a").await;
    let courier = house.start(&SinkSettings::File(settings(
        &house,
        "old",
        "tokens/{name}",
    )));
    house.after(S * 3).await;
    courier.stop().await;
    let path = house.dir.path().join("tokens/a");
    let inode = fs::metadata(&path).unwrap().ino();
    let renamed = settings(&house, "new", "tokens/{name}");
    house.declare(&[("a", &["new"])], &["new"]).await;
    let (stop, task) = withdrawer(&house, &[&renamed]);
    house.after(S * 5).await;
    assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
    let courier = house.start(&SinkSettings::File(renamed));
    house.after(S * 5).await;
    assert_eq!(fs::metadata(&path).unwrap().ino(), inode, "untouched");
    courier.stop().await;
    // And when that goes too, the file goes.
    house.declare(&[("a", &[])], &[]).await;
    house.after(S).await;
    assert!(!path.exists());
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_bundle_replaces_single_files_and_they_it() {
    let house = House::new(&["a", "b"], &["files"]).await;
    house.issue("a").await;
    house.issue("b").await;
    let single = settings(&house, "files", "tokens/{name}");
    let bundle = FileSinkSettings {
        bundle: true,
        ..settings(&house, "files", "tokens/all")
    };
    for (now, expected) in [
        (&single, vec!["a", "b"]),
        (&bundle, vec!["all"]),
        (&single, vec!["a", "b"]),
    ] {
        let (stop, task) = withdrawer(&house, &[now]);
        let courier = house.start(&SinkSettings::File(now.clone()));
        house.after(S * 70).await;
        assert_eq!(listed(&house.dir.path().join("tokens")), expected);
        courier.stop().await;
        stop.cancel();
        task.await.unwrap();
    }
}
