use super::{
    client::{Client, ClientError, DeliveryTable, TokenForm},
    *,
};
use tokio_util::sync::CancellationToken;

/// The daemon's listeners and a client of the command line, over real sockets.
#[tokio::test]
async fn the_client_and_the_listeners_understand_each_other() {
    let harness = harness().await;
    let mut daemon = harness.api.shared_state().daemon.clone();
    daemon.listen = Some("127.0.0.1:0".parse().unwrap());
    let listeners = Listeners::bind(&daemon, (None, None)).await.unwrap();
    let address = listeners.tcp_address().unwrap();
    let stop = CancellationToken::new();
    let served = listeners.serve(harness.api.clone(), stop.clone());
    let asked = async {
        ask_locally(&Client::new(&daemon.socket)).await;
        ask_over_tcp(address).await;
        stop.cancel();
    };
    let (served, ()) = tokio::join!(served, asked);
    served.unwrap();
    let gone = Client::new(&daemon.socket).status().await.unwrap_err();
    assert!(matches!(gone, ClientError::Unreachable { .. }), "{gone}");
}

async fn ask_locally(client: &Client) {
    let anna = name(ANNA);
    let bare = client
        .token(&anna, TokenForm::Bare, None, None)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(bare.expose(), "canary-1");
    let document = client
        .token(&anna, TokenForm::Json, None, None)
        .await
        .unwrap()
        .unwrap();
    let document: serde_json::Value = serde_json::from_str(document.expose()).unwrap();
    let version = Version(document["version"].as_u64().unwrap());
    let wait = Some(Duration::from_secs(1));
    let same = client
        .token(&anna, TokenForm::Json, wait, Some(version))
        .await
        .unwrap();
    assert_eq!(same, None);
    assert!(client.status().await.unwrap().ready);
    assert_eq!(
        client.identities(Some("anna")).await.unwrap().items.len(),
        1
    );
    assert_eq!(client.why(&anna).await.unwrap()["name"], "anna");
    let of_anna = DeliveryTable {
        name: Some(anna.clone()),
        ..DeliveryTable::default()
    };
    let page = client.deliveries(&of_anna, None).await.unwrap();
    assert_eq!(page.items.len(), 1);
    let error = client.identity(&name("zoe")).await.unwrap_err();
    let ClientError::Problem(problem) = &error else {
        panic!("{error}")
    };
    assert_eq!(problem.kind, ProblemType::Unknown);
}

async fn ask_over_tcp(address: std::net::SocketAddr) {
    let get = |path: &str, host: &str| {
        format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
    };
    let metrics = over_tcp(address, &get("/metrics", "localhost")).await;
    assert!(
        metrics.starts_with("HTTP/1.1 200") && metrics.ends_with("# EOF\n"),
        "{metrics}"
    );
    let rebound = over_tcp(address, &get("/", "evil.example")).await;
    assert!(rebound.starts_with("HTTP/1.1 403"), "{rebound}");
}

async fn over_tcp(address: std::net::SocketAddr, request: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}
