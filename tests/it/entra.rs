//! A resource without access keys, by the real daemon against the emulator: each kind of `[resource.entra]` does all
//! that keys do, one bearer serves all calls, and what is wrong with one is said with its remedy.

use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::stage::{Daemon, Emulator, RENEWD, Stage, identities, until};

/// Who calls, as it stands below `[resource.entra]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Caller {
    Machine,
    Pod,
    Secret,
    Certificate,
}

const CALLERS: [Caller; 4] = [
    Caller::Machine,
    Caller::Pod,
    Caller::Secret,
    Caller::Certificate,
];

/// An emulator, a folder, and a configuration without any key.
struct Scene {
    emulator: Emulator,
    stage: Stage,
    config: std::path::PathBuf,
}

impl Scene {
    async fn new(caller: Caller, more: &str) -> Self {
        let emulator = Emulator::start(&["--limit", "all=off", "--token-alg", "filler"]);
        let stage = Stage::new(&emulator);
        std::fs::remove_file(stage.path("contoso.cs")).unwrap();
        let entra = entra(&emulator, &stage, caller).await;
        let key = format!(
            "connection_string = {{ file = \"{}\" }}\n",
            stage.path("contoso.cs").display()
        );
        let endpoint = &emulator.endpoint;
        let resource = format!("endpoint = \"{endpoint}\"\n[resource.entra]\n{entra}");
        let base = stage.base_config();
        assert!(base.contains(&key), "{base}");
        let sinks = stage.sinks_config(None);
        let config = stage.configure(&format!("{}{sinks}{more}", base.replace(&key, &resource)));
        Self {
            emulator,
            stage,
            config,
        }
    }

    async fn daemon(&self) -> Daemon {
        let machine = (
            "AZURE_POD_IDENTITY_AUTHORITY_HOST",
            &*self.emulator.endpoint,
        );
        let mut daemon = Daemon::launch(&self.config, &[machine]);
        daemon.ready().await;
        daemon
    }

    /// A verb that reads the configuration.
    fn by_config(&self, args: &[&str]) -> Output {
        let mut command = Command::new(RENEWD);
        let command = command.args(args).arg("--config").arg(&self.config);
        // Whoever asks no daemon has no socket there.
        let socket = self.stage.path("renewd.sock");
        let command = command.env("RENEWD_SOCKET", socket);
        let command = command.env("AZURE_POD_IDENTITY_AUTHORITY_HOST", &self.emulator.endpoint);
        command.output().unwrap()
    }

    /// How many bearers were given.
    async fn bearers(&self) -> u64 {
        let stats = self.emulator.control("GET", "stats", None).await;
        stats["bearers"].as_u64().unwrap()
    }

    async fn steer(&self, changes: Value) {
        self.emulator.control("POST", "entra", Some(changes)).await;
    }

    fn feed(&self, args: &[&str], stdin: &str) -> Output {
        use std::{io::Write, process::Stdio};
        let mut command = Command::new(RENEWD);
        let command = command.args(args).args(["--config"]).arg(&self.config);
        let command = command.env("RENEWD_SOCKET", self.stage.path("renewd.sock"));
        let command = command.env("AZURE_POD_IDENTITY_AUTHORITY_HOST", &self.emulator.endpoint);
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut pipe = child.stdin.take().unwrap();
        // It may end before it reads.
        pipe.write_all(stdin.as_bytes()).ok();
        drop(pipe);
        child.wait_with_output().unwrap()
    }
}

/// The lines that say who calls, with their secret in a file.
async fn entra(emulator: &Emulator, stage: &Stage, caller: Caller) -> String {
    let known = emulator.control("GET", "entra", None).await;
    let app = format!(
        "tenant = {}\nclient_id = {}\nauthority = \"{}\"\n",
        known["tenant"], known["client_id"], emulator.endpoint
    );
    let path = |name: &str| stage.path(name).display().to_string();
    match caller {
        Caller::Machine => "managed_identity = true\n".to_owned(),
        Caller::Pod => {
            let made = emulator.control("POST", "entra/federated", Some(json!({})));
            let token = made.await["token"].as_str().unwrap().to_owned();
            stage.write_private("token", &token);
            let file = path("token");
            format!("{app}workload_identity = true\ntoken_file = \"{file}\"\n")
        }
        Caller::Secret => {
            stage.write_private("app.secret", known["client_secret"].as_str().unwrap());
            format!(
                "{app}client_secret = {{ file = \"{}\" }}\n",
                path("app.secret")
            )
        }
        Caller::Certificate => {
            let pem = certificate(emulator, json!({})).await;
            stage.write_private("app.pem", &pem);
            format!(
                "{app}client_certificate = {{ file = \"{}\" }}\n",
                path("app.pem")
            )
        }
    }
}

async fn certificate(emulator: &Emulator, asked: Value) -> String {
    let made = emulator.control("POST", "entra/certificates", Some(asked));
    made.await["pem"].as_str().unwrap().to_owned()
}

/// Everything that was said.
fn said(output: &Output) -> String {
    let both = [output.stdout.clone(), output.stderr.clone()].concat();
    String::from_utf8(both).unwrap()
}

const JOB: &str = "\n[[job]]\nname = \"nightly\"\ncron = \"30 2 * * *\"\ntimezone = \"UTC\"\naction = \"revoke\"\nselect = \"name = 'bot-0'\"\n";

/// Creates, issues, revokes, deletes; by hand, in a campaign and by a job.
async fn does_everything(caller: Caller) {
    let scene = Scene::new(caller, &(identities("bot", 3, &["files"]) + JOB)).await;
    let stage = &scene.stage;
    let daemon = scene.daemon().await;
    for name in ["bot-0", "bot-1", "bot-2"] {
        stage.there(name).await;
    }
    let done = |args: &[&str]| {
        let output = stage.renewd(args);
        assert!(
            output.status.success(),
            "{caller:?} {args:?}: {}",
            said(&output)
        );
        said(&output)
    };
    let before = stage.token("bot-1");
    done(&["renew", "bot-1"]);
    stage.reissued("bot-1", &before).await;
    let before = stage.token("bot-0");
    done(&["job", "run", "nightly"]);
    stage.reissued("bot-0", &before).await;
    let judged = scene
        .emulator
        .control("POST", "tokens", Some(json!({"token": before})))
        .await;
    assert_eq!(judged["live"], false, "{caller:?}: {judged}");
    done(&["revoke", "bot-1", "bot-2", "--yes"]);
    done(&[
        "identity", "add", "extra", "--scope", "chat", "--sink", "files",
    ]);
    stage.there("extra").await;
    done(&["identity", "delete", "extra", "--yes"]);
    let key = done(&["key", "status", "contoso"]);
    assert!(key.contains("no access keys"), "{key}");
    assert_eq!(
        scene.bearers().await,
        1,
        "{caller:?}: one bearer served all of it"
    );
    // Whoever rolls a key is told what to do instead.
    let roll = stage.renewd(&["key", "roll", "contoso", "--yes"]);
    assert!(
        !roll.status.success() && said(&roll).contains("no access keys"),
        "{}",
        said(&roll)
    );
    let log = std::fs::read_to_string(stage.path("daemon.log")).unwrap();
    assert!(!log.contains("Bearer ") && !log.contains("eyJ"), "{log}");
    assert!(daemon.stop().success());
    single_calls(&scene, caller);
}

const TEAMS: &str = "11111111-2222-3333-4444-555555555555";

/// A Teams user's own token, as far as the service reads it.
fn teams_token() -> String {
    use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
    let claims = json!({"appid": TEAMS, "oid": TEAMS, "exp": 4_000_000_000_u64});
    format!(
        "e30.{}.e30",
        BASE64_URL_SAFE_NO_PAD.encode(claims.to_string())
    )
}

/// Calls without a daemon, the exchange of a Teams token among them.
fn single_calls(scene: &Scene, caller: Caller) {
    let acs = |args: &[&str], stdin: &str| {
        let output = scene.feed(&[&["acs", "--resource", "contoso"], args].concat(), stdin);
        assert!(
            output.status.success(),
            "{caller:?} {args:?}: {}",
            said(&output)
        );
        said(&output)
    };
    let created = acs(&["create-user"], "");
    let id = created
        .lines()
        .find_map(|line| line.strip_prefix("id="))
        .unwrap();
    assert!(acs(&["issue-token", id], "").contains("token="));
    acs(&["revoke-tokens", id], "");
    acs(&["delete-user", id], "");
    assert!(acs(&["create-user-with-token"], "").contains("token="));
    let teams = ["exchange-teams", "--app-id", TEAMS, "--user-id", TEAMS];
    assert!(acs(&teams, &teams_token()).contains("token="));
    let checked = scene.by_config(&["check", "--online"]);
    let text = said(&checked);
    assert!(
        checked.status.success() && text.contains("the bearer of"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_managed_identity_does_all_that_keys_do() {
    does_everything(Caller::Machine).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workload_identity_does_all_that_keys_do() {
    does_everything(Caller::Pod).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_secret_does_all_that_keys_do() {
    does_everything(Caller::Secret).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_does_all_that_keys_do() {
    does_everything(Caller::Certificate).await;
}

/// What each trouble is told as, and with which remedy.
#[tokio::test(flavor = "multi_thread")]
async fn check_and_doctor_say_what_is_wrong_and_what_to_do() {
    for caller in CALLERS {
        let scene = Scene::new(caller, "").await;
        let told = |parts: &[&str]| {
            for args in [&["check", "--online"][..], &["doctor", "--here"]] {
                let output = scene.by_config(args);
                let text = said(&output)
                    .split_whitespace()
                    .collect::<Vec<_>>()
                    .join(" ");
                assert!(!output.status.success(), "{caller:?}: {text}");
                for part in parts {
                    assert!(text.contains(part), "{caller:?} {args:?}: {part}: {text}");
                }
            }
        };
        scene.steer(json!({"role": false})).await;
        told(&["role on the Communication Services resource"]);
        scene.steer(json!({"role": true})).await;
        match caller {
            Caller::Machine => {
                scene.steer(json!({"machine": "none"})).await;
                told(&["Assign the managed identity to this machine"]);
            }
            Caller::Secret => {
                scene.stage.write_private("app.secret", "not-the-secret");
                told(&["Make a new client secret", "renewd key set contoso --entra"]);
                let fault = json!({"kind": "reset", "operation": "entra"});
                scene.emulator.control("POST", "faults", Some(fault)).await;
                told(&["It is asked again by itself"]);
            }
            Caller::Certificate => {
                let pem = certificate(&scene.emulator, json!({"lives_seconds": 1})).await;
                scene.stage.write_private("app.pem", &pem);
                let fails = || !scene.by_config(&["check", "--online"]).status.success();
                until("the certificate to have ended", fails).await;
                told(&[
                    "Register a new certificate",
                    "renewd key set contoso --entra",
                ]);
            }
            Caller::Pod => {
                scene.stage.write_private("token", "a.b.c");
                told(&["[resource.entra] of contoso"]);
            }
        }
    }
}

/// A new secret is proved, replaces the file in one step, and is taken up; one that is not right leaves everything.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_secret_or_certificate_is_proved_before_it_is_put_in_place() {
    for (caller, file) in [
        (Caller::Secret, "app.secret"),
        (Caller::Certificate, "app.pem"),
    ] {
        let scene = Scene::new(caller, &identities("bot", 1, &["files"])).await;
        let daemon = scene.daemon().await;
        scene.stage.there("bot-0").await;
        let read = || std::fs::read_to_string(scene.stage.path(file)).unwrap();
        let old = read();
        let set = ["key", "set", "contoso", "--entra"];
        let wrong = match caller {
            Caller::Secret => "not-the-secret".to_owned(),
            _ => include_str!("fixtures/authority.pem").to_owned(),
        };
        let refused = scene.feed(&set, &wrong);
        let text = said(&refused);
        assert!(!refused.status.success() && read() == old, "{text}");
        assert!(!text.contains(&wrong[..8]), "{text}");
        let forgotten = scene.feed(&set[..3], "x");
        assert!(said(&forgotten).contains("--entra"), "{}", said(&forgotten));
        let new = match caller {
            Caller::Secret => {
                let made = scene
                    .emulator
                    .control("POST", "entra/secrets", Some(json!({})));
                made.await["client_secret"].as_str().unwrap().to_owned()
            }
            _ => certificate(&scene.emulator, json!({})).await,
        };
        let done = scene.feed(&set, &new);
        let text = said(&done);
        assert!(
            done.status.success() && text.contains("taken it up"),
            "{text}"
        );
        assert_eq!(read().trim(), new.trim());
        let before = scene.stage.token("bot-0");
        assert!(scene.stage.renewd(&["renew", "bot-0"]).status.success());
        scene.stage.reissued("bot-0", &before).await;
        assert!(daemon.stop().success());
    }
}

/// A daemon whose secret is refused says so; what it has stays, and another secret is taken up without a word.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_while_it_runs_is_told_until_it_is_mended() {
    let scene = Scene::new(Caller::Secret, &identities("bot", 1, &["files"])).await;
    scene.steer(json!({"role": false})).await;
    let daemon = scene.daemon().await;
    let status = || daemon.status(&scene.stage.path("renewd.sock"));
    let told = |kind: &str| {
        let status = status();
        let needs = status["needs"].as_array().unwrap();
        needs.iter().any(|need| need["kind"] == kind)
    };
    until("the missing role to be told", || told("entra_refused")).await;
    let screen = said(&scene.stage.renewd(&["status"]));
    assert!(screen.contains("for want of a role"), "{screen}");
    assert!(screen.contains("no bearer"), "{screen}");
    scene.steer(json!({"role": true})).await;
    scene.stage.there("bot-0").await;
    until("nothing to be told any more", || !told("entra_refused")).await;
    let bearer = &status()["lanes"]["contoso"]["bearer"];
    assert_eq!(bearer["kind"], "client_secret");
    assert!(bearer["ends"].is_string(), "{bearer}");
    assert!(daemon.stop().success());
}

/// The bearer in hand outlives a secret that was put in place by hand and is wrong; an operator hears of it at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_secret_put_in_place_by_hand_stops_nothing_while_the_bearer_lasts() {
    let scene = Scene::new(Caller::Secret, &identities("bot", 1, &["files"])).await;
    let daemon = scene.daemon().await;
    scene.stage.there("bot-0").await;
    let right = std::fs::read_to_string(scene.stage.path("app.secret")).unwrap();
    let put = |secret: &str| {
        scene.stage.write_private("app.secret", secret);
        daemon.signal(rustix::process::Signal::HUP);
    };
    let told = || {
        let status = daemon.status(&scene.stage.path("renewd.sock"));
        let needs = status["needs"].as_array().unwrap();
        needs.iter().any(|need| need["kind"] == "entra_refused")
    };
    let renewed = async || {
        let before = scene.stage.token("bot-0");
        let renew = scene.stage.renewd(&["renew", "bot-0"]);
        assert!(renew.status.success(), "{}", said(&renew));
        scene.stage.reissued("bot-0", &before).await;
    };
    put("not-the-secret");
    until("the wrong secret to be told", told).await;
    renewed().await;
    assert_eq!(scene.bearers().await, 1, "the one in hand goes on");
    put(&right);
    until("nothing to be told any more", || !told()).await;
    renewed().await;
    assert_eq!(scene.bearers().await, 2);
    assert!(daemon.stop().success());
}

/// Over TLS, by nothing but the variables that any program of Azure's libraries finds.
#[test]
fn a_single_call_finds_who_it_is_by_variables_alone() {
    let home = tempfile::tempdir().unwrap();
    for kind in ["vm", "workload", "secret", "certificate"] {
        let called = Command::new(RENEWD)
            .args(["emulator", &format!("--entra={kind}"), "--"])
            .args([RENEWD, "acs", "create-user-with-token"])
            .env("HOME", home.path())
            .env_remove("XDG_CONFIG_HOME")
            .output()
            .unwrap();
        let text = said(&called);
        assert!(
            called.status.success() && text.contains("token="),
            "{kind}: {text}"
        );
    }
}
