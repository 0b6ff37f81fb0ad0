//! Files that nobody speaks of any more, whatever let go of them.

use super::*;
use crate::model::Placed;

fn file(path: &str, content: u8) -> Placed {
    Placed {
        path: path.into(),
        digest: [content; 32],
    }
}

async fn place(store: &Store, num: Num, placed: Option<Placed>) {
    let sink = sink("file");
    store
        .settle(vec![Settled::Placed { sink, num, placed }])
        .await
        .unwrap();
}

async fn strays(store: &Store) -> Vec<(String, u8, Option<String>)> {
    let found = store.strays(at(9999), 100).await.unwrap();
    found
        .into_iter()
        .map(|stray| {
            let path = stray.placed.path.display().to_string();
            let name = stray.name.map(|name| name.to_string());
            (path, stray.placed.digest[0], name)
        })
        .collect()
}

#[tokio::test]
async fn a_renewed_file_is_no_stray_and_a_moved_one_is() {
    let (home, num) = active().await;
    for (path, content) in [("/run/a", 1), ("/run/a", 2), ("/run/b", 3)] {
        place(&home, num, Some(file(path, content))).await;
    }
    let expected = [("/run/a".to_owned(), 2, Some("bot".to_owned()))];
    assert_eq!(strays(&home).await, expected);
    place(&home, num, None).await;
    assert_eq!(strays(&home).await, expected, "what we removed is gone");
}

#[tokio::test]
async fn whatever_lets_go_of_a_row_leaves_a_stray() {
    let (home, num) = active().await;
    place(&home, num, Some(file("/run/a", 1))).await;
    let mut signal = home.wanted_signal();
    signal.mark_unchanged();
    home.reconcile(&[], &[], at(50)).await.unwrap();
    assert!(signal.has_changed().unwrap(), "somebody is told");
    let found = home.strays(at(50), 10).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].resource.as_ref().unwrap().as_str(), "contoso");
    let claimed = |by: Vec<SinkName>, name: &str| {
        home.is_claimed("/run/a".into(), by, Some(name.parse().unwrap()))
    };
    assert!(!claimed(vec![sink("file")], "bot").await.unwrap());
    let later = vec![(found[0].num, Some(at(500)))];
    home.settle_strays(later).await.unwrap();
    assert!(home.strays(at(499), 10).await.unwrap().is_empty());
    home.settle_strays(vec![(found[0].num, None)])
        .await
        .unwrap();
    assert!(strays(&home).await.is_empty());
}

#[tokio::test]
async fn a_file_that_is_served_again_is_claimed() {
    let (home, num) = active().await;
    let claimed = |path: &str, by: Vec<SinkName>, name: Option<&str>| {
        home.is_claimed(path.into(), by, name.map(|name| name.parse().unwrap()))
    };
    let by = || vec![sink("file")];
    assert!(claimed("/run/a", by(), Some("bot")).await.unwrap());
    assert!(claimed("/run/a", by(), None).await.unwrap());
    assert!(!claimed("/run/a", by(), Some("other")).await.unwrap());
    assert!(!claimed("/run/a", Vec::new(), Some("bot")).await.unwrap());
    place(&home, num, Some(file("/run/a", 1))).await;
    assert!(claimed("/run/a", Vec::new(), None).await.unwrap());
}

#[tokio::test]
async fn a_bundle_and_single_files_replace_each_other() {
    let (home, num) = active().await;
    place(&home, num, Some(file("/run/a", 1))).await;
    let bundle = file("/run/all", 2);
    home.place_bundle(&sink("file"), Some(bundle.clone()))
        .await
        .unwrap();
    assert_eq!(home.bundle_of(&sink("file")).await.unwrap(), Some(bundle));
    assert_eq!(strays(&home).await.len(), 1, "the single file");
    home.leave_bundle(&sink("file")).await.unwrap();
    assert_eq!(strays(&home).await[1], ("/run/all".to_owned(), 2, None));
    home.place_bundle(&sink("file"), Some(file("/run/all", 3)))
        .await
        .unwrap();
    home.place_bundle(&sink("file"), None).await.unwrap();
    assert_eq!(strays(&home).await.len(), 2, "removed by ourselves");
}
