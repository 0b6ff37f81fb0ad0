//! Notices: who is told what, in order, once.

use super::*;

#[tokio::test(start_paused = true)]
async fn gone_disables_the_sink_and_other_sinks_are_told() {
    let house = House::new(&["bot", "bot2"], &["crm", "pager"]).await;
    let pager = house.webhook("pager", &["sink.*"]);
    let courier = house.webhook("crm", &["token.*"]);
    house
        .receiver
        .behaves(|arrival| match arrival.kind.as_str() {
            "renewd.sink.disabled" => Manner::Answer(200),
            _ => Manner::Answer(410),
        });
    house.issue("bot").await;
    house.after(S * 60).await;
    house.issue("bot2").await;
    house.after(S * 3600).await;
    let seen = house.receiver.seen();
    let kinds: Vec<&str> = seen.iter().map(|a| a.kind.as_str()).collect();
    assert_eq!(kinds, ["renewd.token.issued", "renewd.sink.disabled"]);
    assert!(
        courier
            .view
            .borrow()
            .disabled
            .as_ref()
            .unwrap()
            .contains("410")
    );
    house.receiver.behaves(|_| Manner::Answer(200));
    house
        .store
        .enable_sink(&"crm".parse().unwrap(), house.clock.now())
        .await
        .unwrap();
    house.after(S).await;
    assert_eq!(
        (
            house.receiver.taken("bot").len(),
            house.receiver.taken("bot2").len()
        ),
        (1, 1)
    );
    courier.stop().await;
    pager.stop().await;
}

fn notice(house: &House, kind: NoticeKind, message: &str) -> Notice {
    Notice {
        at: house.clock.now(),
        kind,
        resource: Some("contoso".parse().unwrap()),
        name: None,
        key: None,
        message: message.to_owned(),
    }
}

#[tokio::test(start_paused = true)]
async fn notices_come_in_order_all_of_them_and_once() {
    let house = House::new(&["bot"], &["pager"]).await;
    let courier = house.webhook("pager", &["resource.*"]);
    let mut refusals = 2;
    house.receiver.behaves(move |_| {
        refusals -= 1;
        Manner::Answer(if refusals >= 0 { 500 } else { 200 })
    });
    let raised = [
        notice(
            &house,
            NoticeKind::ResourceUnreachable,
            "it does not answer",
        ),
        notice(&house, NoticeKind::KeyRejected, "not subscribed"),
        notice(&house, NoticeKind::ResourceRecovered, "it answers"),
    ];
    house.store.raise(raised.to_vec()).await.unwrap();
    house.after(S * 60).await;
    courier.stop().await;
    let again = house.webhook("pager", &["resource.*"]);
    house.after(S * 60).await;
    again.stop().await;
    let seen = house.receiver.seen();
    let kinds: Vec<&str> = seen.iter().map(|a| a.kind.as_str()).collect();
    let (down, up) = ("renewd.resource.unreachable", "renewd.resource.recovered");
    assert_eq!(kinds, [down, down, down, up]);
    assert!(
        house.receiver.taken("bot").is_empty(),
        "tokens are left out"
    );
    assert!(!house.delivery("bot").await.is_pending());
}
