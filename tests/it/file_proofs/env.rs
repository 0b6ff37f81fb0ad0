//! Env files, read by shells.

use super::*;

/// Tokens that some reader of env files takes in a way of its own.
const AWKWARD: [&str; 28] = [
    "ey.J",
    "it's",
    "a\"b",
    "$HOME",
    "a b",
    "#x",
    "a=b",
    "größe/東京",
    "`id`",
    "a!b",
    "%s",
    "~",
    "*",
    "$HOME and `x` \"q\" # = ;&|<>()",
    "{x}",
    "$(id)",
    "a\tb",
    "a\nb",
    "a\\b",
    "a\\nb",
    "a${b}",
    "it's $x",
    "it's \"q\"",
    "'",
    "\"",
    "trailing ",
    " leading",
    "",
];

/// The shells are asked here, the dotenv
/// library by `tests/files/run`, from the folder that it names.
#[test]
fn readers_of_env_files_see_what_was_meant_or_the_value_is_refused() {
    let kept = std::env::var_os("RENEWD_TEST_KEEP").map(PathBuf::from);
    let own = folder();
    let folder = kept.as_deref().unwrap_or(own.path());
    let sink = sink(folder, "{name}.env", FileFormat::Env);
    let (mut taken, mut refused) = (0, 0);
    for (at, token) in AWKWARD.into_iter().enumerate() {
        let name = format!("bot{at}");
        let document = TokenDocument {
            token: Some(Secret::new(token.to_owned())),
            ..document(&name, 1)
        };
        let path = folder.join(format!("{name}.env"));
        match put(&sink, document) {
            Ok(_) => {
                taken += 1;
                fs::write(path.with_extension("expected"), token).unwrap();
                for shell in ["sh", "bash"] {
                    assert_eq!(sourced(shell, &path), token, "{shell}");
                }
            }
            Err(error) => {
                refused += 1;
                assert!(
                    error.to_string().contains("cannot hold the RENEWD_TOKEN"),
                    "{error}"
                );
                assert!(!path.exists(), "no broken file");
            }
        }
    }
    assert_eq!((taken, refused), (21, 7));
}

/// The token as this shell reads it.
fn sourced(shell: &str, path: &Path) -> String {
    let script = ". \"$0\" && printf %s \"$RENEWD_TOKEN\"";
    let read = Command::new(shell).arg("-c").arg(script).arg(path).output();
    String::from_utf8(read.unwrap().stdout).unwrap()
}
