//! `renewd init`: a first configuration with its secrets in files of their own, from a few questions or from flags.
//! Everything is written or nothing, over nothing that is there; what was written is checked as `renewd check`
//! does, and the next two commands are printed.

mod caller;

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, chown},
    path::{Path, PathBuf},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use caller::{Caller, Chosen};

use super::{
    check::{check, inventory},
    exit::{Exit, Failed, Outcome},
    input::Person,
    output::{self, DIM, GOOD, STRONG, paint},
};
use crate::{
    accounts,
    config::{Environment, Source},
    model::{Name, Reader, ResourceName, Scope, Secret},
};

/// Write a first configuration with its secret files, check it, say what to do next
#[derive(Debug, clap::Args)]
#[command(after_help = "\
At a terminal it asks for what no option says. Secrets come from a file, from standard input (-) or are typed without
being shown. Nothing that is there is overwritten, and all is written or nothing.

  renewd init                        # asks
  renewd init --emulator             # against ACS Identity on this machine, without an account
  renewd init --endpoint https://contoso.communication.azure.com --managed-identity --identity support-bot
  sudo renewd init --system --connection-string-file - --identity support-bot --reader bot < contoso.cs")]
pub(crate) struct Init {
    /// For a daemon that serves the system: below /etc/renewd, tokens in /run/renewd/tokens [default: as root]
    #[arg(long)]
    system: bool,
    /// For `renewd emulator` instead of Azure, with an identity `bot` where no other is named; asks nothing
    #[arg(
        long,
        conflicts_with_all = ["caller", "secondary_connection_string_file", "endpoint", "tenant", "client_id"]
    )]
    emulator: bool,
    /// Where the configuration goes, its secrets beside it [default: /etc/renewd/renewd.toml; as a normal user
    /// ~/.config/renewd/renewd.toml]
    #[arg(long, value_name = "PATH")]
    config: Option<PathBuf>,
    #[command(flatten)]
    caller: Caller,
    /// What to call the resource [default: the first part of its host's name]
    #[arg(long, value_name = "NAME")]
    resource: Option<ResourceName>,
    /// An identity that is to have tokens; may be repeated
    #[arg(long, value_name = "NAME")]
    identity: Vec<Name>,
    /// What the tokens are good for; may be repeated [default: chat, voip]
    #[arg(long, value_name = "SCOPE")]
    scope: Vec<Scope>,
    /// Who may read the tokens: a user, or group:NAME; may be repeated
    #[arg(long, value_name = "USER")]
    reader: Vec<String>,
    /// The folder of the token files
    #[arg(long, value_name = "DIR")]
    tokens: Option<PathBuf>,
}

impl Init {
    pub(crate) async fn run(self) -> Outcome {
        let surroundings = Environment::of_process();
        let environment = match self.system {
            true => surroundings.of_system(),
            false => surroundings,
        };
        let path = self.config.clone();
        let path = path.unwrap_or_else(|| environment.default_path());
        let path = std::path::absolute(&path)?;
        // Before anything is asked.
        refuse_what_is_there(&path)?;
        let answers = match self.emulator {
            true => self.for_emulator()?,
            false => self.answers(&environment).await?,
        };
        let setup = Setup {
            tokens: self.tokens(&environment)?,
            environment,
            path,
            answers,
            emulator: self.emulator,
        };
        setup.write_all()?;
        Ok(Exit::Done)
    }

    /// Where the token files go. No link is followed on the way to them, so links are resolved now.
    fn tokens(&self, environment: &Environment) -> Result<PathBuf, Failed> {
        let folder = match (&self.tokens, environment.serves_system()) {
            (Some(folder), _) => std::path::absolute(folder)?,
            (None, true) => PathBuf::from("/run/renewd/tokens"),
            (None, false) => environment.state_dir().join("tokens"),
        };
        let there = folder.ancestors().find(|part| part.exists());
        let there = there.unwrap_or(Path::new("/"));
        let rest = folder.strip_prefix(there).unwrap_or(Path::new(""));
        Ok(fs::canonicalize(there)?.join(rest))
    }

    /// Everything that Azure would say, made up.
    fn for_emulator(&self) -> Result<Answers, Failed> {
        let address = free_address()?;
        let key = BASE64_STANDARD.encode(rand::random::<[u8; 32]>());
        let text = Secret::new(format!("endpoint=http://{address}/;accesskey={key}"));
        let usual = |name: &str| name.parse().map_err(Failed::usage);
        let resource = match &self.resource {
            Some(resource) => resource.clone(),
            None => "emulator".parse().map_err(Failed::usage)?,
        };
        let identities = match self.identity.as_slice() {
            [] => vec![usual("bot")?],
            named => named.to_vec(),
        };
        Ok(Answers {
            chosen: Chosen::made_up(text),
            resource,
            identities,
            scopes: scopes(&self.scope),
            readers: self.readers(),
        })
    }

    fn readers(&self) -> Vec<Reader> {
        self.reader.iter().cloned().map(Reader::from).collect()
    }

    /// What the flags say, and a person where they leave something open.
    async fn answers(&self, environment: &Environment) -> Result<Answers, Failed> {
        let takes_stdin = self.caller.takes_stdin()?;
        let mut missing = self.caller.missing();
        if self.identity.is_empty() {
            missing.push("--identity NAME");
        }
        let person = match missing.is_empty() || takes_stdin {
            true => None,
            false => Person::at_terminal()?,
        };
        match person {
            Some(mut person) => self.ask(&mut person, environment.serves_system()).await,
            None if !missing.is_empty() => Err(Failed::usage(format!(
                "nobody can be asked, as standard input is no terminal or holds a secret; it needs {}",
                missing.join(" and ")
            ))
            .hint("`renewd init --help` shows them all; `renewd init --emulator` needs none")),
            None => {
                let chosen = self.caller.chosen(None).await?;
                self.with(chosen, self.resource.clone(), self.identity.clone())
            }
        }
    }

    /// Asks for what is missing.
    async fn ask(&self, person: &mut Person, system: bool) -> Result<Answers, Failed> {
        let chosen = self.caller.chosen(Some(&mut *person)).await?;
        let resource = match &self.resource {
            Some(resource) => resource.clone(),
            None => {
                let usual = chosen.usual_name();
                let question = "What to call the resource";
                let read = |said: &str| said.parse::<ResourceName>();
                person.answer(question, &usual, read).await?
            }
        };
        let identities = match self.identity.as_slice() {
            [] => {
                let question = "Identities that are to have tokens, by names of your own";
                person.answer(question, "bot", all::<Name>).await?
            }
            named => named.to_vec(),
        };
        let mut answers = self.with(chosen, Some(resource), identities)?;
        if self.scope.is_empty() {
            let question = "What their tokens are good for (chat, chat.join, voip, voip.join, …)";
            answers.scopes = person.answer(question, "chat voip", all::<Scope>).await?;
        }
        if self.reader.is_empty() && system {
            let question =
                "Users who may read the tokens, and groups as group:NAME (none: root alone)";
            let read = |said: &str| match said {
                "none" => Ok(Vec::new()),
                said => all::<String>(said),
            };
            let named = person.answer(question, "none", read).await?;
            answers.readers = named.into_iter().map(Reader::from).collect();
        }
        Ok(answers)
    }

    fn with(
        &self,
        chosen: Chosen,
        resource: Option<ResourceName>,
        identities: Vec<Name>,
    ) -> Result<Answers, Failed> {
        let resource = match resource {
            Some(resource) => resource,
            None => chosen.usual_name().parse().map_err(Failed::usage)?,
        };
        Ok(Answers {
            chosen,
            resource,
            identities,
            scopes: scopes(&self.scope),
            readers: self.readers(),
        })
    }
}

fn scopes(named: &[Scope]) -> Vec<Scope> {
    match named {
        [] => vec![Scope::Chat, Scope::Voip],
        named => named.to_vec(),
    }
}

/// Words between blanks or commas.
fn all<T: std::str::FromStr>(said: &str) -> Result<Vec<T>, String>
where
    T::Err: std::fmt::Display,
{
    let words = said.split([',', ' ', '\t']).filter(|word| !word.is_empty());
    let read: Result<Vec<T>, T::Err> = words.map(str::parse).collect();
    match read {
        Ok(none) if none.is_empty() => Err("name at least one".to_owned()),
        Ok(all) => Ok(all),
        Err(error) => Err(error.to_string()),
    }
}

/// Where the emulator usually listens, or a free port where somebody else does.
fn free_address() -> Result<SocketAddr, Failed> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 8443))
        .or_else(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
    Ok(listener.local_addr()?)
}

fn refuse_what_is_there(path: &Path) -> Result<(), Failed> {
    // A link that leads nowhere is something, too.
    match fs::symlink_metadata(path) {
        Ok(_) => Err(there(path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(unwritable(path, &error)),
    }
}

fn there(path: &Path) -> Failed {
    Failed::plain(format!(
        "{} is there already, and init overwrites nothing",
        path.display()
    ))
    .hint("change that one and run `renewd check`, or name another place by --config PATH")
}

fn unwritable(path: &Path, error: &io::Error) -> Failed {
    let failed = Failed::plain(format!(
        "cannot write {}: {error}; nothing was left behind",
        path.display()
    ));
    match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => failed
            .hint("name another place by --config PATH, or run it as who may write there (sudo)"),
        _ => failed,
    }
}

/// What is to be written.
struct Answers {
    chosen: Chosen,
    resource: ResourceName,
    identities: Vec<Name>,
    scopes: Vec<Scope>,
    readers: Vec<Reader>,
}

/// All of a first configuration, and where it goes.
struct Setup {
    environment: Environment,
    path: PathBuf,
    tokens: PathBuf,
    answers: Answers,
    emulator: bool,
}

/// The daemon's user where the system starts it.
const USER: &str = "renewd";

impl Setup {
    /// The file of a secret, by the end of its name.
    fn secret_file(&self, end: &str) -> PathBuf {
        let name = format!("{}{end}", self.answers.resource);
        self.path.with_file_name(name)
    }

    /// Writes it, checks it, tells what to do next; takes all back where it cannot be used.
    fn write_all(&self) -> Result<(), Failed> {
        let daemon = match self.environment.serves_system() {
            true => accounts::user(USER),
            false => None,
        };
        let group = daemon.as_ref().and_then(|user| user.gid);
        let mut made = NewFiles::default();
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        let mode = if group.is_some() { 0o750 } else { 0o700 };
        made.folders(
            folder,
            Access {
                mode,
                uid: None,
                gid: group,
            },
        )?;
        let private = Access {
            mode: 0o600,
            uid: daemon.map(|user| user.uid),
            gid: group,
        };
        for (end, _, text) in self.answers.chosen.secrets() {
            made.file(&self.secret_file(end), &line(text), private)?;
        }
        let mode = if group.is_some() { 0o640 } else { 0o600 };
        let text = Secret::new(self.text()?);
        made.file(
            &self.path,
            &text,
            Access {
                mode,
                uid: None,
                gid: group,
            },
        )?;
        let source = Source {
            path: self.path.clone(),
            environment: self.environment.clone(),
        };
        let settings = check(&source).map_err(|failed| {
            failed.hint(
                "nothing was left behind; renewd init --help shows what can be said otherwise",
            )
        })?;
        let written = made.keep();
        output::print(&self.report(&written, &inventory(&settings)))
    }

    /// The configuration, with a word on each key.
    fn text(&self) -> Result<String, Failed> {
        let Answers {
            resource,
            identities,
            scopes,
            readers,
            ..
        } = &self.answers;
        let list = |items: Vec<String>| {
            let items: Vec<String> = items.iter().map(|item| quoted(item)).collect();
            format!("[{}]", items.join(", "))
        };
        let mut text = format!("{PREFACE}\n[daemon]\n{}", listen());
        text += &format!("\n[[resource]]\nname = {}\n", quoted(resource.as_str()));
        let file = |end: &str| path_in_toml(&self.secret_file(end));
        text += &self.answers.chosen.lines(file)?;
        for (at, name) in identities.iter().enumerate() {
            text += &format!("\n[[identity]]\nname = {}\n", quoted(name.as_str()));
            if at == 0 {
                text += "# What its tokens are good for: chat, chat.join, chat.join.limited, voip, voip.join.\n";
            }
            text += &format!(
                "scopes = {}\n",
                list(scopes.iter().map(ToString::to_string).collect())
            );
            if at == 0 {
                text += "# Who may read its token file, and fetch it over the socket: users, and groups as \"group:NAME\".\n";
            }
            text += &format!(
                "readers = {}\n",
                list(readers.iter().map(ToString::to_string).collect())
            );
            text += "sinks = [\"files\"]\n";
        }
        text += "\n# Each new token replaces the one before in its file, in one step.\n";
        let pattern = path_in_toml(&self.tokens.join("{name}.json"))?;
        text += &format!("[[sink.file]]\nname = \"files\"\npath = {pattern}\n");
        Ok(text)
    }

    /// What was written, and what to do next.
    fn report(&self, written: &[PathBuf], inventory: &str) -> String {
        let mut text = String::new();
        for file in written {
            let what = match *file == self.path {
                true => "the configuration",
                false => "a secret, for its owner alone",
            };
            text += &format!("wrote {}  {}\n", file.display(), paint(DIM, what));
        }
        text += &format!("it {}: {inventory}\n", paint(GOOD, "can work"));
        let [first, second] = self.next();
        text += &format!(
            "\nNext:\n  {}\n  {}\n",
            paint(STRONG, first),
            paint(STRONG, second)
        );
        if let Some(name) = self.answers.identities.first() {
            let file = self.tokens.join(format!("{name}.json"));
            text += &format!(
                "\nThen the token of {name} is in {}.\n",
                word(&file.to_string_lossy())
            );
        }
        text
    }

    /// The next two commands.
    fn next(&self) -> [String; 2] {
        let program = program();
        let named = match self.path == self.environment.default_path() {
            true => String::new(),
            false => format!(" --config {}", word(&self.path.to_string_lossy())),
        };
        let first = match self.emulator {
            true => {
                let emulator = match cfg!(feature = "emulator") {
                    true => program.clone(),
                    false => "renewd-emulator".to_owned(),
                };
                let file = self.secret_file(".cs");
                let file = word(&file.to_string_lossy());
                format!("{emulator} emulator --connection-string-file {file} &")
            }
            false => format!("{program} check --online{named}"),
        };
        let by_systemd = self.environment.serves_system() && named.is_empty() && has_unit();
        let second = match by_systemd {
            true => "systemctl enable --now renewd".to_owned(),
            false => format!("{program} run{named}"),
        };
        [first, second]
    }
}

const PREFACE: &str = "\
# Written by `renewd init`. Every key there is: `man renewd.toml`, or `renewd man renewd.toml | man -l -`.
# After a change: `renewd check`, then `systemctl reload renewd` (without systemd: SIGHUP to the daemon).
";

/// The key of health, metrics and page: off where somebody else has the port.
fn listen() -> String {
    let says = "# Health, metrics and a page, for this machine alone; \"\" turns them off.\n";
    match TcpListener::bind((Ipv4Addr::LOCALHOST, 9847)) {
        Ok(_) => format!("{says}listen = \"127.0.0.1:9847\"\n"),
        Err(_) => {
            format!("{says}# 127.0.0.1:9847 was taken when this was written.\nlisten = \"\"\n")
        }
    }
}

/// Whether a service manager here knows the daemon.
fn has_unit() -> bool {
    let folders = [
        "/etc/systemd/system",
        "/usr/lib/systemd/system",
        "/lib/systemd/system",
    ];
    let is_there = |folder: &str| Path::new(folder).join("renewd.service").exists();
    Path::new("/run/systemd/system").exists() && folders.iter().any(|folder| is_there(folder))
}

/// This program as it was called.
fn program() -> String {
    let called = std::env::args().next().unwrap_or_default();
    match called.as_str() {
        "" => "renewd".to_owned(),
        called => word(called),
    }
}

/// One word for a shell.
fn word(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@:,=".contains(c);
    match !text.is_empty() && text.chars().all(is_plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', "'\\''")),
    }
}

/// A text as TOML holds it.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn path_in_toml(path: &Path) -> Result<String, Failed> {
    let text = path.to_str().ok_or_else(|| {
        let shown = path.display();
        Failed::usage(format!(
            "{shown} is not UTF-8, so no configuration can name it"
        ))
    })?;
    Ok(quoted(text))
}

/// A secret and a line end.
fn line(text: &Secret) -> Secret {
    Secret::new(format!("{}\n", text.expose()))
}

/// Mode and owner of what is made; `None` is whoever makes it.
#[derive(Debug, Clone, Copy)]
struct Access {
    mode: u32,
    uid: Option<u32>,
    gid: Option<u32>,
}

/// Files and folders that are all made, or none: what was made is removed again, unless it is kept.
#[derive(Debug, Default)]
struct NewFiles {
    folders: Vec<PathBuf>,
    files: Vec<PathBuf>,
}

impl NewFiles {
    /// A folder, with those above it that are missing.
    fn folders(&mut self, folder: &Path, access: Access) -> Result<(), Failed> {
        let missing: Vec<&Path> = folder
            .ancestors()
            .take_while(|part| !part.exists())
            .collect();
        for part in missing.into_iter().rev() {
            let made = (|| {
                DirBuilder::new().mode(0o700).create(part)?;
                self.folders.push(part.to_owned());
                if part == folder {
                    chown(part, access.uid, access.gid)?;
                    fs::set_permissions(part, Permissions::from_mode(access.mode))?;
                }
                Ok(())
            })();
            made.map_err(|error| unwritable(part, &error))?;
        }
        Ok(())
    }

    /// A file with this text: whole, or not there. What is there stays as it is.
    fn file(&mut self, path: &Path, text: &Secret, access: Access) -> Result<(), Failed> {
        let folder = path.parent().unwrap_or(Path::new("/"));
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let beside = folder.join(format!(".{name}.{}", std::process::id()));
        let written = (|| {
            let mut open = OpenOptions::new();
            let mut file = open
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&beside)?;
            file.write_all(text.expose().as_bytes())?;
            chown(&beside, access.uid, access.gid)?;
            file.set_permissions(Permissions::from_mode(access.mode))?;
            file.sync_all()?;
            // Unlike a rename this replaces nothing.
            fs::hard_link(&beside, path)?;
            self.files.push(path.to_owned());
            fs::remove_file(&beside)?;
            File::open(folder)?.sync_all()
        })();
        written.map_err(|error: io::Error| {
            // What is left of a failed attempt.
            fs::remove_file(&beside).ok();
            match error.kind() {
                io::ErrorKind::AlreadyExists => there(path),
                _ => unwritable(path, &error),
            }
        })
    }

    /// Leaves it all there.
    fn keep(mut self) -> Vec<PathBuf> {
        self.folders.clear();
        std::mem::take(&mut self.files)
    }
}

impl Drop for NewFiles {
    fn drop(&mut self) {
        for file in self.files.iter().rev() {
            fs::remove_file(file).ok();
        }
        for folder in self.folders.iter().rev() {
            fs::remove_dir(folder).ok();
        }
    }
}
