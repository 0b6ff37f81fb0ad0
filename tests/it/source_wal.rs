//! A database in WAL mode that another user reads: what is missing is said with what mends it. Needs root,
//! to be two users.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use rusqlite::Connection;

use crate::stage::{Emulator, RENEWD, Stage};

const NOBODY: u32 = 65534;

/// A daemon that runs as another user; dropped, it ends.
struct Foreign(Child);

impl Drop for Foreign {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Gives a folder and all in it away.
fn give_away(path: &Path) {
    std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).expect("this test needs root");
    if path.is_dir() {
        for inside in fs::read_dir(path).unwrap() {
            give_away(&inside.unwrap().path());
        }
    }
}

fn source_test(stage: &Stage) -> Output {
    Command::new(RENEWD)
        .args(["source", "test", "app-users", "--socket"])
        .arg(stage.path("renewd.sock"))
        .output()
        .unwrap()
}

/// What the daemon says of the source, once it answers, and with which exit code.
async fn says(stage: &Stage) -> (Option<i32>, String) {
    loop {
        let output = source_test(stage);
        if output.status.code() != Some(3) {
            let told = [output.stdout, output.stderr].concat();
            return (output.status.code(), String::from_utf8(told).unwrap());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A daemon of another user, with this database as a source.
fn foreign_daemon(stage: &Stage, path: &Path) -> Foreign {
    let config = stage.configure(&format!(
        "{}\n[[source.sqlite]]\nname = \"app-users\"\npath = \"{}\"\nquery = \"SELECT name FROM users\"\n\
         every = \"1h\"\nscopes = [\"chat\"]\n",
        stage.base_config(),
        path.display()
    ));
    // Where the tests are built need not be open to everybody.
    let program = stage.path("renewd");
    fs::copy(RENEWD, &program).unwrap();
    give_away(&stage.path(""));
    Foreign(
        Command::new(program)
            .args(["run", "--config"])
            .arg(config)
            .uid(NOBODY)
            .gid(NOBODY)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    )
}

/// Lets an application end as a crash would: its -wal stays, without the index.
fn crashed(owner: Connection, path: &Path) {
    let sql = "UPDATE users SET name = 'anna'";
    owner.execute(sql, []).unwrap();
    let wal = path.with_extension("db-wal");
    let copy = fs::read(&wal).unwrap();
    drop(owner);
    fs::write(&wal, copy).unwrap();
    fs::set_permissions(&wal, fs::Permissions::from_mode(0o644)).unwrap();
}

#[tokio::test]
async fn a_database_in_wal_mode_is_read_by_another_user_or_says_what_is_missing() {
    let emulator = Emulator::start(&[]);
    let stage = Stage::new(&emulator);
    let app = tempfile::Builder::new()
        .prefix("renewd-app-")
        .tempdir()
        .unwrap();
    fs::set_permissions(app.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let path = app.path().join("app.db");
    let open = || {
        let owner = Connection::open(&path).unwrap();
        owner.pragma_update(None, "journal_mode", "wal").unwrap();
        owner
    };
    let owner = open();
    owner
        .execute_batch("CREATE TABLE users (name TEXT); INSERT INTO users VALUES ('anna')")
        .unwrap();
    // The last to leave takes -wal and -shm along: then it is read as it lies, and stays alone.
    drop(owner);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let _daemon = foreign_daemon(&stage, &path);
    let (code, told) = says(&stage).await;
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("1 rows"), "{told}");
    assert_eq!(fs::read_dir(app.path()).unwrap().count(), 1);

    // A -wal is there without its index, as after a crash: what it holds cannot be told.
    crashed(open(), &path);

    let (code, told) = says(&stage).await;
    assert_eq!(code, Some(1), "{told}");
    for part in [
        "app.db is in WAL mode and",
        "app.db-shm cannot be opened (No such file or directory",
        "start the application",
        "setfacl -d -m u:renewd:rw",
        "what it listed before stays as it is",
    ] {
        assert!(told.contains(part), "{part}\n{told}");
    }

    // The application runs, and keeps the file for itself.
    let owner = open();
    owner
        .execute("INSERT INTO users VALUES ('bert')", [])
        .unwrap();
    let shm = app.path().join("app.db-shm");
    let mode = |mode| fs::set_permissions(&shm, fs::Permissions::from_mode(mode)).unwrap();
    mode(0o600);
    let (code, told) = says(&stage).await;
    assert_eq!(code, Some(1), "{told}");
    assert!(
        told.contains("app.db-shm cannot be opened (Permission denied"),
        "{told}"
    );

    mode(0o644);
    let (code, told) = says(&stage).await;
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("2 rows"), "{told}");
    drop(owner);
}
