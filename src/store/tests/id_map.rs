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
    lose_served(home.dir.path());
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
        (line.id.unwrap().as_str(), line.resource, line.created_at),
        ("8:acs:made", resource(), at(0))
    );
    step(&home, num, Step::Deleted { at: at(3) }, 3).await;
    assert_eq!(names(&home), ["given"]);
    assert_eq!(home.known_id(&name("made")).await.unwrap(), None);
}

/// Who waits for a word, and whether it is known of anybody.
async fn waiting(home: &Home) -> Vec<String> {
    let waiting = home.creations_waiting().await.unwrap();
    let names = waiting.iter().flat_map(|of| &of.names);
    let names: Vec<String> = names.map(ToString::to_string).collect();
    let count: u64 = waiting.iter().map(|of| of.count).sum();
    assert_eq!(count, names.len() as u64);
    names
}

fn lines(home: &Home) -> Vec<ImportLine> {
    let text = fs::read_to_string(map(home)).unwrap();
    text.lines()
        .map(|line| {
            let line: IdLine = serde_json::from_str(line).unwrap();
            ImportLine {
                name: line.name,
                resource: line.resource,
                id: line.id.unwrap(),
                created_at: Some(line.created_at),
            }
        })
        .collect()
}

#[tokio::test]
async fn a_lost_database_takes_the_map_over_and_names_beyond_it_wait_for_a_word() {
    let (mut home, _) = active().await;
    lose_database(&mut home);
    let taken = home.opened.taken_over.unwrap();
    assert_eq!((taken.lost, taken.ids, taken.declared), (true, 1, 0));
    assert_eq!(home.opened.id_map, 1);
    declare(&home, &[spec("bot"), spec("other"), spec("third")], 100).await;
    let bot = get(&home, "bot").await;
    assert_eq!(bot.id, Some("8:acs:bot".parse().unwrap()));
    assert!(bot.due.is_some(), "its token is obtained at once");
    for _ in 0..2 {
        assert_eq!(waiting(&home).await, ["other", "third"]);
        assert_eq!(get(&home, "other").await.due, None);
        home.reopen();
        assert_eq!(home.opened.taken_over, None);
        declare(&home, &[spec("bot"), spec("other"), spec("third")], 101).await;
    }
    let other = get(&home, "other").await.num;
    step(&home, other, Step::Due(DueReason::Requested), 102).await;
    step(&home, other, Step::Withhold, 103).await;
    assert_eq!(waiting(&home).await, ["third"]);
    step(&home, other, Step::Release, 104).await;
    assert_eq!(
        waiting(&home).await,
        ["other", "third"],
        "no order but that one creates"
    );

    let told = home.import(lines(&home), at(105)).await.unwrap();
    assert_eq!((told.unchanged, told.refused.len()), (1, 0));
    let cause = Cause::ours("it is new");
    let word = [name("other"), name("bot"), name("nobody")].to_vec();
    let (allowed, refused) = home
        .create_by_word(Some(word), &cause, at(106))
        .await
        .unwrap();
    assert_eq!((allowed, refused.len()), (1, 2), "{refused:?}");
    assert!(get(&home, "other").await.due.is_some());
    assert_eq!(waiting(&home).await, ["third"]);
    let (allowed, _) = home.create_by_word(None, &cause, at(107)).await.unwrap();
    assert_eq!((allowed, waiting(&home).await.len()), (1, 0));
    declare(
        &home,
        &[spec("bot"), spec("other"), spec("third"), spec("later")],
        108,
    )
    .await;
    assert!(get(&home, "later").await.due.is_some(), "the loss is over");
}

#[tokio::test]
async fn half_a_map_creates_nobody_and_an_import_of_the_rest_ends_the_wait() {
    let mut home = Home::new();
    let both = [with_id("a", "8:acs:a"), with_id("b", "8:acs:b")];
    declare(&home, &both, 0).await;
    let whole = lines(&home);
    home.store = None;
    let text = fs::read_to_string(map(&home)).unwrap();
    let half: Vec<&str> = text.lines().filter(|line| line.contains("acs:a")).collect();
    fs::write(map(&home), half.join("\n") + "\n").unwrap();
    lose_database(&mut home);
    declare(&home, &[spec("a"), spec("b")], 100).await;
    assert_eq!(waiting(&home).await, ["b"]);
    let told = home.import(whole, at(101)).await.unwrap();
    assert_eq!((told.adopted, told.unchanged), (1, 1));
    assert_eq!(waiting(&home).await, Vec::<String>::new());
    let b = get(&home, "b").await;
    assert_eq!(b.id, Some("8:acs:b".parse().unwrap()));
    assert!(b.due.is_some());
    declare(&home, &[spec("a"), spec("b"), spec("c")], 102).await;
    assert!(get(&home, "c").await.due.is_some(), "the loss is over");
}

#[tokio::test]
async fn without_a_map_what_was_withdrawn_tells_that_the_database_was_lost() {
    let (mut home, num) = active().await;
    step(&home, num, revoked(20, Then::Hold), 20).await;
    home.store = None;
    fs::remove_file(map(&home)).unwrap();
    lose_database(&mut home);
    declare(&home, &[spec("bot"), spec("other")], 100).await;
    assert_eq!(get(&home, "bot").await.state, State::Held);
    assert_eq!(waiting(&home).await, ["other"]);
}

#[tokio::test]
async fn names_of_a_source_wait_until_its_first_list_after_the_loss_is_compared() {
    let mut home = Home::new();
    let source: crate::model::SourceName = "app".parse().unwrap();
    let listed = |text: &str, id: Option<&str>| {
        let spec = Spec {
            origin: Origin::Source("app".parse().unwrap()),
            declared: Declaration {
                id: id.map(|id| id.parse().unwrap()),
                ..spec(text).declared
            },
            ..spec(text)
        };
        (spec, [0; 16])
    };
    let take = async |home: &Home, rows: Vec<(Spec, Digest)>| {
        let change = SourceChange {
            specs: rows,
            gone: Vec::new(),
        };
        home.take_source(&source, change, at(50)).await.unwrap();
    };
    take(&home, vec![listed("a", Some("8:acs:a"))]).await;
    lose_database(&mut home);
    declare(&home, &[], 60).await;
    take(&home, vec![listed("a", None), listed("b", None)]).await;
    assert_eq!(waiting(&home).await, ["b"]);
    assert!(get(&home, "a").await.id.is_some());
    let end = SourceEnd::Taken {
        file: None,
        refused: 0,
    };
    let notice = crate::model::Notice {
        at: at(51),
        kind: crate::model::NoticeKind::SourceRecovered,
        resource: None,
        name: None,
        key: None,
        message: String::new(),
    };
    home.end_look(&source, end, notice, at(51)).await.unwrap();
    take(&home, vec![listed("c", None)]).await;
    assert_eq!(waiting(&home).await, ["b"], "who joins later is new");
}

/// An identity that the store alone keeps.
fn kept(text: &str) -> Spec {
    Spec {
        origin: Origin::Cli,
        declared: Declaration {
            lifetime: Duration::from_hours(6),
            renew_at: 0.4,
            spread: 0.01,
            labels: [("team".to_owned(), "night".to_owned())].into(),
            readers: vec!["group:bots".to_owned().into()],
            on_removal: OnRemoval::Revoke,
            ..spec(text).declared
        },
        ..spec(text)
    }
}

#[tokio::test]
async fn what_the_store_alone_declares_comes_back_whole() {
    let mut home = Home::new();
    declare(&home, &[spec("file")], 0).await;
    let added = vec![kept("made"), kept("never"), kept("let-go"), kept("deleted")];
    home.declare(added, at(1)).await.unwrap();
    for text in ["made", "let-go", "deleted"] {
        let num = get(&home, text).await.num;
        commit(&home, issued(num, 2, Some(&format!("8:acs:{text}"))), 3).await;
    }
    let changed = Spec {
        declared: Declaration {
            scopes: vec![Scope::Chat, Scope::Voip],
            ..kept("made").declared
        },
        ..kept("made")
    };
    home.declare(vec![changed.clone()], at(4)).await.unwrap();
    home.remove(vec![name("let-go")], Some(OnRemoval::Hold), at(5))
        .await
        .unwrap();
    let num = get(&home, "deleted").await.num;
    step(&home, num, Step::Deleted { at: at(6) }, 6).await;
    let text = fs::read_to_string(map(&home)).unwrap();
    assert!(!text.contains("canary"), "no secret in it");

    lose_database(&mut home);
    let taken = home.opened.taken_over.unwrap();
    assert_eq!(
        (taken.ids, taken.declared, taken.refused),
        (2, 2, 0),
        "{taken}"
    );
    let made = get(&home, "made").await;
    assert_eq!(
        (made.id, made.spec),
        (Some("8:acs:made".parse().unwrap()), changed)
    );
    assert!(made.due.is_some());
    let never = get(&home, "never").await;
    assert_eq!(
        (never.id, never.spec, never.due),
        (None, kept("never"), None)
    );
    assert_eq!(waiting(&home).await, ["never"]);
    assert!(home.record(&name("let-go")).await.unwrap().is_none());
    assert!(home.known_id(&name("let-go")).await.unwrap().is_some());
    assert!(home.record(&name("deleted")).await.unwrap().is_none());
    // A second loss, before anything was renewed.
    declare(&home, &[spec("file")], 100).await;
    lose_database(&mut home);
    assert_eq!(home.opened.taken_over.unwrap().declared, 2);
}

#[tokio::test]
async fn a_database_that_was_set_back_gets_back_what_was_added_since() {
    let mut home = Home::new();
    declare(&home, &[with_id("bot", "8:acs:bot")], 0).await;
    home.store = None;
    let backup = fs::read(home.dir.path().join("renewd.db")).unwrap();
    home.reopen();
    home.declare(vec![kept("added")], at(1)).await.unwrap();
    let num = get(&home, "added").await.num;
    commit(&home, issued(num, 2, Some("8:acs:added")), 3).await;
    home.store = None;
    fs::write(home.dir.path().join("renewd.db"), backup).unwrap();
    home.reopen();
    let taken = home.opened.taken_over.unwrap();
    assert_eq!((taken.lost, taken.declared), (false, 1));
    let added = get(&home, "added").await;
    assert_eq!(
        (added.id, added.spec),
        (Some("8:acs:added".parse().unwrap()), kept("added"))
    );
    assert!(added.due.is_some());
    declare(&home, &[with_id("bot", "8:acs:bot"), spec("new")], 4).await;
    assert!(get(&home, "new").await.due.is_some(), "nothing was lost");
}

#[tokio::test]
async fn a_name_that_was_dropped_does_not_come_back_after_a_kill() {
    let mut home = Home::new();
    home.declare(vec![kept("a"), kept("b")], at(0))
        .await
        .unwrap();
    let before = fs::read_to_string(map(&home)).unwrap();
    home.remove(vec![name("a")], Some(OnRemoval::Forget), at(1))
        .await
        .unwrap();
    assert_eq!(names(&home), ["b"]);
    // As a kill leaves it: the drop was appended, and nothing folded.
    home.store = None;
    let dropped =
        r#"{"name":"a","resource":"contoso","created_at":"2026-11-22T12:00:00Z","dropped":true}"#;
    fs::write(map(&home), format!("{before}{dropped}\n")).unwrap();
    lose_database(&mut home);
    assert_eq!(home.opened.taken_over.unwrap().declared, 1);
    assert!(home.record(&name("a")).await.unwrap().is_none());
    assert_eq!(names(&home), ["b"]);
}

#[tokio::test]
async fn lines_of_the_old_form_are_read_and_written_anew() {
    let mut home = Home::new();
    home.declare(vec![kept("a")], at(0)).await.unwrap();
    let num = get(&home, "a").await.num;
    commit(&home, issued(num, 1, Some("8:acs:a")), 2).await;
    home.store = None;
    let old =
        r#"{"name":"a","resource":"contoso","id":"8:acs:a","created_at":"2026-11-22T12:00:00Z"}"#;
    fs::write(map(&home), format!("{old}\n")).unwrap();
    home.reopen();
    assert_eq!(
        (home.opened.broken_id_lines, home.opened.taken_over),
        (0, None)
    );
    assert!(
        fs::read_to_string(map(&home))
            .unwrap()
            .contains("group:bots")
    );
    home.store = None;
    fs::write(map(&home), format!("{old}\n")).unwrap();
    lose_database(&mut home);
    assert_eq!(
        home.known_id(&name("a")).await.unwrap(),
        Some("8:acs:a".parse().unwrap())
    );
}

#[tokio::test]
async fn the_map_is_appended_and_folded_when_it_is_twice_too_large() {
    let home = Home::new();
    let big = |n: u32| Spec {
        declared: Declaration {
            labels: [("note".to_owned(), format!("{n:0>250}"))].into(),
            ..kept("a").declared
        },
        ..kept("a")
    };
    let (mut largest, mut appended) = (0, 0);
    for n in 0..6000 {
        home.declare(vec![big(n)], at(0)).await.unwrap();
        let length = fs::metadata(map(&home)).unwrap().len();
        appended += u32::from(length > largest);
        largest = largest.max(length);
    }
    assert!(
        largest < (1 << 20) + 2000,
        "{largest} bytes for one identity"
    );
    assert!(appended > 1000, "it is not written anew each time");
    assert!(fs::read_to_string(map(&home)).unwrap().contains("5999"));
}

#[tokio::test]
async fn of_two_lines_of_one_name_or_one_id_the_later_one_counts() {
    let mut home = Home::new();
    home.store = None;
    let line = |name: &str, id: &str| {
        format!(
            r#"{{"name":"{name}","resource":"contoso","id":"8:acs:{id}","created_at":"2026-11-22T12:00:00Z"}}"#
        )
    };
    let text = [
        line("a", "1"),
        line("a", "2"),
        line("b", "3"),
        line("c", "3"),
    ]
    .join("\n");
    fs::write(map(&home), text + "\n").unwrap();
    lose_database(&mut home);
    let known = async |text: &str| {
        let id = home.known_id(&name(text)).await.unwrap();
        id.map(|id| id.to_string())
    };
    assert_eq!(known("a").await.as_deref(), Some("8:acs:2"));
    assert_eq!(known("b").await, None);
    assert_eq!(known("c").await.as_deref(), Some("8:acs:3"));
}

#[tokio::test]
async fn lines_of_a_map_are_taken_where_a_file_declares_the_name_by_now() {
    let (home, _) = active().await;
    let line = Spec {
        declared: Declaration {
            id: Some("8:acs:bot".parse().unwrap()),
            ..kept("bot").declared
        },
        ..kept("bot")
    };
    let specs = vec![line.clone()];
    let planned = home.plan_import(specs.clone(), Vec::new()).await.unwrap();
    assert_eq!((planned.0.refused.len(), planned.1.unchanged), (0, 1));
    let (declared, imported) = home.take_batch(specs, Vec::new(), at(20)).await.unwrap();
    assert_eq!((declared.refused.len(), imported.unchanged), (0, 1));
    assert_eq!(
        get(&home, "bot").await.spec.declared.labels,
        spec("bot").declared.labels,
        "the file wins"
    );
    let other = Spec {
        declared: Declaration {
            id: Some("8:acs:other".parse().unwrap()),
            ..line.declared
        },
        ..line
    };
    let (_, planned) = home.plan_import(vec![other], Vec::new()).await.unwrap();
    assert_eq!(planned.refused.len(), 1);
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
    assert_eq!(home.opened.taken_over, None);
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

/// What the store noted of the file when they last agreed.
async fn agreed(home: &Home) -> i64 {
    number(home, "SELECT count(*) FROM meta WHERE key = 'map_agreed'").await
}

#[tokio::test]
async fn a_map_that_is_as_it_was_left_is_not_read() {
    let (mut home, num) = active().await;
    assert_eq!(agreed(&home).await, 1);
    // An operation that changes the file unsays it, the next one that does not says it anew.
    declare(
        &home,
        &[with_id("bot", "8:acs:bot"), with_id("two", "8:acs:two")],
        12,
    )
    .await;
    assert_eq!(agreed(&home).await, 0);
    commit(&home, issued(num, 20, None), 21).await;
    assert_eq!(agreed(&home).await, 1);
    home.store = None;
    // Letters that keep the length and the times are not seen: the file is not read.
    let times = fs::metadata(map(&home)).unwrap().modified().unwrap();
    let text = fs::read_to_string(map(&home)).unwrap();
    let file = fs::OpenOptions::new().write(true).open(map(&home)).unwrap();
    std::io::Write::write_all(
        &mut &file,
        text.replace("8:acs:two", "8:acs:own").as_bytes(),
    )
    .unwrap();
    file.set_modified(times).unwrap();
    home.reopen();
    assert_eq!((home.opened.id_map, home.opened.taken_over), (2, None));
    assert_eq!(
        home.known_id(&name("two")).await.unwrap(),
        Some("8:acs:two".parse().unwrap())
    );
    // Afterwards they are, and the next start compares the whole file.
    home.examine(None, at(30)).await.unwrap();
    assert_eq!(agreed(&home).await, 0);
    home.reopen();
    assert!(
        fs::read_to_string(map(&home))
            .unwrap()
            .contains("8:acs:two")
    );
}

#[tokio::test]
async fn only_what_was_added_to_the_map_is_read() {
    let (mut home, _) = active().await;
    home.store = None;
    let before = fs::read_to_string(map(&home)).unwrap();
    let added = r#"{"name":"late","resource":"contoso","id":"8:acs:late","created_at":"2026-11-22T12:00:00Z"}"#;
    let mut file = fs::OpenOptions::new()
        .append(true)
        .open(map(&home))
        .unwrap();
    std::io::Write::write_all(&mut file, format!("{added}\n").as_bytes()).unwrap();
    home.reopen();
    assert_eq!(
        home.known_id(&name("late")).await.unwrap(),
        Some("8:acs:late".parse().unwrap())
    );
    assert_eq!(
        fs::read_to_string(map(&home)).unwrap(),
        format!("{before}{added}\n")
    );
    // A name that was dropped by a commit that never came stays, and the file says so again.
    home.store = None;
    let dropped =
        r#"{"name":"bot","resource":"contoso","created_at":"2026-11-22T12:00:00Z","dropped":true}"#;
    std::io::Write::write_all(&mut file, format!("{dropped}\n").as_bytes()).unwrap();
    home.reopen();
    assert_eq!(
        get(&home, "bot").await.id,
        Some("8:acs:bot".parse().unwrap())
    );
    assert_eq!(names(&home), ["bot", "late"]);
}

on_postgres! {
    it_follows_creation_declaration_and_deletion
    a_lost_database_takes_the_map_over_and_names_beyond_it_wait_for_a_word
    half_a_map_creates_nobody_and_an_import_of_the_rest_ends_the_wait
    without_a_map_what_was_withdrawn_tells_that_the_database_was_lost
    names_of_a_source_wait_until_its_first_list_after_the_loss_is_compared
    what_the_store_alone_declares_comes_back_whole
    a_name_that_was_dropped_does_not_come_back_after_a_kill
    lines_of_the_old_form_are_read_and_written_anew
    the_map_is_appended_and_folded_when_it_is_twice_too_large
    of_two_lines_of_one_name_or_one_id_the_later_one_counts
    lines_of_a_map_are_taken_where_a_file_declares_the_name_by_now
    a_torn_or_missing_file_is_written_anew_and_the_torn_one_kept
    an_import_refuses_what_contradicts_the_store
    a_creation_under_way_at_a_crash_is_listed_as_an_orphan
    a_map_that_is_as_it_was_left_is_not_read
    only_what_was_added_to_the_map_is_read
}
