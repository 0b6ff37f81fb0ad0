//! Tokens that are dead or may be: what ACS says is gone (one at a time, many at once, by a contradiction), and
//! what a refused key minted.

use super::*;
use crate::model::{DoubtReason, KeyDoubt, Kind};

async fn fleet(count: usize) -> (Home, Vec<Num>) {
    let home = Home::new();
    let names: Vec<String> = (0..count).map(|n| format!("bot-{n:03}")).collect();
    let specs: Vec<Spec> = names
        .iter()
        .map(|n| with_id(n, &format!("8:acs:{n}")))
        .collect();
    declare(&home, &specs, 0).await;
    let mut nums = Vec::new();
    for n in &names {
        let num = get(&home, n).await.num;
        commit(&home, issued(num, 10, None), 11).await;
        nums.push(num);
    }
    (home, nums)
}

async fn gone(home: &Home, count: usize) -> usize {
    let mut gone = 0;
    for n in 0..count {
        gone += usize::from(get(home, &format!("bot-{n:03}")).await.state == State::Gone);
    }
    gone
}

async fn kinds(home: &Home) -> Vec<String> {
    let all = home.notices(0, 1000).await.unwrap();
    all.iter()
        .map(|(_, notice)| notice.kind.to_string())
        .collect()
}

#[tokio::test]
async fn many_at_once_are_held_and_a_persons_word_settles_it() {
    let (home, nums) = fleet(20).await;
    for num in &nums[..10] {
        commit(&home, said_gone(*num, 100, "gone 404"), 100).await;
    }
    for secs in [102, 200, 10_000] {
        for num in &nums[..10] {
            commit(&home, said_gone(*num, secs, "gone 404"), secs).await;
        }
    }
    assert_eq!(gone(&home, 20).await, 0, "nothing is withdrawn");
    assert!(get(&home, "bot-003").await.token.is_some());
    assert_eq!(kinds(&home).await, ["gone.held"]);
    let held = home.held_gone().await.unwrap();
    assert_eq!((held[0].count, held[0].names.len()), (10, 10));
    // One is known again.
    commit(&home, issued(nums[0], 10_100, None), 10_101).await;
    assert_eq!(home.held_gone().await.unwrap()[0].count, 9);
    let cause = Cause::ours("they were deleted by hand");
    let names = home.confirm_gone(&resource(), &cause, at(10_200)).await;
    assert_eq!(names.unwrap().len(), 9);
    assert_eq!(gone(&home, 20).await, 9);
    assert_eq!(home.held_gone().await.unwrap(), []);
    assert_eq!(kinds(&home).await, ["gone.held", "gone.settled"]);
}

#[tokio::test]
async fn a_few_are_withdrawn_one_by_one() {
    let (home, nums) = fleet(20).await;
    for (at, num) in [(100, nums[0]), (110, nums[1]), (120, nums[2])] {
        commit(&home, said_gone(num, at, "gone 404"), at).await;
        commit(&home, said_gone(num, at + 2, "gone 404"), at + 2).await;
    }
    assert_eq!(gone(&home, 20).await, 3);
    // The fourth within ten minutes is held; ten minutes later it is not.
    for secs in [130, 132] {
        commit(&home, said_gone(nums[3], secs, "gone 404"), secs).await;
    }
    assert_eq!(gone(&home, 20).await, 3);
    for secs in [900, 902] {
        commit(&home, said_gone(nums[3], secs, "gone 404"), secs).await;
    }
    assert_eq!(
        home.held_gone().await.unwrap().len(),
        1,
        "it waits for a word"
    );
}

#[tokio::test]
async fn a_resource_that_disowns_what_it_minted_withdraws_nothing() {
    let (home, nums) = fleet(2).await;
    for secs in [100, 102, 200] {
        for num in &nums {
            commit(&home, said_gone(*num, secs, "gone 401"), secs).await;
        }
    }
    assert_eq!(gone(&home, 2).await, 0);
    assert_eq!(home.held_gone().await.unwrap()[0].count, 2);
    // The right connection string is put in place: they are asked for at once.
    home.ask_held_again(&resource(), at(300)).await.unwrap();
    assert_eq!(get(&home, "bot-000").await.due.unwrap().at, at(300));
    // One that never had a token here is somebody else's: a wrong id in its declaration.
    declare(
        &home,
        &["bot-000", "bot-001", "new"].map(|n| with_id(n, &format!("8:acs:{n}"))),
        400,
    )
    .await;
    let new = get(&home, "new").await.num;
    for secs in [410, 412] {
        commit(&home, said_gone(new, secs, "gone 401"), secs).await;
    }
    assert_eq!(get(&home, "new").await.state, State::Gone);
}

#[tokio::test]
async fn one_that_is_known_again_is_revived_under_the_same_id() {
    let (home, nums) = fleet(1).await;
    let cause = Cause::ours("restored at ACS");
    let not_gone = home.revive(&name("bot-000"), &cause, at(50)).await;
    assert!(
        not_gone
            .unwrap_err()
            .to_string()
            .contains("active, not gone")
    );
    for secs in [100, 102] {
        commit(&home, said_gone(nums[0], secs, "gone 404"), secs).await;
    }
    assert_eq!(get(&home, "bot-000").await.state, State::Gone);
    home.revive(&name("bot-000"), &cause, at(110))
        .await
        .unwrap();
    let row = get(&home, "bot-000").await;
    assert_eq!((row.state, row.due.unwrap().at), (State::New, at(110)));
    assert_eq!(row.id.unwrap().as_str(), "8:acs:bot-000");
    commit(&home, issued(nums[0], 111, None), 112).await;
    assert_eq!(get(&home, "bot-000").await.state, State::Active);
}

#[tokio::test]
async fn what_is_withdrawn_by_order_or_let_go_of_is_asked_for_no_more() {
    let (home, nums) = fleet(20).await;
    for num in &nums[..5] {
        commit(&home, said_gone(*num, 100, "gone 404"), 100).await;
    }
    assert_eq!(kinds(&home).await, ["gone.held"]);
    let cause = Cause::ours("drill");
    for (num, step) in nums[..4].iter().zip([
        Step::Withhold,
        Step::Deleted { at: at(101) },
        Step::Withhold,
        Step::Deleted { at: at(101) },
    ]) {
        let step = StepOn {
            num: *num,
            step,
            request_id: None,
        };
        home.step(vec![step], &cause, at(101)).await.unwrap();
    }
    assert_eq!(home.held_gone().await.unwrap()[0].count, 1);
    let forgotten = vec![name("bot-004")];
    home.remove(forgotten, Some(OnRemoval::Forget), at(102))
        .await
        .unwrap();
    home.prune(10, at(103)).await.unwrap();
    assert_eq!(home.held_gone().await.unwrap(), []);
    assert_eq!(kinds(&home).await, ["gone.held", "gone.settled"]);
}

/// Three identities with tokens of `key1`, the third with the earliest end, and one that failed.
async fn minted() -> (Home, Vec<Num>) {
    let home = Home::new();
    let specs = ["a", "b", "c", "d"].map(|n| with_id(n, &format!("8:acs:{n}")));
    declare(&home, &specs, 0).await;
    let mut nums = Vec::new();
    for (n, at) in [("a", 30), ("b", 20), ("c", 10), ("d", 40)] {
        let num = get(&home, n).await.num;
        commit(&home, issued(num, at, None), at).await;
        nums.push(num);
    }
    (home, nums)
}

async fn hasten(home: &Home, secs: i64) -> u64 {
    let of = resource();
    let page = home.hasten_doubtful(&of, "key1", 0, 100, at(secs));
    page.await.unwrap().marked
}

async fn due(home: &Home, secs: i64) -> Vec<Num> {
    let (of, skip) = (resource(), none());
    let due = home.due(&of, Work::Issue, at(secs), 100, &skip);
    due.await.unwrap().iter().map(|row| row.num).collect()
}

#[tokio::test]
async fn doubtful_tokens_go_before_all_others_the_earliest_end_first_and_back_to_their_own_time() {
    let (home, nums) = minted().await;
    // One without a token at all, which went first until now.
    declare(
        &home,
        &["a", "b", "c", "d", "e"].map(|n| with_id(n, &format!("8:acs:{n}"))),
        50,
    )
    .await;
    let e = get(&home, "e").await.num;
    assert_eq!(due(&home, 100).await, [e]);
    assert_eq!(hasten(&home, 100).await, 4);
    assert_eq!(hasten(&home, 101).await, 0, "once is enough");
    assert_eq!(
        due(&home, 100).await,
        [nums[2], nums[1], nums[0], nums[3], e]
    );
    assert_eq!(get(&home, "c").await.due.unwrap().why, DueReason::KeyChange);
    let ends = home.earliest_expiry().await.unwrap();
    assert_eq!(ends[&resource()], at(86_410), "it may be good after all");

    // One is replaced by another key meanwhile; the key is accepted again.
    let mut other = issued(nums[2], 110, None);
    if let Change::Issued { token, .. } = &mut other {
        token.meta.minted_by = "key2".to_owned();
    }
    commit(&home, other, 111).await;
    let of = resource();
    let page = home.spare_doubtful(&of, "key1", 0, 100, at(120));
    assert_eq!(page.await.unwrap().marked, 3);
    assert_eq!(due(&home, 120).await, [e]);
    assert_eq!(get(&home, "a").await.due.unwrap().at, at(43_230));
}

#[tokio::test]
async fn what_failed_lately_keeps_its_distance_and_what_was_refused_its_own_time() {
    let (home, nums) = minted().await;
    for (num, result) in [(nums[0], "retry 500"), (nums[1], "refuse 400")] {
        let failed = Change::Failed {
            blame: crate::model::Blame::Row,
            num,
            attempt: attempt(99, result),
            due: Due {
                at: at(400),
                why: DueReason::Retry,
            },
        };
        commit(&home, failed, 99).await;
    }
    step(&home, nums[3], revoked(99, Then::Reissue), 99).await;
    assert_eq!(hasten(&home, 100).await, 3);
    let when = async |n: &str| get(&home, n).await.due.unwrap();
    assert_eq!(when("a").await.at, at(104), "5 s after its last attempt");
    assert_eq!(when("b").await.at, at(400), "it would be refused again");
    let d = get(&home, "d").await;
    assert!(d.revoked && d.due.unwrap().why == DueReason::Revoked);
}

#[tokio::test]
async fn keys_that_are_no_longer_configured_are_found_and_forgotten_when_done_with() {
    let (home, nums) = minted().await;
    let take = async |keys: &[&str], secs| {
        let keys = keys.iter().map(|&key| key.to_owned()).collect();
        home.take_keys(&resource(), keys, at(secs)).await.unwrap()
    };
    assert_eq!(take(&["key1", "key2"], 100).await, []);
    let doubts = take(&["key2"], 100).await;
    assert_eq!(
        doubts,
        [KeyDoubt {
            fingerprint: "key1".to_owned(),
            role: None,
            why: DoubtReason::Unconfigured,
            since: at(100),
            told: false,
            tokens: 4,
            first_end: Some(at(86_410)),
        }]
    );
    for num in nums {
        let mut other = issued(num, 110, None);
        if let Change::Issued { token, .. } = &mut other {
            token.meta.minted_by = "key2".to_owned();
        }
        commit(&home, other, 111).await;
    }
    assert_eq!(take(&["key2"], 120).await, []);
}

#[tokio::test]
async fn what_a_bearer_minted_hangs_on_no_key_and_on_no_other_bearer() {
    let (home, nums) = minted().await;
    let by = |num, secs, minter: &str| {
        let mut other = issued(num, secs, None);
        if let Change::Issued { token, .. } = &mut other {
            token.meta.minted_by = minter.to_owned();
        }
        other
    };
    for num in &nums[1..] {
        commit(&home, by(*num, 100, "entra:me"), 101).await;
    }
    let take = async |minter: &str, secs| {
        let resource = resource();
        let doubts = home.take_keys(&resource, vec![minter.to_owned()], at(secs));
        let doubts = doubts.await.unwrap().into_iter();
        doubts
            .map(|doubt| (doubt.fingerprint, doubt.tokens))
            .collect::<Vec<_>>()
    };
    let of_key = [("key1".to_owned(), 1)];
    assert_eq!(take("entra:other", 110).await, of_key, "it has no keys now");
    assert_eq!(take("key2", 111).await, of_key, "it has other keys now");
    let kind = async || home.document(nums[1]).await.unwrap().unwrap().kind;
    commit(&home, by(nums[1], 120, "entra:other"), 121).await;
    assert_eq!(kind().await, Kind::Renewed);
    commit(&home, by(nums[1], 130, "key2"), 131).await;
    assert_eq!(kind().await, Kind::Renewed);
    commit(&home, by(nums[1], 140, "entra:me"), 141).await;
    assert_eq!(
        kind().await,
        Kind::Reissued,
        "the tokens of a key may be dead"
    );
}

on_postgres! {
    many_at_once_are_held_and_a_persons_word_settles_it
    a_few_are_withdrawn_one_by_one
    a_resource_that_disowns_what_it_minted_withdraws_nothing
    one_that_is_known_again_is_revived_under_the_same_id
    what_is_withdrawn_by_order_or_let_go_of_is_asked_for_no_more
    doubtful_tokens_go_before_all_others_the_earliest_end_first_and_back_to_their_own_time
    what_failed_lately_keeps_its_distance_and_what_was_refused_its_own_time
    keys_that_are_no_longer_configured_are_found_and_forgotten_when_done_with
    what_a_bearer_minted_hangs_on_no_key_and_on_no_other_bearer
}
