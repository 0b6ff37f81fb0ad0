//! From a declaration to a token in a consumer's hands, and on.

use super::*;
use crate::model::{Kind, State, Step, Then};

#[tokio::test]
async fn a_declared_identity_becomes_due_and_its_token_is_handed_over() {
    let home = Home::new();
    let told = declare(&home, &[spec("bot")], 0).await;
    assert_eq!((told.create, told.sinks), (1, 2));
    let due = home.due(&resource(), at(0), 10, &none()).await.unwrap();
    assert_eq!(due.len(), 1);
    assert_eq!(due[0].spec, spec("bot"));
    assert_eq!(due[0].state, State::New);

    let num = due[0].num;
    let applied = commit(&home, issued(num, 1, Some("8:acs:x")), 2).await;
    assert_eq!(applied, Applied::Done(Version(0).next(at(2))));
    let document = home.document(num).await.unwrap().unwrap();
    assert_eq!(document.token, Some(Secret::new(format!("canary-{num}-1"))));
    assert_eq!(document.kind, Kind::Issued);
    assert_eq!(document.renews_at, Some(at(43_201)));

    let pending = home
        .pending(&sink("file"), at(2), 10, &none())
        .await
        .unwrap();
    assert_eq!(pending.len(), 1);
    assert_eq!(pending[0].wanted, document.version);
    home.settle(vec![Settled::Delivered {
        sink: sink("file"),
        num,
        version: document.version,
    }])
    .await
    .unwrap();
    assert!(
        home.pending(&sink("file"), at(99), 10, &none())
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(
        home.next_due(&resource(), &none()).await.unwrap(),
        Some(at(43_201))
    );
}

#[tokio::test]
async fn a_token_whose_call_began_before_a_revocation_is_refused() {
    let (home, num) = active().await;
    let revoked = Step::Revoked {
        at: at(20),
        then: Then::Reissue,
    };
    let steps = vec![StepOn {
        num,
        step: revoked,
        request_id: None,
    }];
    home.step(steps, &Cause::ours("test"), at(20))
        .await
        .unwrap();
    for began in [15, 20] {
        assert_eq!(
            commit(&home, issued(num, began, None), 21).await,
            Applied::Stale
        );
    }
    assert_eq!(home.counts().await.unwrap().orphans, 2);
    version(commit(&home, issued(num, 21, None), 22).await);
    let document = home.document(num).await.unwrap().unwrap();
    assert_eq!(document.kind, Kind::Reissued);
}
