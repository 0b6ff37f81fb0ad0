//! Tokens that may be dead because of their key.

use super::*;
use crate::model::{DoubtReason, KeyDoubt};

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
