//! Tests of the room against a real PostgreSQL, over proxies that freeze and swallow.

use std::{
    cell::Cell,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use renewd_database::{Database, Loses, Proxy, Server as Postgres};

use super::*;
use crate::{
    config::{DatabaseSettings, SecretRef},
    model::Secret,
};

fn settings(url: &str, ca_file: Option<&Path>) -> DatabaseSettings {
    let from = SecretRef::Env("DATABASE".to_owned());
    let url = Secret::new(url.to_owned());
    let mut read = DatabaseSettings::read(&from, &url, ca_file.map(Path::to_owned)).unwrap();
    read.deadline = DEADLINE;
    read
}

/// Statements have so long here: longer than anything takes on a loaded machine, short enough to wait for.
const DEADLINE: Duration = Duration::from_secs(3);

fn opened(url: &str) -> Result<Connection> {
    let remote = Remote::new(&settings(url, None), "renewd test");
    Session::open(remote).map(Connection::from)
}

fn connection(database: &Database<'_>) -> Connection {
    opened(&database.url()).unwrap()
}

fn number(conn: &Connection, sql: &str) -> i64 {
    conn.first(sql, [], |row| row.get(0)).unwrap().unwrap()
}

/// The process of the server that serves a connection.
fn backend(conn: &Connection) -> i64 {
    number(conn, "SELECT pg_backend_pid()")
}

fn terminate(database: &Database<'_>, backend: i64) {
    database.sql(&format!("SELECT pg_terminate_backend({backend}, 5000)"));
}

/// Begins a transaction, once one can be begun.
fn begun(conn: &Connection, waits_for: &str) {
    for _ in 0..600 {
        if conn.begin().is_ok() {
            return;
        }
        thread::sleep(Duration::from_millis(50));
    }
    panic!("half a minute later, not yet: {waits_for}");
}

#[test]
fn values_go_there_and_back() {
    let database = Postgres::shared().database();
    let conn = connection(&database);
    conn.batch(
        "CREATE TABLE t (num BIGINT PRIMARY KEY, word TEXT COLLATE \"C\", raw BYTEA, yes BOOL, small SMALLINT)",
    )
    .unwrap();
    let sql = "INSERT INTO t (num, word, raw, yes, small) VALUES (?1, ?2, ?3, ?4, ?5)";
    let bytes = &[0_u8, 255][..];
    let changed = conn.execute(sql, params![i64::MIN, "wört", bytes, true, 7]);
    assert_eq!(changed.unwrap(), 1);
    let nothing = params![1, Null, Null, Null, Null];
    conn.execute(sql, nothing).unwrap();
    let read = conn.first("SELECT * FROM t WHERE num < ?1", [0], |row| {
        assert_eq!(row.get_ref("raw")?, ValueRef::Blob(bytes));
        assert_eq!(row.name_of(1), "word");
        let word: String = row.get("word")?;
        Ok((
            row.get::<_, i64>(0)?,
            word,
            row.get::<_, bool>(3)?,
            row.get::<_, u8>("small")?,
        ))
    });
    assert_eq!(read.unwrap(), Some((i64::MIN, "wört".to_owned(), true, 7)));
    let none: Option<Option<String>> = conn
        .first("SELECT word FROM t WHERE num = 1", [], |row| row.get(0))
        .unwrap();
    assert_eq!(none, Some(None));
    assert_eq!(number(&conn, "SELECT sum(num) + 5 FROM t WHERE num > 0"), 6);
    assert_eq!(number(&conn, "SELECT num > 0 FROM t WHERE num = 1"), 1);
    let wrong = conn.first("SELECT word FROM t WHERE num < 0", [], |row| {
        row.get::<_, i64>(0)
    });
    let wrong = wrong.unwrap_err();
    assert!(wrong.is_unreadable());
    assert_eq!(
        wrong.plain(),
        "column word: it holds a value of the type Text"
    );
    assert_eq!(conn.changed(), 2);
}

#[test]
fn an_answer_comes_by_pages_or_as_it_is_taken_in_and_others_may_be_asked_meanwhile() {
    let database = Postgres::shared().database();
    let conn = connection(&database);
    let sql = "SELECT n FROM generate_series(?1, 100000) AS n ORDER BY n";
    for (expected, wanted) in [
        (Some(10), 5),
        (Some(10), 90),
        (Some(1000), 50_000),
        (None, 600),
        (None, 100_000),
    ] {
        let seen = Cell::new(0);
        conn.each(sql, [1], expected, |row| {
            seen.set(seen.get() + 1);
            assert_eq!(row.get::<_, i64>(0)?, seen.get());
            if seen.get() % 40_000 == 3 {
                assert_eq!(number(&conn, "SELECT 7"), 7);
            }
            Ok(seen.get() < wanted)
        })
        .unwrap();
        assert_eq!(seen.get(), wanted, "{expected:?}");
        assert!(!conn.is_in_transaction());
        assert_eq!(number(&conn, "SELECT 8"), 8);
    }
}

#[test]
fn after_an_error_a_transaction_takes_nothing_but_what_takes_it_back() {
    let database = Postgres::shared().database();
    let conn = connection(&database);
    conn.batch("CREATE TABLE t (num BIGINT PRIMARY KEY)")
        .unwrap();
    let add = |num: i64| conn.execute("INSERT INTO t VALUES (?1)", [num]);
    conn.begin().unwrap();
    add(1).unwrap();
    conn.batch("SAVEPOINT part").unwrap();
    let refused = add(1).unwrap_err();
    assert!(
        matches!(&refused, SqlError::Refused { code, .. } if code == "23505"),
        "{refused}"
    );
    assert!(conn.is_aborted() && conn.is_in_transaction());
    assert!(matches!(add(2), Err(SqlError::Aborted)));
    assert!(matches!(conn.commit(), Err(SqlError::Aborted)));
    conn.batch("ROLLBACK TO part; RELEASE part").unwrap();
    add(2).unwrap();
    conn.commit().unwrap();
    assert!(!conn.is_in_transaction());
    assert_eq!(number(&conn, "SELECT count(*) FROM t"), 2);
    // A value that does not fit is not sent, and one too many neither.
    conn.begin().unwrap();
    assert!(conn.execute("INSERT INTO t VALUES (?1)", ["x"]).is_err());
    assert!(conn.execute("INSERT INTO t VALUES (?1)", [3, 4]).is_err());
    add(3).unwrap();
    conn.batch("ROLLBACK").unwrap();
    assert_eq!(number(&conn, "SELECT count(*) FROM t"), 2);
}

#[test]
fn what_is_sent_arrives_in_order_and_its_error_is_told_to_whoever_waits_next() {
    let database = Postgres::shared().database();
    let conn = connection(&database);
    conn.batch("CREATE TABLE t (num BIGINT PRIMARY KEY, was BIGINT)")
        .unwrap();
    let add = |num: i64| {
        let sql = "INSERT INTO t SELECT ?1, (SELECT max(num) FROM t)";
        conn.send(sql, [num])
    };
    let count = "SELECT count(*) FROM t WHERE num = 1 OR was = num - 1";
    conn.begin().unwrap();
    (1..=1000).for_each(|num| add(num).unwrap());
    assert_eq!(number(&conn, count), 1000);
    add(1001).unwrap();
    conn.commit().unwrap();
    assert_eq!(number(&conn, count), 1001);
    let waits: [fn(&Connection) -> Result<()>; 6] = [
        |conn| conn.first("SELECT 7", [], |_| Ok(())).map(drop),
        |conn| conn.execute("DELETE FROM t", []).map(drop),
        |conn| conn.each("SELECT num FROM t", [], Some(3), |_| Ok(true)),
        |conn| conn.batch("SAVEPOINT part"),
        Connection::await_sent,
        Connection::commit,
    ];
    for wait in waits {
        conn.begin().unwrap();
        add(2000).unwrap();
        add(1).unwrap();
        add(2001).unwrap();
        let refused = wait(&conn).unwrap_err();
        assert!(
            matches!(&refused, SqlError::Refused { code, .. } if code == "23505"),
            "{refused}"
        );
        // A commit that does not come about leaves nothing open.
        if conn.is_in_transaction() {
            assert!(conn.is_aborted());
            assert!(matches!(add(2002), Err(SqlError::Aborted)));
            conn.batch("ROLLBACK").unwrap();
        }
        assert_eq!(number(&conn, "SELECT count(*) FROM t"), 1001);
    }
    // What is taken back is not asked about, and what does not fit is not sent.
    conn.begin().unwrap();
    conn.batch("SAVEPOINT part").unwrap();
    add(1).unwrap();
    conn.batch("ROLLBACK TO part; RELEASE part").unwrap();
    assert!(conn.send("INSERT INTO t VALUES (?1)", ["x"]).is_err());
    add(1002).unwrap();
    conn.commit().unwrap();
    assert_eq!(number(&conn, count), 1002);
    // Without a transaction it is waited for.
    assert!(add(1).is_err());
    assert_eq!(number(&conn, count), 1002);
}

#[test]
fn each_of_what_was_sent_has_its_own_deadline() {
    let database = Postgres::shared().database();
    let conn = connection(&database);
    conn.batch("CREATE TABLE t (num BIGINT)").unwrap();
    let slow = "INSERT INTO t SELECT ?1 FROM (SELECT pg_sleep(?2)) slept";
    conn.begin().unwrap();
    let part = DEADLINE.as_secs_f64() / 2.0;
    (0..3).for_each(|num| conn.send(slow, params![num, part]).unwrap());
    assert_eq!(number(&conn, "SELECT count(*) FROM t"), 3);
    conn.send(slow, params![3, 600.0]).unwrap();
    let cut = conn.await_sent().unwrap_err();
    assert!(
        matches!(&cut, SqlError::Refused { code, .. } if code == "57014"),
        "{cut}"
    );
    conn.batch("ROLLBACK").unwrap();
}

#[test]
fn what_was_sent_is_lost_with_its_connection() {
    let database = Postgres::shared().database();
    let conn = connection(&database);
    conn.batch("CREATE TABLE t (num BIGINT PRIMARY KEY)")
        .unwrap();
    let before = backend(&conn);
    conn.begin().unwrap();
    conn.send("INSERT INTO t VALUES (?1)", [1]).unwrap();
    terminate(&database, before);
    let lost = conn.await_sent().unwrap_err();
    assert!(matches!(lost, SqlError::Lost(_)), "{lost}");
    assert!(!conn.is_in_transaction());
    conn.begin().unwrap();
    conn.send("INSERT INTO t VALUES (?1)", [1]).unwrap();
    conn.commit().unwrap();
    assert_eq!(number(&conn, "SELECT count(*) FROM t"), 1);
}

#[tokio::test]
async fn inside_a_runtime_it_works_and_ends_as_well() {
    let database = Postgres::shared().database();
    let conn = connection(&database);
    assert_eq!(number(&conn, "SELECT 7"), 7);
    drop(conn);
}

#[test]
fn a_statement_that_hangs_is_cut_at_its_deadline() {
    let database = Postgres::shared().database();
    let conn = connection(&database);
    conn.begin().unwrap();
    let slept = conn
        .first("SELECT pg_sleep(600)", [], |_| Ok(()))
        .unwrap_err();
    assert!(
        matches!(&slept, SqlError::Refused { code, .. } if code == "57014"),
        "{slept}"
    );
    assert_eq!(slept.kind(), ErrorKind::NotWritable);
    conn.batch("ROLLBACK").unwrap();
    // Where the server does not see to it, the connection counts as dead.
    conn.batch("SET statement_timeout = 0").unwrap();
    let before = backend(&conn);
    conn.begin().unwrap();
    let slept = conn
        .first("SELECT pg_sleep(600)", [], |_| Ok(()))
        .unwrap_err();
    assert!(
        matches!(&slept, SqlError::Lost(why) if why.contains("no answer within 3 s")),
        "{slept}"
    );
    assert_eq!(slept.kind(), ErrorKind::NotWritable);
    assert!(!conn.is_in_transaction());
    conn.begin().unwrap();
    assert_ne!(backend(&conn), before);
    conn.batch("ROLLBACK").unwrap();
    terminate(&database, before);
}

#[test]
fn a_dead_connection_ends_its_transaction_and_the_next_one_begins_on_a_new_one() {
    let database = Postgres::shared().database();
    let conn = connection(&database);
    conn.batch("CREATE TABLE t (num BIGINT)").unwrap();
    conn.begin().unwrap();
    conn.execute("INSERT INTO t VALUES (1)", []).unwrap();
    terminate(&database, backend(&conn));
    let lost = conn.execute("INSERT INTO t VALUES (2)", []).unwrap_err();
    assert!(matches!(lost, SqlError::Lost(_)), "{lost}");
    assert!(!conn.is_in_transaction());
    conn.begin().unwrap();
    conn.execute("INSERT INTO t VALUES (3)", []).unwrap();
    conn.commit().unwrap();
    // Between transactions nobody notices: neither a read nor a transaction.
    terminate(&database, backend(&conn));
    assert_eq!(number(&conn, "SELECT sum(num) FROM t"), 3);
    terminate(&database, backend(&conn));
    conn.begin().unwrap();
    conn.batch("ROLLBACK").unwrap();
    terminate(&database, backend(&conn));
    let mut seen = 0;
    conn.each("SELECT num FROM t", [], Some(1), |_| {
        seen += 1;
        Ok(true)
    })
    .unwrap();
    assert_eq!(seen, 1);
}

#[test]
fn a_server_that_restarts_is_found_again_and_one_that_is_gone_is_told() {
    let server = Postgres::start(&[], |_| {});
    let database = server.database();
    let conn = connection(&database);
    conn.batch("CREATE TABLE t (num BIGINT)").unwrap();
    server.stop();
    let away = conn.begin().unwrap_err();
    assert_eq!(away.kind(), ErrorKind::NotWritable);
    assert!(away.to_string().contains("cannot be reached"), "{away}");
    server.run();
    begun(&conn, "the server is found again");
    conn.execute("INSERT INTO t VALUES (1)", []).unwrap();
    conn.commit().unwrap();
    // A crash in the middle takes the transaction with it.
    conn.begin().unwrap();
    conn.execute("INSERT INTO t VALUES (2)", []).unwrap();
    server.crash();
    server.run();
    assert!(conn.commit().is_err());
    assert_eq!(number(&conn, "SELECT count(*) FROM t"), 1);
}

#[test]
fn a_frozen_host_first_in_the_list_costs_nothing() {
    let server = Postgres::shared();
    let database = server.database();
    let silent = Proxy::silent();
    let silent = silent.port();
    let (port, name) = (server.port(), database.name());
    // It would take a minute to give up.
    let url = format!(
        "postgresql://postgres@127.0.0.1:{silent},127.0.0.1:1,127.0.0.1:{port}/{name}?connect_timeout=60"
    );
    let remote = Remote::new(&settings(&url, None), "renewd test");
    let (done, seen) = std::sync::mpsc::channel();
    thread::spawn(move || done.send(Session::open(remote).map(|session| session.server())));
    let found = seen
        .recv_timeout(Duration::from_secs(20))
        .expect("nobody waits for the frozen host");
    let taken = found.unwrap().unwrap();
    assert_eq!(taken.host, format!("127.0.0.1:{port}"));
    assert!(
        taken.version.starts_with("15") || taken.version.starts_with(['1', '2']),
        "{taken}"
    );
    let url =
        format!("postgresql://postgres@127.0.0.1:{silent},127.0.0.1:1/{name}?connect_timeout=1");
    let away = opened(&url).err().unwrap().to_string();
    let expected = format!(
        "no host of the database takes writes: 127.0.0.1:{silent} gives no answer within 1 s; 127.0.0.1:1 cannot be reached"
    );
    assert!(away.starts_with(&expected), "{away}");
}

#[test]
fn a_host_that_falls_silent_to_one_session_is_left_by_those_beside_it() {
    let server = Postgres::shared();
    let database = server.database();
    let (first, second) = (Proxy::before(server.port()), Proxy::before(server.port()));
    second.shut(true);
    let (one, two, name) = (first.port(), second.port(), database.name());
    let url = format!("postgresql://postgres@127.0.0.1:{one},127.0.0.1:{two}/{name}");
    let remote = Remote::new(&settings(&url, None), "renewd test");
    let session = Session::open(remote).unwrap();
    let idle = Connection::from(session.beside("idle".to_owned()).unwrap());
    let writing = Connection::from(session.beside("writing".to_owned()).unwrap());
    writing.begin().unwrap();
    let session = Connection::from(session);
    first.freeze();
    second.shut(false);
    // Whoever meets it first waits for its deadline.
    assert_eq!(number(&session, "SELECT 1"), 1);
    let swallowed = first.swallowed();
    assert!(swallowed > 0);
    assert_eq!(number(&idle, "SELECT 1"), 1);
    // All that it says there is goodbye.
    let goodbye = swallowed + 5;
    assert!(first.swallowed() <= goodbye);
    // A transaction that is open ends with its connection.
    let lost = writing.execute("SELECT 1", []).unwrap_err();
    assert!(matches!(lost, SqlError::Lost(_)), "{lost}");
    assert!(first.swallowed() > goodbye);
    writing.begin().unwrap();
    assert_eq!(number(&writing, "SELECT 1"), 1);
}

/// As whoever is on the same session through a pooler does.
#[test]
fn a_transaction_on_the_session_of_somebody_else_is_not_begun() {
    let database = Postgres::shared().database();
    let conn = connection(&database);
    for begin in [
        |conn| Connection::begin(conn),
        |conn: &Connection| conn.same_state().map(drop),
    ] {
        let before = backend(&conn);
        conn.batch("SET renewd.session = 'of somebody else'")
            .unwrap();
        begin(&conn).unwrap();
        assert_ne!(backend(&conn), before);
        conn.batch("ROLLBACK").unwrap();
    }
    // What was prepared is gone: another process is there.
    let before = backend(&conn);
    conn.begin().unwrap();
    conn.batch("DEALLOCATE ALL").unwrap();
    let refused = conn.first("SELECT pg_backend_pid()", [], |_| Ok(()));
    let refused = refused.unwrap_err();
    assert!(refused.to_string().contains("is a pooler"), "{refused}");
    assert!(!conn.is_in_transaction());
    conn.batch("ROLLBACK").unwrap();
    assert_ne!(backend(&conn), before);
}

#[test]
fn a_host_that_takes_no_writes_is_not_taken() {
    let server = Postgres::shared();
    let database = server.database();
    let conn = connection(&database);
    conn.batch("CREATE TABLE t (num BIGINT)").unwrap();
    let name = database.name();
    database.sql(&format!(
        "ALTER DATABASE {name} SET default_transaction_read_only = on"
    ));
    let refused = opened(&database.url()).err().unwrap();
    assert!(
        refused
            .to_string()
            .contains("is read only (default_transaction_read_only)"),
        "{refused}"
    );
    // One that becomes so is left.
    conn.batch("SET default_transaction_read_only = on")
        .unwrap();
    conn.begin().unwrap();
    let lost = conn.execute("INSERT INTO t VALUES (1)", []).unwrap_err();
    assert!(
        matches!(&lost, SqlError::Lost(why) if why.contains("25006")),
        "{lost}"
    );
    assert!(matches!(conn.begin(), Err(SqlError::Away(_))));
    let reset = format!("ALTER DATABASE {name} RESET default_transaction_read_only");
    server.sql("postgres", &reset);
    begun(&conn, "it is taken again");
    conn.execute("INSERT INTO t VALUES (1)", []).unwrap();
    conn.commit().unwrap();
}

#[test]
fn a_login_that_is_refused_is_told_without_its_password() {
    let server = Postgres::shared();
    let database = server.database();
    let url = format!(
        "postgresql://nobody:hunter2@127.0.0.1:{}/{}",
        server.port(),
        database.name()
    );
    let refused = opened(&url).err().unwrap();
    let SqlError::Away(away) = &refused else {
        panic!("{refused}")
    };
    assert!(away.is_configuration(), "{away}");
    assert!(away.to_string().contains("refuses the login"), "{away}");
    let session = Session::open(Remote::new(&settings(&database.url(), None), "x")).unwrap();
    let shown = format!(
        "{refused:?} {refused} {session:?} {:?}",
        settings(&url, None)
    );
    assert!(!shown.contains("hunter2"), "{shown}");
    let none = format!(
        "postgresql://postgres@127.0.0.1:{}/none_such",
        server.port()
    );
    let refused = opened(&none).err().unwrap();
    assert!(refused.to_string().contains("does not exist"), "{refused}");
}

#[test]
fn a_host_that_takes_writes_only_now_is_taken_although_another_one_is_silent() {
    let server = Postgres::shared();
    let (database, silent) = (server.database(), Proxy::silent());
    let (port, name) = (server.port(), database.name());
    let set = |how: &str| {
        let sql = format!("ALTER DATABASE {name} {how} default_transaction_read_only");
        server.sql("postgres", &sql)
    };
    server.sql(
        "postgres",
        &format!("ALTER DATABASE {name} SET default_transaction_read_only = on"),
    );
    let url = format!(
        "postgresql://postgres@127.0.0.1:{},127.0.0.1:{port}/{name}?connect_timeout=60",
        silent.port()
    );
    let (done, seen) = std::sync::mpsc::channel();
    thread::spawn(move || done.send(opened(&url).map(drop)));
    let early = seen.recv_timeout(Duration::from_millis(500));
    assert!(early.is_err(), "{early:?}");
    set("RESET");
    let taken = seen.recv_timeout(Duration::from_secs(20));
    taken.expect("nobody waits for the silent host").unwrap();
}

#[test]
fn a_password_that_was_changed_in_both_places_needs_no_restart() {
    let server = Postgres::start(&[], |data| {
        let rules = "local all postgres trust\nhost all all all scram-sha-256\n";
        std::fs::write(data.join("pg_hba.conf"), rules).unwrap();
    });
    server.sql("postgres", "CREATE ROLE renewd LOGIN PASSWORD 'hunter2'");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("database");
    let write = |password: &str| {
        let port = server.port();
        let url = format!("postgresql://renewd:{password}@127.0.0.1:{port}/postgres");
        std::fs::write(&file, &url).unwrap();
        Secret::new(url)
    };
    let from = SecretRef::File(file.clone());
    let settings = DatabaseSettings::read(&from, &write("hunter2"), None).unwrap();
    let conn = Connection::from(Session::open(Remote::new(&settings, "renewd test")).unwrap());
    server.sql("postgres", "ALTER ROLE renewd PASSWORD 'hunter3'");
    let pid = backend(&conn);
    server.sql(
        "postgres",
        &format!("SELECT pg_terminate_backend({pid}, 5000)"),
    );
    let refused = conn.begin().unwrap_err().to_string();
    assert!(refused.contains("refuses the login"), "{refused}");
    assert!(!refused.contains("hunter"), "{refused}");
    write("hunter3");
    begun(&conn, "the new password is taken up");
}

#[test]
fn a_serialization_that_fails_is_worth_the_same_again() {
    let database = Postgres::shared().database();
    let (one, other) = (connection(&database), connection(&database));
    one.batch(
        "CREATE TABLE t (num BIGINT PRIMARY KEY, n BIGINT); INSERT INTO t VALUES (1, 0), (2, 0)",
    )
    .unwrap();
    one.batch("BEGIN ISOLATION LEVEL REPEATABLE READ").unwrap();
    number(&one, "SELECT n FROM t WHERE num = 1");
    other
        .execute("UPDATE t SET n = 1 WHERE num = 1", [])
        .unwrap();
    let refused = one
        .execute("UPDATE t SET n = 2 WHERE num = 1", [])
        .unwrap_err();
    assert!(
        matches!(&refused, SqlError::Refused { code, .. } if code == "40001"),
        "{refused}"
    );
    assert!(one.may_do_again());
    one.batch("ROLLBACK").unwrap();
    one.begin().unwrap();
    assert!(!one.may_do_again());
    assert!(one.execute("INSERT INTO t VALUES (1, 1)", []).is_err());
    assert!(!one.may_do_again());
    one.batch("ROLLBACK").unwrap();
}

#[test]
fn what_was_prepared_before_the_schema_changed_is_prepared_again() {
    let database = Postgres::shared().database();
    let conn = connection(&database);
    conn.batch("CREATE TABLE t (num BIGINT); INSERT INTO t VALUES (1)")
        .unwrap();
    let all = || conn.first("SELECT * FROM t", [], |row| row.get::<_, i64>(0));
    assert_eq!(all().unwrap(), Some(1));
    database.sql("ALTER TABLE t ADD COLUMN later TEXT");
    assert_eq!(all().unwrap(), Some(1));
}

/// A certificate of `authority` for a name.
fn certified(authority: &Authority, name: &str) -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
    let signed = params.signed_by(&key, &authority.issuer).unwrap();
    (signed.pem(), key.serialize_pem())
}

/// An authority of certificates.
struct Authority {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        let issuer = rcgen::Issuer::new(params, key);
        Self { issuer, pem }
    }
}

/// A server that only speaks TLS, and to `reader` only with a certificate of its own.
struct Secured {
    ours: Authority,
    server: Postgres,
    dir: tempfile::TempDir,
}

impl Secured {
    fn new() -> Self {
        let ours = Authority::new();
        let (certificate, key) = certified(&ours, "db.test");
        let lines = [
            "ssl = on",
            "ssl_cert_file = 'server.crt'",
            "ssl_key_file = 'server.key'",
            "ssl_ca_file = 'ca.crt'",
        ];
        let server = Postgres::start(&lines, |data| {
            for (name, text) in [
                ("server.crt", &certificate),
                ("server.key", &key),
                ("ca.crt", &ours.pem),
            ] {
                let path = data.join(name);
                std::fs::write(&path, text).unwrap();
                std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
            }
            let rules =
                "local all all trust\nhostssl all reader all cert\nhostssl all all all trust\n";
            std::fs::write(data.join("pg_hba.conf"), rules).unwrap();
        });
        server.sql("postgres", "CREATE ROLE reader LOGIN");
        let dir = tempfile::tempdir().unwrap();
        Self { ours, server, dir }
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn try_as(&self, user: &str, host: &str, more: &str, ca_file: &Path) -> Result<Session> {
        let port = self.server.port();
        let url = format!(
            "postgresql://{user}@{host}:{port}/postgres?hostaddr=127.0.0.1&sslmode=verify-full{more}"
        );
        Session::open(Remote::new(&settings(&url, Some(ca_file)), "renewd test"))
    }
}

#[test]
fn tls_is_only_with_whom_an_authority_vouches_for_by_this_name() {
    let secured = Secured::new();
    let trusted = secured.file("ca.crt", &secured.ours.pem);
    let foreign = secured.file("other.crt", &Authority::new().pem);
    let session = secured.try_as("postgres", "db.test", "", &trusted).unwrap();
    let conn = Connection::from(session);
    let is_secure = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    assert_eq!(number(&conn, is_secure), 1);
    for (host, ca_file) in [
        ("db.test", &foreign),
        ("other.test", &trusted),
        ("127.0.0.1", &trusted),
    ] {
        let refused = secured.try_as("postgres", host, "", ca_file).unwrap_err();
        assert!(refused.to_string().contains("not trusted"), "{refused}");
    }
    let none = secured.dir.path().join("none");
    let refused = secured
        .try_as("postgres", "db.test", "", &none)
        .unwrap_err();
    let why = "none, which cannot be read";
    assert!(refused.to_string().contains(why), "{refused}");
    // In plain text the server lets nobody in.
    let plain = format!(
        "postgresql://postgres@127.0.0.1:{}/postgres",
        secured.server.port()
    );
    assert!(opened(&plain).is_err());
}

#[test]
fn who_proves_with_a_certificate_who_it_is_needs_no_password() {
    let secured = Secured::new();
    let trusted = secured.file("ca.crt", &secured.ours.pem);
    let mut params = rcgen::CertificateParams::default();
    let name = rcgen::DnType::CommonName;
    params.distinguished_name.push(name, "reader");
    let key = rcgen::KeyPair::generate().unwrap();
    let signed = params.signed_by(&key, &secured.ours.issuer).unwrap();
    let certificate = secured.file("reader.crt", &signed.pem());
    let key = secured.file("reader.key", &key.serialize_pem());
    let proof = format!(
        "&sslcert={}&sslkey={}",
        certificate.display(),
        key.display()
    );
    secured
        .try_as("reader", "db.test", &proof, &trusted)
        .unwrap();
    assert!(secured.try_as("reader", "db.test", "", &trusted).is_err());
}

#[test]
fn a_commit_whose_answer_is_lost_is_not_known() {
    let server = Postgres::shared();
    let database = server.database();
    let proxy = Proxy::before(server.port());
    let conn = opened(&format!(
        "postgresql://postgres@127.0.0.1:{}/{}",
        proxy.port(),
        database.name()
    ))
    .unwrap();
    conn.batch("CREATE TABLE t (num BIGINT)").unwrap();
    for (num, loses, kept) in [(1, Loses::Answer, 1), (2, Loses::Commit, 0)] {
        conn.begin().unwrap();
        conn.execute("INSERT INTO t VALUES (?1)", [num]).unwrap();
        proxy.lose(loses);
        let unsure = conn.commit().unwrap_err();
        assert!(matches!(unsure, SqlError::Unsure(_)), "{unsure}");
        assert!(!conn.is_in_transaction());
        let count = conn.first("SELECT count(*) FROM t WHERE num = ?1", [num], |row| {
            row.get::<_, i64>(0)
        });
        assert_eq!(count.unwrap(), Some(kept));
    }
}
