//! What the store refuses or cannot read is set aside alone, with its reason and without a trace, the rest of its
//! batch is done, whichever verb it came with; and it is taken up again once it is mended.

use std::sync::Arc;

use proptest::prelude::*;

use super::{super::jobs::NewRun, *};
use crate::model::{KeyRole, KeyWork};

impl Home {
    /// Has every change of a table refused for the row that a condition on `new` names.
    fn refuse(&self, table: &str, condition: &str) {
        let refused = with_database(self.dir.path(), |database| {
            database.sql(
                "CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS \
                 'BEGIN RAISE EXCEPTION ''on purpose''; END'",
            );
            let whenever = if condition.contains("old.") {
                "UPDATE"
            } else {
                "INSERT OR UPDATE"
            };
            database.sql(&format!(
                "CREATE TRIGGER refuse_{table} BEFORE {whenever} ON {table} FOR EACH ROW WHEN ({condition}) \
                 EXECUTE FUNCTION refuse()"
            ));
        });
        if refused.is_some() {
            return;
        }
        let owner = rusqlite::Connection::open(self.dir.path().join("renewd.db")).unwrap();
        for what in ["INSERT", "UPDATE"] {
            let sql = format!(
                "CREATE TRIGGER refuse_{table}_{what} BEFORE {what} ON {table} WHEN {condition} \
                 BEGIN SELECT RAISE(ABORT, 'on purpose'); END"
            );
            owner.execute_batch(&sql).unwrap();
        }
    }

    async fn fleet(&self, count: usize) -> Vec<Record> {
        let specs: Vec<Spec> = (0..count).map(|n| spec(&format!("bot-{n:03}"))).collect();
        self.reconcile(&specs, &[], at(0)).await.unwrap();
        let mut all = self.list(None, 1000).await.unwrap();
        all.sort_by_key(|record| record.num);
        let ids = all.iter().map(|record| {
            let id = format!("8:acs:1_{}", record.num);
            issued(record.num, 1, Some(&id))
        });
        self.commit(ids.collect(), at(2)).await.unwrap();
        all
    }
}

fn condition(refused: &BTreeSet<Num>) -> String {
    let nums: Vec<String> = refused.iter().map(ToString::to_string).collect();
    format!("new.num IN ({})", nums.join(","))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20))]

    /// Results with their notices and audit entries: those that are refused are answered so, the others are
    /// in the store.
    #[test]
    fn of_results_only_those_are_set_aside_that_the_store_refuses(
        count in 1usize..40, share in 0.0f64..1.0, seed: u64,
    ) {
        use rand::{RngExt, SeedableRng};
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let home = Home::new();
            let fleet = home.fleet(count).await;
            let refused: BTreeSet<Num> = fleet
                .iter()
                .map(|record| record.num)
                .filter(|_| rng.random::<f64>() < share)
                .collect();
            home.refuse("identity", &condition(&refused));
            let postings = fleet.iter().map(|record| {
                let change = issued(record.num, 10, None);
                Posting::Decided(Decided { change, notices: Vec::new() })
            });
            let each = home.post(Arc::new(postings.collect()), at(11)).await.unwrap();
            let answered: BTreeSet<Num> = fleet
                .iter()
                .zip(&each)
                .filter(|(_, answer)| answer.is_err())
                .map(|(record, _)| record.num)
                .collect();
            assert_eq!(answered, refused);
            for record in home.list(None, 1000).await.unwrap() {
                let renewed = record.token.as_ref().unwrap().issued_at == at(10);
                assert_eq!(renewed, !refused.contains(&record.num), "{}", record.spec.name);
            }
        });
    }
}

/// Each item is done with this step of its row.
fn ended(campaign: &Arc<Campaign>, fleet: &[Record], step: &Step) -> Vec<ItemNote> {
    let note = |record: &Record| {
        ItemNote::Ended(Box::new(ItemEnd {
            campaign: campaign.clone(),
            num: record.num,
            step: Some(StepOn {
                num: record.num,
                step: step.clone(),
                request_id: None,
            }),
            outcome: ItemOutcome::Done {
                at: at(4),
                request_id: None,
            },
            notice: None,
            again_at: None,
        }))
    };
    fleet.iter().map(note).collect()
}

#[tokio::test]
async fn deliveries_and_campaign_items_go_on_without_what_is_refused() {
    let home = Home::new();
    let fleet = home.fleet(9).await;
    let rows = fleet.iter().map(|record| Wanted::Row(record.num));
    let target = Target::Items(rows.collect());
    let cause = Cause::ours("drill");
    let new = NewCampaign::new(CampaignAction::Revoke, Some(Then::Hold), target, cause);
    let id = home.create_campaign(new, at(3)).await.unwrap();
    home.refuse("campaign_item", "new.num = 4");
    let campaign = Arc::new(home.campaign(id).await.unwrap().unwrap());
    let step = Step::Revoked {
        at: at(4),
        then: Then::Hold,
    };
    let notes = ended(&campaign, &fleet, &step);
    let each = home
        .note_items(&resource(), Arc::new(notes), at(4))
        .await
        .unwrap();
    let refused: Vec<usize> = (0..each.len()).filter(|at| each[*at].is_err()).collect();
    assert_eq!(refused, [3]);
    let told = home.campaign(id).await.unwrap().unwrap();
    assert_eq!(
        (told.pending, told.delivering + told.done),
        (1, 8),
        "{told:?}"
    );
    let row = home.record(&fleet[3].spec.name).await.unwrap().unwrap();
    assert_ne!(
        row.state,
        State::Held,
        "neither its step nor its item is noted"
    );
}

#[tokio::test]
async fn orders_to_renew_and_their_tokens_go_on_without_what_is_refused() {
    let home = Home::new();
    let fleet = home.fleet(9).await;
    let rows = fleet.iter().map(|record| Wanted::Row(record.num));
    let target = Target::Items(rows.collect());
    let new = NewCampaign::new(CampaignAction::Renew, None, target, Cause::ours("drill"));
    let id = home.create_campaign(new, at(3)).await.unwrap();
    let campaign = Arc::new(home.campaign(id).await.unwrap().unwrap());
    home.refuse("identity", "new.num = 4 AND new.due_why = 'requested'");
    let notes = ended(&campaign, &fleet, &Step::Due(DueReason::Requested));
    let each = home
        .note_items(&resource(), Arc::new(notes), at(4))
        .await
        .unwrap();
    let refused: Vec<usize> = (0..each.len()).filter(|at| each[*at].is_err()).collect();
    assert_eq!(refused, [3]);
    let told = home.campaign(id).await.unwrap().unwrap();
    assert_eq!((told.pending, told.acknowledged), (1, 8), "{told:?}");
    // What is refused last of a result takes back all of it, and nothing of the others.
    home.refuse("renewal", "new.identity = 6");
    home.refuse(
        "campaign_item",
        "new.num = 7 AND new.state IN ('delivering', 'done')",
    );
    let postings = fleet.iter().map(|record| {
        let change = issued(record.num, 10, None);
        Posting::Decided(Decided {
            change,
            notices: Vec::new(),
        })
    });
    let each = home
        .post(Arc::new(postings.collect()), at(11))
        .await
        .unwrap();
    let refused: Vec<usize> = (0..each.len()).filter(|at| each[*at].is_err()).collect();
    assert_eq!(refused, [5, 6]);
    let told = home.campaign(id).await.unwrap().unwrap();
    let counted = (told.pending, told.acknowledged, told.delivering + told.done);
    assert_eq!(counted, (1, 2, 6), "{told:?}");
    for record in &fleet {
        let row = home.record(&record.spec.name).await.unwrap().unwrap();
        let renewed = row.token.unwrap().issued_at == at(10);
        assert_eq!(renewed, ![6, 7].contains(&record.num), "{}", record.num);
    }
    assert_eq!(home.miscounts().await.unwrap(), []);
}

#[tokio::test]
async fn pages_of_keys_go_on_without_what_is_refused() {
    let home = Home::new();
    home.fleet(40).await;
    home.refuse(
        "identity",
        "new.num IN (7, 30) AND new.due_why IS DISTINCT FROM old.due_why",
    );
    let marked = home
        .hasten_doubtful(&resource(), "key1", 0, 100, at(5))
        .await
        .unwrap();
    assert_eq!(marked.marked, 38);
    home.refuse("key_item", "new.identity = 11");
    let new = NewKeyChange {
        resource: resource(),
        work: KeyWork::Roll,
        role: KeyRole::Primary,
        old_key: "key1".to_owned(),
        actor: "anna".to_owned(),
        reason: None,
    };
    let change = home.begin_key_change(new, at(6)).await.unwrap();
    let marked = home.mark_minted(&change, 0, 100, at(7)).await.unwrap();
    assert_eq!(marked.marked, 37);
    assert!(home.settle_key_items(&change, 0, 100, at(8)).await.is_ok());
}

#[tokio::test]
async fn reads_jobs_and_sources_go_on_without_what_is_refused() {
    let home = Home::new();
    home.fleet(20).await;
    home.refuse("token_read", "new.name = 'bot-003'");
    let reads = (0..20).map(|n| TokenReads {
        hour: at(0),
        name: name(&format!("bot-{n:03}")),
        uid: 1000,
        count: 2,
    });
    let each = home.note_reads(reads.collect()).await.unwrap();
    assert_eq!(each.iter().filter(|one| one.is_err()).count(), 1);
    let all = ReadsQuery {
        limit: 100,
        ..ReadsQuery::default()
    };
    let counted = home.token_reads(all).await.unwrap();
    assert_eq!(counted.len(), 19);

    home.refuse("job_run", "new.job = 'poisoned'");
    let run = |job: &str| NewRun {
        job: job.parse().unwrap(),
        scheduled_at: at(9),
        decided_until: Some(at(9)),
        what: Err("missed".to_owned()),
    };
    let runs = ["first", "poisoned", "last"].map(run).to_vec();
    let each = home.run_jobs(runs, at(9)).await.unwrap();
    assert!(each[0].is_ok() && each[1].is_err() && each[2].is_ok());

    home.refuse("source_row", "new.name = 'guest-2'");
    let source: crate::model::SourceName = "app".parse().unwrap();
    let listed = |n: u8| {
        let spec = Spec {
            origin: Origin::Source(source.clone()),
            ..spec(&format!("guest-{n}"))
        };
        (spec, [n; 16])
    };
    let change = SourceChange {
        specs: (0..5).map(listed).collect(),
        ..SourceChange::default()
    };
    let taken = home.take_source(&source, change, at(10)).await.unwrap();
    assert_eq!((taken.create, taken.refused.len()), (4, 1));
    assert_eq!(taken.refused[0].name.as_str(), "guest-2");
    assert_eq!(home.source_count(&source).await.unwrap(), 4);
}

/// One look at everything.
async fn look(home: &Home, secs: i64) {
    let mut from = None;
    loop {
        from = home.examine(from, at(secs)).await.unwrap();
        if from.is_none() {
            return;
        }
    }
}

async fn kinds(home: &Home) -> Vec<(String, u64)> {
    let found = home.counts().await.unwrap().set_aside;
    found.into_iter().map(|one| (one.kind, one.rows)).collect()
}

#[tokio::test]
async fn garbage_that_no_loop_meets_is_found_and_let_go_once_it_is_mended() {
    let (home, _) = active().await;
    look(&home, 0).await;
    assert_eq!(kinds(&home).await, []);
    // A text is later than every number: the row is never due, and the delivery never pending.
    sql(&home, "UPDATE identity SET due_at = 'soon'").await;
    sql(&home, "UPDATE delivery SET since = x'00'").await;
    look(&home, 1).await;
    let found = [("identity".to_owned(), 1), ("delivery".to_owned(), 1)];
    assert_eq!(kinds(&home).await, found);
    let due = home.due_signal();
    sql(&home, "UPDATE identity SET due_at = 0").await;
    sql(&home, "UPDATE delivery SET since = 0").await;
    look(&home, 2).await;
    assert_eq!(kinds(&home).await, []);
    assert!(due.has_changed().unwrap(), "the renewer looks again");
}

#[tokio::test]
async fn a_row_that_waits_for_nothing_or_whose_token_does_not_open_is_planned_anew() {
    let (home, num) = active().await;
    sql(&home, "UPDATE identity SET due_at = NULL").await;
    look(&home, 100).await;
    assert_eq!(get(&home, "bot").await.due.unwrap().at, at(100));
    commit(&home, issued(num, 200, None), 201).await;
    let garbage = "UPDATE identity SET token = CAST('?' AS /*sqlite*/BLOB/*postgres BYTEA*/)";
    sql(&home, garbage).await;
    look(&home, 300).await;
    assert_eq!(kinds(&home).await, [("token".to_owned(), 1)]);
    assert_eq!(get(&home, "bot").await.due.unwrap().at, at(300));
    assert!(home.holding(name("bot")).await.is_err());
    declare(&home, &[spec("bot"), spec("zoe")], 301).await;
    let held = home.holdings_page(None, 1).await.unwrap();
    let of = |held: &Holding| held.record.spec.name.to_string();
    let held: Vec<String> = held.iter().map(of).collect();
    assert_eq!(held, ["zoe"], "it keeps nobody else from being told");
    commit(&home, issued(num, 400, None), 401).await;
    look(&home, 500).await;
    assert_eq!(kinds(&home).await, []);
    assert!(home.document(num).await.unwrap().unwrap().token.is_some());
    // Nor is it forgotten where all versions begin anew.
    sql(&home, garbage).await;
    let raised = home.write("test", |txn| txn.raise_versions(at(550)));
    raised.await.unwrap();
    look(&home, 600).await;
    assert_eq!(get(&home, "bot").await.due.unwrap().at, at(600));
}

#[tokio::test]
async fn what_cannot_be_read_can_be_dropped_and_comes_back_with_its_id() {
    let (home, _) = active().await;
    let id = get(&home, "bot").await.id;
    sql(&home, "UPDATE identity SET state = '?'").await;
    let again = home
        .reconcile(&[spec("bot")], &[sink("file")], at(10))
        .await;
    assert_eq!(again.unwrap().refused.len(), 1, "it is left as it is");
    sql(&home, "UPDATE identity SET wish = '?'").await;
    let sinks = [sink("file"), sink("new")];
    let again = home.reconcile(&[spec("bot")], &sinks, at(10)).await;
    assert_eq!(again.unwrap().sinks, 1, "a new sink is bound all the same");
    let dropped = home.remove(vec![name("bot")], Some(OnRemoval::Forget), at(11));
    assert_eq!(dropped.await.unwrap().forget, 1);
    declare(&home, &[spec("bot")], 12).await;
    assert_eq!(get(&home, "bot").await.id, id);
}

#[tokio::test]
async fn a_full_disk_is_told_apart_and_loses_nothing() {
    let (home, num) = active().await;
    let before = get(&home, "bot").await;
    let tidy = home.read("test", |db| Ok(db.file()?.execute_batch("VACUUM")?));
    tidy.await.unwrap();
    let (pages, free) = (
        number(&home, "PRAGMA page_count").await,
        number(&home, "PRAGMA freelist_count").await,
    );
    assert_eq!(free, 0);
    let limit = home.read("test", move |db| {
        Ok(db.file()?.pragma_update(None, "max_page_count", pages)?)
    });
    limit.await.unwrap();
    let error = home.probe().await.unwrap_err();
    assert_eq!(error, StoreError::Full { doing: "write" });
    assert!(error.is_unwritable());
    let many = vec![issued(num, 20, None); 400];
    let error = home.commit(many, at(21)).await.unwrap_err();
    assert!(matches!(error, StoreError::Full { .. }), "{error}");
    assert_eq!(get(&home, "bot").await, before);
    let limit = home.read("test", |db| {
        Ok(db.file()?.pragma_update(None, "max_page_count", 1 << 20)?)
    });
    limit.await.unwrap();
    home.probe().await.unwrap();
    version(commit(&home, issued(num, 20, None), 22).await);
}

#[tokio::test]
async fn an_operation_that_fails_or_panics_is_undone_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(&settings(dir.path()), dir.path(), at(0)).unwrap();
    declare(&store, &[spec("bot")], 0).await;
    let bad = store.write::<(), _>("fail", |txn| {
        txn.conn.batch("DELETE FROM identity")?;
        txn.conn.batch("INSERT INTO nowhere VALUES (1)")?;
        Ok(())
    });
    let panics = store.write::<(), _>("panic", |txn| {
        txn.conn.batch("DELETE FROM identity")?;
        panic!("a bug");
    });
    let good = store.declare(vec![spec("other")], at(1));
    let (bad, panics, good) = tokio::join!(bad, panics, good);
    assert!(matches!(
        bad.unwrap_err(),
        StoreError::Fault { doing: "fail", .. }
    ));
    assert!(matches!(
        panics.unwrap_err(),
        StoreError::Fault { doing: "panic", .. }
    ));
    assert_eq!(good.unwrap().create, 1);
    assert_eq!(store.list(None, 10).await.unwrap().len(), 2);
}

#[tokio::test]
async fn signals_rise_after_the_commit_and_only_with_a_reason() {
    let (home, num) = active().await;
    let (mut due, mut wanted) = (home.due_signal(), home.wanted_signal());
    home.settle(vec![], at(0)).await.unwrap();
    home.prune(9, at(20)).await.unwrap();
    assert!(!due.has_changed().unwrap() && !wanted.has_changed().unwrap());
    step(&home, num, Step::Due(DueReason::Requested), 30).await;
    assert!(due.has_changed().unwrap() && !wanted.has_changed().unwrap());
    due.mark_unchanged();
    commit(&home, issued(num, 31, None), 32).await;
    assert!(!due.has_changed().unwrap() && wanted.has_changed().unwrap());
    wanted.mark_unchanged();
}

/// A declaration that cannot be written is named; whoever comes with it is taken, changed and let go of.
#[tokio::test]
async fn of_what_is_declared_only_that_is_left_which_the_store_refuses() {
    let home = Home::new();
    let specs: Vec<Spec> = (0..30).map(|n| spec(&format!("bot-{n:03}"))).collect();
    home.reconcile(&specs[..20], &[], at(0)).await.unwrap();
    home.refuse("identity", "new.name IN ('bot-003', 'bot-012', 'bot-025')");
    // Ten are let go of, ten are changed, ten are new.
    let mut next = specs[10..].to_vec();
    next.iter_mut().for_each(|spec| spec.declared.lifetime /= 2);
    let done = home.reconcile(&next, &[], at(1)).await.unwrap();
    let counts = (done.hold, done.reissue, done.create);
    assert_eq!(counts, (9, 9, 9), "{done:?}");
    let refused: Vec<&str> = done.refused.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(refused, ["bot-003", "bot-025", "bot-012"]);
    assert!(done.refused[0].reason.contains("on purpose"), "{done:?}");

    let line = |n: usize| ImportLine {
        name: name(&format!("bot-{n:03}")),
        resource: resource(),
        id: format!("8:acs:{n}").parse().unwrap(),
        created_at: None,
    };
    let imported = home.import((10..16).map(line).collect(), at(2)).await;
    let imported = imported.unwrap();
    let counts = (imported.adopted, imported.refused.len());
    assert_eq!(counts, (5, 1), "{imported:?}");
    assert_eq!(imported.refused[0].name.as_str(), "bot-012");
}

/// Whom the store refuses to let go of is still listed, and the next look tries it again.
#[tokio::test]
async fn whoever_is_refused_to_be_let_go_of_stays_listed() {
    let home = Home::new();
    let source: crate::model::SourceName = "app".parse().unwrap();
    let listed = |n: u8| {
        let origin = Origin::Source(source.clone());
        let spec = Spec {
            origin,
            ..spec(&format!("guest-{n}"))
        };
        (spec, [n; 16])
    };
    let change = SourceChange {
        specs: (0..4).map(listed).collect(),
        ..SourceChange::default()
    };
    home.take_source(&source, change, at(1)).await.unwrap();
    home.refuse("identity", "new.name = 'guest-2'");
    let gone = SourceChange {
        gone: vec![name("guest-1"), name("guest-2"), name("guest-3")],
        ..SourceChange::default()
    };
    let taken = home.take_source(&source, gone, at(2)).await.unwrap();
    let refused: Vec<&str> = taken.refused.iter().map(|one| one.name.as_str()).collect();
    assert_eq!((taken.hold, &refused[..]), (2, &["guest-2"][..]));
    assert_eq!(home.source_count(&source).await.unwrap(), 2);
}

on_postgres! {
    deliveries_and_campaign_items_go_on_without_what_is_refused
    orders_to_renew_and_their_tokens_go_on_without_what_is_refused
    pages_of_keys_go_on_without_what_is_refused
    reads_jobs_and_sources_go_on_without_what_is_refused
    a_row_that_waits_for_nothing_or_whose_token_does_not_open_is_planned_anew
    what_cannot_be_read_can_be_dropped_and_comes_back_with_its_id
    signals_rise_after_the_commit_and_only_with_a_reason
    of_what_is_declared_only_that_is_left_which_the_store_refuses
    whoever_is_refused_to_be_let_go_of_stays_listed
}
