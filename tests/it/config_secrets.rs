//! Whatever is wrong with a configuration, loading it never panics and never prints a secret that
//! somebody wrote into it.

use std::{fs, path::Path};

use proptest::prelude::*;

use crate::config::Etc;

/// Looks like an access key, as a secret written in the clear would.
const CANARY: &str = "Zm9yYmlkZGVuQ2FuYXJ5MDEyMzQ1Njc4OTBhYmNkZWY";

/// The reference file with its secrets written in the clear, each in another way.
fn careless() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/renewd.toml");
    let connection =
        format!("endpoint=https://contoso.communication.azure.com/;accesskey={CANARY}");
    fs::read_to_string(path)
        .unwrap()
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| match line.split_whitespace().next() {
            Some("connection_string") => format!("connection_string = \"{connection}\"\n"),
            Some("secondary_connection_string") => {
                format!("secondary_connection_string = '''\n{connection}'''\n")
            }
            Some("secrets") => {
                format!("secrets = [\"whsec_{CANARY}\",\n  {{ file = \"{CANARY}\" }}]\n")
            }
            Some("seal_key") => format!("seal_key = {{ env = \"{CANARY}\" }} # {CANARY}\n"),
            _ => format!("{line}\n"),
        })
        .collect()
}

/// One change to a text, as a slip of the hand or a bad merge makes it.
#[derive(Debug, Clone)]
enum Slip {
    Delete(prop::sample::Index, usize),
    Insert(prop::sample::Index, String),
    Swap(prop::sample::Index, prop::sample::Index),
    Repeat(prop::sample::Index),
    Join(prop::sample::Index),
}

fn slip() -> impl Strategy<Value = Slip> {
    let at = any::<prop::sample::Index>;
    let bits = prop::sample::select(vec![
        "\"",
        "'",
        "\"\"\"",
        "'''",
        "[",
        "]",
        "[[",
        "{",
        "}",
        "=",
        ",",
        ".",
        "\n",
        "#",
        "\\",
        " ",
        "\0",
        "\u{1b}[31m",
        "ä",
        "0",
        "name = ",
        "\nname = \"x\"\n",
        "[[identity]]\n",
        "labels = { a = ",
    ]);
    prop_oneof![
        (at(), 1..12usize).prop_map(|(at, n)| Slip::Delete(at, n)),
        (at(), bits).prop_map(|(at, text)| Slip::Insert(at, text.to_owned())),
        (at(), at()).prop_map(|(a, b)| Slip::Swap(a, b)),
        at().prop_map(Slip::Repeat),
        at().prop_map(Slip::Join),
    ]
}

fn make(text: &str, slip: &Slip) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut lines: Vec<&str> = text.split('\n').collect();
    match slip {
        Slip::Delete(at, n) => {
            let at = at.index(chars.len() + 1);
            chars[..at]
                .iter()
                .chain(chars.iter().skip(at + n))
                .collect()
        }
        Slip::Insert(at, new) => {
            let at = at.index(chars.len() + 1);
            let (before, after) = chars.split_at(at);
            before
                .iter()
                .copied()
                .chain(new.chars())
                .chain(after.iter().copied())
                .collect()
        }
        Slip::Swap(a, b) => {
            let (a, b) = (a.index(lines.len()), b.index(lines.len()));
            lines.swap(a, b);
            lines.join("\n")
        }
        Slip::Repeat(at) => {
            let at = at.index(lines.len());
            lines.insert(at, lines[at]);
            lines.join("\n")
        }
        Slip::Join(at) => {
            let at = at.index(lines.len());
            let rest = lines.split_off(at);
            [lines.join("\n"), rest.concat()].concat()
        }
    }
}

/// No eight characters in a row of the canary are in what is told.
fn shows_canary(told: &str) -> bool {
    (0..=CANARY.len() - 8).any(|at| told.contains(&CANARY[at..at + 8]))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(600) })]

    #[test]
    fn slips_never_show_a_secret(slips in prop::collection::vec(slip(), 0..6)) {
        let mut text = careless();
        for slip in &slips {
            text = make(&text, slip);
        }
        let told = Etc::new().told(&text);
        prop_assert!(!told.is_empty(), "a secret in the clear is refused");
        prop_assert!(!shows_canary(&told), "{told}");
        prop_assert!(!told.contains('\u{1b}') && !told.contains('\0'), "no control characters reach the terminal");
    }

    #[test]
    fn garbage_never_panics(text in "(?s).{0,200}") {
        Etc::new().told(&text);
    }

    #[test]
    fn words_and_signs_never_panic(
        words in prop::collection::vec(prop::sample::select(vec![
            "resource", "identity", "sink", "file", "daemon", "name", "[", "]", "[[", "]]", "{", "}", "=", ".",
            ",", "\"", "'", "\"\"\"", "'''", "\n", "#", "5", "0o640", "-", "true", "ä", "\\", "connection_string",
        ]), 0..60)
    ) {
        Etc::new().told(&words.concat());
    }
}
