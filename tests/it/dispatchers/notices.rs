//! Notices: who is told what, in order, once.

use super::*;

#[tokio::test(start_paused = true)]
async fn gone_disables_the_sink_and_other_sinks_are_told() {
    let harness = Harness::new(&["bot", "bot2"], &["crm", "pager"]).await;
    let pager = harness.webhook("pager", &["sink.*"]);
    let dispatcher = harness.webhook("crm", &["token.*"]);
    harness
        .receiver
        .behaves(|arrival| match arrival.kind.as_str() {
            "renewd.sink.disabled" => Manner::Answer(200),
            _ => Manner::Answer(410),
        });
    harness.issue("bot").await;
    harness.after(S * 60).await;
    harness.issue("bot2").await;
    harness.after(S * 3600).await;
    let seen = harness.receiver.seen();
    let kinds: Vec<&str> = seen.iter().map(|a| a.kind.as_str()).collect();
    assert_eq!(kinds, ["renewd.token.issued", "renewd.sink.disabled"]);
    assert!(
        dispatcher
            .view
            .borrow()
            .disabled
            .as_ref()
            .unwrap()
            .contains("410")
    );
    harness.receiver.behaves(|_| Manner::Answer(200));
    harness
        .store
        .enable_sink(&"crm".parse().unwrap(), harness.clock.now())
        .await
        .unwrap();
    harness.after(S).await;
    assert_eq!(
        (
            harness.receiver.taken("bot").len(),
            harness.receiver.taken("bot2").len()
        ),
        (1, 1)
    );
    dispatcher.stop().await;
    pager.stop().await;
}

fn notice(harness: &Harness, kind: NoticeKind, message: &str) -> Notice {
    Notice {
        at: harness.clock.now(),
        kind,
        resource: Some("contoso".parse().unwrap()),
        name: None,
        key: None,
        message: message.to_owned(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_notice_that_is_told_again_is_waited_for() {
    let harness = Harness::new(&["bot"], &["pager"]).await;
    let dispatcher = harness.webhook("pager", &["resource.*"]);
    let mut told = 0;
    harness.receiver.behaves(move |_| {
        told += 1;
        match told {
            1 => Manner::Answer(500),
            _ => Manner::Slowly(S * 8),
        }
    });
    let raised = notice(&harness, NoticeKind::ResourceUnreachable, "no answer");
    harness.store.raise(vec![raised]).await.unwrap();
    let rounds = dispatcher.rounds(S * 12).await;
    assert!(rounds < 60, "{rounds} in twelve seconds");
    let seen = harness.receiver.seen();
    assert_eq!((seen.len(), seen[1].taken), (2, true));
    dispatcher.stop().await;
}

#[tokio::test(start_paused = true)]
async fn notices_come_in_order_all_of_them_and_once() {
    let harness = Harness::new(&["bot"], &["pager"]).await;
    let dispatcher = harness.webhook("pager", &["resource.*"]);
    let mut refusals = 2;
    harness.receiver.behaves(move |_| {
        refusals -= 1;
        Manner::Answer(if refusals >= 0 { 500 } else { 200 })
    });
    let raised = [
        notice(
            &harness,
            NoticeKind::ResourceUnreachable,
            "it does not answer",
        ),
        notice(&harness, NoticeKind::KeyRejected, "not subscribed"),
        notice(&harness, NoticeKind::ResourceRecovered, "it answers"),
    ];
    harness.store.raise(raised.to_vec()).await.unwrap();
    harness.after(S * 60).await;
    dispatcher.stop().await;
    let again = harness.webhook("pager", &["resource.*"]);
    harness.after(S * 60).await;
    again.stop().await;
    let seen = harness.receiver.seen();
    let kinds: Vec<&str> = seen.iter().map(|a| a.kind.as_str()).collect();
    let (down, up) = ("renewd.resource.unreachable", "renewd.resource.recovered");
    assert_eq!(kinds, [down, down, down, up]);
    assert!(
        harness.receiver.taken("bot").is_empty(),
        "tokens are left out"
    );
    assert!(!harness.delivery("bot").await.is_pending());
}
