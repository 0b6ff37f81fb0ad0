//! What comes from outside, one function each: a function takes any bytes and must neither panic nor hang.
//! `make fuzz` feeds them what libFuzzer makes up; an ordinary test feeds them what is kept in `corpus`.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Duration,
};

use renewd::{
    acs::{Client, ConnectionString},
    api::{Api, DaemonLife, Listeners, SharedState},
    cli::examine_import,
    clock::Clock,
    config::{self, DaemonSettings, Environment, Settings, SinkSettings, Source, SourceKind},
    model::{
        Amiss, Attempts, Facts, Kind, Record, Scope, Secret, Selection, State, StoreStanding,
        Timestamp, TokenDocument, TokenMeta, Version,
    },
    schedule::Cron,
    sinks::{
        FileSink,
        webhook::{ReceiverUrl, Rules},
    },
    sources,
    store::Store,
    telemetry::Metrics,
    transport::Transport,
};
use tokio::{runtime::Runtime, sync::watch};

/// A target and what its inputs go into.
pub type Target = (&'static str, fn(&[u8]));

/// All of them, by the names of their corpora.
pub const TARGETS: [Target; 9] = [
    ("configuration", configuration),
    ("connection_string", connection_string),
    ("acs_answer", acs_answer),
    ("selection", selection),
    ("import", import),
    ("socket", socket),
    ("list", list),
    ("schedule", schedule),
    ("template", template),
];

const CONNECTION: &str =
    "endpoint=https://contoso.communication.azure.com/;accesskey=bm90LWEtcmVhbC1rZXk=";

fn now() -> Timestamp {
    Timestamp::from_second(1_796_000_000).unwrap()
}

/// One thread, on which time is as it is.
fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap()
}

/// A folder of this process, in memory where there is such.
pub fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let shm = Path::new("/dev/shm");
        let base = if shm.is_dir() {
            shm.to_owned()
        } else {
            std::env::temp_dir()
        };
        base.join(format!("renewd-fuzz-{}", std::process::id()))
    });
    fs::create_dir_all(folder).unwrap();
    folder
}

/// What the targets need besides their input: one of each.
fn settings() -> &'static Settings {
    const TEXT: &str = r#"
[[resource]]
name = "contoso"
connection_string = { env = "CONTOSO" }

[[identity]]
name = "bot"
id = "8:acs:a_b"
scopes = ["chat"]
labels = { team = "sales" }
readers = ["root"]

[[sink.file]]
name = "files"
path = "FOLDER/{name}"
format = "template"
template = "{{ token }}"

[[source.file]]
name = "crm"
path = "FOLDER/list.jsonl"
"#;
    static SETTINGS: OnceLock<Settings> = OnceLock::new();
    SETTINGS.get_or_init(|| {
        let here = folder().display().to_string();
        let path = folder().join("settings.toml");
        fs::write(&path, TEXT.replace("FOLDER", &here)).unwrap();
        let given = [
            ("STATE_DIRECTORY", &*here),
            ("RUNTIME_DIRECTORY", &*here),
            ("CONTOSO", CONNECTION),
        ];
        let source = Source {
            path,
            environment: Environment::given(given, "fuzz-1", true),
        };
        config::load(&source).unwrap().settings
    })
}

/// A file with these bytes, of this thread.
fn file(name: &str, data: &[u8]) -> PathBuf {
    let path = folder().join(format!("{:?}-{name}", std::thread::current().id()));
    fs::write(&path, data).unwrap();
    path
}

fn configuration(data: &[u8]) {
    let environment = Environment::given(
        [("STATE_DIRECTORY", "/nowhere"), ("CONTOSO", CONNECTION)],
        "fuzz-1",
        true,
    );
    let source = Source {
        path: file("renewd.toml", data),
        environment,
    };
    match config::load(&source) {
        Ok(loaded) => {
            let found = loaded.places.problems(renewd::app::check(&loaded.settings));
            config::render(&found, true);
            config::render(&loaded.warnings, false);
        }
        Err(problems) => {
            let shown = config::render(&problems, false);
            assert!(
                !problems.is_empty() && !shown.contains("mistake in renewd"),
                "{shown}"
            );
        }
    }
}

fn connection_string(data: &[u8]) {
    let text = Secret::new(String::from_utf8_lossy(data).into_owned());
    match ConnectionString::parse(&text) {
        Ok(read) => {
            let url = format!("{}/identities?api-version=2023-10-01", read.endpoint);
            url.parse::<http::Uri>()
                .expect("what is accepted can be asked");
            read.endpoint.is_safe();
            assert_eq!(read.key.fingerprint().len(), 12);
        }
        Err(error) => {
            let told = error.to_string();
            // What is long enough to be a key is never in a message.
            let key = text
                .expose()
                .rsplit("accesskey=")
                .next()
                .unwrap_or_default();
            assert!(key.len() < 24 || !told.contains(key), "{told}");
        }
    }
    // The same for the URL that events are posted to.
    for rules in [
        Rules::default(),
        Rules {
            http: true,
            private: true,
        },
    ] {
        if let Ok(endpoint) = ReceiverUrl::new(text.expose(), rules) {
            assert!(!endpoint.to_string().is_empty());
        }
    }
}

fn header_map(head: &[u8]) -> http::HeaderMap {
    let mut headers = http::HeaderMap::new();
    for line in head.split(|byte| *byte == b'\n').take(20) {
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let (Some(name), Some(value)) = (parts.next(), parts.next()) else {
            continue;
        };
        if let (Ok(name), Ok(value)) = (
            http::HeaderName::from_bytes(name),
            http::HeaderValue::from_bytes(value),
        ) {
            headers.insert(name, value);
        }
    }
    headers
}

/// The first byte chooses call and status, the rest are headers to the first empty line, then the body.
fn acs_answer(data: &[u8]) {
    let Some((choice, rest)) = data.split_first() else {
        return;
    };
    let status = [200, 201, 204, 400, 401, 403, 404, 429, 500, 503][usize::from(choice >> 3) % 10];
    let split = rest.windows(2).position(|pair| pair == b"\n\n");
    let (head, body) = split.map_or((&rest[..0], rest), |at| (&rest[..at], &rest[at + 2..]));
    let headers = header_map(head);
    let body = bytes::Bytes::copy_from_slice(body);
    let transport = Transport::InProcess(Arc::new(move |_| {
        let mut answer = http::Response::new(body.clone());
        *answer.status_mut() = http::StatusCode::from_u16(status).unwrap();
        *answer.headers_mut() = headers.clone();
        Box::pin(async move { Ok(answer) })
    }));
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let paused = builder.enable_time().start_paused(true).build().unwrap();
    paused.block_on(async {
        let client =
            Client::new(&settings().resources[0], Clock::simulated(now()), transport).unwrap();
        let (id, hour) = ("8:acs:a_b".parse().unwrap(), Duration::from_hours(1));
        let scopes = [Scope::Chat];
        let told = match choice & 7 {
            0 => client
                .create(Some((&scopes, hour)), hour)
                .await
                .map(|done| {
                    if let Some(token) = done.value.token {
                        judge(&token.secret);
                    }
                }),
            1 => client.create(None, hour).await.map(drop),
            2 => client.revoke(&id, hour).await.map(drop),
            3 => client.delete(&id, hour).await.map(drop),
            4 => {
                let token = Secret::new("entra".to_owned());
                let exchanged = client.exchange(&token, "app", "user", hour).await;
                exchanged.map(|done| judge(&done.value.secret))
            }
            _ => {
                let issued = client.issue(&id, &scopes, hour, hour).await;
                issued.map(|done| judge(&done.value.secret))
            }
        };
        if let Err(error) = told {
            let told = error.to_string();
            assert!(!told.contains("eyJ"), "a token may be in {told}");
            error.failure();
        }
        assert!(client.skew().as_hours().abs() <= 24 * 7);
        client.key_status();
    });
}

/// A token is what every consumer can take.
fn judge(token: &Secret) {
    let text = token.expose();
    assert!(!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()));
}

fn selection(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match Selection::parse(&text) {
        Ok(selection) => {
            let record = record();
            selection.matches(&Facts::of(&record, now()));
        }
        Err(error) => {
            error.explain(&text);
        }
    }
}

fn import(data: &[u8]) {
    for end in ["csv", "jsonl"] {
        let path = file(&format!("import.{end}"), data);
        // A refusal of the whole is fine, too.
        examine_import(&path).ok();
    }
}

fn list(data: &[u8]) {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let paused = builder.enable_time().start_paused(true).build().unwrap();
    paused.block_on(async {
        let mut of_file = settings().sources[0].clone();
        of_file.kind = SourceKind::File {
            path: file("list.jsonl", data),
        };
        let mut source = sources::ListSource::new(of_file, &Clock::simulated(now()));
        let Ok(look) = source.look().await else {
            return;
        };
        let Ok(mut reading) = source.read(&look).await else {
            return;
        };
        reading.begin().await.unwrap();
        let mut last = None;
        while let Some(listed) = reading.next().await.unwrap() {
            assert!(last.as_ref() <= Some(&listed.name), "in the order of names");
            last = Some(listed.name);
        }
    });
}

/// A pattern to the first line end, a zone after it.
fn schedule(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (pattern, zone) = text.split_once('\n').unwrap_or((&text, "Europe/Prague"));
    match Cron::parse(pattern, zone) {
        Ok(cron) => {
            let mut at = now();
            for _ in 0..3 {
                let Some(next) = cron.next(at) else {
                    return;
                };
                assert!(next > at, "{pattern:?} goes back to {next}");
                at = next;
            }
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
        }
    }
}

fn template(data: &[u8]) {
    let text = String::from_utf8_lossy(data).into_owned();
    let SinkSettings::File(mut of_file) = settings().sinks[0].clone() else {
        return;
    };
    of_file.template = Some(config::Template { text, file: None });
    let Ok(sink) = FileSink::new(&of_file, true) else {
        return;
    };
    let delivery = renewd::sinks::SinkDelivery {
        document: Arc::new(document()),
        readers: Vec::new(),
    };
    // What cannot be rendered is told.
    runtime().block_on(sink.deliver(delivery, now())).ok();
}

fn document() -> TokenDocument {
    TokenDocument {
        name: "bot".parse().unwrap(),
        resource: "contoso".parse().unwrap(),
        id: Some("8:acs:a_b".parse().unwrap()),
        state: State::Active,
        token: Some(Secret::new("eyJhbGciOiJub25lIn0.e30.c2ln".to_owned())),
        scopes: vec![Scope::Chat],
        issued_at: Some(now()),
        expires_at: Some(now() + Duration::from_hours(24)),
        renews_at: None,
        version: Version(7),
        kind: Kind::Issued,
    }
}

fn record() -> Record {
    Record {
        known_dead: false,
        doubted: false,
        num: 1,
        spec: settings().identities[0].clone(),
        id: Some("8:acs:a_b".parse().unwrap()),
        state: State::Active,
        version: Version(7),
        token: Some(TokenMeta {
            issued_at: now(),
            expires_at: now() + Duration::from_hours(24),
            minted_by: "key".to_owned(),
        }),
        due: None,
        late_at: None,
        attempts: Attempts::default(),
        failures: 0,
        failing_since: None,
        revoked_at: None,
        revoked: false,
        late_notified: false,
    }
}

/// A request as it stands on the line: whatever it says, an answer comes or the connection ends, and the
/// next caller is served.
fn socket(data: &[u8]) {
    static SOCKET: OnceLock<PathBuf> = OnceLock::new();
    let path = SOCKET.get_or_init(serve);
    let caller = ask(path, data);
    // Whoever hangs up before the answer is there may get none.
    caller.shutdown(std::net::Shutdown::Write).ok();
    // An endpoint may wait for news as long as it was asked to; nobody does so here.
    answer(caller, Duration::from_millis(250));
    let next = ask(path, b"GET /v1/tokens/bot HTTP/1.1\r\nhost: localhost\r\nx-renewd-client: fuzz\r\nconnection: close\r\n\r\n");
    let health = answer(next, Duration::from_secs(20));
    assert!(
        health.starts_with(b"HTTP/1.1 "),
        "the next caller is served"
    );
}

fn ask(path: &Path, request: &[u8]) -> UnixStream {
    let mut stream = UnixStream::connect(path).unwrap();
    // It may have hung up already.
    stream.write_all(request).ok();
    stream
}

fn answer(stream: UnixStream, patience: Duration) -> Vec<u8> {
    stream.set_read_timeout(Some(patience)).unwrap();
    let mut answer = Vec::new();
    stream.take(1 << 20).read_to_end(&mut answer).ok();
    answer
}

/// Serves a socket over a store with one identity, as long as the process lives.
fn serve() -> PathBuf {
    let folder = folder().join("socket");
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join("renewd.sock");
    let (ready, is_ready) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        runtime().block_on(async {
            let clock = Clock::system();
            let Settings {
                store,
                mut daemon,
                identities,
                ..
            } = settings().clone();
            (daemon.state_dir, daemon.socket) = (folder.clone(), folder.join("renewd.sock"));
            let (store, _) = Store::open_inline(&store, &folder, clock.now()).unwrap();
            store
                .reconcile(&identities, &[], clock.now())
                .await
                .unwrap();
            let moved = watch::Sender::new(None);
            let scene = watch::Sender::new(Arc::new(scene(daemon.clone(), &clock, &moved)));
            let (commands, mut asked) = tokio::sync::mpsc::channel(16);
            let api = Api::new(clock, store, Metrics::new(), scene.subscribe(), commands);
            let listeners = Listeners::bind(&daemon, (None, None)).await.unwrap();
            ready.send(()).unwrap();
            // Nobody carries a command out: whoever asks for one is told so.
            let nobody = async { while asked.recv().await.is_some() {} };
            let served = listeners.serve(api, tokio_util::sync::CancellationToken::new());
            let _never = tokio::join!(served, nobody);
        });
    });
    is_ready.recv().unwrap();
    path
}

fn scene(
    daemon: DaemonSettings,
    clock: &Clock,
    moved: &watch::Sender<Option<Amiss>>,
) -> SharedState {
    SharedState {
        standing: StoreStanding::Own,
        brought_up: None,
        jobs: Vec::new(),
        jobs_decided: None,
        keys: BTreeMap::new(),
        daemon,
        life: DaemonLife {
            since: clock.now(),
            restored: true,
            stopping: false,
        },
        renewers: BTreeMap::new(),
        gates: BTreeMap::new(),
        declared: BTreeMap::new(),
        runners: BTreeMap::new(),
        sinks: Vec::new(),
        dispatchers: BTreeMap::new(),
        configured_sources: Vec::new(),
        sources: BTreeMap::new(),
        store_moved: moved.subscribe(),
        trusted: watch::Sender::default().subscribe(),
        configured_at: clock.now(),
        reload_refused: None,
        not_taken: Vec::new(),
        renewal: settings().renewal,
        cluster: None,
    }
}
