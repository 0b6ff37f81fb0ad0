//! The configuration as an operator meets it: the samples that are shipped load, and what is wrong
//! is told in full, at its place, without a secret.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use renewd::{
    config::{
        self, CreatePolicy, EntraKind, Environment, FileFormat, Finding, IdentitySelector, Include,
        Loaded, Problems, SecretRef, Severity, SinkSettings, Source,
    },
    model::{OnRemoval, Reader, Scope},
};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const CONNECTION: &str =
    "endpoint=https://contoso.communication.azure.com/;accesskey=bm90LWEtcmVhbC1rZXk=";
const CERTIFICATE: &str = include_str!("fixtures/entra-client.pem");
const WEBHOOK: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

/// A temporary `/etc/renewd` with every secret that the samples refer to.
pub(crate) struct Etc {
    dir: tempfile::TempDir,
}

impl Etc {
    pub(crate) fn new() -> Self {
        // A name of mixed letters would be masked in excerpts, as a piece of a secret.
        let dir = (0..10_000).find_map(|n| {
            let name = format!(".tmp{:06x}", (std::process::id() * 64 + n) & 0xff_ffff);
            let mut folder = tempfile::Builder::new();
            folder.prefix(&name).rand_bytes(0).tempdir().ok()
        });
        let etc = Self { dir: dir.unwrap() };
        for name in ["contoso", "europe", "america"] {
            for end in ["", "-secondary", ".cs", "-secondary.cs"] {
                etc.secret(&format!("{name}{end}"), &format!("{CONNECTION}{end}\n"));
            }
        }
        etc.secret("crm-webhook", WEBHOOK);
        etc.secret("on-call-webhook", WEBHOOK);
        etc.secret(
            "database",
            "postgresql://renewd:hunter2@db-1,db-2,db-3/renewd",
        );
        etc.secret("seal-key", "0123456789abcdef0123456789abcdef");
        etc.secret("ca.pem", "");
        etc.secret("contoso.secret", "Abc8Q~not-a-real-value");
        etc.secret("contoso.pem", CERTIFICATE);
        etc
    }

    pub(crate) fn secret(&self, name: &str, content: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    fn environment(&self) -> Environment {
        let credentials = self.dir.path().to_str().unwrap();
        Environment::given(
            [
                ("CREDENTIALS_DIRECTORY", credentials),
                ("STATE_DIRECTORY", "/var/lib/renewd"),
                ("RUNTIME_DIRECTORY", "/run/renewd"),
                ("CONTOSO", CONNECTION),
            ],
            "web-1",
            true,
        )
    }

    /// Writes a file beside the secrets, with `/etc/renewd` standing for this directory.
    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let here = self.dir.path().to_str().unwrap();
        fs::write(&path, text.replace("/etc/renewd", here)).unwrap();
        path
    }

    fn load(&self, path: PathBuf) -> Result<Loaded, Problems> {
        config::load(&Source {
            path,
            environment: self.environment(),
        })
    }

    pub(crate) fn load_text(&self, text: &str) -> Result<Loaded, Problems> {
        self.load(self.write("renewd.toml", text))
    }

    /// What is wrong with a text, with `/etc/renewd` in place of this directory again.
    pub(crate) fn told(&self, text: &str) -> String {
        let problems = match self.load_text(text) {
            Ok(loaded) => Problems(loaded.warnings),
            Err(problems) => problems,
        };
        self.normal(&config::render(&problems, false))
    }

    fn normal(&self, text: &str) -> String {
        text.replace(self.dir.path().to_str().unwrap(), "/etc/renewd")
    }
}

fn samples() -> Vec<PathBuf> {
    let examples = fs::read_dir(Path::new(ROOT).join("config/examples")).unwrap();
    let mut paths: Vec<_> = examples.map(|entry| entry.unwrap().path()).collect();
    paths.push(Path::new(ROOT).join("config/renewd.toml"));
    paths.sort();
    paths
}

#[test]
fn every_sample_loads_without_a_warning() {
    assert!(samples().len() >= 5);
    for path in samples() {
        let etc = Etc::new();
        let told = etc.told(&fs::read_to_string(&path).unwrap());
        assert_eq!(told, "", "{}", path.display());
    }
}

/// Each wrong file under `fixtures/bad`, as an operator is told about it.
#[test]
fn wrong_files_are_explained() {
    let dir = Path::new(ROOT).join("tests/it/fixtures/bad");
    let mut paths: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    paths.sort();
    assert!(paths.len() >= 20);
    for path in paths {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let etc = Etc::new();
        etc.secret("short", "whsec_c2hvcnQ=");
        etc.secret(
            "unpadded",
            "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8",
        );
        let open = etc.secret("open.cs", CONNECTION);
        fs::set_permissions(&open, fs::Permissions::from_mode(0o644)).unwrap();
        etc.secret("contoso.cs", CONNECTION);
        etc.secret("id.secret", "11111111-2222-3333-4444-555555555555");
        let pfx = etc.secret("contoso.pfx", "");
        fs::write(pfx, b"\x30\x82\x09\xa9\x02\x01\x03\x30").unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let loaded = etc.load_text(&text);
        assert_eq!(loaded.is_ok(), name == "warnings", "{name}");
        let told = etc.told(&text);
        assert!(
            !told.contains("hunter2") && !told.contains("Q2Fu"),
            "{name}:\n{told}"
        );
        insta::assert_snapshot!(name, told);
    }
}

/// What is wrong with the address of a database is told where it is referred to.
#[test]
fn addresses_of_databases_are_explained_at_their_line_and_not_quoted() {
    for (address, why) in [
        (
            "postgresql://renewd:hunter2@db-1,db-2/renewd?sslmode=disable",
            "in plain text",
        ),
        ("postgresql://renewd:hunter2@db-1", "names no database"),
        (
            "postgresql://renewd:hun/ter2hunter2@db-1/renewd",
            "has an @ or a space",
        ),
        (
            "mysql://renewd:hunter2@db-1/renewd",
            "something else than PostgreSQL",
        ),
        ("hunter2", "neither a URL nor pairs"),
    ] {
        let etc = Etc::new();
        etc.secret("contoso.cs", CONNECTION);
        etc.secret("database", address);
        let text = format!("{ONE}[store]\nurl = {{ file = \"database\" }}\n");
        let told = etc.told(&text);
        assert!(told.contains(why), "{address}:\n{told}");
        assert!(told.contains("renewd.toml:5:7"), "{address}:\n{told}");
        assert!(!told.contains("hunter2"), "{address}:\n{told}");
    }
    let etc = Etc::new();
    etc.secret("database", "postgresql://renewd:hunter2@db-1,db-2/renewd");
    for (store, why) in [
        (
            "url = { file = \"database\" }\npath = \"renewd.db\"\n",
            "a store lies in one place",
        ),
        ("ca_file = \"database\"\n", "`ca_file` belongs to `url`"),
        ("url = \"postgresql://renewd:hunter2@db-1/renewd\"\n", "url"),
        (
            "url = { file = \"database\" }\nca_file = \"none.pem\"\n",
            "cannot read the CA file",
        ),
    ] {
        let text = format!("{ONE}[store]\n{store}");
        let told = etc.told(&text);
        assert!(told.contains(why), "{store}:\n{told}");
        assert!(!told.contains("hunter2"), "{store}:\n{told}");
    }
    let text = format!("{ONE}[store]\nurl = {{ file = \"database\" }}\n");
    let settings = etc.load_text(&text).unwrap().settings;
    let database = settings.store.place.database().unwrap();
    assert_eq!(database.to_string(), "db-1:5432,db-2:5432/renewd");
    assert!(database.hosts.iter().all(|host| host.secure));
    assert!(!format!("{settings:?}").contains("hunter2"));
}

const ONE: &str = "[[resource]]\nname = \"contoso\"\nconnection_string = { env = \"CONTOSO\" }\n";

#[test]
fn the_reference_says_what_it_says() {
    let etc = Etc::new();
    let text = fs::read_to_string(Path::new(ROOT).join("config/renewd.toml")).unwrap();
    let settings = etc.load_text(&text).unwrap().settings;

    let daemon = &settings.daemon;
    assert_eq!(daemon.state_dir, Path::new("/var/lib/renewd"));
    assert_eq!(daemon.listen, Some("127.0.0.1:9847".parse().unwrap()));
    assert_eq!(daemon.admins, [Reader::Group("ops".into())]);
    assert_eq!(settings.store.keep_renewals, Duration::from_hours(7 * 24));
    assert_eq!(
        settings.store.seal_key.as_ref().unwrap().from,
        SecretRef::Credential("seal-key".into())
    );
    let resource = &settings.resources[0];
    assert_eq!(
        resource
            .credential
            .keys()
            .unwrap()
            .connection_string
            .secret
            .expose(),
        format!("{CONNECTION}.cs")
    );
    assert_eq!(resource.create, CreatePolicy::Auto);
    let identity = &settings.identities[0];
    assert_eq!(identity.declared.scopes, [Scope::Chat, Scope::Voip]);
    assert_eq!(identity.declared.lifetime, Duration::from_hours(12));
    assert_eq!(
        (identity.declared.renew_at, identity.declared.spread),
        (0.4, 0.05)
    );
    assert_eq!(identity.declared.on_removal, OnRemoval::Hold);
    let [
        SinkSettings::File(file),
        SinkSettings::Webhook(webhook),
        SinkSettings::Exec(exec),
    ] = &settings.sinks[..]
    else {
        panic!("{:?}", settings.sinks);
    };
    assert_eq!(exec.command, ["/usr/local/bin/on-token"]);
    assert_eq!(exec.after[0].as_str(), "bot-file");
    assert_eq!((file.format, file.mode), (FileFormat::Json, 0o600));
    assert_eq!(webhook.secrets[0].secret.expose(), WEBHOOK);
    assert_eq!(
        (webhook.include, webhook.timeout),
        (Include::Token, Duration::from_secs(15))
    );
}

/// The defaults that the reference file names are those that hold where nothing is said.
#[test]
fn what_is_left_out_has_the_documented_default() {
    let etc = Etc::new();
    let text = format!(
        "{ONE}[[identity]]\nname = \"bot\"\nscopes = [\"voip\", \"chat\"]\n\
         [[sink.file]]\nname = \"f\"\npath = \"/run/{{name}}\"\n\
         [[sink.webhook]]\nname = \"w\"\nurl = \"https://h/\"\nsecrets = [{{ credential = \"crm-webhook\" }}]\n"
    );
    let settings = etc.load_text(&text).unwrap().settings;
    assert_eq!(settings.daemon.socket, Path::new("/run/renewd/renewd.sock"));
    assert_eq!(settings.daemon.instance, "web-1");
    assert!(settings.daemon.admins.is_empty() && !settings.daemon.page_names);
    assert_eq!(
        settings.store.place.file(),
        Some(Path::new("/var/lib/renewd/renewd.db"))
    );
    assert!(settings.store.seal_key.is_none());
    assert_eq!(settings.store.keep_other, Duration::from_hours(400 * 24));
    let resource = &settings.resources[0];
    assert_eq!(
        (resource.api_version.as_str(), resource.max_in_flight),
        ("2023-10-01", 32)
    );
    assert_eq!(resource.limits, config::Limits::default());
    let identity = &settings.identities[0];
    assert_eq!(
        identity.declared.scopes,
        [Scope::Chat, Scope::Voip],
        "sorted"
    );
    assert_eq!(identity.resource.as_str(), "contoso", "the only one");
    assert_eq!(identity.declared.lifetime, Duration::from_hours(24));
    assert_eq!(
        (identity.declared.renew_at, identity.declared.spread),
        (0.5, 0.02)
    );
    assert!(identity.declared.sinks.is_empty() && identity.declared.readers.is_empty());
    let [SinkSettings::File(file), SinkSettings::Webhook(webhook)] = &settings.sinks[..] else {
        panic!("{:?}", settings.sinks);
    };
    assert_eq!((file.format, file.mode), (FileFormat::Json, 0o600));
    assert_eq!(webhook.events, ["token.*"]);
    assert_eq!(webhook.timeout, Duration::from_secs(15));
}

const ENTRA: &str = "[[resource]]\nname = \"contoso\"\nendpoint = \"https://contoso.communication.azure.com/\"\n[resource.entra]\n";
const GUID: &str = "11111111-2222-3333-4444-555555555555";

#[test]
fn each_way_to_call_without_access_keys_is_read() {
    let etc = Etc::new();
    let entra = |keys: &str| {
        let settings = etc.load_text(&format!("{ENTRA}{keys}\n")).unwrap().settings;
        let entra = settings.resources[0].credential.entra().cloned();
        entra.unwrap()
    };
    let own = entra("managed_identity = true\nworkload_identity = false");
    assert_eq!(own.endpoint, "https://contoso.communication.azure.com");
    assert_eq!(own.authority, "https://login.microsoftonline.com");
    assert_eq!(own.scope, "https://communication.azure.com//.default");
    assert_eq!(own.kind, EntraKind::ManagedIdentity { selector: None });
    let id = "/subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/i";
    for (key, value, selector) in [
        (
            "client_id",
            GUID,
            IdentitySelector::ClientId(GUID.to_owned()),
        ),
        (
            "object_id",
            GUID,
            IdentitySelector::ObjectId(GUID.to_owned()),
        ),
        (
            "resource_id",
            id,
            IdentitySelector::ResourceId(id.to_owned()),
        ),
    ] {
        let chosen = entra(&format!("managed_identity = true\n{key} = \"{value}\""));
        let selector = Some(selector);
        assert_eq!(chosen.kind, EntraKind::ManagedIdentity { selector });
    }
    let app = |proof: &str| {
        entra(&format!(
            "tenant = \"contoso.com\"\nclient_id = \"{GUID}\"\n{proof}"
        ))
    };
    let secret = app(
        "client_secret = { file = \"contoso.secret\" }\nauthority = \"https://login.microsoftonline.us/\"",
    );
    assert_eq!(secret.authority, "https://login.microsoftonline.us");
    assert!(matches!(secret.kind, EntraKind::ClientSecret { .. }));
    let certificate = app("client_certificate = { file = \"contoso.pem\" }");
    let (key, certificate) = certificate.kind.secret().unwrap();
    assert_eq!(key, "entra.client_certificate");
    assert_eq!(certificate.secret.expose(), CERTIFICATE.trim_end());
    let pod = app("workload_identity = true\ntoken_file = \"contoso.secret\"");
    assert!(matches!(pod.kind, EntraKind::WorkloadIdentity { .. }));
}

#[test]
fn a_pod_is_read_from_its_variables() {
    let etc = Etc::new();
    let path = etc.write("renewd.toml", &format!("{ENTRA}workload_identity = true\n"));
    let token = etc.secret("token", "a.b.c");
    let load = |variables: &[(&str, &str)]| {
        config::load(&Source {
            path: path.clone(),
            environment: Environment::given(variables.to_vec(), "web-1", true),
        })
    };
    let whole = [
        ("AZURE_TENANT_ID", "contoso.com"),
        ("AZURE_CLIENT_ID", GUID),
        ("AZURE_FEDERATED_TOKEN_FILE", token.to_str().unwrap()),
        ("AZURE_AUTHORITY_HOST", "login.microsoftonline.us"),
    ];
    let settings = load(&whole).unwrap().settings;
    let entra = settings.resources[0].credential.entra().unwrap();
    assert_eq!(entra.authority, "https://login.microsoftonline.us");
    let expected = EntraKind::WorkloadIdentity {
        tenant: "contoso.com".to_owned(),
        client_id: GUID.to_owned(),
        token_file: token.clone(),
    };
    assert_eq!(entra.kind, expected);
    let told = |variables: &[(&str, &str)]| {
        let problems = load(variables).unwrap_err();
        problems
            .iter()
            .map(|one| one.message.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        told(&whole[..1]),
        [
            "`workload_identity` is left without AZURE_CLIENT_ID and AZURE_FEDERATED_TOKEN_FILE, which are not set"
        ]
    );
    let mut wrong = whole;
    wrong[1].1 = "contoso-app";
    wrong[3].1 = "http://login.example/";
    assert_eq!(
        told(&wrong),
        [
            "the variable AZURE_CLIENT_ID holds no client id",
            "the variable AZURE_AUTHORITY_HOST is plain http, which would carry tokens in the clear out of this machine",
        ]
    );
}

#[test]
fn modes_are_octal_in_both_spellings() {
    for mode in ["\"0640\"", "\"640\"", "0o640"] {
        let etc = Etc::new();
        let text = format!("{ONE}[[sink.file]]\nname = \"f\"\npath = \"/run/f\"\nmode = {mode}\n");
        let settings = etc.load_text(&text).unwrap().settings;
        let SinkSettings::File(file) = &settings.sinks[0] else {
            panic!()
        };
        assert_eq!(file.mode, 0o640, "{mode}");
    }
}

#[test]
fn plain_http_stays_on_this_machine() {
    let told = |url: &str, more: &str| {
        Etc::new().told(&format!(
            "{ONE}[[sink.webhook]]\nname = \"w\"\nurl = \"{url}\"\nsecrets = [{{ credential = \"crm-webhook\" }}]\n{more}\n"
        ))
    };
    for url in [
        "http://127.0.0.1:80/",
        "http://[::1]/",
        "http://localhost/x",
        "https://far.example/",
    ] {
        assert_eq!(told(url, ""), "", "{url}");
    }
    for url in [
        "http://far.example/",
        "http://127.0.0.1.far.example/",
        "http://localhost.far.example/",
    ] {
        assert!(told(url, "").contains("plain http"), "{url}");
        assert_eq!(told(url, "allow_http = true"), "", "{url}");
    }
}

#[test]
fn files_beside_the_main_file_add_to_it() {
    let etc = Etc::new();
    etc.write(
        "conf.d/20-b.toml",
        "[[identity]]\nname = \"b\"\nscopes = [\"chat\"]\n",
    );
    etc.write(
        "conf.d/10-a.toml",
        "[renewal]\nrenew_at = 0.4\n[[identity]]\nname = \"a\"\nscopes = [\"chat\"]\n",
    );
    etc.write("conf.d/.hidden.toml", "nonsense");
    etc.write("conf.d/notes.txt", "nonsense");
    let text = format!(
        "{ONE}[renewal]\nlifetime = \"2h\"\n[[identity]]\nname = \"z\"\nscopes = [\"chat\"]\n"
    );
    let settings = etc.load_text(&text).unwrap().settings;
    let names: Vec<_> = settings
        .identities
        .iter()
        .map(|i| i.name.as_str())
        .collect();
    assert_eq!(names, ["z", "a", "b"]);
    for identity in &settings.identities {
        assert_eq!(identity.declared.lifetime, Duration::from_hours(2));
        assert_eq!(identity.declared.renew_at, 0.4);
    }
}

#[test]
fn mistakes_across_files_show_both_places() {
    let etc = Etc::new();
    etc.write("conf.d/a.toml", "[daemon]\ninstance = \"b\"\n[[identity]]\nname = \"bot\"\nscopes = [\"chat\"]\nsinks = [\"x\"]\n");
    etc.write("conf.d/b.toml", "[daemon\n");
    fs::write(
        etc.dir.path().join("conf.d/c.toml"),
        b"[daemon]\n# caf\xe9\n",
    )
    .unwrap();
    fs::create_dir(etc.dir.path().join("conf.d/d.toml")).unwrap();
    let told = etc.told(&format!(
        "[daemon]\ninstance = \"a\"\n{ONE}[[identity]]\nname = \"bot\"\nscopes = [\"chat\"]\n"
    ));
    insta::assert_snapshot!("several-files", told);
}

#[test]
fn a_main_file_that_cannot_be_read_is_named() {
    let etc = Etc::new();
    let told = |path: &str| {
        let problems = etc.load(etc.dir.path().join(path)).unwrap_err();
        etc.normal(&config::render(&problems, false))
    };
    insta::assert_snapshot!("no-file", told("nowhere.toml"));
    fs::create_dir(etc.dir.path().join("folder.toml")).unwrap();
    insta::assert_snapshot!("not-a-file", told("folder.toml"));
}

#[test]
fn colours_are_for_terminals() {
    let etc = Etc::new();
    let problems = etc.load_text("[deamon]\n").unwrap_err();
    let plain = config::render(&problems, false);
    let coloured = config::render(&problems, true);
    assert!(!plain.contains('\u{1b}') && coloured.contains('\u{1b}'));
    assert_eq!(anstream::adapter::strip_str(&coloured).to_string(), plain);
    assert_eq!(problems.summary(), "2 errors");
}

#[test]
fn what_other_rooms_find_is_shown_at_its_place() {
    let etc = Etc::new();
    let text = format!(
        "{ONE}[[identity]]\nname = \"bot\"\nscopes = [\"chat\"]\nreaders = [\"a\", \"b\"]\n"
    );
    let places = etc.load_text(&text).unwrap().places;
    let paths = [
        "identity[0].readers[1]",
        "identity[0].readers[7]",
        "resource[0].connection_string",
        "resource[0].ca_file",
        "identity[9].name",
        "store.path",
        "",
    ];
    let findings = paths.map(|path| Finding {
        path: path.to_owned(),
        severity: Severity::Error,
        message: format!("found at `{path}`"),
        hint: None,
    });
    let told = etc.normal(&config::render(&places.problems(findings), false));
    insta::assert_snapshot!("findings", told);
}

#[test]
fn a_secret_is_read_again_when_asked() {
    let etc = Etc::new();
    let environment = etc.environment();
    let from = SecretRef::Credential("contoso".into());
    let read = || config::reload_secret(&from, &environment).map(|loaded| loaded.secret);
    assert_eq!(read().unwrap().expose(), CONNECTION);
    etc.secret("contoso", "another\n");
    assert_eq!(read().unwrap().expose(), "another");
    fs::remove_file(etc.dir.path().join("contoso")).unwrap();
    assert!(read().unwrap_err().to_string().contains("contoso"));
}

/// Mistakes beyond the first hundred are not looked for, wherever they stand, and nothing is called missing
/// that was merely not read.
/// A pipe in the place of any file that is named: it is refused, and nobody waits for its other end.
#[test]
fn a_pipe_in_a_files_place_is_refused_at_once() {
    for (what, key) in [
        ("ca_file", "ca_file = \"PIPE\"\n"),
        (
            "a secondary connection string",
            "secondary_connection_string = { file = \"PIPE\" }\n",
        ),
        (
            "a template",
            "[[sink.file]]\nname = \"files\"\npath = \"/run/x/{name}\"\ntemplate = { file = \"PIPE\" }\n",
        ),
    ] {
        let etc = Etc::new();
        let pipe = etc.dir.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        let text = format!("{ONE}{}", key.replace("PIPE", pipe.to_str().unwrap()));
        let (told, heard) = std::sync::mpsc::channel();
        std::thread::spawn(move || told.send(etc.load_text(&text).unwrap_err().to_string()));
        let problems = heard.recv_timeout(Duration::from_secs(20));
        let problems = problems.unwrap_or_else(|_| panic!("{what}: nothing within 20 s"));
        assert!(
            problems.contains("not a regular file"),
            "{what}: {problems}"
        );
    }
}

/// The list that the parser keeps of mistakes is bounded as well: four million of them cost no memory and no time.
#[test]
fn a_long_file_of_mistakes_is_read_up_to_a_while_after_the_first() {
    let good = "[[identity]]\nname = \"NAME\"\nscopes = [\"chat\"]\n";
    let many: String = (0..20_000)
        .map(|n| good.replace("NAME", &format!("bot{n}")))
        .collect();
    let long = Etc::new().load_text(&format!("{ONE}{many}")).unwrap();
    assert_eq!(long.settings.identities.len(), 20_000);
    let late = format!("{ONE}{many}[[identity]\nname = \"late\"\n");
    let problems = Etc::new().load_text(&late).unwrap_err();
    let place = problems[0].place.as_ref().unwrap();
    assert_eq!(place.line, late.lines().count() - 1);
    let early = format!("{ONE}= 1\n{many}");
    let problems = Etc::new().load_text(&early).unwrap_err();
    let end = problems.last().unwrap();
    assert_eq!(end.message, "from here on the file is not read");
    let problems = Etc::new()
        .load_text(&format!("{ONE}{}", "= x\n".repeat(4_000_000)))
        .unwrap_err();
    let errors = problems.iter().filter(|p| p.severity == Severity::Error);
    assert_eq!(errors.count(), 100);
}

#[test]
fn after_a_hundred_mistakes_a_configuration_is_not_read_further() {
    let unknown_keys = |n: usize| {
        (0..n)
            .map(|n| format!("nonsense{n} = 1\n"))
            .collect::<String>()
    };
    let wrong_sections = "[[identity]]\nname = \"a b\"\n".repeat(100_000);
    let no_toml = "= x\n".repeat(5_000);
    let unknown_sinks = format!(
        "[[identity]]\nname = \"bot\"\nscopes = [\"chat\"]\nsinks = [{}]\n",
        (0..5_000)
            .map(|n| format!("\"nosuch{n}\", "))
            .collect::<String>()
    );
    for (what, text) in [
        ("keys", format!("{ONE}{}", unknown_keys(5_000))),
        (
            "sections",
            format!("{ONE}{wrong_sections}[[sink.file]]\nname = \"late\"\n"),
        ),
        ("toml", format!("{ONE}{no_toml}")),
        ("links", format!("{ONE}{unknown_sinks}")),
    ] {
        let problems = Etc::new().load_text(&text).unwrap_err();
        let errors = problems.iter().filter(|p| p.severity == Severity::Error);
        assert_eq!(errors.count(), 100, "{what}");
        let last = problems.last().unwrap();
        assert!(
            last.message.starts_with("and more: after 100 mistakes"),
            "{what}: {last:?}"
        );
        assert!(
            !problems.iter().any(|p| p.message.contains("late")),
            "{what}"
        );
        let shown = config::render(&problems, false);
        assert!(shown.trim_end().ends_with("check again"), "{what}: {shown}");
        assert!(shown.len() < 100_000, "{what}");
    }
    let few = Etc::new()
        .load_text(&format!("{ONE}{}", unknown_keys(99)))
        .unwrap_err();
    assert!(
        !few.iter().any(|p| p.message.contains("not read further")),
        "{few}"
    );
}

#[test]
fn machines_that_say_the_same_but_for_paths_have_one_digest() {
    let etc = Etc::new();
    let text = |instance: &str, path: &str, format: &str| {
        format!(
            "[daemon]\ninstance = \"{instance}\"\n{ONE}\n[[sink.file]]\nname = \"files\"\n\
             path = \"{path}/{{name}}\"\nformat = \"{format}\"\n"
        )
    };
    let digest = |text: String| etc.load_text(&text).unwrap().settings.digest();
    let first = digest(text("web-1", "/run/a", "json"));
    assert_eq!(first, digest(text("web-2", "/run/b", "json")));
    assert_ne!(first, digest(text("web-1", "/run/a", "token")));
    let more =
        text("web-1", "/run/a", "json") + "[[identity]]\nname = \"bot\"\nscopes = [\"chat\"]\n";
    assert_ne!(first, digest(more));
}

/// What only another machine has is left out of what a machine takes over, and not of what must be alike.
#[test]
fn of_machines_that_differ_it_is_seen_in_which_part() {
    let etc = Etc::new();
    let key = etc.secret("seal.key", &"07".repeat(32));
    let database = etc.secret("database", "postgresql://renewd@127.0.0.1/renewd");
    let secret = |name: &str, bytes: &str| {
        etc.secret(
            name,
            &format!("endpoint=https://a.communication.azure.com/;accesskey={bytes}"),
        )
    };
    let (first, second) = (
        secret("a.cs", "a2V5LW9uZQ=="),
        secret("b.cs", "a2V5LXR3bw=="),
    );
    let digest = |node: &str, format: &str, keys: &std::path::Path| {
        let text = format!(
            "[store]\nurl = {{ file = \"{}\" }}\nseal_key = {{ file = \"{}\" }}\n[cluster]\nname = \"tests\"\n\
             node = \"{node}\"\n[[resource]]\nname = \"contoso\"\nconnection_string = {{ file = \"{}\" }}\n\
             [[sink.file]]\nname = \"ones\"\npath = \"/run/{{name}}\"\nformat = \"{format}\"\nnodes = [\"web-1\"]\n\
             [[source.file]]\nname = \"list\"\npath = \"/srv/list.json\"\nnodes = [\"web-2\"]\n",
            database.display(),
            key.display(),
            keys.display()
        );
        let settings = etc.load_text(&text).unwrap().settings.of_this_node();
        let marked = |secret: &[u8]| {
            let mut mark = [0; 32];
            mark.iter_mut()
                .zip(secret.iter().rev())
                .for_each(|(to, byte)| *to = *byte);
            mark
        };
        settings.digest_with(marked)
    };
    let one = digest("web-1", "json", &first);
    assert_eq!(
        one,
        digest("web-2", "json", &first),
        "each has a part of its own"
    );
    let differing = |other: &str| renewd::model::differing_parts(&one, other);
    assert_eq!(differing(&digest("web-2", "token", &first)), ["[[sink]]"]);
    assert_eq!(
        differing(&digest("web-2", "json", &second)),
        ["the secrets of [[resource]]"]
    );
    assert!(differing("aa11").is_empty());
}
