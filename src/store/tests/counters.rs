//! Each table that is counted, or that something hangs on, is written in one file of the code: there it says what a
//! write does to counters and files. Nothing in the schema does anything by itself, and an item costs few statements.

use std::{fs, path::Path, sync::Arc};

use super::*;

/// The tables, and the one file that may write each of them.
const WRITERS: [(&str, &str); 17] = [
    ("identity", "tables.rs"),
    ("delivery", "tables.rs"),
    ("campaign_item", "tables.rs"),
    ("identity_count", "counters.rs"),
    ("life_count", "counters.rs"),
    ("pending_count", "counters.rs"),
    ("consumer_count", "counters.rs"),
    ("item_count", "counters.rs"),
    ("orphan_count", "counters.rs"),
    ("reader", "counters.rs"),
    ("orphan", "creations.rs"),
    ("sink", "sinks.rs"),
    ("sink_after", "deliveries.rs"),
    ("stray", "sinks.rs"),
    ("holder", "consumers.rs"),
    ("gone_claim", "gone.rs"),
    ("doubted_key", "doubts.rs"),
];

fn sources(dir: &Path, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "tests" && name != "sql" {
                sources(&path, found);
            }
        } else if name.ends_with(".rs") {
            found.push((name, fs::read_to_string(&path).unwrap()));
        }
    }
}

/// The tables that a text writes.
fn written(text: &str) -> Vec<String> {
    let text = text.replace("\\\n", " ");
    let words: Vec<&str> = text
        .split(|c: char| c.is_whitespace() || c == '"')
        .filter(|word| !word.is_empty())
        .collect();
    let word = |at: usize| words.get(at).copied().unwrap_or_default();
    let mut tables = Vec::new();
    for at in 0..words.len() {
        if at >= 2 && word(at - 2) == "INSERT" && word(at - 1) == "OR" {
            continue;
        }
        let table = match (word(at), word(at + 1)) {
            ("DELETE", "FROM") | ("INSERT" | "REPLACE", "INTO") => at + 2,
            ("UPDATE", "OR") => at + 3,
            ("INSERT", "OR") => at + 4,
            ("UPDATE", _) => at + 1,
            _ => continue,
        };
        let name = word(table).trim_end_matches(|c: char| !c.is_alphanumeric());
        tables.push(name.to_owned());
    }
    tables
}

#[test]
fn each_table_that_is_counted_is_written_in_one_file() {
    let mut files = Vec::new();
    sources(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store"),
        &mut files,
    );
    assert!(files.len() > 5, "the sources are there");
    let mut unwritten: BTreeSet<&str> = WRITERS.iter().map(|(table, _)| *table).collect();
    for (name, text) in &files {
        for table in written(text) {
            let Some((table, writer)) = WRITERS.iter().find(|(known, _)| *known == table) else {
                continue;
            };
            assert_eq!(
                name, writer,
                "{table} is written in {name} too: let {writer} do it"
            );
            unwritten.remove(table);
        }
    }
    // Counters are written by the names of their tables.
    unwritten.retain(|table| !table.ends_with("_count") && *table != "reader");
    assert!(
        unwritten.is_empty(),
        "nobody writes {unwritten:?}: does the test still see it?"
    );
}

/// So that a column more, which the next release may add, does no harm.
#[test]
fn each_insert_names_its_columns() {
    let mut files = Vec::new();
    let store = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store");
    sources(&store, &mut files);
    let mut seen = 0;
    for (name, text) in &files {
        let text = text.replace("\\\n", " ");
        let words = text.split(|c: char| c.is_whitespace() || c == '"');
        let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
        for three in words.windows(3).filter(|three| three[0] == "INTO") {
            seen += 1;
            let by_place = three[2] == "VALUES" || three[2] == "SELECT";
            // The two tables of a backup are of the version that made it.
            assert!(
                !by_place || three[1].starts_with("backup"),
                "{name}: INSERT INTO {} does not name its columns",
                three[1]
            );
        }
    }
    assert!(seen > 20, "the inserts are seen");
}

#[test]
fn writes_are_seen_in_a_text() {
    let text = "\"UPDATE OR IGNORE identity SET a\" \"INSERT OR REPLACE INTO orphan (\" \"DELETE FROM sink\\\n WHERE\" \
                \"INSERT INTO stray(num)\" \"UPDATE delivery {what}\"";
    let seen = ["identity", "orphan", "sink", "stray(num", "delivery"];
    assert_eq!(written(text), seen);
}

#[tokio::test]
async fn nothing_in_the_schema_does_anything_by_itself() {
    let home = Home::new();
    let triggers = "SELECT count(*) FROM sqlite_schema WHERE type = 'trigger'";
    assert_eq!(number(&home, triggers).await, 0);
}

/// Counters that disagree with what there is are found, told, and mended.
#[tokio::test]
async fn counters_that_went_wrong_are_mended() {
    let (home, _) = active().await;
    assert_eq!(home.miscounts().await.unwrap(), []);
    sql(&home, "UPDATE identity_count SET n = n + 7; DELETE FROM life_count; UPDATE orphan_count SET n = 3").await;
    sql(&home, "INSERT INTO pending_count VALUES (99, 4) ON CONFLICT DO NOTHING; UPDATE consumer_count SET n = 50").await;
    let found: Vec<&str> = home
        .miscounts()
        .await
        .unwrap()
        .iter()
        .map(|one| one.what)
        .collect();
    assert_eq!(found.len(), 5, "{found:?}");
    assert_eq!(home.mend_counters().await.unwrap().len(), 5);
    assert_eq!(home.mend_counters().await.unwrap(), []);
    let counts = home.counts().await.unwrap();
    assert_eq!(counts.identities[&resource()][&State::Active], 1);
    assert_eq!(counts.orphans, 0);
}

/// Identities of a campaign, and how many of them a round takes.
const MANY: usize = 200;
const ROUND: usize = 100;

async fn statements(home: &Home) -> usize {
    home.read("test", |db| Ok(db.statements.get()))
        .await
        .unwrap()
}

/// A store of identities that the socket serves, each with a token.
async fn fleet() -> Home {
    let home = Home::new();
    let spec = |n: usize| Spec {
        declared: Declaration {
            sinks: Vec::new(),
            ..with_id(&format!("n{n:04}"), &format!("8:acs:maker_{n}")).declared
        },
        ..with_id(&format!("n{n:04}"), &format!("8:acs:maker_{n}"))
    };
    let specs: Vec<Spec> = (0..MANY).map(spec).collect();
    home.declare(specs, at(0)).await.unwrap();
    issue_all(&home, 1).await;
    home
}

/// Issues a token to whoever is due, as the renewer does.
async fn issue_all(home: &Home, secs: i64) {
    loop {
        let (place, nobody) = (resource(), none());
        let due = home.due(&place, Work::Issue, at(secs), ROUND, &nobody);
        let due = due.await.unwrap();
        if due.is_empty() {
            return;
        }
        let postings = due.iter().map(|row| {
            Posting::Decided(Decided {
                change: issued(row.num, secs, None),
                notices: Vec::new(),
            })
        });
        let posted = home
            .post(Arc::new(postings.collect()), at(secs))
            .await
            .unwrap();
        assert!(
            posted
                .iter()
                .all(|one| matches!(one, Ok(Some(Applied::Done(_)))))
        );
    }
}

/// Lists all identities as items of a campaign and works them off, as the runner does.
async fn work_off(home: &Home, action: CampaignAction, secs: i64) -> CampaignId {
    let then = (action == CampaignAction::Revoke).then_some(Then::Reissue);
    let new = NewCampaign::new(action, then, Target::All, Cause::ours("test"));
    let id = home.create_campaign(new, at(secs)).await.unwrap();
    while home.expand(id, 1000, at(secs)).await.unwrap() == Frozen::More {}
    let campaign = Arc::new(home.campaign(id).await.unwrap().unwrap());
    loop {
        let (place, nobody) = (resource(), none());
        let items = home
            .campaign_items(id, &place, false, ROUND, &nobody)
            .await
            .unwrap();
        if items.is_empty() {
            return id;
        }
        let calls = action == CampaignAction::Revoke;
        if calls {
            let called = items.iter().map(|item| ItemNote::Called(id, item.num));
            note(home, called.collect(), secs).await;
        }
        let ended = items.iter().map(|item| {
            let (now, then) = (at(secs), Then::Reissue);
            let step = match calls {
                true => Step::Revoked { at: now, then },
                false => Step::Due(DueReason::Requested),
            };
            let request_id = calls.then(|| "req".to_owned());
            ItemNote::Ended(Box::new(ItemEnd {
                campaign: campaign.clone(),
                num: item.num,
                step: Some(StepOn {
                    num: item.num,
                    step,
                    request_id: request_id.clone(),
                }),
                outcome: ItemOutcome::Done {
                    at: now,
                    request_id,
                },
                notice: None,
                again_at: None,
            }))
        });
        note(home, ended.collect(), secs).await;
    }
}

async fn note(home: &Home, notes: Vec<ItemNote>, secs: i64) {
    let noted = home
        .note_items(&resource(), Arc::new(notes), at(secs))
        .await;
    assert!(noted.unwrap().iter().all(Result::is_ok));
}

/// What a campaign over all costs, its tokens included; it has ended with them, without being followed.
async fn cost(action: CampaignAction) -> f64 {
    let home = fleet().await;
    let before = statements(&home).await;
    let id = work_off(&home, action, 10).await;
    issue_all(&home, 11).await;
    let cost = statements(&home).await - before;
    let ended = home.campaign(id).await.unwrap().unwrap();
    assert_eq!((ended.done, ended.ended_at), (MANY as u64, Some(at(11))));
    cost as f64 / MANY as f64
}

#[tokio::test]
async fn an_item_costs_few_statements() {
    let home = fleet().await;
    let before = statements(&home).await;
    issue_all(&home, 50_000).await;
    let plain = (statements(&home).await - before) as f64 / MANY as f64;
    let (renewed, revoked) = (
        cost(CampaignAction::Renew).await,
        cost(CampaignAction::Revoke).await,
    );
    assert!(plain <= 3.2, "a renewal costs {plain}");
    assert!(renewed <= 3.5, "an item of `renew --all` costs {renewed}");
    assert!(revoked <= 8.5, "an item of a revocation costs {revoked}");
}

/// Lists of attempts are read and written whole, whatever was in them.
#[tokio::test]
async fn attempts_are_kept_in_their_order() {
    let (home, num) = active().await;
    for secs in 20..40 {
        commit(&home, issued(num, secs, None), secs + 1).await;
    }
    let kept: Vec<Attempt> = get(&home, "bot").await.attempts.iter().cloned().collect();
    let last: Vec<Timestamp> = kept.iter().map(|attempt| attempt.at).collect();
    assert!(last.is_sorted() && last.last() == Some(&at(39)), "{last:?}");
}

on_postgres! {
    counters_that_went_wrong_are_mended
    an_item_costs_few_statements
    attempts_are_kept_in_their_order
}
