//! Both engines have the same schema, and each verb is tested on both.

use std::{collections::BTreeMap, fs, path::Path};

use super::*;
use crate::{
    sql::{Connection, Remote, Session},
    store::{consumers, queues, schema},
};

/// A connection as a machine has it.
fn another(database: &Database<'_>) -> Connection {
    let StorePlace::Database(settings) = in_database(&database.url()) else {
        unreachable!("it is a database");
    };
    Connection::from(Session::open(Remote::new(&settings, "renewd test")).unwrap())
}

/// A database of each engine with the newest schema, made by its own steps.
fn of_both(database: &Database<'_>, dir: &Path) -> (Connection, Connection) {
    let path = dir.join("renewd.db");
    fs::File::create(&path).unwrap();
    let file = Connection::writer_of(&path, false).unwrap();
    schema::migrate(&file, 0).unwrap();
    let served = another(database);
    schema::migrate(&served, 0).unwrap();
    (file, served)
}

fn texts(conn: &Connection, sql: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    conn.each(sql, [], None, |row| {
        let mut line = Vec::new();
        while let Ok(value) = row.get::<_, Option<String>>(line.len()) {
            line.push(value.unwrap_or_default());
        }
        found.push(line);
        Ok(true)
    })
    .unwrap();
    found
}

/// Columns by table and name, each as kind, whether it must be there, what stands in it by itself, and its place in the
/// primary key.
type Columns = BTreeMap<(String, String), [String; 4]>;

fn columns_in_file(file: &Connection) -> Columns {
    let sql = "SELECT t.name, c.name, CASE c.type WHEN 'INTEGER' THEN 'bigint' WHEN 'BLOB' THEN 'bytea' ELSE 'text' END, \
               CASE WHEN c.\"notnull\" = 1 OR c.pk > 0 THEN 'NO' ELSE 'YES' END, c.dflt_value, CAST(c.pk AS TEXT) \
               FROM sqlite_schema t JOIN pragma_table_info(t.name) c WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite_%'";
    columns(texts(file, sql))
}

fn columns_in_postgres(served: &Connection) -> Columns {
    let sql = "SELECT c.table_name, c.column_name, c.data_type, c.is_nullable, \
               replace(c.column_default, '::text', ''), CAST(coalesce(k.ordinal_position, 0) AS TEXT) \
               FROM information_schema.columns c LEFT JOIN (information_schema.key_column_usage k \
               JOIN information_schema.table_constraints t ON t.constraint_name = k.constraint_name \
               AND t.constraint_schema = k.constraint_schema AND t.constraint_type = 'PRIMARY KEY') \
               ON k.table_schema = c.table_schema AND k.table_name = c.table_name AND k.column_name = c.column_name \
               WHERE c.table_schema = current_schema()";
    columns(texts(served, sql))
}

fn columns(lines: Vec<Vec<String>>) -> Columns {
    let each = lines.into_iter().map(|line| {
        let [table, column, rest @ ..] = &*line else {
            panic!("{line:?}");
        };
        let rest: [String; 4] = rest.to_vec().try_into().unwrap();
        ((table.clone(), column.clone()), rest)
    });
    each.collect()
}

#[test]
fn both_engines_have_the_same_tables_and_columns() {
    let (dir, database) = (tempfile::tempdir().unwrap(), Postgres::shared().database());
    let (file, served) = of_both(&database, dir.path());
    let (in_file, in_postgres) = (columns_in_file(&file), columns_in_postgres(&served));
    assert!(in_file.len() > 150, "{}", in_file.len());
    let only = |these: &Columns, those: &Columns| -> Vec<String> {
        let missing = these
            .iter()
            .filter(|(column, how)| those.get(*column) != Some(*how));
        missing
            .map(|(column, how)| format!("{column:?} {how:?}"))
            .collect()
    };
    let (file_alone, served_alone) = (only(&in_file, &in_postgres), only(&in_postgres, &in_file));
    assert_eq!(
        file_alone,
        Vec::<String>::new(),
        "in PostgreSQL: {served_alone:?}"
    );
    assert_eq!(served_alone, Vec::<String>::new());
    let by_locale = "SELECT table_name, column_name FROM information_schema.columns \
                     WHERE table_schema = current_schema() AND data_type = 'text' AND collation_name IS DISTINCT FROM 'C'";
    assert_eq!(
        texts(&served, by_locale),
        Vec::<Vec<String>>::new(),
        "texts sort by their bytes"
    );
}

/// Indexes by name, as PostgreSQL writes them; those that a constraint makes by their columns alone.
fn indexes(served: &Connection, space: &str) -> Vec<Vec<String>> {
    let sql = format!(
        "SELECT CASE WHEN c.conname IS NULL THEN i.relname ELSE '' END, \
         regexp_replace(replace(pg_get_indexdef(x.indexrelid), '{space}.', ''), '^(CREATE (UNIQUE )?INDEX) \\w+', '\\1') \
         FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid \
         LEFT JOIN pg_constraint c ON c.conindid = x.indexrelid \
         WHERE i.relnamespace = '{space}'::regnamespace AND NOT x.indisprimary ORDER BY 1, 2"
    );
    texts(served, &sql)
}

/// The indexes of the file are made in PostgreSQL, on tables like those that are there: then both can be compared.
#[test]
fn both_engines_have_the_same_indexes() {
    let (dir, database) = (tempfile::tempdir().unwrap(), Postgres::shared().database());
    let (file, served) = of_both(&database, dir.path());
    let mut twin = "CREATE SCHEMA twin; SET search_path = twin;".to_owned();
    for table in texts(
        &file,
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'",
    ) {
        let table = &table[0];
        twin += &format!("CREATE TABLE {table} (LIKE public.{table} INCLUDING DEFAULTS);");
    }
    for index in texts(
        &file,
        "SELECT sql FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL",
    ) {
        let index = index[0].replace("(id IS NULL)", "((id IS NULL)::int)");
        twin += &index.replace(
            "(failing_since IS NOT NULL)",
            "((failing_since IS NOT NULL)::int)",
        );
        twin += ";";
    }
    let unique = "SELECT t.name, group_concat(c.name, ', ') FROM sqlite_schema t JOIN pragma_index_list(t.name) i \
                  JOIN pragma_index_info(i.name) c WHERE t.type = 'table' AND i.origin = 'u' GROUP BY t.name, i.name";
    for line in texts(&file, unique) {
        twin += &format!("ALTER TABLE {} ADD UNIQUE ({});", line[0], line[1]);
    }
    served.batch(&twin).unwrap();
    let (in_file, in_postgres) = (indexes(&served, "twin"), indexes(&served, "public"));
    assert!(in_file.len() > 30, "{}", in_file.len());
    assert_eq!(in_file, in_postgres);
}

/// What runs only where very many wait, with values as they come.
#[test]
fn texts_for_very_many_take_values_on_both_engines() {
    let (dir, database) = (tempfile::tempdir().unwrap(), Postgres::shared().database());
    let (file, served) = of_both(&database, dir.path());
    for conn in [file, served] {
        for sql in [queues::LATE_OF_MANY, consumers::OVERDUE_OF_MANY] {
            let found = conn.first(sql, [1_795_000_060_000_000_i64, 1], |_| Ok(()));
            assert_eq!(found.unwrap(), None, "{sql}");
        }
    }
}

#[test]
fn a_step_waits_for_machines_that_do_not_know_it_and_is_taken_once() {
    let (dir, database) = (tempfile::tempdir().unwrap(), Postgres::shared().database());
    let (before, conn) = (schema::NEWEST - 1, another(&database));
    schema::migrate_to(&conn, 0, before).unwrap();
    conn.batch(&format!(
        "INSERT INTO node (name, since, heartbeat_at, until, version, schema, digest, socket) \
         VALUES ('old', 0, 0, 9000000000000000, '0.0.9', {before}, '', ''), \
         ('new', 0, 0, 9000000000000000, '0.0.9', {before}, '', '')"
    ))
    .unwrap();
    let new = StoreSettings {
        place: in_database(&database.url()),
        node: Some("new".parse().unwrap()),
        ..settings(dir.path())
    };
    let open = || Store::open_inline(&new, dir.path(), at(0));
    let refused = open().unwrap_err().to_string();
    assert!(refused.contains("old still runs renewd 0.0.9"), "{refused}");
    assert_eq!(schema::version(&conn).unwrap(), before);

    // What ran here before was killed a moment ago.
    conn.batch("UPDATE node SET until = 0 WHERE name = 'old'")
        .unwrap();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| schema::migrate(&another(&database), before).unwrap());
        }
    });
    assert_eq!(schema::version(&conn).unwrap(), schema::NEWEST);
    assert!(open().is_ok());
}

/// Tests of verbs that do not run on PostgreSQL, and why; whole files of them, too.
const FILES_ALONE: [(&str, &str); 11] = [
    ("database.rs", "is about PostgreSQL itself"),
    ("engines.rs", "compares the engines"),
    (
        "journal.rs",
        "files of machines of one process, whose database is lost",
    ),
    (
        "leases.rs",
        "machines of one process, with links that are cut",
    ),
    ("mirror.rs", "a mirror is a file of each machine"),
    ("moving.rs", "goes from one to the other"),
    (
        "open.rs",
        "files, their modes, locks, damage and older schemas",
    ),
    ("plans.rs", "how SQLite carries queries out"),
    ("restores.rs", "backups are files"),
    (
        "standby.rs",
        "machines of one process, whose database is lost",
    ),
    ("histories.rs", "runs there with fewer cases"),
];
const TESTS_ALONE: [(&str, &str); 11] = [
    (
        "a_hold_waits_for_machines_that_are_there_and_names_one_that_is_away",
        "the clock of a database cannot be set",
    ),
    (
        "a_store_that_is_no_clusters_any_more_lets_go_of_what_machines_had",
        "a file that had been shared is opened alone",
    ),
    (
        "a_database_that_was_set_back_gets_back_what_was_added_since",
        "a copy of the file is put back",
    ),
    (
        "an_older_database_gets_back_the_ids_that_were_given_since",
        "a copy of the file is put back",
    ),
    (
        "each_table_that_is_counted_is_written_in_one_file",
        "reads the sources",
    ),
    ("each_insert_names_its_columns", "reads the sources"),
    ("writes_are_seen_in_a_text", "reads a text"),
    (
        "nothing_in_the_schema_does_anything_by_itself",
        "reads SQLite's schema",
    ),
    (
        "garbage_that_no_loop_meets_is_found_and_let_go_once_it_is_mended",
        "a column of PostgreSQL holds one type",
    ),
    (
        "a_full_disk_is_told_apart_and_loses_nothing",
        "the disk of a file",
    ),
    (
        "an_operation_that_fails_or_panics_is_undone_alone",
        "opens a second store on the file",
    ),
];

/// Whoever adds a test of a verb says of it that it runs on both engines, or why not.
#[test]
fn each_test_of_a_verb_runs_on_both_engines() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store/tests");
    let mut seen = 0;
    for entry in fs::read_dir(tests).unwrap() {
        let path = entry.unwrap().path();
        let file = path.file_name().unwrap().to_string_lossy().into_owned();
        if FILES_ALONE.iter().any(|(alone, _)| *alone == file) {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let (tests, listed) = text.split_once("\non_postgres! {").unwrap_or((&text, ""));
        let listed: Vec<&str> = listed.split_whitespace().collect();
        let mut is_test = false;
        for line in tests.lines() {
            let name = line.trim_start_matches("async ").strip_prefix("fn ");
            let name = name
                .and_then(|rest| rest.split('(').next())
                .filter(|_| is_test);
            if let Some(name) = name {
                seen += 1;
                let alone = TESTS_ALONE.iter().any(|(alone, _)| *alone == name);
                assert!(
                    listed.contains(&name) != alone,
                    "{file}: {name} is to be in `on_postgres!`, or in TESTS_ALONE with the reason"
                );
            }
            is_test = line == "#[test]" || line == "#[tokio::test]";
        }
    }
    assert!(seen > 100, "{seen}");
}
