//! The command line as scripts see it: exit codes, what stands on standard output, what does not.

use std::{
    path::Path,
    process::{Command, Output},
};

use crate::stage::{Daemon, Emulator, RENEWD, Stage, identities};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn renewd(args: &[&str]) -> Output {
    command(args).output().unwrap()
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(RENEWD);
    command
        .args(args)
        .env_remove("RENEWD_SOCKET")
        .env("HOME", "/nonexistent");
    command
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// The verbs that `renewd --help` lists.
fn verbs() -> Vec<String> {
    let help = stdout(&renewd(&["--help"]));
    let listed = help
        .split("Commands:")
        .nth(1)
        .unwrap()
        .split("Options:")
        .next()
        .unwrap();
    let lines = listed.lines().filter_map(|line| line.strip_prefix("  "));
    lines
        .filter_map(|line| {
            line.split_whitespace()
                .next()
                .filter(|_| !line.starts_with(' '))
        })
        .filter(|verb| *verb != "help")
        .map(str::to_owned)
        .collect()
}

#[test]
fn a_wrong_verb_is_a_usage_error_with_a_suggestion() {
    let output = renewd(&["statsu"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("'status'"), "{}", stderr(&output));
    assert!(stdout(&output).is_empty());
}

#[test]
fn no_daemon_is_told_apart_from_every_other_failure() {
    for args in [
        &["status"][..],
        &["token", "bot"],
        &["why", "bot"],
        &["renew", "bot"],
        &["revoke", "bot"],
    ] {
        let output = command(args)
            .args(["--socket", "/nonexistent/renewd.sock"])
            .output()
            .unwrap();
        assert_eq!(
            output.status.code(),
            Some(3),
            "{args:?}: {}",
            stderr(&output)
        );
        assert!(
            stderr(&output).contains("/nonexistent/renewd.sock"),
            "{args:?}"
        );
    }
}

#[test]
fn a_name_that_could_be_a_path_is_refused_before_anything_is_asked() {
    let output = renewd(&["token", "../../etc/shadow"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn completions_and_manual_pages_know_every_verb() {
    let verbs = verbs();
    assert!(verbs.len() > 10, "{verbs:?}");
    for shell in ["bash", "zsh", "fish"] {
        let script = stdout(&renewd(&["completions", shell]));
        for verb in &verbs {
            assert!(
                script.contains(verb.as_str()),
                "{shell} does not know {verb}"
            );
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let output = renewd(&["man", "--dir", dir.path().to_str().unwrap()]);
    assert!(output.status.success(), "{}", stderr(&output));
    for verb in &verbs {
        let page = std::fs::read_to_string(dir.path().join(format!("renewd-{verb}.8"))).unwrap();
        assert!(page.contains(&format!(".TH renewd-{verb} 8")), "{page}");
        assert_eq!(stdout(&renewd(&["man", verb])), page);
    }
    assert!(dir.path().join("renewd-identity-add.8").exists());
    let configuration = std::fs::read_to_string(dir.path().join("renewd.toml.5")).unwrap();
    assert!(configuration.contains(".TH renewd.toml 5"));
    assert_eq!(stdout(&renewd(&["man", "renewd.toml"])), configuration);
}

/// Whether what ends a line is completed by bash with these words.
fn completed_by_bash(socket: &Path, line: &str) -> Vec<String> {
    let script = r#"
        source <("$RENEWD" completions bash)
        renewd() { "$RENEWD" "$@"; }
        COMP_LINE=$1 COMP_POINT=${#1}
        read -ra COMP_WORDS <<< "$1"
        [[ $1 == *" " ]] && COMP_WORDS+=("")
        COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
        # As readline does: the word after the last character at which it parts words.
        cur=${COMP_WORDS[COMP_CWORD]##*@}
        _renewd_names renewd "$cur" "${COMP_WORDS[COMP_CWORD - 1]}"
        printf '%s\n' "${COMPREPLY[@]}""#;
    let output = Command::new("bash")
        .args(["-c", script, "bash", line])
        .env("RENEWD", RENEWD)
        .env("RENEWD_SOCKET", socket)
        .output()
        .unwrap();
    assert_eq!(stderr(&output), "", "{line}");
    stdout(&output).lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn names_are_completed_that_only_the_daemon_knows() {
    let emulator = Emulator::start(&[]);
    let stage = Stage::new(&emulator);
    let desk = "[[identity]]\nname = \"desk@home\"\nscopes = [\"chat\"]\n";
    let config =
        stage.base_config() + &stage.sinks_config(None) + &identities("bot", 12, &["files"]) + desk;
    let daemon = Daemon::start(&stage.configure(&config)).await;
    let socket = stage.path("renewd.sock");
    let completed = |line: &str| completed_by_bash(&socket, line);
    assert_eq!(completed("renewd why bot-1"), ["bot-1", "bot-10", "bot-11"]);
    assert_eq!(completed("renewd renew bot-1 desk"), ["desk@home"]);
    assert_eq!(
        completed("renewd token desk@h"),
        ["home"],
        "bash keeps what is before the @"
    );
    assert_eq!(completed("renewd sink pause "), ["files"]);
    assert_eq!(completed("renewd delivery list --sink f"), ["files"]);
    assert_eq!(completed("renewd key roll "), ["contoso"]);
    assert!(completed("renewd why ").contains(&"bot-0".to_owned()));
    // Elsewhere verbs and options are what they were.
    assert!(completed("renewd camp").contains(&"campaign".to_owned()));
    assert!(completed("renewd status --wa").contains(&"--watch".to_owned()));
    assert!(daemon.stop().success());
    // Whoever has no daemon is told nothing, and not that there is none.
    let output = Command::new(RENEWD)
        .args(["complete", "--", "why", "bo"])
        .env("RENEWD_SOCKET", &socket)
        .output()
        .unwrap();
    assert_eq!(
        (output.status.code(), stdout(&output), stderr(&output)),
        (Some(0), String::new(), String::new())
    );
}

/// In the shells themselves: fish says what it would complete, zsh is typed into.
#[tokio::test]
async fn zsh_and_fish_complete_names_too() {
    let emulator = Emulator::start(&[]);
    let stage = Stage::new(&emulator);
    let config =
        stage.base_config() + &stage.sinks_config(None) + &identities("bot", 1, &["files"]);
    let daemon = Daemon::start(&stage.configure(&config)).await;
    let folder = stage.path("completions");
    std::fs::create_dir(&folder).unwrap();
    let completions = |shell: &str| stdout(&stage.renewd(&["completions", shell]));
    std::fs::write(folder.join("_renewd"), completions("zsh")).unwrap();
    std::fs::write(folder.join("renewd.fish"), completions("fish")).unwrap();
    let programs = Path::new(RENEWD).parent().unwrap().display();
    let path = format!("{programs}:/usr/bin:/bin");
    let run = |program: &str, args: &[&str]| {
        let mut command = Command::new(program);
        let command = command.args(args).env("PATH", &path).current_dir(&folder);
        let command = command.env("RENEWD_SOCKET", stage.path("renewd.sock"));
        let output = command.output().unwrap();
        assert!(output.status.success(), "{program} {args:?}: {output:?}");
        stdout(&output)
    };
    let zsh = Path::new(ROOT).join("tests/it/fixtures/zsh.py");
    for (line, word) in [
        ("renewd why b", "bot-0"),
        ("renewd sink pause f", "files"),
        ("renewd campa", "campaign"),
    ] {
        let complete = format!("source renewd.fish; complete --do-complete='{line}'");
        let found = run("fish", &["--no-config", "-c", &complete]);
        let mut words = found.lines().filter_map(|line| line.split('\t').next());
        assert!(words.any(|found| found == word), "{line}: {found}");
        let begun = line.split(' ').next_back().unwrap();
        let whole = format!("{}{word}", line.strip_suffix(begun).unwrap());
        let folder = folder.to_str().unwrap();
        run("python3", &[zsh.to_str().unwrap(), folder, line, &whole]);
    }
    assert!(daemon.stop().success());
}

/// What the code reads of the environment by these words.
fn variables_read() -> std::collections::BTreeSet<String> {
    let mut found = std::collections::BTreeSet::new();
    let mut folders = vec![Path::new(ROOT).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                // What tests read is not the product's.
                folders.extend((!path.ends_with("tests")).then_some(path));
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap();
            for reads in [
                "var(\"",
                "var_os(\"",
                ".variable(\"",
                ".directory(\"",
                ".home(\"",
                "env = \"",
                "read(\"",
            ] {
                let after = code.split(reads).skip(1);
                let names = after.filter_map(|rest| rest.split('"').next());
                let is_variable = |name: &&str| {
                    name.contains('_') && name.chars().all(|c| c.is_ascii_uppercase() || c == '_')
                };
                found.extend(names.filter(is_variable).map(str::to_owned));
            }
        }
    }
    found
}

#[test]
fn the_manual_names_files_signals_and_every_variable_that_is_read() {
    let page = stdout(&renewd(&["man"]));
    for part in [
        ".SH FILES",
        ".SH ENVIRONMENT",
        ".SH SIGNALS",
        "SIGHUP",
        "identities.jsonl",
    ] {
        assert!(page.contains(part), "{part}");
    }
    let variables = variables_read();
    assert!(variables.len() >= 8, "{variables:?}");
    for name in variables {
        assert!(page.contains(&name), "the page does not name {name}");
    }
    assert!(stdout(&renewd(&["man", "run"])).contains(".SH SIGNALS"));
    assert!(stdout(&renewd(&["man", "renewd.toml"])).contains(".TH renewd.toml 5"));
}

#[test]
fn the_readme_names_every_verb_and_no_other() {
    let readme = std::fs::read_to_string(Path::new(ROOT).join("README.md")).unwrap();
    let table = readme
        .split("## Commands")
        .nth(1)
        .expect("README has a section Commands");
    let table = table.split("\n## ").next().unwrap();
    let mut named: Vec<&str> = table
        .lines()
        .filter_map(|line| line.strip_prefix("| `renewd ")?.split(['`', ' ']).next())
        .collect();
    named.sort_unstable();
    named.dedup();
    let mut verbs = verbs();
    verbs.sort_unstable();
    assert_eq!(named, verbs);
}

/// The value of a `name=value` line.
fn value(output: &Output, name: &str) -> String {
    let text = stdout(output);
    let found = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    found
        .unwrap_or_else(|| panic!("no {name} in:\n{text}{}", stderr(output)))
        .to_owned()
}

#[test]
fn the_calls_to_acs_make_the_round() {
    let emulator = Emulator::start(&[]);
    let acs = |args: &[&str]| {
        command(&["acs"])
            .args(args)
            .env(
                "COMMUNICATION_SERVICES_CONNECTION_STRING",
                &emulator.connection_string,
            )
            .output()
            .unwrap()
    };
    let id = value(&acs(&["create-user"]), "id");
    assert!(id.starts_with("8:acs:"), "{id}");
    let issued = acs(&[
        "issue-token",
        &id,
        "--scope",
        "chat",
        "--scope",
        "voip",
        "--lifetime",
        "2h",
    ]);
    assert_eq!(value(&issued, "token").split('.').count(), 3);
    assert!(value(&issued, "expires_at").ends_with('Z'));

    let created = acs(&["create-user-with-token", "--json"]);
    let created: serde_json::Value = serde_json::from_slice(&created.stdout).unwrap();
    assert!(created["id"].as_str().unwrap().starts_with("8:acs:"));
    assert!(created["token"].as_str().unwrap().len() > 100);

    assert_eq!(value(&acs(&["revoke-tokens", &id]), "result"), "revoked");
    assert_eq!(value(&acs(&["delete-user", &id]), "result"), "deleted");
    let gone = acs(&["issue-token", &id]);
    assert_eq!(gone.status.code(), Some(1));
    assert!(stderr(&gone).contains("request id"), "{}", stderr(&gone));
}

#[test]
fn a_wrong_key_is_explained_and_never_shown() {
    let emulator = Emulator::start(&[]);
    let key = "bm90LXRoZS1yaWdodC1rZXktYXQtYWxs";
    let output = command(&["acs", "create-user"])
        .env(
            "COMMUNICATION_SERVICES_CONNECTION_STRING",
            format!("endpoint={}/;accesskey={key}", emulator.endpoint),
        )
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("access key"),
        "{}",
        stderr(&output)
    );
    assert!(!stderr(&output).contains(key));
}

#[test]
fn the_emulator_ends_as_the_program_under_it_did() {
    let script = "test -n \"$COMMUNICATION_SERVICES_CONNECTION_STRING\" && exit 7";
    let output = renewd(&["emulator", "--", "sh", "-c", script]);
    assert_eq!(output.status.code(), Some(7), "{}", stderr(&output));
}

#[test]
fn a_program_under_the_emulator_reaches_it_over_tls() {
    let script = "\"$0\" acs create-user-with-token --scope voip";
    let output = renewd(&[
        "emulator",
        "--listen",
        "127.0.0.1:0",
        "--",
        "sh",
        "-c",
        script,
        RENEWD,
    ]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(value(&output, "id").starts_with("8:acs:"));
}

/// What a script under the emulator prints.
fn under_the_emulator(options: &[&str], script: &str) -> String {
    let mut arguments = vec!["emulator"];
    arguments.extend(options);
    arguments.extend(["--", "sh", "-c", script]);
    let output = command(&arguments)
        .env("NO_PROXY", "corp.example,localhost")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    stdout(&output)
}

#[test]
fn the_same_seed_gives_the_same_authority() {
    let ca = |seed: &[&str]| under_the_emulator(seed, "cat \"$NODE_EXTRA_CA_CERTS\"");
    let seven = ca(&["--seed", "7"]);
    assert!(seven.starts_with("-----BEGIN CERTIFICATE-----"), "{seven}");
    assert_eq!(seven, ca(&["--seed", "7"]));
    assert_ne!(seven, ca(&["--seed", "8"]));
    assert_ne!(ca(&[]), ca(&[]), "without a seed each run has its own");
}

#[test]
fn a_program_under_the_emulator_gets_a_free_port_and_no_proxy_for_it() {
    let script = "echo \"$RENEWD_EMULATOR_ENDPOINT $NO_PROXY $no_proxy\"; sleep 1";
    let two: Vec<String> = std::thread::scope(|scope| {
        let both = [(); 2].map(|()| scope.spawn(|| under_the_emulator(&[], script)));
        both.map(|one| one.join().unwrap()).into()
    });
    let hosts = "corp.example,localhost,127.0.0.1,::1";
    for one in &two {
        assert!(one.starts_with("https://127.0.0.1:"), "{one}");
        assert!(one.trim().ends_with(&format!("{hosts} {hosts}")), "{one}");
    }
    assert_ne!(two[0], two[1], "each has a port of its own");
}

#[test]
fn check_names_every_mistake_and_ends_with_2() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("renewd.toml");
    std::fs::write(
        &config,
        "[[identity]]\nnam = \"bot\"\nscopes = [\"chta\"]\n",
    )
    .unwrap();
    let output = renewd(&["check", "--config", config.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    let said = stderr(&output);
    assert!(
        said.contains("renewd.toml:2:") && said.contains("renewd.toml:3:"),
        "{said}"
    );
    assert!(
        said.contains("\"chat\"") || said.contains("`chat`"),
        "{said}"
    );
}

#[test]
fn check_accepts_what_can_work() {
    let dir = tempfile::tempdir().unwrap();
    let (config, secret) = (
        dir.path().join("renewd.toml"),
        dir.path().join("contoso.cs"),
    );
    std::fs::write(
        &secret,
        "endpoint=https://contoso.communication.azure.com/;accesskey=c2VjcmV0c2VjcmV0",
    )
    .unwrap();
    let text = format!(
        "[daemon]\nstate_dir = \"{dir}/state\"\nlisten = \"\"\nsocket = \"{dir}/s\"\n\
         [[resource]]\nname = \"contoso\"\nconnection_string = {{ file = \"{}\" }}\n\
         [[identity]]\nname = \"bot\"\nscopes = [\"chat\"]\nsinks = [\"files\"]\n\
         [[sink.file]]\nname = \"files\"\npath = \"{dir}/tokens/{{name}}.json\"\n",
        secret.display(),
        dir = dir.path().display(),
    );
    std::fs::write(&config, text).unwrap();
    let output = renewd(&["check", "--config", config.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(!stdout(&output).contains("c2VjcmV0") && !stderr(&output).contains("c2VjcmV0"));
}

#[test]
fn the_effective_configuration_says_where_each_value_comes_from_and_shows_no_secret() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("renewd.toml");
    let text = "\
[renewal]
renew_at = 0.6

[[resource]]
name = \"contoso\"
connection_string = { env = \"CONTOSO\" }

[[identity]]
name = \"bot\"
scopes = [\"chat\", \"voip\"]
labels = { note = \"kX9_Trq2zZ81LmQp\" }
";
    std::fs::write(&path, text).unwrap();
    let show = |config: &Path| {
        command(&["config", "show", "--effective", "--config"])
            .arg(config)
            .env("STATE_DIRECTORY", "/nonexistent/state")
            .env(
                "CONTOSO",
                "endpoint=https://a.communication.azure.com/;accesskey=c2VjcmV0LWtleQ==",
            )
            .output()
            .unwrap()
    };
    let output = show(&path);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let told = stdout(&output);
    for line in [
        "renew_at = 0.6  # PATH:2",
        "spread = 0.02  # default",
        "[[resource]]  # PATH:4",
        "connection_string = { env = \"CONTOSO\" }  # PATH:6",
        "scopes = [\"chat\", \"voip\"]  # PATH:10",
        "lifetime = \"24h\"  # default of [renewal]",
        "renew_at = 0.6  # [renewal], PATH:2",
        "resource = \"contoso\"  # default",
        "state_dir = \"/nonexistent/state\"  # default",
        "path = \"/nonexistent/state/renewd.db\"  # default",
        "[resource.limits]",
        "[store]",
    ] {
        let line = line.replace("PATH", &path.display().to_string());
        assert!(told.lines().any(|told| told == line), "{line}:\n{told}");
    }
    for secret in ["c2VjcmV0LWtleQ", "kX9_Trq2zZ81LmQp"] {
        assert!(!told.contains(secret), "{told}");
    }
    std::fs::write(&path, text.replace("0.6", "7")).unwrap();
    let output = show(&path);
    assert_eq!(output.status.code(), Some(2));
    assert!(stdout(&output).is_empty());
    assert!(stderr(&output).contains("renew_at"), "{}", stderr(&output));
}
