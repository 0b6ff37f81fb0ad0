//! `renewd init`: a first configuration from flags or questions, all of it or nothing, over nothing that is there.

use std::{
    fs,
    io::{Read, Write},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    process::{Command, Output, Stdio},
};

use crate::stage::{Emulator, Person, RENEWD, until};

const CONNECTION: &str =
    "endpoint=https://contoso.communication.azure.com/;accesskey=bm90LWEtcmVhbC1rZXk=";
const KEY: &str = "bm90LWEtcmVhbC1rZXk=";
const CONFIG: &str = ".config/renewd/renewd.toml";
const SECRET: &str = ".config/renewd/contoso.cs";

fn said(output: &Output) -> String {
    let both = [output.stdout.clone(), output.stderr.clone()].concat();
    String::from_utf8(both).unwrap()
}

/// Runs it with this on standard input.
fn fed(person: &Person, args: &[&str], stdin: &str) -> Output {
    let mut command = person.command(args, &[]);
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    // It may end before it reads.
    pipe.write_all(stdin.as_bytes()).ok();
    drop(pipe);
    child.wait_with_output().unwrap()
}

/// What lies in a home besides the program.
fn left(person: &Person) -> Vec<String> {
    let entries = fs::read_dir(person.path("")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name != "renewd").collect()
}

#[test]
fn an_ordinary_user_gets_a_configuration_that_works_and_a_private_secret() {
    let person = Person::new();
    let args = [
        "init",
        "--connection-string-file",
        "-",
        "--identity",
        "support-bot",
    ];
    let output = fed(&person, &args, &format!("{CONNECTION}\r\n"));
    let text = said(&output);
    assert!(output.status.success(), "{text}");
    assert_eq!(person.mode(".config/renewd"), 0o700);
    assert_eq!(person.mode(CONFIG), 0o600);
    assert_eq!(person.mode(SECRET), 0o600);
    assert_eq!(fs::metadata(person.path(SECRET)).unwrap().uid(), person.id);
    assert_eq!(
        fs::read_to_string(person.path(SECRET)).unwrap(),
        format!("{CONNECTION}\n")
    );
    let config = fs::read_to_string(person.path(CONFIG)).unwrap();
    assert!(
        !config.contains(KEY) && !text.contains(KEY),
        "{config}{text}"
    );
    assert!(config.contains("name = \"contoso\""), "{config}");
    assert!(
        config.lines().filter(|line| line.starts_with('#')).count() >= 6,
        "{config}"
    );
    // The next two commands are the last of what it prints but for where the token will be.
    for part in [
        "can work: 1 resource, 1 identity, 1 sink",
        " check --online\n",
        " run\n",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(text.contains("support-bot.json"), "{text}");
    let checked = person.renewd(&["check"], &[]);
    assert!(checked.status.success(), "{}", said(&checked));
    assert!(
        checked.stderr.is_empty(),
        "nothing is odd: {}",
        said(&checked)
    );
}

#[tokio::test]
async fn what_is_written_brings_a_token_into_a_file() {
    let emulator = Emulator::start(&[]);
    let person = Person::new();
    let file = person.path("portal.txt");
    fs::write(&file, &emulator.connection_string).unwrap();
    let args = [
        "init",
        "--connection-string-file",
        file.to_str().unwrap(),
        "--resource",
        "contoso",
        "--identity",
        "bot",
        "--identity",
        "desk",
        "--scope",
        "voip.join",
        "--tokens",
        "tokens",
    ];
    let output = person.renewd(&args, &[]);
    assert!(output.status.success(), "{}", said(&output));
    let mut daemon = person
        .command(&["run"], &[])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let waited = person.renewd(&["wait", "desk"], &[]);
    // The socket has it a moment before the file.
    let file = person.path("tokens/desk.json");
    until("the file of desk", || file.exists()).await;
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    assert!(waited.status.success(), "{}", said(&waited));
    let token = fs::read_to_string(file).unwrap();
    assert!(token.contains("\"scopes\":[\"voip.join\"]"));
}

#[test]
fn nothing_that_is_there_is_overwritten_and_nothing_is_left_of_a_refusal() {
    let args = ["init", "--connection-string-file", "-", "--identity", "bot"];
    for there in [CONFIG, SECRET] {
        let person = Person::new();
        let path = person.path(there);
        for folder in [".config", ".config/renewd"] {
            fs::create_dir(person.path(folder)).unwrap();
            person.own(&person.path(folder));
        }
        fs::write(&path, "mine").unwrap();
        let output = fed(&person, &args, CONNECTION);
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        let told = said(&output);
        assert!(
            told.contains(&format!("{} is there already", path.display())),
            "{told}"
        );
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }
    // A link that leads nowhere is not written through.
    let person = Person::new();
    std::os::unix::fs::symlink("elsewhere", person.path("link.toml")).unwrap();
    let output = fed(
        &person,
        &[&args[..], &["--config", "link.toml"]].concat(),
        CONNECTION,
    );
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(!person.path("elsewhere").exists());
}

/// It ends with this code and says these words, shows nothing of the key and leaves nothing behind.
fn refused(person: &Person, args: &[&str], stdin: &str, (code, words): (i32, &str)) {
    let output = fed(person, &[&["init"], args].concat(), stdin);
    let told = said(&output);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {told}");
    assert!(told.contains(words), "{args:?}: {told}");
    assert!(!told.contains(&KEY[..12]), "{told}");
    assert_eq!(left(person), Vec::<String>::new(), "{args:?}");
}

#[test]
fn each_refusal_says_why_and_writes_nothing() {
    let person = Person::new();
    let bot = ["--identity", "bot"];
    let given = ["--connection-string-file", "-"];
    let all = [&given[..], &bot].concat();
    let plain = CONNECTION.replace("https", "http");
    for (args, stdin, code, words) in [
        (&bot[..], "", 2, "it needs --connection-string-file FILE"),
        (&given, CONNECTION, 2, "it needs --identity NAME"),
        (
            &[],
            "",
            2,
            "--connection-string-file FILE and --identity NAME",
        ),
        (&all, "", 2, "standard input holds no connection string"),
        (
            &all,
            KEY,
            2,
            "standard input: the connection string has no endpoint",
        ),
        (&all, "endpoint=https://a.example/", 2, "has no accesskey"),
        (&all, &format!("\"{CONNECTION}\""), 2, "wrapped in quotes"),
        (&all, &plain, 2, "plain http to another machine"),
        (
            &[&all[..], &["--identity", "../x"]].concat(),
            CONNECTION,
            2,
            "must start with a letter or digit",
        ),
        (
            &[&all[..], &["--scope", "chta"]].concat(),
            CONNECTION,
            2,
            "chta",
        ),
        (
            &[&all[..], &["--emulator"]].concat(),
            CONNECTION,
            2,
            "cannot be used with",
        ),
        (
            &[&all[..], &["--config", "/proc/renewd/x.toml"]].concat(),
            CONNECTION,
            1,
            "cannot write /proc/renewd",
        ),
        (
            &[&bot[..], &["--connection-string-file", "nowhere.cs"]].concat(),
            "",
            2,
            "nowhere.cs",
        ),
    ] {
        refused(&person, args, stdin, (code, words));
    }
}

#[test]
fn what_cannot_be_used_is_taken_back() {
    // The folder of the tokens is everybody's, which the check of what was written finds.
    let person = Person::new();
    fs::create_dir(person.path("open")).unwrap();
    fs::set_permissions(person.path("open"), fs::Permissions::from_mode(0o777)).unwrap();
    let args = [
        "init",
        "--connection-string-file",
        "-",
        "--identity",
        "bot",
        "--tokens",
        "open",
    ];
    let output = fed(&person, &args, CONNECTION);
    let told = said(&output);
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains("every user may write to"), "{told}");
    assert_eq!(left(&person), ["open"]);
    // A folder that cannot be written is named, whatever is missing below it.
    if rustix::process::geteuid().is_root() {
        fs::create_dir(person.path(".config")).unwrap();
        let output = fed(&person, &args[..5], CONNECTION);
        let told = said(&output);
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(told.contains(".config/renewd: Permission denied"), "{told}");
    }
}

/// What `init --system` says on a machine with these users and groups, and who may read what it wrote. Under a root of
/// its own: a server's paths are the machine's.
fn on_a_server(users: &str, groups: &str) -> String {
    let script = "mount -t tmpfs none /etc && printf \"$1\" > /etc/passwd && printf \"$2\" > /etc/group && \
                  mkdir /etc/renewd-was-not-here && \
                  \"$0\" init --system --connection-string-file - --identity bot --reader root && \
                  stat -c '%a %U:%G' /etc/renewd /etc/renewd/renewd.toml /etc/renewd/contoso.cs";
    let mut child = Command::new("unshare")
        .args(["--mount", "sh", "-c", script])
        .args([RENEWD, users, groups])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(CONNECTION.as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let told = said(&output);
    assert!(output.status.success(), "{told}");
    assert!(!Path::new("/etc/renewd-was-not-here").exists());
    told
}

#[test]
fn a_server_gets_its_files_where_the_unit_looks() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let told = on_a_server("root:x:0:0::/root:/bin/sh\\n", "root:x:0:\\n");
    for part in [
        "/etc/renewd/renewd.toml",
        "/etc/renewd/contoso.cs",
        "/run/renewd/tokens/bot.json",
        "700 root:root\n600 root:root\n600 root:root\n",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
}

/// Where the package made the daemon's user, its group reads the configuration, and it alone its secrets.
#[test]
fn a_server_gives_its_files_to_the_user_of_the_daemon() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let users = "root:x:0:0::/root:/bin/sh\\nrenewd:x:990:991::/:/bin/false\\n";
    let told = on_a_server(users, "root:x:0:\\nrenewd:x:991:\\n");
    let modes = "750 root:renewd\n640 root:renewd\n600 renewd:renewd\n";
    assert!(told.contains(modes), "{told}");
}

/// A program that is ended however the test ends.
struct Running(std::process::Child);

impl Running {
    fn of(command: &mut Command) -> Self {
        let command = command.stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// The emulator of `init --emulator` plays one resource: after a restart it takes what it handed out for real.
#[tokio::test]
async fn the_emulator_that_it_names_goes_on_after_a_restart() {
    let person = Person::new();
    let output = person.renewd(&["init", "--emulator", "--tokens", "tokens"], &[]);
    assert!(output.status.success(), "{}", said(&output));
    let string = person.path(".config/renewd/emulator.cs");
    let args = [
        "emulator",
        "--connection-string-file",
        string.to_str().unwrap(),
    ];
    let _daemon = Running::of(&mut person.command(&["run"], &[]));
    let document = || -> Option<serde_json::Value> {
        let text = fs::read_to_string(person.path("tokens/bot.json")).ok()?;
        serde_json::from_str(&text).ok()
    };
    let mut emulator = Running::of(&mut person.command(&args, &[]));
    let waited = person.renewd(&["wait", "bot", "--delivered"], &[]);
    assert!(waited.status.success(), "{}", said(&waited));
    let before = document().unwrap();
    for _ in 0..2 {
        drop(emulator);
        emulator = Running::of(&mut person.command(&args, &[]));
        let renewed = person.renewd(&["renew", "bot"], &[]);
        assert!(renewed.status.success(), "{}", said(&renewed));
        let after = document().unwrap();
        assert_eq!(after["id"], before["id"], "nobody is made anew");
        assert!(after["version"].as_u64() > before["version"].as_u64());
    }
}

/// A person at a terminal, who answers each question when it was asked; what the terminal showed.
fn at_a_terminal(person: &Person, args: &str, answers: &[(&str, &str)]) -> (bool, String) {
    let typed = format!("{} {args}", person.program.display());
    let mut command = person.runs(Path::new("/usr/bin/script"), &[]);
    let mut child = command
        .args(["-qec", &typed, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut keys, mut screen) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let (mut shown, mut seen) = (Vec::new(), 0);
    for (question, answer) in answers {
        let mut byte = [0];
        while !String::from_utf8_lossy(&shown[seen..]).contains(question) {
            let read = screen.read(&mut byte).unwrap();
            assert_eq!(
                read,
                1,
                "{question} was not asked: {}",
                String::from_utf8_lossy(&shown)
            );
            shown.push(byte[0]);
        }
        seen = shown.len();
        keys.write_all(answer.as_bytes()).unwrap();
    }
    screen.read_to_end(&mut shown).unwrap();
    drop(keys);
    let well = child.wait().unwrap().success();
    (well, String::from_utf8(shown).unwrap())
}

#[test]
fn a_person_is_asked_and_the_secret_is_not_shown() {
    let person = Person::new();
    let answers = [
        ("(it is not shown): ", &*format!("{KEY}\n")),
        ("the connection string has no endpoint", ""),
        ("(it is not shown): ", &*format!("{CONNECTION}\n")),
        ("What to call the resource [contoso]: ", "\n"),
        ("[bot]: ", "on call\n"),
        ("[chat voip]: ", "chta\n"),
        ("chta", ""),
        ("[chat voip]: ", "chat\n"),
    ];
    let (well, screen) = at_a_terminal(&person, "init", &answers);
    assert!(well, "{screen}");
    assert!(!screen.contains(&KEY[..12]), "{screen}");
    let config = fs::read_to_string(person.path(CONFIG)).unwrap();
    for part in ["name = \"on\"", "name = \"call\"", "scopes = [\"chat\"]"] {
        assert!(config.contains(part), "{part}: {config}");
    }
    assert!(
        fs::read_to_string(person.path(SECRET))
            .unwrap()
            .contains(KEY)
    );
}

#[test]
fn whoever_stops_it_finds_nothing_written_and_a_terminal_that_shows_what_is_typed() {
    let person = Person::new();
    // The shell's own line after it shows whether the terminal echoes.
    let typed = "init; stty -a | grep -o -e '-echo ' -e ' echo '";
    let answers = [("(it is not shown): ", "\x03")];
    let (_, screen) = at_a_terminal(&person, typed, &answers);
    assert!(screen.contains("nothing was written"), "{screen}");
    assert!(!screen.contains("-echo "), "{screen}");
    assert_eq!(left(&person), Vec::<String>::new());
}

const GUID: &str = "11111111-2222-3333-4444-555555555555";

#[test]
fn a_resource_without_access_keys_is_written_for_each_kind() {
    let endpoint = ["--endpoint", "https://contoso.communication.azure.com/"];
    let app = ["--tenant", "contoso.com", "--client-id", GUID];
    let value = "Abc8Q~not-a-real-value";
    for (flags, part) in [
        (&["--managed-identity"][..], "managed_identity = true\n"),
        (
            &["--managed-identity", "--client-id", GUID],
            "managed_identity = true\nclient_id = ",
        ),
        (
            &[&["--client-secret-file", "-"], &app[..]].concat(),
            "client_secret = { file = \"",
        ),
    ] {
        let person = Person::new();
        let args = [&["init", "--identity", "bot"], &endpoint[..], flags].concat();
        let output = fed(&person, &args, value);
        let text = said(&output);
        assert!(output.status.success(), "{text}");
        let config = fs::read_to_string(person.path(CONFIG)).unwrap();
        assert!(config.contains(part), "{config}");
        assert!(
            config.contains("endpoint = \"https://contoso.communication.azure.com\"\n"),
            "{config}"
        );
        assert!(
            !config.contains(value) && !text.contains(value),
            "{config}{text}"
        );
        let file = person.path(".config/renewd/contoso.secret");
        let kept = fs::read_to_string(file).ok();
        assert_eq!(kept.is_some(), flags.contains(&"-"));
        assert!(kept.is_none_or(|kept| kept == format!("{value}\n")));
        let checked = person.renewd(&["check"], &[]);
        assert!(checked.stderr.is_empty(), "{}", said(&checked));
    }
}

#[test]
fn what_is_missing_or_wrong_of_who_calls_is_said_and_nothing_is_left() {
    let person = Person::new();
    let endpoint = ["--endpoint", "https://contoso.communication.azure.com"];
    for (flags, part) in [
        (&endpoint[..], "one of --managed-identity"),
        (&["--managed-identity"], "--endpoint URL"),
        (
            &[&endpoint[..], &["--client-secret-file", "-"]].concat(),
            "--tenant TENANT and --client-id GUID",
        ),
        (
            &["--endpoint", "contoso", "--managed-identity"],
            "it is not an address",
        ),
        (
            &[&endpoint[..], &["--managed-identity", "--client-id", "bot"]].concat(),
            "`client_id` is not a GUID",
        ),
        (
            &["--managed-identity", "--workload-identity"],
            "cannot be used with",
        ),
    ] {
        let args = [&["init", "--identity", "bot"], flags].concat();
        let output = fed(&person, &args, "");
        let text = said(&output);
        assert!(!output.status.success() && text.contains(part), "{text}");
        assert_eq!(left(&person), Vec::<String>::new());
    }
}

#[test]
fn a_person_without_a_connection_string_is_asked_what_else_calls() {
    let person = Person::new();
    let answers = [
        ("(it is not shown): ", "\n"),
        ("[managed_identity]: ", "client-secret\n"),
        ("Overview): ", "contoso\n"),
        ("it is not an address", ""),
        ("Overview): ", "https://contoso.communication.azure.com\n"),
        ("a domain: ", "contoso.com\n"),
        ("Client id of the app: ", &*format!("{GUID}\n")),
        ("(it is not shown): ", "Abc8Q~not-a-real-value\n"),
        ("What to call the resource [contoso]: ", "\n"),
        ("[bot]: ", "\n"),
        ("[chat voip]: ", "\n"),
    ];
    let (well, screen) = at_a_terminal(&person, "init", &answers);
    assert!(well && !screen.contains("Abc8Q"), "{screen}");
    let config = fs::read_to_string(person.path(CONFIG)).unwrap();
    assert!(config.contains("tenant = \"contoso.com\""), "{config}");
}
