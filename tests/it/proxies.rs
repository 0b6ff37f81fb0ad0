//! A resource that is reached by way of a proxy only: a real one, which opens tunnels (CONNECT).

use std::{
    process::Command,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::stage::{Daemon, Emulator, RENEWD, SecureEmulator, Stage, identities};

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

#[tokio::test(flavor = "multi_thread")]
async fn a_resource_is_reached_through_its_proxy_alone() {
    let secure = SecureEmulator::start();
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

#[tokio::test(flavor = "multi_thread")]
async fn single_calls_and_doctor_go_by_the_proxy_of_the_resource() {
    let secure = SecureEmulator::start();
    let (address, asked) = proxy().await;
    let plain = Emulator::start(&[]);
    let stage = Stage::new(&plain);
    stage.write_private("contoso.cs", &secure.connection_string);
    let more = format!("ca_file = {:?}\nproxy = \"http://{address}\"\n", secure.ca);
    let config = stage.configure(&(stage.base_config() + &more));
    let config = config.to_str().unwrap();
    let went = |args: &[&str], variable: Option<&str>| {
        let before = asked.lock().unwrap().len();
        let mut command = Command::new(RENEWD);
        command.args(args).args(["--config", config]);
        match variable {
            Some(text) => command.env("COMMUNICATION_SERVICES_CONNECTION_STRING", text),
            None => command.env_remove("COMMUNICATION_SERVICES_CONNECTION_STRING"),
        };
        let output = command.output().unwrap();
        (output, asked.lock().unwrap().len() > before)
    };
    let create = ["acs", "create-user-with-token", "--resource", "contoso"];
    let (output, by_proxy) = went(&create, None);
    assert!(output.status.success() && by_proxy, "{output:?}");
    let same = ["acs", "create-user"];
    let (output, by_proxy) = went(&same, Some(&secure.connection_string));
    assert!(output.status.success() && by_proxy, "{output:?}");
    let (output, by_proxy) = went(&same, Some(&plain.connection_string));
    assert!(output.status.success() && !by_proxy, "{output:?}");
    let (output, _) = went(&["acs", "create-user", "--resource", "fabrikam"], None);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let (output, by_proxy) = went(&["doctor", "--here"], None);
    assert!(by_proxy, "{output:?}");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!said.contains("resource[0].connection_string"), "{said}");
    drop(secure);
    let (output, _) = went(&["doctor", "--here"], None);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("resource[0].connection_string"), "{said}");
    assert!(
        said.contains(&format!("by way of http://{address}")),
        "{said}"
    );
}
