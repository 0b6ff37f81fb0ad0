//! The import table in the header of `src/lib.rs`, enforced: every `crate::` path, in `use` lines or
//! inline, must be allowed by its room's row, and every room must have one.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Room → what it may import (`acs`, or a part of a room: `acs::wire`).
fn table() -> BTreeMap<String, BTreeSet<String>> {
    let mut rows = rows();
    rows.retain(|room, _| !room.starts_with("renewd-"));
    rows
}

/// The rows of both tables, of rooms and of crates.
fn rows() -> BTreeMap<String, BTreeSet<String>> {
    let text = fs::read_to_string(Path::new(ROOT).join("src/lib.rs")).unwrap();
    text.lines()
        .filter_map(|line| line.strip_prefix("//! | `"))
        .map(|row| {
            let (room, rest) = row.split_once('`').unwrap();
            let imports = rest.trim_end_matches('|').rsplit('|').next().unwrap();
            let words = imports.split_whitespace().filter(|word| *word != "–");
            (room.to_owned(), words.map(str::to_owned).collect())
        })
        .collect()
}

/// Every Rust file of the daemon and of the crates beside it.
fn all_sources() -> Vec<PathBuf> {
    let mut found = sources(&Path::new(ROOT).join("src"));
    found.extend(sources(&Path::new(ROOT).join("crates")));
    found
}

fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
    found
}

/// The paths after each `crate::` in a text without comments; `use crate::{a::b, c}` gives both.
fn crate_paths(text: &str) -> Vec<String> {
    let code: String = text
        .lines()
        .map(|line| line.split("//").next().unwrap_or(""))
        .collect::<Vec<_>>()
        .join(" ");
    let mut paths = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        if at > 0 && code[..at].ends_with('$') {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            paths.extend(split_group(group));
        } else {
            paths.push(path_prefix(rest));
        }
    }
    paths
}

fn split_group(group: &str) -> Vec<String> {
    let (mut depth, mut start, mut parts) = (0, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                parts.push(&group[start..at]);
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&group[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts
        .into_iter()
        .map(|part| path_prefix(part.trim()))
        .filter(|path| !path.is_empty())
        .collect()
}

fn path_prefix(text: &str) -> String {
    text.chars()
        .take_while(|c| c.is_alphanumeric() || "_:".contains(*c))
        .collect()
}

fn allowed(path: &str, room: &str, imports: &BTreeSet<String>) -> bool {
    let target = path.split("::").next().unwrap_or_default();
    target == room
        || imports.iter().any(|import| {
            path == import
                || path
                    .strip_prefix(import.as_str())
                    .is_some_and(|rest| rest.starts_with("::"))
        })
}

#[test]
fn imports_go_down_only() {
    let table = table();
    let mut wrong = Vec::new();
    for path in sources(&Path::new(ROOT).join("src")) {
        let inside = path
            .strip_prefix(Path::new(ROOT).join("src"))
            .unwrap()
            .to_owned();
        let room = inside
            .iter()
            .next()
            .unwrap()
            .to_str()
            .unwrap()
            .trim_end_matches(".rs")
            .to_owned();
        if matches!(room.as_str(), "lib" | "main") {
            continue;
        }
        let Some(imports) = table.get(&room) else {
            wrong.push(format!(
                "src/{}: the room `{room}` has no row in src/lib.rs",
                inside.display()
            ));
            continue;
        };
        for path in crate_paths(&fs::read_to_string(&path).unwrap()) {
            if !allowed(&path, &room, imports) {
                wrong.push(format!(
                    "src/{}: `{room}` may not import `crate::{path}`",
                    inside.display()
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn the_table_has_no_cycle() {
    let table = table();
    let mut left: BTreeMap<&str, BTreeSet<&str>> = table
        .iter()
        .map(|(room, imports)| {
            (
                room.as_str(),
                imports
                    .iter()
                    .map(|i| i.split("::").next().unwrap_or_default())
                    .collect(),
            )
        })
        .collect();
    while let Some(ground) = left
        .iter()
        .find(|(_, imports)| imports.is_empty())
        .map(|(room, _)| *room)
    {
        left.remove(ground);
        left.values_mut().for_each(|imports| {
            imports.remove(ground);
        });
    }
    assert!(
        left.is_empty(),
        "these rooms import each other: {:?}",
        left.keys()
    );
}

#[test]
fn crates_depend_on_what_the_table_says() {
    let rows = rows();
    let mut wrong = Vec::new();
    for entry in fs::read_dir(Path::new(ROOT).join("crates")).unwrap() {
        let folder = entry.unwrap();
        let name = format!("renewd-{}", folder.file_name().to_str().unwrap());
        let Some(allowed) = rows.get(&name) else {
            wrong.push(format!("{name} has no row in src/lib.rs"));
            continue;
        };
        let manifest = fs::read_to_string(folder.path().join("Cargo.toml")).unwrap();
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
        let (_, dependencies) = manifest.split_once("[dependencies]").unwrap();
        let own: BTreeSet<String> = dependencies
            .lines()
            .filter_map(|line| line.strip_prefix("renewd-"))
            .filter_map(|line| line.split(['.', ' ']).next())
            .map(str::to_owned)
            .collect();
        if own != *allowed {
            wrong.push(format!(
                "{name} depends on {own:?}, and the table says {allowed:?}"
            ));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn the_reader_of_paths_sees_every_form() {
    let text =
        "use crate::{model::{Name, Secret}, acs}; fn f() -> crate::store::Store {} // crate::no";
    assert_eq!(crate_paths(text), ["model::", "acs", "store::Store"]);
}

/// Words that were retired (CONTRIBUTING.md), and where one of them is still the right one.
const RETIRED: [&str; 16] = [
    "lane",
    "courier",
    "cargo",
    "parcel",
    "landing",
    "house",
    "heart",
    "scene",
    "janitor",
    "withdrawer",
    "intake",
    "vigil",
    "footing",
    "knock",
    "bringing",
    "door",
];

#[test]
fn retired_words_stay_out() {
    let mut found = Vec::new();
    for path in all_sources() {
        let text = fs::read_to_string(&path).unwrap();
        let code = text
            .lines()
            .map(|line| line.split("//").next().unwrap_or(""));
        // Words in quotes may be public: names in JSON, columns, messages.
        for (number, line) in code.enumerate() {
            let bare: String = line.split('"').step_by(2).collect();
            let apart = apart(&bare);
            let words = apart.split(|c: char| !c.is_ascii_alphabetic());
            let retired =
                |word: &&str| RETIRED.contains(&word.to_ascii_lowercase().trim_end_matches('s'));
            let is_cargo =
                |word: &&str| word.eq_ignore_ascii_case("cargo") && bare.contains("CARGO");
            if let Some(word) = words.filter(retired).find(|word| !is_cargo(word)) {
                found.push(format!("{}:{}: {word}", path.display(), number + 1));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

/// `RenewerView` as `Renewer View`.
fn apart(code: &str) -> String {
    let mut out = String::new();
    for c in code.chars() {
        if c.is_ascii_uppercase() && out.ends_with(|before: char| before.is_ascii_lowercase()) {
            out.push(' ');
        }
        out.push(c);
    }
    out
}

/// Words that end as participles do and name no activity.
const NOUNS: [&str; 3] = ["shared", "standing", "string"];

/// The modules of the product with their files, without tests.
fn modules() -> BTreeMap<Vec<String>, PathBuf> {
    let src = Path::new(ROOT).join("src");
    let module = |path: PathBuf| {
        let inside = path.strip_prefix(&src).unwrap().with_extension("");
        let mut names: Vec<String> = inside
            .iter()
            .map(|name| name.to_str().unwrap().to_owned())
            .collect();
        if names.last().is_some_and(|name| name == "mod") {
            names.pop();
        }
        (names, path)
    };
    let of_product = |(names, _): &(Vec<String>, PathBuf)| {
        !names.iter().any(|name| name == "tests") && !matches!(names[0].as_str(), "lib" | "main")
    };
    sources(&src)
        .into_iter()
        .map(module)
        .filter(of_product)
        .collect()
}

/// Every path that a `use` names, and every inline path that says where it begins.
fn paths(text: &str) -> Vec<String> {
    let lines = text
        .lines()
        .map(|line| line.split("//").next().unwrap_or(""));
    let code = lines.collect::<Vec<_>>().join("\n");
    let tests = code.match_indices("#[cfg(test)]\nmod ").find(|(at, head)| {
        let name = code[at + head.len()..].lines().next();
        name.is_some_and(|name| name.ends_with('{'))
    });
    let code = &code[..tests.map_or(code.len(), |(at, _)| at)];
    let mut found = Vec::new();
    for (at, _) in code.match_indices("use ") {
        let before = code[..at].chars().next_back();
        if before.is_none_or(|c| c == '\n' || c == ' ') {
            let tree = code[at + 4..].split(';').next().unwrap_or_default();
            branches("", tree, &mut found);
        }
    }
    for begin in ["crate::", "super::", "self::"] {
        for (at, _) in code.match_indices(begin) {
            let before = code[..at].chars().next_back();
            if before.is_none_or(|c| !c.is_alphanumeric() && !"_:".contains(c)) {
                found.push(path_prefix(&code[at..]));
            }
        }
    }
    found
}

/// The leaves of a tree of imports.
fn branches(prefix: &str, tree: &str, found: &mut Vec<String>) {
    let tree = tree.trim();
    let Some((head, inner)) = tree.split_once('{') else {
        found.push(format!("{prefix}{}", path_prefix(tree)));
        return;
    };
    let (mut depth, mut start) = (0, 0);
    let prefix = format!("{prefix}{}", head.trim());
    for (at, c) in inner.char_indices() {
        match c {
            '{' => depth += 1,
            '}' | ',' if depth == 0 => {
                if !inner[start..at].trim().is_empty() {
                    branches(&prefix, &inner[start..at], found);
                }
                start = at + 1;
            }
            '}' => depth -= 1,
            _ => {}
        }
    }
}

/// The module of a room that a path leads into, as seen from another.
fn leads_to(
    path: &str,
    from: &[String],
    modules: &BTreeMap<Vec<String>, PathBuf>,
) -> Option<Vec<String>> {
    let mut steps = path.split("::").filter(|step| !step.is_empty()).peekable();
    let mut at: Vec<String> = match steps.peek()? {
        &"crate" => Vec::new(),
        _ => from.to_vec(),
    };
    let is_relative = matches!(steps.peek()?, &"super" | &"self" | &"crate");
    while let Some(step) = steps.next_if(|step| matches!(*step, "super" | "self" | "crate")) {
        if step == "super" {
            at.pop();
        }
    }
    at.extend(steps.map(str::to_owned));
    while !at.is_empty() && !modules.contains_key(&at) {
        at.pop();
    }
    // A path that begins with a name leads to a module only where the file has one of that name.
    (is_relative || at.len() > from.len()).then_some(at)
}

/// Files that refer to each other, other than a module and those inside of it.
fn circle(edges: &BTreeMap<Vec<String>, BTreeSet<Vec<String>>>) -> Vec<String> {
    let mut left = edges.clone();
    loop {
        let ends: Vec<Vec<String>> = left
            .iter()
            .filter(|(_, to)| !to.iter().any(|to| left.contains_key(to)))
            .map(|(from, _)| from.clone())
            .collect();
        let begins: Vec<Vec<String>> = left
            .keys()
            .filter(|module| !left.values().any(|to| to.contains(*module)))
            .cloned()
            .collect();
        if ends.is_empty() && begins.is_empty() {
            return left.keys().map(|module| module.join("::")).collect();
        }
        left.retain(|module, _| !ends.contains(module) && !begins.contains(module));
    }
}

#[test]
fn no_files_of_a_room_refer_to_each_other_in_a_circle() {
    let modules = modules();
    let mut rooms: BTreeMap<&str, BTreeMap<Vec<String>, BTreeSet<Vec<String>>>> = BTreeMap::new();
    for (module, file) in &modules {
        let text = fs::read_to_string(file).unwrap();
        let to = paths(&text)
            .iter()
            .filter_map(|path| leads_to(path, module, &modules))
            .filter(|to| !to.starts_with(module) && !module.starts_with(to))
            .filter(|to| to[0] == module[0])
            .collect();
        rooms
            .entry(&module[0])
            .or_default()
            .insert(module.clone(), to);
    }
    let circles: BTreeMap<&str, Vec<String>> = rooms
        .iter()
        .map(|(room, edges)| (*room, circle(edges)))
        .filter(|(_, circle)| !circle.is_empty())
        .collect();
    assert!(circles.is_empty(), "the files: {circles:#?}");
}

#[test]
fn no_file_is_named_for_an_activity() {
    let is_participle =
        |word: &str| (word.ends_with("ing") || word.ends_with("ed")) && !NOUNS.contains(&word);
    let named: Vec<String> = modules()
        .into_keys()
        .filter(|module| module.last().unwrap().split('_').any(is_participle))
        .map(|module| module.join("::"))
        .collect();
    assert!(named.is_empty(), "{named:?}");
}

#[test]
fn every_file_is_a_module_of_another() {
    let src = Path::new(ROOT).join("src");
    let mut orphans = Vec::new();
    for path in sources(&src) {
        let inside = path.strip_prefix(&src).unwrap();
        let is_root = inside.iter().count() == 1;
        let name = path.file_stem().unwrap().to_str().unwrap();
        if is_root && matches!(name, "lib" | "main") {
            continue;
        }
        // `a/mod.rs` is declared where `a.rs` would be.
        let (name, folder) = match name {
            "mod" => (
                path.parent()
                    .unwrap()
                    .file_name()
                    .unwrap()
                    .to_str()
                    .unwrap(),
                path.parent().unwrap().parent().unwrap().to_owned(),
            ),
            name => (name, path.parent().unwrap().to_owned()),
        };
        let parents = [
            folder.join("mod.rs"),
            folder.with_extension("rs"),
            folder.join("lib.rs"),
        ];
        let declares = format!("mod {name};");
        let is_declared = parents
            .iter()
            .filter_map(|parent| fs::read_to_string(parent).ok())
            .any(|text| text.lines().any(|line| line.ends_with(&declares)));
        if !is_declared {
            orphans.push(inside.display().to_string());
        }
    }
    assert!(orphans.is_empty(), "{orphans:?}");
}

#[test]
fn the_reader_of_imports_sees_every_leaf() {
    let text =
        "use super::{a::{self, B}, c};\npub use d::E;\nfn f() { super::g::h(); } // use no::no;";
    let mut found = paths(text);
    found.sort();
    found.dedup();
    assert_eq!(
        found,
        [
            "d::E",
            "super::",
            "super::a::B",
            "super::a::self",
            "super::c",
            "super::g::h"
        ]
    );
}

/// The types of a text that are seen beyond its file, by name.
fn types_seen_outside(text: &str) -> impl Iterator<Item = String> {
    let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    code.lines().filter_map(|line| {
        let (visible, rest) = line.trim_start().split_once(' ')?;
        let (kind, name) = rest.split_once(' ')?;
        let is_type = matches!(kind, "struct" | "enum" | "trait" | "type" | "union");
        let name = path_prefix(name);
        (visible.starts_with("pub") && is_type && !name.is_empty())
            .then(|| name.trim_end_matches(':').to_owned())
    })
}

/// The command line is left out: its types are named after its verbs.
#[test]
fn no_type_name_means_two_things_in_two_rooms() {
    let mut rooms: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (module, file) in modules() {
        if module[0] == "cli" {
            continue;
        }
        for name in types_seen_outside(&fs::read_to_string(file).unwrap()) {
            rooms.entry(name).or_default().insert(module[0].clone());
        }
    }
    rooms.retain(|_, rooms| rooms.len() > 1);
    assert!(rooms.is_empty(), "{rooms:#?}");
}

#[test]
fn the_reader_of_types_sees_those_that_leave_their_file() {
    let text = "pub struct A<T>(T);\nstruct B;\n    pub(super) enum C {\npub(crate) type D = u8;\n#[cfg(test)]\nmod t { pub struct E; }";
    let found: Vec<String> = types_seen_outside(text).collect();
    assert_eq!(found, ["A", "C", "D"]);
}

/// Doc comments of one line that say nothing: three words at most, nothing quoted, nothing counted.
fn empty_comments(text: &str) -> Vec<(usize, &str)> {
    let comment = |line: &'_ str| line.trim_start().starts_with("///");
    let lines: Vec<&str> = text.lines().collect();
    let goes_on = |at: Option<usize>| {
        at.and_then(|at| lines.get(at))
            .is_some_and(|line| comment(line))
    };
    let says_something = |text: &str| {
        text.split_whitespace().count() > 3
            || text.contains(|c: char| c == '`' || c.is_ascii_digit())
    };
    let all = lines.iter().enumerate().filter(|(_, line)| comment(line));
    all.filter(|(at, _)| !goes_on(at.checked_sub(1)) && !goes_on(Some(at + 1)))
        .map(|(at, line)| (at + 1, line.trim_start().trim_start_matches('/').trim()))
        .filter(|(_, text)| !says_something(text))
        .collect()
}

/// A name that needs no comment has none. On the command line a comment without a full stop is a help text.
#[test]
fn no_doc_comment_repeats_a_name() {
    let mut found = Vec::new();
    for path in all_sources() {
        let is_cli = path.starts_with(Path::new(ROOT).join("src/cli"));
        let text = fs::read_to_string(&path).unwrap();
        for (line, comment) in empty_comments(&text) {
            if !is_cli || comment.ends_with('.') {
                found.push(format!("{}:{line}: {comment}", path.display()));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn the_reader_of_comments_sees_those_that_stand_alone() {
    let text = "/// The store.\nstore: Store,\n    /// Of two\n    /// lines.\n/// As `id`.\n/// From 1.\n\n    /// Why.\n";
    let found: Vec<usize> = empty_comments(text)
        .into_iter()
        .map(|(line, _)| line)
        .collect();
    assert_eq!(found, [1, 8]);
}
