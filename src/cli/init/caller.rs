//! Who calls the resource of a first configuration, by flags or by the answers of a person: access keys, or Entra ID in
//! each of its four kinds; as it is written into the configuration and its secret files.

use std::path::{Path, PathBuf};

use super::super::{
    exit::Failed,
    input::{self, Person},
};
use crate::{
    acs::ConnectionString,
    config::{self, is_guid, is_tenant},
    model::{BearerKind, Secret},
};

/// Standard input, as a name of a file.
const STDIN: &str = "-";

#[derive(Debug, clap::Args)]
pub(super) struct Caller {
    /// The file that holds the connection string of the ACS resource (portal: Keys); - is standard input
    #[arg(long, value_name = "FILE", group = "caller")]
    connection_string_file: Option<PathBuf>,
    /// The same with the resource's secondary key
    #[arg(long, value_name = "FILE", conflicts_with = "endpoint")]
    secondary_connection_string_file: Option<PathBuf>,
    /// Without access keys: where the resource listens, https://NAME.communication.azure.com
    #[arg(long, value_name = "URL", conflicts_with = "connection_string_file")]
    endpoint: Option<String>,
    /// Call by the managed identity of this machine, a VM or one of Azure Arc
    #[arg(long, group = "caller")]
    managed_identity: bool,
    /// Call by the service account of a pod (federated credential)
    #[arg(long, group = "caller")]
    workload_identity: bool,
    /// Call by an app: the file that holds the value of its secret; - is standard input
    #[arg(long, value_name = "FILE", group = "caller")]
    client_secret_file: Option<PathBuf>,
    /// Call by an app: the file that holds its certificate and its RSA key in PEM; - is standard input
    #[arg(long, value_name = "FILE", group = "caller")]
    client_certificate_file: Option<PathBuf>,
    /// The tenant of the app or pod, by its GUID or a domain
    #[arg(long, value_name = "TENANT", conflicts_with = "connection_string_file")]
    tenant: Option<String>,
    /// The client id of the app or pod, or of the one of a machine's identities that is to call
    #[arg(long, value_name = "GUID", conflicts_with = "connection_string_file")]
    client_id: Option<String>,
}

/// Who calls, with everything that it takes.
pub(super) enum Chosen {
    Keys {
        primary: Secret,
        secondary: Option<Secret>,
    },
    Entra {
        endpoint: String,
        kind: BearerKind,
        tenant: Option<String>,
        client_id: Option<String>,
        secret: Option<Secret>,
    },
}

/// What a person says of who calls.
enum Asked {
    Keys(Secret),
    Entra(BearerKind),
}

const KINDS: [BearerKind; 4] = [
    BearerKind::ManagedIdentity,
    BearerKind::WorkloadIdentity,
    BearerKind::ClientSecret,
    BearerKind::ClientCertificate,
];

impl Caller {
    /// The kind that a flag names.
    fn kind(&self) -> Option<Option<BearerKind>> {
        let named = [
            (self.connection_string_file.is_some(), None),
            (self.managed_identity, Some(BearerKind::ManagedIdentity)),
            (self.workload_identity, Some(BearerKind::WorkloadIdentity)),
            (
                self.client_secret_file.is_some(),
                Some(BearerKind::ClientSecret),
            ),
            (
                self.client_certificate_file.is_some(),
                Some(BearerKind::ClientCertificate),
            ),
        ];
        let named = named.into_iter().find(|(is, _)| *is);
        named.map(|(_, kind)| kind)
    }

    /// The files that secrets come from.
    fn files(&self) -> impl Iterator<Item = &Path> {
        let files = [
            &self.connection_string_file,
            &self.secondary_connection_string_file,
            &self.client_secret_file,
            &self.client_certificate_file,
        ];
        files.into_iter().filter_map(Option::as_deref)
    }

    /// Whether standard input holds a secret, so that nobody can be asked there.
    ///
    /// # Errors
    /// When it would have to hold two.
    pub(super) fn takes_stdin(&self) -> Result<bool, Failed> {
        match self
            .files()
            .filter(|file| *file == Path::new(STDIN))
            .count()
        {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(
                Failed::usage("both connection strings cannot come on standard input")
                    .hint("put one of them into a file"),
            ),
        }
    }

    /// The flags that are missing, where nobody can be asked.
    pub(super) fn missing(&self) -> Vec<&'static str> {
        let Some(kind) = self.kind() else {
            return vec![match self.endpoint {
                None => "--connection-string-file FILE",
                Some(_) => {
                    "one of --managed-identity, --workload-identity, --client-secret-file FILE and \
                     --client-certificate-file FILE"
                }
            }];
        };
        let is_app = kind.is_some_and(is_app);
        let flags = [
            (kind.is_some() && self.endpoint.is_none(), "--endpoint URL"),
            (is_app && self.tenant.is_none(), "--tenant TENANT"),
            (is_app && self.client_id.is_none(), "--client-id GUID"),
        ];
        let missing = flags.into_iter().filter(|(is, _)| *is);
        missing.map(|(_, flag)| flag).collect()
    }

    /// What the flags say, and a person where they leave something open.
    pub(super) async fn chosen(&self, mut person: Option<&mut Person>) -> Result<Chosen, Failed> {
        let kind = match (self.kind(), &mut person) {
            (Some(Some(kind)), _) => kind,
            (None, Some(person)) => match self.asked(person).await? {
                Asked::Keys(primary) => return self.keys(primary),
                Asked::Entra(kind) => kind,
            },
            (Some(None) | None, _) => {
                let file = self.connection_string_file.as_deref();
                return self.keys(connection_string(file.unwrap_or(Path::new(STDIN)))?);
            }
        };
        let endpoint = text(self.endpoint.as_deref(), ENDPOINT, &mut person).await?;
        let (mut tenant, mut client_id) = (self.tenant.clone(), self.client_id.clone());
        if is_app(kind) {
            tenant = Some(text(self.tenant.as_deref(), TENANT, &mut person).await?);
            client_id = Some(text(self.client_id.as_deref(), CLIENT, &mut person).await?);
        }
        Ok(Chosen::Entra {
            endpoint,
            kind,
            tenant,
            client_id,
            secret: self.secret(kind, person).await?,
        })
    }

    /// What proves that it is the app, from the file that a flag names, or a person.
    async fn secret(
        &self,
        kind: BearerKind,
        person: Option<&mut Person>,
    ) -> Result<Option<Secret>, Failed> {
        let file = match kind {
            BearerKind::ClientSecret => self.client_secret_file.as_deref(),
            BearerKind::ClientCertificate => self.client_certificate_file.as_deref(),
            BearerKind::ManagedIdentity | BearerKind::WorkloadIdentity => return Ok(None),
        };
        let secret = match (file, person) {
            (None, Some(person)) if kind == BearerKind::ClientSecret => {
                let question = "Value of the app's client secret";
                let is_there = |text: &Secret| match text.expose() {
                    "" => Err("it is empty"),
                    _ => Ok(()),
                };
                person.secret(question, is_there).await?
            }
            (None, Some(person)) => {
                let question = "File with the app's certificate and its RSA key, in PEM";
                let read = |said: &str| input::secret_in(Path::new(said));
                person.answer(question, "", read).await?
            }
            (file, _) => read(file.unwrap_or(Path::new(STDIN)), kind.as_str())?.0,
        };
        Ok(Some(secret))
    }

    /// What a person says where no flag names a kind. Whoever has no connection string is asked what else calls.
    async fn asked(&self, person: &mut Person) -> Result<Asked, Failed> {
        if self.endpoint.is_none() {
            let question = "Connection string of the ACS resource (portal: Keys), or nothing to call by Entra ID";
            let primary = person.secret(question, usable_or_empty).await?;
            if !primary.expose().is_empty() {
                return Ok(Asked::Keys(primary));
            }
        }
        let words: Vec<&str> = KINDS.iter().map(|kind| kind.as_str()).collect();
        let question = format!("What proves who calls: {}", words.join(", "));
        let kind = person.answer(&question, words[0], kind_of).await?;
        Ok(Asked::Entra(kind))
    }

    fn keys(&self, primary: Secret) -> Result<Chosen, Failed> {
        let secondary = self.secondary_connection_string_file.as_deref();
        let secondary = secondary.map(connection_string).transpose()?;
        let of = |text: &Secret| ConnectionString::parse(text).map(|read| read.endpoint).ok();
        if secondary
            .as_ref()
            .is_some_and(|text| of(text) != of(&primary))
        {
            return Err(
                Failed::usage("the two connection strings name different resources")
                    .hint("copy both from the page Keys of the same resource"),
            );
        }
        Ok(Chosen::Keys { primary, secondary })
    }
}

fn is_app(kind: BearerKind) -> bool {
    matches!(
        kind,
        BearerKind::ClientSecret | BearerKind::ClientCertificate
    )
}

fn kind_of(said: &str) -> Result<BearerKind, &'static str> {
    let said = said.replace('-', "_");
    let found = KINDS.into_iter().find(|kind| kind.as_str() == said);
    found.ok_or("answer with one of these words")
}

/// A question and what an answer has to be.
type Question = (&'static str, fn(&str) -> Result<String, String>);

/// A text that a flag gives, or a person.
async fn text(
    flag: Option<&str>,
    (question, judge): Question,
    person: &mut Option<&mut Person>,
) -> Result<String, Failed> {
    match (flag, person) {
        (None, Some(person)) => person.answer(question, "", judge).await,
        (given, _) => judge(given.unwrap_or_default())
            .map_err(|why| Failed::usage(format!("{question}: {why}"))),
    }
}

const ENDPOINT: Question = ("Endpoint of the ACS resource (portal: Overview)", |said| {
    let judged = config::judge_origin(said);
    judged.map_err(|(why, hint)| format!("it {why}; {hint}"))
});
const TENANT: Question = ("Tenant of the app, its GUID or a domain", |said| {
    let is = is_tenant(said).then(|| said.to_owned());
    is.ok_or_else(|| "it is neither a GUID nor a domain".to_owned())
});
const CLIENT: Question = ("Client id of the app", |said| {
    let is = is_guid(said).then(|| said.to_owned());
    is.ok_or_else(|| "it is not a GUID".to_owned())
});

impl Chosen {
    /// Everything that Azure would say, made up.
    pub(super) fn made_up(primary: Secret) -> Self {
        Self::Keys {
            primary,
            secondary: None,
        }
    }

    /// What the resource may be called: the first part of its host's name.
    pub(super) fn usual_name(&self) -> String {
        let host = match self {
            Self::Keys { primary, .. } => {
                let read = ConnectionString::parse(primary);
                read.map(|read| read.endpoint.authority().to_owned())
                    .unwrap_or_default()
            }
            Self::Entra { endpoint, .. } => {
                let (_, host) = endpoint.split_once("://").unwrap_or_default();
                host.to_owned()
            }
        };
        let first = host.split(['.', ':']).next().unwrap_or_default();
        match first.starts_with(|c: char| c.is_ascii_alphabetic()) {
            true => first.to_owned(),
            false => "acs".to_owned(),
        }
    }

    /// Its secrets, each with the end of its file's name and the key that refers to it.
    pub(super) fn secrets(&self) -> Vec<(&'static str, &'static str, &Secret)> {
        match self {
            Self::Keys { primary, secondary } => {
                let second = secondary.as_ref();
                let second =
                    second.map(|text| ("-secondary.cs", "secondary_connection_string", text));
                std::iter::once((".cs", "connection_string", primary))
                    .chain(second)
                    .collect()
            }
            Self::Entra { kind, secret, .. } => {
                let end = match kind {
                    BearerKind::ClientCertificate => ".pem",
                    _ => ".secret",
                };
                let secret = secret.as_ref();
                secret
                    .map(|text| (end, kind.as_str(), text))
                    .into_iter()
                    .collect()
            }
        }
    }

    /// Its lines below `[[resource]]`; `file` is what refers to a secret's file by its end.
    pub(super) fn lines(
        &self,
        file: impl Fn(&str) -> Result<String, Failed>,
    ) -> Result<String, Failed> {
        let mut text = String::new();
        if let Self::Entra {
            endpoint,
            kind,
            tenant,
            client_id,
            ..
        } = self
        {
            text += &format!("endpoint = {endpoint:?}\n\n");
            text += "# Entra ID says who calls; its role and everything else that it needs: docs/entra.md.\n[resource.entra]\n";
            if matches!(
                kind,
                BearerKind::ManagedIdentity | BearerKind::WorkloadIdentity
            ) {
                text += &format!("{kind} = true\n");
            }
            for (key, value) in [("tenant", tenant), ("client_id", client_id)] {
                if let Some(value) = value {
                    text += &format!("{key} = {value:?}\n");
                }
            }
        }
        let secrets = self.secrets();
        if !secrets.is_empty() {
            text += "# The secret is in a file of its own, which nobody but its owner can read.\n";
        }
        for (end, key, _) in secrets {
            text += &format!("{key} = {{ file = {} }}\n", file(end)?);
        }
        Ok(text)
    }
}

/// A connection string that can be used, from a file or standard input.
fn connection_string(file: &Path) -> Result<Secret, Failed> {
    let (text, place) = read(file, "connection string")?;
    match usable(&text) {
        Ok(()) => Ok(text),
        Err(why) => Err(Failed::usage(format!("{place}: {why}"))),
    }
}

/// A secret from a file or standard input, and where that was.
fn read(file: &Path, what: &str) -> Result<(Secret, String), Failed> {
    match file == Path::new(STDIN) {
        true => Ok((input::secret_on_stdin(what)?, "standard input".to_owned())),
        false => Ok((input::secret_in(file)?, file.display().to_string())),
    }
}

fn usable_or_empty(text: &Secret) -> Result<(), String> {
    match text.expose().is_empty() {
        true => Ok(()),
        false => usable(text),
    }
}

/// Whether a connection string can be used; the reason shows nothing of it.
fn usable(text: &Secret) -> Result<(), String> {
    let read = ConnectionString::parse(text).map_err(|error| error.to_string())?;
    match read.endpoint.is_safe() {
        true => Ok(()),
        false => Err(
            "the endpoint in the connection string is plain http to another machine, which would show the tokens; \
             use https"
                .to_owned(),
        ),
    }
}
