//! What other programs take from renewd's own definitions: manual pages (`renewd man`), completions for a shell
//! (`renewd completions`) and the configuration (`renewd config`): its schema, and what holds of it.

use std::{
    io,
    path::{Path, PathBuf},
};

use clap_complete::Shell;

use crate::config::{self, Source};

use super::{
    complete,
    daemon::loaded,
    definition,
    exit::{Exit, Failed, Outcome},
    output,
};

/// Print a manual page, or write them all
#[derive(Debug, clap::Args)]
#[command(
    after_help = "To read one: renewd man status | man -l -\nThat of the configuration: renewd man renewd.toml | man -l -\nTo install all: renewd man --dir /usr/local/share/man/man8"
)]
pub(crate) struct Man {
    /// Print the page of this verb instead of the program's; renewd.toml for that of the configuration
    #[arg(conflicts_with = "dir")]
    verb: Option<String>,
    /// Write the whole set into this folder
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// Administration commands and daemons.
const SECTION: &str = "8";
/// File formats are in section 5.
const CONFIGURATION: &str = "renewd.toml";

impl Man {
    pub(crate) fn run(self) -> Outcome {
        let mut whole = definition();
        whole.build();
        if let Some(dir) = &self.dir {
            let written = std::fs::create_dir_all(dir)
                .and_then(|()| write_all(&whole, dir))
                .and_then(|()| write_configuration(dir));
            written.map_err(|error| {
                let dir = dir.display();
                Failed::plain(format!("cannot write manual pages to {dir}: {error}"))
            })?;
            return Ok(Exit::Done);
        }
        let command = match &self.verb {
            Some(page) if page == CONFIGURATION => {
                output::print_data(&config::manual_page())?;
                return Ok(Exit::Done);
            }
            None => whole,
            Some(verb) => whole.find_subcommand(verb).cloned().ok_or_else(|| {
                Failed::usage(format!("there is no verb {verb:?}")).hint("renewd --help lists them")
            })?,
        };
        output::print_data(&page(&command)?)?;
        Ok(Exit::Done)
    }
}

/// The page of the configuration, in `man5` beside the folder where that is `man8`.
fn write_configuration(dir: &Path) -> io::Result<()> {
    let files = match dir.file_name().is_some_and(|name| name == "man8") {
        true => dir.with_file_name("man5"),
        false => dir.to_owned(),
    };
    std::fs::create_dir_all(&files)?;
    std::fs::write(
        files.join(format!("{CONFIGURATION}.5")),
        config::manual_page(),
    )
}

/// A page for the command and each one below it: `renewd.8`, `renewd-identity-add.8`.
fn write_all(command: &clap::Command, dir: &Path) -> io::Result<()> {
    let name = command.get_display_name().unwrap_or(command.get_name());
    std::fs::write(dir.join(format!("{name}.{SECTION}")), page(command)?)?;
    let below = command
        .get_subcommands()
        .filter(|below| below.get_name() != "help" && !below.is_hide_set());
    below
        .into_iter()
        .try_for_each(|below| write_all(below, dir))
}

fn page(command: &clap::Command) -> io::Result<String> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone())
        .section(SECTION)
        .render(&mut page)?;
    let name = command.get_display_name().unwrap_or(command.get_name());
    if matches!(name, "renewd" | "renewd-run") {
        page.extend(surroundings().into_bytes());
    }
    Ok(String::from_utf8_lossy(&page).into_owned())
}

/// What the pages of the program and of the daemon say of what is around them.
fn surroundings() -> String {
    let parts = [
        ("FILES", FILES),
        ("ENVIRONMENT", ENVIRONMENT),
        ("SIGNALS", SIGNALS),
    ];
    let mut page = String::new();
    for (title, rows) in parts {
        page += &format!(".SH {title}\n");
        for (name, says) in rows {
            page += &format!(".TP\n.B {}\n{}\n", config::roff(name), config::roff(says));
        }
    }
    page + ".SH SEE ALSO\n.BR renewd.toml (5),\n.BR systemd.exec (5)\n"
}

const FILES: &[(&str, &str)] = &[
    (
        "/etc/renewd/renewd.toml, /etc/renewd/conf.d/*.toml",
        "The configuration: renewd.toml(5). Of an ordinary user: $XDG_CONFIG_HOME/renewd/renewd.toml, else ~/.config/renewd/renewd.toml.",
    ),
    (
        "/var/lib/renewd",
        "The state folder. Of an ordinary user: $XDG_STATE_HOME/renewd, else ~/.local/state/renewd.",
    ),
    (
        "renewd.db, renewd.db-wal, renewd.db-shm",
        "In the state folder: the database, its tokens sealed. A copy of renewd.db alone is no backup: use `renewd store backup`.",
    ),
    (
        "seal.key",
        "In the state folder: the key that seals tokens, unless the configuration gives one.",
    ),
    (
        "identities.jsonl",
        "In the state folder: the map of names to ids, without secrets. With it a lost database makes nobody anew.",
    ),
    (
        "withdrawn.jsonl",
        "In the state folder: what was held, revoked, released and deleted, without secrets. With it a store that is put back from a copy forgets no withdrawal.",
    ),
    (
        "/run/renewd/renewd.sock",
        "The local socket. Of an ordinary user: $XDG_RUNTIME_DIR/renewd/renewd.sock, else renewd.sock in the state folder.",
    ),
    ("/run/renewd/tokens", "Where file sinks usually put tokens."),
    (
        "/var/opt/azcmagent/tokens",
        "Where the agent of Azure Arc leaves a key for whoever asks it for a bearer. The daemon has to be of the agent's group, himds.",
    ),
];

const ENVIRONMENT: &[(&str, &str)] = &[
    (
        "RENEWD_SOCKET",
        "The socket, as --socket names it. It comes before the configuration.",
    ),
    (
        "RENEWD_LOG",
        "What is logged: error, warn, info, debug or trace, or parts by name, such as warn,renewd::engine=debug. info where it is not set.",
    ),
    (
        "STATE_DIRECTORY",
        "The state folder, as systemd sets it by StateDirectory=.",
    ),
    (
        "RUNTIME_DIRECTORY",
        "The folder of the socket, as systemd sets it by RuntimeDirectory=.",
    ),
    (
        "CREDENTIALS_DIRECTORY",
        "Where secrets of the form { credential = \"NAME\" } lie, as systemd sets it by LoadCredential=.",
    ),
    (
        "IDENTITY_ENDPOINT, IMDS_ENDPOINT",
        "Where the agent of Azure Arc answers, for managed_identity: both are set where it runs.",
    ),
    (
        "AZURE_POD_IDENTITY_AUTHORITY_HOST",
        "Where the metadata service of the machine answers, for managed_identity; http://169.254.169.254 where it is not set.",
    ),
    (
        "XDG_CONFIG_HOME, XDG_STATE_HOME, XDG_RUNTIME_DIR, HOME",
        "Where configuration, state and socket of an ordinary user are; see FILES.",
    ),
    (
        "NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID",
        "How the service manager is told that the daemon is ready and alive: sd_notify(3).",
    ),
    (
        "LISTEN_FDS, LISTEN_FDNAMES, LISTEN_PID",
        "Sockets that the service manager holds: sd_listen_fds(3).",
    ),
    (
        "JOURNAL_STREAM",
        "Whether standard error is the journal: then log lines go there with their fields.",
    ),
    (
        "COMMUNICATION_SERVICES_CONNECTION_STRING",
        "The connection string that `renewd acs` uses.",
    ),
    (
        "COMMUNICATION_SERVICES_ENDPOINT",
        "The endpoint that `renewd acs` calls by Entra ID where there is no connection string.",
    ),
    (
        "AZURE_TENANT_ID, AZURE_CLIENT_ID, AZURE_FEDERATED_TOKEN_FILE, AZURE_AUTHORITY_HOST",
        "Who a pod is: what [resource.entra] with workload_identity leaves out.",
    ),
    (
        "AZURE_CLIENT_SECRET, AZURE_CLIENT_CERTIFICATE_PATH",
        "With the tenant and the client id of an app: how `renewd acs` proves that it is the app, where --endpoint is used.",
    ),
    (
        "SSL_CERT_FILE, REQUESTS_CA_BUNDLE",
        "Authorities that `renewd acs` trusts besides the system's.",
    ),
    ("COLUMNS", "How wide the screen is, in characters."),
    (
        "NO_COLOR, CLICOLOR, CLICOLOR_FORCE",
        "Whether output is coloured; without them it is on a terminal.",
    ),
];

const SIGNALS: &[(&str, &str)] = &[
    (
        "SIGHUP",
        "The daemon reads its configuration again, all or nothing, and the secrets that it names. `systemctl reload renewd` sends it.",
    ),
    (
        "SIGTERM, SIGINT",
        "The daemon ends: nothing new begins, calls that are under way may end and are noted, files and socket stay as they are. Its status is 0.",
    ),
    (
        "SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2",
        "`renewd exec` and `renewd emulator --` pass them on to their program.",
    ),
];

/// Print what programs may ask of the daemon's socket
#[derive(Debug, clap::Args)]
pub(crate) struct Api {
    #[command(subcommand)]
    verb: ApiVerb,
}

#[derive(Debug, clap::Subcommand)]
enum ApiVerb {
    /// Print the description of the socket's endpoints (OpenAPI 3.1)
    Schema,
}

impl Api {
    pub(crate) fn run(self) -> Outcome {
        let ApiVerb::Schema = self.verb;
        output::print_data(include_str!("../../docs/openapi.json"))?;
        Ok(Exit::Done)
    }
}

/// Print completions for a shell
#[derive(Debug, clap::Args)]
#[command(
    after_help = "For bash: renewd completions bash > /etc/bash_completion.d/renewd\nIn bash, zsh and fish names of identities, sinks, campaigns, jobs, resources and sources are completed too, as far as\nthe daemon lets this user ask for them."
)]
pub(crate) struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(self) -> Outcome {
        output::print_data(&complete::script(self.shell))?;
        Ok(Exit::Done)
    }
}

/// Show what holds of the configuration and where that comes from, or its schema
#[derive(Debug, clap::Args)]
pub(crate) struct Config {
    #[command(subcommand)]
    verb: ConfigVerb,
}

#[derive(Debug, clap::Subcommand)]
enum ConfigVerb {
    /// Print the JSON Schema of the configuration
    #[command(
        after_help = "For editors with taplo: renewd config schema > renewd.schema.json, and as the first line of the\nconfiguration: #:schema ./renewd.schema.json"
    )]
    Schema,
    /// Show the configuration with its defaults, and where each value comes from
    #[command(
        after_help = "Values are shown as errors may quote them: *** stands for free text that could hold a secret, and of\na secret only the place is shown."
    )]
    Show(Show),
}

/// Show the configuration with its defaults, and where each value comes from
#[derive(Debug, clap::Args)]
struct Show {
    /// The configuration [default: /etc/renewd/renewd.toml; as a normal user
    /// ~/.config/renewd/renewd.toml]
    #[arg(long, value_name = "PATH")]
    config: Option<PathBuf>,
    /// With every default of the sections that there are
    #[arg(long, required = true)]
    effective: bool,
}

impl Show {
    fn run(self) -> Outcome {
        let loaded = loaded(&Source::of_process(self.config))?;
        output::print_data(&loaded.places.effective(&loaded.settings))?;
        Ok(Exit::Done)
    }
}

impl Config {
    /// Whether secrets are read on the way.
    pub(crate) fn holds_secrets(&self) -> bool {
        matches!(self.verb, ConfigVerb::Show(_))
    }

    pub(crate) fn run(self) -> Outcome {
        match self.verb {
            ConfigVerb::Schema => {
                output::print_data(&config::schema())?;
                Ok(Exit::Done)
            }
            ConfigVerb::Show(show) => show.run(),
        }
    }
}
