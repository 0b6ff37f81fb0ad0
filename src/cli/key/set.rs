//! `renewd key set`: puts a new key in place, proved first.

use std::{
    fs::{self, File},
    io::{Read, Write},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use zeroize::Zeroizing;

use super::super::{
    Context,
    exit::{Exit, Failed, Outcome},
    offline::{daemon_of, settings},
    output,
};
use crate::{
    acs::{Client, ConnectionString, Proof},
    config::{LoadedSecret, ResourceSettings, SecretRef},
    model::{KeyRole, ResourceName, Secret, text_of},
    transport::{NetworkOptions, Transport},
};

/// The proof may take so long.
const DEADLINE: Duration = Duration::from_secs(10);
/// No connection string is longer.
const LONGEST: u64 = 64 << 10;

/// Put a new key in place: read from standard input, proved, written into its file
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Standard input holds a connection string, or the key alone. The file that the configuration names is \
replaced in one step, mode 0600, its owner kept; a daemon that runs takes the key up."
)]
pub(crate) struct Set {
    /// The resource
    resource: ResourceName,
    /// Which key
    #[arg(long, default_value = "primary", value_name = "primary|secondary")]
    key: KeyRole,
    /// The configuration
    #[arg(long, value_name = "PATH")]
    config: Option<PathBuf>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

impl Set {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let client = daemon_of(&context, self.config.as_deref())?;
        let settings = settings(self.config.clone())?;
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
        let (place, path) = self.place(&resource)?;
        let text = connection_string(&read()?, &place)?;
        let fingerprint = self.prove(&resource, &text, &context).await?;
        replace(&path, &text)?;
        let reloaded = client.reload().await.ok();
        if self.json {
            output::print_json(&serde_json::json!({
                "resource": self.resource, "key": self.key, "fingerprint": fingerprint,
                "file": path, "taken_up": reloaded.is_some(),
                "effect": reloaded.as_ref().map(|reloaded| &reloaded.effect),
            }))?;
            return Ok(Exit::Done);
        }
        let daemon = match reloaded {
            Some(reloaded) => format!("the daemon has taken it up: {}", reloaded.effect),
            None => "no daemon took it up; one that starts reads it".to_owned(),
        };
        output::print(&format!(
            "the {} key {fingerprint} of {} works and is in {}; {daemon}\n",
            self.key,
            self.resource,
            path.display()
        ))?;
        Ok(Exit::Done)
    }

    /// Where the key lies now; only a file can be written.
    fn place(&self, resource: &ResourceSettings) -> Result<(LoadedSecret, PathBuf), Failed> {
        let loaded = match self.key {
            KeyRole::Primary => Some(&resource.connection_string),
            KeyRole::Secondary => resource.secondary_connection_string.as_ref(),
        };
        let Some(loaded) = loaded else {
            return Err(Failed::usage(format!(
                "{} has no secondary_connection_string in the configuration",
                self.resource
            )));
        };
        match &loaded.from {
            SecretRef::File(path) => Ok((loaded.clone(), path.clone())),
            SecretRef::Credential(name) => Err(Failed::usage(format!(
                "the {} connection string comes as the credential {name}, which only systemd can replace",
                self.key
            ))
            .hint("replace what LoadCredential names, then restart the daemon; tokens and socket survive that")),
            SecretRef::Env(name) => Err(Failed::usage(format!(
                "the {} connection string comes from the variable {name}, which only a restart can replace",
                self.key
            ))
            .hint("set it and restart the daemon; tokens and socket survive that")),
        }
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
            Client::new(resource, context.clock.clone(), transport).map_err(Failed::usage)?;
        let fingerprint = read.key.fingerprint().to_owned();
        match client.prove_new(self.key, &read.key, DEADLINE).await {
            Proof::Accepted => Ok(fingerprint),
            Proof::Denied(why) => Err(Failed::plain(format!(
                "the key {fingerprint} is refused, so nothing was written: {why}"
            ))),
            Proof::Unknown(why) => Err(Failed::plain(format!(
                "the key {fingerprint} could not be proved, so nothing was written: {why}"
            ))),
        }
    }
}

fn read() -> Result<Secret, Failed> {
    let mut bytes = Zeroizing::new(Vec::new());
    let cannot = |error: &dyn std::fmt::Display| {
        Failed::plain(format!("cannot read the key from standard input: {error}"))
    };
    std::io::stdin()
        .take(LONGEST)
        .read_to_end(&mut bytes)
        .map_err(|error| cannot(&error))?;
    let text = text_of(&bytes).map_err(|error| cannot(&error))?;
    match text.trim() {
        "" => Err(Failed::usage("there is no key on standard input")),
        text => Ok(Secret::new(text.to_owned())),
    }
}

/// A whole connection string: a bare key gets the endpoint of the one that it follows.
fn connection_string(given: &Secret, old: &LoadedSecret) -> Result<Secret, Failed> {
    let before = ConnectionString::parse(&old.secret).map_err(Failed::usage)?;
    let text = match given.expose().contains(';') {
        true => given.clone(),
        false => Secret::new(format!(
            "endpoint={};accesskey={}",
            before.endpoint.url("/"),
            given.expose()
        )),
    };
    let read = ConnectionString::parse(&text).map_err(Failed::usage)?;
    if read.endpoint != before.endpoint {
        return Err(Failed::usage(format!(
            "that is a key of {}, not of {}",
            read.endpoint, before.endpoint
        )));
    }
    Ok(text)
}

/// Writes the successor beside the file and renames it over: a reader sees the old one or the new.
fn replace(path: &Path, text: &Secret) -> Result<(), Failed> {
    let cannot = |error: std::io::Error| {
        Failed::plain(format!("cannot replace {}: {error}", path.display()))
            .hint("the key was not changed; run it as the file's owner or as root")
    };
    let path = fs::canonicalize(path).map_err(cannot)?;
    let meta = fs::metadata(&path).map_err(cannot)?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = folder.join(format!(".{name}.{}", std::process::id()));
    let written = (|| {
        let mut file = File::options().write(true).create_new(true).open(&beside)?;
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
        let own = file.metadata()?;
        if (own.uid(), own.gid()) != (meta.uid(), meta.gid()) {
            std::os::unix::fs::fchown(&file, Some(meta.uid()), Some(meta.gid()))?;
        }
        file.write_all(text.expose().as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        fs::rename(&beside, &path)?;
        File::open(folder)?.sync_all()
    })();
    written.map_err(|error| {
        // What is left of a failed attempt.
        fs::remove_file(&beside).ok();
        cannot(error)
    })
}
