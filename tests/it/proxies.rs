//! A resource that is reached by way of a proxy only: a real one, which opens tunnels (CONNECT).

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::stage::{Daemon, Emulator, RENEWD, Stage, identities};

/// What tunnels were asked for.
type Asked = Arc<Mutex<Vec<String>>>;

/// Starts a proxy; its address, and what it was asked.
async fn proxy() -> (String, Asked) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, asked) = (listener.local_addr().unwrap().to_string(), Asked::default());
    let kept = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(tunnel(client, Arc::clone(&kept)));
        }
    });
    (address, asked)
}

async fn tunnel(client: TcpStream, asked: Asked) -> Option<()> {
    let mut client = tokio::io::BufReader::new(client);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        client
            .read_line(&mut head)
            .await
            .ok()
            .filter(|read| *read > 0)?;
    }
    let first = head.lines().next()?.to_owned();
    let target = first
        .strip_prefix("CONNECT ")?
        .split(' ')
        .next()?
        .to_owned();
    asked.lock().unwrap().push(first);
    let mut server = TcpStream::connect(target).await.ok()?;
    client
        .write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
        .await
        .ok()?;
    tokio::io::copy_bidirectional(&mut client, &mut server)
        .await
        .ok()?;
    Some(())
}

/// An emulator over TLS, ended with the test.
struct Secure {
    child: Child,
    ca: String,
    connection_string: String,
}

impl Secure {
    fn start() -> Self {
        let mut child = Command::new(RENEWD)
            .args(["emulator", "--listen", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut line = || lines.next().unwrap().unwrap();
        let ca = line().strip_prefix("ca=").unwrap().to_owned();
        let connection_string = line();
        Self {
            child,
            ca,
            connection_string,
        }
    }
}

impl Drop for Secure {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resource_is_reached_through_its_proxy_alone() {
    let secure = Secure::start();
    let (address, asked) = proxy().await;
    let plain = Emulator::start(&[]);
    let stage = Stage::new(&plain);
    stage.write_private("contoso.cs", &secure.connection_string);
    let base = stage.base_config();
    let more = format!(
        "ca_file = {:?}\nproxy = \"http://{address}\"\nshare = 0.3\n",
        secure.ca
    );
    let config = stage
        .configure(&(base + &more + &stage.sinks_config(None) + &identities("bot", 1, &["files"])));
    let checked = stage.renewd(&[
        "check",
        "--online",
        "--config",
        &config.display().to_string(),
    ]);
    assert!(checked.status.success(), "{checked:?}");
    let by_check = asked.lock().unwrap().len();
    assert!(by_check >= 1, "the check went through the proxy");
    let daemon = Daemon::start(&config).await;
    stage.there("bot-0").await;
    let tunnels = asked.lock().unwrap().clone();
    assert!(tunnels.len() > by_check, "{tunnels:?}");
    let port = secure.connection_string.split("127.0.0.1:").nth(1).unwrap();
    let target = format!(
        "CONNECT 127.0.0.1:{} HTTP/1.1",
        port.split('/').next().unwrap()
    );
    assert!(tunnels.iter().all(|asked| *asked == target), "{tunnels:?}");
    let status = daemon.status(&stage.path("renewd.sock"));
    let pace = &status["lanes"]["contoso"]["pace"]["create_with_token"];
    assert_eq!(
        pace[1], 291,
        "three tenths of the limit, 97 % of that: {pace}"
    );
    assert!(daemon.stop().success());
}
