//! Files beside the database: what is taken away is written anew, and what could not be taken over is told.

use super::*;
use wire::NeedKind;

/// Files beside the database that somebody takes away are written anew; while they cannot be, that is said.
#[tokio::test(start_paused = true)]
async fn what_is_taken_away_beside_the_store_is_written_anew() {
    let harness = Harness::calm().await;
    harness.step(ANNA, Step::Withhold).await;
    harness.deliver(ANNA).await;
    let (folder, now) = (harness._folder.path(), harness.clock.now());
    let files = ["identities.jsonl", "withdrawn.jsonl"].map(|file| folder.join(file));
    let read = |file: &std::path::PathBuf| std::fs::read_to_string(file).unwrap();
    assert!(
        !harness.store.mend_beside(now).await.unwrap(),
        "all is there"
    );
    files
        .iter()
        .for_each(|file| std::fs::remove_file(file).unwrap());
    assert!(harness.store.mend_beside(now).await.unwrap());
    assert!(read(&files[0]).contains("anna") && read(&files[1]).contains("anna"));

    std::fs::remove_file(&files[0]).unwrap();
    let place = folder.join("identities.jsonl.new");
    std::fs::create_dir(&place).unwrap();
    assert!(!harness.store.mend_beside(now).await.unwrap());
    harness.tells(NeedKind::MapUnwritable).await;
    std::fs::remove_dir(&place).unwrap();
    harness.store.mend_beside(now).await.unwrap();
    harness.is_silent_about(NeedKind::MapUnwritable).await;
    assert!(read(&files[0]).contains("anna"));
}

/// Whom only a map declared of which not all was taken over is not renewed, until somebody looks at it.
#[tokio::test(start_paused = true)]
async fn a_map_that_was_kept_aside_appears_and_goes() {
    let harness = Harness::calm().await;
    let aside = harness._folder.path().join("identities.jsonl.broken");
    std::fs::write(&aside, "no line").unwrap();
    harness.tells(NeedKind::NotTakenOver).await;
    let need = harness.status().await.needs.remove(0);
    let import = format!("renewd identity import {}", aside.display());
    assert_eq!(need.command, Some(import));
    std::fs::remove_file(&aside).unwrap();
    harness.is_silent_about(NeedKind::NotTakenOver).await;
}

/// What is withdrawn while the list of it is gone does not begin a list that knows of nothing before.
#[tokio::test(start_paused = true)]
async fn a_withdrawal_beside_a_list_that_is_gone_writes_all_of_it() {
    let harness = Harness::calm().await;
    harness.step(ANNA, Step::Withhold).await;
    let list = harness._folder.path().join("withdrawn.jsonl");
    std::fs::remove_file(&list).unwrap();
    harness.step(BERT, Step::Withhold).await;
    let text = std::fs::read_to_string(&list).unwrap();
    assert!(text.contains("anna") && text.contains("bert"), "{text}");
}
