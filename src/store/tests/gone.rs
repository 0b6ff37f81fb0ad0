//! What ACS says is gone: one at a time, many at once, and by a contradiction.

use super::*;

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
