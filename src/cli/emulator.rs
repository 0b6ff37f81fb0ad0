//! `renewd emulator` and `renewd demo`: ACS Identity on this machine to test and play with, and the daemon at work
//! against it, with trouble on purpose, told on the screen.

use std::{
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use renewd_demo::{How, Kept, Line, Promise, Teller, Tone, play};
use renewd_emulator::{
    DeletedStatus, EmulatorOptions, EntraAccess, EntraOptions, Environment, EnvironmentError,
    Limits, ServeError, ServeOptions, Serving, TokenAlg, child_environment, entra_environment,
    serve,
};
use sha2::{Digest, Sha256};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};

use super::{
    Context,
    child::{Group, Program, Signals, code},
    duration,
    exit::{Exit, Failed, Outcome},
    input,
    output::{self, BAD, Cell, DIM, GOOD, PLAIN, STRONG, Table, WARN, paint},
    run::Logs,
};
use crate::{acs::ConnectionString, model::Secret};

/// Run ACS Identity on this machine, for tests and for playing with
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Runs until SIGTERM and prints on standard output, once it accepts:
  ca=/path/to/ca.pem                       (not with --http)
  endpoint=https://127.0.0.1:PORT/;accesskey=KEY
With a command after --, it sets the connection string and the CA variables of the common languages
for it, leaves standard output to it, and ends as it ended:
  renewd emulator -- pytest

With --entra there is no key: it sets what the Azure SDKs read to find who they
are, and takes all else of that kind away. Managed identities then work
unchanged; a secret and a certificate need disable_instance_discovery in the
program, for which there is no variable. Without a command it prints them, as
NAME=value, before the connection string:
  renewd emulator --entra -- pytest")]
pub(crate) struct Emulator {
    /// Where to listen; port 0 takes a free one [default: 127.0.0.1:8443; with a command
    /// 127.0.0.1:0]
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
    /// Plain http instead of TLS
    #[arg(long)]
    http: bool,
    /// One more name for the certificate, such as a container's
    #[arg(long, value_name = "NAME", conflicts_with = "http")]
    name: Vec<String>,
    /// Write the CA certificate here [default: a temporary folder]
    #[arg(long, value_name = "FILE", conflicts_with = "http")]
    ca_file: Option<PathBuf>,
    /// The access keys, base64: the primary on the first line, the secondary on the second
    #[arg(long, value_name = "FILE")]
    access_key_file: Option<PathBuf>,
    /// Play the resource of this connection string: listen where it says, with its key and an id of its own,
    /// and take what earlier runs handed out for real. `renewd init --emulator` writes one
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = ["listen", "http", "access_key_file", "resource_id", "adopt"]
    )]
    connection_string_file: Option<PathBuf>,
    /// Give bearers of Entra ID to a program that has no key, as KIND does: vm, arc (as root), app-service,
    /// workload, secret or certificate [default: vm]
    #[arg(
        long,
        value_name = "KIND",
        num_args = 0..=1,
        default_missing_value = "vm",
        conflicts_with = "http"
    )]
    entra: Option<EntraAccess>,
    /// Where the metadata services of vm, arc and app-service listen, over plain http [default: 127.0.0.1:0]
    #[arg(long, value_name = "HOST:PORT", requires = "entra")]
    metadata_listen: Option<String>,
    /// Take this file's text for a workload's federated token, and name this file to the program
    #[arg(long, value_name = "FILE", requires = "entra")]
    federated_token_file: Option<PathBuf>,
    /// The resource's id, a GUID [default: random]
    #[arg(long, value_name = "GUID")]
    resource_id: Option<uuid::Uuid>,
    /// Every token lives this long, whatever is asked for
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    token_ttl: Option<Duration>,
    /// How tokens are signed: rs256, es256, or filler (same size, no signature, for load)
    #[arg(long, value_name = "ALG", default_value = "rs256")]
    token_alg: TokenAlg,
    /// At most so many calls: issue=1000/30s, issue=1000/30s/fixed, all=off [default: as ACS
    /// documents]
    #[arg(long, value_name = "OPERATION=LIMIT")]
    limit: Vec<String>,
    /// How far the date of a request may be off
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = duration::parse)]
    date_margin: Duration,
    /// What an identity that does not exist answers with
    #[arg(long, value_name = "STATUS", default_value = "404")]
    deleted_status: DeletedStatus,
    /// Take unknown ids and tokens of this resource for real ones, as after a restart
    #[arg(long, requires = "resource_id")]
    adopt: bool,
    /// Guard the control API: the header x-emulator-control must hold this file's text
    #[arg(long, value_name = "FILE")]
    control_secret_file: Option<PathBuf>,
    /// Keys, ids, faults and the CA follow from this number: who knows it can vouch for any name, so
    /// trust that CA in tests only [default: random]
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    #[command(flatten)]
    logs: Logs,
    /// A program to run with the emulator in its environment
    #[arg(last = true, value_name = "CMD")]
    command: Vec<OsString>,
}

impl Emulator {
    pub(crate) fn run(self, context: Context) -> Outcome {
        self.logs.begin()?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|error| Failed::plain(format!("cannot start: {error}")))?;
        runtime.block_on(self.serve(context))
    }

    async fn serve(self, context: Context) -> Outcome {
        let mut options = ServeOptions {
            listen: self.listen(),
            plain_http: self.http,
            metadata: self.metadata_listen(),
            names: self.name.clone(),
            ca_file: self.ca_file.clone(),
            ca_seed: self.seed,
            emulator: self.options()?,
        };
        if let Some(path) = &self.connection_string_file {
            play_resource(&mut options, path)?;
        }
        let serving = serve(options, context.clock).await.map_err(|error| {
            let ServeError::Listen { listen, .. } = &error else {
                return Failed::plain(error);
            };
            let option = match self.metadata_listen.as_ref() == Some(listen) {
                true => "--metadata-listen",
                false => "--listen",
            };
            let hint = format!("choose another address with {option}; port 0 takes a free one");
            Failed::plain(error).hint(hint)
        })?;
        let environment = self.environment(&serving)?;
        if self.command.is_empty() {
            until_told(serving, self.entra.is_some().then_some(environment)).await
        } else {
            during(&self.command, serving, environment).await
        }
    }

    fn environment(&self, serving: &Serving) -> Result<Environment, Failed> {
        let Some(access) = self.entra else {
            return Ok(child_environment(serving));
        };
        let token = self.federated_token_file.as_deref();
        entra_environment(serving, access, token).map_err(|error| {
            let hint = match error {
                EnvironmentError::ArcFolder(_) => "run it as root: Arc's clients look nowhere else",
                EnvironmentError::PlainHttp => "take a connection string whose endpoint is https",
                _ => return Failed::plain(error),
            };
            Failed::plain(error).hint(hint)
        })
    }

    fn metadata_listen(&self) -> Option<String> {
        self.entra?;
        let free = || "127.0.0.1:0".to_owned();
        Some(self.metadata_listen.clone().unwrap_or_else(free))
    }

    /// A program that is given the address needs no port that others may hold.
    fn listen(&self) -> String {
        let usual = match self.command.is_empty() {
            true => "127.0.0.1:8443",
            false => "127.0.0.1:0",
        };
        self.listen.clone().unwrap_or_else(|| usual.to_owned())
    }

    fn options(&self) -> Result<EmulatorOptions, Failed> {
        let mut limits = Limits::default();
        for limit in &self.limit {
            limits.set(limit).map_err(Failed::usage)?;
        }
        let control_secret = self.control_secret_file.as_deref();
        let control_secret = control_secret.map(input::secret_in).transpose()?;
        let federated_token = self.federated_token_file.as_deref();
        let federated_token = federated_token.map(input::secret_in).transpose()?;
        let options = EmulatorOptions {
            seed: self.seed.unwrap_or_else(rand::random),
            resource_id: self.resource_id.map(|id| id.hyphenated().to_string()),
            token_ttl: self.token_ttl,
            token_alg: self.token_alg,
            limits,
            date_margin: self.date_margin,
            deleted_status: self.deleted_status,
            adopt: self.adopt,
            control_secret,
            entra: EntraOptions {
                federated_token,
                ..EntraOptions::default()
            },
            ..EmulatorOptions::default()
        };
        let Some(path) = &self.access_key_file else {
            return Ok(options);
        };
        options
            .with_key_file(input::secret_in(path)?.expose())
            .map_err(|error| Failed::usage(format!("{}: {error}", path.display())))
    }
}

/// Makes it the resource that a connection string names. The resource's id follows from the key, so that ids
/// and tokens of earlier runs are its own.
fn play_resource(options: &mut ServeOptions, path: &Path) -> Result<(), Failed> {
    let wrong =
        |error: &dyn std::fmt::Display| Failed::usage(format!("{}: {error}", path.display()));
    let text = input::secret_in(path)?;
    let read = ConnectionString::parse(&text).map_err(|error| wrong(&error))?;
    options.listen = read.endpoint.address();
    options.plain_http = read.endpoint.is_plain();
    let key = read.key.base64();
    let mut id = [0; 16];
    let digest = Sha256::digest(key.expose());
    id.copy_from_slice(&digest[..16]);
    let emulator = &mut options.emulator;
    emulator.resource_id = Some(uuid::Uuid::from_bytes(id).hyphenated().to_string());
    emulator.primary_key = Some(key);
    emulator.adopt = true;
    // Tenant, application and machine stay the same with the resource.
    let mut seed = [0; 8];
    seed.copy_from_slice(&digest[16..24]);
    emulator.entra.seed = Some(u64::from_be_bytes(seed));
    Ok(())
}

/// Prints where the emulator is, and the variables if there are any, and serves until SIGTERM or SIGINT.
async fn until_told(serving: Serving, environment: Option<Environment>) -> Outcome {
    let stop = stop_signal()?;
    if let Some(ca) = serving.ca_path() {
        output::print_lines(&format!("ca={}\n", ca.display()))?;
    }
    for (name, value) in environment.unwrap_or_default().set {
        output::print_secret(&Secret::new(format!("{name}={value}")))?;
    }
    output::print_secret(&serving.connection_string())?;
    serving.run_until(stop).await;
    Ok(Exit::Done)
}

/// Serves while the program runs. Signals to stop go on to it.
async fn during(command: &[OsString], serving: Serving, environment: Environment) -> Outcome {
    let mut signals = Signals::listen(Group::Shared)?;
    let Environment { set, removed } = environment;
    let mut program = Program::start_without(command, &removed, set, Group::Shared)?;
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(serving.run_until(async {
        stopped.await.ok();
    }));
    let status = loop {
        tokio::select! {
            biased;
            status = program.wait() => break status?,
            signal = signals.next() => program.signal(signal),
        }
    };
    // The server may have ended by itself only by a panic, which was logged.
    stop.send(()).ok();
    server.await.ok();
    Ok(Exit::As(code(status)))
}

/// Ends when the process is asked to stop. It listens from now on, not from the first wait.
fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            biased;
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Watch it work: emulator, daemon and receiver in a temporary folder, in under a minute
#[derive(Debug, clap::Args)]
pub(crate) struct Demo {
    /// Leave it running afterwards, to play with, until Ctrl-C
    #[arg(long)]
    keep: bool,
    /// Without an access key: the daemon calls by Entra ID, as an app with a secret
    #[arg(long)]
    entra: bool,
}

impl Demo {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let how = How {
            keep: self.keep,
            entra: self.entra,
        };
        let played = play(how, &context.clock, &Screen).await;
        let well = played.map_err(Failed::plain)?;
        Ok(if well { Exit::Done } else { Exit::Failed })
    }
}

struct Screen;

impl Teller for Screen {
    fn begins(&self, folder: &Path) -> io::Result<()> {
        print(&format!(
            "{}, in {}\n\n",
            paint(STRONG, "a real emulator, a real daemon, a real receiver"),
            folder.display()
        ))
    }

    fn happens(&self, line: &Line<'_>) -> io::Result<()> {
        let seconds = paint(DIM, format!("{:>5.1} s", line.seconds));
        let style = match line.tone {
            Tone::Plain => PLAIN,
            Tone::Strong => STRONG,
            Tone::Good => GOOD,
            Tone::Warning => WARN,
            Tone::Bad => BAD,
        };
        let what = paint(style, format!("{:<9}", line.what));
        let mut words = line.words.to_owned();
        if !line.aside.is_empty() {
            words.push(' ');
            words.push_str(&paint(DIM, line.aside));
        }
        print(&format!("{seconds}  {what}  {words}\n"))
    }

    fn ends(&self, promises: &[Promise]) -> io::Result<()> {
        print(&format!("\n{}", table(promises, output::width())))
    }

    fn goes_on(&self, kept: &Kept) -> io::Result<()> {
        print(&suggestions(kept))
    }

    fn leaves(&self, folder: &Path) {
        output::aside(&format!(
            "the logs stay in {}: emulator.log, daemon.log",
            folder.display()
        ));
    }
}

fn print(text: &str) -> io::Result<()> {
    output::print(text).map_err(|failed| io::Error::other(failed.to_string()))
}

fn table(promises: &[Promise], width: Option<usize>) -> String {
    let mut table = Table::new(&["", "PROMISE", "SEEN"]);
    for promise in promises {
        let mark = if promise.kept {
            Cell::styled("✓", GOOD)
        } else {
            Cell::styled("✗", BAD)
        };
        table.row([mark, promise.what.into(), promise.seen.as_str().into()]);
    }
    let broken = promises.iter().filter(|promise| !promise.kept).count();
    let verdict = match broken {
        0 => paint(GOOD, "every promise was kept"),
        _ => paint(
            BAD,
            format!("{broken} of {} promises were broken", promises.len()),
        ),
    };
    format!(
        "{}\n{} {verdict}\n",
        table.render(1, width),
        paint(DIM, " ")
    )
}

/// What to try while it goes on.
fn suggestions(kept: &Kept) -> String {
    let mut text = format!(
        "\n{} Try, in another terminal:\n\n  export RENEWD_SOCKET={}\n",
        paint(STRONG, "It goes on until Ctrl-C."),
        kept.socket
    );
    for (command, what) in [
        ("renewd status --watch", "how everything is"),
        ("renewd identity list", "who there is"),
        ("renewd why on-call", "what is decided about one, and why"),
        ("renewd token on-call", "its current token"),
        (
            "renewd hold on-call",
            "withhold it; then renewd release on-call",
        ),
        ("renewd audit list", "who did what, when and why"),
    ] {
        text.push_str(&format!("  {command:<24} {}\n", paint(DIM, what)));
    }
    text.push_str(&format!("\n  {:<24} {}\n", "configuration", kept.config));
    text.push_str(&format!("  {:<24} {}\n", "tokens", kept.tokens));
    if !kept.page.is_empty() {
        let page = "page and metrics";
        text.push_str(&format!("  {page:<24} http://{}/\n", kept.page));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promise_that_was_broken_is_marked_and_counted() {
        let promise = |kept, what, seen: &str| Promise {
            kept,
            what,
            seen: seen.to_owned(),
        };
        let good = promise(true, "nobody is created twice", "5 wanted, 5 created");
        let bad = promise(
            false,
            "SIGTERM is a clean end",
            "the daemon did not end with 0",
        );
        let text = table(&[good, bad], None);
        insta::assert_snapshot!(anstream::adapter::strip_str(&text).to_string());
    }
}
