//! What the store refuses by itself keeps no other entry of its batch back, whichever verb it came with.

use std::sync::Arc;

use proptest::prelude::*;

use super::{super::jobs::NewRun, *};
use crate::model::{KeyRole, KeyWork};

impl Home {
    /// Has every change of a table refused for the row that a condition on `new` names.
    fn refuse(&self, table: &str, condition: &str) {
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
    let notes = fleet.iter().map(|record| {
        ItemNote::Ended(Box::new(ItemEnd {
            campaign: campaign.clone(),
            num: record.num,
            step: Some(StepOn {
                num: record.num,
                step: Step::Revoked {
                    at: at(4),
                    then: Then::Hold,
                },
                request_id: None,
            }),
            outcome: ItemOutcome::Done {
                at: at(4),
                request_id: None,
            },
            notice: None,
        }))
    });
    let each = home
        .note_items(&resource(), Arc::new(notes.collect()), at(4))
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
async fn pages_of_keys_go_on_without_what_is_refused() {
    let home = Home::new();
    home.fleet(40).await;
    home.refuse(
        "identity",
        "new.num IN (7, 30) AND new.due_why IS NOT old.due_why",
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
