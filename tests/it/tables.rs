//! `tests/README.md`, `docs/failures.md` and `docs/security.md` keep their word: every test and module that their tables name
//! is there, and no failure stands without one.

use std::{
    fs,
    path::{Path, PathBuf},
};

use renewd::model::NoticeKind;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The files below a folder, with what they hold.
fn texts(folder: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(ROOT).join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => found.extend(fs::read_to_string(&path).map(|text| (path, text))),
            }
        }
    }
    found
}

/// Whether a file lies in these modules: `dispatchers::upkeep` is `tests/it/dispatchers/upkeep.rs`.
fn lies_in(path: &Path, modules: &[&str]) -> bool {
    let place = path.strip_prefix(ROOT).unwrap().with_extension("");
    let parts: Vec<&str> = place.iter().filter_map(|part| part.to_str()).collect();
    // Tests may stand in a module of their own at the end of the file.
    let mut modules = modules
        .iter()
        .filter(|module| !matches!(**module, "…" | "tests"));
    modules.all(|module| parts.contains(module))
}

/// How tests are named that are written in Python.
const SUITES: [&str; 4] = ["receivers: ", "monitoring: ", "sdk: ", "nodes: "];

/// Whether what is named is there.
fn is_there(name: &str, rust: &[(PathBuf, String)], scripts: &[(PathBuf, String)]) -> bool {
    if let Some(test) = SUITES.iter().find_map(|suite| name.strip_prefix(suite)) {
        return scripts
            .iter()
            .any(|(_, text)| text.contains(&format!("def {test}(")));
    }
    let modules: Vec<&str> = name.split("::").collect();
    let Some((last, above)) = modules.split_last().filter(|(_, above)| !above.is_empty()) else {
        let case = format!("{name}() {{");
        return scripts.iter().any(|(_, text)| text.contains(&case));
    };
    let function = format!("fn {last}(");
    rust.iter().any(|(path, text)| {
        let is_module = lies_in(path, if *last == "*" { above } else { &modules });
        is_module || (lies_in(path, above) && text.contains(&function))
    })
}

/// What stands between backticks and is no path, command or setting.
fn names(table: &str) -> impl Iterator<Item = &str> {
    let quoted = table.split('`').skip(1).step_by(2);
    quoted.filter(|name| {
        let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_:*… ".contains(c);
        let of_suite = SUITES.iter().any(|suite| name.starts_with(suite));
        let is_name = name.contains("::") || of_suite;
        name.chars().all(is_word) && (is_name || name.matches('_').count() > 1)
    })
}

#[test]
fn every_test_that_is_named_exists() {
    let mut rust = texts("src");
    rust.extend(texts("crates"));
    rust.extend(texts("tests/it"));
    let mut scripts = texts("tests/systemd");
    scripts.extend(texts("tests/packages"));
    scripts.extend(texts("tests/receivers"));
    scripts.extend(texts("tests/monitoring"));
    scripts.extend(texts("tests/sdk"));
    scripts.extend(texts("tests/cluster"));
    for (page, least) in [
        ("tests/README.md", 100),
        ("docs/failures.md", 20),
        ("docs/architecture.md", 4),
        ("docs/security.md", 20),
    ] {
        let table = fs::read_to_string(Path::new(ROOT).join(page)).unwrap();
        assert!(
            names(&table).count() > least,
            "the tables of {page} are read"
        );
        let lost: Vec<&str> = names(&table)
            .filter(|name| !is_there(name, &rust, &scripts))
            .collect();
        assert!(lost.is_empty(), "{page} names what is not there: {lost:#?}");
    }
    assert!(!is_there("dispatchers::no_such_test", &rust, &scripts));
}

/// Every row of a page's tables names a test in its last column.
fn every_row_has_a_test(page: &str, head: &str) {
    let page = fs::read_to_string(Path::new(ROOT).join(page)).unwrap();
    let rows = page
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with(head));
    let last = |row: &str| {
        row.trim_end_matches(['|', ' '])
            .rsplit(" | ")
            .next()
            .map(str::to_owned)
    };
    let bare: Vec<&str> = rows
        .filter(|row| names(&last(row).unwrap_or_default()).next().is_none())
        .collect();
    assert!(bare.is_empty(), "without a test: {bare:#?}");
}

/// What cannot end by itself: something that happened once, or the end of something.
const EVENTS: &[NoticeKind] = &[
    NoticeKind::IdentityCreated,
    NoticeKind::IdentityRevoked,
    NoticeKind::IdentityOrphaned,
    NoticeKind::KeySwitched,
    NoticeKind::StoreBroughtUp,
    NoticeKind::WithdrawalsRewritten,
];

#[test]
fn every_notice_that_can_end_has_a_twin_and_each_is_raised_somewhere() {
    let rust: Vec<(PathBuf, String)> = texts("src")
        .into_iter()
        .filter(|(path, _)| !path.ends_with("model/notice.rs"))
        .filter(|(path, _)| !path.components().any(|part| part.as_os_str() == "tests"))
        .collect();
    let is_raised = |kind: &NoticeKind| {
        let word = format!("NoticeKind::{kind:?}");
        let is_whole = |rest: &str| !rest.starts_with(|c: char| c.is_alphanumeric());
        let said = |text: &str| text.split(&word).skip(1).any(is_whole);
        rust.iter().any(|(_, text)| {
            let (code, _) = text
                .split_once("#[cfg(test)]\nmod tests")
                .unwrap_or((text, ""));
            said(code)
        })
    };
    let silent: Vec<_> = NoticeKind::ALL
        .iter()
        .filter(|kind| !is_raised(kind))
        .collect();
    assert!(silent.is_empty(), "never raised: {silent:?}");
    for kind in NoticeKind::ALL {
        let ends = NoticeKind::ALL
            .iter()
            .any(|begun| begun.ended_by().contains(kind));
        let has_end = !kind.ended_by().is_empty();
        let is_event = EVENTS.contains(kind);
        let is_known = has_end || ends || is_event;
        assert!(
            is_known,
            "{kind}: neither has it a twin nor is it one, nor can it be said to happen once"
        );
    }
    let page = fs::read_to_string(Path::new(ROOT).join("docs/notices.md")).unwrap();
    for kind in NoticeKind::ALL {
        let told = format!("`{kind}`");
        assert!(
            page.contains(&told),
            "docs/notices.md does not tell of {told}"
        );
        let row = page
            .lines()
            .find(|line| line.starts_with(&format!("| `{kind}`")));
        for end in kind.ended_by() {
            let row = row.unwrap_or_default();
            assert!(
                row.contains(&format!("`{end}`")),
                "{kind} ends with {end}: {row}"
            );
        }
    }
}

#[test]
fn every_failure_has_a_test() {
    every_row_has_a_test("docs/failures.md", "| what breaks");
}

#[test]
fn every_attack_has_a_test() {
    every_row_has_a_test("docs/security.md", "| who |");
}
