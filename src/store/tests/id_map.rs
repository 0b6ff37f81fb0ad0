//! `identities.jsonl`: kept current, and what it is for.

use std::{fs, path::PathBuf};

use super::*;

fn map(home: &Home) -> PathBuf {
    home.dir.path().join("identities.jsonl")
}

/// The names in the file, sorted.
fn names(home: &Home) -> Vec<String> {
    let text = fs::read_to_string(map(home)).unwrap_or_default();
    let mut names: Vec<String> = text
        .lines()
        .map(|line| {
            serde_json::from_str::<IdLine>(line)
                .unwrap()
                .name
                .to_string()
        })
        .collect();
    names.sort();
    names
}

fn lose_database(home: &mut Home) {
    home.store = None;
    for file in ["renewd.db", "renewd.db-wal", "renewd.db-shm"] {
        fs::remove_file(home.dir.path().join(file)).ok();
    }
    home.reopen();
}

#[tokio::test]
async fn it_follows_creation_declaration_and_deletion() {
    let home = Home::new();
    declare(&home, &[spec("made"), with_id("given", "8:acs:given")], 0).await;
    assert_eq!(names(&home), ["given"]);
    let num = get(&home, "made").await.num;
    commit(&home, issued(num, 1, Some("8:acs:made")), 2).await;
    assert_eq!(names(&home), ["given", "made"]);
    let line: IdLine = serde_json::from_str(
        fs::read_to_string(map(&home))
            .unwrap()
            .lines()
            .last()
            .unwrap(),
    )
    .unwrap();
    assert_eq!(
        (line.id.as_str(), line.resource, line.created_at),
        ("8:acs:made", resource(), at(0))
    );
    step(&home, num, Step::Deleted { at: at(3) }, 3).await;
    assert_eq!(names(&home), ["given"]);
    assert_eq!(home.known_id(&name("made")).await.unwrap(), None);
}

#[tokio::test]
async fn a_lost_database_waits_for_an_import_over_restarts() {
    let (mut home, _) = active().await;
    lose_database(&mut home);
    assert!(home.opened.fresh && home.opened.id_map == 1);
    declare(&home, &[spec("bot"), spec("other")], 100).await;
    assert_eq!(
        get(&home, "bot").await.id,
        None,
        "nothing is taken from the map by itself"
    );
    home.reopen();
    assert!(home.opened.fresh && home.opened.id_map == 1);
    assert!(home.awaits_import().await.unwrap());
    assert_eq!(home.remembered(None, 10).await.unwrap().len(), 1);

    let lines: Vec<ImportLine> = fs::read_to_string(map(&home))
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let told = home.import(lines.clone(), at(101)).await.unwrap();
    assert_eq!((told.adopted, told.refused.len()), (1, 0));
    assert_eq!(
        get(&home, "bot").await.id,
        Some("8:acs:bot".parse().unwrap())
    );
    assert_eq!(get(&home, "other").await.id, None);
    assert_eq!(home.import(lines, at(102)).await.unwrap().unchanged, 1);
    home.reopen();
    assert!(!home.opened.fresh);
    assert_eq!(names(&home), ["bot"]);
}

#[tokio::test]
async fn an_older_database_gets_back_the_ids_that_were_given_since() {
    let mut home = Home::new();
    declare(&home, &[spec("bot")], 0).await;
    let num = get(&home, "bot").await.num;
    home.store = None;
    let backup = fs::read(home.dir.path().join("renewd.db")).unwrap();
    home.reopen();
    commit(&home, issued(num, 1, Some("8:acs:bot")), 2).await;
    home.store = None;
    fs::write(home.dir.path().join("renewd.db"), backup).unwrap();
    home.reopen();
    assert_eq!(
        get(&home, "bot").await.id,
        Some("8:acs:bot".parse().unwrap())
    );
    assert!(!home.opened.fresh);
}

#[tokio::test]
async fn a_torn_or_missing_file_is_written_anew_and_the_torn_one_kept() {
    let (mut home, _) = active().await;
    let whole = fs::read_to_string(map(&home)).unwrap();
    fs::remove_file(map(&home)).unwrap();
    home.reopen();
    assert_eq!(names(&home), ["bot"]);
    fs::write(map(&home), format!("{whole}{{\"name\":\"to")).unwrap();
    home.reopen();
    assert_eq!(home.opened.broken_id_lines, 1);
    assert_eq!(names(&home), ["bot"]);
    assert!(map(&home).with_extension("jsonl.broken").exists());
}

#[tokio::test]
async fn an_import_refuses_what_contradicts_the_store() {
    let (home, _) = active().await;
    let line = |name: &str, id: &str| ImportLine {
        name: name.parse().unwrap(),
        resource: resource(),
        id: id.parse().unwrap(),
        created_at: None,
    };
    let lines = vec![
        line("bot", "8:acs:other"),
        line("twin", "8:acs:bot"),
        line("later", "8:acs:later"),
    ];
    let told = home.import(lines, at(50)).await.unwrap();
    assert_eq!((told.refused.len(), told.remembered), (2, 1));
    declare(&home, &[with_id("bot", "8:acs:bot"), spec("later")], 60).await;
    assert_eq!(
        get(&home, "later").await.id,
        Some("8:acs:later".parse().unwrap())
    );
    assert_eq!(names(&home), ["bot", "later"]);
}

#[tokio::test]
async fn a_creation_under_way_at_a_crash_is_listed_as_an_orphan() {
    let mut home = Home::new();
    declare(&home, &[spec("a"), spec("b"), spec("c")], 0).await;
    let mut nums = Vec::new();
    for n in ["a", "b", "c"] {
        nums.push(get(&home, n).await.num);
    }
    home.intend_creations(nums.clone(), at(5)).await.unwrap();
    commit(&home, issued(nums[0], 5, Some("8:acs:a")), 6).await;
    home.creation_failed(nums[1], false, None).await.unwrap();
    home.reopen();
    assert_eq!(home.opened.orphans, 1);
    let orphans = home.orphans(0, 10).await.unwrap();
    assert_eq!(orphans.len(), 1);
    assert_eq!(
        (orphans[0].name.as_str(), orphans[0].kind.as_str()),
        ("c", "creation")
    );
    assert_eq!(
        (orphans[0].at, orphans[0].resource.clone()),
        (at(0), resource()),
        "not later than the start"
    );

    home.intend_creations(vec![nums[1]], at(7)).await.unwrap();
    home.creation_failed(nums[1], true, Some("req".to_owned()))
        .await
        .unwrap();
    assert_eq!(home.counts().await.unwrap().orphans, 2);
    home.dismiss_orphans(vec![orphans[0].num]).await.unwrap();
    assert_eq!(home.counts().await.unwrap().orphans, 1);
    home.reopen();
    assert_eq!(home.opened.orphans, 0, "each is listed once");
}
