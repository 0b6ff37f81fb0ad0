//! One node and its database, which goes away: tokens come from the node's mirror, also after a start without the
//! database, and all goes on once it is back. Seen through the socket, the files and the service manager.

use std::path::Path;

use renewd_database::{Proxy, Server};

use crate::stage::{Daemon, Emulator, Stage, identities, until};

/// A node whose database is reached over a proxy, with one identity that has a token.
struct Node {
    stage: Stage,
    config: std::path::PathBuf,
    proxy: Proxy,
}

impl Node {
    fn new(emulator: &Emulator, database: &renewd_database::Database<'_>) -> Self {
        let server = Server::shared();
        let (stage, proxy) = (Stage::new(emulator), Proxy::before(server.port()));
        let url = database.url_over_tcp();
        let url = url.replace(
            &format!(":{}/", server.port()),
            &format!(":{}/", proxy.port()),
        );
        stage.write_private("database", &url);
        let store = format!(
            "\n[store]\nurl = {{ file = \"{}\" }}\n\n[cluster]\nname = \"production\"\nnode = \"web-1\"\n",
            stage.path("database").display()
        );
        let text = stage.base_config() + &store + &stage.sinks_config(None);
        let config = stage.configure(&(text + &identities("bot", 2, &["files"])));
        Self {
            stage,
            config,
            proxy,
        }
    }

    /// What the socket answers for a token: the status, how old it is, and the document.
    fn ask(&self, name: &str) -> (String, Option<String>, String) {
        let output = std::process::Command::new("curl")
            .args(["-s", "-i", "--unix-socket"])
            .arg(self.stage.path("renewd.sock"))
            .args(["-H", "X-Renewd-Client: test"])
            .arg(format!("http://localhost/v1/tokens/{name}"))
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let status = text.split(' ').nth(1).unwrap_or_default().to_owned();
        let age = text.lines().find_map(|line| {
            line.to_ascii_lowercase()
                .strip_prefix("x-renewd-age: ")
                .map(str::to_owned)
        });
        let body = text.split("\r\n\r\n").nth(1).unwrap_or_default().to_owned();
        (status, age, body)
    }

    fn needs(&self, daemon: &Daemon) -> String {
        daemon.status(&self.stage.path("renewd.sock"))["needs"].to_string()
    }

    fn mirror(&self) -> std::path::PathBuf {
        self.stage.path("state").join("mirror.db")
    }
}

/// Which token a mirror holds for everybody, as far as its file tells: how many rows have one.
fn sealed(mirror: &Path) -> i64 {
    let conn = rusqlite::Connection::open(mirror).unwrap();
    let sql = "SELECT count(*) FROM identity WHERE token IS NOT NULL";
    conn.query_row(sql, [], |row| row.get(0)).unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_serves_and_starts_without_its_database_and_goes_on_once_it_is_back() {
    let emulator = Emulator::start(&[]);
    let database = Server::shared().database();
    let node = Node::new(&emulator, &database);
    let daemon = Daemon::start(&node.config).await;
    node.stage.there("bot-0").await;
    node.stage.there("bot-1").await;
    until("a mirror with both", || sealed(&node.mirror()) == 2).await;
    let token = node.stage.token("bot-0");
    let (status, age, document) = node.ask("bot-0");
    assert_eq!((status.as_str(), age), ("200", None));
    assert!(document.contains(&token));

    // The database goes while the node runs.
    node.proxy.shut(true);
    database.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
         WHERE datname = current_database() AND pid <> pg_backend_pid()",
    );
    until("the age of what is served", || {
        node.ask("bot-0").1.is_some()
    })
    .await;
    let (status, _, served) = node.ask("bot-0");
    assert_eq!(status, "200");
    assert!(served.contains(&token));
    // The first answers from the mirror come before it is certain that the database is away.
    until("the need that it is away", || {
        node.needs(&daemon).contains("database_away")
    })
    .await;
    let hold = node.stage.renewd(&["hold", "bot-1", "--reason", "test"]);
    assert!(!hold.status.success(), "{hold:?}");
    assert!(daemon.stop().success());

    // The node starts without it, and a reboot took its files.
    std::fs::remove_file(node.stage.path("tokens/bot-0.json")).unwrap();
    let mut daemon = Daemon::launch(&node.config, &[]);
    // The heartbeat's own line may come before it.
    let told = daemon.told("STATUS=serving").await;
    assert!(told.contains("its database is away"), "{told}");
    assert_eq!(node.stage.token("bot-0"), token, "put back from the mirror");
    let (status, age, served) = node.ask("bot-0");
    assert_eq!(status, "200");
    assert!(age.is_some() && served.contains(&token));

    // And joins once it is back.
    node.proxy.shut(false);
    until("what is served to be of now", || {
        let (status, age, _) = node.ask("bot-0");
        status == "200" && age.is_none()
    })
    .await;
    let renewed = node.stage.renewd(&["renew", "bot-0"]);
    assert!(renewed.status.success(), "{renewed:?}\n{}", daemon.log());
    node.stage.reissued("bot-0", &token).await;
    until("nothing to be said of the database", || {
        !node.needs(&daemon).contains("database_away")
    })
    .await;
    assert!(daemon.stop().success());
}
