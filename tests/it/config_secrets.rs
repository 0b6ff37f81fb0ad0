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

/// A secret as people have them: a connection string, an access key, a webhook's secret, hex, a
/// password.
fn secret() -> impl Strategy<Value = String> {
    prop_oneof![
        of_alphabet("+/", 86).prop_map(|key| format!(
            "endpoint=https://contoso.communication.azure.com/;accesskey={key}"
        )),
        of_alphabet("+/", 43).prop_map(|key| key + "="),
        of_alphabet("-_", 43),
        of_alphabet("+/", 32).prop_map(|key| format!("whsec_{key}")),
        "[0-9a-f]{32}",
        "[0-9a-f]{64}",
        "[a-z]{20,40}",
        "[a-zA-Z0-9!$%&?+;]{16,24}",
    ]
}

/// So many letters and digits, each as likely as these signs.
fn of_alphabet(signs: &str, length: usize) -> impl Strategy<Value = String> {
    let letters = ('a'..='z').chain('A'..='Z').chain('0'..='9');
    let alphabet: Vec<char> = letters.chain(signs.chars()).collect();
    let letters = prop::collection::vec(prop::sample::select(alphabet), length);
    letters.prop_map(String::from_iter)
}

/// How somebody puts a secret where it does not belong.
#[derive(Debug, Clone)]
enum Blunder {
    /// As the value of the key on this line, in quotes of one kind or without.
    Value(prop::sample::Index, &'static str),
    /// The same twice.
    Doubled(prop::sample::Index),
    /// As an entry of a list, or of a table that is not there.
    Within(prop::sample::Index, &'static str),
    /// On a line of its own, as a key, a header, or a comment.
    Line(prop::sample::Index, &'static str),
    /// Behind what stands on the line.
    Behind(prop::sample::Index, &'static str),
}

fn blunder() -> impl Strategy<Value = Blunder> {
    let at = any::<prop::sample::Index>;
    let quote = prop::sample::select(vec!["\"", "'", "\"\"\"", "'''", ""]);
    let within = prop::sample::select(vec![
        "[\"S\"]",
        "[\"chat\", \"S\"]",
        "{ file = \"S\" }",
        "{ env = \"S\" }",
        "{ credential = \"S\" }",
        "{ S = \"x\" }",
        "[[\"S\"]]",
    ]);
    let line = prop::sample::select(vec![
        "S",
        "S = 1",
        "\"S\" = 1",
        "[S]",
        "[[S]]",
        "# S",
        "connection_string S",
        "connection_string: S",
        "= \"S\"",
        "seal_key.S = 2",
        "connection_string = \"S\"",
        "secrets = [\"S\", \"S\"]",
        "lifetime.file = \"S\"",
    ]);
    let behind = prop::sample::select(vec![" S", "\"S\"", " # S", ", \"S\"", " = \"S\"", "]S"]);
    prop_oneof![
        (at(), quote).prop_map(|(at, quote)| Blunder::Value(at, quote)),
        at().prop_map(Blunder::Doubled),
        (at(), within).prop_map(|(at, form)| Blunder::Within(at, form)),
        (at(), line).prop_map(|(at, form)| Blunder::Line(at, form)),
        (at(), behind).prop_map(|(at, form)| Blunder::Behind(at, form)),
    ]
}

fn put(text: &str, blunder: &Blunder, secret: &str) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let with_key = |lines: &[String], at: &prop::sample::Index| {
        let keys: Vec<usize> = (0..lines.len())
            .filter(|n| lines[*n].contains('='))
            .collect();
        let line = keys[at.index(keys.len())];
        let (key, _) = lines[line].split_once('=').unwrap();
        (line, key.trim().to_owned())
    };
    let any = |lines: &[String], at: &prop::sample::Index| at.index(lines.len());
    match blunder {
        Blunder::Value(at, quote) => {
            let (line, key) = with_key(&lines, at);
            lines[line] = format!("{key} = {quote}{secret}{quote}");
        }
        Blunder::Doubled(at) => {
            let (line, key) = with_key(&lines, at);
            lines[line] = format!("{key} = \"{secret}\"\n{key} = \"{secret}\"");
        }
        Blunder::Within(at, form) => {
            let (line, key) = with_key(&lines, at);
            lines[line] = format!("{key} = {}", form.replace('S', secret));
        }
        Blunder::Line(at, form) => {
            let line = any(&lines, at);
            lines.insert(line, form.replace('S', secret));
        }
        Blunder::Behind(at, form) => {
            let line = any(&lines, at);
            lines[line].push_str(&form.replace('S', secret));
        }
    }
    lines.join("\n") + "\n"
}

/// The reference file without its comments.
fn bare_reference() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/renewd.toml");
    let text = fs::read_to_string(path).unwrap();
    let lines = text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.collect::<Vec<_>>().join("\n")
}

/// No ten characters in a row of a secret are in what is told, but for the words that are no secret.
fn tells(told: &str, secret: &str) -> bool {
    let secret = secret.rsplit("accesskey=").next().unwrap_or_default();
    let secret = secret.trim_start_matches("whsec_");
    (0..=secret.len() - 10).any(|at| told.contains(&secret[at..at + 10]))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1000) })]

    /// A secret in any wrong place is in no error.
    #[test]
    fn a_secret_in_a_wrong_place_is_in_no_error(
        // As they are made: what is cut down to look like words is none.
        secret in secret().no_shrink(),
        blunders in prop::collection::vec(blunder(), 1..4),
    ) {
        let mut text = bare_reference();
        for blunder in &blunders {
            text = put(&text, blunder, &secret);
        }
        let told = Etc::new().told(&text);
        prop_assert!(!tells(&told, &secret), "{secret}\n{told}");
    }
}

/// The same of the program itself: what `check` and `run` print, and what a room's own check says.
#[test]
fn what_check_and_run_print_holds_no_secret() {
    let secret = "bm90LWEtcmVhbC1rZXktMDEyMzQ1Njc4OWFiY2RlZiEh";
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("renewd.toml");
    let start = "[[resource]]\nname = \"contoso\"\nconnection_string = { env = \"CONTOSO\" }\n";
    let bot = "[[identity]]\nname = \"bot\"\nscopes = [\"chat\"]\n";
    let texts = [
        format!("{start}{bot}readers = [\"{secret}\"]\n"),
        format!("{start}{bot}sinks = [\"{secret}\"]\n"),
        format!("{start}{bot}labels = {{ {secret} = 1 }}\n"),
        format!("{start}{bot}id = \"{secret}\"\n"),
        format!("{start}ca_file = \"{secret}\"\n"),
        format!("{start}proxy = \"http://user:{secret}@proxy\"\n"),
        format!("[[resource]]\nname = \"a\"\nconnection_string = {{ env = \"{secret}\" }}\n"),
        format!("{start}[daemon]\nlisten = \"{secret}\"\nadmins = [\"{secret}\"]\n"),
        format!("{start}[store]\npath = \"{secret}\"\nseal_key = {{ file = \"{secret}\" }}\n"),
        format!(
            "{start}[[job]]\nname = \"j\"\ncron = \"{secret}\"\naction = \"hold\"\nselect = \"{secret}\"\n"
        ),
        format!(
            "{start}[[job]]\nname = \"j\"\ncron = \"0 0 * * *\"\ntimezone = \"{secret}\"\naction = \"hold\"\nselect = \"all\"\n"
        ),
        format!(
            "{start}[[sink.file]]\nname = \"f\"\npath = \"/run/{{name}}\"\nowner = \"{secret}\"\n"
        ),
        format!(
            "{start}[[sink.file]]\nname = \"f\"\npath = \"/run/{{name}}\"\ntemplate = \"{{{{ {secret} }}}} {{{{\"\n"
        ),
        format!(
            "{start}[[sink.webhook]]\nname = \"w\"\nurl = \"https://h/{secret}\"\nsecrets = [\"{secret}\"]\n"
        ),
        format!(
            "{start}[[sink.exec]]\nname = \"x\"\ncommand = [\"/nowhere/{secret}\", \"{secret}\"]\nenvironment = {{ A = \"{secret}\" }}\n"
        ),
        format!(
            "{start}[[source.exec]]\nname = \"x\"\ncommand = [\"/nowhere/{secret}\", \"{secret}\"]\n"
        ),
        format!(
            "{start}[[source.sqlite]]\nname = \"x\"\npath = \"{secret}\"\nquery = \"SELECT '{secret}'\"\n"
        ),
        format!("connection_string = {secret}\n"),
    ];
    for text in texts {
        fs::write(&path, &text).unwrap();
        // One that can work would be run.
        let is_wrong = !says_no_secret("check", &path, secret);
        if is_wrong {
            says_no_secret("run", &path, secret);
        }
    }
}

/// Whether a verb is content with a configuration; what it says holds no secret.
fn says_no_secret(verb: &str, config: &Path, secret: &str) -> bool {
    let folder = config.parent().unwrap();
    let output = std::process::Command::new(crate::stage::RENEWD)
        .arg(verb)
        .arg("--config")
        .arg(config)
        .env("STATE_DIRECTORY", folder)
        .env("RUNTIME_DIRECTORY", folder)
        .env(
            "CONTOSO",
            "endpoint=https://contoso.communication.azure.com/;accesskey=bm90LWEtcmVhbC1rZXk=",
        )
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    let text = fs::read_to_string(config).unwrap();
    assert!(!tells(&said, secret), "{verb}:\n{text}\n{said}");
    output.status.success()
}
