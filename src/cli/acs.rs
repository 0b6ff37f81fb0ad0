//! `renewd acs`: one call to ACS each, without a daemon; for scripts, tests and emergencies. What a call
//! answered is shown as plain `name=value` lines for a shell or as one JSON document.

use std::{io::IsTerminal, path::PathBuf, time::Duration};

use clap::Subcommand;
use serde::Serialize;

use super::{
    Context,
    daemon::settings,
    duration,
    exit::{Exit, Failed, Outcome},
    input, output,
};
use crate::{
    acs::{AcsAnswer, Client, Created, Error, Issued, ResourceUrl},
    config::{
        self, CreatePolicy, CredentialSettings, Environment, KeySettings, Limits, LoadedSecret,
        ResourceSettings, SecretRef, Source,
    },
    model::{FailureClass, IdentityId, ResourceName, Scope, Secret, whole_seconds},
    transport::{NetworkOptions, Transport},
};

/// Where all ACS tools look for the connection string.
const CONNECTION_STRING: &str = "COMMUNICATION_SERVICES_CONNECTION_STRING";
/// The same for the endpoint alone, where Entra ID says who calls.
const ENDPOINT: &str = "COMMUNICATION_SERVICES_ENDPOINT";
/// Where OpenSSL and Python look for more authorities to trust.
const CA_VARIABLES: [&str; 2] = ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"];

/// Make one call to ACS, without a daemon
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The connection string is read from COMMUNICATION_SERVICES_CONNECTION_STRING, unless --resource or --endpoint names one.

Without access keys: the endpoint, by --endpoint or COMMUNICATION_SERVICES_ENDPOINT, and who calls, by the variables that \
Azure's libraries take: AZURE_TENANT_ID and AZURE_CLIENT_ID with AZURE_CLIENT_SECRET, AZURE_CLIENT_CERTIFICATE_PATH (PEM) or \
AZURE_FEDERATED_TOKEN_FILE; else the managed identity of this machine, one of several by AZURE_CLIENT_ID.")]
pub(crate) struct Acs {
    #[command(subcommand)]
    call: Call,
    /// Print one JSON document
    #[arg(long, global = true)]
    json: bool,
    /// Trust the certificates in this file besides the system's [default: SSL_CERT_FILE or
    /// REQUESTS_CA_BUNDLE]
    #[arg(long, global = true, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Go through this proxy, http://HOST:PORT [default: that of the [[resource]] with this endpoint]
    #[arg(long, global = true, value_name = "URL")]
    proxy: Option<String>,
    /// Call as this [[resource]] of the configuration says, and use its proxy and ca_file
    #[arg(long, global = true, value_name = "NAME")]
    resource: Option<ResourceName>,
    /// Call the resource that listens there by Entra ID, without access keys
    #[arg(long, global = true, value_name = "URL", conflicts_with = "resource")]
    endpoint: Option<String>,
    /// The configuration with the resources [default: as for `renewd check`]
    #[arg(long, global = true, value_name = "PATH")]
    config: Option<PathBuf>,
    /// How long the call may take
    #[arg(long, global = true, default_value = "30s", value_parser = duration::parse)]
    deadline: Duration,
}

#[derive(Debug, Subcommand)]
enum Call {
    /// Create an identity
    CreateUser,
    /// Issue a token for an identity
    IssueToken {
        /// The identity, 8:acs:…
        id: IdentityId,
        #[command(flatten)]
        asked: Asked,
    },
    /// Create an identity together with its first token
    CreateUserWithToken {
        #[command(flatten)]
        asked: Asked,
    },
    /// Revoke all tokens of an identity
    RevokeTokens {
        /// The identity, 8:acs:…
        id: IdentityId,
    },
    /// Delete an identity for ever
    DeleteUser {
        /// The identity, 8:acs:…
        id: IdentityId,
    },
    /// Exchange a Teams user's Entra token, read from standard input
    ExchangeTeams {
        /// The app's client id in Entra
        #[arg(long)]
        app_id: String,
        /// The user's object id in Entra
        #[arg(long)]
        user_id: String,
    },
}

/// What token is asked for.
#[derive(Debug, clap::Args)]
struct Asked {
    /// What the token may be used for; may be given more than once
    #[arg(long = "scope", value_name = "SCOPE", default_value = "chat")]
    scopes: Vec<Scope>,
    /// How long it shall live, 1h to 24h
    #[arg(long, default_value = "24h", value_parser = duration::parse)]
    lifetime: Duration,
}

impl Acs {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let client = self.client(&context)?;
        let (json, resource) = (self.json, self.resource.clone());
        let made = Box::pin(self.call.make(&client, self.deadline)).await;
        let shown = made.map_err(|failed| {
            let trouble = client.bearer_view().and_then(|view| view.trouble);
            match (trouble, resource) {
                (Some(trouble), Some(resource)) => failed.hint(trouble.cause.remedy(&resource)),
                (Some(_), None) => failed.hint("renewd acs --help says by which variables it calls, docs/entra.md what each needs"),
                (None, _) => failed,
            }
        })?;
        shown.print(json)?;
        Ok(Exit::Done)
    }

    fn client(&self, context: &Context) -> Result<Client, Failed> {
        let mut settings = match &self.resource {
            Some(name) => self.configured(name)?,
            None => self.of_environment()?,
        };
        settings.proxy = self.proxy.clone().or(settings.proxy);
        // Entra ID is reached by the settings, too.
        let ca_file = self.ca_file.clone().or(settings.ca_file);
        settings.ca_file = ca_file.or_else(ca_of_environment);
        let options = NetworkOptions {
            ca_file: settings.ca_file.clone(),
            proxy: settings.proxy.clone(),
            ..NetworkOptions::default()
        };
        let transport = Transport::network(&options).map_err(Failed::usage)?;
        Client::new(&settings, context.clock.clone(), transport).map_err(Failed::usage)
    }

    /// The resource of the configuration.
    fn configured(&self, name: &ResourceName) -> Result<ResourceSettings, Failed> {
        let resources = settings(self.config.clone())?.resources;
        let found = resources.into_iter().find(|one| one.name == *name);
        found.ok_or_else(|| Failed::usage(format!("the configuration has no resource {name}")))
    }

    /// The resource of the variable, by the way that the configuration gives for its endpoint. One that nobody
    /// named and that cannot be read is none.
    fn of_environment(&self) -> Result<ResourceSettings, Failed> {
        let mut own = resource(match self.endpoint_alone() {
            Some(endpoint) => CredentialSettings::Entra(
                config::entra_of_environment(&endpoint, &Environment::of_process())
                    .map_err(Failed::usage)?,
            ),
            None => connection_string()?,
        })?;
        let known = match &self.config {
            Some(_) => settings(self.config.clone())?.resources,
            None => {
                let loaded = config::load(&Source::of_process(None));
                loaded.map_or_else(|_| Vec::new(), |loaded| loaded.settings.resources)
            }
        };
        let this = ResourceUrl::of(&own);
        if let Some(same) = known.into_iter().find(|one| ResourceUrl::of(one) == this) {
            (own.proxy, own.ca_file) = (same.proxy, same.ca_file);
        }
        Ok(own)
    }

    /// The endpoint of a resource that is called without access keys. A connection string in the environment is meant,
    /// unless something was named.
    fn endpoint_alone(&self) -> Option<String> {
        let of = |name| std::env::var(name).ok().filter(|text| !text.is_empty());
        let named = self.endpoint.clone();
        named.or_else(|| of(ENDPOINT).filter(|_| of(CONNECTION_STRING).is_none()))
    }
}

impl Call {
    async fn make(self, client: &Client, deadline: Duration) -> Result<Shown, Failed> {
        let shown = match self {
            Self::CreateUser => Shown::created(client.create(None, deadline).await?),
            Self::CreateUserWithToken { asked } => {
                let asked = Some((asked.scopes.as_slice(), asked.lifetime));
                Shown::created(client.create(asked, deadline).await?)
            }
            Self::IssueToken { id, asked } => {
                let answer = client.issue(&id, &asked.scopes, asked.lifetime, deadline);
                Shown::issued(Some(id.clone()), answer.await?)
            }
            Self::RevokeTokens { id } => {
                Shown::done("revoked", id.clone(), client.revoke(&id, deadline).await?)
            }
            Self::DeleteUser { id } => {
                Shown::done("deleted", id.clone(), client.delete(&id, deadline).await?)
            }
            Self::ExchangeTeams { app_id, user_id } => {
                let token = secret_from_stdin()?;
                let answer = client.exchange(&token, &app_id, &user_id, deadline);
                Shown::issued(None, answer.await?)
            }
        };
        Ok(shown)
    }
}

fn connection_string() -> Result<CredentialSettings, Failed> {
    match std::env::var(CONNECTION_STRING) {
        Ok(text) if !text.is_empty() => Ok(CredentialSettings::Keys(KeySettings {
            connection_string: LoadedSecret {
                from: SecretRef::Env(CONNECTION_STRING.to_owned()),
                secret: Secret::new(text),
            },
            secondary_connection_string: None,
        })),
        _ => Err(Failed::usage(format!("{CONNECTION_STRING} is not set"))
            .hint(
                "it reads endpoint=https://<resource>.communication.azure.com/;accesskey=<key>; or name a \
                 [[resource]] of the configuration with --resource, or an endpoint with --endpoint",
            )),
    }
}

fn ca_of_environment() -> Option<PathBuf> {
    let set = CA_VARIABLES.into_iter().filter_map(std::env::var_os);
    set.filter(|path| !path.is_empty())
        .map(PathBuf::from)
        .next()
}

/// The resource that is called so, with every default.
fn resource(credential: CredentialSettings) -> Result<ResourceSettings, Failed> {
    Ok(ResourceSettings {
        name: "acs".parse().map_err(Failed::plain)?,
        credential,
        ca_file: None,
        proxy: None,
        api_version: "2023-10-01".to_owned(),
        create: CreatePolicy::Auto,
        limits: Limits::default(),
        max_in_flight: 1,
    })
}

fn secret_from_stdin() -> Result<Secret, Failed> {
    if std::io::stdin().is_terminal() {
        return Err(Failed::usage("the Entra token is read from standard input")
            .hint("renewd acs exchange-teams … < token-file"));
    }
    input::secret_on_stdin("Entra token")
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        let failed = Self::plain(&error);
        let id = error.request_id.as_deref().unwrap_or("none");
        match error.class() {
            FailureClass::Credentials => failed.hint(format!(
                "is the access key the right one, and this machine's clock? (request id {id})"
            )),
            _ => failed.hint(format!("the request id is {id}")),
        }
    }
}

/// An answer that is to be shown; what a call does not give is left out.
#[derive(Debug, Default)]
struct Shown {
    result: Option<&'static str>,
    id: Option<IdentityId>,
    token: Option<Issued>,
    request_id: Option<String>,
}

#[derive(Serialize)]
struct Document<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a IdentityId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    request_id: Option<&'a str>,
}

impl Shown {
    pub(super) fn created(answer: AcsAnswer<Created>) -> Self {
        Self {
            id: Some(answer.value.id),
            token: answer.value.token,
            request_id: answer.request_id,
            ..Self::default()
        }
    }

    pub(super) fn issued(id: Option<IdentityId>, answer: AcsAnswer<Issued>) -> Self {
        Self {
            id,
            token: Some(answer.value),
            request_id: answer.request_id,
            ..Self::default()
        }
    }

    pub(super) fn done(result: &'static str, id: IdentityId, answer: AcsAnswer<()>) -> Self {
        Self {
            result: Some(result),
            id: Some(id),
            request_id: answer.request_id,
            ..Self::default()
        }
    }

    pub(super) fn print(&self, json: bool) -> Result<(), Failed> {
        let document = Document {
            result: self.result,
            id: self.id.as_ref(),
            token: self.token.as_ref().map(|token| token.secret.expose()),
            expires_at: self
                .token
                .as_ref()
                .map(|token| whole_seconds(token.expires_at)),
            request_id: self.request_id.as_deref(),
        };
        if json {
            return output::print_json(&document);
        }
        let lines = [
            ("result", document.result),
            ("id", document.id.map(IdentityId::as_str)),
            ("token", document.token),
            ("expires_at", document.expires_at.as_deref()),
            ("request_id", document.request_id),
        ];
        let said = lines
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)));
        let text: String = said
            .map(|(name, value)| format!("{name}={value}\n"))
            .collect();
        output::print_secret_lines(&Secret::new(text))
    }
}
