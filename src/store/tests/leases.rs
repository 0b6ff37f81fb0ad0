//! Several machines on one store: the lease, the fence, and what they hear of each other.

use super::*;
use crate::{
    clock::Clock,
    config::{LoadedSecret, SecretRef},
    model::{Beat, DutySeen, NodeName, Operation},
};

/// Three machines with folders of their own on one database, whose clock is simulated.
struct Cluster {
    _dir: TempDir,
    clock: Clock,
    links: Vec<Link>,
    nodes: Vec<Store>,
}

fn node(n: usize) -> NodeName {
    format!("web-{n}").parse().unwrap()
}

impl Cluster {
    fn new(count: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::simulated(at(0));
        let (links, nodes) = (0..count)
            .map(|n| {
                let settings = StoreSettings {
                    node: Some(node(n)),
                    seal_key: Some(LoadedSecret {
                        from: SecretRef::Credential("seal-key".to_owned()),
                        secret: Secret::new("07".repeat(32)),
                    }),
                    ..settings(dir.path())
                };
                let own = dir.path().join(format!("web-{n}"));
                let (store, _) = Store::open_inline(&settings, &own, at(0)).unwrap();
                let link = Link::to(clock.clone());
                store.reached_by(link.clone());
                (link, store)
            })
            .unzip();
        Self {
            _dir: dir,
            clock,
            links,
            nodes,
        }
    }

    async fn beat(&self, n: usize, epoch: Option<u64>) -> DutySeen {
        self.nodes[n].beat(beat(n, epoch)).await.unwrap()
    }

    async fn take(&self, n: usize, had: Option<u64>) -> DutySeen {
        let now = self.clock.now();
        self.nodes[n].take_duty(&node(n), had, now).await.unwrap()
    }

    async fn pass(&self, secs: u64) {
        tokio::time::sleep(Duration::from_secs(secs)).await;
    }
}

fn beat(n: usize, epoch: Option<u64>) -> Beat {
    Beat {
        node: node(n),
        since: at(0),
        epoch,
        offset_ms: 0,
        digest: "same".to_owned(),
        socket: "/run/renewd/renewd.sock".to_owned(),
        lacks: 0,
    }
}

#[tokio::test(start_paused = true)]
async fn the_lease_is_taken_when_it_has_run_out_and_not_before() {
    let cluster = Cluster::new(2);
    for n in 0..2 {
        let seen = cluster.beat(n, None).await;
        assert_eq!((seen.epoch, seen.holder, seen.renewed), (0, None, false));
    }
    let taken = cluster.take(0, None).await;
    assert_eq!(
        (taken.epoch, taken.holder, taken.renewed),
        (1, Some(node(0)), true)
    );
    cluster.pass(10).await;
    assert!(cluster.beat(0, Some(1)).await.renewed);
    cluster.pass(14).await;
    let refused = cluster.take(1, None).await;
    assert_eq!(
        (refused.holder, refused.renewed),
        (Some(node(0)), false),
        "a second is left"
    );
    cluster.pass(1).await;
    assert!(
        !cluster.beat(0, Some(1)).await.renewed,
        "what ran out is not renewed"
    );
    let goes_on = cluster.take(0, Some(1)).await;
    assert_eq!(
        (goes_on.epoch, goes_on.renewed),
        (1, true),
        "nobody led meanwhile"
    );
    cluster.pass(15).await;
    let taken = cluster.take(1, None).await;
    assert_eq!((taken.epoch, taken.holder), (2, Some(node(1))));
    assert!(!cluster.take(0, Some(1)).await.renewed);
    // Given up, it is taken at once; by whom it was not given to, it cannot be given up.
    let now = cluster.clock.now();
    cluster.nodes[0]
        .yield_duty(&node(0), 1, "a test", now)
        .await
        .unwrap();
    assert_eq!(cluster.beat(0, None).await.holder, Some(node(1)));
    cluster.nodes[1]
        .yield_duty(&node(1), 2, "a test", now)
        .await
        .unwrap();
    assert_eq!(cluster.take(0, None).await.epoch, 3);
    let trail = cluster.nodes[0].audit_trail(AuditQuery {
        limit: 9,
        ..AuditQuery::default()
    });
    let actions: Vec<String> = trail
        .await
        .unwrap()
        .into_iter()
        .map(|entry| entry.action)
        .collect();
    assert_eq!(actions, ["take-over", "yield", "take-over", "take-over"]);
}

#[tokio::test(start_paused = true)]
async fn what_an_earlier_leader_writes_is_refused_and_nothing_of_it_is_written() {
    let cluster = Cluster::new(2);
    for n in 0..2 {
        cluster.beat(n, None).await;
    }
    cluster.take(0, None).await;
    let former = cluster.nodes[0].leading(1);
    declare(&former, &[with_id("bot", "8:acs:bot")], 0).await;
    let num = get(&former, "bot").await.num;
    commit(&former, issued(num, 10, None), 11).await;
    cluster.pass(15).await;
    cluster.take(1, None).await;
    let refused = former.commit(vec![issued(num, 20, None)], at(21)).await;
    assert!(
        matches!(refused, Err(StoreError::NotLeader { .. })),
        "{refused:?}"
    );
    let error = refused.unwrap_err();
    assert!(!error.is_about_what_was_written() && !error.is_unwritable());
    let before = get(&cluster.nodes[1], "bot").await;
    assert_eq!(before.token.as_ref().unwrap().issued_at, at(10));
    // A command on any machine is written, and so is what the new leader does; versions go on.
    let held = step(&cluster.nodes[0], num, Step::Withhold, 22).await;
    let released = step(&cluster.nodes[1], num, Step::Release, 22).await;
    let issued = commit(&cluster.nodes[1].leading(2), issued(num, 30, None), 31).await;
    assert!(before.version < held && held <= released && released < version(issued));
}

#[tokio::test(start_paused = true)]
async fn each_machine_hears_what_the_others_changed_in_order_and_once() {
    let cluster = Cluster::new(3);
    let [one, two, three] = &cluster.nodes[..] else {
        unreachable!()
    };
    let (mut due, mut wanted) = (two.due_signal(), two.wanted_signal());
    declare(
        one,
        &[with_id("anna", "8:acs:a"), with_id("bert", "8:acs:b")],
        0,
    )
    .await;
    assert!(!due.has_changed().unwrap());
    two.heed_others(at(0)).await.unwrap();
    assert!(due.has_changed().unwrap(), "there is something to renew");
    let (anna, bert) = (get(one, "anna").await.num, get(one, "bert").await.num);
    let start = two.seq();
    commit(one, issued(anna, 10, None), 11).await;
    commit(three, issued(bert, 10, None), 11).await;
    wanted.mark_unchanged();
    // Its own change is told behind those that came before it, without a look in between.
    step(two, anna, Step::Withhold, 12).await;
    assert!(wanted.has_changed().unwrap());
    let names = |store: &Store| -> Vec<(u64, String)> {
        let changes = store.changes_after(start).unwrap();
        changes
            .into_iter()
            .map(|one| (one.seq, one.name.to_string()))
            .collect()
    };
    let heard = names(two);
    assert_eq!(
        heard
            .iter()
            .map(|(_, name)| name.as_str())
            .collect::<Vec<_>>(),
        ["anna", "bert", "anna"]
    );
    assert!(heard.is_sorted());
    for store in [one, three] {
        store.heed_others(at(0)).await.unwrap();
        store.heed_others(at(0)).await.unwrap();
        assert_eq!(names(store), heard);
    }
    // What was dropped meanwhile is known to be missing.
    sql(one, "DELETE FROM change").await;
    step(one, anna, Step::Release, 13).await;
    sql(one, "DELETE FROM change").await;
    due.mark_unchanged();
    three.heed_others(at(0)).await.unwrap();
    assert_eq!(three.changes_after(start), None);
    assert_eq!(three.seq(), one.seq());
}

#[tokio::test(start_paused = true)]
async fn changes_are_kept_until_each_machine_has_seen_them() {
    let cluster = Cluster::new(2);
    for n in 0..2 {
        cluster.beat(n, None).await;
    }
    let [one, two] = &cluster.nodes[..] else {
        unreachable!()
    };
    declare(one, &[with_id("anna", "8:acs:a")], 0).await;
    let kept = || number(one, "SELECT count(*) FROM change");
    let made = kept().await;
    assert!(made > 0);
    cluster.pass(120).await;
    cluster.beat(0, None).await;
    cluster.beat(1, None).await;
    one.prune_changes().await.unwrap();
    assert_eq!(kept().await, made, "one has not looked yet");
    two.heed_others(at(0)).await.unwrap();
    cluster.beat(1, None).await;
    one.prune_changes().await.unwrap();
    assert_eq!(kept().await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_is_there_is_not_forgotten_and_a_later_process_has_its_name() {
    let cluster = Cluster::new(2);
    cluster.beat(0, None).await;
    cluster.beat(1, None).await;
    let (store, cause) = (&cluster.nodes[0], Cause::ours("a test"));
    let refused = store
        .forget_node(&node(1), &cause, at(0))
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("web-1 is there"), "{refused}");
    assert!(
        store
            .drain_node(&node(1), true, &cause, at(0))
            .await
            .unwrap()
    );
    assert!(
        !store
            .drain_node(&"web-9".parse().unwrap(), true, &cause, at(0))
            .await
            .unwrap()
    );
    let rows = store.nodes().await.unwrap();
    assert!(rows[1].alive && rows[1].drained_at.is_some() && !rows[1].leads);
    let later = Beat {
        since: at(5),
        ..beat(1, None)
    };
    assert!(!cluster.nodes[1].beat(later).await.unwrap().displaced);
    assert!(cluster.beat(1, None).await.displaced);
    cluster.pass(15).await;
    assert!(store.forget_node(&node(1), &cause, at(0)).await.unwrap());
    assert_eq!(store.nodes().await.unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_name_goes_back_to_who_had_it_once_the_other_process_is_gone() {
    let cluster = Cluster::new(2);
    cluster.beat(1, None).await;
    let later = Beat {
        since: at(5),
        ..beat(1, None)
    };
    assert!(!cluster.nodes[1].beat(later).await.unwrap().displaced);
    assert!(cluster.beat(1, None).await.displaced);
    cluster.pass(16).await;
    assert!(!cluster.beat(1, None).await.displaced);
    let rows = cluster.nodes[0].nodes().await.unwrap();
    assert!(rows.iter().any(|row| row.name == node(1) && row.alive));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_lost_is_done_all_the_same() {
    let cluster = Cluster::new(1);
    cluster.beat(0, None).await;
    cluster.links[0].lose(1);
    let now = cluster.clock.now();
    let lost = cluster.nodes[0].take_duty(&node(0), None, now).await;
    assert!(lost.unwrap_err().is_unwritable());
    assert_eq!(cluster.beat(0, None).await.holder, Some(node(0)));
    cluster.links[0].cut(true);
    assert!(cluster.nodes[0].nodes().await.unwrap_err().is_unwritable());
    cluster.links[0].cut(false);
    assert_eq!(cluster.nodes[0].nodes().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_store_of_one_writes_nothing_of_all_this() {
    let (home, _) = active().await;
    for table in ["node", "change"] {
        let sql = match table {
            "node" => "SELECT count(*) FROM node",
            _ => "SELECT count(*) FROM change",
        };
        assert_eq!(number(&home, sql).await, 0, "{table}");
    }
    assert_eq!(number(&home, "SELECT epoch FROM duty").await, 0);
    let led = home.leading(3);
    assert_eq!(led.epoch(), None, "there is nobody to keep out");
    assert_eq!(get(&led, "bot").await.state, State::Active);
}

#[tokio::test(start_paused = true)]
async fn what_a_former_leader_left_called_is_answered_until_it_cannot_come_any_more() {
    let cluster = Cluster::new(2);
    for n in 0..2 {
        cluster.beat(n, None).await;
    }
    cluster.take(0, None).await;
    let former = cluster.nodes[0].leading(1);
    declare(
        &former,
        &[with_id("bot", "8:acs:bot"), with_id("other", "8:acs:other")],
        0,
    )
    .await;
    let num = get(&former, "bot").await.num;
    let cause = Cause::ours("a test");
    let target = Target::Items(vec![Wanted::Row(num)]);
    let new = NewCampaign::new(CampaignAction::Revoke, Some(Then::Reissue), target, cause);
    let id = former.create_campaign(new, at(1)).await.unwrap();
    while former.expand(id, 100, at(1)).await.unwrap() == Frozen::More {}
    let called = std::sync::Arc::new(vec![ItemNote::Called(id, num)]);
    former
        .note_items(&resource(), called.clone(), at(10))
        .await
        .unwrap();
    cluster.pass(15).await;
    cluster.take(1, None).await;
    let refused = former.note_items(&resource(), called.clone(), at(11)).await;
    assert!(
        matches!(refused, Err(StoreError::NotLeader { .. })),
        "a late call is not made"
    );
    let leader = cluster.nodes[1].leading(2);
    leader.take_over_left(at(20)).await.unwrap();
    for due in (1..=11).map(|times| 10 + 30 * times) {
        assert!(leader.late_calls(at(due - 1)).await.unwrap().is_empty());
        assert_eq!(leader.late_calls(at(due)).await.unwrap(), [num]);
        leader.late_calls_answered(vec![num]).await.unwrap();
        assert!(leader.late_calls(at(due)).await.unwrap().is_empty());
    }
    assert!(leader.late_calls(at(100_000)).await.unwrap().is_empty());
    // What the leader itself calls is no former leader's.
    leader
        .note_items(&resource(), called, at(400))
        .await
        .unwrap();
    leader.take_over_left(at(401)).await.unwrap();
    assert!(leader.late_calls(at(100_000)).await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_was_noted_of_calls_counts_as_long_by_another_clock() {
    let cluster = Cluster::new(2);
    // The second machine's clock is ten minutes ahead.
    let ahead = Beat {
        offset_ms: 600_000,
        ..beat(1, None)
    };
    cluster.beat(0, None).await;
    cluster.nodes[1].beat(ahead).await.unwrap();
    cluster.nodes[1].is_ahead(600_000);
    let window = vec![(7, at(30))];
    let (first, contoso) = (&cluster.nodes[0], resource());
    let noted = first.reserve(&contoso, Operation::Issue, window);
    noted.await.unwrap();
    let hold = first.note_hold(&contoso, Operation::Issue, (at(40), 500));
    hold.await.unwrap();
    let read = cluster.nodes[1].reservations(&resource()).await.unwrap();
    assert_eq!(read, [(Operation::Issue, 7, at(630))]);
    let hold = cluster.nodes[1]
        .hold(&resource(), Operation::Issue)
        .await
        .unwrap();
    assert_eq!(hold, Some((at(640), 500)));
    let own = cluster.nodes[0].reservations(&resource()).await.unwrap();
    assert_eq!(own, [(Operation::Issue, 7, at(30))]);
}

/// What came after another machine took over is not lost: an id goes to its row, what nobody knows is listed.
#[tokio::test(start_paused = true)]
async fn what_a_former_leader_obtained_is_listed_or_given_to_its_row() {
    let cluster = Cluster::new(2);
    let [former, leader] = [&cluster.nodes[0], &cluster.nodes[1]];
    cluster.beat(0, None).await;
    cluster.beat(1, None).await;
    cluster.take(0, None).await;
    let ours = former.leading(1);
    declare(
        &ours,
        &[with_id("old", "8:acs:old"), spec("new"), spec("made")],
        0,
    )
    .await;
    let num = async |name: &str| get(leader, name).await.num;
    let (old, new, made) = (num("old").await, num("new").await, num("made").await);
    ours.intend_creations(vec![new, made], at(10))
        .await
        .unwrap();
    cluster.pass(20).await;
    cluster.beat(1, None).await;
    cluster.take(1, None).await;
    assert_eq!(leader.take_over_left(at(30)).await.unwrap(), 2);
    // The one who leads now makes one of them by itself.
    let theirs = leader.leading(2);
    commit(&theirs, issued(made, 31, Some("8:acs:theirs")), 32).await;
    let late = vec![
        issued(old, 11, None),
        issued(new, 11, Some("8:acs:new")),
        issued(made, 11, Some("8:acs:ours")),
    ];
    let refused = ours.commit(late.clone(), at(40)).await;
    assert!(matches!(refused, Err(StoreError::NotLeader { .. })));
    former.disown(late, at(40)).await.unwrap();
    let found = get(leader, "new").await;
    assert_eq!(found.id.unwrap().as_str(), "8:acs:new");
    assert_eq!(
        get(leader, "made").await.id.unwrap().as_str(),
        "8:acs:theirs"
    );
    let orphans = leader.orphans(0, 9).await.unwrap();
    let listed = orphans.iter().map(|one| {
        let id = one.id.as_ref().map(ToString::to_string).unwrap_or_default();
        format!("{} {} {id}", one.kind, one.name)
    });
    let mut listed: Vec<String> = listed.collect();
    listed.sort();
    assert_eq!(
        listed,
        [
            "identity made 8:acs:ours",
            "token new 8:acs:new",
            "token old 8:acs:old"
        ],
        "and no creation of which nothing is known"
    );
}
