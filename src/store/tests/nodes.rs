//! Several machines on one store: two handles on one database, each with a name and files of its own.

use std::fs;

use super::*;
use crate::model::{NodeName, Placed};

fn node(name: &str) -> NodeName {
    name.parse().unwrap()
}

fn of(text: &str, of: &str) -> SinkAt {
    SinkAt::new(sink_name(text), Some(node(of)))
}

/// Two machines, with the files of each in a folder of its own.
struct Two {
    _dir: TempDir,
    a: Store,
    b: Store,
}

impl Two {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let a = join(dir.path(), "web-1").0;
        let b = join(dir.path(), "web-2").0;
        Self { _dir: dir, a, b }
    }

    /// `bot` has a token since second 10, and both machines keep a file of it.
    async fn with_bot() -> (Self, Num) {
        let two = Self::new();
        let sinks = [of("file", "web-1"), sink("hook")];
        let specs = [with_id("bot", "8:acs:bot")];
        two.a.reconcile(&specs, &sinks, at(0)).await.unwrap();
        let ours = [of("file", "web-2"), sink("hook")];
        two.b.bind_sinks(&ours, at(1)).await.unwrap();
        let num = get(&two.a, "bot").await.num;
        two.a
            .commit(vec![issued(num, 10, None)], at(11))
            .await
            .unwrap();
        (two, num)
    }

    async fn sinks_of(&self, num: Num) -> Vec<String> {
        let deliveries = self.a.deliveries_of(num).await.unwrap();
        deliveries.iter().map(|one| one.sink.to_string()).collect()
    }
}

pub(super) fn settings_of(dir: &Path, name: &str) -> StoreSettings {
    StoreSettings {
        node: Some(node(name)),
        ..settings(dir)
    }
}

pub(super) fn join(dir: &Path, name: &str) -> (Store, Opened) {
    let settings = settings_of(dir, name);
    let files = dir.join(name);
    fs::create_dir_all(&files).unwrap();
    // All have the same seal key.
    for with_key in ["", "web-1"].map(|other| dir.join(other).join("seal.key")) {
        if with_key.exists() && !files.join("seal.key").exists() {
            fs::copy(with_key, files.join("seal.key")).unwrap();
        }
    }
    Store::open_inline(&settings, &files, at(0)).unwrap()
}

async fn settle(store: &Store, sink: SinkAt, num: Num) {
    let version = get(store, "bot").await.version;
    let settled = Settled::Delivered { sink, num, version };
    store.settle(vec![settled], at(12)).await.unwrap();
}

#[tokio::test]
async fn each_machine_has_its_own_sinks_and_leaves_those_of_others_alone() {
    let (two, num) = Two::with_bot().await;
    assert_eq!(two.sinks_of(num).await, ["file@web-1", "file@web-2"]);
    let hook = two.a.sinks_of_cluster().await.unwrap();
    assert_eq!(
        hook,
        [of("file", "web-1"), of("file", "web-2"), sink("hook")]
    );

    // A start anew changes nothing, neither here nor there.
    let ours = [of("file", "web-2"), sink("hook")];
    two.b.bind_sinks(&ours, at(20)).await.unwrap();
    let specs = [with_id("bot", "8:acs:bot")];
    let told = two.b.reconcile(&specs, &ours, at(21)).await.unwrap();
    assert!(told.is_unchanged(), "{told:?}");
    assert_eq!(two.sinks_of(num).await, ["file@web-1", "file@web-2"]);

    // What web-2 does not have any more is let go of there, and nowhere else.
    two.b.bind_sinks(&[], at(22)).await.unwrap();
    assert_eq!(two.sinks_of(num).await, ["file@web-1"]);
    let all = two.b.sinks_of_cluster().await.unwrap();
    assert_eq!(
        all,
        [of("file", "web-1"), sink("hook")],
        "the leader's stay"
    );
}

#[tokio::test]
async fn what_one_machine_delivers_says_nothing_of_another() {
    let (two, num) = Two::with_bot().await;
    settle(&two.a, of("file", "web-1"), num).await;
    let (store, skip) = (two.b.clone(), none());
    let waits = async |sink: SinkAt| {
        let found = store.pending(&sink, at(99), 10, &skip).await.unwrap();
        found.deliveries.len()
    };
    assert_eq!(waits(of("file", "web-1")).await, 0);
    assert_eq!(waits(of("file", "web-2")).await, 1);
    let told = two.a.counts().await.unwrap();
    assert_eq!(told.pending[&of("file", "web-2")], 1);
    assert_eq!(
        told.pending.get(&of("file", "web-1")).copied().unwrap_or(0),
        0
    );
    let served = two.b.served(at(13)).await.unwrap();
    let (ours, other) = (of("file", "web-1"), of("file", "web-2"));
    assert_eq!(
        (served.sinks[&ours].live, served.sinks[&other].without),
        (1, 1)
    );
    let json = serde_json::to_value(&served).unwrap();
    assert_eq!(json["sinks"]["file@web-1"]["live"], 1);

    // One that is disabled is disabled there.
    let why = Disabled {
        why: "paused by ops".to_owned(),
        by_command: true,
    };
    two.a.disable_sink(&other, why, at(14)).await.unwrap();
    assert_eq!(two.b.sink_disabled(&ours).await.unwrap(), None);
    assert!(two.b.sink_disabled(&other).await.unwrap().is_some());
    let told = two.a.latest_notices(1).await.unwrap().remove(0).1.message;
    assert_eq!(
        told,
        "The sink file@web-2 is disabled: paused by ops. `renewd sink enable file@web-2` ends it."
    );
}

#[tokio::test]
async fn a_file_that_was_left_is_taken_back_by_the_machine_where_it_lies() {
    let (two, num) = Two::with_bot().await;
    let path = "/run/renewd/tokens/bot.token";
    for at_node in ["web-1", "web-2"] {
        let placed = Placed {
            path: path.into(),
            digest: [7; 32],
        };
        let settled = Settled::Placed {
            sink: of("file", at_node),
            num,
            placed: Some(placed),
        };
        two.a.settle(vec![settled], at(12)).await.unwrap();
    }
    two.b.bind_sinks(&[], at(13)).await.unwrap();
    assert_eq!(two.a.strays(at(99), 10).await.unwrap(), []);
    let strays = two.b.strays(at(99), 10).await.unwrap();
    assert_eq!(strays.len(), 1);
    let claimed = two.b.is_claimed(path.into(), Vec::new(), None);
    assert!(
        !claimed.await.unwrap(),
        "the other machine's file is none of ours"
    );
    let claimed = two.a.is_claimed(path.into(), Vec::new(), None);
    assert!(claimed.await.unwrap());
}

#[tokio::test]
async fn a_name_that_holds_an_at_sign_is_nobody_elses() {
    let (two, num) = Two::with_bot().await;
    let odd = sink("file@web-1");
    let specs = [Spec {
        declared: Declaration {
            sinks: vec![sink_name("file"), odd.name().clone()],
            ..with_id("bot", "8:acs:bot").declared
        },
        ..spec("bot")
    }];
    let sinks = [of("file", "web-1"), odd.clone()];
    two.a.reconcile(&specs, &sinks, at(20)).await.unwrap();
    settle(&two.a, odd.clone(), num).await;
    let deliveries = two.a.deliveries_of(num).await.unwrap();
    let state = |sink: &SinkAt| {
        let one = deliveries.iter().find(|one| one.sink == *sink).unwrap();
        one.is_pending()
    };
    assert_eq!((state(&odd), state(&of("file", "web-1"))), (false, true));
}

#[tokio::test]
async fn a_sink_that_no_machine_has_is_told_and_one_that_another_has_is_not() {
    let (two, _) = Two::with_bot().await;
    let specs = [with_id("bot", "8:acs:bot")];
    two.a
        .reconcile(&specs, &[sink("hook")], at(20))
        .await
        .unwrap();
    assert_eq!(two.a.of_former_sinks().await.unwrap(), [], "web-2 has it");
    two.b.bind_sinks(&[], at(21)).await.unwrap();
    let told = two.a.of_former_sinks().await.unwrap();
    assert_eq!(told[0].name, name("bot"));
}

#[tokio::test]
async fn what_a_store_of_one_kept_is_the_first_machines_own() {
    let dir = tempfile::tempdir().unwrap();
    let alone = open(dir.path()).unwrap().0;
    declare(&alone, &[with_id("bot", "8:acs:bot")], 0).await;
    let num = get(&alone, "bot").await.num;
    commit(&alone, issued(num, 10, None), 11).await;
    let version = get(&alone, "bot").await.version;
    deliver(&alone, "file", num, version).await;
    drop(alone);
    let (a, _) = join(dir.path(), "web-1");
    a.bind_sinks(&[of("file", "web-1")], at(20)).await.unwrap();
    let deliveries = a.deliveries_of(num).await.unwrap();
    assert_eq!(deliveries[0].sink, of("file", "web-1"));
    assert_eq!(deliveries[0].delivered, version, "it has it still");
}

#[tokio::test]
async fn a_hold_waits_for_machines_that_are_there_and_names_one_that_is_away() {
    let (two, num) = Two::with_bot().await;
    sql(
        &two.a,
        "INSERT INTO node (name, since, heartbeat_at, until, version, schema, digest, socket) \
         VALUES ('web-1', 0, 100, 115, '1', 1, '', ''), ('web-2', 0, 20, 35, '1', 1, '', '')",
    )
    .await;
    let revoke = NewCampaign::new(
        CampaignAction::Revoke,
        Some(Then::Hold),
        Target::Items(vec![Wanted::Row(num)]),
        Cause::ours("leaked"),
    );
    let id = two.a.create_campaign(revoke, at(20)).await.unwrap();
    let done = ItemOutcome::Done {
        at: at(21),
        request_id: None,
    };
    let cause = Cause::ours("test");
    let settled = two
        .a
        .settle_items(id, Vec::new(), &cause, vec![(num, done)], at(21));
    settled.await.unwrap();
    let state = async || {
        let report = two.a.campaign_report(id, None, false, 10).await.unwrap();
        format!("{:?}", report[0])
    };
    let follow = async |secs| {
        let followed = two.a.follow_items(id, None, 100, true, at(secs));
        followed.await.unwrap();
    };
    follow(200).await;
    assert!(state().await.contains("Delivering"), "web-1 is waited for");
    settle(&two.a, of("file", "web-1"), num).await;
    follow(30).await;
    assert!(
        state().await.contains("Delivering"),
        "web-2 may come back soon"
    );
    follow(201).await;
    let told = state().await;
    assert!(
        told.contains("not confirmed by file@web-2: the machine is away"),
        "{told}"
    );
}

#[tokio::test]
async fn a_store_that_is_no_clusters_any_more_lets_go_of_what_machines_had() {
    let (two, num) = Two::with_bot().await;
    let Two { _dir: dir, a, b } = two;
    drop((a, b));
    fs::copy(
        dir.path().join("web-1/seal.key"),
        dir.path().join("seal.key"),
    )
    .unwrap();
    let alone = open(dir.path()).unwrap().0;
    declare(&alone, &[with_id("bot", "8:acs:bot")], 21).await;
    let deliveries = alone.deliveries_of(num).await.unwrap();
    let sinks: Vec<&str> = deliveries.iter().map(|one| one.sink.as_str()).collect();
    assert_eq!(sinks, ["file"]);
}

on_postgres! {
    each_machine_has_its_own_sinks_and_leaves_those_of_others_alone
    what_one_machine_delivers_says_nothing_of_another
    a_file_that_was_left_is_taken_back_by_the_machine_where_it_lies
    a_name_that_holds_an_at_sign_is_nobody_elses
    a_sink_that_no_machine_has_is_told_and_one_that_another_has_is_not
    what_a_store_of_one_kept_is_the_first_machines_own
}
