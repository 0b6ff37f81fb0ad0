//! `renewd key`: which keys there are, what each minted, and a new one put in place after it was proved; also
//! of the key that seals the store. The replacement of an access key without a gap is in [`roll`].

mod roll;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::Timestamp;
use roll::Gaps;
use zeroize::Zeroizing;

use super::{
    Context, check,
    daemon::{daemon, daemon_of, settings},
    exit::{Exit, Failed, Outcome},
    input,
    output::{self, BAD, Cell, DIM, GOOD, STRONG, Table, paint, relative, wrapped},
};
use crate::{
    acs::{self, ConnectionString, Proof},
    api::client::{
        DaemonClient,
        wire::{KeyChange, KeyItem, KeyStage, KeyStanding, Resealing, ResourceKeys, StoreWord},
    },
    config::{self, CredentialSettings, EntraSettings, LoadedSecret, ResourceSettings, SecretRef},
    model::{BearerView, KeyDoubt, KeyRole, ResourceName, Secret},
    transport::{NetworkOptions, Transport},
};

/// Show access keys and replace one without a gap; replace the seal key
#[derive(Debug, clap::Args)]
pub(crate) struct Key {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Show the keys, what each minted, and how far a replacement is
    Status(Status),
    /// Replace a key: other key signs, every token is re-minted and delivered, then regenerate
    Roll(roll::Roll),
    /// Replace a key that somebody else has; says first what it costs
    Leak(roll::Leak),
    /// Replace the key that the store is sealed with; renewals and deliveries go on meanwhile
    Reseal(Reseal),
    /// Put a new key in place: read from standard input, proved, written into its file
    Set(Set),
}

impl Key {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        match self.verb {
            Verb::Status(verb) => verb.run(context).await,
            Verb::Roll(verb) => verb.run(context).await,
            Verb::Leak(verb) => verb.run(context).await,
            Verb::Reseal(verb) => verb.run(context).await,
            Verb::Set(verb) => Box::pin(verb.run(context)).await,
        }
    }
}

/// Between two looks at how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Replace the key that the store is sealed with; renewals and deliveries go on meanwhile
#[derive(Debug, clap::Args)]
#[command(
    after_help = "A new key is made, every stored token is sealed with it, and only then does it take the place of the old \
one. Whatever is killed meanwhile, the daemon goes on with it, and the same command follows it. The old key is kept for backups \
made before; where the configuration gives the key (a credential, a file), what is left to do is printed."
)]
pub(crate) struct Reseal {
    /// Why, for the audit trail
    #[arg(long)]
    reason: Option<String>,
    /// Only show how far a replacement is
    #[arg(long)]
    status: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

impl Reseal {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let client = daemon(context.socket);
        if self.status {
            return self.show(&client.resealing().await?);
        }
        let word = StoreWord {
            reason: self.reason.clone(),
        };
        let started = client.reseal(&word).await?;
        let mut now = started.now;
        let mut told = None;
        while now.successor.is_some() {
            if !self.json && told != Some(now.sealed) {
                output::aside(&progress(&now));
                told = Some(now.sealed);
            }
            tokio::time::sleep(LOOK_EVERY).await;
            now = client.resealing().await?;
        }
        if self.json {
            return self.show(&now);
        }
        let left = now.by_hand.as_ref().unwrap_or(&started.former);
        output::print(&format!("the store is sealed with {}; {left}\n", now.key))?;
        Ok(Exit::Done)
    }

    fn show(&self, now: &Resealing) -> Outcome {
        if self.json {
            output::print_json(&serde_json::json!(now))?;
        } else {
            output::print(&(progress(now) + "\n"))?;
        }
        Ok(Exit::Done)
    }
}

fn progress(now: &Resealing) -> String {
    match (&now.successor, &now.by_hand) {
        (Some(next), _) => format!(
            "{} of {} tokens are sealed with {next}, the others with {}",
            now.sealed, now.tokens, now.key
        ),
        (None, Some(left)) => left.clone(),
        (None, None) => format!("the store is sealed with {}", now.key),
    }
}

/// The proof may take so long.
const DEADLINE: Duration = Duration::from_secs(10);

/// Put a new key in place: read from standard input, proved, written into its file
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Standard input holds a connection string, or the key alone. The file that the configuration names is \
replaced in one step, mode 0600, its owner kept; a daemon that runs takes the key up.

Where [resource.entra] calls, say --entra: standard input then holds the value of the app's new client secret, or its new \
certificate with the key, in PEM."
)]
pub(crate) struct Set {
    /// The resource
    resource: ResourceName,
    /// Which key
    #[arg(long, default_value = "primary", value_name = "primary|secondary")]
    key: KeyRole,
    /// The client secret or certificate of [resource.entra] instead of an access key
    #[arg(long, conflicts_with = "key")]
    entra: bool,
    /// The configuration
    #[arg(long, value_name = "PATH")]
    config: Option<PathBuf>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

const ON_EVERY_NODE: &str =
    "put it in place on every other node, too: `renewd status` names one that has another\n";

/// What was proved and lies in its file now.
struct Placed {
    /// In words, such as `primary key 012aaa8db7d1`.
    what: String,
    /// The same for programs.
    json: serde_json::Value,
    file: PathBuf,
}

impl Set {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let client = daemon_of(&context, self.config.as_deref())?;
        let settings = settings(self.config.clone())?;
        let is_node = settings.cluster.is_some();
        let resource = settings
            .resources
            .into_iter()
            .find(|one| one.name == self.resource);
        let resource = resource.ok_or_else(|| {
            Failed::usage(format!(
                "the configuration has no resource {}",
                self.resource
            ))
        })?;
        let placed = match resource.credential.entra() {
            Some(entra) => self.place_secret(&resource, entra, &context).await?,
            None => self.place_key(&resource, &context).await?,
        };
        let reloaded = client.reload().await.ok();
        let Placed {
            what,
            mut json,
            file,
        } = placed;
        if self.json {
            let effect = reloaded.as_ref().map(|reloaded| &reloaded.effect);
            json["resource"] = serde_json::json!(self.resource);
            json["file"] = serde_json::json!(file);
            json["taken_up"] = serde_json::json!(reloaded.is_some());
            json["effect"] = serde_json::json!(effect);
            output::print_json(&json)?;
            return Ok(Exit::Done);
        }
        let daemon = match reloaded {
            Some(reloaded) => format!("the daemon has taken it up: {}", reloaded.effect),
            None => "no daemon took it up; one that starts reads it".to_owned(),
        };
        output::print(&format!(
            "the {what} of {} works and is in {}; {daemon}\n{}",
            self.resource,
            file.display(),
            if is_node { ON_EVERY_NODE } else { "" }
        ))?;
        Ok(Exit::Done)
    }

    /// Proves a new access key and puts it in its file.
    async fn place_key(
        &self,
        resource: &ResourceSettings,
        context: &Context,
    ) -> Result<Placed, Failed> {
        let (place, file) = self.place(resource)?;
        let given = input::secret_on_stdin("key")
            .map_err(|failed| failed.hint("pipe a connection string or a key into it"))?;
        let text = connection_string(&given, &place)?;
        let fingerprint = self.prove(resource, &text, context).await?;
        replace(&file, &text)?;
        Ok(Placed {
            what: format!("{} key {fingerprint}", self.key),
            json: serde_json::json!({ "key": self.key, "fingerprint": fingerprint }),
            file,
        })
    }

    /// The same for what proves to Entra ID who calls.
    async fn place_secret(
        &self,
        resource: &ResourceSettings,
        entra: &EntraSettings,
        context: &Context,
    ) -> Result<Placed, Failed> {
        let word = entra.kind.name();
        let Some((_, old)) = entra.kind.secret() else {
            return Err(Failed::usage(format!(
                "{} is called by {word}, which has no secret that could be replaced",
                self.resource
            )));
        };
        if !self.entra {
            return Err(Failed::usage(format!(
                "{} has no access keys: it is called by {word}",
                self.resource
            ))
            .hint(format!("renewd key set {} --entra", self.resource)));
        }
        let file = file_of(old, &format!("the {word}"))?;
        let given = input::secret_on_stdin(word.as_str()).map_err(|failed| {
            failed
                .hint("pipe the value of the secret into it, or the certificate and its key in PEM")
        })?;
        let new = config::entra_with_secret(entra, given.clone()).map_err(|(why, hint)| {
            Failed::usage(format!("what is on standard input {why}")).hint(hint)
        })?;
        let mut with = resource.clone();
        with.credential = CredentialSettings::Entra(new);
        check::reach_by_entra(&with, context)
            .await
            .map_err(|failed| {
                Failed::plain(format!(
                    "nothing was written: the new {word} could not be proved: {failed}"
                ))
            })?;
        replace(&file, &given)?;
        Ok(Placed {
            what: word.to_string(),
            json: serde_json::json!({ "entra": word }),
            file,
        })
    }

    /// Where the key lies now; only a file can be written.
    fn place(&self, resource: &ResourceSettings) -> Result<(LoadedSecret, PathBuf), Failed> {
        let Some(keys) = resource.credential.keys() else {
            return Err(Failed::usage(format!(
                "{} has no access keys",
                self.resource
            )));
        };
        let Some(loaded) = keys.of(self.key) else {
            return Err(Failed::usage(format!(
                "{} has no secondary_connection_string in the configuration",
                self.resource
            )));
        };
        let what = format!("the {} connection string", self.key);
        Ok((loaded.clone(), file_of(loaded, &what)?))
    }

    async fn prove(
        &self,
        resource: &ResourceSettings,
        text: &Secret,
        context: &Context,
    ) -> Result<String, Failed> {
        let read = ConnectionString::parse(text).map_err(Failed::usage)?;
        let options = NetworkOptions {
            ca_file: resource.ca_file.clone(),
            proxy: resource.proxy.clone(),
            ..NetworkOptions::default()
        };
        let transport = Transport::network(&options).map_err(Failed::usage)?;
        let client =
            acs::Client::new(resource, context.clock.clone(), transport).map_err(Failed::usage)?;
        let fingerprint = read.key.fingerprint().to_owned();
        match client.prove_new(self.key, &read.key, DEADLINE).await {
            Proof::Accepted | Proof::Unserved(_) => Ok(fingerprint),
            Proof::Denied(why) => Err(Failed::plain(format!(
                "the key {fingerprint} is refused, so nothing was written: {why}"
            ))),
            Proof::Unknown(why) => Err(Failed::plain(format!(
                "the key {fingerprint} could not be proved, so nothing was written: {why}"
            ))),
        }
    }
}

/// The file that a secret comes from.
fn file_of(loaded: &LoadedSecret, what: &str) -> Result<PathBuf, Failed> {
    match &loaded.from {
        SecretRef::File(path) => Ok(path.clone()),
        SecretRef::Credential(name) => Err(Failed::usage(format!(
            "{what} comes as the credential {name}, which only systemd can replace"
        ))
        .hint("replace what LoadCredential names, then restart the daemon; tokens and socket survive that")),
        SecretRef::Env(name) => Err(Failed::usage(format!(
            "{what} comes from the variable {name}, which only a restart can replace"
        ))
        .hint("set it and restart the daemon; tokens and socket survive that")),
    }
}

/// A whole connection string: a bare key gets the endpoint of the one that it follows.
fn connection_string(given: &Secret, old: &LoadedSecret) -> Result<Secret, Failed> {
    let before = ConnectionString::parse(&old.secret).map_err(Failed::usage)?;
    let text = match given.expose().contains(';') {
        true => given.clone(),
        false => Secret::new(format!(
            "endpoint={};accesskey={}",
            before.endpoint,
            given.expose()
        )),
    };
    let read = ConnectionString::parse(&text).map_err(Failed::usage)?;
    if read.endpoint != before.endpoint {
        return Err(Failed::usage(format!(
            "the key on standard input is one of {}, but this resource is {}",
            read.endpoint, before.endpoint
        )));
    }
    Ok(text)
}

fn replace(path: &Path, text: &Secret) -> Result<(), Failed> {
    let text = text.expose();
    let mut line = Zeroizing::new(Vec::with_capacity(text.len() + 1));
    line.extend_from_slice(text.as_bytes());
    line.push(b'\n');
    fs::canonicalize(path)
        .and_then(|path| output::replace(&path, &line, Some(0o600)))
        .map_err(|error| {
            Failed::plain(format!("cannot replace {}: {error}", path.display()))
                .hint("the key was not changed; run it as the file's owner or as root")
        })
}

/// Show the keys, what each minted, and how far a replacement is
#[derive(Debug, clap::Args)]
pub(crate) struct Status {
    /// Only this resource
    resource: Option<ResourceName>,
    /// Each identity of the newest replacement, with the length of its gap
    #[arg(long, requires = "resource")]
    identities: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

impl Status {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let client = daemon(context.socket);
        let keys = match &self.resource {
            Some(resource) => vec![client.keys(resource).await?],
            None => client.all_keys().await?,
        };
        let items = match &self.resource {
            Some(resource) if self.identities => Some(roll::everyone(&client, resource).await?),
            _ => None,
        };
        if self.json {
            let gaps = gaps(&client, &keys).await?;
            output::print_json(
                &serde_json::json!({ "resources": keys, "gaps": gaps, "identities": items }),
            )?;
            return Ok(Exit::Done);
        }
        let now = context.clock.now();
        for one in &keys {
            output::print(&render(one, now, output::width()))?;
        }
        if let Some(items) = items {
            output::print(&list(&items, now, output::width()))?;
            let change = keys.first().and_then(|one| one.change.as_ref());
            output::print(&Gaps::of(&items, change).to_string())?;
        }
        Ok(Exit::Done)
    }
}

/// Of one resource alone: of all of them it would be many pages.
async fn gaps(
    client: &DaemonClient,
    keys: &[ResourceKeys],
) -> Result<Option<serde_json::Value>, Failed> {
    match keys {
        [one] if one.change.is_some() => {
            let items = roll::everyone(client, &one.resource).await?;
            Ok(Some(Gaps::of(&items, one.change.as_ref()).json()))
        }
        _ => Ok(None),
    }
}

fn render(keys: &ResourceKeys, now: Timestamp, width: Option<usize>) -> String {
    let mut table = Table::new(&["", "", "", ">", ""]);
    for key in &keys.keys {
        let (word, style) = match key.standing {
            KeyStanding::Untried => ("not tried yet", DIM),
            KeyStanding::Accepted => ("accepted", GOOD),
            KeyStanding::Denied => ("refused", BAD),
        };
        let signs = if key.role == keys.in_use { "signs" } else { "" };
        table.row([
            key.role.as_str().into(),
            Cell::styled(word, style),
            Cell::styled(signs, STRONG),
            format!("{} tokens", key.tokens).into(),
            key.fingerprint.as_str().into(),
        ]);
    }
    let mut text = match &keys.bearer {
        Some(bearer) => without_keys(keys, bearer, now, width),
        None => format!("{}\n{}", keys.resource, table.render(2, width)),
    };
    let none = keys.none_works.iter().map(|none| none.told(&keys.resource));
    let doubts = keys.doubts.iter().filter(|doubt| doubt.tokens > 0);
    for trouble in none.chain(doubts.map(KeyDoubt::told)) {
        let told = wrapped(&trouble, width.map(|width| width.saturating_sub(4)), 4);
        text.push_str(&format!("  {} {told}\n", paint(BAD, "!")));
    }
    if let Some(change) = &keys.change {
        text.push_str(&change_progress(keys, change, now));
    }
    text
}

/// A resource that is called by Entra ID.
fn without_keys(
    keys: &ResourceKeys,
    bearer: &BearerView,
    now: Timestamp,
    width: Option<usize>,
) -> String {
    let requests = match bearer.requests {
        1 => "1 token request".to_owned(),
        many => format!("{many} token requests"),
    };
    let told = format!(
        "no access keys: it is called by {}; {requests} since the start",
        bearer.told(now)
    );
    let wrap = |text: &str| wrapped(text, width.map(|width| width.saturating_sub(4)), 4);
    let mut text = format!("{}\n  {}\n", keys.resource, wrap(&told));
    if let Some(trouble) = &bearer.trouble {
        let advice = trouble.advice(&keys.resource);
        text.push_str(&format!("  {} {}\n", paint(BAD, "!"), wrap(&advice)));
    }
    text
}

fn change_progress(keys: &ResourceKeys, change: &KeyChange, now: Timestamp) -> String {
    let all = change.pending + change.issued + change.delivered + change.over;
    let mut text = format!(
        "  replacement of the {} key {}, begun {} by {}: {}\n  {} of {all} tokens replaced and delivered, {} not yet \
         delivered, {} to be replaced\n",
        change.role,
        change.old_key,
        relative(change.started_at, now),
        change.actor,
        roll::stage(change.stage),
        change.delivered + change.over,
        change.issued,
        change.pending,
    );
    if let Some(trouble) = &change.trouble {
        text.push_str(&format!("  {trouble}\n"));
    }
    if change.stage == KeyStage::Regenerate {
        text.push_str(&roll::regenerate(keys, change));
    }
    text
}

fn list(items: &[KeyItem], now: Timestamp, width: Option<usize>) -> String {
    let mut table = Table::new(&["IDENTITY", "STATE", "DELIVERED", ">GAP"]);
    for item in items {
        let gap = roll::gap(item);
        table.row([
            item.name.as_str().into(),
            item.state.as_str().into(),
            item.delivered_at
                .map_or(String::new(), |at| relative(at, now))
                .into(),
            gap.into(),
        ]);
    }
    table.render(0, width)
}
