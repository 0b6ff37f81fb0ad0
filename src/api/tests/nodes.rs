//! What the socket of one machine of a cluster says of sinks: its own, and those of others, by the name that is printed.

use super::*;
use crate::model::SinkAt;

fn files(node: &str) -> SinkAt {
    SinkAt::new("files".parse().unwrap(), Some(node.parse().unwrap()))
}

/// Anna and Bert on web-1, whose sink is `files`, as that of web-2 is.
async fn two() -> Harness {
    let mut settings = None;
    let harness = harness_with(|ours, _| {
        ours.node = Some("web-1".parse().unwrap());
        settings = Some(ours.clone());
    })
    .await;
    let (now, folder) = (harness.clock.now(), harness._folder.path());
    let specs = [spec(ANNA), spec(BERT)];
    let ours = [files("web-1")];
    harness.store.reconcile(&specs, &ours, now).await.unwrap();
    let other = folder.join("web-2");
    std::fs::create_dir(&other).unwrap();
    std::fs::copy(folder.join("seal.key"), other.join("seal.key")).unwrap();
    let settings = StoreSettings {
        node: Some("web-2".parse().unwrap()),
        ..settings.unwrap()
    };
    let (store, _) = Store::open_inline(&settings, &other, now).unwrap();
    store.bind_sinks(&[files("web-2")], now).await.unwrap();
    harness.change(|shared_state| {
        let dispatcher = harness.dispatcher.subscribe();
        shared_state.dispatchers = BTreeMap::from([(files("web-1"), dispatcher)]);
    });
    harness
}

#[tokio::test(start_paused = true)]
async fn sinks_of_all_machines_are_listed_and_each_is_told_by_its_printed_name() {
    let harness = two().await;
    let sinks = async |target: &str| {
        let rows = harness.get(admin(), target, &[]).await.json();
        let rows = rows["items"].as_array().unwrap().clone();
        let names = rows
            .iter()
            .map(|row| row["sink"].as_str().unwrap().to_owned());
        names.collect::<Vec<_>>()
    };
    let all = sinks("/v1/deliveries").await;
    assert_eq!(all, ["files@web-1", "files@web-2"]);
    assert_eq!(sinks("/v1/deliveries?sink=files").await, ["files@web-1"]);
    let other = sinks("/v1/deliveries?sink=files@web-2").await;
    assert_eq!(other, ["files@web-2"]);

    let paused = harness
        .send("POST", "/v1/sinks/files@web-2/pause", "{}")
        .await;
    assert_eq!(paused.status, 200, "{}", paused.text);
    let disabled = async |node| harness.store.sink_disabled(&files(node)).await.unwrap();
    assert!(disabled("web-2").await.is_some());
    assert_eq!(disabled("web-1").await, None);
    let tested = harness
        .send("POST", "/v1/sinks/files@web-2/test", "{}")
        .await;
    assert_eq!(tested.status, 409);
    assert!(tested.text.contains("test it there"), "{}", tested.text);
    let unknown = harness.send("POST", "/v1/sinks/crm/pause", "{}").await;
    assert!(
        unknown.text.contains("there are: files@web-1, files@web-2"),
        "{}",
        unknown.text
    );

    let status = harness.get(admin(), "/v1/status", &[]).await.json();
    let consumers = status["consumers"]["sinks"].as_object().unwrap();
    let named: Vec<&String> = consumers.keys().collect();
    assert_eq!(named, ["files@web-1", "files@web-2"]);
    let metrics = harness.tcp("/metrics").await.text;
    assert!(
        metrics.contains("renewd_deliveries_pending{sink=\"files@web-1\"} 1"),
        "{metrics}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_identity_may_name_a_sink_that_only_another_machine_has() {
    let harness = two().await;
    harness.change(|shared_state| {
        shared_state.dispatchers.clear();
        shared_state.sinks.clear();
    });
    let body = r#"{"name":"carl","scopes":["chat"],"sinks":["files"]}"#;
    let added = harness.send("POST", "/v1/identities", body).await;
    assert_eq!(added.status, 201, "{}", added.text);
    let body = r#"{"name":"dora","scopes":["chat"],"sinks":["nowhere"]}"#;
    let refused = harness.send("POST", "/v1/identities", body).await;
    assert!(
        refused.text.contains("there is no sink nowhere"),
        "{}",
        refused.text
    );
}
