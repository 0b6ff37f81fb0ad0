//! Files after a start: restored before anything else.

use super::*;

#[tokio::test(start_paused = true)]
async fn files_are_restored_before_anything_else() {
    let names = ["a", "b", "c", "expired", "new"];
    let harness = Harness::new(&names, &["files"]).await;
    let settings = harness.file_settings("files");
    let (name, folder) = (settings.name.clone(), harness.dir.path().join("tokens"));
    harness.issue_for("expired", S).await;
    harness.issue("a").await;
    harness.issue("b").await;
    let dispatcher = harness.start(&SinkSettings::File(settings.clone()));
    harness.after(S * 5).await;
    dispatcher.stop().await;
    let before = std::fs::read(folder.join("a")).unwrap();
    // While nobody runs, files vanish, a token is committed, and a crash leaves half a file.
    std::fs::remove_file(folder.join("a")).unwrap();
    std::fs::remove_file(folder.join("expired")).unwrap();
    std::fs::write(folder.join(".b.renewd-1-1"), "half").unwrap();
    harness.issue("c").await;
    let sink = FileSink::new(&settings, true).unwrap();
    let mut told = Vec::new();
    let done = restore(
        &harness.store,
        &name.into(),
        &sink,
        (&harness.clock, &harness.renewers.subscribe()),
        |so_far| told.push(*so_far),
    )
    .await
    .unwrap();
    assert_eq!(
        (done.seen, done.mended, done.failed, done.swept),
        (4, 2, 0, 1)
    );
    assert_eq!(told.last(), Some(&done));
    assert_eq!(std::fs::read(folder.join("a")).unwrap(), before);
    assert!(folder.join("c").exists() && !folder.join("expired").exists());
    assert!(
        !harness.delivery("c").await.is_pending(),
        "restoring delivers"
    );
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_restored_is_left_to_the_dispatcher() {
    let harness = Harness::new(&["a"], &["files"]).await;
    let settings = harness.file_settings("files");
    let path = harness.dir.path().join("tokens/a");
    let files = SinkSettings::File(settings.clone());
    harness.issue("a").await;
    let dispatcher = harness.start(&files);
    harness.after(S).await;
    dispatcher.stop().await;
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir_all(path.join("in/the/way")).unwrap();
    let sink = FileSink::new(&settings, true).unwrap();
    let done = restore(
        &harness.store,
        &files.at(None),
        &sink,
        (&harness.clock, &harness.renewers.subscribe()),
        |_| (),
    )
    .await
    .unwrap();
    assert_eq!((done.mended, done.failed), (0, 1));
    let dispatcher = harness.start(&files);
    harness.after(S * 2).await;
    std::fs::remove_dir_all(&path).unwrap();
    harness.after(S * 10).await;
    assert!(path.is_file());
    dispatcher.stop().await;
}

#[tokio::test]
async fn in_production_files_are_written_beside_the_loop() {
    let names: Vec<String> = (0..300).map(|n| format!("bot{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let harness = Harness::in_production(&names, &["files"]).await;
    let settings = harness.file_settings("files");
    let mut dispatcher = harness.start(&SinkSettings::File(settings));
    // What is issued while files are restored is restored with them, and not counted as delivered.
    dispatcher
        .view
        .wait_for(|view| view.restored)
        .await
        .unwrap();
    join_all(names.iter().map(|name| harness.issue(name))).await;
    dispatcher
        .view
        .wait_for(|view| view.delivered == 300)
        .await
        .unwrap();
    dispatcher.stop().await;
    for name in names {
        assert!(harness.dir.path().join("tokens").join(name).is_file());
        assert!(!harness.delivery(name).await.is_pending());
    }
}
